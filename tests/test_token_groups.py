"""Expectations of group estimators: every group there can be, closed forms, and means of samples.

Family-wise false alarm of the samples' tests: `paths.agree`, |z| <= 6.8 for each number (1.1e-11 for a normal one);
fewer than 2,000 numbers are compared here, together below 1e-6.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from paths import agree

from tabrl.advantages import STDS, group_advantages
from tabrl.decisions import cosine
from tabrl.envs.token_tasks import parity
from tabrl.errors import ModelError, ShapeError
from tabrl.losses import HOWS, d_aggregate, d_ppo_clip
from tabrl.tokens.counts import chances, compositions, quadrature, token_weights
from tabrl.tokens.credit import process_advantages
from tabrl.tokens.draws import Dynamic
from tabrl.tokens.groups import Estimator, credit, expected_gradient, expected_surrogate_gradient, kept
from tabrl.tokens.groups import other_groups as others_of_batch
from tabrl.tokens.process import every_sequence, process_gradient
from tabrl.tokens.rates import binomial, kept_share, oversampling, pass_at_k, pass_at_k_estimate, w
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.rollout import Rollouts, sample
from tabrl.tokens.surrogates import d_cispo
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask

Rng = np.random.Generator
Rule = dict[str, Any]
RULES: list[Rule] = [
    {"std": std, "eps": eps, "leave_one_out": loo} for std in STDS for eps in (0.0, 0.1) for loo in (False, True)
]


# ---- tasks, and every sequence written out by hand ----


def binary(prompt: Any, tokens: Any) -> Any:
    """Right: no more ones than the prompt's number, and the last token is no zero."""
    return 1.0 * (((tokens == 1).sum(1) <= prompt) & (tokens[:, -1] != 0))


def real(prompt: Any, tokens: Any) -> Any:
    """Five different rewards, of either sign."""
    return (tokens * np.array([1.0, -0.7, 0.3])[: tokens.shape[1]]).sum(1).round(1) - 0.5 * prompt


def steps(prompt: Any, tokens: Any) -> Any:
    """A step ends with every token but a zero at the second place."""
    r = 0.5 * ((tokens.sum(1) + tokens.shape[1] + prompt) % 3)
    return np.where((tokens[:, -1] == 0) & (tokens.shape[1] == 2), np.nan, r)


def ragged(reward: Any, *, vocab: int, length: int, K: int = 2, weights: Any = None) -> TokenTask:
    """Sequences of 1 to `length` tokens, the last token of the vocabulary ends them."""
    words = [str(a) for a in range(vocab - 1)] + ["."]
    prompts = [f"p{k}" for k in range(K)]
    return TokenTask("ragged", words, prompts, length, reward, eos=True, steps=steps, weights=weights)


def some_logp(task: TokenTask, seed: int, size: float = 1.0) -> Any:
    rng = np.random.default_rng([seed, task.N, task.V])
    return log_softmax(rng.normal(size=(task.N, task.V)) * size)


class Listed(NamedTuple):
    """All sequences of one prompt."""

    tokens: Any  # (n,T)
    row: Any  # (n,T)
    mask: Any  # (n,T)
    reward: Any  # (n,)
    step_reward: Any  # (n,T)
    step_end: Any  # (n,T)


def listed(task: TokenTask, k: int) -> Listed:
    """Every sequence by trying all tokens in turn, asking the verifiers and counting rows ourselves."""
    found: list[list[int]] = []

    def grow(tokens: list[int]) -> None:
        for a in range(task.V):
            more = [*tokens, a]
            over = (task.eos and a == task.V - 1) or len(more) == task.length
            found.append(more) if over else grow(more)

    grow([])
    shape = (len(found), task.length)
    whole = (np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape))
    x = Listed(*whole, np.zeros(len(found)), np.zeros(shape), np.zeros(shape))
    for i, tokens in enumerate(found):
        x.reward[i] = task.reward(np.array([k]), np.array([tokens]))[0]
        for t in range(len(tokens)):
            number = k
            for a in tokens[:t]:
                number = number * task.C + a
            x.tokens[i, t], x.mask[i, t] = tokens[t], 1.0
            x.row[i, t] = sum(task.K * task.C**u for u in range(t)) + number
            if task.steps is not None:
                r = task.steps(np.array([k]), np.array([tokens[: t + 1]]))[0]
                x.step_end[i, t], x.step_reward[i, t] = not np.isnan(r), np.nan_to_num(r)
    return x


def probabilities(x: Listed, logp: Any) -> Any:
    return np.exp((logp[x.row, x.tokens] * x.mask).sum(1))


def scores(x: Listed, logp: Any) -> Any:
    """Gradient of the log-probability of each token with respect to the logits: (n,T,N,V)."""
    n, T = x.tokens.shape
    out = np.zeros((n, T, *logp.shape))
    for i, t in product(range(n), range(T)):
        if x.mask[i, t]:
            out[i, t, x.row[i, t]] = -np.exp(logp[x.row[i, t]])
            out[i, t, x.row[i, t], x.tokens[i, t]] += 1.0
    return out


class Batches(NamedTuple):
    """Every batch there can be of some prompts: b batches of g G sequences."""

    prob: Any  # (b,)
    prompt: Any  # (g,)
    index: Any  # (b,g,G) which of the prompt's sequences
    x: Listed  # (b g G, …)
    group: Any  # (b g G,)
    weight: dict[str, Any]  # of each aggregation, (b g G,T)


def batches(task: TokenTask, logp: Any, prompts: tuple[int, ...], G: int) -> Batches:
    """List them, and ask `d_aggregate` about each one."""
    per = [listed(task, k) for k in prompts]
    n, T = per[0].tokens.shape
    index = np.array(list(product(range(n), repeat=G * len(prompts)))).reshape(-1, len(prompts), G)
    b = len(index)
    p = [probabilities(x, logp) for x in per]
    prob = np.prod([p[j][index[:, j]].prod(1) for j in range(len(prompts))], axis=0)
    fields = [np.stack([a[j][index[:, j]] for j in range(len(prompts))], 1) for a in zip(*per, strict=True)]
    x = Listed(*(a.reshape(-1, *a.shape[3:]) for a in fields))
    group = np.arange(b * len(prompts)).repeat(G)
    own, size = np.arange(len(prompts)).repeat(G), G * len(prompts)
    weight = {}
    for how in HOWS:
        masks = x.mask.reshape(b, size, T)
        weight[how] = np.concatenate([d_aggregate(m, m, how=how, group=own, length=task.length) for m in masks])
    return Batches(prob, np.array(prompts), index, x, group, weight)


def update(task: TokenTask, logp: Any, found: Batches, how: str, slope: Any) -> Any:
    """The mean over batches of the gradient, where each token adds slope (b g G,T) times weight times score."""
    b, g, G = found.index.shape
    pushed = (found.weight[how] * slope * found.x.mask).reshape(b, g, G, -1) * found.prob[:, None, None, None]
    total = np.zeros(logp.shape)
    for j, k in enumerate(found.prompt):
        psi = scores(listed(task, k), logp)
        per_sequence = np.zeros(psi.shape[:2])
        np.add.at(per_sequence, found.index[:, j].ravel(), pushed[:, j].reshape(b * G, -1))
        total += np.einsum("nt,ntha->ha", per_sequence, psi)
    return total


def outcome(found: Batches, **rule: Any) -> Any:
    return group_advantages(found.x.reward, found.group, **rule)[:, None]


@cache
def case(reward: Callable[..., Any], vocab: int, length: int, prompts: tuple[int, ...], G: int) -> tuple[Any, ...]:
    task = ragged(reward, vocab=vocab, length=length, weights=[0.7, 0.3])
    logp = some_logp(task, G)
    return task, logp, batches(task, logp, prompts, G)


# ---- on-policy: every group ----


@pytest.mark.parametrize("reward", [binary, real])
@pytest.mark.parametrize(
    ("vocab", "length", "prompts", "G"),
    [(3, 2, (0,), 2), (3, 2, (1,), 4), (2, 3, (1,), 3), (2, 3, (0, 1), 3), (3, 2, (1, 0), 2), (2, 2, (1, 1, 0), 2)],
)
def test_expected_gradient_by_listing_every_batch(
    reward: Any, vocab: int, length: int, prompts: tuple[int, ...], G: int
) -> None:
    """All std x eps x leave-one-out x aggregation; in a batch of several groups, of one prompt twice too."""
    task, logp, found = case(reward, vocab, length, prompts, G)
    assert found.prob.sum() == pytest.approx(1.0, abs=1e-12)
    for rule, how in product(RULES, HOWS):
        exact = expected_gradient(task.tree, logp, Estimator(G, how, **rule), prompts)
        assert abs(exact - update(task, logp, found, how, outcome(found, **rule))).max() <= 1e-12, (rule, how)
        if prompts == (0, 1):
            assert np.array_equal(exact, expected_gradient(task.tree, logp, Estimator(G, how, **rule)))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("how", HOWS)
def test_prompts_that_are_drawn_and_dynamic_sampling(how: str, dynamic: bool) -> None:
    """Two groups of prompts drawn by their weights; with dynamic sampling, given that the rewards of both differ."""
    G = 2
    rule: Rule = {"std": "sample", "eps": 0.05, "leave_one_out": False}
    expected: Any = 0.0
    total, share = 0.0, 0.0
    for prompts in product((0, 1), repeat=2):
        task, logp, found = case(real, 2, 3, prompts, G)
        r = found.x.reward.reshape(-1, 2, G)
        both = (r.min(2) < r.max(2)).all(1) if dynamic else np.ones(len(r), bool)
        chance = task.weights[list(prompts)].prod()
        used = found._replace(prob=found.prob * both * chance)
        total += used.prob.sum()
        share += (found.prob * chance * (r[:, 0].min(1) < r[:, 0].max(1))).sum()
        expected = expected + update(task, logp, used, how, outcome(found, **rule))
    x = Estimator(G, how, **rule)
    exact = expected_gradient(task.tree, logp, x, 2, dynamic=dynamic)
    assert abs(exact - expected / total).max() <= 1e-12
    assert task.weights @ kept(task.tree, logp, G) == pytest.approx(share, abs=1e-14)
    plain = expected_gradient(task.tree, logp, x, 2)
    if dynamic and how != "token":
        assert abs(exact - plain / share).max() <= 1e-13  # E2.8: rescaled, direction unchanged
    elif dynamic:
        assert cosine(exact, plain) < 1 - 1e-6  # the tokens of the groups that are dropped are missing


# ---- off-policy ----


@pytest.mark.parametrize("d_loss", [d_ppo_clip, partial(d_ppo_clip, low=0.2, high=0.28, dual=1.5), d_cispo])
@pytest.mark.parametrize("how", HOWS)
def test_expected_surrogate_gradient_by_listing_every_batch(how: str, d_loss: Any) -> None:
    """Samples from one policy, the gradient at another one: ratios on both sides of both bounds."""
    task, logp_old, found = case(real, 2, 3, (0, 1), 3)
    logp = some_logp(task, 99)
    rho = np.exp(logp - logp_old)
    assert rho.min() < 0.8 and rho.max() > 1.5 and ((rho > 0.8) & (rho < 1.2)).any()
    now, then = (z[found.x.row, found.x.tokens] for z in (logp, logp_old))
    for rule in RULES[:5]:
        adv = np.broadcast_to(outcome(found, **rule), now.shape)
        slope = -d_loss(now, then, adv)
        exact = expected_surrogate_gradient(task.tree, logp, logp_old, Estimator(3, how, **rule), (0, 1), d_loss=d_loss)
        assert abs(exact - update(task, logp, found, how, slope)).max() <= 1e-12, rule


@pytest.mark.parametrize("how", HOWS)
def test_surrogate_at_ratio_1(how: str) -> None:
    task = ragged(real, vocab=3, length=3)
    logp = some_logp(task, 5)
    for batch, dynamic in ((None, False), (3, True), ([1], False)):
        rule = Estimator(5, how, "population", 0.0)
        on = expected_gradient(task.tree, logp, rule, batch, dynamic=dynamic)
        off = expected_surrogate_gradient(task.tree, logp, logp, rule, batch, dynamic=dynamic)
        assert abs(on).max() > 1e-3 and abs(on - off).max() <= 1e-14


# ---- closed forms ----


@pytest.mark.parametrize("G", [2, 3, 5, 16, 64])
@pytest.mark.parametrize("eps", [0.0, 1e-4, 0.3])
def test_weight_of_a_prompt(G: int, eps: float) -> None:
    """Ledger E2.3: with a constant length norm E[gradient] = w_G(p) grad p, sequences of any lengths."""
    task = ragged(binary, vocab=3, length=3, K=4)
    logp = some_logp(task, 7, 2.0)
    x = evaluate(task.tree._replace(weights=np.ones(4)), logp)
    prompt = np.concatenate([np.repeat(np.arange(4), task.C**t) for t in range(3)])
    for std, loo in product(STDS, (False, True)):
        weight = w(x.V[:4], G, std=std, eps=eps, leave_one_out=loo)
        exact = expected_gradient(task.tree, logp, Estimator(G, "constant", std, eps, loo))
        judged = weight[prompt][:, None] * x.slope / (4 * 3)
        assert abs(exact - judged).max() <= 1e-12 * abs(judged).max()


def test_weight_by_its_definition() -> None:
    for G, p in product((2, 3, 7, 64), (1e-6, 0.2, 0.5, 0.9)):
        chance = [math.comb(G, K) * p**K * (1 - p) ** (G - K) for K in range(G + 1)]
        roots = sum(c * math.sqrt(K * (G - K)) for K, c in enumerate(chance)) / (G * p * (1 - p))
        assert w(p, G) == pytest.approx(roots, rel=1e-12)
        assert w(p, G, std="sample") == pytest.approx(roots * math.sqrt((G - 1) / G), rel=1e-12)
        sigma = [math.sqrt(K * (G - K)) / G for K in range(G + 1)]
        smooth = sum(c * K * (G - K) / G**2 / (s + 0.1) for K, (c, s) in enumerate(zip(chance, sigma, strict=True)))
        assert w(p, G, eps=0.1) == pytest.approx(smooth / (p * (1 - p)), rel=1e-12)
        assert w(p, G, std="none") == pytest.approx((G - 1) / G, rel=1e-13)
        assert w(p, G, std="none", leave_one_out=True) == pytest.approx(1.0, rel=1e-13)


def test_weight_at_its_ends_and_for_large_groups() -> None:
    p = np.linspace(0, 1, 41)
    assert w(p, 2) == pytest.approx(np.ones(41), rel=1e-14)
    assert w(p, 3) == pytest.approx(np.full(41, math.sqrt(2)), rel=1e-14)
    for G in (5, 64, 1000):
        assert w(0.0, G) == pytest.approx(math.sqrt(G - 1), rel=1e-12)  # one right among G, over G p
        assert np.allclose(w(p, G), w(1 - p, G), rtol=1e-11, atol=0)
    assert w(0.3, 4000) == pytest.approx(1 / math.sqrt(0.3 * 0.7), rel=1e-3)  # Mroueh's limit
    assert w(p.reshape(1, 41), 8).shape == (1, 41)


def test_share_of_groups_that_are_kept() -> None:
    for p, G in product((0.0, 1e-3, 0.3, 0.5, 0.99, 1.0), (2, 3, 16)):
        assert kept_share(p, G) == pytest.approx(1 - p**G - (1 - p) ** G, abs=1e-15)
    assert kept_share(1e-18, 16) == pytest.approx(16e-18, rel=1e-12, abs=0)
    assert kept_share(1 - 2.0**-50, 16) == pytest.approx(16 * 2.0**-50, rel=1e-12, abs=0)
    assert kept_share([0.0, 1.0], 8).tolist() == [0.0, 0.0]
    q = np.array([0.5, 0.25, 0.25])
    assert oversampling([0.5, 0.0, 0.1], q, 4) == pytest.approx(1 / (0.5 * 0.875 + 0.25 * (1 - 1e-4 - 0.9**4)))
    assert oversampling([0.0, 1.0, 1.0], q, 4) == math.inf
    task = ragged(binary, vocab=3, length=3)
    logp = some_logp(task, 3)
    p = evaluate(task.tree, logp).V[:2]
    assert kept(task.tree, logp, 6) == pytest.approx(kept_share(p, 6), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_pass_at_k(n: int) -> None:
    for p, k in product((0.0, 1e-9, 0.2, 1.0), range(1, n + 1)):
        estimate = pass_at_k_estimate(n, np.arange(n + 1), k)
        literal = 0.0
        for c in range(n + 1):
            empty = np.prod([1 - k / i for i in range(n - c + 1, n + 1)])
            assert estimate[c] == pytest.approx(1 - empty if n - c >= k else 1.0, abs=1e-13)
            literal += math.comb(n, c) * p**c * (1 - p) ** (n - c) * estimate[c]
        assert literal == pytest.approx(1 - (1 - p) ** k, abs=1e-12) == pytest.approx(pass_at_k(p, k), abs=1e-12)
        assert binomial(n, p) @ estimate == pytest.approx(pass_at_k(p, k), rel=1e-11, abs=0)
    plug_in = 1 - (1 - np.arange(8) / 7) ** 3
    assert binomial(7, 0.2) @ plug_in < pass_at_k(0.2, 3) - 0.05
    assert pass_at_k(1e-30, 5) == pytest.approx(5e-30, rel=1e-12, abs=0)


# ---- sums over tokens ----


def test_the_integral_of_a_power() -> None:
    for degree in (0, 1, 2, 7, 64, 65, 1000, 8191):
        x, weight = quadrature(degree)
        d = np.unique(np.linspace(0, degree, 40).astype(int))
        assert abs((weight * x ** d[:, None]).sum(1) * (d + 1) - 1).max() <= 1e-11
        assert len(x) <= min(degree + 1, 8 * math.sqrt(degree) + 9) and (weight > 0).all()


def test_compositions_and_their_chances() -> None:
    counts = compositions(4, 3)
    assert len({tuple(c) for c in counts.tolist()}) == math.comb(6, 2) and (counts.sum(1) == 4).all()
    p = np.array([0.5, 0.0, 0.5])
    drawn = {tuple(c): 0.0 for c in counts.tolist()}
    for four in product(range(3), repeat=4):
        drawn[tuple(np.bincount(four, minlength=3).tolist())] += p[list(four)].prod()
    found = chances(counts, p[:, None])[:, 0]
    assert found == pytest.approx([drawn[tuple(c)] for c in counts.tolist()], abs=1e-15)
    assert (found[counts[:, 1] > 0] == 0).all()


@pytest.mark.parametrize("n", [1, 3, 40])
def test_one_over_all_tokens_of_a_batch(n: int) -> None:
    """E[n G / tokens of n groups], by convolutions; 40 groups of 16 answers have up to 5,120 tokens."""
    G, L = 16, 8
    P = np.random.default_rng(n).dirichlet(np.full(L, 0.4), size=2)
    q = np.array([0.3, 0.7])
    x, u = token_weights(Estimator(G, "token"), L, n)
    power = np.array([P[k] @ x ** np.arange(1, L + 1)[:, None] for k in range(2)])
    H = others_of_batch(power**G, q, n, n, 1.0)
    one = [np.array([1.0]), np.array([1.0])]
    for k in range(2):
        for _ in range(G):
            one[k] = np.convolve(one[k], np.append(0.0, P[k]))
    others = np.array([1.0])
    for _ in range(n - 1):
        others = np.convolve(others, q[0] * one[0] + q[1] * one[1])
    for k in range(2):
        rest = np.array([1.0])
        for _ in range(G - 1):
            rest = np.convolve(rest, np.append(0.0, P[k]))
        rest = np.convolve(rest, others)
        s = np.arange(len(rest))
        for own in range(1, L + 1):
            found = u[own - 1] @ (power[k] ** (G - 1) * H[k])
            assert found == pytest.approx((rest * n * G / (own + s)).sum(), rel=1e-11)


# ---- process supervision ----


@pytest.mark.parametrize(
    ("vocab", "length", "prompts", "G"), [(3, 2, (0,), 2), (3, 2, (1,), 4), (2, 3, (0, 1), 3), (2, 3, (1, 1), 2)]
)
def test_process_supervision_by_listing_every_batch(vocab: int, length: int, prompts: tuple[int, ...], G: int) -> None:
    task, logp, found = case(real, vocab, length, prompts, G)
    x = found.x
    assert 0 < x.step_end.sum() < x.mask.sum()
    for std, eps, how in product(STDS, (0.0, 0.1), HOWS):
        A = process_advantages(x.step_reward, x.step_end, found.group, x.mask, std=std, eps=eps)
        exact = process_gradient(task.tree, logp, Estimator(G, how, std, eps), prompts)
        assert abs(exact - update(task, logp, found, how, A)).max() <= 1e-12, (std, eps, how)
        assert abs(exact).max() > 1e-4


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("std", STDS)
def test_outcome_supervision_is_process_supervision_of_one_step(std: str, how: str) -> None:
    task = ragged(real, vocab=3, length=3, weights=[0.2, 0.8])
    tree = task.tree._replace(step_reward=task.tree.reward, step_end=task.tree.ends)
    logp = some_logp(task, 11)
    for batch in (None, 4, [1, 1, 0]):
        rule = Estimator(4, how, std)
        process = process_gradient(tree, logp, rule, batch)
        assert abs(process - expected_gradient(tree, logp, rule, batch)).max() <= 1e-13


def test_every_sequence_once() -> None:
    task = ragged(real, vocab=3, length=3)
    logp = some_logp(task, 2)
    x, p = every_sequence(task.tree, logp)
    for k in range(2):
        mine, own = listed(task, k), x.prompt == k
        order, judged = np.lexsort(x.tokens[own].T[::-1]), np.lexsort(mine.tokens.T[::-1])
        for name in ("tokens", "row", "mask", "reward", "step_reward", "step_end"):
            a, b = getattr(x, name)[own][order], getattr(mine, name)[judged]
            on = mine.mask[judged] != 0 if a.ndim == 2 else True
            assert np.array_equal(np.where(on, a, 0), np.where(on, b, 0)), name
        assert abs(p[own][order] - probabilities(mine, logp)[judged]).max() <= 1e-15


# ---- samples ----


def per_batch(task: TokenTask, logp: Any, x: Rollouts, G: int, groups: int, slope: Any) -> Any:
    """The gradient that each batch of `groups` groups gives, (batches, N V), literal: slope (B,T) times score."""
    batch = np.repeat(np.arange(len(x.tokens) // (groups * G)), groups * G)
    size = task.N * task.V
    slope = slope * x.mask
    at = (batch[:, None] * task.N + x.row) * task.V
    out = np.bincount((at + x.tokens).ravel(), slope.ravel(), (batch[-1] + 1) * size)
    for a in range(task.V):
        weight = slope * np.exp(logp)[x.row, a]
        out -= np.bincount((at + a).ravel(), weight.ravel(), (batch[-1] + 1) * size)
    return out.reshape(-1, size)


def batch_weights(x: Rollouts, how: str, G: int, groups: int, L: int) -> Any:
    size = groups * G
    parts = np.split(x.mask, len(x.mask) // size)
    own = np.repeat(np.arange(groups), G)
    return np.concatenate([d_aggregate(m, m, how=how, group=own, length=L) for m in parts])


def test_means_of_samples_agree_with_the_exact_expectation() -> None:
    """12,000 groups of 4, each std with each aggregation, 12 x 42 coordinates; and with no other one's expectation."""
    task, G, n = ragged(real, vocab=3, length=3), 4, 6000
    logp = some_logp(task, 4)
    prompt, group = np.tile(np.repeat([0, 1], G), n), np.arange(2 * n).repeat(G)
    x = sample(TableLM(task, logp), prompt, group, np.random.default_rng(20))
    kinds = list(product(HOWS, STDS))
    exact = {kind: expected_gradient(task.tree, logp, Estimator(G, *kind)).ravel() for kind in kinds}
    weight = {how: batch_weights(x, how, G, 2, task.length) for how in HOWS}
    for how, std in kinds:
        A = group_advantages(x.reward, x.group, std=std)
        estimates = per_batch(task, logp, x, G, 2, A[:, None] * weight[how])
        agree(estimates, exact[how, std])
        for other in set(kinds) - {(how, std)}:
            with pytest.raises(AssertionError, match="z ="):
                agree(estimates, exact[other])


@pytest.mark.parametrize("how", ["token", "group_token"])
def test_means_under_dynamic_sampling_agree(how: str) -> None:
    """What `draws.Dynamic` keeps, 1,500 batches of 2 groups; the limit of refills is out of reach."""
    task, G = ragged(binary, vocab=2, length=3, weights=[0.3, 0.7]), 3
    logp = some_logp(task, 6)
    rng, draw = np.random.default_rng(30), Dynamic(G, 2, limit=10_000)
    parts = [draw(TableLM(task, logp), rng).x for _ in range(1500)]
    x = Rollouts(*(np.concatenate(same) for same in zip(*parts, strict=True)))
    x = x._replace(group=np.arange(3000).repeat(G))
    A = group_advantages(x.reward, x.group)
    estimates = per_batch(task, logp, x, G, 2, A[:, None] * batch_weights(x, how, G, 2, 3))
    exact = expected_gradient(task.tree, logp, Estimator(G, how), 2, dynamic=True)
    assert abs(exact).max() > 1e-3
    agree(estimates, exact.ravel())


# ---- length bias ----


def test_a_mean_per_sequence_points_elsewhere() -> None:
    """Ledger E2.9, on parity with free thoughts: at the start, and along the path of GRPO's own exact updates."""
    task = parity()
    z = np.zeros((task.N, task.V))
    for k in range(301):
        logp = log_softmax(z)
        now = evaluate(task.tree, logp)
        step = expected_gradient(task.tree, logp, Estimator(16))
        if k in (0, 300):
            means = [expected_gradient(task.tree, logp, Estimator(16, how)) for how in ("group_token", "token")]
            group, token = (cosine(g, now.slope) for g in means)
            assert cosine(step, now.slope) < (0.97 if k == 0 else 0.93) < 0.98 < group < token
        z = z + 2.0 * step
    assert now.J > 0.95


# ---- edges ----


@pytest.mark.parametrize("how", HOWS)
def test_prompts_whose_answers_are_all_equal_give_exactly_0(how: str) -> None:
    """Prompt 0: all wrong, prompt 1: all right, prompt 2 mixed, prompt 3 mixed but for a policy without doubts."""

    def reward(prompt: Any, tokens: Any) -> Any:
        return np.where(prompt < 2, prompt, 1.0 * (tokens[:, 0] == 0))

    task = ragged(reward, vocab=3, length=2, K=4)
    z = np.random.default_rng(8).normal(size=(task.N, task.V))
    z[3, 0] = 2000.0
    prompt = np.concatenate([np.repeat(np.arange(4), task.C**t) for t in range(2)])
    logp = log_softmax(z)
    for std, batch in product(STDS, (None, 5)):
        exact = expected_gradient(task.tree, logp, Estimator(4, how, std, 0.0), batch)
        assert (exact[prompt != 2] == 0).all() and abs(exact[prompt == 2]).max() > 1e-3
    exact = expected_gradient(task.tree, logp, Estimator(4, how), 2, dynamic=True)
    assert (exact[prompt != 2] == 0).all() and abs(exact[prompt == 2]).max() > 1e-3


def test_leave_one_out_without_std_is_the_exact_gradient() -> None:
    """Sequence sums, RLOO: unbiased, for real rewards and ragged lengths; the rest points elsewhere."""
    task = ragged(real, vocab=3, length=3, weights=[0.3, 0.7])
    logp = some_logp(task, 9)
    exact = evaluate(task.tree, logp).slope
    rloo = expected_gradient(task.tree, logp, Estimator(7, "constant", "none", 0.0, True), 1)
    assert abs(rloo * task.length - exact).max() <= 1e-14
    for how in ("sequence", "group_token", "token"):
        biased = expected_gradient(task.tree, logp, Estimator(7, how, "none", 0.0, True), 1)
        assert 0 < cosine(biased, exact) < 1 - 1e-4


def test_a_reward_of_ones_own() -> None:
    task = ragged(binary, vocab=3, length=2)
    other = ragged(real, vocab=3, length=2)
    logp, rule = some_logp(task, 1), Estimator(3, "token")
    given = expected_gradient(task.tree, logp, rule, reward=other.tree.reward)
    assert np.array_equal(given, expected_gradient(other.tree, logp, rule))
    assert np.array_equal(kept(task.tree, logp, 3, reward=other.tree.reward), kept(other.tree, logp, 3))


def test_rewards_far_from_0_and_a_shift() -> None:
    task = ragged(real, vocab=3, length=2)
    logp = some_logp(task, 1)
    for how, std in product(HOWS, STDS):
        rule = Estimator(4, how, std, 0.0)
        moved = expected_gradient(task.tree, logp, rule, reward=task.tree.reward + 1024.0)
        assert abs(moved - expected_gradient(task.tree, logp, rule)).max() <= 1e-12


def test_refusals() -> None:
    task = ragged(binary, vocab=3, length=2)
    tree, logp = task.tree, some_logp(task, 1)
    for rule, said in (
        (Estimator(1), "G is 1; a whole number >= 2"),
        (Estimator(2.5), "G is 2.5"),  # type: ignore[arg-type]
        (Estimator(4, "mean"), "how is 'mean'"),
        (Estimator(4, std="both"), "std is 'both'"),
        (Estimator(4, eps=-1.0), "eps is -1.0"),
    ):
        for f in (expected_gradient, process_gradient, credit):
            with pytest.raises(ValueError, match=said):
                f(tree, logp, rule)
    with pytest.raises(ValueError, match="leave_one_out is True"):
        process_gradient(tree, logp, Estimator(4, leave_one_out=True))
    with pytest.raises(ValueError, match="take a smaller G"):
        expected_gradient(ragged(real, vocab=3, length=2).tree, logp, Estimator(400))
    for batch, said in (([0, 2], r"batch\[1\] is 2"), ([], "batch is"), (0, "batch is 0"), ([0.5], "batch is")):
        with pytest.raises(ModelError, match=said):
            expected_gradient(tree, logp, Estimator(4), batch)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="batch is None"):
        expected_gradient(tree, logp, Estimator(4), dynamic=True)
    flat = ragged(lambda prompt, tokens: 0.0 * prompt, vocab=3, length=2)
    with pytest.raises(ModelError, match="never keep"):
        expected_gradient(flat.tree, logp, Estimator(4), 2, dynamic=True)
    with pytest.raises(ShapeError, match="logp has shape"):
        expected_gradient(tree, logp[:-1], Estimator(4))
    with pytest.raises(ModelError, match="p is"):
        w(1.5, 4)
    with pytest.raises(ModelError, match="distribution over the prompts"):
        oversampling([0.1, 0.2], [0.5, 0.1], 4)
    for rate, number in ((w, 1), (kept_share, 1), (pass_at_k, 0)):
        with pytest.raises(ValueError, match="whole number"):
            rate(0.5, number)
    with pytest.raises(ValueError, match="c is"):
        pass_at_k_estimate(4, [5], 2)
    with pytest.raises(ValueError, match="n is 3"):
        pass_at_k_estimate(3, [1], 4)


def test_torch_trees_are_refused() -> None:
    torch = pytest.importorskip("torch")
    task = ragged(binary, vocab=3, length=2)
    tree = task.tree._replace(reward=torch.zeros(task.N, task.V, dtype=torch.float64))
    with pytest.raises(TypeError, match="torch tensor"):
        expected_gradient(tree, some_logp(task, 1), Estimator(4))


def test_logits_are_not_taken_for_log_probabilities() -> None:
    task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    with pytest.raises(ModelError, match=r"logp\[0\] sums to 2"):
        expected_gradient(task.tree, np.zeros((1, 2)), Estimator(4))
