"""One preference to learn: whether to repair a worn machine. What lessons 9 to 12 have in common.

theta the preference for repairing over running, and x = 1/(1 + exp(-theta)) the probability of it; the machine of
`lessons.machine` with gamma = 0.8, where at theta = 0 all values are short decimals. A good machine leaves no choice,
so that all there is to know about the gradient of J is its slope in theta.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tabrl.lessons.machine import REPAIR, WORN, machine
from tabrl.mdp import MDP
from tabrl.plots import tidy
from tabrl.policy import score, softmax
from tabrl.policy_gradients import positions
from tabrl.rollout import Actor, Rollout
from tabrl.summary import standard_error
from tabrl.types import F

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAMMA = 0.8


def world() -> MDP:
    """The machine with this discount."""
    return machine(GAMMA)


def preferences(theta: float) -> F:
    """The table (3,2) with one preference in it; pi = softmax of it.

    >>> from tabrl.gradient import at
    >>> x = at(world(), preferences(0.0))
    >>> x.V, x.Q[WORN], x.d
    (array([5. , 2.5, 0. ]), array([2., 3.]), array([2.5 , 1.25, 0.25]))
    """
    table = np.zeros((3, 2))
    table[WORN, REPAIR] = theta
    return table


def policy(theta: float) -> F:
    """The softmax policy (3,2)."""
    return softmax(preferences(theta), world().legal)


def played(theta: float, episodes: int, seed: int) -> Rollout:
    """Whole episodes of the policy, one after the other."""
    return Actor(world(), np.random.default_rng(seed)).episodes(policy(theta), episodes)


def scores(x: Rollout, theta: float) -> F:
    """Slope of log pi(a|s) in theta at each step (n,): 1 - x where repaired, -x where a worn machine ran, else 0."""
    return np.where(x.s == WORN, score(policy(theta))[x.s, x.a, REPAIR], 0.0)


def discounted(x: Rollout, y: F, w: float = GAMMA) -> F:
    """Sum over the steps of each episode of w^t y_t: of rewards, its return. y: (n,); returns (episodes,)."""
    found: F = np.bincount(np.cumsum(x.last) - x.last, w ** positions(x)[1] * y).astype(np.float64)
    return found


def slopes(x: Rollout, theta: float, weight: F) -> F:
    """What each episode says about the slope of J: the sum of gamma^t score_t weight_t; weight (n,)."""
    return discounted(x, scores(x, theta) * weight)


def table(head: str, rows: list[tuple[str, float, F]]) -> str:
    """Markdown: what, its exact value, and mean and two standard errors of a sample; head names the columns."""
    lines = [f"| {what} | {exact:.4f} | {y.mean():.4f} ± {2 * standard_error(y):.4f} |" for what, exact, y in rows]
    return "\n".join([head, "|:--|--:|--:|", *lines])


def bar(ax: "Axes", at: float, y: F, colour: str, marker: str, label: str | None = None) -> None:
    """Draw the mean of a sample with two standard errors."""
    ax.errorbar(at, y.mean(), 2 * standard_error(y), fmt=marker, color=colour, ms=6, capsize=3, label=label)


def finish(ax: "Axes", title: str, where: Any = "best", **settings: Any) -> None:
    """Name the axes, place the legend, draw a grid."""
    ax.set(**settings)
    ax.set_title(title, fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc=where)
    tidy(ax)
