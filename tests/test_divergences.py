"""KL estimates, KL and entropy of rows: means and gradients by enumeration, twins by differences and autograd."""

from typing import Any

import numpy as np
import pytest
from derivatives import autograd, central, central_rows, close, log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from models import generators

from tabrl import losses
from tabrl.divergences import KINDS, d_entropy, d_kl_estimate, d_kl_penalty, entropy, kl_estimate, kl_penalty
from tabrl.errors import ShapeError

inf = np.inf


def two(rng: np.random.Generator, A: int = 5, rows: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """Logits of two policies."""
    z = 2 * rng.normal(size=(2, *rows, A))
    return z[0], z[1]


def kl(p: Any, q: Any) -> Any:
    """KL(p || q) from its definition."""
    return sum(x * np.log(x / y) for x, y in zip(p.tolist(), q.tolist(), strict=True) if x > 0)


# ---- estimates ----


@given(generators(), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_k1_and_k3_have_the_kl_as_their_mean(rng: np.random.Generator, A: int) -> None:
    logp, logp_ref = map(log_softmax, two(rng, A))
    p, exact = np.exp(logp), kl(np.exp(logp), np.exp(logp_ref))
    for kind in ("k1", "k3"):
        assert (p * kl_estimate(logp, logp_ref, kind=kind)).sum() == pytest.approx(exact, rel=1e-12, abs=1e-14)


def test_k2_is_biased_by_a_known_amount() -> None:
    """p = (1/2, 1/2) and q = (1/4, 3/4): the mean of k2 is (log^2 2 + log^2 1.5) / 4, not the KL."""
    logp, logp_ref = np.log([0.5, 0.5]), np.log([0.25, 0.75])
    mean = (0.5 * kl_estimate(logp, logp_ref, kind="k2")).sum()
    assert mean == pytest.approx((np.log(2) ** 2 + np.log(1.5) ** 2) / 4, rel=1e-14)
    assert abs(mean - kl(np.exp(logp), np.exp(logp_ref))) > 0.01


@given(generators(), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_k2_and_k3_are_not_negative_and_0_where_the_policies_agree(rng: np.random.Generator, A: int) -> None:
    logp, logp_ref = map(log_softmax, two(rng, A))
    for kind in KINDS:
        assert (kl_estimate(logp, logp, kind=kind) == 0).all()
        assert kind == "k1" or (kl_estimate(logp, logp_ref, kind=kind) >= 0).all()


@given(generators(), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_mean_gradients_of_the_estimates(rng: np.random.Generator, A: int) -> None:
    """As a loss over actions that pi drew: nothing, the gradient of KL(pi || ref), that of KL(ref || pi)."""
    z, z_ref = two(rng, A)
    logp, logp_ref = log_softmax(z), log_softmax(z_ref)
    p, q = np.exp(logp), np.exp(logp_ref)
    score = np.eye(A) - p  # row a: d log p(a) / d z
    exact = {
        "k1": np.zeros(A),
        "k2": central_rows(lambda z: (np.exp(log_softmax(z)) * (log_softmax(z) - logp_ref)).sum(), z),
        "k3": central_rows(lambda z: (q * (logp_ref - log_softmax(z))).sum(), z),
    }
    for kind in KINDS:
        mean = (p * d_kl_estimate(logp, logp_ref, kind=kind)) @ score
        assert close(mean, exact[kind], 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_estimates_by_differences(seed: int, kind: str) -> None:
    x, y = np.random.default_rng([41, seed]).normal(size=(2, 50))
    assert close(d_kl_estimate(x, y, kind=kind), central(lambda x: kl_estimate(x, y, kind=kind), x), 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_estimates_by_autograd(seed: int, kind: str) -> None:
    x, y = np.random.default_rng([42, seed]).normal(size=(2, 50))
    value, gradient = autograd(lambda x, y: kl_estimate(x, y, kind=kind), x, y)
    assert close(kl_estimate(x, y, kind=kind), value, 1e-12)
    assert close(d_kl_estimate(x, y, kind=kind), gradient, 1e-12)


def test_k3_keeps_its_digits_for_policies_that_are_close() -> None:
    """k3 = x^2/2 + x^3/6 + …: at x = 1e-5 the direct formula has 6 digits, this one 11."""
    x = 1e-5
    series = x**2 / 2 + x**3 / 6 + x**4 / 24
    assert kl_estimate(np.zeros(1), np.array([x]), kind="k3").item() == pytest.approx(series, rel=1e-10, abs=0)


# ---- rows ----


@given(generators(), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_rows_by_their_definitions(rng: np.random.Generator, A: int) -> None:
    new, old = map(log_softmax, two(rng, A, (2, 3)))
    for i in np.ndindex(2, 3):
        p, q = np.exp(new[i]), np.exp(old[i])
        assert kl_penalty(new, old)[i] == pytest.approx(kl(q, p), rel=1e-12, abs=1e-14)  # from old to new
        assert entropy(new)[i] == pytest.approx(-sum(x * np.log(x) for x in p.tolist()), rel=1e-12, abs=1e-14)


def test_the_direction_of_the_penalty() -> None:
    """KL(old || new) for old = (1/2, 1/2), new = (1/4, 3/4), in closed form; the other direction is smaller."""
    new, old = np.log([0.25, 0.75]), np.log([0.5, 0.5])
    assert kl_penalty(new, old) == pytest.approx(np.log(4 / 3) / 2, rel=1e-14)
    assert kl_penalty(old, new) == pytest.approx(0.75 * np.log(3) - np.log(2), rel=1e-14)


def test_actions_that_are_never_taken() -> None:
    new, old = np.array([np.log(0.5), np.log(0.5), -inf]), np.array([0.0, -inf, -inf])
    assert kl_penalty(new, old) == pytest.approx(np.log(2), rel=1e-15)
    assert kl_penalty(old, new) == inf
    assert entropy(new) == pytest.approx(np.log(2), rel=1e-15)
    assert entropy(old) == 0
    assert d_entropy(new)[2] == 0 and (d_entropy(old) == 0).all()
    assert close(d_kl_penalty(new, old), [-0.5, 0.5, 0.0], 1e-15)


def test_entropy_is_largest_for_the_uniform_row() -> None:
    z = np.zeros((1, 7))
    assert entropy(log_softmax(z)) == pytest.approx(np.log(7), rel=1e-15)
    assert close(d_entropy(log_softmax(z)), np.zeros((1, 7)), 1e-15)


@pytest.mark.parametrize("seed", range(20))
def test_rows_by_differences(seed: int) -> None:
    z, z_old = two(np.random.default_rng([43, seed]), 4, (3,))
    old = log_softmax(z_old)
    assert close(d_kl_penalty(log_softmax(z), old), central_rows(lambda z: kl_penalty(log_softmax(z), old), z), 1e-9)
    assert close(d_entropy(log_softmax(z)), central_rows(lambda z: entropy(log_softmax(z)), z), 1e-9)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_rows_by_autograd(seed: int, masked: bool) -> None:
    z, z_old = two(np.random.default_rng([44, seed]), 4, (3,))
    if masked:
        z[:, 3], z_old[:, 3] = -inf, -inf
    new, old = log_softmax(z), log_softmax(z_old)
    value, gradient = autograd(lambda z, old: kl_penalty(z.log_softmax(-1), old), z, old)
    assert close(kl_penalty(new, old), value, 1e-12) and close(d_kl_penalty(new, old), gradient, 1e-12)
    value, gradient = autograd(lambda z: entropy(z.log_softmax(-1)), z)
    assert close(entropy(new), value, 1e-12) and close(d_entropy(new), gradient, 1e-12)


def test_losses_name_them_too() -> None:
    assert losses.kl_estimate is kl_estimate and losses.d_kl_estimate is d_kl_estimate
    assert losses.kl_penalty is kl_penalty and losses.d_kl_penalty is d_kl_penalty
    assert losses.entropy is entropy and losses.d_entropy is d_entropy


@pytest.mark.parametrize("function", [kl_estimate, d_kl_estimate])
def test_a_kind_that_does_not_exist(function: Any) -> None:
    with pytest.raises(ValueError, match="kind is 'k4'; one of k1, k2, k3 is expected"):
        function(np.zeros(1), np.zeros(1), kind="k4")


@pytest.mark.parametrize("function", [kl_estimate, d_kl_estimate, kl_penalty, d_kl_penalty])
def test_shapes(function: Any) -> None:
    with pytest.raises(ShapeError, match=r"^logp_(ref|old) has shape \(3,\); the shape of logp, \(2,\), is expected"):
        function(np.zeros(2), np.zeros(3))
