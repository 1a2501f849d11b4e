"""Token tasks that are small enough to be listed: every sequence with its probability in fractions.

k a prompt, o a sequence of tokens, h a row of the tree, a a next token; C tokens continue, V - C end; L the longest
answer; pi, ref (N,V) dyadic probabilities, so that their fractions are what the floats are; p of a sequence given its
prompt.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from tabrl import rational
from tabrl.rational import Row
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F, I
from tabrl.verify.literal import ONE, ZERO

Table = list[Row]
Prefix = tuple[int, tuple[int, ...]]  # prompt and tokens


class Written(NamedTuple):
    """One finished sequence."""

    k: int
    o: tuple[int, ...]
    rows: tuple[int, ...]  # of the prefix that each token follows
    p: Fraction  # given the prompt, under the policy
    q: Fraction  # under the reference
    r: Fraction  # outcome


@dataclass(frozen=True, eq=False)
class Tiny:
    """A task, a policy and a reference for it."""

    name: str
    task: TokenTask
    pi: Table
    ref: Table
    pays: Callable[[int, tuple[int, ...]], Fraction]  # the outcome, one sequence at a time

    @property
    def weights(self) -> Row:
        """Of the prompts."""
        return list(map(Fraction, self.task.weights.tolist()))

    def logp(self, table: Table | None = None) -> F:
        """Log-probabilities (N,V) in floats."""
        return np.log(np.array(self.pi if table is None else table, np.float64))

    def policy(self, table: Table | None = None) -> TableLM:
        """The policy, or another table, as one that the package trains."""
        return TableLM(self.task, self.logp(table))


def prefixes(task: TokenTask) -> list[Prefix]:
    """Prompt and tokens of each row of the tree: by length, then prompt, then tokens as in a dictionary."""
    return [(k, o) for t in range(task.length) for k in range(task.K) for o in product(range(task.C), repeat=t)]


def finished(task: TokenTask) -> Iterator[Prefix]:
    """Every sequence that EOS or the length limit ends."""
    for k, T in product(range(task.K), range(1, task.length + 1)):
        for o in product(range(task.V), repeat=T):
            if max(o[:-1], default=0) < task.C and (task.length == T or o[-1] >= task.C):
                yield k, o


@cache
def listed(x: Tiny) -> tuple[Written, ...]:
    """All sequences, with the probabilities that the policy and the reference give them."""
    row = {prefix: h for h, prefix in enumerate(prefixes(x.task))}
    found = []
    for k, o in finished(x.task):
        rows = tuple(row[k, o[:t]] for t in range(len(o)))
        found.append(Written(k, o, rows, chance(x.pi, rows, o), chance(x.ref, rows, o), x.pays(k, o)))
    return tuple(found)


def chance(table: Table, rows: tuple[int, ...], o: tuple[int, ...]) -> Fraction:
    """The probability of a sequence: a product over its tokens."""
    return math.prod((table[h][a] for h, a in zip(rows, o, strict=True)), start=ONE)


def zeros(x: Tiny) -> Table:
    """Nothing for every prefix and token."""
    return [[ZERO] * x.task.V for _ in x.pi]


def add(total: Table, share: Fraction, part: Table) -> Table:
    """Total plus share times part."""
    return [[a + share * b if b else a for a, b in zip(*rows, strict=True)] for rows in zip(total, part, strict=True)]


def scores(x: Tiny, w: Written, factors: Row | None = None) -> Table:
    """The gradient of the sum over its tokens of factor times log pi with respect to all logits; factors 1."""
    g = zeros(x)
    for t, (h, a) in enumerate(zip(w.rows, w.o, strict=True)):
        f = ONE if factors is None else factors[t]
        for b, p in enumerate(x.pi[h]):
            g[h][b] += f * ((a == b) - p)
    return g


@cache
def gradient(x: Tiny, prompt: int | None = None) -> Table:
    """The gradient of J by log-derivatives: sum over sequences of p r score; of one prompt alone if given."""
    return push(x, lambda w: w.r, prompt)


def push(x: Tiny, pays: Callable[[Written], Fraction], prompt: int | None = None) -> Table:
    """The sum over sequences of p pays score."""
    g = zeros(x)
    for w in listed(x):
        if prompt in (None, w.k):
            g = add(g, (x.weights[w.k] if prompt is None else ONE) * w.p * pays(w), scores(x, w))
    return g


def rollouts(x: Tiny, chosen: Iterable[Written], group: list[int] | None = None) -> Rollouts:
    """Sequences as a batch, each token looked up one by one; one group unless labels are given."""
    chosen = list(chosen)
    B, T = len(chosen), x.task.length
    number, real, yes = np.zeros((B, T), np.int64), np.zeros((B, T)), np.zeros((B, T), bool)
    tokens, row, mask, logp, paid, end = number, number.copy(), real, real.copy(), real.copy(), yes
    for i, w in enumerate(chosen):
        for t, (h, a) in enumerate(zip(w.rows, w.o, strict=True)):
            tokens[i, t], row[i, t], mask[i, t], logp[i, t] = a, h, 1.0, np.log(float(x.pi[h][a]))
            step = step_of(x, w.k, w.o[: t + 1])
            paid[i, t], end[i, t] = (0.0, False) if step is None else (float(step), True)
    cut = np.array([x.task.eos and len(w.o) == T and w.o[-1] < x.task.C for w in chosen], bool)
    k, r = np.array([w.k for w in chosen]), np.array([float(w.r) for w in chosen])
    label = np.zeros(B, np.int64) if group is None else np.array(group)
    return Rollouts(k, tokens, mask, logp, r, label, paid, end, cut, row)


# ---- the tasks ----


def step_of(x: Tiny, k: int, o: tuple[int, ...]) -> Fraction | None:
    """The process reward of the step that ends with the last of these tokens, if one does."""
    return None if x.task.steps is None else halfway(k, o)


def halfway(k: int, o: tuple[int, ...]) -> Fraction | None:
    """A step ends with every second token; it pays 1 for a 1, and a quarter of the prompt's number else."""
    return None if len(o) % 2 else ONE if o[-1] == 1 else Fraction(k, 4)


def ones(k: int, o: tuple[int, ...]) -> Fraction:
    """1 where the answer holds k + 1 ones."""
    return Fraction(sum(a == 1 for a in o) == k + 1)


def graded(k: int, o: tuple[int, ...]) -> Fraction:
    """Whole numbers, also negative ones."""
    return Fraction((3 * sum(o) + 2 * k + len(o) * o[0]) % 5 - 1)


def verifier(pays: Callable[[int, tuple[int, ...]], Fraction | None]) -> Callable[[I, I], F]:
    """The same for many sequences of one length; nan where nothing ends."""

    def reward(prompt: I, tokens: I) -> F:
        found = (pays(k, tuple(o)) for k, o in zip(prompt.tolist(), tokens.tolist(), strict=True))
        return np.array([np.nan if y is None else float(y) for y in found])

    return reward


def tiny(name: str, task: TokenTask, pays: Callable[[int, tuple[int, ...]], Fraction]) -> Tiny:
    """Attach a policy and a reference that take every token, in 32nds."""
    rng = np.random.default_rng([task.K, task.V, task.length])
    n = 32 - task.V
    pi, ref = ((1 + rng.multinomial(n, np.full(task.V, 1 / task.V), task.N)) / 32 for _ in range(2))
    return Tiny(name, task, rational.exact(pi), rational.exact(ref), pays)


@cache
def tinies() -> tuple[Tiny, ...]:
    """Answers of several lengths to two prompts, two of them for enumeration of groups; one length; a bandit."""
    words, asked, some = ("0", "1", "<eos>"), ("one", "two"), np.array([0.25, 0.75])
    right, steps, graded_ = verifier(ones), verifier(halfway), verifier(graded)
    return (
        tiny("answers of 1 to 3 tokens", TokenTask("ones", words, asked, 3, right, True, steps, some), ones),
        tiny("answers of 1 and 2 tokens", TokenTask("ones", words, asked, 2, right, True, steps, some), ones),
        tiny(
            "graded answers of 1 to 3 tokens", TokenTask("graded", words, asked, 3, graded_, True, None, some), graded
        ),
        tiny("answers of 2 tokens", TokenTask("pairs", ("a", "b", "c"), ("one",), 2, graded_, False, steps), graded),
        tiny("a bandit", TokenTask("bandit", ("a", "b", "c", "d"), ("choose",), 1, graded_), graded),
    )


def binary() -> tuple[Tiny, ...]:
    """Those that pay 0 or 1."""
    return tinies()[:2]
