"""`@kernel`: one readable source, compiled by numba when it is installed.

A kernel is a plain function of arrays and numbers, written with explicit loops; it may call other
kernels of its module. Without numba the same function runs as it stands and gives the same bits, so
kernels keep to `math.*` and scalar arithmetic (NumPy's array exp, sum and @ may differ in the last
bit between the two), and do not divide by what may be 0 (compiled code would not raise). Kernels that
are called are compiled into their callers, which doubled the speed of the control learners.

numba is imported at a kernel's first call, never with the package; TABRL_NUMBA=0 switches it off. Its cache knows a
kernel by its own file: after changing one that kernels of other files call, delete `tabrl/__pycache__/*.nb[ci]`.
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


def kernel(function: F, *, allocates: bool = False) -> F:
    """Compile `function` at its first call if numba is installed; `.py_func` is the source itself.

    A kernel works on the arrays it is given and creates none, so it need not count references to them, which would
    take most of the time where records of arrays are handed on; `allocating` is for those that create some.
    """

    @functools.cache
    def build() -> Callable[..., Any]:
        return _compile(function, allocates) if compiled() else function

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return build()(*args)

    run.py_func, run.build = function, build  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def allocating(function: F) -> F:
    """`kernel` for a function that creates arrays or lists."""
    return kernel(function, allocates=True)


def _compile(function: Callable[..., Any], allocates: bool) -> Callable[..., Any]:
    """Hand numba the function with the kernels that it calls already compiled."""
    import numba

    called = {n: function.__globals__.get(n) for n in function.__code__.co_names}
    inner = {n: getattr(k, "build")() for n, k in called.items() if hasattr(k, "build")}  # noqa: B009
    clone = types.FunctionType(function.__code__, {**function.__globals__, **inner}, function.__name__)
    clone.__module__, clone.__qualname__ = function.__module__, function.__qualname__
    options: dict[str, Any] = {
        "cache": True,
        "error_model": "numpy",
        "forceinline": True,
        "nogil": True,
        "_nrt": allocates,
    }
    fast: Callable[..., Any] = numba.njit(**options)(clone)
    return fast
