"""What a user's losses are given in rows E1.15 and E1.16, and what they must return.

rho = exp(logp - logp_old) ratio; adv (T,) advantages; low, high how far a ratio may move; pi_old, pi_new (S,A).
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from tabrl.types import F
from tabrl.verify.mistakes import Mistakes
from tabrl.verify.own_surrogate import loss_of
from tabrl.verify.own_trust_region import kl_of
from tabrl.verify.record import Case

# E1.15

RATIOS = np.array([1.5, 1.5, 0.5, 0.5, 1.0, 1.125, 0.875, 3.0, 0.25, 1.25, 2.0, 0.75])
OLD = np.array([0.25, 0.5, 0.5, 0.25, 0.75, 0.5, 0.125, 0.25, 0.5, 0.375, 0.0625, 0.5])
ADV = np.array([1.0, -1.0, 1.0, -1.0, 2.0, -0.5, 0.5, 0.0, -2.0, 3.0, -1.5, -0.25])
SPREADS = ((0.25, 0.25), (0.1875, 0.375), (0.5, 0.0625))  # low, high: PPO's, DAPO's, and the other way round


@cache
def clip_cases() -> list[Case]:
    """E1.15: f(logp, logp_old, adv, low, high) -> loss of each step."""
    chosen = {
        "ratios within and beyond both bounds": np.arange(12),
        "good actions": np.flatnonzero(ADV > 0),
        "bad actions": np.flatnonzero(ADV < 0),
        "the policy that drew the actions": np.full(4, 4),
    }
    return [
        clip_case(f"{name}, low {low:g}, high {high:g}", OLD[k], RATIOS[k], ADV[k], low, high)
        for name, k in chosen.items()
        for low, high in SPREADS
    ]


def clip_case(name: str, old: F, rho: F, adv: F, low: float, high: float) -> Case:
    """Some steps; the closed form is -min(rho A, clip(rho, 1 - low, 1 + high) A)."""
    exact = [float(loss_of(Fraction(y), Fraction(a), low, high)) for y, a in zip(rho, adv, strict=True)]
    arguments = np.log(old * rho), np.log(old), adv, low, high
    return Case(name, arguments, rho.shape, "t", np.array(exact), cache(lambda: wrong_losses(old, rho, adv, low, high)))


def wrong_losses(old: F, rho: F, A: F, low: float, high: float) -> Mistakes:
    """Other ratios, other clips."""
    logp, held = np.log(old * rho), np.clip(rho, 1 - low, 1 + high)

    def loss(rho: F, low: float = low, high: float = high) -> F:
        return -np.minimum(rho * A, np.clip(rho, 1 - low, 1 + high) * A)

    return [
        ("the sign is wrong, the objective instead of the loss", -loss(rho)),
        ("log pi multiplies the objective: ratio times advantage is all there is", loss(rho) * logp),
        ("log pi multiplies the objective: ratio times advantage is all there is",
            -np.minimum(rho * A * logp, held * A * logp)),
        ("you leave out the minimum: the clipped ratio alone", -held * A),
        ("you leave out the clip: the ratio alone", -rho * A),
        ("you take the larger of the two terms: the clip works the wrong way round", -np.maximum(rho * A, held * A)),
        ("the ratio is upside down (old over new)", loss(1 / rho)),
        ("you use log rho instead of rho: exp is missing", loss(np.log(rho))),
        ("you use pi instead of the ratio: logp_old is missing", loss(np.exp(logp))),
        ("low and high are exchanged", loss(rho, high, low)),
        ("you use low on both sides", loss(rho, low, low)),
        ("you use high on both sides", loss(rho, high, high)),
        ("the minimum is taken before multiplying by A: a bad action is cut at 1 + high like a good one",
            -np.minimum(rho, 1 + high) * A),
        ("a good action is cut at 1 - low like a bad one; it needs 1 + high", -np.maximum(rho, 1 - low) * A),
        ("you clip on one side alone, at 1 + high: bad actions go on below 1 - low",
            -np.minimum(rho * A, np.minimum(rho, 1 + high) * A)),
        ("you clip on one side alone, at 1 - low: good actions go on beyond 1 + high",
            -np.minimum(rho * A, np.maximum(rho, 1 - low) * A)),
        ("the ratio is always 1: logp_old must be that of the policy which drew the action", -A),
        ("you multiply log pi by the advantage: there is no ratio (REINFORCE)", -logp * A),
        ("the advantages are whitened first", whitened(rho, A, low, high)),
    ]  # fmt: skip


def whitened(rho: F, A: F, low: float, high: float) -> F:
    """Mean 0, standard deviation 1."""
    B = (A - A.mean()) / (A.std() + 1e-8)
    smaller: F = np.minimum(rho * B, np.clip(rho, 1 - low, 1 + high) * B)
    return -smaller


# E1.16


@cache
def kl_cases() -> list[Case]:
    """E1.16: f(pi_old, pi_new) -> KL(pi_old, pi_new) of each state."""
    rng = np.random.default_rng(29)
    some, other = rng.dirichlet(np.ones(3), 4), rng.dirichlet(np.ones(3), 4)
    even = np.full((2, 4), 0.25)
    far = np.array([[0.7, 0.2, 0.05, 0.05], [0.125, 0.125, 0.5, 0.25]])
    sure = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    close = some * np.array([1.01, 0.99, 1.0]) / (some * np.array([1.01, 0.99, 1.0])).sum(axis=1, keepdims=True)
    return [
        kl_case("three actions", some, other),
        kl_case("three actions, the other way round", other, some),
        kl_case("from the uniform policy", even, far),
        kl_case("to the uniform policy", far, even),
        kl_case("actions that the old policy never takes", sure, np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])),
        kl_case("policies that are close", 0.5 * some + 0.5 * close, close),
        kl_case("the same policy", some, some),
    ]


def kl_case(name: str, old: F, new: F) -> Case:
    """Two policies; 0 log 0 = 0."""
    exact = np.array([kl_of(p, q) for p, q in zip(old, new, strict=True)])
    return Case(name, (old, new), exact.shape, "s", exact, cache(lambda: wrong_divergences(old, new)))


def wrong_divergences(old: F, new: F) -> Mistakes:
    """Other directions, other weights, other distances."""

    def rows(f: Callable[[Any, Any], float]) -> F:
        return np.array([f(p, q) for p, q in zip(old, new, strict=True)])

    exact = rows(kl_of)
    wrong = [
        ("the sign is wrong", -exact),
        ("the logarithm has base 2; nats are expected", exact / math.log(2)),
        ("you leave out the entropy of the old policy (cross-entropy)", rows(lambda p, q: -sum(p * np.log(q)))),
        ("you return the total variation", abs(old - new).sum(axis=1) / 2),
        ("you return the squared distance", ((old - new) ** 2).sum(axis=1)),
        ("you take the mean over the actions instead of the sum", exact / old.shape[1]),
    ]
    if not old.all():
        return wrong
    logs = np.log(old) - np.log(new)
    turned = rows(lambda p, q: kl_of(q, p))
    return [
        ("the direction is reversed, KL(pi_new, pi_old)", turned),
        ("you average both directions", (exact + turned) / 2),
        ("you add both directions", exact + turned),
        ("the logarithms are not weighed by pi_old", logs.sum(axis=1)),
        ("the logarithms are weighed alike instead of by pi_old", logs.mean(axis=1)),
        *wrong,
    ]
