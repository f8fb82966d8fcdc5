"""How a model is run does not change what it computes: exactly, or within a stated tolerance."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from morph.cost import peak_memory
from morph.execution import ATTENTION, dtype, precision, set_execution
from morph.model.morph import Capacity, Morph
from tests.conftest import ROOT

CONTEXT = torch.randn(2, 3, 2, 2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
WEIGHT = torch.randn(2, 2, 2, 4, 8, 12, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _attention_as_before() -> Iterator[None]:
    yield
    for allow in ATTENTION.values():
        allow(True)


def build(dropout: float = 0.1, depth: int = 2) -> Morph:
    torch.manual_seed(0)
    capacity = Capacity(2, 2, 3, 64)
    return Morph(
        dim=32, depth=depth, heads=4, field_heads=8, patch_size=4, dropout=dropout, capacity=capacity, predict="frame"
    )


def run(model: Morph) -> dict[str, Tensor]:
    """A forecast in training and its gradients; the same dropout each time."""
    torch.manual_seed(5)
    output = model(CONTEXT)
    (output * WEIGHT).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {"output": output.detach(), **found}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest, relative to the largest value of the output or to the largest gradient."""
    assert found.keys() == expected.keys()
    gradient = max(value.abs().max() for name, value in expected.items() if name != "output")
    scale = {name: value.abs().max() if name == "output" else gradient for name, value in expected.items()}
    return max(((found[name] - expected[name]).abs().max() / scale[name]).item() for name in expected)


def test_activation_checkpointing_changes_no_bit() -> None:
    """Dropout included: the second computation draws what the first one did."""
    model = build()
    expected = run(model)
    set_execution(model, activation_checkpointing=True)
    assert difference(run(model), expected) == 0


@pytest.mark.parametrize("attention", ["flash", "math"])
def test_the_implementation_of_attention_changes_rounding_alone(attention: str) -> None:
    model = build()
    expected = run(model)
    set_execution(model, attention=attention)
    with Operations() as operations:
        found = run(model)
    assert ("_scaled_dot_product_flash_attention_for_cpu" in operations.names) == (attention == "flash")
    assert difference(found, expected) < 1e-5


class Operations(TorchDispatchMode):
    """Names of what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_bfloat16_stays_within_its_rounding() -> None:
    """Its numbers have 8 bits; physical frames and the loss stay in float32."""
    model = build(dropout=0.0)
    expected = run(model)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(model)
    assert found["output"].dtype == torch.float32
    assert 1e-6 < difference(found, expected) < 0.05


def test_a_model_of_another_precision_takes_and_gives_the_precision_of_its_input() -> None:
    model = build(dropout=0.0)
    expected = model(CONTEXT)
    found = model.to(torch.bfloat16)(CONTEXT)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_activation_checkpointing_holds_less() -> None:
    torch.manual_seed(0)
    model = Morph(dim=32, depth=6, heads=4, field_heads=8, patch_size=4, predict="frame")
    x = torch.randn(8, 1, 1, 1, 1, 64, 64)
    full = peak_memory(lambda: model(x).sum().backward(), "cpu")
    set_execution(model, activation_checkpointing=True)
    assert peak_memory(lambda: model(x).sum().backward(), "cpu") < 0.5 * full


@pytest.mark.slow
def test_a_compiled_model_changes_rounding_alone() -> None:
    """In a process of its own: the shape checks of the tests cannot be compiled."""
    code = "from tests.test_execution import compare_compiled; compare_compiled()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def compare_compiled() -> None:
    model = build(depth=1, dropout=0.0)
    expected = run(model)
    names = set(model.state_dict())
    set_execution(model, compile=True)
    assert set(model.state_dict()) == names
    assert difference(run(model), expected) < 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # embedding, block


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "fast"}, "attention: expected one of auto, flash, efficient, cudnn, math, found 'fast'"),
        ({"attention": "cudnn"}, "attention=cudnn does not exist for float32 on cpu; leave it at auto"),
    ],
)
def test_what_does_not_exist_is_refused(options: dict[str, str], message: str) -> None:
    model = build()
    with pytest.raises(ValueError, match=message):
        set_execution(model, **options)
    run(model)  # and whatever was there before is still there


def test_precisions_by_name() -> None:
    assert (precision("64-true", "cpu"), precision("auto", "cpu")) == ("64-true", "32-true")
    assert [dtype(name) for name in ("32-true", "bf16-mixed", "16-mixed", 64)] == [
        torch.float32, torch.bfloat16, torch.float16, torch.float64,
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"precision: expected 32-true, .* found 'fp8'"):
        dtype("fp8")


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["auto", "efficient", "math"])
def test_a_gpu_computes_what_the_cpu_does(attention: str) -> None:
    model = build(dropout=0.0)
    expected = run(model)
    set_execution(model.cuda(), attention=attention, device="cuda")
    output = model(CONTEXT.cuda())
    (output * WEIGHT.cuda()).sum().backward()
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    assert difference({"output": output.detach().cpu(), **gradients}, expected) < 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["auto", "flash"])
def test_bfloat16_on_a_gpu_stays_within_its_rounding(attention: str) -> None:
    model = build(dropout=0.0)
    expected = model(CONTEXT)
    set_execution(model.cuda(), attention=attention, device="cuda", dtype=torch.bfloat16)
    with torch.autocast("cuda", torch.bfloat16):
        found = model(CONTEXT.cuda()).cpu()
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
