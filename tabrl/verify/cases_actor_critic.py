"""What a user's actor-critic is given in row E1.12, and what it must return.

theta (S,A) preferences; V (S,) the critic; s (T+1,), a, r, discount (T,) an episode; alpha, beta step sizes of the
actor and of the critic; delta TD error; gamma^t = discount[0] … discount[t-1]. Floats, as the softmax is not rational.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from tabrl import returns
from tabrl.types import F, I
from tabrl.verify import complex_step, recorded
from tabrl.verify.cases_gradient import NO_FADE, NO_PI, OF_PI, actions
from tabrl.verify.cases_td import BOOTSTRAPS, STOPS
from tabrl.verify.mistakes import FORGETS, PAYS_LATE, Mistakes
from tabrl.verify.record import Case

THETA = np.array([[0.5, -0.25], [0.0, 1.0], [-0.75, 0.25], [1.5, 0.5], [2.0, -1.0]])
ALPHA = 0.25  # of the actor


class Play(NamedTuple):
    """One call."""

    theta: F
    V: F
    s: I
    a: I
    r: F
    discount: F
    alpha: float
    beta: float


class Rules(NamedTuple):
    """One-step actor-critic, and what may be done otherwise."""

    fade: bool = True  # multiply the actor's step by gamma^t
    fade_critic: bool = False
    score: Callable[[F, int], F] = lambda p, a: np.eye(len(p))[a] - p
    own: float = 1.0  # how much of V(s) is subtracted
    late: bool = False  # delta for the actor is computed after the critic has moved
    old_scores: bool = False  # all scores from the first theta
    learns: bool = True  # the critic moves
    ahead: float = 1.0  # how much of V(s') is added
    attached: bool = False  # the actor's loss moves the critic as well
    reaches: float = 1.0  # how much of that reaches V(s')
    sign: float = 1.0


@cache
def actor_critic_cases() -> list[Case]:
    """E1.12: f(theta, V, s, a, r, discount, alpha, beta) -> theta."""
    found = []
    for x in recorded.recordings():
        play = Play(THETA, x.V, x.s, actions(x.s), x.r, x.discount, ALPHA, x.alpha)
        found.append(
            Case(x.name, tuple(play), THETA.shape, "s", one_pass(play), cache(lambda play=play: wrong_passes(play)))
        )
    return found


def one_pass(x: Play, rules: Rules | None = None) -> F:
    """Preferences after one pass; step by step, delta from the values so far, the score from the policy so far."""
    rules = rules or Rules()
    theta, V, fade = x.theta.copy(), x.V.copy(), 1.0
    for t, (s, a, y) in enumerate(zip(x.s, x.a, x.s[1:], strict=False)):
        p = complex_step.softmax((x.theta if rules.old_scores else theta)[s], True)
        delta = error = x.r[t] + rules.ahead * x.discount[t] * V[y] - rules.own * V[s]
        if rules.attached:
            pull = x.beta * fade * np.log(p[int(a)])
            V[s] -= pull
            V[y] += pull * rules.reaches * x.discount[t]
        V[s] += rules.learns * x.beta * (fade if rules.fade_critic else 1.0) * delta
        if rules.late:
            error = x.r[t] + x.discount[t] * V[y] - V[s]
        theta[s] += rules.sign * x.alpha * (fade if rules.fade else 1.0) * error * rules.score(p, int(a))
        fade *= x.discount[t]
    return theta


def wrong_passes(x: Play) -> Mistakes:
    """Other rules, and other readings of the episode."""
    end = np.append(x.discount[:-1], 0.0)
    rules = {
        NO_FADE: Rules(fade=False),
        "the critic's step is multiplied by gamma^t as well": Rules(fade_critic=True),
        NO_PI: Rules(score=lambda p, a: np.eye(len(p))[a]),
        OF_PI: Rules(score=lambda p, a: p[a] * (np.eye(len(p))[a] - p)),
        "the sign is wrong: theta goes downhill": Rules(sign=-1.0),
        "you leave out -V(s): the target instead of the TD error": Rules(own=0.0),
        "the actor's TD error is computed after the critic has moved": Rules(late=True),
        "all scores come from the policy before the episode": Rules(old_scores=True),
        "the critic does not learn along the way": Rules(learns=False),
        "there is no bootstrap: delta needs the value of the next state": Rules(ahead=0.0),
    }
    attached = [Rules(attached=True), Rules(attached=True, reaches=0.0)]
    plays = {
        "the step sizes are exchanged": x._replace(alpha=x.beta, beta=x.alpha),
        BOOTSTRAPS: x._replace(discount=np.full(len(x.r), x.discount.max())),
        STOPS: x._replace(discount=end),
        FORGETS: x._replace(discount=np.where(x.discount > 0, 1.0, 0.0)),
        PAYS_LATE: x._replace(r=x.r * x.discount),
        "you leave out the last step": x._replace(s=x.s[:-1], a=x.a[:-1], r=x.r[:-1], discount=x.discount[:-1]),
    }
    return [
        *((name, one_pass(x, y)) for name, y in rules.items()),
        *((name, one_pass(y)) for name, y in plays.items()),
        *(("the TD error is not detached: the actor's loss moves the critic too", one_pass(x, y)) for y in attached),
        ("you use the return less V(s) instead of the TD error", monte_carlo(x)),
    ]


def monte_carlo(x: Play) -> F:
    """REINFORCE with the critic as a baseline."""
    G, theta, V, fade = returns.discounted_sum(x.r, x.discount, x.V[x.s[-1]]), x.theta.copy(), x.V.copy(), 1.0
    for t, (s, a) in enumerate(zip(x.s, x.a, strict=False)):
        error = G[t] - V[s]
        V[s] += x.beta * error
        theta[s] += x.alpha * fade * error * (np.eye(theta.shape[1])[a] - complex_step.softmax(theta[s], True))
        fade *= x.discount[t]
    return theta
