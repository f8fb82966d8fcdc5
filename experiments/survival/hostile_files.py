"""Files as a stranger could send them: each would execute something, write elsewhere, or take all memory."""

import _codecs as codecs
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml
import zarr

from morph import Morph

__all__ = [
    "Harm", "adapter", "array_file", "checkpoint", "claiming_zip", "copied", "doubled", "export", "harmless",
    "in_capitals", "many_axes", "packed_zip", "reader", "well", "write_yaml", "zarr_store",
]  # fmt: skip

SMALL: dict[str, Any] = {"dim": 32, "depth": 1, "heads": 4, "field_heads": 8, "patch_size": 4}


class Harm:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, (f"touch '{self.marker}'",)


class Reduced:
    """Unpickled, it is what a call gives."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], tuple(self.call[1:])


def doubled() -> Reduced:
    """A text of which a code writes two letters for each, again and again."""
    made = Reduced(codecs.encode, "a", "latin1")
    for _ in range(28):
        made = Reduced(codecs.encode, made, "hex")
    return made


def copied() -> list[Reduced]:
    """Sets of the same numbers."""
    numbers = tuple(range(10**5))
    return [Reduced(set, numbers) for _ in range(10**4)]


def many_axes() -> list[Reduced]:
    """Tensors of one number, along many axes that are stored once."""
    rebuild, arguments, *_ = torch.zeros(1).__reduce_ex__(2)
    assert callable(rebuild)
    axes = (1,) * 10**5
    return [Reduced(rebuild, *arguments[:2], axes, axes, *arguments[4:]) for _ in range(10**4)]


def in_capitals(path: Path, plan: object) -> None:
    """A checkpoint whose values are in data.PKL, which torch opens as data.pkl."""
    checkpoint(path, about={"plan": plan})
    with zipfile.ZipFile(path) as whole:
        entries = [(entry.filename, whole.read(entry)) for entry in whole.infolist()]
    with zipfile.ZipFile(path, "w") as renamed:
        for name, content in entries:
            renamed.writestr(name.replace("data.pkl", "data.PKL"), content)


def harmless() -> Morph:
    """A small model."""
    torch.manual_seed(0)
    return Morph(**SMALL, capacity={"max_patches": 16})


def checkpoint(path: Path, *, weights: Mapping[str, Any] | None = None, about: Mapping[str, Any] | None = None,
               **config: Any) -> Path:  # fmt: skip
    """A training run's, with another configuration, other weights, or another note on the training."""
    model = harmless()
    said: dict[str, Any] = {
        "model": {**model.config, **config},
        "context": 2,
        "datasets": {},
        "options": {},
        "plan": {},
    }
    state = {f"model.{name}": value for name, value in {**model.state_dict(), **(weights or {})}.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"morph": {**said, **(about or {})}, "state_dict": state}, path)
    return path


def packed_zip(path: Path) -> None:
    """A checkpoint whose weights are a gigabyte of zeros, compressed to a megabyte."""
    checkpoint(path)
    with zipfile.ZipFile(path) as whole:
        entries = [(entry.filename, whole.read(entry)) for entry in whole.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, content in entries:
            if name.endswith("data/0"):
                with packed.open(name, "w") as entry:
                    for _ in range(256):
                        entry.write(bytes(4 * 2**20))
            else:
                packed.writestr(name, content)


def claiming_zip(path: Path) -> None:
    """A checkpoint of which one entry says that it has three gigabytes."""
    checkpoint(path)
    content = bytearray(path.read_bytes())
    where = content.rfind(b"PK\x01\x02")
    where = content.find(b"PK\x01\x02") if where < 0 else where
    content[where + 20 : where + 28] = struct.pack("<II", 3 * 10**9, 3 * 10**9)
    path.write_bytes(content)


def export(folder: Path, **config: Any) -> Path:
    """The folder of a model, with another configuration."""
    model = harmless()
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**model.config, **config}))
    return folder


def adapter(folder: Path, **config: Any) -> Path:
    """The folder of an adapter, and in `base` the model that it belongs to, with another configuration of peft."""
    from morph.checkpoint import base_of
    from morph.model.adapter import add_adapter
    from morph.model.adapter_folder import Adapter, write_adapter

    model = harmless()
    model.save_pretrained(folder.parent / "base")
    base = base_of(model, folder.parent / "base")
    weights = model.state_dict()
    (layer,) = [name for name, _ in model.named_modules() if name.endswith("blocks.0.mlp.0")]
    factors = {"rank": {layer: 2}, "alpha": {layer: 4}, "dropout": 0.0}
    tuned = add_adapter(harmless(), factors)
    trained_on = {"context": 2, "datasets": {}}
    about = {"model": model.config, "base": base, "trained_on": trained_on, "options": {}, "plan": {}}
    write_adapter(folder, Adapter(about, factors, tuned.state_dict()), weights)
    stored = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**stored, **config}))
    return folder


def write_yaml(folder: Path, text: str | Mapping[str, Any], name: str = "their.yaml") -> str:
    """Of a data set; its name."""
    (folder / name).write_text(text if isinstance(text, str) else yaml.safe_dump(dict(text)))
    return name


def reader(file: str = "u.h5", **options: Any) -> dict[str, Any]:
    """The configuration of a data set of whole arrays."""
    usual = {"_target_": "data_adapters.hdf5.ArrayAdapter", "files": file, "dims": ["sample", "time", "x"]}
    return {**usual, "fields": ["u"], "dt": 0.1, **options}


def array_file(path: Path, **options: Any) -> h5py.File:
    """A file with ten small trajectories of u; or with another u, see `h5py.Group.create_dataset`."""
    with h5py.File(path, "w") as file:
        values = np.random.default_rng(0).standard_normal((10, 8, 16)).astype(np.float32)
        file.create_dataset("u", **(options or {"data": values}))
    return path


def well(folder: Path, **changes: Any) -> None:
    """A data set in The Well's layout, a file for each split, with attributes, coordinates or times of another size."""
    for split in ("train", "valid", "test"):
        (folder / "data" / split).mkdir(parents=True)
        with h5py.File(folder / "data" / split / "a.hdf5", "w") as file:
            file.attrs.update({"n_spatial_dims": 1, "n_trajectories": changes.get("n_trajectories", 2)})
            axes = file.create_group("dimensions")
            axes.attrs["spatial_dims"] = ["x"]
            for name, size in (("time", changes.get("times", 4)), ("x", changes.get("points", 8))):
                if size < 1000:
                    axes[name] = np.arange(size, dtype=np.float64)
                else:
                    axes.create_dataset(name, shape=(size,), dtype="f8", chunks=(1024,))
            file.create_group("scalars").attrs["field_names"] = np.array([], "S1")
            for rank in range(3):
                names = ["u"] if rank == 0 else np.array([], "S1")
                file.create_group(f"t{rank}_fields").attrs["field_names"] = names
            shape = (changes.get("n_trajectories", 2), changes.get("times", 4), changes.get("points", 8))
            large = np.prod(shape, dtype=np.float64) > 1e6
            data = file["t0_fields"].create_dataset("u", shape=shape, dtype="f4", chunks=(1, 1, 8) if large else None)
            data.attrs.update({"dim_varying": [True], "sample_varying": True, "time_varying": True})


def zarr_store(folder: Path, marker: Path | None) -> None:
    """A store of version 2; with a marker, its coordinate goes through a codec that unpickles it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.open_group(folder, mode="w", zarr_format=2)
        u = root.create_array("u", shape=(10, 8), chunks=(10, 8), dtype="f4")
        u[:] = 1.0
    u.attrs["_ARRAY_DIMENSIONS"] = ["time", "x"]
    if marker is None:
        return
    (folder / "x").mkdir()
    metadata = {
        "zarr_format": 2, "shape": [8], "chunks": [8], "dtype": "<f8", "compressor": {"id": "pickle"}, "fill_value": 0,
        "order": "C", "filters": None,
    }  # fmt: skip
    (folder / "x" / ".zarray").write_text(json.dumps(metadata))
    (folder / "x" / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["x"]}))
    (folder / "x" / "0").write_bytes(pickle.dumps(Harm(marker)))
    (folder / ".zmetadata").unlink(missing_ok=True)
