"""Text of files in a terminal: what would move the cursor, change colours or hide text is shown as a mark."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

__all__ = ["PlainConsole", "printable"]

_MARK = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """The text with a mark in the place of each control character but line breaks and tabs."""
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or char.isprintable() or char.isspace() else _MARK for char in text)


class PlainConsole(Console):
    """Shows names and texts of files as they are: no markup, no highlighting, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, with `printable` text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
