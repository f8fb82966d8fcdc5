"""The embedded suite: ten periodic systems of equations, generated on the spot, in the layout of The Well.

    folder = ensure("cfd1d", "small")

Generation needs exponax (`pip install "morph[suite]"`) and runs in a process of its own, as JAX and forked data loaders
do not live together; nothing is imported from JAX here.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from data_adapters.suite.stored import check_stored, train_file
from data_adapters.suite.systems import (
    HELD_OUT,
    LEVELS,
    PRETRAINING_MIX,
    SUITE_VERSION,
    SYSTEMS,
    check_level,
    check_seed,
    find_system,
)

__all__ = ["HELD_OUT", "LEVELS", "PRETRAINING_MIX", "SYSTEMS", "ensure"]


def _folder(system_name: str, level: str, seed: int = 0, out: str | Path = "data/suite") -> Path:
    return Path(out) / level / find_system(system_name).name


def ensure(system_name: str, level: str, seed: int = 0, out: str | Path = "data/suite") -> Path:
    """Folder of a data set of the suite, which is generated first where it is missing.

    Args:
        system_name: One of SYSTEMS.
        level: One of LEVELS.
        seed: Seed of the data.
        out: Where the suite lies; the folder is <out>/<level>/<system>.

    Raises:
        ValueError: An argument is unknown, the folder holds another data set, exponax is missing, or generation failed.
    """
    name = find_system(system_name).name
    check_level(level)
    check_seed(seed)
    folder = _folder(system_name, level, seed, out)
    if not folder.exists():
        _generate(name, level, seed, Path(out))
    check_stored(folder, name, level, seed, suite_version=SUITE_VERSION)
    return folder


def _generate(name: str, level: str, seed: int, out: Path) -> None:
    if find_spec("exponax") is None:
        raise ValueError(
            f"data set {name!r} of the suite is not in {out / level}, and exponax, which generates it, is not "
            'installed: pip install "morph[suite]"'
        )
    # The child finds this package wherever it was imported from.
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    quoted = str(out.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    options = [f"systems=[{name}]", f"level={level}", f"seed={seed}", f"out='{quoted}'"]
    result = subprocess.run([sys.executable, "-m", "data_adapters.suite", *options], env=environment, check=False)
    if result.returncode != 0 or not train_file(out / level / name, name).exists():
        raise ValueError(
            f"data set {name!r} of the suite could not be generated (exit code {result.returncode}); the reason stands "
            f"above.  To try again: python -m data_adapters.suite {' '.join(options)}"
        )


# A data set's YAML may name this function as `prepare`: it writes to that folder alone, see `morph.trust.check_places`.
ensure.makes = _folder  # type: ignore[attr-defined]
