"""Gauss-Seidel policy iteration on a sliding window: certified records, few passes, the same answers in any order."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from models import random_mdp
from rational import at_most, distance, exact_optimal_values
from test_certified import draw_sparse, renamed

from tabrl import MDP, envs, sliding
from tabrl.bellman import rounding
from tabrl.errors import ModelError, ShapeError
from tabrl.sliding import by_component, gauss_seidel_policy_iteration
from tabrl.sweep_kernels import slide
from tabrl.trace import last

each_width = pytest.mark.parametrize("width", [2, 5, 64])


def narrow(patch: pytest.MonkeyPatch, width: int) -> None:
    patch.setattr(sliding, "WIDTH", np.uint64(width))


@each_width
@pytest.mark.parametrize("seed", range(15))
def test_every_record_is_certified(seed: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing, and from values that are far off."""
    narrow(monkeypatch, width)
    rng = np.random.default_rng([61, seed])
    mdp = random_mdp(rng, gamma=float(rng.choice([0.0, 0.5, 0.9, 0.99])))
    V_star = exact_optimal_values(mdp)
    for V in (None, np.where(mdp.terminal, 0.0, 100 * rng.normal(size=mdp.S))):
        records = list(gauss_seidel_policy_iteration(mdp, V=V, tol=1e-6))
        assert all(at_most(distance(x.V, V_star), x.bound) for x in records)
        assert [x.k for x in records] == list(range(1, len(records) + 1))
        assert records[-1].bound <= 1e-6


@pytest.mark.parametrize("seed", range(15))
def test_the_numbers_of_the_states_do_not_matter(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, 4)
    rng = np.random.default_rng([62, seed])
    mdp = draw_sparse(rng)
    if mdp.gamma == 1.0:
        mdp = MDP(mdp.P, mdp.R, 0.9, terminal=mdp.terminal, legal=mdp.legal)
    new = rng.permutation(mdp.S)
    x = last(gauss_seidel_policy_iteration(mdp, tol=1e-6, limit=3000))
    y = last(gauss_seidel_policy_iteration(renamed(mdp, new), tol=1e-6, limit=3000))
    assert abs(x.V - y.V[new]).max() <= x.bound + y.bound


def forwards(S: int, seed: int) -> tuple[MDP, Any]:
    """Every action leads one of two ways, at most 50 states on; rewards of both signs. Also V_star at gamma = 1."""
    rng, s = np.random.default_rng([66, seed]), np.arange(S)
    to = np.minimum(s[:, None, None] + rng.integers(1, 50, (S, 3, 2)), S - 1)
    p, r = rng.integers(1, 4, (S, 3)) / 4, np.where(s[:, None] == S - 1, 0.0, rng.normal(size=(S, 3)))
    p = np.where(to[:, :, 0] == to[:, :, 1], 1.0, p)
    row = np.repeat(np.arange(3 * S), 2)
    shares = np.stack([p, 1 - p], axis=2) * (s < S - 1)[:, None, None]
    P = sp.csr_array((shares.ravel(), (row, to.ravel())), shape=(3 * S, S))
    P.eliminate_zeros()
    V = np.zeros(S)
    for k in range(S - 2, -1, -1):
        V[k] = (r[k] + (p[k] * V[to[k, :, 0]] + (1 - p[k]) * V[to[k, :, 1]])).max()
    return MDP(P, r, 1.0, terminal=s == S - 1), V


@pytest.mark.parametrize("seed", range(4))
def test_two_passes_where_nothing_comes_back(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the states are numbered: the second pass goes through the components in topological order."""
    narrow(monkeypatch, 64)
    mdp, V = forwards(1000, seed)
    new = np.random.default_rng(seed).permutation(mdp.S)
    records = list(gauss_seidel_policy_iteration(renamed(mdp, new), tol=1e-6))
    assert len(records) == 2 and records[0].residual > 1e-3 > 1e-12 > records[1].residual
    assert abs(records[-1].V[new] - V).max() <= 1e-11


def test_within_a_component_the_order_stays() -> None:
    """0 <-> 1 -> 2 <-> 3, and 4 leads to both pairs."""
    P = np.zeros((5, 1, 5))
    P[0, 0, 1] = P[2, 0, 3] = P[3, 0, 2] = 1.0
    P[1, 0, [0, 2]] = P[4, 0, [0, 3]] = 0.5
    ring = MDP(P, np.zeros(5), 0.9)
    for order, after in (([0, 1, 2, 3, 4], [2, 3, 0, 1, 4]), ([4, 3, 1, 2, 0], [3, 2, 1, 0, 4])):
        assert by_component(ring, np.array(order)).tolist() == after


@pytest.mark.parametrize("gamma", [0.9, 0.999999])
def test_one_pass_where_values_flow_one_way(gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corridor of 2,000 states in a random order, 50 windows: the last step pays, or every step costs."""
    narrow(monkeypatch, 80)
    n, new = 2000, np.random.default_rng(63).permutation(2000)
    for r in (np.eye(1, n, n - 2)[0], -1.0 * (np.arange(n) < n - 1)):
        corridor = MDP.from_transitions(
            ((s, 0, s + 1, 1.0, float(r[s])) for s in range(n - 1)), gamma, terminal=[n - 1], sparse=True
        )
        records = list(gauss_seidel_policy_iteration(renamed(corridor, new), tol=1e-6))
        assert len(records) == 1
        steps = np.arange(n - 1, -1, -1.0)
        V = np.where(steps > 0, gamma ** (steps - 1), 0.0) if r.max() > 0 else -(1 - gamma**steps) / (1 - gamma)
        assert abs(records[0].V[new] - V).max() <= records[0].bound + 1e-9


def test_a_grid_takes_two_passes_whatever_gamma() -> None:
    for gamma in (0.9, 0.99, 0.999, 0.9999):
        assert len(list(gauss_seidel_policy_iteration(envs.slippery_grid(40, gamma=gamma), tol=1e-6))) <= 2


def test_the_level_of_an_endless_model_costs_no_passes() -> None:
    """A random walk without end: what all its values have in common would fall by gamma a sweep, 60 sweeps a pass.

    The values differ by 2,000 and lie near 5,000. How long it takes to walk the 100 states decides, not the discount.
    """
    n = 100
    P = np.zeros((n, 1, n))
    for s in range(n):
        P[s, 0, max(s - 1, 0)] += 0.5
        P[s, 0, min(s + 1, n - 1)] += 0.5
    walk = MDP(P, np.arange(n) > 49, 0.9999)
    x = last(gauss_seidel_policy_iteration(walk, tol=1e-6, limit=2000))
    assert x.bound <= 1e-6
    assert x.k <= np.log(5000 / 1e-6) / (1 - 0.9999) / 60 / 10
    exact = np.linalg.solve(np.eye(n) - 0.9999 * P[:, 0], (np.arange(n) > 49).astype(float))
    assert abs(x.V - exact).max() <= x.bound + 1e-8


def test_where_episodes_end_the_terminal_states_stay_at_0() -> None:
    """Rare rewards come first in the order, and the window is not settled when it moves on: no level is looked for."""
    n = 9
    P = np.zeros((n, 1, n))
    for s in range(n - 1):
        P[s, 0, max(s - 1, 0)] += 0.5
        P[s, 0, min(s + 1, n - 2)] += 0.5
    P[n - 2] = 0.99 * P[n - 2] + 0.01 * np.eye(n)[n - 1]
    walk = MDP(P, np.arange(n) == 3, 0.9999, terminal=np.arange(n) == n - 1)
    V_star, records = exact_optimal_values(walk), list(gauss_seidel_policy_iteration(walk, tol=1e-6))
    assert len(records) > 1
    assert all(at_most(distance(x.V, V_star), x.bound) for x in records)
    assert all(x.V[-1] == 0.0 for x in records)


@pytest.mark.parametrize(
    ("terminal", "gamma", "expected"), [(False, 0.9, True), (True, 0.9, False), (True, 1.0, False)]
)
def test_a_level_is_looked_for_only_where_nothing_ends(
    terminal: bool, gamma: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is added to all states alike would give a terminal state a value."""
    asked = []

    def watched(*given: Any) -> Any:
        asked.append(given[-1])
        return slide(*given)

    monkeypatch.setattr(sliding, "slide", watched)
    mdp = random_mdp(np.random.default_rng(68), S=8, gamma=gamma, terminal=terminal, proper=terminal)
    list(gauss_seidel_policy_iteration(mdp, tol=1e-6))
    assert asked[0] is expected


def test_values_given_are_where_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, 3)
    mdp = random_mdp(np.random.default_rng(64), S=8, gamma=0.99)
    optimum = last(gauss_seidel_policy_iteration(mdp, tol=1e-9)).V
    kept = optimum.copy()
    assert len(list(gauss_seidel_policy_iteration(mdp, V=optimum, tol=1e-6))) == 1
    assert (optimum == kept).all()


@each_width
def test_limit_and_floor_end_it(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, width)
    for seed in range(8):
        mdp = random_mdp(np.random.default_rng([65, seed]), gamma=0.99, S=8)
        assert len(list(gauss_seidel_policy_iteration(mdp, tol=1e-300, limit=1))) == 1
        records = list(gauss_seidel_policy_iteration(mdp, tol=1e-300, limit=5000))
        assert len(records) < 5000
        assert records[-1].bound <= 1e-10 * (mdp.R_max + abs(records[-1].V).max())


def test_values_of_records_are_not_changed_later() -> None:
    mdp = random_mdp(np.random.default_rng(66), S=8, gamma=0.99)
    seen = [(x, x.V.copy()) for x in gauss_seidel_policy_iteration(mdp, V=np.zeros(8), tol=1e-9)]
    assert all((x.V == V).all() for x, V in seen)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"tol": 0.0}, ValueError, "tol"),
        ({"V": np.zeros(3)}, ShapeError, "V"),
        ({"V": np.ones(2)}, ModelError, "terminal states have value 0"),
        ({"V": np.array([np.nan, 0.0])}, ModelError, "V"),
    ],
)
def test_what_is_refused(keywords: Any, error: type[Exception], message: str) -> None:
    mdp = MDP([[[0, 1]], [[0, 1]]], [1, 0], 0.9, terminal=[0, 1])
    with pytest.raises(error, match=message):
        list(gauss_seidel_policy_iteration(mdp, **keywords))


def test_precision_asks_for_no_more_than_rounding_allows() -> None:
    mdp = random_mdp(np.random.default_rng(67), gamma=0.9)
    V = np.full(mdp.S, 1e3)
    assert np.isclose(sliding.precision(mdp, V, 1e-3), 1e-4)
    assert 0 < sliding.precision(mdp, V, 1e-300) <= rounding(mdp, mdp.R_max + 900.0)
    undiscounted = random_mdp(np.random.default_rng(67), gamma=1.0, proper=True)
    assert sliding.precision(undiscounted, np.zeros(undiscounted.S), 1e-3) == 1e-9
