"""HDF5 files that say little about themselves - PDEBench's, PDEgym's, anybody's - give each value in its place."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layout_files import (
    DT,
    closed,
    counted,
    edges,
    write_arrays,
    write_cfd,
    write_chunks,
    write_groups,
    write_incompressible,
    write_netcdf,
    write_tensor,
)

from data_adapters.grid import GridAdapter
from data_adapters.hdf5 import ArrayAdapter, GroupAdapter
from morph.data.adapter import DatasetAdapter
from morph.layout import Field

# All trajectories but two, in the order of the file.
ALL = {"order": ["train", "valid", "test"], "valid": 1, "test": 1}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield from closed()


def in_order(values: np.ndarray, dims: Sequence[str], axes: Sequence[str]) -> np.ndarray:
    """The array as [sample, time, channel, *axes], of length 1 where it has no such axis: the oracle."""
    wanted = ["sample", "time", "channel", *axes]
    values = np.expand_dims(values, tuple(range(values.ndim, len(wanted))))
    named = [*dims, *(dim for dim in wanted if dim not in dims)]
    return values.transpose([named.index(dim) for dim in wanted])


def check(adapter: GridAdapter, fields: Mapping[str, np.ndarray], trajectories: Sequence[int] | None = None) -> None:
    """`fields`: values of each field, [sample, time, component, *axes], of length 1 where repeated.

    All windows of one and of all frames are compared, fillers with zero.
    """
    assert isinstance(adapter, DatasetAdapter)
    spec = adapter.spec
    assert [field.name for field in spec.fields] == list(fields)
    trajectories = range(len(adapter)) if trajectories is None else trajectories
    assert len(adapter) == len(trajectories)
    for number, trajectory in enumerate(trajectories):
        expected = np.zeros((spec.num_steps, spec.num_fields, spec.num_components, *spec.spatial_shape), "f4")
        for field, values in enumerate(fields.values()):
            row = values[trajectory if len(values) > 1 else 0]
            assert row.shape[1] == len(spec.fields[field].components)
            grid = row.shape[2:]
            expected[:, field, : row.shape[1]] = row.reshape(*row.shape[:2], *(1,) * (3 - len(grid)), *grid)
        frames = adapter.read(number, 0, spec.num_steps)
        assert frames.dtype == np.float32
        np.testing.assert_array_equal(frames, expected)
        for start in range(spec.num_steps):
            np.testing.assert_array_equal(adapter.read(number, start, start + 1), expected[start : start + 1])


def test_tensor_of_pdebench(tmp_path: Path) -> None:
    tensor = counted((5, 4, 6))
    path = write_tensor(tmp_path / "1D_Burgers_Sols_Nu0.1.hdf5", tensor, Nu=0.1)
    adapter = ArrayAdapter(
        path,
        dims=["sample", "time", "x"],
        coordinates={"time": "t-coordinate", "x": "x-coordinate"},
        parameters=["Nu"],
        fields=[{"name": "u", "from": "tensor"}],
        boundary="periodic",
        splits=ALL,
    )
    spec = adapter.spec
    assert (spec.name, spec.fields, spec.axes) == ("1D_Burgers_Sols_Nu0.1", (Field("u"),), ("x",))
    assert (spec.num_steps, spec.dt, spec.spatial_shape) == (4, DT, (1, 1, 6))
    assert spec.boundary == ("open", "open", "periodic")
    assert spec.parameters == ("Nu",)
    assert adapter.parameters(2) == {"Nu": 0.1}
    np.testing.assert_array_equal(adapter.coordinates["time"], DT * np.arange(4))
    np.testing.assert_array_equal(adapter.coordinates["x"], edges(6))
    check(adapter, {"u": tensor[:3, :, None]})


@pytest.mark.parametrize("sizes", [(8,), (6, 5), (5, 4, 3)])
def test_compressible_flow_of_pdebench(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    axes = tuple("xyz"[: len(sizes)])
    names = ["density", "pressure", *(f"V{axis}" for axis in axes)]
    values = counted((len(names), 4, 3, *sizes))
    path = write_cfd(tmp_path / "CFD.hdf5", dict(zip(names, values, strict=True)), eta=0.01, zeta=0.02, M=1.0)
    adapter = ArrayAdapter(
        path,
        dims=["sample", "time", *axes],
        coordinates={"time": "t-coordinate", **{axis: f"{axis}-coordinate" for axis in axes}},
        parameters=["eta", "zeta", "M"],
        fields=[{"name": "velocity", "from": names[2:]}, "density", "pressure"],
        splits=ALL,
    )
    velocity = Field("velocity", tuple(f"velocity_{axis}" for axis in axes))
    assert adapter.spec.fields == (velocity, Field("density"), Field("pressure"))
    assert (adapter.spec.num_steps, adapter.spec.dt) == (3, DT)
    assert adapter.parameters(0) == {"eta": 0.01, "zeta": 0.02, "M": 1.0}
    check(
        adapter,
        {"velocity": np.moveaxis(values[2:, :2], 0, 2), "density": values[0, :2, :, None],
         "pressure": values[1, :2, :, None]},
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [(7,), (5, 4)])
def test_groups_of_pdebench(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    axes = tuple("xy"[: len(sizes)])
    data = counted((12, 4, *sizes, 2))
    configs = [f"sim: {{Du: 1e-3, k: 0.5}}\nseed: '{number:04d}'\nradius: {0.1 * number}\n" for number in range(12)]
    adapter = GroupAdapter(
        write_groups(tmp_path / "2D_diff-react_NA_NA.h5", data, configs),
        dims=["time", *axes, "channel"],
        coordinates={"time": "grid/t", **{axis: f"grid/{axis}" for axis in axes}},
        parameters=["Du", "k", "radius"],
        fields=[{"name": "v", "from": "data", "channels": [1]}, {"name": "u", "from": "data", "channels": [0]}],
        splits=ALL,
    )
    assert (adapter.spec.num_steps, adapter.spec.dt, adapter.spec.axes) == (4, DT, axes)
    np.testing.assert_array_equal(adapter.coordinates["x"], edges(sizes[0]))
    for trajectory in range(10):
        expected = {"Du": 0.001, "k": 0.5, "radius": pytest.approx(0.1 * trajectory)}
        assert adapter.parameters(trajectory) == expected
        assert adapter.place(trajectory) == (str(tmp_path / "2D_diff-react_NA_NA.h5"), trajectory)
    values = in_order(data, ["sample", "time", *axes, "channel"], axes)
    check(adapter, {"v": values[:10, :, [1]], "u": values[:10, :, [0]]})
    # Without `fields`, the arrays of a group in full.
    plain = GroupAdapter(tmp_path / "2D_diff-react_NA_NA.h5", dims=["time", *axes, "channel"], dt=1, splits=ALL)
    check(plain, {"data": values[:10]})


def test_groups_lie_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = counted((3, 2, 4))
    with h5py.File(tmp_path / "a.h5", "w", track_order=True) as file:
        for name, values in zip(["0001", "0002", "0000"], data, strict=True):
            file[f"{name}/u"] = values
    adapter = GroupAdapter(tmp_path / "a.h5", dims=["time", "x"], dt=1, splits={**ALL, "valid": 0, "test": 0})
    check(adapter, {"u": data[[2, 0, 1], :, None]})


def test_incompressible_flow_of_pdebench(tmp_path: Path) -> None:
    velocity = counted((4, 3, 5, 6, 2))
    particles, force = counted((4, 3, 5, 6, 1), 2000), counted((4, 5, 6, 2), 3000)
    path = write_incompressible(tmp_path / "ns_incom_inhom_2d_512-0.h5", velocity, particles, force)
    dims = ["sample", "time", "x", "y", "channel"]
    adapter = ArrayAdapter(
        path,
        dims=dims,
        coordinates={"time": "t"},
        fields=["velocity", "particles", {"name": "force", "from": "force", "dims": ["sample", "x", "y", "channel"]}],
        splits=ALL,
    )
    assert adapter.spec.dt == DT
    values = [in_order(array[:2], dims, ("x", "y")) for array in (velocity, particles)]
    constant = in_order(force[:2], ["sample", "x", "y", "channel"], ("x", "y"))
    check(adapter, {"velocity": values[0], "particles": values[1], "force": constant})
    np.testing.assert_array_equal(adapter.coordinates["y"], np.arange(6))


@pytest.mark.parametrize("order", ["lexicographic", "numeric"])
def test_chunks_of_pdegym(tmp_path: Path, order: str) -> None:
    values = counted((24, 3, 5, 4, 6))
    dims = ["sample", "time", "channel", "x", "y"]
    sizes = [2] * 11 + [2]
    files = write_chunks(tmp_path, "data", values, dims, sizes)
    assert [file.name for file in files][:4] == ["data_0.nc", "data_1.nc", "data_10.nc", "data_11.nc"]
    adapter = ArrayAdapter(
        str(tmp_path / "data_*.nc"),
        dims=dims,
        order=order,
        fields=[
            {"name": "velocity", "from": "data", "channels": [1, 2]},
            {"name": "density", "from": "data", "channels": [0]},
            {"name": "pressure", "from": "data", "channels": [3]},
        ],
        dt=0.05,
        splits={**ALL, "within": "all", "valid": 3, "test": 4},
    )
    pieces = np.split(values, 12)
    if order == "numeric":  # data_2 is the fifth as text
        values = np.concatenate([pieces[i] for i in (0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3)])
    check(adapter, {"velocity": values[:17, :, 1:3], "density": values[:17, :, [0]], "pressure": values[:17, :, [3]]})
    assert adapter.spec.fields[0] == Field("velocity", ("velocity_x", "velocity_y"))


def test_waves_of_pdegym_carry_a_field_that_is_constant_in_time(tmp_path: Path) -> None:
    solution, speed = counted((5, 4, 6, 3)), counted((5, 6, 3), 5000)
    variables = {"solution": (("sample", "time", "x", "y"), solution), "c": (("sample", "x", "y"), speed)}
    adapter = ArrayAdapter(
        write_netcdf(tmp_path / "Wave-Layer.nc", variables),
        dims=["sample", "time", "x", "y"],
        fields=[{"name": "u", "from": "solution"}, {"name": "c", "from": "c", "dims": ["sample", "x", "y"]}],
        dt=0.05,
        splits=ALL,
    )
    check(adapter, {"u": solution[:3, :, None], "c": speed[:3, None, None]})


DIMS = ("sample", "time", "channel", "x", "y")


def test_indices_may_come_in_any_order(tmp_path: Path) -> None:
    """All 120 orders: channel first, channel last, reversed as Fortran writes, ...; all frames, and every other one."""
    values = counted((3, 4, 2, 5, 6))
    for number, order in enumerate(permutations(DIMS)):
        stored = values.transpose([DIMS.index(dim) for dim in order])
        path = write_arrays(tmp_path / f"{number}.h5", {"data": np.asfortranarray(stored) if number % 2 else stored})
        axes = ["y", "x"] if number % 3 else ["x", "y"]
        options: dict[str, Any] = {"axes": axes, "dt": 1, "splits": {**ALL, "valid": 0, "test": 2}}
        adapter = ArrayAdapter(path, dims=order, **options)
        assert adapter.spec.axes == tuple(axes)
        assert adapter.spec.fields[0].components == ("data_x", "data_y")
        np.testing.assert_array_equal(adapter.read(0, 1, 3)[:, 0, :, 0], in_order(stored, order, axes)[0, 1:3])
        ends = ArrayAdapter(path, dims=order, frames={"step": 2}, space={"x": {"step": 4}}, **options)
        expected = in_order(stored.take([0, 2], order.index("time")).take([0, 4], order.index("x")), order, axes)
        np.testing.assert_array_equal(ends.read(0, 0, 2)[:, 0, :, 0], expected[0])
        adapter.close()


@pytest.mark.parametrize("axes", list(permutations("xyz")))
def test_axes_are_mapped_onto_d_h_w_in_the_order_that_is_asked_for(tmp_path: Path, axes: tuple[str, ...]) -> None:
    fields = dict(zip(["p", "q"], counted((2, 3, 2, 5, 4, 3)), strict=True))
    path = write_cfd(tmp_path / "a.h5", fields)
    coordinates = {axis: f"{axis}-coordinate" for axis in axes}
    adapter = ArrayAdapter(
        path,
        dims=["sample", "time", "x", "y", "z"],
        coordinates=coordinates,
        axes=axes,
        boundary={"x": "periodic", "y": "wall"},
        space={"x": {"start": 1}, "z": {"stop": 2}},
        dt=1,
        splits={**ALL, "valid": 0},
    )
    sizes, kinds = {"x": 4, "y": 4, "z": 2}, {"x": "open", "y": "wall", "z": "open"}
    assert adapter.spec.spatial_shape == tuple(sizes[axis] for axis in axes)
    assert adapter.spec.boundary == tuple(kinds[axis] for axis in axes)
    np.testing.assert_array_equal(adapter.coordinates["x"], edges(5)[1:])
    np.testing.assert_array_equal(adapter.coordinates["z"], edges(3)[:2])
    check(
        adapter,
        {
            name: in_order(values[:2, :, 1:, :, :2], ["sample", "time", "x", "y", "z"], axes)
            for name, values in fields.items()
        },
    )


@pytest.mark.parametrize(
    ("part", "size", "kinds"),
    [
        ({}, 8, ("periodic", "wall")),
        ({"step": 2}, 8, ("periodic", "wall")),
        ({"start": 1, "step": 2}, 8, ("periodic", "wall")),
        ({"start": 0, "stop": 7, "step": 2}, 8, ("periodic", "wall")),  # the same points as without `stop`
        ({"step": 4}, 8, ("periodic", "wall")),
        ({"step": 3}, 8, ("open", "wall")),
        ({"step": 2}, 9, ("open", "wall")),
        ({"stop": 7}, 8, ("open", "open")),
        ({"start": 1}, 8, ("open", "open")),
        ({"start": 2, "step": 2}, 8, ("open", "open")),
        ({"start": None, "stop": None, "step": None}, 8, ("periodic", "wall")),
    ],
)
def test_a_part_of_a_periodic_axis_is_open_unless_it_goes_round(
    tmp_path: Path, part: dict[str, Any], size: int, kinds: tuple[str, str]
) -> None:
    values = counted((1, 3, size, size))
    adapter = ArrayAdapter(
        write_arrays(tmp_path / "a.h5", {"u": values}),
        dims=["sample", "time", "x", "y"],
        dt=1,
        boundary={"x": "periodic", "y": "wall"},
        space={"x": part, "y": part},
        splits={"by": "time", "valid": 0, "test": 0},
    )
    cut = slice(part.get("start"), part.get("stop"), part.get("step"))
    assert adapter.spec.boundary == ("open", *kinds)
    check(adapter, {"u": values[:, :, None, cut, cut]})
    np.testing.assert_array_equal(adapter.coordinates["x"], np.arange(size)[cut])


@pytest.mark.parametrize(("start", "stop", "step"), [(0, 9, 2), (3, None, 1), (None, 4, None), (2, 8, 3), (8, 9, 1)])
def test_frames_are_those_of_the_file(tmp_path: Path, start: int | None, stop: int | None, step: int | None) -> None:
    values = counted((4, 9, 5))
    adapter = ArrayAdapter(
        write_tensor(tmp_path / "a.h5", values),
        dims=["sample", "time", "x"],
        coordinates={"time": "t-coordinate"},
        fields=["tensor"],
        frames={"start": start, "stop": stop, "step": step},
        splits=ALL,
    )
    cut = slice(start, stop, step)
    assert adapter.spec.dt == DT * (step or 1)
    np.testing.assert_array_equal(adapter.coordinates["time"], DT * np.arange(9)[cut])
    check(adapter, {"tensor": values[:2, cut, None]})


def test_an_array_may_lack_any_axis_and_be_read_in_two_ways(tmp_path: Path) -> None:
    full, square = counted((3, 2, 4, 4)), counted((4, 4), 500)
    arrays = {"u": full, "square": square, "row": square[0], "clock": square[0, :2], "each": square[0, :3]}
    named: dict[str, list[str]] = {"square": ["x", "y"], "row": ["y"], "clock": ["time"], "each": ["sample"]}
    fields = ["u", *({"name": name, "from": name, "dims": dims} for name, dims in named.items())]
    fields.append({"name": "turned", "from": "square", "dims": ["y", "x"]})
    adapter = ArrayAdapter(
        write_arrays(tmp_path / "a.h5", arrays), dims=["sample", "time", "x", "y"], fields=fields, dt=1,
        splits={**ALL, "valid": 0, "test": 0},
    )  # fmt: skip
    expected = {name: in_order(arrays[name], dims, ("x", "y")) for name, dims in named.items()}
    check(adapter, {"u": full[:, :, None], **expected, "turned": in_order(square, ["y", "x"], ("x", "y"))})


def test_channels_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    values = counted((2, 3, 4, 5))
    adapter = ArrayAdapter(
        write_arrays(tmp_path / "a.h5", {"data": values}),
        dims=["sample", "time", "channel", "x"],
        fields=[
            {"name": "a", "from": "data", "channels": [3, 1], "unit": "m"},
            {"name": "b", "from": "data", "channels": [1]},
            {"name": "c", "from": "data"},
        ],
        dt=1,
        splits={**ALL, "valid": 0},
    )
    assert adapter.spec.fields[0] == Field("a", ("a_x", "a_y"), "m")
    assert adapter.spec.fields[1] == Field("b")
    check(adapter, {"a": values[:1, :, [3, 1]], "b": values[:1, :, [1]], "c": values[:1]})
