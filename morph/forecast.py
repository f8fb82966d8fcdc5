"""Forecasting labelled data: an `xarray.Dataset` goes in, its continuation comes out."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from morph.data.windows import fill_absent
from morph.ensemble import Ensemble, rollouts
from morph.labelled.fields import FieldsOption, Selection, select
from morph.labelled.results import LEAD, Labels, Output, arrange, label
from morph.labelled.times import Clock
from morph.labelled.values import conditions_of, read
from morph.labelled.watch import Watch
from morph.layout import Conditions, TrainedOn
from morph.model.surrogate import Surrogate

__all__ = ["Forecasting", "Frame", "forecast", "plan"]


class Frame(NamedTuple):
    """One lead time of some trajectories.

    trajectories: which, counted in the forecast.
    lead: counted from 0.
    values: of each variable, without the dimension of time.
    """

    trajectories: slice
    lead: int
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Forecasting:
    """A forecast that is about to be made: all is decided and checked, and nothing but coordinates has been read.

    Args:
        model: Of the forecast.
        dataset: The input.
        selection: How it is understood.
        conditions: Of the system.
        masked: Whether points may have no value.
        context: Frames that the model sees.
        steps: Frames of the forecast.
        labels: Of the forecast.
        trajectories: Which are forecast, counted in the input.
        ensemble: Its members.
        batch_size: Trajectories times members that are computed together.
    """

    model: Surrogate
    dataset: xr.Dataset
    selection: Selection
    conditions: Conditions
    masked: bool
    context: range
    steps: int
    labels: Labels
    trajectories: tuple[int, ...]
    ensemble: Ensemble | None
    batch_size: int

    def frames(self, watch: "Watch | None" = None) -> Iterator[Frame]:
        """One lead time after the other; no other is kept.

        Args:
            watch: Told of every frame.

        Raises:
            ValueError: The context holds NaN that it must not, or infinity.
        """
        for first in range(0, len(self.trajectories), self.batch_size):
            numbers = self.trajectories[first : first + self.batch_size]
            context = read(self.dataset, self.selection, numbers, self.context, self.masked)
            if watch is not None:
                watch.start(context)
            filled = fill_absent(torch.from_numpy(context), len(self.context), self.conditions)
            known = self.conditions._replace(absent=filled.absent)
            start = filled.frames.to(self.model.device)
            states = rollouts(self.model, start, self.steps, known, self.ensemble, numbers, self.batch_size)
            for lead, of_members in enumerate(states):
                of_members = of_members.cpu()
                if filled.absent is not None:
                    of_members = torch.where(filled.absent, torch.nan, of_members)
                state = of_members.transpose(0, 1).numpy()
                if watch is not None:
                    watch.see(lead, state)
                values = arrange(state, self.selection, self.labels.outputs, self.labels.used)
                yield Frame(slice(first, first + len(numbers)), lead, values)

    def place(self, output: Output, frame: Frame) -> tuple[int | slice, ...]:
        """Where a frame belongs in the array of a variable."""
        roles = self.selection.roles
        index: dict[str | None, int | slice] = {roles.time: frame.lead, roles.sample: frame.trajectories}
        return tuple(index.get(dim, slice(None)) for dim in output.dims)


def plan(
    model: Surrogate,
    dataset: xr.Dataset,
    steps: int,
    *,
    like: str | None = None,
    fields: FieldsOption | None = None,
    axes: Sequence[str] | None = None,
    start: Any = None,
    context: int | None = None,
    trajectories: int | Sequence[int] | None = None,
    members: int = 1,
    perturbation: float | None = None,
    dropout: bool = False,
    seed: int = 0,
    boundary: str | Mapping[str, str] | None = None,
    missing: str | None = None,
    check_dt: bool = True,
    batch_size: int = 4,
    trained_on: TrainedOn | None = None,
    command: str = "",
) -> Forecasting:
    """Decide and check everything about a forecast, see `forecast`.

    Args:
        trained_on: In place of `model.trained_on`, of data that says itself what it is.
        command: How the forecast was made, for its history.

    Raises:
        ValueError: See `forecast`.
    """
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(
            f"dataset: expected an xarray.Dataset, found {type(dataset).__name__}; of a DataArray: array.to_dataset()"
        )
    known = trained_on or model.trained_on
    for option, number in (("steps", steps), ("batch_size", batch_size), ("members", members)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{option}: expected a positive integer, found {number!r}")
    ensemble = _ensemble(members, perturbation, dropout, seed)
    selection = select(dataset, known, like=like, fields=fields, axes=axes)
    _check_units(dataset, selection)
    clock = Clock(dataset, selection.roles.time)
    last = clock.locate(start)
    window = _window(model, known, context, last)
    shape = (len(selection.parts), max(map(len, selection.parts)), len(selection.roles.axes))
    model.admit("the input", len(window), *shape)
    if missing not in (None, "refuse", "mask"):
        raise ValueError(f"missing: expected refuse or mask, found {missing!r}")
    expected = selection.like.dt if selection.like else None
    step = clock.step(window, expected, check_dt)
    sample = selection.roles.sample
    numbers = _trajectories(trajectories, sample, dataset)
    line = command or f"morph.forecast: {steps} steps"
    chosen = None if trajectories is None else numbers
    labels = label(dataset, selection, clock, last, steps, step, chosen, members, line)
    statistics = known.statistics.get(selection.like.name) if known and selection.like else None
    return Forecasting(
        model=model,
        dataset=dataset,
        selection=selection,
        conditions=conditions_of(selection, statistics, boundary),
        masked=(missing == "mask") if missing else bool(selection.like and selection.like.masked),
        context=window,
        steps=int(steps),
        labels=labels,
        trajectories=numbers,
        ensemble=ensemble,
        batch_size=int(batch_size),
    )


def forecast(
    model: Surrogate, dataset: xr.Dataset, steps: int, *, device: torch.device | str | None = None, **options: Any
) -> xr.Dataset:
    """Continue labelled data by `steps` frames.

    The variables are those of the data set that the model was trained on, by their names in its files, else by the
    names of its components.  Dimensions are known by name: the axes of space as in training; time as the dimension
    `time`, or by what its coordinate says; one more dimension of a variable is that of trajectories, or, where entries
    of it are components, that of channels.  The grid may be finer or coarser than in training.

    The forecast starts from the last frames of the data, or from those that end at `start`; later ones are not read.
    It keeps names, order of dimensions, attributes, coordinates and grid mappings, and carries time on, in its own unit
    and calendar, with the coordinates `forecast_reference_time` and `lead_time` of the CF conventions; points without a
    value in all frames of context (land) have none in the forecast.  What varies with time and is not forecast is left
    out.  An ensemble has a dimension `member`, the first one after that of trajectories, of which member 0 is the
    forecast without disturbance, and for each variable its `_mean` and its `_spread`, the standard deviation with
    members - 1 in the denominator.

    Args:
        model: Its `trained_on` says what it learned from; else `fields` has to.
        dataset: In memory, or opened from a file, of which only the context is read.
        steps: Frames to forecast.
        device: Where to compute; the model is moved there.  None: where it is.
        options: All by keyword.

            like: Name of the data set of the training that this is like; None: the one whose variables are all here.
            fields: The variables, as in the YAML of a data set: names, or mappings of name, from and channels.  They
                stand for the fields of `like`, or of the data set that has fields of these names; else the system is
                new to the model (zero-shot).
            axes: Dimensions of space, in the order of those of the training.
            start: The last frame of context: its number as an int (-1 the last one), or its time, as `.sel` takes it.
                None: the last one.
            context: Frames that the model sees, up to what it takes; None: as many as in training.
            trajectories: One or some of them, by number; None: all.
            members: Of an ensemble.
            perturbation: Standard deviation of the noise on the context of its members, in units of each field's; 0.01
                where neither this nor `dropout` is given.
            dropout: Members differ by dropout, as in training.
            seed: Of noise and dropout.
            boundary: periodic, open or wall, for all axes or by name; None: as in training, open where not known.
            missing: "mask": NaN is a point without data; "refuse": an error; None: as in training.
            check_dt: Refuse data whose time step is not that of the training, to one part in a thousand.
            batch_size: Trajectories times members that are computed together.

    Raises:
        ValueError: The data cannot be understood, or in more than one way; its time step differs or varies; it holds
            NaN or infinity; it has more fields, components or frames than the model takes; an option is wrong.
    """
    if device is not None:
        model.to(device)
    made = plan(model, dataset, steps, **options)
    arrays = {output.name: np.empty(made.labels.shape(output), np.float32) for output in made.labels.outputs}
    watch = Watch(made.selection)
    for frame in made.frames(watch):
        for output in made.labels.outputs:
            arrays[output.name][made.place(output, frame)] = frame.values[output.name]
    result = made.labels.frame.assign(
        {output.name: (output.dims, arrays[output.name], output.attrs) for output in made.labels.outputs}
    )
    if lines := watch.warnings(result[LEAD].values.tolist(), unit=_unit(result)):
        warnings.warn("; ".join(lines), stacklevel=2)
    return result


def _unit(result: xr.Dataset) -> str:
    unit = result[LEAD].attrs.get("units", "")
    return f" {unit}" if unit else ""


def _check_units(dataset: xr.Dataset, selection: Selection) -> None:
    for field, own in zip(selection.like.fields if selection.like else (), selection.parts, strict=False):
        for part in own:
            found = dataset[part.variable].attrs.get("units")
            if field.unit and found and str(found) != field.unit:
                raise ValueError(
                    f"{part.variable}: expected the unit of the training, {field.unit}, found {found}; convert the "
                    "values, or, if that is another word for it, set the attribute units"
                )


def _ensemble(members: int, perturbation: float | None, dropout: bool, seed: int) -> Ensemble | None:
    if members > 1:
        return Ensemble(int(members), perturbation, dropout, seed)
    given = {"perturbation": perturbation is not None, "dropout": dropout, "seed": seed != 0}
    if any(given.values()):
        option = next(name for name, is_given in given.items() if is_given)
        raise ValueError(f"{option}: it has no effect on a single forecast; ask for an ensemble with members=8")
    return None


def _window(model: Surrogate, known: TrainedOn | None, context: int | None, last: int) -> range:
    """The frames of context, which end with `last`."""
    most = model.capacity.max_context
    length = context if context is not None else known.context if known else most
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or not 1 <= length <= most:
        raise ValueError(f"context: expected 1 to {most}, the frames that the model takes, found {length!r}")
    if last + 1 < length:
        stated = "as in training" if context is None else "as asked for"
        raise ValueError(
            f"context: expected {length} frames, {stated}, found {last + 1} up to frame {last}; give fewer with "
            f"context={last + 1}, or start later"
        )
    return range(last + 1 - length, last + 1)


def _trajectories(wanted: int | Sequence[int] | None, sample: str | None, dataset: xr.Dataset) -> tuple[int, ...]:
    if sample is None:
        if wanted is not None:
            raise ValueError(f"trajectories: the data has no dimension of trajectories; leave it out; found {wanted}")
        return (0,)
    count = dataset.sizes[sample]
    if wanted is None:
        return tuple(range(count))
    numbers = [wanted] if isinstance(wanted, int | np.integer) else list(wanted)
    valid = [isinstance(n, int | np.integer) and not isinstance(n, bool) and -count <= n < count for n in numbers]
    if not numbers or not all(valid) or len({n % count for n in numbers}) < len(numbers):
        raise ValueError(f"trajectories: expected different numbers of 0 to {count - 1} along {sample}, found {wanted}")
    return tuple(int(n) % count for n in numbers)
