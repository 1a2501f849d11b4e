"""What a user's advantages of tokens are given in rows E2.2, E2.4 and E2.5, and what they must return.

B sequences of at most T tokens; mask (B,T) is 1 for tokens that count, which come first, and 0 behind the end, where
the other arrays hold numbers that mean nothing; eps = 1e-4.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from tabrl import rational
from tabrl.rational import Row
from tabrl.types import B, F, I
from tabrl.verify.mistakes import Mistakes, floats
from tabrl.verify.own_tokens_advantages import literal_advantages
from tabrl.verify.own_tokens_credit import gae
from tabrl.verify.record import Case

EPS = 1e-4
Scale = Callable[[F], F]  # of the numbers of a group


def numbers(seed: int, *shape: int) -> F:
    """Quarters between -3 and 3."""
    return np.random.default_rng([71, seed]).integers(-12, 13, shape) / 4


def ragged(*lengths: int, T: int = 4) -> F:
    """A mask of sequences of these lengths."""
    return np.where(np.arange(T) < np.array(lengths)[:, None], 1.0, 0.0)


# E2.2


@cache
def gae_cases() -> list[Case]:
    """E2.2: f(r, v, mask, lam) -> A."""
    uneven, full = ragged(4, 2, 3, 1), np.ones((2, 3))
    end = np.where(np.cumsum(uneven, axis=1) == uneven.sum(axis=1, keepdims=True), uneven, 0.0)
    return [
        gae_case("sequences of 1 to 4 tokens, lam 0.5", numbers(0, 4, 4), numbers(1, 4, 4), uneven, 0.5),
        gae_case("sequences of 1 to 4 tokens, lam 0.75", numbers(2, 4, 4), numbers(3, 4, 4), uneven, 0.75),
        gae_case("an outcome at the end alone, lam 0.5", numbers(4, 4, 4) * end, numbers(5, 4, 4), uneven, 0.5),
        gae_case("sequences of one length, lam 0.25", numbers(6, 2, 3), numbers(7, 2, 3), full, 0.25),
        gae_case("lam 0", numbers(8, 4, 4), numbers(9, 4, 4), uneven, 0.0),
        gae_case("lam 1", numbers(10, 4, 4), numbers(11, 4, 4), uneven, 1.0),
        gae_case("single tokens, lam 0.5", numbers(12, 3, 2), numbers(13, 3, 2), ragged(1, 1, 1, T=2), 0.5),
    ]


def gae_case(name: str, r: F, v: F, mask: F, lam: float) -> Case:
    """A batch; the closed form is a sum of faded TD errors for each token."""
    exact = np.zeros(r.shape)
    for i, n in enumerate(mask.sum(axis=1).astype(int)):
        exact[i, :n] = floats(gae(rational.exact(r[i, :n]), rational.exact(v[i, :n]), Fraction(lam)))
    return Case(name, (r, v, mask, lam), r.shape, "i t", exact, cache(lambda: wrong_gae(r, v, mask, lam)))


def swept(delta: F, fade: Any) -> F:
    """A[t] = delta[t] + fade A[t+1] along the rows; fade a number, or (B,T)."""
    A, after = np.zeros(delta.shape), np.zeros(len(delta))
    for t in reversed(range(delta.shape[1])):
        after = A[:, t] = delta[:, t] + np.broadcast_to(fade, delta.shape)[:, t] * after
    return A


def wrong_gae(r: F, v: F, mask: F, lam: float) -> Mistakes:
    """Other ends, other TD errors, other lam."""
    own_v = v * mask
    shifted = np.column_stack([own_v[:, 1:], np.zeros(len(v))])
    padded = np.column_stack([v[:, 1:], np.zeros(len(v))])
    delta = (r + shifted - v) * mask
    A = swept(delta, lam)
    flat = swept((r + np.append(v.ravel()[1:], 0.0).reshape(v.shape) - v).reshape(1, -1), lam).reshape(v.shape)
    some = A[mask > 0]
    return [
        ("the mask is not looked at: what stands behind the end counts", swept(r + padded - v, lam) * mask),
        ("you bootstrap from the value behind the last token", swept((r + padded - v) * mask, lam)),
        ("one sequence runs into the next: each ends with its row", flat * mask),
        ("you use lam = 0, the TD errors", delta),
        ("you use lam = 1, the reward to go less v: lam is missing", swept(delta, 1.0)),
        ("lam and 1 - lam are exchanged", swept(delta, 1 - lam)),
        ("v[t] and v[t+1] are exchanged", swept((r + v - shifted) * mask, lam)),
        ("you leave out the value of the next prefix", swept((r - v) * mask, lam)),
        ("you leave out -v[t]", swept((r + shifted) * mask, lam)),
        ("you return the critic's targets, A + v", A + own_v),
        ("the sign is wrong", -A),
        ("you discount with .99: gamma is 1", swept((r + 0.99 * shifted - v) * mask, 0.99 * lam)),
        ("the advantages are whitened", mask * (A - some.mean()) / (some.std() + 1e-8)),
    ]


# E2.4


@cache
def group_cases() -> list[Case]:
    """E2.4: f(reward, group) -> A."""
    two, mixed = np.repeat([0, 1], 4), np.array([7, 3, 7, 3, 3, 7, 7, 3])
    right = np.array([1.0, 0, 0, 1, 0, 0, 0, 1])
    return [
        group_case("two groups of 0 and 1", right, two),
        group_case("groups whose members are mixed", right, mixed),
        group_case("graded rewards", numbers(20, 8), two),
        group_case("graded rewards, mixed", numbers(21, 8), mixed),
        group_case("groups of 5 and 3", numbers(22, 8), np.array([2, 2, 2, 2, 2, 9, 9, 9])),
        group_case("one group of 16", np.where(numbers(23, 16) > 1.5, 1.0, 0.0), np.zeros(16, np.int64)),
        group_case("a group that is flat", np.array([1.0, 1.0, 1.0, 1.0, 0.0, 1.0]), np.array([4, 4, 4, 6, 6, 6])),
    ]


def group_case(name: str, reward: F, group: I) -> Case:
    """Some groups; the closed form is (reward - mean) / (sample std + 1e-4), 0 where all are equal."""
    exact = np.zeros(len(reward))
    for label in set(group.tolist()):
        at = group == label
        exact[at] = floats(literal_advantages(rational.exact(reward[at]), "sample", EPS))
    return Case(name, (reward, group), reward.shape, "i", exact, cache(lambda: wrong_advantages(reward, group)))


def by_group(x: F, group: I, f: Scale) -> F:
    """A function of the numbers of each group, for each of its members."""
    found = np.zeros(len(x))
    for label in set(group.tolist()):
        found[group == label] = f(x[group == label])
    return found


def ratio(centred: F, scale: Any) -> F:
    """Their ratio, and 0 where nothing varies."""
    return np.where(np.asarray(scale) > 1e-12, centred / np.where(np.asarray(scale) > 1e-12, scale, 1.0), 0.0)


def wrong_advantages(r: F, group: I) -> Mistakes:
    """Other deviations, other bases, other groups."""
    size = by_group(r, group, lambda x: np.full(len(x), len(x)))
    centred = r - by_group(r, group, np.mean)
    sample = by_group(r, group, lambda x: x.std(ddof=1))
    first = (np.arange(len(r)) // int((group == group[0]).sum())) if len(set(group.tolist())) > 1 else group
    blocks = r - by_group(r, first, np.mean)
    block_std = by_group(r, first, lambda x: x.std(ddof=1) if len(x) > 1 else np.zeros(1))
    return [
        ("you use the population's std: divide by G - 1", ratio(centred, by_group(r, group, np.std) + EPS)),
        ("you leave out eps, or it is far below 1e-4", ratio(centred, sample)),
        (
            "you use the population's std, and leave out eps (as NumPy's std does)",
            ratio(centred, by_group(r, group, np.std)),
        ),
        ("eps is added to the variance", ratio(centred, np.sqrt(sample**2 + EPS))),
        ("you divide by the variance", ratio(centred, sample**2 + EPS)),
        ("you do not divide by the std (Dr. GRPO)", centred),
        ("the base is the mean of the others", ratio(centred * size / (size - 1), sample + EPS)),
        ("you subtract no mean", ratio(r, sample + EPS)),
        ("mean and std are those of the batch instead of the group", (r - r.mean()) / (r.std(ddof=1) + EPS)),
        ("the mean is that of the group, the std that of the batch", centred / (r.std(ddof=1) + EPS)),
        ("the mean is that of the batch, the std that of the group", ratio(r - r.mean(), sample + EPS)),
        ("groups are taken in the order of the batch, not by their labels", ratio(blocks, block_std + EPS)),
        ("the sign is wrong", -ratio(centred, sample + EPS)),
    ]


# E2.5


@cache
def process_cases() -> list[Case]:
    """E2.5: f(step_reward, step_end, group, mask) -> A."""
    mask, two = ragged(4, 2, 3, 4), np.array([5, 5, 8, 8])
    every, half = np.ones((4, 4), bool), np.tile([False, True], (4, 2))
    some = numbers(30, 4, 4) > -0.75
    return [
        process_case("every token is a step, two groups", numbers(31, 4, 4), every, two, mask),
        process_case("every second token ends a step", numbers(32, 4, 4), half, np.zeros(4, np.int64), mask),
        process_case("steps of any length, one group", numbers(33, 4, 4), some, np.zeros(4, np.int64), mask),
        process_case("steps of any length, two groups", numbers(34, 4, 4), some, two[[0, 2, 1, 3]], mask),
        process_case("rewards of 0 and 1", np.where(numbers(35, 4, 4) > 0, 1.0, 0.0), every, two, mask),
        process_case("sequences of one length", numbers(36, 3, 4), some[:3], np.zeros(3, np.int64), np.ones((3, 4))),
        process_case("rewards that are all the same", np.full((4, 4), 0.1), some, two, mask),
    ]


def process_case(name: str, r: F, end: B, group: I, mask: F) -> Case:
    """A batch; the closed form normalises each step, then adds up those that end at or after a token."""
    steps, exact = end & (mask > 0), np.zeros(r.shape)
    normal = np.zeros(r.shape)
    for label in set(group.tolist()):
        at = steps & (group == label)[:, None]
        numbers_: Row = rational.exact(r[at])
        normal[at] = floats(literal_advantages(numbers_, "sample", EPS)) if numbers_ else []
    for i, t in np.ndindex(r.shape):
        exact[i, t] = mask[i, t] * sum((normal[i, u] for u in range(t, r.shape[1])), 0.0)
    return Case(name, (r, end, group, mask), r.shape, "i t", exact, cache(lambda: wrong_process(r, end, group, mask)))


def normalised(r: F, at: B, label: F | I, ddof: int = 1) -> F:
    """(r - mean) / (std + eps) of the entries `at`, those of one label together; 0 elsewhere."""
    found, labels = np.zeros(r.shape), np.broadcast_to(np.asarray(label)[:, None], r.shape)
    for y in np.unique(labels):
        own = at & (labels == y)
        spread = r[own].std(ddof=ddof) if own.sum() > ddof else 0.0
        found[own] = ratio(r[own] - r[own].mean(), spread + EPS) if spread > 1e-12 else 0.0
    return found


def wrong_process(r: F, end: B, group: I, mask: F) -> Mistakes:
    """Other means, other sums, other steps."""
    steps, each = end & (mask > 0), np.arange(len(r))

    def to_go(x: F) -> F:
        return np.asarray(mask * x[:, ::-1].cumsum(axis=1)[:, ::-1])

    x = normalised(r, steps, group)
    totals = np.where(steps, r, 0.0).sum(axis=1)
    spread = by_group(totals, group, lambda y: np.full(len(y), y.std(ddof=1)))
    outcome = ratio(totals - by_group(totals, group, np.mean), spread + EPS)
    centred = np.where(steps, r - mean_of(r, steps, group), 0.0)
    return [
        ("mean and std are those of the sequence instead of the group", to_go(normalised(r, steps, each))),
        ("mean and std are those of the batch instead of the group", to_go(normalised(r, steps, 0 * group))),
        ("the step that ends with the token is left out: index > t instead of >= t", to_go(x) - x),
        ("every token gets all steps of its sequence", mask * x.sum(axis=1, keepdims=True)),
        ("you add up the steps before the token instead of those after it", mask * x.cumsum(axis=1)),
        ("a token gets its own step alone: nothing is added up", x),
        ("tokens without a step count as rewards of 0", to_go(normalised(np.where(steps, r, 0.0), mask > 0, group))),
        ("you use the population's std: divide by the number of steps - 1", to_go(normalised(r, steps, group, 0))),
        ("you do not divide by the std", to_go(centred)),
        ("the rewards are not normalised", to_go(np.where(steps, r, 0.0))),
        ("the sum of a sequence's steps is treated as an outcome", mask * outcome[:, None]),
        ("steps behind the end count: the mask is not looked at", to_go(normalised(r, end, group))),
        ("the sign is wrong", -to_go(x)),
    ]


def mean_of(r: F, at: B, group: I) -> F:
    """Of each entry: the mean of its group's steps."""
    found = np.zeros(r.shape)
    for label in set(group.tolist()):
        own = group == label
        found[own] = r[own][at[own]].mean()
    return found
