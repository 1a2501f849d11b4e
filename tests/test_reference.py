"""The reference against exact rational arithmetic and closed forms."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tabrl import dp, envs
from tabrl.mdp import MDP
from tabrl.reference import EPS, exact_model, reference


def rational_values(mdp: MDP, actions: list[int]) -> list[Fraction]:
    """V_pi by Gaussian elimination in fractions; rows of P divided by their exact sums."""
    S = mdp.S
    P = mdp.rows.reshape(S, mdp.A, S)
    M, gamma = [], Fraction(mdp.gamma)
    for s, a in enumerate(actions):
        p = [Fraction(x) for x in P[s, a]]
        total = sum(p) or Fraction(1)
        row = [Fraction(int(s == t)) - gamma * q / total for t, q in enumerate(p)]
        M.append([*row, Fraction(mdp.r[s, a])])
    for i in range(S):
        pivot = next(k for k in range(i, S) if M[k][i])
        M[i], M[pivot] = M[pivot], M[i]
        M[i] = [x / M[i][i] for x in M[i]]
        for k in range(S):
            if k != i and M[k][i]:
                M[k] = [x - M[k][i] * y for x, y in zip(M[k], M[i], strict=True)]
    return [row[-1] for row in M]


def as_fraction(x: np.longdouble) -> Fraction:
    high = np.float64(x)
    return Fraction(float(high)) + Fraction(float(x - np.longdouble(high)))


@pytest.mark.parametrize("seed", range(12))
def test_error_contains_the_distance_to_the_exact_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    S, A = 5, 3
    gamma = [0.5, 0.9, 0.99, 0.999][seed % 4]
    terminal = np.arange(S) >= S - seed % 2
    P = rng.dirichlet(np.full(S, 0.5), (S, A))
    P[terminal] = 0
    mdp = MDP(P, np.where(terminal[:, None], 0, rng.normal(size=(S, A))), gamma, terminal=terminal)
    answer = reference(mdp)
    exact = rational_values(mdp, answer.Q.argmax(axis=1).tolist())
    worst = max(abs(as_fraction(v) - x) for v, x in zip(answer.V, exact, strict=True))
    assert float(worst) <= answer.error
    assert answer.error < 1e4 * EPS / (1 - gamma) * max(1.0, float(abs(answer.V).max()))


def test_values_are_far_closer_than_those_of_a_solver() -> None:
    mdp = replace(envs.garnet_example(), gamma=0.999)
    answer, solution = reference(mdp), dp.solve(mdp)
    assert 100 * answer.error < solution.bound
    assert float(abs(solution.V - answer.V).max()) <= solution.bound


@pytest.mark.parametrize("name", ["frozen-lake", "random-walk", "loop", "cliff", "gambler"])
def test_closed_forms_without_discount(name: str) -> None:
    mdp = envs.make(name)
    V = reference(mdp).V
    exact = {
        "frozen-lake": (0, Fraction(14, 17)),
        "random-walk": (2, Fraction(2, 6)),
        "loop": (0, Fraction(10)),
        "cliff": (24, Fraction(-12)),
        "gambler": (50, Fraction(2, 5)),
    }[name]
    assert float(V[exact[0]]) == pytest.approx(float(exact[1]), abs=1e-14)


def test_a_loop_is_no_gain_where_stored_rows_sum_to_more_than_one() -> None:
    answer = reference(envs.frozen_lake_8x8())
    assert float(answer.V.max()) <= 1.0 + 1e-15


def test_means_of_rewards_are_taken_in_long_precision() -> None:
    R = np.array([[[1.0, 3.0]], [[0.0, 0.0]]])
    P = np.array([[[0.1, 0.9]], [[0.0, 1.0]]])
    _, r = exact_model(MDP(P, R, 0.9))
    p = [np.longdouble(0.1), np.longdouble(0.9)]
    assert r[0, 0] == (p[0] / sum(p)) * 1 + (p[1] / sum(p)) * 3


def test_sparse_and_dense_agree() -> None:
    dense, sparse = envs.slippery_grid(6, sparse=False), envs.slippery_grid(6, sparse=True)
    assert float(abs(reference(dense).V - reference(sparse).V).max()) < 1e-15
