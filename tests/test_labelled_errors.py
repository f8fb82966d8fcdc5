"""What the reader behind xarray refuses, and how it says so."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from layout_files import closed, counted

from data_adapters.labelled import XarrayAdapter

RECORD = {"by": "time", "valid": 0, "test": 0}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield from closed()


def mixed(num_steps: int = 4) -> xr.Dataset:
    dims = ("sample", "time", "x", "y")
    return xr.Dataset(
        {
            "u": (dims, counted((3, num_steps, 4, 5))),
            "deep": (("time", "x", "z"), counted((num_steps, 4, 6))),
            "steady": (("sample", "x", "y"), counted((3, 4, 5))),
            "words": (dims, np.full((3, num_steps, 4, 5), b"a")),
        },
        {"time": 0.5 * np.arange(num_steps), "x": np.arange(4.0)},
    )


def put(found: xr.Dataset, path: Path) -> Path:
    found.to_netcdf(path, engine="h5netcdf")
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample": None}, r"expected sample: sample among the options, for it has a dimension 'sample'"),
        ({"sample": None, "fields": None}, r"expected sample: sample among the options"),
        ({"time": "t"}, r"expected time: time among the options, .* found time: t, sample: sample"),
        ({"sample": "time"}, r"time, sample, channel: expected names of different dimensions"),
        ({"sample": ""}, r"sample: expected a text, found ''"),
        ({"engine": 3}, r"engine: expected a text, found 3"),
        ({"group": ["g"]}, r"group: expected a text, found \['g'\]"),
        ({"cache": {}}, r"cache: expected a text"),
        ({"time": None}, r"time, sample, channel: expected names of different dimensions"),
        ({"channel": "c"}, r"expected a dimension 'c' \(channel\), found u \(sample 3, time 4, x 4, y 5\)"),
        ({"fields": ["w"]}, r"no field 'w' of real numbers: no such variable; found u \("),
        ({"fields": ["words"]}, r"no field 'words' of real numbers: values of"),
        ({"fields": ["u", "deep"]}, r"expected fields along 'time' on one grid with 1 to 3 axes, found u .*`channel`"),
        ({"fields": ["steady"]}, r"expected fields along 'time' on one grid"),
        ({"fields": [{"name": "u", "dims": ["x"]}]}, r"field 'u': `dims` has no effect, the file states them"),
        ({"fields": [{"name": "u", "channels": [0]}]}, r"u: field 'u' names `channels`, and the array has none"),
        ({"join": "space"}, r"join: expected trajectory or time, found 'space'"),
        ({"engine": "nonsense"}, r"xarray cannot open it: ValueError: unrecognized engine .*name the `engine`"),
        ({"group": "g"}, r"xarray cannot open it: .*g"),
        ({"dims": ["x"]}, r"expected options of files, time, sample, channel, engine, group, join, .* found 'dims'"),
        ({"splits": {"valid": 3}}, r"splits: of 3 trajectories, valid takes 3"),
    ],
)  # fmt: skip
def test_option_or_file_that_does_not_fit(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = put(mixed(), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=rf"a\.nc: {words}"):
        XarrayAdapter(path, **{"sample": "sample", "fields": ["u"], **options})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.isel(time=[0]), r"time: expected the finite times of two or more frames, found \[0\.\]"),
        (
            lambda found: found.isel(time=[0, 1, 3]),
            r"time: expected equal time steps, found 1 from frame 1 to 2 where most are 0.5",
        ),
        (lambda found: found.isel(time=[2, 1, 0]), r"time: expected times that increase"),
        (lambda found: found.drop_vars("time"), r"it states no times; give `dt`"),
        (lambda found: found.isel(time=slice(0, 0)), r"expected values, found u \(sample 3, time 0"),
        (lambda found: found.isel(x=slice(0, 0)), r"expected values, found u"),
        (lambda found: found.isel(sample=slice(0, 0)), r"expected one or more trajectories, found 0"),
        (lambda found: found[["steady"]].assign_coords(time=[0, 1]), r"expected a variable along 'time' and space"),
    ],
)
def test_contents_that_are_no_trajectories(
    tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], words: str
) -> None:
    found = change(mixed()[["u", "steady"]])
    with pytest.raises(ValueError, match=rf"a\.nc: {words}"):
        XarrayAdapter(put(found, tmp_path / "a.nc"), sample="sample")


def test_complex_numbers_are_two_fields(tmp_path: Path) -> None:
    found = mixed()
    found.assign(u=found.u * 1j)[["u"]].to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(ValueError, match=r"a\.zarr: no field 'u' of real numbers: values of complex64"):
        XarrayAdapter(tmp_path / "a.zarr", sample="sample", fields=["u"])


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: path.write_text("text"), _cut])
@pytest.mark.parametrize("kind", ["scipy", "h5netcdf"])
def test_damaged_file(tmp_path: Path, kind: str, damage: Callable[[Path], Any]) -> None:
    path = tmp_path / "a.nc"
    mixed()[["u"]].to_netcdf(path, engine=kind)
    damage(path)
    with pytest.raises(ValueError, match=r"a\.nc: xarray cannot open it: .*fetch or generate the file again"):
        XarrayAdapter(path, sample="sample")


def test_damaged_chunk_of_a_zarr_store(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    mixed()[["u"]].to_zarr(path, zarr_format=2)
    adapter = XarrayAdapter(path, sample="sample", splits={"order": ["train", "valid", "test"]})
    adapter.read(0, 0, 4)
    (chunk,) = (path / "u").glob("0.*")
    chunk.write_bytes(chunk.read_bytes()[:-7])
    adapter.close()
    with pytest.raises(ValueError, match=r"a\.zarr: u: expected frames 0 to 4 of its trajectory 0, found: "):
        adapter.read(0, 0, 4)
    shutil.rmtree(path)
    adapter.close()
    with pytest.raises(FileNotFoundError, match=r"a\.zarr"):
        adapter.read(0, 0, 4)


def test_pieces_of_a_record_must_agree(tmp_path: Path) -> None:
    whole = mixed(8)[["u"]]
    later = whole.isel(time=slice(4, 8))
    put(whole.isel(time=slice(0, 4)), tmp_path / "a_0.nc")
    for change, words in [
        (later.isel(x=slice(0, 3)), r"expected the grid \{'x': 4, 'y': 5\} and 3 trajectories of .*a_0\.nc, found"),
        (later.isel(sample=slice(0, 2)), r"expected the grid .* and 3 trajectories .*a_0\.nc, found .* and 2"),
        (later.rename(x="z"), r"expected the grid"),
        (later.assign_coords(x=[0, 1, 2, 4]), r"the spacing along x is not that of .*a_0\.nc: .*point 3 at 3 .* 4;"),
        (later.transpose("time", "sample", "x", "y"), r"expected a field .* as in .*a_0\.nc, found .*must agree"),
        (later.rename(u="v"), r"no field 'u' of real numbers"),
        (later.assign_coords(time=later.time + 1), r"time: expected equal time steps, found 1.5 from"),
        (later.assign_coords(time=later.time - 2), r"time: expected equal time steps"),
        (later.drop_vars("time"), r"it states no times"),
    ]:
        put(change, tmp_path / "a_1.nc")
        with pytest.raises(ValueError, match=rf"a_1\.nc: {words}"):
            XarrayAdapter(str(tmp_path / "a_*.nc"), sample="sample", join="time", splits=RECORD)


def test_dt_hides_no_fault_of_the_times(tmp_path: Path) -> None:
    """It may rescale: steps of one file may differ, but frames follow each other, and pieces too."""
    whole = mixed(8)[["u"]]
    options: dict[str, Any] = {"sample": "sample", "dt": 3.0, "splits": RECORD}
    steps = np.array([0, 1, 2, 4, 5, 7, 8, 9.5])
    path = put(whole.assign_coords(time=steps), tmp_path / "a.nc")
    assert XarrayAdapter(path, **options).spec.dt == 3
    for wrong, words in [(np.nan, "expected finite times"), (4.0, "times that increase, found 4 after 4 .* 3 to 4")]:
        path = put(whole.assign_coords(time=np.where(steps == 5, wrong, steps)), tmp_path / f"{wrong}.nc")
        with pytest.raises(ValueError, match=rf"{wrong}\.nc: time: .*{words}"):
            XarrayAdapter(path, **options)
    for number, frames in enumerate((slice(0, 4), slice(5, 8))):
        put(whole.isel(time=frames), tmp_path / f"piece_{number}.nc")
    with pytest.raises(ValueError, match=r"piece_0.*piece_1\.nc: time: .* found 1 from frame 3 to 4, .* and 0\.5 else"):
        XarrayAdapter(str(tmp_path / "piece_*.nc"), join="time", **options)


def test_file_replaced_while_open(tmp_path: Path) -> None:
    whole = mixed(8)[["u"]]
    pieces = [put(whole.isel(time=slice(4 * n, 4 * n + 4)), tmp_path / f"a_{n}.nc") for n in range(2)]
    joined = XarrayAdapter(pieces, sample="sample", join="time", splits=RECORD)
    alone = XarrayAdapter(pieces[1], sample="sample", splits=RECORD)
    expected = whole.u[1, 2:6]
    np.testing.assert_array_equal(joined.read(1, 2, 6)[:, 0, 0, 0], expected)
    alone.read(0, 0, 1)
    put(whole.isel(time=slice(4, 8)) + 100, tmp_path / "b.nc").replace(pieces[1])
    np.testing.assert_array_equal(joined.read(1, 2, 4)[:, 0, 0, 0], expected[:2])
    with pytest.raises(ValueError, match=r"a_1\.nc: it has changed since it was opened; start again"):
        joined.read(1, 2, 6)
    with pytest.raises(ValueError, match=r"a_1\.nc: expected .* that was opened, found that it has changed since"):
        alone.read(0, 0, 1)
    again = XarrayAdapter(pieces, sample="sample", join="time", splits=RECORD)
    assert again.read(1, 4, 5).min() > 100
