"""Policies of a bandit on their way through the probability simplex: exact paths, and sampled ones.

pi (3,) a point of the simplex, J = success . pi; success (3,) chance of each arm to pay 1; theta (3,) first
preferences; k updates.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tabrl import checks
from tabrl.cells import check_count
from tabrl.control.acting import Rng
from tabrl.mdp import MDP
from tabrl.natural import gradient_ascent, mirror_descent
from tabrl.policy import softmax
from tabrl.policy_gradients import reinforce
from tabrl.ppo import ppo
from tabrl.types import F, I, Names, PGStep

TINY = 1e-300  # bound at which exact ascent would stop by itself


class ExactPaths(NamedTuple):
    """Exact ascent from several starts."""

    gradient: F  # (starts,K,3) policies after 0, 1, … updates of gradient ascent
    natural: F  # (starts,K,3) of natural gradient ascent


class SampledPaths(NamedTuple):
    """Sampled ascent from one start, beside the exact gradient ascent with the same step size."""

    labels: Sequence[str]
    k: I  # (K,) updates
    pi: F  # (L,runs,K,3) policies after k updates
    gradient: F  # (updates + 1,3) exact ascent, with the step size of the first label


def bandit(success: Any = (0.8, 0.5, 0.1)) -> MDP:
    """A bandit whose arms pay 1 with the given chances, else 0, and end the episode. J(pi) = success . pi.

    >>> bandit().r[0]
    array([0.8, 0.5, 0.1])
    """
    p = checks.real(success, "success", np.shape(success))
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"success is {success}; probabilities, one for each arm, are expected")
    P, R = np.zeros((3, len(p), 3)), np.zeros((3, len(p), 3))
    P[0, :, 1], P[0, :, 2], R[0, :, 1] = p, 1 - p, 1.0
    P[1, :, 1] = P[2, :, 2] = 1.0
    names = Names(("play", "won", "lost"), tuple(f"arm {i + 1}" for i in range(len(p))))
    return MDP(P, R, 1.0, terminal=[False, True, True], mu=[1.0, 0.0, 0.0], names=names)


def exact_paths(mdp: MDP, theta: F, *, eta: float = 0.4, updates: int = 200) -> ExactPaths:
    """Exact gradient ascent and natural gradient ascent in a bandit, from several starts.

    theta: (starts,A) first preferences in state 0, the only one with a choice. The natural gradient takes
    pi exp(eta A), whatever pi is; the plain gradient is short near every corner, the wrong ones too.
    Source: Kakade (2001), figure 1; `natural.gradient_ascent`, `natural.mirror_descent`; ledger E1.10, E1.16.

    >>> exact_paths(bandit(), np.zeros((1, 3)), updates=2).natural.shape
    (1, 3, 3)
    """
    rules = gradient_ascent, mirror_descent

    def path(rule: Any, start: F) -> list[F]:
        steps = rule(mdp, eta=eta, theta=table(mdp, start), tol=TINY)
        return [x.pi[0] for x in islice(steps, updates + 1)]

    return ExactPaths(*np.array([[path(rule, start) for start in theta] for rule in rules]))


def sampled_paths(
    mdp: MDP, theta: F, rng: Rng, *, eta: float = 0.4, updates: int = 200, batch: int = 16, every: int = 4,
    runs: int = 30,
) -> SampledPaths:  # fmt: skip
    """REINFORCE without a baseline, and PPO, in a bandit from one start: `batch` plays per update.

    theta: (A,) first preferences in state 0. REINFORCE steps eta along the mean of the plays, so that each update
    is gradient ascent in the mean. PPO as `ppo.ppo` sets it, in one part. every: updates per point.

    >>> sampled_paths(bandit(), np.zeros(3), np.random.default_rng(0), updates=8, runs=2).pi.shape
    (2, 2, 3, 3)
    """
    start = table(mdp, theta)
    methods: dict[str, Callable[[Rng], Iterator[PGStep]]] = {
        f"REINFORCE, {batch} plays per update": partial(
            reinforce, mdp, step=eta, episodes=batch, theta=start, every=every
        ),
        f"PPO, {batch} plays per update": partial(ppo, mdp, steps=batch, minibatches=1, theta=start, every=every),
    }
    k = np.arange(0, updates + 1, check_count(every, "every", 1))
    pi = np.empty((len(methods), check_count(runs, "runs", 1), len(k), mdp.A))
    for i, method in enumerate(methods.values()):
        for j, own in enumerate(rng.spawn(runs)):
            thetas = [theta, *(x.theta[0] for x in islice(method(own), len(k) - 1))]
            pi[i, j] = softmax(np.array(thetas))
    return SampledPaths(tuple(methods), k, pi, exact_paths(mdp, theta[None], eta=eta, updates=updates).gradient[0])


def table(mdp: MDP, theta: F) -> F:
    """Preferences (S,A) from those of state 0 (A,)."""
    full = np.zeros((mdp.S, mdp.A))
    full[0] = checks.real(theta, "theta", (mdp.A,))
    return full
