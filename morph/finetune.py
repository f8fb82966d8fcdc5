"""Training a model further: for larger problems, only some of its parts, and with low-rank adapters."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from morph.layout import DatasetSpec
from morph.model.mixer import AxialAttention
from morph.model.morph import Capacity, Morph

__all__ = ["PARTS", "count_parameters", "grow", "lora_layers", "renew", "train_only"]

PARTS = ("lora", "norms", "time_attention", "positions", "components", "encoder", "decoder", "local", "all")
"""What can be trained by itself: low-rank factors; LayerNorms of the blocks, and the decoder's, which follows the last
block; the blocks' attention over time; the position table; the convolution that takes the components of a field; all
that comes before the positions; all that comes after the blocks; what is done at full resolution; everything."""

_OF_BLOCKS = ("norms", "time_attention")
_GROUPS = {
    "low-rank factors": r"\.lora_",
    "norms": r"^blocks\.\d+\.norm_|^decoder\.norm",
    "encoder": r"^embedding\.",
    "positions": r"^positions\.",
    "attention": r"^blocks\.\d+\.mixer",
    "perceptrons": r"^blocks\.\d+\.mlp",
    "decoder": r"^decoder\.",
    "local": r"^local\.",
}


def grow(model: Morph, *, max_context: int = 0, max_fields: int = 0, max_components: int = 0) -> Morph:
    """A copy that takes larger problems; on all that the model takes it forecasts what the model does.

    The position table (1, T, patches, E) is repeated along time as a whole, its last row in what remains, as published.
    Where positions are resampled along time ("bilinear", published size L), a table of one frame is taken row by row
    from then on; one of several would be resampled to other values, and is refused.
    Further fields and components get rows of the decoder that are zero, which add nothing to the base forecast, and
    columns of the first convolution that are drawn at random at the size of those that are there; the local parts get
    what a new model has there.

    Args:
        model: Of a run, an export or the publication; not changed.
        max_context, max_fields, max_components: At least so many; what the model takes already stays.

    Raises:
        ValueError: Its positions are resampled along time, so that more frames would change its forecasts.
    """
    old = model.capacity
    new = Capacity(
        max(old.max_fields, max_fields),
        max(old.max_components, max_components),
        max(old.max_context, max_context),
        old.max_patches,
    )
    resample = model.config["resample_positions"]
    if new.max_context > old.max_context and resample == "bilinear":
        if old.max_context > 1:
            raise ValueError(
                f"grow: the positions of this model are resampled along its {old.max_context} frames, so that more "
                f"would change what it does; keep window.context at {old.max_context} or below"
            )
        resample = "linear"
    grown = Morph.from_config({**model.config, "resample_positions": resample, "capacity": vars(new)})
    weights = model.state_dict()
    table = weights["positions.table"]
    repeated = table.repeat(1, new.max_context // old.max_context, 1, 1)
    rest = table[:, -1:].repeat(1, new.max_context % old.max_context, 1, 1)
    weights["positions.table"] = torch.cat((repeated, rest), 1)
    # A model with the first rows (field, component, z, y, x) forecasts what it did: rows are counted by the data.
    rows = new.max_fields * new.max_components * model.patch_size**3
    for name in ("decoder.linear.weight", "decoder.linear.bias"):
        there = weights[name]
        weights[name] = torch.cat((there, there.new_zeros(rows - len(there), *there.shape[1:])))
    columns = weights["embedding.convolution.expand.weight"]
    further = torch.randn_like(grown.embedding.convolution.expand.weight[:, old.max_components :].to(columns))
    weights["embedding.convolution.expand.weight"] = torch.cat((columns, further * columns.std()), 1)
    # In (field, component) order, too: what is new is as in a new model, which adds nothing to the forecast.
    for name, value in grown.state_dict().items():
        if name.startswith("local.") and value.shape != weights[name].shape:
            value = value.to(weights[name])
            value[tuple(slice(size) for size in weights[name].shape)] = weights[name]
            weights[name] = value
    grown.to(table).load_state_dict(weights)
    grown.trained_on = model.trained_on
    return grown.train(model.training)


def renew(model: Morph, part: str) -> Morph:
    """A copy in which a part starts anew, "decoder" or "all", as in a model that was never trained.

    Raises:
        ValueError: The part is another.
    """
    if part not in ("decoder", "all"):
        raise ValueError(f"finetune.renew: expected decoder, all or null, found {part!r}")
    fresh = Morph.from_config(model.config).to(model.positions.table)
    if part == "decoder":
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith("decoder.")}
        fresh.load_state_dict(weights, strict=False)
        fresh.trained_on = model.trained_on
    return fresh.train(model.training)


def lora_layers(
    model: Morph, ranks: Mapping[str, int], specs: Iterable[DatasetSpec] | None = None, context: int = 0
) -> dict[str, int]:
    """The Linear layers of the blocks that low-rank factors go to, and their ranks.

    Left out are layers that the data do not reach, whose factors would never be trained: attention over time with one
    frame of context, and queries and keys along an axis with one token.

    Args:
        model: Without an adapter.
        ranks: `attention` and `mlp`; 0 leaves these layers as they are.
        specs: Of the data that it is trained on; None adapts all layers.
        context: Frames of context T that it is trained with.

    Raises:
        ValueError: A rank is no integer of at least 0, or nothing is left to adapt.
    """
    for kind in ("attention", "mlp"):
        rank = ranks.get(kind)
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
            raise ValueError(f"finetune.lora.{kind}: expected a rank of 0 or more, found {rank!r}")
    shapes = None if specs is None else [spec.spatial_shape for spec in specs]
    found = {}
    for number, block in enumerate(model.blocks):
        idle = set() if shapes is None else _idle(block, shapes, context, model.patch_size)
        for name, layer in block.named_modules():
            rank = {"mixer": ranks["attention"], "mlp": ranks["mlp"]}.get(name.partition(".")[0])
            if isinstance(layer, nn.Linear) and rank and name not in idle:
                found[f"blocks.{number}.{name}"] = rank
    if not found:
        raise ValueError("finetune.lora: expected a rank above 0 for attention or mlp, found none")
    return found


def _idle(block: nn.Module, shapes: Sequence[Sequence[int]], context: int, patch_size: int) -> set[str]:
    """Names of the layers of an axial attention that do not count for any of the shapes."""
    if type(block.mixer) is not AxialAttention:
        return set()
    idle = {f"mixer.time.{layer}" for layer in "qkvo"} if context == 1 else set()
    for axis, name in enumerate(("depth", "height", "width")):
        if all(shape[axis] <= patch_size for shape in shapes):
            idle |= {f"mixer.{name}.q", f"mixer.{name}.k"}
    return idle


def train_only(model: Morph, parts: str | Sequence[str], last_blocks: int | None = None) -> dict[str, list[Tensor]]:
    """Freeze everything but the named parts.

    Args:
        model: Its parameters' `requires_grad` is set.
        parts: Some of `PARTS`.
        last_blocks: Norms and time attention of the last so many blocks only (all, if there are fewer); None: of all.

    The published second stage is norms and time attention of the last 4 blocks.  (Its code counts back 8 LayerNorms
    from the decoder's and so misses the first of them; here both norms of each of the blocks are trained.)

    Returns:
        The parameters of each part; one that belongs to several is with the first of them.

    Raises:
        ValueError: A part is unknown, or one that the model does not have; `last_blocks` is not positive or without
            effect.
    """
    named = [parts] if isinstance(parts, str) else list(parts)
    if not named or set(named) - set(PARTS):
        raise ValueError(
            f"finetune.train: expected some of {', '.join(PARTS)}, found {', '.join(map(str, named)) or 'none'}"
        )
    if last_blocks is not None:
        if isinstance(last_blocks, bool) or not isinstance(last_blocks, int) or last_blocks < 1:
            raise ValueError(f"finetune.last_blocks: expected a positive integer, or null, found {last_blocks!r}")
        if not set(named) & set(_OF_BLOCKS):
            raise ValueError(
                f"finetune.last_blocks has no effect on {', '.join(named)}, which it does not divide; leave it out"
            )
    blocks = list(model.blocks)[-(last_blocks or 0) :]
    chosen: dict[str, list[Tensor]] = {}
    taken: set[int] = set()
    for part in named:
        parameters = list(_parameters(model, blocks, part))
        if not parameters:
            raise ValueError(f"finetune.train: this model has no {part}; name parts that it has")
        chosen[part] = [parameter for parameter in parameters if id(parameter) not in taken]
        if not chosen[part]:
            raise ValueError(f"finetune.train: {part} is part of what stands before it; leave it out, or name it first")
        taken |= {id(parameter) for parameter in parameters}
    model.requires_grad_(False)
    for parameter in (parameter for parameters in chosen.values() for parameter in parameters):
        parameter.requires_grad_(True)
    return chosen


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Parameters of the groups of a model: how many are trained, and how many there are."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        group = next(group for group, pattern in _GROUPS.items() if re.search(pattern, name))
        trained, total = counts.get(group, (0, 0))
        number = parameter.numel()
        counts[group] = trained + number * parameter.requires_grad, total + number
    return {group: counts[group] for group in _GROUPS if group in counts}


def _parameters(model: Morph, blocks: Sequence[nn.Module], part: str) -> Iterable[nn.Parameter]:
    """Those of one part, of `blocks` where the part belongs to blocks."""
    if part == "lora":
        return [parameter for name, parameter in model.named_parameters() if ".lora_" in name]
    if part == "norms":
        around = (*blocks, model.decoder)
        norms = [module for outer in around for module in outer.modules() if isinstance(module, nn.LayerNorm)]
        return [parameter for norm in norms for parameter in norm.parameters()]
    modules: dict[str, Any] = {
        "positions": [model.positions],
        "components": [model.embedding.convolution.expand],
        "encoder": [model.embedding],
        "decoder": [model.decoder],
        "local": [model.local],
        "time_attention": [getattr(block.mixer, "time", None) for block in blocks],
        "all": [model],
    }
    return [p for module in modules[part] if isinstance(module, nn.Module) for p in module.parameters()]
