"""What is installed is what was tested: the wheel holds everything and trains; versions are pinned."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_module


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_trains(suite_root: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("morph-*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    assets = [path.relative_to(ROOT) for path in (ROOT / "morph" / "report" / "assets").iterdir()]
    assert {path.suffix for path in assets} == {".css", ".html", ".js"}
    assert all((site / path).read_bytes() == (ROOT / path).read_bytes() for path in assets)
    (tmp_path / "where.py").write_text("import morph, data_adapters; print(morph.__file__, data_adapters.__file__)")
    where = run_module("where", cwd=tmp_path, PYTHONPATH=str(site))
    assert where.stdout.count(str(site)) == 2, where.stdout + where.stderr
    done = run_module(
        "morph", "train", "+experiment=debug", f"data_dir={suite_root}", f"run_dir={tmp_path}/run",
        "mixture.steps_per_epoch=2", "trainer.max_epochs=1", cwd=tmp_path, PYTHONPATH=str(site),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    # Nothing of the checkout was used, so there is no revision to state.
    assert '"git": null' in (tmp_path / "run" / "train.json").read_text()


def test_every_dependency_is_pinned_to_a_tested_version() -> None:
    pins = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=\[ ]", need)[0]).lower() for need in wanted}
    assert names - pins == set()


def test_no_file_is_longer_than_400_lines() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    long = {name: n for name in tracked if (n := len((ROOT / name).read_text().splitlines())) > 400}
    assert long == {}
