"""What xarray opens - NetCDF 3 and 4, Zarr 2 and 3 - is read as it stands there, and as xarray itself selects it."""

from collections.abc import Callable, Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from layout_files import closed, counted

from data_adapters.hdf5 import ArrayAdapter
from data_adapters.labelled import XarrayAdapter
from morph.data.adapter import DatasetAdapter
from morph.layout import Field

ALL = {"order": ["train", "valid", "test"], "valid": 0, "test": 0}
RECORD = {"by": "time", "valid": 0, "test": 0}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield from closed()


def weather(num_steps: int = 6, first: int = 0) -> xr.Dataset:
    """One record on a grid: two scalars, a constant, and what is no field."""
    size = (num_steps, 4, 5)
    values = counted((2, 20, 4, 5))[:, first : first + num_steps]
    assert values.shape == (2, *size)
    return xr.Dataset(
        {
            "u": (("time", "lat", "lon"), values[0], {"units": "m/s"}),
            "v": (("time", "lat", "lon"), values[1], {"units": "m/s"}),
            "mask": (("lat", "lon"), counted((4, 5), 2000)),
            "words": (("time",), np.full(num_steps, "a", "U1")),
        },
        {
            "time": ("time", 3.0 * np.arange(first, first + num_steps), {"units": "hours since 1900-01-01"}),
            "lat": np.linspace(60.0, 30, 4),
            "lon": np.linspace(0.0, 288, 5),
        },
    )


def ensemble() -> xr.Dataset:
    """Trajectories with components along an axis of their own, as PDEgym has."""
    values = counted((3, 4, 2, 5, 6))
    return xr.Dataset(
        {
            "velocity": (("run", "t", "component", "x", "y"), values),
            "nu": (("run",), np.array([0.1, 0.2, 0.3])),
            "gamma": ((), 1.4),
        },
        {"t": 0.5 * np.arange(4), "run": [7, 8, 9]},
    )


WRITERS: dict[str, tuple[str, Callable[[xr.Dataset, Path], Any]]] = {
    "NetCDF 3": ("a.nc", lambda found, path: found.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")),
    "NetCDF 4": ("a.nc", lambda found, path: found.to_netcdf(path, engine="h5netcdf")),
    "Zarr 2": ("a.zarr", lambda found, path: found.to_zarr(path, zarr_format=2)),
    "Zarr 3": ("a.zarr", lambda found, path: found.to_zarr(path, zarr_format=3, consolidated=False)),
    "Zarr 3, no ending": ("a", lambda found, path: found.to_zarr(path, zarr_format=3, consolidated=False)),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[xr.Dataset], Path]:
    name, writer = WRITERS[request.param]

    def put(found: xr.Dataset) -> Path:
        writer(found.drop_vars("words", errors="ignore"), tmp_path / name)
        return tmp_path / name

    return put


def engine(path: Path) -> dict[str, str]:
    return {} if path.suffix else {"engine": "zarr"}


def test_one_record_of_any_container(write: Callable[[xr.Dataset], Path]) -> None:
    found = weather(num_steps=20)
    path = write(found)
    adapter = XarrayAdapter(path, **engine(path), boundary={"lon": "periodic"}, splits=RECORD)
    assert isinstance(adapter, DatasetAdapter)
    spec = adapter.spec
    assert spec.fields == (Field("u", unit="m/s"), Field("v", unit="m/s"))  # what varies in time, on the whole grid
    assert (spec.name, spec.axes, spec.num_steps, spec.dt) == ("a", ("lat", "lon"), 20, 3.0)
    assert (spec.spatial_shape, spec.boundary) == ((1, 4, 5), ("open", "open", "periodic"))
    for name in ("lat", "lon", "time"):
        np.testing.assert_array_equal(adapter.coordinates[name], found[name])
    frames = adapter.read(0, 3, 9)
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames[:, 0, 0, 0], found.u[3:9])
    np.testing.assert_array_equal(frames[:, 1, 0, 0], found.v[3:9])
    wind = XarrayAdapter(path, **engine(path), fields=[{"name": "wind", "from": ["u", "v"]}, "mask"], splits=RECORD)
    assert wind.spec.fields == (Field("wind", ("wind_u", "wind_v"), "m/s"), Field("mask"))
    frames = wind.read(0, 19, 20)
    np.testing.assert_array_equal(frames[0, 0, :, 0], [found.u[19], found.v[19]])
    np.testing.assert_array_equal(frames[0, 1, 0, 0], found.mask)
    assert not frames[0, 1, 1].any()


def test_samples_and_channels_of_any_container(write: Callable[[xr.Dataset], Path]) -> None:
    found = ensemble()
    path = write(found)
    adapter = XarrayAdapter(path, **engine(path), time="t", sample="run", channel="component", splits=ALL)
    assert adapter.spec.fields == (Field("velocity", ("velocity_x", "velocity_y")),)
    assert adapter.spec.parameters == ("nu",)
    for number in range(3):
        np.testing.assert_array_equal(adapter.read(number, 1, 4)[:, 0, :, 0], found.velocity[number, 1:])
        assert adapter.parameters(number) == {"nu": found.nu[number]}
    with pytest.raises(IndexError, match="expected a trajectory of 0 to 2, found 3"):
        adapter.read(3, 0, 1)


@pytest.mark.parametrize("order", list(permutations(("time", "lat", "lon"))))
def test_an_adapter_selects_what_xarray_selects(tmp_path: Path, order: tuple[str, ...]) -> None:
    """Two paths through the same file: `isel` of the whole, and windows of the adapter."""
    path = tmp_path / "a.nc"
    weather(20).transpose(*order, missing_dims="ignore").to_netcdf(path, engine="h5netcdf")
    adapter = XarrayAdapter(
        path,
        fields=["v", {"name": "both", "from": ["u", "v"]}, "mask"],
        axes=["lon", "lat"],
        frames={"start": 2, "stop": 19, "step": 3},
        space={"lat": {"start": 1}, "lon": {"stop": 5, "step": 2}},
        splits=RECORD,
    )
    with xr.open_dataset(path, decode_times=False) as found:
        part = found.isel(time=slice(2, 19, 3), lat=slice(1, None), lon=slice(0, 5, 2))
        expected = part.transpose("time", "lon", "lat", missing_dims="ignore")
        np.testing.assert_array_equal(adapter.read(0, 0, 6)[:, 0, 0, 0], expected.v)
        np.testing.assert_array_equal(adapter.read(0, 1, 4)[:, 1, 0, 0], expected.u[1:4])
        np.testing.assert_array_equal(adapter.read(0, 5, 6)[0, 2, 0, 0], expected.mask)
        for name in ("time", "lat", "lon"):
            np.testing.assert_array_equal(adapter.coordinates[name], part[name])
    assert adapter.spec.dt == 9.0


def test_pdegym_is_read_alike_as_hdf5_and_as_netcdf(tmp_path: Path) -> None:
    values = counted((4, 3, 2, 5, 6))
    dims = ["sample", "time", "channel", "x", "y"]
    xr.Dataset({"data": (dims, values)}).to_netcdf(tmp_path / "data_0.nc", engine="h5netcdf")
    options: dict[str, Any] = {
        "fields": [{"name": "a", "from": "data", "channels": [1]}, "data"],
        "dt": 0.05,
        "splits": ALL,
    }
    first = ArrayAdapter(tmp_path / "data_0.nc", dims=dims, **options)
    second = XarrayAdapter(tmp_path / "data_0.nc", sample="sample", channel="channel", **options)
    assert first.spec == second.spec
    for number in range(4):
        np.testing.assert_array_equal(first.read(number, 0, 3), second.read(number, 0, 3))
        np.testing.assert_array_equal(second.read(number, 0, 3)[:, 1, :, 0], values[number])


def test_packed_numbers_are_unpacked_and_fill_values_are_missing(tmp_path: Path) -> None:
    """1 + 0.5 n in int16, as reanalyses are stored."""
    found = weather()
    values = 1 + 0.5 * (found.u.to_numpy() % 50)
    values[2, 1, 3] = np.nan
    found["u"] = (found.u.dims, values)
    encoding = {"u": {"dtype": "i2", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -1}}
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=encoding)
    refused = XarrayAdapter(tmp_path / "a.nc", fields=["u"], splits=RECORD)
    np.testing.assert_array_equal(refused.read(0, 0, 2)[:, 0, 0, 0], values[:2])
    with pytest.raises(ValueError, match=r"a\.nc: u: field 'u': NaN at 1 points .* frame 2 at \{'lat': 1, 'lon': 3\}"):
        refused.read(0, 0, 3)
    masked = XarrayAdapter(tmp_path / "a.nc", fields=["u"], splits=RECORD, missing="mask")
    np.testing.assert_array_equal(masked.read(0, 0, 6)[:, 0, 0, 0], values)
    (tmp_path / "a.stats.yaml").write_text("{mean: {u: 3.0}, std: {u: 1.0}, rms_delta: {u: 1.0}}")
    filled = XarrayAdapter(tmp_path / "a.nc", fields=["u"], splits=RECORD, missing="fill")
    assert filled.read(0, 2, 3)[0, 0, 0, 0, 1, 3] == 3.0


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "i2", "u1", "?"])
def test_any_real_number_becomes_float32(tmp_path: Path, dtype: str) -> None:
    found = weather()
    values = (found.u.to_numpy() % 100).astype(dtype)
    found["u"] = (found.u.dims, values)
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    frames = XarrayAdapter(tmp_path / "a.nc", fields=["u"], splits=RECORD).read(0, 0, 6)
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames[:, 0, 0, 0], values.astype("f4"))


def test_number_beyond_float32_is_an_error(tmp_path: Path) -> None:
    found = weather()
    found["u"] = found.u.astype("f8") * 1e38
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    adapter = XarrayAdapter(tmp_path / "a.nc", fields=["u"], splits=RECORD)
    with pytest.raises(ValueError, match=r"a\.nc: u: .* beyond 3.4e38 in frames 0 to 6"):
        adapter.read(0, 0, 6)


def test_a_record_may_be_cut_into_files(tmp_path: Path) -> None:
    """Windows across any number of cuts, with steps that skip whole files."""
    whole = weather(20)
    cuts = [0, 1, 7, 8, 15, 20]
    for number, (first, last) in enumerate(pairwise(cuts)):
        whole.isel(time=slice(first, last)).to_netcdf(tmp_path / f"y_{number + 8}.nc", engine="h5netcdf")
    fields = ["u", "v", "mask"]
    for start, stop, step in [(0, 20, 1), (1, 20, 4), (0, 20, 7), (6, 9, 1), (3, 19, 2)]:
        frames = {"start": start, "stop": stop, "step": step}
        adapter = XarrayAdapter(str(tmp_path / "y_*.nc"), join="time", fields=fields, frames=frames, splits=RECORD)
        part = whole.isel(time=slice(start, stop, step))
        size = part.sizes["time"]
        assert (len(adapter), adapter.spec.num_steps, adapter.spec.dt) == (1, size, 3.0 * step)
        np.testing.assert_array_equal(adapter.coordinates["time"], part.time)
        expected = part[["u", "v"]].to_array().to_numpy().swapaxes(0, 1)
        constant = np.broadcast_to(part.mask, (size, 4, 5))
        for first in range(size):
            for last in {first + 1, min(first + 3, size), size}:
                found = adapter.read(0, first, last)[:, :, 0, 0]
                np.testing.assert_array_equal(found[:, :2], expected[first:last])
                np.testing.assert_array_equal(found[:, 2], constant[first:last])
    listed = XarrayAdapter(
        [str(tmp_path / f"y_{number}.nc") for number in range(8, 13)], join="time", fields=fields, splits=None
    )
    assert listed.rule["by"] == "time"


def test_ensembles_may_be_cut_in_time_and_records_may_be_trajectories(tmp_path: Path) -> None:
    found = ensemble()
    for number in range(2):
        found.isel(t=slice(2 * number, 2 * number + 2)).to_netcdf(tmp_path / f"cut_{number}.nc", engine="h5netcdf")
        weather(6, 7 * number).to_netcdf(tmp_path / f"record_{number}.nc", engine="h5netcdf")
    roles: dict[str, Any] = {"time": "t", "sample": "run", "channel": "component"}
    joined = XarrayAdapter(str(tmp_path / "cut_*.nc"), join="time", **roles, splits=ALL)
    for number in range(3):
        np.testing.assert_array_equal(joined.read(number, 0, 4)[:, 0, :, 0], found.velocity[number])
    records = XarrayAdapter(str(tmp_path / "record_*.nc"), fields=["u"], splits=ALL)
    assert len(records) == 2
    np.testing.assert_array_equal(records.read(1, 2, 6)[:, 0, 0, 0], weather(6, 7).u[2:])
    assert records.place(1) == (str(tmp_path / "record_1.nc"), 0)


def test_pieces_may_count_from_different_dates(tmp_path: Path) -> None:
    """The record has the times of the first piece's clock, and a day that is missing shows."""
    days = np.arange(6)
    for number, (first, epoch) in enumerate([(0, "2000-02-27"), (3, "2000-03-01")]):
        piece = weather(3, first).assign_coords(time=("time", days[:3], {"units": f"days since {epoch} 00:00"}))
        piece.to_netcdf(tmp_path / f"p_{number}.nc", engine="h5netcdf")
    options: dict[str, Any] = {"join": "time", "fields": ["u"], "splits": RECORD}
    adapter = XarrayAdapter(str(tmp_path / "p_*.nc"), **options)  # 27, 28, 29 February, 1 March ...
    np.testing.assert_array_equal(adapter.coordinates["time"], days)
    assert adapter.spec.dt == 1
    piece.assign_coords(time=("time", days[:3] + 1, piece.time.attrs)).to_netcdf(tmp_path / "p_1.nc", engine="h5netcdf")
    for dt in (None, 1.0):
        with pytest.raises(ValueError, match=r"time: expected equal time steps, found 2 from frame 2 to 3"):
            XarrayAdapter(str(tmp_path / "p_*.nc"), **options, dt=dt)


def test_a_record_in_files_is_not_taken_for_trajectories(tmp_path: Path) -> None:
    """Unless that is said: a split by trajectory would have frames beside each other on both sides."""
    for number in range(3):
        weather(4, 4 * number).to_netcdf(tmp_path / f"p_{number}.nc", engine="h5netcdf")
    files, options = str(tmp_path / "p_*.nc"), {"fields": ["u"], "splits": ALL}
    with pytest.raises(ValueError, match=r"time: each file starts .* say `join: time`, or `join: trajectory`"):
        XarrayAdapter(files, **options)  # type: ignore[arg-type]
    assert len(XarrayAdapter(files, join="trajectory", **options)) == 3  # type: ignore[arg-type]
    weather(4, 10).to_netcdf(tmp_path / "p_2.nc", engine="h5netcdf")
    assert len(XarrayAdapter(files, **options)) == 3  # type: ignore[arg-type]


def test_group_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    ensemble().to_netcdf(path, engine="h5netcdf", group="outer/inner")
    options: dict[str, Any] = {"time": "t", "sample": "run", "channel": "component", "splits": ALL}
    adapter = XarrayAdapter(path, group="outer/inner", **options)
    np.testing.assert_array_equal(adapter.read(2, 0, 4)[:, 0, :, 0], ensemble().velocity[2])
    with pytest.raises(ValueError, match=r"a\.nc: expected a variable along 't' and space, found no variable at all"):
        XarrayAdapter(path, **options)
    with pytest.raises(ValueError, match=r"a\.nc: xarray cannot open it: .*nowhere"):
        XarrayAdapter(path, group="nowhere", **options)


def test_times_that_were_decoded_count_hours() -> None:
    """Some engines decode dates whatever they are asked."""
    from data_adapters.labelled import _numbers

    dates = np.datetime64("2000-02-28T00") + np.arange(4) * np.timedelta64(6, "h")
    found = xr.Dataset(coords={"time": dates.astype("M8[ns]")})
    np.testing.assert_array_equal(_numbers(found, "time"), [0, 6, 12, 18])
