"""Importance sampling against fractions: row E1.14 of the ledger.

pi target, b behaviour (S,A); rho ratios of the actions taken (T,), W their product; G return, X per-decision return;
p probability that the loop goes on.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import NamedTuple

import numpy as np

from tabrl import importance, off_policy, rational, weights
from tabrl.mdp import MDP
from tabrl.rational import Row
from tabrl.trace import last
from tabrl.types import Episode, F
from tabrl.verify import enumeration, literal, models, recorded
from tabrl.verify.enumeration import expectation, tuples
from tabrl.verify.literal import ONE, ZERO
from tabrl.verify.record import Check, Comparison, agree

RATIOS = np.array([0.5, 2.0, 1.25, 0.0, 3.0, 0.75, 1.5, 0.25, 1.0, 2.5, 0.5, 1.75])  # of recorded actions


class World(NamedTuple):
    """A model, a target and a behaviour policy."""

    name: str
    mdp: MDP
    pi: F
    b: F

    def ratios(self, x: Episode) -> Row:
        """The ratio of each step, in fractions."""
        steps = list(zip(x.s[:-1], x.a, strict=True))
        return [Fraction(self.pi[s, a]) / Fraction(self.b[s, a]) for s, a in steps]


class Weighed(NamedTuple):
    """What the estimates need to know of an episode."""

    W: Fraction
    G: Fraction
    X: Fraction


def weighed(w: World, x: Episode) -> Weighed:
    """W, G and X of an episode, nothing after its end."""
    trace, rho = literal.read(x.s, x.r, x.discount), w.ratios(x)
    G = literal.monte_carlo_return(trace, [ZERO] * len(trace.s), 0)
    return Weighed(literal.product(rho), G, literal.per_decision_return(trace, rho, 0))


def downhill(S: int, gamma: float) -> World:
    """A model without cycles: from s to any later state; the last is the end."""
    rng = np.random.default_rng([14, S])
    P, R = np.triu(np.ones((S, S)), 1)[:, None, :] * rng.random((S, 2, S)), rng.normal(size=(S, 2, S))
    P[:-1] /= P[:-1].sum(2, keepdims=True)
    end = np.arange(S) == S - 1
    pi = rng.dirichlet(np.ones(2), S)
    mdp = MDP(P, np.where(end[:, None, None], 0.0, R), gamma, terminal=end, mu=np.eye(S)[0])
    return World(f"{S} states without cycles, gamma {gamma:g}", mdp, pi, 0.25 + pi / 2)


def worlds() -> Iterator[World]:
    """Models in which every episode can be listed."""
    yield downhill(4, 0.9)
    yield downhill(3, 1.0)


def covered(x: models.Instance) -> World:
    """A small model with a behaviour policy that mixes in equal weights."""
    return World(x.name, x.mdp, x.pi, (x.pi + 1 / x.mdp.A) / 2)


def sampling() -> list[Check]:
    """E1.14: ratios and returns of recorded episodes, exact moments, infinite variances, the learner's mean."""
    return [
        *functions(),
        agree("E1.14", "V of off_policy_monte_carlo, against weighed averages in fractions", list(replays())),
        *moments(),
        agree("E1.14", "moments of the first 3 steps on cyclic models, all paths listed", list(first_steps())),
        *loops(),
        *means(),
    ]


def functions() -> list[Check]:
    """The three functions of `weights` on the written-out episodes."""
    ratio, products, sums = list[Comparison](), list[Comparison](), list[Comparison]()
    for x in recorded.recordings():
        rho = RATIOS[: len(x.r)]
        exact: Row = rational.exact(rho)
        b = np.full(len(rho), 0.25)
        with np.errstate(divide="ignore"):
            ratio.append(Comparison(x.name, weights.ratios(np.log(rho * b), np.log(b)), exact))
        W = [literal.product(exact[t:]) for t in range(len(rho))]
        products.append(Comparison(x.name, weights.remaining_products(rho), W))
        G = [literal.per_decision_return(x.trace, exact, t) for t in range(len(rho))]
        sums.append(Comparison(x.name, weights.per_decision_returns(x.r, x.discount, rho), G))
    return [
        agree("E1.14", "ratios of recorded actions, from logarithms", ratio),
        agree("E1.14", "products of the ratios that remain, in fractions", products),
        agree("E1.14", "per-decision returns of recorded episodes, against sums in fractions", sums),
    ]


def replays() -> Iterator[Comparison]:
    """Every-visit averages of episodes that b recorded and that end."""
    for x in recorded.batches(None):
        w = World(x.x.name, x.x.mdp, (x.x.pi + 1 / x.x.mdp.A) / 2, x.x.pi)  # the recorded policy is the behaviour
        for kind in off_policy.KINDS:
            found = last(off_policy.off_policy_monte_carlo(x.episodes, pi=w.pi, V=x.V, kind=kind)).V
            yield Comparison(f"{w.name}, {kind}", found, averages(w, x, kind))


def averages(w: World, x: recorded.Batch, kind: str) -> Row:
    """Sum of weight times target over all visits, over the sum of the weights."""
    total, mass = [ZERO] * w.mdp.S, [ZERO] * w.mdp.S
    for episode, trace in zip(x.episodes, x.traces, strict=True):
        rho, v = w.ratios(episode), [ZERO] * len(trace.s)
        for t, s in enumerate(trace.s[:-1]):
            W, G = literal.product(rho[t:]), literal.monte_carlo_return(trace, v, t)
            target = literal.per_decision_return(trace, rho, t) if kind == "per_decision" else W * G
            total[s] += target
            mass[s] += W if kind == "weighted" else ONE
    return [y / m if m else Fraction(V) for y, m, V in zip(total, mass, x.V, strict=True)]


def moments() -> list[Check]:
    """Mean and variance of both estimates, and the leading terms of the weighted one."""
    single, whole, ratio = list[Comparison](), list[Comparison](), list[Comparison]()
    for w in worlds():
        law = [(p, weighed(w, x)) for p, x in enumeration.trajectories(w.mdp, w.b, 0)]
        V = rational.exact_policy_values(w.mdp, w.pi)[0]
        for found, estimate, exact in (
            (single, importance.per_decision(w.mdp, w.pi, w.b), [(p, y.X) for p, y in law]),
            (whole, importance.trajectory(w.mdp, w.pi, w.b), [(p, y.W * y.G) for p, y in law]),
        ):
            variance = expectation(exact, lambda z: z * z) - expectation(exact, lambda z: z) ** 2
            found.append(Comparison(w.name, [estimate.mean[0], estimate.variance[0]], [V, variance]))
        bias = -expectation(law, lambda y, V=V: (y.W - 1) * y.W * (y.G - V))  # type: ignore[misc]
        spread = expectation(law, lambda y, V=V: (y.W * (y.G - V)) ** 2)  # type: ignore[misc]
        leading = importance.weighted(w.mdp, w.pi, w.b)
        ratio.append(Comparison(w.name, [leading.bias[0], leading.variance[0]], [bias, spread]))
    return [
        agree("E1.14", "mean and variance of the per-decision estimate, all episodes listed", single),
        agree("E1.14", "mean and variance of the ordinary estimate, all episodes listed", whole),
        agree("E1.14", "leading bias and variance of the weighted estimate, all episodes listed", ratio),
    ]


def first_steps() -> Iterator[Comparison]:
    """Mean and both variances of the estimates from three steps, from each state."""
    for x in (y for y in models.instances() if y.mdp.S == 2):
        w = covered(x)
        found = last(importance.truncated(w.mdp, w.pi, w.b, 3))
        for s in range(w.mdp.S):
            law = [(p, weighed(w, y)) for p, y in enumeration.trajectories(w.mdp, w.b, s, 3)]
            mean = expectation(law, lambda y: y.X)
            square = [expectation(law, f) - mean**2 for f in (lambda y: y.X**2, lambda y: (y.W * y.G) ** 2)]
            value = [found.mean[s], found.per_decision[s], found.trajectory[s]]
            yield Comparison(f"{w.name}, s = {s}", value, [mean, *square])


def loop(p: float, gamma: float) -> World:
    """Left goes on with probability p and pays 1, or ends and pays 2; right ends; pi goes left, b either way."""
    P = [[[p, 1 - p], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    mdp = MDP(P, [[[1.0, 2.0], [0, 0]], [[0, 0], [0, 0]]], gamma, terminal=[0, 1])
    return World(f"p = {p:g}, gamma = {gamma:g}", mdp, np.array([[1.0, 0], [1, 0]]), np.full((2, 2), 0.5))


def rounds(p: Fraction, gamma: Fraction) -> Iterator[tuple[Fraction, Weighed]]:
    """Episodes of the loop: k times left and on, then left (W = 2^(k+1)) or right (W = 0, no reward) to the end."""
    chance, W, fade, G, X = ONE, ONE, ONE, ZERO, ZERO
    for _ in range(200):  # what is left out is below 1e-13 where the variances are finite
        yield chance * (1 - p) / 2, Weighed(2 * W, G + 2 * fade, X + 4 * W * fade)
        yield chance / 2, Weighed(ZERO, G, X)
        chance, W, G, X, fade = chance * p / 2, 2 * W, G + fade, X + 2 * W * fade, gamma * fade


def loops() -> list[Check]:
    """The loop of example 5.5, paid on the way: the radii, and the variances where they are finite and where not."""
    radius, finite, infinite = list[Comparison](), list[Comparison](), list[Comparison]()
    for p, gamma in ((0.375, 0.5), (0.25, 1.0), (0.5, 0.875), (0.75, 0.75), (0.875, 0.9375), (0.5, 1.0)):
        w, law = loop(p, gamma), list(rounds(Fraction(p), Fraction(gamma)))
        V = Fraction(2 - p) / Fraction(1 - gamma * p)
        exact = 2 * p * gamma**2, 2 * p
        radius.append(Comparison(w.name, list(importance.radii(w.mdp, w.pi, w.b)), exact))
        single, whole = (f(w.mdp, w.pi, w.b).variance[0] for f in (importance.per_decision, importance.trajectory))
        square = expectation(law, lambda y: y.X**2), expectation(law, lambda y: (y.W * y.G) ** 2)
        for name, variance, z, rho in zip(("per decision", "ordinary"), (single, whole), square, exact, strict=True):
            where = f"{w.name}, {name}"
            if rho < 1:
                finite.append(Comparison(where, variance, z - V**2))
            else:
                infinite.append(Comparison(where, 1 / variance, ZERO))
    return [
        agree("E1.14", "spectral radii on the loop: 2p gamma^2 per decision, 2p ordinary", radius),
        agree("E1.14", "variance on the loop where the radius is below 1, sum over all episodes", finite),
        agree("E1.14", "1 / variance on the loop where the radius is 1 or more", infinite),
    ]


def means() -> list[Check]:
    """Mean of the learner's V(0) over all sets of n episodes: V_pi, or for the weighted average off by its bias."""
    unbiased, weighted = list[Comparison](), list[Comparison]()
    w = downhill(3, 1.0)
    law = [(p, (x, weighed(w, x))) for p, x in enumeration.trajectories(w.mdp, w.b, 0)]
    V, V0 = rational.exact_policy_values(w.mdp, w.pi)[0], np.array([0.5, 0.0, 0.0])
    for n, kind in product((1, 2, 3), off_policy.KINDS):
        found, bias = 0.0, ZERO
        for p, x in tuples(law, n):
            episodes, y = zip(*x, strict=True)
            found += float(p) * last(off_policy.off_policy_monte_carlo(episodes, pi=w.pi, V=V0, kind=kind)).V[0]
            mass = sum((z.W for z in y), ZERO)
            estimate = sum((z.W * z.G for z in y), ZERO) / mass if mass else Fraction(V0[0])
            bias += p * (estimate - V)
        where = f"{w.name}, {kind}, n = {n}"
        (weighted if kind == "weighted" else unbiased).append(
            Comparison(where, found, V + bias if kind == "weighted" else V)
        )
    return [
        agree("E1.14", "mean of ordinary and per-decision averages, all sets of n episodes, against V_pi", unbiased),
        agree("E1.14", "mean of the weighted average, all sets of n episodes, against V_pi + bias", weighted),
    ]
