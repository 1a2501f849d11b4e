"""A fast backup is `bellman`'s backup to the last bit, in whatever number of threads."""

import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from models import random_mdp, twin

from tabrl import MDP, bellman, jacobi, threads
from tabrl.ordering import packed, rows_of

each_seed = pytest.mark.parametrize("seed", range(20))
SLICES = (1, 2, 3, 8)


def drawn(seed: int, *, sparse: bool | None = None) -> tuple[MDP, Any]:
    rng = np.random.default_rng([41, seed])
    mdp = random_mdp(rng, sparse=sparse)
    return mdp, np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S))


def in_threads(patch: pytest.MonkeyPatch, n: int) -> None:
    """Let every sweep run in n slices, were there only one transition for each, and pack the rows of policies."""
    patch.setattr(threads, "THREADS", n)
    patch.setattr(threads, "SLICE", 1e-9)
    patch.setattr(jacobi, "CACHED", 0)


@pytest.mark.parametrize("n", SLICES)
@each_seed
def test_optimality_is_that_of_bellman(seed: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_threads(monkeypatch, n)
    mdp, V = drawn(seed)
    TV, actions = jacobi.optimality(mdp, V)
    assert (bellman.optimality(mdp, V) == TV).all()
    assert (bellman.one_hot(actions, mdp.A) == bellman.greedy(bellman.q_from_v(mdp, V), mdp.legal)).all()


@pytest.mark.parametrize("n", SLICES)
@each_seed
def test_action_values_are_those_of_bellman(seed: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_threads(monkeypatch, n)
    mdp, V = drawn(seed)
    Q = jacobi.q_values(mdp, V)
    assert Q.shape == (mdp.S, mdp.A) and (bellman.q_from_v(mdp, V) == Q).all()
    largest, actions = jacobi.greedy(mdp, Q)
    assert (largest == bellman.maximum(Q, mdp.legal)).all()
    assert (bellman.one_hot(actions, mdp.A) == bellman.greedy(Q, mdp.legal)).all()


@each_seed
def test_packed_rows_are_those_of_the_policy(seed: int) -> None:
    """Every action once, legal or not: rows may be empty."""
    mdp, _ = drawn(seed, sparse=True)
    actions = np.random.default_rng(seed).integers(0, mdp.A, mdp.S)
    rows, at = packed(rows_of(mdp), actions), np.arange(mdp.S) * mdp.A + actions
    assert (sp.csr_array((rows.p, rows.indices, rows.indptr), shape=(mdp.S, mdp.S)) != mdp.csr[at]).nnz == 0
    assert (rows.r == np.where(mdp.legal, mdp.r, -np.inf).ravel()[at]).all()
    assert (int(rows.A), rows.gamma) == (1, mdp.gamma)


@pytest.mark.parametrize("n", SLICES)
@each_seed
def test_a_policy_backup_is_that_of_bellman(seed: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit for sparse models; for dense ones BLAS may add in another order."""
    in_threads(monkeypatch, n)
    mdp, V = drawn(seed)
    actions = np.where(mdp.legal, np.random.default_rng(seed).random((mdp.S, mdp.A)), -1).argmax(axis=1)
    TV = jacobi.policy(mdp, actions)(V)
    expected = bellman.expectation(mdp, bellman.one_hot(actions, mdp.A), V)
    if mdp.is_sparse:
        assert (expected == TV).all()
    assert (abs(TV - expected) <= 2 * bellman.rounding(mdp, mdp.R_max + mdp.gamma * abs(V).max())).all()


@each_seed
def test_plain_and_compiled_agree_to_the_last_bit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, V = drawn(seed, sparse=True)
    in_threads(monkeypatch, 2)
    (TV, actions), Q = jacobi.optimality(mdp, V), jacobi.q_values(mdp, V)
    after = jacobi.policy(mdp, actions)(TV)
    monkeypatch.setenv("TABRL_NUMBA", "0")
    plain, same = jacobi.optimality(mdp, V)
    assert (plain == TV).all() and (same == actions).all() and (jacobi.q_values(mdp, V) == Q).all()
    assert (jacobi.policy(mdp, actions)(TV) == after).all()


@each_seed
def test_dense_and_sparse_agree(seed: int) -> None:
    mdp, V = drawn(seed)
    (x, _), (y, _) = jacobi.optimality(mdp, V), jacobi.optimality(twin(mdp), V)
    assert (abs(x - y) <= 2 * bellman.rounding(mdp, mdp.R_max + mdp.gamma * abs(V).max())).all()


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@each_seed
def test_index_arrays_of_either_length(seed: int, kind: Any) -> None:
    mdp, V = drawn(seed, sparse=True)
    P = sp.csr_array((mdp.P.data, mdp.P.indices.astype(kind), mdp.P.indptr.astype(kind)), shape=mdp.P.shape)
    other = MDP(P, mdp.R, mdp.gamma, terminal=mdp.terminal, legal=mdp.legal)
    object.__setattr__(other, "P", P)  # whatever the model made of it
    for x, y in zip(jacobi.optimality(mdp, V), jacobi.optimality(other, V), strict=True):
        assert (x == y).all()
    actions = jacobi.optimality(mdp, V)[1]
    assert (jacobi.policy(mdp, actions)(V) == jacobi.policy(other, actions)(V)).all()


@pytest.mark.parametrize(("S", "terminal"), [(1, [False]), (1, [True]), (4, [True] * 4), (2, [False, True])], ids=str)
@pytest.mark.parametrize("n", SLICES)
def test_hardly_any_states(S: int, terminal: list[bool], n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some slices are empty."""
    in_threads(monkeypatch, n)
    R = np.tile([1.0, 2.0], (S, 1)) * ~np.array(terminal)[:, None]
    mdp = MDP(sp.csr_array(np.eye(S).repeat(2, axis=0)), R, 0.5, terminal=terminal)
    V = np.where(terminal, 0.0, 2.0)
    TV, actions = jacobi.optimality(mdp, V)
    assert TV.tolist() == [0.0 if end else 3.0 for end in terminal]
    assert actions.tolist() == [0 if end else 1 for end in terminal]


def test_the_first_of_equal_actions_is_taken() -> None:
    equal = np.zeros((3, 4, 3))
    equal[:, :, 0] = 1.0
    for P in (equal, sp.csr_array(equal.reshape(12, 3))):
        assert jacobi.optimality(MDP(P, [[0, 1, 1, 0], [2, 2, 2, 2], [0, 0, 0, 3]], 0.9), np.zeros(3))[1].tolist() == [
            1,
            0,
            3,
        ]


class Recorder:
    """In place of a kernel: what it was asked to sweep, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []

    def build(self) -> Any:
        def run(lo: Any, hi: Any, *_: Any) -> None:
            self.calls.append((int(lo), int(hi), threading.get_ident()))

        return run


@pytest.mark.parametrize(("work", "n"), [(0, 1), (249_999, 1), (499_999, 1), (500_000, 2), (10**9, 8)])
def test_slices_share_the_states(work: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "THREADS", 8)
    seen = Recorder()
    threads.in_slices(seen, work, 1001)
    parts = sorted((lo, hi) for lo, hi, _ in seen.calls)
    assert len(parts) == n
    assert parts[0][0] == 0 and parts[-1][1] == 1001
    assert all(x[1] == y[0] for x, y in pairwise(parts))
    assert threading.get_ident() in {thread for _, _, thread in seen.calls}


def test_the_number_of_threads_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "THREADS", 3)
    seen = Recorder()
    threads.in_slices(seen, 10**9, 30)
    assert sorted((lo, hi) for lo, hi, _ in seen.calls) == [(0, 10), (10, 20), (20, 30)]
    assert 1 <= threads.THREADS <= 8
