"""What a person wants to know of a forecast without reading it: its range, and whether it stays one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from morph.labelled.fields import Selection

__all__ = ["GROWN", "Watch"]

GROWN = 10.0
"""A forecast has grown out of bounds where a field is so many standard deviations of its context away from its mean."""


class Watch:
    """Told of every frame, and keeps none.

    first, last: lowest and highest value of each component in the last frame of context and in the last one forecast.
    lost_from, grown_from: lead (counted from 0) from which a component is not finite, or its field further from the
        mean of the context than ten of its standard deviations, root mean square over space; None: never.
    """

    def __init__(self, selection: Selection) -> None:
        self.names = [str(part) for own in selection.parts for part in own]
        self._places = [(f, c) for f, own in enumerate(selection.parts) for c in range(len(own))]
        self._mask = np.zeros((len(selection.parts), max(len(own) for own in selection.parts)), bool)
        for place in self._places:
            self._mask[place] = True
        self.first = dict.fromkeys(self.names, (np.inf, -np.inf))
        self.last = dict.fromkeys(self.names, (np.inf, -np.inf))
        self.lost_from: dict[str, int] = {}
        self.grown_from: dict[str, int] = {}
        self._last_lead = -1

    def start(self, context: Float[np.ndarray, "B T F C D H W"]) -> None:
        """The next trajectories."""
        held = ~np.isnan(context) & self._mask[:, :, None, None, None]
        along = (1, 4, 5, 6)
        values = np.where(held, context, 0.0).astype(np.float64)
        count = np.maximum(held.sum(along), 1)
        self._mean = values.sum(along) / count
        deviation = np.where(held, values - self._mean[:, None, ..., None, None, None], 0.0)
        physical = np.maximum(held.sum((1, 3, 4, 5, 6)), 1)
        std = np.sqrt(np.square(deviation).sum((1, 3, 4, 5, 6)) / physical)
        rms = np.sqrt(np.square(values).sum((1, 3, 4, 5, 6)) / physical)
        # A field at rest has no scale but its magnitude; one that is zero has none.
        self._limit = GROWN * np.where(std > 1e-5 * rms, std, np.where(rms > 0, rms, np.inf))
        self._absent = ~held.any(1)
        self._range(self.first, context[:, -1:])

    def see(self, lead: int, state: Float[np.ndarray, "B M F C D H W"]) -> None:
        """The next frame of these trajectories."""
        with np.errstate(over="ignore", invalid="ignore"):
            held = ~self._absent[:, None]
            lost = (held & ~np.isfinite(state)).any((0, 1, 4, 5, 6))
            away = np.where(held, state - self._mean[:, None, ..., None, None, None], 0.0).astype(np.float64)
            count = np.maximum(held.sum((3, 4, 5, 6)), 1)
            rms = np.sqrt(np.square(away).sum((3, 4, 5, 6)) / count)
            grown = (rms > self._limit[:, None]).any((0, 1))
        for name, (f, c) in zip(self.names, self._places, strict=True):
            for flag, found in ((lost[f, c], self.lost_from), (grown[f], self.grown_from)):
                if flag:
                    found[name] = min(lead, found.get(name, lead))
        if lead > self._last_lead:
            self._last_lead = lead
            self.last = dict.fromkeys(self.names, (np.inf, -np.inf))
        if lead == self._last_lead:
            self._range(self.last, state)

    def _range(self, ranges: dict[str, tuple[float, float]], values: Float[np.ndarray, "B M F C D H W"]) -> None:
        for name, (f, c) in zip(self.names, self._places, strict=True):
            known = values[:, :, f, c]
            known = known[~np.isnan(known)]
            if known.size:
                low, high = ranges[name]
                ranges[name] = (min(low, float(known.min())), max(high, float(known.max())))

    def warnings(self, lead_times: Sequence[float], unit: str) -> list[str]:
        """A line for each component that is no forecast any more."""
        lines = []
        for name in self.names:
            for found, what in (
                (self.lost_from, "is not finite"),
                (self.grown_from, f"is more than {GROWN:g} standard deviations of the context away from its mean"),
            ):
                if name in found:
                    lines.append(f"{name} {what} from lead time {lead_times[found[name]]:g}{unit} on")
        return lines
