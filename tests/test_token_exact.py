"""The exact answers about token policies, against lists of all sequences, models, differences and networks."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from token_listing import listing, log_probability, mean, random_logits, random_logp, random_task, score

from tabrl import chain, dp
from tabrl.errors import ModelError
from tabrl.tokens import exact
from tabrl.tokens.recursion import log_softmax
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F, I

SEEDS = range(24)


def trial(seed: int, *, binary: bool = False) -> tuple[TokenTask, TableLM, Any]:
    """A task, a policy, and its log-probabilities by another hand."""
    task = random_task(seed, binary=binary)
    return task, TableLM(task, random_logits(task, seed)), random_logp(task, seed)


def second(prompt: Any, tokens: Any) -> Any:
    """1 for the second token."""
    return 1.0 * (tokens[:, 0] == 1)


def close(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    assert np.shape(x) == np.shape(y)
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# ---- what it earns ----


@pytest.mark.parametrize("seed", SEEDS)
def test_values_and_gradient_are_sums_over_all_sequences(seed: int) -> None:
    task, policy, logp = trial(seed)
    close(exact.objective(task, policy), mean(task, logp, lambda x: x.reward))
    close(exact.gradient(task, policy), mean(task, logp, lambda x: x.reward * score(x, logp)).ravel())
    V, Q = exact.values(task, policy)
    close(exact.advantage(task, policy), Q - V[:, None])
    through, paid = np.zeros_like(Q), np.zeros_like(Q)
    for x in listing(task):
        for h, a in zip(x.rows, x.tokens, strict=True):
            through[h, a] += np.exp(log_probability(x, logp))
            paid[h, a] += np.exp(log_probability(x, logp)) * x.reward
    close(Q, paid / through)
    close(V, paid.sum(1) / through.sum(1))
    close(exact.success(task, policy), V[: task.K])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_explicit_model_agrees(seed: int) -> None:
    task, policy, logp = trial(seed)
    model = task.to_mdp()
    pi = np.vstack([np.exp(logp), np.full((1, task.V), 1 / task.V)])
    V, _ = exact.values(task, policy)
    close(V, chain.evaluate(chain.induce(model, pi))[:-1])
    best = dp.solve(model).V[:-1]
    for beta in (1.0, 1e-2, 1e-5):
        soft = exact.optimum(task, policy, beta).V
        assert (soft <= best + 1e-9).all()
        assert (soft >= best + beta * task.length * logp.min() - 1e-9).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pass_at_k_counts_tuples_of_answers(k: int) -> None:
    task, policy, logp = trial(9, binary=True)
    for prompt, found in enumerate(exact.pass_at_k(task, policy, k)):
        own = [x for x in listing(task) if x.prompt == prompt]
        chance = 0.0
        for answers in product(own, repeat=k):
            if any(x.reward == 1 for x in answers):
                chance += np.exp(sum(log_probability(x, logp) for x in answers))
        close(found, chance)


# ---- which sequences ----


@pytest.mark.parametrize("seed", SEEDS)
def test_sequences_and_their_lengths(seed: int) -> None:
    task, policy, logp = trial(seed)
    q = exact.sequence_probabilities(task, policy)
    rest = q.copy()
    for x in listing(task):
        close(q[x.rows[-1], x.tokens[-1]], x.weight * np.exp(log_probability(x, logp)))
        rest[x.rows[-1], x.tokens[-1]] = 0.0
    assert not rest.any()
    lengths = [mean(task, logp, lambda x, t=t: 1.0 * (len(x) == t)) for t in range(task.length + 1)]
    close(exact.lengths(task, policy), lengths)
    cut = mean(task, logp, lambda x: 1.0 * (task.eos and x.tokens[-1] != task.V - 1))
    close(exact.truncated(task, policy), cut)


# ---- how random, how far ----


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_and_divergence_of_whole_sequences(seed: int) -> None:
    task, policy, logp = trial(seed)
    other, logp_ref = TableLM(task, random_logits(task, 99)), random_logp(task, 99)
    length = mean(task, logp, len)
    H, D = exact.entropy(task, policy), exact.kl(task, policy, other)
    close(H.rows, -(np.exp(logp) * logp).sum(1))
    close(D.rows, (np.exp(logp) * (logp - logp_ref)).sum(1))
    h = mean(task, logp, lambda x: -log_probability(x, logp))
    d = mean(task, logp, lambda x: log_probability(x, logp) - log_probability(x, logp_ref))
    close((H.sequence, H.token, D.sequence, D.token), (h, h / length, d, d / length))
    assert exact.kl(task, policy, policy).sequence == 0.0


def test_divergence_from_what_is_never_taken() -> None:
    task = TokenTask("one", ("0", "1"), ("?",), 1, second)
    sure, even = TableLM(task, [0.0, 2000.0]), TableLM(task)
    close(exact.kl(task, sure, even).sequence, np.log(2))
    close(exact.kl(task, even, sure).sequence, 1000 - np.log(2))
    assert exact.entropy(task, sure).sequence == 0.0


# ---- networks ----


def even(prompt: I, tokens: I) -> F:
    return np.where(tokens.sum(1) % 2 == prompt, 1.0, 0.0)


@pytest.mark.parametrize("eos", [False, True])
def test_a_network_has_the_answers_of_the_table_of_its_logits(eos: bool) -> None:
    pytest.importorskip("torch")
    from tabrl.tokens.nets import GRU

    task = TokenTask("any", ("a", "b", "c"), ("1", "2"), 3, even, eos)
    nets = [GRU(task, np.random.default_rng(i), hidden=5, head=2.0, device="cpu", dtype="float64") for i in range(2)]
    tables = [TableLM(task, net.logits()[0].numpy()) for net in nets]
    for f in (exact.objective, exact.success, exact.lengths, exact.truncated, exact.sequence_probabilities):
        close(f(task, nets[0]).numpy(), f(task, tables[0]))
    close(exact.pass_at_k(task, nets[0], 3).numpy(), exact.pass_at_k(task, tables[0], 3))
    for x, y in zip(exact.values(task, nets[0]), exact.values(task, tables[0]), strict=True):
        close(x.numpy(), y)
    for mine, theirs in (
        (exact.entropy(task, nets[0]), exact.entropy(task, tables[0])),
        (exact.kl(task, nets[0], nets[1]), exact.kl(task, *tables)),
        (exact.kl(task, nets[0], tables[1]), exact.kl(task, *tables)),
        (exact.optimum(task, nets[0], 0.3), exact.optimum(task, tables[0], 0.3)),
    ):
        for x, y in zip(mine, theirs, strict=True):
            close(x.numpy(), y)


def test_the_gradient_of_a_network_by_differences() -> None:
    torch = pytest.importorskip("torch")
    from tabrl.tokens.nets import GRU

    task = random_task(3)
    net = GRU(task, np.random.default_rng(0), hidden=3, head=1.0, device="cpu", dtype="float64")
    found, theta, h = exact.gradient(task, net), net.theta.clone(), 1e-3
    differences = torch.zeros_like(theta)
    for i in range(len(theta)):
        J = []
        for step in (-2, -1, 1, 2):
            moved = theta.clone()
            moved[i] += step * h
            net.theta = moved
            J.append(exact.objective(task, net).item())
        differences[i] = (J[0] - 8 * J[1] + 8 * J[2] - J[3]) / (12 * h)
    assert abs(found - differences).max() <= 1e-7 * abs(found).max()


# ---- errors ----


def test_what_is_refused() -> None:
    task, policy, _ = trial(1)
    other = random_task(1)
    with pytest.raises(ModelError, match=r"policy\.task is"):
        exact.objective(other, policy)
    with pytest.raises(ModelError, match=r"policy\.task is"):
        exact.kl(task, policy, TableLM(other))
    with pytest.raises(ModelError, match=r"reward\[h=\d+, a=\d+\] is .*; an outcome of 0 or 1 is expected"):
        exact.pass_at_k(task, policy, 2)
    with pytest.raises(ValueError, match="k is 0; a number >= 1"):
        exact.pass_at_k(task, policy, 0)
    with pytest.raises(ValueError, match="beta is 0"):
        exact.optimum(task, policy, 0)


def test_one_pass_gives_several_answers() -> None:
    task, policy, _ = trial(5)
    x, logp, pull = exact.forward(task, policy)
    assert exact.objective(task, policy) == x.J
    assert (pull(x.slope) == exact.gradient(task, policy)).all()
    assert (logp == log_softmax(policy.logits()[0])).all()
    assert exact.amount(x.d, exact.kl_rows(logp, logp)).sequence == 0
