"""`python -m data_adapters.benchmark`: how fast windows are read, beside h5py alone and the reader of The Well."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import h5py
import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader

from data_adapters.hdf5 import WellAdapter
from data_adapters.suite.well import write_well
from morph.command import command
from morph.data.mixture import MixtureSampler, WindowBatches
from morph.data.module import ResumableLoader
from morph.data.windows import Windows

__all__ = ["Measured", "main", "measure"]

Epoch = Callable[[int], object]


@dataclass
class Measured:
    """How one reader read one set.

    Args:
        samples_per_second: Windows, in the shortest of the epochs.
        to_slices: Its rate over that of h5py's slices.
        read_per_used: Bytes had from the system for each byte of the fields in the windows.
        growth: Of resident memory from the first epoch to the last, as a fraction; None where it was not measured.
    """

    data: str
    storage: str
    reader: str
    workers: int
    samples_per_second: float
    to_slices: float
    read_per_used: float
    growth: float | None = None


@command("read_benchmark")
def main(config: DictConfig) -> None:
    """Make the files, measure, print a table."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    console = Console()
    rows: list[Measured] = []
    cases = [(data, storage) for data in plain["data"] for storage in plain["storage"]]
    for data, storage in track(cases, "reading", console=console, transient=True, disable=not console.is_terminal):
        if data not in plain["made"]:
            raise ValueError(f"data: expected some of {', '.join(plain['made'])}, found {data!r}")
        rows += measure(data, storage, _made(data, storage, plain), plain)
    machine = f"{len(os.sched_getaffinity(0))} cores, h5py {version('h5py')}"
    if find_spec("the_well") is None:
        console.print('the_well is not installed, its rows are left out: pip install "morph[test]"')
    else:
        machine += f", the_well {version('the_well')}"
    console.print(_table(rows, f"Reading windows ({machine}, seed {config.seed})"))
    if config.json:
        Path(config.json).write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        console.print(f"numbers in {config.json}")


def measure(data: str, storage: str, folder: Path, options: Mapping[str, Any]) -> list[Measured]:
    """Every reader on one set of files.

    The readers take turns, so that a machine that slows down slows all of them.

    Args:
        data: Name of the set.
        storage: contiguous or compressed.
        folder: Where its files are.
        options: Of the command.
    """
    adapter = WellAdapter(folder)
    windows = Windows(adapter, options["context"], options["target"], memory=options["memory"] * 2**20)
    sampler = MixtureSampler(
        {data: windows},
        batch_sizes={data: options["batch_size"]},
        steps=options["batches"],
        probabilities=np.ones(1),
        seed=options["seed"],
    )
    plan = _Plan(sampler, windows)
    length = options["context"] + options["target"]
    frame = 4 * int(adapter.spec.component_mask.sum()) * int(np.prod(adapter.spec.spatial_shape))
    samples = options["batches"] * options["batch_size"]
    used = frame * length * samples
    workers = options["workers"]
    epochs: dict[tuple[str, int], Epoch] = {("slices", 0): _slices(adapter, plan, length)}
    for count in dict.fromkeys((0, workers)):
        loader = ResumableLoader(WindowBatches({data: windows}), sampler, count)
        epochs["morph", count] = _drained(loader)
    if find_spec("the_well") is not None:
        epochs["WellDataset", workers] = _drained(_well(folder, options, plan))
    times: dict[tuple[str, int], list[float]] = {key: [] for key in epochs}
    read: dict[tuple[str, int], int] = {}
    for number in range(options["repeats"] + 1):  # the first starts processes and opens files
        for key, epoch in epochs.items():
            before, start = _bytes_read(), perf_counter()
            epoch(number)
            times[key].append(perf_counter() - start)
            read[key] = _bytes_read() - before
    best = {key: samples / min(found[1:]) for key, found in times.items()}
    growth = _growth(epochs["morph", workers], options["epochs"])
    return [
        Measured(
            data,
            storage,
            *key,
            best[key],
            best[key] / best["slices", 0],
            read[key] / used,
            growth if key == ("morph", workers) else None,
        )
        for key in epochs
    ]


class _Plan:
    """(trajectory, first frame) of the windows of each batch of an epoch: the same for all readers.

    Args:
        per_trajectory: Where given, windows are numbered by a reader that counts so many for each trajectory.
    """

    def __init__(self, sampler: MixtureSampler, windows: Windows, per_trajectory: int | None = None) -> None:
        self.sampler = sampler
        self.windows = windows
        self.per_trajectory = per_trajectory

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Any]]:
        for _, indices in self.sampler:
            places = [self.windows.locate(index) for index in indices]
            each = self.per_trajectory
            yield places if each is None else [trajectory * each + start for trajectory, start in places]


def _slices(adapter: WellAdapter, plan: _Plan, length: int) -> Epoch:
    """What a reader cannot do without: the files open, a slice of each array for each window of a batch."""
    (path,) = adapter.files
    file = h5py.File(path)
    arrays = [array for group in ("t0_fields", "t1_fields") for array in file[group].values()]

    def epoch(number: int) -> object:
        batch: object = None
        plan.set_epoch(number)
        for places in plan:
            batch = [[array[i, start : start + length] for array in arrays] for i, start in places]
        return batch

    return epoch


def _drained(loader: DataLoader[Any]) -> Epoch:
    def epoch(number: int) -> object:
        (loader.sampler if isinstance(loader, ResumableLoader) else loader.batch_sampler).set_epoch(number)  # type: ignore
        return deque(loader, maxlen=1)  # as in training, the last batch is held while the next is made

    return epoch


def _well(folder: Path, options: Mapping[str, Any], plan: _Plan) -> DataLoader[Any]:
    from the_well.data import WellDataset  # the test extra

    dataset = WellDataset(
        path=str(folder),
        well_split_name="train",
        n_steps_input=options["context"],
        n_steps_output=options["target"],
        use_normalization=False,
    )
    order = _Plan(plan.sampler, plan.windows, len(dataset) // len(plan.windows.adapter))
    workers = options["workers"]
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _processes() -> Iterator[Path]:
    """This process and its children."""
    me = os.getpid()
    yield Path(f"/proc/{me}")
    for task in Path(f"/proc/{me}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield Path(f"/proc/{child}")


def _bytes_read() -> int:
    """Bytes that the processes have had from read calls, from disk or from the system's cache."""
    return sum(int((process / "io").read_text().split()[1]) for process in _processes())


def _resident() -> int:
    """Memory of the processes; what they share counts in parts."""
    found = 0
    for process in _processes():
        lines = (process / "smaps_rollup").read_text().splitlines()
        found += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return found


def _growth(epoch: Epoch, epochs: int) -> float:
    epoch(0)
    first = _resident()
    for number in range(1, epochs):
        epoch(number)
    return _resident() / first - 1


def _made(data: str, storage: str, options: Mapping[str, Any]) -> Path:
    """The folder of a set, made where it is not there yet."""
    if storage not in ("contiguous", "compressed"):
        raise ValueError(f"storage: expected contiguous or compressed, found {storage!r}")
    made = options["made"][data]
    folder = Path(options["folder"]) / f"{data}_{storage}_{options['chunk']}"
    path = folder / "data" / "train" / "part_0.hdf5"
    if path.exists():
        return folder
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options["seed"])
    size, shape = tuple(made["size"]), (made["trajectories"], made["frames"], *made["size"])
    axes = "xyz"[: len(size)]
    partial = path.with_name(f".{path.name}.partial")
    write_well(
        partial,
        name=data,
        time=0.1 * np.arange(made["frames"]),
        coordinates={axis: np.arange(n) / n for axis, n in zip(axes, size, strict=True)},
        fields0={f"scalar_{n}": rng.standard_normal(shape, np.float32) for n in range(made["scalars"])},
        fields1={f"vector_{n}": rng.standard_normal((*shape, len(size)), np.float32) for n in range(made["vectors"])},
    )
    if storage == "compressed":
        _compress(partial, options["chunk"])
    partial.replace(path)
    return folder


def _compress(path: Path, chunk: int) -> None:
    with h5py.File(path, "r+") as file:
        for group in ("t0_fields", "t1_fields"):
            for name in list(file[group]):
                values, attributes = file[group][name][()], dict(file[group][name].attrs)
                del file[group][name]
                chunks = (1, min(chunk, values.shape[1]), *values.shape[2:])
                stored = file[group].create_dataset(
                    name, data=values, chunks=chunks, shuffle=True, compression="gzip", compression_opts=1
                )
                stored.attrs.update(attributes)


def _table(rows: list[Measured], title: str) -> Table:
    table = Table(title=title)
    for name in ("data", "storage", "reader", "processes"):
        table.add_column(name)
    for name in ("samples/s", "to slices", "read", "growth"):
        table.add_column(name, justify="right")
    for number, row in enumerate(rows):
        table.add_row(
            row.data,
            row.storage,
            row.reader,
            str(row.workers) if row.workers else "this one",
            f"{row.samples_per_second:.0f}",
            f"{row.to_slices:.2f}",
            f"{row.read_per_used:.2f}",
            "" if row.growth is None else f"{row.growth:+.1%}",
            end_section=number + 1 == len(rows) or rows[number + 1].storage != row.storage,
        )
    return table


if __name__ == "__main__":
    main()
