"""`python -m data_adapters.inspect`: what it cannot know it asks, what is wrong it names in a line."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from data_adapters.inspect.names import Vector, kind_of, vectors
from tests.inspected import Inspected, hdf5, in_folder, values


@pytest.fixture
def inspected(call: Callable[..., Any], tmp_path: Path) -> Iterator[Inspected]:
    yield from in_folder(call, tmp_path)


def test_an_array_without_labels_is_asked_for(inspected: Inspected) -> None:
    stored = values(10, 13, 8, 8)
    hdf5(inspected.folder / "bare.h5", {"u": stored})
    answers = inspected.ask("bare.h5")
    assert answers[0] == ["bare.h5", "dims=[sample,time,x,y]"]
    assert ["bare.h5", "dims=[sample,x,y,time]"] in answers
    # Its first answer leads to the next question, and so on to the end.
    (step,) = inspected.ask(*answers[0])
    assert step == ["bare.h5", "dims=[sample,time,x,y]", "dt=1"]
    assert inspected.write(*answers[1], "dt=0.5", "name=mine")["dims"] == answers[1][1][6:-1].split(",")
    (inspected.folder / "bare.yaml").unlink()
    inspected.write(*answers[0], "dt=0.5", "name=mine")
    train = inspected.open("train")
    assert (train.spec.name, train.spec.dt, train.spec.num_steps) == ("mine", 0.5, 13)
    np.testing.assert_array_equal(train.read(0, 1, 2)[0, 0, 0, 0], stored[train.place(0)[1], 1])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "told",
    [
        {"u": {"dims": "time,x,sample"}},
        {"u": {"DIMENSION_LABELS": ["time", "x", "sample"]}},
        {"": {"axes": "time x sample"}},
    ],
)
def test_an_attribute_names_the_axes(inspected: Inspected, told: Mapping[str, Mapping[str, Any]]) -> None:
    path = hdf5(inspected.folder / "a.h5", {"u": values(9, 8, 5)})
    with h5py.File(path, "a") as file:
        for name, attributes in told.items():
            (file[name] if name else file).attrs.update(attributes)
    assert inspected.write("a.h5", "dt=1")["dims"] == ["time", "x", "sample"]


def test_lengths_that_fit_twice_say_nothing(inspected: Inspected) -> None:
    path = hdf5(inspected.folder / "a.h5", {"u": values(16, 16, 12), "t": np.arange(16.0), "x": np.arange(16.0)})
    assert ["a.h5", "dims=[time,x,y]"] in inspected.ask("a.h5")
    # Of one coordinate more, the last two axes are known, and the first can be time or trajectories.
    hdf5(path, {"u": values(16, 14, 12), "y": np.arange(14.0), "x": np.arange(12.0)})
    assert ["a.h5", "dims=[time,y,x]"] in inspected.ask("a.h5")


def test_the_order_of_a_square_is_asked_for(inspected: Inspected) -> None:
    """And of a cube; what is answered holds for all arrays of the file."""
    lines = {"t": np.arange(11.0), "x": np.arange(8.0), "y": np.arange(8.0)}
    hdf5(inspected.folder / "a.h5", {"u": values(5, 11, 8, 8), "v": values(5, 11, 8, 8, 2), **lines})
    answers = inspected.ask("a.h5", "fields=[u]")
    assert [answer[2] for answer in answers] == [f"dims=[sample,time,{order},channel]" for order in ("x,y", "y,x")]
    config = inspected.write("a.h5", "fields=[u,v]", "dims=[sample,time,y,x]")
    assert config["dims"] == ["sample", "time", "y", "x"]
    assert config["fields"][1]["dims"] == ["sample", "time", "y", "x", "channel"]
    (inspected.folder / "a.yaml").unlink()
    hdf5(inspected.folder / "cube.h5", {"u": values(11, 8, 8, 8), "z": np.arange(8.0), **lines})
    assert len(inspected.ask("cube.h5")) == 6
    # Where time is open too, every reading comes in both orders.
    hdf5(inspected.folder / "b.h5", {"u": values(5, 11, 8, 8), "x": lines["x"], "y": lines["y"]})
    assert {("b.h5", f"dims=[sample,time,{order}]") for order in ("x,y", "y,x")} <= {
        tuple(answer) for answer in inspected.ask("b.h5")
    }


def test_times_of_start_and_lead_are_told_apart_by_the_user(inspected: Inspected) -> None:
    dims = ("time", "prediction_timedelta", "lat", "lon")
    days = np.arange(4) * 24
    stored = xr.Dataset({"z": (dims, values(4, 10, 5, 6))}, {"time": days, "prediction_timedelta": 6 * np.arange(10)})
    stored.to_netcdf(inspected.folder / "wb.nc")
    answers = inspected.ask("wb.nc")
    assert answers[0] == ["wb.nc", "dims=[sample,time,lat,lon]"]
    config = inspected.write(*answers[0])
    assert (config["time"], config["sample"]) == ("prediction_timedelta", "time")
    train = inspected.open("train")
    np.testing.assert_array_equal(
        train.read(0, 2, 3)[0, 0, 0, 0], stored["z"][train.place(0)[1], 2]  # type: ignore[attr-defined]
    )  # fmt: skip


def test_more_fields_than_fit_are_asked_for(inspected: Inspected) -> None:
    names = ("t", "q", "u", "v", "w", "ps")
    stored = xr.Dataset({name: (("time", "y", "x"), values(30, 6, 8, seed=i)) for i, name in enumerate(names)})
    stored["time"] = np.arange(30.0)
    stored.to_netcdf(inspected.folder / "many.nc")
    three, everything = inspected.ask("many.nc")
    assert three == ["many.nc", "fields=[t,q,velocity]"]
    assert everything == ["many.nc", "fields=[t,q,velocity,ps]"]
    config = inspected.write("many.nc", "fields=[ps,velocity,{name: speed, from: [u]}]")
    velocity = {"name": "velocity", "from": ["u", "v", "w"]}
    assert config["fields"] == ["ps", velocity, {"name": "speed", "from": ["u"]}]
    np.testing.assert_array_equal(inspected.open("train").read(0, 7, 8)[0, 1, :, 0], [stored[c][7] for c in "uvw"])
    (inspected.folder / "many.yaml").unlink()
    inspected.write(*everything)
    assert "model.capacity.max_fields=4" in inspected.printed
    assert "no field 'nothing'; it has ps, q, t, u, v, velocity, w" in inspected.refuse("many.nc", "fields=[nothing]")


def test_fields_on_two_grids_are_asked_for(inspected: Inspected) -> None:
    stored = xr.Dataset(
        {"h": (("time", "y", "x"), values(30, 6, 8)), "u": (("time", "y", "xu"), values(30, 6, 9))},
        {"time": np.arange(30.0)},
    )
    stored.to_netcdf(inspected.folder / "c.nc")
    assert inspected.ask("c.nc") == [["c.nc", "fields=[h]"], ["c.nc", "fields=[u]"]]
    inspected.write("c.nc", "fields=[u]")
    np.testing.assert_array_equal(inspected.open("train").read(0, 0, 1)[0, 0, 0, 0], stored["u"][0])


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("time", {}),
        ("t", {}),
        ("Time", {}),
        ("valid_time", {}),
        ("ocean_time", {}),
        ("time_counter", {}),
        ("forecast_time0", {}),
        ("snapshots", {}),
        ("n_frames", {}),
        ("XTIME", {}),
        ("when", {"units": "days since 1850-1-1"}),
        ("record_no", {"axis": "T"}),
        ("epoch", {"standard_name": "time"}),
    ],
)
def test_names_of_time(inspected: Inspected, name: str, attributes: dict[str, str]) -> None:
    field = values(30, 6, 8)
    stored = xr.Dataset({"a": ((name, "y", "x"), field)}, {name: (name, 3.0 * np.arange(30), attributes)})
    stored.to_netcdf(inspected.folder / "a.nc", format="NETCDF3_64BIT")
    assert inspected.write("a.nc")["time"] == name
    train = inspected.open("train")
    assert train.spec.dt == 3.0
    np.testing.assert_array_equal(train.read(0, 0, 5)[:, 0, 0, 0], field[:5])


def test_an_axis_that_may_grow_is_time(inspected: Inspected) -> None:
    stored = xr.Dataset({"a": (("n", "y", "x"), values(30, 6, 8))})
    stored.to_netcdf(inspected.folder / "a.nc")
    assert inspected.ask("a.nc") == [["a.nc", "dims=[time,y,x]"]]
    stored.to_netcdf(inspected.folder / "a.nc", unlimited_dims=["n"])
    assert inspected.write("a.nc", "dt=2")["time"] == "n"


def test_a_step_that_is_not_stated_or_not_equal_is_asked_for(inspected: Inspected) -> None:
    stored = xr.Dataset({"a": (("time", "y", "x"), values(36, 6, 8))})
    stored.to_netcdf(inspected.folder / "a.nc")
    assert inspected.ask("a.nc") == [["a.nc", "dt=1"]]
    stored["time"] = xr.date_range("2001-01-01", periods=36, freq="MS")
    stored.to_netcdf(inspected.folder / "months.nc")
    assert inspected.ask("months.nc") == [["months.nc", "dt=31"]]
    assert inspected.write("months.nc", "dt=30.44")["dt"] == 30.44
    assert inspected.open("train").spec.dt == 30.44
    hdf5(inspected.folder / "b.h5", {"u": values(5, 9, 8)}, dt=0.001)
    (inspected.folder / "months.yaml").unlink()
    assert inspected.ask("b.h5", "dims=[sample,time,x]") == [["b.h5", "dims=[sample,time,x]", "dt=0.001"]]


def test_an_axis_of_few_entries_and_unknown_name_is_asked_for(inspected: Inspected) -> None:
    stored = xr.Dataset({"a": (("time", "y", "x", "kind"), values(30, 6, 8, 2))}, {"time": np.arange(30.0)})
    stored.to_netcdf(inspected.folder / "a.nc")
    assert inspected.ask("a.nc")[0] == ["a.nc", "dims=[time,y,x,channel]"]
    config = inspected.write("a.nc", "dims=[time,y,x,channel]")
    assert config["channel"] == "kind"
    assert inspected.open("train").spec.fields[0].components == ("a_x", "a_y")


def test_what_is_there_stays(inspected: Inspected) -> None:
    hdf5(inspected.folder / "a.h5", {"u": values(5, 20, 8), "t": np.arange(20.0), "x": np.arange(8.0)})
    (inspected.folder / "a.yaml").write_text("mine: true\n")
    assert "a.yaml: it is there already; replace it with overwrite=true" in inspected.refuse("a.h5")
    # What the real reader refuses is not written, and takes nothing away.
    message = inspected.refuse("a.h5", "overwrite=true", "boundary=soft")
    assert "boundary: expected periodic, open, wall, found 'soft'" in message
    assert (inspected.folder / "a.yaml").read_text() == "mine: true\n"
    inspected.write("a.h5", "overwrite=true")
    assert len(list(inspected.folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.nc", "nothing.nc: "),
        ("empty.nc", "empty.nc: expected data, found 0 bytes"),
        ("text.csv", "found a text file"),
        ("folder", "folder: expected files that end in .nc"),
        ("array.npy", "found a NumPy array; read it with numpy.load"),
        ("line.nc", "expected an array along time and 1 to 3 axes of space, found only a (6,)"),
        ("line.h5", "expected an array along time and 1 to 3 axes of space, found only a (6,)"),
        ("words.nc", "expected arrays of numbers, found a (no real numbers: text)"),
        ("words.h5", "expected arrays of numbers, found a (text)"),
        ("hollow.h5", "expected arrays of numbers, found none"),
        ("frame.nc", "expected two or more frames, found one"),
        ("infinite.nc", "infinity at 1 points"),
        ("cut.h5", "cut.h5"),
    ],
)
def test_bad_files(inspected: Inspected, name: str, message: str) -> None:
    folder = inspected.folder
    (folder / "empty.nc").touch()
    (folder / "text.csv").write_text("x,y\n1,2\n")
    (folder / "folder").mkdir()
    (folder / "folder" / "README").touch()
    np.save(folder / "array.npy", values(3, 3))
    if name == "line.nc":
        xr.Dataset({"a": ("x", values(6))}).to_netcdf(folder / name)
    if name == "words.nc":
        xr.Dataset({"a": ("x", np.array(["one", "two"]))}).to_netcdf(folder / name)
    if name == "frame.nc":
        xr.Dataset({"a": (("time", "x"), values(1, 6))}, {"time": [0.0]}).to_netcdf(folder / name)
    if name == "infinite.nc":
        field = values(30, 6)
        field[0, 0] = np.inf
        xr.Dataset({"a": (("time", "x"), field)}, {"time": np.arange(30.0)}).to_netcdf(folder / name)
    if name == "cut.h5":
        path = hdf5(folder / name, {"u": values(20, 64, 64)})
        path.write_bytes(path.read_bytes()[:9000])
    for other, arrays in (("line.h5", {"a": values(6)}), ("words.h5", {"a": np.array([b"a"])}), ("hollow.h5", {})):
        hdf5(folder / other, arrays)
    assert message in inspected.refuse(name)
    assert not list(folder.glob("*.yaml"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.h5", "dt=fast"], "dt: expected a positive number, found 'fast'"),
        (["a.h5", "step=2"], "expected options of out, overwrite, name, dims"),
        (["a.h5", "--force"], "found --force; see --help"),
        (["a.h5", "dims=[time"], "dims: expected a value or a list, found 'dims=[time'"),
        (["a.h5", "dims=[x,y,z]"], "dims: expected different names, time and 1 to 3 axes of space among them"),
        (["a.h5", "dims=[time,x]"], "dims: expected names for the axes of an array"),
        (["a.h5", "boundary=3"], "boundary: expected a word, or {x: periodic, y: wall}, found 3"),
        (["a.h5", "batch_size=0"], "batch_size: expected a positive integer, found 0"),
        (["a.h5", "out=here.txt"], "out: expected the name of a YAML file, found here.txt"),
        (["overwrite=true"], "expected a path, a URL, a pattern or a folder"),
    ],
)
def test_a_wrong_option_is_one_line(inspected: Inspected, options: list[str], message: str) -> None:
    hdf5(inspected.folder / "a.h5", {"u": values(5, 20, 8), "t": np.arange(20.0), "x": np.arange(8.0)})
    assert message in inspected.refuse(*options)


def test_help_names_every_option(inspected: Inspected) -> None:
    text = inspected.run("--help", code=0).stdout
    named = re.findall(r"^  (\w+)=", text, re.MULTILINE)
    found = inspected.refuse("a.h5", "nothing=1").partition("options of ")[2].partition(", found")[0]
    assert sorted(named) == sorted(found.split(", "))


def test_names_of_vectors() -> None:
    found = vectors(["u", "v", "p", "Vx", "Vy", "Vz", "uo", "vo", "u10", "v10", "mom_x", "mom_y", "nu", "mv", "flux"])
    assert found == [
        Vector("velocity", ("u", "v")),
        Vector("velocity", ("Vx", "Vy", "Vz")),
        Vector("velocity", ("uo", "vo")),
        Vector("velocity_10", ("u10", "v10")),
        Vector("mom", ("mom_x", "mom_y")),
    ]
    assert vectors(["v", "w"]) == vectors(["u", "w"]) == vectors(["x"]) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("temperature", None), ("lifetime", None), ("nu", None), ("rlat", "space"), ("isobaricInhPa", "space"),
     ("theta", "space"), ("trajectories", "sample"), ("num_samples", "sample"), ("realization", "sample"),
     ("component", "channel"), ("t-coordinate", "time")],
)  # fmt: skip
def test_names_of_axes(name: str, kind: str | None) -> None:
    assert kind_of(name)[0] == kind
