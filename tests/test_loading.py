"""Batches are the same however they are read: in one process or several, from chunks or from whole arrays."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from well_files import NUM_STEPS, SIZES, coded_file, coded_folder, write

from data_adapters.handles import HANDLES
from data_adapters.hdf5 import WellAdapter
from morph.data.mixture import MixtureSampler, WindowBatches
from morph.data.module import MixtureDataModule, ResumableLoader
from morph.data.windows import Windows
from morph.layout import Batch


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from coded_folder(tmp_path)


def _written(folder: Path, chunks: tuple[int, int] | None = None) -> Path:
    """Six trajectories in two files, in chunks of so many trajectories and frames."""
    files = []
    for trajectories in (range(3), range(3, 6)):
        contents = coded_file(("x", "y"), trajectories)
        for field in contents.fields.values():
            if chunks:
                field.storage = {"chunks": (*chunks, *field.values.shape[2:]), "compression": "gzip"}
        files.append(contents)
    return write(folder, *files)


def _sampler(windows: Windows, **options: Any) -> MixtureSampler:
    options = {"batch_sizes": {"coded": 4}, "steps": 12, "probabilities": np.ones(1), "seed": 5, "block": 2, **options}
    return MixtureSampler({"coded": windows}, **options)


def _batches(folder: Path, workers: int = 0, epochs: int = 2, **options: Any) -> list[Batch]:
    windows = Windows(WellAdapter(folder), context=2)
    sampler = _sampler(windows)
    loader = ResumableLoader(WindowBatches({"coded": windows}), sampler, workers, **options)
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        # Copied: a batch of another process lives in memory that it shares.
        found += [batch._replace(context=batch.context.clone(), target=batch.target.clone()) for batch in loader]
    return found


def _equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(first, second, strict=True)
        for name in ("context", "target", "windows")
    )


@pytest.mark.parametrize(
    ("method", "persistent"),
    [
        (method, persistent)
        for method, persistent in (("fork", True), ("fork", False), ("spawn", True))
        if method in multiprocessing.get_all_start_methods()
    ],
)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_give_the_batches_of_one(folder: Path, method: str, persistent: bool) -> None:
    _written(folder, chunks=(1, 3))
    here = _batches(folder)
    assert len(HANDLES) == 2  # inherited by a fork, and not to be used there
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    there = _batches(folder, workers=2, start_method=method, persistent=persistent)
    assert _equal(here, there)
    left = set(os.listdir("/proc/self/fd")) - before if before else set()
    assert not [path for path in left if _target(path).endswith(".hdf5")]


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def test_ranks_share_out_the_windows_of_one(folder: Path) -> None:
    _written(folder, chunks=(1, 3))
    windows = Windows(WellAdapter(folder), context=2)
    whole = list(_sampler(windows, batch_sizes={"coded": 8}, steps=3))
    ranks = [list(_sampler(windows, steps=3, rank=rank, world_size=2)) for rank in range(2)]
    for (_, together), *mine in zip(whole, *ranks, strict=True):
        assert sorted(together) == sorted(window for _, part in mine for window in part)
        assert not set(mine[0][1]) & set(mine[1][1])


@pytest.mark.parametrize("chunks", [(1, 1), (1, 3), (2, 4), (3, NUM_STEPS)])
@pytest.mark.parametrize("memory", [0, 3000, 2**20])
def test_chunks_change_no_value(folder: Path, chunks: tuple[int, int], memory: int) -> None:
    whole = Windows(WellAdapter(_written(folder / "whole")), context=3)
    chunked = Windows(WellAdapter(_written(folder / "chunked", chunks)), context=3, memory=memory)
    order = np.random.default_rng(0).permutation(len(whole)).reshape(-1, 4).tolist()
    for indices in order:
        assert torch.equal(whole.batch(indices).context, chunked.batch(indices).context)
        assert torch.equal(whole.batch(indices).target, chunked.batch(indices).target)


@pytest.mark.parametrize("frames", [None, {"start": 1}, {"start": 2, "step": 2}, {"step": 3}])
def test_a_run_is_what_one_chunk_holds(folder: Path, frames: dict[str, int] | None) -> None:
    adapter = WellAdapter(_written(folder, chunks=(1, 3)), frames=frames)
    used = range(NUM_STEPS)[slice(*(((frames or {}).get(key)) for key in ("start", "stop", "step")))]
    for frame, stored in enumerate(used):
        expected = [number for number, other in enumerate(used) if other // 3 == stored // 3]
        assert list(adapter.run(frame)) == expected


def test_each_chunk_is_decoded_about_once_in_an_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = WellAdapter(_written(folder, chunks=(1, 3)))
    frame = 4 * adapter.spec.num_fields * adapter.spec.num_components * SIZES["x"] * SIZES["y"]
    windows = Windows(adapter, context=2, memory=24 * frame)  # one of the six trajectories, and a bit
    decoded = []
    monkeypatch.setattr(
        adapter, "read", lambda *a, read=adapter.read: decoded.append(a[1:] and (a[0], a[1])) or read(*a)
    )
    blocks = windows.blocks(2)
    assert [frame for block in blocks for frame in block] == list(range(windows.per_trajectory))
    assert [block.stop for block in blocks] == [3, 5]  # at the end of a chunk, or of the windows
    steps = len(windows) // 5
    for _, indices in _sampler(windows, batch_sizes={"coded": 5}, steps=steps):
        windows.batch(indices)
    # Three chunks for each of six trajectories; a window reaches over the end of its block into the next chunk.
    assert len(decoded) <= 2 * 3 * 6
    assert sum(frames.nbytes for frames in windows._kept.values()) <= 24 * frame


def test_what_was_decoded_does_not_travel(folder: Path) -> None:
    windows = Windows(WellAdapter(_written(folder, chunks=(1, 3))), context=2)
    windows.batch([0, 7])
    assert windows._kept
    assert not windows.__getstate__()["_kept"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"start_method": "thread"}, "loader.start_method: expected fork, spawn, forkserver or null, found 'thread'"),
        ({"num_workers": -1}, "loader.num_workers: expected 0 or more, found -1"),
        ({"memory": -1}, "loader.memory: expected 0 or more, found -1"),
    ],
)
def test_wrong_options_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureDataModule({"a": {"batch_size": 1}}, **option)
