"""The steppers of the embedded suite against exact solutions, independent solvers and half the time step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_adapters.suite import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent


def measure(*arguments: str) -> dict[str, float]:
    """Relative errors, measured in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "tests" / "suite_physics.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_waves_follow_their_exact_solutions() -> None:
    found = measure("waves")
    for axis in "xyz":
        assert found[f"alfven {axis}"] < 1e-8
    # The amplitude is 1e-6: what is left is the nonlinear part.
    assert found["sound 1-D"] < 1e-5
    assert found["sound 3-D"] < 1e-5
    assert found["gravity waves"] < 1e-5


def test_solutions_in_double_precision_are_exact() -> None:
    found = measure("solutions")
    assert found["burgers"] < 1e-8
    assert found["taylor-green"] < 1e-12
    assert found["fitzhugh-nagumo"] < 1e-8
    assert found["gray-scott"] < 1e-8
    assert found["fisher"] < 1e-8


def test_velocity_of_ns2d_carries_the_vorticity() -> None:
    found = measure("vorticity")
    assert found["transport"] < 1e-6
    assert found["curl: w = du/dy - dv/dx"] < 1e-12
    assert found["divergence"] < 1e-12


def test_burgers_in_single_precision() -> None:
    assert measure("single")["burgers"] < 5e-5


@pytest.mark.slow
def test_half_the_time_step_gives_the_same_data(tiny_suite: Path) -> None:
    found = measure("refined", str(tiny_suite), *SYSTEMS)
    assert {name.split()[0] for name in found} == set(SYSTEMS)
    for name, error in found.items():
        assert error < 4e-4, name
