"""What all models have in common: physical units in and out, around a network that sees normalised frames."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import Conditions, Context, State, TrainedOn
from morph.normalisation import Normalisation, Scales

if TYPE_CHECKING:  # it takes half a second to import, and what trains does without
    import xarray

__all__ = ["Capacity", "Surrogate"]

_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class Capacity:
    """The largest problem that a model takes.

    Args:
        max_fields: Length of F.
        max_components: Length of C.
        max_context: Frames of context T.
        max_patches: Rows of the position table; more or fewer patches are interpolated.
    """

    max_fields: int = 3
    max_components: int = 3
    max_context: int = 4
    max_patches: int = 4096

    def admit(self, what: str, context: int, fields: int, components: int) -> None:
        """Check that data fits.

        Raises:
            ValueError: It has more frames, fields or components; begins with `what`.
        """
        found = {"max_context": context, "max_fields": fields, "max_components": components}
        for name, count in found.items():
            if count > getattr(self, name):
                noun = "context frames" if name == "max_context" else name.removeprefix("max_")
                raise ValueError(
                    f"{what} has {count} {noun}, the model takes at most {getattr(self, name)}; "
                    f"build it with model.capacity.{name}={count}"
                )


class Surrogate(nn.Module):
    """A model that forecasts the next frame; a subclass brings the network, see `output`.

    Args:
        capacity: Largest number of fields, components and context frames.
        normalisation: In which scales the network works, and what its output is relative to.

    Raises:
        ValueError: The base forecast needs more frames than the model takes.
    """

    def __init__(self, capacity: Capacity | Mapping[str, int], normalisation: Normalisation) -> None:
        super().__init__()
        self.capacity = capacity if isinstance(capacity, Capacity) else Capacity(**capacity)
        self.normalisation = normalisation
        if normalisation.base == "linear" and self.capacity.max_context < 2:
            raise ValueError(
                "base=linear needs a context of at least 2 frames; raise window.context and model.capacity.max_context"
            )
        # What it learned from, as far as it is known: forecasts of labelled data are compared with it.
        self.trained_on: TrainedOn | None = None
        self.adapter: dict[str, Any] = {}  # see morph.model.adapter
        # How it is run, not what it is: see morph.execution.
        self.activation_checkpointing = False

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain values from which `morph.model.build` makes the same architecture."""

    @abstractmethod
    def output(self, frames: Context, conditions: Conditions, scales: Scales) -> State:
        """What the network makes of normalised frames: the next one, or its increment, in the scales of
        `Normalisation`, which are given; fillers can be anything."""

    @property
    def stored(self) -> dict[str, Any]:
        """`config`, with `trained_on` where that is known: what config.json of an export says."""
        return {**self.config, **({"trained_on": self.trained_on.to_dict()} if self.trained_on else {})}

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU of a model without any."""
        held = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if held is None else held.device

    @property
    def kernels(self) -> Sequence[Tensor]:
        """The weights that decay, unless a model says otherwise those of linear layers and convolutions: whatever else
        there is, is a scale, an offset, a query or a position."""
        layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        return [module.weight for module in self.modules() if isinstance(module, layers)]

    @property
    def stages(self) -> Sequence[nn.Module]:
        """Parts that can be compiled, or computed again for the gradient, each by itself; () where there are none."""
        return ()

    def admit(self, what: str, context: int, fields: int, components: int, dimensions: int) -> None:
        """Check that data fits, with so many frames of context.

        Raises:
            ValueError: It does not; begins with `what`.
        """
        self.capacity.admit(what, context, fields, components)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Take over weights, in the precision that the model has, and turn to evaluation.

        A model on the device "meta" takes the tensors themselves, so that models can share them.

        Raises:
            ValueError: A tensor is missing, unknown or of another shape.
        """
        kinds = {name: value.dtype for name, value in self.state_dict().items()}
        fitting = {name: _alone(value).to(kinds.get(name)) for name, value in weights.items()}
        try:
            self.load_state_dict(fitting, assign=self.device.type == "meta")
        except RuntimeError as error:
            raise ValueError(f"the weights do not fit the configuration: {error}") from error
        self.eval()

    def forward(self, context: Context, conditions: Conditions | None = None) -> State:
        """The next frame, in physical units.

        Args:
            context: Frames in physical units, oldest first.
            conditions: What else is known; without it every component is physical and boundaries are open.  Points that
                it calls absent keep the value of the last frame, which must be finite.

        Raises:
            ValueError: More fields, components or frames than the model's capacity.
        """
        conditions = self._conditions(context, conditions)
        scales = self.normalisation.scales(context, conditions)
        output = self.output(self.normalisation.normalise(context, scales), conditions, scales)
        state = self.normalisation.denormalise(output.to(context.dtype), context, scales)
        if conditions.absent is not None:
            state = torch.where(conditions.absent, context[:, -1], state)
        return state if conditions.all_physical else state * conditions.component_mask[..., None, None, None]

    def forecast(self, dataset: "xarray.Dataset", steps: int, **options: Any) -> "xarray.Dataset":
        """Continue labelled data by `steps` frames, see `morph.forecast.forecast`, which says what `options` there are.

        Raises:
            ValueError: The data cannot be understood, or is not like that of the training.
        """
        from morph.forecast import forecast

        return forecast(self, dataset, steps, **options)

    def unit_of_error(self, context: Context, conditions: Conditions | None = None) -> Float[Tensor, "B F"]:
        """The physical size of an error that the loss counts as one, per sample and field."""
        scales = self.normalisation.scales(context, self._conditions(context, conditions))
        return self.normalisation.unit_of_error(scales)

    def _conditions(self, context: Context, conditions: Conditions | None) -> Conditions:
        self.capacity.admit("the context", *context.shape[1:4])
        if conditions is not None:
            return conditions
        mask = torch.ones(*context.shape[2:4], dtype=torch.bool, device=context.device)
        return Conditions(mask, all_physical=True)


def _alone(value: Tensor) -> Tensor:
    """A tensor with memory of its own, which starts where torch would let it start.

    A part of a larger one would keep that in memory and in files; and matrix products round differently from another
    alignment, which a file that was mapped into memory has.
    """
    whole = value.nbytes == value.untyped_storage().nbytes()
    return value if value.is_meta or (whole and value.data_ptr() % _ALIGNMENT == 0) else value.clone()
