"""What GRPO with a KL penalty does to the chance of success, when every step is solved exactly.

    logit p_n = logit p_ref + 1 / (beta sqrt(p_n-1 (1 - p_n-1)))

p chance of a right answer to one prompt, outcomes 0 and 1; z = logit p. Each step maximises the mean of the
std-normalised advantage less beta KL(pi || ref) over all policies: infinitely many samples, no clip, and with them
1 / sqrt(p (1-p)) is how much better a right answer stands than a wrong one. As 2 cosh(z / 2) is that number too,

    z_n = z_ref + (2 / beta) cosh(z_n-1 / 2)

is the same recursion without rounding near p = 1. beta > 0.
"""

from collections.abc import Iterator
from itertools import count
from math import asinh, cosh, exp, log, sinh, sqrt
from typing import NamedTuple

from tabrl.tokens.regularised import positive

LARGEST = 700.0  # logits beyond which p is 1 in floating point, and exp close to its limit


class Success(NamedTuple):
    """The chance of success after a step."""

    k: int  # steps so far
    p: float
    logit: float  # tells p from 1 where p itself is rounded


class Rest(NamedTuple):
    """A chance of success that a step leaves as it is."""

    p: float
    logit: float
    slope: float  # of the next logit in this one
    stable: bool  # |slope| < 1: what starts close by comes closer


def amplification(p_ref: float, beta: float, *, p: float | None = None) -> Iterator[Success]:
    """The chance of success, step after step, from p (the reference's own unless given).

    Ends only when p is 1 to rounding. There is no fixed point at 1: p approaches it when it has passed the unstable
    one. Raises ValueError. Source: Mroueh (2025), Reinforcement learning with verifiable rewards: GRPO's effective
    loss, dynamics, and success amplification, theorem 2; ledger E2.7.

    >>> from itertools import islice
    >>> [round(x.p, 4) for x in islice(amplification(0.5, 2.0), 4)]
    [0.7311, 0.7554, 0.7619, 0.7639]
    """
    z_ref, z = logit(p_ref, "p_ref"), logit(p_ref if p is None else p, "p")
    positive(beta)
    for k in count(1):
        z = z_ref + 2 * cosh(z / 2) / beta
        yield Success(k, probability(z), z)
        if z > LARGEST:
            return


def resting_points(p_ref: float, beta: float) -> list[Rest]:
    """The fixed points of `amplification` in (0, 1), smallest first: none, or two, which meet at beta_c.

    z_ref + (2 / beta) cosh(z / 2) - z is convex in z, smallest at 2 asinh(beta), where the recursion has slope 1. The
    larger root is always unstable, the smaller one stable where its slope sinh(z / 2) / beta is above -1. That is so
    for every p_ref above about .01; below, there is a range of beta with a root that steps jump across, ever further.
    Raises ValueError. Source: Mroueh (2025), section 4; ledger E2.7.

    >>> [(round(x.p, 4), x.stable) for x in resting_points(0.5, 2.0)]
    [(0.7647, True), (0.986, False)]
    >>> resting_points(0.5, 1.0)
    []
    """
    from scipy.optimize import brentq

    z_ref = logit(p_ref, "p_ref")
    positive(beta)

    def growth(z: float) -> float:
        return z_ref + 2 * cosh(z / 2) / beta - z

    middle = 2 * asinh(beta)
    if growth(middle) >= 0:
        return []
    high = middle + 1.0
    while growth(high) < 0:
        high = 2 * high
    roots = [brentq(growth, a, b, xtol=1e-14) for a, b in ((z_ref, middle), (middle, high))]
    slopes = [sinh(z / 2) / beta for z in roots]
    return [Rest(probability(z), z, g, abs(g) < 1) for z, g in zip(roots, slopes, strict=True)]


def beta_c(p_ref: float) -> float:
    """The beta above which `amplification` has fixed points, and below which p goes to 1.

        z_ref = 2 asinh(beta) - 2 sqrt(1 + beta^2) / beta

    where the two fixed points meet. The right side grows with beta, from -inf to inf: there is one such beta, and it
    grows with p_ref. Raises ValueError. Ledger E2.7.

    >>> round(beta_c(0.5), 6)
    1.50888
    """
    from scipy.optimize import brentq

    z_ref = logit(p_ref, "p_ref")

    def excess(log_beta: float) -> float:
        beta = exp(log_beta)
        return 2 * asinh(beta) - 2 * sqrt(1 + beta**2) / beta - z_ref

    width = 3 + abs(z_ref)
    return exp(brentq(excess, -width, width, xtol=1e-14))


def logit(p: float, name: str) -> float:
    """Log-odds of a probability strictly between 0 and 1."""
    if not 0 < p < 1:
        raise ValueError(f"{name} is {p}; a probability strictly between 0 and 1 is expected")
    return log(p) - log(1 - p)


def probability(z: float) -> float:
    """The inverse of `logit`."""
    return 1 / (1 + exp(-z)) if z > 0 else exp(z) / (1 + exp(z))
