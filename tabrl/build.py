"""Models from other people's formats: transition lists, gymnasium tables, action-major arrays."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from tabrl.errors import ModelError, ShapeError
from tabrl.types import F, I, Names


def merge(
    transitions: Iterable[tuple[Any, Any, Any, float, float]],
    gamma: float,
    *,
    sparse: bool = False,
    **keywords: Any,
) -> dict[str, Any]:
    """Turn a list of (s, a, s_next, probability, reward) into the arguments of `MDP`."""
    table = list(transitions)
    if not table:
        raise ModelError("transitions is empty; at least one (s, a, s_next, probability, reward) is expected")
    for i, row in enumerate(table):
        if len(row) != 5:
            raise ShapeError(
                f"transitions[{i}] has {len(row)} entries; (s, a, s_next, probability, reward) is expected"
            )
    ends = keywords.pop("terminal", None)
    if isinstance(ends, np.ndarray) and ends.dtype == np.bool_:
        ends = list(np.flatnonzero(ends))
    ends = [] if ends is None else list(ends)
    states = number([x for row in table for x in (row[0], row[2])] + ends, "s")
    actions = number([row[1] for row in table], "a")
    s, s_next = (np.array([states[row[i]] for row in table]) for i in (0, 2))
    a = np.array([actions[row[1]] for row in table])
    p, x = (np.array([row[i] for row in table], dtype=np.float64) for i in (3, 4))
    S, A = max(states.values()) + 1, max(actions.values()) + 1
    terminal = np.zeros(S, np.bool_)
    terminal[[states[e] for e in ends]] = True
    if isinstance(keywords.get("mu"), Mapping):
        mu = np.zeros(S)
        for label, weight in keywords["mu"].items():
            if label not in states:
                raise ModelError(f"mu[{label!r}] is {weight}; the label of a state is expected")
            mu[states[label]] = weight
        keywords["mu"] = mu
    if not all(isinstance(k, int | np.integer) for k in (*states, *actions)):
        keywords.setdefault("names", Names(tuple(map(str, states)), tuple(map(str, actions))))
    P, R = add_up(s * A + a, s_next, p, x, (S * A, S))
    legal = (P.sum(axis=1) > 0).reshape(S, A) if (p >= 0).all() else np.ones((S, A), np.bool_)
    lost = ~legal.any(1) & ~terminal
    if lost.any():
        label = next(k for k, v in states.items() if v == int(np.argmax(lost)))
        raise ModelError(f"transitions[s={label!r}] is missing; a state without transitions must be listed in terminal")
    if not sparse:
        P, R = P.toarray().reshape(S, A, S), R.toarray().reshape(S, A, S)
    return {"P": P, "R": R, "gamma": gamma, "terminal": terminal, "legal": legal, **keywords}


def number(keys: list[Any], what: str) -> dict[Any, int]:
    """Number labels in the order of appearance; integers from 0 keep their own number."""
    unique = dict.fromkeys(keys)
    if all(isinstance(k, int | np.integer) and not isinstance(k, bool) for k in unique):
        if min(unique) < 0:
            raise ModelError(f"transitions[{what}] is {min(unique)}; numbers from 0, or labels, are expected")
        return {int(k): int(k) for k in sorted(unique)} | ({} if 0 in unique else {0: 0})
    return {k: i for i, k in enumerate(unique)}


def add_up(row: I, col: I, p: F, x: F, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Sum duplicate entries; return P and the mean reward per entry, both CSR of one pattern."""
    bad = ~np.isfinite(p) | ~np.isfinite(x) | (p < 0)
    if bad.any():
        i = int(np.argmax(bad))
        raise ModelError(
            f"transitions[{i}] has probability {p[i]} and reward {x[i]}; finite numbers, probability >= 0, are expected"
        )
    P = sp.coo_array((p, (row, col)), shape=shape).tocsr()
    total = sp.coo_array((p * x, (row, col)), shape=shape).tocsr()
    P.sort_indices()
    total.sort_indices()
    mean = np.divide(total.data, P.data, out=np.zeros_like(total.data), where=P.data > 0)
    first = sp.coo_array((np.ones(len(p)), (row, col)), shape=shape).tocsr()
    first.sort_indices()
    exact = sp.coo_array((x, (row, col)), shape=shape).tocsr()
    exact.sort_indices()
    mean = np.where(first.data == 1, exact.data, mean)  # a single entry keeps its reward to the last bit
    return P, sp.csr_array((mean, P.indices.copy(), P.indptr.copy()), shape=shape)


def gym_tables(env: Any) -> dict[str, Any]:
    """Read `env.unwrapped.P` into the arguments of `MDP` (without gamma)."""
    table = getattr(getattr(env, "unwrapped", env), "P", None)
    if table is None:
        raise ModelError(
            f"env is {env!r}, which has no transition table P; "
            "a toy-text environment such as FrozenLake-v1, Taxi-v4 or CliffWalking-v1 is expected"
        )
    S, A = len(table), len(table[0])
    s, a, s_next, p, x, over = (
        np.array(c)
        for c in zip(
            *(
                (s, a, int(n), float(p), float(x), bool(d))
                for s in range(S)
                for a in range(A)
                for p, n, x, d in table[s][a]
            ),
            strict=True,
        )
    )
    possible = p > 0
    s, a, s_next, p, x, over = (c[possible] for c in (s, a, s_next, p, x, over))
    terminal = np.zeros(S, np.bool_)
    terminal[s_next[over]] = True
    both = np.zeros(S, np.bool_)
    both[s_next[~over & ~terminal[s]]] = True
    both &= terminal
    if both.any():  # an end that is also passed through: the ended entries go to a state of their own
        terminal = np.append(terminal & ~both, True)
        s_next = np.where(over & both[s_next], S, s_next)
        S += 1
    keep = ~terminal[s]
    P, R = add_up((s * A + a)[keep], s_next[keep], p[keep], x[keep], (S * A, S))
    mu = getattr(env.unwrapped, "initial_state_distrib", None)
    if mu is not None:
        mu = np.append(np.asarray(mu, np.float64), np.zeros(S - len(mu)))
    return {
        "P": P.toarray().reshape(S, A, S),
        "R": R.toarray().reshape(S, A, S),
        "mu": mu,
        "terminal": terminal,
    }


def from_action_major(P: Any, R: Any) -> tuple[Any, Any]:
    """Turn (A,S,S) arrays, or lists of A sparse (S,S) matrices, into P and R as `MDP` takes them."""
    if not any(sp.issparse(p) for p in P):
        P = np.asarray(P)
        if P.ndim != 3 or P.shape[1] != P.shape[2]:
            raise ShapeError(f"P has shape {P.shape}; (A, S, S) is expected")
        R = np.asarray(R)
        if R.ndim == 3:
            R = np.swapaxes(R, 0, 1)
        return np.swapaxes(P, 0, 1), R
    A, S = len(P), P[0].shape[0]
    for a, p in enumerate(P):
        if p.shape != (S, S):
            raise ShapeError(f"P[{a}] has shape {p.shape}; {(S, S)} is expected")
    if isinstance(R, list | tuple) and any(sp.issparse(x) for x in R):
        R = interleave(R, S, A)
    elif np.ndim(R) == 3:
        R = interleave([sp.csr_array(x) for x in np.asarray(R)], S, A)
    return interleave(P, S, A), R


def interleave(matrices: Any, S: int, A: int) -> Any:
    """Stack A sparse (S,S) matrices so that row s·A+a is row s of matrix a."""
    stacked = sp.vstack([sp.csr_array(m) for m in matrices], format="csr")  # row a·S+s
    order = (np.arange(A) * S + np.arange(S)[:, None]).ravel()
    return sp.csr_array(stacked[order])
