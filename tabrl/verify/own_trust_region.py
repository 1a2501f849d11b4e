"""Divergences, the natural gradient and bounds against fractions and complex steps: row E1.16 of the ledger.

pi, pi_new (S,A) policies; KL, TV (S,) how far they are apart; d (S,) visits and A (S,A) advantage of pi; F Fisher
matrix; L surrogate of J; eps largest |A|; eta step size; beta weight of the penalty.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import islice, product
from typing import Any, NamedTuple

import numpy as np

from tabrl import gradient, losses, natural, policy, rational, surrogate
from tabrl.rational import Row, dot
from tabrl.types import F
from tabrl.verify import complex_step, softmax_models
from tabrl.verify.complex_step import along, derivative
from tabrl.verify.literal import ZERO
from tabrl.verify.own_soft import entropy
from tabrl.verify.own_surrogate import exact_advantage, moved
from tabrl.verify.record import Check, Comparison, agree, largest, within
from tabrl.verify.softmax_models import Softmax, Table, softmaxes


def trust_region() -> list[Check]:
    """E1.16: divergences, the penalised loss, adaptive beta, Fisher and natural gradient, bounds, entropy."""
    return [
        *divergences(),
        *penalised(),
        agree("E1.16", "adaptive beta, against beta/2, beta, 2 beta around target/1.5 and 1.5 target", betas()),
        *fisher(),
        agree("E1.16", "NPG step, against pi exp(eta A) over its sum, and softmax of theta + eta A", list(steps())),
        *ascent(),
        *bounds(),
        *entropy(),
    ]


def divergences() -> list[Check]:
    """KL and TV of two policies; the derivative in the new one's preferences."""
    kl, tv, slope = [], [], []
    for x in softmaxes():
        theta, old = moved(x), np.where(x.pi > 0, x.pi, 1.0)
        new, ok = complex_step.softmax(theta, x.mdp.legal), x.mdp.legal
        exact = [kl_of(p, q) for p, q in zip(x.pi, new, strict=True)]
        logs = [np.log(y, where=ok, out=np.full(y.shape, -np.inf)) for y in (new, x.pi)]
        kl += [
            Comparison(f"{x.name}, {k}", y, exact)
            for k, y in (("tables", policy.kl(x.pi, new)), ("logarithms", losses.kl_penalty(*logs)))
        ]
        tv.append(Comparison(x.name, policy.total_variation(x.pi, new), variations(x, new)))

        def value(z: Any, x: Softmax = x, old: F = old) -> Any:
            q = np.where(x.mdp.legal, complex_step.softmax(z, x.mdp.legal), 1.0)
            return (x.pi * (np.log(old) - np.log(q))).sum()

        slope.append(Comparison(x.name, losses.d_kl_penalty(*logs), derivative(value, theta)))
    return [
        agree("E1.16", "KL(pi_old, pi_new), against sums of pi_old log(pi_old / pi_new)", kl),
        agree("E1.16", "its derivative in the new preferences, against the complex step", slope),
        agree("E1.16", "total variation, in fractions", tv),
    ]


def kl_of(p: Any, q: Any) -> float:
    """Sum of p log(p/q) without rounding of the sum."""
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


def variations(x: Softmax, new: F) -> Row:
    """Half the sum of |pi - pi_new| of each state."""
    return [sum(map(abs, gaps(p, q)), ZERO) / 2 for p, q in zip(x.weight, rational.exact(new), strict=True)]


def gaps(p: Row, q: Row) -> Row:
    """Differences."""
    return [a - b for a, b in zip(p, q, strict=True)]


def penalised() -> list[Check]:
    """-rho A + beta (rho - 1 - log rho): its mean over the old policy's actions, and its derivative."""
    mean, slope = [], []
    for x, beta in product(softmaxes(), (0.0, 0.5)):
        new, A = complex_step.softmax(moved(x), x.mdp.legal), exact_advantage(x)
        s, a = np.nonzero(x.mdp.legal)
        logp, old, adv = np.log(new[s, a]), np.log(x.pi[s, a]), A[s, a]
        each, found = losses.ppo_kl(logp, old, adv, beta=beta), np.zeros(x.mdp.S)
        np.add.at(found, s, x.pi[s, a] * each)
        far = [kl_of(p, q) for p, q in zip(x.pi, new, strict=True)]
        mean.append(Comparison(f"{x.name}, beta {beta}", found, -(new * A).sum(axis=1) + beta * np.array(far)))

        def value(z: Any, old: F = old, adv: F = adv, beta: float = beta) -> Any:
            return -np.exp(z - old) * adv + beta * (np.exp(z - old) - 1 - (z - old))

        exact = along(value, logp, np.ones(len(logp)))
        slope.append(Comparison(f"{x.name}, beta {beta}", losses.d_ppo_kl(logp, old, adv, beta=beta), exact))
    return [
        agree("E1.16", "mean PPO-KL loss over the old policy, against -sum pi_new A + beta KL(old, new)", mean),
        agree("E1.16", "its derivative in log pi, against the complex step", slope),
    ]


def betas() -> list[Comparison]:
    """Below, on, between and above the two thresholds."""
    target = 0.75  # target / 1.5 = 0.5 and 1.5 target = 1.125 are exact
    rule = {0.0: 1.0, 0.4375: 1.0, 0.5: 2.0, 0.75: 2.0, 1.125: 2.0, 1.25: 4.0, math.inf: 4.0}
    return [Comparison(f"kl {kl}", losses.adaptive_beta(2.0, kl, target), beta) for kl, beta in rule.items()]


def fisher() -> list[Check]:
    """The matrix by its definition and as a Hessian; F times the natural gradient is the gradient."""
    matrix, hessian, product_, equation, advantage = [], [], [], [], []
    for x in softmaxes():
        v, d = np.random.default_rng(2).normal(size=x.theta.shape), np.array(x.d, np.float64)
        found = gradient.fisher(x.mdp, x.theta)
        matrix.append(Comparison(x.name, found, fisher_of(x.name)))

        def slope(z: Any, x: Softmax = x, d: F = d) -> Any:
            return (d * ~x.mdp.terminal)[:, None] * (complex_step.softmax(z, x.mdp.legal) - x.pi)

        hessian.append(Comparison(x.name, found, derivative(slope, x.theta).reshape(found.shape)))
        product_.append(
            Comparison(x.name, gradient.fisher_vector(x.mdp, x.theta, v), (found @ v.ravel()).reshape(v.shape))
        )
        direction = gradient.natural_gradient(x.mdp, x.theta)
        equation.append(Comparison(x.name, gradient.fisher_vector(x.mdp, x.theta, direction), x.gradient))
        reached = [[a if n else ZERO for a in row] for n, row in zip(x.d, x.advantage, strict=True)]
        advantage.append(Comparison(x.name, direction, reached))
    return [
        agree("E1.16", "Fisher matrix, against sum of d pi psi psi' in fractions", matrix),
        agree("E1.16", "Fisher matrix, against the Hessian of sum of d KL by complex step", hessian),
        agree("E1.16", "Fisher matrix times a direction, against the matrix product", product_),
        agree("E1.16", "F times the natural gradient, against grad J in fractions", equation),
        agree("E1.16", "natural gradient, against the advantage in fractions", advantage),
    ]


@cache
def fisher_of(name: str) -> Table:
    """Sum over s, a of d pi psi psi' on one of the models, states that end left out."""
    x = next(y for y in softmaxes() if y.name == name)
    S, A = x.theta.shape
    full = [[ZERO] * (S * A) for _ in range(S * A)]
    for s, a in product(range(S), range(A)):
        psi = [(a == b) - p for b, p in enumerate(x.weight[s])]
        weight = ZERO if x.mdp.terminal[s] else x.d[s] * x.weight[s][a]
        for b, c in product(range(A), range(A)):
            full[s * A + b][s * A + c] += weight * psi[b] * psi[c]
    return full


def steps() -> Iterator[Comparison]:
    """Two ways to write one step."""
    for x, eta in product(softmaxes(), (0.0, 0.5, 3.0)):
        A = exact_advantage(x)
        weight = x.pi * np.exp(eta * A)
        found = natural.npg_step(x.pi, A, eta)
        yield Comparison(f"{x.name}, eta {eta}", found, weight / weight.sum(axis=1, keepdims=True))
        yield Comparison(f"{x.name}, eta {eta}", found, complex_step.softmax(x.theta + eta * A, x.mdp.legal))


def ascent() -> list[Check]:
    """Mirror descent: theta moves by eta A, and V never falls."""
    theta, falls = [], []
    for x in softmaxes():
        *_, before, after = islice(natural.mirror_descent(x.mdp, eta=0.5, theta=x.theta), 3)
        exact = [rational.policy_values(x.t, y.pi) for y in (before, after)]
        A = np.array(softmax_models.advantages(x.t, exact[0]), np.float64)
        theta.append(Comparison(x.name, after.theta, before.theta + 0.5 * A))
        falls.append((x.name, max(gaps(*exact)), 1e-12 * max(1.0, float(largest(exact[0])))))
    return [
        agree("E1.16", "second step of mirror descent, against theta + eta A of the policy before", theta),
        within("E1.16", "largest fall of V in that step, in fractions, at most rounding", falls),
    ]


class Pair(NamedTuple):
    """Two policies, and what the first says of the second, in fractions."""

    J: Fraction  # of pi
    J_new: Fraction
    L: Fraction  # J(pi) + sum of d pi_new A
    gain: Row  # (S,) sum of pi_new A
    tv: Row  # (S,) 0 for terminal states


@cache
def known(name: str, size: float) -> Pair:
    """The exact values of a policy and one that is a step away."""
    x = next(y for y in softmaxes() if y.name == name)
    return pair(x, complex_step.softmax(moved(x, size), x.mdp.legal))


def pair(x: Softmax, new: F) -> Pair:
    """The exact values of two policies."""
    mu, q = rational.exact(x.mdp.mu), rational.exact(new)
    gain = [dot(p, a) for p, a in zip(q, x.advantage, strict=True)]
    tv = [ZERO if end else y for y, end in zip(variations(x, new), x.mdp.terminal, strict=True)]
    J = dot(mu, x.V_pi)
    return Pair(J, dot(mu, rational.policy_values(x.t, new)), J + dot(x.d, gain), gain, tv)


def bounds() -> list[Check]:
    """Performance difference, surrogate, and the lower bounds: their formulas, and that J lies above."""
    difference, first, formulas, below = [], [], [], []
    for x, size in product(softmaxes(), (0.5, 0.0625)):
        new, where = complex_step.softmax(moved(x, size), x.mdp.legal), f"{x.name}, step {size}"
        y = known(x.name, size)
        difference.append(Comparison(where, surrogate.performance_difference(x.mdp, new, x.pi), y.J_new - y.J))
        first.append(Comparison(where, surrogate.surrogate(x.mdp, new, x.pi), y.L))
        for name, found, exact, reached in lower(x, new, y) if x.mdp.gamma < 1 else ():
            formulas.append(Comparison(f"{where}, {name}", found, exact))
            below.append(
                (f"{where}, {name}", max(y.L - reached, ZERO), float(y.L) - found + 1e-12 * max(1.0, abs(found)))
            )
    return [
        agree("E1.16", "performance difference, against J(pi_new) - J(pi) in fractions", difference),
        agree("E1.16", "first-order surrogate L, in fractions", first),
        agree("E1.16", "lower bounds of TRPO, of mean TV and of mixtures, in fractions", formulas),
        within("E1.16", "L - J(pi_new), within what each bound allows", below),
    ]


def lower(x: Softmax, new: F, y: Pair) -> Iterator[tuple[str, float, Any, Fraction]]:
    """Name, value, exact value, and the J that must not be below."""
    g, eps = x.t.gamma, largest([a for row in x.advantage for a in row])
    far, wide = 4 * eps * g / (1 - g) ** 2, largest(y.gain)
    kl = max((kl_of(p, q) for p, q, end in zip(x.pi, new, x.mdp.terminal, strict=True) if not end), default=0.0)
    yield "TV", surrogate.trpo_bound(x.mdp, new, x.pi), y.L - far * max(y.tv) ** 2, y.J_new
    yield "KL", surrogate.trpo_bound_kl(x.mdp, new, x.pi), y.L - far * Fraction(kl), y.J_new
    mean = y.L - 2 * wide * g / (1 - g) * dot(x.d, y.tv)
    yield "mean TV", surrogate.mean_bound(x.mdp, new, x.pi), mean, y.J_new
    a = Fraction(1, 4)
    mixed = y.J + a * (y.L - y.J) - 2 * wide * g * a**2 / ((1 - g) * (1 - g * (1 - a)))
    J = pair(x, 0.75 * x.pi + 0.25 * new).J_new
    yield "mixture", surrogate.mixture_bound(x.mdp, new, x.pi, 0.25), mixed, J
