"""Compare every certified bound with the error in exact rational arithmetic, on 2,000 random models.

    python benchmarks/certified.py [models] [first seed]

Draws the models of tests/test_certified.py (S <= 8, dense and sparse, half with terminal states, gamma from .5 to
.999 and .9999 in 2 % of them), solves each with every method and lists every claim that is not true.
"""

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

TESTS = str(Path(__file__).parents[1] / "tests")


def judge(seed: int) -> tuple[list[str], tuple[bool, bool, bool]]:
    """Violations of one model, and whether it is sparse, has terminal states, has gamma .9999."""
    sys.path.insert(0, TESTS)
    from test_certified import draw, violations

    mdp = draw(np.random.default_rng([1, seed]))
    kind = (mdp.is_sparse, bool(mdp.terminal.any()), mdp.gamma == 0.9999)
    return [f"model {seed}: {v}" for v in violations(mdp)], kind


def main() -> int:
    """Run the campaign and return the number of models with a violation."""
    n, first = (int(x) for x in (*sys.argv[1:], *("2000", "0")[len(sys.argv) - 1 :]))
    start = time.perf_counter()
    found = Parallel(n_jobs=-1, batch_size=20)(delayed(judge)(seed) for seed in range(first, first + n))
    kinds = Counter(
        name for _, kind in found for name, has in zip(("sparse", "terminal", ".9999"), kind, strict=True) if has
    )
    for wrong, _ in found:
        print(*wrong, sep="\n", end="\n" if wrong else "")
    bad = sum(bool(wrong) for wrong, _ in found)
    print(f"{n} models ({dict(kinds)}), {bad} with a violation, {time.perf_counter() - start:.0f} s")
    return bad


if __name__ == "__main__":
    sys.exit(bool(main()))
