"""Solve large models without discount (gamma = 1) to 1e-6: seconds, bound and status of dp.solve.

    python benchmarks/undiscounted.py [MODEL ...]

In `forward` every policy ends; on `grid` staying costs; in `rings` and on the lakes staying is free, so end components
are collapsed. Every model is solved once, after a small one of its kind that compiles.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from tabrl import MDP, dp, envs

LAKE = ["........", "........", "...H....", ".....H..", "...H....", ".HH...H.", ".H..H.H.", "...H...."]  # H: hole


def forward(S: int, A: int = 4, b: int = 5, reach: int = 1000) -> MDP:
    """Every action leads to b states at most `reach` further on, the last state ends; rewards of both signs."""
    rng = np.random.default_rng(0)
    row = np.repeat(np.arange(S * A), b)
    column = np.minimum(row // A + rng.integers(1, reach, len(row)), S - 1)
    p, on = rng.dirichlet(np.ones(b), S * A).ravel(), row // A < S - 1
    P = sp.csr_array((p[on], (row[on], column[on])), shape=(S * A, S))
    terminal = np.arange(S) == S - 1
    r = np.where(terminal[:, None], 0.0, rng.standard_normal((S, A)))
    return MDP.normalised(P, r, 1.0, terminal=terminal)


def rings(S: int, size: int = 5) -> MDP:
    """Rings in which going round is free; leaving one costs, and fails with probability .1; reaching the end pays 5."""
    rng = np.random.default_rng(0)
    s = np.arange(S - 1)
    first = s // size * size
    out = np.minimum((s // size + 1 + rng.integers(0, 50, S - 1)) * size, S - 1)
    row = np.concatenate([2 * s, 2 * s + 1, 2 * s + 1])
    column = np.concatenate([first + (s + 1) % size, out, first])
    P = sp.csr_array((np.repeat([1.0, 0.9, 0.1], S - 1), (row, column)), shape=(2 * S, S))
    R = np.zeros((S, 2))
    R[:-1, 1] = np.where(out == S - 1, 5.0, 0.0) - rng.random(S - 1)
    return MDP(P, R, 1.0, terminal=np.arange(S) == S - 1)


def lake(n: int) -> MDP:
    """A slippery lake of n x n cells with holes; 1 for the far corner; a step into a wall stays, and is free."""
    hole = np.tile(np.array([list(row) for row in LAKE]) == "H", (-(-n // 8), -(-n // 8)))[:n, :n].ravel()
    hole[-1] = False
    s = np.arange(n * n)
    x, y = s // n, s % n
    to = np.stack([s - (y > 0), s + n * (x < n - 1), s + (y < n - 1), s - n * (x > 0)], axis=1)
    terminal = hole | (s == n * n - 1)
    go = np.flatnonzero(~terminal)
    entries = [(4 * go + a, to[go, (a + d) % 4]) for a in range(4) for d in (-1, 0, 1)]
    row, column = (np.concatenate(x) for x in zip(*entries, strict=True))
    P = sp.csr_array((np.full(len(row), 1 / 3), (row, column)), shape=(4 * n * n, n * n))
    return MDP(P, np.asarray(P @ (s == n * n - 1.0)).reshape(-1, 4), 1.0, terminal=terminal)


MODELS: dict[str, tuple[Callable[[int], MDP], int, int]] = {  # constructor, size, size of the small one
    "forward": (forward, 1_000_000, 10_000),
    "grid": (lambda n: envs.slippery_grid(n, gamma=1.0), 1000, 100),
    "rings": (rings, 1_000_001, 10_001),
    "lake-300": (lake, 300, 80),
    "lake-1000": (lake, 1000, 80),
}


def main() -> None:
    """Print a row of Markdown for each model."""
    print("| model | states | transitions | s | method | status | bound |\n|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or MODELS:
        build, size, small = MODELS[name]
        dp.solve(build(small), tol=1e-6)
        mdp = build(size)
        start = time.perf_counter()
        x = dp.solve(mdp, tol=1e-6)
        seconds = time.perf_counter() - start
        what = f"{mdp.S:,} | {mdp.P.nnz:,} | {seconds:.2f} | {x.method} | {x.status} | {x.bound:.1e}"
        print(f"| {name} | {what} |", flush=True)


if __name__ == "__main__":
    main()
