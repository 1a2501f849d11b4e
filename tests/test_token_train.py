"""Training of token policies against literal loops, exact shares, and itself after a stop."""

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabrl.errors import ModelError
from tabrl.optimise import adam, held, sgd
from tabrl.tokens import train
from tabrl.tokens.draws import Dynamic, Groups
from tabrl.tokens.judge import TokenStep, best_answers
from tabrl.tokens.methods import Capped, Method, Outcome, Overlong, Penalty, Process, Sequence
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.table import TableCritic, TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F, I


def digits(prompt: I, tokens: I) -> F:
    """1 where the continuing tokens 0 and 1 contain as many ones as the prompt's number."""
    right: F = 1.0 * (((tokens == 1).sum(1)) == prompt)
    return right


def halves(prompt: I, tokens: I) -> F:
    """A process reward for every second token."""
    paid = np.where(tokens[:, -1] == 1, 1.0, 0.25 * prompt)
    return paid if tokens.shape[1] % 2 == 0 else np.full(len(prompt), np.nan)


def ragged(weights: Any = None) -> TokenTask:
    """Two prompts, answers of one to four tokens, process rewards."""
    return TokenTask(
        "ones", ("0", "1", "<eos>"), ("one", "two"), 4, lambda p, x: digits(p + 1, x), True, halves, weights
    )


def table(task: TokenTask, seed: int) -> TableLM:
    return TableLM(task, np.random.default_rng(seed).normal(size=(task.N, task.V)))


# ---- one update, by loops ----


def probabilities(theta: F) -> F:
    p = np.exp(theta - theta.max())
    return np.array(p / p.sum())


def literal_advantages(x: Rollouts, r: F, credit: Any) -> F:
    """Advantages (B,T) of outcome or process supervision, group by group."""
    A = np.zeros(x.tokens.shape)
    for label in set(x.group.tolist()):
        own = [i for i in range(len(r)) if x.group[i] == label]
        if isinstance(credit, Process):
            paid = [x.step_reward[i, t] for i in own for t in range(A.shape[1]) if x.step_end[i, t]]
        else:
            paid = [r[i].sum() for i in own]
        mean = sum(paid) / len(paid)
        spread = math.sqrt(sum((y - mean) ** 2 for y in paid) / (len(paid) - (credit.std == "sample")))
        scale = 1.0 if credit.std == "none" else spread + credit.eps
        for i in own:
            for t in range(int(x.mask[i].sum())):
                if isinstance(credit, Process):
                    later = [x.step_reward[i, u] for u in range(t, A.shape[1]) if x.step_end[i, u]]
                    A[i, t] = 0.0 if spread == 0 else sum((y - mean) / scale for y in later)
                else:
                    others = (sum(paid) - r[i].sum()) / (len(paid) - 1)
                    base = others if credit.leave_one_out else mean
                    A[i, t] = 0.0 if spread < 1e-12 else (r[i].sum() - base) / scale
    return A


def literal_weight(x: Rollouts, i: int, how: str) -> float:
    n = x.mask.sum(1)
    if how == "sequence":
        return float(1 / len(n) / n[i])
    if how == "token":
        return float(1 / n.sum())
    if how == "constant":
        return float(1 / (len(n) * x.tokens.shape[1]))
    groups = set(x.group.tolist())
    return float(1 / len(groups) / n[x.group == x.group[i]].sum())


def literal_slope(loss: Any, ratios: F, t: int, A: float) -> float:
    """The derivative of one token's loss with respect to its log-probability; ratios of the sequence's tokens."""
    rho = float(np.exp(np.log(ratios).mean())) if isinstance(loss, Sequence) else float(ratios[t])
    if isinstance(loss, Capped):
        return -min(rho, 1 + loss.high) * A
    stopped = (A > 0 and rho > 1 + loss.high) or (A < 0 and rho < 1 - loss.low)
    return 0.0 if stopped else -rho * A


def literal_update(method: Method, theta: F, x: Rollouts, logp_ref: F | None, lr: float) -> F:
    """All epochs on one batch, token by token."""
    r = np.zeros(x.tokens.shape)
    for i in range(len(r)):
        n = int(x.mask[i].sum())
        late = 0.0 if method.shape is None else max(-1.0, min(0.0, -(n - 4 + method.shape.cache) / method.shape.cache))
        r[i, n - 1] += x.reward[i] + late
        if method.kl is not None and method.kl.place == "reward":
            assert logp_ref is not None
            r[i, :n] -= method.kl.beta * (x.logp[i, :n] - logp_ref[i, :n])
    A = literal_advantages(x, r, method.credit)
    for _ in range(method.epochs):
        gradient = np.zeros_like(theta)
        for i in range(len(r)):
            n = int(x.mask[i].sum())
            now = np.array([math.log(probabilities(theta[x.row[i, t]])[x.tokens[i, t]]) for t in range(n)])
            for t in range(n):
                h, a, w = x.row[i, t], x.tokens[i, t], literal_weight(x, i, method.how)
                p = probabilities(theta[h])
                g = literal_slope(method.loss, np.exp(now - x.logp[i, :n]), t, A[i, t])
                if method.kl is not None and method.kl.place == "loss":
                    assert logp_ref is not None
                    g += method.kl.beta * (1 - math.exp(logp_ref[i, t] - now[t]))  # k3
                H = -(p * np.log(p)).sum()
                gradient[h] += w * (g * ((np.arange(len(p)) == a) - p) + method.entropy * p * (np.log(p) + H))
        theta = theta - lr * gradient
    return theta


CASES = {
    "grpo": train.GRPO,
    "grpo, three epochs": train.GRPO._replace(epochs=3, credit=Outcome("population", 1e-9)),
    "grpo with KL": train.GRPO._replace(kl=Penalty(0.3), epochs=2, draw=Groups(5, 3)),
    "process": train.GRPO._replace(credit=Process(), how="token", epochs=2),
    "dapo": train.DAPO._replace(epochs=3, shape=Overlong(4, 2)),
    "dr. grpo": train.DR_GRPO._replace(epochs=2),
    "rloo": train.RLOO._replace(kl=Penalty(0.5, "k1", "reward")),
    "gspo": train.GSPO._replace(epochs=3, loss=Sequence(0.01, 0.02)),
    "cispo": train.CISPO._replace(epochs=3, loss=Capped(None, 0.1)),
}


@pytest.mark.parametrize("name", CASES)
def test_updates_are_those_of_literal_loops(name: str) -> None:
    method, task = CASES[name]._replace(entropy=0.05), ragged(np.array([0.7, 0.3]))
    for seed in range(4):
        policy, reference = table(task, seed), table(task, 100)
        theta, rng = policy.table.copy(), np.random.default_rng(seed)
        run = train.Training(task, policy, np.random.default_rng(seed), method, step=4.0, reference=reference)
        for _ in range(3):
            x = method.draw(TableLM(task, theta), rng).x
            rows = log_softmax(reference.table)
            theta = literal_update(method, theta, x, rows[x.row, x.tokens], 4.0)
            next(run)
            assert abs(policy.table - theta).max() <= 1e-11


def test_the_clip_and_the_kl_matter_in_these_cases() -> None:
    """Otherwise the replay above would judge less than it seems to."""
    task = ragged()
    for method in (CASES["grpo, three epochs"], CASES["dapo"], CASES["gspo"], CASES["cispo"]):
        run = train.Training(task, table(task, 0), np.random.default_rng(0), method, step=4.0)
        assert max(next(run).clip_fraction for _ in range(5)) > 0.01


# ---- records ----


def test_records_are_exact() -> None:
    task = ragged(np.array([0.25, 0.75]))
    policy, reference = table(task, 0), table(task, 1)
    run = train.grpo(task, policy, np.random.default_rng(0), reference=reference, every=3, step=0.5)
    for _ in range(3):
        x = next(run)
        logp, ref = log_softmax(policy.table), log_softmax(reference.table)
        answer = evaluate(task.tree, logp)
        kl_reward = (logp - ref) + np.zeros_like(logp)
        H = -(np.exp(logp) * logp).sum(1)
        assert abs(x.J - answer.J) <= 1e-14
        assert x.p == pytest.approx(answer.V[:2], abs=1e-14)
        assert x.kl == pytest.approx(evaluate(task.tree, logp, kl_reward).J, abs=1e-12)
        assert x.entropy == pytest.approx((answer.d @ H) / answer.d.sum(), abs=1e-12)
    assert (x.k, run.t) == (9, x.t)


def test_the_cosine_is_that_of_the_estimate_without_kl_and_entropy() -> None:
    task = ragged()
    policy = table(task, 0)
    before, rng = policy.table.copy(), np.random.default_rng(5)
    method = train.RLOO._replace(kl=Penalty(0.2), entropy=0.3)
    x = next(train.Training(task, policy, np.random.default_rng(5), method))
    drawn = method.draw(TableLM(task, before), rng).x
    plain = method._replace(kl=None, entropy=0.0)
    estimate = before - literal_update(plain, before, drawn, None, 1.0)
    exact = evaluate(task.tree, log_softmax(before)).slope
    expected = -(estimate * exact).sum() / np.linalg.norm(estimate) / np.linalg.norm(exact)
    assert x.cosine == pytest.approx(expected, abs=1e-12) and 0 < x.cosine < 1


def test_dead_prompts_are_those_that_fail_in_99_of_100_groups() -> None:
    task = TokenTask("four", ("no", "yes"), ("a", "b", "c", "d"), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    p = np.array([0.0005, 0.01, 0.5, 0.9999])  # (1 - p)^16 = .992, .851, 0, 0
    policy = TableLM(task, np.log(np.column_stack([1 - p, p])))
    x = next(train.grpo(task, policy, np.random.default_rng(0), step=1e-300))
    assert x.p == pytest.approx(p, rel=1e-12) and x.dead == 1


def test_networks_and_passes() -> None:
    """PPO holds a critic and a reference, GRPO with a KL a reference, DAPO neither. Ledger E2.10."""
    task = ragged()
    rng = np.random.default_rng(0)
    found = {
        "ppo": next(train.ppo(task, table(task, 0), TableCritic(task), rng, epochs=2)),
        "grpo": next(train.grpo(task, table(task, 0), rng, kl=Penalty(0.04))),
        "grpo, no KL": next(train.grpo(task, table(task, 0), rng)),
        "dapo": next(train.dapo(task, table(task, 0), rng)),
    }
    assert [x.networks for x in found.values()] == [3, 2, 1, 1]
    assert [found[name].passes for name in ("ppo", "grpo", "grpo, no KL")] == [1 + 2 + 3 + 1, 1 + 1 + 1, 1 + 1]
    assert found["dapo"].passes >= 2


# ---- dynamic sampling ----


def test_dynamic_sampling_keeps_mixed_groups_until_the_batch_is_full() -> None:
    task = ragged()
    for seed in range(50):
        policy = TableLM(task, 2.0 * np.random.default_rng(seed).normal(size=(task.N, task.V)))
        drawn = Dynamic(4, 3, 5)(policy, np.random.default_rng(seed))
        r = drawn.x.reward.reshape(-1, 4)
        assert len(r) <= 3 and ((r.min(1) == 0) & (r.max(1) == 1)).all()
        assert drawn.x.group.tolist() == np.repeat(np.arange(len(r)), 4).tolist()
        assert (drawn.x.prompt.reshape(-1, 4) == drawn.x.prompt.reshape(-1, 4)[:, :1]).all()


def test_the_share_kept_is_the_closed_form() -> None:
    """1 - p^G - (1-p)^G per prompt: z-test on 20,000 groups, false alarm below 1e-10."""
    task = ragged(np.array([0.3, 0.7]))
    policy, G, n = table(task, 4), 3, 20_000
    p = evaluate(task.tree, log_softmax(policy.table)).V[:2]
    share = float(task.weights @ (1 - p**G - (1 - p) ** G))
    drawn = Dynamic(G, n, 1)(policy, np.random.default_rng(0))
    assert abs(drawn.kept - share) <= 6.8 * math.sqrt(share * (1 - share) / n)


def test_nothing_is_left_when_every_group_is_flat() -> None:
    task = TokenTask("never", ("0", "1"), ("x",), 2, lambda prompt, tokens: np.zeros(len(prompt)))
    policy = TableLM(task)
    run = train.dapo(task, policy, np.random.default_rng(0), draw=Dynamic(4, 2, 3))
    x = next(run)
    assert (x.kept, x.passes, x.t) == (0.0, math.inf, 4 * 2 * 3 * 2) and math.isnan(x.length) and math.isnan(x.cosine)
    assert (policy.theta == 0).all()


# ---- stop and go on ----


@pytest.mark.parametrize("name", ["grpo", "dapo", "ppo"])
def test_a_resumed_run_has_the_same_bits(name: str, tmp_path: Path) -> None:
    task, file = ragged(), tmp_path / "run.npz"

    def run(seed: int) -> train.Training:
        rng, kl = np.random.default_rng(seed), Penalty(0.1, "k1", "reward", target=0.5)
        if name == "ppo":
            return train.ppo(task, table(task, seed), TableCritic(task), rng, kl=kl)
        return train.METHODS[name](task, table(task, seed), rng, kl=kl)

    whole, first = run(0), run(0)
    straight = [comparable(x) for x in islice(whole, 12)]
    begun = [comparable(x) for x in islice(first, 5)]
    first.save(file)
    resumed = run(1).resume(file)
    assert begun + [comparable(x) for x in islice(resumed, 7)] == straight
    assert (resumed.policy.theta == whole.policy.theta).all() and resumed.beta == whole.beta != 0.1


def comparable(x: TokenStep) -> str:
    """A record without its time, in full digits."""
    return repr([y.tolist() if isinstance(y, np.ndarray) else y for y in x._replace(tokens_per_s=0.0)])


def test_files_of_other_runs_are_refused(tmp_path: Path) -> None:
    task, file = ragged(), tmp_path / "run.npz"
    rng = np.random.default_rng(0)
    train.grpo(task, table(task, 0), rng).save(file)
    with pytest.raises(ModelError, match="method"):
        train.ppo(task, table(task, 0), TableCritic(task), rng).resume(file)
    other = TokenTask("other", ("0", "1", "<eos>"), ("one", "two"), 4, digits, True)
    with pytest.raises(ModelError, match="other"):
        train.grpo(other, TableLM(other), rng).resume(file)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ModelError, match=r"run\.npz"):
        train.grpo(task, table(task, 0), rng).resume(file)


# ---- wrong use ----


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, p, rng: train.grpo(t, p, rng, clip=0.1), "'clip' is no part of a method"),
        (lambda t, p, rng: train.grpo(ragged(), p, rng), "policy is made for"),
        (lambda t, p, rng: train.grpo(t, p, rng, every=0), "every is 0"),
        (lambda t, p, rng: next(train.grpo(t, p, rng, draw=Groups(1))), "G is 1"),
        (lambda t, p, rng: train.grpo(t, p, rng, draw=Groups(4, 0)), "n is 0"),
        (lambda t, p, rng: train.grpo(t, p, rng, draw=Groups(4.0)), "G is 4.0"),  # type: ignore[arg-type]
        (lambda t, p, rng: train.grpo(t, p, rng, G=8), r"write draw=Groups\(G\)"),
        (lambda t, p, rng: train.grpo(t, p, rng, entropy=math.nan), "entropy is nan"),
        (lambda t, p, rng: train.grpo(t, p, rng, entropy=-1.0), "entropy is -1"),
        (lambda t, p, rng: train.grpo(t, p, rng, kl=Penalty(math.nan)), "beta is nan"),
        (lambda t, p, rng: train.grpo(t, p, rng, kl=Penalty(-0.1)), "beta is -0.1"),
        (lambda t, p, rng: train.grpo(t, p, rng, kl=Penalty(0.1, "k4")), "kind is 'k4'"),
        (lambda t, p, rng: train.ppo(t, p, TableCritic(ragged()), rng), "critic is made for"),
        (lambda t, p, rng: next(train.grpo(t, p, rng, how="tokens")), "how is 'tokens'"),
        (lambda t, p, rng: train.grpo(t, p, rng, kl=Penalty(0.1, place="rewards")), "place is 'rewards'"),
    ],
)
def test_errors(call: Callable[..., Any], message: str) -> None:
    task = ragged()
    with pytest.raises(ValueError, match=message):
        call(task, table(task, 0), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, p, rng: train.grpo("copy", p, rng), "task is 'copy'"),  # type: ignore[arg-type]
        (lambda t, p, rng: train.grpo(t, p.theta, rng), "policy is a ndarray"),
        (lambda t, p, rng: train.grpo(t, p, 0), "rng is 0"),  # type: ignore[arg-type]
        (lambda t, p, rng: train.grpo(t, p, rng, draw=8), "draw is 8"),
        (lambda t, p, rng: train.grpo(t, p, rng, kl=0.1), "kl is 0.1"),
        (lambda t, p, rng: train.grpo(t, p, rng, loss="clip"), "loss is 'clip'"),
    ],
)
def test_wrong_types(call: Callable[..., Any], message: str) -> None:
    task = ragged()
    with pytest.raises(TypeError, match=message):
        call(task, table(task, 0), np.random.default_rng(0))


def test_process_supervision_needs_steps() -> None:
    task = TokenTask("plain", ("0", "1"), ("x",), 2, lambda prompt, tokens: 1.0 * tokens[:, 0])
    with pytest.raises(ModelError, match="rewards no steps"):
        train.grpo(task, TableLM(task), np.random.default_rng(0), credit=Process())


# ---- PPO ----


def test_the_critic_learns_the_values() -> None:
    """With the policy held still, lam = 1 and the KL left out the critic goes to V: 1,000 batches of 512 answers."""
    task = ragged()
    policy, critic = table(task, 3), TableCritic(task)
    run = train.ppo(task, policy, critic, np.random.default_rng(0), lam=1.0, step=1e-300, kl=None, entropy=0.0,
                    draw=Groups(256), epochs=1, critic_step=sgd(lambda k: 4.0 / np.sqrt(k)))  # fmt: skip
    for _ in range(1000):
        next(run)
    exact = evaluate(task.tree, log_softmax(policy.table))
    often = exact.d > 0.02
    assert often.sum() >= 8 and abs(critic.all()[0] - exact.V)[often].max() < 0.05


def test_best_answers() -> None:
    task = TokenTask(
        "pays", ("0", "1", "2"), ("x", "y"), 1, lambda p, x: np.where(p == 0, x[:, 0] / 2, -1.0 * (x[:, 0] < 2))
    )
    assert best_answers(task.tree).tolist() == [[0, 0, 1], [0, 0, 1]]


def test_gradients_held_to_a_length() -> None:
    step = held(2.0, adam(0.1))
    plain = adam(0.1)
    g = np.array([0.6, 0.8])
    assert (step(np.zeros(2), g) == plain(np.zeros(2), g)).all()
    assert held(0.5, 1.0)(np.zeros(2), g) == pytest.approx(g / 2, abs=1e-15)
