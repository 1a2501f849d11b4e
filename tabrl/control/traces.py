"""Control with eligibility traces: every step teaches the pairs that led to it.

Q (S,A) action values; z (S,A) traces; pi eps-greedy in Q, ties uniform; lam trace decay; alpha step size; delta TD
error. Every learner is an endless generator of `ActionUpdate` over an explicit `MDP`, or a gymnasium environment
with discrete, multi-discrete or tuple observations. A step costs as many operations as there are traces that are
not 0; none is cut off before it is.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tabrl.control.acting import Learner, Rng
from tabrl.control.kernels import Moves
from tabrl.control.traces_kernels import SARSA_LAMBDA, WATKINS_Q, Traces, trace_update, trace_walk
from tabrl.prediction import TRACES
from tabrl.sample import BLOCK, Tables
from tabrl.schedules import Alpha, fraction
from tabrl.types import ActionUpdate, F, I


def sarsa_lambda(
    source: Any, rng: Rng, *, lam: float, trace: str = "accumulating", alpha: Alpha, eps: float = 0.1,
    Q: F | None = None, limit: int | None = None, every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """SARSA(lambda).

        delta = r + discount Q(s',a') - Q(s,a),   Q <- Q + alpha delta z,   z <- discount lam z

    trace: what a visit does to z(s,a) before that: "accumulating" adds 1, "replacing" makes it 1 (and leaves the
    other actions of the state alone), "dutch" adds 1 - alpha z(s,a). a' is drawn from pi before the update. A
    schedule gives the step size of the visited pair, which all pairs use. Traces end with the episode; in a cut
    one a' is drawn for the target and not taken. lam=0 is SARSA. Other arguments, and errors, as in `q_learning`;
    ValueError for lam outside [0, 1] and for other traces.
    Source: Rummery & Niranjan (1994); Singh & Sutton (1996); Sutton & Barto (2018), section 12.7.

    >>> from tabrl import MDP
    >>> line = MDP(np.eye(4)[[1, 2, 3, 3]][:, None], [0, 0, 1, 0], 0.5, terminal=[0, 0, 0, 1], mu=[1, 0, 0, 0])
    >>> next(sarsa_lambda(line, np.random.default_rng(0), lam=1.0, alpha=0.5, every=3)).Q.ravel().tolist()
    [0.125, 0.25, 0.5, 0.0]
    """
    return Traced(SARSA_LAMBDA, lam, trace, source, rng, alpha, eps, Q, limit, every, gamma).records()


def watkins_q(
    source: Any, rng: Rng, *, lam: float, trace: str = "accumulating", alpha: Alpha, eps: float = 0.1,
    Q: F | None = None, limit: int | None = None, every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Watkins's Q(lambda): Q-learning with traces that last as long as the actions are greedy.

        delta = r + discount max over b of Q(s',b) - Q(s,a),   Q <- Q + alpha delta z,   z <- discount lam z

    When the next action a' is not greedy, all traces become 0. It is greedy if Q(s',a') is the maximum over the
    legal actions, ties and lucky draws of an exploring step included. As in Q-learning a' is drawn after the
    update, and judged by the values that it was drawn from. Learns the values of the greedy policy, whatever
    eps. lam=0 is Q-learning. Everything else as in `sarsa_lambda`.
    Source: Watkins (1989); Sutton & Barto (2018), section 12.10.

    >>> from tabrl import MDP
    >>> line = MDP(np.eye(4)[[1, 2, 3, 3]][:, None], [0, 0, 1, 0], 0.5, terminal=[0, 0, 0, 1], mu=[1, 0, 0, 0])
    >>> next(watkins_q(line, np.random.default_rng(0), lam=1.0, alpha=0.5, every=3)).Q.ravel().tolist()
    [0.125, 0.25, 0.5, 0.0]
    """
    return Traced(WATKINS_Q, lam, trace, source, rng, alpha, eps, Q, limit, every, gamma).records()


class Traced(Learner):
    """A learner with eligibility traces; `rule` says which."""

    def __init__(self, rule: int, lam: float, trace: str, *settings: Any) -> None:
        fraction("lam", lam)
        if trace not in TRACES:
            raise ValueError(f"trace is {trace!r}; one of {', '.join(TRACES)} is expected")
        super().__init__(*settings)
        self.rule, self.kind, self.lam = rule, TRACES[trace], float(lam)
        self.ahead, self.draws = rule == SARSA_LAMBDA, 4 if rule == SARSA_LAMBDA else 3
        self.Q = np.ascontiguousarray(self.Q)
        self.q = self.Q.reshape(-1)  # the same memory
        self.traces = Traces(np.zeros(self.Q.size), np.zeros(self.Q.size, np.int64), np.zeros(1, np.int64))

    def walk(self, model: Tables, at: I, u: F, out: Moves) -> float:
        """Act and learn on a model."""
        legal = None if self.legal.all() else self.legal
        ahead, count = self.steps.ahead(len(u)), self.steps.count
        return trace_walk(
            self.rule, self.kind, self.lam, self.Q, self.q, legal, self.eps, self.traces, ahead, count, model,
            self.limit, at, u, out,
        )  # fmt: skip

    def update(self, x: Moves, u: F) -> float:
        """Learn from one step."""
        ahead, count = self.steps.ahead(1), self.steps.count
        return trace_update(
            self.rule, self.kind, self.lam, self.Q, self.q, self.legal, self.traces, ahead, count, x, 0
        )  # fmt: skip
