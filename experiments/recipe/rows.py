"""What is compared: each row is options of `python -m morph.train`."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["BATCH", "CONTEXT", "HELD_OUT", "MIX", "ROWS", "Row"]

MIX = ("cfd1d", "dr2d", "swe2d", "ns2d", "mhd3d", "cfd3d")
HELD_OUT = ("dr1d", "burgers1d", "gs2d", "ns3d")
BATCH = {"cfd1d": 8, "dr2d": 3, "swe2d": 3, "ns2d": 3, "mhd3d": 1, "cfd3d": 1,
         "dr1d": 8, "burgers1d": 8, "gs2d": 3, "ns3d": 1}  # fmt: skip
"""Windows per batch."""
CONTEXT = 8
"""Most frames that a row sees: rollouts that are cut short are no longer than trajectories allow after so many."""


class Row(NamedTuple):
    """A recipe.

    title: What it is called in the table.
    options: Of morph.train, after the protocol's own.
    each: It is one model for each system of the mix, which share the steps: their networks are made for one number of
        dimensions and of fields, and have no forecast on others.
    """

    title: str
    options: Sequence[str]
    each: bool = False


_NANO = ("model.dim=128", "model.heads=4", "model.mlp_dim=512", "model.dropout=0.0", "model.capacity.max_patches=512")
_BEST = ("+experiment=pretrain_mix", "model=nano")

ROWS: dict[str, Row] = {
    "published": Row("published recipe", ("+experiment=pretrain_published", *_NANO)),
    "fno": Row("FNO, one for each system", ("+experiment=pretrain_mix", "model=fno"), each=True),
    "unet": Row("U-Net, one for each system", ("+experiment=pretrain_mix", "model=unet"), each=True),
    "default": Row("default recipe", _BEST),
}
"""The first four are the study; the others are the ablation, each one option besides those of the default.

Options that lost and are gone from the code have their figures in screening.md.
"""

_CHANGED = {
    "token_frames_null": ("model.token_frames=null",),
    "token_frames_1": ("model.token_frames=1",),
    "depth_0": ("model.depth=0",),
    "regression_null": ("model.local.regression=null",),
    "detail_3_courant_1.5": ("model.local.stability.detail=3", "model.local.stability.courant=1.5"),
    "detail_6_courant_3": ("model.local.stability.detail=6", "model.local.stability.courant=3"),
    "detail_5_courant_2.5": ("model.local.stability.detail=5", "model.local.stability.courant=2.5"),
    "slack_0": ("model.local.stability.slack=0.0",),
    "growth_1.05": ("model.local.stability.growth=1.05",),
    "damping_0": ("model.local.stability.damping=0.0",),
    "damping_0.03": ("model.local.stability.damping=0.03",),
    "pushforward_4": ("objective.pushforward=4",),
    "pushforward_0": ("objective.pushforward=0",),
    "stability_null": ("model.local.stability=null",),
    "local_null": ("model.local=null",),
    "loss_squared": ("objective.loss=squared",),
    "lr_1em3": ("optimizer.lr=1e-3",),
    "lr_4em3": ("optimizer.lr=4e-3",),
    "context_2": ("window.context=2", "model.capacity.max_context=2"),
    "context_8": ("window.context=8", "model.capacity.max_context=8"),
    "context_8_frames_6": ("window.context=8", "model.capacity.max_context=8", "model.local.regression.frames=6"),
    "jitter_false": ("objective.jitter=false",),
    "potentials_0": ("model.local.regression.potentials=0",),
    "frames_1": ("model.local.regression.frames=1",),
    "products_80": ("model.local.regression.products=80",),
    "ridge_0.1": ("model.local.regression.ridge=0.1",),
    "ridge_0.001": ("model.local.regression.ridge=0.001",),
    "normalisation_dataset": ("model.normalisation=dataset",),
    "patch_4": ("model.patch_size=4", "model.capacity.max_patches=1024"),
    "ema_0.99": ("ema=0.99",),
    "target_2": ("window.target=2", "objective.pushforward=1"),
    "local_null_base_linear": ("model.local=null", "model.base=linear"),
    "schedule_null": ("schedule=null",),
    "dim_96_depth_8": ("model.dim=96", "model.depth=8", "model.mlp_dim=384"),
    "dim_192_depth_2": ("model.dim=192", "model.depth=2", "model.mlp_dim=768"),
    "weights_inverse_size": ("mixture.weights=inverse_size",),
}
ROWS |= {name: Row(name, (*_BEST, *options)) for name, options in _CHANGED.items()}
