"""Shared fixtures, and shape checking of everything that morph exports."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from filelock import FileLock
from jaxtyping import install_import_hook

# Before morph is imported: every jaxtyping signature is checked at every call of the tests.
_HOOK = install_import_hook(
    ["morph.layout", "morph.normalisation", "morph.metrics", "morph.model"], "beartype.beartype"
)

from tests.layout_files import close_files  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# Readers and models of the tests' own, which files name: a user says as much of a package of theirs.
os.environ["MORPH_TRUST"] = "tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def run_module(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in a folder, as a user would run it from there."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(autouse=True, scope="module")
def _no_open_files() -> None:
    """Close what the tests before have left open: which these are depends on the process that runs them."""
    close_files()


class Result(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A command in this process: what `run_module` does, without the seconds that a new interpreter takes."""

    def run(module: str, *options: str, cwd: Path) -> Result:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [module, *options])
        capsys.readouterr()
        code: int | str | None = 0
        try:
            import_module(module).main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        if isinstance(code, str):  # what the interpreter does with it
            return Result(1, printed.out, printed.err + code)
        return Result(code or 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def suite_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that holds the embedded suite at level tiny, generated once by its command for all processes of
    pytest-xdist."""
    here = tmp_path_factory.getbasetemp()
    data = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "suite"
    with FileLock(f"{data}.lock"):
        if not data.exists():
            data.mkdir()
            done = run_module("data_adapters.suite", "level=tiny", f"out={data}/suite", cwd=data)
            assert done.returncode == 0, done.stdout + done.stderr
    return data


@pytest.fixture(scope="session")
def tiny_suite(suite_root: Path) -> Path:
    """The folder of the ten tiny data sets."""
    return suite_root / "suite" / "tiny"
