"""Spectra, bands, divergence and means of fields whose Fourier modes are known."""

from math import pi

import pytest
import torch
from torch import Tensor

from morph.metrics import (
    boundary_rmse,
    conserved_rmse,
    divergence,
    energy_ratio,
    energy_spectrum,
    fourier_bands,
    mean_drift,
    mse,
    pdebench_nrmse,
    relative_divergence,
    relative_l2,
    spatial_mean,
    spectral_error,
)
from tests.test_metrics import states

PERIODIC = ("periodic", "periodic", "periodic")
GRIDS = {1: (1, 1, 32), 2: (1, 24, 32), 3: (16, 24, 32)}


def wave(grid: tuple[int, ...], *numbers: int, amplitude: float = 1.0, phase: float = 0.3) -> Tensor:
    """amplitude cos(2 pi k.x + phase) on the unit cube, with whole numbers k of waves along D, H and W."""
    axes = [torch.arange(size, dtype=torch.float64) / size for size in grid]
    angle = sum(k * x for k, x in zip(numbers, torch.meshgrid(*axes, indexing="ij"), strict=True))
    return amplitude * torch.cos(2 * pi * angle + phase)


def state(*components: Tensor) -> Tensor:
    return torch.stack(components)[None, None]


@pytest.mark.parametrize(("axes", "numbers", "shell"), [
    (1, (0, 0, 5), 5), (1, (0, 0, 16), 16), (2, (0, 3, 4), 5), (2, (0, -3, 4), 5), (2, (0, 1, 1), 1),
    (3, (2, 3, 6), 7), (3, (1, -1, 1), 2), (3, (0, 0, 0), 0),
])  # fmt: skip
def test_a_wave_stands_in_its_own_shell(axes: int, numbers: tuple[int, int, int], shell: int) -> None:
    """With energy amplitude^2 / 2; at the Nyquist wavenumber and for the constant, all of (amplitude cos(phase))^2."""
    grid, amplitude, phase = GRIDS[axes], 3.0, 0.3
    values = state(wave(grid, *numbers, amplitude=amplitude, phase=phase))
    wavenumber, spectrum = energy_spectrum(values, axes, lengths=[1.0] * axes)
    assert wavenumber.tolist() == list(range(len(wavenumber)))
    whole = not any(numbers) or numbers[-1] == grid[-1] // 2
    energy = amplitude**2 * (torch.tensor(phase).cos().item() ** 2 if whole else 0.5)
    assert spectrum[0, 0, shell].item() == pytest.approx(energy, rel=1e-6)
    assert spectrum.sum().item() == pytest.approx(energy, rel=1e-6)


def test_the_wavenumber_counts_in_the_fundamental_of_the_longest_axis() -> None:
    """On 24 by 32 points of one spacing, a wave along the short axis is 32 / 24 times as short."""
    values = state(wave(GRIDS[2], 0, 3, 0))
    assert energy_spectrum(values, 2)[1][0, 0].argmax() == 4
    assert energy_spectrum(values, 2, lengths=[1.0, 1.0])[1][0, 0].argmax() == 3
    assert energy_spectrum(values, 2, lengths=[0.5, 1.0])[1][0, 0].argmax() == 6


@pytest.mark.parametrize("grid", [(1, 1, 31), (1, 1, 32), (1, 15, 20), (1, 16, 9), (7, 8, 9), (8, 7, 6)])
def test_parseval(grid: tuple[int, ...]) -> None:
    """Spectra add up to the mean square, bands to the mean square error."""
    axes = 3 - grid.count(1)
    prediction, target = 2 + states(2, 3, 2, *grid), states(2, 3, 2, *grid, seed=1)
    _, spectrum = energy_spectrum(target, axes)
    mean_square = target.square().mean((-3, -2, -1)).sum(-1)
    assert torch.allclose(spectrum.sum(-1), mean_square, rtol=1e-14)
    assert torch.allclose(spectrum[..., 0], spatial_mean(target).square().sum(-1), rtol=1e-14)
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    for options in ((), (mask,)):
        bands = spectral_error(prediction, target, *options)
        assert torch.allclose(bands.sum(-1), mse(prediction, target, *options), rtol=1e-13)
    assert torch.allclose(
        energy_spectrum(target, axes, mask)[1][:, 2], energy_spectrum(target[:, 2:, 1:], axes)[1][:, 0], rtol=1e-14
    )


def test_a_smoothed_field_has_lost_its_high_wavenumbers() -> None:
    grid = GRIDS[1]
    waves = [state(wave(grid, 0, 0, k)) for k in (1, 6)]
    _, ratio = energy_ratio(waves[0] + 0.5 * waves[1], waves[0] + waves[1], 1)
    assert ratio[0, 0, [1, 6]].tolist() == pytest.approx([1, 0.25], rel=1e-12)
    assert ratio[0, 0, [0, 2, 5, 7, 16]].isnan().all()  # the truth has no energy there
    nothing = spectral_error(waves[0] + 0.5 * waves[1], waves[0] + waves[1], normalise=True)[0, 0]
    assert nothing[0].item() == pytest.approx(0, abs=1e-12)
    assert nothing.amax().item() == pytest.approx(0.25, rel=1e-5)


def test_what_was_kept_from_inference_serves_a_gradient() -> None:
    grid = (1, 10, 14)  # of no other test: nothing is kept of it yet
    prediction, target = states(1, 1, 1, *grid), states(1, 1, 1, *grid, seed=1)
    with torch.inference_mode():
        for metric in (fourier_bands, spectral_error):
            metric(prediction, target)
        energy_spectrum(target, 2)
    prediction.requires_grad_()
    total = spectral_error(prediction, target).sum() + energy_spectrum(prediction, 2)[1].sum()
    (total + fourier_bands(prediction, target)[..., 0].sum()).backward()
    only_squares = 2 * (2 * prediction - target) / (10 * 14)
    assert not torch.allclose(prediction.grad, only_squares)
    prediction.grad = None
    (spectral_error(prediction, target).sum() + energy_spectrum(prediction, 2)[1].sum()).backward()
    assert torch.allclose(prediction.grad, only_squares.detach(), rtol=1e-10)  # Parseval's identity, differentiated


def test_spectra_of_another_number_of_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"axes: expected the number of spatial axes of \(1, 24, 32\), found 1"):
        energy_spectrum(states(1, 1, 1, *GRIDS[2]), 1)
    with pytest.raises(ValueError, match=r"lengths: expected 2 positive numbers, found \[1.0\]"):
        energy_spectrum(states(1, 1, 1, *GRIDS[2]), 2, lengths=[1.0])


@pytest.mark.parametrize(("axes", "numbers", "band", "shells"), [
    (1, (0, 0, 3), 0, 4), (1, (0, 0, 4), 1, 8), (1, (0, 0, 12), 2, 5), (2, (0, 3, 4), 1, 8), (3, (2, 1, 2), 0, 4),
])  # fmt: skip
def test_a_wave_stands_in_its_own_band(axes: int, numbers: tuple[int, ...], band: int, shells: int) -> None:
    """|F(u)_k| / N is half the amplitude, in one shell of so many that the band averages."""
    error = state(wave(GRIDS[axes], *numbers, amplitude=3.0))
    truth = states(1, 1, 1, *GRIDS[axes])
    found = fourier_bands(truth + error, truth)[0, 0]
    expected = torch.zeros(3, dtype=torch.float64)
    expected[band] = 1.5 / shells
    assert torch.allclose(found.nan_to_num(0), expected, atol=1e-13)
    assert torch.equal(found.isnan(), torch.tensor([False, False, axes > 1]))


def test_pdebench_worked_examples() -> None:
    target = torch.zeros(1, 1, 1, 1, 3, 4, dtype=torch.float64)
    prediction = target.clone()
    prediction[..., 0, 0] = 7.0  # a corner, of two faces
    prediction[..., 1, 1] = 1e6  # inside
    assert boundary_rmse(prediction, target).item() == pytest.approx((2 * 49 / (2 * 3 + 2 * 4)) ** 0.5, rel=1e-15)
    assert conserved_rmse(prediction, target).item() == pytest.approx(1000007 / 12, rel=1e-15)
    prediction[..., 2, 2] = -1000007
    assert conserved_rmse(prediction, target).item() == 0
    some, other = states(2, 2, 2, 1, 3, 4), states(2, 2, 2, 1, 3, 4, seed=1)
    assert torch.equal(pdebench_nrmse(some, other), relative_l2(some, other))


def taylor_green(grid: tuple[int, int], wall: bool = False) -> Tensor:
    """(sin x cos y, -cos x sin y) on the torus, or on points that include both ends of [0, pi]."""
    x, y = (
        torch.linspace(0, pi, size, dtype=torch.float64) if wall else torch.arange(size).double() * 2 * pi / size
        for size in grid
    )
    x, y = torch.meshgrid(x, y, indexing="ij")
    return torch.stack((x.sin() * y.cos(), -x.cos() * y.sin()))[None, :, None]


def test_a_solenoidal_field_has_no_divergence_and_a_gradient_has_all() -> None:
    grid = (16, 24)
    spacing = [2 * pi / size for size in grid]
    solenoidal = taylor_green(grid)
    assert divergence(solenoidal, spacing, PERIODIC).abs().max() < 1e-13
    assert relative_divergence(solenoidal, spacing, PERIODIC).item() < 1e-14
    # grad(sin x sin y): its divergence is the Laplacian, -2 sin x sin y.
    x, y = (torch.arange(size).double() * step for size, step in zip(grid, spacing, strict=True))
    x, y = torch.meshgrid(x, y, indexing="ij")
    gradient = torch.stack((x.cos() * y.sin(), x.sin() * y.cos()))[None, :, None]
    assert torch.allclose(divergence(gradient, spacing, PERIODIC)[0, 0], -2 * x.sin() * y.sin(), atol=1e-13)
    # <(2 sin sin)^2> = 1, and each of the four slopes is 1/2 root mean square.
    assert relative_divergence(gradient, spacing, PERIODIC).item() == pytest.approx(1, rel=1e-13)
    assert relative_divergence(torch.ones_like(gradient), spacing, PERIODIC).item() == 0


@pytest.mark.parametrize("kind", ["periodic", "open"])
@pytest.mark.parametrize("size", [7, 15, 16, 100, 127])
def test_a_uniform_field_has_no_divergence_in_single_precision(size: int, kind: str) -> None:
    """The derivative of 0.1 is not 0 but rounding; nor does that hide a slope that single precision resolves."""
    vector = torch.tensor([0.1, 0.3]).view(1, 2, 1, 1, 1).repeat(1, 1, 1, size, size)
    spacing, boundary = [1 / size, 3.0 / size], (kind, kind, kind)
    for scale in (1.0, 1e-12, 1e12):
        assert relative_divergence(scale * vector, spacing, boundary).item() == 0
    x = torch.arange(size) * 2 * pi / size
    vector[:, 0] += 1e-3 * x.sin()[:, None]
    assert relative_divergence(vector, spacing, boundary).item() == pytest.approx(1, rel=2e-2)


def test_a_field_that_is_not_finite_does_not_pass_for_a_uniform_one() -> None:
    for value in (torch.inf, torch.nan, 1e30):
        vector = torch.ones(1, 2, 1, 8, 8)
        vector[..., 3, 4] = value
        assert not relative_divergence(vector, [1.0, 1.0], PERIODIC).isfinite().item()


def test_units_and_direction_of_the_axes_do_not_matter_to_the_relative_divergence() -> None:
    vector = states(3, 3, 8, 6, 7)
    one = relative_divergence(vector, [0.1, 0.2, 0.3], PERIODIC)
    assert torch.allclose(one, relative_divergence(vector, [10.0, 20.0, 30.0], PERIODIC), rtol=1e-12)
    flipped = vector.flip(-1)
    assert torch.allclose(one, relative_divergence(flipped, [0.1, 0.2, -0.3], PERIODIC), rtol=1e-12)
    assert (one > 0.1).all()
    assert (one <= 3**0.5).all()


def test_differences_at_walls_are_exact_for_parabolas_and_converge_at_second_order() -> None:
    x, y = torch.meshgrid(torch.linspace(0, 1, 5).double(), torch.linspace(0, 2, 7).double(), indexing="ij")
    vector = torch.stack((x**2 + y, 3 * y**2 - 5 * x))[None, :, None]
    found = divergence(vector, [1 / 4, 2 / 6], ("open", "wall", "open"))
    assert torch.allclose(found[0, 0], 2 * x + 6 * y, atol=1e-12)

    def error(size: int) -> float:
        vector = taylor_green((size, size), wall=True) * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1, 1)
        spacing = pi / (size - 1)
        x = torch.linspace(0, pi, size, dtype=torch.float64)
        exact = -x.cos()[:, None] * x.cos()[None]
        return (divergence(vector, [spacing, spacing], ("open", "wall", "wall"))[0, 0] - exact).abs().max().item()

    assert error(17) / error(33) == pytest.approx(4, rel=0.15)


def test_a_vector_that_does_not_go_with_its_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="found 2 components, 1 spacings and 3 boundaries"):
        divergence(states(1, 2, 1, 4, 4), [1.0], PERIODIC)
    with pytest.raises(ValueError, match=r"found 2 components, 2 spacings and 3 boundaries on \(4, 4, 4\)"):
        relative_divergence(states(1, 2, 4, 4, 4), [1.0, 1.0], PERIODIC)


def test_a_constant_shift_is_the_drift_of_the_mean() -> None:
    initial = 1e4 + states(2, 2, 2, 1, 8, 8).float()
    shift = torch.tensor([0.5, -0.25]).view(1, 2, 1, 1, 1, 1)
    assert torch.allclose(
        mean_drift(initial + shift, initial), shift[..., 0, 0, 0].expand(2, 2, 2).double(), rtol=0, atol=1e-3
    )
    moved = initial.roll((3, 2), (-2, -1))
    assert mean_drift(moved, initial).abs().max() < 1e-10  # nothing was made or lost, in any order of the sum
    valid = torch.ones_like(initial, dtype=torch.bool)
    valid[..., 4:] = False
    beyond = torch.where(valid, initial, 1e30)
    assert torch.allclose(spatial_mean(beyond, valid), initial[..., :4].double().mean((-3, -2, -1)), rtol=1e-14)
    assert spatial_mean(beyond, torch.zeros_like(valid)).isnan().all()
