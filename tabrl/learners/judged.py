"""What was learned, held against what is exactly known.

V (K,runs,S), Q (K,runs,S,A), theta (K,runs,S,A) what was learned; V_pi (S,) exact; J expected return from the start
distribution.
"""

import math
from functools import cached_property

import numpy as np

from tabrl import companions, dp
from tabrl.chain import evaluate, induce, occupancy
from tabrl.errors import ModelError, NotConverged
from tabrl.learners import Task
from tabrl.mdp import MDP
from tabrl.policy import softmax
from tabrl.rounding import U
from tabrl.td_moments import ValueMoments
from tabrl.types import F


class Valued:
    """Learned values (K,runs,S), and what is exactly known about them."""

    def __init__(self, mdp: MDP, V: F, V_pi: F, moments: list[ValueMoments] | None, floor: float | None) -> None:
        self.mdp, self.V, self.V_pi, self.moments, self.floor = mdp, V, V_pi, moments, floor

    @cached_property
    def squares(self) -> F:
        """Mean square error over the states that are not terminal, (K,runs)."""
        with np.errstate(over="ignore", invalid="ignore"):  # runs that diverged
            return ((self.V - self.V_pi) ** 2)[:, :, ~self.mdp.terminal].mean(axis=2)  # type: ignore[no-any-return]

    @cached_property
    def expected(self) -> F | None:
        """Exact expectation of the same, (K,); None where it is not known."""
        if self.moments is None:
            return None
        return np.array([companions.square(x, self.V_pi, self.mdp.terminal) for x in self.moments])


def exact(task: Task) -> tuple[F, list[ValueMoments] | None, float | None]:
    """V_pi; and for TD(0), where affordable, the moments over time and the limit of the mean square error."""
    mdp, pi, alpha = task.source, task.pi, task.settings.get("alpha")
    assert pi is not None
    V = evaluate(induce(mdp, pi))
    if task.limit is not None or not companions.is_td0(task.name, task.settings):
        return V, None, None
    return V, companions.td0_moments(mdp, pi, alpha, task.times), companions.square_floor(mdp, pi, V, alpha)  # type: ignore[arg-type]


class Acting:
    """Learned action values, and the exact worth of the policies that they stand for."""

    def __init__(self, mdp: MDP, Q: F, eps: float) -> None:
        self.mdp, self.Q, self.legal, self.eps = mdp, Q, mdp.legal, eps
        self.star = companions.control(mdp, eps)

    def worth(self, Q: F, eps: float) -> F:
        """J of the policies that are eps-greedy in Q (…,S,A): (…)."""
        flat = Q.reshape(-1, *Q.shape[-2:])
        found = [companions.worth(self.mdp, companions.eps_greedy(q, self.legal, eps)) for q in flat]
        return np.array(found).reshape(Q.shape[:-2])

    @cached_property
    def curve(self) -> F:
        """J of the acting policy at every time and in every run: (K,runs)."""
        return self.worth(self.Q, self.eps)

    def gaps(self, Q_star: F) -> F:
        """Largest distance of the final Q from given action values, (runs,)."""
        return np.array([companions.gap(self.mdp, q, Q_star, self.legal) for q in self.Q[-1]])


NEAR = 0.01  # of J*: what counts as near to it


class Improved:
    """Learned softmax policies theta (K,runs,S,A), and their exact worth."""

    def __init__(self, mdp: MDP, theta: F) -> None:
        self.mdp, self.theta = mdp, theta
        self.star = dp.solve(mdp)
        self.J_star = float(mdp.mu @ self.star.V)

    @cached_property
    def curve(self) -> F:
        """J of the policy at every time and in every run: (K,runs); nan where it has none, see `worth`."""
        K, runs = self.theta.shape[:2]
        return np.array([[worth(self.mdp, self.theta[k, i]) for i in range(runs)] for k in range(K)])

    @cached_property
    def start(self) -> float:
        """J of the policy that all runs start from, which is uniform."""
        return worth(self.mdp, np.zeros_like(self.theta[0, 0]))

    @cached_property
    def final(self) -> F:
        """The last policies (runs,S,A)."""
        return np.array([softmax(x, self.mdp.legal) for x in self.theta[-1]])

    @property
    def near(self) -> int:
        """Number of runs whose last policy is within 1 % of J*."""
        return int((self.J_star - self.curve[-1] <= NEAR * abs(self.J_star) + self.star.bound).sum())


def worth(mdp: MDP, theta: F) -> float:
    """Exact J of a softmax policy; nan where it has none at gamma = 1, or rounding hides whether it ends.

    Only states that can be reached from mu count.

    >>> loop = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [-1, 0], 1.0, terminal=[0, 1], mu=[1, 0])
    >>> worth(loop, np.zeros((2, 2)))
    -2.0
    """
    pi = softmax(theta, mdp.legal)
    if mdp.gamma == 1:
        try:
            steps = float(occupancy(induce(mdp, pi), mdp.mu).sum())
        except (ModelError, NotConverged):
            return math.nan
        if not U * (mdp.S + mdp.A) * steps < 1e-3:
            return math.nan
    return companions.worth(mdp, pi)
