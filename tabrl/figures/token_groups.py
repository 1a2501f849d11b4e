"""What a group of answers does to the gradient, and which groups are kept: exact curves with samples beside them.

p chance that an answer is right; G answers in a group; w(p) how much a prompt weighs in the mean update; a(p) chance
that a group holds right and wrong answers. P points of the curves, M points with n samples each.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tabrl.advantages import group_advantages
from tabrl.control.acting import Rng
from tabrl.envs import token_tasks
from tabrl.figures.token_runs import Runs, begin, several
from tabrl.tokens.draws import Groups
from tabrl.tokens.rates import kept_share, w
from tabrl.tokens.table import TableLM
from tabrl.types import F

KINDS: dict[str, dict[str, Any]] = {
    "std of the sample": {"std": "sample"},
    "std of the population": {"std": "population"},
    "no std": {"std": "none"},
    "no std, leave one out": {"std": "none", "leave_one_out": True},
}


class Weights(NamedTuple):
    """The weight of a prompt over its chance of success."""

    p: F  # (P,)
    exact: F  # (4,P) for the kinds of `KINDS`
    shown: F  # (M,)
    samples: F  # (4,M,n) estimates of single groups, the same groups for all kinds
    sizes: Sequence[int]  # of groups
    by_size: F  # (len(sizes),P) with the std of the population


def weights(
    rng: Rng, *, runs: int = 4000, G: int = 8, sizes: Sequence[int] = (2, 4, 8, 32),
    shown: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98),
) -> Weights:  # fmt: skip
    """w(p) exactly, and from sampled groups of G answers of a policy with two tokens.

    The estimate of one group is (mean of A (r - p)) / (p (1 - p)): r - p is the score of the right token's logit, and
    p (1 - p) the gradient of p.
    """
    p, at = np.linspace(0.005, 0.995, 199), np.asarray(shown, np.float64)
    r = 1.0 * (rng.random((len(at), runs, G)) < at[:, None, None])
    label, found = np.repeat(np.arange(len(at) * runs), G), []
    for kind in KINDS.values():
        A = group_advantages(r.ravel(), label, eps=0.0, **kind).reshape(r.shape)
        found.append((A * (r - at[:, None, None])).mean(2) / (at * (1 - at))[:, None])
    exact = np.array([w(p, G, **kind) for kind in KINDS.values()])
    return Weights(p, exact, at, np.array(found), sizes, np.array([w(p, n) for n in sizes]))


class Kept(NamedTuple):
    """The share of groups that dynamic sampling keeps."""

    p: F  # (P,)
    exact: F  # (len(sizes),P) a(p)
    shown: F  # (M,)
    samples: F  # (len(sizes),M,n) 1 for a group that is kept
    sizes: Sequence[int]
    runs: Runs  # of DAPO, every update
    share: F  # (updates,) mean over runs of a(p) over the prompts, of the policy that drew
    refilled: F  # (updates,) mean over runs of the exact mean of what is used, of whole batches


def kept(
    rng: Rng, *, runs: int = 20, groups: int = 400, updates: int = 60, sizes: Sequence[int] = (2, 4, 8, 16),
    shown: Sequence[float] = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98),
) -> Kept:  # fmt: skip
    """a(p), sampled by drawing groups from a policy; and what DAPO keeps while it learns sums."""
    p, at = np.linspace(0.0, 1.0, 201), np.asarray(shown, np.float64)
    samples = [[mixed_groups(x, G, groups, rng) for x in at] for G in sizes]
    found = several(partial(begin, "sum", "dapo", every=1), rng, runs=runs, records=updates)
    a = kept_share(found.p[:-1], 16)
    refilled = np.array([[refill(x, 8) for x in row] for row in a])
    exact = np.array([kept_share(p, G) for G in sizes])
    return Kept(p, exact, at, np.array(samples), sizes, found, a.mean(axis=(1, 2)), refilled.mean(axis=1))


def mixed_groups(p: float, G: int, n: int, rng: Rng) -> F:
    """Draw n groups of answers that are right with chance p: 1 (n,) where they are not all alike."""
    task = token_tasks.make("bandit", rewards=(1.0, 0.0))
    drawn = Groups(G, n)(TableLM(task, [np.log(p), np.log1p(-p)]), rng)
    r = drawn.x.reward.reshape(n, G)
    found: F = 1.0 * (r != r[:, :1]).any(axis=1)
    return found


def refill(a: F, limit: int) -> float:
    """Mean share of groups that are used, when whole batches of a group for each prompt are drawn until one is full.

        E[min(K, kept) / drawn],   the groups beyond a full batch are dropped

    a: (K,) chances to be kept. At most a; less where a second batch is drawn for a few groups.

    >>> refill(np.ones(3), 8), refill(np.array([0.5]), 2)  # 1/2 in the first round, then 1/2 of 1/2
    (1.0, 0.625)
    """
    K = len(a)
    one = np.ones(1)  # chances of 0, 1, … kept groups in a batch
    for x in a:
        one = np.convolve(one, [1 - x, x])
    have, used = np.eye(1, K + 1)[0], 0.0
    for r in range(1, limit + 1):
        more = np.convolve(have, one)
        full, have = more[K:].sum(), np.append(more[:K], 0.0)
        used += full / r
    return float(used + have @ np.arange(K + 1) / (K * limit))
