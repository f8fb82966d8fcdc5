"""What was found, as a person reads it."""

from collections.abc import Mapping

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from data_adapters.contents import CHANNEL, SAMPLE, TIME
from data_adapters.inspect.axes import Layout
from data_adapters.inspect.findings import WELL, Found
from data_adapters.inspect.opening import Split
from data_adapters.inspect.proposal import megabytes
from data_adapters.inspect.ranges import Range

__all__ = ["print_found", "print_splits"]

_MOST_ROWS = 40


def print_found(console: Console, found: Found, layout: Layout | None, ranges: Mapping[str, Range]) -> None:
    """Container, axes and arrays.  `layout` is None where it is to be asked for."""
    container = found.container
    files = container.files
    several = f", {len(files)} files like" if len(files) > 1 and found.adapter != WELL else ":"
    console.print(f"{container.label}{several} {files[0]}")
    if layout is not None:
        console.print(_axes(found, layout))
    console.print(_arrays(found, layout, ranges))
    if found.skipped:
        skipped = [f"{name} ({why})" for name, why in found.skipped.items()]
        console.print(f"Not numbers: {', '.join(skipped[:12])}{' ...' if len(skipped) > 12 else ''}")
    read, total = sum(r.num_bytes for r in ranges.values()), sum(found.arrays[name].num_bytes for name in ranges)
    if ranges:
        count, of = max((r.frames, r.of_frames) for r in ranges.values())
        whole = all(r.frames >= r.of_frames and not r.partial for r in ranges.values())
        part = "parts of " if any(r.partial for r in ranges.values()) else ""
        console.print(
            f"Ranges from {'all' if whole else f'{part}{count} of {of}'} frames: {megabytes(read)} read; "
            f"{megabytes(total)} in memory as float32{' for the first file' if len(found.places) > 1 else ''}"
        )
    for name, seen in ranges.items():
        if seen.mark is not None:
            console.print(f"Note: {name}: {seen.mark:g} looks like a mark of missing values; it is read as a value")
    for note in (*found.notes, *(layout.notes if layout else ())):
        console.print(f"Note: {note}")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        right = column in ("size", "min", "max", "mean", "NaN", "memory")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def _axes(found: Found, layout: Layout) -> Table:
    table = _table("axis", "size", "is", "because of", "from", "to", "spacing", "unit")
    shown: set[str] = set()
    if found.trajectories:
        table.add_row("groups", str(found.trajectories), "trajectories", "they hold the same arrays")
    for name, dims in layout.dims.items():
        for dim, size in zip(dims, found.arrays[name].shape, strict=True):
            if dim in shown:
                continue
            shown.add(dim)
            meaning = {SAMPLE: "trajectories", TIME: "time", CHANNEL: "components"}.get(dim, "space")
            coordinate = layout.coordinates.get(dim)
            values = found.values(coordinate).reshape(-1)[:size] if coordinate else None
            unit = found.arrays[coordinate].unit if coordinate else ""
            own = layout.named.get(dim, dim)
            table.add_row(own, str(size), meaning, layout.why.get(dim, ""), *_spacing(values), unit)
    return table


def _spacing(values: np.ndarray | None) -> tuple[str, str, str]:
    if values is None or not len(values):
        return "", "", "no coordinate"
    if values.dtype.kind in "mM":
        return str(values[0]), str(values[-1]), str(np.median(np.diff(values))) if len(values) > 1 else ""
    values = values.astype(np.float64)
    steps = np.diff(values)
    if not len(steps):
        return f"{values[0]:g}", f"{values[-1]:g}", ""
    middle = float(np.median(steps))
    rounding = 1e-3 * abs(middle) + 4e-7 * float(np.abs(values).max())
    uniform = bool((np.abs(steps - middle) <= rounding).all())
    spacing = f"{middle:g}" if uniform else f"{steps.min():g} to {steps.max():g}, not uniform"
    return f"{values[0]:g}", f"{values[-1]:g}", spacing


def _arrays(found: Found, layout: Layout | None, ranges: Mapping[str, Range]) -> Table:
    table = _table("array", "dtype", "axes", "min", "max", "mean", "NaN", "in time", "unit", "chunks", "memory")
    coordinates = set(layout.coordinates.values()) if layout else set()
    rows = [array for array in found.arrays.values() if array.name not in coordinates]
    for array in sorted(rows, key=lambda array: -len(array.shape))[:_MOST_ROWS]:
        dims = layout.dims.get(array.name) if layout else None
        names = [layout.named.get(dim, dim) if layout else dim for dim in dims or array.dims]
        axes = " ".join(f"{dim} {size}" if dim else str(size) for dim, size in zip(names, array.shape, strict=True))
        seen = ranges.get(array.name)
        chunks = "x".join(map(str, array.chunks)) if array.chunks else "one piece"
        table.add_row(
            array.name,
            array.dtype,
            axes or "a number",
            *_range(seen),
            "" if seen is None or seen.steady is None else "constant" if seen.steady else "changes",
            array.unit,
            f"{chunks} {array.compression}".strip() if seen else "",
            megabytes(array.num_bytes) if seen else "",
        )
    if len(rows) > _MOST_ROWS:
        table.add_row(f"and {len(rows) - _MOST_ROWS} more")
    return table


def _range(seen: Range | None) -> tuple[str, str, str, str]:
    if seen is None:
        return "", "", "", ""
    absent = "0" if not seen.missing else f"{seen.missing:.1%}"
    infinite = f", {seen.infinite} infinite" if seen.infinite else ""
    return f"{seen.minimum:.4g}", f"{seen.maximum:.4g}", f"{seen.mean:.4g}", absent + infinite


def print_splits(console: Console, splits: Mapping[str, Split]) -> None:
    """The common layout of each split."""
    table = _table("split", "N", "T", "F", "C", "D", "H", "W")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, split in splits.items():
        table.add_row(name, *map(str, split.shape))
    console.print(table)
    spec = splits["train"].spec
    fields = [
        f"{field.name} ({', '.join(field.components)})" if len(field.components) > 1 else field.name
        for field in spec.fields
    ]
    boundary = ", ".join(
        f"{axis} {kind}" for axis, kind in zip(spec.axes, spec.boundary[-len(spec.axes) :], strict=True)
    )
    console.print(f"Fields {', '.join(fields)}; dt {spec.dt:g}; boundary {boundary}")
