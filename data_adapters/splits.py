"""Which trajectories, or which part of one long record, are for training, validation and testing.

The rule and its seed decide alone: the same files give the same splits, on any machine, and no two splits share a
trajectory, or a frame.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ALL", "SPLITS", "Part", "check_split", "divide", "full_rule"]

SPLITS = ("train", "valid", "test")
ALL = "all"
"""Undivided: every trajectory and every frame, also those that a rule leaves out between two splits."""
_KEYS = {
    "trajectory": {"by", "valid", "test", "order", "seed", "within"},
    "time": {"by", "valid", "test", "order", "gap"},
}


class Part(NamedTuple):
    """What belongs to a split.

    trajectories: numbers of the trajectories, counted through all files.
    frames: which frames of each.
    """

    trajectories: tuple[int, ...]
    frames: range


def check_split(split: str, where: str) -> None:
    """Refuse another name.

    Raises:
        ValueError: It is none of train, valid, test and all.
    """
    if split not in (*SPLITS, ALL):
        raise ValueError(f"{where}: expected a split of {', '.join(SPLITS)}, or {ALL}, found {split!r}")


def full_rule(rule: Mapping[str, Any] | None, num_trajectories: int, where: str) -> dict[str, Any]:
    """The option `splits` with its defaults filled in.

    By trajectory, a tenth each is for validation and for testing: shuffled by `seed` (0), or in contiguous blocks if
    `order` names train, valid and test in the order in which they lie.  `within` says whether the rule holds in each
    file, or over all.  By time, the default where there is one trajectory, each of them is cut into blocks in `order`,
    with `gap` frames (a fraction or a number, 0.02) left out at each cut.

    Raises:
        ValueError: A key or a value is unknown, or would be ignored.
    """
    if not isinstance(rule, Mapping | None) or not all(isinstance(key, str) for key in rule or {}):
        raise ValueError(f"{where}: splits: expected a mapping of by, valid, test and more, found {rule!r}")
    rule = dict(rule or {})
    by = rule.get("by", "trajectory" if num_trajectories > 1 else "time")
    if by not in list(_KEYS):
        raise ValueError(f"{where}: splits.by: expected trajectory or time, found {by!r}")
    if unknown := set(rule) - _KEYS[by]:
        raise ValueError(
            f"{where}: splits: expected {', '.join(sorted(_KEYS[by]))} with by={by}, found {', '.join(sorted(unknown))}"
        )
    if "order" in rule and "seed" in rule:
        raise ValueError(
            f"{where}: splits: `order` takes blocks as they lie and `seed` shuffles; leave one of them out"
        )
    order = rule.get("order", SPLITS)
    if not isinstance(order, Sequence) or sorted(map(str, order)) != sorted(SPLITS):
        raise ValueError(f"{where}: splits.order: expected train, valid and test in some order, found {order!r}")
    order = list(order)
    full: dict[str, Any] = {"by": by, "valid": rule.get("valid", 0.1), "test": rule.get("test", 0.1)}
    if by == "time":
        full |= {"order": order, "gap": rule.get("gap", 0.02)}
    elif "order" in rule:
        full |= {"order": order, "within": rule.get("within", "file")}
    else:
        full |= {"seed": rule.get("seed", 0), "within": rule.get("within", "all")}
    for key in ("valid", "test", "gap"):
        value = full.get(key, 0)
        if isinstance(value, bool) or not (
            (isinstance(value, int) and value >= 0) or (isinstance(value, float) and 0 <= value < 1)
        ):
            raise ValueError(f"{where}: splits.{key}: expected a fraction below 1 or a count, found {value!r}")
    if full.get("within", "all") not in ("file", "all"):
        raise ValueError(f"{where}: splits.within: expected file or all, found {full['within']!r}")
    if type(full.get("seed", 0)) is not int or full.get("seed", 0) < 0:
        raise ValueError(f"{where}: splits.seed: expected an integer of 0 or more, found {full['seed']!r}")
    return full


def divide(counts: Sequence[int], num_steps: int, rule: Mapping[str, Any], split: str, where: str) -> Part:
    """What belongs to a split.

    Args:
        counts: Trajectories in each file.
        num_steps: Frames of each trajectory.
        rule: From `full_rule`.
        split: train, valid, test or all, of which the rule cuts nothing.
        where: Data set, for the message.

    Raises:
        ValueError: Nothing would be left for the split, or for training.
    """
    total = sum(counts)
    if split == ALL:
        return Part(tuple(range(total)), range(num_steps))
    if rule["by"] == "time":
        return Part(tuple(range(total)), _frames(num_steps, rule, split, where))
    groups = counts if rule["within"] == "file" else [total]
    chosen: list[int] = []
    first = 0
    for count in groups:
        what = "trajectories" if len(groups) == 1 else "trajectories in one of the files (choose within=all)"
        blocks = _blocks(count, rule, rule.get("order", SPLITS), where, what)
        order = np.arange(count) if "order" in rule else np.random.default_rng(rule["seed"]).permutation(count)
        chosen += sorted((first + order[blocks[split]]).tolist())
        first += count
    if not chosen:
        raise ValueError(
            f"{where}: no trajectory is left for {split}: {total} in {len(counts)} file(s), splits {dict(rule)}; "
            "raise the share of this split, or split by time"
        )
    return Part(tuple(chosen), range(num_steps))


def _frames(num_steps: int, rule: Mapping[str, Any], split: str, where: str) -> range:
    gap = _count(rule["gap"], num_steps)
    block = _blocks(num_steps, rule, rule["order"], where, "frames")[split]
    start, stop = block.start, block.stop
    # The gap is taken from the later of two neighbours.
    start = min(start + gap, stop) if start else start
    if stop <= start:
        raise ValueError(
            f"{where}: no frame is left for {split}: {num_steps} frames, splits {dict(rule)}; "
            "raise the share of this split, or lower the gap"
        )
    return range(start, stop)


def _blocks(count: int, rule: Mapping[str, Any], order: Sequence[str], where: str, what: str) -> dict[str, slice]:
    sizes = {split: _count(rule[split], count) for split in ("valid", "test")}
    sizes["train"] = count - sum(sizes.values())
    if sizes["train"] < 1:
        raise ValueError(
            f"{where}: splits: of {count} {what}, valid takes {sizes['valid']} and test {sizes['test']}, and none is "
            "left for training; lower them, or split by time"
        )
    blocks, first = {}, 0
    for split in order:
        blocks[split] = slice(first, first + sizes[split])
        first += sizes[split]
    return blocks


def _count(share: float, count: int) -> int:
    """A share that is not zero comes to one at least."""
    if isinstance(share, int):
        return share
    return max(1, round(share * count)) if share else 0
