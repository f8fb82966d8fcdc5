"""Training a model further: for more frames of context, and only some of its parts."""

from collections.abc import Sequence

import torch
from torch import nn

from morph.model.morph import Morph

__all__ = ["PARTS", "grow_context", "train_only"]

PARTS = ("norms", "time_attention", "positions")
"""What `train_only` can leave trainable."""


def grow_context(model: Morph, max_context: int) -> Morph:
    """A copy that takes more frames of context: its position table is repeated along time.

    The table (1, old, patches, E) is repeated as a whole, its last row in what remains, as published.  All else stays:
    with up to `old` frames the copy forecasts what the model does, unless positions are resampled along time
    ("bilinear", published size L).

    Raises:
        ValueError: The model takes more frames already.
    """
    old = model.capacity.max_context
    if max_context < old:
        raise ValueError(f"max_context: expected at least the {old} frames that the model takes, found {max_context}")
    config = model.config
    grown = Morph.from_config({**config, "capacity": {**config["capacity"], "max_context": max_context}})
    weights = model.state_dict()
    table = weights["positions.table"]
    repeated = table.repeat(1, max_context // old, 1, 1)
    rest = table[:, -1:].repeat(1, max_context % old, 1, 1)
    weights["positions.table"] = torch.cat((repeated, rest), 1)
    grown.to(table).load_state_dict(weights)
    return grown.train(model.training)


def train_only(model: Morph, parts: Sequence[str], last_blocks: int | None = None) -> None:
    """Freeze everything but the named parts.

    Args:
        model: Its parameters' `requires_grad` is set.
        parts: Some of `PARTS`.  norms: the LayerNorms of the blocks, and the decoder's, which follows the last block;
            time_attention: the blocks' attention over time; positions: the table.
        last_blocks: Norms and time attention of the last so many blocks only (all, if there are fewer); None: of all.

    The published second stage is norms and time attention of the last 4 blocks.  (Its code counts back 8 LayerNorms
    from the decoder's and so misses the first of them; here both norms of each of the blocks are trained.)

    Raises:
        ValueError: A part is unknown, or one that the model does not have; `last_blocks` is not positive or without
            effect.
    """
    named = [parts] if isinstance(parts, str) else list(parts)
    if not named or set(named) - set(PARTS):
        raise ValueError(
            f"train_only: expected some of {', '.join(PARTS)}, found {', '.join(map(str, named)) or 'none'}"
        )
    if last_blocks is not None:
        if isinstance(last_blocks, bool) or not isinstance(last_blocks, int) or last_blocks < 1:
            raise ValueError(f"last_blocks: expected a positive integer, or null for all, found {last_blocks!r}")
        if set(named) == {"positions"}:
            raise ValueError("last_blocks has no effect on positions, which belong to no block; leave it out")
    blocks = list(model.blocks)[-(last_blocks or 0) :]
    chosen = {part: _parameters(model, blocks, part) for part in named}
    if missing := [part for part, parameters in chosen.items() if not parameters]:
        raise ValueError(f"train_only: this model has no {', '.join(missing)}; name parts that it has")
    model.requires_grad_(False)
    for parameters in chosen.values():
        for parameter in parameters:
            parameter.requires_grad_(True)


def _parameters(model: Morph, blocks: Sequence[nn.Module], part: str) -> list[nn.Parameter]:
    """Those of one part, of `blocks` where the part belongs to blocks."""
    modules: list[nn.Module]
    if part == "positions":
        modules = [model.positions]
    elif part == "norms":
        around = (*blocks, model.decoder)
        modules = [module for outer in around for module in outer.modules() if isinstance(module, nn.LayerNorm)]
    else:
        found = [getattr(block.mixer, "time", None) for block in blocks]
        modules = [module for module in found if isinstance(module, nn.Module)]
    return [parameter for module in modules for parameter in module.parameters()]
