"""The model: what is stored, in every form that the input may take."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from models import (
    REWARDS,
    csr,
    dense_P,
    dense_R,
    generators,
    mdps,
    random_mdp,
    random_policy,
    same_bits,
    same_model,
    twin,
)

from tabrl import MDP, bellman, chain, checks, longrun
from tabrl.errors import ModelError
from tabrl.types import Names

P2 = np.array([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.25, 0.75]]])


def test_stores_what_it_is_given() -> None:
    m = MDP(P2, [[1, 2], [3, 4]], 0.9, mu=[0.25, 0.75], names=(("a", "b"), ("x", "y")))
    assert (m.S, m.A, m.gamma, m.is_sparse) == (2, 2, 0.9, False)
    assert m.P.tolist() == P2.tolist()
    assert m.r.tolist() == [[1, 2], [3, 4]]
    assert m.mu.tolist() == [0.25, 0.75]
    assert m.names == Names(("a", "b"), ("x", "y"))
    assert not m.terminal.any() and m.legal.all()


def test_input_is_copied() -> None:
    P, R, mu, terminal, legal = (
        P2.copy(),
        np.zeros((2, 2)),
        np.array([0.5, 0.5]),
        np.zeros(2, bool),
        np.ones((2, 2), bool),
    )
    m = MDP(P, R, 0.9, mu=mu, terminal=terminal, legal=legal)
    for x in (P, R, mu):
        x[...] = 7.0
    terminal[:], legal[:] = True, False
    assert m.P.tolist() == P2.tolist() and not m.R.any() and m.mu.tolist() == [0.5, 0.5]
    assert not m.terminal.any() and m.legal.all()


def test_sparse_input_is_copied_and_left_alone() -> None:
    P = csr(P2)
    before = (P.data.copy(), P.indices.copy(), P.indptr.copy())
    m = MDP(P, [0, 0], 0.9, terminal=[False, False], legal=[[True, False], [True, True]])
    assert [x.tolist() for x in (P.data, P.indices, P.indptr)] == [x.tolist() for x in before]
    P.data[:] = 7.0
    assert m.P.max() == 1.0


@pytest.mark.parametrize("sparse", [False, True])
def test_arrays_are_read_only(sparse: bool) -> None:
    m = random_mdp(np.random.default_rng(0), sparse=sparse, terminal=True, rewards="sas")
    parts = [m.mu, m.terminal, m.legal, m.r]
    for x in (m.P, m.R, m.rows, m.csr):
        parts += [x.data, x.indices, x.indptr] if sp.issparse(x) else [x]
    for part in parts:
        with pytest.raises(ValueError, match="read-only"):
            part[0] = part[0]
    with pytest.raises(FrozenInstanceError):
        m.gamma = 0.1  # type: ignore[misc]


@given(mdps())
@settings(max_examples=100, deadline=None)
def test_building_again_changes_no_bit(m: MDP) -> None:
    again = MDP(m.P, m.R, m.gamma, mu=m.mu, terminal=m.terminal, legal=m.legal, names=m.names)
    assert same_model(m, again)


@given(generators(), st.integers(1, 40), st.booleans())
@settings(max_examples=150, deadline=None)
def test_row_sums_settle_once(rng: np.random.Generator, n: int, sparse: bool) -> None:
    """Rows off by up to 1e-9 are divided by their sum; building again changes no bit."""
    rows = rng.exponential(size=(n, 1, n)) * 10.0 ** rng.integers(-12, 1, (n, 1, n))
    rows *= (1 + rng.uniform(-9e-10, 9e-10, (n, 1, 1))) / rows.sum(2, keepdims=True)
    once = MDP(csr(rows) if sparse else rows, np.zeros(n), 0.9)
    assert same_model(once, MDP(once.P, once.R, 0.9, mu=once.mu))
    assert abs(np.asarray(once.P.sum(-1)) - 1).max() <= 2.0**-53 * (n + 1)


def test_exact_rows_are_left_alone() -> None:
    P = np.array([[[0.1] * 10]] * 10)  # sums to 1 - 1.1e-16 in floats: rounding, not an error
    assert same_bits(MDP(P, np.zeros(10), 0.9).P, P)


@pytest.mark.parametrize(("kind", "off", "accepted"), [
    (np.float64, 0.9e-9, True), (np.float64, 1.1e-9, False),
    (np.float32, 0.9e-5, True), (np.float32, 1.1e-5, False),
])  # fmt: skip
@pytest.mark.parametrize("sparse", [False, True])
def test_tolerance_of_row_sums(kind: Any, off: float, accepted: bool, sparse: bool) -> None:
    P = np.array([[[0.25, 0.75 + off]], [[0.0, 1.0]]], kind)
    given_P = csr(P) if sparse else P
    if accepted:
        stored = MDP(given_P, [0, 0], 0.9).P
        assert stored.dtype == np.float64
        assert abs(np.asarray(stored.sum(-1)) - 1).max() < 1e-15
    else:
        with pytest.raises(ModelError, match=r"P\[s=0, a=0\] sums to 1\.0000.*MDP\.normalised"):
            MDP(given_P, [0, 0], 0.9)


def test_float32_rows_of_thirds_are_accepted() -> None:
    m = MDP(np.full((3, 1, 3), 1 / 3, np.float32), np.zeros(3, np.float32), 0.9)
    assert abs(m.P.sum(2) - 1).max() < 1e-15
    assert same_model(m, MDP(m.P, m.R, 0.9))


@pytest.mark.parametrize("sparse", [False, True])
def test_terminal_rows_are_self_loops_used_as_zero(sparse: bool) -> None:
    for last in ([0.0, 0.0], [0.0, 1.0]):
        P = np.array([[[0.5, 0.5]], [last]])
        m = MDP(csr(P) if sparse else P, [1, 0], 1.0, terminal=[False, True])
        stored, rows = (x.toarray() if sparse else x.reshape(2, 2) for x in (m.P, m.rows))
        assert stored.tolist() == [[0.5, 0.5], [0.0, 1.0]]
        assert rows.tolist() == [[0.5, 0.5], [0.0, 0.0]]
        assert m.csr.nnz == 2


@pytest.mark.parametrize("sparse", [False, True])
def test_illegal_rows_are_not_read_and_stored_as_zero(sparse: bool) -> None:
    P = P2.copy()
    P[0, 1] = [0.3, 0.3]
    m = MDP(csr(P) if sparse else P, [[1, 99], [0, 0]], 0.9, legal=[[True, False], [True, True]])
    rows = m.rows.toarray() if sparse else m.rows
    assert rows[1].tolist() == [0, 0]
    assert m.r[0, 1] == 0


def test_terminal_states_keep_all_actions() -> None:
    m = MDP([[[0, 1], [1, 0]], [[0, 0], [0, 0]]], [0, 0], 0.9, terminal=[0, 1], legal=[[1, 0], [0, 0]])
    assert m.legal.tolist() == [[True, False], [True, True]]


def test_start_distribution_is_uniform_over_open_states() -> None:
    P = np.eye(3)[:, None, :]
    assert MDP(P, [0, 0, 0], 0.9, terminal=[0, 1, 0]).mu.tolist() == [0.5, 0, 0.5]
    assert MDP(P, [0, 0, 0], 0.9, terminal=[1, 1, 1]).mu.tolist() == [1 / 3] * 3


def test_rewards_that_are_never_paid_are_zero() -> None:
    R = np.full((2, 1, 2), 5.0)
    R[1] = [[7.0, 0.0]]  # from the terminal state to elsewhere: impossible
    m = MDP([[[0, 1]], [[0, 0]]], R, 0.9, terminal=[0, 1])
    assert m.R.tolist() == [[[0, 5]], [[0, 0]]]
    assert m.R_max == 5


@given(generators(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_rewards_agree_in_all_their_shapes(rng: np.random.Generator, sparse: bool) -> None:
    base = random_mdp(rng, rewards="s", sparse=False)
    R = base.R[:, 0].copy()
    forms: list[Any] = [R, np.repeat(R[:, None], base.A, 1)]
    wide = np.repeat(forms[1][:, :, None], base.S, 2)
    forms += [csr(wide)] if sparse else [wide, wide.tolist()]
    models = [replace(base, P=csr(base.P) if sparse else base.P, R=x) for x in forms]
    V, pi = rng.normal(size=base.S), random_policy(rng, base)
    for m in models[1:]:
        assert abs(m.r - models[0].r).max() <= 1e-13 * max(1, models[0].R_max)
        assert abs(bellman.q_from_v(m, V) - bellman.q_from_v(models[0], V)).max() < 1e-12 * max(1, models[0].R_max)
        moments = chain.return_moments(m, pi), chain.return_moments(models[0], pi)
        assert np.allclose(*moments, rtol=1e-10, atol=1e-10)


def test_a_sparse_reward_for_a_dense_model_is_read() -> None:
    R = np.arange(8.0).reshape(2, 2, 2)
    assert MDP(P2, csr(R), 0.9).r.tolist() == MDP(P2, R, 0.9).r.tolist()


@given(mdps())
@settings(max_examples=80, deadline=None)
def test_derived_arrays_follow_their_definitions(m: MDP) -> None:
    P, R = dense_P(m), dense_R(m)
    rows = m.rows.toarray() if m.is_sparse else m.rows
    assert (rows.reshape(P.shape) == P).all()
    assert (m.csr.toarray() == rows).all()
    assert m.csr.nnz == np.count_nonzero(P)
    assert np.allclose(m.r, (P * R).sum(2), rtol=1e-14, atol=1e-14 * max(1.0, m.R_max))
    assert m.R_max == abs(m.R).max()
    assert m.longest_row == max(1, np.count_nonzero(P, axis=2).max())
    sums = P.sum(2)
    assert abs(sums[sums > 0] - 1).max(initial=0.0) <= m.row_error + 1e-18
    for k in range(4):
        weighted = m.weighted(k)
        weighted = weighted.toarray() if sp.issparse(weighted) else weighted
        assert np.allclose(weighted.reshape(P.shape), P * R**k, rtol=1e-14, atol=0)


@given(mdps())
@settings(max_examples=80, deadline=None)
def test_dense_and_sparse_agree_in_everything(m: MDP) -> None:
    n = twin(m)
    assert n.is_sparse != m.is_sparse
    assert (dense_P(m) == dense_P(n)).all() and (dense_R(m) == dense_R(n)).all()
    size = max(1.0, m.R_max)
    assert abs(m.r - n.r).max() <= 1e-14 * size
    V = np.random.default_rng(m.S).normal(size=m.S)
    assert abs(bellman.q_from_v(m, V) - bellman.q_from_v(n, V)).max() <= 1e-14 * size
    pi = random_policy(np.random.default_rng(m.A), m)
    c, d = chain.induce(m, pi), chain.induce(n, pi)
    assert sp.issparse(c.P) != sp.issparse(d.P)
    both = [x.P.toarray() if sp.issparse(x.P) else x.P for x in (c, d)]
    assert np.allclose(both[0], both[1], rtol=0, atol=1e-15)
    assert np.allclose(chain.evaluate(c), chain.evaluate(d), rtol=1e-11, atol=1e-11 * size)
    assert np.allclose(chain.occupancy(c, m.mu), chain.occupancy(d, m.mu), rtol=1e-11, atol=1e-13)
    assert np.allclose(chain.return_moments(m, pi, 3), chain.return_moments(n, pi, 3), rtol=1e-9, atol=1e-9)
    assert np.allclose(chain.return_variance(m, pi), chain.return_variance(n, pi), rtol=1e-9, atol=1e-9)
    for x, y in zip(longrun.gain_bias(c), longrun.gain_bias(d), strict=True):
        assert np.allclose(x, y, rtol=1e-8, atol=1e-8 * size)
    target = np.arange(m.S) == 0
    assert np.allclose(longrun.hitting_times(c, target), longrun.hitting_times(d, target), rtol=1e-9)
    assert twin(n).is_sparse == m.is_sparse and same_model(twin(n), m)


@given(mdps(), st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_replace_keeps_the_rest(m: MDP, gamma: float) -> None:
    n = replace(m, gamma=gamma)
    assert n.gamma == gamma
    assert same_model(replace(n, gamma=m.gamma), m)


def test_normalised_divides_by_row_sums() -> None:
    P = np.array([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 2.0], [5.0, 0.0]]])
    legal = [[True, False], [True, True]]
    want = [[[0.25, 0.75], [0, 0]], [[0.5, 0.5], [1, 0]]]
    assert MDP.normalised(P, [0, 0], 0.9, legal=legal).P.tolist() == want
    sparse = MDP.normalised(csr(P), [0, 0], 0.9, legal=legal).P
    assert sparse.toarray().reshape(2, 2, 2).tolist() == want


@pytest.mark.parametrize("form", ["coo", "csc", "csr", "lil", "dok", "bsr"])
def test_any_sparse_format_is_read(form: str) -> None:
    assert same_model(MDP(csr(P2).asformat(form), [0, 0], 0.9), MDP(csr(P2), [0, 0], 0.9))
    assert same_model(MDP(sp.csr_matrix(csr(P2)), [0, 0], 0.9), MDP(csr(P2), [0, 0], 0.9))


def test_stored_zeros_and_unsorted_columns_are_tidied() -> None:
    untidy = sp.csr_array((np.array([0.5, 0.5, 0.0, 1.0]), np.array([1, 0, 0, 1]), np.array([0, 2, 4])), shape=(2, 2))
    m = MDP(untidy, [0, 0], 0.9)
    assert m.P.indices.tolist() == [0, 1, 1] and m.P.data.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("axes", REWARDS)
def test_random_models_cover_their_options(axes: str) -> None:
    rng = np.random.default_rng(3)
    drawn = [random_mdp(rng, rewards=axes) for _ in range(60)]
    with_end = sum(bool(m.terminal.any()) for m in drawn)
    masked = sum(not m.legal.all() for m in drawn)
    sparse = sum(m.is_sparse for m in drawn)
    assert all(10 < count < 55 for count in (with_end, masked, sparse))
    assert {m.R.ndim if not sp.issparse(m.R) else 3 for m in drawn} == {3 if axes == "sas" else 2}


def test_repr_says_what_it_is() -> None:
    assert repr(MDP(csr(P2), [0, 0], 0.5)) == "MDP(S=2, A=2, gamma=0.5, 0 terminal, sparse)"


def test_settle_leaves_zero_rows() -> None:
    assert checks.settle(np.array([[0.0, 0.0], [0.5, 0.25]])).tolist() == [[0, 0], [2 / 3, 1 / 3]]


def test_a_large_sparse_model_is_not_densified() -> None:
    """200,000 states: a dense P would need 320 GB."""
    S = 200_000
    s = np.arange(S)
    P = sp.csr_array((np.ones(S), (s, np.minimum(s + 1, S - 1))), shape=(S, S))
    m = MDP(P, 1.0 * (s < S - 1), 0.9, terminal=s == S - 1)
    pi = np.ones((S, 1))
    V = chain.evaluate(chain.induce(m, pi))
    assert V[0] == pytest.approx(10) and V[S - 2] == 1 and V[S - 1] == 0
    assert bellman.certified_bound(m, V) < 1e-12
