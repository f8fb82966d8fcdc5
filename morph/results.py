"""What an evaluation leaves: files, and tables in the terminal."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console
from rich.measure import Measurement

from morph.figures import plot_ensemble, plot_error_growth, plot_overview, plot_rollout, png
from morph.provenance import write_whole
from morph.scoring import Scores
from morph.tables import ensemble_table, error_table, overall_table, valid_table
from morph.terminal import PlainConsole

__all__ = ["print_tables", "write_results"]


def write_results(
    folder: Path,
    scores: Mapping[str, Scores],
    summaries: Mapping[str, Mapping[str, Any]],
    all_in_one: Mapping[str, Any],
    figures: bool,
) -> None:
    """Write metrics.nc, rollout.nc, summary.json, overall.json, and the figures.

    Everything is made in memory first: HDF5 cannot be stopped in the middle of a file that finds the disk full.

    Args:
        folder: Where.
        scores: By data set.
        summaries: By data set, see `morph.summary.summarise`.
        all_in_one: See `morph.lead_windows.overall`.
        figures: Whether pictures are drawn.
    """
    files: dict[str, str | bytes | memoryview] = {
        "metrics.nc": _netcdf({name: of_dataset.metrics for name, of_dataset in scores.items()}),
        "rollout.nc": _netcdf({name: of_dataset.rollouts for name, of_dataset in scores.items()}),
        "summary.json": json.dumps(summaries, indent=2, allow_nan=False) + "\n",
        "overall.json": json.dumps(all_in_one, indent=2, allow_nan=False) + "\n",
    }
    if figures:
        (folder / "figures").mkdir(exist_ok=True)
        files["figures/overview.png"] = png(plot_overview(summaries))
        for name, (metrics, rollouts) in scores.items():
            files[f"figures/{name}_error.png"] = png(plot_error_growth(metrics))
            if "crps" in metrics:
                files[f"figures/{name}_ensemble.png"] = png(plot_ensemble(metrics))
            if rollouts.data_vars:
                files[f"figures/{name}_rollout.png"] = png(plot_rollout(rollouts))
    for name, content in files.items():
        write_whole(folder / name, content)


def _netcdf(datasets: dict[str, xr.Dataset]) -> memoryview:
    """A file with one group per data set: `xarray.open_dataset(path, group=name)`."""
    tree = xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in datasets.items()})
    return tree.to_netcdf(engine="h5netcdf")


def print_tables(
    console: Console,
    summaries: Mapping[str, Mapping[str, Any]],
    all_in_one: Mapping[str, Any],
    windows: Iterable[str],
    valid_threshold: float,
    ensemble: bool,
) -> None:
    """One step ahead, over rollouts, valid times, ensembles, and all data sets in one."""
    tables = [error_table(summaries, ahead) for ahead in ("one_step", "rollout")]
    tables.append(valid_table(summaries, valid_threshold))
    if ensemble:
        tables.append(ensemble_table(summaries))
    unreached = [window for window in windows if not any(window in one["windows"] for one in summaries.values())]
    tables.append(overall_table(all_in_one, len(summaries), unreached))
    for table in tables:
        # A number that is cut off is none: lines that are too long for a terminal go on in the next one.
        wide = Measurement.get(console, console.options.update(max_width=400), table).maximum
        PlainConsole(markup=True, highlight=True, width=max(console.width, wide)).print(table, "", sep="\n")
