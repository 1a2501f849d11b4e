"""One source, compiled or not, with the same bits."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import same_bits

from tabrl import _jit
from tabrl._jit import kernel

ROOT = Path(__file__).resolve().parent.parent


def sweep(V: Any, r: Any, gamma: float, n: int) -> float:
    """n in-place sweeps over a ring; returns the last change."""
    change = 0.0
    for _ in range(n):
        change = 0.0
        for s in range(V.shape[0]):
            new = r[s] + gamma * (V[s - 1] + V[(s + 1) % V.shape[0]]) / 2 + math.sqrt(abs(V[s])) / 8
            change = max(change, abs(new - V[s]))
            V[s] = new
    return change


fast = kernel(sweep)


def needs_numba() -> None:
    if not _jit.compiled():
        pytest.skip("numba is not installed, or TABRL_NUMBA=0")


def test_compiled_and_plain_give_the_same_bits() -> None:
    needs_numba()
    rng = np.random.default_rng(0)
    V, r = rng.normal(size=50), rng.normal(size=50)
    W = V.copy()
    change = fast(V, r, 0.9, 20)
    plain = fast.py_func(W, r, 0.9, 20)  # type: ignore[attr-defined]
    assert same_bits(V, W) and same_bits(change, plain)
    assert fast.py_func is sweep  # type: ignore[attr-defined]


def test_the_compiled_kernel_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_numba()
    import numba

    seen: list[Any] = []

    def njit(**options: Any) -> Any:
        seen.append(options)
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    again = kernel(sweep)
    assert not seen  # nothing is compiled before the first call
    for _ in range(3):
        again(np.zeros(3), np.ones(3), 0.5, 1)
    assert seen == [{"cache": True, "error_model": "numpy", "forceinline": True, "nogil": True, "_nrt": False}]


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABRL_NUMBA", "0")
    assert not _jit.compiled()
    plain = kernel(sweep)
    V = np.zeros(3)
    assert plain(V, np.ones(3), 0.5, 1) == sweep(np.zeros(3), np.ones(3), 0.5, 1)


def test_without_numba_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABRL_NUMBA", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not _jit.compiled()


def test_name_and_docstring_are_kept() -> None:
    assert fast.__name__ == "sweep" and fast.__doc__ == sweep.__doc__


PROGRAM = """
import sys
import numpy as np
from test_jit import fast
V = np.linspace(0, 1, 40)
fast(V, np.sin(np.arange(40.0)), .9, 10)
print("numba" in sys.modules, V.tobytes().hex())
"""


def test_a_fresh_process_gives_the_same_bits_with_and_without_numba() -> None:
    needs_numba()
    answers = {}
    for switch in ("0", "1"):
        env = os.environ | {"TABRL_NUMBA": switch, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
        answers[switch] = done.stdout.split()
    assert answers["0"][0] == "False" and answers["1"][0] == "True"
    assert answers["0"][1] == answers["1"][1]
