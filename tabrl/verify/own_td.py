"""TD(0) against fractions: row E1.7 of the ledger.

V (S,) values; s (T+1,), r, discount (T,) an episode; alpha step size; d (S,) where updates happen; delta TD error.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from tabrl import operators, prediction, rational, returns, td_limits, td_moments
from tabrl.envs.chains import two_state
from tabrl.trace import last
from tabrl.types import F
from tabrl.verify import enumeration, literal, mistakes, models, recorded
from tabrl.verify.literal import ZERO
from tabrl.verify.record import Check, Comparison, agree, distance, within


def td() -> list[Check]:
    """E1.7: TD(0) on recorded episodes, its moments, its limits, batch TD, the mean of its error."""
    return [
        agree("E1.7", "V of td0 on recorded episodes, against a loop in fractions", td0_replays()),
        *early(),
        *late(),
        *batch(),
        *mean_error(),
    ]


def td0_replays() -> list[Comparison]:
    """A constant step size, and 1/k for a state's k-th update."""
    constant = recorded.replays(prediction.td0, literal.td0)
    shrinking = []
    for x in recorded.batches():
        V, count = rational.exact(x.V), [0] * x.x.mdp.S
        for y in (y for trace in x.traces for y in literal.steps(trace)):
            count[y.s[0]] += 1
            V = literal.td0(y, V, Fraction(1, count[y.s[0]]))
        found = last(prediction.td0(x.episodes, alpha=prediction.harmonic, V=x.V)).V
        shrinking.append(Comparison(f"{x.x.name}, alpha 1/k", found, V))
    return [*constant, *shrinking]


def pairs(where: str, found: Any, exact: enumeration.Moments) -> tuple[Comparison, Comparison]:
    """Mean and covariance, each beside the exact one."""
    return Comparison(where, found.mean, exact.mean), Comparison(where, found.covariance, exact.covariance)


def early() -> list[Check]:
    """Moments of V after a few updates, with start values and rewards that count, on models with and without an end."""
    alone, along = [], []
    for x, V in small():
        d = np.arange(1.0, x.mdp.S + 1) / np.arange(1.0, x.mdp.S + 1).sum()
        found = last(td_moments.independent_moments(x.mdp, x.pi, alpha=0.375, d=d, steps=2, V=V))
        alone.append(pairs(x.name, found, enumeration.td_moments(x.mdp, x.pi, 0.375, V, 2, d)))
        found = last(td_moments.trajectory_moments(x.mdp, x.pi, alpha=0.375, steps=3, V=V))
        along.append(pairs(x.name, found, enumeration.td_moments(x.mdp, x.pi, 0.375, V, 3)))
    return [
        *both("E1.7", "of V after 2 independent updates, all outcomes listed", alone),
        *both("E1.7", "of V after 3 updates along a trajectory, all outcomes listed", along),
    ]


def small() -> Iterator[tuple[models.Instance, F]]:
    """Models with few outcomes, and values to start from."""
    for x in (models.instance("two states", models.two_states(0.9)), *models.harder()):
        yield x, x.V + np.where(x.mdp.terminal, 0.0, 1.0)


def late() -> list[Check]:
    """Limits of the moments: V_pi for independent draws, off by order alpha along a trajectory."""
    x = models.instance("two states", models.two_states(0.9))
    alone, along, first, unbiased = [], [], [], []
    d = np.array([0.25, 0.75])
    for name, mdp, pi in (("the two_state chain", two_state(), np.ones((2, 1))), (x.name, x.mdp, x.pi)):
        where = f"{name}, alpha 0.4"
        found = td_limits.trajectory_limit(mdp, pi, alpha=0.4)
        along.append(pairs(where, found, enumeration.td_limit(mdp, pi, 0.4)))
        first.append(Comparison(where, found.mean[0], along[-1][0].expected[0]))
        found = td_limits.independent_limit(mdp, pi, alpha=0.4, d=d)
        alone.append(pairs(where, found, enumeration.td_limit(mdp, pi, 0.4, d)))
        unbiased.append(Comparison(where, found.mean, rational.exact_policy_values(mdp, pi)))
    return [
        agree("E1.7", "mean of V in the end, independent updates, against V_pi in fractions", unbiased),
        *both("E1.7", "of V in the end, independent updates, in fractions", alone),
        *both("E1.7", "of V in the end, along a trajectory, in fractions", along),
        agree("E1.7", "mean of V(0) of the two_state chain in the end, where V_pi(0) is 7.568", first[:1]),
    ]


def both(row: str, what: str, cases: list[tuple[Comparison, Comparison]]) -> Iterator[Check]:
    """One check of the means and one of the covariances."""
    for k, name in enumerate(("mean", "covariance")):
        yield agree(row, f"{name} {what}", [c[k] for c in cases])


def batch() -> list[Check]:
    """Sweeps over a batch, and what they lead to: the values of the model that its counts describe."""
    replayed, solved = [], []
    for x in recorded.unique():
        seen, V = enumeration.certainty_equivalence(x.x.mdp.S, x.traces)
        triples = [(e.s, e.r, e.discount) for e in x.episodes]
        replayed.append(Comparison(x.x.name, operators.batch_td(triples, x.x.mdp.S).V[seen], V))
        solved.append(Comparison(x.x.name, prediction.lstd(x.episodes, S=x.x.mdp.S)[seen], V))
    swept = recorded.sweeps(prediction.batch_td, lambda x, V, t: x.r[t] + x.discount[t] * V[x.s[t + 1]])
    return [
        agree("E1.7", "V after 2 sweeps of batch_td, against sums in fractions", list(swept)),
        agree("E1.7", "limit of batch TD, against certainty equivalence in fractions", replayed),
        agree("E1.7", "V of lstd with lam = 0, against certainty equivalence in fractions", solved),
    ]


def mean_error() -> list[Check]:
    """E[delta|s] is T_pi V - V: zero at V_pi, and nowhere else as it bounds the distance from V_pi."""
    anywhere, there, bounds = [], [], []
    for x in models.instances():
        V, found = rational.exact(x.V), expected_error(x, x.V)
        exact = [a - b for a, b in zip(mistakes.backup(x.tables, x.pi, V), V, strict=True)]
        anywhere.append(Comparison(x.name, found, exact))
        V_pi = mistakes.floats(x.V_pi)
        there.append(Comparison(x.name, expected_error(x, V_pi) / max(1.0, abs(V_pi).max()), [ZERO] * x.mdp.S))
        if x.mdp.gamma < 1:
            bounds.append((x.name, distance(x.V, x.V_pi), float(abs(found).max()) * (1 + 1e-9) / (1 - x.mdp.gamma)))
    return [
        agree("E1.7", "E[delta|s] at any V, against T_pi V - V in fractions", anywhere),
        agree("E1.7", "E[delta|s] / max|V_pi| at V_pi, against 0", there),
        within("E1.7", "distance of any V from V_pi, within max|E[delta|s]| / (1 - gamma)", bounds),
    ]


def expected_error(x: models.Instance, V: F) -> F:
    """Average of the TD errors of all outcomes of each state."""
    mean = np.zeros(x.mdp.S)
    for o in enumeration.outcomes(x.mdp, x.pi):
        discount = 0.0 if x.mdp.terminal[o.s_next] else x.mdp.gamma
        step = np.array([float(o.r)]), np.array([discount]), V[[o.s, o.s_next]]
        mean[o.s] += float(o.p) * returns.td_errors(*step)[0]
    return mean
