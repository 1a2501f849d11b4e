"""The models of benchmarks/dp.py.

S, A numbers of states and actions; every constructor is deterministic (generators have fixed seeds).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import MDP, envs


class Model(NamedTuple):
    """A model of the benchmark, how its reference is computed, and what it is called in the table."""

    build: Callable[[], MDP]
    linear: str  # how the reference evaluates a policy: "dense", "lu", or "sweeps"
    title: str


def renamed(mdp: MDP, seed: int) -> MDP:
    """Number the states in a random order."""
    new = np.random.default_rng(seed).permutation(mdp.S)  # state s becomes new[s]
    rows = (new[:, None] * mdp.A + np.arange(mdp.A)).ravel()
    P = mdp.P.tocoo()
    P = sp.csr_array((P.data, (rows[P.row], new[P.col])), shape=P.shape)
    r, terminal = np.empty((mdp.S, mdp.A)), np.empty(mdp.S, bool)
    r[new], terminal[new] = mdp.r, mdp.terminal
    return MDP(P, r, mdp.gamma, terminal=terminal)


def dense(S: int, A: int, gamma: float, seed: int = 0) -> MDP:
    """Model in which every action can lead everywhere: rows uniform in the cube, divided by their sum; r ~ Normal."""
    rng = np.random.default_rng(seed)
    P = rng.random((S, A, S))
    P /= P.sum(axis=2, keepdims=True)
    return MDP(P, rng.standard_normal((S, A)), gamma)


def forest(S: int, gamma: float, *, r1: float = 4.0, r2: float = 2.0, p: float = 0.1) -> MDP:
    """`envs.forest` as a sparse model: the dense one would take 1.6 GB at 10,000 states."""
    s = np.arange(S)
    row = np.concatenate([2 * s, 2 * s, 2 * s + 1])
    column = np.concatenate([np.zeros(S, int), np.minimum(s + 1, S - 1), np.zeros(S, int)])
    P = sp.csr_array((np.repeat([p, 1 - p, 1.0], S), (row, column)), shape=(2 * S, S))
    R = np.zeros((S, 2))
    R[1:, 1], R[-1] = 1.0, (r1, r2)
    return MDP(P, R, gamma)


def two_rooms(gamma: float, n: int = 200) -> MDP:
    """Two rooms of n x n cells with one door; every step that ends in the far corner pays 1; nothing ends.

        S . . # . . .
        . . . . . . .        (n = 3)
        . . . # . . R

    Four actions; with probability .2 a move is turned by 90 degrees.
    """
    rows = [list("." * n + "#" + "." * n) for _ in range(n)]
    rows[0][0], rows[n // 2][n], rows[-1][-1] = "S", ".", "R"
    text = "\n".join("".join(row) for row in rows)
    world = envs.grid(text, rewards={"R": 1.0}, slip=0.2, gamma=gamma, sparse=True)
    return MDP(world.P, world.r, gamma)


def garnet(S: int, A: int, branching: int, gamma: float) -> MDP:
    """Sparse Garnet of seed 0."""
    return envs.garnet(np.random.default_rng(0), S, A, branching, gamma=gamma, sparse=True)


def grid(n: int, gamma: float) -> MDP:
    """Slippery grid of n x n cells as a plain model."""
    return envs.slippery_grid(n, gamma=gamma)


MODELS = {
    "grid1000": Model(lambda: grid(1000, 0.99), "sweeps", "grid 1000 × 1000, γ .99"),
    "grid1000-999": Model(lambda: grid(1000, 0.999), "sweeps", "grid 1000 × 1000, γ .999"),
    "grid300": Model(lambda: grid(300, 0.99), "lu", "grid 300 × 300, γ .99"),
    "grid300-999": Model(lambda: grid(300, 0.999), "lu", "grid 300 × 300, γ .999"),
    "grid300-renamed": Model(lambda: renamed(grid(300, 0.99), 0), "sweeps", "grid 300 × 300, γ .99, states renamed"),
    "garnet-large": Model(lambda: garnet(200_000, 4, 5, 0.99), "sweeps", "Garnet 200,000 × 4, branching 5, γ .99"),
    "garnet-small": Model(lambda: garnet(2_000, 10, 20, 0.95), "dense", "Garnet 2,000 × 10, branching 20, γ .95"),
    "dense": Model(lambda: dense(1_000, 20, 0.95), "dense", "dense 1,000 × 20, γ .95"),
    "forest": Model(lambda: forest(10_000, 0.96), "lu", "forest 10,000 × 2, γ .96"),
    "rooms-99": Model(lambda: two_rooms(0.99), "lu", "two rooms, γ .99"),
    "rooms-999": Model(lambda: two_rooms(0.999), "lu", "two rooms, γ .999"),
    "rooms-9999": Model(lambda: two_rooms(0.9999), "lu", "two rooms, γ .9999"),
}


def small(mdp: MDP) -> MDP:
    """Return a small model stored like `mdp`, for compiling before the clock runs; large enough for every method."""
    return grid(40, 0.99) if mdp.is_sparse else dense(700, 3, 0.9)


def by_name(name: str) -> MDP:
    """Build a model by its key in MODELS, or "grid:SIDE:GAMMA" or "rooms:GAMMA" (the points of the plots)."""
    if name in MODELS:
        return MODELS[name].build()
    kind, *numbers = name.split(":")
    if kind == "grid":
        return grid(int(numbers[0]), float(numbers[1]))
    if kind == "rooms":
        return two_rooms(float(numbers[0]))
    raise ValueError(f"model is {name!r}; one of {', '.join(MODELS)}, grid:SIDE:GAMMA or rooms:GAMMA is expected")


def size(mdp: MDP) -> int:
    """Bytes of the arrays of the model."""
    P = mdp.P
    stored = P.data.nbytes + P.indices.nbytes + P.indptr.nbytes if mdp.is_sparse else P.nbytes
    return int(stored + mdp.r.nbytes)
