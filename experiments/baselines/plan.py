"""Which runs the study consists of, how long each of them is, and who does it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data_adapters.suite.systems import find_system

__all__ = ["BATCH", "CONTEXT", "LONGEST", "RATES", "Run", "batch_sizes", "config_of", "rates", "rollout_steps", "runs",
           "share", "trained_on"]  # fmt: skip

BATCH = {1: 8, 2: 4, 3: 1}
"""Windows per batch by the number of spatial axes."""
CONTEXT = 4
LONGEST = 30
"""Frames of a rollout, fewer where trajectories end before."""
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates of the sweep."""
Speed = Mapping[tuple[str, str], Mapping[str, Any]]
"""(model, system) -> a line of speed.csv; `mix` is measured as nano, which it is."""


class Run(NamedTuple):
    """One training.

    model: fno, unet, nano, or mix: nano on all systems.
    system: What it is trained on; "all" for mix.
    matched: The budget that it belongs to: steps, time, or both where both are the same number of steps.
    """

    model: str
    system: str
    matched: str
    seed: int
    steps: int
    lr: float


def config_of(model: str) -> str:
    """Its entry in conf/model."""
    return "nano" if model == "mix" else model


def trained_on(run: Run, systems: Sequence[str]) -> list[str]:
    """The systems of its data, on each of which it is judged."""
    return list(systems) if run.model == "mix" else [run.system]


def runs(options: Mapping[str, Any], speed: Speed) -> Iterator[Run]:
    """Every training, the seeds outermost, so that an early end leaves whole seeds.

    At matched time, each gets as many steps as fit into the budget of its system at its measured rate; mix gets the
    budgets of all systems together at the mean of nano's rates, since it draws each system equally often.
    """
    systems, steps = options["systems"], options["steps"]
    nano = {name: speed["nano", name]["step_s"] for name in systems}
    budget = {name: steps * nano[name] if options["seconds"] is None else options["seconds"] for name in systems}
    for seed in options["seeds"]:
        for model in options["models"]:
            lr = options["lr"][config_of(model)]
            for system in ["all"] if model == "mix" else systems:
                if model == "mix":
                    same, rate, seconds = steps * len(systems), sum(nano.values()) / len(nano), sum(budget.values())
                else:
                    same, rate, seconds = steps, speed[model, system]["step_s"], budget[system]
                fit = max(1, round(seconds / rate))
                for matched, count in {"both": same}.items() if fit == same else {"steps": same, "time": fit}.items():
                    yield Run(model, system, matched, seed, count, lr)


def rates(options: Mapping[str, Any]) -> Iterator[Run]:
    """The sweep of learning rates: seed 0, judged on the validation split."""
    for system in options["rate_systems"]:
        for model in dict.fromkeys(map(config_of, options["models"])):
            for lr in RATES:
                yield Run(model, system, "steps", 0, options["steps"], lr)


def share(plan: Iterable[Run], speed: Speed, systems: Sequence[str], shard: str | None) -> list[Run]:
    """The part of the plan that one of several processes does: "1/3" is the second of three.

    In the order of the plan, each run goes to the process with the least to do so far; all of them agree on that.
    """
    index, count = (0, 1) if shard is None else map(int, shard.split("/"))
    load = [0.0] * count
    mine = []
    for run in plan:
        names = trained_on(run, systems)
        least = load.index(min(load))
        load[least] += run.steps * sum(speed[config_of(run.model), name]["step_s"] for name in names) / len(names)
        if least == index:
            mine.append(run)
    return mine


def batch_sizes(systems: Sequence[str]) -> dict[str, int]:
    """Windows per batch of each system."""
    return {name: BATCH[find_system(name).num_dims] for name in systems}


def rollout_steps(system: str, level: str) -> int:
    """Frames of its rollouts."""
    return min(LONGEST, find_system(system).levels[level].num_frames - CONTEXT)
