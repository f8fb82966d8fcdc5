"""From the names of data sets, YAML files, or files themselves, to their configuration and their readers."""

import glob
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from morph.claims import read_yaml
from morph.data.adapter import DatasetAdapter
from morph.layout import check_name
from morph.trust import check_interpolations, check_places, check_targets

__all__ = ["DatasetConfig", "find_datasets", "is_entry", "named_folders", "open_split", "own_files", "prepare"]

DatasetConfig = Mapping[str, Any]
"""`_target_` and arguments of an adapter, and for the caller `batch_size`, `prepare` and `card`, which documents it."""

_YAML = (".yaml", ".yml")
_FROM_FILE = "from_file"
_FOR_THE_CALLER = ("batch_size", "card", "prepare")


def find_datasets(
    names: str | Sequence[str],
    options: Mapping[str, Any],
    *,
    whole: bool = False,
    roots: Sequence[str | Path] | None = None,
) -> dict[str, DatasetConfig]:
    """Configurations of data sets.

    Args:
        names: Entries of conf/dataset (or of a `dataset` folder in --config-dir), or paths of YAML files; or of the
            data themselves, as path, URL, pattern or folder, for which conf/from_file.yaml says what finds out.
        options: Values for the interpolations of their YAML, such as data_dir and level.
        whole: They will be opened as split "all": of what has no YAML, too little for three splits is enough.
        roots: Folders in which data may be generated and kept; None: data_dir, and that of each YAML file.

    Raises:
        ValueError: A name is unknown, a file is not the YAML of a data set, or it is not clear what it holds; or a YAML
            file names what is no reader, or a place to write to outside of these folders.
    """
    names = [names] if isinstance(names, str) or not isinstance(names, Sequence) else list(names)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"data: expected names or paths, found {wrong[0]!r}")
    if not names:
        raise ValueError("data: expected at least one data set; " + _choices())
    found: dict[str, DatasetConfig] = {}
    for name in names:
        path = Path(name)
        title = _title(name)
        if title in found:
            raise ValueError(f"data: {title!r} is named twice")
        check_name("data: data set", title)
        where = f"data set {name!r}"
        if _is_data(name):
            found[title] = _from_file(name, whole)
            check_targets(found[title], where)
            continue
        from_file = path.suffix in _YAML
        config = _read(path, list(options)) if from_file else _named(name)
        check_interpolations(list(options.values()), (), "data: an option such as data_dir")
        merged = OmegaConf.merge(OmegaConf.create(dict(options)), config)
        try:
            resolved = OmegaConf.to_container(merged, resolve=True)
        except OmegaConfBaseException as error:
            raise ValueError(f"data set {name!r}: {str(error).splitlines()[0]}") from error
        assert isinstance(resolved, dict)
        dataset = {str(key): value for key, value in resolved.items() if key in config}
        if "_target_" not in dataset:
            raise ValueError(f"data set {name!r}: its YAML names no _target_, the class that reads it")
        if from_file:
            check_targets(dataset, where)
        own = [path.parent] if from_file else []
        check_places(dataset, [*_folders(options), *own] if roots is None else roots, where, from_file=from_file)
        found[title] = dataset
    return found


def named_folders(options: Mapping[str, Any]) -> list[str | Path]:
    """Folders that the user has named in a command that opens a checkpoint, and not the checkpoint: see `roots` above.

    Args:
        options: Of the command: data_dir, None for the default, and data.
    """
    data = options["data"] or ()
    names = [data] if isinstance(data, str) else data
    folder = options["data_dir"] or compose("train").data_dir
    return [str(folder), *(Path(name).parent for name in names if Path(name).suffix in _YAML)]


def _folders(options: Mapping[str, Any]) -> list[str]:
    return [str(options["data_dir"])] if options.get("data_dir") else []


def is_entry(name: str) -> bool:
    """Whether a data set of that name is in conf/dataset."""
    return name in _known()


def own_files(names: str | Sequence[str]) -> dict[str, str]:
    """Of `find_datasets`' names, those of files: the name of the data set, and the path from anywhere, or the URL."""
    listed = [names] if isinstance(names, str) else names
    return {
        _title(name): name if _is_url(name) else os.path.abspath(name)
        for name in listed
        if Path(name).suffix in _YAML or _is_data(name)
    }


def open_split(config: DatasetConfig, split: str, name: str | None = None) -> DatasetAdapter:
    """The reader of one split: train, valid or test; "all" is the whole of the data, undivided.

    Args:
        config: Of the data set.
        split: Which.
        name: What the user calls the data set, told to a reader that takes a name.
    """
    arguments = {key: value for key, value in config.items() if key not in _FOR_THE_CALLER}
    if name is not None and "name" not in arguments and _takes_name(arguments["_target_"]):
        arguments["name"] = name
    return instantiate(arguments, split=split, _convert_="all")


def _takes_name(target: str) -> bool:
    try:
        parameters = signature(get_object(target)).parameters.values()
    except Exception:  # instantiating it says what is wrong with it
        return False
    return any(parameter.name == "name" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def prepare(config: DatasetConfig) -> None:
    """Do what the data set asks for before its first use, such as generating it; safe to call again."""
    if "prepare" in config:
        instantiate(config["prepare"], _convert_="all")


def _title(name: str) -> str:
    return str(instantiate(compose(_FROM_FILE).name, name)) if _is_data(name) else Path(name).stem


def _is_url(name: str) -> bool:
    return "://" in name


def _is_data(name: str) -> bool:
    """Whether it is the path of data, and neither a YAML nor an entry of conf/dataset, be there a file of that name."""
    if _is_url(name):
        return True
    suffix = Path(name).suffix
    if suffix in _YAML:
        return False
    is_path = suffix or os.path.basename(name) != name or glob.has_magic(name) or os.path.exists(name)
    return bool(is_path) and name not in _known()


def _from_file(name: str, whole: bool) -> DatasetConfig:
    try:
        found: dict[str, Any] = instantiate(compose(_FROM_FILE).dataset, _partial_=True)(name, whole=whole)
    except FileNotFoundError as error:
        if _is_url(name):
            raise
        like = ", ".join(_like(Path(name).stem))
        raise ValueError(f"data: {error}{f'; or choose from {like}' if like else ''}") from error
    return found


def _read(path: Path, options: Sequence[str]) -> DictConfig:
    if not path.is_file():
        raise ValueError(f"data: there is no file {path}; {_choices(path.stem)}")
    try:
        stored = read_yaml(path)  # before OmegaConf, which writes aliases out
        if isinstance(stored, Mapping):
            check_interpolations(stored, options, str(path))
        config = OmegaConf.load(path)
    except Exception as error:
        raise ValueError(f"data: {path} cannot be read as YAML: {error}") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"data: {path} should be a mapping with _target_ and its arguments")
    return config


def _named(name: str) -> DictConfig:
    if name not in _known():
        raise ValueError(f"data: there is no data set {name!r}; {_choices(name)}")
    config = compose(f"dataset/{name}")
    node = config.dataset
    # Without its parent, so that its interpolations are those of the options given here.
    return DictConfig(OmegaConf.to_container(node, resolve=False))


def _known() -> list[str]:
    hydra = GlobalHydra.instance().hydra
    if hydra is None:
        raise ValueError("data: entries of conf/dataset are known to the commands; elsewhere name the YAML file itself")
    return hydra.config_loader.get_group_options("dataset", ObjectType.CONFIG)


def _choices(name: str = "") -> str:
    """The data sets that there are; of many, those with a name like the wanted one."""
    known = _known()
    shown = _like(name) or known[:10]
    more = f" and {len(known) - len(shown)} more (data_adapters/README.md)" if len(shown) < len(known) else ""
    return f"choose from {', '.join(shown)}{more}, or give the path of the data or of a YAML file"


def _like(name: str) -> list[str]:
    known = _known()
    return get_close_matches(name, known, n=5, cutoff=0.4) or [other for other in known if name and name in other]
