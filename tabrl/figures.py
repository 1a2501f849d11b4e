"""Learning curves of Sutton & Barto, computed beside the exact values; `plots` draws them.

V (runs,S) values of many independent runs; alpha step sizes; n steps of the return; RMS root mean square error.
"""

from collections.abc import Sequence
from itertools import islice, product
from typing import NamedTuple

import numpy as np

from tabrl import sample
from tabrl.chain import evaluate, induce
from tabrl.mdp import MDP
from tabrl.prediction import n_step_td
from tabrl.replay import side_by_side
from tabrl.types import F, ValueUpdate

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
    streams = [sample.episodes(mdp, pi, own) for own in rng.spawn(runs)]
    rounds = list(islice(side_by_side(streams, mdp.S), episodes))
    rms = np.zeros((len(n), len(steps), runs))
    for (i, m), (j, a) in product(enumerate(n), enumerate(steps)):
        zero = np.zeros((runs, mdp.S))
        learned = n_step_td(rounds, n=m, alpha=float(a), V=zero) if a else [ValueUpdate(0, zero, 0.0)] * episodes
        for x in learned:
            with np.errstate(over="ignore", invalid="ignore"):  # large n and alpha may diverge
                rms[i, j] += np.sqrt(((x.V[:, live] - exact[live]) ** 2).mean(axis=1)) / episodes
    return Surface(n, steps, rms)
