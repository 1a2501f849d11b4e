"""What length does to a loss and to a reward, against fractions: rows E2.9 and E2.11 of the ledger.

B sequences of at most T tokens, n of which count in a sequence; longest, cache lengths in tokens; rho ratios, A
advantages; p probability of a sequence.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from tabrl import losses
from tabrl.tokens import credit, draws, exact, train
from tabrl.tokens.methods import Clip, Method, Overlong
from tabrl.verify.literal import ZERO
from tabrl.verify.own_surrogate import loss_of
from tabrl.verify.own_tokens_credit import MASK, ragged
from tabrl.verify.own_tokens_losses import HOWS, over, total, weights
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_models import listed, rollouts, tinies

# E2.9


def aggregated() -> list[Check]:
    """E2.9: batch losses of each aggregation, the weight of every token, what a sequence weighs in all."""
    x = ragged(14)
    exact_ = [[Fraction(y) for y in row] for row in x]
    w = {how: losses.d_aggregate(x, MASK, **over(how)) for how in HOWS}
    return [
        agree("E2.9", "loss of a ragged batch, each aggregation, in fractions", [
            Comparison(how, losses.aggregate(x, MASK, **over(how)), total(exact_, how)) for how in HOWS
        ]),
        agree("E2.9", "weight of every token, in fractions", [Comparison(how, w[how], weights(how)) for how in HOWS]),
        agree("E2.9", "weight of each sequence: alike, by its length, by its share of the group", [
            Comparison(how, w[how].sum(axis=1), [sum(row, ZERO) for row in weights(how)]) for how in HOWS
        ]),
    ]  # fmt: skip


# E2.11


def shaped() -> list[Check]:
    """E2.11: the penalty, shaped outcomes, what is judged before it; the raised bound; entropy."""
    return [
        agree("E2.11", "penalty of overlong answers, in fractions", list(penalties())),
        agree("E2.11", "shaped outcomes of all sequences, in fractions", list(outcomes())),
        agree("E2.11", "groups that differ in length alone are flat, and are dropped", list(judged())),
        agree("E2.11", "clipped loss between the lower and the higher bound, in fractions", list(raised())),
        agree("E2.11", "entropy of sequences and of tokens, all sequences listed", list(entropies())),
    ]


def penalties() -> Iterator[Comparison]:
    """0 up to longest - cache tokens, -1 from longest on, a line in between."""
    n = np.arange(1.0, 13.0)
    for longest, cache in ((10, 4), (8, 8), (5, 1), (12, 3)):
        line = [Fraction(longest - cache - int(y), cache) for y in n]
        where = f"longest {longest}, cache {cache}"
        yield Comparison(where, credit.overlong_penalty(n, longest, cache), [min(max(y, -1), 0) for y in line])


def outcomes() -> Iterator[Comparison]:
    """Added to the verifier's reward, at the last token."""
    for x in tinies():
        L = x.task.length
        batch = rollouts(x, listed(x))
        for cache in range(1, L + 1):
            late = [Fraction(min(max(L - cache - len(w.o), -cache), 0), cache) for w in listed(x)]
            shape = Overlong(L, cache)
            yield Comparison(
                f"{x.name}, cache {cache}", shape(batch), [w.r + y for w, y in zip(listed(x), late, strict=True)]
            )
            r = train.scored(Method(shape=shape), batch, None).r
            last = [r[i, len(w.o) - 1] for i, w in enumerate(listed(x))]
            yield Comparison(
                f"{x.name}, cache {cache}, tokens", last, [w.r + y for w, y in zip(listed(x), late, strict=True)]
            )
            yield Comparison(f"{x.name}, cache {cache}, sums", r.sum(axis=1), last)


def judged() -> Iterator[Comparison]:
    """Right and wrong decide, before anything is shaped."""
    for x in tinies()[:2]:
        groups = [(a, b) for a, b in product(listed(x), repeat=2) if a.k == b.k and len(a.o) != len(b.o)]
        every = rollouts(x, [w for group in groups for w in group])
        found = draws.mixed(every, 2, len(groups), 0)
        yield Comparison(x.name, len(found.reward) // 2, sum(a.r != b.r for a, b in groups))


def raised() -> Iterator[Comparison]:
    """A ratio between 1.2 and 1.28 still counts; one below .8 does not, and where A < 0 nothing changes above."""
    rho, A = np.array([1.25, 1.25, 1.5, 0.75, 0.75, 1.0]), np.array([1.0, -1.0, 2.0, -1.0, 1.0, 3.0])
    for low, high in ((0.2, 0.2), (0.2, 0.28)):
        named: Any = {"low": low, "high": high}
        each = [loss_of(Fraction(y), Fraction(a), low, high) for y, a in zip(rho, A, strict=True)]
        yield Comparison(str(named), losses.ppo_clip(np.log(rho), 0 * rho, A, **named), each)
        passes = [(a > 0 and y <= 1 + high) or (a < 0 and y >= 1 - low) for y, a in zip(rho, A, strict=True)]
        slope = [-Fraction(y) * Fraction(a) if ok else ZERO for y, a, ok in zip(rho, A, passes, strict=True)]
        part = Clip(low, high)
        yield Comparison(f"{named}, slope", part.slope(np.log(rho), 0 * rho, A, np.ones(6)), slope)
        yield Comparison(
            f"{named}, stopped", part.stopped(np.log(rho), 0 * rho, A, np.ones(6)), [not ok for ok in passes]
        )
    yield Comparison("DAPO's bounds", list(train.DAPO.loss)[:2], [0.2, 0.28])  # type: ignore[call-overload]


def entropies() -> Iterator[Comparison]:
    """The chain rule, backwards."""
    for x in tinies():
        found = exact.entropy(x.task, x.policy())
        p = [(float(x.weights[w.k] * w.p), float(w.p), len(w.o)) for w in listed(x)]
        H = -math.fsum(s * math.log(y) for s, y, _ in p)
        yield Comparison(x.name, [found.sequence, found.token], [H, H / math.fsum(s * n for s, _, n in p)])
