"""Random models."""

import numpy as np
import scipy.sparse as sp

from tabrl.envs.chains import count
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.types import F, I, Matrix


def garnet(
    rng: np.random.Generator, S: int = 20, A: int = 4, branching: int = 3, *, gamma: float = 0.95, sparse: bool = False
) -> MDP:
    """Draw a Garnet: every (s, a) leads to `branching` states chosen at random.

        P(·|s,a): lengths of the pieces of [0, 1] cut at branching - 1 uniform points,
        r(s,a) ~ Normal(0, 1)

        s --a--> { s1: .2, s2: .5, s3: .3 }        (branching = 3)

    The next states of (s, a) are a uniformly drawn set without repetition. sparse: stored as CSR, drawn
    without an array of (S, A, S). Raises ModelError unless 1 <= branching <= S.
    Source: Archibald, McKinnon & Thomas (1995); rewards as in Bhatnagar et al. (2009).

    >>> garnet(np.random.default_rng(0), 10, 2, 3)
    MDP(S=10, A=2, gamma=0.95, 0 terminal, dense)
    """
    count("S", S, 1)
    count("A", A, 1)
    count("branching", branching, 1)
    if branching > S:
        raise ModelError(f"branching is {branching}; at most S = {S} next states are expected")
    s_next = subsets(rng, S * A, S, branching)
    p = spacings(rng, S * A, branching)
    R = rng.standard_normal((S, A))
    indptr = np.arange(S * A + 1) * branching
    P: Matrix = sp.csr_array((p.ravel(), s_next.ravel(), indptr), shape=(S * A, S))
    return MDP(P if sparse else P.toarray().reshape(S, A, S), R, gamma)


def garnet_example(
    seed: int = 7, S: int = 20, A: int = 4, branching: int = 3, *, gamma: float = 0.95, sparse: bool = False
) -> MDP:
    """Draw the Garnet of a seed: every (s, a) leads to `branching` states chosen at random.

        s --a--> { s1: .2, s2: .5, s3: .3 }        (branching = 3)

    The generator is numpy.random.default_rng(seed), seed 7 unless given; see `garnet`.
    Source: Archibald, McKinnon & Thomas (1995); rewards as in Bhatnagar et al. (2009).

    >>> garnet_example()
    MDP(S=20, A=4, gamma=0.95, 0 terminal, dense)
    """
    return garnet(np.random.default_rng(seed), S, A, branching, gamma=gamma, sparse=sparse)


def subsets(rng: np.random.Generator, m: int, n: int, k: int) -> I:
    """Draw m subsets of {0 … n-1}, uniform among those of size k: (m, k), sorted.

    Floyd's method: for j = n-k … n-1 draw t from {0 … j} and take t, or j where t is taken already.
    Source: Bentley & Floyd (1987), Programming pearls: a sample of brilliance.

    >>> subsets(np.random.default_rng(0), 1, 3, 3)
    array([[0, 1, 2]])
    """
    picks = np.empty((m, k), np.int64)
    for i, j in enumerate(range(n - k, n)):
        t = rng.integers(j + 1, size=m)
        taken = (picks[:, :i] == t[:, None]).any(1)
        picks[:, i] = np.where(taken, j, t)
    picks.sort(1)
    return picks


def spacings(rng: np.random.Generator, m: int, k: int) -> F:
    """Cut [0, 1] at k - 1 uniform points, m times: the lengths of the pieces, (m, k)."""
    cuts = np.sort(rng.random((m, k - 1)), 1)
    ends = np.hstack([np.zeros((m, 1)), cuts, np.ones((m, 1))])
    pieces: F = np.diff(ends, axis=1)
    return pieces
