"""The package against the closed forms, one function per row of the ledger.

p probability of going round the loop; a, b rewards of the loop and of its end; G the return; V (S,) values.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, islice
from typing import Any, NamedTuple

import numpy as np

from tabrl import bellman, chain, dp, rational
from tabrl.mdp import MDP
from tabrl.rational import Row
from tabrl.returns import discounted_sum
from tabrl.trace import last
from tabrl.types import F, Solution
from tabrl.verify import cases, mistakes, models
from tabrl.verify.record import Check, Comparison, agree, distance, largest, within


def returns() -> list[Check]:
    """E1.1: discounted sums by hand; moments of the return on the loop chain and by enumeration."""
    episodes = [Comparison(c.name, discounted_sum(*c.arguments), c.expected) for c in cases.return_cases()]
    tree = enumerated()
    means = [Comparison(x.name, chain.return_moments(x.mdp, x.pi, 1)[0], x.V_pi) for x in models.instances()]
    return [
        agree("E1.1", "returns of recorded episodes, against hand sums", episodes),
        agree("E1.1", "E[G], against V_pi in fractions", means),
        *(
            agree("E1.1", f"{what} of G on the loop chain, geometric series", loops(k))
            for k, what in enumerate(MOMENTS)
        ),
        *(agree("E1.1", f"{what} of G, all trajectories enumerated", [tree[k]]) for k, what in enumerate(MOMENTS)),
        agree("E1.1", "E[G^k] for k = 1, 2, 3, all trajectories enumerated", [tree[-1]]),
    ]


MOMENTS = ("mean", "variance", "skewness")


def moments(mdp: MDP, pi: F, s: int) -> tuple[float, float, float]:
    """Mean, variance and skewness of the return from s, as the package computes them."""
    found = chain.return_moments(mdp, pi, 1)[0], chain.return_variance(mdp, pi), chain.return_skewness(mdp, pi)
    return float(found[0][s]), float(found[1][s]), float(found[2][s])


def loops(k: int) -> list[Comparison]:
    """Moment k of the return of a loop that is left with probability 1 - p, for several p and gamma."""
    found = []
    for p, gamma in ((0.5, 0.9), (0.75, 0.99), (0.9, 0.5), (0.9, 1.0)):
        mdp = MDP([[[p, 1 - p]], [[0, 0]]], [[[1.0, -2.0]], [[0, 0]]], gamma, terminal=np.array([False, True]))
        where = f"p = {p}, gamma = {gamma}"
        found.append(Comparison(where, moments(mdp, np.ones((2, 1)), 0)[k], loop_moments(p, gamma)[k]))
    return found


def loop_moments(p: float, gamma: float, a: int = 1, b: int = -2) -> tuple[Any, Any, Any]:
    """Mean, variance and skewness of G = a (1 + gamma + … + gamma^(N-1)) + b gamma^N, N geometric.

    With Z = gamma^N: G = a/(1-gamma) + (b - a/(1-gamma)) Z and E[Z^k] = (1-p)/(1 - p gamma^k). At gamma = 1
    G = a N + b, where N has mean p/(1-p), variance p/(1-p)^2 and skewness (1+p)/sqrt(p).
    """
    q, g = Fraction(p), Fraction(gamma)
    if g == 1:
        return a * q / (1 - q) + b, a**2 * q / (1 - q) ** 2, math.copysign((1 + p) / math.sqrt(p), a)
    m1, m2, m3 = ((1 - q) / (1 - q * g**k) for k in (1, 2, 3))
    scale = b - a / (1 - g)
    variance = scale**2 * (m2 - m1**2)
    third = scale**3 * (m3 - 3 * m1 * m2 + 2 * m1**3)
    return a / (1 - g) + scale * m1, variance, float(third) / float(variance) ** 1.5


def enumerated() -> list[Comparison]:
    """Mean, variance, skewness and raw moments on a model without cycles, from the list of all trajectories."""
    rng = np.random.default_rng(11)
    P, R = np.triu(np.ones((5, 5)), 1)[:, None, :] * rng.random((5, 2, 5)), rng.normal(size=(5, 2, 5))
    P[:-1] /= P[:-1].sum(2, keepdims=True)
    mdp = MDP(P, np.where(np.arange(5)[:, None, None] < 4, R, 0.0), 0.9, terminal=np.arange(5) == 4)
    pi = rng.dirichlet(np.ones(2), 5)
    law = rational.return_distribution(mdp, pi, 0)
    mean = sum(g * p for g, p in law.items())
    second, third = (sum((g - mean) ** k * p for g, p in law.items()) for k in (2, 3))
    exact = (mean, second, float(third) / float(second) ** 1.5)
    where = f"{len(law)} returns"
    raw = [sum(g**k * p for g, p in law.items()) for k in (1, 2, 3)]
    return [
        *(Comparison(where, v, x) for v, x in zip(moments(mdp, pi, 0), exact, strict=True)),
        Comparison(where, chain.return_moments(mdp, pi, 3)[:, 0], raw),
    ]


def evaluation() -> list[Check]:
    """E1.2: V_pi and Q_pi against fractions; iterative evaluation within its bound."""
    V, Q, bounds = [], [], []
    for x in models.instances():
        found = chain.evaluate(chain.induce(x.mdp, x.pi))
        sweep = last(dp.policy_evaluation(x.mdp, x.pi, tol=1e-9))
        V.append(Comparison(x.name, found, x.V_pi))
        Q.append(Comparison(x.name, bellman.q_from_v(x.mdp, found), rational.action_values(x.tables, x.V_pi)))
        bounds.append((x.name, distance(sweep.V, x.V_pi), sweep.bound))
    return [
        agree("E1.2", "V_pi, against (I - gamma P)^-1 r in fractions", V),
        agree("E1.2", "Q_pi, against r + gamma P V in fractions", Q),
        within("E1.2", "error of iterative policy evaluation, within its bound", bounds),
    ]


def bellman_equation() -> list[Check]:
    """E1.3: T_pi V, the residual of V_pi, occupancy, and J in its two forms."""
    backups, residuals, visits, J, bounds = [], [], [], [], []
    for x in models.instances():
        policy_chain = chain.induce(x.mdp, x.pi)
        V = chain.evaluate(policy_chain)
        d = rational.occupancy(x.mdp, x.pi)
        scale = max(1.0, float(largest(x.V_pi)))
        again = bellman.expectation(x.mdp, x.pi, V)
        exact = mistakes.backup(x.tables, x.pi, rational.exact(x.V))
        backups.append(Comparison(x.name, bellman.expectation(x.mdp, x.pi, x.V), exact))
        residuals.append(Comparison(x.name, abs(again - V).max() / scale, Fraction()))
        visits.append(Comparison(x.name, chain.occupancy(policy_chain, x.mdp.mu), d))
        total = rational.dot(d, rational.induced(x.tables, x.pi)[1])
        J.append(Comparison(x.name, chain.objective(policy_chain, x.mdp.mu), total))
        bounds.append((x.name, distance(x.V, x.V_pi), bellman.policy_bound(x.mdp, x.pi, x.V, weight(x, policy_chain))))
    return [
        agree("E1.3", "T_pi V of any V, against fractions", backups),
        agree("E1.3", "residual max|T_pi V_pi - V_pi| / max|V_pi|", residuals),
        agree("E1.3", "occupancy d, against mu' (I - gamma P)^-1 in fractions", visits),
        agree("E1.3", "J = mu . V_pi, against d . r_pi in fractions", J),
        within("E1.3", "error of any V, within policy_bound", bounds),
    ]


def weight(x: models.Instance, policy_chain: chain.Chain) -> F | None:
    """Weight that certifies at gamma = 1; none is needed below."""
    return chain.evaluate_with_weight(policy_chain)[1] if x.mdp.gamma == 1 else None


def optimal_policy() -> list[Check]:
    """E1.4: V*, the policy and its loss against all deterministic policies."""
    solved = [(x, dp.solve(x.mdp)) for x in (*models.instances(), *models.harder())]
    values = [Comparison(x.name, s.V, x.V_star) for x, s in solved]
    losses = [(x.name, loss(x, s.pi), s.policy_loss_bound) for x, s in solved]
    zero = [Comparison(name, float(y), Fraction()) for name, y, _ in losses]
    rough = [(x, V, greedy_loss(x, V)) for x, V in (*early_sweeps(), models.misled())]
    bounded = [(x.name, y, bellman.loss_bound(x.mdp, V)) for x, V, y in rough]
    textbook = [(x.name, y, textbook_bound(x, V)) for x, V, y in rough]
    return [
        agree("E1.4", "V* of solve, against brute force in fractions", values),
        agree("E1.4", "exact loss max(V* - V_pi) of the policy of solve", zero),
        within("E1.4", "exact loss of the policy, within policy_loss_bound", losses),
        within("E1.4", "exact loss of early greedy policies, within loss_bound", bounded),
        within("E1.4", "the same, within 2 gamma bound / (1 - gamma)", textbook),
    ]


def loss(x: models.Instance, pi: F) -> Fraction:
    """Exact max (V* - V_pi)."""
    return max(a - b for a, b in zip(x.V_star, rational.policy_values(x.tables, pi), strict=True))


def early_sweeps() -> Iterator[tuple[models.Instance, F]]:
    """Values that value iteration passes on its way, below gamma = 1."""
    for x in models.instances():
        if x.mdp.gamma < 1:
            yield from ((x, sweep.V) for sweep in islice(dp.value_iteration(x.mdp, V=x.V), 4))


def greedy_loss(x: models.Instance, V: F) -> Fraction:
    """Exact loss of the policy that is greedy for V."""
    return loss(x, bellman.greedy(bellman.q_from_v(x.mdp, V), x.mdp.legal))


def textbook_bound(x: models.Instance, V: F) -> float:
    """2 gamma max|V - V*| / (1 - gamma), with the certified bound for max|V - V*|."""
    return 2 * x.mdp.gamma * bellman.certified_bound(x.mdp, V) / (1 - x.mdp.gamma)


class Answer(NamedTuple):
    """What one method says about one model."""

    x: models.Instance
    method: str
    solution: Solution


def optimality() -> list[Check]:
    """E1.5: every method against brute force, its bound, agreement, contraction, finite horizons."""
    answers = [
        Answer(x, m, dp.solve(x.mdp, m, tol=1e-9)) for x in (*models.instances(), *models.harder()) for m in dp.METHODS
    ]
    return [
        *(check for method in dp.METHODS for check in judged(method, [y for y in answers if y.method == method])),
        within("E1.5", "two methods differ by no more than the sum of their bounds", list(disagreements(answers))),
        contraction(),
        *finite_horizon(),
    ]


def judged(method: str, answers: list[Answer]) -> list[Check]:
    """V of one method against brute force, and the certified bound against the exact error."""
    V = [Comparison(y.x.name, y.solution.V, y.x.V_star) for y in answers]
    errors = [(y.x.name, distance(y.solution.V, y.x.V_star), y.solution.bound) for y in answers]
    name = method.replace("_", " ")
    return [
        agree("E1.5", f"V* by {name}, against brute force in fractions", V, relative=1e-9),
        within("E1.5", f"error of {name}, within its certified bound", errors),
    ]


def disagreements(answers: list[Answer]) -> Iterator[tuple[str, Fraction, float]]:
    """Exact distances between the answers of two methods, with the sums of their bounds."""
    for y, z in combinations(answers, 2):
        if y.x is z.x:
            gap = distance(y.solution.V, rational.exact(z.solution.V))
            yield f"{y.x.name}: {y.method}, {z.method}", gap, y.solution.bound + z.solution.bound


def contraction() -> Check:
    """Error after one sweep of T over the error before, while that is too large (1e-6) for rounding to matter."""
    found = []
    for x, V in early_sweeps():
        before, after = distance(V, x.V_star), distance(bellman.optimality(x.mdp, V), x.V_star)
        if before > 1e-6:
            found.append((x.name, after / before, x.mdp.gamma * (1 + 1e-9)))
    return within("E1.5", "error after a sweep over the error before, at most gamma", found)


def finite_horizon() -> list[Check]:
    """Backward induction against the same recursion in fractions."""
    values, bounds = [], []
    for x in models.instances():
        V: Row = [Fraction()] * x.mdp.S
        for stage in dp.backward_induction(x.mdp, 5):
            V = mistakes.best_backup(x.tables, V)
            values.append(Comparison(f"{x.name}, {stage.k} to go", stage.V, V))
            bounds.append((values[-1].where, distance(stage.V, V), stage.bound))
    return [
        agree("E1.5", "V of backward induction, against fractions", values),
        within("E1.5", "error of backward induction, within its bound", bounds),
    ]
