"""Solve models of benchmarks/dp.py with tabrl and QuantEcon in turn, in one process: ratios that noise moves less.

    python benchmarks/dp_turns.py [MODEL ...]

Each turn solves once with each solver; printed are the median seconds, and the medians of tabrl's time divided by that
of the other in the same turn. Turns are many where they are short.
"""

import sys
import time

import numpy as np
from dp_models import by_name
from dp_peers import PEERS

NAMES = ("garnet-large", "garnet-small", "dense", "forest")
SOLVERS = ("auto", "quantecon-mpi", "quantecon-mpi5")
SECONDS = 15.0  # for each model


def main() -> None:
    """Print a row for each model."""
    for name in sys.argv[1:] or NAMES:
        mdp = by_name(name)
        solves = [PEERS[solver].prepare(mdp, 1e-6) for solver in SOLVERS]
        for solve in solves:
            solve()
        turns, begin = [], time.perf_counter()
        while time.perf_counter() - begin < SECONDS or len(turns) < 5:
            turn = [time.perf_counter()]
            for solve in solves:
                solve()
                turn.append(time.perf_counter())
            turns.append(np.diff(turn))
        seconds = np.array(turns)
        ratios = np.median(seconds[:, :1] / seconds[:, 1:], axis=0)
        took = ", ".join(f"{x} {s:.3g} s" for x, s in zip(SOLVERS, np.median(seconds, axis=0), strict=True))
        print(f"{name}: {len(turns)} turns; {took}; ratios {ratios[0]:.3f}, {ratios[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
