"""Files behind a URL: read in parts, as much as is needed, or kept in a local folder."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from well_files import coded_file, coded_folder, write

from data_adapters.files import find_files
from data_adapters.handles import HANDLES
from data_adapters.hdf5 import ArrayAdapter, WellAdapter
from data_adapters.labelled import DATASETS, XarrayAdapter
from tests.file_server import Served, serve

VALUES = np.random.default_rng(0).standard_normal((4, 40, 96, 96)).astype(np.float32)
DIMS = ["sample", "time", "x", "y"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from coded_folder(tmp_path)
    DATASETS.close(list(DATASETS._open))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as found:
        yield found


def _array_file(folder: Path, name: str = "a.h5") -> Path:
    with h5py.File(folder / name, "w") as file:
        file["u"] = VALUES
        file["t"] = np.arange(40) * 0.5
    return folder / name


def _remote(location: str, **options: object) -> ArrayAdapter:
    return ArrayAdapter(location, dims=DIMS, coordinates={"time": "t"}, **options)


def test_only_what_is_needed_is_fetched(tmp_path: Path, served: Served) -> None:
    local = _array_file(tmp_path)
    adapter = _remote(f"{served.url}/a.h5")
    assert served.sent < 0.1 * local.stat().st_size  # metadata
    served.sent, wanted = 0, 0
    for start in (3, 20, 31):
        frames = adapter.read(1, start, start + 5)
        np.testing.assert_array_equal(frames, _remote(str(local)).read(1, start, start + 5))
        wanted += frames.nbytes
    assert wanted <= served.sent < 1.2 * wanted + 3 * 2 * 64 * 1024


def test_a_folder_of_the_well_is_listed_and_read(tmp_path: Path, folder: Path, served: Served) -> None:
    write(folder, coded_file(("x", "y")), coded_file(("x", "y"), range(3, 5)))
    here, there = WellAdapter(folder), WellAdapter(f"{served.url}/coded")
    assert here.spec == there.spec
    assert there.statistics is None
    np.testing.assert_array_equal(here.read(4, 1, 6), there.read(4, 1, 6))
    with pytest.raises(FileNotFoundError, match=rf"{served.url}/coded/data/test: expected a folder"):
        WellAdapter(f"{served.url}/coded", split="test")


def test_a_kept_copy_is_fetched_once_and_again_when_the_file_changes(tmp_path: Path, served: Served) -> None:
    path = _array_file(tmp_path)
    cache = tmp_path / "kept"
    expected = _remote(str(path)).read(0, 0, 3)
    for _ in range(2):
        adapter = _remote(f"{served.url}/a.h5", cache=str(cache))
        np.testing.assert_array_equal(adapter.read(0, 0, 3), expected)
    (copy,) = cache.iterdir()
    assert copy.name.endswith("_a.h5")
    assert copy.read_bytes() == path.read_bytes()
    assert served.sent < 1.1 * path.stat().st_size
    HANDLES.close([str(path)])
    with h5py.File(path, "a") as file:
        file["u"][...] = -VALUES
        file["more"] = np.zeros(100)
    # What is open stays as it was; opened anew, it is the new version.
    np.testing.assert_array_equal(adapter.read(0, 0, 3), expected)
    np.testing.assert_array_equal(_remote(f"{served.url}/a.h5", cache=str(cache)).read(0, 0, 3), -expected)
    assert len(list(cache.iterdir())) == 2


def test_a_broken_transfer_leaves_no_copy(tmp_path: Path, served: Served) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.h5"):
        _remote(f"{served.url}/absent.h5", cache=str(tmp_path / "kept"))
    assert not list((tmp_path / "kept").glob("*"))


def test_a_server_without_ranges_is_refused_with_the_way_out(tmp_path: Path) -> None:
    _array_file(tmp_path)
    with serve(tmp_path, ranges=False) as served:
        with pytest.raises(ValueError, match=r"a\.h5: expected a readable HDF5 file.*`cache`"):
            _remote(f"{served.url}/a.h5")
        adapter = _remote(f"{served.url}/a.h5", cache=str(tmp_path / "kept"))
        assert adapter.read(0, 0, 1).shape == (1, 1, 1, 1, 96, 96)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("name", ["a.nc", "a.zarr"])
def test_labelled_files_are_read_in_parts(tmp_path: Path, served: Served, name: str) -> None:
    found = xr.Dataset({"u": (("time", "y", "x"), VALUES[0])}, {"time": np.arange(40) * 2.0})
    if name.endswith(".zarr"):
        found.to_zarr(tmp_path / name, encoding={"u": {"chunks": (1, 96, 96)}})
    else:
        found.to_netcdf(tmp_path / name, engine="h5netcdf")
    adapter = XarrayAdapter(f"{served.url}/{name}")
    served.sent = 0
    frames = adapter.read(0, 4, 9)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], VALUES[0, 4:9])
    assert served.sent < 1.2 * frames.nbytes + 2 * 64 * 1024


def test_a_pattern_of_a_url_matches(tmp_path: Path, served: Served) -> None:
    for number in (1, 2, 10):
        (tmp_path / f"v_{number}.h5").write_bytes(b"x")
    found = find_files(f"{served.url}/v_*.h5")
    assert [url.rpartition("/")[2] for url in found] == ["v_1.h5", "v_2.h5", "v_10.h5"]


def _read_in_child(adapter: XarrayAdapter, results: Any) -> None:
    results.put(adapter.read(0, 4, 9))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning", "ignore:Consolidated metadata")
@pytest.mark.parametrize("name", ["a.nc", "a.zarr"])
def test_a_forked_process_reads_behind_a_url_too(tmp_path: Path, served: Served, name: str) -> None:
    found = xr.Dataset({"u": (("time", "y", "x"), VALUES[0])}, {"time": np.arange(40) * 2.0})
    found.to_zarr(tmp_path / name) if name.endswith(".zarr") else found.to_netcdf(tmp_path / name, engine="h5netcdf")
    adapter = XarrayAdapter(f"{served.url}/{name}")
    expected = adapter.read(0, 4, 9)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_read_in_child, args=(adapter, results), daemon=True)
    child.start()
    np.testing.assert_array_equal(results.get(timeout=30), expected)
    child.join(30)
