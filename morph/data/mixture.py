"""Which data set and which windows make the batch of each step: the same plan on every rank."""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
from jaxtyping import Float
from torch.utils.data import Dataset, Sampler

from morph.data.windows import Windows
from morph.layout import Batch

__all__ = ["BatchKey", "EvenSampler", "MixtureSampler", "WindowBatches", "probabilities", "share"]

BatchKey = tuple[str, list[int]]
"""A data set and the windows of one batch."""

_RULES = ("inverse_size", "proportional", "temperature")


def probabilities(
    num_batches: Mapping[str, int],
    weights: str | Mapping[str, float] = "inverse_size",
    temperature: float | None = None,
) -> Float[np.ndarray, "_"]:
    """Probability that a batch comes from each data set.

    Args:
        num_batches: B_k, batches in one pass over data set k.
        weights: "inverse_size": proportional to max_j B_j / B_k, so that small sets are drawn more often (the published
            rule, arXiv 2509.21670); "proportional": to B_k; "temperature": to B_k^(1 / temperature); or a number per
            data set.
        temperature: For weights="temperature": 1 is proportional, infinity uniform, None means 2.

    Raises:
        ValueError: The rule is unknown, or explicit weights miss a data set, name another or are not positive.
    """
    counts = np.array(list(num_batches.values()), dtype=float)
    if isinstance(weights, str):
        if weights not in _RULES:
            raise ValueError(
                f"mixture.weights: expected {', '.join(_RULES)} or a number per data set, found {weights!r}"
            )
        if temperature is not None and (weights != "temperature" or temperature <= 0):
            raise ValueError(
                f"mixture.temperature: expected a positive number, and mixture.weights=temperature, "
                f"found {temperature} with mixture.weights={weights}"
            )
        rule = {
            "inverse_size": counts.max() / counts,
            "proportional": counts,
            "temperature": counts ** (1 / (2.0 if temperature is None else temperature)),
        }
        drawn = rule[weights]
    else:
        if set(weights) != set(num_batches):
            raise ValueError(
                f"mixture.weights: expected a number for each of {', '.join(num_batches)}, found {', '.join(weights)}"
            )
        drawn = np.array([weights[name] for name in num_batches], dtype=float)
        if not (np.isfinite(drawn).all() and (drawn >= 0).all() and drawn.sum() > 0):
            raise ValueError(f"mixture.weights: expected numbers >= 0 with a positive sum, found {dict(weights)}")
    return drawn / drawn.sum()


def share(batches_per_step: int, processes: int) -> int:
    """How many batches of an optimiser step each process computes, one after the other.

    Raises:
        ValueError: They cannot be shared out evenly.
    """
    if batches_per_step < 1 or batches_per_step % processes:
        below = max(1, batches_per_step // processes) * processes
        raise ValueError(
            f"batches_per_step: expected a multiple of the number of processes, which is {processes} "
            f"(trainer.devices * trainer.num_nodes), found {batches_per_step}; give {below} or {below + processes}, or "
            "change the number of processes to one that divides it"
        )
    return batches_per_step // processes


class WindowBatches(Dataset[Batch]):
    """Reads the batch that a key names.  Addressable, so a run can continue at any step."""

    def __init__(self, windows: Mapping[str, Windows]) -> None:
        self.windows = dict(windows)

    def __len__(self) -> int:
        return sum(map(len, self.windows.values()))

    def __getitem__(self, key: BatchKey) -> Batch:
        name, indices = key
        return self.windows[name].batch(indices)


class MixtureSampler(Sampler[BatchKey]):
    """The plan of an epoch of `steps` optimiser steps, each of `batches` batches of one data set.

    The plan follows from (seed, epoch) alone.  Every rank draws the whole plan and takes its own batches of each step,
    batch r, r + world_size, ... of rank r, one after the other: what a step holds does not depend on the number of
    ranks, no message passes between them and none reads another's data.  Windows are shuffled in blocks of neighbours,
    so that reads that are near in time are near on disk; the blocks that are open at a time are mixed with each other.
    Inside an epoch a window comes again only after all others of its data set; each epoch shuffles anew.

    Args:
        windows: The windows of each data set.
        batch_sizes: Windows per batch of each data set.
        steps: Optimiser steps of an epoch.
        probabilities: Of each data set, in the order of `windows`.
        seed: Of the plan.
        rank: This process.
        world_size: Number of processes.
        batches: Batches of a step, over all processes; None: one for each.
        block: Neighbouring windows that are kept together; more where the files' chunks are longer.
        open_blocks: Blocks that are mixed with each other; fewer where what is decoded for them cannot be kept.

    Raises:
        ValueError: The batches of a step cannot be shared out evenly.
    """

    def __init__(
        self,
        windows: Mapping[str, Windows],
        *,
        batch_sizes: Mapping[str, int],
        steps: int,
        probabilities: Float[np.ndarray, "_"],
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batches: int | None = None,
        block: int = 8,
        open_blocks: int = 64,
    ) -> None:
        self.windows = dict(windows)
        self.batch_sizes = dict(batch_sizes)
        self.steps = steps
        self.probabilities = probabilities
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.batches = world_size if batches is None else batches
        self.share = share(self.batches, world_size)
        self.block = block
        self.open_blocks = open_blocks
        self.epoch = 0
        self.resume_at = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.share

    @property
    def first(self) -> int:
        """The step of this epoch to begin with: 0 unless the run was resumed inside of it."""
        epoch, first = self.resume_at
        return first if epoch == self.epoch else 0

    def __iter__(self) -> Iterator[BatchKey]:
        yield from islice(self._plan(), self.first * self.share, None)

    def _plan(self) -> Iterator[BatchKey]:
        names = list(self.windows)
        order = np.random.default_rng([self.seed, self.epoch]).choice(len(names), self.steps, p=self.probabilities)
        streams = {name: self._stream(name, k) for k, name in enumerate(names)}
        for k in order:
            name = names[k]
            step = list(islice(streams[name], self.batch_sizes[name] * self.batches))
            for batch in range(self.rank, self.batches, self.world_size):
                yield name, step[batch :: self.batches]

    def _stream(self, name: str, k: int) -> Iterator[int]:
        """An endless stream of window indices, shuffled pass by pass."""
        rng = np.random.default_rng([self.seed, self.epoch, k + 1])
        windows = self.windows[name]
        of_trajectory = windows.blocks(self.block)
        open_blocks = windows.open_blocks(self.block, self.open_blocks)
        blocks = [
            np.arange(first + block.start, first + block.stop)
            for first in range(0, len(windows), windows.per_trajectory)
            for block in of_trajectory
        ]
        while True:
            order = rng.permutation(len(blocks))
            for at in range(0, len(order), open_blocks):
                mixed = np.concatenate([blocks[b] for b in order[at : at + open_blocks]])
                yield from rng.permutation(mixed).tolist()


class EvenSampler(Sampler[BatchKey]):
    """At most `limit` windows of each data set, evenly spaced, in order, shared out over the ranks: for validation.

    Every rank has as many batches of each data set, for where weights are sharded all ranks run the model together.
    Where shares differ, a rank repeats a window, and `counted` is False for that batch.
    """

    def __init__(
        self,
        windows: Mapping[str, Windows],
        *,
        batch_sizes: Mapping[str, int],
        limit: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.epoch, self.first, self.resume_at, self.share = 0, 0, (0, 0), 1
        self.keys: list[BatchKey] = []
        self.counted: list[bool] = []
        for name, split in windows.items():
            count = len(split) if limit is None else min(limit, len(split))
            even = np.linspace(0, len(split) - 1, count).round().astype(int).tolist()
            mine = even[rank::world_size]
            size = batch_sizes[name]
            most = -(-len(even[::world_size]) // size)
            batches = [mine[at : at + size] for at in range(0, len(mine), size)]
            self.counted += [number < len(batches) for number in range(most)]
            self.keys += [(name, batch) for batch in batches + [even[:1]] * (most - len(batches))]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[BatchKey]:
        return iter(self.keys)
