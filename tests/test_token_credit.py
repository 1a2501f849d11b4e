"""Credit for tokens: each sequence by a loop of its own, expected gradients by listing all sequences, padding."""

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import pytest
from derivatives import central_rows, close, log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from models import generators

from tabrl.advantages import STDS, group_advantages
from tabrl.divergences import KINDS, kl_estimate
from tabrl.errors import ShapeError
from tabrl.losses import d_policy_gradient
from tabrl.returns import gae, lambda_returns, value_target
from tabrl.tokens.credit import (
    kl_rewards,
    overlong_penalty,
    per_token,
    process_advantages,
    terminal_rewards,
    token_gae,
    token_returns,
)

nan, inf = np.nan, np.inf
GARBAGE = (nan, 1e300, -1e300, inf)
GROUP = np.array([4, -2, 4, -2, 4, 9, 9])
B, T = len(GROUP), 5


def ragged(rng: np.random.Generator, holes: bool) -> Any:
    """(B,T) masks: the first tokens of each sequence, or any; one sequence has none, one has all."""
    mask = rng.random((B, T)) < 0.6 if holes else np.arange(T) < rng.integers(1, T + 1, B)[:, None]
    mask[rng.integers(B)] = True
    mask[rng.choice(np.flatnonzero(~mask.all(1)))] = False
    return mask


class Batch:
    """Arguments by name, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([60, seed])
        self.mask = ragged(rng, holes=seed % 2 == 1)
        self.reward, self.v_last = rng.normal(size=(2, B))
        self.r, self.v, self.logp, self.ref = rng.normal(size=(4, B, T))
        self.end = rng.random((B, T)) < 0.6

    def rows(self, x: Any) -> list[list[float]]:
        """The entries that count, sequence by sequence."""
        return [x[i, self.mask[i]].tolist() for i in range(B)]

    def padded(self, rows: list[list[float]]) -> Any:
        """Back to (B,T), 0 where nothing counts."""
        x = np.zeros((B, T))
        for i, row in enumerate(rows):
            x[i, self.mask[i]] = row
        return x


CALLS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "terminal_rewards": (lambda mask, reward: terminal_rewards(reward, mask), ("reward",)),
    "kl_rewards": (lambda mask, logp, ref: kl_rewards(logp, ref, mask, 0.3), ("logp", "ref")),
    "kl_rewards k3": (lambda mask, logp, ref: kl_rewards(logp, ref, mask, 0.3, kind="k3"), ("logp", "ref")),
    "per_token": (lambda mask, reward: per_token(reward, mask), ("reward",)),
    "process": (lambda mask, r, end, group: process_advantages(r, end, group, mask), ("r", "end", "group")),
    "returns": (lambda mask, r: token_returns(r, mask), ("r",)),
    "gae": (lambda mask, r, v: token_gae(r, v, mask, 0.7), ("r", "v")),
    "gae cut": (
        lambda mask, r, v, v_last: token_gae(r, v, mask, 0.7, gamma=0.9, v_last=v_last),
        ("r", "v", "v_last"),
    ),
}


def arguments(name: str, seed: int) -> dict[str, Any]:
    batch = Batch(seed)
    return {"mask": batch.mask} | {key: {**vars(batch), "group": GROUP}[key] for key in CALLS[name][1]}


# ---- what all have in common ----


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("seed", range(4))
def test_what_stands_where_nothing_counts_does_not_matter(seed: int, name: str) -> None:
    f, given_ = CALLS[name][0], arguments(name, seed)
    clean = f(**given_)
    assert (clean[~given_["mask"]] == 0).all() and abs(clean).max() > 0.1
    for rubbish in GARBAGE:
        dirty = {
            key: np.where(given_["mask"], x, rubbish) if x.ndim == 2 and x.dtype != bool else x
            for key, x in given_.items()
        }
        assert np.array_equal(f(**dirty), clean)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("seed", range(4))
def test_torch_gives_the_same(seed: int, name: str) -> None:
    torch = pytest.importorskip("torch")
    f, given_ = CALLS[name][0], arguments(name, seed)
    found = f(**{key: torch.tensor(x) for key, x in given_.items()})
    assert found.dtype == torch.float64 and abs(found.numpy() - f(**given_)).max() <= 1e-12
    for rubbish in GARBAGE:
        dirty = {
            key: torch.tensor(np.where(given_["mask"], x, rubbish) if x.ndim == 2 and x.dtype != bool else x)
            for key, x in given_.items()
        }
        assert torch.equal(f(**dirty), found)


@pytest.mark.parametrize("name", CALLS)
def test_kinds_of_masks_and_single_precision(name: str) -> None:
    f, given_ = CALLS[name][0], arguments(name, 0)
    clean = f(**given_)
    for kind in (int, float, np.float32):
        assert np.array_equal(f(**{**given_, "mask": given_["mask"].astype(kind)}), clean)
    single = {k: x.astype(np.float32) if x.dtype == float else x for k, x in given_.items()}
    assert f(**single).dtype == np.float32 and close(f(**single), clean, 1e-4)


@pytest.mark.parametrize("name", CALLS)
def test_torch_keeps_single_precision(name: str) -> None:
    torch = pytest.importorskip("torch")
    f, given_ = CALLS[name][0], arguments(name, 0)
    single = {k: torch.tensor(x.astype(np.float32) if x.dtype == float else x) for k, x in given_.items()}
    assert f(**single).dtype == torch.float32


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0), (2, 3)])
def test_nothing_in_nothing_out(name: str, shape: tuple[int, int]) -> None:
    n = shape[0]
    values = {"reward": np.ones(n), "v_last": np.ones(n), "group": np.zeros(n, int), "end": np.ones(shape, bool)}
    arrays = {key: values.get(key, np.full(shape, nan)) for key in CALLS[name][1]}
    found = CALLS[name][0](mask=np.zeros(shape), **arrays)
    assert found.shape == shape and (found == 0).all()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3)])
def test_nothing_in_nothing_out_by_torch(name: str, shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    n = shape[0]
    values = {"reward": torch.ones(n), "v_last": torch.ones(n), "end": torch.ones(shape) > 0}
    values["group"] = torch.zeros(n, dtype=torch.int64)
    arrays = {key: values.get(key, torch.full(shape, nan)) for key in CALLS[name][1]}
    found = CALLS[name][0](mask=torch.zeros(shape), **arrays)
    assert tuple(found.shape) == shape and bool((found == 0).all())


# ---- rewards ----


@pytest.mark.parametrize("seed", range(6))
def test_the_outcome_stands_at_the_last_token(seed: int) -> None:
    batch = Batch(seed)
    found = terminal_rewards(batch.reward, batch.mask)
    lengths = [len(row) for row in batch.rows(batch.r)]
    rows = [[0.0] * (n - 1) + [reward] * (n > 0) for n, reward in zip(lengths, batch.reward, strict=True)]
    assert np.array_equal(found, batch.padded(rows))
    shared = per_token(batch.reward, batch.mask)
    assert np.array_equal(shared, np.where(batch.mask, batch.reward[:, None], 0.0))
    assert np.array_equal(token_returns(found, batch.mask), shared)  # reward to go of an outcome: the outcome


def test_whole_numbers_are_rewards() -> None:
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    assert terminal_rewards(np.array([True, False]), mask).tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert per_token(np.array([2, 3]), mask).tolist() == [[2.0, 2.0, 0.0], [3.0, 0.0, 0.0]]
    assert token_returns(np.array([[1, 2, 7], [3, 7, 7]]), mask).tolist() == [[3.0, 2.0, 0.0], [3.0, 0.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_kl_rewards_by_their_definition(seed: int, kind: str) -> None:
    batch = Batch(seed)
    k = [
        [-0.3 * kl_estimate(np.array([p]), np.array([q]), kind=kind).item() for p, q in zip(*row, strict=True)]
        for row in zip(batch.rows(batch.logp), batch.rows(batch.ref), strict=True)
    ]
    assert close(kl_rewards(batch.logp, batch.ref, batch.mask, 0.3, kind=kind), batch.padded(k), 1e-12)
    assert (kl_rewards(batch.logp, batch.ref, batch.mask, 0.0, kind=kind) == 0).all()


def all_sequences(V: int, length: int) -> tuple[Any, Any, Any]:
    """Every sequence that token 0 ends, or the length: tokens (n,T), mask, row of the prefix before each token."""
    rows = [w for t in range(1, length + 1) for w in product(range(V), repeat=t) if is_finished(w, length)]
    prefixes = [w for t in range(length) for w in product(range(1, V), repeat=t)]
    tokens, row = np.zeros((2, len(rows), length), int)
    mask = np.array([[t < len(w) for t in range(length)] for w in rows])
    for i, w in enumerate(rows):
        tokens[i, : len(w)] = w
        row[i, : len(w)] = [prefixes.index(w[:t]) for t in range(len(w))]
    return tokens, mask, row


def is_finished(w: tuple[int, ...], length: int) -> bool:
    return 0 not in w[:-1] and (w[-1] == 0 or len(w) == length)


@pytest.mark.parametrize("seed", range(5))
def test_k1_in_the_reward_gives_the_gradient_of_the_kl_of_sequences(seed: int) -> None:
    """Ledger E2.6: V = 3, length 3, all sequences listed; reward to go of outcome and k1 is the exact gradient."""
    rng = np.random.default_rng([61, seed])
    V, beta = 3, 0.4
    tokens, mask, row = all_sequences(V, 3)
    z, z_ref = rng.normal(size=(2, row.max() + 1, V))
    outcome, ref = rng.normal(size=len(tokens)), log_softmax(z_ref)

    def objective(flat: Any) -> Any:
        logp = log_softmax(flat.reshape(z.shape))
        mine, theirs = ((np.where(mask, x[row, tokens], 0.0)).sum(1) for x in (logp, ref))
        assert np.exp(mine).sum() == pytest.approx(1.0, rel=1e-12)
        return (np.exp(mine) * (outcome - beta * (mine - theirs))).sum()

    logp = log_softmax(z)
    chosen, chance = logp[row, tokens], np.exp(np.where(mask, logp[row, tokens], 0.0).sum(1))
    r = terminal_rewards(outcome, mask) + kl_rewards(chosen, ref[row, tokens], mask, beta)
    assert chance @ r.sum(1) == pytest.approx(objective(z.ravel()), rel=1e-12)
    exact = central_rows(objective, z.ravel()).reshape(z.shape)
    G = token_returns(r, mask)
    v = rng.normal(size=len(z))[row]  # any baseline of the prefix leaves the mean as it is
    for A in (G, token_gae(r, v, mask, 1.0)):
        found = np.zeros_like(z)
        score = np.eye(V)[tokens] - np.exp(logp)[row]
        np.add.at(found, row, (-chance[:, None] * d_policy_gradient(chosen, A))[..., None] * score)
        assert close(found, exact, 1e-9)


def test_the_overlong_penalty_by_hand() -> None:
    """As published: 16,384 tokens free, 4,096 of cache, nothing below -1."""
    length = np.array([0, 1, 16384, 16385, 18432, 20479, 20480, 20481, 10**6])
    exact = [max(Fraction(-1), min(Fraction(0), Fraction(20480 - 4096 - int(x), 4096))) for x in length]
    found = overlong_penalty(length, 20480, 4096)
    assert found.tolist() == [float(x) for x in exact] and found[4] == -0.5 and not np.signbit(found[:3]).any()
    assert overlong_penalty(np.array([0, 3, 6]), 6, 6).tolist() == [0.0, -0.5, -1.0]
    assert overlong_penalty(np.array([5, 6, 7]), 6, 1).tolist() == [0.0, -1.0, -1.0]


def test_the_overlong_penalty_by_torch() -> None:
    torch = pytest.importorskip("torch")
    length = np.arange(13.0)
    found = overlong_penalty(torch.tensor(length), 10, 4)
    assert found.dtype == torch.float64 and found.tolist() == overlong_penalty(length, 10, 4).tolist()
    assert overlong_penalty(torch.arange(13), 10, 4).tolist() == found.tolist()


# ---- process supervision ----


def literal(batch: Batch, std: str, eps: float) -> Any:
    """The definition, one group, one sequence, one step at a time."""
    A = np.zeros((B, T))
    ends = [[t for t in range(T) if batch.mask[i, t] and batch.end[i, t]] for i in range(B)]
    for label in set(GROUP.tolist()):
        mine = [i for i in range(B) if GROUP[i] == label]
        rewards = [float(batch.r[i, t]) for i in mine for t in ends[i]]
        if len(set(rewards)) < 2:
            continue
        mean = sum(rewards) / len(rewards)
        squares = sum((r - mean) ** 2 for r in rewards)
        scale = 1.0
        if std != "none":
            scale = sqrt(squares / (len(rewards) - (std == "sample"))) + eps
        for i in mine:
            for t in range(T):
                A[i, t] = batch.mask[i, t] * sum((float(batch.r[i, u]) - mean) / scale for u in ends[i] if u >= t)
    return A


@pytest.mark.parametrize("eps", [0.0, 1e-4, 1.0])
@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("seed", range(20))
def test_process_advantages_by_their_definition(seed: int, std: str, eps: float) -> None:
    batch = Batch(seed)
    if seed % 3 == 0:
        batch.r = np.random.default_rng([62, seed]).integers(0, 2, (B, T)).astype(float)
    A = process_advantages(np.where(batch.end, batch.r, nan), batch.end, GROUP, batch.mask, std=std, eps=eps)
    assert abs(A - literal(batch, std, eps)).max() <= 1e-12


def test_the_process_defaults() -> None:
    """Sample standard deviation of 2, 1, 0 is 1, eps = 1e-4; the second sequence has one step."""
    r, end = np.array([[2.0, 1.0], [0.0, nan]]), np.array([[True, True], [True, False]])
    A = process_advantages(r, end, np.zeros(2, int), np.ones((2, 2)))
    assert close(A, np.array([[1.0, 0.0], [-1.0, 0.0]]) / 1.0001, 1e-15)


@given(generators(), st.sampled_from(STDS), st.sampled_from([0.0, 1e-4]))
@settings(max_examples=50, deadline=None)
def test_one_step_at_the_end_is_outcome_supervision(rng: np.random.Generator, std: str, eps: float) -> None:
    mask, reward = ragged(rng, holes=False), rng.normal(size=B)
    mask[:, 0] = True
    last = terminal_rewards(np.ones(B), mask) == 1
    A = process_advantages(terminal_rewards(reward, mask), last, GROUP, mask, std=std, eps=eps)
    assert abs(A - per_token(group_advantages(reward, GROUP, std=std, eps=eps), mask)).max() <= 1e-12


@given(st.floats(-1e6, 1e6), st.sampled_from(STDS))
@settings(max_examples=100, deadline=None)
def test_a_flat_group_gives_exactly_0(reward: float, std: str) -> None:
    """Also where the mean of equal numbers is not that number in floating point; the other groups are not flat."""
    end, mask = np.ones((B, T), bool), np.ones((B, T))
    r = np.where((GROUP == 4)[:, None], reward, np.arange(B * T).reshape(B, T))
    A = process_advantages(r, end, GROUP, mask, std=std, eps=0.0)
    assert (A[GROUP == 4] == 0).all() and (A[GROUP != 4] != 0).mean() > 0.7


@pytest.mark.parametrize("std", STDS)
def test_a_step_with_nothing_to_compare_it_with_gives_0(std: str) -> None:
    """Groups of no step, of one and of two; never nan."""
    r, group = np.array([[5.0], [5.0], [7.0], [5.0], [3.0], [1.0]]), np.array([0, 0, 1, 1, 2, 2])
    end = np.array([[False], [False], [True], [False], [True], [True]])
    A = process_advantages(r, end, group, np.ones((6, 1)), std=std, eps=0.0)
    scale = {"sample": sqrt(2.0), "population": 1.0, "none": 1.0}[std]
    assert A[:, 0] == pytest.approx([0.0, 0.0, 0.0, 0.0, 1 / scale, -1 / scale], rel=1e-15)
    assert (process_advantages(r, ~end | end, group, np.zeros((6, 1)), std=std) == 0).all()


# ---- returns and advantages of one critic ----


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_rows_are_those_of_one_episode(seed: int, lam: float, gamma: float, cut: bool) -> None:
    batch = Batch(seed)
    rows = []
    for r, v, v_last in zip(batch.rows(batch.r), batch.rows(batch.v), batch.v_last, strict=True):
        values = np.array([*v, v_last if cut else 0.0])
        rows.append(gae(np.array(r), np.full(len(r), gamma), values, lam).tolist())
    found = token_gae(batch.r, batch.v, batch.mask, lam, gamma=gamma, v_last=batch.v_last if cut else None)
    assert abs(found - batch.padded(rows)).max() <= 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_the_ends_of_lam(seed: int) -> None:
    batch = Batch(seed)
    G = token_returns(batch.r, batch.mask)
    sums = [[sum(row[t:]) for t in range(len(row))] for row in batch.rows(batch.r)]
    assert abs(G - batch.padded(sums)).max() <= 1e-12
    assert np.array_equal(token_gae(batch.r, np.zeros((B, T)), batch.mask, 1.0), G)
    assert abs(token_gae(batch.r, batch.v, batch.mask, 1.0) + np.where(batch.mask, batch.v, 0) - G).max() <= 1e-12
    errors = [
        [r[t] + (v[t + 1] if t + 1 < len(v) else 0.0) - v[t] for t in range(len(r))]
        for r, v in zip(batch.rows(batch.r), batch.rows(batch.v), strict=True)
    ]
    assert abs(token_gae(batch.r, batch.v, batch.mask, 0.0) - batch.padded(errors)).max() <= 1e-12


def test_the_default_is_no_discount() -> None:
    r, v, mask = np.array([[0.0, 0.0, 8.0]]), np.array([[1.0, 2.0, 4.0]]), np.ones((1, 3))
    assert token_gae(r, v, mask, 0.5).tolist() == [[1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4.0]]
    assert token_gae(r, v, mask, 0.5, v_last=np.array([2])).tolist() == [[3.5, 5.0, 6.0]]


@pytest.mark.parametrize("seed", range(4))
def test_targets_of_the_critic(seed: int) -> None:
    """Ledger E1.17: A + v is the lambda-return of each row."""
    batch = Batch(seed)
    target = value_target(token_gae(batch.r, batch.v, batch.mask, 0.6), batch.v)
    for i, (r, v) in enumerate(zip(batch.rows(batch.r), batch.rows(batch.v), strict=True)):
        exact = lambda_returns(np.array(r), np.ones(len(r)), np.array([*v, 0.0]), 0.6)
        assert close(target[i, batch.mask[i]], exact, 1e-12)


# ---- bad input ----


def test_shapes_are_named() -> None:
    m, x, one = np.ones((2, 3)), np.zeros((3, 2)), np.zeros(3)
    for f in (terminal_rewards, per_token):
        with pytest.raises(ShapeError, match=r"^mask has shape \(3,\); \(B,T\) is expected"):
            f(one, one)
    with pytest.raises(ShapeError, match=r"^reward has shape \(3,\); the shape of sequences, \(2,\), is expected"):
        terminal_rewards(one, m)
    with pytest.raises(ShapeError, match=r"^adv has shape \(3,\); the shape of sequences, \(2,\), is expected"):
        per_token(one, m)
    with pytest.raises(ShapeError, match=r"^logp_ref has shape \(3, 2\); the shape of mask, \(2, 3\), is expected"):
        kl_rewards(m, x, m, 0.1)
    with pytest.raises(ShapeError, match=r"^r has shape \(3, 2\); the shape of mask, \(2, 3\), is expected"):
        token_returns(x, m)
    with pytest.raises(ShapeError, match=r"^v has shape \(3, 2\); the shape of mask, \(2, 3\), is expected"):
        token_gae(m, x, m, 1.0)
    with pytest.raises(ShapeError, match=r"^v_last has shape \(3,\); the shape of sequences, \(2,\), is expected"):
        token_gae(m, m, m, 1.0, v_last=one)
    with pytest.raises(ShapeError, match=r"^group has shape \(3,\); the shape of sequences, \(2,\), is expected"):
        process_advantages(m, m, one, m)
    with pytest.raises(ShapeError, match=r"^step_end has shape \(3, 2\); the shape of mask, \(2, 3\), is expected"):
        process_advantages(m, x, np.zeros(2), m)
    with pytest.raises(TypeError, match="mask is a list; a NumPy array or a torch tensor is expected"):
        token_returns(np.ones((1, 1)), [[1.0]])
    with pytest.raises(TypeError, match="r is a list; a NumPy array or a torch tensor is expected"):
        token_returns([[1.0]], np.ones((1, 1)))


def test_numbers_are_named() -> None:
    m = np.ones((2, 3))
    with pytest.raises(ValueError, match="beta is -1; a number >= 0 is expected"):
        kl_rewards(m, m, m, -1)
    with pytest.raises(ValueError, match="kind is 'k4'; one of k1, k2, k3 is expected"):
        kl_rewards(m, m, m, 1, kind="k4")
    with pytest.raises(ValueError, match=r"lam is 1.5; a number in \[0, 1\] is expected"):
        token_gae(m, m, m, 1.5)
    for gamma in (-0.1, 1.1, nan):
        with pytest.raises(ValueError, match=rf"gamma is {gamma}; a number in \[0, 1\] is expected"):
            token_gae(m, m, m, 1.0, gamma=gamma)
    with pytest.raises(ValueError, match="cache is 0; a number >= 1 is expected"):
        overlong_penalty(np.zeros(1), 10, 0)
    with pytest.raises(ValueError, match="longest is 3; a number >= 4 is expected"):
        overlong_penalty(np.zeros(1), 3, 4)
    with pytest.raises(ValueError, match="group 5 has 1 sample; 2 or more are expected"):
        process_advantages(np.ones((3, 2)), np.ones((3, 2)), np.array([2, 5, 2]), np.ones((3, 2)))
    with pytest.raises(ValueError, match="std is 'both'; one of sample, population, none is expected"):
        process_advantages(m, m, np.zeros(2), m, std="both")
    with pytest.raises(ValueError, match="eps is -1; a number >= 0 is expected"):
        process_advantages(m, m, np.zeros(2), m, eps=-1)
