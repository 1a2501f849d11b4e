"""Plain values as bytes and back: no pickle, no eval, sizes checked before memory is taken.

tree       JSON: null, true, 1, 0.5, "x" stand for themselves; a list is ["list", ...], a tuple ["tuple", ...],
           a dict ["dict", key, value, ...], an array ["array", dtype, *shape], a NumPy number ["number", dtype]
message    length of the tree (4 bytes, little-endian), the tree, the bytes of the arrays one after the other
frame      length of a message (8 bytes, little-endian), the message

The module imports nothing of the package: a copy of it also runs where student code runs.
"""

import json
import math
import re
from typing import Any

import numpy as np
from numpy import asarray, dtype, generic, ndarray  # kept where student code changes np

LARGEST = 8 * 2**20  # bytes of one message
TREE = 2 * 2**20  # bytes of its tree
WIDEST = 1000  # entries of a dict
DEEPEST = 20  # lists within lists
NODE = 32  # bytes that anything counts at least
DTYPE = re.compile(r"\|b1|\|[iu]1|<[iu][248]|<f[248]|<c(8|16)")
HEAD, FRAME = 4, 8  # bytes of the two lengths
READY = b"\x06ready\x06"  # printed before the student's code runs; what is printed cannot be taken back


class Refused(ValueError):
    """A value that is not plain, or bytes that no `pack` has written."""


def pack(value: Any, largest: int = LARGEST) -> bytes:
    r"""Write a value: None, bool, int, float, str, NumPy numbers and arrays, lists, tuples and dicts of them.

    Subclasses (named tuples, matrices) become the plain kind. Raises Refused for anything else, for arrays of objects
    or text, and for what needs more than `largest` bytes; nothing is copied before the sizes are known.

    >>> pack([1, 0.5])
    b'\x0e\x00\x00\x00["list",1,0.5]'
    """
    writer = Writer(largest)
    tree = json.dumps(writer.node(value, 0), separators=(",", ":")).encode()
    if len(tree) > TREE:
        raise Refused(f"its text has {len(tree)} bytes; at most {TREE} are expected; arrays take less")
    return b"".join([len(tree).to_bytes(HEAD, "little"), tree, *(x.tobytes() for x in writer.arrays)])


def unpack(message: bytes) -> Any:
    """Read what `pack` wrote; arrays are new and writable. Raises Refused for bytes that are anything else.

    >>> unpack(pack({"V": np.array([1.0, 2.0]), "k": (3, None)}))
    {'V': array([1., 2.]), 'k': (3, None)}
    >>> unpack(pack(1.5)[:-1])
    Traceback (most recent call last):
    ...
    tabrl.grading.transport.Refused: the message is cut short; its tree has 3 bytes, 2 are there
    """
    length, there = int.from_bytes(message[:HEAD], "little"), len(message) - HEAD
    if length > TREE:
        raise Refused(f"the message has a tree of {length} bytes; at most {TREE} are expected")
    if there < max(length, 1):
        raise Refused(f"the message is cut short; its tree has {length} bytes, {max(there, 0)} are there")
    reader = Reader(memoryview(message)[HEAD + length :])
    try:
        value = reader.value(json.loads(message[HEAD : HEAD + length]), 0)
    except Refused:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise Refused(f"the message makes no sense ({error})") from None
    if len(reader.rest):
        raise Refused(f"the message has {len(reader.rest)} bytes too many; none is expected after the arrays")
    return value


class Writer:
    """Turns a value into a tree, and collects its arrays."""

    def __init__(self, room: int) -> None:
        self.largest = self.room = room
        self.arrays: list[Any] = []

    def node(self, value: Any, depth: int) -> Any:
        """The tree of one value."""
        self.take(NODE)
        if depth > DEEPEST:
            raise Refused(f"it is nested more than {DEEPEST} deep; fewer levels are expected")
        if isinstance(value, ndarray | generic):
            return self.array(asarray(value), "number" if isinstance(value, generic) else "array")
        if isinstance(value, str):
            self.take(6 * len(value))  # as JSON escapes them
            return str(value)
        if isinstance(value, list | tuple | dict):
            return self.many(value, depth)
        return scalar(value)

    def many(self, value: Any, depth: int) -> list[Any]:
        """The tree of a list, a tuple or a dict."""
        if isinstance(value, dict) and len(value) > WIDEST:
            raise Refused(f"it is a dict of {len(value)} entries; at most {WIDEST} are expected; arrays take more")
        self.take(NODE * len(value))
        if isinstance(value, dict):
            return ["dict", *(self.node(x, depth + 1) for item in value.items() for x in item)]
        return ["list" if isinstance(value, list) else "tuple", *(self.node(x, depth + 1) for x in value)]

    def array(self, x: Any, kind: str) -> list[Any]:
        """The header of an array, whose bytes follow the tree."""
        if x.dtype.kind not in "biufc":
            raise Refused(f"it is an array of {x.dtype.name}; an array of numbers is expected")
        self.take(x.nbytes)
        widest = {"f": 8, "c": 16}.get(x.dtype.kind, x.dtype.itemsize)
        plain = dtype(f"{x.dtype.kind}{min(x.dtype.itemsize, widest)}").newbyteorder("<")
        self.arrays.append(x.astype(plain, copy=False))
        return [kind, plain.str, *x.shape]

    def take(self, size: int) -> None:
        """Count bytes before they are used."""
        self.room -= size
        if self.room < 0:
            raise Refused(f"it needs more than {self.largest} bytes; a smaller value is expected")


def scalar(value: Any) -> Any:
    """A single plain value, or a refusal."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > 64:
            raise Refused(f"it is an int of {value.bit_length()} bits; at most 64 are expected")
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise Refused(f"it is of type {type(value).__name__}; arrays, numbers, lists, tuples or dicts of them are expected")


class Reader:
    """Turns a tree back into a value, and takes its arrays from the bytes that follow."""

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def value(self, tree: Any, depth: int) -> Any:
        """The value of one tree."""
        if depth > DEEPEST:
            raise Refused(f"the message is nested more than {DEEPEST} deep")
        if not isinstance(tree, list):
            return scalar(tree) if not isinstance(tree, str) else tree
        kind = tree[0] if tree else None
        if kind in ("array", "number"):
            return self.array(kind, *tree[1:])
        parts = [self.value(x, depth + 1) for x in tree[1:]]
        if kind == "dict" and len(parts) % 2 == 0 and len(parts) <= 2 * WIDEST:
            return dict(zip(parts[::2], parts[1::2], strict=True))
        if kind in ("list", "tuple"):
            return parts if kind == "list" else tuple(parts)
        raise Refused(f"the message holds {str(kind)[:20]!r}; array, number, list, tuple or dict is expected")

    def array(self, kind: str, dtype: Any, *shape: Any) -> Any:
        """The next array, if the bytes for it are there."""
        if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
            raise Refused(f"the message holds an array of {str(dtype)[:20]!r}; a type of numbers is expected")
        if len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape) or (kind == "number" and shape):
            raise Refused("the message holds an array of impossible shape")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > len(self.rest):
            raise Refused(f"the message is cut short; an array has {size} bytes, {len(self.rest)} are there")
        x: Any = np.zeros(shape, dtype)
        x.reshape(-1).view(np.uint8)[:] = np.frombuffer(self.rest[:size], np.uint8)
        self.rest = self.rest[size:]
        if x.dtype.kind == "b":
            x = x.view(np.uint8) != 0  # a byte may say 2
        return x[()] if kind == "number" else x


def frame(message: bytes) -> bytes:
    """A message with its length before it."""
    return len(message).to_bytes(FRAME, "little") + message


def frames(data: bytes, largest: int = 2 * LARGEST) -> tuple[list[bytes], int]:
    """The whole messages in a stream, and how many bytes are left after them.

    Stops at the first message that is longer than `largest` or than what is there, or too short for any.

    >>> frames(frame(pack(1)) + b"left")[1]
    4
    """
    found, at = [], 0
    while len(data) - at >= FRAME:
        length = int.from_bytes(data[at : at + FRAME], "little")
        if not HEAD < length <= min(largest, len(data) - at - FRAME):
            break
        at += FRAME + length
        found.append(data[at - length : at])
    return found, len(data) - at
