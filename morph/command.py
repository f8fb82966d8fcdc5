"""A function of a configuration as a command: Hydra's options, one clear message for what a user can mend."""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from morph.processes import current
from morph.terminal import printable

__all__ = ["command", "defaults", "given"]

_CONF = str(Path(__file__).resolve().parent.parent / "conf")
_TRACEBACK = "MORPH_TRACEBACK"
_RESOLVING = "ValueError raised while resolving interpolation: "
_MENDABLE = (ValueError, OSError, HydraException, OmegaConfBaseException)


def command(
    config_name: str, spellings: Mapping[str, str] | None = None
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorator for an entry point: composes conf/<config_name>.yaml with the command line and calls the function.

    Args:
        config_name: Of the file with its options.
        spellings: Other names of options: {"dataset": "data"}.  Hydra itself takes dataset= for the choice of one file
            of the folder conf/dataset, and would refuse a list or a path.

    What a user can mend (ValueError, OSError, a wrong option) ends with one message on standard error and exit code 1;
    MORPH_TRACEBACK=1 shows where it came from.  A bug shows its traceback.
    """

    def decorate(run: Callable[[DictConfig], None]) -> Callable[[], None]:
        def checked(config: DictConfig) -> None:
            # Here and not only around Hydra, which would add a line of its own.
            with _one_message():
                _check_types(config_name, config)
                if missing := sorted(OmegaConf.missing_keys(config)):
                    raise ValueError(f"{missing[0]} is needed: give {missing[0]}=...; --help says what it is")
                run(config)

        compose_and_run = hydra.main(version_base="1.3", config_path=_CONF, config_name=config_name)(checked)

        def main() -> None:
            os.environ.setdefault(_TRACEBACK, "0")
            os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors come here instead of being printed by Hydra
            for spelling, option in (spellings or {}).items():
                sys.argv[1:] = [re.sub(f"^{spelling}=", f"{option}=", argument) for argument in sys.argv[1:]]
            if set(sys.argv[1:]) & {"--help", "-h"} == set(sys.argv[1:]) != set():
                print(help_text(config_name), end="")
                return
            with _one_message():
                compose_and_run()

        return main

    return decorate


def help_text(config_name: str) -> str:
    """What --help alone prints: the template of the configuration, with its options as they are written, comments
    included.  (Beside other options, --help shows what they make of it, as Hydra does.)"""
    config = OmegaConf.load(Path(_CONF, f"{config_name}.yaml"))
    assert isinstance(config, DictConfig)
    chosen = {group: entry for part in config.defaults if isinstance(part, Mapping) for group, entry in part.items()}
    options = _written(Path(_CONF, f"{config_name}.yaml"))
    groups = []
    for folder in sorted(path for path in Path(_CONF).iterdir() if path.is_dir()):
        group, entries = folder.name, sorted(path.stem for path in folder.glob("*.yaml"))
        groups.append(f"{group}: {', '.join(entries)}")
        if entry := chosen.get(group):
            text = _written(folder / f"{entry}.yaml").strip().replace("\n", "\n  ")
            options += f"\n{group}: # {group}={entry}\n  {text}\n"
        elif group in chosen:
            options += f"\n{group}: null # {' | '.join(entries)}; {group}={entries[0]} --help shows its options\n"
    template: str = config.hydra.help.template
    listed = textwrap.indent("\n".join(textwrap.fill(line, 110, subsequent_indent="  ") for line in groups), "  ")
    return template.replace("$APP_CONFIG_GROUPS", listed + "\n").replace("$CONFIG", options.strip()).rstrip() + "\n"


def _written(path: Path) -> str:
    """The text of a configuration without its first comment, and what is Hydra's."""
    kept: list[str] = []
    skipped = False
    for line in path.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            skipped = line.startswith(("defaults:", "hydra:"))
        if not skipped and (kept or not line.startswith("#")):
            kept.append(line)
    return "\n".join(kept).strip() + "\n"


def defaults(config_name: str) -> DictConfig:
    """What conf/<config_name>.yaml says without a command line or an experiment; interpolations are as written."""
    return hydra.compose(config_name)


def given(group: str) -> list[str]:
    """What the command line says about a group of options: for "model", such as model=s and model.dim=32."""
    return [o for o in HydraConfig.get().overrides.task if re.split("[.=@]", o.lstrip("+~"))[0] == group]


@contextmanager
def _one_message() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        process = current()
        sys.exit("interrupted" if process is None or process.rank == 0 else 1)
    except Exception as error:
        process = current()
        if process is not None and not process.claim():
            sys.exit(1)  # what ended another process has ended this one, or they found the same
        if os.environ[_TRACEBACK] != "0" or not _is_mendable(error):
            if process is not None and not getattr(error, "__notes__", []):
                error.add_note(f"({process})")
            raise
        sys.exit(f"error: {printable(_message(error))}" + (f" ({process})" if process else ""))


def _is_mendable(error: Exception) -> bool:
    # Lightning's error by name: importing Lightning takes seconds, and only training needs it.
    return isinstance(error, _MENDABLE) or type(error).__name__ == "MisconfigurationException" or _remedy(error) != ""


def _remedy(error: BaseException) -> str:
    """What to do where the machine gave out."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError) or "can't allocate memory" in text:
        return "memory ended; a smaller batch_size or a shorter window needs less of it"
    if isinstance(error, RuntimeError) and re.match(r"DataLoader worker \(pid.*\) (is killed|exited)", text):
        return "a reading process was ended, as the system does where memory ends; fewer loader.num_workers need less"
    return ""


def _message(error: BaseException) -> str:
    # Hydra wraps what a constructor raised; the cause is what the user did.
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = str(error).split("\nConfig search path")[0].rstrip()
    if remedy := _remedy(error):
        return f"{remedy}; the same command with resume=auto goes on with a run ({text.split('. ')[0].strip()})"
    if text.startswith(_RESOLVING):  # what a function of ours said of an option that it works out
        text = text.removeprefix(_RESOLVING).split("\n    full_key")[0]
    if isinstance(error, HydraException):
        text += "\n--help lists the options"
    return text or type(error).__name__


def _check_types(config_name: str, config: DictConfig) -> None:
    """Refuse text where the shipped configuration has a number or a switch: seed=abc.

    Raises:
        ValueError: Names the option, what was expected and what was found.
    """
    hydra_ = GlobalHydra.instance().hydra
    assert hydra_ is not None, "called by Hydra"
    groups = hydra_.config_loader.list_groups(parent_name="")
    chosen = [o for o in HydraConfig.get().overrides.task if o.lstrip("+").split("=")[0] in groups]
    shipped = hydra.compose(config_name, overrides=chosen)
    _compare(OmegaConf.to_container(shipped, resolve=False), OmegaConf.to_container(config, resolve=False), "")


def _compare(shipped: Any, found: Any, option: str) -> None:
    if isinstance(shipped, dict) and not isinstance(found, dict | None) and "${" not in str(found):
        raise ValueError(
            f"option {option}: expected options of its own, such as {option}.{next(iter(shipped), '')}=, "
            f"found {found!r}"
        )
    if isinstance(shipped, dict) and isinstance(found, dict):
        for key in shipped.keys() & found.keys():
            _compare(shipped[key], found[key], f"{option}.{key}" if option else str(key))
        return
    if found is None or (isinstance(found, str) and "${" in found):
        return
    expected: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}
    accepted = expected.get(type(shipped))
    if accepted and (not isinstance(found, accepted) or isinstance(found, bool) != isinstance(shipped, bool)):
        noun = {bool: "true or false", int: "an integer", float: "a number"}[type(shipped)]
        raise ValueError(f"option {option}: expected {noun}, found {found!r}")
