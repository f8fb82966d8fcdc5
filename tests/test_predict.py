"""`python -m morph.predict`: the file holds the forecast, whole or not at all, and everything that is wrong is said."""

import re
import shutil
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from matplotlib.image import imread

from morph.data.windows import fill_absent
from morph.figures import plot_forecast
from morph.forecast import plan
from morph.forecast_file import write_forecast
from morph.labelled.watch import Watch
from morph.layout import Conditions, DatasetSpec
from morph.model.morph import Morph
from morph.rollout import rollout
from tests.labelled_data import FLOW, LINE, OCEAN, VOLUME, flow, line, model_of, ocean, volume
from tests.made_up import Coast, Waves

STEPS = 3
DATA: dict[str, tuple[Callable[..., xr.Dataset], DatasetSpec]] = {
    "line": (line, LINE),
    "flow": (flow, FLOW),
    "volume": (volume, VOLUME),
    "ocean": (ocean, OCEAN),
}


@pytest.fixture(scope="module")
def model() -> Morph:
    return model_of(*(spec for _, spec in DATA.values()), Waves("test").spec)


@pytest.fixture(scope="module")
def folder(model: Morph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the data sets as files."""
    made = tmp_path_factory.mktemp("predict")
    model.save_pretrained(made / "model")
    for name, (make, _) in DATA.items():
        make().to_netcdf(made / f"{name}.nc", engine="h5netcdf")
    return made


@pytest.fixture
def predict(call: Callable[..., Any], folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """The command in an empty folder."""

    def run(data: str, *options: str, steps: int = STEPS, succeeds: bool = True) -> Any:
        given = folder / data if (folder / data).exists() else data
        options = (f"checkpoint={folder}/model", f"input={given}", f"steps={steps}", *options)
        done = call("morph.predict", *options, cwd=tmp_path)
        assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
        return done

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def without_history(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.assign_attrs(history="")


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("ensemble", [{}, {"members": 3, "seed": 2}], ids=["single", "ensemble"])
def test_the_file_is_the_forecast(
    model: Morph, folder: Path, predict: Any, tmp_path: Path, data: str, ensemble: dict[str, int]
) -> None:
    done = predict(f"{data}.nc", *(f"{key}={value}" for key, value in ensemble.items()), "batch_size=1")
    assert names(tmp_path) == ["forecast.nc", "forecast.png"]
    assert imread(tmp_path / "forecast.png").std() > 0.05
    with xr.open_dataset(folder / f"{data}.nc") as given, xr.open_dataset(tmp_path / "forecast.nc") as written:
        expected = model.forecast(given, STEPS, batch_size=1, **ensemble)
        xr.testing.assert_identical(without_history(written), without_history(expected))
        assert written.attrs["history"].endswith(f"steps={STEPS} " + " ".join(
            [*(f"{key}={value}" for key, value in ensemble.items()), "batch_size=1"]))  # fmt: skip
        for key in ("units", "calendar", "dtype"):
            assert written.time.encoding.get(key) == given.time.encoding.get(key)
    assert f"like {data}" in done.stdout
    assert ("member 0 is the control" in done.stdout) == bool(ensemble)
    assert ("noise of 0.01 standard deviations" in done.stdout) == bool(ensemble)


def test_it_follows_the_conventions(predict: Any, tmp_path: Path) -> None:
    done = predict("flow.nc", "members=2")
    assert "Left out, since they vary with time: area" in done.stdout
    with h5netcdf.File(tmp_path / "forecast.nc") as file:
        assert file.attrs["Conventions"] == "CF-1.8"
        assert "coordinates" not in file.attrs
        for name, variable in file.variables.items():
            for key in ("coordinates", "grid_mapping", "bounds"):
                assert set(variable.attrs.get(key, "").split()) <= set(file.variables), (name, key)
            if name in file.dimensions:
                assert "_FillValue" not in variable.attrs
        assert file["time"].attrs["units"] == "hours since 2000-01-01"
        assert file["time"][:].tolist() == [24 * 366 + 24 + 6 * k for k in (1, 2, 3)]
        assert file["forecast_reference_time"].attrs["standard_name"] == "forecast_reference_time"
        assert {"lead_time", "forecast_reference_time", "true_lat"} <= set(file["U"].attrs["coordinates"].split())
        assert file["U"].attrs["grid_mapping"] == "crs"
        assert file["U"].chunks == (1, 1, 16, 16)
        assert file["p_mean"].attrs["cell_methods"] == "time: mean member: mean"
        assert file.dimensions["time"].isunlimited()


def test_a_calendar_without_leap_days_comes_back_as_it_was(predict: Any, tmp_path: Path) -> None:
    times = ("time", 58.75 + 0.5 * np.arange(6), {"units": "days since 2004-01-01", "calendar": "noleap"})
    line().assign_coords(time=times).to_netcdf(tmp_path / "noleap.nc", engine="h5netcdf")
    predict("noleap.nc")
    with xr.open_dataset(tmp_path / "forecast.nc", decode_times=False) as written:
        assert written.time.values.tolist() == [61.75, 62.25, 62.75]
        assert written.time.attrs == times[2]
        assert written.forecast_reference_time.attrs["calendar"] == "noleap"
        assert written.lead_time.attrs["units"] == "day"


@pytest.mark.parametrize("kind", ["in.zarr", "folder", "in3.nc", "in.h5"])
def test_whatever_holds_it_it_is_the_same(model: Morph, predict: Any, tmp_path: Path, kind: str) -> None:
    data = line().drop_vars("run")
    if kind in ("in.zarr", "folder"):
        data.to_zarr(tmp_path / kind, consolidated=False, zarr_format=3 if kind == "in.zarr" else 2)
    elif kind == "in3.nc":
        data.to_netcdf(tmp_path / kind, engine="scipy")
    else:
        data.to_netcdf(tmp_path / kind, engine="h5netcdf")
    predict(kind, "figure=false", "trajectories=1", "start=2.0", "compression=4")
    expected = model.forecast(data, STEPS, trajectories=1, start=2.0)
    with xr.open_dataset(tmp_path / "forecast.nc") as written:
        xr.testing.assert_identical(without_history(written), without_history(expected))
        assert written.A.encoding["complevel"] == 4
    assert "forecast.png" not in names(tmp_path)


def test_packed_values_are_unpacked_and_a_date_starts_it(model: Morph, predict: Any, tmp_path: Path) -> None:
    packed = {"p": {"dtype": "int16", "scale_factor": 10.0, "add_offset": 1e5, "_FillValue": -32768}}
    flow(9).to_netcdf(tmp_path / "packed.nc", engine="h5netcdf", encoding=packed)
    predict("packed.nc", "start=2001-01-02T00:00", "figure=false")
    with xr.open_dataset(tmp_path / "packed.nc") as given, xr.open_dataset(tmp_path / "forecast.nc") as written:
        expected = model.forecast(given, STEPS, start="2001-01-02T00:00")
        xr.testing.assert_identical(without_history(written), without_history(expected))
        assert "scale_factor" not in written.p.encoding
        assert str(written.time.values[0]).startswith("2001-01-02T06:00")


@pytest.mark.parametrize("kind", [Waves, Coast])
def test_a_data_set_of_a_reader_is_forecast_as_it_is_judged(
    model: Morph, predict: Any, tmp_path: Path, kind: type[Waves]
) -> None:
    """Waves by the name of a training set; Coast is new to the model, and has land."""
    name = kind.__name__.lower()
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"_target_": f"tests.made_up.{kind.__name__}"}))
    done = predict(f"{name}.yaml", "start=5")
    adapter = kind("test")
    context = torch.from_numpy(np.stack([adapter.read(i, 4, 6) for i in range(2)]))
    conditions = Conditions(torch.ones(2, 1, dtype=torch.bool), adapter.spec.boundary, None, True)
    filled = fill_absent(context, 2, conditions)
    states = torch.stack(list(rollout(model, filled.frames, STEPS, conditions._replace(absent=filled.absent))), 1)
    land = np.isnan(adapter.read(0, 0, 1))[0, 1, 0, 0, 0]
    with xr.open_dataset(tmp_path / "forecast.nc") as written:
        assert written.b.dims == ("trajectory", "time", "x")
        assert np.array_equal(written.b.values[..., ~land], states[:, :, 1, 0, 0, 0].numpy()[..., ~land])
        assert np.isnan(written.b.values[..., land]).all()
        assert written.time.values.tolist() == adapter.coordinates["time"][6:9].tolist()
        assert written.x.values.tolist() == adapter.coordinates["x"].tolist()
        assert written.parameter_phase.values.tolist() == [adapter.parameters(i)["phase"] for i in range(2)]
    assert f"{name}.yaml ({'like waves' if kind is Waves else 'zero-shot'})" in done.stdout
    told = predict(f"{name}.yaml", "fields=[a]", "overwrite=true", succeeds=False)
    assert f"fields: {name}.yaml is read as its YAML says" in told.stderr


def test_a_file_without_labels_goes_to_a_reader_whole(model: Morph, predict: Any, tmp_path: Path) -> None:
    """The frames of its trajectories, which a reader would divide into splits, in their order."""
    adapter = Waves("train")
    frames = np.stack([adapter.read(i, 0, 12) for i in range(8)])
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        for number, name in enumerate("ab"):
            file[name] = frames[:, :, number, 0, 0, 0]
        file["t-coordinate"], file["x-coordinate"] = adapter.coordinates["time"], adapter.coordinates["x"]
    done = predict("bare.h5", "figure=false", "boundary=null")
    assert "8 of 8 along trajectory" in done.stdout
    context = torch.from_numpy(frames[:, -2:])
    conditions = Conditions(torch.ones(2, 1, dtype=torch.bool), ("open", "open", "open"), None, True)
    states = torch.stack(list(rollout(model, context, STEPS, conditions)), 1)
    with xr.open_dataset(tmp_path / "forecast.nc") as written:
        for number, name in enumerate("ab"):
            expected = states[:, :, number, 0, 0, 0].numpy()
            np.testing.assert_allclose(written[name].values, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(written.time, [1.2, 1.3, 1.4])


def test_a_forecast_that_is_none_is_said(call: Any, folder: Path, tmp_path: Path) -> None:
    wild = model_of(LINE)
    with torch.no_grad():
        for parameter in wild.decoder.parameters():
            parameter *= 1e30
    wild.save_pretrained(tmp_path / "wild")
    done = call("morph.predict", "checkpoint=wild", f"input={folder}/line.nc", "steps=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning: A is not finite from lead time" in done.stdout
    assert "warning: A is more than 10 standard deviations of the context away from its mean from lead time 0.5 on" in (
        done.stdout
    )


def faults(tmp_path: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    return {
        "other": (("output=forecast.zarr",), "output: expected a file that ends in .nc, found forecast.zarr"),
        "there": (("output=old.nc",), "output: old.nc is there already; choose another file, or replace it with over"),
        "picture": (("output=pictured.nc",), "output: pictured.png is there already"),
        "folder": (("output=folder.nc",), "output: expected a file, found the folder folder.nc"),
        "none": (("input=missing.nc",), "no such file: missing.nc"),
        "unknown": (("input=missing",), "data: there is no data set 'missing'"),
        "no data": (("input=old.nc", "output=new.nc"), "input: xarray cannot open old.nc"),
        "like": (("like=other",), "like: expected a data set that the model was trained on: line, flow, volume, ocean"),
        "split": (("split=test",), "split: .*line.nc is a file, which has no splits"),
        "level": (("compression=10",), "compression: expected 0 to 9, found 10"),
        "base": (("base=model",), "is a whole model, no adapter's folder; leave base out"),
        "number": (("members=two",), "option members: expected an integer, found 'two'"),
    }


@pytest.mark.parametrize("fault", faults(Path()))
def test_what_is_wrong_is_said_and_nothing_is_written(predict: Any, tmp_path: Path, fault: str) -> None:
    (tmp_path / "old.nc").write_text("precious")
    (tmp_path / "pictured.png").write_text("precious")
    (tmp_path / "folder.nc").mkdir()
    options, message = faults(tmp_path)[fault]
    done = predict("line.nc", *options, succeeds=False)
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert names(tmp_path) == ["folder.nc", "old.nc", "pictured.png"]
    assert (tmp_path / "old.nc").read_text() == "precious"


def test_the_input_is_never_replaced(predict: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "line.nc", tmp_path / "mine.nc")
    before = (tmp_path / "mine.nc").read_bytes()
    done = predict("mine.nc", "output=./mine.nc", "overwrite=true", succeeds=False)
    assert "output: mine.nc is the input; choose another file" in done.stderr
    assert (tmp_path / "mine.nc").read_bytes() == before


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError("disk")])
def test_an_interrupted_forecast_leaves_what_was_there(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    (tmp_path / "forecast.nc").write_text("old")
    forward, calls = Morph.forward, []

    def interrupted(self: Morph, *arguments: Any) -> torch.Tensor:
        calls.append(names(tmp_path))
        if len(calls) == 3:
            raise end
        return forward(self, *arguments)

    monkeypatch.setattr(Morph, "forward", interrupted)
    done = predict("line.nc", "overwrite=true", steps=9, succeeds=False)
    assert done.stderr.strip() == ("interrupted" if isinstance(end, KeyboardInterrupt) else "error: disk")
    assert len(calls[-1]) == 2  # there was an unfinished file
    assert names(tmp_path) == ["forecast.nc"]
    assert (tmp_path / "forecast.nc").read_text() == "old"


def test_a_disk_without_room_is_noticed_before_anything_is_computed(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    monkeypatch.setattr(Morph, "forward", partial(pytest.fail, "computed"))
    done = predict("line.nc", steps=3 * 10**6, succeeds=False)
    assert "takes 1.15 GB, the disk has 1.00 GB left; forecast fewer steps" in done.stderr
    assert names(tmp_path) == []


def test_memory_does_not_grow_with_the_length(model: Morph, tmp_path: Path) -> None:
    """NumPy's memory of a rollout of 120 frames, which take 250 kB, is that of one of 20."""
    peaks = []
    for steps in (20, 20, 120):
        made = plan(model, volume(), steps)
        tracemalloc.start()
        write_forecast(made, tmp_path / "long.nc", Watch(made.selection))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 60_000
    with xr.open_dataset(tmp_path / "long.nc") as written:
        assert written.sizes["time"] == 120
        assert written.rho.notnull().all()


def test_help(call: Any, tmp_path: Path) -> None:
    shown = call("morph.predict", "--help", cwd=tmp_path)
    assert "python -m morph.predict checkpoint=runs/mine input=my.nc steps=50" in shown.stdout
    assert "perturbation: null" in shown.stdout


@pytest.mark.parametrize(("reached", "limit"), [(0.5, 1.0), (1.5, 1.5), (100.0, 2.0), (np.nan, 1.0)])
def test_colours_follow_a_forecast_but_not_one_that_runs_away(reached: float, limit: float) -> None:
    known = xr.DataArray(np.linspace(0, 1, 12).reshape(3, 4), dims=("y", "x"), attrs={"units": "K"})
    after = known.expand_dims(time=2).copy()
    after[1, 1, 1] = reached
    after = after.assign_coords(lead_time=("time", [1.0, 2.0], {"units": "hour"}))
    figure = plot_forecast({"T": (known, after)}, ("y", "x"), "time")
    images = [ax.collections[0] for ax in figure.axes[:3]]
    assert {image.get_clim() for image in images} == {(0.0, limit)}
    assert [ax.get_title() for ax in figure.axes[:3]] == ["last known", "+1 hour", "+2 hour"]
    assert figure.axes[3].get_ylabel() == "K"
