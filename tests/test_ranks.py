"""Training does not depend on how many processes share it, nor on whether they share the weights."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from morph.checkpoint import load_checkpoint
from tests.ranks import BATCHES, CLIP, EPOCHS, STEPS, on_processes

pytestmark = pytest.mark.slow

PLAIN = {"sets": {"slow": "Plain", "fast": "Plain"}}
CASES: dict[str, dict[str, Any]] = {
    "plain": {**PLAIN, "strategy": "ddp"},
    "masked": {"sets": {"masked": "Masked", "plain": "Plain"}, "strategy": "ddp"},
}
UNION = {**PLAIN, "strategy": "ddp", "dropout": 0.0}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """All trainings by number of processes, case and rank."""
    folder = tmp_path_factory.mktemp("ranks")
    sharded = {**PLAIN, "strategy": "fsdp"}
    of_two = {
        **CASES,
        "union": {**UNION, "batches": 2, "batch_size": 2},
        "fsdp": sharded,
        "fsdp_checkpointing": {**sharded, "checkpointing": True},
        "to_fsdp": {**sharded, "resume": folder / "plain_2" / "step=2.ckpt"},
    }
    middle = folder / "fsdp_2" / "step=4.ckpt"  # inside the second epoch
    two = on_processes(folder, 2, of_two)
    of_one = {
        **CASES,
        "union": {**UNION, "batches": 1, "batch_size": 4},
        "from_fsdp": {**PLAIN, "strategy": "ddp", "resume": middle},
        "fsdp": {**sharded, "resume": middle},
    }
    one = on_processes(folder, 1, of_one)
    three = on_processes(folder, 3, {**CASES, "from_fsdp": of_one["from_fsdp"]})
    return {1: one, 2: two, 3: three}


def losses(ranks: list[dict[str, Any]]) -> Tensor:
    """Of each batch of each step (steps, batches), in the order of one process: batch r, r + W, ... are rank r's."""
    of_ranks = torch.stack([rank["losses"] for rank in ranks], -1)
    return of_ranks.flatten(1)


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest, relative to the largest of all values."""
    assert found.keys() == expected.keys()
    scale = max(value.abs().max() for value in expected.values())
    return max(((found[name] - expected[name]).abs().max() / scale).item() for name in expected)


def norm(gradient: dict[str, Tensor]) -> float:
    return torch.cat([part.flatten() for part in gradient.values()]).norm().item()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_equal_one(found: Any, processes: int, case: str) -> None:
    """With dropout, and clipped: gradients, the loss of each batch, weights and scores."""
    ranks, (one,) = found[processes][case], found[1][case]
    assert all(norm(gradient) > CLIP for gradient in one["gradients"])
    for rank in ranks:
        assert difference(rank["gradients"][0], one["gradients"][0]) < 1e-6
        assert difference(rank["weights"], ranks[0]["weights"]) == 0
        assert difference(rank["weights"], one["weights"]) < 1e-6
        assert rank["scores"] == pytest.approx(one["scores"], rel=1e-6)
    expected = losses([one])
    assert expected.shape == (STEPS * EPOCHS, BATCHES)
    assert expected.std() > 1e-3
    assert (losses(ranks) - expected).abs().max() < 1e-6 * expected.max()


def test_a_step_of_two_processes_is_that_of_one_with_twice_the_batch(found: Any) -> None:
    ranks, (one,) = found[2]["union"], found[1]["union"]
    assert difference(ranks[0]["gradients"][0], one["gradients"][0]) < 2e-6
    mean = torch.stack([rank["losses"] for rank in ranks]).mean(0)
    assert (mean - one["losses"]).abs().max() < 1e-6 * one["losses"].max()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("processes", [2, 3])
def test_together_they_read_what_one_reads_and_no_more(found: Any, processes: int, case: str) -> None:
    read = [rank["read"] for rank in found[processes][case]]
    assert sum(read, Counter()) == found[1][case][0]["read"]
    assert all(part.total() * processes == found[1][case][0]["read"].total() for part in read)


def test_sharded_weights_train_and_export_as_whole_ones(found: Any) -> None:
    for case in ("fsdp", "fsdp_checkpointing"):
        ranks, (one,) = found[2][case], found[1]["plain"]
        assert ranks[0]["sharded"] == len(one["weights"])
        for rank in ranks:
            # Before clipping, all of whose parts must be seen for the norm.
            assert difference(rank["gradients"][0], one["gradients"][0]) < 1e-6
            assert difference(rank["weights"], one["weights"]) < 1e-6
            assert rank["scores"] == pytest.approx(one["scores"], rel=1e-6)
        assert (losses(ranks) - losses([one])).abs().max() < 1e-6 * one["losses"].max()
    last = {name: Path(found[size][name][0]["last"]) for size, name in ((2, "fsdp"), (2, "plain"))}
    stored = [load_checkpoint(path).state_dict() for path in (last["fsdp"], last["plain"])]
    assert difference(stored[0], stored[1]) < 1e-6
    optimizers = [torch.load(path, weights_only=True)["optimizer_states"][0] for path in last.values()]
    assert optimizers[0]["param_groups"] == optimizers[1]["param_groups"]
    for number, state in optimizers[0]["state"].items():
        assert difference(state, optimizers[1]["state"][number]) < 1e-6


@pytest.mark.parametrize(("processes", "case"), [(1, "from_fsdp"), (1, "fsdp"), (3, "from_fsdp"), (2, "to_fsdp")])
def test_a_run_resumes_on_another_number_of_processes_sharded_or_not(found: Any, processes: int, case: str) -> None:
    """In the middle of an epoch; the rest of the losses, and the weights in the end."""
    ranks, (one,) = found[processes][case], found[1]["plain"]
    rest = losses(ranks)
    assert len(rest) == (4 if case == "to_fsdp" else 2)
    assert (rest - losses([one])[-len(rest) :]).abs().max() < 1e-6 * one["losses"].max()
    assert difference(ranks[0]["weights"], one["weights"]) < 1e-6
