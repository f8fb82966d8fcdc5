"""Metrics: worked examples, identities, and agreement with The Well's own."""

import pytest
import torch
from the_well.benchmark import metrics as well
from the_well.data.datasets import WellMetadata

from morph.metrics import METRICS, mae, nrmse, rmse, vrmse


def states(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_worked_example() -> None:
    target = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 1, 1, 1, 4)
    prediction = torch.tensor([1.0, 2, 3, 8]).view(1, 1, 1, 1, 1, 4)
    assert rmse(prediction, target).item() == 2
    assert mae(prediction, target).item() == 1
    assert nrmse(prediction, target).item() == pytest.approx((4 / 7.5) ** 0.5)
    # unbiased variance of 1, 2, 3, 4 is 5/3
    assert vrmse(prediction, target).item() == pytest.approx((4 / (5 / 3)) ** 0.5)


def test_predicting_the_mean_scores_one_up_to_the_unbiased_variance() -> None:
    target = states(2, 3, 2, 4, 16, 16)
    mean = target.mean((-3, -2, -1), keepdim=True).expand_as(target)
    points = 4 * 16 * 16
    assert torch.allclose(vrmse(mean, target), torch.full((2, 3), ((points - 1) / points) ** 0.5).double(), atol=1e-6)


def test_predicting_zero_scores_one() -> None:
    target = states(2, 3, 2, 1, 16, 16)
    assert torch.allclose(nrmse(torch.zeros_like(target), target), torch.ones(2, 3).double(), atol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_prediction_scores_zero_and_units_scale_as_they_should(name: str) -> None:
    metric = METRICS[name]
    prediction, target = states(2, 1, 1, 1, 1, 32), states(2, 1, 1, 1, 1, 32, seed=1)
    assert torch.equal(metric(target, target), torch.zeros(2, 1).double())
    factor = 1 if name in ("vrmse", "nrmse") else 5
    assert torch.allclose(metric(5 * prediction, 5 * target), factor * metric(prediction, target), rtol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_fillers_count_nowhere(name: str) -> None:
    prediction, target = states(2, 2, 2, 1, 1, 32), states(2, 2, 2, 1, 1, 32, seed=1)
    mask = torch.tensor([[True, True], [True, False]])
    prediction[:, 1, 1] = torch.nan
    found = METRICS[name](prediction, target, mask)
    assert torch.allclose(found[:, :1], METRICS[name](prediction[:, :1], target[:, :1]))
    assert torch.allclose(found[:, 1:], METRICS[name](prediction[:, 1:, :1], target[:, 1:, :1]))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_agreement_with_the_well(dims: int) -> None:
    grid = [1] * (3 - dims) + [8] * dims
    prediction, target = states(2, 3, 1, *grid), 3 + states(2, 3, 1, *grid, seed=1)
    meta = WellMetadata(
        dataset_name="", n_spatial_dims=dims, spatial_resolution=(8,) * dims, scalar_names=[],
        constant_scalar_names=[], field_names={}, constant_field_names={}, boundary_condition_types=[],
        n_files=1, n_trajectories_per_file=[1], n_steps_per_trajectory=[1],
    )  # fmt: skip
    last = [t.flatten(3).transpose(1, 3).reshape(2, *[8] * dims, 3) for t in (prediction, target)]
    for name, theirs in {"vrmse": well.VRMSE, "nrmse": well.NRMSE, "rmse": well.RMSE, "mae": well.MAE}.items():
        assert torch.allclose(METRICS[name](prediction, target), theirs.eval(*last, meta), rtol=1e-12), name


def test_one_point_has_no_variance() -> None:
    valid = torch.zeros(1, 1, 1, 1, 1, 4, dtype=torch.bool)
    valid[..., 2] = True
    one, two = torch.ones(1, 1, 1, 1, 1, 4), torch.full((1, 1, 1, 1, 1, 4), 3.0)
    assert rmse(one, two, None, valid).item() == 2
    assert vrmse(one, two, None, valid).isnan().all()
