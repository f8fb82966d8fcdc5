"""Short training runs on data made up in memory, with the files that a run of the command writes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything

from morph.checkpoint_files import CheckpointFile, Checkpoints
from morph.data.module import MixtureDataModule
from morph.forecaster import Forecaster
from morph.history import Losses, StepLog
from morph.interruption import Interruption
from morph.interruption import cluster as slurm
from morph.model.morph import Capacity, Morph

__all__ = ["EPOCHS", "STEPS", "data", "files", "fit", "forecaster"]

STEPS, EPOCHS = 6, 2


def data(**options: Any) -> MixtureDataModule:
    """Two data sets of travelling waves."""
    sets = {
        "slow": {"_target_": "tests.made_up.Waves", "name": "slow", "batch_size": 4},
        "fast": {"_target_": "tests.made_up.Waves", "name": "fast", "speed": 2.0, "batch_size": 4},
    }
    return MixtureDataModule(sets, **{"steps_per_epoch": STEPS, "seed": 1, **options})


def forecaster() -> Forecaster:
    """With dropout, whose draws a resumed run has to repeat."""
    seed_everything(5, verbose=False)
    model = Morph(dim=16, depth=1, heads=2, field_heads=4, mlp_dim=16, dropout=0.3, capacity=Capacity(2, 1, 4, 32))
    return Forecaster(model, partial(torch.optim.AdamW, lr=3e-3), seed=5)


def fit(
    folder: Path,
    *callbacks: Callback,
    resume: Path | None = None,
    every: int | None = 2,
    keep: int = 2,
    archive: int | None = None,
    loader: Sequence[tuple[str, Any]] = (),
    cluster: bool = False,
    **options: Any,
) -> Trainer:
    """Train, or go on with it."""
    checkpoints = Checkpoints(folder / "checkpoints", every, keep, archive)
    trainer = Trainer(
        default_root_dir=folder, max_epochs=EPOCHS, logger=StepLog(folder), accelerator="cpu", log_every_n_steps=1,
        callbacks=[Losses(folder / "losses.csv"), Interruption(), *callbacks, checkpoints],
        plugins=[CheckpointFile(), *(slurm(1) if cluster else [])],
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        **options,
    )  # fmt: skip
    trainer.fit(forecaster(), data(**dict(loader)), ckpt_path=resume, weights_only=True)
    return trainer


def files(folder: Path) -> dict[str, bytes]:
    """What a run leaves by step: losses, scores, and the end of its weights and optimiser."""
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    optimiser = last["optimizer_states"][0]["state"]
    tensors = [*last["state_dict"].values(), *(value for state in optimiser.values() for value in state.values())]
    return {
        "losses": (folder / "losses.csv").read_bytes(),
        "scores": (folder / "log" / "metrics.csv").read_bytes(),
        "best": repr(next(v for k, v in last["callbacks"].items() if k.startswith("Checkpoints"))).encode(),
        "state": b"".join(tensor.double().numpy().tobytes() for tensor in tensors),
    }
