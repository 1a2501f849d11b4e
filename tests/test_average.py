"""Relative value iteration against the gain of the best policy."""

from itertools import product

import numpy as np
from models import random_mdp

from tabrl import MDP, bellman, chain, longrun
from tabrl.dp import relative_value_iteration
from tabrl.trace import last


def best_gain(mdp: MDP) -> float:
    """Largest gain over all deterministic policies, by the chains' closed form."""
    choices = [np.flatnonzero(mdp.legal[s]) for s in range(mdp.S)]
    policies = (bellman.one_hot(np.array(a), mdp.A) for a in product(*choices))
    return max(float(longrun.gain_bias(chain.induce(mdp, pi))[0].max()) for pi in policies)


def test_gain_interval_contains_the_best_policy_gain() -> None:
    for seed in range(15):
        rng = np.random.default_rng([11, seed])
        S, A = 4, 3
        mdp = MDP(rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A)), 0.9)
        truth = best_gain(mdp)
        for record in relative_value_iteration(mdp, tol=1e-9):
            assert abs(record.gain - truth) <= record.bound + 1e-12
        assert record.bound <= 1e-9


def test_periodic_model_converges() -> None:
    mdp = MDP([[[0, 1]], [[1, 0]]], [3, 1], 0.9)
    record = last(relative_value_iteration(mdp))
    assert abs(record.gain - 2) <= record.bound <= 1e-8
    assert np.isclose(record.h[0] - record.h[1], 1.0)


def test_several_gains_keep_a_wide_interval() -> None:
    mdp = MDP([[[1, 0]], [[0, 1]]], [0, 1], 0.9)
    record = last(relative_value_iteration(mdp, limit=50))
    assert (record.k, record.gain) == (50, 0.5)
    assert record.bound >= 0.5


def test_gain_is_the_limit_of_discounted_values() -> None:
    mdp = random_mdp(np.random.default_rng(12), terminal=False, masked=False, gamma=0.9, S=5, A=1)
    gain = last(relative_value_iteration(mdp)).gain
    almost = MDP(mdp.P, mdp.r, 1 - 1e-7)
    V = chain.evaluate(chain.induce(almost, np.ones((5, 1))))
    assert np.allclose(V * 1e-7, gain, atol=1e-5 * max(1.0, mdp.R_max))
