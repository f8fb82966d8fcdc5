"""How good are forecasts: errors over all windows one step ahead, and over the lead time of whole rollouts."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from morph.data.adapter import DatasetAdapter
from morph.data.mixture import EvenSampler
from morph.data.windows import Windows, fill_absent
from morph.layout import Conditions, DatasetSpec
from morph.metrics import METRICS, is_defined
from morph.rollout import Forecast, rollout

__all__ = ["UNSTABLE", "Scores", "check_lengths", "score", "summarise", "work"]

_TIME = "unit of time of the data set"

UNSTABLE = 10.0
"""A rollout is unstable from the lead time on at which a field's root mean square error exceeds this many standard
deviations of that field over the true trajectory, or is not finite."""


class Scores(NamedTuple):
    """What is known of the forecasts of one data set.

    metrics: `rollout` (forecast, trajectory, lead_time, field, metric), `one_step` (forecast, window, field, metric),
        `unstable_from` (forecast, trajectory), in lead time, NaN where the rollout stays stable; parameters.
    rollouts: each component (source, trajectory, time, axes...) of the first trajectories; source is truth or model.
    """

    metrics: xr.Dataset
    rollouts: xr.Dataset


@torch.inference_mode()
def score(
    forecasts: Mapping[str, Forecast],
    adapter: DatasetAdapter,
    *,
    context: int,
    batch_size: int,
    steps: int | None = None,
    one_step_windows: int | None = None,
    keep: int = 2,
    device: torch.device | str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Judge forecasts on every trajectory of a split.

    A rollout starts from the first T frames of a trajectory and is compared with all that follow.

    Of a masked data set only points that hold data are compared.  A field without any has no error, NaN, at that window
    or lead time; an infinite error is that of a forecast that is not finite.

    Args:
        forecasts: By name; the one called "model" is kept in `rollouts`.
        adapter: The split.
        context: Frames that a forecast sees, T.
        batch_size: Windows or trajectories at a time.
        steps: Length of the rollouts; None for the whole trajectory.
        one_step_windows: At most so many windows, evenly spaced; None for all.
        keep: Trajectories whose rollout is returned.
        device: Where to compute.
        advance: Called with the number of windows and frames that were just done, out of `work`.

    Raises:
        ValueError: The trajectories are too short for a context and `steps`.
    """
    spec = adapter.spec
    steps = check_lengths(adapter, context, steps, one_step_windows, batch_size)
    windows = Windows(adapter, context)
    known = _to(windows.conditions, device)
    one_step, places = _one_step(forecasts, windows, known, batch_size, one_step_windows, device, advance)
    errors, unstable, kept = _rollouts(forecasts, adapter, known, context, steps, batch_size, keep, device, advance)
    lead = spec.dt * np.arange(1, steps + 1)
    metrics = xr.Dataset(
        {
            "rollout": (("forecast", "trajectory", "lead_time", "field", "metric"), errors),
            "one_step": (("forecast", "window", "field", "metric"), one_step),
            "unstable_from": (("forecast", "trajectory"), np.where(unstable < steps, lead[unstable % steps], np.nan)),
            "window_trajectory": ("window", places[:, 0]),
            "window_start": ("window", places[:, 1]),
            **_parameters(adapter),
        },
        coords={
            "forecast": list(forecasts),
            "trajectory": np.arange(len(adapter)),
            "lead_time": ("lead_time", lead, {"long_name": "time since the last frame of context", "units": _TIME}),
            "field": [field.name for field in spec.fields],
            "metric": list(METRICS),
            "unit": ("field", [field.unit or "" for field in spec.fields]),
        },
        attrs={"dataset": spec.name, "context_frames": context, "dt": spec.dt},
    )
    definitions = {
        "metrics": "vrmse, nrmse: without unit, as The Well defines them; rmse, mae: in the unit of the field"
    }
    metrics.rollout.attrs = {"long_name": "error of a rollout from the first frames", **definitions}
    metrics.one_step.attrs = {"long_name": "error one step ahead", **definitions}
    metrics.unstable_from.attrs = {
        "long_name": f"lead time from which an error exceeds {UNSTABLE:g} standard deviations of its field, or is NaN"
    }
    return Scores(metrics, _labelled(kept, adapter, context))


def check_lengths(
    adapter: DatasetAdapter, context: int, steps: int | None, one_step_windows: int | None, batch_size: int
) -> int:
    """Steps of the rollouts that `score` would make.

    Raises:
        ValueError: The trajectories are too short, or a number is not positive.
    """
    for option, value in (("steps", steps), ("one_step_windows", one_step_windows), ("batch_size", batch_size)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{option}: expected a positive integer, found {value!r}")
    longest = adapter.spec.num_steps - context
    steps = longest if steps is None else steps
    if steps > longest or longest < 1:
        raise ValueError(
            f"data set {adapter.spec.name!r}: its trajectories have {adapter.spec.num_steps} frames; after {context} "
            f"frames of context {max(longest, 0)} remain to compare with, found steps={steps}"
        )
    return steps


def work(adapter: DatasetAdapter, context: int, steps: int | None, one_step_windows: int | None) -> int:
    """What `advance` adds up to."""
    windows = len(adapter) * (adapter.spec.num_steps - context)
    longest = adapter.spec.num_steps - context
    return min(windows, one_step_windows or windows) + len(adapter) * (longest if steps is None else steps)


def _one_step(
    forecasts: Mapping[str, Forecast],
    windows: Windows,
    known: Conditions,
    batch_size: int,
    limit: int | None,
    device: torch.device | str,
    advance: Callable[[int], None],
) -> tuple[Float[np.ndarray, "forecast window F metric"], np.ndarray]:
    name = windows.adapter.spec.name
    errors, places = [], []
    for _, indices in EvenSampler({name: windows}, batch_sizes={name: batch_size}, limit=limit):
        batch = windows.batch(indices)
        context, target = batch.context.to(device), batch.target[:, 0].to(device)
        valid = None if batch.valid is None else batch.valid[:, 0].to(device)
        of_batch = _with_absent(known, batch.conditions.absent, device)
        errors.append(_errors((f(context, of_batch) for f in forecasts.values()), target, of_batch, valid))
        places.append(batch.windows)
        advance(len(indices))
    return torch.cat(errors, 1).numpy(), torch.cat(places).numpy()


def _rollouts(
    forecasts: Mapping[str, Forecast],
    adapter: DatasetAdapter,
    known: Conditions,
    context: int,
    steps: int,
    batch_size: int,
    keep: int,
    device: torch.device | str,
    advance: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray, dict[str, Float[np.ndarray, "n S F C D H W"]]]:
    """Errors (forecast, trajectory, lead, F, metric); first unstable lead (forecast, trajectory), `steps` if none; the
    first rollouts."""
    errors, onsets = [], []
    kept: dict[str, list[Tensor]] = {"truth": [], "model": []}
    for first in range(0, len(adapter), batch_size):
        trajectories = range(first, min(first + batch_size, len(adapter)))
        frames = np.stack([adapter.read(i, 0, context + steps) for i in trajectories])
        _check_truth(frames, adapter, trajectories)
        truth = torch.from_numpy(frames).to(device)
        mine = max(0, min(keep - first, len(trajectories)))
        kept["truth"] += list(truth[:mine, context:].cpu())
        valid, conditions = None, known
        if adapter.spec.masked:
            truth, valid, absent = fill_absent(truth, context, known)
            conditions = known._replace(absent=absent)
        of_batch, onsets_of_batch = [], []
        for name, forecast in forecasts.items():
            is_model = name == "model"
            followed = _follow(
                forecast,
                _Truth(truth, valid, conditions, context),
                mine if is_model else 0,
                advance if is_model else lambda _: None,
            )
            of_batch.append(followed.errors)
            onsets_of_batch.append(followed.onset)
            kept["model"] += list(followed.states)
        errors.append(torch.stack(of_batch))
        onsets.append(torch.stack(onsets_of_batch))
    stacked = {name: torch.stack(values).numpy() for name, values in kept.items() if values}
    return torch.cat(errors, 1).numpy(), torch.cat(onsets, 1).numpy(), stacked


def _check_truth(frames: np.ndarray, adapter: DatasetAdapter, trajectories: range) -> None:
    """A fault in the data must not be taken for one of the forecast."""
    masked = adapter.spec.masked
    usable = (~np.isinf(frames) if masked else np.isfinite(frames)).all((2, 3, 4, 5, 6))
    if not usable.all():
        i, frame = np.argwhere(~usable)[0]
        found = "infinity" if masked else "NaN or infinity"
        raise ValueError(
            f"data set {adapter.spec.name!r}: {found} in trajectory {trajectories[i]}, frame {frame}; "
            "forecasts cannot be compared with it"
        )


class _Truth(NamedTuple):
    """Trajectories without NaN, which of their points hold data (None: all), and how many frames are context."""

    frames: Float[Tensor, "B T_and_S F C D H W"]
    valid: Bool[Tensor, "B T_and_S F C D H W"] | None
    known: Conditions
    context: int

    def holds_data(self, frame: int) -> Bool[Tensor, "B F C D H W"] | None:
        return None if self.valid is None else self.valid[:, frame]


class _Followed(NamedTuple):
    errors: Float[Tensor, "B S F metric"]
    onset: Int[Tensor, "B"]
    states: list[Tensor]


def _follow(forecast: Forecast, truth: _Truth, keep: int, advance: Callable[[int], None]) -> _Followed:
    """One forecast rolled out against the truth; the states of the first `keep` samples are returned, NaN on land."""
    frames, _, known, context = truth
    size, steps = len(frames), frames.shape[1] - context
    limit = UNSTABLE * _spread(truth).cpu()
    errors, states = [], []
    onset = torch.full((size,), steps)
    for lead, state in enumerate(rollout(forecast, frames[:, :context], steps, known), start=context):
        errors.append(_errors([state], frames[:, lead], known, truth.holds_data(lead))[0])
        rms = errors[-1][..., list(METRICS).index("rmse")]
        lost = ((rms > limit) | torch.isinf(rms)).any(-1)
        onset = torch.where(lost & (onset == steps), lead - context, onset)
        if keep:
            shown = state if known.absent is None else torch.where(known.absent, torch.nan, state)
            states.append(shown[:keep].cpu())
        advance(size)
    return _Followed(torch.stack(errors, 1), onset, list(torch.stack(states, 1)) if states else [])


def _errors(
    states: Iterable[Tensor], target: Tensor, known: Conditions, valid: Bool[Tensor, "B F C D H W"] | None
) -> Float[Tensor, "forecast B F metric"]:
    """A state that is not finite has an infinite error, whatever the metric makes of it; NaN: there is no data."""
    mask = known.component_mask
    table = []
    for state in states:
        state = state.float()
        values = torch.stack([metric(state, target, mask, valid) for metric in METRICS.values()], -1)
        table.append(torch.where(torch.isfinite(values), values, torch.inf))
    errors = torch.stack(table)
    if valid is not None:
        defined = torch.stack([is_defined(metric, mask, valid) for metric in METRICS.values()], -1)
        errors = torch.where(defined, errors, torch.nan)
    return errors.cpu()


def _spread(truth: _Truth) -> Float[Tensor, "B F"]:
    """Standard deviation of each field over the trajectory; its magnitude where it is constant up to rounding."""
    frames, valid, known, _ = truth
    space_and_time = (1, 4, 5, 6)
    if valid is None:
        variance, square = frames.var(space_and_time), frames.square().mean(space_and_time)
    else:
        count = valid.sum(space_and_time)
        held = torch.where(valid, frames, 0.0)
        mean = held.sum(space_and_time) / count.clamp(min=1)
        deviation = torch.where(valid, frames - mean[:, None, ..., None, None, None], 0.0)
        variance = deviation.square().sum(space_and_time) / (count - 1).clamp(min=1)
        square = held.square().sum(space_and_time) / count.clamp(min=1)
    std = (variance * known.component_mask).amax(-1).sqrt()
    rms = (square * known.component_mask).amax(-1).sqrt()
    return torch.where(std > 1e-5 * rms, std, torch.where(rms > 0, rms, torch.inf))


def _with_absent(known: Conditions, absent: Tensor | None, device: torch.device | str) -> Conditions:
    return known if absent is None else known._replace(absent=absent.to(device))


def _to(known: Conditions, device: torch.device | str) -> Conditions:
    statistics = known.statistics
    if statistics is not None:
        statistics = type(statistics)(*(value.to(device) for value in statistics))
    return known._replace(component_mask=known.component_mask.to(device), statistics=statistics)


def _parameters(adapter: DatasetAdapter) -> dict[str, Any]:
    values = [adapter.parameters(i) for i in range(len(adapter))]
    attributes = {"long_name": "parameter of the simulation"}
    return {
        f"parameter_{name}": ("trajectory", np.array([v[name] for v in values]), attributes)
        for name in adapter.spec.parameters
    }


def _labelled(kept: Mapping[str, np.ndarray], adapter: DatasetAdapter, context: int) -> xr.Dataset:
    """Rollouts as one variable per component, on the data set's own coordinates."""
    spec = adapter.spec
    if not kept:
        return xr.Dataset(attrs={"dataset": spec.name})
    values = np.stack([kept["truth"], kept["model"]])
    steps = values.shape[2]
    coordinates = {
        name: (name, adapter.coordinates[name], {"long_name": name, "units": "unit of length of the data set"})
        for name in spec.axes
    }
    time = adapter.coordinates["time"][context : context + steps]
    return xr.Dataset(
        {
            component: (
                ("source", "trajectory", "time", *spec.axes),
                _drop_axes(values[:, :, :, f, c], spec),
                {"long_name": component.replace("_", " "), "units": field.unit or "", "field": field.name},
            )
            for f, field in enumerate(spec.fields)
            for c, component in enumerate(field.components)
        },
        coords={
            "source": ["truth", "model"],
            "trajectory": np.arange(values.shape[1]),
            "time": ("time", time, {"long_name": "time", "units": _TIME}),
            **coordinates,
        },
        attrs={"dataset": spec.name, "context_frames": context, "dt": spec.dt},
    )


def _drop_axes(values: Float[np.ndarray, "source n S D H W"], spec: DatasetSpec) -> np.ndarray:
    return values.reshape(*values.shape[:3], *spec.spatial_shape[3 - len(spec.axes) :])


def summarise(metrics: xr.Dataset) -> dict[str, float | int | None]:
    """The numbers that a table shows: means over fields and windows one step ahead, and over fields, trajectories and
    lead times of the rollouts, for VRMSE and NRMSE.

    `one_step_vrmse` and `rollout_vrmse` are the model's, `persistence_vrmse` and `persistence_rollout_vrmse` a naive
    forecast's; `one_step_ratio` and `rollout_ratio` the model's VRMSE over the lowest of the naive forecasts', with
    `_to_persistence` over persistence's;
    `unstable` counts the model's rollouts that lost the truth altogether.  `one_step_without_data` and
    `rollout_without_data` count the pairs of a field and a window, or of a field and a frame of a rollout, in which a
    masked data set holds too little data for a VRMSE; the means leave them out.  A number that is not finite is None.
    """
    naive = [name for name in metrics.forecast.values if name != "model"]
    numbers: dict[str, float] = {}
    for metric in ("vrmse", "nrmse"):
        for ahead in ("one_step", "rollout"):
            means = metrics[ahead].sel(metric=metric).mean(set(metrics[ahead].dims) - {"forecast", "metric"})
            numbers[f"{ahead}_{metric}"] = float(means.sel(forecast="model"))
            for name in naive:
                infix = "" if ahead == "one_step" else "rollout_"
                numbers[f"{name}_{infix}{metric}"] = float(means.sel(forecast=name))
    for ahead, infix in (("one_step", ""), ("rollout", "rollout_")):
        best = min(numbers[f"{name}_{infix}vrmse"] for name in naive)
        numbers[f"{ahead}_ratio"] = numbers[f"{ahead}_vrmse"] / best
        numbers[f"{ahead}_ratio_to_persistence"] = numbers[f"{ahead}_vrmse"] / numbers[f"persistence_{infix}vrmse"]
    unstable = int(metrics.unstable_from.sel(forecast="model").notnull().sum())
    finite = {key: value if np.isfinite(value) else None for key, value in numbers.items()}
    empty = {
        f"{ahead}_without_data": int(metrics[ahead].sel(forecast="model", metric="vrmse").isnull().sum())
        for ahead in ("one_step", "rollout")
    }
    return {**finite, **empty, "unstable": unstable, "trajectories": metrics.sizes["trajectory"]}
