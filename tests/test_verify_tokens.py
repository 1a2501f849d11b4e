"""Verification of token MDPs: the package on rows E2.1 to E2.12, a user's functions, and the judge."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_verify import changed
from test_verify_gradient import field, scaled
from verified import assert_named, assert_row_passes, untried

from tabrl import advantages, chain, divergences, dp, losses, verify
from tabrl.envs import token_tasks
from tabrl.tokens import (
    amplification,
    bridge,
    credit,
    draws,
    exact,
    groups,
    methods,
    penalties,
    process,
    rates,
    recursion,
    regularised,
    rollout,
    stationary,
    surrogates,
    train,
)
from tabrl.tokens.counts import Estimator
from tabrl.types import F
from tabrl.verify import (
    cases_tokens_credit,
    cases_tokens_engines,
    complex_step,
    own_tokens,
    own_tokens_kl,
    own_tokens_losses,
    token_groups,
    token_models,
)
from tabrl.verify.record import entry
from tabrl.verify.token_models import Tiny, listed, tinies

A = Any
ROWS = tuple(f"E2.{i}" for i in range(1, 13))


# the package


@pytest.mark.parametrize("row", ROWS)
def test_token_mdps_match_closed_forms(row: str) -> None:
    assert_row_passes(row, 3)


def nudged(x: A) -> A:
    return x + 1e-8


def each(change: Callable[[A], A]) -> Callable[[A], A]:
    """Change every entry of a tuple."""
    return lambda x: tuple(change(y) for y in x)


def told(name: str, more: float) -> Callable[[A], A]:
    """Change one number of the records of a run."""
    return lambda x: (y._replace(**{name: getattr(y, name) + more}) for y in x)


def moved(run: A) -> A:
    """A policy that moves a little further than it should."""
    for x in run:
        run.policy.theta = run.policy.theta + 1e-8
        yield x


def first_group_lost(x: A) -> A:
    return type(x)(*(y[2:] for y in x))


BREAKS: list[tuple[str, A, str, Callable[[A], A]]] = [
    ("E2.1", recursion, "evaluate", field("V")),
    ("E2.1", recursion, "evaluate", field("Q")),
    ("E2.1", recursion, "evaluate", field("d")),
    ("E2.1", recursion, "evaluate", field("J")),
    ("E2.1", recursion, "curvature", scaled),
    ("E2.1", exact, "gradient", lambda g: -g),
    ("E2.1", exact, "objective", scaled),
    ("E2.1", exact, "sequence_probabilities", scaled),
    ("E2.1", exact, "lengths", lambda p: p[::-1]),
    ("E2.1", exact, "truncated", lambda p: 1 - p),
    ("E2.1", exact, "pass_at_k", scaled),
    ("E2.1", exact, "success", scaled),
    ("E2.1", dp, "solve", field("V")),
    ("E2.1", chain, "evaluate", scaled),
    ("E2.1", rollout, "sample", lambda x: x._replace(truncated=~x.truncated)),
    ("E2.1", rollout, "sample", lambda x: x._replace(row=x.row + x.mask.astype(int))),
    ("E2.2", credit, "terminal_rewards", nudged),
    ("E2.2", credit, "kl_rewards", scaled),
    ("E2.2", credit, "token_returns", scaled),
    ("E2.2", credit, "token_gae", scaled),
    ("E2.2", train, "gradient", scaled),
    ("E2.2", train, "scored", lambda x: x._replace(r=x.r + 1e-6)),
    ("E2.2", train, "ppo", moved),
    ("E2.3", losses, "aggregate", scaled),
    ("E2.3", losses, "ppo_clip", scaled),
    ("E2.3", losses, "d_ppo_clip", scaled),
    ("E2.3", losses, "d_aggregate", scaled),
    ("E2.3", losses, "kl_estimate", scaled),
    ("E2.3", surrogates, "weighted_kl", scaled),
    ("E2.3", surrogates, "sequence_log_ratios", scaled),
    ("E2.3", surrogates, "gspo", scaled),
    ("E2.3", surrogates, "d_gspo", scaled),
    ("E2.3", surrogates, "cispo", scaled),
    ("E2.3", surrogates, "d_cispo", scaled),
    ("E2.3", methods, "slope", lambda x: (x[0] * (1 + 1e-8), x[1])),
    ("E2.3", methods, "d_weighted_kl", scaled),
    ("E2.3", methods, "d_kl_estimate", scaled),
    ("E2.3", train, "grpo", moved),
    ("E2.3", rates, "w", scaled),
    ("E2.3", groups, "expected_gradient", scaled),
    ("E2.3", train, "gradient", scaled),
    ("E2.4", advantages, "group_advantages", scaled),
    ("E2.4", advantages, "group_advantages", nudged),
    ("E2.4", credit, "per_token", nudged),
    ("E2.5", credit, "process_advantages", scaled),
    ("E2.5", credit, "process_advantages", lambda x: x + 1e-200),
    ("E2.5", process, "process_gradient", scaled),
    ("E2.5", methods, "process_advantages", scaled),
    ("E2.6", divergences, "kl_estimate", scaled),
    ("E2.6", divergences, "d_kl_estimate", scaled),
    ("E2.6", exact, "kl", field("sequence")),
    ("E2.6", exact, "kl", field("token")),
    ("E2.6", exact, "kl", field("rows")),
    ("E2.6", penalties, "kl_moments", each(scaled)),
    ("E2.6", penalties, "kl_slope", scaled),
    ("E2.6", penalties, "kl_slope", nudged),
    ("E2.6", methods, "slope", lambda x: (x[0] * (1 + 1e-8), x[1])),
    ("E2.6", regularised, "regularised", field("J")),
    ("E2.6", regularised, "regularised", field("d")),
    ("E2.7", regularised, "sequence_optimum", lambda x: (x[0] + 1e-8, x[1])),
    ("E2.7", regularised, "sequence_optimum", lambda x: (x[0], x[1] * (1 + 1e-8))),
    ("E2.7", regularised, "optimum", field("logp")),
    ("E2.7", regularised, "optimum", field("V")),
    ("E2.7", regularised, "optimum", field("J")),
    ("E2.7", regularised, "as_tokens", scaled),
    ("E2.7", regularised, "regularised", lambda x: x._replace(Q=x.Q + np.arange(x.Q.shape[1]) / 1e6)),
    ("E2.7", amplification, "amplification", field("p")),
    ("E2.7", amplification, "resting_points", lambda x: [y._replace(logit=y.logit + 1e-8) for y in x]),
    ("E2.7", amplification, "resting_points", lambda x: [y._replace(stable=True) for y in x]),
    ("E2.7", amplification, "beta_c", lambda b: b * (1 + 1e-5)),
    ("E2.7", stationary, "stationary", lambda x: x + 1e-6 * np.arange(x.shape[1])),
    ("E2.8", rates, "kept_share", scaled),
    ("E2.8", rates, "oversampling", scaled),
    ("E2.8", groups, "kept", scaled),
    ("E2.8", groups, "expected_gradient", scaled),
    ("E2.8", draws, "mixed", lambda x: x._replace(group=x.group + 1)),
    ("E2.9", losses, "aggregate", scaled),
    ("E2.9", losses, "d_aggregate", scaled),
    ("E2.9", groups, "expected_gradient", scaled),
    ("E2.9", groups, "expected_gradient", lambda g: -g),
    ("E2.10", train, "ppo", told("networks", 1)),
    ("E2.10", train, "ppo", told("passes", 0.5)),
    ("E2.10", train, "dapo", told("passes", 0.5)),
    ("E2.11", credit, "overlong_penalty", scaled),
    ("E2.11", methods, "overlong_penalty", scaled),
    ("E2.11", losses, "ppo_clip", scaled),
    ("E2.11", methods, "d_ppo_clip", scaled),
    ("E2.11", exact, "entropy", field("sequence")),
    ("E2.11", exact, "entropy", field("token")),
    ("E2.11", draws, "mixed", first_group_lost),
    ("E2.11", groups, "expected_surrogate_gradient", scaled),
    ("E2.12", bridge, "reward_function", lambda f: lambda **x: [1 - y for y in f(**x)]),
    ("E2.12", bridge, "verl_reward", lambda f: lambda *x: f(*x) / 2),
    ("E2.12", bridge, "prompt_set", lambda rows: rows[::-1]),
]


@pytest.mark.parametrize("case", range(len(BREAKS)))
def test_a_broken_package_is_caught(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    row, module, name, change = BREAKS[case]
    monkeypatch.setattr(module, name, changed(getattr(module, name), change))
    failed = [c for c in verify.run([row]) if not c.passed]
    assert failed
    assert not any("it raises" in c.where for c in failed)


def test_a_setting_without_an_option_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    for ours in ("Outcome(stdev=1)", "Group(G=4)", 'how="groups"', "epoch=2", "held(1.0, adams(3e-3), size=1)"):
        rows = (*bridge.SETTINGS[:3], bridge.SETTINGS[3]._replace(ours=ours))
        monkeypatch.setattr(bridge, "SETTINGS", rows)
        assert [c.passed for c in verify.run(["E2.12"])].count(False) == 1, ours


# a user's function


def prefix_values(pi: A, reward: A) -> A:
    N, V = pi.shape
    found = np.zeros(N * V + V + 1)
    for h in reversed(range(N)):
        found[h] = pi[h] @ (reward[h] + found[h * V + 1 : h * V + V + 1])
    return found[:N]


def rows_read(combine: Callable[[A, A], A], *, first: int = 1, later: bool = True) -> Callable[..., A]:
    """Values with another mean, another row, or without what comes later."""

    def f(pi: A, reward: A) -> A:
        N, V = pi.shape
        found = np.zeros(N * V + V + 1)
        for h in reversed(range(N)):
            after = [found[k] if k > h else 0.0 for k in range(h * V + first, h * V + first + V)]
            found[h] = combine(pi[h], reward[h] + np.array(after) * later)
        return found[:N]

    return f


def reached(pi: A) -> A:
    N, V = pi.shape
    d = np.ones(N)
    for h in range(1, N):
        d[h] = d[(h - 1) // V] * pi[(h - 1) // V, (h - 1) % V]
    return d


def so_far(reward: A) -> A:
    N, V = reward.shape
    G = np.zeros(N)
    for h in range(1, N):
        G[h] = G[(h - 1) // V] + reward[(h - 1) // V, (h - 1) % V]
    return G


def ends_only(reward: A) -> A:
    N, V = reward.shape
    return np.where((np.arange(N) * V + 1 >= N)[:, None], reward, 0.0)


def token_gae(r: A, v: A, mask: A, lam: float, **other: A) -> A:
    """Row by row, over the tokens that count."""
    out = np.zeros_like(r)
    for i in range(len(r)):
        n = int(mask[i].sum()) if other.get("masked", True) else r.shape[1]
        y, after = 0.0, other.get("tail", lambda i, n: 0.0)(i, n)
        for t in reversed(range(n)):
            delta = r[i, t] + other.get("gamma", 1.0) * after - v[i, t]
            y = out[i, t] = delta + other.get("gamma", 1.0) * lam * y
            after = v[i, t]
    return out * mask


def advantages_read(error: Callable[[A, A, A], A]) -> Callable[..., A]:
    """Faded sums of other errors of r[t], v[t] and v[t+1]."""

    def f(r: A, v: A, mask: A, lam: float) -> A:
        nxt = np.column_stack([(v * mask)[:, 1:], np.zeros(len(v))])
        return token_gae(error(r, v, nxt), 0 * v, mask, lam)

    return f


def in_one_row(r: A, v: A, mask: A, lam: float) -> A:
    shape = r.shape
    return token_gae(r.reshape(1, -1), v.reshape(1, -1), np.ones((1, r.size)), lam).reshape(shape) * mask


def behind(r: A, v: A, mask: A, lam: float) -> A:
    def tail(i: int, n: int) -> float:
        return float(v[i, n]) if n < v.shape[1] else 0.0

    return token_gae(r, v, mask, lam, tail=tail)


def white_tokens(r: A, v: A, mask: A, lam: float) -> A:
    x = token_gae(r, v, mask, lam)
    some = x[mask > 0]
    return (x - some.mean()) / (some.std() + 1e-8) * mask


def rho_of(logp: A, old: A) -> A:
    return np.exp(logp - old)


def clip_token(x: A, a: A, low: float, high: float) -> A:
    return -np.minimum(x * a, np.clip(x, 1 - low, 1 + high) * a)


def of_sequences(x: A, mask: A) -> A:
    return np.mean([row[on > 0].mean() for row, on in zip(x, mask, strict=True)])


def grpo_loss(logp: A, old: A, adv: A, mask: A, low: float, high: float) -> A:
    return of_sequences(clip_token(rho_of(logp, old), adv[:, None], low, high), mask)


def of_token(f: Callable[..., A], mean: Callable[[A, A], A] = of_sequences) -> Callable[..., A]:
    """Other losses of a token, made of the ratio; other means."""
    return lambda logp, old, adv, mask, low, high: mean(f(rho_of(logp, old), adv[:, None], low, high), mask)


def one_ratio(length: Callable[[A], A]) -> Callable[..., A]:
    """One ratio for each sequence."""

    def f(logp: A, old: A, adv: A, mask: A, low: float, high: float) -> A:
        s = np.exp(((logp - old) * mask).sum(1) / length(mask))
        return np.mean(clip_token(s, adv, low, high))

    return f


def grouped(f: Callable[[A], A]) -> Callable[..., A]:
    """One group after the other."""

    def g(reward: A, group: A) -> A:
        out = np.zeros(len(reward))
        for label in np.unique(group):
            out[group == label] = f(reward[group == label])
        return out

    return g


def over(x: A, scale: float) -> A:
    return x / scale if scale > 1e-12 else 0 * x


def centred(x: A) -> A:
    return x - x.mean()


def sd(x: A) -> float:
    return float(x.std(ddof=1))


def group_adv(x: A) -> A:
    return over(centred(x), sd(x) + 1e-4) if np.ptp(x) > 0 else 0 * x


def blocks(reward: A, group: A) -> A:
    size = int((group == group[0]).sum())
    return grouped(lambda x: group_adv(x) if len(x) > 1 else 0 * x)(reward, np.arange(len(reward)) // size)


def steps_of(normal: Callable[..., A], total: Callable[[A, A], A]) -> Callable[..., A]:
    """Normalise steps, then add them up."""
    return lambda r, end, group, mask: total(normal(r, end & (mask > 0), group, mask), mask)


def to_go(x: A, mask: A) -> A:
    return mask * np.flip(np.cumsum(np.flip(x, 1), 1), 1)


def normal_steps(r: A, at: A, group: A, mask: A = None, *, scale: Callable[[A], float] = lambda x: sd(x) + 1e-4) -> A:
    out = np.zeros(r.shape)
    for label in np.unique(group):
        own = at & (group == label)[:, None]
        x = r[own]
        out[own] = over(centred(x), scale(x)) if len(x) > 1 and np.ptp(x) > 0 else 0.0
    return out


def as_outcome(r: A, end: A, group: A, mask: A) -> A:
    return mask * grouped(group_adv)((r * end * mask).sum(1), group)[:, None]


def zeros_count(r: A, at: A, group: A, mask: A) -> A:
    return normal_steps(r * at, mask > 0, group)


def k3(logp: A, ref: A) -> A:
    return np.expm1(ref - logp) - (ref - logp)


def best_mix(ref: A, r: A, beta: float) -> A:
    w = ref * np.exp(r / beta)
    return w / w.sum()


def mix(f: Callable[[A, A, float], A]) -> Callable[..., A]:
    def g(ref: A, r: A, beta: float) -> A:
        w = f(ref, r, beta)
        return w / w.sum()

    return g


def k3_rest(ref: A, r: A, beta: float) -> A:
    at = ref > 0
    top = r[at].max()
    low, high = top + beta * ref[at & (r == top)].sum() / 2, top + beta + 1.0
    for _ in range(100):
        y = (low + high) / 2
        low, high = (y, high) if (beta * ref[at] / (y - r[at])).sum() > 1 else (low, y)
    return np.where(at, beta * ref / (high - np.where(at, r, 0.0)), 0.0)


def share(p: A, G: int) -> A:
    return 1 - p**G - (1 - p) ** G


def dapo_mean(x: A, mask: A, group: A) -> A:
    return np.mean([x[group == y][mask[group == y] > 0].mean() for y in np.unique(group)])


def group_mean(f: Callable[[A, A], A]) -> Callable[..., A]:
    return lambda x, mask, group: np.mean([f(x[group == y], mask[group == y]) for y in np.unique(group)])


def sized(x: A, mask: A, group: A) -> A:
    own = [(x[group == y][mask[group == y] > 0].mean(), (group == y).sum()) for y in np.unique(group)]
    return sum(a * n for a, n in own) / len(group)


def counted(critic: int, kl: int, epochs: int, kept: float) -> A:
    return [1 + critic + kl, 1 / kept + epochs + critic * (1 + epochs) + kl]


def counts(more: Callable[..., tuple[float, float]]) -> Callable[..., A]:
    """Counts that are off by something."""
    return lambda *x: np.add(counted(*x), more(*x))


def penalty(length: A, longest: int, cache: int) -> A:
    return np.clip((longest - cache - length) / cache, -1, 0)


def verifier(f: Callable[[str, str], A]) -> Callable[..., A]:
    return lambda prompts, completions: [float(f(p, c)) for p, c in zip(prompts, completions, strict=True)]


def same(p: str, c: str) -> bool:
    return p.removeprefix("copy:").split() == c.split()


def with_first(prompts: A, completions: A) -> A:
    return [float(same(prompts[0], c)) for c in completions]


def right_words(p: str, c: str) -> float:
    asked = p.split()[1:]
    return sum(x == y for x, y in zip(asked, c.split(), strict=False)) / len(asked)


RIGHT: dict[str, Callable[..., A]] = {
    "E2.1": prefix_values,
    "E2.2": token_gae,
    "E2.3": grpo_loss,
    "E2.4": grouped(group_adv),
    "E2.5": steps_of(normal_steps, to_go),
    "E2.6": k3,
    "E2.7": best_mix,
    "E2.8": share,
    "E2.9": dapo_mean,
    "E2.10": counted,
    "E2.11": penalty,
    "E2.12": verifier(same),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_right_function_passes(row: str) -> None:
    checks = verify.check(row, RIGHT[row])
    assert len(checks) >= 7
    assert all(c.passed for c in checks), [c for c in checks if not c.passed]


def test_the_package_passes_as_a_user() -> None:
    def grpo(logp: A, old: A, adv: A, mask: A, low: float, high: float) -> A:
        A_ = credit.per_token(adv, mask)
        return losses.aggregate(losses.ppo_clip(logp, old, A_, low=low, high=high), mask, how="sequence")

    task = token_tasks.copy(3, vocab=4)
    own: dict[str, Callable[..., A]] = {
        "E2.2": credit.token_gae,
        "E2.3": grpo,
        "E2.4": advantages.group_advantages,
        "E2.5": credit.process_advantages,
        "E2.6": divergences.kl_estimate,
        "E2.8": rates.kept_share,
        "E2.9": lambda x, mask, group: losses.aggregate(x, mask, how="group_token", group=group),
        "E2.11": credit.overlong_penalty,
    }
    for row, f in own.items():
        assert all(c.passed for c in verify.check(row, f)), row
    asked = list(task.prompts)
    said = [task.answer(task.best(k)[0]) for k in range(task.K)]
    assert verifier(same)(asked, said) == [1.0] * task.K
    assert bridge.reward_function(task)(prompts=asked, completions=said) == [1.0] * task.K


MISTAKES: list[tuple[str, str, Callable[..., A]]] = [
    ("E2.1", "best token instead of the mean", rows_read(lambda p, q: q.max())),
    ("E2.1", "equal weights instead of pi", rows_read(lambda p, q: q.mean())),
    ("E2.1", "add the tokens up without pi", rows_read(lambda p, q: q.sum())),
    ("E2.1", "leave out what comes after", rows_read(lambda p, q: p @ q, later=False)),
    ("E2.1", "only the last token", lambda pi, r: prefix_values(pi, ends_only(r))),
    ("E2.1", "the rows are shifted", rows_read(lambda p, q: p @ q, first=0)),
    ("E2.1", "chance that the prefix occurs", lambda pi, r: reached(pi) * prefix_values(pi, r)),
    ("E2.1", "add what was paid before", lambda pi, r: so_far(r) + prefix_values(pi, r)),
    ("E2.1", "the sign is wrong", lambda pi, r: -prefix_values(pi, r)),
    ("E2.1", "likeliest token alone", rows_read(lambda p, q: q[p.argmax()])),
    ("E2.2", "the mask is not looked at", lambda *x: token_gae(*x, masked=False)),
    ("E2.2", "bootstrap from the value behind", behind),
    ("E2.2", "one sequence runs into the next", in_one_row),
    ("E2.2", "you use lam = 0", lambda r, v, mask, lam: token_gae(r, v, mask, 0.0)),
    ("E2.2", "you use lam = 1", lambda r, v, mask, lam: token_gae(r, v, mask, 1.0)),
    ("E2.2", "lam and 1 - lam", lambda r, v, mask, lam: token_gae(r, v, mask, 1 - lam)),
    ("E2.2", "v[t] and v[t+1] are exchanged", advantages_read(lambda r, v, nxt: r + v - nxt)),
    ("E2.2", "leave out the value of the next prefix", advantages_read(lambda r, v, nxt: r - v)),
    ("E2.2", "leave out -v[t]", advantages_read(lambda r, v, nxt: r + nxt)),
    ("E2.2", "critic's targets, A + v", lambda r, v, mask, lam: token_gae(r, v, mask, lam) + v * mask),
    ("E2.2", "the sign is wrong", lambda *x: -token_gae(*x)),
    ("E2.2", "discount with .99", lambda *x: token_gae(*x, gamma=0.99)),
    ("E2.2", "whitened", white_tokens),
    ("E2.3", "the geometric mean (GSPO)", one_ratio(lambda mask: mask.sum(1))),
    ("E2.3", "the product of its tokens'", one_ratio(lambda mask: 1.0)),
    ("E2.3", "min and max are swapped",
        of_token(lambda x, a, low, high: -np.maximum(x * a, np.clip(x, 1 - low, 1 + high) * a))),
    ("E2.3", "the clipped ratio alone", of_token(lambda x, a, low, high: -np.clip(x, 1 - low, 1 + high) * a)),
    ("E2.3", "you leave out the clip", of_token(lambda x, a, low, high: -x * a)),
    ("E2.3", "the mask is not looked at", of_token(clip_token, lambda x, mask: x.mean())),
    ("E2.3", "mean over all tokens of the batch", of_token(clip_token, lambda x, mask: x[mask > 0].mean())),
    ("E2.3", "longest length", of_token(clip_token, lambda x, mask: (x * mask).sum() / x.size)),
    ("E2.3", "add the tokens of a sequence up", of_token(clip_token, lambda x, mask: (x * mask).sum() / len(x))),
    ("E2.3", "log pi multiplies", lambda logp, old, adv, mask, low, high: of_sequences(
        clip_token(rho_of(logp, old), adv[:, None], low, high) * logp, mask)),
    ("E2.3", "the objective instead of the loss", lambda *x: -grpo_loss(*x)),
    ("E2.3", "upside down", lambda logp, old, *x: grpo_loss(old, logp, *x)),
    ("E2.3", "exp is missing", of_token(lambda x, *y: clip_token(np.log(x), *y))),
    ("E2.3", "logp_old is missing", lambda logp, old, *x: grpo_loss(logp, 0 * old, *x)),
    ("E2.3", "low and high are exchanged", lambda p, q, adv, mask, low, high: grpo_loss(p, q, adv, mask, high, low)),
    ("E2.3", "low on both sides", lambda p, q, adv, mask, low, high: grpo_loss(p, q, adv, mask, low, low)),
    ("E2.3", "high on both sides", lambda p, q, adv, mask, low, high: grpo_loss(p, q, adv, mask, high, high)),
    ("E2.3", "a bad token is cut at 1 + high", of_token(lambda x, a, low, high: -np.minimum(x, 1 + high) * a)),
    ("E2.3", "a good token is cut at 1 - low", of_token(lambda x, a, low, high: -np.maximum(x, 1 - low) * a)),
    ("E2.3", "there is no ratio", lambda logp, old, adv, mask, *bounds: of_sequences(-logp * adv[:, None], mask)),
    ("E2.4", "and leave out eps (as NumPy", grouped(lambda x: over(centred(x), x.std()))),
    ("E2.4", "divide by G - 1", grouped(lambda x: over(centred(x), x.std() + 1e-4))),
    ("E2.4", "leave out eps", grouped(lambda x: over(centred(x), sd(x) + 1e-9 * (sd(x) > 0)))),
    ("E2.4", "eps is added to the variance", grouped(lambda x: centred(x) / np.sqrt(x.var(ddof=1) + 1e-4))),
    ("E2.4", "divide by the variance", grouped(lambda x: centred(x) / (x.var(ddof=1) + 1e-4))),
    ("E2.4", "do not divide by the std", grouped(centred)),
    ("E2.4", "mean of the others", grouped(lambda x: group_adv(x) * len(x) / (len(x) - 1))),
    ("E2.4", "subtract no mean", grouped(lambda x: over(x, sd(x) + 1e-4))),
    ("E2.4", "those of the batch instead of the group", lambda r, group: group_adv(r)),
    ("E2.4", "the std that of the batch", lambda r, group: grouped(centred)(r, group) / (sd(r) + 1e-4)),
    ("E2.4", "the std that of the group",
        lambda r, group: grouped(lambda x: x / (sd(x) + 1e-4))(r - r.mean(), group)),
    ("E2.4", "order of the batch", blocks),
    ("E2.4", "the sign is wrong", lambda *x: -grouped(group_adv)(*x)),
    ("E2.5", "of the sequence instead",
        lambda r, end, group, mask: RIGHT["E2.5"](r, end, np.arange(len(group)), mask)),
    ("E2.5", "of the batch instead", lambda r, end, group, mask: RIGHT["E2.5"](r, end, 0 * group, mask)),
    ("E2.5", "index > t", steps_of(normal_steps, lambda x, mask: to_go(x, mask) - x)),
    ("E2.5", "all steps of its sequence", steps_of(normal_steps, lambda x, mask: mask * x.sum(1)[:, None])),
    ("E2.5", "before the token", steps_of(normal_steps, lambda x, mask: mask * x.cumsum(1))),
    ("E2.5", "nothing is added up", steps_of(normal_steps, lambda x, mask: x)),
    ("E2.5", "count as rewards of 0", steps_of(zeros_count, to_go)),
    ("E2.5", "population's std", steps_of(lambda *x: normal_steps(*x, scale=lambda y: y.std() + 1e-4), to_go)),
    ("E2.5", "do not divide by the std", steps_of(lambda *x: normal_steps(*x, scale=lambda y: 1.0), to_go)),
    ("E2.5", "are not normalised", steps_of(lambda r, at, group, mask: r * at, to_go)),
    ("E2.5", "treated as an outcome", as_outcome),
    ("E2.5", "steps behind the end count",
        lambda r, end, group, mask: to_go(normal_steps(r, end, group), mask)),
    ("E2.5", "the sign is wrong", lambda *x: -RIGHT["E2.5"](*x)),
    ("E2.6", "it is k1", lambda logp, ref: logp - ref),
    ("E2.6", "it is k2", lambda logp, ref: (logp - ref) ** 2 / 2),
    ("E2.6", "the direction is reversed", lambda logp, ref: k3(ref, logp)),
    ("E2.6", "leave out -1", lambda logp, ref: k3(logp, ref) + 1),
    ("E2.6", "leave out the logarithm", lambda logp, ref: np.expm1(ref - logp)),
    ("E2.6", "sign of the logarithm", lambda logp, ref: np.expm1(ref - logp) + (ref - logp)),
    ("E2.6", "the sign is wrong", lambda logp, ref: -k3(logp, ref)),
    ("E2.6", "weighed by pi", lambda logp, ref: np.exp(logp) * k3(logp, ref)),
    ("E2.6", "absolute log-ratio", lambda logp, ref: abs(logp - ref)),
    ("E2.7", "beta multiplies", mix(lambda ref, r, beta: ref * np.exp(r * beta))),
    ("E2.7", "forget beta", mix(lambda ref, r, beta: ref * np.exp(r))),
    ("E2.7", "leave out the reference", mix(lambda ref, r, beta: np.exp(r / beta))),
    ("E2.7", "leave out Z", lambda ref, r, beta: ref * np.exp(r / beta)),
    ("E2.7", "sign of the outcome", mix(lambda ref, r, beta: ref * np.exp(-r / beta))),
    ("E2.7", "best sequence alone",
        lambda ref, r, beta: np.eye(len(r))[int(np.where(ref > 0, r, -np.inf).argmax())]),
    ("E2.7", "it is the reference", lambda ref, r, beta: ref),
    ("E2.7", "not their logarithms", mix(lambda ref, r, beta: np.exp(ref + r / beta))),
    ("E2.7", "1 + r / beta", mix(lambda ref, r, beta: ref * (1 + r / beta))),
    ("E2.7", "k3 in the loss comes to rest", k3_rest),
    ("E2.8", "forget groups that are all wrong", lambda p, G: 1 - p**G),
    ("E2.8", "which is pass@G", lambda p, G: 1 - (1 - p) ** G),
    ("E2.8", "multiply the two chances", lambda p, G: (1 - p**G) * (1 - (1 - p) ** G)),
    ("E2.8", "the share that is dropped", lambda p, G: p**G + (1 - p) ** G),
    ("E2.8", "2 p (1-p)", lambda p, G: 2 * p * (1 - p)),
    ("E2.8", "variance of the number of right answers", lambda p, G: G * p * (1 - p)),
    ("E2.8", "averaged over the prompts", lambda p, G: share(p, G).mean() + 0 * p),
    ("E2.8", "for each group kept, 1 / a", lambda p, G: 1 / np.maximum(share(p, G), 1e-9)),
    ("E2.9", "(GRPO)", lambda x, mask, group: of_sequences(x, mask)),
    ("E2.9", "over all tokens of the batch", lambda x, mask, group: x[mask > 0].mean()),
    ("E2.9", "over groups of the mean over sequences", group_mean(of_sequences)),
    ("E2.9", "the mask is not looked at", group_mean(lambda x, mask: x.mean())),
    ("E2.9", "longest length instead", group_mean(lambda x, mask: (x * mask).mean())),
    ("E2.9", "add the groups up", lambda x, mask, group: dapo_mean(x, mask, group) * len(np.unique(group))),
    ("E2.9", "number of sequences", sized),
    ("E2.9", "add everything up", lambda x, mask, group: (x * mask).sum()),
    ("E2.9", "the sign is wrong", lambda *x: -dapo_mean(*x)),
    ("E2.10", "leave out the drawing", counts(lambda c, kl, n, kept: (0, -1 / kept))),
    ("E2.10", "tokens of dropped groups", counts(lambda c, kl, n, kept: (0, 1 - 1 / kept))),
    ("E2.10", "ask the reference in every epoch", counts(lambda c, kl, n, kept: (0, kl * (n - 1)))),
    ("E2.10", "epochs of the critic", counts(lambda c, kl, n, kept: (0, -c * n))),
    ("E2.10", "critic's look", counts(lambda c, kl, n, kept: (0, -c))),
    ("E2.10", "one look of the policy", counts(lambda c, kl, n, kept: (0, 1 - n))),
    ("E2.10", "do not count the critic", counts(lambda c, kl, n, kept: (-c, 0))),
    ("E2.10", "do not count the reference", counts(lambda c, kl, n, kept: (-kl, 0))),
    ("E2.10", "policy that drew as a network", counts(lambda c, kl, n, kept: (1, 0))),
    ("E2.10", "are exchanged", lambda *x: counted(*x)[::-1]),
    ("E2.11", "not clipped at -1", lambda n, L, c: np.minimum((L - c - n) / c, 0)),
    ("E2.11", "not clipped at 0", lambda n, L, c: np.maximum((L - c - n) / c, -1)),
    ("E2.11", "not clipped at all", lambda n, L, c: (L - c - n) / c),
    ("E2.11", "the sign is wrong", lambda *x: -penalty(*x)),
    ("E2.11", "by the limit instead", lambda n, L, c: np.clip((L - c - n) / L, -1, 0)),
    ("E2.11", "do not divide", lambda n, L, c: np.clip(L - c - n, -c, 0)),
    ("E2.11", "jumps to -1 at the limit", lambda n, L, c: -1.0 * (n >= L)),
    ("E2.11", "where the line should begin", lambda n, L, c: -1.0 * (n > L - c)),
    ("E2.11", "begins at the limit", lambda n, L, c: penalty(n, L + c, c)),
    ("E2.11", "1 + the penalty", lambda *x: 1 + penalty(*x)),
    ("E2.12", "anywhere within", verifier(lambda p, c: p[6:] in " ".join(c.split()))),
    ("E2.12", "only the first words", verifier(lambda p, c: c.split()[: len(p.split()) - 1] == p.split()[1:])),
    ("E2.12", "order of the words", verifier(lambda p, c: sorted(p.split()[1:]) == sorted(c.split()))),
    ("E2.12", "every right word", verifier(right_words)),
    ("E2.12", "with the first prompt", with_first),
    ("E2.12", "as they stand", verifier(lambda p, c: p[6:] == c)),
    ("E2.12", "capitals are no tokens", verifier(lambda p, c: same(p, c.lower()))),
    ("E2.12", "words need them", verifier(lambda p, c: p[6:].replace(" ", "") == "".join(c.split()))),
    ("E2.12", "with the whole prompt", verifier(lambda p, c: p == c)),
    ("E2.12", "gets 0, not -1", verifier(lambda p, c: 2 * same(p, c) - 1)),
    ("E2.12", "are exchanged", verifier(lambda p, c: not same(p, c))),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_a_known_mistake_is_named(case: int) -> None:
    assert_named(*MISTAKES[case])


@pytest.mark.parametrize("row", ROWS)
def test_every_mistake_that_is_known_is_tried(row: str) -> None:
    assert not untried(row, MISTAKES)


def test_places_are_named_as_they_are_indexed() -> None:
    def spoilt(*x: A) -> A:
        return token_gae(*x) + np.eye(len(x[0]), x[0].shape[1], 1)

    assert verify.check("E2.2", spoilt)[0].where.startswith("i=0, t=1: ")
    assert verify.check("E2.3", lambda *x: 7.0)[0].where.startswith("loss: 7 instead of ")
    assert verify.check("E2.3", lambda *x: np.nan)[0].where == "the result at loss is nan; a finite number is expected"
    assert verify.check("E2.3", lambda *x: np.ones(4))[0].where == "the result has shape (4,); () is expected"
    flat = verify.check("E2.4", grouped(lambda x: centred(x) / (sd(x) + 1e-4) if sd(x) else np.nan * x))
    assert [c.where for c in flat if not c.passed] == ["the result at i=0 is nan; a finite number is expected"]


def test_a_function_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n\ndef k3(logp, logp_ref):\n    x = logp_ref - logp\n    return np.exp(x) - 1 - x\n"
    )
    assert all(c.passed for c in verify.check("E2.6", verify.load(f"{file}:k3")))


# the judge


def by_hand(name: str) -> Tiny:
    return next(x for x in tinies() if x.name == name)


def test_sequences_by_hand() -> None:
    x = by_hand("answers of 1 and 2 tokens")
    assert [(w.k, w.o) for w in listed(x)][:7] == [(0, (2,)), *((0, (a, b)) for a in (0, 1) for b in (0, 1, 2))]
    assert [w.rows for w in listed(x)[:3]] == [(0,), (0, 2), (0, 2)]
    assert listed(x)[4].rows == (0, 3)
    assert listed(x)[9].rows == (1, 4)
    assert [w.r for w in listed(x)[:7]] == [0, 0, 1, 0, 1, 0, 1]
    assert [w.r for w in listed(x)[7:]] == [0, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("x", tinies(), ids=lambda x: x.name)
def test_sequences_are_all_there_once(x: Tiny) -> None:
    assert len({(w.k, w.o) for w in listed(x)}) == len(listed(x)) == int(x.task.tree.ends.sum())
    for k in range(x.task.K):
        assert sum((w.p for w in listed(x) if w.k == k), Fraction()) == 1
        assert sum((w.q for w in listed(x) if w.k == k), Fraction()) == 1
    rewards = [float(x.task.reward(np.array([w.k]), np.array([w.o]))[0]) for w in listed(x)]
    assert rewards == [float(w.r) for w in listed(x)]
    assert len({r for r in rewards}) > 1
    assert (np.array(x.pi, np.float64) != np.array(x.ref, np.float64)).any()


def test_tasks_have_what_may_go_wrong() -> None:
    assert {x.task.eos for x in tinies()} == {True, False}
    assert any(len({len(w.o) for w in listed(x)}) == 3 for x in tinies())
    assert any(x.task.steps is not None and any(len(w.o) % 2 for w in listed(x)) for x in tinies())
    assert any(len({w.r for w in listed(x)}) > 2 for x in tinies())
    assert any(len(set(x.task.weights)) > 1 for x in tinies())
    for x in token_models.binary():
        assert {w.r for w in listed(x)} == {0, 1}


@pytest.mark.parametrize("x", tinies()[1:], ids=lambda x: x.name)
def test_log_derivatives_are_complex_steps(x: Tiny) -> None:
    def J(z: A) -> A:
        logs = own_tokens_kl.sequence_log(x, z)
        return sum(float(x.weights[w.k] * w.r) * np.exp(y) for w, y in zip(listed(x), logs, strict=True))

    found = complex_step.derivative(J, x.logp())
    assert abs(found - np.array(token_models.gradient(x), np.float64)).max() <= 1e-14
    u = np.random.default_rng(1).normal(size=found.shape)
    bent = np.array(own_tokens.hessian_vector(x, u), np.float64)
    h = 1e-5
    steps = [complex_step.derivative(J, x.logp() + sign * h * u) for sign in (1, -1)]
    assert abs((steps[0] - steps[1]) / (2 * h) - bent).max() <= 1e-8


def test_groups_by_hand() -> None:
    x = by_hand("a bandit")
    law = token_groups.of_any(x, 2)
    assert len(law.p) == 16
    assert math.fsum(law.p) == 1.0
    kept = token_groups.of_any(x, 2, dynamic=True)
    assert all(a.r != b.r for a, b in kept.group)
    rule = Estimator(4, "constant", "population", 0.0)
    assert token_groups.standard((1.0, 0.0, 0.0, 1.0), rule) == (1.0, -1.0, -1.0, 1.0)
    assert token_groups.standard((0.1, 0.1, 0.1), rule) == (0.0, 0.0, 0.0)
    others = rule._replace(std="none", leave_one_out=True)
    assert token_groups.standard((3.0, 0.0), others) == (3.0, -3.0)
    twice = list(token_groups.batches([law, law]))
    assert len(twice) == 256
    assert math.fsum(p for p, _ in twice) == 1.0


def test_weights_of_tokens_by_hand() -> None:
    n, half = [4, 2, 3, 1], Fraction(1, 2)
    assert own_tokens_losses.shares("sequence", n, [0, 0, 1, 1], 4) == [half / 8, half / 4, half / 6, half / 2]
    assert own_tokens_losses.shares("token", n, [0, 0, 1, 1], 4) == [Fraction(1, 10)] * 4
    assert own_tokens_losses.shares("group_token", n, [0, 0, 1, 1], 4) == [half / 6, half / 6, half / 4, half / 4]
    assert own_tokens_losses.shares("constant", n, [0, 0, 1, 1], 4) == [Fraction(1, 16)] * 4


def test_no_ratio_lies_on_a_bound() -> None:
    for low, high, dual in own_tokens_losses.BOUNDS:
        kinks = {1 - low, 1 + high, *([dual] if dual else [])}
        assert not kinks & set(own_tokens_losses.RHO.ravel().tolist())


def test_the_closed_form_of_process_supervision_by_hand() -> None:
    r, end = np.array([[1.0, 5.0, 0.0], [0.0, 7.0, 9.0]]), np.array([[True, False, True], [True, False, True]])
    mask, group = np.array([[1.0, 1, 1], [1, 1, 0]]), np.array([3, 3])
    case = cases_tokens_credit.process_case("", r, end, group, mask)
    s = math.sqrt(1 / 3) + 1e-4  # of 1, 0 and 0
    up, down = (2 / 3) / s, (-1 / 3) / s
    assert case.expected == pytest.approx(np.array([[up + down, down, down], [down, 0, 0]]), abs=1e-12)


def test_the_copy_task_by_hand() -> None:
    case = cases_tokens_engines.reward_case("", ["copy: a b", "copy: c"], ["a  b", "c c"])
    assert case.expected.tolist() == [1.0, 0.0]


def test_a_number_beside_a_fraction() -> None:
    for c in itertools.chain(own_tokens.passes(), own_tokens.written()):
        assert entry("E2.1", "", c, 1e-11).passed


def numbers(x: F) -> list[float]:
    return [round(float(y), 12) for y in x]


def test_the_optimum_by_hand() -> None:
    case = verify.find("E2.7").cases()[0]
    ref, r, beta = case.arguments
    assert math.exp(1 / beta) == pytest.approx(4.0)
    Z = 0.5 + 0.25 * 4 + 0.125 + 0.125 * 4
    assert numbers(case.expected) == numbers(np.array([0.5, 1.0, 0.125, 0.5]) / Z)
    assert (ref >= 0).all() and set(r) == {0.0, 1.0}
