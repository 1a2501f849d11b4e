"""The judge: values of small models in exact rational arithmetic.

Stored floats are read as the exact numbers they are; terminal rows count as zero. Nothing here is shared with
the package: P, R, gamma, terminal and legal are the only things read from a model.
"""

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

Row = list[Fraction]


def exact(x: Any) -> Any:
    """Read floats, nested as an array is, as fractions."""
    return [exact(y) for y in x] if np.ndim(x) else Fraction(float(x))


def tables(mdp: Any) -> tuple[list[list[Row]], list[Row], Fraction]:
    """P[s][a][s'], r[s][a] and gamma as fractions; terminal states and illegal actions have zero rows."""
    S, A = mdp.legal.shape
    P, R = dense(mdp.P, (S, A, S)), dense(mdp.R, (S, A, S))
    probability = exact(np.where((mdp.legal & ~mdp.terminal[:, None])[:, :, None], P, 0.0))
    reward = exact(R)
    if R.ndim == 3:
        reward = [
            [
                sum((p * x for p, x in zip(*pair, strict=True) if p and x), Fraction())
                for pair in zip(*rows, strict=True)
            ]
            for rows in zip(probability, reward, strict=True)
        ]
    return probability, reward, Fraction(float(mdp.gamma))


def dense(x: Any, shape: tuple[int, ...]) -> Any:
    """A NumPy array from a NumPy array or a CSR matrix."""
    return x.toarray().reshape(shape) if hasattr(x, "toarray") else np.asarray(x)


def solve(M: list[Row], b: Row) -> Row:
    """Solve M x = b by fraction-free elimination (Bareiss 1968). Raises ZeroDivisionError if M is singular."""
    n = len(b)
    rows = [whole([*row, y]) for row, y in zip(M, b, strict=True)]
    previous = 1
    for k in range(n):
        pivot = next((i for i in range(k, n) if rows[i][k]), None)
        if pivot is None:
            raise ZeroDivisionError("the matrix is singular")
        rows[k], rows[pivot] = rows[pivot], rows[k]
        top, head = rows[k], rows[k][k]
        for i in range(k + 1, n):
            row, lead = rows[i], rows[i][k]
            rows[i] = [0] * (k + 1) + [(head * row[j] - lead * top[j]) // previous for j in range(k + 1, n + 1)]
        previous = head
    x = [Fraction()] * n
    for i in reversed(range(n)):
        x[i] = (rows[i][n] - sum((rows[i][j] * x[j] for j in range(i + 1, n)), Fraction())) / rows[i][i]
    return x


def whole(row: Row) -> list[int]:
    """Multiply a row by its common denominator."""
    scale = math.lcm(*(y.denominator for y in row))
    return [y.numerator * (scale // y.denominator) for y in row]


def chain_values(P: list[Row], r: Row, gamma: Fraction) -> Row:
    """V = (I - gamma P)^-1 r; at gamma = 1, states that never end and never pay have value 0."""
    S = len(r)
    resting = unpaid(P, r) if gamma == 1 else set()
    keep = [s for s in range(S) if s not in resting]
    M = [[(s == x) - gamma * P[s][x] for x in keep] for s in keep]
    V = [Fraction()] * S
    for s, v in zip(keep, solve(M, [r[s] for s in keep]), strict=True):
        V[s] = v
    return V


def unpaid(P: list[Row], r: Row) -> set[int]:
    """States of closed classes. Raises ZeroDivisionError when one of them pays: there is no finite value."""
    reach = [descendants(P, s) for s in range(len(P))]
    closed = {s for s in range(len(P)) if any(P[s]) and all(any(P[x]) and s in reach[x] for x in reach[s])}
    if any(r[s] for s in closed):
        raise ZeroDivisionError("a closed class pays at gamma = 1")
    return closed


def descendants(P: list[Row], s: int) -> set[int]:
    """States that can follow s, s included."""
    seen, stack = {s}, [s]
    while stack:
        new = {x for x, p in enumerate(P[stack.pop()]) if p} - seen
        seen |= new
        stack.extend(new)
    return seen


def exact_policy_values(mdp: Any, pi: Any) -> Row:
    """V_pi, as fractions; pi (S,A) is read as it stands, without normalising its rows."""
    P, r, gamma = tables(mdp)
    S, A = mdp.legal.shape
    weight = exact(np.asarray(pi))
    mixed = [
        [sum((weight[s][a] * P[s][a][x] for a in range(A) if weight[s][a]), Fraction()) for x in range(S)]
        for s in range(S)
    ]
    paid = [sum((weight[s][a] * r[s][a] for a in range(A) if weight[s][a]), Fraction()) for s in range(S)]
    return chain_values(mixed, paid, gamma)


def exact_optimal_values(mdp: Any) -> Row:
    """V_star by policy iteration in fractions; at gamma = 1 every policy must end."""
    P, r, gamma = tables(mdp)
    S = len(r)
    choices = [[int(a) for a in np.flatnonzero(row)] for row in mdp.legal]
    policy = guess(mdp)
    while True:
        V = chain_values([P[s][policy[s]] for s in range(S)], [r[s][policy[s]] for s in range(S)], gamma)
        better = list(policy)
        for s in range(S):
            Q = {a: backup(P[s][a], r[s][a], gamma, V) for a in choices[s]}
            best = max(choices[s], key=Q.__getitem__)
            if Q[best] > V[s]:
                better[s] = best
        if better == policy:
            return V
        policy = better


def backup(row: Row, reward: Fraction, gamma: Fraction, V: Row) -> Fraction:
    """r + gamma P V of one state and action."""
    return reward + gamma * sum((p * v for p, v in zip(row, V, strict=True) if p), Fraction())


def guess(mdp: Any) -> list[int]:
    """A good policy to start from, by 200 sweeps in floats; only the speed of the judge depends on it."""
    S, A = mdp.legal.shape
    P, R = dense(mdp.P, (S, A, S)), dense(mdp.R, (S, A, S))
    P = np.where(mdp.terminal[:, None, None], 0.0, P)
    r = (P * R).sum(2) if R.ndim == 3 else R
    V = np.zeros(S)
    for _ in range(200):
        Q = np.where(mdp.legal, r + float(mdp.gamma) * (P @ V), -np.inf)
        V = Q.max(1)
    return [int(a) for a in Q.argmax(1)]


def deterministic_policies(mdp: Any) -> Iterator[Any]:
    """Every deterministic policy as one-hot (S,A), one per choice in the non-terminal states."""
    S, A = mdp.legal.shape
    choices = [[0] if mdp.terminal[s] else np.flatnonzero(mdp.legal[s]).tolist() for s in range(S)]
    for actions in itertools.product(*choices):
        yield np.eye(A)[list(actions)]


def brute_force_optimal_values(mdp: Any) -> Row:
    """V_star as the best of all deterministic policies, state by state; for tiny models."""
    values = [exact_policy_values(mdp, pi) for pi in deterministic_policies(mdp)]
    return [max(column) for column in zip(*values, strict=True)]


def distance(V: Any, exact_values: Row) -> Fraction:
    """max |V - exact V|, exact."""
    return max((abs(Fraction(float(v)) - x) for v, x in zip(V, exact_values, strict=True)), default=Fraction())


def shortfall(best: Row, other: Row) -> Fraction:
    """max (best - other), exact."""
    return max(b - o for b, o in zip(best, other, strict=True))


def at_most(value: Fraction, bound: float) -> bool:
    """Whether an exact number lies within a float bound (inf included)."""
    return math.isinf(bound) or value <= Fraction(bound)
