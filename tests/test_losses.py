"""Losses: each derivative by differences and by autograd, where the clip stops it, and sums by hand.

Every loss of CASES takes three arrays of one shape; the derivative is with respect to the first.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from derivatives import H, autograd, central, central_rows, close, log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from models import generators

from tabrl import losses
from tabrl.errors import ShapeError
from tabrl.losses import aggregate, clipped, d_aggregate, d_ppo_clip, ppo_clip, value_loss
from tabrl.weights import LIMIT

inf, nan = np.inf, np.nan
HOWS = ("sequence", "token", "group_token", "constant")


class Case(NamedTuple):
    loss: Callable[..., Any]  # (x, y, a)
    derivative: Callable[..., Any]  # (x, y, a)
    kinks: Callable[[Any, Any, Any], list[Any]]  # where, on the axis of x


def no_kinks(x: Any, y: Any, a: Any) -> list[Any]:
    return []


def clip_case(low: float, high: float, dual: float | None) -> Case:
    options = {"low": low, "high": high, "dual": dual}
    bounds = [np.log(b) for b in (1 - low, 1 + high, dual) if b is not None and 0 < b < inf]

    def kinks(x: Any, y: Any, a: Any) -> list[Any]:
        return [y + b for b in (*bounds, LIMIT, -LIMIT)]

    return Case(
        lambda x, y, a: ppo_clip(x, y, a, **options),  # type: ignore[arg-type]
        lambda x, y, a: d_ppo_clip(x, y, a, **options),  # type: ignore[arg-type]
        kinks,
    )


def kl_case(beta: float) -> Case:
    return Case(
        lambda x, y, a: losses.ppo_kl(x, y, a, beta=beta),
        lambda x, y, a: losses.d_ppo_kl(x, y, a, beta=beta),
        lambda x, y, a: [y + LIMIT, y - LIMIT],
    )


def value_case(clip: float) -> Case:
    """X the value, y the target, a the old value: kinks where the clip starts and where the two errors are equal."""
    return Case(
        lambda x, y, a: value_loss(x, y, a, clip),
        lambda x, y, a: losses.d_value_loss(x, y, a, clip),
        lambda x, y, a: [a - clip, a + clip, 2 * y - (a - clip), 2 * y - (a + clip)],
    )


CASES = {
    "policy_gradient": Case(
        lambda x, y, a: losses.policy_gradient(x, a), lambda x, y, a: losses.d_policy_gradient(x, a), no_kinks
    ),
    "ppo_clip": clip_case(0.2, 0.2, None),
    "clip_higher": clip_case(0.2, 0.28, None),
    "dual": clip_case(0.2, 0.2, 3.0),
    "tight_dual": clip_case(0.0, 0.0, 1.1),
    "no_clip": clip_case(1.0, inf, None),
    "surrogate": kl_case(0.0),
    "ppo_kl": kl_case(0.7),
    "value": Case(lambda x, y, a: value_loss(x, y), lambda x, y, a: losses.d_value_loss(x, y), no_kinks),
    "value_clipped": value_case(0.2),
    "value_held": value_case(0.0),
}


def arguments(seed: int, n: int = 400) -> tuple[Any, Any, Any]:
    """Three arrays; differences of the first two up to some 25, mostly below 1; zeros in the third."""
    rng = np.random.default_rng([40, seed])
    y = -rng.exponential(size=n)
    x = y + rng.normal(size=n) * rng.choice([0.1, 0.5, 10.0], n, p=[0.5, 0.4, 0.1])
    return x, y, rng.normal(size=n) * (rng.random(n) < 0.9)


# ---- derivatives ----


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_derivatives_by_differences(seed: int, name: str) -> None:
    loss, derivative, kinks = CASES[name]
    x, y, a = arguments(seed)
    smooth = np.ones(len(x), bool)
    for kink in kinks(x, y, a):
        smooth &= abs(x - kink) > 2.1 * H
    assert smooth.mean() > 0.9
    x, y, a = x[smooth], y[smooth], a[smooth]
    exact, found = derivative(x, y, a), central(lambda x: loss(x, y, a), x)
    assert (abs(found - exact) <= 1e-9 * np.maximum(1, abs(loss(x, y, a)))).all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_derivatives_and_values_by_torch(seed: int, name: str) -> None:
    loss, derivative, _ = CASES[name]
    x, y, a = arguments(seed)
    value, gradient = autograd(loss, x, y, a)
    assert close(loss(x, y, a), value, 1e-12)
    assert close(derivative(x, y, a), gradient, 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_twins_run_on_torch_too(name: str) -> None:
    torch = pytest.importorskip("torch")
    _, derivative, _ = CASES[name]
    x, y, a = arguments(0)
    found = derivative(torch.tensor(x), torch.tensor(y), torch.tensor(a))
    assert found.dtype == torch.float64 and close(found.numpy(), derivative(x, y, a), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_shape_and_precision_are_kept(name: str) -> None:
    loss, derivative, _ = CASES[name]
    for shape in ((), (3,), (2, 3), (0,)):
        x, y, a = np.full((3, *shape), -0.5, np.float32)
        for f in (loss, derivative):
            assert f(x[...], y[...], a[...]).shape == shape
            assert f(x[...], y[...], a[...]).dtype == np.float32


@pytest.mark.parametrize("name", CASES)
def test_torch_keeps_single_precision(name: str) -> None:
    torch = pytest.importorskip("torch")
    loss, derivative, _ = CASES[name]
    x, y, a = torch.full((3, 2, 3), -0.5)
    for f in (loss, derivative):
        assert f(x, y, a).shape == (2, 3) and f(x, y, a).dtype == torch.float32


def at_the_kinks() -> tuple[Any, Any, Any, dict[str, Any]]:
    """Ratios that lie on a bound in every bit: e^x - 1 and 1 - e^-x are exact differences in floating point."""
    up, down, far = np.exp(np.array([0.2, -0.2, 1.0]))
    options = {"low": 1 - down, "high": up - 1, "dual": far}
    assert 1 + options["high"] == up and 1 - options["low"] == down
    logp = np.array([0.2, 0.2, -0.2, -0.2, 1.0, LIMIT, -LIMIT])
    return logp, np.zeros(7), np.array([2.0, -2.0, 2.0, -2.0, -2.0, 0.0, 2.0]), options


def test_on_a_bound_the_gradient_passes() -> None:
    logp, logp_old, adv, options = at_the_kinks()
    assert not clipped(logp, logp_old, adv, **options).any()
    assert np.array_equal(d_ppo_clip(logp, logp_old, adv, **options), -adv * np.exp(logp))
    assert close(losses.d_ppo_kl(logp, logp_old, adv, beta=2.0), -adv * np.exp(logp) + 2 * np.expm1(logp), 1e-15)
    beyond = np.nextafter(logp, [inf, 0, 0, -inf, inf, inf, -inf]) + 1e-9 * np.array([1, 0, 0, -1, 1, 1, -1])
    assert clipped(beyond, logp_old, adv, **options).tolist() == [True, False, False, True, True, True, True]


def test_at_a_kink_torch_chooses_the_same() -> None:
    logp, logp_old, adv, options = at_the_kinks()
    value, gradient = autograd(lambda *x: ppo_clip(*x, **options), logp, logp_old, adv)
    assert close(value, ppo_clip(logp, logp_old, adv, **options), 1e-12)
    assert close(gradient, d_ppo_clip(logp, logp_old, adv, **options), 1e-12)
    value, gradient = autograd(lambda *x: losses.ppo_kl(*x, beta=2.0), logp, logp_old, adv)
    assert close(gradient, losses.d_ppo_kl(logp, logp_old, adv, beta=2.0), 1e-12)


def test_the_kinks_of_the_value_loss() -> None:
    """On the edge of the clip on both sides, inside it, and where both errors are equal (3 and, held, 1; y = 2)."""
    loss, derivative, _ = value_case(0.5)
    v, y, v_old = np.array([1.5, 0.5, 1.2, 3.0]), np.array([9.0, 9.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0, 0.5])
    assert close(derivative(v, y, v_old), [-15.0, -17.0, 0.4, 2.0], 1e-15)
    assert close(autograd(loss, v, y, v_old)[1], [-15.0, -17.0, 0.4, 2.0], 1e-15)


# ---- PPO-clip ----


@given(
    st.floats(-5, 5),
    st.floats(-3, 3).filter(lambda a: abs(a) > 1e-100),
    st.floats(0, 1),
    st.floats(0, 2),
    st.none() | st.floats(1.01, 5),
)
@settings(max_examples=400, deadline=None)
def test_ppo_clip_is_the_published_formula(x: float, a: float, low: float, high: float, dual: float | None) -> None:
    rho = float(np.exp(x))
    surrogate = min(rho * a, min(max(rho, 1 - low), 1 + high) * a)
    if dual is not None and a < 0:
        surrogate = max(surrogate, dual * a)
    logp, logp_old, adv = np.array([[x], [0.0], [a]])
    options = {"low": low, "high": high, "dual": dual}
    assert ppo_clip(logp, logp_old, adv, **options)[0] == pytest.approx(-surrogate, rel=1e-15)  # type: ignore[arg-type]
    stopped = (a > 0 and rho > 1 + high) or (a < 0 and rho < 1 - low)
    stopped = stopped or (dual is not None and a < 0 and rho > dual)
    assert clipped(logp, logp_old, adv, **options)[0] == stopped  # type: ignore[arg-type]
    assert (d_ppo_clip(logp, logp_old, adv, **options)[0] == 0) == stopped  # type: ignore[arg-type]


@given(generators())
@settings(max_examples=50, deadline=None)
def test_at_ratio_1_the_derivative_is_minus_the_advantage(rng: np.random.Generator) -> None:
    logp, adv = -rng.exponential(size=20), rng.normal(size=20)
    assert (ppo_clip(logp, logp, adv) == -adv).all()
    assert (d_ppo_clip(logp, logp, adv) == -adv).all()
    assert (d_ppo_clip(logp, logp, adv) == losses.d_policy_gradient(logp, adv)).all()
    assert (losses.d_ppo_kl(logp, logp, adv, beta=3.0) == -adv).all()


@pytest.mark.parametrize("seed", range(20))
def test_at_the_old_policy_the_mean_gradient_is_the_policy_gradient(seed: int) -> None:
    """One state: J(z) = sum p(a) r(a), and A any r less a baseline."""
    rng = np.random.default_rng([45, seed])
    z, r = rng.normal(size=(2, 5))
    logp = log_softmax(z)
    p = np.exp(logp)
    mean = (p * d_ppo_clip(logp, logp, r - rng.normal())) @ (np.eye(5) - p)
    assert close(mean, central_rows(lambda z: -(np.exp(log_softmax(z)) * r).sum(), z), 1e-9)


def test_wide_bounds_leave_the_surrogate() -> None:
    x, y, a = arguments(0)
    assert close(ppo_clip(x, y, a, low=1.0, high=inf), losses.ppo_kl(x, y, a, beta=0.0), 1e-15)


def test_the_dual_clip_bounds_the_loss() -> None:
    logp, adv = np.array([0.0, 5.0, 19.0]), np.full(3, -2.0)
    assert ppo_clip(logp, np.zeros(3), adv, dual=3.0).tolist() == [2.0, 6.0, 6.0]
    assert d_ppo_clip(logp, np.zeros(3), adv, dual=3.0).tolist() == [2.0, 0.0, 0.0]
    assert (ppo_clip(logp, np.zeros(3), -adv, dual=3.0) == ppo_clip(logp, np.zeros(3), -adv)).all()


def test_ratios_far_out_stay_finite() -> None:
    logp, logp_old, adv = np.array([0.0, -1e4]), np.array([-1e4, 0.0]), np.array([-1.0, 1.0])
    assert ppo_clip(logp, logp_old, adv).tolist() == [np.exp(LIMIT), -np.exp(-LIMIT)]
    assert (d_ppo_clip(logp, logp_old, adv) == 0).all() and clipped(logp, logp_old, adv).all()
    assert np.isfinite(losses.ppo_kl(logp, logp_old, adv, beta=1.0)).all()


def test_not_a_number_stays_one() -> None:
    for where in np.eye(3):
        x, y, a = (np.array([nan if w else -1.0]) for w in where)
        for name in ("ppo_clip", "dual", "ppo_kl"):
            assert np.isnan(CASES[name].loss(x, y, a)).all() and np.isnan(CASES[name].derivative(x, y, a)).all()


# ---- PPO-KL ----


@pytest.mark.parametrize("seed", range(20))
def test_mean_of_the_sampled_penalty_is_the_kl_of_the_rows(seed: int) -> None:
    """Over actions of the old policy: the loss is -surrogate + beta KL(old || new), and so is its gradient."""
    rng = np.random.default_rng([46, seed])
    z, z_old, adv = rng.normal(size=(3, 5))
    logp, old, beta = log_softmax(z), log_softmax(z_old), 0.7
    p, p_old = np.exp(logp), np.exp(old)

    def exact(z: Any) -> Any:
        return -(np.exp(log_softmax(z)) * adv).sum() + beta * (p_old * (old - log_softmax(z))).sum()

    assert (p_old * losses.ppo_kl(logp, old, adv, beta=beta)).sum() == pytest.approx(exact(z), rel=1e-12)
    mean = (p_old * losses.d_ppo_kl(logp, old, adv, beta=beta)) @ (np.eye(5) - p)
    assert close(mean, central_rows(exact, z), 1e-9)
    rows = (p_old * losses.d_ppo_kl(logp, old, adv, beta=0.0)) @ (np.eye(5) - p) + beta * losses.d_kl_penalty(logp, old)
    assert close(mean, rows, 1e-12)


def test_the_adaptive_rule() -> None:
    target = 0.03  # the bounds of no change: .02 and .045
    found = [losses.adaptive_beta(8.0, kl, target) for kl in (-1.0, 0.0, 0.0199, 0.0201, 0.0449, 0.0451, inf)]
    assert found == [4.0, 4.0, 4.0, 8.0, 8.0, 16.0, 16.0]
    assert losses.adaptive_beta(8.0, 0.5 / 1.5, 0.5) == 8.0 and losses.adaptive_beta(8.0, 0.75, 0.5) == 8.0
    with pytest.raises(ValueError, match="kl is nan; a number is expected"):
        losses.adaptive_beta(1.0, nan, target)
    with pytest.raises(ValueError, match="target is -1; a number >= 0"):
        losses.adaptive_beta(1.0, 0.1, -1)


# ---- value loss ----


@given(generators(), st.floats(0, 2))
@settings(max_examples=100, deadline=None)
def test_value_loss_is_the_larger_of_two_errors(rng: np.random.Generator, clip: float) -> None:
    v, y, v_old = rng.normal(size=(3, 20))
    held = np.minimum(np.maximum(v, v_old - clip), v_old + clip)
    assert close(value_loss(v, y, v_old, clip), np.maximum((v - y) ** 2, (held - y) ** 2), 1e-12)
    assert (value_loss(v, y) == (v - y) ** 2).all()
    stopped = (abs(v - v_old) > clip) & (abs(held - y) > abs(v - y))
    assert np.array_equal(losses.d_value_loss(v, y, v_old, clip) == 0, stopped)


def test_value_loss_wants_both_or_none() -> None:
    x = np.zeros(2)
    for f in (value_loss, losses.d_value_loss):
        with pytest.raises(ValueError, match="v_old is None; v_old and clip are expected together"):
            f(x, x, clip=0.2)
        with pytest.raises(ValueError, match="clip is None; v_old and clip are expected together"):
            f(x, x, x)
        with pytest.raises(ValueError, match="clip is -1; a number >= 0 is expected"):
            f(x, x, x, -1)


# ---- aggregation ----

X = np.array([[1.0, 2.0, 3.0, nan], [4.0, nan, nan, nan], [5.0, 6.0, nan, nan], [7.0, 8.0, 9.0, 10.0]])
MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
GROUP = np.array([7, 3, 7, 7])


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("sequence", (Fraction(6, 3) + 4 + Fraction(11, 2) + Fraction(34, 4)) / 4),
        ("token", Fraction(55, 10)),
        ("group_token", (Fraction(6 + 11 + 34, 9) + 4) / 2),
        ("constant", Fraction(55, 4 * 5)),
    ],
)
@pytest.mark.parametrize("mask", [MASK, MASK != 0, MASK.astype(float)], ids=["int", "bool", "float"])
def test_aggregates_by_hand(how: str, answer: Fraction, mask: Any) -> None:
    assert aggregate(X, mask, how=how, group=GROUP, length=5) == pytest.approx(float(answer), rel=1e-15)


def literal(x: Any, mask: Any, how: str, group: Any, length: int) -> float:
    """The sums as one would write them down; a mean of nothing is 0."""
    rows = [[x[i, t] for t in range(x.shape[1]) if mask[i, t]] for i in range(len(x))]

    def mean(numbers: list[float]) -> float:
        return sum(numbers) / len(numbers) if numbers else 0.0

    if how == "sequence":
        return mean([mean(row) for row in rows])
    if how == "token":
        return mean([y for row in rows for y in row])
    if how == "constant":
        return sum(sum(row) for row in rows) / (len(rows) * length)
    members = [[row for row, g in zip(rows, group, strict=True) if g == label] for label in sorted(set(group.tolist()))]
    return mean([mean([y for row in group for y in row]) for group in members])


@given(generators(), st.integers(1, 8), st.integers(1, 6), st.sampled_from(HOWS))
@settings(max_examples=200, deadline=None)
def test_aggregates_are_the_literal_sums(rng: np.random.Generator, B: int, T: int, how: str) -> None:
    x, mask, group = rng.normal(size=(B, T)), rng.random((B, T)) < 0.6, rng.integers(-2, 2, B)
    options: dict[str, Any] = {"how": how, "group": group, "length": T + 1}
    found = aggregate(np.where(mask, x, nan), mask, **options)
    assert found == pytest.approx(literal(x, mask, how, group, T + 1), rel=1e-12, abs=1e-14)
    w = d_aggregate(x, mask, **options)
    assert (w[~mask] == 0).all() and (w[mask] > 0).all()
    y = rng.normal(size=(B, T))  # linear: a difference of any size gives the derivative
    assert (w * y)[mask].sum() == pytest.approx(aggregate(x + y, mask, **options) - found, abs=1e-12)


@given(generators(), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_without_padding_all_are_the_mean(rng: np.random.Generator, B: int, T: int) -> None:
    x, mask, group = rng.normal(size=(B, T)), np.ones((B, T), bool), np.zeros(B, int)
    for how in HOWS:
        assert aggregate(x, mask, how=how, group=group, length=T) == pytest.approx(x.mean(), rel=1e-12, abs=1e-15)


def test_nothing_to_aggregate_gives_0() -> None:
    for shape in ((2, 3), (0, 3), (2, 0)):
        x, mask, group = np.full(shape, nan), np.zeros(shape, bool), np.arange(shape[0])
        for how in HOWS:
            assert aggregate(x, mask, how=how, group=group, length=3) == 0.0


@pytest.mark.parametrize("how", HOWS)
def test_aggregates_by_torch(how: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(47)
    x, mask, group = rng.normal(size=(6, 5)), rng.random((6, 5)) < 0.7, rng.integers(0, 3, 6)
    options: dict[str, Any] = {"how": how, "length": 7}
    leaf, torch_mask, torch_group = torch.tensor(x, requires_grad=True), torch.tensor(mask), torch.tensor(group)
    value = aggregate(leaf, torch_mask, group=torch_group, **options)
    value.backward()
    assert value.item() == pytest.approx(aggregate(x, mask, group=group, **options), rel=1e-12)
    assert close(leaf.grad.numpy(), d_aggregate(x, mask, group=group, **options), 1e-15)
    found = d_aggregate(leaf, torch_mask, group=torch_group, **options)
    assert close(found.detach().numpy(), leaf.grad.numpy(), 1e-15)
    single = aggregate(leaf.detach().float(), torch_mask.int(), group=torch_group, **options)
    assert single.dtype == torch.float32 and single.item() == pytest.approx(value.item(), rel=1e-5)


def test_a_loss_is_composed() -> None:
    """The derivative of the whole loss of a batch is the product of the two twins."""
    rng = np.random.default_rng(48)
    logp_old, adv = -rng.exponential(size=(4, 5)), rng.normal(size=(4, 5))
    logp, mask = logp_old + 0.3 * rng.normal(size=(4, 5)), rng.random((4, 5)) < 0.7

    def loss(x: Any, y: Any, a: Any, m: Any, g: Any) -> Any:
        return aggregate(ppo_clip(x, y, a, low=0.2, high=0.28), m, how="group_token", group=g)

    group = np.array([0, 1, 0, 1])
    w = d_aggregate(logp, mask, how="group_token", group=group)
    product = w * d_ppo_clip(logp, logp_old, adv, low=0.2, high=0.28)
    value, gradient = autograd(loss, logp, logp_old, adv, mask, group)
    assert value == pytest.approx(loss(logp, logp_old, adv, mask, group), rel=1e-12)
    assert close(product, gradient, 1e-12)


# ---- bad input ----


@pytest.mark.parametrize("name", ["ppo_clip", "dual", "ppo_kl"])
def test_shapes_are_named(name: str) -> None:
    for f in CASES[name][:2]:
        with pytest.raises(ShapeError, match=r"^logp_old has shape \(3,\); the shape of logp, \(2,\), is expected"):
            f(np.zeros(2), np.zeros(3), np.zeros(2))
        with pytest.raises(ShapeError, match=r"^adv has shape \(2, 1\); the shape of logp, \(2,\), is expected"):
            f(np.zeros(2), np.zeros(2), np.zeros((2, 1)))


def test_shapes_of_the_others_are_named() -> None:
    two, three = np.zeros(2), np.zeros(3)
    f: Callable[..., Any]
    for f in (losses.policy_gradient, losses.d_policy_gradient):
        with pytest.raises(ShapeError, match=r"^adv has shape \(3,\)"):
            f(two, three)
    for f in (value_loss, losses.d_value_loss):
        with pytest.raises(ShapeError, match=r"^target has shape \(3,\); the shape of v, \(2,\)"):
            f(two, three)
        with pytest.raises(ShapeError, match=r"^v_old has shape \(3,\); the shape of v, \(2,\)"):
            f(two, two, three, 0.2)
    with pytest.raises(TypeError, match="adv is a float; a NumPy array or a torch tensor"):
        ppo_clip(two, two, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": -0.1}, "low is -0.1; a number >= 0 is expected"),
        ({"high": nan}, "high is nan; a number >= 0 is expected"),
        ({"dual": 1.0}, "dual is 1.0; a number > 1 is expected"),
    ],
)
def test_bounds_of_the_clip(options: dict[str, float], message: str) -> None:
    for f in (ppo_clip, clipped, d_ppo_clip):
        with pytest.raises(ValueError, match=f"^{message}"):
            f(np.zeros(1), np.zeros(1), np.zeros(1), **options)
    for g in (losses.ppo_kl, losses.d_ppo_kl):
        with pytest.raises(ValueError, match="beta is -1; a number >= 0"):
            g(np.zeros(1), np.zeros(1), np.zeros(1), beta=-1)


@pytest.mark.parametrize("f", [aggregate, d_aggregate])
def test_aggregates_say_what_is_missing(f: Any) -> None:
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="how is 'mean'; one of sequence, token, group_token, constant is expected"):
        f(x, x, how="mean")
    with pytest.raises(ValueError, match='group is None; how="group_token" needs the label of each sequence'):
        f(x, x, how="group_token")
    with pytest.raises(ValueError, match="length is None; a number >= 1 is expected"):
        f(x, x, how="constant")
    with pytest.raises(ShapeError, match=r"^mask has shape \(3, 2\); the shape of x, \(2, 3\), is expected"):
        f(x, x.T, how="token")
    with pytest.raises(ShapeError, match=r"^group has shape \(3,\); the shape of sequences, \(2,\), is expected"):
        f(x, x, how="group_token", group=np.zeros(3))
    with pytest.raises(ShapeError, match=r"^x has shape \(3,\); \(B,T\) is expected"):
        f(np.zeros(3), np.zeros(3), how="token")
