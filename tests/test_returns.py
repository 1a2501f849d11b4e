"""Returns and advantages along one episode, against their definition."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import generators, random_mdp, random_policy

from tabrl import returns, sample
from tabrl.errors import ShapeError
from tabrl.returns import gae, gae_fragments, lambda_returns, td_errors, value_target
from tabrl.types import Episode

LAMS = (0.0, 0.3, 0.95, 1.0)


@given(generators(), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_discounted_sum_is_the_literal_double_sum(rng: np.random.Generator, T: int) -> None:
    x, discount, tail = rng.normal(size=T), rng.random(T), rng.normal()
    y = returns.discounted_sum(x, discount, tail)
    for t in range(T):
        terms = [np.prod(discount[t:k]) * x[k] for k in range(t, T)]
        assert y[t] == pytest.approx(sum(terms) + np.prod(discount[t:]) * tail, abs=1e-12)


@given(generators(), st.integers(1, 30), st.floats(-5, 5))
@settings(max_examples=50, deadline=None)
def test_special_values(rng: np.random.Generator, T: int, tail: float) -> None:
    x = rng.normal(size=T)
    assert (returns.discounted_sum(x, np.zeros(T), tail) == x).all()
    ones = returns.discounted_sum(x, np.ones(T), tail)
    assert np.allclose(ones, x[::-1].cumsum()[::-1] + tail, rtol=0, atol=1e-12)


def test_a_zero_discount_cuts_the_sum() -> None:
    y = returns.discounted_sum(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.0, 0.5]), tail=100.0)
    assert y.tolist() == [2.0, 2.0, 54.0]


def test_whole_numbers_give_fractions() -> None:
    assert returns.discounted_sum(np.array([1, 1]), np.array([0.5, 0.5])).tolist() == [1.5, 1.0]


def test_empty() -> None:
    assert returns.discounted_sum(np.zeros(0), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 2), (2, 2))])
def test_wrong_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match="discount has shape"):
        returns.discounted_sum(np.zeros(shapes[0]), np.zeros(shapes[1]))


# ---- generalised advantage estimation ----


def recorded(seed: int) -> tuple[list[Episode], Any]:
    """Episodes of a random cyclic model, some ended by a terminal state, some by a time limit; any values."""
    rng = np.random.default_rng([60, seed])
    mdp = random_mdp(rng, S=int(rng.integers(2, 7)), gamma=float(rng.choice([0.8, 0.95, 1.0])), proper=True)
    mu = np.where(mdp.terminal, 0.0, 1.0)
    mdp = type(mdp)(mdp.P, mdp.R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal, legal=mdp.legal)
    source = sample.episodes(mdp, random_policy(rng, mdp), rng, limit=int(rng.integers(1, 15)))
    return list(islice(source, 12)), np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S))


def close(x: Any, y: Any) -> bool:
    return bool((abs(x - y) <= 1e-12 * max(1.0, abs(y).max())).all())


def literal_gae(x: Episode, V: Any, lam: float) -> Any:
    """Sum over l of (gamma lam)^l delta[t+l], up to the end of the episode; a time limit counts the last value."""
    T, A = len(x.r), np.zeros(len(x.r))
    for t in range(T):
        weight = 1.0
        for k in range(t, T):
            A[t] += weight * (x.r[k] + x.discount[k] * V[x.s[k + 1]] - V[x.s[k]])
            weight *= lam * x.discount[k]
    return A


SEEDS = range(24)


def test_the_traces_hold_what_they_should() -> None:
    ends = [x.discount[-1] for seed in SEEDS for x in recorded(seed)[0]]
    assert 0.0 in ends and max(ends) > 0  # terminated and cut
    assert any((x.s[1:] == x.s[:-1]).any() for seed in SEEDS for x in recorded(seed)[0])


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_gae_is_the_literal_sum(seed: int, lam: float) -> None:
    episodes, V = recorded(seed)
    for x in episodes:
        assert close(gae(x.r, x.discount, V[x.s], lam), literal_gae(x, V, lam))


@pytest.mark.parametrize("seed", SEEDS)
def test_gae_for_lambda_0_and_1(seed: int) -> None:
    """Lambda 0 is the TD error; lambda 1 the return, with the last value after a time limit, less the value."""
    episodes, V = recorded(seed)
    for x in episodes:
        v = V[x.s]
        assert (gae(x.r, x.discount, v, 0.0) == td_errors(x.r, x.discount, v)).all()
        assert close(gae(x.r, x.discount, v, 1.0), returns.discounted_sum(x.r, x.discount, v[-1]) - v[:-1])


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_advantage_and_value_are_the_lambda_return(seed: int, lam: float) -> None:
    """The recursion of eq. 12.3 and its like; V is counted once (correction 3)."""
    episodes, V = recorded(seed)
    for x in episodes:
        v, T = V[x.s], len(x.r)
        G = np.append(np.zeros(T), v[-1])
        for t in reversed(range(T)):
            G[t] = x.r[t] + x.discount[t] * ((1 - lam) * v[t + 1] + lam * G[t + 1])
        A = gae(x.r, x.discount, v, lam)
        assert close(value_target(A, v[:-1]), G[:-1])
        assert (lambda_returns(x.r, x.discount, v, lam) == value_target(A, v[:-1])).all()
        step = x.r + x.discount * v[1:] + x.discount * lam * np.append(A[1:], 0.0)
        assert close(value_target(A, v[:-1]), step)


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_buffer_is_its_fragments(seed: int, lam: float) -> None:
    episodes, V = recorded(seed)
    r, discount = (np.concatenate([getattr(x, name) for x in episodes]) for name in ("r", "discount"))
    s, s_next = np.concatenate([x.s[:-1] for x in episodes]), np.concatenate([x.s[1:] for x in episodes])
    last = np.concatenate([np.arange(len(x.r)) == len(x.r) - 1 for x in episodes])
    A = gae_fragments(r, discount, V[s], V[s_next], last, lam)
    parts = [gae(x.r, x.discount, V[x.s], lam) for x in episodes]
    assert (np.concatenate(parts) == A).all()
    last[-1] = False  # the end of the buffer is an end all the same
    assert (gae_fragments(r, discount, V[s], V[s_next], last, lam) == A).all()


def test_a_time_limit_is_not_a_terminal_state() -> None:
    """Two steps of reward 1, gamma 1/2, V = 8 everywhere: the value after a time limit counts, after the end not."""
    r, v = np.ones(2), np.full(3, 8.0)
    assert gae(r, np.array([0.5, 0.5]), v, 1.0).tolist() == [1 + 0.5 * (1 + 0.5 * 8) - 8, 1 + 0.5 * 8 - 8]
    assert gae(r, np.array([0.5, 0.0]), v, 1.0).tolist() == [1 + 0.5 - 8, 1.0 - 8]
    cut = gae_fragments(r, np.array([0.5, 0.5]), v[:2], v[1:], np.array([True, False]), 1.0)
    assert cut.tolist() == [1 + 0.5 * 8 - 8, 1 + 0.5 * 8 - 8]


@given(generators(), st.integers(0, 10), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_exact_values_leave_no_advantage(rng: np.random.Generator, T: int, lam: float) -> None:
    """A deterministic path with its own returns as values: every TD error is 0, and so is every estimate."""
    r, discount, tail = rng.normal(size=T), rng.random(T), rng.normal()
    v = np.append(returns.discounted_sum(r, discount, tail), tail)
    assert (abs(gae(r, discount, v, lam)) <= 1e-14).all()


@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan")])
def test_lambda_lies_between_0_and_1(lam: float) -> None:
    x = np.zeros(2)
    with pytest.raises(ValueError, match=f"^lam is {lam}; a number in \\[0, 1\\] is expected"):
        gae(x, x, np.zeros(3), lam)
    with pytest.raises(ValueError, match="lam is "):
        lambda_returns(x, x, np.zeros(3), lam)
    with pytest.raises(ValueError, match="lam is "):
        gae_fragments(x, x, x, x, x > 0, lam)


def test_shapes_of_estimates() -> None:
    x, last = np.zeros(2), np.zeros(2, bool)
    with pytest.raises(ShapeError, match=r"^v has shape \(2,\), r \(2,\), discount \(2,\); \(T\+1,\)"):
        gae(x, x, x, 0.5)
    with pytest.raises(ShapeError, match=r"^v_next has shape \(3,\); the shape of r, \(2,\), is expected"):
        gae_fragments(x, x, x, np.zeros(3), last, 0.5)
    with pytest.raises(ShapeError, match=r"^last has shape \(3,\); the shape of r, \(2,\), is expected"):
        gae_fragments(x, x, x, x, np.zeros(3, bool), 0.5)
    with pytest.raises(ShapeError, match=r"^v has shape \(3,\); the shape of adv, \(2,\), is expected"):
        value_target(x, np.zeros(3))
