"""Ensembles: the same forecast from a disturbed context, or with dropout, several times."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import Conditions, Context

__all__ = ["dropout_on", "perturbed"]


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
