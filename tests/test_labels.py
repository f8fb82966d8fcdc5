"""How labelled data is understood, how its labels are carried on, and what is said where that cannot be."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from morph.forecast import forecast
from morph.layout import TrainedOn
from morph.model.morph import Morph
from tests.labelled_data import FLOW, LINE, OCEAN, VOLUME, flow, line, model_of, rolled_out

STEPS = 3


@pytest.fixture(scope="module")
def model() -> Morph:
    return model_of(LINE, FLOW, VOLUME, OCEAN)


# Labels


def test_labels_are_kept_and_time_goes_on(model: Morph) -> None:
    data = flow()
    before = data.copy(deep=True)
    made = model.forecast(data, STEPS)
    assert made.U.attrs == data.U.attrs
    assert made.p.attrs == data.p.attrs
    for name in ("lat", "lon", "true_lat", "height", "crs", "lat_bnds"):
        xr.testing.assert_identical(made[name].variable, data[name].variable)
    assert "area" not in made.variables
    assert "orography" not in made.variables
    hours = (made.time.values - data.time.values[-1]) / np.timedelta64(1, "h")
    assert hours.tolist() == [6, 12, 18]
    assert made.time.attrs == {"standard_name": "time"}  # its bounds are not known
    assert made.time.encoding == data.time.encoding | {"_FillValue": None}
    assert made.lead_time.values.tolist() == [6, 12, 18]
    assert made.lead_time.attrs["standard_name"] == "forecast_period"
    assert made.lead_time.attrs["units"] == "hour"
    assert made.forecast_reference_time.values == data.time.values[-1]
    assert made.attrs["title"] == "a flow"
    assert made.attrs["Conventions"] == "CF-1.8"
    assert re.fullmatch(r"made up\n\S+Z morph\.forecast: 3 steps", made.attrs["history"])
    xr.testing.assert_identical(data, before)
    assert all(data[name].encoding == before[name].encoding for name in data.variables)


def test_forecasts_are_labelled_as_the_truth_that_is_there(model: Morph) -> None:
    data = line(12).assign_coords(time=np.cumsum(np.full(12, 0.5 + 1e-8)))
    made = model.forecast(data, STEPS, start=5)
    error = made - data  # aligned by label
    assert error.sizes["time"] == STEPS
    assert model.forecast(data, 8, start=5).time.values[:6].tolist() == data.time.values[6:].tolist()


def test_other_names_and_clocks(model: Morph) -> None:
    data = line().rename(time="t")
    assert model.forecast(data, 1).A.dims == ("run", "t", "x")
    marked = line().rename(time="when").assign_coords(when=("when", 0.5 * np.arange(6), {"axis": "T"}))
    assert float(model.forecast(marked, 1).when[0]) == 3.0
    whole = flow().assign_coords(
        time=("time", 6 * np.arange(5), {"units": "hours since 2000-01-01", "calendar": "noleap"})
    )
    later = model.forecast(whole, 2)
    assert later.time.values.tolist() == [30, 36]
    assert later.time.dtype == whole.time.dtype
    assert later.time.attrs == whole.time.attrs
    assert later.forecast_reference_time.attrs["calendar"] == "noleap"
    counted = model.forecast(line().drop_vars("time"), 2)
    assert counted.time.values.tolist() == [3.0, 3.5]
    assert "states no times" in counted.time.attrs["comment"]
    seconds = flow()
    seconds.time.encoding = {}
    assert model.forecast(seconds, 1).lead_time.attrs["units"] == "hour"


def test_durations_are_times_too(model: Morph) -> None:
    whole = model.forecast(line(), 2)
    passed = line().assign_coords(time=(line().time * 1e9).astype("m8[ns]"))
    made = model.forecast(passed, 2, check_dt=False)
    assert (made.time.values / np.timedelta64(1, "s")).tolist() == whole.time.values.tolist()
    assert np.array_equal(made.A, whole.A)


def test_dates_of_other_calendars(model: Morph) -> None:
    times = xr.date_range("2001-02-27", periods=5, freq="6h", calendar="noleap", use_cftime=True)
    data = flow().assign_coords(time=times)
    data.time.encoding = {"units": "hours since 2000-01-01", "calendar": "noleap"}
    made = model.forecast(data, 5, start="2001-02-28T00")
    assert [str(one) for one in made.time.values[3:]] == ["2001-03-01 00:00:00", "2001-03-01 06:00:00"]


# How it is understood


def test_a_file_of_other_names_is_understood_by_what_the_user_says(model: Morph) -> None:
    data = flow()
    named = data.rename(U="ua", V="va", p="ps", lat="y", lon="x")
    fields = [{"name": "velocity", "from": ["ua", "va"]}, {"name": "force", "from": "forcing", "channels": [2, 0]},
              {"name": "pressure", "from": "ps"}]  # fmt: skip
    made = model.forecast(named, STEPS, fields=fields, axes=["y", "x"])
    expected = model.forecast(data, STEPS)
    assert np.array_equal(made.ua, expected.U)
    assert np.array_equal(made.forcing, expected.forcing)
    turned = model.forecast(named, STEPS, fields=fields[::-1], axes=["y", "x"])
    xr.testing.assert_equal(made, turned[list(made.data_vars)])
    other = model.forecast(line().rename(A="c", b="d"), 1, fields=["c", "d"], like="line")
    assert np.array_equal(other.c, model.forecast(line(), 1).A)


def test_a_system_that_is_new_to_the_model() -> None:
    """Zero-shot: any variables, with open boundaries unless told, whatever their time step."""
    model = model_of(FLOW)
    data = line().assign_coords(time=[0.0, 3, 6, 9, 12, 15])
    spec = replace(LINE, boundary=("open",) * 3)
    context = np.stack([data.A.values[:, -2:], data.b.values[:, -2:]], 2)[:, :, :, None, None, None]
    made = model.forecast(data, STEPS, fields=["A", "b"])
    assert np.array_equal(made.A, rolled_out(model, spec, context, STEPS)[:, :, 0, 0, 0, 0])
    told = model.forecast(data, STEPS, fields=["A", "b"], boundary={"x": "periodic"})
    assert np.array_equal(told.A, rolled_out(model, LINE, context, STEPS)[:, :, 0, 0, 0, 0])
    model.trained_on = None
    xr.testing.assert_equal(model.forecast(data, STEPS, fields=["A", "b"], context=2), made)
    vectors = model.forecast(flow().rename(kind="component"), 1, fields=["forcing"])
    assert vectors.forcing.sizes["component"] == 3


def test_a_training_set_is_called_what_the_user_calls_it() -> None:
    model = model_of()
    model.trained_on = TrainedOn(2, {"mine": LINE, "theirs": replace(LINE, boundary=("open",) * 3)})
    with pytest.raises(ValueError, match="like=mine or like=theirs"):
        model.forecast(line(), 1)
    xr.testing.assert_equal(model.forecast(line(), 1, like="mine"), model_of(LINE).forecast(line(), 1))
    with pytest.raises(ValueError, match=r"fields: a, b are the fields of more than one .*: like=mine or like=theirs"):
        model.forecast(line(), 1, fields=[{"name": "a", "from": "A"}, "b"])
    with pytest.raises(ValueError, match=r"dataset: expected an xarray\.Dataset, found DataArray"):
        forecast(model, line().A, 1, like="mine")


def test_a_dimension_that_could_be_this_or_that_is_asked_about() -> None:
    model = model_of(FLOW)
    data = flow().rename(kind="level").drop_vars("level")
    with pytest.raises(ValueError, match=r"axes=\[lat, lon\] or axes=\[level, lat, lon\]"):
        model.forecast(data, 1, fields=["forcing"])
    assert model.forecast(data, 1, fields=["forcing"], axes=["lat", "lon"]).forcing.sizes["level"] == 3


def test_two_data_sets_with_the_same_variables_are_asked_about() -> None:
    model = model_of(LINE, replace(LINE, name="other", boundary=("open",) * 3))
    with pytest.raises(ValueError, match=r"fit more than one data set of the training.*like=line or like=other"):
        model.forecast(line(), 1)
    alone = model_of(LINE).forecast(line(), 1)
    xr.testing.assert_equal(model.forecast(line(), 1, like="line"), alone)
    with pytest.raises(
        ValueError, match="expected a data set that the model was trained on: line, other; found 'third'"
    ):
        model.forecast(line(), 1, like="third")


# Errors


def faults() -> dict[str, tuple[Callable[[], xr.Dataset], dict[str, Any], str]]:
    def uneven() -> xr.Dataset:
        return line().assign_coords(time=[0, 0.5, 1, 1.5, 2, 3.1])

    def infinite() -> xr.Dataset:
        data = line()
        data.A[1, -1, 3] = np.inf
        return data

    def back() -> xr.Dataset:
        return line().isel(time=slice(None, None, -1))

    return {
        "no variable": (lambda: line().drop_vars("b"), {}, r"line has A, b \(not there: b\)"),
        "found": (lambda: line().rename(A="T"), {}, r"Found T \(run 2, time 6, x 24\), b .*fields=\[T, b\]"),
        "a step": (lambda: line().isel(time=slice(None, None, 2)), {}, "frames are 1 apart, those of the training 0.5"),
        "uneven": (uneven, {"context": 3}, "evenly spaced frames of context, found steps of 0.5, 1.1 from frame 3 on"),
        "backwards": (back, {}, "expected finite times that increase"),
        "a level": (
            lambda: line().expand_dims(level=2), {},
            r"A \(level 2, run 2, time 6, x 24\): expected time, space and at most one dimension of trajectories",
        ),
        "space": (lambda: line().rename(x="q"), {}, r"A \(run 2, time 6, q 24\): expected the axes of space x"),
        "NaN": (lambda: line().where(line().x != 4), {}, r"A .*: NaN in frame 4 of the context; .* missing=mask"),
        "infinity": (infinite, {}, "infinity in frame 5 of the context"),
        "infinity at sea": (infinite, {"missing": "mask"}, "infinity in frame 5 of the context"),
        "no steps": (line, {"steps": 0}, "steps: expected a positive integer, found 0"),
        "half a step": (line, {"steps": 1.5}, "steps: expected a positive integer, found 1.5"),
        "many fields": (
            lambda: line().assign(c=line().b, d=line().b), {"fields": ["A", "b", "c", "d"]},
            "the input has 4 fields, the model takes at most 3",
        ),
        "many components": (
            lambda: line().assign(c=line().b, d=line().b), {"fields": [{"name": "v", "from": ["A", "b", "c", "d"]}]},
            "the input has 4 components, the model takes at most 3",
        ),
        "no such variable": (line, {"fields": ["A", "q"]}, "fields: there is no variable 'q'; found A"),
        "twice": (line, {"fields": ["A", "A"]}, "fields: A stands for more than one component"),
        "other counts": (
            line, {"fields": [{"name": "a", "from": ["A", "b"]}], "like": "line"},
            r"expected those of line: a \(1\), b \(1\), with so many components; found a \(2\)",
        ),
        "no trajectory": (line, {"trajectories": 2}, "trajectories: expected different numbers of 0 to 1 along run"),
        "a boundary": (line, {"boundary": "closed"}, "boundary: expected periodic, open, wall, found 'closed'"),
        "seed alone": (line, {"seed": 1}, "seed: it has no effect on a single forecast"),
        "noise alone": (line, {"perturbation": 0.1}, "perturbation: it has no effect on a single forecast"),
        "dropout alone": (line, {"dropout": True}, "dropout: it has no effect on a single forecast"),
        "negative noise": (line, {"members": 2, "perturbation": -1.0}, "perturbation: expected a positive number"),
        "a name taken": (
            lambda: line().rename(run="member"), {"members": 2}, "member: the forecast needs this name; call",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("fault", faults())
def test_what_is_wrong_is_said(fault: str) -> None:
    make, options, message = faults()[fault]
    with pytest.raises(ValueError, match=message):
        forecast(model_of(LINE), make(), **{"steps": 1, **options})


def test_another_time_step_is_taken_knowingly(model: Morph) -> None:
    data = line().isel(time=slice(None, None, 2))
    assert model.forecast(data, 2, check_dt=False).time.values.tolist() == [3.0, 4.0]
    daily = flow().assign_coords(time=flow().time.values[0] + np.arange(5) * np.timedelta64(1, "D"))
    with pytest.raises(ValueError, match="24 hour apart, those of the training 6"):
        model.forecast(daily.assign_coords(time=("time", daily.time.values, {}, flow().time.encoding)), 1)
    in_days = flow().assign_coords(time=("time", 0.25 * np.arange(5), {"units": "days since 2000-01-01"}))
    with pytest.raises(
        ValueError, match=r"0\.25 day apart, those of the training 6 \(the same if the training counted h"
    ):
        model.forecast(in_days, 1)
    xr.testing.assert_equal(model.forecast(in_days, 1, check_dt=False).U.drop_vars(
        ["time", "lead_time", "forecast_reference_time"]), model.forecast(flow(), 1).U.drop_vars(
        ["time", "lead_time", "forecast_reference_time"]))  # fmt: skip


def test_a_model_that_does_not_say_what_it_learned_needs_to_be_told() -> None:
    model = model_of()
    with pytest.raises(ValueError, match=r"does not say what it was trained on; name them: fields=\[A, b\]"):
        model.forecast(line(), 1)
