"""What a user's losses of sequences are given in rows E2.3, E2.6 and E2.9, and what they must return.

B sequences of at most T tokens; mask (B,T) is 1 for tokens that count, which come first, and 0 behind the end, where
the other arrays hold numbers that mean nothing; rho = exp(logp - logp_old).
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np

from tabrl.rational import Row
from tabrl.types import F, I
from tabrl.verify.cases_tokens_credit import numbers, ragged
from tabrl.verify.literal import ZERO
from tabrl.verify.mistakes import Mistakes
from tabrl.verify.own_surrogate import loss_of
from tabrl.verify.record import Case

RATIOS = np.array([1.5, 0.5, 1.0, 1.125, 0.875, 3.0, 0.25, 1.25, 2.0, 0.75, 1.0625, 0.625])
OLD = np.array([0.25, 0.5, 0.5, 0.25, 0.125, 0.25, 0.5, 0.375, 0.0625, 0.5, 0.75])

# E2.3


@cache
def grpo_cases() -> list[Case]:
    """E2.3: f(logp, logp_old, adv, mask, low, high) -> loss."""
    uneven, even = ragged(4, 2, 3, 1), np.ones((3, 4))
    good, bad = np.array([1.0, 2.0, 0.5, 3.0]), np.array([-1.0, -0.5, -2.0, -1.5])
    both = np.array([1.0, -1.0, 2.0, -0.5])
    return [
        grpo_case("sequences of 1 to 4 tokens", 0, both, uneven, 0.25, 0.25),
        grpo_case("sequences of 1 to 4 tokens, clip-higher", 1, -both, uneven, 0.1875, 0.375),
        grpo_case("better than the group", 2, good, uneven, 0.25, 0.4375),
        grpo_case("worse than the group", 3, bad, uneven, 0.25, 0.4375),
        grpo_case("sequences of one length", 4, both[:3], even, 0.25, 0.3125),
        grpo_case("wide bounds", 5, both, uneven, 0.5, 1.0),
        grpo_case("the policy that drew the sequences", None, both, uneven, 0.25, 0.25),
    ]


def grpo_case(name: str, seed: int | None, adv: F, mask: F, low: float, high: float) -> Case:
    """A batch; the closed form is a mean over sequences of means over tokens, in fractions."""
    i = np.arange(mask.size).reshape(mask.shape)
    rho = np.ones(mask.shape) if seed is None else RATIOS[(i + 5 * seed) % len(RATIOS)]
    old = OLD[(3 * i) % len(OLD)]
    means: Row = []
    for row, on, a in zip(rho, mask, adv, strict=True):
        each = [loss_of(Fraction(y), Fraction(a), low, high) for y in row[on > 0]]
        means.append(sum(each, ZERO) / len(each))
    exact = np.array(float(sum(means, ZERO) / len(means)))
    arguments = np.log(old * rho), np.log(old), adv, mask, low, high
    return Case(name, arguments, (), "loss", exact, cache(lambda: wrong_batches(old, rho, adv, mask, low, high)))


def per_sequence(x: F, mask: F) -> F:
    """Mean over sequences of means over tokens."""
    return np.asarray(((x * mask).sum(axis=1) / mask.sum(axis=1)).mean())


def clipped(x: F, A: F, low: float, high: float) -> F:
    """-min(x A, clip(x) A)."""
    smaller: F = np.minimum(x * A, np.clip(x, 1 - low, 1 + high) * A)
    return -smaller


def wrong_batches(old: F, rho: F, adv: F, mask: F, low: float, high: float) -> Mistakes:
    """Other ratios, other clips, other means."""
    A, n = np.broadcast_to(adv[:, None], rho.shape), mask.sum(axis=1, keepdims=True)
    log_sum, x = (np.log(rho) * mask).sum(axis=1, keepdims=True) + 0 * rho, clipped(rho, A, low, high)
    held, bounds = np.clip(rho, 1 - low, 1 + high) * A, (low, high)
    tokens = {
        "one ratio for each sequence, the geometric mean (GSPO)": clipped(np.exp(log_sum / n), A, *bounds),
        "one ratio for each sequence, the product of its tokens'": clipped(np.exp(log_sum), A, *bounds),
        "you take the larger of the two terms: min and max are swapped": -np.maximum(rho * A, held),
        "you leave out the minimum: the clipped ratio alone": -held,
        "you leave out the clip: the ratio alone": -rho * A,
        "log pi multiplies the objective: ratio times advantage is all there is": x * np.log(old * rho),
        "the sign is wrong, the objective instead of the loss": -x,
        "the ratio is upside down (old over new)": clipped(1 / rho, A, *bounds),
        "you use log rho instead of rho: exp is missing": clipped(np.log(rho), A, *bounds),
        "you use pi instead of the ratio: logp_old is missing": clipped(old * rho, A, *bounds),
        "low and high are exchanged": clipped(rho, A, high, low),
        "you use low on both sides": clipped(rho, A, low, low),
        "you use high on both sides": clipped(rho, A, high, high),
        "a bad token is cut at 1 + high like a good one; it needs 1 - low": -np.minimum(rho, 1 + high) * A,
        "a good token is cut at 1 - low like a bad one; it needs 1 + high": -np.maximum(rho, 1 - low) * A,
        "you multiply log pi by the advantage: there is no ratio (REINFORCE)": -np.log(old * rho) * A,
    }
    return [*((name, per_sequence(y, mask)) for name, y in tokens.items()), *other_means(x, mask)]


def other_means(x: F, mask: F) -> Mistakes:
    """One number of the batch by other denominators."""
    some = x * mask
    return [
        ("the mask is not looked at: what stands behind the end counts", np.array(x.mean())),
        ("you take the mean over all tokens of the batch", np.array(some.sum() / mask.sum())),
        ("you divide by the longest length instead of the sequence's (Dr. GRPO)", np.array(some.mean())),
        ("you add the tokens of a sequence up instead of taking their mean", np.array(some.sum(axis=1).mean())),
    ]


# E2.6


@cache
def k3_cases() -> list[Case]:
    """E2.6: f(logp, logp_ref) -> k3."""
    p, q = np.array([0.5, 0.25, 0.125, 0.75, 0.5]), np.array([0.25, 0.5, 0.5, 0.0625, 0.375])
    return [
        k3_case("tokens that became likelier, and less likely", p, q),
        k3_case("the other way round", q, p),
        k3_case("the same policy", p, p),
        k3_case("tokens that the reference hardly knows", p, np.full(5, 2.0**-10)),
        k3_case("tokens that the policy hardly knows", np.full(5, 2.0**-6), p),
        k3_case("policies that are close", p, p * 0.984375),
        k3_case("a single token", p[:1], q[:1]),
    ]


def k3_case(name: str, p: F, q: F) -> Case:
    """Some tokens; the closed form is q/p - 1 - log(q/p)."""
    exact = [float(Fraction(b) / Fraction(a) - 1) - math.log(b / a) for a, b in zip(p, q, strict=True)]
    return Case(name, (np.log(p), np.log(q)), p.shape, "t", np.array(exact), cache(lambda: wrong_estimates(p, q)))


def wrong_estimates(p: F, q: F) -> Mistakes:
    """The other estimates, and other readings of this one."""
    x = np.log(q / p)
    k3 = np.exp(x) - 1 - x
    return [
        ("it is k1, log pi - log ref: right in the mean, but of either sign", -x),
        ("it is k2, half the squared log-ratio", x**2 / 2),
        ("the direction is reversed: the ratio is ref over pi", np.exp(-x) - 1 + x),
        ("you leave out -1", np.exp(x) - x),
        ("you leave out the logarithm", np.exp(x) - 1),
        ("the sign of the logarithm is wrong", np.exp(x) - 1 + x),
        ("the sign is wrong", -k3),
        ("it is weighed by pi, as if summed over all tokens: drawing does that", p * k3),
        ("it is the absolute log-ratio", abs(x)),
    ]


# E2.9


@cache
def mean_cases() -> list[Case]:
    """E2.9: f(x, mask, group) -> loss."""
    two, mixed, uneven = np.array([1, 1, 1, 4]), np.array([6, 2, 6, 2]), ragged(4, 2, 3, 1)
    return [
        mean_case("two groups", numbers(40, 4, 4), uneven, np.array([0, 0, 1, 1])),
        mean_case("groups whose members are mixed", numbers(41, 4, 4), uneven, mixed),
        mean_case("groups of 3 and 1", numbers(42, 4, 4), uneven, two),
        mean_case("one group", numbers(43, 4, 4), uneven, np.zeros(4, np.int64)),
        mean_case("long wrong answers", np.repeat([[1.0], [1.0], [-0.5], [-0.5]], 4, 1), ragged(4, 4, 1, 2), mixed),
        mean_case("three groups", numbers(44, 6, 3), ragged(3, 1, 2, 2, 1, 3, T=3), np.array([3, 3, 3, 1, 1, 2])),
        mean_case("one token each", numbers(45, 4, 2), ragged(1, 1, 1, 1, T=2), two),
    ]  # fmt: skip


def mean_case(name: str, x: F, mask: F, group: I) -> Case:
    """A batch; the closed form goes through the tokens of each group, in fractions."""
    means: Row = []
    for label in sorted(set(group.tolist())):
        own = [Fraction(y) for y in x[group == label][mask[group == label] > 0]]
        means.append(sum(own, ZERO) / len(own))
    exact = np.array(float(sum(means, ZERO) / len(means)))
    return Case(name, (x, mask, group), (), "loss", exact, cache(lambda: wrong_means(x, mask, group)))


def over_groups(f: Callable[[F, F], F], x: F, mask: F, group: I) -> F:
    """The mean over groups of a number of each."""
    return np.array(np.mean([f(x[group == y], mask[group == y]) for y in np.unique(group)]))


def token_mean(x: F, mask: F) -> F:
    """Over the tokens that count."""
    return np.array((x * mask).sum() / mask.sum())


def wrong_means(x: F, mask: F, group: I) -> Mistakes:
    """Other denominators."""
    labels, sizes = np.unique(group, return_counts=True)
    by_size = np.average([token_mean(x[group == y], mask[group == y]) for y in labels], weights=sizes)
    right = over_groups(token_mean, x, mask, group)
    grouped: dict[str, Callable[[F, F], F]] = {
        "you take the mean over groups of the mean over sequences": per_sequence,
        "the mask is not looked at: what stands behind the end counts": lambda x, mask: np.array(x.mean()),
        "you divide by the longest length instead of counting tokens": lambda x, mask: np.array((x * mask).mean()),
    }
    return [
        ("you take the mean over sequences of their means (GRPO)", per_sequence(x, mask)),
        ("you take the mean over all tokens of the batch, as the engines do", token_mean(x, mask)),
        *((name, over_groups(f, x, mask, group)) for name, f in grouped.items()),
        ("you add the groups up instead of taking their mean", len(labels) * right),
        ("groups weigh by their number of sequences", np.array(by_size)),
        ("you add everything up", np.array((x * mask).sum())),
        ("the sign is wrong", -right),
    ]
