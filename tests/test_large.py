"""Sparse models stay sparse: as dense arrays these would need 50 GB."""

import numpy as np
import pytest

from tabrl import MDP, chain, dp, envs


@pytest.fixture(scope="module")
def large() -> MDP:
    return envs.slippery_grid(200, gamma=0.9)


def test_solved_and_certified(large: MDP) -> None:
    assert large.is_sparse
    x = dp.solve(large, tol=1e-6)
    assert (x.status, x.method) == ("certified", "gauss_seidel_policy_iteration")
    y = dp.solve(large, "gauss_seidel", tol=1e-6)
    assert abs(x.V - y.V).max() <= x.bound + y.bound


def test_saved_and_loaded(large: MDP, tmp_path: "object") -> None:
    path = f"{tmp_path}/large.npz"
    large.save(path)
    again = MDP.load(path)
    assert again.is_sparse
    assert (again.P != large.P).nnz == 0


def test_evaluated(large: MDP) -> None:
    pi = dp.solve(large, tol=1e-6).pi
    V = chain.evaluate(chain.induce(large, pi))
    assert abs(V - dp.solve(large, tol=1e-6).V).max() <= 1e-5
    assert np.isfinite(V).all()
