"""Metrics of points: worked examples, identities, and agreement with The Well's own and with torchmetrics."""

import pytest
import torch
from torch import Tensor

from experiments.metrics.agreement import differences
from morph.metrics import (
    METRICS,
    boundary_rmse,
    defined_on_grid,
    every_metric,
    is_defined,
    linf,
    mae,
    mse,
    nrmse,
    pearson,
    pooled_nrmse,
    pooled_vrmse,
    relative_l1,
    relative_l2,
    rmse,
    vrmse,
    worst,
)

WITHOUT_UNIT = ("vrmse", "nrmse", "relative_l1", "relative_l2", "pearson")
WHOLE_GRID = ("boundary_rmse", "fourier_low", "fourier_mid", "fourier_high")
MASK = torch.tensor([[True, True], [True, False]])


def states(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def line(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, 1, 1, -1)


def test_worked_example() -> None:
    target, prediction = line(1, 2, 3, 4), line(1, 2, 3, 8)
    assert mse(prediction, target).item() == 4
    assert rmse(prediction, target).item() == 2
    assert mae(prediction, target).item() == 1
    assert linf(prediction, target).item() == 4
    assert nrmse(prediction, target).item() == pytest.approx((4 / 7.5) ** 0.5)
    assert relative_l2(prediction, target).item() == pytest.approx((16 / 30) ** 0.5, rel=1e-15)
    assert relative_l1(prediction, target).item() == pytest.approx(4 / 10, rel=1e-15)
    # unbiased variance of 1, 2, 3, 4 is 5/3
    assert vrmse(prediction, target).item() == pytest.approx((4 / (5 / 3)) ** 0.5)
    # deviations (-2.5, -1.5, -0.5, 4.5) and (-1.5, -0.5, 0.5, 1.5)
    assert pearson(prediction, target).item() == pytest.approx(11 / (29 * 5) ** 0.5, rel=1e-15)


def test_every_implementation_agrees_with_others_of_the_same_quantity() -> None:
    found = differences()
    assert len(found) == 26
    # One of the two adds 1e-7 to a denominator.
    rounded = {"pearson", "relative_l1", "vrmse", "pooled_vrmse", "pooled_nrmse"}
    loose = {key: size for key, size in found.items() if size > 2e-14}
    assert {name for name, _ in loose} <= rounded
    assert max(found.values()) < 5e-7
    assert found["vrmse", "the_well VRMSE"] < 1e-15 > found["nrmse", "the_well NRMSE"]


def test_predicting_the_mean_scores_one_up_to_the_unbiased_variance() -> None:
    target = states(2, 3, 2, 4, 16, 16)
    mean = target.mean((-3, -2, -1), keepdim=True).expand_as(target)
    points = 4 * 16 * 16
    assert torch.allclose(vrmse(mean, target), torch.full((2, 3), ((points - 1) / points) ** 0.5).double(), atol=1e-6)


def test_predicting_zero_scores_one() -> None:
    target = states(2, 3, 2, 1, 16, 16)
    nothing = torch.zeros_like(target)
    assert torch.allclose(nrmse(nothing, target), torch.ones(2, 3).double(), atol=1e-6)
    for metric in (relative_l1, relative_l2):
        assert torch.equal(metric(nothing, target), torch.ones(2, 3).double())
        assert torch.equal(metric(nothing, nothing), torch.zeros(2, 3).double())
        assert torch.isposinf(metric(target, nothing)).all()


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_prediction_scores_best_and_units_scale_as_they_should(name: str) -> None:
    metric = METRICS[name]
    prediction, target = states(2, 1, 1, 1, 1, 32), states(2, 1, 1, 1, 1, 32, seed=1)
    best = 1.0 if name == "pearson" else 0.0
    assert torch.allclose(metric(target, target), torch.full((2, 1), best).double(), rtol=1e-14, atol=0)
    factor = 1 if name in WITHOUT_UNIT else 25 if name == "mse" else 5
    assert torch.allclose(metric(5 * prediction, 5 * target), factor * metric(prediction, target), rtol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_fillers_count_nowhere(name: str) -> None:
    prediction, target = states(2, 2, 2, 1, 1, 32), states(2, 2, 2, 1, 1, 32, seed=1)
    prediction[:, 1, 1] = torch.nan
    found = METRICS[name](prediction, target, MASK)
    assert torch.allclose(found[:, :1], METRICS[name](prediction[:, :1], target[:, :1]))
    assert torch.allclose(found[:, 1:], METRICS[name](prediction[:, 1:, :1], target[:, 1:, :1]))


@pytest.mark.parametrize("grid", [(1, 1, 40), (1, 26, 28), (26, 26, 24)])
def test_all_at_once_are_each_by_itself(grid: tuple[int, int, int]) -> None:
    prediction, target = states(2, 2, 2, *grid), states(2, 2, 2, *grid, seed=1)
    valid = torch.rand(2, 2, 2, *grid, generator=torch.Generator().manual_seed(0)) < 0.9
    valid[1] = True
    for options in ((), (MASK,), (MASK, valid)):
        found = every_metric(prediction, target, *options)
        for i, metric in enumerate(METRICS.values()):
            assert torch.equal(found[..., i].nan_to_num(-1), metric(prediction, target, *options).nan_to_num(-1))


def test_a_coarse_grid_has_no_high_wavenumbers_and_a_point_no_boundary() -> None:
    def undefined(*grid: int) -> set[str]:
        return {name for name, defined in zip(METRICS, defined_on_grid(*grid), strict=True) if not defined}

    assert undefined(1, 1, 24) == undefined(1, 26, 26) == undefined(26, 26, 26) == set()
    assert undefined(1, 1, 22) == undefined(1, 24, 24) == undefined(16, 16, 16) == {"fourier_high"}
    assert undefined(1, 8, 8) == {"fourier_mid", "fourier_high"}
    assert boundary_rmse(line(1), line(2)).isnan().all()


def test_correlation_is_blind_to_scale_and_offset_and_none_with_a_constant() -> None:
    target = states(2, 2, 1, 1, 8, 8)
    one = torch.ones(2, 2).double()
    assert torch.allclose(pearson(100 - 3e-4 * target, target), -one, rtol=1e-9)
    assert torch.allclose(pearson(3e-4 * target, 1e6 * target), one, rtol=1e-14)
    constant = torch.full_like(target, 0.1, dtype=torch.float32)
    assert (pearson(constant, target.float()) == 0).all()
    assert (pearson(target.float(), constant) == 0).all()
    assert pearson(target * torch.nan, target).isnan().all()
    assert (worst("pearson"), worst("vrmse")) == (0, torch.inf)


def test_one_point_has_no_variance() -> None:
    valid = torch.zeros(1, 1, 1, 1, 1, 4, dtype=torch.bool)
    valid[..., 2] = True
    one, two = torch.ones(1, 1, 1, 1, 1, 4), torch.full((1, 1, 1, 1, 1, 4), 3.0)
    assert rmse(one, two, None, valid).item() == 2
    assert vrmse(one, two, None, valid).isnan().all()
    assert pearson(one, two, None, valid).isnan().all()


@pytest.mark.parametrize("name", WHOLE_GRID)
def test_what_needs_the_whole_grid_is_undefined_on_a_part_of_it(name: str) -> None:
    metric = METRICS[name]
    prediction, target = states(2, 2, 2, 1, 26, 28), states(2, 2, 2, 1, 26, 28, seed=2)
    valid = torch.ones(2, 2, 2, 1, 26, 28, dtype=torch.bool)
    valid[:, 1, 1] = False  # filler
    assert torch.equal(metric(prediction, target, MASK, valid), metric(prediction, target, MASK))
    valid[0, 0, 1, 0, 13, 13] = False
    assert metric(prediction, target, MASK, valid).isnan().tolist() == [[True, False], [False, False]]
    assert is_defined(metric, MASK, valid).tolist() == [[False, True], [True, True]]


def test_pooled_errors_are_one_quotient_and_not_the_mean_of_quotients() -> None:
    """Two times whose errors are alike and whose sizes are not: (2^2 + 2^2) / (1^2 + 7^2) against 2 / 1 and 2 / 7."""
    target = torch.stack((line(1, -1, 1, -1), line(7, -7, 7, -7)), 1)
    prediction = target + 2
    assert pooled_nrmse(prediction, target).item() == pytest.approx((8 / 50) ** 0.5, rel=1e-7)
    assert pooled_vrmse(prediction, target).item() == pytest.approx((8 / 50) ** 0.5, rel=1e-7)
    each = torch.cat([nrmse(prediction[:, s], target[:, s]) for s in range(2)])
    assert each.flatten().tolist() == pytest.approx([2, 2 / 7], rel=1e-7)
    # A mean that differs between times or fields is variance to the pooled one alone.
    shifted = target + torch.tensor([0.0, 10.0]).view(1, 2, 1, 1, 1, 1, 1)
    assert pooled_vrmse(shifted + 2, shifted).item() == pytest.approx((4 / (25 + 25)) ** 0.5, rel=1e-7)
    assert vrmse(shifted[:, 1] + 2, shifted[:, 1]).item() == pytest.approx(vrmse(prediction[:, 1], target[:, 1]).item())


def test_pooled_errors_leave_out_fillers_and_absent_points() -> None:
    prediction, target = states(3, 4, 2, 2, 1, 6, 5), states(3, 4, 2, 2, 1, 6, 5, seed=1)
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    for metric in (pooled_nrmse, pooled_vrmse):
        found = metric(prediction, target, MASK, valid)
        for b in range(3):
            held = valid[b] & MASK[..., None, None, None]
            dense = [values[b][held].view(1, 1, 1, 1, 1, 1, -1) for values in (prediction, target)]
            assert found[b].item() == pytest.approx(metric(*dense).item(), rel=1e-14)
        repeated = [values.clone() for values in (prediction, target)]
        for values in repeated:
            values[:, :, 1, 1] = values[:, :, 1, 0]
        assert not torch.allclose(metric(*repeated), metric(*repeated, MASK), rtol=1e-4)
