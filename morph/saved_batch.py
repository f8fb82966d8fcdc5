"""A batch as a safetensors file, with which a fault of training can be reproduced."""

import json
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from morph.layout import Batch, Boundary, Conditions, Statistics
from morph.provenance import write_whole

__all__ = ["SavedBatch", "read_batch", "write_batch"]

_NEEDED = ("context", "target", "windows", "component_mask")
_OPTIONAL = ("valid", "absent", "mean", "std", "rms_increment")
_SAID = ("dataset", "step", "seed", "precision", "boundary", "fault")


class SavedBatch(NamedTuple):
    """A batch and what was said of it.

    step: of the run, counted from 1.
    seed: of dropout.
    precision: of the run.
    fault: why it was saved, in words.
    """

    batch: Batch
    step: int
    seed: int
    precision: str
    fault: str


def write_batch(path: Path, saved: SavedBatch) -> None:
    """Write it whole or not at all; tensors in physical units, as the model was given them."""
    batch, conditions = saved.batch, saved.batch.conditions
    tensors: dict[str, Tensor | None] = {
        "context": batch.context,
        "target": batch.target,
        "windows": batch.windows,
        "valid": batch.valid,
        "component_mask": conditions.component_mask,
        "absent": conditions.absent,
        **(conditions.statistics._asdict() if conditions.statistics is not None else {}),
    }
    about = {
        "dataset": batch.dataset,
        "boundary": json.dumps(conditions.boundary),
        "step": str(saved.step),
        "seed": str(saved.seed),
        "precision": saved.precision,
        "fault": saved.fault,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
    write_whole(path, save(whole, about))


def read_batch(path: Path) -> SavedBatch:
    """Inverse of `write_batch`; executes nothing that the file contains.

    Raises:
        ValueError: There is no such file, or it is none of these.
    """
    if not path.is_file():
        raise ValueError(f"batch: there is no file {path}; give one of <run>/nonfinite/step_<n>.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, str] = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in list(file.keys())}
        if missing := [name for name in (*_NEEDED, *_SAID) if name not in found and name not in about]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        if unknown := set(found) - {*_NEEDED, *_OPTIONAL}:
            raise ValueError(f"it holds {', '.join(sorted(unknown))}, which no batch has")
        return SavedBatch(
            _batch(found, about), int(about["step"]), int(about["seed"]), about["precision"], about["fault"]
        )
    except (SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"batch: {path} is not a batch that morph.train saved: {error}") from error


def _batch(found: dict[str, Tensor], about: dict[str, Any]) -> Batch:
    context, target = found["context"], found["target"]
    if context.ndim != 7 or target.ndim != 7 or context.shape[2:] != target.shape[2:]:
        raise ValueError(f"expected B T F C D H W, found context {context.shape} and target {target.shape}")
    boundary = json.loads(about["boundary"])
    if len(boundary) != 3 or not set(boundary) <= set(get_args(Boundary)):
        raise ValueError(f"expected a boundary on D, H and W, found {boundary}")
    scales = [found.get(name) for name in Statistics._fields]
    mask = found["component_mask"]
    conditions = Conditions(
        mask,
        (boundary[0], boundary[1], boundary[2]),
        None if any(scale is None for scale in scales) else Statistics(*scales),  # type: ignore[arg-type]
        bool(torch.all(mask)),
        found.get("absent"),
    )
    return Batch(context, target, conditions, str(about["dataset"]), found["windows"], found.get("valid"))
