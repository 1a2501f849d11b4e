"""First-visit and every-visit Monte Carlo: their exact bias and mean-square error.

In one episode the visits to s cut it into cycles, which return to s with probability f each, and a last part.
Episodes are independent, cycles too. n counts the episodes that visit s; everything here is given that number.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.chain import average, evaluate, induce, listed, return_variance
from tabrl.errors import ModelError
from tabrl.graph import recurrent_classes
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.types import F

TAIL = 1e-18  # probability of more visits than are summed over


class Cycle(NamedTuple):
    """What happens between a visit to s and the next, or the end: X discounted reward, g discount so far."""

    back: float  # probability f of another visit
    discount: float  # E[g | back]
    discount2: float  # E[g^2 | back]
    reward: float  # E[X | back]
    reward2: float  # E[X^2 | back]
    both: float  # E[g X | back]
    final: float  # E[X | no other visit]
    final2: float  # E[X^2 | no other visit]


class EveryVisit(NamedTuple):
    """Bias, variance and mean-square error of an average over visits."""

    bias: float
    variance: float
    mse: float


def cycle(mdp: MDP, pi: F, s: int) -> Cycle:
    """First two moments of the cycles between visits to a state.

    pi: (S,A). s: a non-terminal state. With h the probability of another visit, for each power:
    b(s) = sum of P R h + gamma P b, and the same with 1 - h for the last part. Discounts that are conditioned on an
    event of probability 0 are 0. Raises ModelError unless the policy ends from everywhere.
    Source: the cycle decomposition of Singh & Sutton (1996), section 3.

    >>> from tabrl.envs.chains import loop
    >>> cycle(loop(0.75, stay=2, end=5), np.ones((2, 1)), 0)[:6:3], cycle(loop(0.75), np.ones((2, 1)), 0).final
    ((0.75, 2.0), 1.0)
    """
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    if not 0 <= s < mdp.S or mdp.terminal[s]:
        raise ModelError(f"s is {s}; a non-terminal state in 0 … {mdp.S - 1} is expected")
    chain, gamma = induce(mdp, pi), mdp.gamma
    endless = recurrent_classes(chain.P)[0] >= 0
    if endless.any():
        where = listed(np.flatnonzero(endless))
        raise ModelError(f"pi never ends from states {where}; Monte Carlo needs whole episodes")
    P, PR, PR2 = (dense(average(mdp, pi, mdp.weighted(k))) for k in range(3))
    at = np.arange(mdp.S) == s
    taboo = P * ~at  # walks that have not come back yet

    def reach(scale: float, b: F) -> F:
        return solve(taboo, scale, b)

    back, g, g2 = (reach(gamma**k, gamma**k * P[:, s]) for k in range(3))

    def rewards(h: F, tail: F) -> tuple[F, F]:
        """E[X 1] and E[X^2 1] of the event with probability h ahead; tail: h, except after coming back."""
        first = reach(gamma, PR @ h)
        return first, reach(gamma**2, PR2 @ h + 2 * gamma * (PR * ~at) @ first)

    home = np.where(at, 1.0, np.where(chain.terminal, 0.0, back))
    away = np.where(at, 0.0, np.where(chain.terminal, 1.0, 1 - back))
    x, x2 = rewards(home, home)
    y, y2 = rewards(away, away)
    g_home = np.where(at, 1.0, np.where(chain.terminal, 0.0, g))
    both = reach(gamma**2, gamma * PR @ g_home)
    f = float(min(back[s], 1.0))
    given = [float(v[s]) / f if f > 0 else 0.0 for v in (g, g2, x, x2, both)]
    return Cycle(f, *given, float(y[s]) / (1 - f), float(y2[s]) / (1 - f))
