"""A yardstick for benchmarks/dp.py: 60 compiled Bellman sweeps over a model, on two threads.

V, TV (S,) values before and after a sweep; start, column, p the rows of P, row s·A + a; r (S,A).
"""

import json
import statistics
import sys
import time
from typing import Any

import numba
import numpy as np
from dp_models import by_name, size

SWEEPS = 60


@numba.njit(parallel=True, error_model="numpy")
def sweep(start: Any, column: Any, p: Any, r: Any, gamma: float, V: Any, TV: Any) -> None:
    """One Bellman sweep: TV(s) = max over a of r(s,a) + gamma * sum over s' of P(s'|s,a) V(s')."""
    A = r.shape[1]
    for s in numba.prange(r.shape[0]):
        best = -np.inf
        for a in range(A):
            total = 0.0
            for i in range(start[s * A + a], start[s * A + a + 1]):
                total += p[i] * V[column[i]]
            best = max(best, r[s, a] + gamma * total)
        TV[s] = best


def main(model: str, runs: int) -> dict[str, Any]:
    """Time SWEEPS sweeps, `runs` times after one that compiles."""
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    mdp = by_name(model)
    rows, r = mdp.rows, np.ascontiguousarray(mdp.r)
    V, TV, seconds = np.zeros(mdp.S), np.zeros(mdp.S), []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        for _ in range(SWEEPS // 2):
            sweep(rows.indptr, rows.indices, rows.data, r, mdp.gamma, V, TV)
            sweep(rows.indptr, rows.indices, rows.data, r, mdp.gamma, TV, V)
        seconds.append(time.perf_counter() - begin)
    found = dict(seconds=seconds[1:], median=statistics.median(seconds[1:]), size=size(mdp), S=mdp.S, A=mdp.A)
    return found | dict(entries=mdp.P.nnz, threads="2", setting=f"{SWEEPS} compiled sweeps, a yardstick, no solver")


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[3]))))
