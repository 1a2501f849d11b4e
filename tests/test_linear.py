"""Linear systems of chains: kernels and refinement against fractions, iterative methods against factorisation."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from rational import exact
from rational import solve as rational_solve

from tabrl import _jit, chain, envs, linear, markov, multigrid
from tabrl import linear_kernels as kernels
from tabrl.errors import NotConverged

FLOATS = st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-9)
SCALES = (0.99, 0.9999, 1.0)


def random_walk(n: int) -> Any:
    """Uniformly random steps on an n x n grid that ends in a corner, without its last state: slow and without drift."""
    world = envs.slippery_grid(n, gamma=1.0)
    c = chain.induce(world, np.full((world.S, world.A), 1 / world.A))
    keep = np.flatnonzero(~c.terminal)
    return c.P[keep][:, keep]


def drift(n: int) -> Any:
    """Steps towards the corner, most of which succeed."""
    world = envs.slippery_grid(n, gamma=1.0)
    x, y = np.divmod(np.arange(world.S), n)
    far = (2 * n - 2 - x - y).astype(float)
    nearer = (world.rows @ far).reshape(world.S, world.A).argmin(axis=1)
    keep = np.flatnonzero(~world.terminal)
    return world.rows[np.arange(world.S) * world.A + nearer][keep][:, keep]


def garnet(n: int) -> Any:
    """Five random successors a state; the chain ends from one of them."""
    rng = np.random.default_rng(n)
    P = sp.csr_array((rng.dirichlet(np.ones(5), n).ravel(), (np.repeat(np.arange(n), 5), rng.integers(0, n, 5 * n))))
    P = sp.csr_array(P[:, :n])
    P.data[P.indptr[0] : P.indptr[1]] *= 0.25
    return P


CHAINS: dict[str, Callable[[], Any]] = {
    "walk": lambda: random_walk(40),
    "drift": lambda: drift(40),
    "garnet": lambda: garnet(1500),
}


# Twice the precision


@given(FLOATS, FLOATS)
@settings(max_examples=200, deadline=None)
def test_errors_of_products_and_sums_are_exact(x: float, y: float) -> None:
    product, total = x * y, x + y
    rest = Fraction(kernels.product_error(x, y, product))
    assert Fraction(product) + rest == Fraction(x) * Fraction(y)
    assert Fraction(total) + Fraction(kernels.sum_error(x, y, total)) == Fraction(x) + Fraction(y)


@pytest.mark.parametrize("seed", range(30))
def test_residual_is_that_of_exact_arithmetic(seed: int) -> None:
    """b - (I - scale P)(high + low), although what is subtracted agrees in almost every digit."""
    rng = np.random.default_rng(seed)
    n, scale = 6, (1.0, 0.999)[seed % 2]
    P = sp.csr_array(rng.dirichlet(np.ones(n), n) * (rng.random((n, n)) < 0.7))
    x = rng.normal(size=n) * 10.0 ** rng.integers(0, 12)
    high, low = x, x * rng.normal(size=n) * 1e-17
    b = x - scale * (P @ x)
    out = np.empty(n)
    kernels.residual(scale, P.indptr, P.indices, P.data, b, high, low, out)
    M, value = exact(P.toarray()), [Fraction(h) + Fraction(v) for h, v in zip(high, low, strict=True)]
    for s in range(n):
        ahead = sum((p * v for p, v in zip(M[s], value, strict=True)), Fraction())
        want = Fraction(b[s]) - value[s] + Fraction(scale) * ahead
        assert abs(Fraction(out[s]) - want) <= Fraction(linear.dot_error(P, scale, b, x)) + abs(want) * Fraction(2e-16)


def rarely_ending(rng: np.random.Generator) -> tuple[Any, float]:
    """A substochastic matrix that loses 1e-18 to 1 of its probability in some rows, and a scale near or at 1."""
    n = int(rng.integers(1, 7))
    P = np.zeros((n, n))
    for s in range(n):
        use = rng.random(n) < 0.6
        use[rng.integers(n)] = True
        weight = rng.exponential(size=n) * use if rng.random() < 0.6 else use * 1.0
        P[s] = weight / weight.sum() * (1 - (10.0 ** rng.integers(-18, 0) if rng.random() < 0.5 else 0.0))
    return P, 1.0 if rng.random() < 0.6 else 1 - 10.0 ** rng.integers(-15, -8)


@pytest.mark.parametrize("block", range(8))
def test_what_is_answered_is_right_however_rare_the_end(block: int) -> None:
    """|error| <= 1e-9 w max|b| in exact arithmetic (1e-12 where it was refined); else NotConverged, and not often."""
    answered = refused = 0
    for seed in range(100):
        rng = np.random.default_rng([block, seed])
        P, scale = rarely_ending(rng)
        n, b = len(P), rng.normal(size=len(P))
        try:
            x = markov.solve(sp.csr_array(P) if seed % 2 else P, scale, b)
        except NotConverged:
            refused += 1
            continue
        answered += 1
        M = [[Fraction(int(s == t)) - Fraction(scale) * Fraction(P[s, t]) for t in range(n)] for s in range(n)]
        truth, w = rational_solve(M, exact(b)), rational_solve(M, exact(np.ones(n)))
        assert min(w) > 0
        rare = max(w) > 2 * linear.MANY_STEPS
        size = Fraction(1e-12 if rare else 1e-9) * Fraction(abs(b).max())
        for v, t, steps in zip(x, truth, w, strict=True):
            assert abs(Fraction(float(v)) - t) <= size * steps + abs(t) * Fraction(3e-16), (block, seed)
    assert answered > 40 and refused > 0


# Iterative methods


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", ["solve", "sweeps_and_cycles", "krylov"])
def test_methods_agree_with_a_factorisation(kind: str, scale: float, method: str) -> None:
    P = CHAINS[kind]()
    rng = np.random.default_rng(3)
    b = np.column_stack([rng.normal(size=P.shape[0]), np.ones(P.shape[0])])
    want = np.linalg.solve(np.eye(P.shape[0]) - scale * P.toarray(), b)
    if method == "solve":
        x = linear.solve(P, scale, b)
    else:
        x = linear.refined(P, scale, b, getattr(linear, method)(P, scale, linear.STEP))
    assert (abs(x - want).max(axis=1) <= 1e-9 * want[:, 1] * abs(b).max()).all()


@pytest.mark.parametrize("kind", CHAINS)
def test_a_weight_is_one(kind: str) -> None:
    """w - P w >= 1/2 in exact arithmetic, though w itself need not be exact."""
    P = CHAINS[kind]()
    w = linear.weight(P)
    value = exact(w)
    for s in range(0, len(w), 7):
        row = range(P.indptr[s], P.indptr[s + 1])
        ahead = sum((Fraction(float(P.data[i])) * value[P.indices[i]] for i in row), Fraction())
        assert value[s] - ahead >= Fraction(1, 2)


def test_visits_are_counted_by_the_transposed_chain() -> None:
    world = envs.slippery_grid(40, gamma=0.99)
    c = chain.induce(world, np.full((world.S, world.A), 0.25))
    d = chain.occupancy(c, world.mu)
    assert d @ c.r == pytest.approx(world.mu @ chain.evaluate(c), rel=1e-10)
    assert abs(d - world.mu - 0.99 * (c.P.T @ d)).max() < 1e-12


def test_a_method_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong, useless or failing methods are passed over; without a proof there is no answer."""
    P, b = drift(40), np.ones(1599)
    right = linear.solve(P, 1.0, b)

    def singular(_: Any) -> Any:
        raise RuntimeError("Factor is exactly singular")

    bad = [lambda b: b * 0, lambda b: b * 1e300, lambda b: b * np.nan, lambda b: -5 * b, singular]

    def tried(rows: Any, scale: float, share: float = linear.STEP) -> Iterator[Any]:
        for solver in bad:
            yield lambda solver=solver: solver
        yield lambda: linear.krylov(rows, scale, share)

    monkeypatch.setattr(linear, "methods", tried)
    assert np.allclose(linear.solve(P, 1.0, b), right, rtol=1e-11)
    monkeypatch.setattr(linear, "methods", lambda *_: iter([lambda: bad[0], lambda: bad[2]]))
    with pytest.raises(NotConverged, match="singular to working precision"):
        linear.solve(P, 1.0, b)
    with pytest.raises(NotConverged):
        linear.weight(P)


def test_a_large_chain_that_cannot_end_is_refused() -> None:
    P = random_walk(40)
    P.data[:] /= np.repeat(np.asarray(P.sum(axis=1)).ravel(), np.diff(P.indptr))
    with pytest.raises(NotConverged):
        linear.solve(P, 1.0, np.ones(P.shape[0]))


def test_which_systems_are_large() -> None:
    line = sp.csr_array(sp.diags_array([np.full(4999, 0.5), np.full(4999, 0.5)], offsets=[-1, 1]))
    assert linear.large(random_walk(40)) and linear.large(garnet(1500))
    assert not linear.large(line)  # next to the diagonal, so that factors stay sparse
    assert not linear.large(random_walk(20)) and not linear.large(random_walk(40).toarray())


def test_without_numba_nothing_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "compiled", lambda: False)
    monkeypatch.setattr(linear, "sweeps_and_cycles", None)
    P = random_walk(40)
    x = linear.solve(P, 1.0, np.ones(P.shape[0]))
    assert abs(1 - (x - P @ x)).max() < 1e-9


# Multigrid and windows


def test_groups_lose_no_probability() -> None:
    """Every level has the excess and the entries of the one below, summed; nothing is subtracted, nothing negative."""
    P = random_walk(60)
    excess = 1.0 - np.asarray(P.sum(axis=1)).ravel()
    N, diagonal = multigrid.split(P, excess)
    assert np.allclose(diagonal, 1.0 - P.diagonal(), atol=1e-15)
    assert abs(sp.diags_array(diagonal) - N - (sp.eye_array(len(diagonal)) - P)).max() < 1e-15
    h = multigrid.hierarchy(N, diagonal, excess)
    assert [len(x.diagonal) for x in h.levels] == sorted({len(x.diagonal) for x in h.levels}, reverse=True)
    for fine, coarse in zip(h.levels, h.levels[1:], strict=False):
        assert fine.groups == len(coarse.diagonal) <= 0.3 * len(fine.diagonal)
        R = sp.csr_array((np.ones(len(fine.group)), (fine.group, np.arange(len(fine.group)))))
        galerkin = R @ (sp.diags_array(fine.diagonal) - fine.N) @ R.T
        assert abs(galerkin - (sp.diags_array(coarse.diagonal) - coarse.N)).max() < 1e-12
        assert (coarse.N.data > 0).all() and (coarse.diagonal > 0).all()


@pytest.mark.parametrize("n", [30, 60, 120])
def test_cycles_hardly_grow_with_the_size(n: int) -> None:
    """A random walk without drift at gamma = 1: 1e-7 of the residual in at most 30 cycles, where sweeps need ~ n**2."""
    P = random_walk(n)
    excess = 1.0 - np.asarray(P.sum(axis=1)).ravel()
    h = multigrid.hierarchy(*multigrid.split(P, excess), excess)
    b = np.ones(P.shape[0])
    x = multigrid.conjugate_residuals(h, b, accuracy=1e-7, limit=30)
    assert abs(b - (x - P @ x)).max() < 1e-4  # rounding of x ~ 1e6 included


def test_one_window_after_another_solves_a_chain_that_moves_one_way() -> None:
    """Acyclic but for self-loops, in the order of the sweep: entering alone is exact."""
    rng = np.random.default_rng(5)
    n = 300
    P = np.tril(rng.random((n, n)) * (rng.random((n, n)) < 0.05))
    P *= rng.random((n, 1)) * 0.9 / np.maximum(P.sum(axis=1, keepdims=True), 1e-9)
    b, x, excess = rng.normal(size=n), np.zeros(n), 1 - P.sum(axis=1)
    N, diagonal = multigrid.split(sp.csr_array(P), excess)
    kernels.slide(40, 1, 0.0, N.indptr, N.indices, N.data, diagonal, b, x)
    assert np.allclose(x, np.linalg.solve(np.eye(n) - P, b), rtol=1e-11, atol=1e-12)


def test_plain_and_compiled_kernels_give_the_same_bits() -> None:
    if not _jit.compiled():
        pytest.skip("numba is not installed")
    P = drift(20)
    excess = 1.0 - np.asarray(P.sum(axis=1)).ravel()
    N, diagonal = multigrid.split(P, excess)
    parts, b = (N.indptr, N.indices, N.data, diagonal), np.random.default_rng(0).normal(size=P.shape[0])
    results = []
    ways: list[Callable[[Any], Any]] = [lambda k: k, lambda k: k.py_func]
    for run in ways:
        x, y, out, group = np.zeros(len(b)), np.zeros(len(b)), np.empty(len(b)), np.full(len(b), -1)
        run(kernels.slide)(64, 5, 1e-9, *parts, b, x)
        run(kernels.forward)(0, len(b), *parts, b, y)
        run(kernels.backward)(*parts, b, y)
        run(kernels.residual)(0.99, P.indptr, P.indices, P.data, b, x, y * 1e-17, out)
        n = run(kernels.pair)(N.indptr, N.indices, N.data, group)
        results.append((x.tobytes(), y.tobytes(), out.tobytes(), group.tobytes(), n))
    assert results[0] == results[1]


# Sizes


def test_a_walk_of_100_000_steps_back_and_forth() -> None:
    """One-dimensional: w(i) = i (n + 1 - i), five thousand million at most, and each value right to 12 digits."""
    n = 99_999
    P = sp.csr_array(sp.diags_array([np.full(n - 1, 0.5), np.full(n - 1, 0.5)], offsets=[-1, 1]))
    i = np.arange(1.0, n + 1)
    assert np.allclose(markov.solve(P, 1.0, np.ones(n)), i * (n + 1 - i), rtol=1e-12)


@pytest.mark.parametrize("kind", ["walk", "drift"])
def test_a_grid_of_90_000_states(kind: str) -> None:
    if not _jit.compiled():
        pytest.skip("sweeps in plain Python take too long")
    P = random_walk(300) if kind == "walk" else drift(300)
    w = markov.solve(P, 1.0, np.ones(P.shape[0]))
    assert abs(w - P @ w - 1).max() <= 1e-15 * w.max()
    assert (w.max() > 1e6) == (kind == "walk")
