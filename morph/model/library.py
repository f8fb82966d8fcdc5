"""Networks of well-kept libraries as baselines: what a Morph has to beat, on the same windows, loss and scales.

Frames, fields and components are channels to them, so each is made for one number of dimensions and of frames.  The
last layer starts at zero, so that training starts at the naive forecast, as a Morph's does.
"""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from morph.layout import Conditions, Context, State
from morph.model.padding import pad
from morph.model.surrogate import Capacity, Surrogate
from morph.normalisation import Normalisation, Scales

__all__ = ["FNO", "UNet"]

_HALVINGS = 4  # of the grid, on the way down through a U-Net
_GROUPS = 8

PerDimension = int | Mapping[str, int]
"""A number, or one for each number of dimensions: {in_1d: 64, in_2d: 24, in_3d: 12}."""


class _Library(Surrogate):
    """Frames become channels, and channels the next frame.

    Args:
        kind: What it is called.
        dimensions: Of space: 1, 2 or 3.
        capacity: Fields, components and context frames.
        scales: `normalisation`, `predict` and `base`, see `Normalisation`.
        options: Further ones that its configuration tells.

    Raises:
        ValueError: An option is not what it should be.
    """

    multiple = 1
    """The grid is padded to a multiple of this many points."""

    def __init__(
        self,
        kind: str,
        dimensions: int,
        capacity: Capacity | Mapping[str, int],
        scales: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(capacity, Normalisation(scales["normalisation"], scales["predict"], scales["base"]))
        if isinstance(dimensions, bool) or dimensions not in (1, 2, 3):
            raise ValueError(f"model.dimensions: expected 1, 2 or 3, found {dimensions!r}")
        self.kind = kind
        self.dimensions = dimensions
        self._options = {"dimensions": dimensions, "capacity": asdict(self.capacity), **scales, **options}

    @property
    def config(self) -> dict[str, Any]:
        """Plain values from which `morph.model.build` makes the same architecture."""
        return {"kind": self.kind, **self._options}

    @abstractmethod
    def network(self, channels: Float[Tensor, "B channels *space"]) -> Float[Tensor, "B channels_out *space"]:
        """The library's own."""

    @property
    def channels(self) -> tuple[int, int]:
        """How many go in and come out."""
        frame = self.capacity.max_fields * self.capacity.max_components
        return self.capacity.max_context * frame, frame

    def admit(self, what: str, context: int, fields: int, components: int, dimensions: int) -> None:
        """Check that data fits, with so many frames of context.

        Raises:
            ValueError: It does not; begins with `what`.
        """
        size = self.capacity
        most = {"D": self.dimensions, " fields": size.max_fields, " components": size.max_components}
        found = {"D": dimensions, " fields": fields, " components": components}
        for noun, count in found.items():
            if count > most[noun] or (noun == "D" and count != most[noun]):
                limit = "up to " if noun != "D" else ""
                raise ValueError(
                    f"{what} has {count}{noun}, and this {self.kind} is made for {limit}{most[noun]}{noun}; "
                    "train one on such data: model=fno or model=unet, data=..."
                )
        self._check_context(what, context)

    def _check_context(self, what: str, context: int) -> None:
        if context != self.capacity.max_context:
            raise ValueError(
                f"{what}: this {self.kind} sees {self.capacity.max_context} frames of context and no other number, "
                f"found {context}; leave context out, or train one with window.context={context}"
            )

    def output(self, frames: Context, conditions: Conditions, scales: Scales) -> State:
        """See `Surrogate.output`.

        Raises:
            ValueError: Another number of dimensions, or of frames.
        """
        self._check_context("the input", frames.shape[1])
        fields, components, *grid = frames.shape[2:]
        if self.multiple > 1 and min(grid[3 - self.dimensions :]) < 2:
            raise ValueError(f"the {self.kind} needs two points along each axis, found (D, H, W) = {tuple(grid)}")
        if max(grid[: 3 - self.dimensions], default=1) > 1:
            raise ValueError(f"the {self.kind} is made for {self.dimensions}-D data, found (D, H, W) = {tuple(grid)}")
        size = self.capacity
        frames = pad(frames, self.multiple, conditions.boundary)
        unused = (0, size.max_components - components, 0, size.max_fields - fields)
        frames = nn.functional.pad(frames, (0, 0, 0, 0, 0, 0, *unused))
        made = self.network(frames.reshape(len(frames), -1, *frames.shape[7 - self.dimensions :]))
        state = made.reshape(len(made), size.max_fields, size.max_components, *frames.shape[4:])
        d, h, w = grid
        return state[:, :fields, :components, :d, :h, :w]


class FNO(_Library):
    """Fourier neural operator (arXiv 2010.08895) of the library neuraloperator, with its defaults.

    It is computed in float32: its Fourier transforms have no lower precision.

    Args:
        dimensions: Of space: 1, 2 or 3.
        capacity: Fields, components and context frames.
        modes: Fourier modes that are kept along each axis, positive and negative ones.
        width: Hidden channels.
        depth: Fourier layers.
        normalisation, predict, base: See `Normalisation`.

    Raises:
        ValueError: An option is not what it should be, or the library is not installed.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        capacity: Capacity | Mapping[str, int],
        modes: PerDimension = 16,
        width: PerDimension = 32,
        depth: int = 4,
        normalisation: str = "context",
        predict: str = "increment",
        base: str = "persistence",
    ) -> None:
        scales = {"normalisation": normalisation, "predict": predict, "base": base}
        options = {
            "modes": _of_dimension("modes", modes, dimensions),
            "width": _of_dimension("width", width, dimensions),
            "depth": _of_dimension("depth", depth, dimensions),
        }
        super().__init__("FNO", dimensions, capacity, scales, options)
        try:
            with warnings.catch_warnings():  # the library changes which are shown, of all others, too
                from neuralop import models
        except ModuleNotFoundError as error:
            raise _not_installed("fno", "neuraloperator", error) from error
        in_channels, out_channels = self.channels
        operator: Any = models.FNO(
            n_modes=(options["modes"],) * dimensions,
            hidden_channels=options["width"],
            n_layers=options["depth"],
            # The places of the points are added here: the library keeps them on the device that it first computed on.
            in_channels=in_channels + dimensions,
            positional_embedding=None,
            out_channels=out_channels,
        )
        if predict == "increment":
            _zero(operator.projection.fcs[-1])
        # Not a module of this one: its parameters are complex, which optimisers and file formats do not all take, and
        # its state holds what is no tensor.  Its parameters are put in place at each call.
        self._operator = (operator,)
        self.weights = nn.ParameterDict()
        for name, value in operator.named_parameters():
            real = torch.view_as_real(value.detach()) if value.is_complex() else value.detach()
            self.weights[name.replace(".", "/")] = nn.Parameter(real.contiguous())
        self._complex = {name for name, value in operator.named_parameters() if value.is_complex()}

    @property
    def kernels(self) -> Sequence[Tensor]:
        """The weights that decay: all but vectors, as it is customary for this model."""
        return [value for value in self.weights.values() if value.ndim > 1]

    def network(self, channels: Float[Tensor, "B channels *space"]) -> Float[Tensor, "B channels_out *space"]:
        """The operator."""
        weights = {name.replace("/", "."): value.float() for name, value in self.weights.items()}
        weights |= {name: torch.view_as_complex(weights[name].contiguous()) for name in self._complex}
        axes = [torch.linspace(0, 1, size + 1, device=channels.device)[:-1] for size in channels.shape[2:]]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(channels), *(-1,) * len(axes), -1)
        with torch.autocast(channels.device.type, enabled=False):
            made: Tensor = functional_call(self._operator[0], weights, (torch.cat((channels.float(), places), 1),))
        return made


class UNet(_Library):
    """U-Net (arXiv 1505.04597) of the library MONAI, its BasicUNet, with group normalisation.

    The published normalisation of instances has nothing to work with where halving has left a single point.

    Args:
        dimensions: Of space: 1, 2 or 3.
        capacity: Fields, components and context frames.
        width: Channels at full resolution, a multiple of 8; 1, 2, 4 and 8 times as many after each halving.
        normalisation, predict, base: See `Normalisation`.

    Raises:
        ValueError: An option is not what it should be, or the library is not installed.
    """

    multiple = 2**_HALVINGS

    def __init__(
        self,
        *,
        dimensions: int,
        capacity: Capacity | Mapping[str, int],
        width: PerDimension = 32,
        normalisation: str = "context",
        predict: str = "increment",
        base: str = "persistence",
    ) -> None:
        scales = {"normalisation": normalisation, "predict": predict, "base": base}
        width = _of_dimension("width", width, dimensions)
        super().__init__("U-Net", dimensions, capacity, scales, {"width": width})
        if width % _GROUPS:
            raise ValueError(f"model.width: expected a multiple of {_GROUPS}, found {width}")
        try:
            with warnings.catch_warnings():
                from monai.networks.nets.basic_unet import BasicUNet
        except ModuleNotFoundError as error:
            raise _not_installed("unet", "monai", error) from error
        in_channels, out_channels = self.channels
        self.net = BasicUNet(
            spatial_dims=dimensions,
            in_channels=in_channels,
            out_channels=out_channels,
            features=(width, width, 2 * width, 4 * width, 8 * width, width),
            norm=("group", {"num_groups": _GROUPS}),
        )
        if predict == "increment":
            _zero(self.net.final_conv)

    def network(self, channels: Float[Tensor, "B channels *space"]) -> Float[Tensor, "B channels_out *space"]:
        """The U-Net."""
        made: Tensor = self.net(channels.to(self.net.final_conv.weight.dtype))
        return made


def _of_dimension(option: str, value: Any, dimensions: int) -> int:
    chosen = value.get(f"in_{dimensions}d") if isinstance(value, Mapping) else value
    if isinstance(chosen, bool) or not isinstance(chosen, int) or chosen < 1:
        raise ValueError(f"model.{option}: expected a positive integer for {dimensions}-D data, found {chosen!r}")
    return chosen


def _not_installed(model: str, library: str, error: ModuleNotFoundError) -> ValueError:
    return ValueError(f"model={model} needs the library {library} ({error}); pip install 'morph[baselines]'")


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
