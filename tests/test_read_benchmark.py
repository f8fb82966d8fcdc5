"""The benchmark of reading: it measures what it says, on files that it makes once."""

from pathlib import Path
from typing import Any

import h5py
import pytest

from data_adapters.benchmark import _made, measure

OPTIONS = {
    "context": 2, "target": 1, "batch_size": 4, "batches": 5, "workers": 0, "epochs": 2, "repeats": 1, "chunk": 4,
    "memory": 1, "seed": 0,
    "made": {"a": {"size": [32, 24], "scalars": 1, "vectors": 1, "trajectories": 3, "frames": 12}},
}  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count what a process reads")
@pytest.mark.parametrize("storage", ["contiguous", "compressed"])
def test_every_reader_is_measured_on_the_same_windows(tmp_path: Path, storage: str) -> None:
    options = {**OPTIONS, "folder": str(tmp_path)}
    folder = _made("a", storage, options)
    path = folder / "data" / "train" / "part_0.hdf5"
    written = path.stat().st_mtime_ns
    assert _made("a", storage, options) == folder
    assert path.stat().st_mtime_ns == written
    with h5py.File(path) as file:
        chunks = file["t1_fields/vector_0"].chunks
        assert chunks == (None if storage == "contiguous" else (1, 4, 32, 24, 2))
        assert file["t0_fields/scalar_0"].attrs["time_varying"]
    rows = {row.reader: row for row in measure("a", storage, folder, options)}
    assert list(rows) == ["slices", "morph", "WellDataset"]
    assert rows["slices"].to_slices == 1
    assert all(row.samples_per_second > 0 for row in rows.values())
    assert rows["morph"].read_per_used == pytest.approx(1, abs=0.1) or storage == "compressed"
    assert rows["morph"].read_per_used < 1.2
    assert rows["morph"].growth is not None


def test_the_command_prints_a_table_and_refuses_what_is_not_there(call: Any, tmp_path: Path) -> None:
    wrong = call("data_adapters.benchmark", "data=[4d]", cwd=tmp_path)
    assert wrong.stderr == "error: data: expected some of 2d-scalars, 2d, 3d, found '4d'"
    wrong = call("data_adapters.benchmark", "storage=[zipped]", "data=[2d]", cwd=tmp_path)
    assert wrong.stderr == "error: storage: expected contiguous or compressed, found 'zipped'"
    made = "+made.a={size: [16], scalars: 1, vectors: 0, trajectories: 2, frames: 20}"
    small = ("data=[a]", "storage=[contiguous]", "workers=0", "batches=2", "repeats=1", "epochs=2", "json=n.json")
    done = call("data_adapters.benchmark", made, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "WellDat" in done.stdout
    assert (tmp_path / "n.json").is_file()
