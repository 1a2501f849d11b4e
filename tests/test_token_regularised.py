"""Regularised objectives of token policies: optima, penalties and resting points, judged by lists of all sequences."""

from functools import partial
from itertools import islice, pairwise, product
from typing import Any

import numpy as np
import pytest
from token_listing import (
    Listed,
    listing,
    log_probability,
    mean,
    random_logits,
    random_logp,
    random_task,
    rows_logp,
    score,
)

from tabrl.divergences import KINDS
from tabrl.envs.token_tasks import bandit, copy
from tabrl.errors import ModelError, ShapeError
from tabrl.optimise import sgd
from tabrl.tokens import exact, train
from tabrl.tokens.amplification import amplification, beta_c, probability, resting_points
from tabrl.tokens.counts import Estimator
from tabrl.tokens.draws import Groups
from tabrl.tokens.groups import expected_gradient
from tabrl.tokens.methods import Penalty
from tabrl.tokens.penalties import LEVELS, PLACES, kl_moments, kl_slope
from tabrl.tokens.rates import w
from tabrl.tokens.recursion import evaluate
from tabrl.tokens.regularised import along, as_tokens, gathered, optimum, regularised, scattered, sequence_optimum
from tabrl.tokens.rollout import Rollouts, sample
from tabrl.tokens.stationary import k2_rows, k3_rows, stationary
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F, I

SEEDS = range(24)
H = 1e-200


def close(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    assert np.shape(x) == np.shape(y)
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def trial(seed: int, *, binary: bool = False) -> tuple[TokenTask, Any, Any, float]:
    """A task, a policy, a reference, and beta."""
    task = random_task(seed, binary=binary)
    return task, random_logp(task, seed), random_logp(task, 1000 + seed), float([0.1, 0.5, 2.0][seed % 3])


def divergence(task: TokenTask, logp: Any, logp_ref: Any) -> Any:
    """KL of whole sequences, by the list."""
    return mean(task, logp, lambda x: log_probability(x, logp) - log_probability(x, logp_ref))


def by_complex_step(f: Any, z: Any) -> Any:
    """df/dz, entry by entry."""
    out = np.zeros(z.shape)
    for at in np.ndindex(*z.shape):
        moved = z.astype(complex)
        moved[at] += 1j * H
        out[at] = np.imag(f(moved)) / H
    return out


# ---- the optimum ----


@pytest.mark.parametrize("seed", SEEDS)
def test_the_optimum_is_the_tilted_reference(seed: int) -> None:
    task, logp, ref, beta = trial(seed)
    best = optimum(task.tree, ref, beta)
    log_q, beta_log_z = sequence_optimum(task.tree, ref, beta)
    for k in range(task.K):
        own = [x for x in listing(task) if x.prompt == k]
        tilted = [np.exp(log_probability(x, ref) + x.reward / beta) for x in own]
        close(best.V[k], beta * np.log(sum(tilted)))
        close(beta_log_z[k], best.V[k])
        for x, weight in zip(own, tilted, strict=True):
            close(log_probability(x, best.logp), np.log(weight / sum(tilted)))
            close(log_q[x.rows[-1], x.tokens[-1]], np.log(weight / sum(tilted)))
    assert np.isneginf(log_q[~task.tree.ends]).all()
    close(as_tokens(task.tree, np.exp(log_q)), best.logp)
    for other in (logp, ref, best.logp):  # every policy falls short by beta times its divergence from the optimum
        J = regularised(task.tree, other, ref, beta).J
        close(J, mean(task, other, lambda x: x.reward) - beta * divergence(task, other, ref))
        close(J, best.J - beta * divergence(task, other, best.logp))
    assert abs(regularised(task.tree, best.logp, ref, beta).slope).max() <= 1e-14 * max(1, beta)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beta", [1e-300, 1e-8, 1e-3, 1e3, 1e8])
def test_extreme_weights(seed: int, beta: float) -> None:
    task, _, ref, _ = trial(seed)
    best = optimum(task.tree, ref, beta)
    with np.errstate(over="ignore"):  # rewards / beta beyond the largest number
        if beta > 1e-300:
            log_q, value = sequence_optimum(task.tree, ref, beta)
            close(np.exp(log_q), np.exp(along(task.tree, best.logp)) * task.tree.ends, 1e-9 + 1e-15 / beta)
            close(value, best.V[: task.K], 1e-11 + 1e-15 * beta)  # the rounding of beta times a logarithm
    assert np.isfinite(best.V).all()
    if beta < 1e-6:
        tops = [max(x.reward for x in listing(task) if x.prompt == k) for k in range(task.K)]
        close(best.V[: task.K], tops, 1e-6)
    if beta == 1e8:
        close(np.exp(best.logp), np.exp(ref), 1e-6)


@pytest.mark.parametrize("beta", [1e-8, 0.5, 100.0])
def test_what_the_reference_excludes_stays_excluded(beta: float) -> None:
    task = random_task(11)
    ref = random_logits(task, 1)
    ref[:, 0] = -np.inf
    ref = rows_logp(ref)
    low = task.tree.reward.copy()
    low[:, 0] += 1000.0 * task.tree.ends[:, 0]
    for reward in (task.tree.reward, low):
        best = optimum(task.tree, ref, beta, reward)
        assert np.isneginf(best.logp[:, 0]).all() and np.isfinite(best.logp[:, 1:]).all()
        close(np.exp(best.logp).sum(1), np.ones(task.N))
        log_q, value = sequence_optimum(task.tree, ref, beta, reward)
        close(value, best.V[: task.K], 1e-10)
        for kind, level in product(("k2", "k3"), LEVELS):
            rest = stationary(task.tree._replace(reward=reward), ref, beta, kind=kind, level=level)
            close(rest, stationary(task.tree, ref, beta, kind=kind, level=level))
            assert np.isneginf(rest[evaluate(task.tree, best.logp).d > 0][:, 0]).all()
            close(np.exp(rest).sum(1), np.ones(task.N))
        assert np.isneginf(log_q[:, 0]).all()
    assert np.isneginf(regularised(task.tree, random_logp(task, 2), ref, beta).J)
    for tiny in (beta, 1e-306):  # what is excluded costs no digits, whatever it would pay
        close(optimum(task.tree, ref, tiny, low).logp, optimum(task.tree, ref, tiny).logp)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_slope_of_the_regularised_objective_by_complex_step(seed: int) -> None:
    task, _, ref, beta = trial(seed)
    z = random_logits(task, seed)

    def objective(z: Any) -> Any:
        logp = rows_logp(z)
        return mean(task, logp, lambda x: x.reward - beta * (log_probability(x, logp) - log_probability(x, ref)))

    close(regularised(task.tree, rows_logp(z), ref, beta).slope, by_complex_step(objective, z))
    moving = rows_logp(z.astype(complex) + 1j * H * ref)  # the recursion itself takes complex numbers
    close(
        regularised(task.tree, moving, ref, beta).J.imag / H,
        (regularised(task.tree, rows_logp(z), ref, beta).slope * ref).sum(),
    )


@pytest.mark.parametrize("seed", range(8))
def test_sequences_to_tokens_and_back(seed: int) -> None:
    task, logp, _, _ = trial(seed)
    q = np.exp(along(task.tree, logp)) * task.tree.ends
    scale = np.random.default_rng(seed).uniform(0.1, 9.0, task.K)
    for x in (q, scattered(task.tree, scale[:, None] * gathered(task.tree, q))):
        close(as_tokens(task.tree, x), logp)
    assert (scattered(task.tree, gathered(task.tree, logp)) == logp).all()
    close(along(task.tree, task.tree.ends * 1.0)[task.tree.ends], np.ones(task.tree.ends.sum()))
    for x in listing(task):
        close(along(task.tree, logp)[x.rows[-1], x.tokens[-1]], log_probability(x, logp))


# ---- estimators of the divergence ----


def estimator(kind: str, gap: float) -> tuple[float, float]:
    """k and its derivative with respect to log pi, gap = log pi - log ref, written out."""
    if kind == "k1":
        return gap, 1.0
    if kind == "k2":
        return gap**2 / 2, gap
    return float(np.exp(-gap) - 1 + gap), 1 - float(np.exp(-gap))


def literal_slope(task: TokenTask, logp: Any, ref: Any, kind: str, place: str, level: str) -> Any:
    """The mean over all sequences of what one sequence contributes."""

    def one(x: Listed) -> Any:
        gaps = [logp[h, a] - ref[h, a] for h, a in zip(x.rows, x.tokens, strict=True)]
        if level == "sequence":
            k, dk = estimator(kind, sum(gaps))
            return {"loss": dk, "weighted": k + dk, "reward": k}[place] * score(x, logp)
        ks = [estimator(kind, gap) for gap in gaps]
        if place == "reward":
            return score(x, logp, [sum(k for k, _ in ks[t:]) for t in range(len(ks))])
        return score(x, logp, [dk + (place == "weighted") * k for k, dk in ks])

    return mean(task, logp, one)


@pytest.mark.parametrize("seed", SEEDS)
def test_expected_slopes_of_the_estimators(seed: int) -> None:
    task, logp, ref, _ = trial(seed)
    for kind, place, level in product(KINDS, PLACES, LEVELS):
        found = kl_slope(task.tree, logp, ref, kind=kind, place=place, level=level)
        close(found, literal_slope(task, logp, ref, kind, place, level), 1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_which_divergence_an_estimator_descends_on(seed: int) -> None:
    task, logp, ref, _ = trial(seed)
    z = random_logits(task, seed)
    forward = by_complex_step(lambda z: divergence(task, rows_logp(z), ref), z)
    backward = by_complex_step(lambda z: divergence(task, ref, rows_logp(z)), z)
    slope = partial(kl_slope, task.tree, logp, ref)
    of = {(kind, place): slope(kind=kind, place=place, level="sequence") for kind in KINDS for place in PLACES}
    close(of["k1", "loss"], np.zeros_like(logp))
    close(of["k2", "loss"], forward)
    close(of["k3", "loss"], backward, 1e-10)
    for exactly in (("k1", "weighted"), ("k3", "weighted"), ("k1", "reward")):
        close(of[exactly], forward, 1e-10)
    close(slope(kind="k1", place="reward"), forward)
    close(of["k3", "reward"], forward - backward, 1e-10)
    close(slope(kind="k1"), np.zeros_like(logp))
    if task.length > 1:  # token by token everything else is another direction
        for kind, place in (("k2", "loss"), ("k3", "weighted"), ("k1", "weighted"), ("k3", "reward")):
            assert abs(slope(kind=kind, place=place) - forward).max() > 1e-4
        assert abs(slope(kind="k3") - backward).max() > 1e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_means_and_variances_of_the_estimators(seed: int) -> None:
    task, logp, ref, _ = trial(seed)
    kl = divergence(task, logp, ref)
    for kind, level in product(KINDS, LEVELS):

        def one(x: Listed, kind: str = kind, level: str = level) -> float:
            gaps = [float(logp[h, a] - ref[h, a]) for h, a in zip(x.rows, x.tokens, strict=True)]
            return sum(estimator(kind, g)[0] for g in (gaps if level == "token" else [sum(gaps)]))

        m, v = kl_moments(task.tree, logp, ref, kind=kind, level=level)
        close(m, mean(task, logp, one), 1e-11)
        close(v, mean(task, logp, lambda x: one(x) ** 2) - mean(task, logp, one) ** 2, 1e-9)
        if kind != "k2":
            close(m, kl, 1e-11)
    one_way, other = (kl_moments(task.tree, logp, ref, kind="k1", level=level) for level in LEVELS)
    close(one_way, other)


@pytest.mark.parametrize("seed", range(4))
def test_tensors_give_the_same_numbers(seed: int) -> None:
    torch = pytest.importorskip("torch")
    task, logp, ref, beta = trial(seed)
    ref[0, 0] = -np.inf
    ref[0] -= np.log(np.exp(ref[0]).sum())
    p, q = torch.tensor(logp), torch.tensor(ref)
    tree = task.tree._replace(
        **{name: torch.tensor(getattr(task.tree, name)) for name in ("weights", "reward", "ends")}
    )
    pairs: list[Any] = [(optimum(tree, q, beta), optimum(task.tree, ref, beta))]
    pairs += [(sequence_optimum(tree, q, beta), sequence_optimum(task.tree, ref, beta))]
    pairs += [(regularised(tree, q, p, beta), regularised(task.tree, ref, logp, beta))]
    pairs += [((as_tokens(tree, tree.ends * p.exp()),), (as_tokens(task.tree, task.tree.ends * np.exp(logp)),))]
    for kind, place, level in product(KINDS, PLACES, LEVELS):
        found = kl_slope(tree, p, p.flip(1), kind=kind, place=place, level=level)
        pairs += [((found,), (kl_slope(task.tree, logp, logp[:, ::-1], kind=kind, place=place, level=level),))]
        pairs += [(kl_moments(tree, p, p.flip(1)), kl_moments(task.tree, logp, logp[:, ::-1]))]
    for mine, theirs in pairs:
        for x, y in zip(mine, theirs, strict=True):
            close(x.numpy(), y)


# ---- where training rests ----

GRPO16 = partial(w, G=16, std="sample", eps=1e-4)


def literal_weight(p: float, G: int, eps: float) -> float:
    """Mean over all groups of the advantages' pull on p, divided by that of a gradient of p: sample std."""
    total = 0.0
    for group in product((0, 1), repeat=G):
        chance = p ** sum(group) * (1 - p) ** (G - sum(group))
        m = sum(group) / G
        sd = np.sqrt(sum((r - m) ** 2 for r in group) / (G - 1))
        if sd > 0:  # the score of p for one answer: (r - p) / (p (1 - p)); its square has the mean 1 / (p (1 - p))
            total += chance * sum((r - m) / (sd + eps) * (r - p) for r in group) / G
    return total / (p * (1 - p))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "level"), list(product(("k2", "k3"), LEVELS)))
def test_the_expected_update_is_zero_at_rest(seed: int, kind: str, level: str) -> None:
    task, _, ref, beta = trial(seed, binary=bool(seed % 2))
    rest = stationary(task.tree, ref, beta, kind=kind, level=level)
    close(np.exp(rest).sum(1), np.ones(task.N))
    pull = mean(task, rest, lambda x: x.reward * score(x, rest))
    close(pull, beta * literal_slope(task, rest, ref, kind, "loss", level), 1e-12)
    if (kind, level) == ("k2", "sequence"):
        close(rest, optimum(task.tree, ref, beta).logp)
    if kind == "k2":
        close(pull, beta * literal_slope(task, rest, ref, "k3", "weighted", level), 1e-12)


@pytest.mark.parametrize("seed", range(1, 24, 2))
@pytest.mark.parametrize(("kind", "level"), list(product(("k2", "k3"), LEVELS)))
def test_the_expected_grpo_update_is_zero_at_rest(seed: int, kind: str, level: str) -> None:
    task, _, ref, beta = trial(seed, binary=True)
    rest = stationary(task.tree, ref, beta, kind=kind, level=level, weight=partial(w, G=4, std="sample", eps=1e-4))
    p = [
        sum(np.exp(log_probability(x, rest)) * x.reward for x in listing(task) if x.prompt == k) for k in range(task.K)
    ]
    own = [literal_weight(float(q), 4, 1e-4) for q in p]
    pull = mean(task, rest, lambda x: own[x.prompt] * x.reward * score(x, rest))
    close(pull, beta * literal_slope(task, rest, ref, kind, "loss", level), 1e-11)


@pytest.mark.parametrize("level", LEVELS)
def test_exact_steps_uphill_come_to_rest_there(level: str) -> None:
    task = random_task(5, binary=True)
    ref, rule = random_logp(task, 7), Estimator(16, "constant")
    task = TokenTask(task.name, task.vocab, task.prompts, task.length, task.reward, task.eos)
    rest = stationary(task.tree, ref, 0.5, level=level, weight=GRPO16)
    z, size = ref.copy(), task.length
    for _ in range(300):
        logp = rows_logp(z)
        up = size * expected_gradient(task.tree, logp, rule) - 0.5 * kl_slope(task.tree, logp, ref, level=level)
        z = z + 8.0 * up
    close(np.exp(rows_logp(z)), np.exp(rest), 1e-12)


def test_one_right_answer_has_a_quadratic() -> None:
    """k3, no std: beta (p - p_ref) = p (1 - p)."""
    task = TokenTask("one", ("0", "1", "2"), ("?",), 1, lambda prompt, tokens: 1.0 * (tokens[:, 0] == 1))
    for p_ref, beta in product((1e-100, 1e-6, 0.2, 0.9), (1e-4, 0.5, 30.0)):
        ref = np.log([[(1 - p_ref) / 4, p_ref, 3 * (1 - p_ref) / 4]])
        p = (1 - beta + np.sqrt((1 - beta) ** 2 + 4 * beta * p_ref)) / 2
        for level in LEVELS:
            rest = np.exp(stationary(task.tree, ref, beta, level=level))[0]
            close(rest, [(1 - p) / 4, p, 3 * (1 - p) / 4], 1e-12)


def test_excluded_tokens_cost_no_digits() -> None:
    with np.errstate(divide="ignore"):
        ref = np.log([[0.25, 0.75, 0.0]])
    for rows in (k2_rows, k3_rows):
        close(np.exp(rows(ref, np.array([[1.0, 1.0, 1e3]]), 1e-12)), np.exp(ref))


def test_rows_of_any_scale() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        m, beta = int(rng.integers(1, 30)), 10 ** rng.uniform(-6, 6)
        ref = rows_logp(10 ** rng.uniform(-1, 2) * rng.normal(size=(4, m)))
        Q = 10 ** rng.uniform(-3, 3) * rng.normal(size=(4, m))
        pi = np.exp(k3_rows(ref, Q, beta))
        V = (pi * Q).sum(1, keepdims=True)
        scale = beta + abs(Q).max()
        close(pi * (Q - V) / scale, beta * (pi - np.exp(ref)) / scale, 1e-12)


# ---- training ----

BETA, G = 0.5, 16


def trained(start: Any, task: TokenTask, seed: int, updates: int, step: Any, penalty: Penalty) -> TableLM:
    """A table after so many updates, every prompt once in each, with the reference at the start."""
    policy = TableLM(task)
    run = start(
        task, policy, np.random.default_rng(seed), step=step, draw=Groups(G), kl=penalty, entropy=0.0, every=updates
    )
    assert next(run).k == updates
    return policy


def falling(size: float) -> Any:
    """Steps uphill that become small like 1/k, so that the noise of the samples averages out."""
    return sgd(lambda k: size / (1 + k / 20))


@pytest.mark.parametrize("start", [train.rloo, train.dr_grpo])
@pytest.mark.parametrize("task", [bandit(), copy(2, vocab=4, prompts=4)], ids=["bandit", "copy"])
def test_the_divergence_in_the_reward_trains_to_the_optimum(start: Any, task: TokenTask) -> None:
    """Mean or leave-one-out baseline, no std: the noise vanishes at the optimum, so nothing is left of it."""
    best = TableLM(task, exact.optimum(task, TableLM(task), BETA).logp)
    for seed in range(3):
        policy = trained(start, task, seed, 600, 4.0 * task.K, Penalty(BETA, "k1", "reward"))
        assert exact.kl(task, policy, best).sequence <= 1e-6


def test_standard_grpo_trains_to_its_own_resting_point() -> None:
    """std of the group, k3 of each token in the loss: somewhere else than the optimum, and the theory says where."""
    task = copy(2, vocab=4, prompts=4)
    even = TableLM(task)
    best = TableLM(task, exact.optimum(task, even, BETA).logp)
    rest = TableLM(task, stationary(task.tree, rows_logp(even.table), BETA, weight=GRPO16))
    assert exact.kl(task, rest, best).sequence > 0.2
    for seed in range(3):
        policy = trained(train.grpo, task, seed, 1000, falling(8.0 * task.K), Penalty(BETA))
        assert exact.kl(task, policy, rest).sequence < 0.04 * exact.kl(task, policy, best).sequence


def literal_update(x: Rollouts, logp: Any, ref: Any, std: bool) -> Any:
    """The mean over sequences of their part of the update: k1 in the reward, or std and k3 in the loss."""
    B, T = x.tokens.shape
    gap = ((logp - ref)[x.row, x.tokens] * x.mask).sum(1)
    R = (x.reward - (0 if std else BETA) * gap).reshape(-1, G)
    A = (R - R.mean(1, keepdims=True)) / (R.std(1, ddof=1, keepdims=True) + 1e-4 if std else 1 - 1 / G)
    g = A.ravel() - (BETA * (1 - np.exp(-gap)) if std else 0.0)
    out = np.zeros(logp.shape)
    for t in range(T):
        on = x.mask[:, t] > 0
        np.add.at(out, (x.row[on, t], x.tokens[on, t]), g[on])
        np.add.at(out, x.row[on, t], -g[on, None] * np.exp(logp[x.row[on, t]]))
    return out / B


@pytest.mark.parametrize("std", [False, True])
def test_whole_sequences_by_a_literal_loop(std: bool) -> None:
    """As the two tests above, with the penalty of whole sequences, and answers of different lengths."""
    task = TokenTask("ones", ("0", "1", "."), ("one", "two"), 3, at_least_prompt, True)
    ref, group = random_logp(task, 3, 0.5), np.repeat(np.arange(2), G)
    policy, rng = TableLM(task, ref), np.random.default_rng(5)
    for k in range(1500):
        x = sample(policy, group, group, rng)
        lr = 4.0 / (1 + k / 200) if std else 4.0
        policy.theta = policy.theta + lr * literal_update(x, rows_logp(policy.table), ref, std).ravel()
    best = TableLM(task, optimum(task.tree, ref, BETA).logp)
    rest = TableLM(task, stationary(task.tree, ref, BETA, level="sequence", weight=GRPO16))
    assert exact.kl(task, rest, best).sequence > 0.05
    if std:
        assert exact.kl(task, policy, rest).sequence < 0.04 * exact.kl(task, policy, best).sequence
    else:
        assert exact.kl(task, policy, best).sequence <= 1e-6


def at_least_prompt(prompt: I, tokens: I) -> F:
    """1 for more ones than the prompt's number."""
    return np.where((tokens == 1).sum(1) > prompt, 1.0, 0.0)


# ---- success amplification ----


def right(p_ref: float) -> tuple[TokenTask, Any]:
    """Two right answers among four sequences of two tokens, and a reference that finds one with probability p_ref."""
    task = TokenTask("xor", ("0", "1"), ("?",), 2, lambda prompt, tokens: 1.0 * (tokens.sum(1) == 1))
    q = np.array([[0.0, 0.0], [0.3 * (1 - p_ref), 0.6 * p_ref], [0.4 * p_ref, 0.7 * (1 - p_ref)]])
    return task, as_tokens(task.tree, q)


@pytest.mark.parametrize(("p_ref", "beta"), list(product((0.02, 0.3, 0.5, 0.8), (0.7, 1.5, 2.0, 5.0))))
def test_amplification_is_the_optimum_of_normalised_advantages(p_ref: float, beta: float) -> None:
    task, ref = right(p_ref)
    logp = ref
    for x in islice(amplification(p_ref, beta), 6):
        p = evaluate(task.tree, logp).V[0]
        if 1 - p < 1e-6:
            break  # here the literal 1 - p has lost its digits
        A = np.where(task.tree.ends, (task.tree.reward - p) / np.sqrt(p * (1 - p)), 0.0)
        logp = optimum(task.tree, ref, beta, A).logp
        wrong = mean(task, logp, lambda x: 1.0 * (x.reward == 0))
        close((x.p, probability(-x.logit)), (evaluate(task.tree, logp).V[0], wrong), 1e-9)


@pytest.mark.parametrize("p_ref", [1e-6, 0.002, 0.02, 0.3, 0.5, 0.8, 0.999])
def test_fixed_points_of_amplification(p_ref: float) -> None:
    edge = beta_c(p_ref)
    assert not resting_points(p_ref, edge * (1 - 1e-6))
    near = resting_points(p_ref, edge * (1 + 1e-6))
    assert near[0].stable and not near[1].stable
    close([x.slope for x in near], [1.0, 1.0], 0.02)
    for beta in edge * np.array([1.01, 1.5, 4.0, 40.0]):
        low, high = resting_points(p_ref, beta)
        assert low.logit < high.logit and high.slope > 1
        for x in (low, high):
            if 1e-12 < x.p < 1 - 1e-12:
                then = next(amplification(p_ref, beta, p=x.p))
                close(then.logit, x.logit, 1e-3)
            moved = [next(amplification(p_ref, beta, p=probability(x.logit + h))).logit for h in (-1e-4, 1e-4)]
            if abs(x.logit) < 20:
                close((moved[1] - moved[0]) / 2e-4, x.slope, 1e-3 * max(1, abs(x.slope)))
        if low.stable:
            end = list(islice(amplification(p_ref, beta, p=probability(low.logit + 1e-3)), 3000))[-1]
            close(end.p, low.p, 1e-9)


def test_below_the_edge_success_is_certain() -> None:
    for p_ref in (0.01, 0.5, 0.9):
        run = list(islice(amplification(p_ref, 0.9 * beta_c(p_ref)), 1000))
        assert run[-1].p == 1.0 and len(run) < 1000
        assert all(x.p <= y.p for x, y in pairwise(run))
    assert len(list(amplification(0.5, 2 / 1500))) == 1  # a logit of 1,500: one more step would overflow


def test_a_fixed_point_that_steps_jump_across() -> None:
    """For rare successes beta > beta_c is not enough: the slope at the lower fixed point can be below -1."""
    p_ref, beta = 1e-6, 1.0
    assert beta > beta_c(p_ref)
    low, _ = resting_points(p_ref, beta)
    assert low.slope < -1 and not low.stable
    for p in (None, probability(low.logit - 1e-3), probability(low.logit + 1e-3)):
        run = list(islice(amplification(p_ref, beta, p=p), 500))
        assert abs(run[-1].logit - low.logit) > 0.1


# ---- errors ----


def test_what_is_refused() -> None:
    task, logp, ref, _ = trial(4)
    for bad in (0.0, -1.0, np.nan, np.inf):
        for f in (optimum, sequence_optimum, stationary):
            with pytest.raises(ValueError, match=f"beta is {bad}; a finite number > 0"):
                f(task.tree, ref, bad)
    with pytest.raises(ValueError, match=r"beta is -1\.0; a number >= 0"):
        regularised(task.tree, logp, ref, -1.0)
    with pytest.raises(ShapeError, match=r"logp_ref has shape \(1, 1\); \(N,V\)"):
        optimum(task.tree, np.zeros((1, 1)), 1.0)
    with pytest.raises(ValueError, match="kind is 'k4'"):
        kl_slope(task.tree, logp, ref, kind="k4")
    with pytest.raises(ValueError, match="place is 'advantage'"):
        kl_slope(task.tree, logp, ref, place="advantage")
    with pytest.raises(ValueError, match="level is 'word'"):
        kl_moments(task.tree, logp, ref, level="word")
    with pytest.raises(ValueError, match="kind is 'k1'; one of k2, k3"):
        stationary(task.tree, ref, 1.0, kind="k1")
    with pytest.raises(ModelError, match=r"reward\[h=0, a=1\] is 0\.5; an outcome of 0 or 1"):
        stationary(bandit().tree, np.log(np.full((1, 3), 1 / 3)), 1.0, weight=GRPO16)
    one, even = right(0.5)
    with pytest.raises(ValueError, match="weight asks for more than"):
        stationary(one.tree, even, 1.0, kind="k2", weight=lambda p: 1e30 + 0 * p)
    with pytest.raises(ValueError, match="weight is nan at p = 1"):
        stationary(one.tree, even, 1.0, kind="k2", weight=lambda p: np.nan * p)
    for p in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="p_ref is"):
            beta_c(p)
    with pytest.raises(ValueError, match="beta is 0"):
        next(amplification(0.5, 0))
