"""The embedded suite: what is written, by whom it can be read, and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from suite_files import data_file, read

from data_adapters.suite import SYSTEMS
from data_adapters.suite.checks import check, divergence, drift
from data_adapters.suite.initial import draw, fourier_series, solenoidal
from data_adapters.suite.systems import SPLITS, find_system
from data_adapters.suite.well import Variable, write_well


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("split", SPLITS)
def test_layout_is_that_of_the_well(tiny_suite: Path, name: str, split: str) -> None:
    system, size = find_system(name), find_system(name).levels["tiny"]
    count, num_steps, axes = size.num_trajectories[split], size.num_frames, ["x", "y", "z"][: system.num_dims]
    with h5py.File(data_file(tiny_suite, name, split)) as file:
        assert (
            dict(file.attrs).items()
            >= {
                "dataset_name": name,
                "grid_type": "cartesian",
                "n_spatial_dims": len(axes),
                "n_trajectories": count,
                "generator": "exponax",
                "seed": 0,
                "level": "tiny",
                "equation": system.equation,
            }.items()
        )
        assert file.attrs["generator_version"]
        assert list(file.attrs["simulation_parameters"]) == list(system.parameters)
        assert set(file) == {"dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields"}

        dimensions = file["dimensions"]
        assert list(dimensions.attrs["spatial_dims"]) == axes
        np.testing.assert_allclose(dimensions["time"], np.arange(num_steps) * system.dt, rtol=1e-6)
        assert not dimensions["time"].attrs["sample_varying"]
        for axis in axes:
            np.testing.assert_allclose(
                dimensions[axis], np.arange(size.num_points) * system.domain("tiny") / size.num_points, rtol=1e-6
            )
            assert not dimensions[axis].attrs["sample_varying"]
            assert not dimensions[axis].attrs["time_varying"]

        conditions = file["boundary_conditions"].values()
        assert sorted(axis for condition in conditions for axis in condition.attrs["associated_dims"]) == axes
        for condition in conditions:
            assert condition.attrs["bc_type"] == "PERIODIC"
            assert len(condition.attrs["associated_fields"]) == 0
            assert not condition.attrs["sample_varying"]
            assert not condition.attrs["time_varying"]
            assert np.flatnonzero(condition["mask"]).tolist() == [0, size.num_points - 1]

        assert list(file["scalars"].attrs["field_names"]) == list(system.parameters)
        for key, interval in system.ranges("tiny").items():
            scalar = file["scalars"][key]
            assert scalar.shape == (count,)
            assert scalar.attrs["sample_varying"]
            assert not scalar.attrs["time_varying"]
            assert np.float32(interval.low) <= scalar[()].min() < scalar[()].max() <= np.float32(interval.high)
            np.testing.assert_array_equal(file.attrs[key], scalar)

        for rank, names in enumerate([system.scalars, system.vectors, ()]):
            group = file[f"t{rank}_fields"]
            assert list(group.attrs["field_names"]) == list(names)
            for key in names:
                field = group[key]
                assert field.dtype == np.float32
                grid = (size.num_points,) * len(axes)
                assert field.shape == (count, num_steps, *grid, *(len(axes),) * rank)
                assert field.attrs["dim_varying"].tolist() == [True] * len(axes)
                assert field.attrs["sample_varying"]
                assert field.attrs["time_varying"]


@pytest.mark.parametrize("name", ["cfd1d", "swe2d", "mhd3d"])
@pytest.mark.filterwarnings("default")
def test_the_well_reads_it(tiny_suite: Path, name: str) -> None:
    from the_well.data import WellDataset
    from the_well.data.normalization import ZScoreNormalization

    dataset = WellDataset(
        path=str(tiny_suite / name),
        well_split_name="valid",
        n_steps_input=2,
        n_steps_output=1,
        use_normalization=True,
        normalization_type=ZScoreNormalization,
    )
    fields, parameters = read(tiny_suite, name, "valid")
    statistics = yaml.safe_load((tiny_suite / name / "stats.yaml").read_text())
    sample = dataset[3]
    expected = []
    for key in (*find_system(name).scalars, *find_system(name).vectors):
        array = (fields[key][0, 3:6] - statistics["mean"][key]) / statistics["std"][key]
        expected.append(array if key in find_system(name).vectors else array[..., None])
    frames = np.concatenate([sample["input_fields"].numpy(), sample["output_fields"].numpy()])
    np.testing.assert_allclose(frames, np.concatenate(expected, axis=-1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sample["constant_scalars"].numpy(), [values[0] for values in parameters.values()])


@pytest.mark.parametrize("name", SYSTEMS)
def test_statistics_are_those_of_the_training_split(tiny_suite: Path, name: str) -> None:
    statistics = yaml.safe_load((tiny_suite / name / "stats.yaml").read_text())
    assert set(statistics) == {"mean", "std", "rms", "mean_delta", "std_delta", "rms_delta"}
    fields, _ = read(tiny_suite, name, "train")
    for key, array in fields.items():
        vector = key in find_system(name).vectors
        values = array.astype(np.float64)
        axes = tuple(range(values.ndim - vector))
        for suffix, part in (("", values), ("_delta", np.diff(values, axis=1))):
            scales = {"std": part.std(axis=axes), "rms": np.sqrt(np.mean(part**2, axis=axes))}
            for kind, expected in {"mean": part.mean(axis=axes), **scales}.items():
                found = statistics[kind + suffix][key]
                assert isinstance(found, list) == vector
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_conserved_stays_and_what_is_solenoidal_has_no_divergence(tiny_suite: Path, name: str) -> None:
    system = find_system(name)
    for split in SPLITS:
        fields, _ = read(tiny_suite, name, split)
        for trajectory in range(len(next(iter(fields.values())))):
            one = {key: values[trajectory] for key, values in fields.items()}
            assert all(found < 2e-6 for found in drift(system, one).values())
            assert all(divergence(one[key]) < 5e-6 for key in system.solenoidal)
    assert bool(drift(system, one)) == (name not in ("dr1d", "dr2d", "gs2d"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_trajectory_is_another_and_every_frame_too(tiny_suite: Path, name: str) -> None:
    first = {split: read(tiny_suite, name, split)[0] for split in SPLITS}
    key = next(iter(first["train"]))
    starts = np.concatenate([fields[key][:, 0] for fields in first.values()])
    starts = starts.reshape(len(starts), -1).astype(np.float64)
    gaps = np.sqrt(np.mean((starts[:, None] - starts[None]) ** 2, axis=-1)) / starts.std()
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() > 0.1
    steps = np.diff(first["test"][key].astype(np.float64), axis=1)
    assert np.abs(steps).reshape(*steps.shape[:2], -1).max(axis=-1).min() > 1e-4 * starts.std()


def test_another_seed_split_or_trajectory_draws_other_data() -> None:
    system = find_system("mhd3d")
    states = [
        draw(system, "tiny", seed, split, trajectory)[1]
        for seed, split, trajectory in [(0, "train", 0), (1, "train", 0), (0, "valid", 0), (0, "train", 1)]
    ]
    for number, state in enumerate(states):
        assert all(np.abs(state - other).max() > 0.1 for other in states[:number])
    np.testing.assert_array_equal(states[0], draw(system, "tiny", 0, "train", 0)[1])


def test_fourier_series_is_the_same_function_on_every_grid_without_higher_modes() -> None:
    fine, coarse = (fourier_series(np.random.default_rng(3), 2, (size,) * 2, 4, std_one=True) for size in (48, 16))
    np.testing.assert_allclose(fine[:, ::3, ::3], coarse, atol=1e-12)
    np.testing.assert_allclose(fine.mean(axis=(1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(fine.std(axis=(1, 2)), 1)
    spectrum = np.abs(np.fft.fft2(fine)) / fine[0].size
    waves = np.abs(np.fft.fftfreq(48) * 48)
    assert spectrum[:, waves > 4.5].max() < 1e-12
    assert spectrum[:, :, waves > 4.5].max() < 1e-12
    assert spectrum[0, 4, 4] > 1e-3


def test_projection_takes_out_gradients_and_nothing_else() -> None:
    x, y = np.meshgrid(*(2 * np.pi * np.arange(16) / 16,) * 2, indexing="ij")
    gradient = np.stack([np.cos(x) * np.sin(2 * y), 2 * np.sin(x) * np.cos(2 * y)])
    rotation = np.stack([np.sin(3 * y) + 0.5, np.cos(x)])
    np.testing.assert_allclose(solenoidal(gradient + rotation), rotation, atol=1e-12)


def spoiled(name: str) -> dict[str, np.ndarray]:
    """A trajectory that passes: the initial condition of a system, standing still."""
    system = find_system(name)
    state = draw(system, "tiny", 0, "train", 0)[1]
    velocity = np.moveaxis(state[1 : 1 + system.num_dims] / state[0], 0, -1)
    fields = {"density": state[0], "velocity": velocity}
    if name == "mhd3d":
        fields["magnetic_field"] = np.moveaxis(state[4:], 0, -1)
    else:
        fields["pressure"] = 1 + 0.1 * state[0]
    fields = {key: np.stack([values] * 3) for key, values in fields.items()}
    check(system, "train", 0, fields, {})
    return fields


def test_a_value_that_is_not_finite_is_refused() -> None:
    fields = spoiled("cfd1d")
    fields["pressure"][1, 7] = np.nan
    with pytest.raises(
        ValueError,
        match=r"cfd1d: split valid, trajectory 5 \(viscosity 0.004\): pressure is not finite from frame 1 on",
    ):
        check(find_system("cfd1d"), "valid", 5, fields, {"viscosity": 4e-3})


def test_a_drifting_mean_is_refused() -> None:
    fields = spoiled("cfd1d")
    fields["density"][2] *= 1 + 3e-4
    with pytest.raises(
        ValueError, match=r"cfd1d: split test, trajectory 1 .*the mean of mass is conserved, but drifts by"
    ):
        check(find_system("cfd1d"), "test", 1, fields, {"viscosity": 4e-3})


def test_a_magnetic_divergence_is_refused() -> None:
    fields = spoiled("mhd3d")
    fields["magnetic_field"][1, ..., 0] += 1e-3 * np.sin(2 * np.pi * np.arange(16) / 16)[:, None, None]
    with pytest.raises(
        ValueError, match=r"mhd3d: split train, trajectory 0 .*magnetic_field is free of divergence, but"
    ):
        check(find_system("mhd3d"), "train", 0, fields, {"viscosity": 4e-3, "mean_field": 0.3})


def test_write_well_takes_constants_and_refuses_wrong_shapes(tmp_path: Path) -> None:
    path, x, y = tmp_path / "made.hdf5", np.linspace(0, 1, 4), np.linspace(0, 2, 5)
    common = {"name": "made", "time": np.arange(3.0), "coordinates": {"x": x, "y": y}}
    mask = np.add.outer(x, y) > 1
    depth = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    write_well(
        path,
        **common,
        fields0={
            "mask": Variable(mask, sample_varying=False, time_varying=False),
            "depth": Variable(depth, time_varying=False, dim_varying=(True, False)),
        },
        fields1={"velocity": np.arange(2 * 3 * 4 * 5 * 2.0).reshape(2, 3, 4, 5, 2)},
        fields2={"stress": Variable(np.eye(2), False, False, (False, False))},
        scalars={"gravity": 9.81, "viscosity": np.array([0.1, 0.2])},
        boundary={"x": "WALL", "y": "PERIODIC"},
    )
    with h5py.File(path) as file:
        assert file.attrs["n_trajectories"] == 2
        assert {key: group.attrs["bc_type"] for key, group in file["boundary_conditions"].items()} == {
            "x_wall": "WALL",
            "y_periodic": "PERIODIC",
        }
        np.testing.assert_array_equal(file["t0_fields/mask"], mask)
        assert file["t0_fields/depth"].attrs["dim_varying"].tolist() == [True, False]
        assert file["scalars/gravity"].shape == ()
        assert not file["scalars/gravity"].attrs["sample_varying"]
        assert file["t1_fields/velocity"][1, 2, 3, 4, 1] == 239
        assert not file["t2_fields/stress"].attrs["symmetric"]
    with pytest.raises(ValueError, match=r"field 'u': expected axes \(2, 3, 4, 5\), found shape \(2, 3, 5, 4\)"):
        write_well(path, **common, fields0={"u": np.zeros((2, 3, 5, 4))})
    with pytest.raises(ValueError, match=r"scalar 'k': expected axes \(2,\), found shape \(3,\)"):
        write_well(path, **common, fields0={"u": np.zeros((2, 3, 4, 5))}, scalars={"k": np.zeros(3)})
