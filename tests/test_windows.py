"""Windows hold the right frames in the right order."""

import numpy as np
import pytest
import torch

from morph.data.windows import Windows
from tests.made_up import Counted


def test_windows_hold_consecutive_frames_oldest_first() -> None:
    windows = Windows(Counted(num_trajectories=2, num_steps=9), context=4, target=2)
    assert len(windows) == 2 * (9 - 6 + 1)
    batch = windows.batch([0, 3, 5])
    assert batch.windows.tolist() == [[0, 0], [0, 3], [1, 1]]
    frames = torch.cat((batch.context, batch.target), 1)
    time = (frames[:, :, 0, 0, 0, 0, 0] % 1e4) / 1e2
    assert torch.equal(time, torch.tensor([[0.0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6]]))
    assert torch.equal(frames[:, 0, 0, 0, 0, 0, 0] // 1e4, torch.tensor([0.0, 0, 1]))


def test_every_window_once_and_nothing_beyond_the_trajectory() -> None:
    adapter = Counted(num_trajectories=3, num_steps=7)
    windows = Windows(adapter, context=4)
    places = [windows.locate(i) for i in range(len(windows))]
    assert sorted(places) == [(i, start) for i in range(3) for start in range(3)]
    windows.batch(range(len(windows)))
    assert max(stop for _, _, stop in adapter.read_log) == 7


def test_conditions_say_which_components_are_physical() -> None:
    batch = Windows(Counted(), context=2).batch([0])
    assert batch.conditions.component_mask.tolist() == [[True, True], [True, False]]
    assert batch.conditions.boundary == ("open", "open", "periodic")
    assert np.all(batch.context[:, :, 1, 1].numpy() == 0)


def test_a_trajectory_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'counted'.*have 4 frames.*needs 5.*window\.context"):
        Windows(Counted(num_steps=4), context=4)
