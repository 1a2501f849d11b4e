"""Monte Carlo control: action values from whole episodes, and a policy that follows them.

Q (S,A) action values; G[t] = r[t] + discount[t] G[t+1] returns; b the policy that acts; eps exploration. Q changes
at the end of an episode only, last step first. An episode that is cut, by `limit` or by the environment, has
not ended: its return goes on with the value, in Q, of the state it was cut in. Every learner is an endless
generator of `ActionUpdate` over an explicit `MDP`, or a gymnasium environment with discrete, multi-discrete or
tuple observations; t counts transitions, those of the running episode too.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tabrl import checks
from tabrl.chain import induce, listed
from tabrl.control.acting import Learner, Rng
from tabrl.control.kernels import Moves
from tabrl.control.monte_carlo_kernels import (
    EVERY,
    FIRST,
    WEIGHTED,
    Behaviour,
    Tally,
    Trail,
    act,
    chance,
    learn_episode,
    walk,
)
from tabrl.errors import ModelError
from tabrl.graph import end_components, reachable, recurrent_classes
from tabrl.mdp import MDP
from tabrl.prediction import Alpha, harmonic
from tabrl.sample import BLOCK, Tables
from tabrl.types import ActionUpdate, B, F, I

VISITS = {"first": FIRST, "every": EVERY}


def mc_control(
    source: Any, rng: Rng, *, alpha: Alpha = harmonic, eps: float = 0.1, visit: str = "first", Q: F | None = None,
    limit: int | None = None, every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """On-policy Monte Carlo control with an eps-soft policy.

        Q(s[t],a[t]) <- Q(s[t],a[t]) + alpha (G[t] - Q(s[t],a[t])),   actions eps-greedy in Q

    source: an `MDP`, or a gymnasium environment, whose discount is `gamma` (a model has its own). alpha: 1/k at
    a pair's k-th update unless given, so that Q is the average return. visit: "first" visit of a pair in an
    episode, or "every". Q: first values (S,A), zeros unless given. Maximisers are equally likely. limit:
    largest number of steps of an episode; a cut episode goes on with the mean of Q under the eps-greedy policy
    (an average forgets its first such tails slowly, a constant alpha does not). One record per `every`
    transitions; the result does not depend on it. Learns the values of the policy that acts: at best those of
    the best eps-soft policy, not Q*. eps=1 evaluates the uniform policy.
    Raises ModelError where a model has episodes that may never end, and no limit is given.
    Source: Sutton & Barto (2018), section 5.4.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(mc_control(two, np.random.default_rng(0), every=2))
    ActionUpdate(t=2, Q=array([[5.],
           [0.]]), delta=0.0)
    """
    rule = visited(visit)
    return MonteCarlo(rule, None, False, source, rng, alpha, eps, Q, limit, every, gamma).records()


def exploring_starts(
    source: Any, rng: Rng, *, alpha: Alpha = harmonic, visit: str = "first", Q: F | None = None,
    limit: int | None = None, every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Monte Carlo control with exploring starts: a random first pair, the greedy policy after it.

        Q(s[t],a[t]) <- Q(s[t],a[t]) + alpha (G[t] - Q(s[t],a[t])),   a[t] greedy in Q for t > 0

    On a model the first pair is uniform over all legal pairs of non-terminal states; mu does not count. A
    gymnasium environment starts where it likes, and only the first action is uniform: states that it does
    not start in may stay unexplored. A greedy policy can run in circles: give a `limit` unless every policy
    ends; a cut episode goes on with the maximum of Q. Other arguments as in `mc_control`. Whether it always
    converges to Q* is an open question. Source: Sutton & Barto (2018), section 5.3.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(exploring_starts(two, np.random.default_rng(0), every=2)).Q.tolist()
    [[5.0], [0.0]]
    """
    rule = visited(visit)
    return MonteCarlo(rule, None, True, source, rng, alpha, 0.0, Q, limit, every, gamma).records()


def off_policy_mc_control(
    source: Any, rng: Rng, *, eps: float = 0.1, b: F | None = None, Q: F | None = None, limit: int | None = None,
    every: int = BLOCK, gamma: float | None = None,
) -> Iterator[ActionUpdate]:  # fmt: skip
    """Off-policy Monte Carlo control by weighted importance sampling: one policy acts, the greedy one is learned.

        C(s[t],a[t]) <- C(s[t],a[t]) + W,   Q(s[t],a[t]) <- Q(s[t],a[t]) + W/C (G[t] - Q(s[t],a[t]))
        W <- W / b(a[t]|s[t]),   stop where a[t] is not the greedy action

    for t = T-1, T-2, …, from W = 1. The target policy takes the first maximiser of Q (as `bellman.greedy`), so
    its ratio is 1/b for that action and 0 for the others. b: (S,A) policy that acts, with a positive
    probability of every legal action (checked on a model); unless given, the eps-greedy policy in Q with
    equally likely maximisers, each action weighted with the probability it was drawn with. Step sizes are
    the W/C alone. Every visit counts; a cut episode goes on with the maximum of Q. Only the steps from the
    last action on that was not greedy teach, so long episodes teach little; where b seldom takes the greedy
    action, W can have infinite variance (see `importance`). Other arguments as in `mc_control`.
    Source: Sutton & Barto (2018), section 5.7.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(off_policy_mc_control(two, np.random.default_rng(0), every=2)).Q.tolist()
    [[5.0], [0.0]]
    """
    if b is None and eps == 0:
        raise ValueError(f"eps is {eps}; a number in (0, 1] is expected, as the target needs every action tried")
    return MonteCarlo(WEIGHTED, b, False, source, rng, 1.0, eps, Q, limit, every, gamma).records()


class MonteCarlo(Learner):
    """A learner that waits for the end of the episode; `rule` says what it does then."""

    draws = 3

    def __init__(self, rule: int, b: F | None, exploring: bool, *settings: Any) -> None:
        super().__init__(*settings)
        S, A = self.Q.shape
        self.rule, self.exploring = rule, exploring
        self.pi = np.zeros((0, 0)) if b is None else checks.policy(b, S, A, None, "b")
        self.starts = self.on_model() if isinstance(self.source, MDP) else np.zeros(0, np.int64)
        self.C, self.first = np.zeros((S, A)), np.zeros(S * A, np.int64)
        self.delta, self.T = 0.0, 0
        self.trail = Trail(*(np.zeros(0, kind) for kind in (np.int64, np.int64, float, float, float)))

    def on_model(self) -> I:
        """Check what is known of a model in advance; return the pairs that episodes are started with."""
        mdp, alive = self.source, self.source.legal & ~self.source.terminal[:, None]
        if len(self.pi):
            covers(checks.policy(self.pi, mdp.S, mdp.A, mdp.legal, "b"), alive)
        if self.limit >= 2**62:  # none was given
            start = ~mdp.terminal if self.exploring else mdp.mu > 0
            ends(mdp, start, soft=self.eps > 0 or len(self.pi) > 0)
        return np.flatnonzero(alive if self.exploring else alive & False)

    def columns(self, model: Tables) -> int:
        """Uniform numbers per step of a model: exploring starts always need one for the first pair."""
        return self.draws

    def room(self, n: int) -> Trail:
        """The running episode, with room for n steps."""
        if n > len(self.trail.r):
            columns: Any = (np.append(x, np.zeros(2 * n - len(x), x.dtype)) for x in self.trail)
            self.trail = Trail(*columns)
        return self.trail

    def tally(self, n: int) -> Tally:
        """The counts, with step sizes for n more updates."""
        return Tally(self.steps.ahead(n), self.steps.count, self.C, self.first)

    def walk(self, model: Tables, at: I, u: F, out: Moves) -> float:
        """Act and learn on a model."""
        n, behaviour = int(at[2]) + len(u), Behaviour(self.eps, self.pi, self.starts)
        self.delta = walk(
            self.rule, self.Q, self.legal, behaviour, self.room(n), self.tally(n), model, self.limit, self.delta, at, u,
            out,
        )  # fmt: skip
        return self.delta

    def update(self, x: Moves, u: F) -> float:
        """Learn from one step of an environment."""
        s, a, r, discount, s_next, _, over = (y[0] for y in x)
        b = chance(self.Q, self.legal, self.eps, self.pi, s, a)
        for column, y in zip(self.room(self.T + 1), (s, a, r, discount, b), strict=True):
            column[self.T] = y
        self.T += 1
        if over:
            self.delta = learn_episode(
                self.rule, self.Q, self.legal, self.eps, *self.trail, self.T, s_next, *self.tally(self.T)
            )
            self.T = 0
        return self.delta

    def action(self, s: int, u: float) -> int:
        """Draw an action in state s of an environment: any one where exploring starts open an episode."""
        eps = 1.0 if self.exploring and self.T == 0 else self.eps
        return act(self.Q, self.legal, eps, self.pi, s, u)


def visited(visit: str) -> int:
    """Return the rule for the visits that count."""
    if visit not in VISITS:
        raise ValueError(f"visit is {visit!r}; 'first' or 'every' is expected")
    return VISITS[visit]


def covers(b: F, alive: B) -> None:
    """Require that b can take every action that a greedy policy may take."""
    if (alive & (b == 0)).any():
        s, a = np.argwhere(alive & (b == 0))[0]
        raise ModelError(f"b[s={s}, a={a}] is 0; a positive probability of every legal action is expected")


def ends(mdp: MDP, start: B, soft: bool) -> None:
    """Require that episodes end: of any policy, or of policies that can take every action."""
    if soft:
        stays = recurrent_classes(induce(mdp, mdp.legal / mdp.legal.sum(axis=1, keepdims=True)).P)[0]
    else:
        stays = end_components(mdp)[0]
    forever = np.flatnonzero((stays >= 0) & reachable(mdp, start))
    if len(forever):
        where = listed(forever)
        raise ModelError(f"limit is None; a number of steps is expected, as an episode can stay in s={where} for ever")
