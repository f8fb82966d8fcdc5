"""Train, fine-tune and use foundation models for partial differential equations."""

import os

# Large pages for large tensors, a tenth of a training step on a CPU (Linux).  torch reads this once, when it is loaded.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from morph.checkpoint import load_checkpoint
from morph.layout import Batch
from morph.model.morph import Morph
from morph.rollout import rollout

__all__ = ["Batch", "Morph", "load_checkpoint", "rollout"]
