"""Plain values travel as bytes; bytes that nobody packed are refused, cheaply."""

import json
import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import pytest

from tabrl.grading.transport import DEEPEST, LARGEST, TREE, WIDEST, Refused, frame, frames, pack, unpack


class Own(np.ndarray[Any, Any]):
    pass


class Pair(NamedTuple):
    a: int
    b: Any


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return type(b) is dict and same(list(a.items()), list(b.items()))
    return type(a) is type(b) and repr(a) == repr(b)


def values() -> list[Any]:
    rng = np.random.default_rng(0)
    arrays: list[Any] = [rng.normal(size=(3, 4)), rng.random((2, 3, 4)) > 0.5, np.zeros((0, 5)), np.arange(6)[::-2]]
    arrays += [np.arange(4, dtype=t) for t in "bBhHiIlLefdFD"]
    plain: list[Any] = [None, True, 0, -(2**63), 2**64 - 1, 0.1, -0.0, float("nan"), float("-inf"), "", "aé\ud800\x00"]
    nested: list[Any] = [[], (), {}, [1, (2, [3, {"x": (None,)}])], {(0, 1): 0.5, 3: [np.ones(2), np.int8(4)], "k": {}}]
    return arrays + plain + nested + [np.float64(0.1), np.bool_(True), np.complex64(1j), [*arrays, *nested]]


@pytest.mark.parametrize("value", values(), ids=lambda value: type(value).__name__)
def test_what_goes_in_comes_out(value: Any) -> None:
    assert same(value, unpack(pack(value)))


def test_arrays_that_come_out_are_new_and_writable() -> None:
    message = pack(np.arange(3.0))
    first, second = unpack(message), unpack(message)
    first += 1
    assert (second == np.arange(3.0)).all()


def test_other_kinds_become_plain_ones() -> None:
    strided = np.arange(12.0).reshape(3, 4).T
    assert unpack(pack(Pair(1, Pair(2, None)))) == (1, (2, None))
    assert (unpack(pack(strided)) == strided).all()
    assert unpack(pack(np.arange(3, dtype=">i4"))).dtype == np.dtype("<i4")
    assert unpack(pack(np.longdouble(0.5))).dtype == np.float64
    assert type(unpack(pack(np.ones(2).view(Own)))) is np.ndarray


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "it is of type object"),
        ({1, 2}, "it is of type set"),
        (b"bytes", "it is of type bytes"),
        (1j, "it is of type complex"),
        (2**64, "it is an int of 65 bits"),
        (np.array([object()]), "it is an array of object"),
        (np.array(["text"]), "it is an array of str"),
        (np.zeros(1, "M8[s]"), "it is an array of datetime64"),
        (np.broadcast_to(1.0, (10**9, 10**9)), f"it needs more than {LARGEST} bytes"),
        ([0.1] * 10**6, f"it needs more than {LARGEST} bytes"),
        ("\ud800" * (LARGEST // 6 - 8), f"its text has .* at most {TREE}"),
        (dict.fromkeys(range(WIDEST + 1)), f"it is a dict of {WIDEST + 1} entries"),
        (json.loads("[" * 30 + "]" * 30), f"it is nested more than {DEEPEST} deep"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_refused(value: Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        pack(value)


def forged(tree: str, rest: bytes = b"") -> bytes:
    return len(tree).to_bytes(4, "little") + tree.encode() + rest


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "cut short"),
        (b"\0\0\0\0", "cut short"),
        (forged("[1"), "makes no sense"),
        (forged('{"a":1}'), "of type dict"),
        (forged("[]"), "holds 'None'"),
        (forged('["set",1]'), "holds 'set'"),
        (forged('["dict",1]'), "holds 'dict'"),
        (forged('["dict",["list"],1]'), "makes no sense"),
        (forged("1", b"x"), "1 bytes too many"),
        (forged('["array"]'), "makes no sense"),
        (forged('["array","<f8",2]', bytes(8)), "16 bytes, 8 are there"),
        (forged('["array","<f8",1]', bytes(9)), "1 bytes too many"),
        (forged('["array","<f8",1000000000000000]'), "cut short"),
        (forged('["array","<f8",-1]'), "impossible shape"),
        (forged('["array","<f8",true]', bytes(8)), "impossible shape"),
        (forged('["array","<f8",1.0]', bytes(8)), "impossible shape"),
        (forged('["array","<f8"' + ",1" * 33 + "]", bytes(8)), "impossible shape"),
        (forged('["array","<f8",0,1000000000000000000,1000000000000000000]'), "makes no sense"),
        (forged('["number","<f8",1]', bytes(8)), "impossible shape"),
        (forged('["array","|O",1]', bytes(8)), "a type of numbers is expected"),
        (forged('["array","(1000000000,)<f8",0]'), "a type of numbers is expected"),
        (forged('["array",8,1]'), "a type of numbers is expected"),
        (forged("[" * 100_000 + "]" * 100_000), "nested more than|makes no sense"),
        (forged("9" * 5000), "makes no sense|int of"),
        (forged("1" + " " * TREE), "tree of"),
        (forged('["dict"' + ",1,1" * (WIDEST + 1) + "]"), "holds 'dict'"),
    ],
    ids=lambda x: None if isinstance(x, str) else "message",
)  # fmt: skip
def test_what_nobody_packed_is_refused(message: bytes, why: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match=why):
            unpack(message)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_damage_is_refused_or_read_as_another_value_but_never_worse() -> None:
    whole = pack([np.arange(6.0).reshape(2, 3), {"a": (1, 2.5), 3: np.bool_(True)}, "text", None])
    for length in range(len(whole)):
        with pytest.raises(Refused):
            unpack(whole[:length])
    rng, read = np.random.default_rng(1), 0
    for _ in range(3000):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        try:
            unpack(bytes(damaged))
            read += 1
        except Refused:
            pass
    assert 0 < read < 3000


def test_frames_are_read_up_to_the_first_that_is_not_whole() -> None:
    messages = [pack(k) for k in range(3)]
    stream = b"".join(map(frame, messages))
    assert frames(stream) == (messages, 0)
    for junk in (b"x", bytes(8), b"\xff" * 20, frame(messages[0])[:-1], (10**18).to_bytes(8, "little") + bytes(8)):
        assert frames(stream + junk) == (messages, len(junk))
    assert frames(frame(bytes(100)), largest=99) == ([], 108)
