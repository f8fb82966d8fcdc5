"""The data of a training run: every data set's windows, mixed for training and one by one for validation."""

import signal
from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from multiprocessing import get_all_start_methods
from time import perf_counter
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from morph.data.catalogue import DatasetConfig, open_split, prepare
from morph.data.mixture import EvenSampler, MixtureSampler, WindowBatches, probabilities, share
from morph.data.subset import few_shot, with_statistics
from morph.data.windows import Windows
from morph.layout import Batch, DatasetSpec, TrainedOn

__all__ = ["MixtureDataModule", "ResumableLoader"]

_GRACE = 30  # seconds that a reading process goes on after SIGTERM


class ResumableLoader(DataLoader[Batch]):
    """Batches by the plan of a sampler; Lightning stores where in an epoch it stands, and sets it again on resuming."""

    def __init__(
        self,
        batches: WindowBatches,
        sampler: MixtureSampler | EvenSampler,
        num_workers: int = 0,
        start_method: str | None = None,
        persistent: bool = True,
    ) -> None:
        super().__init__(
            batches,
            sampler=sampler,
            batch_size=None,
            num_workers=num_workers,
            multiprocessing_context=start_method if num_workers else None,
            persistent_workers=persistent and num_workers > 0,
            collate_fn=_as_it_is,
            worker_init_fn=_until_told,
        )
        self.plan = sampler
        self.given = 0
        self.waited = 0.0  # seconds in which nobody could go on without a batch, see morph.telemetry

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.given = self.plan.first * self.plan.share
        since = perf_counter()
        try:
            for batch in super().__iter__():
                self.given += 1
                self.waited += perf_counter() - since
                yield batch
                since = perf_counter()
        except (ConnectionError, EOFError) as error:  # its last batch was on its way
            raise RuntimeError(f"DataLoader worker (pid unknown) exited unexpectedly: {error}") from error

    def state_dict(self) -> dict[str, int]:
        """The epoch, and for how many of its steps batches were given out, on whatever number of processes."""
        return {"epoch": self.plan.epoch, "given": self.given // self.plan.share}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let that epoch go on after the steps whose batches were given out."""
        self.plan.resume_at = (state["epoch"], state["given"])


class MixtureDataModule(LightningDataModule):
    """Batches of one data set each.

    Args:
        datasets: Configuration of each data set, see `morph.data.catalogue`.
        context: Frames of context T.
        target: Target frames S.
        steps_per_epoch: Optimiser steps of an epoch.
        batches_per_step: Batches of an optimiser step over all processes, each of which computes its share one after
            the other; None: one for each process and each that the trainer accumulates.
        batch_size: Windows per batch: a number for all, a number per data set, or None for what each data
            set's YAML states.
        weights, temperature: See `morph.data.mixture.probabilities`.
        num_trajectories: So many of each training split, the same for every seed, see `morph.data.subset`; None: all.
            Scales are those of what was chosen, in validation too, which keeps all its trajectories.
        block: Neighbouring windows that are kept together.
        validation_windows: At most so many windows of each data set are validated on, evenly spaced; None for all.
        num_workers: Processes that read ahead; 0 reads in the training process.
        memory: MB that each process that reads may keep of decoded chunks, for all data sets together.
        start_method: How these processes come about: fork, spawn, forkserver; None: as the system does.
        persistent: They stay from epoch to epoch.
        seed: Of the order of the data.
        options: With which the data sets were found; stored in checkpoints.

    Raises:
        ValueError: `batch_size` names an unknown data set or is not positive; a number or a start method is unknown.
    """

    def __init__(
        self,
        datasets: Mapping[str, DatasetConfig],
        *,
        context: int = 4,
        target: int = 1,
        steps_per_epoch: int = 100,
        batches_per_step: int | None = None,
        batch_size: int | Mapping[str, int] | None = None,
        weights: str | Mapping[str, float] = "inverse_size",
        temperature: float | None = None,
        num_trajectories: int | None = None,
        block: int = 8,
        validation_windows: int | None = 64,
        num_workers: int = 0,
        memory: int = 1024,
        start_method: str | None = None,
        persistent: bool = True,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.datasets = dict(datasets)
        self.context = context
        self.target = target
        self.steps_per_epoch = steps_per_epoch
        self._batches_per_step = batches_per_step
        self.batch_sizes = _batch_sizes(self.datasets, batch_size)
        self.weights = weights
        self.temperature = temperature
        self.num_trajectories = num_trajectories
        for name, config in self.datasets.items():
            if num_trajectories is not None and config.get("missing") == "fill":
                raise ValueError(
                    f"num_trajectories: data set {name!r} fills what is missing with means over all its trajectories, "
                    "also those that are left out; choose missing: mask in its YAML"
                )
        self.block = block
        if validation_windows is not None and validation_windows < 1:
            raise ValueError(
                f"loader.validation_windows: expected at least 1, or null for all, found {validation_windows}"
            )
        self.validation_windows = validation_windows
        if start_method not in (None, *get_all_start_methods()):
            raise ValueError(
                f"loader.start_method: expected {', '.join(get_all_start_methods())} or null, found {start_method!r}"
            )
        for option, value in (("num_workers", num_workers), ("memory", memory)):
            if value < 0:
                raise ValueError(f"loader.{option}: expected 0 or more, found {value}")
        self.memory = memory
        self.num_workers = num_workers
        self.start_method = start_method
        self.persistent = persistent
        self.seed = seed
        self.options = dict(options or {})
        self.train: dict[str, Windows] = {}
        self.valid: dict[str, Windows] = {}
        self._counted: list[bool] = []

    def prepare_data(self) -> None:
        """Generate what is missing; Lightning calls this on one rank of each node."""
        for config in self.datasets.values():
            prepare(config)

    def setup(self, stage: str) -> None:
        """Open the training and validation splits, unless that is done.

        Raises:
            ValueError: A data set cannot be opened, or has not as many trajectories as are wanted.
        """
        if self.train:
            return
        self.train = {name: self._windows(name, "train") for name in self.datasets}
        self.valid = {name: self._windows(name, "valid") for name in self.datasets}
        counts = {name: -(-len(windows) // self.batch_sizes[name]) for name, windows in self.train.items()}
        self.probabilities = probabilities(counts, self.weights, self.temperature)

    @property
    def batches_per_step(self) -> int:
        """Batches of an optimiser step over all processes."""
        if self._batches_per_step is not None:
            return self._batches_per_step
        return 1 if self.trainer is None else self.trainer.world_size * self.trainer.accumulate_grad_batches

    @property
    def plan(self) -> dict[str, Any]:
        """What decides which windows make the batch of each step; a resumed run must not change it."""
        return {
            "data": list(self.datasets),
            "window.context": self.context,
            "window.target": self.target,
            "mixture.steps_per_epoch": self.steps_per_epoch,
            "mixture.weights": self.weights if isinstance(self.weights, str) else dict(self.weights),
            "mixture.temperature": self.temperature,
            "batch_size": self.batch_sizes,
            "batches_per_step": self.batches_per_step,
            "num_trajectories": self.num_trajectories,
            "loader.block": self.block,
            "loader.memory": self.memory,
            "seed": self.seed,
            "data sets": self._fingerprints,
        }

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        """Of what each data set holds for training, wherever its files lie: what there is, how many trajectories, the
        first frame of the first one and its last."""
        found = {}
        for name, windows in self.train.items():
            adapter = windows.adapter
            digest = sha256(f"{adapter.spec} {len(adapter)}".encode())
            for frame in (0, adapter.spec.num_steps - 1):
                digest.update(np.ascontiguousarray(adapter.read(0, frame, frame + 1)).tobytes())
            found[name] = digest.hexdigest()[:16]
        return found

    @property
    def specs(self) -> dict[str, DatasetSpec]:
        """What each data set holds; after `setup`."""
        return {name: windows.adapter.spec for name, windows in self.train.items()}

    @property
    def trained_on(self) -> TrainedOn:
        """What a model that is trained on it knows of its training; after `setup`."""
        scales = {name: windows.adapter.statistics for name, windows in self.train.items()}
        return TrainedOn(self.context, self.specs, {name: known for name, known in scales.items() if known is not None})

    def train_dataloader(self) -> DataLoader[Batch]:
        """An epoch of the mixture.

        Raises:
            ValueError: The trainer does not accumulate this process's share of a step.
        """
        place = self._place()
        mine = share(self.batches_per_step, place["world_size"])
        if self.trainer is not None and self.trainer.accumulate_grad_batches != mine:
            raise ValueError(
                f"batches_per_step: {self.batches_per_step} over {place['world_size']} processes needs a trainer with "
                f"accumulate_grad_batches={mine}, found {self.trainer.accumulate_grad_batches}"
            )
        sampler = MixtureSampler(
            self.train,
            batch_sizes=self.batch_sizes,
            steps=self.steps_per_epoch,
            probabilities=self.probabilities,
            seed=self.seed,
            batches=self.batches_per_step,
            block=self.block,
            **place,
        )
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Evenly spaced windows of every validation split."""
        sampler = EvenSampler(self.valid, batch_sizes=self.batch_sizes, limit=self.validation_windows, **self._place())
        self._counted = sampler.counted
        return self._loader(self.valid, sampler)

    def counts(self, batch_idx: int) -> bool:
        """Whether a batch of the validation is judged, or only keeps this process in step with the others."""
        return self._counted[batch_idx]

    def _loader(self, windows: Mapping[str, Windows], sampler: MixtureSampler | EvenSampler) -> DataLoader[Batch]:
        workers = (self.num_workers, self.start_method, self.persistent)
        return ResumableLoader(WindowBatches(windows), sampler, *workers)

    def _windows(self, name: str, split: str) -> Windows:
        # Half of it for training, half for validation, which follow each other in the same processes.
        memory = self.memory * 2**20 // (2 * len(self.datasets))
        adapter = open_split(self.datasets[name], split, name)
        if self.num_trajectories is not None and split == "train":
            adapter = few_shot(adapter, self.num_trajectories, name)
        elif self.num_trajectories is not None:
            adapter = with_statistics(adapter, self.train[name].adapter.statistics)
        return Windows(adapter, self.context, self.target, name, memory)

    def _place(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


def _as_it_is(batch: Any) -> Any:
    return batch


def _until_told(worker: int) -> None:
    """Signals reach all processes of a terminal or a job: this one reads on until the training process is done."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # It can also be the training process that ends this one, which must not stay for ever.
    signal.signal(signal.SIGTERM, lambda *_: signal.setitimer(signal.ITIMER_REAL, _GRACE))


def _batch_sizes(datasets: Mapping[str, DatasetConfig], given: int | Mapping[str, int] | None) -> dict[str, int]:
    if isinstance(given, Mapping) and (unknown := set(given) - set(datasets)):
        raise ValueError(f"batch_size: {', '.join(sorted(unknown))} is none of the data sets {', '.join(datasets)}")
    sizes = {}
    for name, config in datasets.items():
        size = given.get(name) if isinstance(given, Mapping) else given
        size = config.get("batch_size") if size is None else size
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"batch_size of {name!r}: expected a positive integer, found {size!r}; "
                "state it in the data set's YAML or as batch_size="
            )
        sizes[name] = size
    return sizes
