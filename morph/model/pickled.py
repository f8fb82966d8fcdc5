"""What a stored pickle would make, looked at before it is made: names it may use, and how much they would copy.

torch's reader of weights executes none of a stranger's code, but some of what it does call takes as much memory as a
number in the file says (torch.Tensor), or doubles what it is given (_codecs.encode).
"""

import pickletools
from collections import deque
from itertools import chain
from typing import Any

import numpy as np

from morph.claims import ClaimError

__all__ = ["LARGEST_PICKLE", "SCALARS", "check_pickle"]

LARGEST_PICKLE = 64 * 2**20
"""Bytes of all that is no tensor; that of size XL has less than one million."""

_SIZES = ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double")
_STORAGES = {f"torch {kind}Storage" for kind in (*_SIZES, "ComplexFloat", "ComplexDouble")}
_DTYPES = {
    f"torch {kind}" for kind in (
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
        "complex128",
    )
}  # fmt: skip
_ENCODE = "_codecs encode"  # bytes of a NumPy scalar are stored as text
_TENSORS = {f"torch._utils _rebuild_{kind}" for kind in ("tensor", "tensor_v2", "parameter")}
_COPIES = {"__builtin__ set", "builtins set", "collections Counter", "collections OrderedDict", "torch Size"}
_OTHERS = {
    "torch device", "torch.nn.parameter Parameter", "numpy dtype", "numpy.core.multiarray scalar",
    "numpy._core.multiarray scalar", _ENCODE,
}  # fmt: skip
_NAMES = _STORAGES | _DTYPES | _TENSORS | _COPIES | _OTHERS
_KINDS = ("f4", "f8", "i8")

_Step = tuple[str, Any]
_END: _Step = ("", None)


class _Kind(str):
    """A dtype's name.  What else a pickle says of a dtype could be of another size than the scalar's bytes."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] != "<":
            raise ValueError(f"expected a NumPy scalar in little-endian order, found {state[1]!r}")


def _kind(name: str, *_: object) -> _Kind:
    if name not in _KINDS:
        raise ValueError(f"expected NumPy scalars of dtype {', '.join(_KINDS)}, found {name!r}")
    return _Kind(name)


def _scalar(kind: _Kind, content: bytes) -> Any:
    return np.frombuffer(content, np.dtype(f"<{kind}"), 1)[0]


# The state of a schedule can hold losses as NumPy's scalars.
SCALARS: list[Any] = [
    _Kind,
    (_kind, "numpy.dtype"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),  # as NumPy 1 calls it
]
"""Names for torch.serialization.safe_globals."""


def check_pickle(content: bytes, where: str) -> None:
    """Make sure that unpickling takes no more memory than its size tells.

    Args:
        content: The pickle.
        where: For messages.

    Raises:
        ClaimError: It names what no checkpoint needs, or copies what it holds without end.
        ValueError: It is truncated or no pickle.
    """
    last = deque([_END] * 5, maxlen=5)
    memo: dict[Any, _Step] = {}
    marks: list[int] = []
    copied = longest = 0
    end = ((None, None, None) for _ in range(5))  # so that the last ones are looked at as well
    for count, (opcode, value, place) in enumerate(chain(pickletools.genops(content), end)):
        name = opcode.name if opcode else ""
        if name.endswith("BINPUT"):
            memo[value] = last[-1]
            continue
        last.append(memo.get(value, _END) if name.endswith("BINGET") else _step(name, value, where))
        if name == "MARK":
            marks.append(count)
        elif name == "TUPLE" and marks:
            longest = max(longest, count - marks.pop())
        elif name in ("APPENDS", "SETITEMS") and marks:
            marks.pop()
        (kind, called), (following, _) = last[-2], last[-1]
        if kind == "GLOBAL" and called in _COPIES and following != "EMPTY_TUPLE":
            copied += place or len(content)
        elif kind == "GLOBAL" and called in _TENSORS:
            copied += longest
        if copied > LARGEST_PICKLE:
            raise ClaimError(
                f"{where}: it copies what it holds again and again, to more than {LARGEST_PICKLE:,} values"
            )
        # A code such as hex takes what it gives, and would double it with each call.
        if last[0] == ("GLOBAL", _ENCODE) and not _is_latin(list(last)[1:]):
            raise ClaimError(f"{where}: expected {_ENCODE} of a text as latin1, found another use")


def _step(name: str, value: Any, where: str) -> _Step:
    if name == "GLOBAL" and value not in _NAMES:
        raise ClaimError(
            f"{where}: it names {value.replace(' ', '.')!r}; expected tensors, and plain values in lists and "
            "dictionaries"
        )
    return name, value


def _is_latin(steps: list[_Step]) -> bool:
    text, code, *call = steps
    texts = ("BINUNICODE", "SHORT_BINSTRING")
    return (
        text[0] in texts and code[0] in texts and code[1] == "latin1" and [c[0] for c in call] == ["TUPLE2", "REDUCE"]
    )
