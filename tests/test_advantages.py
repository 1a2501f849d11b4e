"""Group advantages and whitening: literal sums, exact zeros, and expected gradients by enumeration."""

from itertools import product
from math import comb, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import generators

from tabrl.advantages import STDS, group_advantages, whiten
from tabrl.errors import ShapeError

SIZES = (2, 3, 5)


def batch(rng: np.random.Generator, binary: bool) -> tuple[Any, Any]:
    """Rewards of groups of different sizes, their members mixed up, some groups flat."""
    group = np.repeat(rng.choice(100, len(SIZES), replace=False) - 50, SIZES)
    reward = rng.integers(0, 2, len(group)).astype(float) if binary else rng.normal(size=len(group))
    order = rng.permutation(len(group))
    return reward[order], group[order]


def literal(reward: Any, group: Any, std: str, eps: float, leave_one_out: bool) -> Any:
    """The definition, one sample at a time."""
    A = np.zeros(len(reward))
    for i, (r, g) in enumerate(zip(reward, group, strict=True)):
        mine = [x for x, label in zip(reward, group, strict=True) if label == g]
        others = [x for j, (x, label) in enumerate(zip(reward, group, strict=True)) if label == g and j != i]
        if len(set(mine)) == 1:
            continue
        mean = sum(mine) / len(mine)
        squares = sum((x - mean) ** 2 for x in mine)
        scale = {"sample": squares / (len(mine) - 1), "population": squares / len(mine)}.get(std)
        A[i] = r - (sum(others) / len(others) if leave_one_out else mean)
        A[i] /= 1.0 if scale is None else sqrt(scale) + eps
    return A


@given(generators(), st.booleans(), st.sampled_from(STDS), st.sampled_from([0.0, 1e-4, 1.0]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_group_advantages_by_their_definition(
    rng: np.random.Generator, binary: bool, std: str, eps: float, leave_one_out: bool
) -> None:
    reward, group = batch(rng, binary)
    A = group_advantages(reward, group, std=std, eps=eps, leave_one_out=leave_one_out)
    assert abs(A - literal(reward, group, std, eps, leave_one_out)).max() <= 1e-12
    for label in set(group.tolist()):
        assert abs(A[group == label].sum()) <= 1e-12


def test_the_defaults() -> None:
    """Sample standard deviation, eps = 1e-4: for rewards 1 and 0 it is sqrt(1/2)."""
    A = group_advantages(np.array([1.0, 0.0]), np.array([0, 0]))
    half = 0.5 / (sqrt(0.5) + 1e-4)
    assert A.tolist() == pytest.approx([half, -half], rel=1e-15)


@given(st.floats(-1e6, 1e6), st.integers(2, 40), st.sampled_from(STDS), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_flat_group_gives_exactly_0(reward: float, G: int, std: str, leave_one_out: bool) -> None:
    """Also for eps = 0, and where the mean of equal numbers is not that number in floating point."""
    rewards, group = np.concatenate([np.full(G, reward), [0.0, 1.0]]), np.repeat([0, 1], [G, 2])
    A = group_advantages(rewards, group, std=std, eps=0.0, leave_one_out=leave_one_out)
    assert (A[:G] == 0).all() and (A[G:] != 0).all()


def test_such_means_exist() -> None:
    assert np.full(3, 0.1).sum() / 3 != 0.1


@given(generators(), st.sampled_from(STDS))
@settings(max_examples=50, deadline=None)
def test_order_and_labels_do_not_matter(rng: np.random.Generator, std: str) -> None:
    reward, group = batch(rng, False)
    A, order = group_advantages(reward, group, std=std), rng.permutation(len(reward))
    assert abs(group_advantages(reward[order], 7 - 3 * group[order], std=std) - A[order]).max() <= 1e-12
    assert abs(group_advantages(reward + 10.0, group, std=std) - A).max() <= 1e-12


def test_whole_numbers_and_truth_values_are_rewards() -> None:
    group = np.array([0, 0, 1, 1])
    for reward in (np.array([1, 0, 0, 1]), np.array([True, False, False, True])):
        assert group_advantages(reward, group, std="population", eps=0.0).tolist() == [1.0, -1.0, -1.0, 1.0]
    assert group_advantages(np.zeros(0), np.zeros(0, int)).shape == (0,)


def weight(G: int, p: float, **options: Any) -> float:
    """W with E[mean of A[i] d log P(r[i]) / d logit] = w dp / d logit, for 0/1 rewards, all 2^G outcomes listed."""
    total = 0.0
    for outcome in product([0.0, 1.0], repeat=G):
        r = np.array(outcome)
        A = group_advantages(r, np.zeros(G, int), **options)
        total += p ** r.sum() * (1 - p) ** (G - r.sum()) * (A * (r - p)).mean()
    return total / (p * (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("G", [2, 3, 6])
def test_expected_gradient_of_a_group(G: int, p: float) -> None:
    """Ledger E2.3: the mean contains the sample itself, and a standard deviation weighs prompts by their difficulty."""
    binomial = [comb(G, k) * p**k * (1 - p) ** (G - k) for k in range(G + 1)]
    root = sum(b * sqrt(k * (G - k)) for k, b in enumerate(binomial)) / (G * p * (1 - p))
    assert weight(G, p, std="none") == pytest.approx((G - 1) / G, rel=1e-12)
    assert weight(G, p, std="none", leave_one_out=True) == pytest.approx(1.0, rel=1e-12)
    assert weight(G, p, std="population", eps=0.0) == pytest.approx(root, rel=1e-12)
    assert weight(G, p, std="sample", eps=0.0) == pytest.approx(root * sqrt((G - 1) / G), rel=1e-12)
    smoothed = sum(b * k * (G - k) / (G * G * (sqrt(k * (G - k)) / G + 0.1)) for k, b in enumerate(binomial))
    assert weight(G, p, std="population", eps=0.1) == pytest.approx(smoothed / (p * (1 - p)), rel=1e-12)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("seed", range(5))
def test_group_advantages_by_torch(seed: int, std: str, leave_one_out: bool) -> None:
    torch = pytest.importorskip("torch")
    reward, group = batch(np.random.default_rng([50, seed]), binary=seed % 2 == 0)
    options: dict[str, Any] = {"std": std, "eps": 1e-6, "leave_one_out": leave_one_out}
    A = group_advantages(torch.tensor(reward), torch.tensor(group), **options)
    assert A.dtype == torch.float64
    assert abs(A.numpy() - group_advantages(reward, group, **options)).max() <= 1e-12
    assert group_advantages(torch.tensor(reward).float(), torch.tensor(group), **options).dtype == torch.float32
    flat = group_advantages(torch.full((3,), 0.1), torch.zeros(3, dtype=torch.int64), std=std, eps=0.0)
    assert flat.tolist() == [0.0, 0.0, 0.0]


# ---- whitening ----


@given(generators(), st.integers(2, 30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_whitened_entries_have_mean_0_and_standard_deviation_1(rng: np.random.Generator, n: int, masked: bool) -> None:
    adv, mask = rng.normal(3.0, 7.0, (n, 2)), rng.random((n, 2)) < 0.7
    mask[:2] = True
    A = whiten(np.where(mask, adv, np.nan), mask, eps=0.0) if masked else whiten(adv, eps=0.0)
    counted = A[mask] if masked else A.ravel()
    assert A.shape == adv.shape and (not masked or (A[~mask] == 0).all())
    assert abs(counted.mean()) <= 1e-13 and counted.std() == pytest.approx(1.0, rel=1e-12)  # np.std: population
    assert np.array_equal(np.argsort(counted), np.argsort(adv[mask] if masked else adv.ravel()))


def test_whitening_by_hand() -> None:
    assert whiten(np.array([1.0, 3.0])) == pytest.approx([-1 / (1 + 1e-8), 1 / (1 + 1e-8)], rel=1e-15)
    assert whiten(np.array([[1.0, 9.0], [3.0, np.inf]]), np.array([[1, 1], [1, 0]]), eps=1.0) == pytest.approx(
        np.array([[-10 / 3, 14 / 3], [-4 / 3, 0.0]]) / (sqrt(104 / 9) + 1.0), rel=1e-14
    )


@given(st.floats(-1e6, 1e6), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_equal_entries_give_exactly_0(x: float, n: int) -> None:
    assert (whiten(np.full(n, x), eps=0.0) == 0).all()
    assert (whiten(np.full(n, x), np.arange(n) < 1, eps=0.0) == 0).all()


@pytest.mark.parametrize("p", [0.25, 0.5])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_whitening_gives_the_gradient_another_length(n: int, p: float) -> None:
    """One state, rewards 1 with probability p, else 0; batches of n, all 2^n listed.

    The policy gradient is p (1 - p). A batch with k ones gives sqrt(k (n - k)) / n after whitening.
    """
    mean, exact = 0.0, 0.0
    for outcome in product([0.0, 1.0], repeat=n):
        r = np.array(outcome)
        chance, k = p ** r.sum() * (1 - p) ** (n - r.sum()), r.sum()
        mean += chance * (whiten(r, eps=0.0) * (r - p)).mean()
        exact += chance * sqrt(k * (n - k)) / n
    assert mean == pytest.approx(exact, rel=1e-12)
    assert n == 2 or mean > 1.3 * p * (1 - p)


def test_whitening_by_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(51)
    adv, mask = rng.normal(size=(6, 4)), rng.random((6, 4)) < 0.7
    assert abs(whiten(torch.tensor(adv)).numpy() - whiten(adv)).max() <= 1e-12
    assert abs(whiten(torch.tensor(adv), torch.tensor(mask)).numpy() - whiten(adv, mask)).max() <= 1e-12
    assert whiten(torch.full((3, 2), 0.1), eps=0.0).tolist() == [[0.0, 0.0]] * 3
    assert whiten(torch.tensor(adv).float()).dtype == torch.float32


# ---- bad input ----


def test_bad_input_is_named() -> None:
    r = np.zeros(3)
    with pytest.raises(ValueError, match="group 5 has 1 sample; 2 or more are expected"):
        group_advantages(r, np.array([2, 5, 2]))
    with pytest.raises(ShapeError, match=r"^group has shape \(2,\); the shape of reward, \(3,\), is expected"):
        group_advantages(r, np.zeros(2, int))
    with pytest.raises(ShapeError, match=r"^reward has shape \(3, 1\); \(B,\) is expected"):
        group_advantages(r[:, None], np.zeros((3, 1), int))
    with pytest.raises(ValueError, match="std is 'both'; one of sample, population, none is expected"):
        group_advantages(r, np.zeros(3, int), std="both")
    with pytest.raises(ValueError, match="eps is -1; a number >= 0 is expected"):
        group_advantages(r, np.zeros(3, int), eps=-1)
    with pytest.raises(ValueError, match="eps is nan; a number >= 0 is expected"):
        whiten(r, eps=float("nan"))
    with pytest.raises(ValueError, match="adv has 0 entries that count; 1 or more are expected"):
        whiten(r, np.zeros(3, bool))
    with pytest.raises(ShapeError, match=r"^mask has shape \(2,\); the shape of adv, \(3,\), is expected"):
        whiten(r, np.ones(2))
