"""What the benchmark says of a computation whose cost is known."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional

from morph.cost import count_operations, least_times, peak_memory, products
from tests.conftest import Result


def test_operations_are_those_of_the_definition() -> None:
    x, weight = torch.randn(7, 5), torch.randn(3, 5, requires_grad=True)
    assert count_operations(lambda: functional.linear(x, weight)) == 2 * 7 * 5 * 3
    # The gradient of the weight costs as much again; that of the input is not asked for.
    assert count_operations(lambda: functional.linear(x, weight).sum().backward()) == 2 * 2 * 7 * 5 * 3
    q = torch.randn(2, 4, 16, 8, requires_grad=True)
    products_of_attention = 2 * (2 * 4) * 16 * 16 * 8 * 2
    assert count_operations(lambda: functional.scaled_dot_product_attention(q, q, q)) == products_of_attention
    # Backward: the scores once more, and two products for each of the two.
    backward = count_operations(lambda: functional.scaled_dot_product_attention(q, q, q).sum().backward())
    assert backward == products_of_attention * (2 + 5) // 2
    image, kernel = torch.randn(1, 2, 10, 10), torch.randn(4, 2, 3, 3)
    assert count_operations(lambda: functional.conv2d(image, kernel, padding=1)) == 2 * 100 * 4 * 2 * 9


def test_peak_memory_is_what_is_held_at_one_time() -> None:
    def work() -> torch.Tensor:
        a = torch.empty(1_000_000)
        b = a + 1
        del a
        return b + 1  # two at a time, never three

    assert 0 <= peak_memory(work, "cpu") - 8_000_000 < 100  # the scalars


def test_products_are_told_from_the_rest() -> None:
    a = torch.randn(600, 600)
    operations = 2 * 600**3
    assert products(lambda: a @ a, operations, "cpu").share > 0.9
    assert products(lambda: a.exp().sin().cos().sqrt(), 0, "cpu").share == 0
    assert products(lambda: a @ a, operations, "cpu").rate > 1e8


def test_times_are_the_shortest_of_turns() -> None:
    turns: list[str] = []

    def wait() -> None:
        turns.append("wait")
        time.sleep(0.05 if len(turns) == 3 else 0.2)

    waited, other = least_times([wait, lambda: turns.append("other")], "cpu", repeats=3)
    assert turns == ["wait", "other"] * 4
    assert 0 < other < 0.05 <= waited < 0.15


def test_the_command_measures_against_the_plain_model(call: Callable[..., Result], tmp_path: Path) -> None:
    done = call(
        "morph.benchmark", "sizes=[nano]", "shapes=[small]", "+shape.small=[2,3,2,1,1,16,24]", "repeats=1",
        "also=[checkpointing,bf16]", "json=speed.json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, checkpointed, bfloat = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert first["difference_to_plain"] < 1e-5
    assert first["ratio_to_plain"] == pytest.approx(first["plain_step_s"] / first["step_s"])
    assert first["memory_ratio_to_plain"] < 1
    assert checkpointed["activation_checkpointing"]
    assert bfloat["precision"] == "bf16-mixed"
    assert done.stdout.count("nano ") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sizes=[huge]"], "sizes: conf/model has no 'huge'"),
        (["shapes=[4d]"], "shapes: expected some of 1d, .*, found '4d'"),
        (["precision=fp8"], "precision: expected one of 32-true, bf16-mixed, 64-true, found 'fp8'"),
        (["shapes=[mine]", "+shape.mine=[1,1,64]"], r"shape.mine: expected seven lengths, .* found \[1, 1, 64\]"),
        (["json=nowhere/speed.json"], "json: there is no folder nowhere"),
        (["repeats=0"], "repeats: expected at least 1, found 0"),
        (["attention=fast"], "attention: expected one of auto, flash, efficient, cudnn, math, found 'fast'"),
        (["also=mine", "+setting.mine={foo: 1}"], "setting.mine: expected some of precision, .*, found foo"),
        (["sizes=nano", "shapes=odd", "+shape.odd=[1,1,1,1,1,96,100]"], "shape: the plain model takes multiples of 8"),
    ],
)
def test_wrong_options(call: Callable[..., Result], tmp_path: Path, options: list[str], message: str) -> None:
    done = call("morph.benchmark", *options, cwd=tmp_path)
    assert done.returncode == 1
    import re

    assert re.search(f"error: {message}", done.stderr)


def test_without_a_plain_model_there_are_no_ratios(call: Callable[..., Result], tmp_path: Path) -> None:
    done = call("morph.benchmark", "baseline=elsewhere.Model", "shapes=[]", cwd=tmp_path)
    assert done.returncode == 0
    assert "No ratios: there is no elsewhere.Model here" in done.stdout


@pytest.mark.gpu
def test_the_command_measures_a_gpu(call: Callable[..., Result], tmp_path: Path) -> None:
    done = call(
        "morph.benchmark", "device=cuda", "precision=bf16-mixed", "sizes=[nano]", "shapes=[1d,3d]", "repeats=2",
        "json=speed.json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for row in json.loads((tmp_path / "speed.json").read_text())["rows"]:
        assert 0 < row["share_of_rate"] < 1
        assert row["memory_bytes"] > 0
