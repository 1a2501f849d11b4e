"""REINFORCE against fractions: row E1.11 of the ledger.

G_t return; psi_t score of step t; b (S,) baseline; w discount of the scores; g = sum of w^t psi_t (G_t - b(s_t)).
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from tabrl import gradient_moments, losses, policy, rational
from tabrl import returns as sums
from tabrl.gradient_moments import cut_reinforce
from tabrl.mdp import MDP
from tabrl.rational import Row
from tabrl.score_sums import GradientMoments
from tabrl.types import F
from tabrl.verify import estimates, softmax_models
from tabrl.verify.estimates import Multipliers, Run, Spread, parabola, returns, spread, whole
from tabrl.verify.literal import ONE
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.softmax_models import ended, expected, softmaxes

CUT = 4  # steps after which episodes of a model without an end are cut
LONG = 64  # steps of the longest episode listed: 2**-64 is out of sight


class Listed(NamedTuple):
    """A model with all its episodes."""

    name: str
    mdp: MDP
    pi: F
    law: list[Run]
    steps: int | None  # where episodes are cut; None: all of them end

    def spread(
        self, b: tuple[Fraction, ...], decay: float | None = None, x: Callable[[Row], Multipliers] = returns
    ) -> Spread:
        """Moments of the estimate with baseline b, over all episodes; gamma^t unless another decay is given."""
        return spread_of(self.name, b, Fraction(self.mdp.gamma if decay is None else decay), x)


@cache
def spread_of(name: str, b: tuple[Fraction, ...], w: Fraction, x: Callable[[Row], Multipliers]) -> Spread:
    """Each of them once."""
    model = next(y for y in listed() if y.name == name)
    return spread(model.law, model.pi, x(list(b)), w)


@cache
def listed() -> tuple[Listed, ...]:
    """Episodes without revisits, with any number of them, and cut ones."""
    made = (
        ("without revisits", softmax_models.forest(), None, 9),
        ("wait or leave", softmax_models.waiting(), None, LONG),
        (f"a loop cut after {CUT} steps", softmax_models.small_loop(), CUT, CUT),
    )
    return tuple(Listed(n, *x, list(estimates.runs(*x, limit)), steps) for n, x, steps, limit in made)


def reinforce() -> list[Check]:
    """E1.11: means, variances by listing all episodes, baselines, the best one, the loss."""
    return [
        agree("E1.11", "mean of REINFORCE with any baseline, against grad J in fractions", means()),
        agree("E1.11", "mean of REINFORCE with whole returns, against grad J in fractions", whole_means()),
        agree("E1.11", "mean without gamma^t, against undiscounted visits in fractions", undiscounted()),
        *enumerated(),
        agree("E1.11", "moments of REINFORCE, against episodes cut after many steps", long_cuts()),
        agree("E1.11", "variance for b = 0, V = 1, -1 where waiting costs 1: 3, 6 and 2", example()),
        *best(),
        agree("E1.11", "gradient of the loss -G log pi over an episode, negated, in fractions", list(sampled())),
    ]


def means() -> list[Comparison]:
    """No baseline, a number, V and any function of the state."""
    found = []
    for x in softmaxes():
        for name, b in (("none", None), ("2", 2.0), ("V", np.array(x.V_pi, np.float64)), ("any", x.b)):
            mean = gradient_moments.reinforce(x.mdp, x.pi, b).mean
            found.append(Comparison(f"{x.name}, baseline {name}", mean, x.gradient))
    return found


def whole_means() -> list[Comparison]:
    """The return from the start of the episode, for episodes that end."""
    return [Comparison(x.name, gradient_moments.whole_return(x.mdp, x.pi, x.b).mean, x.gradient) for x in ended()]


def undiscounted() -> list[Comparison]:
    """Every visit counts the same."""
    found = []
    for x in ended():
        n = softmax_models.visits(x.t, x.weight, rational.exact(x.mdp.mu), ONE)
        exact = expected(n, x.weight, x.advantage)
        found.append(Comparison(x.name, gradient_moments.reinforce(x.mdp, x.pi, x.b, decay=1.0).mean, exact))
    return found


def enumerated() -> Iterator[Check]:
    """Mean, variance of each entry and their sum, over all episodes, with and without gamma^t."""
    found: dict[str, list[tuple[Comparison, ...]]] = {"to go": [], "whole": []}
    for x in listed():
        b = np.arange(x.mdp.S) / 2 - 1.0
        for name, at, decay in (("none", None, None), ("b", b, None), ("b, no gamma^t", b, 1.0)):
            exact = x.spread(tuple(rational.exact(0 * b if at is None else at)), decay)
            found["to go"].append(beside(f"{x.name}, baseline {name}", moments(x, at, decay), exact))
        if x.steps is None:
            got = gradient_moments.whole_return(x.mdp, x.pi, b)
            found["whole"].append(beside(x.name, got, x.spread(tuple(rational.exact(b)), 1.0, whole)))
    for kind, cases in found.items():
        for k, what in enumerate(("mean", "variances", "sum of variances")):
            quantity = f"{what} of REINFORCE, return {kind}, all episodes listed, in fractions"
            yield agree("E1.11", quantity, [c[k] for c in cases])


def beside(where: str, found: GradientMoments, exact: Spread) -> tuple[Comparison, ...]:
    """Mean, variances and their sum, each beside the exact one."""
    return (
        Comparison(where, found.mean.ravel(), exact.mean),
        Comparison(where, found.variance.ravel(), exact.variance),
        Comparison(where, found.total, exact.total),
    )


def moments(x: Listed, b: F | None, decay: float | None) -> GradientMoments:
    """What the package says of the listed episodes."""
    if x.steps is None:
        return gradient_moments.reinforce(x.mdp, x.pi, b, decay=decay)
    return cut_reinforce(x.mdp, x.pi, x.steps, b, decay=decay)


def long_cuts() -> list[Comparison]:
    """Two recursions, one of them step by step: what comes after 300 steps is below 1e-13."""
    found = []
    for x in softmaxes():
        if x.mdp.gamma <= 0.9:
            got, long = gradient_moments.reinforce(x.mdp, x.pi, x.b), cut_reinforce(x.mdp, x.pi, 300, x.b)
            found += [Comparison(x.name, y, z) for y, z in zip(got, long, strict=True)]
    return found


def example() -> list[Comparison]:
    """The value is a worse baseline than none, and less than nothing is better."""
    x = listed()[1]
    exact = [x.spread((Fraction(b),) * 2).total for b in (0, 1, -1)]
    found = [gradient_moments.reinforce(x.mdp, x.pi, float(b)).total for b in (0, 1, -1)]
    return [Comparison("listed", found, exact), Comparison("in numbers", found, [3, 6, 2])]


def best() -> list[Check]:
    """The parabola of the total variance in the baseline of each state, which its own entries see alone."""
    lowest, curvature, least = [], [], []
    for x in listed()[:2]:
        found, S = gradient_moments.optimal_baseline(x.mdp, x.pi), int((~x.mdp.terminal).sum())
        curves = [parabola(lambda y, s=s, x=x: x.spread(one_state(x, s, y)).total) for s in range(S)]  # type: ignore[misc]
        lowest.append(Comparison(x.name, found.b[:S], [c.lowest for c in curves]))
        curvature.append(Comparison(x.name, found.curvature[:S], [c.curvature for c in curves]))
        at = (*(c.lowest for c in curves), *[ONE] * (x.mdp.S - S))
        least.append(Comparison(x.name, found.total, x.spread(at).total))
    return [
        agree("E1.11", "best baseline, against the lowest point over all episodes, in fractions", lowest),
        agree("E1.11", "how fast variance grows away from it, over all episodes, in fractions", curvature),
        agree("E1.11", "variance with the best baseline, over all episodes, in fractions", least),
    ]


def one_state(x: Listed, s: int, b: Fraction) -> tuple[Fraction, ...]:
    """Baseline b in one state and 0 elsewhere."""
    return tuple(b * (z == s) for z in range(x.mdp.S))


def sampled() -> Iterator[Comparison]:
    """The estimate of each episode as a program makes it: loss, derivative, chain rule."""
    for x in listed():
        b, gamma = np.arange(x.mdp.S) / 2 - 1.0, Fraction(x.mdp.gamma)
        for run in x.law[:40:4]:
            s, a = np.array(run.x.s[:-1]), np.array(run.a)
            r, discount = np.array(run.x.r, np.float64), np.array(run.x.discount, np.float64)
            adv = float(gamma) ** np.arange(len(r)) * (sums.discounted_sum(r, discount) - b[s])
            logp, g = np.log(x.pi[s, a]), np.zeros(x.pi.shape)
            np.add.at(g, (s, a), -losses.d_policy_gradient(logp, adv))
            exact = estimates.estimate(run, rational.exact(x.pi), returns(rational.exact(b))(run.x), gamma)
            where = f"{x.name}, states {run.x.s}"
            yield Comparison(where, policy.through_log(x.pi, g).ravel(), exact)
            yield Comparison(where, losses.policy_gradient(logp, adv), -logp * adv)
