"""Solve a slippery grid of side x side states whose rows no process ever holds as a whole.

    mpirun -n 2 python benchmarks/petsc_rows.py [side] [gamma] [tol]

The model is `envs.slippery_grid(side)`, written as a function of rows. Prints seconds, the certified bound, V of the
start, and the peak memory of each process. With --whole every process builds the MDP itself and hands it over.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from tabrl import envs, petsc
from tabrl.types import F

MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # up, right, down, left


def grid_rows(side: int, slip: float = 0.2) -> Callable[[int, int], tuple[Any, F, Any]]:
    """Return the function that builds rows of `envs.slippery_grid(side, slip=slip)`: P, r and terminal."""
    turned = np.stack((MOVES, MOVES[:, ::-1] * (1, -1), MOVES[:, ::-1] * (-1, 1)), axis=1)  # (A,3,2)

    def build(first: int, last: int) -> tuple[Any, F, Any]:
        cell = np.stack(np.divmod(np.arange(first, last), side), axis=-1)
        aim = np.clip(cell[:, None, None] + turned, 0, side - 1)  # (n,A,3,2)
        s_next = aim[..., 0] * side + aim[..., 1]
        p = np.broadcast_to((1 - slip, slip / 2, slip / 2), s_next.shape).copy()
        for j, k in ((0, 1), (0, 2), (1, 2)):  # outcomes that lead to the same cell add up
            same = (s_next[..., j] == s_next[..., k]) & (p[..., k] > 0)
            p[..., j] += np.where(same, p[..., k], 0.0)
            p[..., k] *= ~same
        terminal = np.arange(first, last) == side * side - 1
        p[terminal] = 0.0
        used = p > 0
        indptr = np.concatenate(([0], np.cumsum(used.sum(-1))))
        P = sp.csr_array((p[used], s_next[used], indptr), shape=(p.shape[0] * 4, side * side))
        return P, np.where(terminal[:, None], 0.0, np.full((len(cell), 4), -1.0)), terminal

    return build


def main() -> None:
    """Solve the grid on the processes that were launched, and print what it took."""
    given = [x for x in sys.argv[1:] if x != "--whole"]
    side, gamma, tol = (float(x) for x in (*given, *("1000", "0.99", "1e-6")[len(given) :]))
    n = int(side)
    start = time.perf_counter()
    mdp = envs.slippery_grid(n, gamma=gamma) if "--whole" in sys.argv else None
    built = time.perf_counter()
    if mdp is None:
        first, _, x = petsc.solve(petsc.Rows(n * n, 4, gamma, grid_rows(n)), tol=tol)
    else:
        first, x = 0, petsc.solve(mdp, tol=tol)
    seconds = time.perf_counter() - built
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"process of state {first}: {seconds:.1f} s (MDP {built - start:.1f} s), peak memory {peak:.2f} GiB")
    if first == 0:
        print(f"{x.method}: {x.iterations} rounds, bound {x.bound:.2e}, {x.status}, V[0] = {x.V[0]:.12f}")


if __name__ == "__main__":
    main()
