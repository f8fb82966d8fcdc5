"""Half an hour of mixed training with two reading processes: does it keep its memory, its files and its pace?

    python -m experiments.survival.soak                # 30 minutes
    python -m experiments.survival.soak minutes=5 out=DIR

Starts `python -m morph.train` on the six-system mix, and every few seconds notes the resident memory of the training
process and of all its processes, their open files, and the steps done (rows of `losses.csv`).  Writes `soak.csv`,
`soak.png` and `soak.json`, with the growth after a warm-up of a sixth of the time.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import psutil
from omegaconf import OmegaConf

__all__ = ["main", "summary"]

OPTIONS: dict[str, Any] = {
    "out": "experiments/survival", "work": "runs/soak", "minutes": 30.0, "every": 5.0, "data_dir": "data",
    "level": "tiny", "workers": 2,
}  # fmt: skip
WINDOWS = 6
"""The time after the warm-up in so many parts, whose mean pace is compared."""
_PLACES = ("run_dir=", "data_dir=")
COLUMNS = ("seconds", "steps", "main_mb", "all_mb", "main_files", "all_files", "processes")


def main(arguments: Sequence[str]) -> None:
    """Train, watch, write."""
    options: Any = OmegaConf.to_container(OmegaConf.merge(OPTIONS, OmegaConf.from_dotlist(list(arguments))))
    if unknown := set(options) - set(OPTIONS):
        sys.exit(f"error: unknown option {', '.join(sorted(unknown))}; expected {', '.join(OPTIONS)}")
    work, out = Path(options["work"]), Path(options["out"])
    shutil.rmtree(work, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "morph.train", "+experiment=pretrain_mix", "model=nano", "model.dim=64", "model.depth=2",
        f"level={options['level']}", f"data_dir={options['data_dir']}", f"loader.num_workers={options['workers']}",
        "trainer.max_epochs=100000", "patience=100000", "mixture.steps_per_epoch=500", "loader.validation_windows=8",
        "checkpoint_every=250", f"run_dir={work}",
    ]  # fmt: skip
    rows = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while not (work / "losses.csv").is_file():
                if process.poll() is not None:
                    sys.exit(f"error: the run ended with {process.returncode} before its first step")
                time.sleep(0.1)
            start = time.monotonic()
            while time.monotonic() - start < 60 * options["minutes"] and process.poll() is None:
                time.sleep(options["every"])
                rows.append({"seconds": round(time.monotonic() - start, 1), **_look(process.pid, work)})
            if process.poll() is not None:
                sys.exit(f"error: the run ended with {process.returncode}")
        finally:
            process.terminate()
    figures = {
        "minutes": options["minutes"],
        "command": [option for option in command[2:] if not option.startswith(_PLACES)],
        "cores": os.cpu_count(),
        **summary(rows),
    }
    with (out / "soak.csv").open("w") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (out / "soak.json").write_text(json.dumps(figures, indent=2) + "\n")
    _draw(rows, out / "soak.png")
    print(json.dumps(figures, indent=2))


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What changed after the warm-up: growth of memory from its first tenth to its last one, in percent; the smallest
    and largest number of open files; steps per second of the parts, and how far they are from their mean, in percent.
    """
    table = {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}
    warm = table["seconds"] >= table["seconds"][-1] / 6
    kept = {name: values[warm] for name, values in table.items()}
    tenth = max(1, warm.sum() // 10)
    growth = {
        f"{name}_growth_percent": round(100 * (kept[name][-tenth:].mean() / kept[name][:tenth].mean() - 1), 2)
        for name in ("main_mb", "all_mb")
    }
    files = {name: [int(kept[name].min()), int(kept[name].max())] for name in ("main_files", "all_files")}
    edges = np.interp(np.linspace(kept["seconds"][0], kept["seconds"][-1], WINDOWS + 1), kept["seconds"], kept["steps"])
    pace = np.diff(edges) / ((kept["seconds"][-1] - kept["seconds"][0]) / WINDOWS)
    return {
        "steps": int(table["steps"][-1]), "main_mb": round(kept["main_mb"].mean(), 1), **growth, **files,
        "steps_per_second": [round(value, 3) for value in pace.tolist()],
        "pace_deviation_percent": round(100 * np.abs(pace / pace.mean() - 1).max(), 2),
    }  # fmt: skip


def _look(pid: int, work: Path) -> dict[str, Any]:
    root = psutil.Process(pid)
    family = [root, *root.children(recursive=True)]
    memory = [process.memory_info().rss / 1e6 for process in family]
    files = [process.num_fds() for process in family]
    with (work / "losses.csv").open("rb") as losses:
        steps = sum(1 for _ in losses) - 1
    return {
        "steps": steps, "main_mb": round(memory[0], 1), "all_mb": round(sum(memory), 1),
        "main_files": files[0], "all_files": sum(files), "processes": len(family),
    }  # fmt: skip


def _draw(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    matplotlib.use("agg")
    from matplotlib import pyplot

    minutes = [row["seconds"] / 60 for row in rows]
    figure, panels = pyplot.subplots(1, 3, figsize=(12, 3), layout="constrained")
    for panel, (name, label) in zip(
        panels, (("main_mb", "resident memory, MB"), ("main_files", "open files"), ("steps", "steps")), strict=True
    ):
        panel.plot(minutes, [row[name] for row in rows], label="training process")
        if name != "steps":
            other = name.replace("main", "all")
            panel.plot(minutes, [row[other] for row in rows], label="with reading processes")
            panel.legend()
        panel.set(xlabel="minutes", ylabel=label, ylim=(0, None))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1:])
