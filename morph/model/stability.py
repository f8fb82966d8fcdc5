"""What keeps a rollout from growing without bound, by what the context shows of scales in space and time."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from morph.model.grid import Points, Spectrum, axes_of, derivatives
from morph.model.regression import Observed

__all__ = ["Stability"]

_SMALL = 1e-12


class Stability(nn.Module):
    """Passes the wavenumbers that a forecast of one step can know, and limits how fast increments grow.

    An explicit step from frame to frame is unstable where a wave moves by more than about a radian, or where its
    wavenumber is beyond what the frames hold.  Wavenumbers k (radians per point) are passed by

        H(k) = exp(-(k^2 (1 / (detail k_rms)^2 + 1 / (courant / d)^2))^2),

    k_rms^2 = <|grad v|^2> / var(v) of the latest increment v, and d^2 = <v^2> / <|grad u|^2>, the distance, in points,
    by which the latest frame u moved.  What H does not pass fades from the state by the share `damping` per step.
    The root mean square of an increment is at most `growth` times the largest one in the context.

    In training, wavenumbers and growth have some slack, so that the gradient reaches what is at the edge: `detail` and
    `courant` are larger by the share `slack`, `growth` by a fifth of that.

    All are taken per component.  Fields with shocks or noise have a large k_rms, so that H passes all of them.

    Args:
        detail, courant, damping, growth, slack: See above.
    """

    def __init__(
        self,
        *,
        detail: float = 4.0,
        courant: float = 2.0,
        damping: float = 0.1,
        growth: float = 1.0,
        slack: float = 0.25,
    ) -> None:
        super().__init__()
        if min(detail, courant) <= 0 or not 0 <= damping <= 1 or growth < 1 or slack < 0:
            raise ValueError(
                "local.stability: expected detail and courant above 0, damping from 0 to 1, growth of at least 1 and "
                f"slack of 0 or more, found {detail}, {courant}, {damping}, {growth} and {slack}"
            )
        self.detail, self.courant, self.damping, self.growth, self.slack = detail, courant, damping, growth, slack

    def forward(self, increment: Points, seen: Observed, speed: Float[Tensor, "B N"]) -> Points:
        """The increment, in units of the increment scale, made stable.

        Args:
            increment: As forecast.
            seen: The context.
            speed: Standard deviation of each component's field over its increment scale.
        """
        if not seen.increments.shape[1]:
            return increment
        spectrum = Spectrum(increment.shape[2:], seen.boundary, increment.device)
        with torch.no_grad():
            passed = self._passed(spectrum, seen, speed)
        # H v - damping (1 - H) u = H (v + damping u) - damping u, which takes one transform less.
        fading = seen.frames[:, -1] * (self.damping * speed[..., None, None, None])
        increment = spectrum.inverse(spectrum.forward(increment + fading) * passed) - fading
        with torch.no_grad():
            growth = self.growth * (1 + self.slack / 5 * self.training)
            most = growth * seen.increments.square().mean((3, 4, 5), keepdim=True).sqrt().amax(1)
            share = most / (increment.square().mean((2, 3, 4), keepdim=True).sqrt() + _SMALL)
        return increment * share.clamp(max=1)

    def _passed(self, spectrum: Spectrum, seen: Observed, speed: Float[Tensor, "B N"]) -> Tensor:
        state, latest = seen.frames[:, -1], seen.increments[:, -1] / speed[..., None, None, None]
        space = (2, 3, 4)
        steep, steep_latest = torch.zeros_like(state[..., :1, :1, :1]), torch.zeros_like(state[..., :1, :1, :1])
        for axis in axes_of(state):
            boundary = seen.boundary[axis - 2]
            steep = steep + derivatives(state, axis, boundary)[0].square().mean(space, keepdim=True)
            steep_latest = steep_latest + derivatives(latest, axis, boundary)[0].square().mean(space, keepdim=True)
        loose = 1 + self.slack * self.training
        of_detail = (
            latest.var(space, unbiased=False, keepdim=True) / (steep_latest + _SMALL) / (self.detail * loose) ** 2
        )
        of_speed = latest.square().mean(space, keepdim=True) / (steep + _SMALL) / (self.courant * loose) ** 2
        return torch.exp(-(spectrum.squares * (of_detail + of_speed).clamp(max=1e6)).square())
