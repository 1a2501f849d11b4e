"""Off-policy Monte Carlo: the value of one policy from episodes of another.

pi (S,A) target policy; rho ratio of an action's probabilities; W (T,) product of the ratios from t on; G returns.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from tabrl import checks
from tabrl.errors import ShapeError
from tabrl.replay import start
from tabrl.returns import discounted_sum
from tabrl.types import Episode, F, ValueUpdate
from tabrl.weights import per_decision_returns, ratios, remaining_products

KINDS = ("ordinary", "per_decision", "weighted")


def off_policy_monte_carlo(
    experience: Iterable[Episode], *, pi: F, V: F, kind: str = "weighted", every: int = 1
) -> Iterator[ValueUpdate]:
    """Every-visit Monte Carlo prediction of pi from episodes of another policy.

        ordinary      V(s) = average over visits of W[t] G[t]
        per_decision  V(s) = average of G[t] = rho[t] (r[t] + discount[t] G[t+1])
        weighted      V(s) = sum of W[t] G[t] / sum of W[t]

    pi: (S,A) target; each episode's logp is that of the policy that acted, which must be able to take every
    action that pi takes. Ordinary and per-decision averages of first visits are unbiased and may have
    infinite variance (see `importance`); weighted ones are biased and bounded. An episode cut by a time limit
    ends in the value of the state it was cut in. A state keeps its V until its first visit with positive
    weight. One record per `every` episodes.
    Source: Sutton & Barto (2018), sections 5.5, 5.6 and 5.9; Precup, Sutton & Singh (2000). Ledger E1.14.

    >>> one = Episode(np.array([0, 1]), np.array([1]), np.array([4.0]), np.array([0.0]), np.log([0.25]))
    >>> target = np.array([[0.5, 0.5], [1.0, 0.0]])
    >>> [next(off_policy_monte_carlo([one], pi=target, V=np.zeros(2), kind=k)).V[0].item() for k in KINDS]
    [8.0, 8.0, 4.0]
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; one of {', '.join(KINDS)} is expected")
    V, _ = start(V, 1.0, every)
    pi = checks.policy(pi, *np.shape(pi))
    if len(pi) != len(V):
        raise ShapeError(f"pi has {len(pi)} rows; {len(V)}, the length of V, is expected")
    total, t, k, delta = np.zeros(len(V)), 0, 0, 0.0
    for k, x in enumerate(experience, 1):
        for s, target, weight in zip(x.s, *targets(x, pi, float(V[x.s[-1]]), kind), strict=False):
            total[s] += weight
            if total[s] > 0:
                delta = target - V[s]
                V[s] += weight / total[s] * delta
        t += len(x.r)
        if k % every == 0:
            yield ValueUpdate(t, V.copy(), float(delta))
    if k % every:
        yield ValueUpdate(t, V.copy(), float(delta))


def targets(x: Episode, pi: F, tail: float, kind: str) -> tuple[F, F]:
    """What each visit of an episode moves its state towards, and with which weight: both (T,)."""
    with np.errstate(divide="ignore"):
        rho = ratios(np.log(pi[x.s[:-1], x.a]), x.logp)
    if kind == "per_decision":
        return per_decision_returns(x.r, x.discount, rho, tail), np.ones(len(rho))
    W, G = remaining_products(rho), discounted_sum(x.r, x.discount, tail)
    return (W * G, np.ones(len(W))) if kind == "ordinary" else (G, W)
