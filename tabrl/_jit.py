"""`@kernel`: one readable source, compiled by numba when it is installed.

A kernel is a plain function of arrays and numbers, written with explicit loops. Without numba the
same function runs as it stands and gives the same bits, so kernels keep to `math.*` and scalar
arithmetic (NumPy's array exp, sum and @ may differ in the last bit between the two).

numba is imported at a kernel's first call, never with the package; TABRL_NUMBA=0 switches it off.
"""

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def compiled() -> bool:
    """Whether kernels are compiled: numba is installed and TABRL_NUMBA is not 0."""
    return os.environ.get("TABRL_NUMBA", "1") != "0" and importlib.util.find_spec("numba") is not None


def kernel(function: F) -> F:
    """Compile `function` at its first call if numba is installed; `function.py_func` is the source."""
    fast: Callable[..., Any] | None = None

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        nonlocal fast
        if fast is None:
            fast = function
            if compiled():
                import numba

                fast = numba.njit(cache=True)(function)
        return fast(*args)

    run.py_func = function  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]
