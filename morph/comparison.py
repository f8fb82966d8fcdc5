"""Further checkpoints that are judged beside one, on the same windows and rollouts."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lightning.fabric.utilities import move_data_to_device
from torch import nn

from morph.baselines import NAIVE
from morph.checkpoint import Checkpoint, base_for, find_checkpoint, read_checkpoint, run_of
from morph.cost import forecast_cost
from morph.data.adapter import DatasetAdapter
from morph.data.windows import Windows
from morph.layout import Conditions, Context, DatasetSpec, State, Statistics
from morph.model.surrogate import Surrogate

__all__ = ["Compared", "costs", "differences", "named", "read_compared", "training", "with_own_scales"]

_RESERVED = ("model", *NAIVE, "one_step", "rollout", "truth", "control")


class Compared(NamedTuple):
    """A checkpoint, its model, and how many frames it sees."""

    path: Path
    checkpoint: Checkpoint
    model: Surrogate
    context: int


def named(compare: Mapping[str, str] | Sequence[str] | str | None) -> dict[str, Path]:
    """Paths by name, of what `compare=` says: {name: path}, or paths, which are called after the run's folder.

    Raises:
        ValueError: Two have the same name, or a name says something else in the results; or there is no checkpoint.
    """
    if compare is None:
        return {}
    if isinstance(compare, Mapping):
        pairs = [(str(name), path) for name, path in compare.items()]
    elif not isinstance(compare, str | Sequence):
        raise ValueError(f"compare: expected {{name: path}} or [path, path], found {compare!r}")
    else:
        pairs = [("", path) for path in ([compare] if isinstance(compare, str) else compare)]
    found: dict[str, Path] = {}
    for given, path in pairs:
        if not isinstance(path, str):
            raise ValueError(f"compare: expected {{name: path}} or [path, path], found {path!r} for a path")
        try:
            checkpoint = find_checkpoint(path)
        except ValueError as error:
            raise ValueError(f"compare: {str(error).removeprefix('checkpoint: ')}") from error
        name = given or _folder_name(checkpoint)
        if name in found:
            raise ValueError(
                f"compare: {found[name]} and {checkpoint} are both called {name!r}; "
                "give each its name: compare={a: <path>, b: <path>}"
            )
        # Of x and x_rollout the second would take the place of the first one's error of rollouts.
        stem = name.removesuffix("_rollout")
        taken = [other for other in (*_RESERVED, *found) if other in (name, stem) or other == f"{name}_rollout"]
        if taken or not re.fullmatch(r"[\w.+-]+", name):
            why = f"{taken[0]!r} is taken in the results" if taken else "expected letters, digits and any of _ . + -"
            raise ValueError(f"compare: {checkpoint} cannot be called {name!r}: {why}; give compare={{<name>: {path}}}")
        found[name] = checkpoint
    return found


def _folder_name(checkpoint: Path) -> str:
    path = checkpoint.resolve()
    return run_of(path).name if path.is_dir() or path.parent.name == "checkpoints" else path.stem


def read_compared(
    paths: Mapping[str, Path], start: int, asked: int | None, base: str | None = None
) -> dict[str, Compared]:
    """The checkpoints, each with its own normalisation, and with the frames that it was trained to see.

    Args:
        paths: By name, see `named`.
        start: Frames before the first that is forecast.
        asked: Somebody asked for that many of context: all see them, or the last of them where they take fewer.
        base: Of adapters' folders, see `read_checkpoint`.

    Raises:
        ValueError: One cannot be read, or wants more frames than there are; names it.
    """
    found = {}
    for name, path in paths.items():
        try:
            checkpoint = read_checkpoint(path, base=base_for(path, base)).normalised()
            model = checkpoint.build()
        except ValueError as error:
            raise ValueError(f"compare {name}: {str(error).removeprefix('checkpoint: ')}") from error
        wanted = checkpoint.trained_on.context if asked is None else min(asked, model.capacity.max_context)
        if wanted > start:
            raise ValueError(
                f"compare {name}: it sees {wanted} frames, and rollouts start after {start}; give start={wanted}, or "
                f"context={min(start, model.capacity.max_context)} for as many"
            )
        found[name] = Compared(path, checkpoint, model, wanted)
    return found


class _OwnScales(nn.Module):
    """A model that sees the scales of its own training."""

    def __init__(self, model: Surrogate, statistics: Statistics) -> None:
        super().__init__()
        self.model = model
        self.statistics = Statistics(*(value.to(model.device) for value in statistics))

    def forward(self, context: Context, conditions: Conditions) -> State:
        return self.model(context, conditions._replace(statistics=self.statistics))


def with_own_scales(model: Surrogate, spec: DatasetSpec) -> nn.Module:
    """The model with the scales with which it was trained on a data set, whatever those of the others are."""
    statistics = None if model.trained_on is None else model.trained_on.scales_of(spec)
    return model if statistics is None else _OwnScales(model, statistics)


def costs(
    checkpoints: Mapping[str, Checkpoint],
    models: Mapping[str, Surrogate],
    adapter: DatasetAdapter,
    spec: DatasetSpec,
    contexts: Mapping[str, int],
    batch_size: int,
    device: str,
) -> dict[str, dict[str, float | None]]:
    """What each model costs on a data set, by name: `parameters`; `gflop` and `inference_ms`, of a step of a sample;
    `training_seconds` of its run, None where its checkpoint does not say.

    Args:
        checkpoints: By name.
        models: By name, on the device.
        adapter: The data set.
        spec: Its specification, under the name that it has here.
        contexts: Frames that each sees.
        batch_size: Samples that are forecast at once.
        device: Where.
    """
    found: dict[str, dict[str, float | None]] = {}
    for name, model in models.items():
        windows = Windows(adapter, contexts[name])
        size = min(batch_size, len(windows))
        batch = move_data_to_device(windows.batch(range(size)), device)
        step = partial(with_own_scales(model, spec), batch.context, batch.conditions)
        found[name] = {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            **forecast_cost(step, size, device),
            "training_seconds": checkpoints[name].seconds,
        }
    return found


def training(name: str, checkpoint: Checkpoint, context: int) -> str:
    """One line about what a checkpoint was trained with, as far as it says so."""
    known = [] if checkpoint.steps is None else [f"{checkpoint.steps} optimiser steps"]
    if checkpoint.base:
        known.append(f"from {checkpoint.base['path']}")
    if batches := checkpoint.plan.get("batch_size"):
        known.append("batches of " + ", ".join(str(size) for size in dict(batches).values()))
    if checkpoint.trained_on.specs:
        known.append(f"trained on {', '.join(checkpoint.trained_on.specs)}")
    said = ", ".join(known) or "does not say what it was trained on"
    return f"{name}: {said}; sees {context} frame{'' if context == 1 else 's'}"


def differences(checkpoint: Checkpoint, model: Checkpoint) -> str:
    """What a checkpoint was trained with that the model was not, as far as both say so; empty where nothing differs."""
    found = []
    if None not in (checkpoint.steps, model.steps) and checkpoint.steps != model.steps:
        found.append("steps")
    if checkpoint.trained_on.specs and set(checkpoint.trained_on.specs) != set(model.trained_on.specs):
        found.append("data")
    if checkpoint.plan and model.plan:
        for key, noun in (("num_trajectories", "number of trajectories"), ("batch_size", "batch size")):
            if checkpoint.plan.get(key) != model.plan.get(key):
                found.append(noun)
    return ", ".join(found)
