"""A file on which the HDF5 library hangs or crashes is named, and the others are opened all the same."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_adapters import probe as probing
from data_adapters.probe import probe
from tests.array_files import describe, noise, store

ROOT = str(Path(__file__).parents[1])
# The child's program, with a library that ends, waits or raises by the name of the file.
PROGRAM = f"""
import os, signal, sys, time
sys.path.append({ROOT!r})
from data_adapters.probe import serve, visit

def visitor(path, alive):
    file = os.path.basename(path)
    if "crash" in file:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in file:
        time.sleep(60)
    if "slow" in file:
        for _ in range(4):
            time.sleep(0.6)
            alive()
    if "raise" in file:
        raise RuntimeError
    visit(path, alive)

serve(visitor)
"""
COMMAND = (sys.executable, "-c", PROGRAM)


def test_only_files_that_hang_or_crash_are_named(tmp_path: Path) -> None:
    names = ("a", "raise", "crash", "slow", "hang", "b")
    files = [str(store(tmp_path / f"{name}.h5", u=np.zeros(3))) for name in names]
    other = tmp_path / "crash.grib"
    other.write_bytes(b"GRIB" + bytes(20))  # not of HDF5
    found = probe([*files, str(other), str(tmp_path / "hang_absent.h5")], limit=2, program=COMMAND)
    assert found == {files[2]: "the process that opened it ended with SIGSEGV", files[4]: "no answer in 2 s"}


def test_whole_and_damaged_files_are_left_to_their_reader(tmp_path: Path) -> None:
    whole = store(tmp_path / "whole.h5", u=noise(4, 5))
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(whole.read_bytes()[:200])
    assert probe([str(damaged), str(whole)]) == {}
    assert probe([]) == {}


def test_a_child_that_does_not_start_is_no_fault_of_a_file(tmp_path: Path) -> None:
    whole = store(tmp_path / "whole.h5", u=noise(4, 5))
    with pytest.raises(OSError, match="ended with 3 before a file"):
        probe([str(whole)], program=(sys.executable, "-S", "-c", "raise SystemExit(3)"))


def test_check_names_such_a_file_and_goes_on(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_adapters.check.probe", lambda files: probing.probe(files, program=COMMAND))
    for name in ("mine", "other"):
        store(tmp_path / f"{name}_0.h5", u=noise(4, 5, 8))
        describe(tmp_path, name)
    crashing = store(tmp_path / "mine_crash.h5", u=noise(4, 5, 8))
    done = call("data_adapters.check", "data=[mine.yaml,other.yaml]", cwd=tmp_path)
    assert done.returncode == 1
    assert f"error: {crashing}: expected" in done.stdout
    assert "SIGSEGV; fetch or generate it again, or remove it" in done.stdout
    assert not (tmp_path / "mine.stats.yaml").exists()
    assert (tmp_path / "other.stats.yaml").exists()
