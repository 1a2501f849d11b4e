"""The clipped surrogate against fractions and complex steps: row E1.15 of the ledger.

rho = pi_new / pi ratio of one action; A advantage; low, high how far a ratio may move; d (S,) visits; pi, pi_new (S,A).
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from tabrl import advantages, gradient, losses, rational, surrogate, weights
from tabrl.rational import Row, dot
from tabrl.types import F
from tabrl.verify import complex_step, softmax_models
from tabrl.verify.complex_step import along, derivative, limited, smaller
from tabrl.verify.literal import ONE, ZERO
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.softmax_models import Softmax, Table, expected, softmaxes

RATIOS = (0.125, 0.5, 0.625, 0.875, 1.0, 1.125, 1.375, 1.625, 4.0)  # 1 is a kink where low is 0
EXACT = 1e-300  # tolerance of what must be 0 without rounding
BOUNDS = ((0.25, 0.25, None), (0.25, 0.5, None), (0.0, 0.1875, None), (0.25, 0.25, 3.0))  # low, high, dual


def grid() -> tuple[F, F]:
    """Every ratio with advantages of either sign, and none."""
    rho, adv = np.array(list(product(RATIOS, (-2.0, -0.5, 0.0, 1.0, 3.0)))).T
    return rho, adv


def clip() -> list[Check]:
    """E1.15: the loss step by step, the whole surrogate, both gradients, what sampled PPO follows, whitening."""
    return [
        *loss(),
        agree("E1.15", "clipped surrogate of two policies, against all states and actions in fractions", surrogates()),
        agree("E1.15", "its gradient away from the old policy, against the complex step", slopes()),
        agree("E1.15", "its gradient at the old policy, against grad J in fractions", [at_old(x) for x in softmaxes()]),
        agree("E1.15", "its gradient where everything is clipped, exactly 0", [stopped(x) for x in softmaxes()], EXACT),
        agree("E1.15", "share of clipped decisions, in fractions", shares()),
        agree("E1.15", "what PPO follows without gamma^t, against undiscounted visits in fractions", list(usual())),
        agree("E1.15", "ratios, in fractions and at their limit", ratios()),
        agree("E1.15", "whitened advantages: mean 0, mean square 1, same order, in fractions", whitened()),
    ]


def loss() -> list[Check]:
    """-min(rho A, clip(rho) A), its derivative, and where that is 0."""
    rho, adv = grid()
    value, slope, zero, where = list[Comparison](), list[Comparison](), list[Comparison](), list[Comparison]()
    for low, high, dual in BOUNDS:
        named: Any = {"low": low, "high": high, "dual": dual}
        logs, old = np.log(rho), np.zeros(len(rho))
        exact = [loss_of(Fraction(y), Fraction(a), low, high, dual) for y, a in zip(rho, adv, strict=True)]
        value.append(Comparison(str(named), losses.ppo_clip(logs, old, adv, **named), exact))
        away = kinks(rho, low, high, dual)
        found = losses.d_ppo_clip(logs, old, adv, **named)
        stepped = along(complex_loss(adv, low, high, dual), logs, np.ones(len(logs)))
        slope.append(Comparison(str(named), found[away], stepped[away]))
        rule = [float(rule_of(y, a, low, high, dual)) for y, a in zip(rho, adv, strict=True)]
        where.append(Comparison(str(named), losses.clipped(logs, old, adv, **named), rule))
        zero.append(Comparison(str(named), (found == 0) & (adv != 0), rule))
    return [
        agree("E1.15", "PPO-clip loss, against -min(rho A, clip(rho) A) in fractions", value),
        agree("E1.15", "its derivative in log pi away from kinks, against the complex step", slope),
        agree("E1.15", "gradient exactly 0 iff (A > 0, rho > 1 + high) or (A < 0, rho < 1 - low)", zero),
        agree("E1.15", "where the clip fraction counts, against that rule", where),
    ]


def loss_of(rho: Fraction, A: Fraction, low: float, high: float, dual: float | None = None) -> Fraction:
    """The published formula."""
    held = min(max(rho, 1 - Fraction(low)), 1 + Fraction(high))
    objective = min(rho * A, held * A)
    return -max(objective, Fraction(dual) * A) if dual and A < 0 else -objective


def complex_loss(A: F, low: float, high: float, dual: float | None) -> Callable[[Any], Any]:
    """That formula as a function of log rho, real or complex."""

    def loss(x: Any) -> Any:
        rho = np.exp(x)
        objective = smaller(rho * A, limited(rho, 1 - low, 1 + high) * A)
        return np.where(A < 0, smaller(-objective, -dual * A), -objective) if dual else -objective

    return loss


def kinks(rho: F, low: float, high: float, dual: float | None) -> Any:
    """Ratios that lie on no bound."""
    return ~np.isin(rho, [1 - low, 1 + high, *([dual] if dual else [])])


def rule_of(rho: float, A: float, low: float, high: float, dual: float | None) -> bool:
    """Whether the clip stops the gradient."""
    far = dual is not None and A < 0 and rho > dual
    return (A > 0 and rho > 1 + high) or (A < 0 and rho < 1 - low) or far


def moved(x: Softmax, size: float = 0.5) -> F:
    """Other preferences, so far away that some ratios are clipped."""
    return x.theta + size * np.random.default_rng(3).normal(size=x.theta.shape)


def exact_advantage(x: Softmax) -> F:
    """The advantages, rounded."""
    return np.array(x.advantage, np.float64)


def surrogates() -> list[Comparison]:
    """Sums over all states and actions; narrow bounds, other ones, none."""
    found = []
    for x in softmaxes():
        pi_new, d, A = complex_step.softmax(moved(x), x.mdp.legal), np.array(x.d, np.float64), exact_advantage(x)
        for low, high in ((0.25, 0.25), (0.125, 0.5), (1.0, 1e6)):
            value = surrogate.clip_surrogate(pi_new, x.pi, d, A, low=low, high=high)
            found.append(Comparison(f"{x.name}, low {low}, high {high}", value, total(x, pi_new, low, high)))
    return found


def total(x: Softmax, pi_new: F, low: float, high: float) -> Fraction:
    """Sum of d pi min(rho A, clip(rho) A)."""
    new = rational.exact(pi_new)
    rows: Table = [
        [-p * loss_of(q / p, a, low, high) if p else ZERO for p, q, a in zip(*row, strict=True)]
        for row in zip(x.weight, new, x.advantage, strict=True)
    ]
    return dot(x.d, [sum(row, ZERO) for row in rows])


def slopes() -> list[Comparison]:
    """Some actions clipped, some not."""
    found = []
    for x in softmaxes():
        theta, d, A = moved(x), np.array(x.d, np.float64), exact_advantage(x)

        def value(z: Any, x: Softmax = x, d: F = d, A: F = A) -> Any:
            rho = complex_step.softmax(z, x.mdp.legal) / np.where(x.pi > 0, x.pi, 1.0)
            return (d[:, None] * x.pi * smaller(rho * A, limited(rho, 0.8, 1.2) * A)).sum()

        pi_new = complex_step.softmax(theta, x.mdp.legal)
        found.append(Comparison(x.name, surrogate.clip_gradient(pi_new, x.pi, d, A), derivative(value, theta)))
    return found


def at_old(x: Softmax) -> Comparison:
    """Ratios of 1: the policy gradient."""
    y = gradient.at(x.mdp, x.theta)
    return Comparison(x.name, surrogate.clip_gradient(y.pi, y.pi, y.d, y.advantage), x.gradient)


def stopped(x: Softmax) -> Comparison:
    """Advantages whose sign every ratio has followed beyond its bound."""
    pi_new = complex_step.softmax(moved(x), x.mdp.legal)
    A = np.sign(pi_new - x.pi)
    found = surrogate.clip_gradient(pi_new, x.pi, np.array(x.d, np.float64), A, low=0.0, high=0.0)
    return Comparison(x.name, found, [[ZERO] * x.mdp.A] * x.mdp.S)


def shares() -> list[Comparison]:
    """Weight of the clipped decisions in the weight of all."""
    found = []
    for x in softmaxes():
        pi_new, d = complex_step.softmax(moved(x), x.mdp.legal), np.array(x.d, np.float64)
        rows = zip(x.weight, rational.exact(pi_new), exact_advantage(x), strict=True)
        each: Row = [
            sum((p for p, q, a in zip(*r, strict=True) if p and rule_of(q / p, a, 0.2, 0.2, None)), ZERO) for r in rows
        ]
        share = surrogate.clip_fraction(pi_new, x.pi, d, exact_advantage(x))
        found.append(Comparison(x.name, share, dot(x.d, each) / sum(x.d, ZERO)))
    return found


def usual() -> Iterator[Comparison]:
    """Whole episodes, and the first three steps of each."""
    for x in softmaxes():
        mu = rational.exact(x.mdp.mu)
        if x.ends:
            n = softmax_models.visits(x.t, x.weight, mu, ONE)
            yield Comparison(f"{x.name}, visits", gradient.visit_counts(x.mdp, x.pi), n)
            yield Comparison(x.name, gradient.usual_gradient(x.mdp, x.theta), expected(n, x.weight, x.advantage))
        P, p, n = rational.induced(x.t, x.weight)[0], mu, [ZERO] * x.mdp.S
        for _ in range(3):
            n = [a + b for a, b in zip(n, p, strict=True)]
            p = [dot(p, column) for column in zip(*P, strict=True)]
        found = gradient.usual_gradient(x.mdp, x.theta, horizon=3)
        yield Comparison(f"{x.name}, 3 steps", found, expected(n, x.weight, x.advantage))


def ratios() -> list[Comparison]:
    """Quotients of probabilities; far out they stay finite."""
    new, old = np.array([0.5, 0.25, 0.75]), np.array([0.25, 0.75, 0.75])
    exact = [a / b for a, b in zip(rational.exact(new), rational.exact(old), strict=True)]
    far = weights.log_ratios(np.array([-1.0, -900.0]), np.array([-801.0, -1.0]))
    return [
        Comparison("near 1", weights.bounded_ratios(np.log(new), np.log(old)), exact),
        Comparison("far out", far, [weights.LIMIT, -weights.LIMIT]),
    ]


def whitened() -> list[Comparison]:
    """A shift and a positive factor that make the mean 0 and the mean square 1."""
    x = np.array([3.0, 1.0, -2.0, 0.5, 1.0, 8.0])
    y = advantages.whiten(x, eps=0.0)
    exact = rational.exact(x)
    mean = sum(exact, ZERO) / len(exact)
    square = sum(((a - mean) ** 2 for a in exact), ZERO) / len(exact)
    return [
        Comparison("mean", y.mean(), ZERO),
        Comparison("mean square", (y**2).mean(), ONE),
        Comparison("squares", y**2, [(a - mean) ** 2 / square for a in exact]),
        Comparison("signs", np.sign(y), [int(a > mean) - int(a < mean) for a in exact]),
    ]
