"""Run a user's own function on the cases of a row and say where, and if possible why, it is wrong."""

import copy
import difflib
import importlib.util
import math
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tabrl.types import F
from tabrl.verify.record import Case, Check, Row


def load(target: str) -> Callable[..., Any]:
    """Import a function from a file: "solution.py:my_solver".

    The file is run, as `python solution.py` would run it under another name. Raises ValueError or
    FileNotFoundError, naming what is missing and the functions that are there.
    """
    path, colon, name = target.rpartition(":")
    if not colon or not path or not name:
        raise ValueError(f"{target!r} names no function; FILE.py:FUNCTION is expected")
    file = Path(path).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not a file; the path of a Python file is expected before the colon")
    module = run_file(file, path)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{path} has no function {name!r}; {offer(module, name)}")
    return function  # type: ignore[no-any-return]


def run_file(file: Path, path: str) -> Any:
    """Execute a Python file as a module of its own; path is what messages call it."""
    spec = importlib.util.spec_from_file_location(f"user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported; a file that ends in .py is expected")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} raises {complaint(error, str(file))} on import") from error
    return module


def offer(module: Any, name: str) -> str:
    """Name the functions of a module, those like `name` first."""
    there = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
    close = difflib.get_close_matches(name, there) or there
    return f"did you mean {', '.join(close)}?" if close else "it defines no functions"


def complaint(error: Exception, file: str = "") -> str:
    """Name an exception, with the line of the user's file, if it is on the way."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    at = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{at}"


def own_checks(row: Row) -> list[Check]:
    """Run the checks of the package; an error becomes a failed check."""
    try:
        return row.own()
    except Exception as error:
        return [failed(row.id, row.equation, 0.0, f"it raises {complaint(error)}")]


def judge(row: Row, fn: Callable[..., Any], tol: float) -> list[Check]:
    """Run a function on all cases of a row."""
    return [judge_case(row, case, fn, tol) for case in row.cases()]


def judge_case(row: Row, case: Case, fn: Callable[..., Any], tol: float) -> Check:
    """Run a function on one case; whatever goes wrong becomes a failed check."""
    tolerance = tol * max(1.0, float(abs(case.expected).max()))
    quantity = f"{row.signature.partition(' ')[0]} on {case.name}"
    try:
        result = fn(*copy.deepcopy(case.arguments))
    except Exception as error:
        source = getattr(getattr(fn, "__code__", None), "co_filename", "")
        return failed(row.id, quantity, tolerance, f"it raises {complaint(error, source)}")
    try:
        value = case.measure(usable(result, case))
    except ValueError as error:
        return failed(row.id, quantity, tolerance, str(error))
    return compare(row, quantity, case, value, tolerance)


def failed(row: str, quantity: str, tolerance: float, why: str) -> Check:
    """Report a failure without a number."""
    return Check(row, quantity, math.nan, math.nan, math.inf, tolerance, False, why)


def usable(result: Any, case: Case) -> F:
    """Convert a result to a float array; refuse wrong shapes and numbers that are not finite."""
    try:
        value = np.asarray(result if result is not None else "nothing", dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"it returns {type(result).__name__}; an array of shape {case.shape} is expected") from None
    if value.shape != case.shape:
        policy = case.expected.ndim < len(case.shape)  # judged on its values
        cure = "; make actions one-hot: np.eye(A)[actions]" if policy and value.shape == case.shape[:-1] else ""
        raise ValueError(f"the result has shape {value.shape}; {case.shape} is expected{cure}")
    bad = np.argwhere(~np.isfinite(value))
    if len(bad):
        raise ValueError(f"the result at {place(case, bad[0])} is {value[tuple(bad[0])]}; a finite number is expected")
    return value


def place(case: Case, at: Iterable[int]) -> str:
    """Name an entry: "s=0", or "s=0, a=1"; a single number has a name of its own."""
    names = [*case.axis.split(), "a"]
    return ", ".join(f"{axis}={int(i)}" for axis, i in zip(names, at, strict=False)) or case.axis


def compare(row: Row, quantity: str, case: Case, value: F, tolerance: float) -> Check:
    """Compare an array with the closed form, and look for the mistake that explains the difference."""
    gaps = abs(value - case.expected)
    at = tuple(int(i) for i in np.unravel_index(int(gaps.argmax()), gaps.shape))
    found, closed_form, difference = float(value[at]), float(case.expected[at]), float(gaps[at])
    passed = difference <= tolerance
    where = place(case, at)
    if not passed:
        where += f": {found:.6g} instead of {closed_form:.6g}{guess(case, value, tolerance)}"
    return Check(row.id, quantity, found, closed_form, difference, tolerance, passed, where)


def guess(case: Case, value: F, tolerance: float) -> str:
    """Name the mistake that gives this very value, if one is known."""
    for name, wrong in case.mistakes():
        told_apart = abs(wrong - case.expected).max() > tolerance
        scale = tolerance * max(1.0, float(abs(wrong).max()))
        if told_apart and abs(value - wrong).max() <= scale:
            return f"; this is what you get when {name}"
    remark = case.remark(value)
    return f"; {remark}" if remark else ""
