"""Learning curves of Sutton & Barto, computed beside the exact values; `plots` draws them.

V (runs,S) values of many independent runs; alpha step sizes; n steps of the return; RMS root mean square error.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from tabrl import sample
from tabrl.chain import evaluate, induce
from tabrl.learning_kernels import n_step_runs
from tabrl.mdp import MDP
from tabrl.types import F, I, Transitions

POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Surface(NamedTuple):
    """RMS errors over n and alpha, each averaged over states, episodes and runs."""

    n: Sequence[int]
    alpha: F  # (K,)
    rms: F  # (len(n), K, runs) average over the episodes of each run


def n_step_surface(
    mdp: MDP,
    pi: F,
    rng: np.random.Generator,
    *,
    n: Sequence[int] = POWERS,
    alpha: F | None = None,
    runs: int = 100,
    episodes: int = 10,
) -> Surface:
    """Error of n-step TD in its first episodes, for many n and alpha on the same experience.

        RMS = mean over runs and episodes of sqrt(mean over non-terminal s of (V(s) - V_pi(s))**2)

    The errors are those after each episode, from V = 0. On `envs.random_walk_19` with the defaults
    (11 step sizes from 0 to 1) this is figure 7.2. Source: Sutton & Barto (2018), section 7.1; ledger E1.8.

    pi: (S,A). Returns rms (len(n), len(alpha), runs); inf or nan where a run diverged.

    >>> from tabrl.envs import random_walk
    >>> walk = random_walk(3)
    >>> n_step_surface(walk, np.ones((5, 1)), np.random.default_rng(0), n=(1, 2), runs=4).rms.shape
    (2, 11, 4)
    """
    steps = np.linspace(0, 1, 11) if alpha is None else np.asarray(alpha, np.float64)
    exact = evaluate(induce(mdp, pi))
    live = np.flatnonzero(~mdp.terminal)
    rounds = list(side_by_side(mdp, pi, rng, runs, episodes))
    rms = np.zeros((len(n), len(steps), runs))
    error = np.zeros(2)
    for i, m in enumerate(n):
        for j, a in enumerate(steps):
            V = np.zeros((runs, mdp.S))
            for first, x in rounds:
                n_step_runs(V, first, *x, m, float(a), error)
                with np.errstate(over="ignore", invalid="ignore"):  # large n and alpha may diverge
                    rms[i, j] += np.sqrt(((V[:, live] - exact[live]) ** 2).mean(axis=1)) / episodes
    return Surface(n, steps, rms)


def side_by_side(
    mdp: MDP, pi: F, rng: np.random.Generator, runs: int, episodes: int
) -> Iterator[tuple[I, Transitions]]:
    """Draw the k-th episode of every run, for k = 1, …, episodes: (where each run begins, transitions)."""
    source = sample.episodes(mdp, pi, rng)
    for _ in range(episodes):
        drawn = [sample.from_episode(x) for x in islice(source, runs)]
        first = np.cumsum([0, *(len(x.r) for x in drawn)])
        yield first, sample.join(drawn)
