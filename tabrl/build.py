"""Models from other people's formats: transition lists, gymnasium tables, action-major arrays."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.errors import ModelError, ShapeError
from tabrl.model_checks import unique
from tabrl.types import B, F, I, Names


def merge(
    transitions: Iterable[tuple[Any, Any, Any, float, float]],
    gamma: float,
    *,
    sparse: bool = False,
    **keywords: Any,
) -> dict[str, Any]:
    """Turn a list of (s, a, s_next, probability, reward) into the arguments of `MDP`."""
    table = list(transitions)
    check_table(table)
    ends = keywords.pop("terminal", None)
    ends = [] if ends is None else list(ends)
    masked = bool(ends) and all(isinstance(e, bool | np.bool_) for e in ends)  # else numbers or labels
    used = [x for row in table for x in (row[0], row[2])]
    states = number(used + (places(ends, used) if masked else numbered_or_used(ends, used)), "s")
    actions = number([row[1] for row in table], "a")
    s, s_next = (np.array([states[row[i]] for row in table]) for i in (0, 2))
    a = np.array([actions[row[1]] for row in table])
    p, x = checks.real([row[3] for row in table], "probability"), checks.real([row[4] for row in table], "reward")
    S, A = max(states.values()) + 1, max(actions.values()) + 1
    terminal = checks.mask(ends, "terminal", (S,)) if masked else np.zeros(S, np.bool_)
    if not masked:
        terminal[[states[e] for e in ends]] = True
    if isinstance(keywords.get("mu"), Mapping):
        keywords["mu"] = spread(keywords["mu"], states, S)
    if not all(isinstance(k, int | np.integer) for k in (*states, *actions)):
        keywords.setdefault("names", Names(tuple(map(str, states)), tuple(map(str, actions))))
    P, R = add_up(s * A + a, s_next, p, x, (S * A, S))
    legal = (P.sum(axis=1) > 0).reshape(S, A) if (p >= 0).all() else np.ones((S, A), np.bool_)
    check_lost(~legal.any(1) & ~terminal, states)
    if not sparse:
        P, R = P.toarray().reshape(S, A, S), R.toarray().reshape(S, A, S)
    return {"P": P, "R": R, "gamma": gamma, "terminal": terminal, "legal": legal, **keywords}


def check_table(table: list[Any]) -> None:
    """Refuse an empty list, and rows that are not five entries."""
    if not table:
        raise ModelError("transitions is empty; at least one (s, a, s_next, probability, reward) is expected")
    for i, row in enumerate(table):
        if len(row) != 5:
            raise ShapeError(
                f"transitions[{i}] has {len(row)} entries; (s, a, s_next, probability, reward) is expected"
            )


def places(mask: list[Any], used: list[Any]) -> list[int]:
    """Return the numbers 0, 1, … of the entries of a mask, when states are numbers and not labels."""
    return list(range(len(mask))) if all(isinstance(x, int | np.integer) for x in used) else []


def numbered_or_used(ends: list[Any], used: list[Any]) -> list[Any]:
    """Return the listed terminal states; a label that no transition uses is refused."""
    for e in ends:
        if not isinstance(e, int | np.integer) and e not in used:
            raise ModelError(f"terminal[{e!r}] occurs in no transition; the label of a state is expected")
    return ends


def check_lost(lost: B, states: dict[Any, int]) -> None:
    """Refuse states (S,) that have no transitions although they are not terminal."""
    if lost.any():
        s = int(np.argmax(lost))
        label = next((k for k, v in states.items() if v == s), s)
        raise ModelError(f"transitions[s={label!r}] is missing; a state without transitions must be listed in terminal")


def spread(weights: Mapping[Any, float], states: dict[Any, int], S: int) -> F:
    """Turn {label: probability} into (S,)."""
    mu = np.zeros(S)
    for label, weight in weights.items():
        if label not in states:
            raise ModelError(f"mu[{label!r}] is {weight}; the label of a state is expected")
        mu[states[label]] = weight
    return mu


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
    both = passed_through(s, s_next, over, terminal)
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


def passed_through(s: I, s_next: I, over: B, terminal: B) -> B:
    """Terminal states that are also entered without an end, from states that are left: (S,) mask."""
    both = np.zeros_like(terminal)
    while True:
        onward = np.zeros_like(terminal)
        onward[s_next[~over & ~(terminal & ~both)[s]]] = True
        if not (onward & terminal & ~both).any():
            return both
        both |= onward & terminal


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
        R = interleave(R, S, A, "R")
    elif np.ndim(R) == 3:
        R = interleave([sp.csr_array(x) for x in np.asarray(R)], S, A, "R")
    return interleave(P, S, A, "P"), R


def interleave(matrices: Any, S: int, A: int, name: str) -> Any:
    """Stack A sparse (S,S) matrices so that row s·A+a is row s of matrix a."""
    checked = [unique(m if sp.issparse(m) else sp.csr_array(m), f"{name}[a={a}]") for a, m in enumerate(matrices)]
    stacked = sp.vstack(checked, format="csr")  # row a·S+s
    order = (np.arange(A) * S + np.arange(S)[:, None]).ravel()
    return sp.csr_array(stacked[order])
