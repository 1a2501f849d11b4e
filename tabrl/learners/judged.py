"""What was learned, held against what is exactly known.

V (K,runs,S), Q (K,runs,S,A) what was learned; V_pi (S,) exact; J expected return from the start distribution.
"""

from functools import cached_property

import numpy as np

from tabrl import companions
from tabrl.chain import evaluate, induce
from tabrl.learners import Task
from tabrl.mdp import MDP
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
