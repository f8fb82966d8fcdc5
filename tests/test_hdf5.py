"""The reader of The Well's files gives back what was written, each value in its place."""

from collections.abc import Iterator
from pathlib import Path

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf
from well_files import (
    DT,
    NUM_STEPS,
    SIZES,
    Boundary,
    WellField,
    code,
    coded,
    coded_file,
    coded_folder,
    with_field,
    write,
    write_stats,
)

from data_adapters.contents import uniform_step
from data_adapters.hdf5 import WellAdapter
from morph.data.adapter import DatasetAdapter
from morph.layout import Field

CONF = Path(__file__).parent.parent / "conf" / "dataset"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from coded_folder(tmp_path)


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


@pytest.mark.parametrize(
    ("channels", "labels"), [([0, 1, 3], ["xx", "xy", "yy"]), ([2], [""]), ([3, 2, 1, 0], ["yy", "yx", "xy", "xx"])]
)
def test_components_of_a_tensor_are_chosen_row_by_row(folder: Path, channels: list[int], labels: list[str]) -> None:
    flat = coded(3, 4, range(3), ("x", "y"))
    contents = with_field(coded_file(("x", "y")), "stress", flat.reshape(*flat.shape[:-1], 2, 2), rank=2)
    adapter = WellAdapter(write(folder, contents), fields=[{"name": "stress", "channels": channels}])
    assert adapter.spec.fields[0].components == tuple(f"stress_{label}".rstrip("_") for label in labels)
    np.testing.assert_array_equal(np.moveaxis(adapter.read(2, 0, 3)[:, 0, :, 0], 1, -1), flat[2, :3][..., channels])
    with pytest.raises(ValueError, match=r"t2_fields/stress: field 'stress': expected channels of 0 to 3, found \[4\]"):
        WellAdapter(folder, fields=[{"name": "stress", "channels": [4]}])


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


def test_all_splits_follow_each_other(folder: Path) -> None:
    """Those that are there; the scales are those of the training split, as for each of them."""
    for split, trajectories in (("test", range(5, 6)), ("valid", range(3, 5))):
        write(folder, coded_file("xy", trajectories), split=split)
    for first, split in ((3, "valid"), (0, "train")):
        if split == "train":
            write(folder, coded_file("xy", range(3)))
            scales = dict.fromkeys(("density", "pressure"), 2.0) | {"velocity": [1.0, 3.0]}
            write_stats(folder, dict.fromkeys(("mean", "std", "rms_delta"), scales))
        whole = WellAdapter(folder, "all")
        assert len(whole) == 6 - first
        expected = [coded(1, 1, range(first, 6), "xy")[i, ..., 0] for i in range(6 - first)]
        found = [whole.read(i, 0, NUM_STEPS)[:, 1, 0, 0] for i in range(6 - first)]
        np.testing.assert_array_equal(found, expected)
        assert [whole.parameters(i)["viscosity"] for i in range(6 - first)] == [0.5 + i for i in range(first, 6)]
    train = WellAdapter(folder, "train").statistics
    assert train is not None
    assert whole.statistics is not None
    np.testing.assert_array_equal(whole.statistics.mean, train.mean)
    (folder / "data" / "test" / "part_0.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match=r"data/test: expected files that end in"):
        WellAdapter(folder, "all")
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a folder"):
        WellAdapter(folder.parent / "nowhere", "all")


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
    from the_well import data as well  # part of the test extra: without it this must fail, not be skipped

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
    del config.card
    assert config.pop("batch_size") == {1: 32, 2: 8, 3: 2}[len(axes)]
    assert config.pop("prepare") == {
        "_target_": "data_adapters.suite.ensure",
        "system_name": system,
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
