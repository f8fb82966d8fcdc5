"""A forecast of labelled data is the rollout of its numbers, with its labels carried on."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from morph import rollout
from morph.data.windows import fill_absent
from morph.forecast import forecast, plan
from morph.labelled.watch import Watch
from morph.layout import Conditions, DatasetSpec, Field, Statistics, TrainedOn
from morph.model.morph import Morph
from tests.labelled_data import FLOW, LINE, OCEAN, VOLUME, flow, line, model_of, ocean, rolled_out, volume

STEPS = 3


@pytest.fixture(scope="module")
def model() -> Morph:
    return model_of(LINE, FLOW, VOLUME, OCEAN)


# Numbers


def test_one_dimension_with_trajectories(model: Morph) -> None:
    data = line()
    context = np.stack([data.A.values[:, -2:], data.b.values[:, -2:]], 2)[:, :, :, None, None, None]
    states = rolled_out(model, LINE, context, STEPS)
    made = model.forecast(data, STEPS)
    assert np.array_equal(made.A, states[:, :, 0, 0, 0, 0])
    assert np.array_equal(made.b, states[:, :, 1, 0, 0, 0])
    assert made.A.dtype == np.float32


def test_two_dimensions_with_vectors_of_variables_and_of_channels(model: Morph) -> None:
    data = flow()
    context = np.zeros((1, 2, 3, 2, 1, 16, 16))
    last = slice(-2, None)
    context[0, :, 0, 0, 0], context[0, :, 0, 1, 0] = data.U[last], data.V[last]
    context[0, :, 1, 0, 0], context[0, :, 1, 1, 0] = data.forcing[last, 2], data.forcing[last, 0]
    context[0, :, 2, 0, 0] = data.p[last]
    states = rolled_out(model, FLOW, context, STEPS)[0]
    made = model.forecast(data, STEPS)
    assert np.array_equal(made.U, states[:, 0, 0, 0])
    assert np.array_equal(made.V, states[:, 0, 1, 0])
    assert np.array_equal(made.p, states[:, 2, 0, 0])
    # Only entries that the model knows come back, in the order of the input.
    assert made.forcing.kind.values.tolist() == ["sun", "wind"]
    assert np.array_equal(made.forcing.sel(kind="wind"), states[:, 1, 0, 0])
    assert np.array_equal(made.forcing.sel(kind="sun"), states[:, 1, 1, 0])


def test_three_dimensions(model: Morph) -> None:
    data = volume()
    states = rolled_out(model, VOLUME, data.rho.values[None, -2:, None, None], STEPS)
    assert np.array_equal(model.forecast(data, STEPS).rho, states[0, :, 0, 0])


def test_the_order_of_dimensions_is_the_inputs_and_does_not_matter(model: Morph) -> None:
    data = flow()
    turned = data.transpose("lon", "kind", "time", "lat", ...)
    made, of_turned = model.forecast(data, STEPS), model.forecast(turned, STEPS)
    assert of_turned.forcing.dims == ("lon", "kind", "time", "lat")
    xr.testing.assert_equal(of_turned.transpose(*made.dims), made.transpose(*made.dims))


def test_trajectories_are_forecast_as_if_alone(model: Morph) -> None:
    data = line()
    whole = model.forecast(data, STEPS, batch_size=1)
    one = model.forecast(data, STEPS, trajectories=1)
    assert one.run.values.tolist() == ["second"]
    assert float(one.viscosity[0]) == 0.2
    xr.testing.assert_equal(one, whole.isel(run=[1]))
    alone = model.forecast(data.isel(run=1), STEPS)
    assert np.array_equal(alone.A, one.A[0])
    turned = model.forecast(data.drop_vars("run"), STEPS, trajectories=[1, 0], batch_size=1)
    assert turned.run.values.tolist() == [1, 0]
    assert np.array_equal(turned.A, whole.A[::-1])


def test_land_stays_without_a_value_and_a_gap_does_not(model: Morph) -> None:
    data = ocean()
    frames = torch.from_numpy(data.sst.values[None, -2:, None, None, None].astype(np.float32))
    known = Conditions(torch.ones(1, 1, dtype=torch.bool), OCEAN.boundary, all_physical=True)
    filled = fill_absent(frames, 2, known)
    states = list(rollout(model, filled.frames, STEPS, known._replace(absent=filled.absent)))
    made = model.forecast(data, STEPS).sst.values
    land = np.isnan(data.sst.values[-2:]).all(0)
    assert land.sum() == 8 * 5
    assert (np.isnan(made) == land).all()
    assert np.array_equal(made[:, ~land], torch.stack(states, 1).numpy()[0, :, 0, 0, 0][:, ~land])
    assert np.isnan(model.forecast(data, STEPS, members=3).sst_mean.values[:, land]).all()


def test_a_field_that_does_not_vary_is_taken_at_all_times(model: Morph) -> None:
    data = line()
    data["b"] = data.b.isel(time=0, run=0, drop=True)
    spread = data.assign(b=data.b.broadcast_like(data.A))
    made = model.forecast(data, STEPS)
    assert made.b.dims == ("run", "time", "x")
    xr.testing.assert_equal(made, model.forecast(spread, STEPS))


# Where it starts


def test_frames_after_the_start_do_not_matter(model: Morph) -> None:
    data = flow(9)
    spoiled = data.copy(deep=True)
    for name in ("U", "V", "p", "forcing"):
        spoiled[name][5:] = np.nan
    first = model.forecast(data.isel(time=slice(5)), STEPS)
    for start in (4, -5, "2001-01-02T00", np.datetime64("2001-01-02")):
        xr.testing.assert_equal(model.forecast(spoiled, STEPS, start=start), first)
    assert first.forecast_reference_time.values == data.time.values[4]


def test_a_number_of_time_is_not_a_number_of_a_frame(model: Morph) -> None:
    data = line()
    by_time, by_frame = model.forecast(data, 1, start=2.0), model.forecast(data, 1, start=4)
    xr.testing.assert_equal(by_time, by_frame)
    assert float(by_time.time[0]) == 2.5
    with pytest.raises(ValueError, match=r"start: there is no frame at 2\.2; the nearest is 4, at 2\.0"):
        model.forecast(data, 1, start=2.2)
    with pytest.raises(ValueError, match="start: expected a frame from 0 to 5, found 6"):
        model.forecast(data, 1, start=6)
    with pytest.raises(ValueError, match="start: '2001-01-01' means 4 frames"):
        model.forecast(flow(), 1, start="2001-01-01")
    with pytest.raises(ValueError, match="start: there is no frame at '2001-01-02T01'"):
        model.forecast(flow(), 1, start="2001-01-02T01")


def test_the_context_is_that_of_the_training_unless_told(model: Morph) -> None:
    data = line()
    context = np.stack([data.A.values[:, -4:], data.b.values[:, -4:]], 2)[:, :, :, None, None, None]
    assert np.array_equal(
        model.forecast(data, 1, context=4).A[:, 0], rolled_out(model, LINE, context, 1)[:, 0, 0, 0, 0, 0]
    )
    with pytest.raises(ValueError, match="context: expected 1 to 4, the frames that the model takes, found 5"):
        model.forecast(data, 1, context=5)
    with pytest.raises(
        ValueError, match="expected 2 frames, as in training, found 1 up to frame 0; give fewer with con"
    ):
        model.forecast(data, 1, start=0)


# Ensembles


def test_members_spread_around_a_control_that_is_the_forecast(model: Morph) -> None:
    data = line()
    single = model.forecast(data, STEPS)
    many = model.forecast(data, STEPS, members=5, perturbation=0.1, seed=3)
    assert many.A.dims == ("run", "member", "time", "x")
    assert many.member.attrs["standard_name"] == "realization"
    assert np.array_equal(many.A.sel(member=0), single.A)
    assert np.array_equal(many.b.sel(member=0), single.b)
    for name in ("A", "b"):
        np.testing.assert_allclose(many[f"{name}_mean"], many[name].values.mean(1, np.float64), rtol=1e-6)
        np.testing.assert_allclose(many[f"{name}_spread"], many[name].values.std(1, np.float64, ddof=1), rtol=1e-6)
        assert (many[f"{name}_spread"] > 0).all()
    assert many.A_spread.attrs["cell_methods"] == "member: standard_deviation"
    assert many.A_spread.attrs["units"] == "K"
    assert many.A_mean.attrs["long_name"] == "temperature, ensemble mean"
    assert model.forecast(flow(), 1, members=2).p_mean.attrs["cell_methods"] == "time: mean member: mean"
    again = model.forecast(data, STEPS, members=5, perturbation=0.1, seed=3)
    xr.testing.assert_equal(again, many)
    other = model.forecast(data, STEPS, members=5, perturbation=0.1, seed=4)
    assert not (other.A.sel(member=1) == many.A.sel(member=1)).any()
    # A trajectory has its own noise, whichever others are there; and the size is what it is called.
    alone = model.forecast(data, STEPS, members=5, perturbation=0.1, seed=3, trajectories=1)
    np.testing.assert_allclose(alone.A[0], many.A[1], rtol=1e-4, atol=1e-5)
    small = model.forecast(data, 1, members=5, perturbation=0.001, seed=3)
    ratio = (many.A_spread.isel(time=0) / small.A_spread.isel(time=0)).mean()
    assert float(ratio) == pytest.approx(100, rel=0.1)
    xr.testing.assert_equal(model.forecast(data, 1, members=2), model.forecast(data, 1, members=2, perturbation=0.01))


def test_dropout_makes_members_and_leaves_the_model_as_it_was(model: Morph) -> None:
    data = line()
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    many = model.forecast(data, STEPS, members=3, dropout=True, seed=1)
    assert torch.equal(torch.rand(1), drawn)
    assert not any(module.training for module in model.modules())
    assert np.array_equal(many.A.sel(member=0), model.forecast(data, STEPS).A)
    assert (many.A_spread.isel(time=0) > 0).all()
    xr.testing.assert_equal(model.forecast(data, STEPS, members=3, dropout=True, seed=1), many)
    assert not (
        model.forecast(data, STEPS, members=3, dropout=True, seed=2).A.sel(member=1) == many.A.sel(member=1)
    ).all()


def test_a_model_in_training_forecasts_as_one_that_is_not(model: Morph) -> None:
    expected = model.forecast(line(), STEPS)
    model.train()
    try:
        xr.testing.assert_equal(model.forecast(line(), STEPS), expected)
        assert model.training
    finally:
        model.eval()


# What it costs, and what becomes of it


def test_no_more_than_one_frame_of_the_forecast_is_kept(model: Morph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that nobody holds are gone before the second next one is made."""
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    forward = Morph.forward

    def counted(self: Morph, *arguments: Any) -> torch.Tensor:
        nonlocal most
        state = forward(self, *arguments)
        alive.append(weakref.ref(state))
        most = max(most, sum(reference() is not None for reference in alive))
        return state

    monkeypatch.setattr(Morph, "forward", counted)
    for frame in plan(model, volume(), 12).frames():
        assert frame.values["rho"].shape == (8, 8, 8)
    assert len(alive) == 12
    assert most <= 3


def test_only_the_context_is_read(model: Morph, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    load = xr.Variable.load

    def counted(self: xr.Variable, **options: Any) -> xr.Variable:
        read.append(self.sizes.get("time", 0))
        return load(self, **options)

    monkeypatch.setattr(xr.Variable, "load", counted)
    model.forecast(flow(40), 1, start=30)
    assert set(read) == {2}
    assert len(read) == 4  # a variable of several components once


def test_what_is_no_forecast_any_more_is_said() -> None:
    model = model_of(LINE)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter *= 1e4
    with pytest.warns(
        UserWarning, match="A is more than 10 standard deviations of the context away from its mean from"
    ):
        model.forecast(line(), 2)
    watch = Watch(plan(model, line(), 1).selection)
    context = np.ones((1, 2, 2, 1, 1, 1, 24), np.float32)
    context[..., ::2] = -1
    watch.start(context)
    state = np.full((1, 1, 2, 1, 1, 1, 24), 9.0, np.float32)
    watch.see(0, state)
    assert watch.warnings([0.5, 1], " s") == []
    state[0, 0, 0] = 11
    state[0, 0, 1, ..., 3] = np.inf
    watch.see(1, state)
    assert watch.warnings([0.5, 1], " s") == [
        "A is more than 10 standard deviations of the context away from its mean from lead time 1 s on",
        "b is not finite from lead time 1 s on",
        "b is more than 10 standard deviations of the context away from its mean from lead time 1 s on",
    ]
    assert watch.last == {"A": (11, 11), "b": (9, np.inf)}
    assert watch.first == {"A": (-1, 1), "b": (-1, 1)}


def test_it_is_a_function_too(model: Morph) -> None:
    xr.testing.assert_equal(forecast(model, line(), 1, device="cpu"), model.forecast(line(), 1))


def test_scales_of_the_training_split_count_where_the_data_is_like_it() -> None:
    model = model_of(LINE, normalisation="dataset")
    scales = {"mean": torch.zeros(2, 1), "std": torch.full((2,), 2.0), "rms_increment": torch.ones(2)}
    model.trained_on = TrainedOn(2, {"line": LINE}, {"line": Statistics(**scales)})
    slow = model.forecast(line(), 1)
    scales["rms_increment"] = torch.full((2,), 2.0)
    model.trained_on = TrainedOn(2, {"line": LINE}, {"line": Statistics(**scales)})
    fast = model.forecast(line(), 1)
    last = line().A.isel(time=-1)
    np.testing.assert_allclose(fast.A[:, 0] - last, 2 * (slow.A[:, 0] - last), rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="needs the statistics of the training split"):
        model.forecast(line(), 1, fields=[{"name": "c", "from": "A"}])


def test_a_specification_of_older_checkpoints_names_components() -> None:
    fields = (Field("velocity", ("U", "V")),)
    spec = DatasetSpec("older", fields, (1, 16, 16), 9, 6.0, ("open",) * 3, ("lat", "lon"))
    made = model_of(spec).forecast(flow(), 1)
    assert set(made.data_vars) == {"U", "V", "crs", "lat_bnds"}


def test_another_unit_is_not_that_of_the_training(model: Morph) -> None:
    data = flow()
    other = data.assign(V=(3.6 * data.V).assign_attrs(units="km h-1"))
    with pytest.raises(ValueError, match="V: expected the unit of the training, m s-1, found km h-1; convert the val"):
        model.forecast(other, 1)
    nameless = data.assign(V=data.V.drop_attrs())
    assert np.array_equal(model.forecast(nameless, 1).V, model.forecast(data, 1).V)
