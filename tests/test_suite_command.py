"""The command of the embedded suite, and `ensure`: the same bytes, one clear message, nothing half-written."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from suite_files import data_file, read

from data_adapters.suite import HELD_OUT, LEVELS, PRETRAINING_MIX, SYSTEMS, ensure
from data_adapters.suite.systems import SPLITS, find_system

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


def command(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "data_adapters.suite", *options, cwd=cwd)


def test_the_same_options_give_the_same_bytes(tiny_suite: Path, tmp_path: Path) -> None:
    done = command("level=tiny", "systems=[burgers1d,ns2d]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["data"]  # Hydra leaves no folder of its own
    folder = tmp_path / "data" / "suite" / "tiny"
    assert sorted(os.listdir(folder)) == ["burgers1d", "ns2d"]
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(written) == 8
    for path in written:
        digests = [hashlib.sha256((root / path).read_bytes()).hexdigest() for root in (folder, tiny_suite)]
        assert digests[0] == digests[1], path


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("level=huge", "level: expected one of tiny, small, full, found 'huge'"),
        ("systems=[cfd1d,cfd9d]", "systems: expected one or more of cfd1d, dr2d"),
        ("systems=[]", "systems: expected one or more of"),
        ("seed=abc", "seed: expected a whole number from 0 to 2^31 - 1, found 'abc'"),
        ("overwrite=perhaps", "overwrite: expected true or false, found 'perhaps'"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, option: str, message: str) -> None:
    done = command("level=tiny", option, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_help_names_every_system_and_level(tmp_path: Path) -> None:
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "systems=[cfd1d,ns2d]" in done.stdout
    for name in SYSTEMS:
        assert f"{name:<10} {find_system(name).summary}\n" in done.stdout
    assert all(level in done.stdout for level in LEVELS)
    assert (*PRETRAINING_MIX, *HELD_OUT) == SYSTEMS
    assert len(SYSTEMS) == len(set(SYSTEMS)) == 10


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    done = command("level=tiny", "out=taken", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "out: expected the path of a folder" in done.stderr
    assert (tmp_path / "taken").read_text() == "mine"


def test_data_of_another_seed_are_not_replaced_unasked(tiny_suite: Path) -> None:
    before = data_file(tiny_suite, "cfd1d", "train").read_bytes()
    done = command("level=tiny", "systems=[cfd1d]", "seed=3", f"out={tiny_suite.parent}", cwd=tiny_suite)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "expected seed=3, found seed=0" in done.stderr
    assert "overwrite=true" in done.stderr
    assert data_file(tiny_suite, "cfd1d", "train").read_bytes() == before


def test_overwrite_replaces(tmp_path: Path) -> None:
    options = ("level=tiny", "systems=[dr1d]", "out=here")
    assert command(*options, cwd=tmp_path).returncode == 0
    folder = tmp_path / "here" / "tiny"
    before = read(folder, "dr1d", "test")[0]["u"]
    done = command(*options, cwd=tmp_path)
    assert done.returncode == 0
    assert "already in" in done.stdout
    done = command(*options, "seed=4", "overwrite=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.abs(read(folder, "dr1d", "test")[0]["u"] - before).max() > 0.1
    assert os.listdir(folder) == ["dr1d"]


@pytest.mark.parametrize("reserved", [True, False])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, reserved: bool) -> None:
    limited = f"""
import os, resource, runpy, sys
os.environ["JAX_PLATFORMS"] = "cpu"
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
if not {reserved}:  # as if the space had gone after it was found free
    import data_adapters.suite.generate as generate
    generate._reserve = lambda path, size: path.parent.mkdir(parents=True)
sys.argv = ["suite", "level=tiny", "systems=[dr1d]", "out=here"]
runpy.run_module("data_adapters.suite", run_name="__main__", alter_sys=True)
"""
    done = python("-c", limited, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: out: File too large")
    assert [path for path in tmp_path.rglob("*") if path.name not in ("here", "tiny")] == []


def test_a_simulation_that_blows_up_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    unstable = """
import os, runpy, sys
os.environ["JAX_PLATFORMS"] = "cpu"
import data_adapters.suite.generate as generate
draw = generate.draw
generate.draw = lambda *place: (draw(*place)[0], draw(*place)[1] * 1e4)
sys.argv = ["suite", "level=tiny", "systems=[burgers1d]", "out=here"]
runpy.run_module("data_adapters.suite", run_name="__main__", alter_sys=True)
"""
    done = python("-c", unstable, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: burgers1d: split train, trajectory 0 (viscosity 0.0")
    assert "u is not finite from frame" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.name not in ("here", "tiny")] == []


def test_ensure_gives_what_is_there_and_refuses_what_is_not_it(tiny_suite: Path, tmp_path: Path) -> None:
    suite = tiny_suite.parent
    assert ensure("cfd1d", "tiny", 0, suite) == tiny_suite / "cfd1d"
    with pytest.raises(ValueError, match=r"expected seed=5, found seed=0"):
        ensure("cfd1d", "tiny", 5, suite)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "cfd1d").symlink_to(tiny_suite / "cfd1d")
    with pytest.raises(ValueError, match=r"expected level=small, found level=tiny"):
        ensure("cfd1d", "small", 0, tmp_path)
    (tmp_path / "tiny" / "cfd1d").mkdir(parents=True)
    with pytest.raises(ValueError, match="expected a data set of the suite, found no readable"):
        ensure("cfd1d", "tiny", 0, tmp_path)
    with pytest.raises(ValueError, match=r"systems: expected one or more of cfd1d, .*, found 'cfd9d'"):
        ensure("cfd9d", "tiny")
    with pytest.raises(ValueError, match="level: expected one of tiny, small, full, found 'huge'"):
        ensure("cfd1d", "huge")


def test_ensure_generates_once_for_all_who_ask(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("it's a 'suite', {really}")
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: ensure("dr1d", "tiny", out=out), range(2)))
    assert folders == [out / "tiny" / "dr1d"] * 2
    assert os.listdir(out / "tiny") == ["dr1d"]
    for split in SPLITS:
        stored = data_file(out / "tiny", "dr1d", split).read_bytes()
        assert stored == data_file(tiny_suite, "dr1d", split).read_bytes()


def test_ensure_says_that_generation_failed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny").write_text("in the way")
    with pytest.raises(ValueError, match=r"'dr1d' of the suite could not be generated \(exit code 1\)"):
        ensure("dr1d", "tiny", out=tmp_path)
    assert capfd.readouterr().err.startswith("error: ")


def test_ensure_says_that_exponax_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_adapters.suite.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "morph\[suite\]"'):
        ensure("dr1d", "tiny", out=tmp_path)


def test_importing_the_suite_brings_no_jax_and_generating_brings_no_torch(tmp_path: Path) -> None:
    script = """
import sys
import data_adapters.suite, data_adapters.suite.__main__
assert not {"jax", "torch", "morph"} & set(sys.modules)
import data_adapters.suite.generate
assert "jax" in sys.modules and not {"torch", "morph"} & set(sys.modules)
"""
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
