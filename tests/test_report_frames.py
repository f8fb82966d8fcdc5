"""Animations and pictures hold the rollouts, thinned, upright, and in the colours that their bars say."""

import zlib
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from morph.report.colours import NO_DATA, lookup
from morph.report.frames import Film, block_mean, film, quantise, values_of
from morph.report.panels import ERRORS, pictures
from tests.made_up_scores import rollouts

LEAD = 0.5 * np.arange(1, 7)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.3, 7e4), (-2e-6, -1e-6)])
def test_a_value_differs_from_its_code_by_half_a_step(low: float, high: float) -> None:
    values = np.random.default_rng(0).uniform(low, high, 5000)
    back = values_of(quantise(values, low, high), low, high)
    assert np.abs(back - values).max() <= (high - low) / 508 * (1 + 1e-9)
    assert np.abs(back - values).max() > (high - low) / 520  # the bound is met
    ends = quantise(np.array([low, high, low - 1, high + 1, np.nan, np.inf, -np.inf]), low, high)
    assert ends.tolist() == [0, 254, 0, 254, 255, 255, 255]
    largest = max(-low, high)
    assert values_of(quantise(np.zeros(1), -largest, largest), -largest, largest) == 0


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_means_of_blocks_keep_the_mean(factor: int) -> None:
    values = np.random.default_rng(0).normal(size=(2, 12, 10))
    sizes = [np.add.reduceat(np.ones(n), np.arange(0, n, factor)) for n in (12, 10)]
    weights = np.multiply.outer(*sizes)
    thin = block_mean(values, factor, [1, 2])
    assert thin.shape[1:] == weights.shape
    assert np.allclose((thin * weights).sum((1, 2)) / weights.sum(), values.mean((1, 2)))
    if factor == 2:
        other = xr.DataArray(values, dims=("a", "x", "y")).coarsen(x=2, y=2).mean()
        assert np.allclose(thin, other)
    values[:, :3] = np.nan
    thin = block_mean(values, factor, [1, 2])
    if 3 % factor:  # part land, part sea: the mean of the sea
        block = values[:, 3 // factor * factor :][:, :factor, :factor]
        assert np.allclose(thin[:, 3 // factor, 0], np.nanmean(block, (1, 2)))
    assert np.isnan(thin[:, : 3 // factor]).all()


def unpacked(made: Film) -> list[list[np.ndarray]]:
    """Codes of each component and view, summed up modulo 256 as the page's script does it."""
    stored = np.frombuffer(zlib.decompress(made.packed), np.uint8)
    found, at = [], 0
    for one in made.components:
        found.append([])
        for codes in one.codes:
            small = stored[at : at + codes.size].reshape(codes.shape)
            found[-1].append(small.cumsum(5, dtype=np.uint8).cumsum(2, dtype=np.uint8))
            at += codes.size
    assert at == stored.size
    return found


@pytest.mark.parametrize("axes", [("x",), ("x", "y"), ("x", "y", "z")])
def test_an_animation_holds_the_rollouts_up_to_rounding(axes: tuple[str, ...]) -> None:
    data = rollouts("a", axes, land=True)
    made = film(data, LEAD)
    for one, stored in zip(made.components, unpacked(made), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.codes, stored, strict=True))
    for one in made.components:
        values = data[one.name].values
        for number_, (view, codes) in enumerate(zip(made.views, one.codes, strict=True)):
            expected = values.reshape(*values.shape[:3], 1, -1, values.shape[-1]) if not view.axis else np.stack(
                [np.take(values, list(data[view.axis].values).index(place), 3 + number_) for place in view.positions], 3
            )  # fmt: skip
            truth = values_of(codes[0], one.low, one.high)
            step = (one.high - one.low) / 508
            assert np.allclose(truth, expected[0], atol=step * 1.001, equal_nan=True)
            for model, largest in enumerate(one.errors):
                predicted = truth + values_of(codes[1 + model], -largest, largest)
                bound = (step + largest / 254) * 1.001
                assert np.allclose(predicted, expected[1 + model], atol=bound, equal_nan=True)


def test_what_does_not_fit_is_thinned_and_that_is_said() -> None:
    data = rollouts("a", ("x", "y"))
    big = data.isel(x=np.arange(48) % 12, y=np.arange(64) % 16).drop_vars(["x", "y"])
    noise = np.random.default_rng(0).normal(size=big.density.shape)
    big["density"] = (big.density + noise).assign_attrs(big.density.attrs)
    whole = film(big, LEAD)
    assert whole.notes == []
    small = film(big, LEAD, limit=len(whole.packed) // 8)
    assert len(small.packed) <= len(whole.packed) // 8
    (view,) = small.views
    assert small.notes[0] == f"shown at {len(view.y)} × {len(view.x)} of 48 × 64 points, means of blocks"
    assert "1 of 2 trajectories kept in rollout.nc" in small.notes
    assert small.components[2].low == whole.components[2].low


def test_pictures_show_the_values_in_the_colours_of_the_bars() -> None:
    """Decoded from their files, against the rollouts through the colour map, up to rounding to 255 colours."""
    data = rollouts("a", ("x", "y"), land=True)
    made = film(data, LEAD)
    (velocity, density) = pictures(made)
    assert [picture.component.name for picture in (velocity, density)] == ["velocity_x", "density"]
    assert [title for title, _ in density.rows] == ["truth", "prediction", "error", "other", "other, error"]
    assert density.columns == ["lead time 0.5", "lead time 1.5", "lead time 3"]
    sources = data.density.isel(trajectory=0)
    for title, panels in density.rows[:3]:
        for panel, step in zip(panels, (0, 2, 5), strict=True):
            image = np.asarray(Image.open(BytesIO(b64decode(panel.source.split(",")[1]))).convert("RGB"))
            frame = sources.isel(time=step)
            truth, model = (frame.sel(source=source).values for source in ("truth", "model"))
            values = {"truth": truth, "prediction": model, "error": model - truth}[title]
            low, high = (-density.component.error, density.component.error) if title == "error" else (
                density.component.low, density.component.high)  # fmt: skip
            expected = 254 * np.clip((values - low) / (high - low), 0, 1)
            colours = lookup(ERRORS if title == "error" else "viridis").astype(int)
            shown = image[::-1].astype(int)  # the first row is the lowest
            assert (shown[np.isnan(values)] == NO_DATA).all()
            index = np.array([np.abs(colours - colour).sum(-1).argmin() for colour in shown[~np.isnan(values)]])
            assert np.abs(index - expected[~np.isnan(values)]).max() <= 3


@pytest.mark.parametrize("axes", [("lat",), ("lat", "lon"), ("lev", "lat", "lon")])
def test_a_descending_axis_is_shown_as_the_ascending_one(axes: tuple[str, ...]) -> None:
    """Which way round a file stores the points of an axis changes nothing."""
    up = rollouts("a", axes, land=True)
    down = up.isel({axis: slice(None, None, -1) for axis in axes})
    one, other = film(up, LEAD), film(down, LEAD)
    assert one.packed == other.packed
    assert [[view.x.tolist(), view.y.tolist()] for view in one.views] == [
        [view.x.tolist(), view.y.tolist()] for view in other.views
    ]
    shown = [[panel for _, panels in picture.rows for panel in panels] for picture in pictures(one)]
    assert shown == [[panel for _, panels in picture.rows for panel in panels] for picture in pictures(other)]


def test_north_is_up() -> None:
    """The field is its own latitude, stored from north to south: the picture's first row is the largest value."""
    sizes = {"source": 2, "trajectory": 1, "time": 1, "lat": 19, "lon": 4}
    lat = xr.DataArray(np.linspace(90.0, -90.0, 19), dims="lat", attrs={"units": "degrees_north"})
    u = (lat + xr.DataArray(np.zeros(tuple(sizes.values())), dims=tuple(sizes))).transpose(*sizes)
    coordinates = {"source": ["truth", "model"], "lat": lat, "lon": np.arange(4.0)}
    made = film(xr.Dataset({"u": u.assign_attrs(field="u", units="")}, coordinates), np.ones(1))
    (view,), (component,) = made.views, made.components
    assert view.y.tolist() == lat.values[::-1].tolist()
    assert np.allclose(values_of(component.codes[0][0, 0, 0, 0, :, 0], -90, 90), view.y, atol=180 / 508 * 1.001)
    (picture,) = pictures(made)
    source = picture.rows[0][1][0].source
    image = np.asarray(Image.open(BytesIO(b64decode(source.split(",")[1]))).convert("RGB"))
    assert image[0, 0].tolist() == lookup("RdBu_r")[254].tolist()
    assert image[-1, 0].tolist() == lookup("RdBu_r")[0].tolist()
