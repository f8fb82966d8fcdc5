"""The page in a real browser: it draws, plays, asks nobody for anything, and fits a phone."""

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pytest

from morph.report import report
from morph.report.colours import lookup
from morph.report.frames import film
from morph.report.panels import palette_indices
from tests.browser import Page, browser, program
from tests.made_up_scores import OVERALL, made_up, summary

pytestmark = pytest.mark.skipif(program() is None, reason="needs chromium or google-chrome on the path")

SCORES = {
    "line": made_up("line", ("x",)),
    "plane": made_up("plane", ("x", "y"), lost=True, land=True),
    "volume": made_up("volume", ("x", "y", "z")),
}
ORIGIN = {
    "command": "morph evaluate", "git": None, "python": "3", "packages": {}, "platform": "", "cpu_count": 1,
    "threads": 1, "gpus": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all of these, with the page open."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    summaries = {name: summary(one) for name, one in SCORES.items()}
    now = datetime(2024, 2, 3, 4, 5)
    path.write_text(report(SCORES, summaries, title="runs/a", origin=ORIGIN, overall=OVERALL, written=now))
    with browser() as page:
        page.resize(1200, 900)
        page.prefer(prefers_color_scheme="light", prefers_reduced_motion="no-preference")
        page.open(path)
        yield page


def colours(tab: Page, dataset: str, screen: str) -> np.ndarray:
    """What stands on a canvas, (rows, columns, 4)."""
    canvas = f"document.querySelector('#data-{dataset} [data-screen={screen}]')"
    tab.evaluate(f"{canvas}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
    drawn = f"[...{canvas}.getContext('2d').getImageData(0, 0, {canvas}.width, {canvas}.height).data]"
    tab.wait(f"new Set({drawn}).size > 4")
    rows, columns = tab.evaluate(f"[{canvas}.height, {canvas}.width]")
    return np.array(tab.evaluate(drawn)).reshape(rows, columns, 4)


def lead_time(tab: Page, dataset: str) -> str:
    return tab.evaluate(f"document.querySelector('#data-{dataset} .time').textContent")


def test_it_draws_every_data_set(tab: Page) -> None:
    assert tab.evaluate("document.title") == "Evaluation of runs/a"
    titles = tab.evaluate("[...document.querySelectorAll('h2')].map((title) => title.textContent)")
    assert titles == ["Summary", "line", "plane", "volume", "How to read the numbers", "Provenance"]
    for dataset, screens in {"line": 4, "plane": 3, "volume": 3}.items():
        for screen in ("profile", "truth", "prediction", "error")[-screens:]:
            assert len(np.unique(colours(tab, dataset, screen).reshape(-1, 4), axis=0)) > 4, (dataset, screen)
    assert tab.evaluate("document.querySelectorAll('.failed:not([hidden])').length") == 0
    assert tab.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("screen", ["truth", "prediction", "error"])
def test_its_colours_are_those_of_the_pictures(tab: Page, screen: str) -> None:
    """Computed here in Python and there in JavaScript."""
    made = film(SCORES["plane"].rollouts, SCORES["plane"].metrics.lead_time.values)
    component = made.components[0]
    indices = palette_indices(made, component, 0, screen)[0, 0, 0, ::-1]
    table = lookup("PuOr" if screen == "error" else component.colours)
    shown = colours(tab, "plane", screen)[..., :3]
    land = indices == 255
    assert land.any()
    assert np.array_equal(shown[~land], table[indices[~land]])
    assert len(np.unique(shown[land], axis=0)) == 1


@pytest.mark.parametrize("dataset", ["line", "plane", "volume"])
def test_it_plays_and_stops(tab: Page, dataset: str) -> None:
    moving = "profile" if dataset == "line" else "truth"
    before = colours(tab, dataset, moving)
    assert lead_time(tab, dataset) == "lead time 0.5"
    button = f"document.querySelector('#data-{dataset} .play')"
    tab.evaluate(f"{button}.click()")
    assert tab.evaluate(f"{button}.getAttribute('aria-label')") == f"Pause {dataset}"
    tab.wait(f"document.querySelector('#data-{dataset} .time').textContent !== 'lead time 0.5'")
    tab.evaluate(f"{button}.click()")
    stopped = lead_time(tab, dataset)
    assert stopped != "lead time 0.5"
    assert not np.array_equal(colours(tab, dataset, moving), before)
    assert (
        tab.evaluate("new Promise((done) => setTimeout(() => done(document.querySelectorAll('.playing').length), 100))")
        == 0
    )
    assert lead_time(tab, dataset) == stopped
    slide = f"document.querySelector('#data-{dataset} .scrub')"
    tab.evaluate(f"{slide}.value = 0; {slide}.dispatchEvent(new Event('input'))")
    assert np.array_equal(colours(tab, dataset, moving), before)


def test_space_plays_what_is_seen(tab: Page) -> None:
    colours(tab, "plane", "truth")
    for playing in (["data-plane"], []):
        tab.key(" ")
        assert tab.evaluate("[...document.querySelectorAll('.playing')].map((one) => one.dataset.film)") == playing


def test_choices_change_what_is_shown(tab: Page) -> None:
    def choose(dataset: str, what: str, value: int) -> None:
        chosen = f"document.querySelector('#data-{dataset} [data-choice={what}]')"
        tab.evaluate(f"{chosen}.value = {value}; {chosen}.dispatchEvent(new Event('change'))")

    before = colours(tab, "volume", "truth")
    assert before.shape == (16, 10, 4)
    choose("volume", "view", 2)
    assert colours(tab, "volume", "truth").shape == (12, 16, 4)
    middle = colours(tab, "volume", "truth")
    choose("volume", "plane", 0)
    assert not np.array_equal(colours(tab, "volume", "truth"), middle)
    choose("volume", "view", 0)
    assert np.array_equal(colours(tab, "volume", "truth"), before)
    bar = "document.querySelector('#data-plane [data-bar=field] .ends').textContent"
    assert tab.evaluate(bar) == "−101 m/s"
    choose("plane", "component", 2)
    assert tab.evaluate(bar) == "234"
    error, truth = colours(tab, "plane", "error"), colours(tab, "plane", "truth")
    clipped = "document.querySelector('#data-plane .clipped')"
    assert tab.evaluate(f"{clipped}.hidden")
    choose("plane", "model", 1)
    assert "not finite from lead time 3 on" in tab.evaluate(f"{clipped}.textContent")
    assert np.array_equal(colours(tab, "plane", "truth"), truth)
    assert not np.array_equal(colours(tab, "plane", "error"), error)
    choose("plane", "trajectory", 1)
    assert not np.array_equal(colours(tab, "plane", "truth"), truth)


def test_a_point_tells_its_values(tab: Page) -> None:
    colours(tab, "line", "truth")
    values = SCORES["line"].rollouts.velocity_x.isel(trajectory=0, time=0, x=0)
    tab.evaluate(
        "(() => { const image = document.querySelector('#data-line [data-screen=truth]');"
        "const box = image.getBoundingClientRect();"
        "image.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + 1, clientY: box.bottom - 1})); })()"
    )
    told = tab.evaluate("document.querySelector('#data-line .value').textContent").replace("−", "-")
    assert told.startswith("x = 0, lead time 0.5: truth ")
    words = told.replace(",", "").split()
    assert float(words[words.index("truth") + 1]) == pytest.approx(float(values.sel(source="truth")), abs=5e-3)
    assert float(words[words.index("prediction") + 1]) == pytest.approx(float(values.sel(source="model")), abs=1e-2)


def test_dark_is_dark(tab: Page) -> None:
    """By the toggle, and by what the user prefers."""
    page = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('.chart svg path[style*=forecast-0]')).stroke"
    light, light_line = tab.evaluate(page), tab.evaluate(line)
    tab.evaluate("document.querySelector('.theme').click()")
    dark, dark_line = tab.evaluate(page), tab.evaluate(line)
    assert dark != light
    assert dark_line != light_line
    tab.evaluate("document.querySelector('.theme').click()")
    assert tab.evaluate(page) == light
    tab.evaluate("delete document.documentElement.dataset.theme")
    tab.prefer(prefers_color_scheme="dark")
    assert tab.evaluate(page) == dark
    tab.prefer(prefers_color_scheme="light")
    assert tab.evaluate(page) == light


def test_it_fits_a_phone(tab: Page) -> None:
    tab.resize(360, 740, scale=2, mobile=True)
    try:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert tab.evaluate("document.querySelector('.summary').offsetWidth") > 360  # in its own box
    finally:
        tab.resize(1200, 900)


def test_it_asks_nobody_and_complains_of_nothing(tab: Page) -> None:
    """After all that was done to it."""
    asked = [
        event["params"]["request"]["url"] for event in tab.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [tab.evaluate("location.href")]
    said = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    complaints = [str(event) for event in tab.events if event["method"] in said]
    # What these tests do, to read back what was drawn, the page does not.
    assert [one for one in complaints if "willReadFrequently" not in one and "will-read-frequently" not in one] == []
