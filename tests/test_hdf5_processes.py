"""The reader of The Well's files reads nothing but what was asked for, when it is asked, in any process."""

import multiprocessing
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from omegaconf import OmegaConf
from well_files import NUM_STEPS, coded, coded_file, coded_folder, with_field, write, write_stats

from data_adapters.handles import HANDLES, FileHandles
from data_adapters.hdf5 import ArrayAdapter, GroupAdapter, WellAdapter


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from coded_folder(tmp_path)


def spoil(path: Path, field: str, chunks: Callable[[tuple[int, ...]], bool] = lambda offset: True) -> None:
    """Overwrite those chunks of a field whose offset fits; their checksum then tells whoever reads them."""
    with h5py.File(path) as file:
        data = file[field]
        found = [data.id.get_chunk_info(number) for number in range(data.id.get_num_chunks())]
    with path.open("r+b") as raw:
        for chunk in found:
            if chunks(chunk.chunk_offset):
                raw.seek(chunk.byte_offset)
                raw.write(bytes(number % 251 for number in range(chunk.size)))


def test_no_other_frame_trajectory_or_field_is_read(folder: Path) -> None:
    contents = coded_file(("x", "y"))
    for name, field in contents.fields.items():
        frame = field.values.shape[2:]
        field.storage = {"chunks": (1, 1, *frame), "fletcher32": True}
        expected = field.values if name == "velocity" else None
    write(folder, contents)
    path = folder / "data" / "train" / "part_0.hdf5"
    spoil(path, "t0_fields/pressure")
    spoil(path, "t0_fields/density", lambda offset: offset[0] != 1 or offset[1] not in (2, 3))
    spoil(path, "t1_fields/velocity", lambda offset: offset[0] != 1 or offset[1] not in (2, 3))
    adapter = WellAdapter(folder, fields=["velocity", "density"])
    frames = adapter.read(1, 2, 4)
    np.testing.assert_array_equal(np.moveaxis(frames[:, 0, :, 0], 1, -1), expected[1, 2:4])
    np.testing.assert_array_equal(frames[:, 1, 0, 0], contents.fields["density"].values[1, 2:4])
    for window in [(1, 1, 4), (1, 2, 5), (0, 2, 4), (2, 2, 4)]:
        with pytest.raises(ValueError, match=r"part_0\.hdf5: t1_fields/velocity: expected frames .* damaged"):
            adapter.read(*window)
    with pytest.raises(ValueError, match="t0_fields/pressure"):
        WellAdapter(folder, fields=["pressure"]).read(1, 2, 4)


def test_reading_allocates_little_beyond_the_window(folder: Path) -> None:
    values = np.zeros((1, NUM_STEPS, 64, 64), dtype=np.float32)
    contents = coded_file(("x", "y"), range(1), fields={})
    contents.axes = {axis: np.arange(64.0) for axis in ("x", "y")}
    for number in range(4):
        contents = with_field(contents, f"u{number}", values)
    adapter = WellAdapter(write(folder, contents))
    adapter.read(0, 0, 1)
    for fields, limit in ((None, 1.3), (["u0"], 1.3)):
        adapter = WellAdapter(folder, fields=fields)
        tracemalloc.start()
        frames = adapter.read(0, 0, NUM_STEPS)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert frames.nbytes <= peak < limit * frames.nbytes + 20_000


def _read_all(adapter: WellAdapter) -> tuple[int, np.ndarray]:
    frames = [adapter.read(trajectory, 0, NUM_STEPS) for trajectory in range(len(adapter))]
    return os.getpid(), np.stack(frames)


def _read_inherited(adapter: WellAdapter, results: Any) -> None:
    inherited = list(HANDLES._open.values())
    for _ in range(50):
        process, frames = _read_all(adapter)
    # What came from the parent is closed before anything is opened, so that nothing shares its file position.
    results.put((process, frames, [bool(file) for file in inherited]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_processes_read_what_the_parent_reads(folder: Path) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x", "y")), coded_file(("x", "y"), range(3, 6))))
    _, expected = _read_all(adapter)
    assert len(HANDLES) == 2
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_read_inherited, args=(adapter, results)) for _ in range(3)]
    for child in children:
        child.start()
    for _ in range(50):
        np.testing.assert_array_equal(_read_all(adapter)[1], expected)
    found = [results.get(timeout=30) for _ in children]
    for child in children:
        child.join()
    assert len({process for process, *_ in found} | {os.getpid()}) == 4
    for _, frames, inherited in found:
        np.testing.assert_array_equal(frames, expected)
        assert inherited == [False, False]


def test_spawned_processes_read_what_the_parent_reads(folder: Path) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x", "y"))))
    _, expected = _read_all(adapter)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        process, frames = pool.apply(_read_all, (adapter,))
    assert process != os.getpid()
    np.testing.assert_array_equal(frames, expected)


def test_pickled_adapter_is_the_same(folder: Path) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x", "y"))), fields=OmegaConf.create(["velocity", "density"]))
    expected = adapter.read(2, 1, 3)
    copy = pickle.loads(pickle.dumps(adapter))
    assert copy.spec == adapter.spec
    np.testing.assert_array_equal(copy.read(2, 1, 3), expected)


def test_files_are_opened_on_the_first_read_and_closed_on_request(folder: Path) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x",)), coded_file(("x",), range(3, 6))))
    assert len(HANDLES) == 0
    expected = adapter.read(4, 0, 2)
    assert len(HANDLES) == 1
    adapter.close()
    assert len(HANDLES) == 0
    np.testing.assert_array_equal(adapter.read(4, 0, 2), expected)


def test_a_new_adapter_sees_a_file_that_was_replaced(folder: Path) -> None:
    WellAdapter(write(folder, coded_file(("x",)))).read(0, 0, 1)
    (folder / "data" / "train" / "part_0.hdf5").unlink()
    assert len(WellAdapter(write(folder, coded_file(("x",), range(5))))) == 5


def test_no_more_files_stay_open_than_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = WellAdapter(write(folder, *(coded_file(("x",), range(start, start + 1)) for start in range(6))))
    opened = []
    original = HANDLES._opener
    monkeypatch.setattr(HANDLES, "_opener", lambda path: opened.append(Path(path).name) or original(path))
    monkeypatch.setattr(HANDLES, "limit", 3)
    for trajectory in [0, 1, 2, 0, 3, 0, 1, 4, 5]:
        np.testing.assert_array_equal(
            adapter.read(trajectory, 0, 1)[:, 0, 0, 0, 0],
            coded(0, 1, range(trajectory, trajectory + 1), ("x",))[0, :1, :, 0],
        )
        assert len(HANDLES) <= 3
    # The fourth file drives out 1, which was lent longest ago, and not 0.
    assert opened == [f"part_{number}.hdf5" for number in (0, 1, 2, 3, 1, 4, 5)]
    assert FileHandles(original).limit == 64


@pytest.mark.parametrize("whole_group", [False, True])
def test_an_array_of_another_file_is_read_from_there(tmp_path: Path, whole_group: bool) -> None:
    """Past the library only what lies in the file itself: an offset in one is another place in the other."""
    values = np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        for row in range(4):
            file[f"{row}/u"] = values[row]
        file["u"] = values
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["junk"] = np.ones(5000, np.float32)
        for row in range(4):
            file[f"{row}"] = h5py.ExternalLink("part.h5", f"/{row}")
        file["u"] = h5py.ExternalLink("part.h5", "/u")
    reader, dims = (GroupAdapter, ["time", "x"]) if whole_group else (ArrayAdapter, ["sample", "time", "x"])
    options = {"fields": ["u"], "dt": 1.0, "splits": {"valid": 0, "test": 0, "order": ["train", "valid", "test"]}}
    adapter = reader(str(tmp_path / "master.h5"), dims=dims, **options)
    for row in range(4):
        np.testing.assert_array_equal(adapter.read(row, 1, 5)[:, 0, 0, 0, 0], values[row, 1:5])
    adapter.close()


def test_statistics_that_came_with_the_data_are_not_of_every_second_frame(folder: Path) -> None:
    write(folder, coded_file(("x",)))
    stats = {key: {"density": 1.0} for key in ("mean", "std", "rms_delta")}
    write_stats(folder, stats)
    assert WellAdapter(folder, fields=["density"]).statistics is not None
    with pytest.raises(ValueError, match=r"stats\.yaml: expected statistics of every frame.*frames\.step=2.*check"):
        WellAdapter(folder, fields=["density"], frames={"step": 2})
    assert (
        WellAdapter(folder, fields=["density"], frames={"step": 2}, statistics=f"{folder}/own.yaml").statistics is None
    )
