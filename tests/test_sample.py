"""Sampling against the probabilities it is meant to follow."""

from dataclasses import replace
from itertools import islice

import gymnasium
import numpy as np
import pytest
from models import random_mdp, random_policy
from scipy.stats import chi2

from tabrl import MDP, chain, envs, longrun, sample
from tabrl.errors import ModelError
from tabrl.types import Episode


def started(mdp: MDP) -> MDP:
    """The model with episodes that start in every non-terminal state."""
    mu = np.where(mdp.terminal, 0.0, 1.0)
    return MDP(mdp.P, mdp.R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal, legal=mdp.legal)


def test_alias_tables_hold_the_exact_distribution() -> None:
    rng = np.random.default_rng(0)
    for K in (1, 2, 3, 7, 40):
        p = rng.dirichlet(np.full(K, 0.3), size=5) * (rng.random((5, K)) < 0.7)
        p[:, 0] += 1e-3
        keep, other = sample.alias(p)
        drawn = np.zeros(5 * K)
        np.add.at(drawn, np.arange(5 * K), keep / K)
        np.add.at(drawn, other, (1 - keep) / K)
        assert np.allclose(drawn.reshape(5, K), p / p.sum(1, keepdims=True), atol=1e-14)
        assert not drawn.reshape(5, K)[p == 0].any()


@pytest.mark.parametrize("seed", range(6))
def test_stream_follows_the_chain(seed: int) -> None:
    """Chi-square of 200,000 transitions against P_pi, state by state; alarm below 1e-8 for each state."""
    rng = np.random.default_rng([1, seed])
    mdp = started(random_mdp(rng, proper=True, gamma=0.9))
    pi = random_policy(rng, mdp)
    x, _ = sample.Stream(mdp, pi, rng).draw(200_000)
    P = chain.induce(mdp, pi).P
    P = P.toarray() if mdp.is_sparse else P
    for s in np.flatnonzero(~mdp.terminal):
        n = np.bincount(x.s_next[x.s == s], minlength=mdp.S)
        assert not n[P[s] == 0].any()
        expected = n.sum() * P[s][P[s] > 0]
        assert ((n[P[s] > 0] - expected) ** 2 / expected).sum() < chi2.isf(1e-8, max(1, len(expected) - 1))
    starts = np.bincount(x.s[1:][x.last[:-1]], minlength=mdp.S)
    expected = starts.sum() * mdp.mu[mdp.mu > 0]
    assert ((starts[mdp.mu > 0] - expected) ** 2 / expected).sum() < chi2.isf(1e-8, max(1, len(expected) - 1))


@pytest.mark.parametrize("seed", range(6))
def test_stream_is_consistent(seed: int) -> None:
    rng = np.random.default_rng([2, seed])
    mdp = started(random_mdp(rng, proper=True, gamma=0.9))
    pi = random_policy(rng, mdp)
    stream = sample.Stream(mdp, pi, rng, limit=5, actions=True)
    x, outcome = stream.draw(20_000)
    a = stream.tables.action[outcome]
    assert (x.discount == np.where(mdp.terminal[x.s_next], 0.0, 0.9)).all()
    assert (x.s[1:][~x.last[:-1]] == x.s_next[:-1][~x.last[:-1]]).all()
    assert x.last[mdp.terminal[x.s_next]].all()
    assert np.allclose(x.r, chain.entries_of(mdp, x.s * mdp.A + a, x.s_next))
    assert (pi[x.s, a] > 0).all()
    lengths = np.diff(np.flatnonzero(np.r_[True, x.last]))
    assert lengths.max() == 5
    assert not mdp.terminal[x.s].any()


def test_merged_outcomes_have_the_same_probabilities() -> None:
    mdp = envs.slippery_grid(4)
    pi = mdp.legal / mdp.legal.sum(1, keepdims=True)
    x = sample.outcomes(mdp, pi)
    y = sample.merged(x)
    assert len(y.p) < len(x.p)
    for z in (x, y):
        assert np.allclose(np.bincount(z.s, z.p, mdp.S), ~mdp.terminal)
        P = np.zeros((mdp.S, mdp.S))
        np.add.at(P, (z.s, z.s_next), z.p)
        assert np.allclose(
            P, np.asarray(chain.induce(mdp, pi).P.todense()) if mdp.is_sparse else chain.induce(mdp, pi).P
        )


def test_blocks_do_not_change_what_is_drawn() -> None:
    walk = envs.random_walk(5)
    for mdp in (walk, started(walk)):
        streams = [sample.Stream(mdp, np.ones((7, 1)), np.random.default_rng(1), block=b) for b in (1, 7, 50)]
        drawn = [sample.join(list(islice(stream, 350 // stream.block))) for stream in streams]
        for x in drawn[1:]:
            assert all((u == v).all() for u, v in zip(x, drawn[0], strict=True))


@pytest.mark.parametrize("one_start", [True, False])
def test_same_walk_with_and_without_numba(one_start: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mdp = started(random_mdp(np.random.default_rng(3), proper=True))
    mdp = replace(mdp, mu=np.eye(mdp.S)[np.argmax(mdp.mu)]) if one_start else mdp
    pi = random_policy(np.random.default_rng(4), mdp)
    results = []
    for function in (sample.walk, sample.walk.py_func):  # type: ignore[attr-defined]
        monkeypatch.setattr(sample, "walk", function)
        stream = sample.Stream(mdp, pi, np.random.default_rng(5), limit=9)
        drawn = [stream.draw(n) for n in (1, 100, 399)]
        results.append([y.tobytes() for x, outcome in drawn for y in (*x, outcome)])
    assert results[0] == results[1]


def test_episodes_are_cut_and_keep_their_discount() -> None:
    mdp = MDP([[[0.0, 1.0]], [[1.0, 0.0]]], [1, 2], 0.5, mu=[1, 0])
    x = sample.simulate(mdp, np.ones((2, 1)), np.random.default_rng(0), limit=3)
    assert x.s.tolist() == [0, 1, 0, 1]
    assert x.r.tolist() == [1, 2, 1]
    assert x.discount.tolist() == [0.5, 0.5, 0.5]
    assert x.logp.tolist() == [0.0, 0.0, 0.0]


def test_long_episodes_run_over_blocks() -> None:
    n = 10_000
    mdp = MDP([[[1.0]]], [1], 0.9)
    x = sample.simulate(mdp, np.ones((1, 1)), np.random.default_rng(0), limit=n)
    assert len(x.r) == n


def test_gamma_zero_does_not_end_an_episode() -> None:
    mdp = MDP(
        [[[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]], [[0.0, 0.0, 1.0]]], [1, 2, 0], 0.0, terminal=[0, 0, 1], mu=[1, 0, 0]
    )
    assert sample.simulate(mdp, np.ones((3, 1)), np.random.default_rng(0)).s.tolist() == [0, 1, 2]


def test_episode_lengths_have_the_hitting_time_as_mean() -> None:
    """20,000 episodes of the walk; |z| < 5.5 has a false alarm below 1e-7."""
    walk = envs.random_walk(5)
    pi = np.ones((7, 1))
    lengths = [len(x.r) for x in islice(sample.episodes(walk, pi, np.random.default_rng(6)), 20_000)]
    expected = longrun.hitting_times(chain.induce(walk, pi), walk.terminal)[int(np.argmax(walk.mu))]
    assert abs(np.mean(lengths) - expected) / (np.std(lengths) / np.sqrt(20_000)) < 5.5


def test_policies_that_never_end_need_a_limit() -> None:
    mdp = MDP([[[1.0]]], [1], 0.9)
    with pytest.raises(ModelError, match=r"chain\[s=0\] is visited infinitely often"):
        sample.simulate(mdp, np.ones((1, 1)), np.random.default_rng(0))


def test_starting_in_a_terminal_state_is_refused() -> None:
    mdp = MDP([[[0, 1]], [[0, 1]]], [1, 0], 0.9, terminal=[0, 1], mu=[0.5, 0.5])
    with pytest.raises(ModelError, match=r"mu\[1\] is 0.5; 0 is expected, as episodes start in non-terminal"):
        sample.Stream(mdp, np.ones((2, 1)), np.random.default_rng(0))


@pytest.mark.parametrize(("name", "S", "A"), [("FrozenLake-v1", 16, 4), ("Taxi-v4", 500, 6), ("Blackjack-v1", 704, 2)])
def test_gymnasium_environments(name: str, S: int, A: int) -> None:
    env = gymnasium.make(name)
    pi = np.full((S, A), 1 / A)
    a, b = (list(islice(sample.episodes(env, pi, np.random.default_rng(0), gamma=0.9), 5)) for _ in range(2))
    for x, y in zip(a, b, strict=True):
        assert isinstance(x, Episode)
        assert all((u == v).all() for u, v in zip(x, y, strict=True))
        assert len(x.s) == len(x.r) + 1 == len(x.discount) + 1
        assert x.s.max() < S
        assert (x.discount[:-1] == 0.9).all()
    env.close()


def test_a_time_limit_of_gymnasium_keeps_the_discount() -> None:
    env = gymnasium.make("Taxi-v4", max_episode_steps=7)
    x = sample.simulate(env, np.full((500, 6), 1 / 6), np.random.default_rng(1), gamma=0.9)
    assert (len(x.r), x.discount[-1]) == (7, 0.9)
    env.close()


def test_continuous_observations_are_refused() -> None:
    with pytest.raises(ModelError, match="observation_space is Box"):
        sample.simulate(gymnasium.make("CartPole-v1"), np.ones((1, 2)), np.random.default_rng(0))
