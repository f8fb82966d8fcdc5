"""Train, fine-tune and use foundation models for partial differential equations."""

from morph.checkpoint import load_checkpoint
from morph.layout import Batch
from morph.model.morph import Morph
from morph.rollout import rollout

__all__ = ["Batch", "Morph", "load_checkpoint", "rollout"]
