"""Regression in context: which equation the frames of the context obey, point by point, and what it says comes next.

A context of several frames shows pairs of a state and the increment that followed it.  A library of local terms, whose
terms are learned over all systems, is fitted to these pairs by ridge regression, anew for each sample, and applied to
the last frame.  So coefficients that no data set states - viscosity, time step, spacing - are taken from what was seen.
The idea is that of sparse identification of dynamics (Brunton et al. 2016, doi:10.1073/pnas.1517384113) with a closed
form as the last layer of a network (Bertinetto et al. 2019, arXiv 1805.08136).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from morph.layout import Boundary
from morph.model.grid import Points, Spectrum, axes_of, derivatives, second_derivative

__all__ = ["Observed", "Regression"]

_KINDS = 8  # value, increment, change of the increment, gradient along D, H and W, Laplacian, that of the increment
_MOST_POINTS = 2048  # of one frame, on which the fit is made
_ENOUGH_POINTS = 4096  # of a frame that is compared with the next one, beside which no other one is
_SMALL = 1e-6
_PER_SOURCE = 4  # products whose sum is the source of a potential
_LEAST_MISSED = 0.01  # of an increment


class Observed(NamedTuple):
    """The physical components of a context, N of them.

    frames: Normalised.
    increments: From each frame to the next one, in units of the increment scale.
    slots: Which place each has on the axes (F, C) of the model's capacity, flattened.
    boundary: On D, H and W.
    absent: Points without data.
    """

    frames: Float[Tensor, "B T N D H W"]
    increments: Float[Tensor, "B T_less_1 N D H W"]
    slots: Int[Tensor, "N"]
    boundary: tuple[Boundary, Boundary, Boundary]
    absent: Bool[Tensor, "B N D H W"] | None


class Regression(nn.Module):
    """The increment that follows the last frame, by a law that is fitted to the context.

    Terms are linear combinations of all components, their gradients, Laplacians and latest increments, products of two
    such combinations, and, of sums q of some products, the solution of a Poisson equation, as a pressure is, and its
    gradient: lap p = q.  Gradients and Laplacians are in units of their own root mean square, so that resolution does
    not count.
    With terms phi and increments y the coefficients are those that minimise the mean of (y - W phi)^2 over points and
    frames plus ridge * |(W - W0) scale|^2, W0 being learned and scale the terms' root mean square.

    Contexts of less than three frames show no pair: the law is W0 then.

    Args:
        max_fields, max_components: Of the model.
        linear, products, potentials: How many terms of each kind.
        frames: Pairs of neighbouring frames that are fitted, as far as the context has them; of grids with thousands
            of points the last one alone.
        ridge: Least weight of the learned law; it can learn to be larger.
    """

    def __init__(
        self,
        max_fields: int,
        max_components: int,
        *,
        linear: int = 24,
        products: int = 40,
        potentials: int = 3,
        frames: int = 2,
        ridge: float = 0.01,
    ) -> None:
        super().__init__()
        if min(linear, products, frames) < 1 or not 0 <= potentials <= products // _PER_SOURCE or not ridge > 0:
            raise ValueError(
                "local.regression: expected linear, products and frames of at least 1, a potential for each "
                f"{_PER_SOURCE} products at most, and ridge above 0, found "
                f"linear={linear}, products={products}, frames={frames}, potentials={potentials}, ridge={ridge}"
            )
        self.linear, self.products, self.potentials = linear, products, potentials
        self.frames, self.least = frames, ridge
        # Products of two: large enough that they count beside the linear terms.
        size = torch.cat((torch.full((linear,), 1 / 8), torch.full((2 * products,), 1 / 4)))
        shape = (linear + 2 * products, max_fields, max_components, _KINDS)
        self.combinations = nn.Parameter(torch.randn(shape) * size.view(-1, 1, 1, 1))
        self.law = nn.Parameter(torch.zeros(max_fields, max_components, 1 + linear + products + 4 * potentials))
        self.ridge = nn.Parameter(torch.tensor(-5.0))  # before softplus

    def forward(self, seen: Observed) -> tuple[Points, Float[Tensor, "B N 1 1 1"]]:
        """The increment in units of the increment scale, and the root mean square of what the law missed of those in
        the context; 1 where there was none to compare with."""
        frames, increments = seen.frames, seen.increments
        batch, steps, count = frames.shape[:3]
        axes = axes_of(frames[:, -1])
        kinds = [0, 1, 2, *(axis + 1 for axis in axes), 6, 7]
        combinations = self.combinations.flatten(1, 2)[:, seen.slots][..., kinds].flatten(1)
        law = self.law.flatten(0, 1)[seen.slots]
        spectrum = Spectrum(frames.shape[3:], seen.boundary, frames.device)

        last = self._parts(seen, steps - 1, axes)
        units = [None] * 3 + [_rms(part) for part in last[3:]]
        terms, own, potentials = self._terms(last, units, combinations, spectrum, None)
        law = law[:, : terms.shape[1]].expand(batch, -1, -1)
        forecast = torch.bmm(law, terms)
        missed = torch.ones_like(frames[:, -1, :, :1, :1, :1])
        pairs_wanted = min(self.frames, -(-_ENOUGH_POINTS // terms.shape[-1]))
        times = range(steps - 2, max(0, steps - 2 - pairs_wanted), -1)
        if times:
            stride = max(1, terms.shape[-1] // _MOST_POINTS)
            stride += 1 - stride % 2  # not a divisor of the lines of a grid, which are mostly even
            pairs = []
            for time in times:
                then, then_own, _ = self._terms(
                    self._parts(seen, time, axes), units, combinations, spectrum, potentials, stride
                )
                pairs.append((then, then_own, increments[:, time].flatten(2)[..., ::stride]))
            then, then_own, target = (torch.cat(parts, -1) for parts in zip(*pairs, strict=True))
            held = (
                None
                if seen.absent is None
                else ~seen.absent.any(1).flatten(1)[:, None, ::stride].repeat(1, 1, len(times))
            )
            change, missed = self._fit(law, then, then_own, target, held)
            forecast = forecast + torch.bmm(change, torch.cat((terms, own), 1))
        return forecast.view(batch, count, *frames.shape[3:]), missed.view(batch, count, 1, 1, 1)

    def _fit(
        self, law: Tensor, terms: Tensor, own: Tensor, target: Tensor, held: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What has to be added to the learned law, whose terms are followed by the components' own increments; and the
        root mean square of what is missed then."""
        missed = target - torch.bmm(law, terms)
        terms = torch.cat((terms, own), 1)
        if held is not None:
            missed, terms = missed * held, terms * held
        scale = terms.square().mean(-1, keepdim=True).sqrt() + 1e-3
        terms = terms / scale
        points = terms.shape[-1]
        gram = torch.bmm(terms, terms.transpose(1, 2)) / points
        ridge = functional.softplus(self.ridge) + self.least
        gram = gram + ridge * torch.eye(gram.shape[-1], device=gram.device)
        against = torch.bmm(terms, missed.transpose(1, 2)) / points
        # Unlike torch.linalg.solve, it says nothing of what is not finite, which training notices itself.
        change = torch.linalg.solve_ex(gram, against).result.transpose(1, 2)
        with torch.no_grad():
            rest = (missed - torch.bmm(change, terms)).square().mean(-1).sqrt() + _LEAST_MISSED
        return change / scale.transpose(1, 2), rest

    def _parts(self, seen: Observed, time: int, axes: list[int]) -> list[Points]:
        """Of frame `time`, in the order of the kinds, without the gradients along axes that are not there."""
        state = seen.frames[:, time]
        latest = seen.increments[:, time - 1] if time else torch.zeros_like(state)
        change = latest - seen.increments[:, time - 2] if time > 1 else torch.zeros_like(state)
        gradient, laplacian, of_latest = [], torch.zeros_like(state), torch.zeros_like(state)
        for axis in axes:
            first, second = derivatives(state, axis, seen.boundary[axis - 2])
            gradient.append(first)
            laplacian = laplacian + second
            of_latest = of_latest + second_derivative(latest, axis, seen.boundary[axis - 2])
        return [state, latest, change, *gradient, laplacian, of_latest]

    def _terms(
        self,
        parts: list[Points],
        units: list[Tensor | None],
        combinations: Tensor,
        spectrum: Spectrum,
        potential_units: list[Tensor] | None,
        stride: int = 1,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Terms and increments at every `stride`-th point, and the units of potentials."""

        def scaled(by: int) -> Tensor:
            cut = [part.flatten(2)[..., ::by] for part in parts]
            cut = [part if unit is None else part / unit.flatten(2) for part, unit in zip(cut, units, strict=True)]
            return torch.stack(cut, 2).flatten(1, 2)

        def combined(some: Tensor, values: Tensor) -> Tensor:
            return torch.bmm(some.expand(len(values), -1, -1), values)

        values = scaled(stride)
        made = combined(combinations, values)
        linear, left, right = made.split((self.linear, self.products, self.products), 1)
        products = left * right
        terms = [torch.ones_like(linear[:, :1]), linear, products]
        if self.potentials:
            count = self.potentials * _PER_SOURCE
            sources = products[:, :count]
            if stride > 1:  # a Poisson equation is solved on the whole grid
                pairs = [combinations[at : at + count] for at in (self.linear, self.linear + self.products)]
                left, right = combined(torch.cat(pairs), scaled(1)).chunk(2, 1)
                sources = left * right
            sources = sources.unflatten(1, (self.potentials, _PER_SOURCE)).sum(2).unflatten(2, parts[0].shape[2:])
            potentials = self._potentials(sources, spectrum)
            potential_units = potential_units or [_rms(part) for part in potentials]
            terms += [
                (part / unit).flatten(2)[..., ::stride] for part, unit in zip(potentials, potential_units, strict=True)
            ]
        own = parts[1].flatten(2)[..., ::stride]
        return torch.cat(terms, 1), own, potential_units or []

    def _potentials(self, sources: Points, spectrum: Spectrum) -> list[Points]:
        """p with lap p = q, its mean zero, and its gradient."""
        squares = spectrum.squares
        inverse = torch.where(squares > 0, 1 / squares.clamp(min=_SMALL), 0.0)
        potential = spectrum.forward(sources) * -inverse
        return [spectrum.inverse(potential), *(spectrum.inverse(potential * (1j * k)) for k in spectrum.odd)]


def _rms(x: Points) -> Float[Tensor, "B N 1 1 1"]:
    return x.square().mean((2, 3, 4), keepdim=True).sqrt() + _SMALL
