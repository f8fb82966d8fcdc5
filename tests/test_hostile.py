"""Files from strangers are refused for what they are: they execute nothing, write nowhere else, and stay small."""

import csv
import pickle
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from data_adapters.hdf5 import ArrayAdapter
from experiments.survival import hostile
from experiments.survival.hostile_cases import CASES, Case
from experiments.survival.hostile_files import Harm, Reduced, array_file, checkpoint, harmless, reader
from morph import claims, load_checkpoint
from morph.claims import ClaimError, check_nodes, load_yaml
from morph.containers import refuse_pickles
from morph.data.catalogue import find_datasets, open_split, prepare
from morph.layout import DatasetSpec, Field
from morph.model import stored
from morph.model.morph import Morph
from morph.model.pickled import check_pickle
from morph.model.stored import read_pickled
from morph.resume import check_resume
from morph.terminal import PlainConsole, printable
from morph.trust import TRUST, check_places, check_targets

# By the beginning of a case's name: for what it is refused.
REASONS = {
    "model.pth: pickle": "it names 'posix.system'; expected tensors, and plain values",
    "run.ckpt: pickle": "it names 'posix.system'; expected tensors, and plain values",
    "old.ckpt": "not a zip file",
    "run.ckpt: mixer that is": "says mixer.depth=1000000000",
    "run.ckpt: mixer that names": "names 'os.system' in the options",
    "run.ckpt: mixer": "no module of morph or torch.nn|'morph.command' is not a package",
    "run.ckpt: depth 60000": "says depth=60000, and the weights are those of 1 blocks",
    "run.ckpt: depth": "says depth=1000000000, and its weights hold",
    "run.ckpt: dim": "says dim=1000000000, and its weights hold",
    "run.ckpt: FNO": "says (depth|width)=10+, and its weights hold",
    "run.ckpt: weight": "400,000,000,000 bytes, over 4",
    "run.ckpt: zip with": "is compressed",
    "run.ckpt: zip entry": "entries claim 3,000",
    "run.ckpt: bytearray": "it names '__builtin__.bytearray'",
    "run.ckpt: plan that is torch": r"it names 'torch\.(Tensor|FloatTensor|storage\.UntypedStorage)'",
    "run.ckpt: plan that is a NumPy": "expected NumPy scalars of dtype f4, f8, i8, found '[VS]1000000000'",
    "run.ckpt: plan that is text": "expected _codecs encode of a text as latin1",
    "run.ckpt: plan that is a set": "it copies what it holds again and again",
    "run.ckpt: plan that is tensors": "it copies what it holds again and again",
    "run.ckpt: data.PKL": r"data\.PKL': it names 'torch\.Tensor'",
    "run.ckpt: options": "without interpolations",
    "run.ckpt: lists": r"at most 5,000,000 values, lists and mappings, found 3\.3e\+12",
    "model.pth: block": "expected transformer_blocks.0 to 1, one after the other, found 999999999",
    "config.json: mixer": "names the mixer 'os.system'",
    "config.json: depth": "says depth=1000000000",
    "config.json of": "at most 10,485,760 bytes of JSON",
    "config.json nested": "nested too deeply",
    "index": r"names '\.\./stolen\.safetensors'",
    "safetensors": "header too large",
    "adapter_config.json": "the adapter says rank",
    "YAML: _target_": "expected a reader of data_adapters, found",
    "YAML: prepare with _convert_": r"prepare\._convert_: expected _target_ and names of arguments",
    "YAML: prepare with _args_": r"prepare\._args_: expected _target_ and names of arguments",
    "YAML: a reader with _args_": r": _args_: expected _target_ and names of arguments",
    "YAML: prepare": "expected a function that makes data of data_adapters, found 'os.system'",
    "YAML: os.system among": "expected no name of something to execute",
    "YAML: !!python": "could not determine a constructor for the tag",
    "YAML: aliases": r"at most 100,000 values, lists and mappings, found 1\.48e\+12",
    "YAML: interpolations": r"no other interpolations than .*\$\{level\}",
    "YAML: 10^5": "nested too deeply",
    "YAML: 300 kB": "at most 262,144 bytes of YAML",
    "YAML: URL with": r"no other interpolations than",
    "YAML: URL reference": "expected a URL of http",
    "YAML: statistics elsewhere": "statistics: .* would be written, which is neither in",
    "YAML: statistics that": "expected a file that ends in .yaml",
    "YAML: a name": "expected a name in printable characters without slashes",
    "YAML: cache": "cache: .* would be written, which is neither in",
    "YAML: data generated": "prepare: .*/suite/tiny/dr1d would be written, which is neither in",
    "stats.yaml: !!python": "could not determine a constructor for the tag",
    "stats.yaml: aliases": r"at most 100,000 values, lists and mappings",
    "u.npy": "found a NumPy array",
    "u.zarr: pickle": "'object_codec_id': 'pickle'|stored as Python pickles",  # by zarr, since 3.1, or by us
    "u.zarr: a chunk": "one of its chunks .* found a claim of 40000.0 GB",
    "u.h5: link": "outside of the folder of its file",
    "u.h5: virtual": "outside of the folder of its file",
    "u.h5: bytes": "external storage",
    "u.h5: a window": "found a claim of 40.0 GB at once",
    "u.h5: 10^12": "at most 10,000,000 entries, found 1,000,000,000,000",
    "u.h5: aliases": r"/00: config: expected at most 100,000 values",
    "Well: n_trajectories": "n_trajectories: expected at most 10,000,000 entries",
    "Well: 10^11": "expected at most 10+,.*, found 100,000,000,000",
    "u.nc": "time: expected at most 10,000,000 entries, found 100,000,000,000",
}


@pytest.fixture(autouse=True)
def _nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUST)
    monkeypatch.setattr(claims, "available_memory", lambda: 10**9)  # on any machine


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_from_a_stranger_does_nothing(case: Case) -> None:
    outcome = hostile.attempt(case)
    reason = next(reason for name, reason in REASONS.items() if case.name.startswith(name))
    assert re.search(reason, outcome.message), outcome.message
    assert not outcome.executed
    assert outcome.outside == []
    assert outcome.peak < 300
    assert "hunter2" not in outcome.message
    assert "stranger" not in sys.modules


def test_every_reason_is_used() -> None:
    assert [name for name in REASONS if not any(case.name.startswith(name) for case in CASES)] == []


def test_the_study_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    chosen = [case for case in CASES if case.name in ("YAML: prepare os.system", "u.npy: pickle")]
    monkeypatch.setattr(hostile, "CASES", chosen)
    monkeypatch.setattr(sys, "argv", ["hostile", f"out={tmp_path}/new"])
    hostile.main()
    assert capsys.readouterr().out.count("| no | no |") == 2
    with (tmp_path / "new" / "hostile.csv").open() as file:
        assert [(row["file"], row["executed"]) for row in csv.DictReader(file)] == [(c.name, "False") for c in chosen]
    monkeypatch.setattr(sys, "argv", ["hostile"])
    with pytest.raises(SystemExit, match="expected out="):
        hostile.main()


def test_the_files_would_do_it_where_they_are_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above prove nothing."""
    # Since numcodecs 0.16.6; before, it unpickles what it is given.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    marker = tmp_path / "executed"
    for execute in (pickle.loads, numcodecs.Pickle().decode):
        execute(pickle.dumps(Harm(marker)))
        assert marker.exists()
        marker.unlink()
    torch.save(Harm(marker), tmp_path / "model.pth")
    torch.load(tmp_path / "model.pth", weights_only=False)
    assert marker.exists()
    marker.unlink()
    yaml.unsafe_load(f"!!python/object/apply:os.system [\"touch '{marker}'\"]")
    assert marker.exists()
    with h5py.File(tmp_path / "u.h5", "w") as file:
        (tmp_path / "secret").write_bytes(b"hunter2")
        file.create_dataset("u", (7,), "u1", external=[(str(tmp_path / "secret"), 0, 7)])
        assert bytes(file["u"][()]) == b"hunter2"


class Half(nn.Module):
    """A mixer of the tests' own."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()

    def forward(self, tokens: torch.Tensor, **_: Any) -> torch.Tensor:
        return tokens / 2


def test_an_own_package_is_trusted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = Morph(dim=32, depth=1, heads=4, field_heads=8, patch_size=4, mixer=Half)
    own = Half.__module__.partition(".")[0]
    assert model.config["mixer"] == {"_target_": f"{Half.__module__}.Half"}
    about = {"model": model.config, "context": 2, "datasets": {}, "options": {}, "plan": {}}
    torch.save({"morph": about, "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, "mine.ckpt")
    Path("mine.yaml").write_text("_target_: tests.made_up.Waves\nprepare: {_target_: shutil.copyfile, src: a, dst: b}")
    Path("a").write_text("a")
    with pytest.raises(
        ValueError, match=rf"no module of morph or torch\.nn; if it is your own, trust its package: MORPH_TRUST={own}"
    ):
        load_checkpoint("mine.ckpt")
    with pytest.raises(ValueError, match=r"found 'tests.made_up.Waves'; if it is your own.* MORPH_TRUST=tests"):
        find_datasets("mine.yaml", {})
    monkeypatch.setenv(TRUST, "test, tests.made")  # the beginning of a name is another name
    with pytest.raises(ValueError, match="MORPH_TRUST=tests"):
        find_datasets("mine.yaml", {})
    monkeypatch.setenv(TRUST, f"{own},tests")
    with pytest.raises(ValueError, match=r"prepare\._target_: .* found 'shutil.copyfile'.*MORPH_TRUST=shutil"):
        find_datasets("mine.yaml", {})
    x = torch.randn(1, 2, 1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_checkpoint("mine.ckpt")(x), model.eval()(x))
    monkeypatch.setenv(TRUST, f"other, shutil ,tests,{own}")
    (config,) = find_datasets("mine.yaml", {}).values()
    prepare(config)
    assert Path("b").read_text() == "a"
    assert open_split(config, "train").spec.name == "waves"


def test_a_module_of_torch_is_no_stranger(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt", mixer={"_target_": "torch.nn.Identity"})
    with pytest.raises(ValueError, match=r"(?s)the weights do not fit the configuration.*blocks\.0\.mixer"):
        load_checkpoint(path)  # it was made of one, and the weights are those of another mixer
    assert load_checkpoint(checkpoint(tmp_path / "b.ckpt")).config == harmless().config


def test_places_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "data" / "suite" / "tiny" / "dr1d").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    made = {"_target_": "data_adapters.suite.ensure", "system_name": "dr1d", "level": "tiny"}

    def check(roots: list[str], **config: Any) -> None:
        check_places(config, roots, "it", from_file=True)

    check([], prepare={**made, "out": "../data/suite"})  # it is there, so nothing is made
    check(["../data"], prepare={**made, "system_name": "gs2d", "out": "../data/suite"}, cache="../data/kept")
    check([], prepare={**made, "out": "suite"}, cache="kept", statistics="u.yaml")
    check([], files="../data/u_0.h5", statistics="../data/u.yaml")  # beside the data
    for wrong in (
        {"prepare": {**made, "system_name": "gs2d", "out": "../data/suite"}},
        {"cache": "../data"}, {"statistics": "../data/u.yaml"}, {"cache": f"{tmp_path}/here/../kept"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"it: {next(iter(wrong))}: .*give data_dir="):
            check([], **wrong)
    for unknown in (
        {"_convert_": "all"},
        {"_args_": ["gs2d"]},
        {"system": "gs2d"},
        {"system_name": "none"},
        {"out": 1},
    ):
        with pytest.raises(ValueError, match="it: prepare: it cannot be known where it would write: "):
            check([], prepare={**made, **unknown})
    Path("link").symlink_to(tmp_path / "data")
    with pytest.raises(ValueError, match="it: cache: link/kept would be written"):
        check([], cache="link/kept")


def test_tensors_take_no_more_than_the_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever made them: here the names are not looked at."""
    path = tmp_path / "a.ckpt"
    whole = torch.arange(1000.0)
    torch.save({"a": whole, "b": whole[500:], "c": [whole[:10], np.float64(0.1), np.float32(3), np.int64(-7)]}, path)
    assert torch.equal(read_pickled(path)["b"], whole[500:])  # views of one storage take it once
    assert read_pickled(path)["c"][1:] == [0.1, 3, -7]
    monkeypatch.setattr(stored, "check_pickle", lambda *_: None)
    assert torch.equal(read_pickled(path)["a"], whole)
    torch.save({"a": Reduced(torch.Tensor, 1000), "b": Reduced(torch.Tensor, 1000)}, path)
    with pytest.raises(ClaimError, match=rf"take 8,000 bytes of memory, and the file has {path.stat().st_size:,}"):
        read_pickled(path)


def test_a_pickle_is_looked_at_as_torch_reads_it(tmp_path: Path) -> None:
    """Names that are kept and fetched again, and calls at the very end, are seen."""
    encode = b"\x80\x02c_codecs\nencode\nq\x00"
    text, latin, code = (b"X\x02\x00\x00\x00ab", b"X\x06\x00\x00\x00latin1", b"X\x03\x00\x00\x00hex")
    check_pickle(encode + text + latin + b"\x86R.", "it")
    check_pickle(encode + text + b"q\x01" + latin + b"q\x02\x86Rh\x00h\x01h\x02\x86R\x86.", "it")
    again = encode + text + latin + b"\x86Rq\x01h\x00"
    for wrong in (encode + b".", encode + text + code + b"\x86R.", again + b"h\x01" + latin + b"\x86R.", again + b"."):
        with pytest.raises(ClaimError, match="it: expected _codecs encode of a text as latin1"):
            check_pickle(wrong, "it")
    with pytest.raises(ValueError, match="pickle exhausted"):
        check_pickle(encode, "it")


def test_keys_of_hydra_are_refused_at_any_depth() -> None:
    good = {"_target_": "data_adapters.hdf5.ArrayAdapter", "files": "u.h5", "fields": [{"u": ["a_", "b"]}]}
    check_targets(good, "it")
    for key in ("_args_", "_convert_", "_partial_", "_recursive_"):
        for place, wrong in {
            key: {**good, key: "all"}, f"prepare.{key}": {**good, "prepare": {key: 1}},
            f"fields.1.u.{key}": {**good, "fields": ["v", {"u": {key: []}}]},
        }.items():  # fmt: skip
            with pytest.raises(ValueError, match=f"it: {re.escape(place)}: expected _target_ and names of arguments"):
                check_targets(wrong, "it")


def test_a_window_that_does_not_fit_is_refused_at_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = array_file(tmp_path / "u.h5", shape=(10, 8, 16), dtype="f4", chunks=(1, 8, 16))
    options = {key: value for key, value in reader(str(path)).items() if key != "_target_"}
    monkeypatch.setattr(claims, "_SMALL", 0)
    monkeypatch.setattr(claims, "available_memory", lambda: 4 * 8 * 16)
    adapter = ArrayAdapter(**options)
    assert adapter.read(0, 0, 8).shape == (8, 1, 1, 1, 1, 16)
    monkeypatch.setattr(claims, "available_memory", lambda: 4 * 8 * 16 - 1)
    for out in (None, np.empty((8, 1, 1, 1, 1, 16), np.float32)):
        with pytest.raises(ClaimError, match=r"u\.h5: .*u: expected at most the 0\.0 GB"):
            adapter.read(0, 0, 8, out)
    adapter.close()
    with pytest.raises(ClaimError, match=r"u: one of its chunks \(1, 8, 16\)"):
        ArrayAdapter(**options)


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"command": "python -m morph.train a\\u001b[2J"}', "; it was started by: python -m morph.train a\ufffd[2J"),
     ("{", ""), ("[]", ""), ('{"command": ["a"]}', ""), ("{}", ""), ("\xff", ""), ("[" * 10**6, ""),
     ('{"command": "' + "a" * 11 * 2**20 + '"}', "")],
    ids=["escape", "broken", "list", "no text", "nothing", "no UTF-8", "nested", "long"],
)  # fmt: skip
def test_what_a_run_says_of_itself_hides_no_refusal(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes(text.encode("latin-1"))
    path = checkpoint(tmp_path / "checkpoints" / "last.ckpt", about={"plan": {"seed": 1}})
    forecaster: Any = SimpleNamespace(model=harmless(), trained={}, base={})
    data: Any = SimpleNamespace(plan={"seed": 2, "batches_per_step": 1})
    with pytest.raises(ValueError, match="belongs to a run with other options: seed=1, now 2") as refused:
        check_resume(path, forecaster, data)
    assert str(refused.value).endswith(f"{tmp_path}/train.yaml{said}")


def test_pickles_in_zarr_are_refused_whatever_zarr_does(monkeypatch: pytest.MonkeyPatch) -> None:
    known = numcodecs.registry.codec_registry
    monkeypatch.setitem(known, "pickle", numcodecs.Pickle)
    assert numcodecs.get_codec({"id": "pickle"}) == numcodecs.Pickle()
    refuse_pickles()
    with pytest.raises(ClaimError, match="stored as Python pickles, which execute what they say"):
        numcodecs.get_codec({"id": "pickle"})
    assert numcodecs.get_codec({"id": "zlib"}) == numcodecs.Zlib()


def test_what_aliases_repeat_is_counted_as_often() -> None:
    twice = [1, 2]
    check_nodes([twice, {"a": twice}], 9, "it")  # outer, two lists of three, the mapping and its key
    with pytest.raises(ClaimError, match="it: expected at most 8 values, lists and mappings, found 9"):
        check_nodes([twice, {"a": twice}], 8, "it")
    twice.append(twice)  # type: ignore[arg-type]
    with pytest.raises(ClaimError, match="found one that holds itself"):
        check_nodes(twice, 10**6, "it")
    with pytest.raises(ClaimError, match="found one that holds itself"):
        load_yaml("a: &a [*a]", "it")
    assert load_yaml("{a: &x [1, 2], b: *x}", "it") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", " ", "a\nb", "a\x1b[31m", "a\u202eb", "a\\b"])
def test_a_name_is_one_line_and_no_path(name: Any) -> None:
    with pytest.raises(ValueError, match="expected a name in printable characters without slashes"):
        Field(name, ("u",))
    with pytest.raises(ValueError, match="expected a name in printable characters without slashes"):
        Field("u", (name,))
    with pytest.raises(ValueError, match="expected a name in printable characters without slashes"):
        DatasetSpec(name, (Field("u"),), (1, 1, 4), 3, 0.1, ("open",) * 3, ("x",))
    assert Field("ρ [red] <b>").components == ("ρ [red] <b>",)


def test_a_file_cannot_speak_to_the_terminal(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by what is in it nor by what is said about it, and markup is text."""
    with h5py.File(tmp_path / "u.h5", "w") as file:
        for name in ("[red]u", "\x1b]0;owned\x07v"):
            file[name] = np.random.default_rng(0).standard_normal((12, 9, 16)).astype(np.float32)
            file[name].attrs["units"] = "\x1b[2J"
    monkeypatch.setenv("COLUMNS", "200")
    shown = call("data_adapters.inspect", "u.h5", "dims=[sample,time,x]", "dt=0.1", cwd=tmp_path)
    assert "\x1b" not in shown.stdout + shown.stderr
    assert "\x07" not in shown.stdout + shown.stderr
    assert "[red]u" in shown.stdout
    assert "�]0;owned" in shown.stdout
    refused = call("data_adapters.check", "dataset=u.h5", cwd=tmp_path)
    assert refused.returncode == 1
    assert "\x1b" not in refused.stdout + refused.stderr
    assert printable("ρ\ta\nb\x9b\r") == "ρ\ta\nb�\r".replace("\r", printable("\r"))


def test_a_console_keeps_its_own_colours(capsys: pytest.CaptureFixture[str]) -> None:
    PlainConsole(markup=True, force_terminal=True, color_system="standard").print("[red]a\x1b[32m[/red]")
    assert capsys.readouterr().out == "\x1b[31ma�\x1b[0m\x1b[31m[32m\x1b[0m\n".replace("\x1b[0m\x1b[31m", "")


def test_comments_of_a_yaml_stay_comments(call: Any, tmp_path: Path) -> None:
    """What a file says goes into the YAML that is proposed, and cannot add a line to it."""
    with h5py.File(tmp_path / "u.h5", "w") as file:
        u = file.create_dataset("u", data=np.random.default_rng(0).standard_normal((12, 9, 16)).astype(np.float32))
        u.attrs["long_name"] = u.attrs["units"] = "m\n_target_: os.system"
        file.attrs["title"] = "x\nprepare: {_target_: os.system}"
    shutil.copy(tmp_path / "u.h5", tmp_path / "b\n_target_: os.system.h5")
    for path in sorted(tmp_path.glob("*.h5")):
        call("data_adapters.inspect", path.name, "dims=[sample,time,x]", "dt=0.1", "out=new.yaml", cwd=tmp_path)
        written = tmp_path / "new.yaml"
        if written.exists():
            assert yaml.safe_load(written.read_text())["_target_"] == "data_adapters.hdf5.ArrayAdapter"
            assert "prepare" not in yaml.safe_load(written.read_text())
            written.unlink()
