"""What is left of a run after each of many faults: the losses, scores and weights of a run without it.

    python -m experiments.survival.run                 # all faults, some 10 minutes on two cores
    python -m experiments.survival.run out=DIR faults=[SIGTERM] jobs=1

Each fault hits a run of `python -m morph.train` of 40 steps in two epochs, with a checkpoint every 7 steps, on the
tiny suite.  The same command with `resume=auto` then goes on, and its `losses.csv`, its scores and its weights are
compared, bit for bit, with those of a run that nothing happened to.  Writes `faults.csv` and `faults.md`.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf

from experiments.survival.cases import CASES as ALL
from experiments.survival.cases import RANKS, Case

__all__ = ["main", "read", "same"]

OPTIONS: dict[str, Any] = {"out": "experiments/survival", "work": "runs/survival", "faults": None, "jobs": 2}
ROOT = Path(__file__).resolve().parents[2]
TRAIN = (
    "+experiment=debug", "data=[cfd1d,dr2d]", "model.dim=32", "model.depth=1", "model.heads=2", "model.field_heads=4",
    "model.mlp_dim=32", "mixture.steps_per_epoch=20", "checkpoint_every=7", "loader.validation_windows=4",
    "trainer.log_every_n_steps=1", "trainer.accelerator=cpu",
)  # fmt: skip
_TELLING = ("error:", "Ended by", "Checkpoints in", "RuntimeError:", "Detected KeyboardInterrupt")
COLUMNS = ("fault", "where", "ended", "seconds", "said", "resumed", "lost", "losses", "scores", "weights")


class Ended(NamedTuple):
    """How a command ended; `seconds` from the fault on, which is the last line of its losses."""

    code: int
    seconds: float
    said: str


def main(arguments: list[str]) -> None:
    """Every fault that is asked for."""
    options: Any = OmegaConf.to_container(OmegaConf.merge(OPTIONS, OmegaConf.from_dotlist(arguments)))
    if unknown := set(options) - set(OPTIONS):
        sys.exit(f"error: unknown option {', '.join(sorted(unknown))}; expected {', '.join(OPTIONS)}")
    work, out = Path(options["work"]).absolute(), Path(options["out"])
    wanted = options["faults"]
    cases = [(k, case) for k, case in enumerate(ALL, 1) if wanted is None or any(name in case.name for name in wanted)]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    out.mkdir(parents=True, exist_ok=True)
    for name, more in {"one": (), "two": RANKS}.items():
        if name == "two" and all(RANKS[0] not in case.options for _, case in cases):
            continue
        done = _train(work / name, more)
        if done.code:
            sys.exit(f"the run without a fault ended with {done.code}: {done.said}")
        print(f"without a fault, {name}: {done.seconds:.0f} s", flush=True)
    rows = []
    with ThreadPoolExecutor(options["jobs"]) as pool:
        for row in pool.map(lambda case: _try(case[1], work, case[0]), cases):
            rows.append(row)
            print(" | ".join(str(row[name]) for name in COLUMNS), flush=True)
    with (out / "faults.csv").open("w") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(str(row[name]).replace("|", "\\|") for name in COLUMNS) + " |" for row in rows]
    (out / "faults.md").write_text("\n".join(lines) + "\n")


def _try(case: Case, work: Path, number: int) -> dict[str, Any]:
    folder = work / f"fault_{number}"
    folder.mkdir()
    if case.full:
        if os.geteuid():
            return {**dict.fromkeys(COLUMNS, ""), "fault": case.name, "where": "not tried: mounting needs root"}
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={case.full}m", "tmpfs", folder], check=True)
    try:
        return _suffer(case, work, folder / "run")
    finally:
        if case.full:
            subprocess.run(["umount", folder], check=True)


def _suffer(case: Case, work: Path, run_dir: Path) -> dict[str, Any]:
    fault = f"+callbacks.fault={{_target_:experiments.survival.faults.Fault,hook:{case.hook},step:{case.step},"
    fault += f"action:{case.action},rank:{case.rank}}}"
    environment = _slurm(run_dir.parent) if case.slurm else {}
    for _ in range(case.times):
        ended = _train(run_dir, (*case.options, "resume=auto", *([fault] if case.action else [])), environment)
    reached = len((run_dir / "losses.csv").read_text().splitlines()) - 1
    if case.after:
        case.after(run_dir)
    again = _train(run_dir, (*case.options, *case.again, "resume=auto"))
    start = re.search(r"continuing from \S+/(\S+) after step (\d+)", again.said)
    start = start or re.search(r"run (is over) after step (\d+)", again.said)
    verdict = same(run_dir, work / ("two" if RANKS[0] in case.options else "one"))
    refused = next((line for line in again.said.splitlines() if line.startswith("error: ")), "")
    refused = refused.replace(f"{work}/", "")[:140]
    return {
        "fault": case.name,
        "where": case.place,
        "ended": _name(ended.code) + (_requeued(run_dir.parent) if case.slurm else ""),
        "seconds": f"{ended.seconds:.1f}",
        "said": _last(ended.said, work),
        "resumed": "refused" if again.code else (start[1] if start else "from the beginning"),
        "lost": "" if again.code else reached - (int(start[2]) if start else 0),
        **({"losses": refused, "scores": "", "weights": ""} if case.refused else verdict),
    }


def _train(run_dir: Path, options: tuple[str, ...], environment: dict[str, str] | None = None) -> Ended:
    """The command, in a session of its own, so that signals to all of its processes reach no others."""
    command = [sys.executable, "-m", "morph.train", *TRAIN, *options, f"run_dir={run_dir}"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(environment or {})}
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        said, _ = process.communicate(timeout=600)
        now = time.time()
    losses = run_dir / "losses.csv"
    return Ended(process.returncode, now - losses.stat().st_mtime if losses.is_file() else 0.0, said)


def same(run_dir: Path, reference: Path) -> dict[str, str]:
    """Whether what the run wrote is what the other one did."""
    verdict = {
        name: "equal" if _numbers(run_dir / path) == _numbers(reference / path) else "DIFFER"
        for name, path in {"losses": "losses.csv", "scores": "log/metrics.csv"}.items()
    }
    states = [
        torch.load(d / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for d in (run_dir, reference)
    ]
    equal = states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    return {**verdict, "weights": "equal" if equal else "DIFFER"}


def _numbers(path: Path) -> list[dict[str, str]]:
    """What does not depend on the machine's mood."""
    timed = ("speed/", "memory/")
    return [{name: value for name, value in row.items() if not name.startswith(timed)} for row in read(path)]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of `faults.csv`."""
    with path.open() as file:
        return list(csv.DictReader(file))


def _slurm(folder: Path) -> dict[str, str]:
    script = folder / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\necho $* >> {folder}/requeued\n")
    script.chmod(0o755)
    return {
        "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "pretrain", "SLURM_JOB_ID": "815", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "PATH": f"{script.parent}:{os.environ['PATH']}",
    }  # fmt: skip


def _requeued(folder: Path) -> str:
    return f", scontrol {(folder / 'requeued').read_text().strip()}" if (folder / "requeued").exists() else ""


def _name(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _last(said: str, work: Path) -> str:
    """The line that says why it ended; none of one that was killed."""
    lines = [line.strip().removeprefix("[rank1]: ").replace(f"{work}/", "") for line in said.splitlines()]
    return next((line for line in reversed(lines) if line.startswith(_TELLING)), "")[:140]


if __name__ == "__main__":
    main(sys.argv[1:])
