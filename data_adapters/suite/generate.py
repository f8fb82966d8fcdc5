"""Simulate a data set, check it and write it."""

import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import h5py
import jax
import numpy as np

from data_adapters.moments import Moments, write_statistics
from data_adapters.suite.checks import check
from data_adapters.suite.initial import draw, draw_parameters
from data_adapters.suite.simulate import simulate
from data_adapters.suite.systems import SPLITS, SUITE_VERSION, System
from data_adapters.suite.well import Variable, write_well

__all__ = ["Program", "compile_program", "generate"]

T = TypeVar("T")
R = TypeVar("R")

# Parameters and initial states of a batch of trajectories -> their fields.
Program = Callable[[dict[str, np.ndarray], np.ndarray], dict[str, jax.Array]]


def compile_program(system: System, level: str) -> Program:
    """The compiled simulation of one batch."""
    batch = _batch(system, level, [draw(system, level, 0, "train", 0)])
    return jax.jit(simulate(system, level)).lower(*batch).compile()


def _batch(system: System, level: str, drawn: list[Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    # One compiled batch size: the last batch is filled up, and what fills it is dropped.
    filled = drawn + [drawn[-1]] * (system.levels[level].batch - len(drawn))
    parameters = {name: np.array([values[name] for values, _ in filled], np.float32) for name in system.parameters}
    return parameters, np.stack([state for _, state in filled]).astype(np.float32)


def generate(
    system: System,
    level: str,
    seed: int,
    target: Path,
    *,
    program: Program,
    pool: Executor,
    workers: int,
    advance: Callable[[int], None],
    overwrite: bool = False,
) -> None:
    """Write one data set; it appears at `target` complete or not at all.

    Args:
        system: What to simulate.
        level: Its size.
        seed: Seed of all splits.
        target: Folder of the data set.  If it appears meanwhile, written by somebody else, it is kept.
        program: The compiled simulation.
        pool: Where batches run.
        workers: How many batches run at once.
        advance: Called with the number of trajectories that have been written.
        overwrite: Replace what is at `target`.

    Raises:
        ValueError: A trajectory is wrong, see `check`.
        OSError: It cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.{os.getpid()}.{uuid4().hex[:8]}.partial"
    try:
        _write(system, level, seed, partial, program, pool, workers, advance)
        _publish(partial, target, overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, target: Path, overwrite: bool) -> None:
    if overwrite and target.exists():
        previous = partial.with_suffix(".previous")
        target.rename(previous)
        shutil.rmtree(previous, ignore_errors=True)
    try:
        partial.rename(target)
    except OSError:
        # Another process was faster; its data set is complete, as it was renamed into place like this one.
        if not (target / "stats.yaml").exists():
            raise


def _write(
    system: System,
    level: str,
    seed: int,
    folder: Path,
    program: Program,
    pool: Executor,
    workers: int,
    advance: Callable[[int], None],
) -> None:
    size = system.levels[level]
    places = [(split, number) for split in SPLITS for number in range(size.num_trajectories[split])]
    batches = [places[start : start + size.batch] for start in range(0, len(places), size.batch)]
    moments = Moments()

    def run(batch: list[tuple[str, int]]) -> Any:
        parameters, states = _batch(system, level, [draw(system, level, seed, *place) for place in batch])
        return parameters, jax.device_get(program(parameters, states))

    paths = {split: folder / "data" / split / f"{system.name}.hdf5" for split in SPLITS}
    for split, path in paths.items():
        _reserve(path, system.num_bytes(level, split))
    with ExitStack() as stack:
        files = {}
        for split, path in paths.items():
            _lay_out(path, system, level, seed, split)
            files[split] = stack.enter_context(_open(path))
        for batch, (parameters, fields) in zip(batches, _in_order(pool, run, batches, workers), strict=True):
            for row, (split, number) in enumerate(batch):
                values = {name: array[row] for name, array in parameters.items()}
                arrays = {name: np.asarray(array[row], np.float32) for name, array in fields.items()}
                check(system, split, number, arrays, values)
                for name, array in arrays.items():
                    group = "t1_fields" if name in system.vectors else "t0_fields"
                    files[split][group][name][number] = array
                if split == "train":
                    for name, array in arrays.items():
                        is_vector = name in system.vectors
                        points = np.asarray(array).reshape(len(array), -1, array.shape[-1] if is_vector else 1)
                        moments.add(name, points, scalar=not is_vector)
            advance(len(batch))
    write_statistics(folder / "stats.yaml", moments)


def _reserve(path: Path, size: int) -> None:
    """Find out that there is no room before the work, and not from HDF5, which may crash when it cannot write."""
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:
            return  # not on this system
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not on this file system
                raise


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    file = h5py.File(path, "r+")
    try:
        yield file
    except BaseException:
        # What could not be written cannot be closed either; the first error is the one to tell.
        with suppress(OSError, RuntimeError):
            file.close()
        raise
    try:
        file.close()
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _lay_out(path: Path, system: System, level: str, seed: int, split: str) -> None:
    size, extent = system.levels[level], system.domain(level)
    lead = (size.num_trajectories[split], size.num_frames, *(size.num_points,) * system.num_dims)
    drawn = [draw_parameters(system, level, seed, split, number) for number in range(lead[0])]
    positions = np.arange(size.num_points) * (extent / size.num_points)
    write_well(
        path,
        name=system.name,
        time=np.arange(size.num_frames) * system.dt,
        coordinates=dict.fromkeys(system.axes, positions),
        fields0={name: Variable(lead) for name in system.scalars},
        fields1={name: Variable((*lead, system.num_dims)) for name in system.vectors},
        scalars={name: np.array([values[name] for values in drawn]) for name in system.parameters},
        attributes={
            "generator": "exponax",
            "generator_version": version("exponax"),
            "suite_version": SUITE_VERSION,
            "seed": seed,
            "level": level,
            "equation": system.equation,
        },
    )


def _in_order(pool: Executor, function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Like map, with no more than `workers` results ahead of the one that is taken, so that memory stays bounded."""
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for future in waiting:
            with suppress(BaseException):
                future.result()
