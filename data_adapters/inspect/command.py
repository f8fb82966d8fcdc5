"""The command: options, what is printed in which order, how it ends."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from yaml import YAMLError

from data_adapters.handles import HANDLES
from data_adapters.inspect.axes import Layout, layout_of
from data_adapters.inspect.containers import HDF5, WELL, Container, find_container
from data_adapters.inspect.findings import Found, find_labelled
from data_adapters.inspect.hdf5 import find_hdf5, find_well
from data_adapters.inspect.mapping import MOST_FIELDS, candidates, chosen
from data_adapters.inspect.opening import open_splits
from data_adapters.inspect.proposal import CONTEXT, TARGET, propose, title_name, yaml_text
from data_adapters.inspect.question import Question
from data_adapters.inspect.ranges import Range, range_of
from data_adapters.inspect.record import record_of
from data_adapters.inspect.report import print_found, print_splits
from data_adapters.labelled import DATASETS, Opening
from data_adapters.remote import is_remote

__all__ = ["main"]

_OPTIONS: dict[str, Any] = {
    "out": None, "overwrite": False, "name": None, "dims": None, "fields": None, "dt": None, "boundary": None,
    "missing": None, "batch_size": None, "group": None, "engine": None, "cache": None, "scan": None,
}  # fmt: skip
_COMMAND = "python -m data_adapters.inspect"
_HELP = f"""Look into files, and write the YAML with which they are trained on.

  {_COMMAND} my.nc
  {_COMMAND} 'runs/*.h5' dims=[sample,time,x,y] dt=0.05 boundary=periodic
  {_COMMAND} https://data.org/sst.zarr fields=[sst,ssh] out=sst.yaml

A path, URL, pattern (in quotes) or folder: NetCDF 3 and 4, Zarr, HDF5 of any layout, a data set of The Well.
What a file does not say is asked back, with the answers as commands (exit code 2); nothing is guessed silently.

Options and their defaults (option=value):

  out=<name>.yaml    the YAML that is written
  overwrite=false    replace it where it is there
  name=null          of the data set; default: that of the file
  dims=null          meaning of an array's axes in index order: sample, time, channel, and names of axes of space;
                     needed where the file does not say: dims=[sample,time,x,y]
  fields=null        which fields, in this order: names that are shown, or entries as in a data set's YAML:
                     'fields=[{{name: velocity, from: [vx, vy]}}, T]'; default: all, where they fit the shipped models
  dt=null            time between two frames; default: from the file's times
  boundary=null      periodic, open or wall, one word or 'boundary={{x: periodic, y: wall}}'
  missing=null       refuse, fill or mask, what to do about NaN; default: mask where some were seen, else refuse
  batch_size=null    windows per batch; default: so that a batch takes 64 MB at most
  group=null         of the file, in which the variables lie
  engine=null        of xarray, for other formats than these
  cache=null         folder where files behind a URL are kept
  scan=256           MB that are read, at most, for ranges and NaN; 32 for a URL
"""


def main() -> None:
    """Run the command; ends with 0, with 1 after an error, with 2 after a question."""
    arguments = sys.argv[1:]
    if not arguments or {"--help", "-h"} & set(arguments):
        print(_HELP, end="")
        sys.exit(0 if arguments else 2)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160  # a log file has no width
    try:
        paths, options = _parsed(arguments)
        _run(console, paths, options)
    except Question as question:
        _ask(console, question, arguments)
        sys.exit(2)
    except (ValueError, OSError, ImportError, OmegaConfBaseException, YAMLError) as error:
        if os.environ.get("MORPH_TRACEBACK", "0") != "0":
            raise
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _parsed(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    is_option = [bool(re.match(r"[A-Za-z_][\w.]*=", text)) and not Path(text).exists() for text in arguments]
    paths = [text for text, option in zip(arguments, is_option, strict=True) if not option]
    given: dict[Any, Any] = {}
    for text in (text for text, option in zip(arguments, is_option, strict=True) if option):
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([text]))
        except (YAMLError, OmegaConfBaseException) as error:
            key = text.partition("=")[0]
            raise ValueError(f"{key}: expected a value or a list, found {text!r}; quote it for the shell") from error
        assert isinstance(parsed, dict)
        given |= parsed
    if unknown := {str(key) for key in given} - set(_OPTIONS) | {path for path in paths if path.startswith("-")}:
        raise ValueError(f"expected options of {', '.join(_OPTIONS)}, found {', '.join(sorted(unknown))}; see --help")
    if not paths:
        raise ValueError(f"expected a path, a URL, a pattern or a folder, as in {_COMMAND} my.nc")
    options = {**_OPTIONS, **{str(key): value for key, value in given.items()}}
    expected: tuple[tuple[str, Any, str], ...] = (
        ("overwrite", bool, "true or false"),
        ("batch_size", int, "a positive integer"),
        ("scan", int, "a number of MB"),
        ("boundary", str | dict, "a word, or {x: periodic, y: wall}"),
        ("dims", list, "a list, dims=[sample,time,x,y]"),
    )
    for key, kind, noun in expected:
        value = options[key]
        wrong = not isinstance(value, kind) or (kind is int and (value is True or value is False or value < 1))
        if value is not None and wrong:
            raise ValueError(f"{key}: expected {noun}, found {value!r}")
    for key in ("out", "name", "group", "engine", "cache"):
        options[key] = None if options[key] is None else str(options[key])
    if options["dims"] is not None:
        options["dims"] = [str(dim) for dim in options["dims"]]
    return paths, options


def _run(console: Console, paths: Sequence[str], options: Mapping[str, Any]) -> None:
    container = find_container(paths, options["cache"], options["engine"])
    found: Found | None = None
    try:
        found = _find(container, options)
        _inspect(console, paths, found, options)
    finally:
        files = {*container.files, *(file for file, _ in found.places)} if found else set(container.files)
        group = found.group if found else options["group"]
        HANDLES.close(files)
        DATASETS.close(Opening(file, container.engine, group) for file in files)


def _inspect(console: Console, paths: Sequence[str], found: Found, options: Mapping[str, Any]) -> None:
    out = Path(options["out"] or f"{title_name(found)}.yaml")
    if out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"out: expected the name of a YAML file, found {out}")
    question: Question | None = None
    layout: Layout | None = None
    try:
        layout = layout_of(found, options["dims"])
    except Question as asked:
        question = asked
    with console.status("reading"):
        ranges = _ranges(found, layout, options["scan"])
    print_found(console, found, layout, ranges)
    if question is not None or layout is None:
        raise question or AssertionError("a layout or a question")
    fields = chosen(found, candidates(found, layout), options["fields"], layout)
    record = record_of(found, layout, fields, options["dt"])
    proposal = propose(found, layout, fields, ranges, record, options)
    text = yaml_text(proposal, f"Proposed by {_COMMAND} {shlex.join(paths)}: read it before it is trained on.")
    if out.exists() and not options["overwrite"]:
        raise ValueError(f"{out}: it is there already; replace it with overwrite=true, or name another with out=...")
    with console.status("opening"):
        splits = open_splits(text, sum(proposal.window))
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    console.print()
    console.print(text.rstrip(), soft_wrap=True)
    console.print(f"\n{out} opens: trajectories, frames, fields, components, depth, height, width", soft_wrap=True)
    print_splits(console, splits)
    shortest = min(split.shape[1] for split in splits.values())
    extra = ""
    if shortest < CONTEXT + TARGET:
        extra = f" window.context={max(1, shortest - TARGET)} window.target={TARGET}"
    if proposal.num_fields > MOST_FIELDS:
        extra += f" model.capacity.max_fields={proposal.num_fields}"
    console.print("\nNext:", soft_wrap=True)
    console.print(f"  python -m data_adapters.check dataset={shlex.quote(str(out))}", soft_wrap=True)
    console.print(
        f"  python -m morph.train data={shlex.quote(str(out))} run_dir=runs/{shlex.quote(out.stem)}{extra}",
        soft_wrap=True,
        markup=False,
    )


def _find(container: Container, options: Mapping[str, Any]) -> Found:
    if container.kind == WELL:
        if options["group"] is not None:
            raise ValueError("group: it has no effect, The Well's layout has its own groups; leave it out")
        return find_well(container)
    return (
        find_hdf5(container, options["group"]) if container.kind == HDF5 else find_labelled(container, options["group"])
    )


def _ranges(found: Found, layout: Layout | None, scan: int | None) -> dict[str, Range]:
    """Of all arrays that are on a grid, each with its share of what may be read."""
    coordinates = set(layout.coordinates.values()) if layout else set()
    arrays = [a for a in found.arrays.values() if len(a.shape) > 1 and 0 not in a.shape and a.name not in coordinates]
    budget = 2**20 * (scan or (32 if is_remote(found.container.files[0]) else 256)) // max(1, len(arrays))
    return {a.name: range_of(a, layout.dims.get(a.name) if layout else None, found, budget) for a in arrays}


def _ask(console: Console, question: Question, arguments: Sequence[str]) -> None:
    """The question, and commands that answer it."""
    console.print(f"\n{question.text}", soft_wrap=True)
    for answer, meaning in question.answers.items():
        if question.replaces_paths:
            kept = [text for text in arguments if re.match(r"[A-Za-z_][\w.]*=", text)]
            words = [_quoted(answer), *map(_quoted, kept)]
        else:
            key = answer.partition("=")[0]
            kept = [text for text in arguments if not text.startswith(f"{key}=")]
            words = [*map(_quoted, kept), _quoted(answer)]
        console.print(f"  {_COMMAND} {' '.join(words)}", soft_wrap=True)
        if meaning:
            console.print(f"      {meaning}", soft_wrap=True)


def _quoted(text: str) -> str:
    """For a shell; brackets stay as the project's commands have them."""
    return text if re.fullmatch(r"[\w@%+=:,./\[\]-]+", text) else shlex.quote(text)
