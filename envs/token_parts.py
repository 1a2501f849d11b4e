"""What token tasks are made of: words, prompts that are spread out, checks of sizes."""

import math
from typing import Any

import numpy as np

from tabrl.errors import ModelError
from tabrl.types import F, I

EOS = "<eos>"


def spread(base: int, n: int, how_many: int) -> I:
    """Different sequences (how_many,n) of numbers below `base`, far from one another: a stride by the golden section.

    >>> spread(10, 2, 4).tolist()
    [[6, 3], [2, 6], [8, 9], [5, 2]]
    """
    total = base**n
    near = round(total / ((1 + math.sqrt(5)) / 2))
    stride = next(k for k in range(max(near, 1), total + 2) if math.gcd(k, total) == 1)
    codes = [stride * i % total for i in range(1, min(how_many, total) + 1)]
    return np.array([[code // base**j % base for j in reversed(range(n))] for code in codes])


def one(right: Any) -> F:
    """1 where the answer is right, else 0."""
    return np.asarray(right, np.float64)


def letters(n: int) -> tuple[str, ...]:
    """a, b, c, …; t0, t1, … where the alphabet is too short."""
    return tuple(chr(ord("a") + i) if n <= 26 else f"t{i}" for i in range(n))


def digits(n: int) -> tuple[str, ...]:
    """0, 1, 2, … as words."""
    return tuple(map(str, range(n)))


def whole(name: str, x: Any, least: int, most: int | None = None) -> None:
    """Require an integer from `least` to `most`."""
    fits = isinstance(x, int | np.integer) and x >= least and (most is None or x <= most)
    if not fits:
        upper = "" if most is None else f" and at most {most}"
        raise ModelError(f"{name} is {x!r}; a whole number of at least {least}{upper} is expected")
