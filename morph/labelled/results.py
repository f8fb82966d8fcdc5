"""Labels of a forecast: the input's own, its time carried on, and what the CF conventions have for forecasts."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from morph.labelled.fields import Part, Selection
from morph.labelled.times import Clock

__all__ = ["LEAD", "MEMBER", "REFERENCE", "Labels", "Output", "arrange", "label"]

LEAD, REFERENCE, MEMBER = "lead_time", "forecast_reference_time", "member"

_STALE = ("actual_range", "valid_range", "valid_min", "valid_max", "missing_value", "_FillValue", "coordinates")
_POINTS_TO = (
    "grid_mapping",
    "bounds",
    "climatology",
    "cell_measures",
    "ancillary_variables",
    "formula_terms",
    "coordinates",
)
_ENCODING = ("dtype", "units", "calendar", "scale_factor", "add_offset", "_FillValue")
_STATISTICS = {"mean": "mean", "spread": "standard_deviation"}


class Output(NamedTuple):
    """A variable of a forecast.

    name: of the variable.
    dims: its dimensions.
    attrs: its attributes.
    source: the variable of the input.
    statistic: "mean" or "spread" over the members, None of the forecasts themselves.
    entries: of its channel dimension, in order; None where it has none.
    """

    name: str
    dims: tuple[str, ...]
    attrs: Mapping[str, Any]
    source: str
    statistic: str | None
    entries: tuple[int, ...] | None


class Labels(NamedTuple):
    """What a forecast is labelled with.

    frame: coordinates and what they refer to, without the forecast variables.
    outputs: the forecast variables.
    sizes: of their dimensions.
    used: entries of each channel dimension that the forecast has.
    left_out: coordinates and others of the input that vary with time, which nobody knows for the future.
    """

    frame: xr.Dataset
    outputs: tuple[Output, ...]
    sizes: Mapping[str, int]
    used: Mapping[str, Sequence[int]]
    left_out: tuple[str, ...]

    def shape(self, output: Output) -> tuple[int, ...]:
        """Of a variable."""
        return tuple(self.sizes[dim] for dim in output.dims)


def label(
    dataset: xr.Dataset,
    selection: Selection,
    clock: Clock,
    last: int,
    steps: int,
    step: tuple[float, str | None],
    samples: Sequence[int] | None,
    members: int,
    command: str,
) -> Labels:
    """Labels of a forecast.

    Args:
        dataset: The input.
        selection: How it is understood.
        clock: Its time.
        last: The last frame of context.
        steps: How many frames are forecast.
        step: See `Clock.step`.
        samples: Trajectories that are forecast, None for all.
        members: Of the ensemble.
        command: How it was made, for the history.

    Raises:
        ValueError: A name that the forecast needs is taken.
    """
    roles = selection.roles
    entries = _entries(selection)
    outputs = _outputs(dataset, selection, entries, members)
    names = [output.name for output in outputs]
    taken = {*roles.axes, *([roles.sample] if roles.sample else [])}
    needed = {LEAD, REFERENCE, *([MEMBER] if members > 1 else [])}
    if clash := sorted(
        (needed & {*taken, roles.time, *roles.channel.values(), *names}) | (set(names) & set(dataset.coords))
    ):
        raise ValueError(f"{clash[0]}: the forecast needs this name; call the input's otherwise: dataset.rename(...)")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice}: the ensemble needs this name; call the input's otherwise: dataset.rename(...)")

    left_out = [str(name) for name, one in dataset.variables.items() if roles.time in one.dims and name != clock.name]
    kept = dataset.drop_dims(roles.time).drop_vars([LEAD, REFERENCE, clock.name], errors="ignore")
    wanted = _referred(dataset, {output.source for output in outputs} | {str(name) for name in kept.coords})
    kept = kept.drop_vars([name for name in kept.data_vars if name not in wanted])
    together: dict[str, set[int]] = {}
    for variable, dim in roles.channel.items():
        together.setdefault(dim, set()).update(entries[variable])
    used = {dim: sorted(numbers) for dim, numbers in together.items()}
    kept = kept.isel({dim: numbers for dim, numbers in used.items() if dim in kept.dims})
    sizes = {str(dim): size for dim, size in dataset.sizes.items()} | {d: len(numbers) for d, numbers in used.items()}
    sizes |= {roles.time: steps, MEMBER: members} if members > 1 else {roles.time: steps}
    if roles.sample and samples is not None:
        sizes[roles.sample] = len(samples)
        if roles.sample in kept.dims:
            kept = kept.isel({roles.sample: list(samples)})
        if roles.sample not in kept.coords:
            kept = kept.assign_coords({roles.sample: list(samples)})
    future = _future(clock, last, steps, step)
    if members > 1:
        about = {
            "standard_name": "realization",
            "long_name": "ensemble member; 0 is the control, which is not disturbed",
        }
        future[MEMBER] = xr.Variable((MEMBER,), np.arange(members), about)
    frame = kept.assign_coords(future).copy()  # whose encodings are its own
    for name, kept_as in frame.variables.items():
        kept_as.encoding = {key: value for key, value in kept_as.encoding.items() if key in _ENCODING}
        if name in frame.dims:
            kept_as.encoding["_FillValue"] = None  # no point of an axis may be missing
        elif name in frame.coords:
            kept_as.encoding.setdefault("_FillValue", None)
    frame.encoding = {}
    frame.attrs = _attributes(dataset, command)
    gone = tuple(name for name in left_out if name not in {output.source for output in outputs})
    return Labels(frame, outputs, sizes, used, gone)


def _entries(selection: Selection) -> dict[str, tuple[int, ...]]:
    """Entries of each variable with a channel dimension that are forecast, in the order of the input."""
    found: dict[str, set[int]] = {}
    for part in _flat(selection):
        if part.entry is not None:
            found.setdefault(part.variable, set()).add(part.entry)
    return {variable: tuple(sorted(numbers)) for variable, numbers in found.items()}


def _flat(selection: Selection) -> list[Part]:
    return [part for own in selection.parts for part in own]


def _outputs(
    dataset: xr.Dataset, selection: Selection, entries: Mapping[str, tuple[int, ...]], members: int
) -> tuple[Output, ...]:
    roles = selection.roles
    has_samples = roles.sample is not None
    outputs = []
    for name in dict.fromkeys(part.variable for part in _flat(selection)):
        array = dataset[name]
        dims = [str(dim) for dim in array.dims]
        # What does not vary with time, or between trajectories, does in a forecast.
        dims = dims if roles.time in dims else [roles.time, *dims]
        dims = [str(roles.sample), *dims] if has_samples and roles.sample not in dims else dims
        attrs = {key: value for key, value in array.attrs.items() if key not in _STALE}
        if "grid_mapping" in array.encoding:
            attrs.setdefault("grid_mapping", array.encoding["grid_mapping"])
        own = entries.get(name)
        if members == 1:
            outputs.append(Output(name, tuple(dims), attrs, name, None, own))
            continue
        place = dims.index(str(roles.sample)) + 1 if has_samples else 0
        outputs.append(Output(name, (*dims[:place], MEMBER, *dims[place:]), attrs, name, None, own))
        for statistic, method in _STATISTICS.items():
            methods = " ".join(filter(None, [str(attrs.get("cell_methods", "")), f"{MEMBER}: {method}"]))
            title = f"{attrs.get('long_name', attrs.get('standard_name', name))}, ensemble {statistic}"
            about = {**attrs, "long_name": title, "cell_methods": methods}
            outputs.append(Output(f"{name}_{statistic}", tuple(dims), about, name, statistic, own))
    return tuple(outputs)


def _referred(dataset: xr.Dataset, names: set[str]) -> set[str]:
    """What attributes of variables refer to: grid mappings, bounds, areas of cells."""
    found: set[str] = set()
    for name in names:
        stated = {**dataset[name].encoding, **dataset[name].attrs}
        for key in _POINTS_TO:
            found |= {word.rstrip(":") for word in str(stated.get(key, "")).split()}
    found = {name for name in found if name in dataset.variables}
    return found if found <= names else found | _referred(dataset, names | found)


def _future(clock: Clock, last: int, steps: int, step: tuple[float, str | None]) -> dict[str, xr.Variable]:
    dt, unit = step
    time = clock.extend(last, steps, dt, unit)
    # UDUNITS' singular: xarray would turn "hours" into durations when the file is opened.
    known = {"units": unit} if unit else {}
    lead = xr.Variable(
        (clock.dim,),
        dt * np.arange(1, steps + 1),
        {"standard_name": "forecast_period", "long_name": "time since the last frame known", **known},
    )
    start = clock.values[last] if clock.is_stated else last * dt
    attrs = {key: value for key, value in time.attrs.items() if key in ("units", "calendar")}
    reference = xr.Variable(
        (),
        start,
        {"standard_name": REFERENCE, "long_name": "time of the last frame known", **attrs},
        dict(time.encoding),
    )
    return {clock.name: time, LEAD: lead, REFERENCE: reference}


def _attributes(dataset: xr.Dataset, command: str) -> dict[str, Any]:
    conventions = str(dataset.attrs.get("Conventions", ""))
    if "CF-1" not in conventions:
        conventions = ", ".join(filter(None, ["CF-1.10", conventions]))
    line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {command}"
    history = str(dataset.attrs.get("history", "")).rstrip("\n")
    return {**dataset.attrs, "Conventions": conventions, "history": f"{history}\n{line}" if history else line}


def arrange(
    state: Float[np.ndarray, "B M F C D H W"],
    selection: Selection,
    outputs: Sequence[Output],
    used: Mapping[str, Sequence[int]],
) -> dict[str, np.ndarray]:
    """One frame of each forecast variable, in the order of its dimensions without time.

    Args:
        state: Of several trajectories and members; one member where there is no ensemble.
        selection: How the input is understood.
        outputs: What is wanted.
        used: Entries of each channel dimension that the forecast has; one that a variable lacks is NaN.
    """
    roles = selection.roles
    space = state.shape[4:][3 - len(roles.axes) :]
    places = {part: (f, c) for f, own in enumerate(selection.parts) for c, part in enumerate(own)}
    frames = {}
    for output in outputs:
        if output.entries is None:
            f, c = places[Part(output.source)]
            values, channel = state[:, :, f, c], []
        else:
            dim = roles.channel[output.source]
            empty = np.full(state.shape[:2] + state.shape[4:], np.nan, state.dtype)
            columns = (places.get(Part(output.source, number)) for number in used[dim])
            values = np.stack([empty if at is None else state[:, :, at[0], at[1]] for at in columns], 2)
            channel = [dim]
        values = values.reshape(*values.shape[: 2 + len(channel)], *space)
        if output.statistic:
            with np.errstate(invalid="ignore", over="ignore"):
                many = values.astype(np.float64)
                many = many.mean(1) if output.statistic == "mean" else many.std(1, ddof=1)
            values = many.astype(np.float32)[:, None]
        along = [roles.sample, MEMBER, *channel, *roles.axes]
        wanted = [dim for dim in output.dims if dim != roles.time]
        missing = tuple(number for number, dim in enumerate(along) if dim not in wanted)
        values = values.squeeze(missing)
        order = [dim for dim in along if dim in wanted]
        frames[output.name] = values.transpose([order.index(dim) for dim in wanted])
    return frames
