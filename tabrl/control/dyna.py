"""Planning with a learned model: Dyna-Q, Dyna-Q+, and prioritized sweeping.

Q (S,A) action values; p = s A + a a pair; planning updates in imagination per step of the world; alpha step
size; eps exploration; delta error of the last step taken. Like the learners of `control`, each is an endless
generator of `ActionUpdate` over an explicit `MDP`, or a gymnasium environment.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.branches import dense_enough
from tabrl.control import dyna_kernels
from tabrl.control.acting import Learner, Rng
from tabrl.control.dyna_kernels import Counts, Memory, Plan, Queue, Sweeping
from tabrl.control.kernels import Moves
from tabrl.errors import ModelError
from tabrl.graph import reachable, recurrent_classes
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.prediction import Alpha
from tabrl.sample import BLOCK, Tables
from tabrl.types import ActionUpdate, B, F, I


def dyna_q(
    source: Any, rng: Rng, *, planning: int, alpha: Alpha, eps: float = 0.1, Q: F | None = None,
    limit: int | None = None, every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Dyna-Q: Q-learning from each step, and from `planning` remembered ones.

        Q(s,a) <- Q(s,a) + alpha (r + discount max over a' of Q(s',a') - Q(s,a))

    The model is the last outcome (r, discount, s') of each pair; planning repeats that of pairs met before,
    each pair as likely as the other. planning=0 is Q-learning, bit for bit. alpha: a number, or a schedule
    of the number of the pair's update, real or imagined. Other arguments as in `control.q_learning`; delta
    is the error of the step itself. In a deterministic world Q goes to Q* if every pair is tried. In a random
    world it need not, however small alpha: an outcome is repeated until the pair is tried again, so those
    that lead far away weigh more; `remembered` gives the limit.
    Source: Sutton (1990); Sutton & Barto (2018), section 8.2 (whose box draws a state, then an action).

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(dyna_q(two, np.random.default_rng(0), planning=2, alpha=0.5, every=1)).Q.tolist()
    [[4.375], [0.0]]
    """
    return Dyna(planning, None, source, rng, alpha, eps, Q, limit, every, gamma).records()


def dyna_q_plus(
    source: Any, rng: Rng, *, planning: int, alpha: Alpha, kappa: float, eps: float = 0.1, Q: F | None = None,
    limit: int | None = None, every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Dyna-Q+: Dyna-Q that imagines a bonus for what it has not tried for long.

        planning learns from   r + kappa sqrt(tau) + discount max over a' of Q(s',a')

    tau: steps since the pair was tried, since the beginning if never. Once a state was visited, all its
    actions are planned; an untried one is taken to stay and pay 0. For worlds that change: Q is not Q* but
    the value with the bonus. kappa >= 0, in units of reward. Other arguments as in `dyna_q`.
    Source: Sutton (1990); Sutton & Barto (2018), section 8.3.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(dyna_q_plus(two, np.random.default_rng(0), planning=2, alpha=0.5, kappa=0.1, every=1)).Q.tolist()
    [[4.375], [0.0]]
    """
    return Dyna(planning, at_least_zero("kappa", kappa), source, rng, alpha, eps, Q, limit, every, gamma).records()


def prioritized_dyna(
    source: Any, rng: Rng, *, planning: int, alpha: Alpha = 1.0, theta: float = 1e-4, eps: float = 0.1,
    Q: F | None = None, limit: int | None = None, every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Prioritized sweeping with a learned model: plan where the error is largest.

        Q(s,a) <- Q(s,a) + alpha (mean of what was seen of r + discount max over a' of Q(s',a') - Q(s,a))

    The model is the counts of all outcomes and the mean rewards. A step queues its pair; then, at most
    `planning` times, the pair of largest |error| is updated and the pairs that can lead to its state are
    queued with theirs. Errors up to theta (units of reward) are left alone. With alpha=1, whenever the queue
    is empty Q solves the model seen so far within theta / (1 - gamma), so that Q comes as near to Q* as the
    counts grow, in random worlds too. In a deterministic one it is the textbook's algorithm. Other arguments
    as in `dyna_q`; `dp.prioritized_sweeping` is for known models.
    Source: Moore & Atkeson (1993); Sutton & Barto (2018), section 8.4.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(prioritized_dyna(two, np.random.default_rng(0), planning=2, every=1)).Q.tolist()
    [[5.0], [0.0]]
    """
    return Prioritized(planning, theta, source, rng, alpha, eps, Q, limit, every, gamma).records()


class Dyna(Learner):
    """Dyna-Q, or Dyna-Q+ where kappa is a number.

    To change the world under the learner, set `source` to one with the same states and actions and ask for
    `moves` again: it begins an episode there and keeps what it has learned.
    """

    def __init__(self, planning: int, kappa: float | None, *settings: Any) -> None:
        super().__init__(*settings)
        n, size = whole("planning", planning, 0), self.Q.size
        self.plan = Plan(n, at_least_zero("kappa", kappa or 0.0), kappa is not None, float(self.gamma))
        self.draws = 3 + n
        never, zeros = np.full(size, -1), np.zeros(size)
        self.memory = Memory(never, zeros, zeros.copy(), none(size), none(size), none(2))

    def walk(self, model: Tables, at: I, u: F, out: Moves) -> float:
        """Act, learn and plan on a model."""
        legal, ahead = None if self.legal.all() else self.legal, self.steps.ahead(len(u) * (1 + self.plan.n))
        settings = self.Q, legal, self.eps, ahead, self.steps.count, self.memory, self.plan
        return dyna_kernels.dyna_walk(*settings, model, self.limit, at, u, out)

    def update(self, x: Moves, u: F) -> float:
        """Learn from one step, and plan."""
        ahead, count = self.steps.ahead(1 + self.plan.n), self.steps.count
        return dyna_kernels.dyna_step(self.Q, self.legal, ahead, count, self.memory, self.plan, x, 0, u[None])


class Prioritized(Learner):
    """Prioritized sweeping with counts; `source` can be changed as in `Dyna`."""

    draws = 3

    def __init__(self, planning: int, theta: float, *settings: Any) -> None:
        super().__init__(*settings)
        self.plan = Sweeping(whole("planning", planning, 1), at_least_zero("theta", theta), float(self.gamma))
        (S, _), size = self.Q.shape, self.Q.size
        self.queue = Queue(none(size), np.full(size, -1), np.zeros(size), none(1))
        never, edges = (np.full(size, -1), np.full(S, -1)), (none(0), none(0), none(0), none(0), none(0))
        self.counts = Counts(none(size), np.zeros(size), *never, none(1), *edges)

    def walk(self, model: Tables, at: I, u: F, out: Moves) -> float:
        """Act and plan on a model."""
        self.counts = with_room(self.counts, len(u))
        legal, ahead = None if self.legal.all() else self.legal, self.steps.ahead(len(u) * self.plan.n)
        settings = self.Q, legal, self.eps, ahead, self.steps.count, self.counts, self.queue, self.plan
        return dyna_kernels.sweeping_walk(*settings, model, self.limit, at, u, out)

    def update(self, x: Moves, u: F) -> float:
        """Count one step, and plan."""
        self.counts = with_room(self.counts, 1)
        ahead, count = self.steps.ahead(self.plan.n), self.steps.count
        return dyna_kernels.sweeping_step(self.Q, self.legal, ahead, count, self.counts, self.queue, self.plan, x, 0)


def none(n: int) -> I:
    """Counts that begin at 0: (n,)."""
    return np.zeros(n, np.int64)


def with_room(counts: Counts, n: int) -> Counts:
    """Make room for n more edges."""
    E, need = len(counts.pair), int(counts.edges[0]) + n
    if need <= E:
        return counts
    more = np.zeros(max(need, 2 * E) - E, np.int64)
    columns = "pair", "s_next", "taken", "edge_next", "back_next"
    return counts._replace(**{name: np.concatenate([getattr(counts, name), more]) for name in columns})


def steps_per_episode(learner: Learner, episodes: int) -> I:
    """Lengths of a learner's next episodes, cut ones included: (episodes,).

    Endless where an episode is, so give the learner a limit unless its world surely ends. Steps that follow
    the last of them, up to `every`, are taken too.
    Source: the curves of Sutton & Barto (2018), figure 8.2.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> steps_per_episode(Dyna(5, None, two, np.random.default_rng(0), 0.5, 0.1, None, None, 10, None), 3)
    array([1, 1, 1])
    """
    whole("episodes", episodes, 1)
    ends, t = np.zeros(1, np.int64), 0
    for x, _ in learner.moves():
        ends = np.append(ends, np.flatnonzero(x.last) + t + 1)
        t += len(x.r)
        if len(ends) > episodes:
            break
    return np.diff(ends[: episodes + 1])


def remembered(mdp: MDP, pi: F, planning: int) -> MDP:
    """The model that Dyna-Q stands on in the long run, where pi acts and steps are small.

        P'(s'|s,a) proportional to P(s'|s,a) (1 + planning / K * tau(s'))

    tau(s'): expected steps until the pair is tried again after it led to s', for episodes that restart from
    mu and have no time limit; K: pairs that pi can meet. An outcome is learned from once, and then planning / K
    times per step, on average, as long as it is remembered. Q* of this model is where Dyna-Q settles; it is
    the true Q* if planning=0, if the world is deterministic, or if tau does not depend on s'. pi: (S,A), e.g.
    the uniform policy for eps=1. Rows of pairs that pi never meets stay as they are. Raises ModelError where
    a pair is met now and then never again. Solves a dense (S,S) system for each pair.
    Source: an average over the time between two tries (renewal theory).

    >>> P = [[[0, 0.5, 0.5]], [[1, 0, 0]], [[0, 0, 1]]]
    >>> loop = MDP(P, np.zeros((3, 1)), 0.9, terminal=[0, 0, 1], mu=[1, 0, 0])
    >>> remembered(loop, np.ones((3, 1)), 2).P[0, 0]
    array([0. , 0.6, 0.4])
    """
    pi, n = checks.policy(pi, mdp.S, mdp.A, mdp.legal), whole("planning", planning, 0)
    met = reachable(mdp, mdp.mu > 0, pi > 0) & ~mdp.terminal
    rows = sp.csr_array(mdp.csr, copy=True)
    K = int((pi[met] > 0).sum())
    for p, tau in return_times(mdp, pi, met):
        row = slice(rows.indptr[p], rows.indptr[p + 1])
        weight = rows.data[row] * (1.0 + n / K * tau[rows.indices[row]])
        rows.data[row] = weight / weight.sum()
    return replace(mdp, P=rows if mdp.is_sparse else rows.toarray().reshape(mdp.S, mdp.A, mdp.S))


def return_times(mdp: MDP, pi: F, met: B) -> Iterator[tuple[int, F]]:
    """Yield each pair p that pi meets, and the expected steps until its next try, by the state it led to (S,).

    met: (S,) states in which pi acts; an episode that ends starts again from mu.
    """
    dense_enough(mdp.S)
    if mdp.terminal[mdp.mu > 0].any():
        s = int(np.argmax(mdp.terminal & (mdp.mu > 0)))
        raise ModelError(f"mu[{s}] is {mdp.mu[s]}; 0 is expected, as episodes start in non-terminal states")
    acts = np.diag(np.where(mdp.terminal, 0.0, 1.0)) + np.outer(mdp.terminal, mdp.mu)  # (S,S) from where one goes on
    moves = (mdp.csr @ acts).reshape(mdp.S, mdp.A, mdp.S)[np.ix_(met, np.ones(mdp.A, np.bool_), met)]
    P, states = (pi[met, :, None] * moves).sum(axis=1), np.flatnonzero(met)
    passing = recurrent_classes(P)[0] != 0
    if passing.any():
        s = states[int(np.argmax(passing))]
        raise ModelError(f"state {s} is met and may never be met again; a policy that keeps returning is expected")
    for i, a in np.argwhere(pi[met] > 0):
        others, rest = np.where(np.arange(mdp.A) == a, 0.0, pi[states[i]]), P.copy()
        rest[i] = (others[:, None] * moves[i]).sum(axis=0)
        yield states[i] * mdp.A + a, acts[:, met] @ solve(rest, 1.0, np.ones(len(states)))


def whole(name: str, value: int, least: int) -> int:
    """Refuse what is not a whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; a whole number from {least} on is expected")
    return int(value)


def at_least_zero(name: str, value: float) -> float:
    """Refuse what is not a finite number >= 0."""
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} is {value}; a finite number >= 0 is expected")
    return float(value)
