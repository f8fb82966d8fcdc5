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

from data_adapters.inspect.findings import Found
from data_adapters.inspect.looking import COMMAND, OPTIONS, commands, full_options, look, looking_into, proposed
from data_adapters.inspect.mapping import MOST_FIELDS
from data_adapters.inspect.opening import open_splits
from data_adapters.inspect.proposal import CONTEXT, TARGET, title_name, yaml_text
from data_adapters.inspect.question import Question
from data_adapters.inspect.report import print_found, print_splits
from morph.terminal import PlainConsole, printable

__all__ = ["main"]

_OPTIONS: dict[str, Any] = {"out": None, "overwrite": False, **OPTIONS}
_HELP = f"""Look into files, and write the YAML with which they are trained on.

  {COMMAND} my.nc
  {COMMAND} 'runs/*.h5' dims=[sample,time,x,y] dt=0.05 boundary=periodic
  {COMMAND} https://data.org/sst.zarr fields=[sst,ssh] out=sst.yaml

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
    console = PlainConsole()
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
        sys.exit(f"error: {printable(str(error))}")
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
    # A path that starts with a dash is an option of another spelling.
    given |= {path: None for path in paths if path.startswith("-")}
    if not paths:
        raise ValueError(f"expected a path, a URL, a pattern or a folder, as in {COMMAND} my.nc")
    options = full_options({str(key): value for key, value in given.items()}, _OPTIONS)
    return paths, options


def _run(console: Console, paths: Sequence[str], options: Mapping[str, Any]) -> None:
    with looking_into(paths, options) as found:
        _inspect(console, paths, found, options)


def _inspect(console: Console, paths: Sequence[str], found: Found, options: Mapping[str, Any]) -> None:
    out = Path(options["out"] or f"{title_name(found)}.yaml")
    if out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"out: expected the name of a YAML file, found {out}")
    with console.status("reading"):
        seen = look(found, options)
    print_found(console, found, seen.layout, seen.ranges)
    proposal = proposed(found, seen, options).proposal
    text = yaml_text(proposal, f"Proposed by {COMMAND} {shlex.join(paths)}: read it before it is trained on.")
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


def _ask(console: Console, question: Question, arguments: Sequence[str]) -> None:
    """The question, and commands that answer it."""
    console.print(f"\n{question.text}", soft_wrap=True)
    for command, meaning in commands(question, arguments).items():
        console.print(f"  {command}", soft_wrap=True)
        if meaning:
            console.print(f"      {meaning}", soft_wrap=True)
