"""What a training step and a forecast of each model cost on each system, on this machine."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from morph.cost import Work, count_operations, least_times
from morph.forecaster import forecast_loss
from morph.start import open_data, starting_model

__all__ = ["FIELDS", "measure"]

FIELDS = ("model", "system", "parameters", "gflop", "step_s", "inference_ms", "batch", "threads")
_CONF = Path(__file__).resolve().parents[2] / "conf"


class _Prepared(NamedTuple):
    step: Work
    forward: Work
    parameters: int
    gflop: float
    batch: int


def measure(commands: Mapping[tuple[str, str], Sequence[str]], repeats: int) -> Iterator[dict[str, Any]]:
    """A line of speed.csv for each (model, system), given the options with which it would be trained.

    All models of a system take turns in this process, and the least of `repeats` times counts: what else runs on the
    machine only adds to it.  A training step reads its batch, as in training.  GFLOP counts matrix products,
    convolutions, attention and Fourier transforms of one forward pass, per sample.
    """
    for system in dict.fromkeys(system for _, system in commands):
        prepared = {model: _prepare(options) for (model, name), options in commands.items() if name == system}
        works = [work for one in prepared.values() for work in (one.step, one.forward)]
        times = least_times(works, "cpu", repeats)
        for (model, one), step, forward in zip(prepared.items(), times[::2], times[1::2], strict=True):
            yield {
                "model": model, "system": system, "parameters": one.parameters, "gflop": one.gflop, "step_s": step,
                "inference_ms": 1e3 * forward / one.batch, "batch": one.batch, "threads": torch.get_num_threads(),
            }  # fmt: skip


def _prepare(options: Sequence[str]) -> _Prepared:
    with initialize_config_dir(str(_CONF), version_base="1.3"):  # also what knows the data sets by name
        config = compose("train", overrides=list(options))
        plain: Any = OmegaConf.to_container(config, resolve=True)
        torch.manual_seed(config.seed)
        data = open_data(plain)
        model = starting_model(config, None, data).model
    ((name, windows),) = data.train.items()
    size = data.batch_sizes[name]
    optimizer = instantiate(config.optimizer)(model.parameters())
    order = np.random.default_rng(config.seed).permutation(len(windows))
    indices = cycle(order[: len(order) // size * size].reshape(-1, size).tolist())
    kept = windows.batch(next(indices))

    def step() -> None:
        model.train()
        batch = windows.batch(next(indices))
        prediction = model(batch.context, batch.conditions)[:, None]
        forecast_loss(prediction, batch, model.unit_of_error(batch.context, batch.conditions)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.trainer.gradient_clip_val)
        optimizer.step()
        optimizer.zero_grad()

    def forward() -> None:
        model.eval()
        with torch.no_grad():
            model(kept.context, kept.conditions)

    parameters = sum(p.numel() for p in model.parameters())
    return _Prepared(step, forward, parameters, count_operations(forward) / size / 1e9, size)
