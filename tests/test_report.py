"""The page says what the scores say, holds all it shows, and a name is never more than a name."""

import json
import re
from datetime import datetime
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from morph.model.morph import Capacity, Morph
from morph.report import report
from morph.report.frames import film
from morph.report.panels import ERRORS, palette_indices
from morph.report.skill import number, summary_table, verdicts, windows_table
from morph.scoring import Scores
from tests.made_up_scores import OVERALL, made_up, rollouts, summary

HOSTILE = '"><script>alert(1)</script><b onload="alert(2)" x=\'$\\alpha{$ &amp;'
LEAD = 0.5 * np.arange(1, 7)
ORIGIN = {
    "command": "python -m morph.evaluate a=<b>", "git": None, "python": "3.11",
    "packages": {"morph": "0.1", "torch": None}, "platform": "Linux", "cpu_count": 2, "threads": 1, "gpus": [],
}  # fmt: skip


def page_of(scores: dict[str, Scores], **options: Any) -> str:
    given = {"title": "runs/a", "origin": ORIGIN, "overall": OVERALL, "written": datetime(2024, 2, 3, 4, 5)}
    return report(scores, {name: summary(one) for name, one in scores.items()}, **{**given, **options})


class Elements(HTMLParser):
    """Everything on a page: start tags with their attributes, text by the tag before it, rows of tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append((self.tags[-1][0] if self.tags else "", data))
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_forecast_that_blows_up_is_clipped_and_that_is_said() -> None:
    made = film(rollouts("a", ("x",), lost=True), LEAD)
    velocity = made.components[0]
    assert velocity.outside[0][0] == 0
    share, furthest = velocity.outside[1]
    assert 0.7 < share < 0.8  # of five finite frames four lie beyond but for where a wave crosses zero
    assert abs(furthest) == pytest.approx(1e8, rel=0.1)
    assert velocity.lost[1] == LEAD[-1]
    assert np.isnan(velocity.lost[0])
    assert max(velocity.errors) <= velocity.high - velocity.low
    page = page_of({"a": made_up("a", ("x",), lost=True)})
    assert re.search(r"7\d\.\d % of the predicted values lie beyond the colours", page)
    assert "not finite from lead time 3 on (grey)" in page


@pytest.fixture(scope="module")
def scores() -> dict[str, Scores]:
    """A line with a hostile name, a plane with land and a forecast that is lost, and a volume."""
    return {
        HOSTILE: made_up(HOSTILE, ("x",)),
        "plane": made_up("plane", ("x", "y"), lost=True, land=True),
        "volume": made_up("volume", ("x", "y", "z")),
    }


@pytest.fixture(scope="module")
def page(scores: dict[str, Scores]) -> str:
    return page_of(scores, models=["model: trained on <i>"], options={"seed": None, "suite_seed": 7, "split": "test"})


def test_the_page_holds_everything_it_shows(page: str) -> None:
    found = Elements(page)
    for tag, attributes in found.tags:
        for key in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            value = attributes.get(key, "#")
            assert value.startswith(("#", "data:image/png;base64,")) or value == "data:,", (tag, key, value[:80])
    assert not re.search(r"url\((?!#)|@import|\bfetch\(|XMLHttpRequest|WebSocket|\bimport\(", page)
    (policy,) = (meta["content"] for meta in found.of("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:")
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for attributes in found.of("a") + found.of("use")}
    assert targets <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert not re.search("#010[23][0-9a-f]{2}", page), "a colour that stands in for another is left"


def test_who_does_not_see_or_point_is_served(page: str) -> None:
    found = Elements(page)
    assert found.of("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in found.of("img"))
    assert all(canvas["aria-label"] and canvas["role"] == "img" for canvas in found.of("canvas"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") == "true" for svg in found.of("svg"))
    labelled = [slider["aria-label"] for slider in found.of("input")] + [
        b["aria-label"] for b in found.of("button")[1:]
    ]
    assert labelled.count("Play plane") == 1
    assert len(found.of("canvas")) == 4 + 3 + 3
    assert "prefers-reduced-motion" in page
    assert "@media print" in page


def test_a_name_is_never_more_than_a_name(scores: dict[str, Scores], page: str) -> None:
    named = {"line" if name == HOSTILE else name: one for name, one in scores.items()}
    named["line"] = made_up("line", ("x",))
    options = {"models": ["model: trained on <i>"], "options": {"seed": None, "suite_seed": 7, "split": "test"}}
    found, harmless = Elements(page), Elements(page_of(named, **options))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in harmless.tags]
    assert not any(key.startswith("on") for _, attributes in found.tags for key in attributes)
    assert [text for tag, text in found.text if tag == "h2"][1] == HOSTILE
    assert any(HOSTILE in attributes.get("aria-label", "") for _, attributes in found.tags)
    assert "alert" not in "".join(text for tag, text in found.text if tag == "script")
    assert ("code", ORIGIN["command"]) in found.text


def test_hostile_components_stay_inside_the_data_of_the_script() -> None:
    one = made_up("a")
    names = {"density": HOSTILE}
    renamed = one.rollouts.rename(names)
    renamed[HOSTILE].attrs["units"] = HOSTILE
    found = Elements(page_of({"a": Scores(one.metrics.assign_coords(component=["u", "v", HOSTILE]), renamed)}))
    (meta,) = (json.loads(text) for (tag, text), (_, attributes) in zip_scripts(found) if "data-meta" in attributes)
    assert meta["components"][2]["name"] == meta["components"][2]["unit"] == HOSTILE


def zip_scripts(found: Elements) -> list[tuple[tuple[str, str], tuple[str, dict[str, str]]]]:
    scripts = [tag for tag in found.tags if tag[0] == "script"]
    return list(zip([text for text in found.text if text[0] == "script"], scripts, strict=True))


def test_the_table_holds_the_numbers_of_the_summaries(scores: dict[str, Scores], page: str) -> None:
    summaries = {name: summary(one) for name, one in scores.items()}
    rows = {row[0].strip(): row[1:] for row in Elements(page).rows if len(row) > 15}
    assert summaries.keys() <= rows.keys()
    names = ("model", "other", "persistence", "extrapolation")
    for name, numbers in summaries.items():
        shown = [cell.replace("▲", "").replace("▼", "").split(" (")[0].split("\n")[0].strip() for cell in rows[name]]
        keys = ["one_step_vrmse", *(f"{other}_vrmse" for other in names[1:]), "one_step_ratio"]
        for text, key in zip(shown, keys, strict=False):
            assert float(text) == pytest.approx(numbers[key], rel=6e-3)
        assert float(shown[6]) == pytest.approx(numbers["rollout_vrmse"], rel=6e-3)
        assert shown[7] == ("not finite" if name == "plane" else number(numbers["other_rollout_vrmse"]))
        assert float(shown[10]) == pytest.approx(numbers["rollout_ratio"], rel=6e-3)
        assert "▼" in rows[name][4]
        assert "(best)" in rows[name][0]
        assert sum("(best)" in cell for cell in rows[name][:6]) == 1
        assert shown[-2:] == ["0 of 3", "3 of 3" if name == "plane" else "0 of 3"]


def test_losing_and_best_are_marked() -> None:
    one = made_up()
    numbers = {**summary(one), "persistence_vrmse": 0.01}
    _, (row,) = summary_table({"a": numbers}, {"a": one})
    assert [cell.mark for cell in row.cells[:6]] == ["", "", "best", "", "loses", "loses"]
    (first, second) = verdicts({"a": numbers}, OVERALL)
    assert first.text == (
        "better than the better naive forecast one step ahead on 0 of 1 data set, over rollouts on 1; "
        "geometric mean of VRMSE over persistence 0.333 one step ahead, 0.333 over rollouts."
    )
    assert second.forecast == "other"
    windows, rows = windows_table(numbers)
    assert windows == ["one_step", "6:12"]
    assert rows[0] == ("model", [("0.100 (0.0500 to 0.200)", "best")] * 2)


def test_a_ratio_may_be_nothing_infinite_or_undefined() -> None:
    """A perfect model wins, one that is lost loses, and over a perfect naive forecast there is no ratio."""
    one = made_up()
    numbers = summary(one)
    perfect = {**numbers, "one_step_vrmse": 0.0, "rollout_vrmse": 0.0}
    lost = {**numbers, "one_step_vrmse": None, "rollout_vrmse": None}
    still = {**numbers, "persistence_vrmse": 0.0, "persistence_rollout_vrmse": 0.0}
    every = {"perfect": perfect, "lost": lost, "still": still}
    _, rows = summary_table(every, dict.fromkeys(every, one))
    for column in (4, 10):
        assert [row.cells[column] for row in rows] == [("0", "wins"), ("not finite", "loses"), ("undefined", "")]
    (first, _) = verdicts(every, {})
    assert first.text.endswith("one step ahead on 1 of 3 data sets, over rollouts on 1.")
    page = report(dict.fromkeys(every, one), every, title="a", origin=ORIGIN)
    shown = {row[0].strip(): [row[5].strip(), row[11].strip()] for row in Elements(page).rows if len(row) > 15}
    assert shown["still"] == ["undefined"] * 2
    assert shown["lost"] == ["▲not finite (not better than naive)"] * 2


def test_the_script_takes_the_colours_of_errors_from_the_page(page: str) -> None:
    found = Elements(page)
    (maps,) = (one for one in found.of("script") if one.get("id") == "maps")
    assert maps["data-errors"] == ERRORS
    (text,) = (text for (_, text), (_, tag) in zip_scripts(found) if tag.get("id") == "maps")
    assert ERRORS in json.loads(text)
    assert ERRORS not in (files("morph.report") / "assets" / "player.js").read_text()


def test_what_training_seconds_leave_out_is_said(page: str) -> None:
    said = "of a fine-tuned model those of the fine-tuning, without the training of the model that it began from"
    assert said in page
    one = made_up()
    free = {key: value for key, value in summary(one).items() if key != "cost"}
    assert said not in report({"a": one}, {"a": free}, title="a", origin=ORIGIN)


def test_why_a_vector_has_no_divergence_is_said() -> None:
    one = made_up()
    why = "the axes lat, lon are <not> called x, y, z"
    told = one._replace(metrics=one.metrics.drop_vars("relative_divergence").assign_attrs(no_divergence=why))
    found = Elements(page_of({"a": told, "b": one}))
    assert [text for _, text in found.text if "No divergence" in text] == [f"No divergence: {why}."]


def test_what_the_scores_do_not_hold_is_left_out() -> None:
    one = made_up()
    bare = one.metrics.drop_vars(["spatial_mean", "energy_spectrum", "relative_divergence"])
    numbers = {key: value for key, value in summary(one).items() if key not in ("windows", "cost")}
    page = report({"a": Scores(bare, xr.Dataset())}, {"a": numbers}, title="a", origin=ORIGIN)
    found = Elements(page)
    assert not found.of("canvas")
    assert not found.of("img")
    text = "".join(text for _, text in found.text)
    for title in ("Energy spectrum,", "Means over space", "Divergence", "Over all data", "Truth, prediction, error"):
        assert title not in text
    full = "".join(text for _, text in Elements(page_of({"a": one})).text)
    for title in ("Energy spectrum, density", "Means over space", "Divergence", "Over all data sets", "GFLOP"):
        assert title in full
    curly = one.metrics.assign(relative_divergence=one.metrics.relative_divergence + 0.5)
    assert "Divergence" not in "".join(text for _, text in Elements(page_of({"a": one._replace(metrics=curly)})).text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1.00"), (0.9996, "1.00"), (0.12345, "0.123"), (-0.0012345, "−0.00123"), (12.345, "12.3"),
        (1234.5, "1\u202f234"), (2.5e-7, "2.5·10⁻⁷"), (-3e12, "−3.0·10¹²"),
        (None, "not finite"), (np.inf, "not finite"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_the_command_writes_it_last(call: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    Morph(dim=32, depth=1, heads=4, capacity=Capacity(3, 3, 2, 16)).save_pretrained(tmp_path / "small")
    (tmp_path / "waves.yaml").write_text(yaml.safe_dump({"_target_": "tests.made_up.Waves", "batch_size": 4}))
    options = ("checkpoint=small", "data=waves.yaml", "figures=false", "context=1", "run_dir=out")
    done = call("morph.evaluate", *options, "report=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out" / "report.html"
    assert f"Report: out/report.html ({path.stat().st_size / 1e6:.1f} MB)" in done.stdout
    assert path.stat().st_mtime_ns >= (tmp_path / "out" / "metrics.nc").stat().st_mtime_ns
    found = Elements(path.read_text())
    text = "".join(text for _, text in found.text)
    origin = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert origin["command"] in text
    assert f"Python {origin['python']}" in text
    assert "normalisation: context" in text
    assert [text.strip() for tag, text in found.text if tag == "h2"][:2] == ["Summary", "waves"]


def test_colours_that_stand_in_are_what_the_script_computes(scores: dict[str, Scores]) -> None:
    """Indices of truth are its codes, those of a perfect forecast are the truth's, of no error the middle."""
    data = scores["plane"].rollouts
    same = xr.concat([data.sel(source=["truth"]), data.sel(source=["truth"]).assign_coords(source=["model"])], "source")
    for name in same:
        same[name].attrs = data[name].attrs
    made = film(same, LEAD)
    for one in made.components:
        truth, predicted, error = (palette_indices(made, one, 0, of) for of in ("truth", "prediction", "error"))
        assert np.array_equal(truth, predicted)
        assert set(np.unique(error)) == {127, 255}
