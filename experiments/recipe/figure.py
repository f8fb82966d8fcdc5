"""The figure: error over lead time, each recipe, per system."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.recipe import judge
from experiments.recipe.rows import HELD_OUT, MIX, ROWS
from morph.provenance import write_whole

matplotlib.use("Agg")

__all__ = ["write"]

_STYLE = {"published": "#7f7f7f", "fno": "#1f77b4", "unet": "#2ca02c", "default": "#d62728"}
_NAIVE = {"persistence": ":", "extrapolation": "--"}
_HIGHEST = 10.0


def write(out: Path, rows: Sequence[str] = tuple(_STYLE)) -> None:
    """errors.png: median over trajectories and seeds of the VRMSE, mean over fields, at each step of the rollouts."""
    figure = Figure(figsize=(16, 6.4), layout="constrained")
    axes = figure.subplots(2, 5).flatten()
    for axis, system in zip(axes, (*MIX, *HELD_OUT), strict=True):
        shown = None
        for row in rows:
            stored = [judge.errors(path, system) for path in sorted((out / "rows").glob(f"{row}-*.nc"))]
            kept = [each for each in stored if each is not None]
            if not kept:
                continue
            # Of the row that sees most frames: one frame cannot be extrapolated.
            shown = kept[0] if shown is None or kept[0].sizes["lead_time"] < shown.sizes["lead_time"] else shown
            errors = np.concatenate([each.rollout.sel(forecast="model").transpose("trajectory", ...) for each in kept])
            median = np.median(np.nan_to_num(errors, nan=np.inf), 0)
            axis.plot(
                np.arange(1, len(median) + 1), median, color=_STYLE.get(row), linewidth=1.8, label=ROWS[row].title
            )
        for name, line in _NAIVE.items() if shown is not None else ():
            median = shown.rollout.sel(forecast=name).median("trajectory")
            axis.plot(np.arange(1, len(median) + 1), median, line, color="black", linewidth=1.2, label=name)
        axis.set_yscale("log")
        axis.set_ylim(top=min(_HIGHEST, axis.get_ylim()[1]))
        axis.set_title(system + ("" if system in MIX else " (held out)"), fontsize=11)
        axis.grid(alpha=0.25, which="both", linewidth=0.5)
    for axis in axes[5:]:
        axis.set_xlabel("frames ahead")
    for axis in axes[::5]:
        axis.set_ylabel("VRMSE")
    handles: dict[str, object] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles) or 1, frameon=False
    )
    content = io.BytesIO()
    figure.savefig(content, dpi=80, format="png")
    write_whole(out / "errors.png", content.getvalue())
