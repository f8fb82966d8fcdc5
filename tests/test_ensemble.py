"""Ensembles: scores are what their definitions say, and members are made as is said."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from morph.baselines import NAIVE
from morph.ensemble import Ensemble, dropout_on, ensemble_scores, perturbed
from morph.figures import plot_ensemble, png
from morph.layout import Conditions, Context, State
from morph.metrics import crps, mae, rmse, spread
from morph.model.morph import Capacity, Morph
from morph.rollout import Forecast
from morph.scoring import score, work
from morph.summary import summarise
from morph.tables import ensemble_table
from morph.truth import true_trajectories
from tests.made_up import Coast, Counted, Waves, put


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drifting(context: Context, conditions: Conditions | None = None) -> State:
    """Linear in its context, so what becomes of noise is known: every disturbance is doubled at each step."""
    return context[:, -1] + context[:, -1]


def small(max_context: int = 4, dropout: float = 0.3) -> Morph:
    torch.manual_seed(0)
    model = Morph(dim=32, depth=1, heads=4, dropout=dropout, capacity=Capacity(3, 3, max_context, 16))
    for parameter in model.decoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def ensemble_of(model: object, adapter: object, ensemble: Ensemble, **options: object) -> object:
    options = {"context": 4, "batch_size": 4, "one_step_windows": 1, "steps": 3, **options}
    return score({"model": model, **NAIVE}, adapter, ensemble=ensemble, **options).metrics


@pytest.mark.parametrize("members", [2, 3, 8])
def test_crps_is_its_definition(members: int) -> None:
    """By sorting, and by all pairs."""
    x, y = normal(members, 2, 2, 2, 1, 3, 4), normal(2, 2, 2, 1, 3, 4, seed=1)
    pairs = (x[:, None] - x[None]).abs().sum((0, 1))
    points = (x - y).abs().mean(0) - pairs / (2 * members * (members - 1))
    assert torch.allclose(crps(x, y), points.mean((-4, -3, -2, -1)), rtol=1e-12)
    assert torch.allclose(crps(x.flip(0) + 1e4, y + 1e4), crps(x, y), rtol=1e-9)
    assert torch.allclose(crps(-3 * x, -3 * y), 3 * crps(x, y), rtol=1e-12)


def test_crps_of_a_normal_distribution() -> None:
    """For N(m, s^2): s (z (2 F(z) - 1) + 2 f(z) - 1 / sqrt(pi)) with z = (y - m) / s, F and f of N(0, 1)."""
    m, s = 1.5, 2.0
    y = torch.tensor([-4.0, 0.0, 1.5, 6.0]).double().view(4, 1, 1, 1, 1, 1).expand(-1, -1, -1, -1, -1, 500)
    x = m + s * normal(400, 4, 1, 1, 1, 1, 500)
    z = (y[:, 0, 0, 0, 0, 0] - m) / s
    unit = torch.distributions.Normal(0.0, 1.0)
    density = unit.log_prob(z).exp()
    expected = s * (z * (2 * unit.cdf(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    # Errors of the means of 500 x 400 draws are about s / sqrt(2e5) = 0.004.
    assert torch.allclose(crps(x, y)[:, 0], expected, atol=0.02)


def test_the_expected_crps_does_not_depend_on_how_many_members_there_are() -> None:
    """With members and truth alike N(0, 1), it is 1 / sqrt(pi), of two members as of 64."""
    y = normal(1, 1, 1, 1, 1, 40_000, seed=5)
    found = [crps(normal(m, 1, 1, 1, 1, 1, 40_000, seed=m), y).item() for m in (2, 3, 10, 64)]
    # One point's score with two members has a standard deviation of about 1.
    assert found == pytest.approx([1 / math.sqrt(math.pi)] * 4, abs=0.02)


def test_members_that_are_alike_score_as_one_forecast() -> None:
    x, y = normal(2, 2, 2, 1, 3, 4), normal(2, 2, 2, 1, 3, 4, seed=1)
    alike = x.expand(5, *x.shape)
    assert torch.allclose(crps(alike, y), mae(x, y), rtol=1e-12)
    assert torch.equal(spread(alike), torch.zeros(2, 2).double())


def test_spread_of_a_known_ensemble() -> None:
    """Members -1, 0, 1 times an amplitude of 1 at one point and 3 at the other: variances 1 and 9, times 4 / 3."""
    amplitude = torch.tensor([1.0, 3.0]).view(1, 1, 1, 1, 1, 2)
    members = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1, 1, 1, 1) * amplitude + 7
    assert spread(members).item() == pytest.approx(math.sqrt((1 + 9) / 2 * 4 / 3))


@pytest.mark.parametrize("members", [2, 5, 20])
def test_spread_is_skill_where_the_truth_is_as_one_more_member(members: int) -> None:
    drawn = normal(members + 1, 1, 1, 1, 1, 1, 40_000, seed=members) * 3 + 2
    skill = rmse(drawn[1:].mean(0), drawn[0])
    assert spread(drawn[1:]).item() == pytest.approx(skill.item(), rel=0.02)


def test_one_member_is_no_ensemble() -> None:
    x = normal(1, 1, 1, 1, 1, 1, 4)
    for metric in (lambda: crps(x, x[0]), lambda: spread(x)):
        with pytest.raises(ValueError, match="at least 2, found 1"):
            metric()


def test_fillers_and_points_without_data_count_nowhere() -> None:
    """They hold NaN and infinity, and the scores are those of what is left when they are cut out."""
    x, y = normal(4, 1, 2, 2, 1, 1, 8), normal(1, 2, 2, 1, 1, 8, seed=1)
    mask = torch.tensor([[True, True], [True, False]])
    valid = torch.ones_like(y, dtype=torch.bool)
    valid[..., :3] = False
    x[:, :, 1, 1] = torch.nan
    x[..., :3] = torch.inf
    for found, of in (
        (crps(x, y, mask, valid), lambda f, c: crps(x[:, :, f, c, ..., 3:], y[:, f, c, ..., 3:])),
        (spread(x, mask, valid), lambda f, c: spread(x[:, :, f, c, ..., 3:])),
    ):
        both, first = slice(0, 2), slice(0, 1)
        expected = (of(slice(0, 1), both), of(slice(1, 2), first))
        assert torch.allclose(found, torch.cat(expected, 1), rtol=1e-12)


def test_noise_is_as_stated() -> None:
    """The control is not disturbed; noise is alike in all frames, with the stated deviation, independent at points."""
    context = 5 + normal(2, 3, 2, 2, 1, 40, 50).float() * torch.tensor([1.0, 4.0]).view(1, 1, 2, 1, 1, 1, 1)
    out = perturbed(context, 5, 0.1, torch.Generator().manual_seed(3)).unflatten(0, (5, 2))
    assert torch.equal(out[0], context)
    noise = out - context
    assert torch.allclose(noise[:, :, :1].expand_as(noise), noise, atol=1e-5)
    std = context.flatten(-3).std((1, 3, 4), correction=0)
    assert torch.allclose(noise[1:, :, 0].flatten(3).std((0, 3)), 0.1 * std, rtol=0.03)
    one, other = noise[1, 0, 0, 0, 0].flatten(), noise[2, 0, 0, 0, 0].flatten()
    assert abs(torch.corrcoef(torch.stack((one, other)))[0, 1]) < 0.1
    assert abs(torch.corrcoef(torch.stack((one[1:], one[:-1])))[0, 1]) < 0.1
    again = perturbed(context, 5, 0.1, torch.Generator().manual_seed(3)).unflatten(0, (5, 2))
    assert torch.equal(again, out)
    other_seed = perturbed(context, 5, 0.1, torch.Generator().manual_seed(4)).unflatten(0, (5, 2))
    assert not torch.equal(other_seed[1], out[1])


def test_fillers_and_land_are_not_disturbed_and_have_no_part_in_the_deviation() -> None:
    """A filler is 0 and land holds a huge value: neither moves, and the noise elsewhere is that without them."""
    context = normal(1, 2, 2, 2, 1, 20, 20).float()
    mask = torch.tensor([[True, True], [True, False]])
    context[:, :, 1, 1] = 0
    absent = torch.zeros_like(context[:, 0], dtype=torch.bool)
    absent[..., :5] = True
    context[..., :5] = 1e6
    out = perturbed(context, 40, 0.1, torch.Generator().manual_seed(0), Conditions(mask, absent=absent))
    assert torch.equal(out[:, :, 1, 1], context.expand(40, -1, -1, -1, -1, -1, -1)[:, :, 1, 1])
    assert torch.equal(out[..., :5], context[..., :5].expand(40, -1, -1, -1, -1, -1, -1))
    noise = (out - context)[1:, 0, :, :, 0, :, 5:]
    assert noise[:, 0].std().item() == pytest.approx(0.1 * context[:, :, 0, :, ..., 5:].std().item(), rel=0.05)
    assert noise[:, 1, 0].std().item() == pytest.approx(0.1 * context[:, :, 1, 0, ..., 5:].std().item(), rel=0.05)


def test_dropout_is_on_inside_alone_even_where_that_fails() -> None:
    model = small()
    x = normal(1, 4, 2, 1, 1, 1, 16).float()
    quiet = model(x)
    with dropout_on(model):
        assert not torch.equal(model(x), model(x))
        assert not model.training
    assert torch.equal(model(x), quiet)
    with pytest.raises(RuntimeError, match="power cut"), dropout_on(model):
        raise RuntimeError("power cut")
    assert torch.equal(model(x), quiet)
    with pytest.raises(ValueError, match="dropout: the model has none"), dropout_on(small(dropout=0.0)):
        pass


def test_without_dropout_there_is_noise() -> None:
    assert Ensemble(4) == Ensemble(4, perturbation=0.01)
    assert Ensemble(4, dropout=True).perturbation is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 1, "perturbation": 0.1}, "members: an ensemble has at least 2, found 1"),
        ({"members": 4, "perturbation": 0}, "perturbation: expected a positive number.*found 0"),
        ({"members": 4, "perturbation": math.nan}, "perturbation: expected a positive number.*found nan"),
        ({"members": 4, "perturbation": "a"}, "perturbation: expected a positive number.*found 'a'"),
        ({"members": 4, "dropout": True, "seed": -1}, "seed: expected 0 or a positive integer, found -1"),
    ],
)
def test_an_ensemble_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ensemble(**options)


def test_what_becomes_of_noise_in_a_linear_forecast_is_known() -> None:
    """Noise of 0.1 deviations, doubled at each step: the spread over the members, one of which is not disturbed."""
    members, adapter = 200, Waves("test")
    metrics = ensemble_of(drifting, adapter, Ensemble(members, 0.1, seed=1), steps=3)
    # Expected variance of M - 1 draws and one 0: s^2 (M - 1) / M; times (M + 1) / M that is s^2 up to 1 / M^2.
    context = torch.from_numpy(adapter.read(0, 0, 4))
    for f, field in enumerate(("a", "b")):
        noise = 0.1 * context[:, f].std(correction=0).item()
        found = metrics["spread"].sel(forecast="model", field=field, trajectory=0).values
        assert found == pytest.approx(noise * np.array([2, 4, 8]), rel=0.06)
    control = metrics.rollout.sel(forecast="model", metric="rmse")
    assert np.allclose(metrics["skill"].sel(forecast="model"), control, rtol=0.05)


def test_a_vanishing_perturbation_scores_as_the_control_and_naive_forecasts_as_they_are() -> None:
    metrics = ensemble_of(small(), Waves("test"), Ensemble(3, 1e-5))
    error = metrics.rollout.sel(metric="mae", drop=True)
    assert np.allclose(metrics.crps, error, rtol=1e-3)
    for name in NAIVE:
        assert np.array_equal(metrics.crps.sel(forecast=name), error.sel(forecast=name))
        assert (metrics["spread"].sel(forecast=name) == 0).all()
    assert (metrics["spread"].sel(forecast="model") > 0).all()
    summary = summarise(metrics)
    assert summary["crps_ratio_to_control"] == pytest.approx(1, rel=1e-3)
    best = min(summary["persistence_crps"], summary["extrapolation_crps"])
    assert summary["crps_ratio"] == pytest.approx(summary["crps"] / best)


class Tide(Coast):
    """More land in each trajectory than in the one before."""

    def read(self, trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        values = super().read(trajectory, start, stop)
        values[..., : self.land + 4 * trajectory] = np.nan
        return put(values, out)


@pytest.mark.parametrize("adapter", [Waves("test"), Coast("test", gaps=True), Tide("test"), Counted()])
def test_batches_do_not_change_an_ensemble_and_seeds_do(adapter: object) -> None:
    """One trajectory or several at a time, and members in one call or in several."""
    model, calls = small(), []

    def counted(context: Context, conditions: Conditions | None = None) -> State:
        calls.append(len(context))
        return model(context, conditions)

    found = []
    for batch_size in (2, 3, 7, 16):
        calls.clear()
        found.append(ensemble_of(counted, adapter, Ensemble(3, 0.1), batch_size=batch_size))
        assert max(calls) <= batch_size
    for metrics in found[1:]:
        for name in ("crps", "spread", "skill"):
            assert np.allclose(metrics[name], found[0][name], rtol=1e-3)
    other = ensemble_of(model, adapter, Ensemble(3, 0.1, seed=1))
    assert not np.allclose(other["spread"].sel(forecast="model"), found[0]["spread"].sel(forecast="model"), rtol=1e-3)
    assert np.allclose(other.rollout, found[-1].rollout, rtol=1e-4, equal_nan=True)


def test_dropout_is_drawn_anew_for_each_member_and_leaves_the_random_numbers_of_others_alone() -> None:
    model, adapter = small(), Coast("test", gaps=True)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = ensemble_of(model, adapter, Ensemble(4, dropout=True))
    assert torch.equal(torch.rand(3), expected)
    assert not any(module.training for module in model.modules())
    two = ensemble_of(model, adapter, Ensemble(4, dropout=True))
    assert np.array_equal(one["spread"], two["spread"])
    spreads = one["spread"].sel(forecast="model")
    assert (spreads > 0).all()

    positions = model.positions.dropout
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module is not positions:
            module.p = 0.0
    # What is left is one mask for all samples of a call: members must not share it.
    assert (ensemble_of(model, adapter, Ensemble(4, dropout=True))["spread"].sel(forecast="model") > 0).all()


def test_members_beside_land_are_members_of_the_sea() -> None:
    """A forecast that is NaN on land scores as one that is not; one that is infinite at sea scores infinity."""

    def lost_on_land(context: Context, conditions: Conditions) -> State:
        return torch.where(conditions.absent, torch.nan, context[:, -1])

    def lost_at_sea(context: Context, conditions: Conditions) -> State:
        return torch.where(conditions.absent, context[:, -1], torch.inf)

    known = Conditions(torch.ones(2, 1, dtype=torch.bool))
    truth = true_trajectories(Coast("test"), range(2), 4, 3, known, "cpu")

    def scores(forecast: Forecast) -> Tensor:
        return ensemble_scores(forecast, truth, Ensemble(3, 0.1), first=0, batch_size=4)

    assert torch.equal(scores(lost_on_land), scores(NAIVE["persistence"]))
    assert torch.isposinf(scores(lost_at_sea)).all()


def test_frames_without_data_have_no_score() -> None:
    metrics = ensemble_of(small(), Coast("test", spoil=(1, 5)), Ensemble(2, 0.1))
    for name in ("crps", "spread", "skill"):
        missing = metrics[name].isnull()
        assert missing.sel(trajectory=1).isel(lead_time=1).all()
        assert int(missing.sum()) == 3 * 2  # forecasts, fields


def test_progress_figures_and_tables() -> None:
    done: list[int] = []
    metrics = ensemble_of(small(), Waves("test"), Ensemble(4, 0.1), advance=done.append, batch_size=3)
    assert sum(done) == work(Waves("test"), 4, 3, 1, members=4)
    figure = plot_ensemble(metrics)
    assert png(figure)
    left, right = figure.axes
    skill = metrics["skill"].sel(forecast="model") / metrics.field_std
    shown = {line.get_label(): line.get_ydata() for line in (*left.lines, *right.lines)}
    assert shown["skill"] == pytest.approx(np.sqrt((skill**2).mean(("trajectory", "field"))).values)
    expected = (metrics.crps.sel(forecast="model") / metrics.field_std).mean(("trajectory", "field"))
    assert shown["model"] == pytest.approx(expected.values)
    summary = summarise(metrics)
    assert summary["crps"] == pytest.approx(float(expected.mean()))
    cells = [next(iter(column.cells)) for column in ensemble_table({"waves": {**summary, "zero_shot": False}}).columns]
    assert cells[0] == "waves"
    assert float(cells[1]) == pytest.approx(summary["crps"], rel=1e-2)
    assert float(cells[-1]) == pytest.approx(summary["spread"] / summary["skill"], abs=1e-3)


def test_an_ensemble_that_explodes_is_shown() -> None:
    metrics = ensemble_of(lambda context, _: context[:, -1] * 1e30, Waves("test"), Ensemble(2, 0.1))
    summary = summarise(metrics)
    assert summary["crps"] is summary["spread_skill_ratio"] is None
    assert "inf" in list(ensemble_table({"waves": {**summary, "zero_shot": False}}).columns[1].cells)
    assert png(plot_ensemble(metrics))
