"""`python -m data_adapters.suite`: generate the embedded suite."""

import errno
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from data_adapters.suite.stored import check_stored
from data_adapters.suite.systems import SPLITS, SUITE_VERSION, SYSTEMS, System, check_level, check_seed, find_system

_CONF = str(Path(__file__).resolve().parents[2] / "conf")


@dataclass(frozen=True)
class _Options:
    level: str
    systems: tuple[System, ...]
    seed: int
    out: Path
    overwrite: bool

    @classmethod
    def of(cls, config: DictConfig) -> "_Options":
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        check_level(plain["level"])
        check_seed(plain["seed"])
        names = plain["systems"]
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not names:
            raise ValueError(f"systems: expected one or more of {', '.join(SYSTEMS)}, found {names!r}")
        if not isinstance(plain["overwrite"], bool):
            raise ValueError(f"overwrite: expected true or false, found {plain['overwrite']!r}")
        if not isinstance(plain["out"], str) or not plain["out"]:
            raise ValueError(f"out: expected the path of a folder, found {plain['out']!r}")
        out = Path(plain["out"]).expanduser()
        return cls(
            plain["level"],
            tuple(find_system(name) for name in dict.fromkeys(names)),
            plain["seed"],
            out,
            plain["overwrite"],
        )

    def target(self, chosen: System) -> Path:
        return self.out / self.level / chosen.name


def _missing(options: _Options) -> list[System]:
    """What is to be generated; everything that can be checked before the work is checked here."""
    nearest = next(path for path in (options.out, *options.out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"out: expected the path of a folder, found {nearest}, which is a file")
    versions: dict[str, str | int] = {"generator_version": version("exponax"), "suite_version": SUITE_VERSION}
    missing = []
    for chosen in options.systems:
        target = options.target(chosen)
        if not target.exists() or options.overwrite:
            missing.append(chosen)
        else:
            check_stored(target, chosen.name, options.level, options.seed, **versions)
    needed, free = (
        sum(chosen.num_bytes(options.level, split) for chosen in missing for split in SPLITS),
        shutil.disk_usage(nearest).free,
    )
    if needed > free:
        raise ValueError(
            f"out: expected {needed / 1e6:.0f} MB of free space for level={options.level}, found {free / 1e6:.0f} MB "
            f"in {nearest}; free some, or choose another `out`, fewer `systems` or a smaller `level`"
        )
    return missing


def _generate(options: _Options, console: Console) -> None:
    missing = _missing(options)
    if missing:
        console.print(f"Compiling and simulating {len(missing)} systems at level {options.level} ...")
    # JAX is imported here, so that help and errors come at once.
    from data_adapters.suite.generate import compile_program, generate

    workers = min(4, os.cpu_count() or 1)
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        ThreadPoolExecutor(1) as compiler,
        ThreadPoolExecutor(workers) as pool,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        programs = {chosen.name: compiler.submit(compile_program, chosen, options.level) for chosen in missing}
        try:
            for chosen in options.systems:
                start, target = perf_counter(), options.target(chosen)
                if chosen not in missing:
                    console.print(f"{chosen.name:<9}  already in {target}", soft_wrap=True)
                    continue
                total = sum(chosen.levels[options.level].num_trajectories.values())
                task = bar.add_task(chosen.name, total=total)
                generate(
                    chosen,
                    options.level,
                    options.seed,
                    target,
                    program=programs[chosen.name].result(),
                    pool=pool,
                    workers=workers,
                    advance=partial(bar.advance, task),
                    overwrite=options.overwrite,
                )
                bar.remove_task(task)
                text = f"{total:>5} trajectories  {_size(target)}  {perf_counter() - start:6.1f} s  {target}"
                console.print(f"{chosen.name:<9}  {text}", soft_wrap=True)
        finally:
            for program in programs.values():
                program.cancel()


def _size(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:8.1f} MB"


def _run(config: DictConfig) -> None:
    start = perf_counter()
    console = Console(highlight=False, markup=False)
    try:
        if find_spec("exponax") is None:
            raise ValueError('exponax, which generates the data, is not installed: pip install "morph[suite]"')
        options = _Options.of(config)
        _generate(options, console)
    except (ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(
            f"error: out: {_reason(error)}; nothing incomplete is left behind: choose another `out` or free some space"
        )
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing incomplete is left behind")
    folder = options.out / options.level
    console.print(
        f"{len(options.systems)} data sets  {_size(folder)}  {perf_counter() - start:.1f} s  {folder}", soft_wrap=True
    )


def _reason(error: OSError) -> str:
    # h5py reports the number of the system's error in the text only.
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EROFS):
        if error.errno == code or f"errno = {code}," in str(error):
            return os.strerror(code) + (f": {error.filename}" if error.filename else "")
    return str(error)


def main() -> None:
    """Run the command."""
    # The data do not depend on the machine's accelerators, and leave them to others.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated; nothing incomplete is left behind"))
    lines = "\n".join(f"  {name:<10} {find_system(name).summary}" for name in SYSTEMS)
    OmegaConf.register_new_resolver("suite_systems", lambda: lines, replace=True)
    hydra.main(version_base="1.3", config_path=_CONF, config_name="suite")(_run)()


if __name__ == "__main__":
    main()
