"""Ensembles: the same forecast from a disturbed context, or with dropout, several times."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import Conditions, Context, State
from morph.metrics import crps, rmse, spread
from morph.rollout import Forecast, rollout
from morph.truth import Truth, infinite_or_undefined

__all__ = ["SCORES", "Ensemble", "dropout_on", "ensemble_scores", "perturbed"]

SCORES = ("crps", "spread", "skill")
"""What `ensemble_scores` measures: `morph.metrics.crps` and `spread`, and the RMSE of the mean of the members."""


@dataclass(frozen=True)
class Ensemble:
    """How members are made.

    Args:
        members: How many.
        perturbation: Noise on the context, see `perturbed`; None for none.
        dropout: Dropout as in training, see `dropout_on`.
        seed: Of noise and dropout.

    Raises:
        ValueError: Fewer than two members, members that would be alike, or a number that is not positive; names the
            option.
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
            raise ValueError(
                f"members={self.members}: nothing makes them differ; give perturbation=0.01, noise on the context in "
                "standard deviations of each field, or dropout=true"
            )
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

    The noise of a trajectory depends on the seed and on its number, and not on how trajectories are batched or on what
    else is judged.  Dropout is drawn anew for each member and step, from the seed, but in the order of the batches.

    Args:
        forecast: A `torch.nn.Module` where there is dropout.
        truth: Of one batch of trajectories.
        ensemble: How the members are made.
        first: Number of the first of the trajectories.
        batch_size: Samples that the forecast is called with at most.
        advance: Called with the number of members' states that were just made.
    """
    frames, _, known, context = truth
    members, size = ensemble.members, len(frames)
    start = _starts(frames[:, :context], ensemble, known, first)
    if known.absent is not None:
        known = known._replace(absent=known.absent.repeat(members, 1, 1, 1, 1, 1))
    # A layer may draw one mask for all samples of a call (`LearnedPositions` does): each member has a call of its own.
    part = size if ensemble.dropout else batch_size
    scores = []
    with _drawn(forecast, ensemble, first, frames.device):
        states = rollout(_in_parts(forecast, part), start, frames.shape[1] - context, known)
        for lead, state in enumerate(states, start=context):
            scores.append(_scores(state.unflatten(0, (members, size)).float(), truth, lead))
            advance(len(state))
    return torch.stack(scores, 1)


def _starts(context: Context, ensemble: Ensemble, known: Conditions, first: int) -> Context:
    if ensemble.perturbation is None:
        return context.repeat(ensemble.members, 1, 1, 1, 1, 1, 1)
    starts = []
    for i, sample in enumerate(context.split(1)):
        generator = torch.Generator().manual_seed(_seed(ensemble, first + i))
        of_sample = known if known.absent is None else known._replace(absent=known.absent[i : i + 1])
        starts.append(perturbed(sample, ensemble.members, ensemble.perturbation, generator, of_sample))
    return torch.stack(starts, 1).flatten(0, 1)


def _seed(ensemble: Ensemble, trajectory: int) -> int:
    return (ensemble.seed * 1_000_003 + trajectory) % 2**63


@contextmanager
def _drawn(forecast: Forecast, ensemble: Ensemble, first: int, device: torch.device) -> Iterator[None]:
    """Dropout where it is wanted, from the ensemble's seed; the random numbers of others go on as if it were not."""
    if not ensemble.dropout:
        yield
        return
    assert isinstance(forecast, nn.Module), "dropout is a matter of modules"
    with torch.random.fork_rng([device] if device.type == "cuda" else []), dropout_on(forecast):
        torch.manual_seed(_seed(ensemble, first))
        yield


def _in_parts(forecast: Forecast, size: int) -> Forecast:
    """The same forecast, called with at most `size` samples at a time."""

    def in_parts(context: Context, conditions: Conditions | None) -> State:
        if len(context) <= size:
            return forecast(context, conditions)
        absent = None if conditions is None else conditions.absent
        states = []
        for at in range(0, len(context), size):
            part = conditions
            if conditions is not None and absent is not None:
                part = conditions._replace(absent=absent[at : at + size])
            states.append(forecast(context[at : at + size], part))
        return torch.cat(states)

    return in_parts


def _scores(members: Float[Tensor, "M B F C D H W"], truth: Truth, lead: int) -> Float[Tensor, "B F score"]:
    target, valid, mask = truth.frames[:, lead], truth.holds_data(lead), truth.known.component_mask
    values = (
        crps(members, target, mask, valid),
        spread(members, mask, valid),
        rmse(members.mean(0), target, mask, valid),
    )
    return torch.stack([infinite_or_undefined(value, truth.known, valid) for value in values], -1).cpu()
