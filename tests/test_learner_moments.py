"""The learners and the sampler of the package against the exact moments of TD(0) and Monte Carlo.

Each comparison is a z-test at |z| <= 6.8 (see `paths`); all of them together have a false alarm below 1e-6.
"""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from models import random_mdp, random_policy
from paths import agree, second

from tabrl import MDP, chain, envs, sample
from tabrl.prediction import monte_carlo, td0
from tabrl.replay import checked, whole_episodes
from tabrl.td_moments import independent_moments, trajectory_moments
from tabrl.trace import last
from tabrl.visits import every_visit, first_visit

RUNS = 20_000


def started(mdp: MDP) -> MDP:
    mu = np.where(mdp.terminal, 0.0, 1.0)
    return MDP(mdp.P, mdp.R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal, legal=mdp.legal)


def cases() -> list[tuple[MDP, Any]]:
    """The continuing two-state chain, the 5-state walk, and cyclic models with terminal states and masks."""
    two, walk = envs.two_state(), envs.random_walk(5)
    out = [(two, np.ones((2, 1))), (walk, np.ones((7, 1)))]
    for seed in range(2):
        rng = np.random.default_rng([40, seed])
        mdp = started(random_mdp(rng, S=4, A=3, gamma=0.9, proper=True, masked=True, rewards="sas"))
        out.append((mdp, random_policy(rng, mdp)))
    return out


@pytest.mark.parametrize("case", range(4))
def test_td0_along_a_trajectory_has_the_exact_mean_and_covariance(case: int) -> None:
    mdp, pi = cases()[case]
    stream = sample.Stream(mdp, pi, np.random.default_rng([41, case]))
    steps, V = 12, np.empty((RUNS, mdp.S))
    for run in range(RUNS):
        stream.at = stream.at[:0]  # a new start
        x, _ = stream.draw(steps)
        V[run] = last(td0([x], alpha=0.4, V=np.zeros(mdp.S), every=steps)).V
    exact = last(trajectory_moments(mdp, pi, alpha=0.4, steps=steps))
    agree(V, exact.mean)
    agree(second(V, exact.mean), exact.covariance)


@pytest.mark.parametrize("case", range(4))
def test_td0_on_independent_transitions_has_the_exact_mean_and_covariance(case: int) -> None:
    mdp, pi = cases()[case]
    d = np.where(mdp.terminal, 0.0, 1.0) / (~mdp.terminal).sum()
    own = MDP(mdp.P, mdp.R, mdp.gamma, mu=d, terminal=mdp.terminal, legal=mdp.legal)
    stream = sample.Stream(own, pi, np.random.default_rng([42, case]), limit=1)  # a fresh start every step
    steps, V = 12, np.empty((RUNS, mdp.S))
    for run in range(RUNS):
        V[run] = last(td0([stream.draw(steps)[0]], alpha=0.4, V=np.zeros(mdp.S), every=steps)).V
    exact = last(independent_moments(mdp, pi, alpha=0.4, d=d, steps=steps))
    agree(V, exact.mean)
    agree(second(V, exact.mean), exact.covariance)


@pytest.mark.parametrize("n", [1, 3])
def test_monte_carlo_on_the_loop_has_the_exact_bias(n: int) -> None:
    """First visits are unbiased with the return's variance; every visit has its known bias."""
    loop = envs.loop(0.6, stay=1.0, end=1.0)
    pi = np.ones((loop.S, 1))
    V = chain.evaluate(chain.induce(loop, pi))
    s = int(np.argmax(loop.mu))
    stream = sample.Stream(loop, pi, np.random.default_rng([43, n]))
    episodes = list(islice(whole_episodes(checked(stream, loop.S), V, 1), n * RUNS))
    found = np.empty((RUNS, 2))
    for run in range(RUNS):
        batch = episodes[n * run : n * (run + 1)]
        for k, visit in enumerate(("first", "every")):
            found[run, k] = last(monte_carlo(batch, V=np.zeros(loop.S), visit=visit, every=n)).V[s]
    for column, exact in zip(found.T, (first_visit(loop, pi, s, n), every_visit(loop, pi, s, n)), strict=True):
        agree(column, V[s] + exact.bias)
        agree((column - V[s]) ** 2, exact.mse)
