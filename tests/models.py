"""Random models shared by the tests.

S <= 8 states, cyclic unless said otherwise; dense or sparse; with terminal states and masked actions or without.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

from tabrl import MDP

GAMMAS = (0.5, 0.9, 0.99, 0.999)
REWARDS = ("s", "sa", "sas")
Rng = np.random.Generator


def random_mdp(
    rng: Rng,
    *,
    S: int | None = None,
    A: int | None = None,
    gamma: float | None = None,
    terminal: bool | None = None,
    masked: bool | None = None,
    sparse: bool | None = None,
    rewards: str | None = None,
    proper: bool = False,
) -> MDP:
    """Draw a model; whatever is None is drawn too.

    State s can always move to s+1 (mod S) by its first action, so the model is cyclic. rewards: "s", "sa" or
    "sas", the axes of R. proper: every legal action ends with probability >= .05, so gamma = 1 is allowed.
    """
    S = int(rng.integers(2, 9)) if S is None else S
    A = int(rng.integers(1, 5)) if A is None else A
    gamma = float(rng.choice(GAMMAS)) if gamma is None else gamma
    terminal, masked, sparse = (bool(rng.random() < 0.5) if x is None else x for x in (terminal, masked, sparse))
    ends = np.zeros(S, np.bool_)
    if terminal or proper:
        ends[rng.choice(S, size=int(rng.integers(1, max(2, S // 2 + 1))), replace=False)] = True
    P = random_rows(rng, S, A)
    if proper:
        P = 0.9 * P
        P[:, :, np.flatnonzero(ends)[0]] += 0.1
    P /= P.sum(2, keepdims=True)
    legal = np.ones((S, A), np.bool_)
    if masked:
        legal[:, 1:] = rng.random((S, A - 1)) < 0.6
    axes = rng.choice(REWARDS) if rewards is None else rewards
    R = random_rewards(rng, (S, A, S)[: len(axes)], ends)
    P[ends], P[~legal] = 0.0, 0.0
    keywords: dict[str, Any] = {"terminal": ends, "legal": legal, "mu": rng.dirichlet(np.ones(S))}
    if not sparse:
        return MDP(P, R, gamma, **keywords)
    return MDP(csr(P), csr(R) if R.ndim == 3 else R, gamma, **keywords)


def random_rows(rng: Rng, S: int, A: int) -> Any:
    """(S,A,S) unnormalised non-negative rows on random supports, smooth or with repeated simple numbers."""
    weight = rng.exponential(size=(S, A, S)) if rng.random() < 0.5 else rng.integers(1, 8, (S, A, S)).astype(float)
    P = weight * (rng.random((S, A, S)) < rng.uniform(0.2, 1.0))
    P[np.arange(S), 0, (np.arange(S) + 1) % S] += 0.5
    some = rng.integers(0, S, (S, A))
    empty = P.sum(2) == 0
    P[empty, some[empty]] = 1.0
    return P


def random_rewards(rng: Rng, shape: tuple[int, ...], ends: Any) -> Any:
    """Rewards of a random size and sign, with many ties or none; terminal states pay nothing."""
    kinds = (rng.normal(size=shape), rng.integers(-2, 3, shape).astype(float), -rng.random(shape), rng.random(shape))
    R = kinds[int(rng.integers(len(kinds)))] * 10.0 ** int(rng.integers(-2, 3))
    R[ends] = 0.0
    return R


def csr(x: Any) -> Any:
    """(S,A,S) as CSR (S·A,S)."""
    return sp.csr_array(x.reshape(-1, x.shape[-1]))


def acyclic_mdp(rng: Rng, *, S: int = 5, A: int = 2, gamma: float = 0.9, sparse: bool = False) -> MDP:
    """Draw a model that moves only to higher states and ends in the last one."""
    P = np.triu(np.ones((S, S)), 1)[:, None, :] * rng.exponential(size=(S, A, S))
    P[:-1] /= P[:-1].sum(2, keepdims=True)
    R = rng.normal(size=(S, A, S))
    R[-1] = 0.0
    ends = np.arange(S) == S - 1
    return MDP(csr(P) if sparse else P, csr(R) if sparse else R, gamma, terminal=ends)


def random_policy(rng: Rng, mdp: MDP) -> Any:
    """Draw a stochastic policy on the legal actions; some legal actions may get no weight."""
    weight = rng.exponential(size=(mdp.S, mdp.A)) * (rng.random((mdp.S, mdp.A)) < 0.8) * mdp.legal
    stuck = weight.sum(1) == 0
    weight[stuck] = mdp.legal[stuck]
    return weight / weight.sum(1, keepdims=True)


def random_deterministic_policy(rng: Rng, mdp: MDP) -> Any:
    """Draw one legal action per state, one-hot (S,A)."""
    return np.eye(mdp.A)[np.where(mdp.legal, rng.random((mdp.S, mdp.A)), -1.0).argmax(1)]


def uniform_policy(mdp: MDP) -> Any:
    """Equal weight on every legal action."""
    return mdp.legal / mdp.legal.sum(1, keepdims=True)


def twin(mdp: MDP) -> MDP:
    """The same model in the other storage: dense becomes sparse, sparse becomes dense."""
    shape = (mdp.S, mdp.A, mdp.S)
    if mdp.is_sparse:
        R = mdp.R.toarray().reshape(shape) if sp.issparse(mdp.R) else mdp.R
        return replace(mdp, P=mdp.P.toarray().reshape(shape), R=R)
    return replace(mdp, P=csr(mdp.P), R=csr(mdp.R) if mdp.R.ndim == 3 else mdp.R)


def dense_P(mdp: MDP) -> Any:
    """P as a plain (S,A,S) array with zero rows for terminal states and illegal actions."""
    P = mdp.P.toarray().reshape(mdp.S, mdp.A, mdp.S) if mdp.is_sparse else mdp.P
    return np.where((mdp.legal & ~mdp.terminal[:, None])[:, :, None], P, 0.0)


def dense_R(mdp: MDP) -> Any:
    """R as a plain (S,A,S) array."""
    R = mdp.R.toarray() if sp.issparse(mdp.R) else mdp.R
    return (
        np.broadcast_to(R[:, :, None], (mdp.S, mdp.A, mdp.S))
        if R.shape == (mdp.S, mdp.A)
        else R.reshape(mdp.S, mdp.A, mdp.S)
    )


def same_bits(x: Any, y: Any) -> bool:
    """Whether two arrays, or two CSR matrices, hold the same bits."""
    if sp.issparse(x) != sp.issparse(y):
        return False
    if sp.issparse(x):
        return x.shape == y.shape and all(
            same_bits(getattr(x, k), getattr(y, k)) for k in ("data", "indices", "indptr")
        )
    x, y = np.asarray(x), np.asarray(y)
    return bool(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes())


def same_model(m: MDP, n: MDP) -> bool:
    """Whether two models agree in every bit."""
    arrays = all(same_bits(getattr(m, k), getattr(n, k)) for k in ("P", "R", "mu", "terminal", "legal"))
    return arrays and m.gamma == n.gamma and m.names == n.names


def generators() -> st.SearchStrategy[Rng]:
    """Seeded random generators."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def mdps(draw: st.DrawFn, /, **fixed: Any) -> MDP:
    """Hypothesis strategy: random models; keywords as in `random_mdp`."""
    options: dict[str, st.SearchStrategy[Any]] = {
        "S": st.integers(2, 8),
        "A": st.integers(1, 4),
        "gamma": st.sampled_from(GAMMAS),
        "terminal": st.booleans(),
        "masked": st.booleans(),
        "sparse": st.booleans(),
        "rewards": st.sampled_from(REWARDS),
    }
    drawn = {name: draw(choice) for name, choice in options.items() if name not in fixed}
    return random_mdp(draw(generators()), **drawn, **fixed)


@st.composite
def values(draw: st.DrawFn, mdp: MDP, size: float = 10.0) -> Any:
    """Hypothesis strategy: (S,) values, 0 on terminal states."""
    numbers = st.floats(-size, size, allow_subnormal=False)
    V = np.array(draw(st.lists(numbers, min_size=mdp.S, max_size=mdp.S)))
    return np.where(mdp.terminal, 0.0, V)
