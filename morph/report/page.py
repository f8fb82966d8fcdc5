"""All of an evaluation on one page."""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, NamedTuple

import yaml
from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from morph.report.charts import Chart, charts, ratio_chart
from morph.report.colours import NO_DATA, Line, gradient, lines_of, lookup
from morph.report.frames import Film, film
from morph.report.panels import ERRORS, Picture, aspect, pictures
from morph.report.skill import forecasts, number, ratios, summary_table, verdicts, windows_table
from morph.scoring import Scores

__all__ = ["report"]

_MAPS = ("viridis", "RdBu_r", ERRORS)


class _Section(NamedTuple):
    """A data set on the page; no_divergence: why a vector field of it has none, empty where that is not so."""

    key: str
    name: str
    facts: list[str]
    zero_shot: bool
    windows: tuple[list[str], Any]
    charts: list[Chart]
    no_divergence: str
    pictures: list[Picture]
    film: Film | None
    meta: dict[str, Any]
    packed: str


def report(
    scores: Mapping[str, Scores],
    summaries: Mapping[str, Mapping[str, Any]],
    *,
    title: str,
    models: Sequence[str] = (),
    origin: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    overall: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    written: datetime | None = None,
) -> str:
    """A page of HTML that holds everything it shows: tables, charts, pictures and animations.

    What the scores do not hold - rollouts, spectra, windows of lead time, cost - is left out.

    Args:
        scores: By data set.
        summaries: By data set, see `morph.summary.summarise`, with `zero_shot`.
        title: The checkpoint that is judged.
        models: Lines on what the model and compared checkpoints were trained with.
        origin: Command, revision, versions and hardware, see `morph.provenance.origin`.
        options: The resolved configuration.
        overall: Over all data sets, by window and forecast.
        written: When; None: the present moment.
    """
    names = forecasts(next(iter(summaries.values()))) if summaries else []
    lines = lines_of([*dict.fromkeys(["model", *names])])
    groups, rows = summary_table(summaries, scores)
    keys = _keys(list(scores))
    environment = Environment(
        loader=_Pages(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "short": _short, "yaml": _yaml, "window": _window}
    when = (written or datetime.now().astimezone()).replace(microsecond=0)
    return environment.get_template("report.html").render(
        title=title,
        date=f"{when:%d %B %Y, %H:%M}".lstrip("0"),
        iso=when.isoformat(),
        lines=lines,
        verdicts=verdicts(summaries, overall or {}),
        groups=groups,
        rows=rows,
        keys=keys,
        ratios=ratio_chart({name: ratios(numbers) for name, numbers in summaries.items()}, lines),
        overall={window: of for window, of in (overall or {}).items() if of},
        sections=[
            _section(name, keys[name], of_dataset, summaries[name], {one: lines[one] for one in names})
            for name, of_dataset in scores.items()
        ],
        summaries=summaries,
        cost=_cost(summaries),
        models=list(models),
        origin=origin,
        options=options or {},
        gradients={name: gradient(name) for name in _MAPS},
        maps={name: base64.b64encode(lookup(name).tobytes()).decode() for name in _MAPS},
        error_map=ERRORS,
        no_data="#{:02x}{:02x}{:02x}".format(*NO_DATA),
        style=Markup(_text("report.css")),
        script=Markup(_text("player.js") + _text("theme.js")),
    )


class _Pages(BaseLoader):
    """Templates that lie beside this module, wherever it is installed."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, None, None]:
        if not template.endswith(".html"):
            raise TemplateNotFound(template)
        return _text(template), None, None


def _text(name: str) -> str:
    return (files("morph.report") / "assets" / name).read_text(encoding="utf-8")


def _short(value: float) -> str:
    return f"{value:.3g}"


def _window(name: str) -> str:
    """A window of lead time in words."""
    first, _, last = name.partition(":")
    return f"steps {first} to {last}" if last else name.replace("_", " ")


def _yaml(options: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)


def _keys(names: Sequence[str]) -> dict[str, str]:
    """What each data set is called in addresses: its own name as far as that is possible."""
    found: dict[str, str] = {}
    for i, name in enumerate(names):
        key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        found[name] = (
            f"data-{key}" if key and f"data-{key}" not in found.values() else f"data-{i + 1}-{key}".rstrip("-")
        )
    return found


def _section(
    name: str, key: str, of_dataset: Scores, numbers: Mapping[str, Any], lines: Mapping[str, Line]
) -> _Section:
    metrics, rollouts = of_dataset
    shown = film(rollouts, metrics.lead_time.values) if rollouts.data_vars else None
    return _Section(
        key,
        name,
        _facts(of_dataset),
        bool(numbers["zero_shot"]),
        windows_table(numbers),
        charts(metrics, lines, key),
        str(metrics.attrs.get("no_divergence", "")),
        [] if shown is None else pictures(shown),
        shown,
        {} if shown is None else _meta(shown, lines),
        "" if shown is None else base64.b64encode(shown.packed).decode(),
    )


def _facts(of_dataset: Scores) -> list[str]:
    metrics, rollouts = of_dataset
    facts = []
    if rollouts.data_vars:
        first = rollouts[next(iter(rollouts.data_vars))]
        axes = [dim for dim in first.dims if dim not in ("source", "trajectory", "time")]
        facts.append(f"{len(axes)}-D, {' × '.join(str(first.sizes[axis]) for axis in axes)} points")
    count, steps, context = metrics.sizes["trajectory"], metrics.sizes["lead_time"], metrics.attrs["context_frames"]
    facts.append(f"{count} trajector{'y' if count == 1 else 'ies'} of {steps} steps, dt {_short(metrics.attrs['dt'])}")
    facts.append(f"rollouts start after {context} frame{'' if context == 1 else 's'}")
    units = metrics.unit.values if "unit" in metrics.coords else [""] * metrics.sizes["field"]
    fields = [
        f"{field} [{unit}]" if unit else str(field) for field, unit in zip(metrics.field.values, units, strict=True)
    ]
    facts.append(f"field{'' if len(fields) == 1 else 's'}: {', '.join(fields)}")
    return facts


def _meta(shown: Film, lines: Mapping[str, Line]) -> dict[str, Any]:
    """What the script has to know of an animation."""
    return {
        "lead": [float(lead) for lead in shown.lead_time],
        "models": list(shown.models),
        "lines": [lines[name].css for name in shown.models],
        "trajectories": shown.trajectories,
        "components": [
            {
                "name": one.name,
                "unit": one.unit,
                "low": one.low,
                "high": one.high,
                "map": one.colours,
                "errors": list(one.errors),
                "error": one.error,
                "notes": [_clipped(one, i) for i in range(len(shown.models))],
            }
            for one in shown.components
        ],
        "views": [
            {
                "axis": view.axis,
                "planes": list(view.positions),
                "rows": view.rows,
                "columns": view.columns,
                "y": [float(place) for place in view.y],
                "x": [float(place) for place in view.x],
                "aspect": aspect(shown, i) if view.rows else 1.5,
            }
            for i, view in enumerate(shown.views)
        ],
    }


def _clipped(component: Any, model: int) -> str:
    """What of a forecast the colours do not show."""
    share, furthest = component.outside[model]
    lost = component.lost[model]
    said = []
    if share:
        percent = f"{100 * share:.1f} %" if share >= 1e-3 else "less than 0.1 %"
        said.append(
            f"{percent} of the predicted values lie beyond the colours, as far as {number(furthest)}, "
            "and are clipped to them"
        )
    if lost == lost:
        said.append(f"not finite from lead time {_short(lost)} on (grey)")
    return "; ".join(said)


def _cost(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters and training of each forecast that has any, and of each data set what a step costs."""
    known = {name: numbers["cost"] for name, numbers in summaries.items() if numbers.get("cost")}
    if not known:
        return {}
    names = [name for name in next(iter(known.values())) if any(of[name].get("parameters") for of in known.values())]
    return {"forecasts": names, "first": next(iter(known.values())), "datasets": known}
