"""Ensembles: the same forecast from a disturbed context, or with dropout, several times; and how good they are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import Conditions, Context, State, Statistics
from morph.metrics import crps, rmse, spread
from morph.rollout import Forecast, rollout
from morph.truth import Truth, infinite_or_undefined

__all__ = ["SCORES", "Ensemble", "dropout_on", "ensemble_scores", "perturbed", "rollouts"]

_PERTURBATION = 0.01

SCORES = ("crps", "spread", "skill")
"""What `ensemble_scores` measures: `morph.metrics.crps` and `spread`, and the RMSE of the mean of the members."""


@dataclass(frozen=True)
class Ensemble:
    """How members are made.

    Args:
        members: How many.
        perturbation: Noise on the context, see `perturbed`; None for none, or for 0.01 where there is no dropout.
        dropout: Dropout as in training, see `dropout_on`.
        seed: Of noise and dropout.

    Raises:
        ValueError: Fewer than two members, or a number that is not positive; names the option.
    """

    members: int
    perturbation: float | None = None
    dropout: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.members, bool) or not isinstance(self.members, int) or self.members < 2:
            raise ValueError(f"members: an ensemble has at least 2, found {self.members!r}")
        size = self.perturbation
        if size is not None and (isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < 1e6):
            raise ValueError(
                "perturbation: expected a positive number, the noise in standard deviations of each field, "
                f"found {size!r}"
            )
        if size is None and not self.dropout:
            object.__setattr__(self, "perturbation", _PERTURBATION)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed: expected 0 or a positive integer, found {self.seed!r}")


def perturbed(
    context: Context, members: int, size: float, generator: torch.Generator, conditions: Conditions | None = None
) -> Float[Tensor, "members*B T F C D H W"]:
    """The context once for each member, with noise that is Gaussian, independent at each point and alike in all frames.

    Alike in all frames, because noise that differed would be the largest increment that the model sees.  The first
    member is not disturbed: it is the control forecast.

    Args:
        context: Physical units.
        members: How many; they are the slow axis of the batch: members of sample 0 are at 0, B, 2 B, ...
        size: Standard deviation of the noise, in units of each field's standard deviation over its context.
        generator: Of the noise, on the CPU; so a seed gives the same members on any device.
        conditions: Fillers and absent points are not disturbed.

    Raises:
        ValueError: A number is not positive.
    """
    if members < 1 or not size > 0:
        raise ValueError(f"members, perturbation: expected positive numbers, found {members} and {size}")
    shape = (members, context.shape[0], 1, *context.shape[2:])
    noise = torch.randn(shape, generator=generator, dtype=torch.float32).to(context)
    noise[0] = 0
    held = torch.ones_like(context[:, 0], dtype=torch.bool)
    if conditions is not None:
        held = held & conditions.component_mask[..., None, None, None]
        held = held if conditions.absent is None else held & ~conditions.absent
    held = held[:, None].expand_as(context)
    # Over time and space of each component; the components of a vector are disturbed alike, by their mean square.
    count = held.sum((1, 4, 5, 6)).clamp(min=1)
    mean = torch.where(held, context, 0.0).sum((1, 4, 5, 6)) / count
    deviation = torch.where(held, context - mean[:, None, ..., None, None, None], 0.0)
    variance = deviation.square().sum((1, 4, 5, 6)) / count
    physical = (held.sum((1, 4, 5, 6)) > 0).sum(-1).clamp(min=1)
    std = (variance.sum(-1) / physical).sqrt()[:, None, :, None, None, None, None]
    return (context + torch.where(held, size * std * noise, 0.0)).flatten(0, 1)


@contextmanager
def dropout_on(model: nn.Module) -> Iterator[None]:
    """Dropout as in training, for an ensemble of the network's own doubt (Monte Carlo dropout, arXiv 1506.02142).

    Raises:
        ValueError: The model has none.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout) and layer.p > 0]
    if not layers:
        raise ValueError("dropout: the model has none, so its members would be alike; take a perturbation instead")
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.train(training)


def rollouts(
    forecast: Forecast,
    context: Context,
    steps: int,
    conditions: Conditions,
    ensemble: Ensemble | None,
    numbers: Sequence[int],
    batch_size: int,
) -> Iterator[Float[Tensor, "M B F C D H W"]]:
    """Yield `steps` successive forecasts of all members, float32; no other is kept.

    The control is computed by itself, so that it is the same, bit for bit, whatever the other members are.

    Args:
        forecast: A `Morph`, whose mode is left as it was, or any other where there is no dropout.
        context: The last frames known of several trajectories, physical units, without NaN, where the model is.
        steps: How many frames to forecast.
        conditions: What else is known.
        ensemble: The members; None: the control alone.
        numbers: Of each trajectory: its noise is the same whichever others are forecast with it.
        batch_size: Trajectories times members, other than the control, that are computed together.
    """
    device = context.device
    size = len(numbers)
    passes = [_Pass(forecast, context, steps, _repeated(conditions, device, 1))]
    if ensemble is not None:
        disturbed = _disturbed(context, conditions, ensemble, numbers)
        # A layer may draw one mask for all samples of a call (`LearnedPositions` does): each member has its own.
        together = 1 if ensemble.dropout else max(1, batch_size // size)
        for first in range(1, ensemble.members, together):
            group = disturbed[first : first + together]
            known = _repeated(conditions, device, len(group))
            # A stream of its own for each group: what one draws does not depend on when another one does.
            seed = _seed(ensemble.seed, numbers[0], first) if ensemble.dropout else None
            passes.append(_Pass(forecast, group.flatten(0, 1), steps, known, seed))
    for _ in range(steps):
        yield torch.cat([one.next().unflatten(0, (-1, size)) for one in passes])


def _disturbed(
    context: Context, conditions: Conditions, ensemble: Ensemble, numbers: Sequence[int]
) -> Float[Tensor, "M B T F C D H W"]:
    if ensemble.perturbation is None:
        return context.expand(ensemble.members, *context.shape)
    contexts = []
    for place, number in enumerate(numbers):
        absent = None if conditions.absent is None else conditions.absent[place : place + 1]
        known = conditions._replace(absent=absent)
        generator = torch.Generator().manual_seed(_seed(ensemble.seed, number))
        one = context[place : place + 1]
        contexts.append(perturbed(one, ensemble.members, ensemble.perturbation, generator, known))
    return torch.stack(contexts, 1)


class _Pass:
    """A rollout that goes on step by step, with the random numbers of its own where dropout is on."""

    def __init__(
        self, forecast: Forecast, context: Tensor, steps: int, conditions: Conditions, dropout_seed: int | None = None
    ) -> None:
        self._forecast = forecast
        self._device = context.device
        self._states = rollout(forecast, context, steps, conditions)
        self._has_dropout = dropout_seed is not None
        if dropout_seed is not None:
            with self._own_random_numbers():
                torch.manual_seed(dropout_seed)
                self._random = self._random_state()

    def next(self) -> State:
        with ExitStack() as stack:
            if isinstance(self._forecast, nn.Module):
                stack.enter_context(_evaluating(self._forecast))
            if self._has_dropout:
                stack.enter_context(self._own_random_numbers())
                torch.set_rng_state(self._random[0])
                if self._device.type == "cuda":
                    torch.cuda.set_rng_state(self._random[1], self._device)
                assert isinstance(self._forecast, nn.Module), "dropout is a matter of modules"
                stack.enter_context(dropout_on(self._forecast))
            state = next(self._states)
            if self._has_dropout:
                self._random = self._random_state()
        return state.float()

    def _own_random_numbers(self) -> AbstractContextManager[None]:
        return torch.random.fork_rng([self._device] if self._device.type == "cuda" else [])

    def _random_state(self) -> list[Tensor]:
        on_gpu = [torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else []
        return [torch.get_rng_state(), *on_gpu]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _repeated(known: Conditions, device: torch.device, times: int) -> Conditions:
    absent = None if known.absent is None else known.absent.repeat(times, 1, 1, 1, 1, 1).to(device)
    statistics = known.statistics
    if statistics is not None:
        statistics = Statistics(*(value.to(device) for value in statistics))
    return known._replace(component_mask=known.component_mask.to(device), absent=absent, statistics=statistics)


def ensemble_scores(
    forecast: Forecast,
    truth: Truth,
    ensemble: Ensemble,
    *,
    first: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Float[Tensor, "B S F score"]:
    """`SCORES` of an ensemble of rollouts at each lead time; only the members' newest states are kept.

    See `rollouts`.  Dropout is drawn from the seed and the number of the first trajectory of a batch.

    Args:
        forecast: A `torch.nn.Module` where there is dropout.
        truth: Of one batch of trajectories.
        ensemble: How the members are made.
        first: Number of the first of the trajectories.
        batch_size: Samples that the forecast is called with at most.
        advance: Called with the number of members' states that were just made.
    """
    frames, _, known, context = truth
    numbers = range(first, first + len(frames))
    states = rollouts(forecast, frames[:, :context], frames.shape[1] - context, known, ensemble, numbers, batch_size)
    scores = []
    for lead, members in enumerate(states, start=context):
        scores.append(_scores(members, truth, lead))
        advance(members.shape[0] * members.shape[1])
    return torch.stack(scores, 1)


def _scores(members: Float[Tensor, "M B F C D H W"], truth: Truth, lead: int) -> Float[Tensor, "B F score"]:
    target, valid, mask = truth.frames[:, lead], truth.holds_data(lead), truth.known.component_mask
    values = (
        crps(members, target, mask, valid),
        spread(members, mask, valid),
        rmse(members.mean(0), target, mask, valid),
    )
    return torch.stack([infinite_or_undefined(value, truth.known, valid) for value in values], -1).cpu()
