"""What is exactly known beside a learner: policies, their worth, errors of TD(0), fragments."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from models import dense_P, random_mdp, random_policy, twin

from tabrl import MDP, bellman, chain, companions, dp, envs
from tabrl.control.kernels import choose
from tabrl.errors import ShapeError
from tabrl.report.fragments import expected_values, listed, mean_update, settled
from tabrl.td_limits import trajectory_limit
from tabrl.td_moments import independent_moments, trajectory_moments
from tabrl.verify import literal


def world(seed: int, **options: Any) -> MDP:
    rng = np.random.default_rng([60, seed])
    return random_mdp(rng, **{"S": 5, "A": 3, "gamma": 0.9, "proper": True, "masked": True, **options})


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.7, 1.0])
def test_eps_greedy_is_the_policy_that_learners_act_by(eps: float) -> None:
    """`choose` turns uniform numbers into actions; over a fine grid of them the shares are the probabilities."""
    mdp, n = world(0), 6000
    Q = np.where(mdp.legal, np.random.default_rng(1).integers(0, 3, (mdp.S, mdp.A)).astype(float), 0.0)
    pi = companions.eps_greedy(Q, mdp.legal, eps)
    assert np.allclose(pi.sum(axis=1), 1.0, atol=1e-15) and (pi[~mdp.legal] == 0).all()
    for s in range(mdp.S):
        drawn = [choose(Q, mdp.legal, s, eps, (i + 0.5) / n) for i in range(n)]
        assert abs(np.bincount(drawn, minlength=mdp.A) / n - pi[s]).max() <= 3 / n


def test_eps_greedy_refuses_bad_input() -> None:
    with pytest.raises(ShapeError, match=r"Q has shape \(2, 1\)"):
        companions.eps_greedy(np.zeros((2, 1)), np.ones((1, 2), np.bool_), 0.1)
    with pytest.raises(ValueError, match=r"eps is 1.5; a number in \[0, 1\] is expected"):
        companions.eps_greedy(np.zeros((1, 2)), np.ones((1, 2), np.bool_), 1.5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("eps", [0.0, 0.2, 1.0])
def test_the_model_with_exploration(seed: int, eps: float) -> None:
    """Its rows and rewards by their definition; its optimum is worth what the best eps-soft policy is."""
    mdp = world(seed, sparse=False)
    soft = companions.eps_soft(mdp, eps)
    P, u = dense_P(mdp), mdp.legal / mdp.legal.sum(axis=1, keepdims=True)
    live = mdp.legal & ~mdp.terminal[:, None]
    mixed = (1 - eps) * P + eps * np.einsum("sb,sbx->sx", u, P)[:, None]
    assert np.allclose(dense_P(soft)[live], mixed[live], atol=1e-15)
    r = (1 - eps) * mdp.r + eps * (u * mdp.r).sum(axis=1, keepdims=True)
    assert np.allclose(soft.r[live], r[live], atol=1e-12)
    x = companions.control(mdp, eps)
    pi = companions.eps_greedy(bellman.q_from_v(soft, x.V_eps), mdp.legal, eps)
    V = chain.evaluate(chain.induce(mdp, pi))
    assert abs(V - x.V_eps).max() <= 1e-7 * (1 + abs(V).max())
    rng = np.random.default_rng(seed)
    for _ in range(20):
        other = (1 - eps) * random_policy(rng, mdp) + eps * u
        assert (chain.evaluate(chain.induce(mdp, other)) <= x.V_eps + x.bound_eps + 1e-9 * (1 + abs(V).max())).all()
    assert pytest.approx(mdp.mu @ dp.solve(mdp).V) == x.J and x.J_eps <= x.J + x.bound + x.bound_eps
    assert abs(x.Q_eps - bellman.q_from_v(mdp, x.V_eps)).max() == 0


@pytest.mark.parametrize("seed", range(4))
def test_sparse_and_dense_models_agree(seed: int) -> None:
    mdp = world(seed, sparse=False)
    a, b = companions.control(mdp, 0.2), companions.control(twin(mdp), 0.2)
    scale = 1 + abs(a.V).max()
    assert abs(a.V_eps - b.V_eps).max() <= 1e-7 * scale and abs(a.Q_eps - b.Q_eps).max() <= 1e-7 * scale


def test_worth_counts_only_what_can_be_reached() -> None:
    """State 1 pays for ever at gamma = 1; from state 0 it is not reached unless the policy goes there."""
    P = np.zeros((3, 2, 3))
    P[0, 0, 2] = P[0, 1, 1] = P[1, :, 1] = P[2, :, 2] = 1.0
    mdp = MDP(P, [[3, 0], [-1, -1], [0, 0]], 1.0, terminal=[0, 0, 1], mu=[1, 0, 0])
    ends, loops = np.array([[1.0, 0], [1, 0], [1, 0]]), np.array([[0.0, 1], [1, 0], [1, 0]])
    assert companions.worth(mdp, ends) == 3.0
    assert math.isnan(companions.worth(mdp, loops)) and math.isnan(companions.worth(mdp, (ends + loops) / 2))
    assert companions.worth(replace(mdp, gamma=0.5), loops) == pytest.approx(0.5 * -2)


def test_worth_is_the_objective_where_everything_is_reached() -> None:
    for seed in range(6):
        mdp = world(seed)
        pi = random_policy(np.random.default_rng(seed), mdp)
        assert companions.worth(mdp, pi) == pytest.approx(chain.objective(chain.induce(mdp, pi), mdp.mu), rel=1e-12)


def test_gap_is_over_legal_actions_of_live_states() -> None:
    mdp = world(1)
    Q, other = np.zeros((mdp.S, mdp.A)), np.ones((mdp.S, mdp.A))
    other[mdp.terminal] = 99.0
    other[~mdp.legal] = 99.0
    assert companions.gap(mdp, Q, other, mdp.legal) == 1.0


def test_td0_is_known_under_its_other_names() -> None:
    assert companions.is_td0("td0", {"alpha": 0.1})
    assert companions.is_td0("true-online-td", {"alpha": 0.1, "lam": 0.0})
    assert companions.is_td0("n-step-td", {"alpha": 0.1, "n": 1})
    assert not companions.is_td0("td0", {"alpha": lambda k: 1 / k})
    assert not companions.is_td0("td-lambda", {"alpha": 0.1, "lam": 0.1})
    assert not companions.is_td0("monte-carlo", {"alpha": 0.1, "visit": "every"})


def test_the_expected_error_of_td0_comes_from_its_moments() -> None:
    walk, pi = envs.random_walk(5), np.ones((7, 1))
    V = chain.evaluate(chain.induce(walk, pi))
    found = companions.td0_moments(walk, pi, 0.1, np.array([50, 100]))
    exact = [*trajectory_moments(walk, pi, alpha=0.1, steps=100, every=50)]
    assert found is not None and [x.t for x in found] == [50, 100]
    assert all((x.mean == y.mean).all() for x, y in zip(found, exact, strict=True))
    by_hand = np.mean([(exact[1].mean[s] - V[s]) ** 2 + exact[1].covariance[s, s] for s in range(1, 6)])
    assert companions.square(found[1], V, walk.terminal) == pytest.approx(by_hand, rel=1e-14)
    floor = companions.square_floor(walk, pi, V, 0.1)
    assert floor == companions.square(trajectory_limit(walk, pi, alpha=0.1), V, walk.terminal)
    long = companions.td0_moments(walk, pi, 0.1, np.array([8000]))
    assert long is not None and companions.square(long[0], V, walk.terminal) == pytest.approx(floor, rel=1e-9)


def test_what_costs_too_much_is_left_out() -> None:
    gambler = envs.gambler()
    pi = gambler.legal / gambler.legal.sum(axis=1, keepdims=True)
    V = np.zeros(gambler.S)
    assert companions.td0_moments(gambler, pi, 0.1, np.array([1000])) is None
    assert companions.square_floor(gambler, pi, V, 0.1) is None
    line = MDP(
        [[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [0, 1, 0], 0.9, mu=[1, 0, 0]
    )  # states 0 and 1 are left for ever
    assert companions.square_floor(line, np.ones((3, 1)), np.zeros(3), 0.1) is None


@pytest.mark.parametrize("seed", range(6))
def test_fragments_of_one_step_are_independent_draws(seed: int) -> None:
    """TD(0) on fragments of one step from mu: the exact mean of `independent_moments`."""
    mdp = world(seed, sparse=False)
    mu = np.where(mdp.terminal, 0.0, 1.0)
    mdp = replace(mdp, mu=mu / mu.sum())
    pi = random_policy(np.random.default_rng(seed), mdp)
    x = mean_update(mdp, pi, lambda x, V: literal.td0(x, V, 0.3), 1)  # type: ignore[arg-type]
    exact = [*independent_moments(mdp, pi, alpha=0.3, d=mdp.mu, steps=20, every=5)]
    scale = max(1.0, abs(exact[-1].mean).max())
    assert abs(expected_values(x, [5, 10, 15, 20]) - [y.mean for y in exact]).max() <= 1e-12 * scale
    V = chain.evaluate(chain.induce(mdp, pi))
    assert abs(settled(x) - V).max() <= 1e-9 * (1 + abs(V).max())


def test_fragments_are_all_there_is() -> None:
    gambler = envs.gambler(goal=4, stay=True)
    pi = gambler.legal / gambler.legal.sum(axis=1, keepdims=True)
    found = [*listed(gambler, pi, 3)]
    assert sum(p for p, _ in found) == pytest.approx(1.0, abs=1e-14)
    assert max(len(x.r) for _, x in found) == 3
    for _, x in found:
        assert len(x.r) == 3 or gambler.terminal[x.s[-1]]
        assert [d == 0 for d in x.discount] == [bool(gambler.terminal[s]) for s in x.s[1:]]


def test_the_mean_update_is_the_mean_of_the_updates() -> None:
    """Affine indeed: at a third point, and settled values stay."""
    walk = envs.random_walk(3)
    pi = np.ones((5, 1))

    def update(x: Any, V: Any) -> Any:
        return literal.online_lambda_return(x, V, 0.3, 0.7)  # type: ignore[arg-type]

    x = mean_update(walk, pi, update, 5)
    V = [0.0, 0.4, -1.0, 2.0, 0.0]
    direct = sum(p * np.array(update(y, V), np.float64) for p, y in listed(walk, pi, 5))
    assert abs(x.A @ V + x.b - direct).max() <= 1e-14
    fixed = settled(x)
    assert abs(x.A @ fixed + x.b - fixed).max() <= 1e-14 and fixed[0] == fixed[-1] == 0
    assert (expected_values(x, [0, 1])[0] == 0).all()
