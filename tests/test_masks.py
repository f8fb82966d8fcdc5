"""Data with absent points: what is absent counts nowhere, and what is there counts as if nothing else were."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from morph import rollout
from morph.baselines import NAIVE
from morph.data.module import MixtureDataModule
from morph.data.windows import Windows, fill_absent
from morph.figures import plot_error_growth, plot_rollout, png
from morph.forecaster import forecast_loss
from morph.layout import Batch, Conditions, DatasetSpec, Statistics
from morph.metrics import METRICS, every_metric, is_defined
from morph.model.morph import Morph
from morph.scoring import score
from morph.summary import summarise
from morph.tables import error_table
from morph.truth import Truth, field_std
from tests.made_up import Coast, Waves, put
from tests.test_forecaster import Losses, forecaster, trainer
from tests.test_model import build, frames

MASK = torch.tensor([[True, True], [True, False]])
ANYWHERE = [name for name in METRICS if not name.startswith(("fourier", "boundary"))]


def holes(*shape: int, seed: int = 3, share: float = 0.3) -> Tensor:
    """True where data is, at random."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > share


def windows(context: int = 3, target: int = 2, **options: object) -> Windows:
    return Windows(Coast("train", **options), context, target)


# The contract of the layout


def test_a_spec_says_whether_it_is_masked_and_older_ones_are_not() -> None:
    spec = Coast("train").spec
    assert DatasetSpec.from_dict(spec.to_dict()) == spec
    stored = spec.to_dict()
    del stored["masked"]
    assert DatasetSpec.from_dict(stored).masked is False


def test_land_takes_the_mean_of_what_the_context_holds() -> None:
    batch = windows().batch([0, 9])
    read = [torch.from_numpy(Coast("train").read(i, start, start + 5)) for i, start in batch.windows.tolist()]
    raw = torch.stack(read)
    holds_data = ~raw.isnan()
    assert torch.equal(batch.valid, holds_data[:, 3:])
    assert torch.equal(batch.conditions.absent, ~holds_data[:, :3].any(1))
    mean = raw[:, :3].nanmean((1, 3, 4, 5, 6)).view(2, 1, 2, 1, 1, 1, 1)
    for found, expected, valid in (
        (batch.context, raw[:, :3], holds_data[:, :3]),
        (batch.target, raw[:, 3:], holds_data[:, 3:]),
    ):
        assert torch.allclose(found, torch.where(valid, expected, mean), atol=1e-6)
        assert torch.equal(found[valid], expected[valid])


def test_a_gap_takes_the_nearest_earlier_value_and_no_later_frame_reaches_the_context() -> None:
    nan, mask = float("nan"), torch.tensor([[True]])
    series = torch.tensor([[nan, 2.0, nan, 4.0, nan], [nan, nan, nan, 9.0, nan], [5.0, 6.0, 7.0, nan, 8.0]])
    filled, valid, absent = fill_absent(series.T.reshape(1, 5, 1, 1, 1, 1, 3), 3, Conditions(mask))
    # The second point holds nothing in the context: mean of 2, 5, 6, 7, whatever comes later.
    expected = torch.tensor([[2.0, 2, 2, 4, 4], [5, 5, 5, 9, 9], [5, 6, 7, 7, 8]])
    assert torch.equal(filled.reshape(5, 3).T, expected)
    assert absent.flatten().tolist() == [False, True, False]
    assert torch.equal(valid.reshape(5, 3).T, ~series.isnan())


def test_a_component_without_any_data_takes_the_mean_of_the_training_split_and_fillers_stay_zero() -> None:
    raw = frames(1, 3, 2, 2, 1, 1, 4)
    raw[:, :, 0, 1] = torch.nan
    raw[:, :, 1, 1] = 0
    statistics = Statistics(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.ones(2), torch.ones(2))
    for known, expected in ((statistics, 2.0), (None, 0.0)):
        filled = fill_absent(raw, 2, Conditions(MASK, statistics=known)).frames
        assert filled[:, :, 0, 1].unique().tolist() == [expected]
        assert filled[:, :, 1, 1].unique().tolist() == [0.0]


def test_batches_survive_worker_processes_and_the_transfer_to_a_device() -> None:
    sets = {"coast": {"_target_": "tests.made_up.Coast", "batch_size": 2}}
    sets["waves"] = {"_target_": "tests.made_up.Waves", "batch_size": 2}
    data = MixtureDataModule(sets, steps_per_epoch=4, num_workers=1)
    data.setup("fit")
    for key, batch in zip(data.train_dataloader().plan, data.train_dataloader(), strict=True):
        here = data.train[key[0]].batch(key[1])
        moved = move_data_to_device(batch, torch.device("cpu"))
        for of in (batch, moved):
            assert type(of) is Batch
            assert type(of.conditions) is Conditions
            assert (of.valid is None) == (of.conditions.absent is None) == (batch.dataset == "waves")
            if of.valid is not None:
                assert torch.equal(of.valid, here.valid)
                assert torch.equal(of.conditions.absent, here.conditions.absent)


# Scales and the forecast


@pytest.mark.parametrize("base", ["persistence", "linear"])
def test_scales_are_those_of_the_valid_points_gathered(base: str) -> None:
    model = build(base=base).double()
    x = frames(2, 4, 2, 2, 1, 6, 6).double() * 7 - 30
    x[:, :, 1, 1] = 0
    water = torch.zeros(6, 6, dtype=torch.bool)
    water[1:5, 2:5] = True
    absent = (~water).expand(2, 2, 2, 1, 6, 6)
    found = model.normalisation.scales(x, Conditions(MASK, absent=absent))
    expected = model.normalisation.scales(x[..., 1:5, 2:5], Conditions(MASK))
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_a_component_without_data_shrinks_no_scale_of_its_field() -> None:
    x = frames(1, 3, 1, 2, 1, 1, 16)
    x[:, :, :, 1] = 3.0
    absent = torch.zeros(1, 1, 2, 1, 1, 16, dtype=torch.bool)
    absent[:, :, 1] = True
    normalisation = build().normalisation
    found = normalisation.scales(x, Conditions(torch.tensor([[True, True]]), absent=absent))
    alone = normalisation.scales(x[:, :, :, :1], Conditions(torch.tensor([[True]])))
    assert torch.allclose(found.std, alone.std)
    assert torch.allclose(found.increment, alone.increment)
    assert found.mean[0, 0, 1].item() == 3
    nothing = normalisation.scales(x, Conditions(torch.tensor([[True, True]]), absent=torch.ones_like(absent)))
    assert all(torch.isfinite(scale).all() for scale in nothing)
    assert (nothing.std > 0).all()


@pytest.mark.parametrize("shape", [(1, 1, 37), (1, 9, 14), (5, 6, 7)])
@pytest.mark.parametrize("options", [{}, {"predict": "frame"}, {"base": "linear"}], ids=str)
def test_the_forecast_commutes_with_affine_maps_of_data_with_holes(
    shape: tuple[int, int, int], options: dict[str, str]
) -> None:
    """f(a x + b) = a f(x) + b, a per field and b per component, with land and gaps filled as training fills them."""
    model = build(**options).double()
    x = frames(2, 3, 2, 2, *shape).double()
    land = ~holes(2, 1, 2, 2, *shape)
    x = torch.where(land | ~holes(2, 3, 2, 2, *shape, seed=4, share=0.1), torch.nan, x)
    a = torch.tensor([1e-3, 40.0]).double().view(2, 1, 1, 1, 1)
    b = torch.tensor([[7.0, -2.0], [0.3, 100.0]]).double().view(2, 2, 1, 1, 1)

    def forecast(raw: Tensor) -> Tensor:
        conditions = Conditions(torch.ones(2, 2, dtype=torch.bool))
        filled, _, absent = fill_absent(raw, 3, conditions)
        return model(filled, conditions._replace(absent=absent))

    expected = a * forecast(x) + b
    assert torch.allclose(forecast(a * x + b), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["model", "persistence", "extrapolation"])
def test_land_keeps_its_value_through_a_rollout_and_the_rest_moves(name: str) -> None:
    model = build(patch_size=8)
    forecast = {"model": model, **NAIVE}[name]
    context, _, conditions, *_ = windows(gaps=True).batch([0, 5, 9])
    land = conditions.absent
    for state in rollout(forecast, context, 4, conditions):
        assert torch.equal(state[land], context[:, -1][land])
    # A gap that is held has no trend to extrapolate.
    assert name == "persistence" or (state != context[:, -1])[~land].float().mean() > 0.95


# Metrics and the loss


@pytest.mark.parametrize("name", ANYWHERE)
def test_metrics_are_those_of_the_valid_points_gathered_into_a_dense_field(name: str) -> None:
    valid = holes(2, 2, 2, 1, 5, 7)
    prediction, target = frames(2, 2, 2, 1, 5, 7).double(), 4 + frames(2, 2, 2, 1, 5, 7, seed=2).double()
    found = METRICS[name](prediction, target, MASK, valid)
    for b in range(2):
        for f, components in enumerate(((0, 1), (0,))):
            dense = []
            for c in components:
                points = [t[b, f, c][valid[b, f, c]].view(1, 1, 1, 1, 1, -1) for t in (prediction, target)]
                dense.append(METRICS[name](*points))
            assert torch.allclose(found[b, f], torch.stack(dense).mean(), rtol=1e-12)
    everywhere = METRICS[name](prediction, target, MASK, torch.ones_like(valid))
    assert torch.allclose(everywhere, METRICS[name](prediction, target, MASK), rtol=1e-12)


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_holds_no_data_is_left_out_and_a_forecast_that_is_not_finite_is_not(name: str) -> None:
    metric = METRICS[name]
    prediction, target = frames(2, 2, 2, 1, 1, 9), frames(2, 2, 2, 1, 1, 9, seed=2)
    valid = holes(2, 2, 2, 1, 1, 9)
    valid[0, 0, 1] = False  # one component of a field
    valid[1, 1] = False  # a whole field
    found = metric(prediction, target, None, valid)
    assert torch.allclose(found[0, 0], metric(prediction[:1, :1, :1], target[:1, :1, :1], None, valid[:1, :1, :1]))
    assert found.isnan().tolist() == [[False, False], [False, True]]
    prediction[0, 1, 0] = torch.nan
    assert metric(prediction, target, None, valid)[0, 1].isnan()
    assert is_defined(metric, None, valid).tolist() == [[True, True], [True, False]]


def test_the_loss_counts_each_component_once_over_its_valid_points() -> None:
    """Worked by hand: a vector of two components and a scalar whose second component is filler."""
    target = torch.zeros(1, 1, 2, 2, 1, 1, 4)
    prediction = torch.zeros_like(target)
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[:, :, 0, 0, ..., 1:] = False
    valid[:, :, 1] = False
    prediction[:, :, 0, 0] = torch.tensor([2.0, 50, 60, 70])  # one valid point, error 2 in units of 2: counts 1
    prediction[:, :, 0, 1] = torch.tensor([4.0, 0, 0, 0])  # mean square 4 in units of 2: counts 1
    prediction[:, :, 1] = 1e6  # no valid point
    windows_ = torch.zeros(1, 2, dtype=torch.int64)
    batch = Batch(target, target, Conditions(MASK), "made up", windows_, valid)
    assert forecast_loss(prediction, batch, torch.tensor([[2.0, 1.0]])).item() == pytest.approx((1 + 1) / 2)
    prediction.requires_grad_()
    nothing = forecast_loss(prediction, batch._replace(valid=torch.zeros_like(valid)), torch.tensor([[2.0, 1.0]]))
    nothing.backward()
    assert nothing.item() == 0
    assert not prediction.grad.any()


def loss_and_gradients(model: Morph, batch: Batch) -> list[Tensor]:
    model = model.requires_grad_()
    states = list(_unrolled(model, batch))
    loss = forecast_loss(torch.stack(states, 1), batch, model.unit_of_error(batch.context, batch.conditions))
    return [loss, *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)]


def _unrolled(model: Morph, batch: Batch) -> list[Tensor]:
    states, context = [], batch.context
    for _ in range(batch.target.shape[1]):
        states.append(model(context, batch.conditions))
        context = torch.cat((context[:, 1:], states[-1][:, None]), 1)
    return states


def same(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
    return all(x is y is None or torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_values_at_absent_target_points_change_nothing() -> None:
    batch = windows(gaps=True).batch([0, 5, 9])
    changed = batch._replace(target=torch.where(batch.valid, batch.target, batch.target * 1e3 + 77))
    assert not torch.equal(batch.target, changed.target)
    assert same(loss_and_gradients(build(), batch), loss_and_gradients(build(), changed))
    state = frames(*batch.target[:, 0].shape)
    mask = batch.conditions.component_mask
    errors = [every_metric(state, of.target[:, 0], mask, of.valid[:, 0]) for of in (batch, changed)]
    assert torch.allclose(*errors, rtol=0, atol=0, equal_nan=True)


def test_a_masked_data_set_without_holes_has_the_loss_of_one_that_is_not_masked() -> None:
    """Bit for bit, with its gradients."""
    masked = windows(land=0).batch([0, 5, 9])
    plain = Windows(Waves("train"), 3, 2).batch([0, 5, 9])
    assert masked.valid.all()
    assert masked.conditions.absent is None
    assert plain.valid is None
    assert same(loss_and_gradients(build(), masked), loss_and_gradients(build(), plain))


# Training and judging


def coast(**options: object) -> MixtureDataModule:
    config = {"_target_": "tests.made_up.Coast", "batch_size": 4, **options}
    sets = {"coast": config, "waves": {"_target_": "tests.made_up.Waves", "batch_size": 4}}
    return MixtureDataModule(sets, steps_per_epoch=6, seed=1)


def test_training_and_judging_beside_land(tmp_path: Path) -> None:
    losses, module = Losses(), forecaster()
    run = trainer(tmp_path, losses, epochs=15)
    run.fit(module, coast(gaps=True))
    assert np.isfinite(losses.values).all()
    assert sum(losses.values[-10:]) < 0.6 * sum(losses.values[:10])
    logged = {key: value.item() for key, value in run.callback_metrics.items()}
    assert all(np.isfinite(value) for value in logged.values())
    counted = {key: value for key, value in logged.items() if "windows" in key}
    assert counted == {"val/windows/coast": 24}  # 3 trajectories of 8 windows
    adapter = Coast("test", gaps=True)
    scores = score({"model": module.model.eval(), **NAIVE}, adapter, context=4, batch_size=2)
    assert all(np.isfinite(scores.metrics[ahead].sel(metric=ANYWHERE)).all() for ahead in ("rollout", "one_step"))
    assert scores.metrics.unstable_from.isnull().all()
    summary = summarise(scores.metrics)
    assert summary["one_step_ratio"] < 1 > summary["one_step_without_data"] + summary["rollout_without_data"]
    values = scores.rollouts.b.transpose("source", "trajectory", "time", "x").values
    land = [*range(6), 15, 16]
    assert np.isnan(values[..., land]).all()
    assert np.isfinite(np.delete(values, [*land, 20], -1)).all()
    # A gap is no land: the truth misses what the model forecasts.
    assert np.array_equal(np.isnan(values[0, 0, :, 20]), np.arange(4, 12) % 3 == 0)
    assert np.isfinite(values[1, ..., 20]).all()
    figure = plot_rollout(scores.rollouts)
    png(figure)
    shown = figure.axes[0].collections[0].get_array()
    assert np.ma.getmaskarray(shown)[..., :6].all()


def test_persistence_beside_land_is_persistence_of_the_sea() -> None:
    """Two ways to the same numbers: holes in the whole field, and the sea cut out of it."""

    class Sea(Waves):
        def __init__(self, split: str) -> None:
            super().__init__(split)
            self.spec = replace(self.spec, spatial_shape=(1, 1, 26))
            self.coordinates = {**self.coordinates, "x": self.coordinates["x"][6:]}
            self.whole = Waves(split)

        def read(self, trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
            return put(self.whole.read(trajectory, start, stop)[..., 6:], out)

    class Shore(Coast):
        def read(self, trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
            values = Waves.read(self, trajectory, start, stop)
            values[..., :6] = np.nan
            return put(values, out)

    forecasts = {"model": lambda context, _: context[:, -1] * 1.1, **NAIVE}
    found, expected = (
        score(forecasts, adapter, context=4, batch_size=2, keep=0).metrics for adapter in (Shore("test"), Sea("test"))
    )
    for ahead in ("one_step", "rollout"):
        assert np.allclose(found[ahead].sel(metric=ANYWHERE), expected[ahead].sel(metric=ANYWHERE), rtol=1e-4)
    assert np.allclose(found.spatial_mean, expected.spatial_mean)
    raw = torch.from_numpy(Shore("test").read(0, 0, 12))[None]
    filled, valid, absent = fill_absent(raw, 4, Conditions(torch.ones(2, 1, dtype=torch.bool)))
    known = Conditions(torch.ones(2, 1, dtype=torch.bool), absent=absent)
    whole, sea = Truth(filled, valid, known, 4), Truth(filled[..., 6:], None, known, 4)
    assert torch.allclose(field_std(whole), field_std(sea))


def test_frames_without_any_data_are_left_out_and_counted(tmp_path: Path) -> None:
    forecasts = {"model": NAIVE["persistence"], **NAIVE}
    whole = score(forecasts, Coast("test"), context=4, batch_size=2).metrics
    found = score(forecasts, Coast("test", spoil=(1, 7)), context=4, batch_size=2).metrics
    missing, rollouts = found.rollout.sel(metric=ANYWHERE).isnull(), found.rollout.sel(metric=ANYWHERE)
    assert missing.sel(trajectory=1).isel(lead_time=3).all()
    assert int(missing.sum()) == 3 * 2 * len(ANYWHERE)  # forecasts, fields, metrics of one frame
    assert np.array_equal(rollouts.where(~missing, 0), whole.rollout.sel(metric=ANYWHERE).where(~missing, 0))
    assert found.unstable_from.isnull().all()
    summary = summarise(found)
    assert summary["rollout_without_data"] == 2
    assert summary["one_step_without_data"] == 2
    vrmse = whole.rollout.sel(forecast="model", metric="vrmse")
    left = vrmse.where(~missing.sel(forecast="model", metric="vrmse"))
    assert summary["rollout_vrmse"] == pytest.approx(float(left.mean()))
    table = error_table({"coast": {**summary, "zero_shot": False}}, "rollout")
    assert "coast: 2 fields of frames hold no data and count nowhere" in str(table.caption)
    line = plot_error_growth(found).axes[0].lines[0].get_ydata()
    assert np.isfinite(line).all()
    assert line[3] == pytest.approx(float(vrmse.sel(trajectory=0).isel(lead_time=3).mean()))
    run = trainer(tmp_path, epochs=1)
    run.fit(forecaster(), coast(spoil=(1, 7)))
    assert run.callback_metrics["val/windows/coast"].item() == 23


def test_a_forecast_that_is_not_finite_is_infinitely_wrong_beside_land() -> None:
    lost = {"model": lambda context, conditions: context[:, -1].where(conditions.absent, torch.nan), **NAIVE}
    metrics = score(lost, Coast("test"), context=4, batch_size=2).metrics
    rollouts = metrics.rollout.sel(forecast="model", metric=ANYWHERE)
    assert (rollouts == np.where(rollouts.metric == "pearson", 0, np.inf)).all()
    assert summarise(metrics)["unstable"] == 2


@pytest.mark.parametrize(
    ("adapter", "found"),
    [
        (lambda: Waves("test", spoil=(1, 6)), "NaN or infinity"),
        (lambda: _with_infinity(Coast("test")), "infinity"),
    ],
)
def test_nan_is_an_error_where_it_was_not_announced_and_infinity_everywhere(
    adapter: Callable[[], Waves], found: str
) -> None:
    message = f"'(waves|coast)': {found} in trajectory 1, frame 6; forecasts cannot be compared"
    with pytest.raises(ValueError, match=message):
        score({"model": NAIVE["persistence"], **NAIVE}, adapter(), context=4, batch_size=2)


def _with_infinity(adapter: Waves) -> Waves:
    read = adapter.read

    def spoiled(trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        values = read(trajectory, start, stop)
        if trajectory == 1 and start <= 6 < stop:
            values[6 - start, 0, 0, 0, 0, 9] = np.inf
        return put(values, out)

    adapter.read = spoiled
    return adapter
