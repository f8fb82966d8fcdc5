"""Truth, prediction and error side by side, as pictures that need no script and print."""

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from morph.report.colours import NO_DATA, lookup
from morph.report.frames import LEVELS, NO_DATA_CODE, Film, Shown

__all__ = ["ERRORS", "Panel", "Picture", "palette_indices", "pictures"]

ERRORS = "PuOr"
"""Colours of errors."""


class Panel(NamedTuple):
    """An image, what it shows, and where its line of the picture begins anew."""

    row: str
    column: str
    alt: str
    source: str


class Picture(NamedTuple):
    """Panels of a component, row by row, with their colours."""

    component: Shown
    rows: list[tuple[str, list[Panel]]]
    columns: list[str]
    aspect: float
    caption: str


def palette_indices(
    film: Film, component: Shown, view: int, source: str, model: int = 0
) -> UInt8[np.ndarray, "n S plane rows columns"]:
    """Which of the 255 colours each point has, 255 where there is no value.

    Args:
        film: Of the data set.
        component: One of its.
        view: Number of it in `film.views`.
        source: truth, prediction or error.
        model: Number of it in `film.models`.
    """
    truth, error = component.codes[view][0], component.codes[view][1 + model]
    if source == "truth":
        return truth
    none = error == NO_DATA_CODE
    largest = component.errors[model]
    difference = largest * (error.astype(np.float64) - LEVELS / 2) / (LEVELS / 2)
    if source == "error":
        share = (difference / component.error + 1) / 2
    else:
        share = truth / LEVELS + difference / (component.high - component.low)
    # As JavaScript rounds: halves go up.
    indices = np.clip(np.floor(share * LEVELS + 0.5), 0, LEVELS)
    return np.where(none, NO_DATA_CODE, indices).astype(np.uint8)


def pictures(film: Film) -> list[Picture]:
    """Of the first component of each field: space-time panels on a line, else frames at the first, middle and last lead
    time, in volumes of the middle plane across the first axis."""
    shown: dict[str, Shown] = {}
    for component in film.components:
        shown.setdefault(component.field, component)
    return [_space_time(film, one) if not film.views[0].rows else _frames(film, one) for one in shown.values()]


def _sources(film: Film) -> Mapping[str, tuple[str, int]]:
    """Rows of a picture, and what `palette_indices` calls them."""
    found = {"truth": ("truth", 0)}
    for number, model in enumerate(film.models):
        if model == "model":
            found |= {"prediction": ("prediction", number), "error": ("error", number)}
        else:
            found |= {model: ("prediction", number), f"{model}, error": ("error", number)}
    return found


def _space_time(film: Film, component: Shown) -> Picture:
    axis = film.views[0].columns
    panels = []
    for title, (source, model) in _sources(film).items():
        indices = palette_indices(film, component, 0, source, model)[0, :, 0, 0]
        alt = f"{title} of {component.name} over {axis} (across) and lead time (upwards)"
        panels.append(Panel("", title, alt, _png(indices, ERRORS if source == "error" else component.colours)))
    # Truth, prediction and error of one model in a row.
    rows = [("", panels[:3]), *((f"{panels[i].column}", panels[i : i + 2]) for i in range(3, len(panels), 2))]
    caption = f"{axis} across, lead time {film.lead_time[0]:.3g} to {film.lead_time[-1]:.3g} upwards"
    return Picture(component, rows, [], 1.5, caption)


def _frames(film: Film, component: Shown) -> Picture:
    view = film.views[0]
    middle = len(view.positions) // 2
    steps = np.unique(np.linspace(0, len(film.lead_time) - 1, 3).round().astype(int))
    rows = []
    for title, (source, model) in _sources(film).items():
        indices = palette_indices(film, component, 0, source, model)[0, :, middle]
        panels = []
        for step in steps:
            when = f"{film.lead_time[step]:.3g}"
            alt = f"{title} of {component.name} at lead time {when}"
            image = _png(indices[step], ERRORS if source == "error" else component.colours)
            panels.append(Panel(title, when, alt, image))
        rows.append((title, panels))
    caption = f"{view.columns} across, {view.rows} upwards"
    if view.axis:
        caption += f", at {view.axis} = {view.positions[middle]:.3g}"
    columns = [f"lead time {film.lead_time[step]:.3g}" for step in steps]
    return Picture(component, rows, columns, aspect(film, 0), caption)


def aspect(film: Film, number: int) -> float:
    """Width of an image by its height, as the coordinates have it within reason."""
    view = film.views[number]
    extents = [abs(float(place[-1] - place[0])) * len(place) / max(len(place) - 1, 1) for place in (view.x, view.y)]
    if min(extents) <= 0 or not np.isfinite(extents).all():
        return 1.0
    return float(np.clip(extents[0] / extents[1], 0.4, 2.5))


def _png(indices: UInt8[np.ndarray, "rows columns"], colours: str) -> str:
    """As the address of an image; the first row is the lowest."""
    image = Image.fromarray(np.ascontiguousarray(indices[::-1]))
    image.putpalette(lookup(colours).tobytes() + bytes(NO_DATA))
    content = BytesIO()
    image.save(content, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
