"""Models from their stored configuration, which can come from anybody: it names none but these."""

from collections.abc import Callable, Mapping
from typing import Any

from morph.model.library import FNO, UNet
from morph.model.morph import Morph
from morph.model.naive import Naive
from morph.model.surrogate import Surrogate

__all__ = ["build", "lacking"]

_KINDS: Mapping[str, Callable[..., Surrogate]] = {"FNO": FNO, "U-Net": UNet, "naive": Naive}


def build(config: Mapping[str, Any]) -> Surrogate:
    """Inverse of `Surrogate.config`.

    Raises:
        ValueError: An option is missing, unknown or not what it should be.
    """
    kind = config.get("kind", "Morph")
    if kind == "Morph":
        return Morph.from_config(config)
    if kind not in _KINDS:
        raise ValueError(f"the stored configuration is of a {kind!r}; expected one of Morph, {', '.join(_KINDS)}")
    return _KINDS[kind](**{key: value for key, value in config.items() if key != "kind"})


def lacking(stored: Mapping[str, Any]) -> list[str]:
    """What a stored configuration does not say, of what every model needs; whether the rest is right is for `build`."""
    needed = {"normalisation", "capacity"} | (set() if "kind" in stored else {"dim", "mixer"})
    return sorted(needed - stored.keys())
