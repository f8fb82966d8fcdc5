"""The reader of The Well's files gives back what was written, and nothing but what was asked for."""

import multiprocessing
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf
from well_files import Boundary, WellField, WellFile, write_file, write_stats

from data_adapters import handles
from data_adapters.handles import HANDLES, FileHandles
from data_adapters.hdf5 import WellAdapter, uniform_step
from morph.data.adapter import DatasetAdapter
from morph.layout import Field

SIZES = {"x": 3, "y": 4, "z": 5}
NUM_STEPS, DT = 7, 0.25
CONF = Path(__file__).parent.parent / "conf" / "dataset"


def code(field: int, component: Any, trajectory: Any, time: Any, *position: Any) -> Any:
    """A number that is different for each value of a data set, and exact in float32."""
    number = 0
    for index, size in zip((trajectory, time, *position), (10, NUM_STEPS, *SIZES.values()), strict=False):
        number = number * size + index
    return field + 5 * (component + 9 * number)


def coded(field: int, num_components: int, trajectories: range, axes: Sequence[str]) -> np.ndarray:
    """Values [trajectories][T][axes][components] of a field."""
    shape = (len(trajectories), NUM_STEPS, *(SIZES[axis] for axis in axes), num_components)
    values = np.fromfunction(lambda b, t, *rest: code(field, rest[-1], b + trajectories.start, t, *rest[:-1]), shape)
    return values.astype(np.float32)


def coded_file(
    axes: Sequence[str], trajectories: range = range(3), vector: int | None = None, **changes: Any
) -> WellFile:
    """Fields density (0), pressure (1) and velocity (2), periodic, with a parameter and a constant."""
    fields = {
        "density": WellField(coded(0, 1, trajectories, axes)[..., 0]),
        "pressure": WellField(coded(1, 1, trajectories, axes)[..., 0]),
        "velocity": WellField(coded(2, vector or len(axes), trajectories, axes), rank=1),
    }
    contents = WellFile(
        axes={axis: np.linspace(0, 1, SIZES[axis], dtype=np.float32) for axis in axes},
        times=DT * np.arange(NUM_STEPS, dtype=np.float32),
        num_trajectories=len(trajectories),
        fields=fields,
        boundaries=[Boundary("PERIODIC", [axis]) for axis in axes],
        scalars={"viscosity": 0.5 + np.array(trajectories), "gamma": 1.5},
    )
    return replace(contents, **changes)


def with_field(contents: WellFile, name: str, values: np.ndarray, **attributes: Any) -> WellFile:
    return replace(contents, fields={**contents.fields, name: WellField(values, **attributes)})


def write(folder: Path, *files: WellFile, split: str = "train") -> Path:
    for number, contents in enumerate(files):
        write_file(folder / "data" / split / f"part_{number}.hdf5", contents)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "coded"


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    HANDLES.close(list(HANDLES._open))


@pytest.mark.parametrize("axes", [("x",), ("x", "y"), ("x", "y", "z")])
def test_read_gives_each_value_in_its_place(folder: Path, axes: tuple[str, ...]) -> None:
    adapter = WellAdapter(write(folder, coded_file(axes)))
    assert isinstance(adapter, DatasetAdapter)
    spec = adapter.spec
    assert spec.fields == (
        Field("density"),
        Field("pressure"),
        Field("velocity", tuple(f"velocity_{axis}" for axis in axes)),
    )
    assert spec.spatial_shape == (1,) * (3 - len(axes)) + tuple(SIZES[axis] for axis in axes)
    assert (spec.name, spec.num_steps, spec.dt, spec.axes) == ("coded", NUM_STEPS, DT, axes)
    assert spec.boundary == ("open",) * (3 - len(axes)) + ("periodic",) * len(axes)

    frames = adapter.read(1, 2, 5)
    assert frames.dtype == np.float32
    assert frames.shape == (3, 3, len(axes), *spec.spatial_shape)
    for index in np.ndindex(frames.shape):
        time, field, component, *position = index
        expected = code(field, component, 1, time + 2, *position[3 - len(axes) :])
        assert frames[index] == (expected if spec.component_mask[field, component] else 0)


def test_one_field_alone_is_read_in_place(folder: Path) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x", "y"))), fields=["pressure"])
    expected = coded(1, 1, range(3), ("x", "y"))[2, 3:6, ..., 0]
    np.testing.assert_array_equal(adapter.read(2, 3, 6)[:, 0, 0, 0], expected)


def test_fields_are_chosen_ordered_renamed_and_grouped(folder: Path) -> None:
    fields = [
        {"name": "flow", "from": "velocity", "unit": "m/s"},
        {"name": "state", "from": ["pressure", "density"]},
        "density",
    ]
    adapter = WellAdapter(write(folder, coded_file(("x", "y"))), fields=OmegaConf.create(fields), name="renamed")
    assert adapter.spec.name == "renamed"
    assert adapter.spec.fields == (
        Field("flow", ("flow_x", "flow_y"), "m/s"),
        Field("state", ("state_x", "state_y")),
        Field("density"),
    )
    plain = WellAdapter(folder).read(0, 0, 2)
    frames = adapter.read(0, 0, 2)
    np.testing.assert_array_equal(frames[:, 0], plain[:, 2])
    np.testing.assert_array_equal(frames[:, 1], plain[:, [1, 0], 0])
    np.testing.assert_array_equal(frames[:, 2], plain[:, 0])


@pytest.mark.parametrize(
    ("axes", "components", "labels"),
    [
        (("x",), 1, "x"),
        (("x",), 3, "xyz"),
        (("x", "y"), 3, "xyz"),
        (("x", "y"), 5, "01234"),
        (("x", "z"), 3, "012"),
        (("x", "y", "z"), 2, "01"),
    ],
)
def test_vector_components_are_named_after_axes_where_that_is_safe(
    folder: Path, axes: tuple[str, ...], components: int, labels: str
) -> None:
    adapter = WellAdapter(write(folder, coded_file(axes, vector=components)), fields=["velocity"])
    assert adapter.spec.fields[0].components == tuple(f"velocity_{label}" for label in labels)
    expected = np.moveaxis(coded(2, components, range(3), axes)[1, 4], -1, 0)
    np.testing.assert_array_equal(adapter.read(1, 4, 5)[0, 0].reshape(expected.shape), expected)


def test_tensor_field_is_read_row_by_row_and_only_when_named(folder: Path) -> None:
    flat = coded(3, 4, range(3), ("x", "y"))
    contents = with_field(coded_file(("x", "y")), "stress", flat.reshape(*flat.shape[:-1], 2, 2), rank=2)
    write(folder, contents)
    assert [field.name for field in WellAdapter(folder).spec.fields] == ["density", "pressure", "velocity"]
    adapter = WellAdapter(folder, fields=["stress", "density"])
    assert adapter.spec.fields[0].components == ("stress_xx", "stress_xy", "stress_yx", "stress_yy")
    np.testing.assert_array_equal(np.moveaxis(adapter.read(2, 0, 3)[:, 0, :, 0], 1, -1), flat[2, :3])


@pytest.mark.parametrize("keep_axis", [False, True], ids=["axis left out", "axis of length 1"])
@pytest.mark.parametrize("along", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("time_varying", [True, False])
@pytest.mark.parametrize("sample_varying", [True, False])
@pytest.mark.parametrize("rank", [0, 1])
def test_constant_field_is_repeated(
    folder: Path, keep_axis: bool, along: tuple[bool, bool], time_varying: bool, sample_varying: bool, rank: int
) -> None:
    full = coded(3, 2 if rank else 1, range(3), ("x", "y"))
    index = tuple(slice(None) if varies else slice(0, 1) for varies in (sample_varying, time_varying, *along))
    stored = full[index]
    expected = np.broadcast_to(stored, full.shape)
    drop = [axis for axis, varies in enumerate((sample_varying, time_varying)) if not varies]
    drop += [] if keep_axis else [axis + 2 for axis, varies in enumerate(along) if not varies]
    stored = stored.squeeze(tuple(drop) if rank else (*drop, -1))
    contents = with_field(
        coded_file(("x", "y")),
        "mask",
        stored,
        rank=rank,
        sample_varying=sample_varying,
        time_varying=time_varying,
        dim_varying=along,
    )
    adapter = WellAdapter(write(folder, contents), fields=["density", "mask"])
    frames = adapter.read(2, 1, 4)[:, 1, : full.shape[-1], 0]
    np.testing.assert_array_equal(np.moveaxis(frames, 1, -1), expected[2, 1:4])


@pytest.mark.parametrize("dtype", [">f4", "f8", ">f8", "f2", "i4", "u1", "?"])
@pytest.mark.parametrize("alone", [True, False])
def test_any_real_number_becomes_float32(folder: Path, dtype: str, alone: bool) -> None:
    values = (coded(0, 1, range(3), ("x", "y"))[..., 0] % 7).astype(dtype)
    write(folder, with_field(coded_file(("x", "y")), "level", values))
    frames = WellAdapter(folder, fields=["level"] if alone else ["level", "velocity"]).read(1, 2, 6)
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames[:, 0, 0, 0], values[1, 2:6].astype(np.float32))


def test_trajectories_run_on_over_files_in_the_order_of_their_names(folder: Path) -> None:
    counts = (2, 1, 4)
    ends = np.cumsum(counts)
    write(folder, *(coded_file(("x",), range(end - count, end)) for count, end in zip(counts, ends, strict=True)))
    (folder / "data" / "train" / "part_1.hdf5").rename(folder / "data" / "train" / "part_1.h5")
    (folder / "data" / "train" / "notes.txt").write_text("not a file of fields")
    write(folder, coded_file(("x",), range(9, 10)), split="valid")
    adapter = WellAdapter(folder)
    assert len(adapter) == 7
    for trajectory in range(7):
        np.testing.assert_array_equal(
            adapter.read(trajectory, 0, NUM_STEPS)[:, 0, 0, 0, 0],
            coded(0, 1, range(trajectory, trajectory + 1), ("x",))[0, ..., 0],
        )
        assert adapter.parameters(trajectory) == {"viscosity": 0.5 + trajectory, "gamma": 1.5}
    assert adapter.spec.parameters == ("viscosity", "gamma")
    assert WellAdapter(folder, split="valid").parameters(0)["viscosity"] == 9.5


def test_scalars_that_vary_in_time_are_no_parameters(folder: Path) -> None:
    contents = coded_file(("x",), varying_scalars={"forcing": np.ones((3, NUM_STEPS))})
    assert WellAdapter(write(folder, contents)).spec.parameters == ("viscosity", "gamma")


def test_coordinates_are_those_of_the_file(folder: Path) -> None:
    times = np.tile(1 + DT * np.arange(NUM_STEPS), (3, 1))
    contents = coded_file(("x", "y"), times=times, boundaries=[Boundary("PERIODIC", ["theta"])])
    contents.axes = {"r": np.geomspace(1, 9, 3), "theta": np.arange(4)}
    adapter = WellAdapter(write(folder, contents))
    assert adapter.spec.axes == ("r", "theta")
    assert adapter.spec.boundary == ("open", "open", "periodic")
    assert adapter.spec.fields[2].components == ("velocity_r", "velocity_theta")
    assert adapter.spec.dt == DT
    assert set(adapter.coordinates) == {"r", "theta", "time"}
    assert all(values.dtype == np.float64 for values in adapter.coordinates.values())
    np.testing.assert_allclose(adapter.coordinates["r"], [1, 3, 9])
    np.testing.assert_array_equal(adapter.coordinates["theta"], [0, 1, 2, 3])
    np.testing.assert_array_equal(adapter.coordinates["time"], times[0])


ENDS = np.array([True, False, False, True])


@pytest.mark.parametrize(
    ("boundaries", "expected"),
    [
        ([Boundary("periodic", ["x"]), Boundary("Wall", ["y"])], ("periodic", "wall")),
        ([Boundary("PERIODIC", ["y"])], ("open", "periodic")),
        ([], ("open", "open")),
        # A wall at the bottom and an outflow at the top are not one condition.
        (
            [
                Boundary("WALL", ["y"], np.arange(4) == 0),
                Boundary("OPEN", ["y"], np.arange(4) == 3),
                Boundary("WALL", ["x"]),
            ],
            ("wall", "open"),
        ),
        ([Boundary("WALL", ["y"], np.arange(4) == 0)], ("open", "open")),
        # Walls inside the domain (a maze) are no boundary of it, and a wall along the whole rim is one on both axes.
        ([Boundary("WALL", ["x", "y"], np.pad(np.ones((1, 2), dtype=bool), 1))], ("open", "open")),
        (
            [Boundary("WALL", ["x", "y"], np.pad(np.zeros((1, 2), dtype=bool), 1, constant_values=True))],
            ("wall", "wall"),
        ),
        ([Boundary("WALL", ["x", "y"], np.ones((3, 1), dtype=bool) & ENDS)], ("open", "wall")),
    ],
)
def test_boundary_is_that_of_both_ends(folder: Path, boundaries: list[Boundary], expected: tuple[str, str]) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x", "y"), boundaries=boundaries)))
    assert adapter.spec.boundary == ("open", *expected)


def test_statistics_are_pooled_over_components(folder: Path) -> None:
    write(folder, with_field(coded_file(("x", "y")), "mask", np.ones((3, 4)), sample_varying=False, time_varying=False))
    assert WellAdapter(folder).statistics is None
    write_stats(
        folder,
        {
            "mean": {"density": 1.0, "pressure": 2, "velocity": [3.0, 4.0], "mask": 5.0},
            "std": {"density": 3.0, "pressure": 4.0, "velocity": [1.0, 7.0], "mask": 0.5},
            "rms_delta": {"density": 0.3, "pressure": 0.4, "velocity": [0.1, 0.7]},
        },
    )
    fields = [
        "velocity",
        {"name": "state", "from": ["density", "pressure"]},
        {"name": "rho", "from": "density"},
        "mask",
    ]
    statistics = WellAdapter(folder, fields=fields).statistics
    assert statistics is not None
    np.testing.assert_allclose(statistics.mean.numpy(), [[3, 4], [1, 2], [1, 0], [5, 0]])
    # sqrt((1 + 49) / 2) = 5 and sqrt((9 + 16) / 2)
    np.testing.assert_allclose(statistics.std.numpy(), [5, np.sqrt(12.5), 3, 0.5], rtol=1e-6)
    # A constant has no increments in the file; The Well's smallest scale stands in.
    np.testing.assert_allclose(statistics.rms_increment.numpy(), [0.5, np.sqrt(0.125), 0.3, 1e-4], rtol=1e-6)
    assert all(str(values.dtype) == "torch.float32" for values in statistics)


def test_dt_survives_float32_times_of_a_long_run() -> None:
    times = (0.01 * np.arange(100_000)).astype(np.float32)
    assert np.abs(np.diff(times.astype(float)) / 0.01 - 1).max() > 1e-3
    assert uniform_step(times, "long run") == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("axes", [("x",), ("x", "y"), ("x", "y", "z")])
def test_agrees_with_the_reader_of_the_well(folder: Path, axes: tuple[str, ...]) -> None:
    well = pytest.importorskip("the_well.data")
    constant = coded(3, 1, range(1), axes)[0, 0, ..., 0]
    kinds = ["PERIODIC", "wall", "Open"]
    files = [
        with_field(
            coded_file(
                axes, trajectories, boundaries=[Boundary(kind, [axis]) for kind, axis in zip(kinds, axes, strict=False)]
            ),
            "porosity",
            constant,
            sample_varying=False,
            time_varying=False,
        )
        for trajectories in (range(2), range(2, 5))
    ]
    write(folder, *files)
    reference = well.WellDataset(
        path=str(folder), well_split_name="train", n_steps_input=2, n_steps_output=3, normalize_time_grid=False
    )
    adapter = WellAdapter(folder)
    windows = [(trajectory, start) for trajectory in range(len(adapter)) for start in range(NUM_STEPS - 4)]
    assert len(reference) == len(windows)
    names = [name for names in reference.metadata.field_names.values() for name in names]
    components = [component for field in adapter.spec.fields for component in field.components]
    mask = adapter.spec.component_mask
    assert components == ["density", "pressure", "porosity", *names[2:]]
    for number, (trajectory, start) in enumerate(windows):
        sample = reference[number]
        ours = adapter.read(trajectory, start, start + 5)[:, mask].reshape(5, len(components), *constant.shape)
        ours = np.moveaxis(ours, 1, -1)
        theirs = np.concatenate([sample["input_fields"].numpy(), sample["output_fields"].numpy()])
        np.testing.assert_array_equal(np.delete(ours, 2, axis=-1), theirs)
        for frame in ours:
            np.testing.assert_array_equal(frame[..., 2:3], sample["constant_fields"].numpy())
        np.testing.assert_array_equal(list(adapter.parameters(trajectory).values()), sample["constant_scalars"].numpy())
        times = np.concatenate([sample["input_time_grid"].numpy(), sample["output_time_grid"].numpy()])
        np.testing.assert_array_equal(adapter.coordinates["time"][start : start + 5], times)
        np.testing.assert_allclose(np.diff(times), adapter.spec.dt)
        ends = [
            [well.datasets.BoundaryCondition(int(end)).name.lower() for end in row]
            for row in sample["boundary_conditions"]
        ]
        assert ends == [[kind, kind] for kind in adapter.spec.boundary[3 - len(axes) :]]


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
    for fields, limit in ((None, 1.3), (["u0"], 1.05)):
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
    original = handles._open
    monkeypatch.setattr(handles, "_open", lambda path: opened.append(path.name) or original(path))
    monkeypatch.setattr(HANDLES, "limit", 3)
    for trajectory in [0, 1, 2, 0, 3, 0, 1, 4, 5]:
        np.testing.assert_array_equal(
            adapter.read(trajectory, 0, 1)[:, 0, 0, 0, 0],
            coded(0, 1, range(trajectory, trajectory + 1), ("x",))[0, :1, :, 0],
        )
        assert len(HANDLES) <= 3
    # The fourth file drives out 1, which was lent longest ago, and not 0.
    assert opened == [f"part_{number}.hdf5" for number in (0, 1, 2, 3, 1, 4, 5)]
    assert FileHandles().limit == 64


@pytest.mark.parametrize("trajectory", [-1, 3])
def test_trajectory_that_does_not_exist(folder: Path, trajectory: int) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x",))))
    for call in (adapter.parameters, lambda number: adapter.read(number, 0, 1)):
        with pytest.raises(IndexError, match=rf"'coded': expected a trajectory of 0 to 2, found {trajectory}"):
            call(trajectory)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (4, 2), (0, NUM_STEPS + 1)])
def test_frames_that_do_not_exist(folder: Path, start: int, stop: int) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x",))))
    with pytest.raises(IndexError, match=rf"'coded'.*within 0 and 7, found start {start} and stop {stop}"):
        adapter.read(0, start, stop)


@pytest.mark.parametrize(
    ("change", "what", "words"),
    [
        ({"axes": {"x": np.arange(6.0)}}, "spatial_shape", r"\(1, 1, 3\), found \(1, 1, 6\)"),
        ({"times": DT * np.arange(NUM_STEPS + 1)}, "the number of frames", "7, found 8"),
        ({"times": 2 * DT * np.arange(NUM_STEPS)}, "dt", r"0\.25, found 0\.5"),
        ({"boundaries": []}, "boundary", r"\(.*'periodic'\), found \(.*'open'\)"),
        ({"scalars": {}}, "parameters", r"\['viscosity', 'gamma'\], found \[\]"),
        ({"dataset_name": "another"}, "dataset_name", "coded, found another"),
    ],
)
def test_files_of_a_split_agree(folder: Path, change: dict[str, Any], what: str, words: str) -> None:
    contents = coded_file(("x",), range(3, 5))
    contents = replace(contents, **change)
    num_steps, size = len(contents.times), len(contents.axes["x"])
    resized = {
        name: WellField(np.resize(field.values, (2, num_steps, size, *field.values.shape[3:])), rank=field.rank)
        for name, field in contents.fields.items()
    }
    write(folder, coded_file(("x",)), replace(contents, fields=resized))
    with pytest.raises(ValueError, match=rf"part_1\.hdf5: {what} is not that of .*part_0\.hdf5: expected {words}"):
        WellAdapter(folder)


def test_files_of_a_split_have_the_same_fields(folder: Path) -> None:
    other = coded_file(("x",))
    without = replace(other, fields={name: field for name, field in other.fields.items() if name != "pressure"})
    write(folder, other, without)
    with pytest.raises(ValueError, match=r"part_1\.hdf5: no field 'pressure'; it has density, velocity"):
        WellAdapter(folder)
    assert len(WellAdapter(folder, fields=["velocity"])) == 6


def _edit(path: Path, change: Callable[[h5py.File], Any]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def _replace(name: str, values: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values).attrs.update(attributes)

    return change


def _delete(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def _set(name: str, attribute: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file[name].attrs.__setitem__(attribute, value)


def _unset(name: str, attribute: str) -> Callable[[h5py.File], None]:
    return lambda file: file[name].attrs.__delitem__(attribute)


UNEVEN = DT * np.arange(NUM_STEPS) + 0.1 * (np.arange(NUM_STEPS) > 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_delete("dimensions"), r"expected a group 'dimensions'.*found boundary_conditions, scalars"),
        (_delete("t1_fields"), r"expected a group 't1_fields'.*found boundary_conditions, dimensions"),
        (_delete("scalars"), r"expected a group 'scalars'"),
        (_delete("dimensions/time"), r"expected an array 'dimensions/time', found x, y beside it"),
        (_delete("dimensions/y"), r"expected an array 'dimensions/y', found time, x beside it"),
        (_delete("t0_fields/pressure"), r"expected an array 't0_fields/pressure', found density beside it"),
        (_unset("t0_fields", "field_names"), r"/t0_fields: expected the attribute 'field_names'"),
        (_unset("t1_fields/velocity", "dim_varying"), r"/t1_fields/velocity: expected the attribute 'dim_varying'"),
        (_unset("/", "n_trajectories"), r"expected the attribute 'n_trajectories'"),
        (_set("/", "n_trajectories", 0), r"expected one or more trajectories, found n_trajectories 0"),
        (_set("/", "n_trajectories", 4), r"t0_fields/density: expected shape \(4, 7, 3, 4\).*found \(3, 7, 3, 4\)"),
        (_set("/", "n_spatial_dims", 3), r"dimensions: expected 1 to 3 `spatial_dims`"),
        (_set("t1_fields", "field_names", ["density"]), r"field 'density' stands in both t0_fields and t1_fields"),
        (_set("t0_fields/density", "dim_varying", [True]), r"t0_fields/density: expected `dim_varying` for 2 axes"),
        (_set("t0_fields/density", "time_varying", False), r"t0_fields/density: expected shape \(3, 3, 4\)"),
        (_replace("t0_fields/density", np.ones((3, 7, 3))), r"t0_fields/density: expected shape.*found \(3, 7, 3\)"),
        (_replace("t1_fields/velocity", np.ones((3, 7, 3, 4))), r"t1_fields/velocity: expected shape.*components"),
        (_replace("t1_fields/velocity", np.ones((3, 7, 3, 4, 0))), r"t1_fields/velocity: expected shape"),
        (_replace("t0_fields/density", np.ones((3, 7, 3, 4), complex)), r"t0_fields/density: .* found complex128"),
        (_replace("t0_fields/density", h5py.Empty("f4")), r"expected an array 't0_fields/density'"),
        (_replace("t0_fields/density", b"text"), r"t0_fields/density: expected real numbers"),
        (_replace("scalars/viscosity", np.ones(5)), r"scalars/viscosity: expected shape \(3,\), found \(5,\)"),
        (_replace("scalars/gamma", "high"), r"scalars/gamma: expected real numbers"),
        (_replace("dimensions/time", UNEVEN), r"dimensions/time: .*found 0.35 from frame 4 to 5 where most are 0.25"),
        (_replace("dimensions/time", -np.arange(7.0)), r"dimensions/time: expected times that increase"),
        (_replace("dimensions/time", np.full(7, np.nan)), r"dimensions/time: expected the finite times"),
        (_replace("dimensions/time", np.zeros((2, 2, 7))), r"dimensions/time: expected \(T,\) or"),
        (_replace("dimensions/time", [UNEVEN, UNEVEN, UNEVEN + 1]), r"dimensions/time: .*in trajectory 2 where"),
        (_replace("dimensions/y", 1.0), r"dimensions/y: expected an array of coordinates"),
        (
            _set("boundary_conditions/x_PERIODIC_0", "bc_type", "SLIP"),
            r"/x_PERIODIC_0: expected a bc_type.*'slip' on x",
        ),
        (_set("boundary_conditions/x_PERIODIC_0", "associated_dims", ["q"]), r"/x_PERIODIC_0: expected.*on q"),
        (_replace("boundary_conditions/x_PERIODIC_0/mask", True), r"/x_PERIODIC_0/mask: expected the axes"),
    ],
)
def test_file_that_is_not_in_the_layout(folder: Path, change: Callable[[h5py.File], Any], words: str) -> None:
    write(folder, coded_file(("x", "y")))
    _edit(folder / "data" / "train" / "part_0.hdf5", change)
    with pytest.raises(ValueError, match=rf"coded/data/train/part_0\.hdf5: .*{words[1:]}|part_0\.hdf5: {words}"):
        WellAdapter(folder)


def test_single_frame_has_no_time_step(folder: Path) -> None:
    fields = {"density": WellField(np.ones((3, 1, 3)))}
    write(folder, coded_file(("x",), times=np.array([0.0]), fields=fields))
    with pytest.raises(ValueError, match=r"part_0\.hdf5: dimensions/time: expected the finite times of two or more"):
        WellAdapter(folder)


def _empty_file(path: Path) -> None:
    path.write_bytes(b"")


def _text_file(path: Path) -> None:
    path.write_text("no signature")


def _half_file(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("damage", [_empty_file, _text_file, _half_file, _loop])
@pytest.mark.parametrize("later", [False, True], ids=["when opened", "when read"])
def test_damaged_file(folder: Path, damage: Callable[[Path], None], later: bool) -> None:
    path = write(folder, coded_file(("x", "y", "z"))) / "data" / "train" / "part_0.hdf5"
    adapter = WellAdapter(folder) if later else None
    damage(path)
    with pytest.raises(
        ValueError, match=r"coded/data/train/part_0\.hdf5: expected .*HDF5 file.*found.*again"
    ) as caught:
        adapter.read(0, 0, 1) if adapter else WellAdapter(folder)
    assert damage is _empty_file or isinstance(caught.value.__cause__, OSError)


def test_file_that_changed_since(folder: Path) -> None:
    adapter = WellAdapter(write(folder, coded_file(("x", "y"))))
    write(folder, coded_file(("x",)))
    with pytest.raises(ValueError, match=r"part_0\.hdf5: t0_fields/density: expected frames 0 to 2.*has changed"):
        adapter.read(1, 0, 2)
    (folder / "data" / "train" / "part_0.hdf5").unlink()
    adapter.close()
    with pytest.raises(FileNotFoundError, match=r"part_0\.hdf5"):
        adapter.read(1, 0, 2)


def test_folder_that_is_not_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a folder.*nowhere/data/train.*No such file"):
        WellAdapter(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileNotFoundError, match=r"loop: expected a folder.*symbolic links"):
        WellAdapter(tmp_path / "loop")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "stats.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"bare/data: expected a folder.*bare holds stats\.yaml"):
        WellAdapter(tmp_path / "bare")
    (tmp_path / "bare" / "data" / "valid").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"data/test: expected a folder.*data holds valid"):
        WellAdapter(tmp_path / "bare", split="test")
    (tmp_path / "bare" / "data" / "valid" / "a.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"data/valid: expected files that end in \.h5 or \.hdf5, found a\.txt"):
        WellAdapter(tmp_path / "bare", split="valid")


@pytest.mark.parametrize("split", ["val", "validation", "Train", ""])
def test_unknown_split(folder: Path, split: str) -> None:
    with pytest.raises(ValueError, match=rf"coded: expected a split of train, valid, test, found '{split}'"):
        WellAdapter(write(folder, coded_file(("x",))), split=split)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["speed"], r"no field 'speed'; it has density, pressure, velocity"),
        ([{"name": "u", "from": "speed"}], r"no field 'speed'"),
        ([], r"expected `fields` to be a list of one or more fields, found \[\]"),
        ("density", r"expected `fields` to be a list"),
        ([{"name": "u", "form": "density"}], r"expected a field's name, or a mapping.*'form'"),
        ([{"from": "density"}], r"expected a field's name, or a mapping"),
        ([3], r"expected a field's name, or a mapping.*found 3"),
        ([{"name": "u", "from": []}], r"expected `from` to be a field or a list of fields"),
        ([{"name": "u", "from": 3}], r"expected `from` to be a field or a list of fields"),
        ([{"name": "u", "from": ["velocity", "density"]}], r"field 'u': expected a list of scalar fields in `from`"),
        (["density", "density"], r"'coded': component names repeat: density"),
    ],
)
def test_fields_that_cannot_be_read(folder: Path, fields: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"coded.*{words}|data set {words}"):
        WellAdapter(write(folder, coded_file(("x", "y"))), fields=fields)


def test_file_without_scalar_or_vector_field(folder: Path) -> None:
    contents = with_field(coded_file(("x",), fields={}), "stress", np.ones((3, NUM_STEPS, 3, 1, 1)), rank=2)
    with pytest.raises(ValueError, match=r"part_0\.hdf5: expected a scalar or vector field, found stress"):
        WellAdapter(write(folder, contents))


GOOD_STATS = {
    "mean": {"density": 1.0, "velocity": [1.0, 2.0]},
    "std": {"density": 1.0, "velocity": [1.0, 2.0]},
    "rms_delta": {"density": 1.0, "velocity": [1.0, 2.0]},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": {"velocity": [1.0, 2.0]}}, "mean: field 'density': expected 1 finite.*found 'no entry'"),
        ({"std": {"density": 1.0, "velocity": 3.0}}, "std: field 'velocity': expected 2 finite.*found 3.0"),
        ({"std": {"density": -1.0, "velocity": [1.0, 2.0]}}, "std: field 'density': expected.*not negative"),
        ({"rms_delta": {"density": float("nan")}}, "rms_delta: field 'density': expected.*found nan"),
        ({"rms_delta": {"velocity": [1.0, 2.0]}}, "rms_delta: field 'density': expected.*found 'no entry'"),
        ({"mean": {"density": "much"}}, "mean: field 'density': expected.*found 'much'"),
    ],
)
def test_statistics_that_do_not_fit(folder: Path, change: dict[str, Any], words: str) -> None:
    write(folder, coded_file(("x", "y")))
    write_stats(folder, {**GOOD_STATS, **change})
    with pytest.raises(ValueError, match=rf"coded/stats\.yaml: {words}"):
        WellAdapter(folder, fields=["density", "velocity"])


@pytest.mark.parametrize("text", ["", "- 1", "mean: 3", "mean: [", "\x00"])
def test_statistics_that_are_no_table(folder: Path, text: str) -> None:
    write(folder, coded_file(("x", "y")))
    (folder / "stats.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"coded/stats\.yaml: expected (readable YAML|'mean' to map)"):
        WellAdapter(folder, fields=["density", "velocity"])


SUITE = {
    "cfd1d": {"velocity": 1, "density": 0, "pressure": 0},
    "dr2d": {"u": 0, "v": 0},
    "swe2d": {"velocity": 1, "height": 0},
    "ns2d": {"velocity": 1},
    "mhd3d": {"magnetic_field": 1, "velocity": 1, "density": 0},
    "cfd3d": {"velocity": 1, "density": 0, "pressure": 0},
    "dr1d": {"u": 0},
    "burgers1d": {"u": 0},
    "gs2d": {"A": 0, "B": 0},
    "ns3d": {"velocity": 1},
}


@pytest.mark.parametrize("system", SUITE)
def test_shipped_data_sets_read_the_suite(tmp_path: Path, system: str) -> None:
    axes = tuple("xyz"[: int(system[-2])])
    fields = {
        name: WellField(
            coded(number, len(axes) if rank else 1, range(2), axes)[(...,) if rank else (..., 0)], rank=rank
        )
        for number, (name, rank) in enumerate(SUITE[system].items())
    }
    contents = coded_file(axes, range(2), fields=fields, dataset_name=system)
    write(tmp_path / "suite" / "tiny" / system, contents, split="valid")
    options = {
        "data_dir": str(tmp_path),
        "level": "tiny",
        "suite_seed": 7,
        "dataset": OmegaConf.load(CONF / f"{system}.yaml"),
    }
    config = OmegaConf.create(options).dataset
    assert config.pop("batch_size") == {1: 32, 2: 8, 3: 2}[len(axes)]
    assert config.pop("prepare") == {
        "_target_": "data_adapters.suite.ensure",
        "system": system,
        "level": "tiny",
        "seed": 7,
        "out": f"{tmp_path}/suite",
    }
    adapter = hydra.utils.instantiate(config, split="valid")
    assert adapter.spec.name == system
    assert [field.name for field in adapter.spec.fields] == list(SUITE[system])
    assert adapter.spec.num_components == (len(axes) if 1 in SUITE[system].values() else 1)
    frames = adapter.read(1, 3, 4)
    assert [float(frames[0, number, 0, 0, 0, 0]) for number in range(len(fields))] == [
        code(number, 0, 1, 3, *(0 for _ in axes)) for number in range(len(fields))
    ]
    assert sorted(path.stem for path in CONF.glob("*.yaml") if path.stem in SUITE) == sorted(SUITE)
