"""Every group of answers of tiny tasks, and what a group estimator does in the mean over all of them.

A group is a tuple of sequences to one prompt, a batch a list of groups; p its probability; A advantages (one row of
tokens for each sequence); w the weight of a token; push (N,V) what is added to log pi of a token in the mean. Floats:
products of 32nds are exact in them, and roots are not fractions.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from tabrl.tokens.counts import Estimator
from tabrl.types import F
from tabrl.verify.token_models import Tiny, Written, listed, step_of

Group = tuple[Written, ...]
Credit = Callable[[Group], list[list[float]]]


class Law(NamedTuple):
    """The groups that may be drawn, with their probabilities."""

    p: list[float]
    group: list[Group]


@cache
def of_prompt(x: Tiny, k: int, G: int) -> Law:
    """All groups of answers to one prompt."""
    own = [w for w in listed(x) if w.k == k]
    groups = list(product(own, repeat=G))
    return Law([math.prod(float(w.p) for w in group) for group in groups], groups)


@cache
def of_any(x: Tiny, G: int, dynamic: bool = False) -> Law:
    """All groups, the prompt being drawn as well; with dynamic sampling only those whose rewards differ."""
    found = [
        (float(q) * p, group)
        for k, q in enumerate(x.weights)
        for p, group in zip(*of_prompt(x, k, G), strict=True)
        if not dynamic or len({w.r for w in group}) > 1
    ]
    share = math.fsum(p for p, _ in found)
    return Law([p / share for p, _ in found], [group for _, group in found])


def batches(laws: Iterable[Law]) -> Iterator[tuple[float, tuple[Group, ...]]]:
    """All batches of one group from each law."""
    for parts in product(*(list(zip(*law, strict=True)) for law in laws)):
        yield math.prod(p for p, _ in parts), tuple(group for _, group in parts)


# ---- advantages ----


def outcomes(rule: Estimator) -> Credit:
    """The reward against the group's, the same for all tokens."""

    def credit(group: Group) -> list[list[float]]:
        A = standard(tuple(float(w.r) for w in group), rule)
        return [[a] * len(w.o) for a, w in zip(A, group, strict=True)]

    return credit


def steps(x: Tiny, rule: Estimator) -> Credit:
    """Rewards of steps against all steps of the group; a token gets those of steps that end with it or later."""

    def credit(group: Group) -> list[list[float]]:
        paid = [[step_of(x, w.k, w.o[: t + 1]) for t in range(len(w.o))] for w in group]
        every = tuple(float(r) for row in paid for r in row if r is not None)
        normal = dict(zip(every, standard(every, rule), strict=True)) if every else {}
        own = [[0.0 if r is None else normal[float(r)] for r in row] for row in paid]
        return [[math.fsum(row[t:]) for t in range(len(row))] for row in own]

    return credit


@cache
def standard(rewards: tuple[float, ...], rule: Estimator) -> tuple[float, ...]:
    """Less the mean, or that of the others, over the standard deviation."""
    n, mean = len(rewards), math.fsum(rewards) / len(rewards)
    squares = math.fsum((r - mean) ** 2 for r in rewards)
    if len(set(rewards)) == 1:
        return (0.0,) * n
    scale = {
        "none": 1.0,
        "sample": math.sqrt(squares / (n - 1)) + rule.eps,
        "population": math.sqrt(squares / n) + rule.eps,
    }[rule.std]
    more = n / (n - 1) if rule.leave_one_out else 1.0
    return tuple(more * (r - mean) / scale for r in rewards)


# ---- means ----


def weights(x: Tiny, how: str, batch: tuple[Group, ...]) -> list[list[float]]:
    """What a token of each sequence of each group counts."""
    G = len(batch[0])
    every = sum(len(w.o) for group in batch for w in group)
    rule: dict[str, Callable[[Group, Written], float]] = {
        "sequence": lambda group, w: 1 / (len(batch) * G * len(w.o)),
        "token": lambda group, w: 1 / every,
        "group_token": lambda group, w: 1 / (len(batch) * sum(len(y.o) for y in group)),
        "constant": lambda group, w: 1 / (len(batch) * G * x.task.length),
    }
    return [[rule[how](group, w) for w in group] for group in batch]


def push(
    x: Tiny, how: str, laws: list[Law], credit: Credit, factor: Callable[[float, int, int], float] | None = None
) -> F:
    """The mean over all batches of what is added to log pi of each token, (N,V).

    factor: of an advantage, a prefix and a token, what a loss multiplies the advantage with; 1 unless given.
    """
    total = np.zeros((len(x.pi), x.task.V))
    known = {id(group): credit(group) for law in laws for group in law.group}
    for p, batch in batches(laws):
        for group, shares in zip(batch, weights(x, how, batch), strict=True):
            for w, row, share in zip(group, known[id(group)], shares, strict=True):
                for h, a, y in zip(w.rows, w.o, row, strict=True):
                    if y:
                        total[h, a] += p * share * y * (factor(y, h, a) if factor else 1.0)
    return total


def slope(x: Tiny, total: F, pi: F | None = None) -> F:
    """The gradient in the logits of the sum of push times log pi."""
    p = np.array(x.pi, np.float64) if pi is None else pi
    pulled: F = total - p * total.sum(axis=1, keepdims=True)
    return pulled
