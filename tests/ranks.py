"""Small trainings on several processes of this machine, and all that can be compared of them."""

import os
import socket
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import multiprocessing

from morph.data.module import MixtureDataModule
from morph.forecaster import Forecaster
from morph.model.morph import Capacity, Morph
from morph.parallel import Plan, strategy
from morph.progress import quiet_warnings
from morph.sharding import whole
from tests.made_up import Coast, Waves

__all__ = ["BATCHES", "CLIP", "EPOCHS", "STEPS", "Masked", "Plain", "on_processes", "train"]

STEPS, EPOCHS, BATCHES, CLIP = 3, 2, 6, 0.05
_READ: list[tuple[str, int, int, int]] = []


class Plain(Waves):
    """Waves that note what is read of them for training."""

    def read(self, trajectory: int, start: int, stop: int, out: Any = None) -> Any:
        if self.split == "train" and stop - start > 1:  # a window, and not what the data are told by
            _READ.append((self.spec.name, trajectory, start, stop))
        return super().read(trajectory, start, stop, out)


class Masked(Coast):
    """Those beside land, too: as many points are missing as the frame says."""

    def __init__(self, split: str, name: str = "masked") -> None:
        super().__init__(split, name, gaps=True)

    def read(self, trajectory: int, start: int, stop: int, out: Any = None) -> Any:
        if self.split == "train" and stop - start > 1:  # a window, and not what the data are told by
            _READ.append((self.spec.name, trajectory, start, stop))
        return super().read(trajectory, start, stop, out)


class _Kept(Callback):
    """Losses of all batches, and the gradient of each step before it is clipped."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.gradients.append(
            {name: whole(p.grad).clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning hands over the batch's share of the step's loss.
        self.losses.append(outputs["loss"].item() * trainer.accumulate_grad_batches)


def train(folder: Path, world_size: int, case: dict[str, Any]) -> dict[str, Any]:
    """One training.

    Args:
        folder: Of its checkpoints.
        world_size: Processes.
        case: `sets` (classes), `strategy`, and optionally `batches`, `batch_size`, `dropout`, `resume`, `execution`,
            `epochs`.
    """
    seed_everything(5, verbose=False)
    sets = {
        name: {"_target_": f"tests.ranks.{kind}", "name": name, "batch_size": case.get("batch_size", 2 - number)}
        for number, (name, kind) in enumerate(case["sets"].items())
    }
    batches = case.get("batches", BATCHES)
    data = MixtureDataModule(sets, steps_per_epoch=STEPS, seed=1, validation_windows=7, batches_per_step=batches)
    capacity = Capacity(2, 1, 4, 32)
    model = Morph(dim=32, depth=2, heads=4, field_heads=8, dropout=case.get("dropout", 0.3), capacity=capacity)
    model.activation_checkpointing = case.get("checkpointing", False)
    # With AdamW's own eps, a gradient that is rounding alone (biases before a softmax) moves a weight like any other.
    forecaster = Forecaster(model, partial(torch.optim.AdamW, lr=3e-3, eps=1e-4), seed=5)
    each = batches // world_size
    processes = Plan(world_size, 1, batches, each)
    kept = _Kept()
    every = {"every_n_train_steps": 1, "save_top_k": -1}
    saving = ModelCheckpoint(folder, filename="{step}", enable_version_counter=False, **every)
    trainer = Trainer(
        default_root_dir=folder, max_epochs=EPOCHS, callbacks=[kept, saving], logger=False, accelerator="cpu",
        devices=world_size, strategy=strategy(case["strategy"], processes, "cpu", folder), enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        accumulate_grad_batches=each, gradient_clip_val=CLIP,
    )  # fmt: skip
    _READ.clear()
    trainer.fit(forecaster, data, ckpt_path=case.get("resume"), weights_only=True)
    return {
        "losses": torch.tensor(kept.losses).view(-1, each),
        "gradients": kept.gradients,
        "weights": whole(forecaster.state_dict()),
        "scores": {name: value.item() for name, value in trainer.callback_metrics.items() if "val" in name},
        "read": Counter(_READ),
        "last": str(saving.best_model_path),
        "sharded": [type(p).__name__ for p in forecaster.parameters()].count("DTensor"),
    }


def on_processes(folder: Path, world_size: int, cases: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The trainings, one after the other, on so many processes: what each rank has of each case."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.ranks"])
    ranks = [context.Process(target=_rank, args=(folder, rank, world_size, port, cases)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0] * world_size
    found = [torch.load(folder / f"{world_size}_{rank}.pt", weights_only=False) for rank in range(world_size)]
    return {case: [of_rank[case] for of_rank in found] for case in cases}


def _rank(folder: Path, rank: int, world_size: int, port: int, cases: dict[str, dict[str, Any]]) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    quiet_warnings()
    results = {name: train(folder / f"{name}_{world_size}", world_size, case) for name, case in cases.items()}
    torch.save(results, folder / f"{world_size}_{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
