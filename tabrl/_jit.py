"""`@kernel`: one readable source, compiled by numba when it is installed.

A kernel is a plain function of arrays and numbers, written with explicit loops; it may call other
kernels of its module. Without numba the same function runs as it stands and gives the same bits, so
kernels keep to `math.*` and scalar arithmetic (NumPy's array exp, sum and @ may differ in the last
bit between the two), and do not divide by what may be 0 (compiled code would not raise). Kernels that
are called are compiled into their callers, which doubled the speed of the control learners.

numba is imported at a kernel's first call, never with the package; TABRL_NUMBA=0 switches it off.
"""

import functools
import importlib.util
import os
import types
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def compiled() -> bool:
    """Whether kernels are compiled: numba is installed and TABRL_NUMBA is not 0."""
    return os.environ.get("TABRL_NUMBA", "1") != "0" and importlib.util.find_spec("numba") is not None


def kernel(function: F) -> F:
    """Compile `function` at its first call if numba is installed; `.py_func` is the source itself."""

    @functools.cache
    def build() -> Callable[..., Any]:
        return _compile(function) if compiled() else function

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return build()(*args)

    run.py_func, run.build = function, build  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand numba the function with the kernels that it calls already compiled."""
    import numba

    called = {n: function.__globals__.get(n) for n in function.__code__.co_names}
    inner = {n: getattr(k, "build")() for n, k in called.items() if hasattr(k, "build")}  # noqa: B009
    clone = types.FunctionType(function.__code__, {**function.__globals__, **inner}, function.__name__)
    clone.__module__, clone.__qualname__ = function.__module__, function.__qualname__
    fast: Callable[..., Any] = numba.njit(cache=True, error_model="numpy", forceinline=True)(clone)
    return fast
