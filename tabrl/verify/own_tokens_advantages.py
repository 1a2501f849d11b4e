"""Advantages of groups and of steps against fractions: rows E2.4 and E2.5 of the ledger.

reward, group (B,) outcomes and labels of groups; B sequences of at most T tokens, some of which do not count; A
advantages; eps what is added to a standard deviation.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np

from tabrl import advantages, rational
from tabrl.rational import Row
from tabrl.tokens import credit
from tabrl.types import F, I
from tabrl.verify.literal import ONE, ZERO
from tabrl.verify.own_tokens_credit import MASK, by_rows, ragged
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_models import Table

EXACT = 1e-300  # tolerance of what must be 0 without rounding

# E2.4

GROUPS = np.array([5, 5, 8, 5, 8, 8, 8, 2, 2])
REWARD = np.array([1.0, 0.0, 0.1, 0.25, 0.1, 0.1, 0.1, -3.0, 7.0])  # the group 8 is flat


def literal_advantages(reward: Row, std: str, eps: float, leave_one_out: bool = False) -> Row:
    """Of one group, number by number; only the square root is rounded."""
    G = len(reward)
    mean = sum(reward, ZERO) / G
    squares = sum(((y - mean) ** 2 for y in reward), ZERO)
    if not squares:
        return [ZERO] * G
    deviation = Fraction(math.sqrt(squares / (G - 1 if std == "sample" else G)))
    scale = ONE if std == "none" else deviation + Fraction(eps)
    base = [(sum(reward, ZERO) - y) / (G - 1) if leave_one_out else mean for y in reward]
    return [(y - b) / scale for y, b in zip(reward, base, strict=True)]


def grouped(reward: F, group: I, **how: Any) -> Row:
    """The groups one after the other."""
    A = [ZERO] * len(group)
    for label in set(group.tolist()):
        at = np.flatnonzero(group == label)
        for i, y in zip(at, literal_advantages(rational.exact(reward[at]), **how), strict=True):
            A[int(i)] = y
    return A


def outcome() -> list[Check]:
    """E2.4: every kind of scale and base, sums within a group, flat groups, tokens."""
    kinds: list[dict[str, Any]] = [
        {"std": std, "eps": eps, "leave_one_out": out}
        for std in advantages.STDS for eps in (0.0, 1e-4) for out in (False, True)
    ]  # fmt: skip
    found = [(k, advantages.group_advantages(REWARD, GROUPS, **k)) for k in kinds]
    sums = [Comparison(f"{k}", np.bincount(GROUPS, weights=A), [ZERO] * 9) for k, A in found]
    flat = [Comparison(f"{k}", A[GROUPS == 8], [ZERO] * 4) for k, A in found]
    tokens = Comparison("", credit.per_token(REWARD[:5], MASK), by_rows(lambda r: r, np.tile(REWARD[:5, None], (1, 4))))
    return [
        agree("E2.4", "advantages of groups, in fractions", [
            Comparison(f"{k}", A, grouped(REWARD, GROUPS, **k)) for k, A in found
        ]),
        agree("E2.4", "their sum within every group, 0", sums),
        agree("E2.4", "those of a flat group, exactly 0", flat, EXACT),
        agree("E2.4", "the advantage of a sequence at each of its tokens", [tokens], EXACT),
    ]  # fmt: skip


# E2.5


def process() -> list[Check]:
    """E2.5: steps against all steps of the group, whatever sequence they belong to; what comes after counts."""
    ends, r, group = ragged(5) > -1.5, ragged(6), np.array([3, 3, 9, 9, 9])
    flat, alone = np.full(MASK.shape, 0.1), (np.arange(20) % 20 == 4).reshape(MASK.shape)
    named = (
        ("steps", r, ends),
        ("equal rewards", flat, ends),
        ("the only step", r, alone),
        ("no steps", r, alone & False),
    )
    kinds = [(std, eps) for std in advantages.STDS for eps in (0.0, 1e-4)]
    found = [
        (Comparison(f"{name}, {std}, eps {eps}", credit.process_advantages(y, end, group, MASK, std=std, eps=eps),
                    literal_process(y, end, group, std, eps)), name)
        for name, y, end in named for std, eps in kinds
    ]  # fmt: skip
    mixed, rest = [c for c, name in found if name == "steps"], [c for c, name in found if name != "steps"]
    first = [Comparison(f"{c.where}, mean", steps_mean(np.asarray(c.value), ends, group), [ZERO, ZERO]) for c in mixed]
    return [
        agree("E2.5", "advantages from process rewards, in fractions", mixed),
        agree("E2.5", "the same where all rewards are equal, or a group has one step or none: exactly 0", rest, EXACT),
        agree("E2.5", "normalised rewards of the steps of a group add up to 0", first),
    ]


def literal_process(r: F, end: Any, group: I, std: str, eps: float) -> Table:
    """Tokens of one sequence after the other; a step counts for the tokens up to its end."""
    paid: dict[tuple[int, int], Fraction] = {}
    for label in set(group.tolist()):
        at = [(int(i), int(t)) for i, t in np.argwhere((MASK != 0) & end) if group[i] == label]
        if at:
            paid |= dict(zip(at, literal_advantages([Fraction(r[i]) for i in at], std, eps), strict=True))
    B, T = MASK.shape
    return [
        [sum((paid.get((i, u), ZERO) for u in range(t, T)), ZERO) if MASK[i, t] else ZERO for t in range(T)]
        for i in range(B)
    ]  # fmt: skip


def steps_mean(A: F, ends: Any, group: I) -> F:
    """Sum over the steps of each group of what they add to the tokens before them."""
    found = []
    for label in (3, 9):
        total = 0.0
        for i in np.flatnonzero(group == label):
            on = np.flatnonzero(MASK[i])
            steps = [t for t in on if ends[i, t]]
            total += A[i, on[0]] if len(steps) else 0.0
        found.append(total)
    return np.array(found)
