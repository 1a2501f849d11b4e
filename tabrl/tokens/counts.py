"""Sums over how the other samples of a group came out, and over how many tokens they have.

G samples in a group; M classes of samples, p (M,) their probabilities; n (C,M) one row for every way in which samples
can fall into classes; T a number of tokens. What a mean per token needs comes from one identity,

    1/T = integral over x from 0 to 1 of x^(T-1),   so   E[A / T] = integral of E[A x^(T-1)],

because the mean of x^T is a product over independent samples. The integrand is a polynomial: finitely many points x are
enough. X points; f (M,X) = sum over lengths t of P(class, t) x^t, which is p at x = 1.
"""

import math
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from tabrl._xp import at_least, one_of
from tabrl.advantages import STDS, spread
from tabrl.losses import HOWS
from tabrl.types import F, I

LARGEST = 2**24  # numbers in the largest table of an enumeration


class Estimator(NamedTuple):
    """A group estimator of the policy gradient: what `advantages.group_advantages` and `losses.aggregate` are told.

    With how="constant", length is the task's limit. GRPO is Estimator(G), DAPO Estimator(G, "group_token"), Dr. GRPO
    Estimator(G, "constant", "none"), RLOO the same with leave_one_out=True.
    """

    G: int
    how: str = "sequence"
    std: str = "sample"
    eps: float = 1e-4
    leave_one_out: bool = False


def check(rule: Estimator) -> None:
    """Require an estimator that exists. Raises ValueError."""
    one_of(HOWS, how=rule.how)
    one_of(STDS, std=rule.std)
    at_least(0, eps=rule.eps)
    if int(rule.G) != rule.G or rule.G < 2:
        raise ValueError(f"G is {rule.G}; a whole number >= 2 is expected: one sample has nothing to be compared with")


# ---- who falls into which class ----


@cache
def compositions(n: int, M: int) -> I:
    """Every way to divide n samples among M classes, (C,M), C = binomial(n + M - 1, M - 1).

    >>> compositions(2, 2).tolist()
    [[0, 2], [1, 1], [2, 0]]
    """
    C = math.comb(n + M - 1, M - 1)
    bars = np.array(list(combinations(range(n + M - 1), M - 1)), np.int64).reshape(C, M - 1)
    ends = np.column_stack([np.full(C, -1), bars, np.full(C, n + M - 1)])
    counts = np.diff(ends, axis=1) - 1
    counts.flags.writeable = False
    return counts


def chances(counts: I, f: F) -> F:
    """Weight of each composition at each point: the multinomial probabilities where f are probabilities.

        n! / (n_1! … n_M!) times f_1^n_1 … f_M^n_M

    counts: (C,M), each row summing to one n; f: (M,X) >= 0. Returns (C,X), exactly 0 where a class with f = 0 is hit.

    >>> chances(compositions(2, 2), np.array([[0.5], [0.5]])).ravel().round(12)
    array([0.25, 0.5 , 0.25])
    """
    n = int(counts[0].sum())
    log_factorial = np.array([math.lgamma(j + 1) for j in range(n + 1)])
    ways = log_factorial[n] - log_factorial[counts].sum(1)
    logs = np.log(np.where(f > 0, f, 1.0)) - 1e6 * (f <= 0)  # exp(-1e6) is 0, and 0 times it stays 0
    weight: F = np.exp(ways[:, None] + counts @ logs)
    return weight


def normalised(values: F, counts: I, rule: Estimator) -> F:
    """The advantage of each value in groups that hold each value so many times.

        (value - mean) / (std + eps),   or (value - mean of the others) / (std + eps);   0 in a group of equal values

    values: (U,), counts: (C,U). Returns (C,U), to be looked at where counts > 0. What `advantages.group_advantages`
    computes from the samples themselves.

    >>> normalised(np.array([0.0, 1.0]), np.array([[3, 1]]), Estimator(4, std="population", eps=0.0)).round(12)
    array([[-0.57735027,  1.73205081]])
    """
    size = np.maximum(counts.sum(1, keepdims=True), 1)
    moved = values - values[0]
    centred = moved - counts @ moved[:, None] / size
    centred[np.count_nonzero(counts, axis=1) <= 1] = 0.0
    A: F = centred * size / np.maximum(size - 1, 1) if rule.leave_one_out else centred
    if rule.std == "none":
        return A
    squares = (counts * centred**2).sum(1, keepdims=True)
    A = A / spread(squares / np.maximum(size - (rule.std == "sample"), 1), rule.eps)
    return A


def refuse_large(G: int, M: int, width: int) -> None:
    """Require an enumeration that fits. Raises ValueError."""
    C = math.comb(G + M - 2, M - 1)
    if C * width > LARGEST:
        raise ValueError(
            f"a group of {G} samples of {M} classes makes a table of {C} x {width}; at most {LARGEST} numbers "
            "are expected; take a smaller G, or rewards of fewer different values"
        )


# ---- how many tokens there are ----


@cache
def quadrature(degree: int) -> tuple[F, F]:
    """Points x and weights (X,) that integrate polynomials of at most this degree over [0, 1].

    Fejér's first rule; with degree + 1 points it is exact. Of x^d, d <= degree, more than 8 sqrt(degree) points see
    nothing but what is below e^-64 (Hoeffding's bound on its Chebyshev coefficients), so there are never more.
    Source: Waldvogel (2006), Fast construction of the Fejér and Clenshaw-Curtis quadrature rules, section 2.

    >>> x, w = quadrature(3)
    >>> (w * x**3).sum().round(15)
    np.float64(0.25)
    """
    N = min(degree + 1, math.ceil(8 * math.sqrt(degree)) + 8)
    angle = (np.arange(N) + 0.5) * (math.pi / N)
    k = np.arange(1, N // 2 + 1)
    w = (1 - 2 * np.cos(2 * np.outer(angle, k)) @ (1 / (4.0 * k**2 - 1))) / N
    x = np.cos(angle / 2) ** 2
    x.flags.writeable = w.flags.writeable = False
    return x, w


def token_weights(rule: Estimator, L: int, groups: int) -> tuple[F, F]:
    """Points x (X,), and u (L,X) that turn means at these points into the weight of a sequence of t tokens.

    E[A w | t tokens] = sum over x of u[t-1, x] E[A x^(tokens of the others)], where w is G times the number of groups
    times the weight that `losses.aggregate` gives to each token of the sequence. One point where the others' tokens do
    not matter.
    """
    t = np.arange(1, L + 1)[:, None]
    if rule.how == "sequence":
        return np.ones(1), 1.0 / t
    if rule.how == "constant":
        return np.ones(1), np.full((L, 1), 1.0 / L)
    size = rule.G if rule.how == "group_token" else rule.G * groups
    x, w = quadrature(size * L - 1)
    u: F = size * w * x ** (t - 1)
    return x, u
