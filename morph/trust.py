"""What a file may name to be executed: this package and what it reads data with, else what the user trusts by name.

A stored configuration or a YAML from anybody names classes and functions by `_target_`.  Whatever a name leads to is
looked at before it is called, so that neither an import of another module nor a name that is reached through one of
ours (data_adapters.hdf5.os.system) does anything.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["TRUST", "check_interpolations", "check_places", "check_targets", "is_trusted", "stored_module"]

TRUST = "MORPH_TRUST"
"""Environment variable: packages, separated by commas, that files may name."""
_TARGET = "_target_"
_READERS = ("data_adapters",)
_MODULES = ("morph", "torch.nn")
_PLAIN = re.compile(r"\$\{\s*([A-Za-z_]\w*)\s*\}")
_YAML = (".yaml", ".yml")


def is_trusted(target: str) -> bool:
    """Whether the user trusts the package of a dotted name."""
    packages = [name.strip() for name in os.environ.get(TRUST, "").split(",")]
    return _is_of(target, [name for name in packages if name])


def _is_of(target: str, packages: Sequence[str]) -> bool:
    return any(target == package or target.startswith(f"{package}.") for package in packages)


def _found(target: str) -> Any:
    from hydra.utils import get_object  # takes a while, and models are loaded without

    return get_object(target)


def _way_out(target: str) -> str:
    return f"if it is your own, trust its package: {TRUST}={target.partition('.')[0]}"


def stored_module(stored: Mapping[str, Any], what: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class of a module that a stored configuration names, and its options.

    Args:
        stored: `_target_` and options.
        what: It is, for messages: "mixer".

    Raises:
        ValueError: It is no module of this package or of torch.nn, and of no package that the user trusts; or its
            options name further ones.
    """
    options = dict(stored)
    target = options.pop(_TARGET, None)
    if not isinstance(target, str) or not re.fullmatch(r"\w+(\.\w+)+", target):
        raise ValueError(f"the stored configuration should name its {what} by {_TARGET}, found {target!r}")
    if nested := next(_targets(options), None):
        raise ValueError(f"the stored configuration names {nested[1]!r} in the options of its {what}; expected values")
    module, _, name = target.rpartition(".")
    found: Any = None
    if is_trusted(target) or _is_of(module, _MODULES):
        try:
            found = getattr(import_module(module), name, None)
        except ImportError as error:
            raise ValueError(f"the stored configuration names the {what} {target!r}: {error}") from error
    # A module of this package can hold names of others, such as functions that import what they are told to.
    if not (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and (is_trusted(found.__module__) or _is_of(found.__module__, _MODULES))
    ):
        raise ValueError(
            f"the stored configuration names the {what} {target!r}, which is no module of morph or torch.nn; "
            f"{_way_out(target)}"
        )
    return found, options


def check_targets(config: Mapping[str, Any], where: str) -> None:
    """Make sure that a data set's configuration names a reader, and as `prepare` what makes its data, and nothing else.

    What is not there at all is left to the caller, who will say so.  Hydra's other keys, such as _args_, would change
    what is called with what, so that what is looked at here is not what happens.

    Args:
        config: As its YAML says.
        where: For messages.

    Raises:
        ValueError: It names something else, of a package that the user does not trust; or has a key of Hydra's.
    """
    if special := next((place for place, key in _keys(config) if key.startswith("_") and key != _TARGET), None):
        raise ValueError(
            f"{where}: {'.'.join(special)}: expected {_TARGET} and names of arguments, none of which begins with _; "
            "give the arguments by their names"
        )
    for place, target in _targets(config):
        if not isinstance(target, str):
            raise ValueError(f"{where}: {'.'.join(place)}: expected a dotted name, found {target!r}")
        if is_trusted(target):
            continue
        wanted = {(_TARGET,): "a reader", ("prepare", _TARGET): "a function that makes data"}.get(place)
        found: Any = None
        if wanted and _is_of(target, _READERS):
            try:
                found = _found(target)
            except Exception:  # calling it says what is wrong with it
                continue
        ours = _is_of(str(getattr(found, "__module__", "")), _READERS)
        is_reader = isinstance(found, type) and callable(getattr(found, "read", None)) and hasattr(found, "spec")
        if not (ours and (is_reader if place == (_TARGET,) else hasattr(found, "makes"))):
            raise ValueError(
                f"{where}: {'.'.join(place)}: expected {wanted or 'no name of something to execute'}"
                f"{' of data_adapters' if wanted else ''}, found {target!r}; {_way_out(target)}"
            )


def _targets(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    return ((place, entry) for place, key, entry in _entries(value, ()) if key == _TARGET)


def _keys(value: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    return ((place, key) for place, key, _ in _entries(value, ()))


def _entries(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Where each entry of each mapping stands, its key and what it holds."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield (*place, str(key)), str(key), entry
            yield from _entries(entry, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from _entries(entry, (*place, str(number)))


def check_interpolations(value: Any, known: Sequence[str], where: str) -> None:
    """Refuse interpolations but those of options: others read the environment, or grow without end.

    Args:
        value: As a YAML says.
        known: The options.
        where: For messages.

    Raises:
        ValueError: There is another one.
    """
    if isinstance(value, Mapping):
        for key, entry in value.items():
            check_interpolations(str(key), (), where)
            check_interpolations(entry, known, where)
    elif isinstance(value, list | tuple):
        for entry in value:
            check_interpolations(entry, known, where)
    elif isinstance(value, str) and "${" in _PLAIN.sub(lambda m: "" if m[1] in known else m[0], value):
        wanted = ", ".join(f"${{{name}}}" for name in known) or "none"
        raise ValueError(f"{where}: expected no other interpolations than {wanted}, found {value!r}")


def check_places(config: Mapping[str, Any], roots: Sequence[str | Path], where: str, *, from_file: bool) -> None:
    """Make sure that a data set's configuration has nothing written outside of folders that the user has named.

    Args:
        config: Resolved.
        roots: These folders.
        where: For messages.
        from_file: It is a YAML that is named by its path, and not an entry of the user's own configuration.

    Raises:
        ValueError: Data would be generated, or remote files or statistics kept, elsewhere; or it cannot be known where.
    """
    places: dict[str, Any] = {}
    stated = config.get("prepare")
    if isinstance(stated, Mapping) and isinstance(stated.get(_TARGET), str) and not is_trusted(stated[_TARGET]):
        folder = _made(stated, where)
        if folder and not Path(folder).exists():
            places["prepare"] = folder
    if from_file and isinstance(config.get("cache"), str):
        places["cache"] = config["cache"]
    statistics = config.get("statistics")
    if from_file and isinstance(statistics, str) and "://" not in statistics and not Path(statistics).exists():
        if Path(statistics).suffix not in _YAML:
            raise ValueError(f"{where}: statistics: expected a file that ends in .yaml, found {statistics!r}")
        places["statistics"] = statistics
    for option, place in places.items():
        allowed = [*roots, ".", *(_data_folders(config) if option == "statistics" else ())]
        if not any(Path(os.path.realpath(place)).is_relative_to(os.path.realpath(root)) for root in allowed):
            raise ValueError(
                f"{where}: {option}: {place} would be written, which is neither in the data folder "
                f"({', '.join(map(str, roots))}) nor in the working folder; if that is meant, give data_dir=, a folder "
                "that holds it"
            )


def _made(stated: Mapping[str, Any], where: str) -> str | Path | None:
    """The folder that `prepare` would fill, None of what says none.

    Raises:
        ValueError: It cannot be known.
    """
    try:
        makes = getattr(_found(stated[_TARGET]), "makes", None)
    except Exception:  # there is nothing to call, and calling it says so
        return None
    if not makes:
        return None
    try:
        return os.fspath(makes(**{key: value for key, value in stated.items() if key != _TARGET}))
    except Exception as error:
        raise ValueError(f"{where}: prepare: it cannot be known where it would write: {error}") from error


def _data_folders(config: Mapping[str, Any]) -> list[str]:
    """Where the files are that a configuration names: statistics may lie beside data that is there."""
    path, files = config.get("path"), config.get("files")
    named = [path] if isinstance(path, str) else []
    for file in files if isinstance(files, list | tuple) else [files]:
        named += [os.path.dirname(file) or "."] if isinstance(file, str) and "*" not in file else []
    return [folder for folder in named if os.path.isdir(folder)]
