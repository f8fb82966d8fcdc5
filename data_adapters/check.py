"""`python -m data_adapters.check`: read data sets once, whole, before a long run; store their statistics."""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_adapters.files import find_files
from data_adapters.grid import GridAdapter
from data_adapters.hdf5 import split_files
from data_adapters.probe import probe
from data_adapters.remote import local_copies
from data_adapters.splits import SPLITS
from data_adapters.statistics_file import settle_statistics
from data_adapters.survey import Survey, survey
from data_adapters.survey_table import field_table, findings, numbers_of, rule_in_words, split_table
from morph.command import command
from morph.data.catalogue import DatasetConfig, find_datasets, open_split, prepare
from morph.provenance import origin, write_whole
from morph.terminal import PlainConsole


@command("check", spellings={"dataset": "data"})
def main(config: DictConfig) -> None:
    """Survey each data set, settle its statistics and print what was found; exit code 1 where there is an error."""
    if config.json and not Path(config.json).absolute().parent.is_dir():
        raise ValueError(f"json: there is no folder {Path(config.json).absolute().parent}")
    options = {
        "data_dir": str(Path(config.data_dir).absolute()),
        "level": config.level,
        "suite_seed": config.suite_seed,
    }
    datasets = find_datasets(config.data, options)
    console = PlainConsole()
    if not console.is_terminal:
        console.width = 140  # a log file has no width
    numbers: dict[str, Any] = {}
    for name, dataset in datasets.items():
        start = perf_counter()
        found = _survey(name, dataset, console)
        words, used = settle_statistics(found, partial(_open, name, dataset, "train"), write=config.statistics)
        seconds = perf_counter() - start
        numbers[name] = {**numbers_of(found, words, used), "seconds": seconds}
        count = sum(of_split.trajectories for of_split in found.splits.values())
        console.print(f"{name}: {count:,} trajectories, {decimal(found.num_bytes)} of values, {seconds:.1f} s")
        if found.splits:
            console.print()
            console.print(split_table(found), "", field_table(found, used), "", sep="\n")
            console.print(f"splits: {rule_in_words(found)}\nstatistics: {words}", soft_wrap=True)
        for line in findings(found):
            console.print(line, soft_wrap=True)
        console.print("" if found.errors else "ok\n")
    if config.json:
        write_whole(Path(config.json), json.dumps({**origin(), "datasets": numbers}, indent=2) + "\n")
        console.print(f"Numbers in {config.json}")
    if failed := {name: len(entry["errors"]) for name, entry in numbers.items() if entry["errors"]}:
        sys.exit("error: " + ", ".join(f"{count:,} in {name}" for name, count in failed.items()))


def _survey(name: str, dataset: DatasetConfig, console: Console) -> Survey:
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}")
    with Progress(text, *columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        try:
            prepare(dataset)
        except (ValueError, OSError, InstantiationException) as error:
            return Survey(errors=[str(_cause(error))])
        warnings = []
        try:
            refused = probe(_files(dataset))
        except OSError as error:
            refused, warnings = {}, [f"files were not opened in another process first: {error}"]
        if refused:
            return Survey(
                errors=[
                    f"{file}: expected a readable HDF5 file, found that HDF5 hangs or crashes on it: {reason}; "
                    "fetch or generate it again, or remove it; the data set was not opened further"
                    for file, reason in refused.items()
                ]
            )
        found = survey(
            partial(_open, name, {**dataset, "tolerant": True}),
            dataset.get("missing", "refuse"),
            advance=lambda frames, total: bar.update(task, advance=frames, total=total),
        )
        found.warnings += warnings
        return found


def _files(dataset: DatasetConfig) -> list[str]:
    """Local files and copies of a data set, as far as they can be known before its reader is made."""
    cache, found = dataset.get("cache"), []
    for split in SPLITS if "path" in dataset else ("all",):
        # What is wrong the reader raises again, and says what it means; a split that is absent hides no other.
        with suppress(ValueError, OSError, TypeError, AttributeError):
            if "path" in dataset:
                found += local_copies(split_files(dataset["path"], split), cache)
            elif "files" in dataset:
                found += local_copies(find_files(dataset["files"], dataset.get("order", "numeric")), cache)
    return found


def _open(name: str, dataset: Mapping[str, Any], split: str) -> GridAdapter:
    """
    Raises:
        FileNotFoundError: As the reader says.
        ValueError: As the reader says; or the data set has another reader, which cannot be looked into.
    """
    try:
        reader = get_object(dataset["_target_"])
    except Exception as error:
        raise ValueError(f"data set {name!r}: _target_: there is no class {dataset['_target_']}") from error
    if not (isinstance(reader, type) and issubclass(reader, GridAdapter)):
        raise ValueError(
            f"data set {name!r}: expected a _target_ that is made of data_adapters.grid.GridAdapter, found "
            f"{dataset['_target_']}, which check cannot look into"
        )
    try:
        adapter = open_split(dataset, split, name)
    except InstantiationException as error:
        raise _cause(error) from error
    assert isinstance(adapter, GridAdapter)
    return adapter


def _cause(error: Exception) -> Exception:
    """What a constructor raised, without Hydra's wrapping."""
    cause = error.__cause__ if isinstance(error, InstantiationException) else error
    return cause if isinstance(cause, ValueError | OSError) else ValueError(str(cause or error))


if __name__ == "__main__":
    main()
