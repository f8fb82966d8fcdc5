"""A model whose weights are shared out over processes (FSDP), and the same values as whole tensors."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from morph.model.surrogate import Surrogate

__all__ = ["scattered", "scattered_states", "shard", "whole"]


def shard(model: Surrogate, mesh: DeviceMesh) -> None:
    """Let each process of a mesh keep its part of every weight, gradient and optimiser state.

    A stage's weights are gathered while it computes (Zhao et al. 2023, arXiv 2304.11277, in the form of
    `torch.distributed.fsdp.fully_shard`).  Their names stay.

    Raises:
        ValueError: The model has no stages.
    """
    if not model.stages:
        raise ValueError("trainer.strategy=fsdp shares out the blocks of a Morph, and this model has none; take ddp")
    for stage in model.stages:
        fully_shard(stage, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(values: Any) -> Any:
    """Nested values with each shared tensor put together, on the CPU; all processes must call it."""
    if isinstance(values, DTensor):
        return values.full_tensor().cpu()
    if isinstance(values, Mapping):
        return {key: whole(value) for key, value in values.items()}
    if isinstance(values, list):
        return [whole(value) for value in values]
    return values


def scattered(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, shared out as another one of its shape is; without communication."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def scattered_states(states: Mapping[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """An optimiser's whole state, shared out as its parameters are.

    Args:
        states: Of `Optimizer.state_dict`.
        parameters: Of all groups of the optimiser, in their order.
    """
    state = {
        number: {
            name: scattered(value, parameters[number]) if isinstance(value, Tensor) else value
            for name, value in of_parameter.items()
        }
        for number, of_parameter in states["state"].items()
    }
    return {**states, "state": state}
