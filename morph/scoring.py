"""How good are forecasts: errors over all windows one step ahead, and over the lead time of whole rollouts."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from morph.baselines import NAIVE
from morph.data.adapter import DatasetAdapter
from morph.data.mixture import EvenSampler
from morph.data.windows import Windows
from morph.diagnostics import Diagnosis, Grid, diagnose, grid_of, labelled_diagnoses, spectrum_leads
from morph.ensemble import SCORES, Ensemble, ensemble_scores
from morph.labels import describe, labelled_rollouts, parameters
from morph.layout import Conditions
from morph.metrics import METRICS, valid_time
from morph.rollout import Forecast, rollout
from morph.truth import Truth, errors, field_std, true_trajectories, where_defined

__all__ = ["UNSTABLE", "Scores", "check_lengths", "score", "work"]

UNSTABLE = 10.0
"""A rollout is unstable from the lead time on at which a field's root mean square error exceeds this many standard
deviations of that field over the true trajectory, or is not finite."""


class Scores(NamedTuple):
    """What is known of the forecasts of one data set.

    metrics: `rollout` (forecast, trajectory, lead_time, field, metric), `one_step` (forecast, window, field, metric),
        `unstable_from` (forecast, trajectory), in lead time, NaN where the rollout stays stable; `valid_time` and
        `valid_time_censored` (forecast, trajectory), see `morph.metrics.valid_time`; `field_std` (trajectory, field);
        parameters.
        With an ensemble, `crps`, `spread` and `skill` (forecast, trajectory, lead_time, field), in the unit of the
        field; a naive forecast stands there as what it is, an ensemble of equal members: its `crps` is its mean
        absolute error and its spread 0.
        `spatial_mean`, `energy_spectrum` and `relative_divergence` of the truth and of every forecast, by `source`, see
        `morph.diagnostics`.
    rollouts: each component (source, trajectory, time, axes...) of the first trajectories; source is truth, model or
        the name of a compared checkpoint.
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
    contexts: Mapping[str, int] | None = None,
    steps: int | None = None,
    one_step_windows: int | None = None,
    valid_threshold: float = 0.5,
    ensemble: Ensemble | None = None,
    keep: int = 2,
    device: torch.device | str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Judge forecasts on every trajectory of a split.

    A rollout starts from the first T frames of a trajectory and is compared with all that follow.

    Of a masked data set only points that hold data are compared.  A field without any has no error, NaN, at that window
    or lead time; an infinite error is that of a forecast that is not finite.

    Args:
        forecasts: By name; all but the naive ones are kept in `rollouts`.
        adapter: The split.
        context: Frames before the first that is forecast, T.
        batch_size: Windows or trajectories at a time; of an ensemble, trajectories times members.
        contexts: By name, of forecasts that see only the last so many of these frames.
        steps: Length of the rollouts; None for the whole trajectory.
        one_step_windows: At most so many windows, evenly spaced; None for all.
        valid_threshold: See `morph.metrics.valid_time`.
        ensemble: How members are made of each forecast that is not naive; None: none are.
        keep: Trajectories whose rollout is returned.
        device: Where to compute.
        advance: Called with the number of windows and frames that were just done, out of `work`.

    Raises:
        ValueError: The trajectories are too short for a context and `steps`, or the data holds NaN or infinity where it
            should not.
    """
    spec = adapter.spec
    steps = check_lengths(adapter, context, steps, one_step_windows, batch_size)
    sees = dict.fromkeys(forecasts, context) | dict(contexts or {})
    assert sees.keys() == forecasts.keys(), "contexts of forecasts that are not judged"
    assert max(sees.values()) <= context, "a forecast cannot see more frames than there are"
    one_step, places = _one_step(forecasts, sees, adapter, context, batch_size, one_step_windows, device, advance)
    grid = grid_of(adapter)
    found = _rollouts(forecasts, sees, adapter, grid, context, steps, batch_size, keep, device, advance)
    lead = spec.dt * np.arange(1, steps + 1)
    vrmse = xr.DataArray(found.errors[..., list(METRICS).index("vrmse")]).mean("dim_3").values
    valid, censored = valid_time(vrmse, lead, valid_threshold)
    scores = None
    if ensemble is not None:
        scores = _ensembles(forecasts, sees, adapter, context, found, ensemble, batch_size, device, advance)
    over_leads = ("forecast", "trajectory", "lead_time", "field")
    onset = np.where(found.onset < steps, lead[found.onset % steps], np.nan)
    metrics = xr.Dataset(
        {
            "rollout": ((*over_leads, "metric"), found.errors),
            "one_step": (("forecast", "window", "field", "metric"), one_step),
            "unstable_from": (("forecast", "trajectory"), onset),
            "valid_time": (("forecast", "trajectory"), valid),
            "valid_time_censored": (("forecast", "trajectory"), censored),
            "field_std": (("trajectory", "field"), found.field_std),
            **({} if scores is None else {name: (over_leads, scores[..., i]) for i, name in enumerate(SCORES)}),
            "window_trajectory": ("window", places[:, 0]),
            "window_start": ("window", places[:, 1]),
            **parameters(adapter),
        },
        coords={
            "forecast": list(forecasts),
            "trajectory": np.arange(len(adapter)),
            "lead_time": lead,
            "field": [field.name for field in spec.fields],
            "metric": list(METRICS),
            "unit": ("field", [field.unit or "" for field in spec.fields]),
            "frames_seen": ("forecast", list(sees.values())),
        },
        attrs={"dataset": spec.name, "context_frames": context, "dt": spec.dt},
    )
    metrics = metrics.merge(labelled_diagnoses(found.diagnoses, grid, lead), combine_attrs="no_conflicts")
    describe(metrics, unstable=UNSTABLE, valid_threshold=valid_threshold, ensemble=ensemble)
    return Scores(metrics, labelled_rollouts(found.kept, adapter, context))


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
    if longest < 1:
        raise ValueError(
            f"data set {adapter.spec.name!r}: its trajectories have {adapter.spec.num_steps} frames, and "
            f"{context} come before the first that is forecast; lower start or context"
        )
    steps = longest if steps is None else steps
    if steps > longest:
        raise ValueError(
            f"data set {adapter.spec.name!r}: its trajectories have {adapter.spec.num_steps} frames; after {context} "
            f"frames {longest} remain to compare with, found steps={steps}"
        )
    return steps


def work(
    adapter: DatasetAdapter, context: int, steps: int | None, one_step_windows: int | None, members: int = 0
) -> int:
    """What `advance` adds up to."""
    longest = adapter.spec.num_steps - context
    windows = len(adapter) * longest
    frames = len(adapter) * (longest if steps is None else steps)
    return min(windows, one_step_windows or windows) + frames * (1 + members)


def _one_step(
    forecasts: Mapping[str, Forecast],
    sees: Mapping[str, int],
    adapter: DatasetAdapter,
    context: int,
    batch_size: int,
    limit: int | None,
    device: torch.device | str,
    advance: Callable[[int], None],
) -> tuple[Float[np.ndarray, "forecast window F metric"], np.ndarray]:
    # Windows of their own for those that see fewer frames: no earlier frame has a part in fillers.
    windows = {count: Windows(adapter, count) for count in {context, *sees.values()}}
    known = _to(windows[context].conditions, device)
    table, places = [], []
    name = adapter.spec.name
    for _, indices in EvenSampler({name: windows[context]}, batch_sizes={name: batch_size}, limit=limit):
        starts = [windows[context].locate(index) for index in indices]
        of_batch: dict[str, Tensor] = {}
        for count, same in windows.items():
            batch = same.batch([i * same.per_trajectory + start + context - count for i, start in starts])
            frames, target = batch.context.to(device), batch.target[:, 0].to(device)
            valid = None if batch.valid is None else batch.valid[:, 0].to(device)
            absent = batch.conditions.absent
            conditions = known if absent is None else known._replace(absent=absent.to(device))
            defined = where_defined(target, conditions, valid)
            for forecast in (name for name in forecasts if sees[name] == count):
                state = forecasts[forecast](frames, conditions)
                of_batch[forecast] = errors([state], target, conditions, valid, defined)[0]
        table.append(torch.stack([of_batch[forecast] for forecast in forecasts]))
        places.append(torch.tensor(starts))
        advance(len(indices))
    return torch.cat(table, 1).numpy(), torch.cat(places).numpy()


class _Rollouts(NamedTuple):
    """Errors, the first unstable lead (`S` if none), the first rollouts, and diagnoses by source, batch and lead."""

    errors: Float[np.ndarray, "forecast trajectory S F metric"]
    onset: Int[np.ndarray, "forecast trajectory"]
    field_std: Float[np.ndarray, "trajectory F"]
    kept: dict[str, Float[np.ndarray, "n S F C D H W"]]
    diagnoses: dict[str, list[list[Diagnosis]]]


def _rollouts(
    forecasts: Mapping[str, Forecast],
    sees: Mapping[str, int],
    adapter: DatasetAdapter,
    grid: Grid,
    context: int,
    steps: int,
    batch_size: int,
    keep: int,
    device: torch.device | str,
    advance: Callable[[int], None],
) -> _Rollouts:
    known = _to(Windows(adapter, context).conditions, device)
    table, onsets, stds = [], [], []
    spectra = spectrum_leads(steps)
    kept: dict[str, list[Tensor]] = {"truth": [], **{name: [] for name in forecasts if name not in NAIVE}}
    diagnoses: dict[str, list[list[Diagnosis]]] = {name: [] for name in ("truth", *forecasts)}
    for first in range(0, len(adapter), batch_size):
        trajectories = range(first, min(first + batch_size, len(adapter)))
        truth = true_trajectories(adapter, trajectories, context, steps, known, device)
        std = field_std(truth).cpu()
        mine = max(0, min(keep - first, len(trajectories)))
        shown = truth.frames if truth.valid is None else torch.where(truth.valid, truth.frames, torch.nan)
        kept["truth"] += list(shown[:mine, context:].cpu())
        diagnoses["truth"].append(
            [
                diagnose(truth.frames[:, context + lead], truth.holds_data(context + lead), grid, lead in spectra)
                for lead in range(steps)
            ]
        )
        of_leads = range(context, context + steps)
        defined = [where_defined(truth.frames[:, frame], known, truth.holds_data(frame)) for frame in of_leads]
        of_batch, onsets_of_batch = [], []
        for name, forecast in forecasts.items():
            followed = _follow(
                forecast,
                truth.seen_through(sees[name]),
                defined,
                UNSTABLE * std,
                grid,
                mine if name in kept else 0,
                advance if name == "model" else lambda _: None,
            )
            of_batch.append(followed.errors)
            onsets_of_batch.append(followed.onset)
            diagnoses[name].append(followed.diagnoses)
            if name in kept:
                kept[name] += list(followed.states)
        table.append(torch.stack(of_batch))
        onsets.append(torch.stack(onsets_of_batch))
        stds.append(std)
    stacked = {name: torch.stack(values).numpy() for name, values in kept.items() if values}
    return _Rollouts(
        torch.cat(table, 1).numpy(), torch.cat(onsets, 1).numpy(), torch.cat(stds).numpy(), stacked, diagnoses
    )


class _Followed(NamedTuple):
    errors: Float[Tensor, "B S F metric"]
    onset: Int[Tensor, "B"]
    states: list[Tensor]
    diagnoses: list[Diagnosis]


def _follow(
    forecast: Forecast,
    truth: Truth,
    defined: Sequence[Bool[Tensor, "*batch_and_field metric"]],
    limit: Float[Tensor, "B F"],
    grid: Grid,
    keep: int,
    advance: Callable[[int], None],
) -> _Followed:
    """One forecast rolled out against the truth, where a metric is `defined` at each lead; the states of the first
    `keep` samples are returned, NaN on land."""
    frames, _, known, context = truth
    size, steps = len(frames), frames.shape[1] - context
    table, states, diagnoses = [], [], []
    spectra = spectrum_leads(steps)
    onset = torch.full((size,), steps)
    for lead, state in enumerate(rollout(forecast, frames[:, :context], steps, known), start=context):
        held = truth.holds_data(lead)
        table.append(errors([state], frames[:, lead], known, held, defined[lead - context])[0])
        diagnoses.append(diagnose(state.float(), held, grid, lead - context in spectra))
        rms = table[-1][..., list(METRICS).index("rmse")]
        lost = ((rms > limit) | torch.isinf(rms)).any(-1)
        onset = torch.where(lost & (onset == steps), lead - context, onset)
        if keep:
            shown = state if known.absent is None else torch.where(known.absent, torch.nan, state)
            states.append(shown[:keep].cpu())
        advance(size)
    return _Followed(torch.stack(table, 1), onset, list(torch.stack(states, 1)) if states else [], diagnoses)


def _ensembles(
    forecasts: Mapping[str, Forecast],
    sees: Mapping[str, int],
    adapter: DatasetAdapter,
    context: int,
    alone: _Rollouts,
    ensemble: Ensemble,
    batch_size: int,
    device: torch.device | str,
    advance: Callable[[int], None],
) -> Float[np.ndarray, "forecast trajectory S F score"]:
    known = _to(Windows(adapter, context).conditions, device)
    mae, rmse = (alone.errors[..., list(METRICS).index(name)] for name in ("mae", "rmse"))
    # What naive forecasts score: members that are alike.
    scores = np.stack([mae, np.where(np.isnan(mae), np.nan, 0.0), rmse], -1)
    size = max(1, batch_size // ensemble.members)
    for first in range(0, len(adapter), size):
        trajectories = range(first, min(first + size, len(adapter)))
        truth = true_trajectories(adapter, trajectories, context, scores.shape[2], known, device)
        for number, (name, forecast) in enumerate(forecasts.items()):
            if name in NAIVE:
                continue
            scores[number, first : trajectories.stop] = ensemble_scores(
                forecast,
                truth.seen_through(sees[name]),
                ensemble,
                first=first,
                batch_size=batch_size,
                advance=advance if name == "model" else lambda _: None,
            ).numpy()
    return scores


def _to(known: Conditions, device: torch.device | str) -> Conditions:
    statistics = known.statistics
    if statistics is not None:
        statistics = type(statistics)(*(value.to(device) for value in statistics))
    return known._replace(component_mask=known.component_mask.to(device), statistics=statistics)
