"""Colours of the page, which follow its light and dark schemes; those of forecasts are the figures' own."""

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

__all__ = ["AXES", "INK", "NO_DATA", "RULES", "Line", "gradient", "lines_of", "lookup", "replacements"]

INK, AXES, RULES = "#010200", "#010201", "#010202"
"""What charts are drawn in before each is replaced by a property of the page: nobody draws in these by chance."""

NO_DATA = (150, 154, 160)
"""Grey of points without a value, on both schemes."""

_NAMED = {
    "model": ("#0072B2", "#5BB4E8"),
    "persistence": ("#8C8C8C", "#9A9A9A"),
    "extrapolation": ("#D55E00", "#F28C4B"),
}
_FURTHER = (
    ("#009E73", "#35C79B"), ("#CC79A7", "#E39AC2"), ("#B97F00", "#F0B429"), ("#2F8FCB", "#8CCBF2"),
    ("#8F8400", "#F0E442"), ("#6A3D9A", "#B39DDB"),
)  # fmt: skip
_DASHES = {"model": "", "persistence": "5 2.5", "extrapolation": "1.4 1.8"}
_FURTHER_DASHES = ("7 2 1.5 2", "3 1.5", "9 3", "5 1.5 1 1.5 1 1.5")


class Line(NamedTuple):
    """How a forecast is drawn, so that it is known without colours too.

    stand_in: its colour in a figure; css: the property that takes its place; light, dark: what that is; dashes: SVG's.
    """

    stand_in: str
    css: str
    light: str
    dark: str
    dashes: str


def lines_of(forecasts: Sequence[str]) -> dict[str, Line]:
    """A line for each forecast, in their order."""
    further, dashes = cycle(_FURTHER), cycle(_FURTHER_DASHES)
    found = {}
    for i, name in enumerate(forecasts):
        light, dark = _NAMED.get(name) or next(further)
        dash = _DASHES[name] if name in _DASHES else next(dashes)
        found[name] = Line(f"#0103{i:02x}", f"--forecast-{i}", light, dark, dash)
    return found


def replacements(lines: dict[str, Line]) -> dict[str, str]:
    """What stands in the page for each colour of a chart."""
    fixed = {INK: "currentColor", AXES: "var(--muted)", RULES: "var(--rule)"}
    return fixed | {line.stand_in: f"var({line.css})" for line in lines.values()}


def lookup(name: str) -> NDArray[np.uint8]:
    """255 colours of a colour map, (255, 3)."""
    return np.round(255 * colormaps[name](np.linspace(0, 1, 255))[:, :3]).astype(np.uint8)


def gradient(name: str) -> str:
    """A colour map as CSS draws it."""
    stops = lookup(name)[np.linspace(0, 254, 17).round().astype(int)]
    return "linear-gradient(90deg," + ",".join("#{:02x}{:02x}{:02x}".format(*stop) for stop in stops) + ")"
