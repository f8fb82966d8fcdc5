"""Models from their stored configuration, which can come from anybody: it names none but these."""

from collections.abc import Callable, Mapping
from typing import Any

from morph.model.library import FNO, UNet
from morph.model.morph import Morph
from morph.model.naive import Naive
from morph.model.surrogate import Surrogate

__all__ = ["build", "is_description"]

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


def is_description(stored: Mapping[str, Any]) -> bool:
    """Whether a stored configuration says what `build` needs to know, whether or not it is right."""
    needed = {"normalisation", "capacity"} | (set() if "kind" in stored else {"dim", "mixer"})
    return needed <= stored.keys()
