"""Closed forms for answers that are right or wrong: what a group does to the gradient, what is kept, what passes.

p the chance that an answer is right, an array of any shape; G answers in a group, K of them right; q weights of the
prompts; n answers of which c are right, k answers that may be tried.
"""

import math
from typing import Any

import numpy as np

from tabrl._xp import at_least, one_of
from tabrl.advantages import STDS
from tabrl.errors import ModelError
from tabrl.types import F


def w(p: Any, G: int, *, std: str = "population", eps: float = 0.0, leave_one_out: bool = False) -> F:
    """How much a prompt weighs in the mean update of a group estimator: E[update] = w times the gradient of p.

        w = (G - 1)/G E[1 / (s_K + eps)],   K - 1 ~ Binomial(G - 2, p),   s_K the std of a group with K right

    which is E[sqrt(K (G - K))] / (G p (1 - p)) with K ~ Binomial(G, p) for the population's std and eps=0, and
    sqrt((G - 1)/G) times that for the sample's; std="none" gives (G - 1)/G and leave_one_out takes that factor away.
    Holds where every sequence has the same weight (how="constant", or answers of one length) and rewards are 0 and 1.
    At p = 0 and 1 it is the limit. For G = 2 and 3 it does not depend on p: with so few there is one mixed group.
    p: any shape. Returns the shape of p. Raises ModelError, ValueError.
    Source: derived here; for the population's std Mroueh (2025), Reinforcement learning with verifiable rewards, as
    G grows 1/sqrt(p (1 - p)). Ledger E2.3.

    >>> w([0.0, 0.5, 1.0], 3).round(12), w([0.0, 0.5, 1.0], 10).round(6)
    (array([1.41421356, 1.41421356, 1.41421356]), array([3.      , 1.889605, 3.      ]))
    """
    one_of(STDS, std=std)
    at_least(0, eps=eps)
    whole(2, G=G)
    K = np.arange(1, G)
    s = np.ones(G - 1) if std == "none" else np.sqrt(K * (G - K) / (G * (G - 1) if std == "sample" else G * G)) + eps
    weight: F = binomial(G - 2, p) @ (1 / s) * (1.0 if leave_one_out else (G - 1) / G)
    return weight


def binomial(n: int, p: Any) -> F:
    """Chances of 0 to n right answers among n, along a new last axis. p: any shape. Raises ModelError, ValueError.

    >>> binomial(2, 0.5)
    array([0.25, 0.5 , 0.25])
    """
    whole(0, n=n)
    p = chance(p)[..., None]
    K = np.arange(n + 1)
    log_factorial = np.array([math.lgamma(j + 1) for j in range(n + 1)])
    ways = log_factorial[n] - log_factorial - log_factorial[::-1]
    right = np.where(K > 0, K * np.log(np.where(p > 0, p, 1.0)) - 1e6 * (p <= 0), 0.0)  # exp(-1e6) is 0
    wrong = np.where(n > K, (n - K) * np.log1p(-np.where(p < 1, p, 0.0)) - 1e6 * (p >= 1), 0.0)
    weight: F = np.exp(ways + right + wrong)
    return weight


def kept_share(p: Any, G: int) -> F:
    """Chance that a group holds right and wrong answers, so that dynamic sampling keeps it.

        a(p) = 1 - p^G - (1 - p)^G

    p: any shape; correct to rounding near 0 and 1 too, where it is about G p and G (1 - p). Raises ModelError,
    ValueError. Source: Yu et al. (2025), DAPO, eq. 11; ledger E2.8.

    >>> kept_share([0.0, 0.5, 1e-20], 4)
    array([0.00e+00, 8.75e-01, 4.00e-20])
    """
    whole(2, G=G)
    p = chance(p)
    rare = np.minimum(p, 1 - p)
    return np.asarray(-np.expm1(G * np.log1p(-rare)) - rare**G)


def oversampling(p: Any, q: Any, G: int) -> float:
    """Groups that dynamic sampling draws for each one that it keeps, in the mean.

        1 / sum over prompts of q a(p)

    p, q: (K,). inf where nothing is ever kept. The mean update of the kept groups is that of all groups times this
    number, its direction unchanged: groups that are dropped have no advantage, so a prompt comes a(p) times as often
    and adds 1/a(p) times as much. That holds at ratio 1, without KL, for prompts drawn independently, without a limit
    of refills, and unless how="token" shares one denominator among groups: `groups.expected_gradient` does that sum.
    Raises ModelError, ValueError. Source: derived here; ledger E2.8.

    >>> round(oversampling([0.5, 0.0], [0.5, 0.5], 4), 6)
    2.285714
    """
    q = chance(q, "q")
    if q.shape != np.shape(p) or abs(q.sum() - 1) > 1e-9:
        raise ModelError(f"q has shape {q.shape} and sum {q.sum():.12g}; a distribution over the prompts is expected")
    share = float((q * kept_share(p, G)).sum())
    return 1 / share if share > 0 else math.inf


def pass_at_k(p: Any, k: int) -> F:
    """Chance that at least one of k answers is right.

        1 - (1 - p)^k

    p: any shape; correct to rounding for the smallest p. k=1 gives p. Raises ModelError, ValueError.
    Source: Chen et al. (2021), Evaluating large language models trained on code, section 2.1.

    >>> pass_at_k([0.5, 1e-20, 1.0], 3)
    array([8.75e-01, 3.00e-20, 1.00e+00])
    """
    whole(1, k=k)
    p = chance(p)
    return np.where(p < 1, -np.expm1(k * np.log1p(-np.where(p < 1, p, 0.0))), 1.0)


def pass_at_k_estimate(n: int, c: Any, k: int) -> F:
    """The estimate of pass@k from n >= k answers of which c are right: the share of the subsets of k that hold one.

        1 - C(n - c, k) / C(n, k)

    Its mean over c ~ Binomial(n, p) is `pass_at_k` exactly, for every p; that of 1 - (1 - c/n)^k is smaller. c: whole
    numbers of any shape. Raises ValueError. Source: Chen et al. (2021), eq. 1.

    >>> pass_at_k_estimate(4, [0, 1, 3], 2)
    array([0. , 0.5, 1. ])
    >>> (binomial(4, 0.5) @ pass_at_k_estimate(4, np.arange(5), 2)).round(12), pass_at_k(0.5, 2)
    (np.float64(0.75), array(0.75))
    """
    whole(1, k=k)
    whole(k, n=n)
    c = np.asarray(c)
    if c.dtype.kind not in "iu" or not ((c >= 0) & (c <= n)).all():
        raise ValueError(f"c is {c!r}; whole numbers in 0 … {n} are expected")
    subsets = math.comb(n, k)
    share: F = np.array([(subsets - math.comb(n - j, k)) / subsets for j in range(n + 1)])[c]
    return share


def chance(p: Any, name: str = "p") -> F:
    """Require probabilities, an array of any shape."""
    x = np.asarray(p, np.float64)
    if not ((x >= 0) & (x <= 1)).all():
        raise ModelError(f"{name} is {p!r}; probabilities in [0, 1] are expected")
    return x


def whole(least: int, **numbers: int) -> None:
    """Require whole numbers no smaller than `least`."""
    for name, x in numbers.items():
        if x != int(x) or x < least:
            raise ValueError(f"{name} is {x!r}; a whole number >= {least} is expected")
