"""Build, check, solve to 1e-6 and save a sparse model with 1,000,000 states and 4 actions.

    python benchmarks/million.py [side]

Prints seconds of each step and the peak memory of the process.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabrl import MDP, dp, envs


def main() -> None:
    """Run the steps one after the other on a side x side grid (1000 unless given)."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.npz"
        mdp = timed("build and check", lambda: envs.slippery_grid(n, gamma=0.99))
        print(f"{mdp}, {mdp.P.nnz:,} transitions")
        solution = timed("solve", lambda: dp.solve(mdp, tol=1e-6))
        print(f"{solution.method}: {solution.iterations} iterations, bound {solution.bound:.2e}, {solution.status}")
        timed("save", lambda: mdp.save(path))
        print(f"file {path.stat().st_size / 2**20:.0f} MiB")
        again = timed("load and check", lambda: MDP.load(path))
        assert again.P.nnz == mdp.P.nnz
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def timed(what: str, step: Callable[[], Any]) -> Any:
    """Call `step` and print how long it took."""
    start = time.perf_counter()
    result = step()
    print(f"{what}: {time.perf_counter() - start:.1f} s")
    return result


if __name__ == "__main__":
    main()
