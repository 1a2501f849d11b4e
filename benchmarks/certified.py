"""Compare every certified bound with the error in exact rational arithmetic, on 2,000 random models of each kind.

    python benchmarks/certified.py [--dense | --sparse] [models] [first seed]

Draws the models of tests/test_certified.py, solves each with every method and lists every claim that is not true.
The first kind (--dense: it alone): S <= 8, stored dense or sparse, half with terminal states, gamma from .5 to .999 and
.9999 in 2 % of them. The second (--sparse): S <= 12 and sometimes 40, at most four next states, self-loops, blocks that
are hardly ever left, gamma 0 to .9999 or 1, tolerances 1e-2 to 1e-13, methods stopped after 500 iterations; "auto" goes
the way of large models, and once more with the states in another order.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed

TESTS = str(Path(__file__).parents[1] / "tests")
STATUSES = ("certified", "rounding floor", "iteration limit", "not certifiable")


class Verdict(NamedTuple):
    """What was found on one model."""

    kinds: list[str]
    status: dict[str, str]  # of each method
    wrong: list[str]


def judge(seed: int) -> Verdict:
    """Every claim about a model of the first kind."""
    sys.path.insert(0, TESTS)
    from test_certified import draw, solutions, untrue

    mdp = draw(np.random.default_rng([1, seed]))
    found = solutions(mdp)
    return verdict(mdp, seed, found, untrue(mdp, found, 1e-8))


def judge_sparse(seed: int) -> Verdict:
    """Every claim about a model of the second kind."""
    sys.path.insert(0, TESTS)
    from test_certified import TOLERANCES, draw_sparse, sparse_solutions, untrue

    rng = np.random.default_rng([7, seed])
    mdp, tol = draw_sparse(rng), float(rng.choice(TOLERANCES))
    found = sparse_solutions(mdp, tol, rng.permutation(mdp.S))
    return verdict(mdp, seed, found, untrue(mdp, found, tol))


def verdict(mdp: Any, seed: int, found: dict[str, Any], wrong: list[str]) -> Verdict:
    """Name the kinds that a model belongs to, and how each method ended on it."""
    leave = mdp.csr.data[(mdp.csr.data > 0) & (mdp.csr.data <= 1e-3)]
    kinds = {
        "sparse": mdp.is_sparse,
        "terminal states": mdp.terminal.any(),
        "masked actions": not mdp.legal.all(),
        "hardly ever left": len(leave) > 0,
        "more than 12 states": mdp.S > 12,
        "gamma = .9999": mdp.gamma == 0.9999,
        "gamma = 1": mdp.gamma == 1.0,
    }
    status = {method: x.status for method, x in found.items()}
    return Verdict(["all", *(k for k, is_so in kinds.items() if is_so)], status, [f"model {seed}: {w}" for w in wrong])


def campaign(judged: Any, n: int, first: int) -> int:
    """Judge n models, print what was found, and return the number of models with a violation."""
    start = time.perf_counter()
    found: list[Verdict] = Parallel(n_jobs=-1, batch_size=10)(delayed(judged)(seed) for seed in range(first, first + n))
    for x in found:
        print(*x.wrong, sep="\n", end="\n" if x.wrong else "")
    print(f"\n{'kind of model':30}{'models':>10}{'violated':>10}")
    kinds, bad = Counter(k for x in found for k in x.kinds), Counter(k for x in found if x.wrong for k in x.kinds)
    for kind, count in kinds.items():
        print(f"{kind:30}{count:10}{bad[kind]:10}")
    print(f"\n{'method':30}{'answers':>10}{'violated':>10}" + "".join(f"{status:>16}" for status in STATUSES))
    ends = Counter((method, status) for x in found for method, status in x.status.items())
    against = Counter(method for x in found for method in x.status if any(f": {method}:" in w for w in x.wrong))
    for method in dict.fromkeys(method for x in found for method in x.status):
        counts = [ends[method, status] for status in STATUSES]
        print(f"{method:30}{sum(counts):10}{against[method]:10}" + "".join(f"{count:16}" for count in counts))
    print(f"\n{n} models, {bad['all']} with a violation, {time.perf_counter() - start:.0f} s")
    return bad["all"]


def main() -> int:
    """Run one campaign or both, and return the number of models with a violation."""
    parser = argparse.ArgumentParser(description="certified bounds against exact rational arithmetic")
    parser.add_argument("models", nargs="?", type=int, default=2000)
    parser.add_argument("first", nargs="?", type=int, default=0)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--dense", action="store_true", help="only the first kind")
    kind.add_argument("--sparse", action="store_true", help="only the second kind")
    given = parser.parse_args()
    chosen = [judge] * (not given.sparse) + [judge_sparse] * (not given.dense)
    return sum(campaign(judged, given.models, given.first) for judged in chosen)


if __name__ == "__main__":
    sys.exit(bool(main()))
