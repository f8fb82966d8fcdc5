"""Files of weights from anybody: read without executing them, and without taking memory for what they do not hold."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from morph.claims import ClaimError, check_nodes
from morph.model.pickled import LARGEST_PICKLE, SCALARS, check_pickle

__all__ = ["check_config", "read_pickled"]

_MOST_NODES = 5_000_000
_HARMLESS = 2**16  # a number that nothing large can be made of


def read_pickled(path: Path) -> Any:
    """What a .ckpt or .pth file holds: tensors, and plain values.

    Raises:
        ValueError: It is something else, names code, or claims more than it holds.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    try:
        _check_archive(path, size)
        with torch.serialization.safe_globals(SCALARS):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ClaimError):
        raise
    except Exception as error:  # what unpickling makes of a file that is something else is anything
        reason = f"{type(error).__name__}: {str(error).split('. ')[0]}".splitlines()[0]
        raise ValueError(f"it is empty, truncated or no checkpoint at all ({size} bytes): {reason}") from error
    check_nodes(contents, _MOST_NODES, "its contents")
    storages: dict[int, int] = {}
    for place, tensor in _tensors(contents, ""):
        held = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided and not tensor.is_meta else 0
        if tensor.nbytes > held:
            raise ClaimError(
                f"{place}: expected a tensor with memory of its own, found shape {tuple(tensor.shape)}, "
                f"{tensor.nbytes:,} bytes, over {held:,} bytes that are there"
            )
        if held:
            storages[tensor.untyped_storage().data_ptr()] = held
    if (taken := sum(storages.values())) > size:
        raise ClaimError(f"its tensors take {taken:,} bytes of memory, and the file has {size:,}")
    return contents


def _check_archive(path: Path, size: int) -> None:
    """
    Raises:
        ClaimError: Its entries would be more in memory than the file is, see also `check_pickle`.
        BadZipFile: It is no zip archive, as torch writes them since 1.6.
    """
    with ZipFile(path) as archive:
        entries = archive.infolist()
        if packed := [entry.filename for entry in entries if entry.compress_type != ZIP_STORED]:
            raise ClaimError(f"{packed[0]!r} is compressed, which torch never does; its size cannot be known")
        if (claimed := sum(entry.file_size for entry in entries)) > size:
            raise ClaimError(f"its {len(entries)} entries claim {claimed:,} bytes, and the file has {size:,}")
        for entry in entries:
            if entry.filename.lower().endswith(".pkl"):  # torch finds it in any case
                if entry.file_size > LARGEST_PICKLE:
                    raise ClaimError(
                        f"{entry.filename!r}: expected at most {LARGEST_PICKLE:,} bytes besides the tensors, found "
                        f"{entry.file_size:,}"
                    )
                check_pickle(archive.read(entry), repr(entry.filename))
        if not entries:
            raise BadZipFile("it is an empty archive")


def _tensors(value: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, Mapping | list | tuple):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(part, f"{place}.{key}" if place else str(key))


def check_config(config: Mapping[str, Any], weights: Mapping[str, Tensor], adapter: Mapping[str, Any]) -> None:
    """Compare the numbers of a stored configuration with the weights that are there, before anything is built of them.

    Args:
        config: See `Surrogate.config`.
        weights: By name.
        adapter: See `morph.model.adapter.lora_config`.

    Raises:
        ValueError: A number cannot be true: the model would be built without end.
    """
    if strange := [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{strange[0]}: expected a tensor, found {type(weights[strange[0]]).__name__}")
    check_nodes(config, _MOST_NODES, "its configuration")
    if config.get("kind") != "naive":
        held = max(sum(value.numel() for value in weights.values()), _HARMLESS)
        for option, number in _whole_numbers(config, ""):
            if number > held:
                raise ValueError(
                    f"the stored configuration says {option}={number}, and its weights hold at most {held:,} numbers"
                )
        blocks = {match[1] for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))}
        depth, most = config.get("depth"), len(weights) if "kind" in config else len(blocks)
        if isinstance(depth, int) and depth > most:
            raise ValueError(f"the stored configuration says depth={depth}, and the weights are those of {most} blocks")
    for layer, rank in (adapter.get("rank") or {}).items():
        factor = weights.get(f"{layer}.lora_A.default.weight")
        if factor is None or factor.ndim != 2 or len(factor) != rank:
            found = "absent" if factor is None else f"of shape {tuple(factor.shape)}"
            raise ValueError(f"the adapter says rank {rank!r} of {layer!r}, whose factor lora_A is {found}")


def _whole_numbers(value: Any, place: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield place, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _whole_numbers(part, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _whole_numbers(part, place)
