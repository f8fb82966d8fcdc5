"""The plan of an epoch: same on every rank, disjoint between ranks, in the stated proportions."""

from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest

from morph.data.mixture import EvenSampler, MixtureSampler, WindowBatches, probabilities
from morph.data.windows import Windows
from tests.made_up import Counted

WINDOWS = {
    "small": Windows(Counted("small", num_trajectories=4, num_steps=14), context=4),
    "large": Windows(Counted("large", num_trajectories=20, num_steps=24), context=4),
}
SIZES = {"small": 4, "large": 8}


def sampler(**options: object) -> MixtureSampler:
    defaults = {"batch_sizes": SIZES, "steps": 60, "probabilities": np.array([0.5, 0.5]), "seed": 3}
    return MixtureSampler(WINDOWS, **{**defaults, **options})


def test_the_published_rule_draws_small_sets_more_often() -> None:
    # max_j B_j / B_k = 4, 2, 1
    assert np.allclose(probabilities({"a": 25, "b": 50, "c": 100}), [4 / 7, 2 / 7, 1 / 7])


def test_proportional_temperature_and_explicit_weights() -> None:
    counts = {"a": 1, "b": 4}
    assert np.allclose(probabilities(counts, "proportional"), [0.2, 0.8])
    assert np.allclose(probabilities(counts, "temperature", temperature=1), [0.2, 0.8])
    assert np.allclose(probabilities(counts, "temperature", temperature=2), [1 / 3, 2 / 3])
    assert np.allclose(probabilities(counts, {"b": 1, "a": 3}), [0.75, 0.25])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("inverse", "expected inverse_size, proportional, temperature"),
        ({"a": 1}, "each of a, b, found a"),
        ({"a": 1, "b": -1}, ">= 0"),
        ({"a": 0, "b": 0}, "positive sum"),
    ],
)
def test_wrong_weights_are_refused(weights: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probabilities({"a": 1, "b": 4}, weights)


def test_the_plan_follows_from_seed_and_epoch() -> None:
    first, again, other = sampler(), sampler(), sampler(seed=4)
    assert list(first) == list(again)
    assert list(first) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)


def test_ranks_share_the_plan_and_no_window() -> None:
    whole = list(sampler(batch_sizes={name: 3 * size for name, size in SIZES.items()}))
    ranks = [list(sampler(rank=rank, world_size=3)) for rank in range(3)]
    drawn: Counter[str] = Counter()
    for step, (name, windows) in enumerate(whole):
        assert {keys[step][0] for keys in ranks} == {name}
        parts = [keys[step][1] for keys in ranks]
        assert [len(part) for part in parts] == [SIZES[name]] * 3
        assert sorted(chain(*parts)) == sorted(windows)
        drawn[name] += len(windows)
        if drawn[name] <= len(WINDOWS[name]):  # the first pass; a later batch may hold the end of one and the next
            assert len(set(windows)) == 3 * SIZES[name]


def test_no_window_repeats_before_all_others_were_drawn() -> None:
    drawn = [w for name, batch in sampler(steps=200) if name == "small" for w in batch]
    size = len(WINDOWS["small"])
    assert len(drawn) > 2 * size
    for start in range(0, len(drawn) - size, size):
        assert sorted(drawn[start : start + size]) == list(range(size))


def test_windows_are_shuffled_in_blocks_of_neighbours() -> None:
    size = len(WINDOWS["large"])
    drawn = list(islice(sampler(open_blocks=1, block=5)._stream("large", 1), size))
    for start in range(0, size, 5):
        block = sorted(drawn[start : start + 5])
        assert block == list(range(block[0], block[0] + 5))
    assert drawn != sorted(drawn)


def test_data_sets_are_drawn_with_their_probabilities() -> None:
    steps = 4000
    counts = Counter(name for name, _ in sampler(steps=steps, probabilities=np.array([0.8, 0.2])))
    assert abs(counts["small"] / steps - 0.8) < 4 * np.sqrt(0.8 * 0.2 / steps)


def test_a_resumed_epoch_goes_on_where_it_stopped() -> None:
    resumed = sampler()
    resumed.resume_at = (0, 17)
    assert list(resumed) == list(sampler())[17:]
    resumed.set_epoch(1)
    assert len(list(resumed)) == 60


def test_validation_windows_are_even_and_shared_out() -> None:
    keys = EvenSampler(WINDOWS, batch_sizes=SIZES, limit=10)
    small = [w for name, batch in keys for w in batch if name == "small"]
    assert small[0] == 0
    assert small[-1] == len(WINDOWS["small"]) - 1
    assert len(small) == 10
    assert len(set(np.diff(small))) <= 2
    ranks = [
        [(n, w) for n, batch in EvenSampler(WINDOWS, batch_sizes=SIZES, limit=10, rank=r, world_size=3) for w in batch]
        for r in range(3)
    ]
    assert sorted(chain(*ranks)) == sorted((name, w) for name, batch in keys for w in batch)


def test_a_rank_reads_only_its_own_windows() -> None:
    adapter = Counted(num_trajectories=4, num_steps=14)
    windows = {"counted": Windows(adapter, context=4)}
    mine = MixtureSampler(
        windows, batch_sizes={"counted": 4}, steps=5, probabilities=np.array([1.0]), rank=1, world_size=2
    )
    batches = WindowBatches(windows)
    expected = []
    for key in mine:
        batches[key]
        expected += [(i, start, start + 5) for i, start in sorted(map(windows["counted"].locate, key[1]))]
    assert adapter.read_log == expected


def test_a_step_holds_the_same_batches_whatever_the_number_of_processes() -> None:
    """Batch j of a step has every sixth window of it, from the j-th on; rank r of W has batches r, r + W, ..."""
    whole = list(sampler(batch_sizes={name: 6 * size for name, size in SIZES.items()}, steps=20))
    one = list(sampler(batches=6, steps=20))
    assert len(sampler(batches=6, steps=20)) == len(one) == 120
    assert one == [(name, windows[j::6]) for name, windows in whole for j in range(6)]
    for world_size in (2, 3, 6):
        ranks = [list(sampler(batches=6, steps=20, rank=rank, world_size=world_size)) for rank in range(world_size)]
        assert [key for keys in zip(*ranks, strict=True) for key in keys] == one
    assert list(sampler(batches=1, steps=20)) == list(sampler(steps=20))


def test_an_epoch_goes_on_on_another_number_of_processes() -> None:
    two = sampler(batches=6, rank=1, world_size=2)
    two.resume_at = (0, 17)
    assert list(two) == list(sampler(batches=6))[17 * 6 + 1 :: 2]


@pytest.mark.parametrize(("batches", "ways"), [(5, "give 4 or 8"), (2, "give 4 or 8"), (0, "give 4 or 8")])
def test_batches_that_cannot_be_shared_out_evenly_are_refused(batches: int, ways: str) -> None:
    with pytest.raises(ValueError, match=f"multiple of the number of processes, which is 4 .* found {batches}; {ways}"):
        sampler(batches=batches, world_size=4)


@pytest.mark.parametrize("limit", [1, 7, 10, None])
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_every_process_validates_as_many_batches_and_no_window_counts_twice(limit: int | None, world_size: int) -> None:
    ranks = [
        EvenSampler(WINDOWS, batch_sizes=SIZES, limit=limit, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert len({tuple(name for name, _ in rank) for rank in ranks}) == 1
    assert all(windows for rank in ranks for _, windows in rank)
    counted = [
        (name, window)
        for rank in ranks
        for (name, windows), counts in zip(rank, rank.counted, strict=True)
        if counts
        for window in windows
    ]
    alone = [
        (name, window) for name, windows in EvenSampler(WINDOWS, batch_sizes=SIZES, limit=limit) for window in windows
    ]
    assert sorted(counted) == sorted(alone)
