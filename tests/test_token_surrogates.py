"""Losses of tokens: the published formulas by loops, derivatives by differences and by autograd, means by listing."""

from collections.abc import Callable
from math import exp, inf, log
from typing import Any

import numpy as np
import pytest
from derivatives import H, autograd, central, central_rows, close, log_softmax

from tabrl.divergences import KINDS, kl_estimate
from tabrl.errors import ShapeError
from tabrl.losses import aggregate, clipped, d_aggregate, d_policy_gradient, d_ppo_clip, ppo_clip
from tabrl.tokens.credit import per_token
from tabrl.tokens.surrogates import (
    cispo,
    cispo_capped,
    d_cispo,
    d_gspo,
    d_weighted_kl,
    gspo,
    gspo_clipped,
    sequence_log_ratios,
    weighted_kl,
)
from tabrl.weights import LIMIT

nan = np.nan
B, T = 40, 6
HOWS = ("sequence", "token", "group_token", "constant")
BOUNDS = ((3e-4, 4e-4), (0.1, 0.2), (0.0, 0.0), (1.0, inf))


def batch(seed: int, width: float = 0.3) -> tuple[Any, Any, Any, Any]:
    """Log-probabilities now and then, advantages of sequences (B,) with zeros, and ragged masks, one of them empty."""
    rng = np.random.default_rng([70, seed])
    logp_old = -rng.exponential(size=(B, T))
    logp = logp_old + width * rng.normal(size=(B, T)) + 0.2 * rng.normal(size=(B, 1))
    mask = rng.random((B, T)) < 0.7 if seed % 2 else np.arange(T) < rng.integers(1, T + 1, B)[:, None]
    mask[0], mask[1] = False, True
    return logp, logp_old, rng.normal(size=B) * (rng.random(B) < 0.9), mask


def tokens(i: int, mask: Any, *arrays: Any) -> list[tuple[float, ...]]:
    """What counts in sequence i, token by token."""
    return [tuple(float(x[i, t]) for x in arrays) for t in range(mask.shape[1]) if mask[i, t]]


# ---- GSPO ----


def literal_gspo(logp: Any, logp_old: Any, adv: Any, mask: Any, low: float, high: float) -> tuple[Any, Any, Any]:
    """Loss, derivative and where it is stopped, of each token, as published; A of each token."""
    loss, derivative, stopped = np.zeros((B, T)), np.zeros((B, T)), np.zeros((B, T), bool)
    for i in range(B):
        pairs = tokens(i, mask, logp, logp_old)
        if not pairs:
            continue
        s = exp(sum(p - q for p, q in pairs) / len(pairs))
        for t in np.flatnonzero(mask[i]):
            A = float(adv[i, t])
            free, held = s * A, min(max(s, 1 - low), 1 + high) * A
            loss[i, t] = -min(free, held)
            stopped[i, t] = held < free
            derivative[i, t] = 0.0 if held < free else -s * A
    return loss, derivative, stopped


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("seed", range(6))
def test_gspo_as_published(seed: int, bounds: tuple[float, float]) -> None:
    logp, logp_old, adv, mask = batch(seed)
    varied = per_token(adv, mask) * (1.0 if seed < 3 else np.random.default_rng(seed).normal(size=(B, T)))
    low, high = bounds
    loss, derivative, stopped = literal_gspo(logp, logp_old, varied, mask, low, high)
    assert close(gspo(logp, logp_old, varied, mask, low=low, high=high), loss, 1e-12)
    assert close(d_gspo(logp, logp_old, varied, mask, low=low, high=high), derivative, 1e-12)
    assert np.array_equal(gspo_clipped(logp, logp_old, varied, mask, low=low, high=high), stopped)
    assert stopped.any() == (bounds != (1.0, inf))


@pytest.mark.parametrize("seed", range(6))
def test_sequence_log_ratios_are_means(seed: int) -> None:
    logp, logp_old, _, mask = batch(seed)
    x = sequence_log_ratios(logp, logp_old, mask)
    for i in range(B):
        pairs = tokens(i, mask, logp, logp_old)
        assert x[i] == pytest.approx(sum(p - q for p, q in pairs) / max(1, len(pairs)), abs=1e-14)
    assert x.shape == (B,) and x[0] == 0
    assert sequence_log_ratios(np.full((1, 2), 900.0), np.zeros((1, 2)), np.ones((1, 2))).tolist() == [900.0]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("seed", range(4))
def test_the_batch_loss_is_the_mean_over_sequences(seed: int, bounds: tuple[float, float]) -> None:
    """-min(s A, clip(s) A), one number per sequence; a sequence without tokens counts with 0."""
    logp, logp_old, adv, mask = batch(seed)
    low, high = bounds
    s = np.exp(sequence_log_ratios(logp, logp_old, mask))
    each = -np.minimum(s * adv, np.clip(s, 1 - low, 1 + high) * adv) * mask.any(1)
    loss = gspo(logp, logp_old, per_token(adv, mask), mask, low=low, high=high)
    assert aggregate(loss, mask, how="sequence") == pytest.approx(each.mean(), rel=1e-12)


def far_from_kinks(logp: Any, logp_old: Any, mask: Any, low: float, high: float) -> Any:
    """Sequences whose ratio no step of the differences carries over a bound, (B,)."""
    x = sequence_log_ratios(logp, logp_old, mask)
    kinks = [log(b) for b in (1 - low, 1 + high) if 0 < b < inf]
    return np.logical_and.reduce([abs(x - kink) > 2.1 * H for kink in kinks] or [x == x])


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("seed", range(2))
def test_the_whole_loss_by_differences(seed: int, bounds: tuple[float, float], how: str) -> None:
    """The ratio couples the tokens of a sequence: one token at a time is moved, the batch's loss is looked at."""
    logp, logp_old, adv, mask = batch(seed)
    low, high = bounds
    smooth = far_from_kinks(logp, logp_old, mask, low, high)
    assert smooth.mean() > 0.8
    logp, logp_old, adv, mask = (x[smooth] for x in (logp, logp_old, adv, mask))
    A, options = per_token(adv, mask), {"how": how, "group": np.arange(len(adv)) % 3, "length": T + 1}

    def whole(flat: Any) -> Any:
        x = flat.reshape(logp.shape)
        return aggregate(gspo(x, logp_old, A, mask, low=low, high=high), mask, **options)  # type: ignore[arg-type]

    w = d_aggregate(logp, mask, **options)  # type: ignore[arg-type]
    exact = w * d_gspo(logp, logp_old, A, mask, low=low, high=high)
    assert close(central_rows(whole, logp.ravel()).reshape(logp.shape), exact, 1e-10)
    assert abs(exact).max() > 1e-4


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("seed", range(4))
def test_gspo_and_its_token_form_by_torch(seed: int, how: str) -> None:
    """With one advantage per sequence the published objective, its ratio differentiated as it is, has our gradient."""
    torch = pytest.importorskip("torch")
    logp, logp_old, adv, mask = batch(seed)
    A, group = per_token(adv, mask), np.arange(B) % 3

    def published(x: Any, y: Any, a: Any, m: Any, g: Any) -> Any:
        n = m.sum(1).clamp(min=1)
        s = torch.exp((m * (x - y)).sum(1) / n)[:, None]
        loss = -torch.minimum(s * a, s.clamp(0.9, 1.2) * a) * m
        return aggregate(loss, m, how=how, group=g, length=T)

    def ours(x: Any, y: Any, a: Any, m: Any, g: Any) -> Any:
        return aggregate(gspo(x, y, a, m, low=0.1, high=0.2), m, how=how, group=g, length=T)

    w = d_aggregate(logp, mask, how=how, group=group, length=T)
    twin = w * d_gspo(logp, logp_old, A, mask, low=0.1, high=0.2)
    for loss in (published, ours):
        value, gradient = autograd(loss, logp, logp_old, A, mask, group)
        exact = aggregate(gspo(logp, logp_old, A, mask, low=0.1, high=0.2), mask, how=how, group=group, length=T)
        assert value == pytest.approx(exact, rel=1e-12)
        assert close(gradient, twin, 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_sequences_of_one_token_are_ppo(seed: int) -> None:
    logp, logp_old, adv, _ = batch(seed)
    x, y, a, one = logp[:, :1], logp_old[:, :1], adv[:, None], np.ones((B, 1))
    assert close(gspo(x, y, a, one, low=0.1, high=0.2), ppo_clip(x, y, a, low=0.1, high=0.2), 1e-15)
    assert close(d_gspo(x, y, a, one, low=0.1, high=0.2), d_ppo_clip(x, y, a, low=0.1, high=0.2), 1e-15)
    assert np.array_equal(gspo_clipped(x, y, a, one, low=0.1, high=0.2), clipped(x, y, a, low=0.1, high=0.2))
    far = np.array([[30.0], [-30.0]])  # beyond weights.LIMIT
    assert gspo(far, 0 * far, -np.ones((2, 1)), far != 0, low=1.0)[:, 0].tolist() == [exp(LIMIT), exp(-LIMIT)]
    assert gspo_clipped(far, 0 * far, -np.ones((2, 1)), far != 0).all()


def test_the_gspo_defaults() -> None:
    """Bounds of the paper: 1 - 3e-4 and 1 + 4e-4, on the mean of two tokens of which one does not move."""
    x = 2 * np.array([[-2.9e-4, 0.0], [-3.1e-4, 0.0], [3.9e-4, 0.0], [4.1e-4, 0.0]])
    A = np.array([-1.0, -1.0, 1.0, 1.0])[:, None] * np.ones((4, 2))
    assert gspo_clipped(x, 0 * x, A, np.ones((4, 2)))[:, 0].tolist() == [False, True, False, True]
    assert (d_gspo(x, 0 * x, A, np.ones((4, 2)))[:, 1] != 0).tolist() == [True, False, True, False]
    assert gspo(x, 0 * x, A, np.ones((4, 2)))[[1, 3], 1].tolist() == [1 - 3e-4, -(1 + 4e-4)]


@pytest.mark.parametrize("seed", range(4))
def test_padding_does_not_matter(seed: int) -> None:
    logp, logp_old, adv, mask = batch(seed)
    A = per_token(adv, mask)
    for f in (gspo, d_gspo, gspo_clipped):
        clean = f(logp, logp_old, A, mask)
        assert (clean[~mask] == 0).all()
        for rubbish in (nan, 1e300, -1e300, inf, -inf):
            x, y, a = (np.where(mask, z, rubbish) for z in (logp, logp_old, A))
            assert np.array_equal(f(x, y, a, mask.astype(float)), clean)
            assert np.array_equal(sequence_log_ratios(x, y, mask), sequence_log_ratios(logp, logp_old, mask))


@pytest.mark.parametrize("seed", range(2))
def test_padding_has_no_gradient_in_torch(seed: int) -> None:
    logp, logp_old, adv, mask = batch(seed)
    clean = autograd(gspo, logp, logp_old, per_token(adv, mask), mask)
    for rubbish in (nan, 1e300, inf):
        x, y = (np.where(mask, z, rubbish) for z in (logp, logp_old))
        dirty = autograd(gspo, x, y, np.where(mask, adv[:, None], rubbish), mask)
        assert all(np.array_equal(a, b) for a, b in zip(dirty, clean, strict=True))


# ---- all of them, token by token ----


Loss = Callable[..., Any]
CASES: dict[str, tuple[Loss, Loss]] = {  # of logp, logp_old, A, logp_ref, mask
    "gspo": (lambda x, y, a, q, m: gspo(x, y, a, m), lambda x, y, a, q, m: d_gspo(x, y, a, m)),
    "gspo wide": (
        lambda x, y, a, q, m: gspo(x, y, a, m, low=0.1, high=0.2),
        lambda x, y, a, q, m: d_gspo(x, y, a, m, low=0.1, high=0.2),
    ),
    "cispo": (lambda x, y, a, q, m: cispo(x, y, a), lambda x, y, a, q, m: d_cispo(x, y, a)),
    "cispo both": (
        lambda x, y, a, q, m: cispo(x, y, a, low=0.1, high=0.2),
        lambda x, y, a, q, m: d_cispo(x, y, a, low=0.1, high=0.2),
    ),
}
for each in KINDS:
    CASES[f"weighted {each}"] = (
        lambda x, y, a, q, m, kind=each: weighted_kl(x, y, q, kind=kind),
        lambda x, y, a, q, m, kind=each: d_weighted_kl(x, y, q, kind=kind),
    )


def case_arguments(seed: int) -> tuple[Any, Any, Any, Any, Any]:
    """Advantages that differ along a sequence, and ratios of which some are far out."""
    logp, logp_old, _, mask = batch(seed)
    rng = np.random.default_rng([71, seed])
    far = np.where(rng.random((B, T)) < 0.05, 25 * rng.choice([-1, 1], (B, T)), 0.0)
    return logp, logp_old + far, rng.normal(size=(B, T)), logp + rng.normal(size=(B, T)), mask


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_values_and_derivatives_by_torch(seed: int, name: str) -> None:
    torch = pytest.importorskip("torch")
    loss, derivative = CASES[name]
    arguments = case_arguments(seed)
    weight = np.random.default_rng(seed).normal(size=(B, T)) * arguments[-1]
    value, gradient = autograd(loss, *arguments)
    assert close(loss(*arguments), value, 1e-12)
    assert close(derivative(*arguments), gradient, 1e-12)
    found = derivative(*(torch.tensor(x) for x in arguments))
    assert found.dtype == torch.float64 and close(found.numpy(), derivative(*arguments), 1e-12)
    _, gradient = autograd(lambda *x: torch.tensor(weight) * loss(*x), *arguments)
    assert close(weight * derivative(*arguments), gradient, 1e-12)


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
@pytest.mark.parametrize("name", CASES)
def test_shape_and_precision_are_kept(name: str, shape: tuple[int, int]) -> None:
    for f in CASES[name]:
        found = f(*np.full((4, *shape), -0.5, np.float32), np.ones(shape, bool))
        assert found.shape == shape and found.dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
@pytest.mark.parametrize("name", CASES)
def test_torch_keeps_them_too(name: str, shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    for f in CASES[name]:
        found = f(*torch.full((4, *shape), -0.5), torch.ones(shape) > 0)
        assert tuple(found.shape) == shape and found.dtype == torch.float32


@pytest.mark.parametrize("name", ["gspo", "gspo wide", "cispo", "cispo both"])
@pytest.mark.parametrize("seed", range(2))
def test_on_policy_the_derivative_is_minus_the_advantage(seed: int, name: str) -> None:
    logp, _, A, ref, _ = case_arguments(seed)
    found = CASES[name][1](logp, logp, A, ref, np.ones((B, T)))
    assert np.array_equal(found, -A) and np.array_equal(found, d_policy_gradient(logp, A))


# ---- CISPO ----


@pytest.mark.parametrize(("low", "high"), [(None, 4.0), (None, 0.2), (0.1, 0.2), (0.0, 0.0), (2.0, 4.0), (None, inf)])
@pytest.mark.parametrize("seed", range(3))
def test_cispo_as_published(seed: int, low: float | None, high: float) -> None:
    logp, logp_old, A, _, _ = case_arguments(seed)
    A[0] = 0.0
    loss, derivative, capped = (f(logp, logp_old, A, low=low, high=high) for f in (cispo, d_cispo, cispo_capped))
    for i, t in np.ndindex(B, T):
        rho = exp(min(max(float(logp[i, t] - logp_old[i, t]), -LIMIT), LIMIT))
        weight = min(rho, 1 + high) if low is None else min(max(rho, 1 - low), 1 + high)
        assert derivative[i, t] == pytest.approx(-weight * A[i, t], rel=1e-12)
        assert loss[i, t] == pytest.approx(-weight * A[i, t] * logp[i, t], rel=1e-12)
        assert capped[i, t] == (A[i, t] != 0 and (rho > 1 + high or (low is not None and rho < 1 - low)))
    assert (derivative[1:] != 0).all()


def test_cispo_keeps_the_gradient_that_ppo_drops() -> None:
    """A good token whose ratio has left the clip: PPO stops there, CISPO goes on with the bounded weight."""
    logp, logp_old, A = np.log([0.3]), np.log([0.1]), np.ones(1)
    assert d_ppo_clip(logp, logp_old, A).tolist() == [0.0] and clipped(logp, logp_old, A).all()
    assert d_cispo(logp, logp_old, A, high=0.2).tolist() == [-1.2] and cispo_capped(logp, logp_old, A, high=0.2).all()
    assert close(d_cispo(logp, logp_old, A), [-3.0], 1e-15) and not cispo_capped(logp, logp_old, A).any()
    assert d_cispo(np.zeros(1), np.full(1, -9.0), A).tolist() == [-5.0]  # the default bound
    assert cispo_capped(np.log([4.9, 5.1]), np.zeros(2), np.ones(2)).tolist() == [False, True]
    assert cispo(np.log([4.0, 6.0]), np.zeros(2), np.ones(2)) == pytest.approx([-4 * log(4), -5 * log(6)], rel=1e-15)


# ---- KL to a reference ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_weighted_kl_by_differences(seed: int, kind: str) -> None:
    logp, logp_old, _, ref, _ = case_arguments(seed)
    smooth = abs(abs(logp - logp_old) - LIMIT) > 2.1 * H
    assert smooth.mean() > 0.9 and (abs(logp - logp_old) > LIMIT).any()
    x, y, q = logp[smooth], logp_old[smooth], ref[smooth]
    size = np.maximum(1, abs(weighted_kl(x, y, q, kind=kind)))
    exact = d_weighted_kl(x, y, q, kind=kind)
    assert (abs(central(lambda x: weighted_kl(x, y, q, kind=kind), x) - exact) <= 1e-9 * size).all()
    near = abs(x - y) < LIMIT
    by_hand = np.exp(x - y) * kl_estimate(x, q, kind=kind)
    assert close(weighted_kl(x, y, q, kind=kind)[near], by_hand[near], 1e-12)


def test_at_the_limit_of_the_ratio_the_gradient_passes() -> None:
    x, y, q = np.array([LIMIT, -LIMIT, LIMIT + 1]), np.zeros(3), np.array([LIMIT - 1, -LIMIT - 1, LIMIT])
    rho = np.exp([LIMIT, -LIMIT, LIMIT])
    assert close(d_weighted_kl(x, y, q, kind="k1"), rho * [2.0, 2.0, 1.0], 1e-15)
    assert close(autograd(lambda *z: weighted_kl(*z, kind="k1"), x, y, q)[1], rho * [2.0, 2.0, 1.0], 1e-15)


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_mean_gradients_of_one_token(seed: int, on_policy: bool) -> None:
    """Ledger E2.6, all A tokens listed: with the ratio that of KL(pi || ref), whatever drew them; k3 alone, the other.

    E over the old policy of rho k2 is the mean of k2 itself, whose gradient is neither of the two.
    """
    rng = np.random.default_rng([72, seed])
    z, z_old, z_ref = rng.normal(size=(3, 5))
    logp, ref = log_softmax(z), log_softmax(z_ref)
    old = logp if on_policy else log_softmax(z_old)
    p, p_old = np.exp(logp), np.exp(old)

    def forward(z: Any) -> Any:
        return (np.exp(log_softmax(z)) * (log_softmax(z) - ref)).sum()

    def backward(z: Any) -> Any:
        return (np.exp(ref) * (ref - log_softmax(z))).sum()

    def mean_k2(z: Any) -> Any:
        return (np.exp(log_softmax(z)) * (log_softmax(z) - ref) ** 2 / 2).sum()

    for kind, exact in (("k1", forward), ("k3", forward), ("k2", mean_k2)):
        assert p_old @ weighted_kl(logp, old, ref, kind=kind) == pytest.approx(exact(z), rel=1e-12)
        mean = (p_old * d_weighted_kl(logp, old, ref, kind=kind)) @ (np.eye(5) - p)
        assert close(mean, central_rows(exact, z), 1e-9)
    unweighted = (p * (1 - np.exp(ref - logp))) @ (np.eye(5) - p)
    assert close(unweighted, central_rows(backward, z), 1e-9)
    assert abs(central_rows(forward, z) - central_rows(backward, z)).max() > 1e-3


def test_on_policy_k3_has_the_derivative_of_a_log_ratio() -> None:
    logp, _, _, ref, _ = case_arguments(0)
    assert close(d_weighted_kl(logp, logp, ref), logp - ref, 1e-12)
    assert close(weighted_kl(logp, logp, ref), kl_estimate(logp, ref, kind="k3"), 1e-15)


# ---- bad input ----


@pytest.mark.parametrize("f", [gspo, d_gspo, gspo_clipped])
def test_bad_arguments_of_gspo(f: Any) -> None:
    m, x = np.ones((2, 3)), np.zeros((3, 2))
    with pytest.raises(ShapeError, match=r"^logp_old has shape \(3, 2\); the shape of logp, \(2, 3\), is expected"):
        f(m, x, m, m)
    with pytest.raises(ShapeError, match=r"^adv has shape \(2,\); the shape of logp, \(2, 3\), is expected"):
        f(m, m, np.ones(2), m)
    with pytest.raises(ShapeError, match=r"^mask has shape \(3,\); \(B,T\) is expected"):
        f(x[:, 0], x[:, 0], x[:, 0], x[:, 0])
    with pytest.raises(ValueError, match=r"low is -0\.1; a number >= 0 is expected"):
        f(m, m, m, m, low=-0.1)
    with pytest.raises(ValueError, match="high is nan; a number >= 0 is expected"):
        f(m, m, m, m, high=nan)
    with pytest.raises(TypeError, match="adv is a float; a NumPy array or a torch tensor"):
        f(m, m, 1.0, m)


def test_bad_arguments_of_the_others() -> None:
    two, three = np.zeros(2), np.zeros(3)
    for f in (cispo, d_cispo, cispo_capped):
        with pytest.raises(ShapeError, match=r"^adv has shape \(3,\); the shape of logp, \(2,\), is expected"):
            f(two, two, three)
        with pytest.raises(ValueError, match="low is -1; a number >= 0 is expected"):
            f(two, two, two, low=-1)
        with pytest.raises(ValueError, match="high is nan; a number >= 0 is expected"):
            f(two, two, two, high=nan)
    for g in (weighted_kl, d_weighted_kl):
        with pytest.raises(ShapeError, match=r"^logp_ref has shape \(3,\); the shape of logp, \(2,\), is expected"):
            g(two, two, three)
        with pytest.raises(ValueError, match="kind is 'k4'; one of k1, k2, k3 is expected"):
            g(two, two, two, kind="k4")
    with pytest.raises(ShapeError, match=r"^logp has shape \(3,\); the shape of mask, \(2, 3\), is expected"):
        sequence_log_ratios(three, three, np.ones((2, 3)))
