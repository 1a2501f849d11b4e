"""Group estimators in the mean, against every group of tiny tasks: rows E2.3, E2.5, E2.9 and E2.11 of the ledger.

G answers in a group, K of them right; p chance that one is; w_G(p) what a prompt weighs; N prefixes, V next tokens.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache, partial

import numpy as np

from tabrl import losses
from tabrl.decisions import cosine
from tabrl.tokens import groups, process, rates, train
from tabrl.tokens.counts import Estimator
from tabrl.tokens.methods import Method, Outcome, Process
from tabrl.tokens.rollout import Rollouts
from tabrl.types import F
from tabrl.verify.own_surrogate import rule_of
from tabrl.verify.own_tokens import chances
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_groups import Law, of_any, of_prompt, outcomes, push, slope, steps
from tabrl.verify.token_models import Tiny, binary, gradient, rollouts, tinies

KINDS = (
    ("sample", 0.0, False),
    ("sample", 1e-4, False),
    ("population", 0.0, False),
    ("none", 0.0, False),
    ("none", 0.0, True),
)
HOWS = ("sequence", "token", "group_token", "constant")


def some() -> tuple[Tiny, ...]:
    """Right or wrong answers of 1 and 2 tokens to two prompts, graded ones of 2 tokens to one."""
    return tinies()[1], tinies()[3]


def rules(how: str, G: int) -> list[Estimator]:
    """All kinds of advantages."""
    return [Estimator(G, how, std, eps, out) for std, eps, out in KINDS]


def name(x: Tiny, rule: Estimator) -> str:
    """A task and an estimator."""
    return f"{x.name}, G {rule.G}, {rule.how}, {rule.std}{', leave one out' if rule.leave_one_out else ''}"


def each_prompt(x: Tiny, G: int) -> list[Law]:
    """One group for each prompt."""
    return [of_prompt(x, k, G) for k in range(x.task.K)]


# E2.3


def weighed() -> list[Check]:
    """E2.3: the mean update of GRPO and its relatives is w_G(p) grad p; the estimator itself, over all groups."""
    return [
        agree("E2.3", "w_G(p), against sums over the number of right answers", list(closed_weights())),
        agree("E2.3", "w_G(p) for G = 2 and 3 does not depend on p: 1 / sqrt(2), 2 / sqrt(3) in sample std", few()),
        agree("E2.3", "mean update with a constant norm, against w_G(p) grad p in fractions", list(mean_of_constant())),
        agree("E2.3", "mean of GRPO's update, one sequence norm, all groups listed", list(listed_means("sequence"))),
        agree("E2.3", "mean of the update that training makes, all groups listed", list(sampled())),
    ]


def closed_weights() -> Iterator[Comparison]:
    """E[K (G - K) / (G^2 (s_K + eps))] / (p (1 - p)), K right answers among G."""
    p = np.array([0.0625, 0.25, 0.5, 0.875])
    for G in (2, 3, 4, 16):
        for std, eps, out in KINDS:
            exact = [weight(Fraction(y), G, std, eps, out) for y in p]
            yield Comparison(f"G {G}, {std}, eps {eps}", rates.w(p, G, std=std, eps=eps, leave_one_out=out), exact)


def weight(p: Fraction, G: int, std: str, eps: float, leave_one_out: bool) -> float:
    """Term by term."""
    total = 0.0
    for K in range(1, G):
        s = {"none": 1.0, "population": G, "sample": math.sqrt(G * (G - 1))}[std]
        spread = 1.0 if std == "none" else math.sqrt(K * (G - K)) / s + eps
        total += math.comb(G, K) * float(p**K * (1 - p) ** (G - K)) * K * (G - K) / (G * G * spread)
    return total / float(p * (1 - p)) * (G / (G - 1) if leave_one_out else 1.0)


def few() -> list[Comparison]:
    """There is one kind of group that is not flat."""
    p = np.array([0.0, 0.125, 0.5, 1.0])
    return [
        Comparison(f"G {G}", rates.w(p, G, std="sample"), [y] * 4)
        for G, y in ((2, 1 / math.sqrt(2)), (3, 2 / math.sqrt(3)))
    ]


def mean_of_constant() -> Iterator[Comparison]:
    """Prompts once each; the gradient of a prompt's p is a sum over its sequences in fractions."""
    for x in binary():
        for G in (2, 3, 8):
            for rule in rules("constant", G):
                parts = [np.array(gradient(x, prompt=k), np.float64) for k in range(x.task.K)]
                w = [weight(p, G, rule.std, rule.eps, rule.leave_one_out) for p in chances(x)]
                exact = sum(a * g for a, g in zip(w, parts, strict=True)) / (x.task.K * x.task.length)
                yield Comparison(name(x, rule), groups.expected_gradient(x.task.tree, x.logp(), rule), exact)


@cache
def literal(x: Tiny, rule: Estimator, batch: int | None = 1, dynamic: bool = False) -> F:
    """The mean over all batches: of a group for each prompt, or of so many groups whose prompts are drawn."""
    laws = each_prompt(x, rule.G) if batch is None else [of_any(x, rule.G, dynamic)] * batch
    return slope(x, push(x, rule.how, laws, outcomes(rule)))


def listed_means(how: str) -> Iterator[Comparison]:
    """A group for each prompt; one or two drawn."""
    for x in some():
        for rule in rules(how, 2)[1::3] if how == "token" else (*rules(how, 2), *rules(how, 3)):
            n = 2 if how == "token" else 1
            for batch in (None, n) if rule.G == 2 else (n,):
                found = groups.expected_gradient(x.task.tree, x.logp(), rule, batch)
                yield Comparison(f"{name(x, rule)}, batch {batch}", found, literal(x, rule, batch))


def sampled() -> Iterator[Comparison]:
    """All groups in one batch, each advantage times the probability of its group."""
    for x in some():
        for how in ("sequence", "group_token", "constant"):
            for rule in rules(how, 3)[1::2]:
                credit = Outcome(rule.std, rule.eps, rule.leave_one_out)
                found = mean_update(x, Method(credit=credit, how=how), 3)
                yield Comparison(name(x, rule), found, literal(x, rule))


def mean_update(x: Tiny, method: Method, G: int) -> F:
    """What training would do, in the mean over groups; it is linear in the advantages at ratio 1."""
    batch, p = all_groups(x, G)
    adv = method.credit.advantages(train.scored(method, batch, None))
    found = train.gradient(x.policy(), method, batch, adv * p[:, None])
    table: F = found.reshape(len(x.pi), x.task.V)
    return table


@cache
def all_groups(x: Tiny, G: int) -> tuple[Rollouts, F]:
    """All groups as one batch, and of each sequence the probability of its group times their number."""
    law = of_any(x, G)
    label = np.repeat(np.arange(len(law.p)), G)
    every = [w for group in law.group for w in group]
    return rollouts(x, every, label.tolist()), (np.array(law.p) * len(law.p))[label]


# E2.5


def supervised() -> list[Check]:
    """E2.5: the mean update of process supervision."""
    exact, trained = [], []
    for x in some():
        for how in HOWS[:1] + HOWS[2:]:
            for rule in rules(how, 2)[1:4]:
                mean = literal_process(x, rule)
                exact.append(Comparison(name(x, rule), process.process_gradient(x.task.tree, x.logp(), rule, 1), mean))
                method = Method(credit=Process(rule.std, rule.eps), how=how)
                trained.append(Comparison(name(x, rule), mean_update(x, method, 2), mean))
    return [
        agree("E2.5", "mean update of process supervision, all groups listed", exact),
        agree("E2.5", "mean of the update that training makes with it, all groups listed", trained),
    ]


@cache
def literal_process(x: Tiny, rule: Estimator) -> F:
    """The mean over all groups, steps against steps."""
    return slope(x, push(x, rule.how, [of_any(x, 2)], steps(x, rule)))


# E2.9 and E2.11


def averaged() -> list[Check]:
    """E2.9: the mean update of every aggregation, and the angle to the gradient of J."""
    return [
        *(agree("E2.9", f'mean update with "{how}", all groups listed', list(listed_means(how))) for how in HOWS[1:3]),
        agree("E2.9", "cosine of each mean update with grad J, all groups listed", list(angles())),
    ]


def angles() -> Iterator[Comparison]:
    """The length of a sequence turns some of them."""
    x = some()[0]
    exact = np.array(gradient(x), np.float64).ravel()
    for how in HOWS:
        for rule in rules(how, 2)[1::2]:
            found = groups.expected_gradient(x.task.tree, x.logp(), rule, 2).ravel()
            mean = literal(x, rule, 2 if how == "token" else 1).ravel()
            angle = float(mean @ exact / math.sqrt((mean @ mean) * (exact @ exact)))
            yield Comparison(name(x, rule), cosine(found, exact), angle)


def clipped() -> list[Check]:
    """E2.11: the mean of a later update, with the upper bound raised and not."""
    found = []
    for x in some():
        new = np.exp(x.logp() + np.random.default_rng(53).normal(size=(len(x.pi), x.task.V)) / 5)
        new /= new.sum(axis=1, keepdims=True)
        rho = new / np.array(x.pi, np.float64)
        for low, high in ((0.2, 0.2), (0.2, 0.28)):

            def factor(A: float, h: int, a: int, rho: F = rho, low: float = low, high: float = high) -> float:
                return 0.0 if rule_of(rho[h, a], A, low, high, None) else float(rho[h, a])

            rule, d_loss = Estimator(3, "group_token"), partial(losses.d_ppo_clip, low=low, high=high)
            exact = slope(x, push(x, rule.how, [of_any(x, 3)], outcomes(rule), factor), new)
            mean = groups.expected_surrogate_gradient(x.task.tree, np.log(new), x.logp(), rule, 1, d_loss=d_loss)
            found.append(Comparison(f"{x.name}, low {low}, high {high}", mean, exact))
    return [agree("E2.11", "mean of a later update under the clip, all groups listed", found)]
