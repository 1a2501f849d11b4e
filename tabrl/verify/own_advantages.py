"""Generalised advantages and the critic's target against fractions: rows E1.13 and E1.17 of the ledger.

r, discount (T,), v (T+1,) values along an episode; delta TD errors; A (T,) advantages; V (S,) values of a critic;
lam in [0, 1]; y (T,) targets.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache

import numpy as np

from tabrl import advantage_moments, losses, rational, returns
from tabrl.rational import Row, dot
from tabrl.verify import advantage_laws, complex_step, estimates, literal, recorded
from tabrl.verify.advantage_laws import values
from tabrl.verify.literal import ONE, ZERO
from tabrl.verify.own_lambda import LAMBDAS
from tabrl.verify.own_reinforce import beside, listed
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.softmax_models import expected, softmaxes, tiny

# E1.13


def gae() -> list[Check]:
    """E1.13: sums of TD errors, both ends, fragments, exact bias and variance over lambda, the update of an episode."""
    errors, returned = zip(*sums(), strict=True)
    return [
        agree("E1.13", "GAE, against sums of (discount lam)^k delta in fractions", errors),
        *ends_of_lambda(),
        agree("E1.13", "v + GAE, against weighted n-step returns in fractions", returned),
        agree("E1.13", "GAE of many fragments in one buffer, against each of them in fractions", list(buffers())),
        *moments(),
        agree("E1.13", "bias with lam = 1, against V_pi - V for every action in fractions", list(same_for_all())),
        agree("E1.13", "mean and variance of GAE, all episodes listed, in fractions", list(paths())),
        agree("E1.13", "mean update with GAE, against sum of d pi psi E[A] in fractions", list(mean_updates())),
        agree("E1.13", "mean and variance of an episode's update, all episodes listed, in fractions", updates(0.75)),
    ]


def sums() -> Iterator[tuple[Comparison, Comparison]]:
    """Advantages of the written-out episodes beside sums, and those plus v beside lambda-returns."""
    for x in recorded.recordings():
        trace, v = x.trace, literal.along(x.values, x.trace)
        for lam in LAMBDAS:
            y, where = Fraction(lam), f"{x.name}, lam = {lam}"
            found = returns.gae(x.r, x.discount, x.V[x.s], lam)
            weighted = [literal.lambda_return(trace, v, t, y) for t in range(len(x.r))]
            yield (
                Comparison(where, found, estimates.gae(trace, v, y)),
                Comparison(where, found + x.V[x.s[:-1]], weighted),
            )


def ends_of_lambda() -> list[Check]:
    """Lam = 0 gives TD errors, lam = 1 returns less v."""
    zero, one = list[Comparison](), list[Comparison]()
    for x in recorded.recordings():
        trace, v = x.trace, literal.along(x.values, x.trace)
        for found, lam, n in ((zero, 0.0, 1), (one, 1.0, len(x.r))):
            exact = [literal.n_step_return(trace, v, t, n) - v[t] for t in range(len(x.r))]
            found.append(Comparison(x.name, returns.gae(x.r, x.discount, x.V[x.s], lam), exact))
    return [
        agree("E1.13", "GAE with lam = 0, against TD errors in fractions", zero),
        agree("E1.13", "GAE with lam = 1, against Monte Carlo returns less v in fractions", one),
    ]


def buffers() -> Iterator[Comparison]:
    """All recordings one after the other: no estimate looks into the next one."""
    x = recorded.recordings()
    r, discount = np.concatenate([y.r for y in x]), np.concatenate([y.discount for y in x])
    v, after = np.concatenate([y.V[y.s[:-1]] for y in x]), np.concatenate([y.V[y.s[1:]] for y in x])
    last = np.concatenate([np.arange(len(y.r)) == len(y.r) - 1 for y in x])
    for lam in LAMBDAS:
        exact = [a for y in x for a in estimates.gae(y.trace, literal.along(y.values, y.trace), Fraction(lam))]
        yield Comparison(f"lam = {lam}", returns.gae_fragments(r, discount, v, after, last, lam), exact)


@cache
def law(name: str, lam: float) -> advantage_laws.Law:
    """Moments of GAE on one of the models, for its wrong V."""
    x = next(y for y in softmaxes() if y.name == name)
    return advantage_laws.gae(x, values(x, x.V), Fraction(lam))


def moments() -> list[Check]:
    """Over lambda, for a wrong V."""
    found: list[list[Comparison]] = [[], [], []]
    for x in softmaxes():
        for lam in LAMBDAS:
            got = advantage_moments.advantage(x.mdp, x.pi, x.V, lam)
            exact = law(x.name, lam)
            for k in range(3):
                found[k].append(Comparison(f"{x.name}, lam = {lam}", got[k], exact[k]))
    return [
        agree("E1.13", f"{name} of GAE given s and a for a wrong V, from linear equations in fractions", c)
        for name, c in zip(("mean", "bias", "variance"), found, strict=True)
    ]


def same_for_all() -> Iterator[Comparison]:
    """G - V(s) is off by V_pi(s) - V(s)."""
    for x in softmaxes():
        e = advantage_laws.error(x, values(x, x.V))
        exact = advantage_laws.off(x, [[ZERO] * x.mdp.A] * x.mdp.S, e)
        yield Comparison(x.name, advantage_moments.advantage(x.mdp, x.pi, x.V, 1.0).bias, exact)


def paths() -> Iterator[Comparison]:
    """Every episode of the model without revisits."""
    x = tiny()[0]
    V = values(x, x.V)
    for lam in LAMBDAS:
        found = advantage_moments.advantage(x.mdp, x.pi, x.V, lam)
        y = Fraction(lam)
        law = advantage_laws.listed(x, 99, lambda e, y=y: estimates.gae(e, literal.along(V, e), y)[0])  # type: ignore[misc]
        for s, a, exact in law:
            yield Comparison(f"lam = {lam}, s={s}, a={a}", [found.mean[s, a], found.variance[s, a]], exact)


def mean_updates() -> Iterator[Comparison]:
    """The mean of the update is that of its advantages, weighed by visits and scores."""
    for x in softmaxes():
        for lam in LAMBDAS:
            found = advantage_moments.advantage_gradient(x.mdp, x.pi, x.V, lam).mean
            yield Comparison(f"{x.name}, lam = {lam}", found, expected(x.d, x.weight, law(x.name, lam).mean))


@cache
def advantages(lam: float) -> Callable[[Row], estimates.Multipliers]:
    """Advantages of an episode, for a critic."""
    return lambda V: estimates.advantages(V, Fraction(lam))


def updates(lam: float) -> list[Comparison]:
    """Sums of w^t psi_t A_t over whole episodes, with gamma^t and without."""
    found = list[Comparison]()
    for x in listed()[:2]:
        V = np.where(x.mdp.terminal, 0.0, np.arange(x.mdp.S) / 2 - 1.0)
        for decay in (None, 1.0):
            got = advantage_moments.advantage_gradient(x.mdp, x.pi, V, lam, decay=decay)
            exact = x.spread(tuple(rational.exact(V)), decay, advantages(lam))
            where = f"{x.name}, {'no ' if decay else ''}gamma^t"
            found += beside(where, got, exact)
    return found


# E1.17


def targets() -> list[Check]:
    """E1.17: advantage plus value is the lambda-return; both ends; one step written out; its mean; the loss."""
    found = [list(c) for c in zip(*recorded_targets(), strict=True)]
    names = (
        "lambda-returns as weighted n-step returns",
        "r + discount v' + discount lam A'",
        "lambda-returns by their recursion",
    )
    return [
        *(agree("E1.17", f"GAE + v, against {n} in fractions", c) for n, c in zip(names, found, strict=True)),
        agree("E1.17", "GAE + v with lam = 0, against TD(0) targets in fractions", list(ends(0.0))),
        agree("E1.17", "GAE + v with lam = 1, against Monte Carlo returns in fractions", list(ends(1.0))),
        agree("E1.17", "mean target, against (I - gamma lam P)^-1 in fractions", list(mean_targets())),
        *critic_loss(),
    ]


def recorded_targets() -> Iterator[tuple[Comparison, ...]]:
    """Targets of the written-out episodes beside three forms."""
    for x in recorded.recordings():
        trace, v = x.trace, literal.along(x.values, x.trace)
        for lam in LAMBDAS:
            y, T = Fraction(lam), len(x.r)
            found = returns.value_target(returns.gae(x.r, x.discount, x.V[x.s], lam), x.V[x.s[:-1]])
            A = [*estimates.gae(trace, v, y), ZERO]
            one = [trace.r[t] + trace.discount[t] * (v[t + 1] + y * A[t + 1]) for t in range(T)]
            weighted = [literal.lambda_return(trace, v, t, y) for t in range(T)]
            forms = weighted, one, literal.recursive_lambda_returns(trace, v, y)
            yield tuple(Comparison(f"{x.name}, lam = {lam}", found, exact) for exact in forms)


def ends(lam: float) -> Iterator[Comparison]:
    """One step, or all that are left."""
    for x in recorded.recordings():
        trace, v, T = x.trace, literal.along(x.values, x.trace), len(x.r)
        found = returns.value_target(returns.gae(x.r, x.discount, x.V[x.s], lam), x.V[x.s[:-1]])
        yield Comparison(x.name, found, [literal.n_step_return(trace, v, t, T if lam else 1) for t in range(T)])


def mean_targets() -> Iterator[Comparison]:
    """Averaged over what can follow a state, V + GAE is the lambda-operator applied to V."""
    for x in softmaxes():
        V, (P, r) = values(x, x.V), rational.induced(x.t, x.weight)
        for lam in LAMBDAS:
            y = Fraction(lam)
            b = [a + (ONE - y) * x.t.gamma * dot(row, V) for a, row in zip(r, P, strict=True)]
            exact = rational.chain_values(P, b, y * x.t.gamma)
            mean = (x.pi * advantage_moments.advantage(x.mdp, x.pi, x.V, lam).mean).sum(axis=1)
            yield Comparison(f"{x.name}, lam = {lam}", returns.value_target(mean, x.V), exact)


def critic_loss() -> list[Check]:
    """The larger of two squared errors, and its derivative away from kinks."""
    v, target, old = np.array([1.0, 2.0, -1.0, 0.5, 3.0]), np.array([3.0, 1.5, 1.0, 0.5, -2.0]), np.zeros(5)
    x, y = rational.exact(v), rational.exact(target)
    clip = 0.75
    cut = [min(max(a, -Fraction(clip)), Fraction(clip)) for a in x]
    free = [(a - b) ** 2 for a, b in zip(x, y, strict=True)]
    held = [max(f, (a - b) ** 2) for f, a, b in zip(free, cut, y, strict=True)]

    def clipped(z: np.ndarray) -> np.ndarray:
        near = complex_step.limited(z, -clip, clip)
        return -complex_step.smaller(-((z - target) ** 2), -((near - target) ** 2)).sum()  # type: ignore[no-any-return]

    plain = complex_step.derivative(lambda z: ((z - target) ** 2).sum(), v)
    return [
        agree("E1.17", "critic loss, plain and clipped, in fractions", [
            Comparison("plain", losses.value_loss(v, target), free),
            Comparison("clipped", losses.value_loss(v, target, old, clip), held),
        ]),
        agree("E1.17", "its derivative, against the complex step", [
            Comparison("plain", losses.d_value_loss(v, target), plain),
            Comparison("clipped", losses.d_value_loss(v, target, old, clip), complex_step.derivative(clipped, v)),
        ]),
    ]  # fmt: skip
