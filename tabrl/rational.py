"""Exact values of tiny models, in rational arithmetic: the judge of the solvers.

Stored floats are read as the exact numbers they are, and terminal rows count as zero. Only the arrays of a
model are read; no backup and no solver of the package is used.

P[s][a][s'], r[s][a], gamma, V[s] fractions; pi (S,A).
"""

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl.errors import ModelError
from tabrl.types import F

Row: TypeAlias = list[Fraction]
ZERO = Fraction()


class Tables(NamedTuple):
    """A model as nested lists of fractions; terminal states and illegal actions have zero rows."""

    P: list[list[Row]]  # [s][a][s']
    R: list[list[Row]]  # [s][a][s']
    r: list[Row]  # [s][a]
    gamma: Fraction
    choices: list[list[int]]  # actions of each state; one for a terminal state


def exact(x: Any) -> Any:
    """Read a float, or floats nested as an array is, as fractions.

    >>> exact([0.5, 3])
    [Fraction(1, 2), Fraction(3, 1)]
    """
    return [exact(y) for y in x] if np.ndim(x) else Fraction(float(x))


def tables(mdp: Any) -> Tables:
    """Read a model. Source: the definition of r in Puterman (1994), section 2.1."""
    S, A = mdp.legal.shape
    live = (mdp.legal & ~mdp.terminal[:, None])[:, :, None]
    P = exact(np.where(live, dense(mdp.P, (S, A, S)), 0.0))
    R = dense(mdp.R, (S, A, S))
    R = exact(np.where(live, R if R.ndim == 3 else np.broadcast_to(R[:, :, None], (S, A, S)), 0.0))
    r = [[dot(p, x) for p, x in zip(*pair, strict=True)] for pair in zip(P, R, strict=True)]
    if mdp.R.ndim == 2 and not hasattr(mdp.R, "toarray"):  # paid whatever follows, also where P sums to 1 + 1e-16
        r = [[row[a][0] for a in range(A)] for row in R]
    choices = [[0] if mdp.terminal[s] else np.flatnonzero(mdp.legal[s]).tolist() for s in range(S)]
    return Tables(P, R, r, Fraction(float(mdp.gamma)), choices)


def dense(x: Any, shape: tuple[int, ...]) -> F:
    """Return a NumPy array for a NumPy array or a CSR matrix with rows s·A + a."""
    return x.toarray().reshape(shape) if hasattr(x, "toarray") else np.asarray(x)


def dot(x: Sequence[Fraction], y: Sequence[Fraction]) -> Fraction:
    """Sum of products."""
    return sum((a * b for a, b in zip(x, y, strict=True) if a and b), ZERO)


def solve(M: list[Row], b: Row) -> Row:
    """Solve M x = b by elimination. Raises ZeroDivisionError when M is singular.

    >>> solve(exact([[2, 1], [1, 1]]), exact([3, 2]))
    [Fraction(1, 1), Fraction(1, 1)]
    """
    rows = [[*row, y] for row, y in zip(M, b, strict=True)]
    for k in range(len(b)):
        pivot = next((i for i in range(k, len(b)) if rows[i][k]), None)
        if pivot is None:
            raise ZeroDivisionError("the matrix is singular")
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i, row in enumerate(rows):
            if i != k and row[k]:
                rows[i] = [x - row[k] * y for x, y in zip(row, rows[k], strict=True)]
    return [row[-1] for row in rows]


def chain_values(P: list[Row], r: Row, gamma: Fraction) -> Row:
    """Values of a chain, V = (I - gamma P)^-1 r.

    At gamma = 1 states that never end and never pay have value 0; ModelError where one pays.

    >>> chain_values(exact([[0.5, 0.5], [0, 0]]), exact([1, 0]), Fraction(1))
    [Fraction(2, 1), Fraction(0, 1)]
    """
    S = len(r)
    resting = closed(P) if gamma == 1 else set()
    paid = sorted(s for s in resting if r[s])
    if paid:
        raise ModelError(f"r[{paid[0]}] is {float(r[paid[0]])} in a state that never ends; 0 is expected at gamma = 1")
    keep = [s for s in range(S) if s not in resting]
    V = [ZERO] * S
    M = [[(s == x) - gamma * P[s][x] for x in keep] for s in keep]
    for s, v in zip(keep, solve(M, [r[s] for s in keep]), strict=True):
        V[s] = v
    return V


def closed(P: list[Row]) -> set[int]:
    """States of closed classes: what follows them always leads back, and nothing ends."""
    reach = [descendants(P, s) for s in range(len(P))]
    return {s for s in range(len(P)) if all(any(P[x]) and s in reach[x] for x in reach[s])}


def descendants(P: list[Row], s: int) -> set[int]:
    """States that can follow s, s included."""
    seen, stack = {s}, [s]
    while stack:
        new = {x for x, p in enumerate(P[stack.pop()]) if p} - seen
        seen |= new
        stack.extend(new)
    return seen


def induced(t: Tables, pi: Any) -> tuple[list[Row], Row]:
    """P_pi[s][s'] and r_pi[s] of a policy (S,A), its floats read as they stand."""
    weights = exact(np.asarray(pi))
    P = [[dot(w, column) for column in zip(*rows, strict=True)] for w, rows in zip(weights, t.P, strict=True)]
    return P, [dot(w, r) for w, r in zip(weights, t.r, strict=True)]


def exact_policy_values(mdp: Any, pi: Any) -> Row:
    """V_pi as fractions.

    mdp: a small `MDP`. pi: (S,A), read as it stands. At gamma = 1 ModelError where a state that pays never
    ends. Source: Puterman (1994), theorem 6.1.1; ledger E1.2.

    >>> from tabrl.mdp import MDP
    >>> exact_policy_values(MDP([[[1.0], [1.0]]], [[1, 3]], 0.5), [[0.5, 0.5]])
    [Fraction(4, 1)]
    """
    return policy_values(tables(mdp), pi)


def policy_values(t: Tables, pi: Any) -> Row:
    """V_pi of a policy (S,A) from the tables of a model."""
    return chain_values(*induced(t, pi), t.gamma)


def action_values(t: Tables, V: Row) -> list[Row]:
    """Q[s][a] = r + gamma P V, for every action, legal or not."""
    return [[r + t.gamma * dot(p, V) for p, r in zip(*pair, strict=True)] for pair in zip(t.P, t.r, strict=True)]


def deterministic_policies(mdp: Any) -> Iterator[F]:
    """Every deterministic policy as one-hot (S,A): one for each choice of legal actions in non-terminal states."""
    A = mdp.legal.shape[1]
    for actions in itertools.product(*tables(mdp).choices):
        yield np.eye(A)[list(actions)]


def brute_force(mdp: Any) -> Row:
    """V_star as fractions: the best of all deterministic policies, state by state.

    For tiny models: A**S policies are evaluated. At gamma = 1 policies that never end and pay are left out
    when they only pay costs; ModelError where such a policy collects a positive reward.
    Source: Puterman (1994), theorem 6.2.10 (a deterministic policy is optimal in every state); ledger E1.4.

    >>> from tabrl.mdp import MDP
    >>> brute_force(MDP([[[1.0], [1.0]]], [[1, 3]], 0.5))
    [Fraction(6, 1)]
    """
    return best_values(tables(mdp))


def best_values(t: Tables) -> Row:
    """Evaluate all deterministic policies and take the best value of each state."""
    values = []
    for actions in itertools.product(*t.choices):
        P = [t.P[s][a] for s, a in enumerate(actions)]
        r = [t.r[s][a] for s, a in enumerate(actions)]
        if not costly(P, r, t.gamma):
            values.append(chain_values(P, r, t.gamma))
    if not values:
        raise ModelError("mdp has no policy that ends everywhere, and staying costs; a way out is expected")
    return [max(column) for column in zip(*values, strict=True)]


def costly(P: list[Row], r: Row, gamma: Fraction) -> bool:
    """Whether the chain pays costs for ever at gamma = 1; raise if it collects a positive reward for ever."""
    resting = closed(P) if gamma == 1 else set()
    gaining = sorted(s for s in resting if r[s] > 0)
    if gaining:
        raise ModelError(f"r[{gaining[0]}] is {float(r[gaining[0]])} where a policy can stay; 0 or less is expected")
    return any(r[s] for s in resting)


def occupancy(mdp: Any, pi: Any) -> Row:
    """Expected discounted visits d = mu' (I - gamma P_pi)^-1 as fractions. Ledger E1.3."""
    t = tables(mdp)
    P, _ = induced(t, pi)
    S = range(len(P))
    return solve([[(x == s) - t.gamma * P[s][x] for s in S] for x in S], exact(mdp.mu))


def return_distribution(mdp: Any, pi: Any, s: int) -> dict[Fraction, Fraction]:
    """Probability of every possible return from s, by walking through all trajectories.

    Only for models in which every trajectory ends; RecursionError otherwise. Ledger E1.1.

    >>> from tabrl.mdp import MDP
    >>> zero = [[0, 0, 0]]
    >>> coin = MDP([[[0, 0.5, 0.5]], zero, zero], [[[0, 1, 3]], zero, zero], 1.0, terminal=[0, 1, 1])
    >>> {int(g): float(p) for g, p in return_distribution(coin, np.ones((3, 1)), 0).items()}
    {1: 0.5, 3: 0.5}
    """
    t, weights = tables(mdp), exact(np.asarray(pi))
    found: dict[Fraction, Fraction] = {}

    def walk(s: int, G: Fraction, discount: Fraction, probability: Fraction) -> None:
        if not any(any(row) for row in t.P[s]):
            found[G] = found.get(G, ZERO) + probability
        for a, w in enumerate(weights[s]):
            for x, p in enumerate(t.P[s][a] if w else []):
                if p:
                    walk(x, G + discount * t.R[s][a][x], discount * t.gamma, probability * w * p)

    walk(s, ZERO, Fraction(1), Fraction(1))
    return found
