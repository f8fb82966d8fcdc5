"""The package's commands in the process of a study, which saves the seconds that a new interpreter takes."""

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["command"]


def command(entry: Any, arguments: Sequence[str]) -> None:
    """A command's `main` with these options; what it prints is shown where it fails, and the study ends with it."""
    printed, before = io.StringIO(), sys.argv
    sys.argv = [sys.argv[0], *arguments]
    try:
        with contextlib.redirect_stdout(printed):
            entry()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{printed.getvalue()}\n{' '.join(arguments)}\n{end.code}")
    finally:
        sys.argv = before
