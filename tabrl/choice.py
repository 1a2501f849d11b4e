"""What "auto" tries on a model, and when it gives up on a method.

S states; V (S,) values; d (S,) change of a backup; bound certified error, tol the one asked for.
"""

import math
from typing import NamedTuple

import numpy as np

from tabrl import jacobi
from tabrl._jit import compiled
from tabrl.mdp import MDP
from tabrl.types import F

DIRECT = 500  # states up to which "auto" solves linear systems directly
PLAIN = 20_000  # states up to which linear systems are solved without numba
MIXES = 0.95  # times gamma: `mixing_rate` up to which sweeps over all states are the cheapest way


class Attempt(NamedTuple):
    """A method that "auto" tries; after `least` records it is given up if more than `patience` are to come."""

    name: str
    least: int = 0
    patience: float = math.inf
    V: F | None = None  # (S,) where it starts, if not at its own start
    follows: bool = False  # whether it goes on from what was found before


def plan(mdp: MDP) -> list[Attempt]:
    """What "auto" tries, in this order; without numba the loops of Gauss-Seidel take too long."""
    mixing = Attempt("modified_policy_iteration", 25, 100.0)
    along = Attempt("gauss_seidel_policy_iteration", 4, 20.0)
    sure = Attempt("policy_iteration")
    if mdp.S <= DIRECT:
        return [sure, along]
    surely = [sure._replace(follows=True), sure]  # what was found may suggest a policy that hardly ever ends
    if not compiled():
        return [mixing, *surely] if mdp.S <= PLAIN else [mixing._replace(patience=math.inf)]
    if mdp.gamma < 1:
        rate, V = mixing_rate(mdp)
        if rate <= MIXES * mdp.gamma:
            return [mixing._replace(V=V), along, *surely]
    return [along, *surely]


def mixing_rate(mdp: MDP, sweeps: int = 4) -> tuple[float, F]:
    """How much a backup of the policy with the best immediate rewards shrinks the span of its changes.

        (span d_n / span d_0)^(1/n),   d_k = V_k+1 - V_k,   V_0 = 0,   span d = max d - min d

    Terminal states count with the change 0. The rate is near 0 where the next state hardly depends on the present one,
    near 1 where it takes long to get anywhere. Also returns the last V_k (S,), from which sweeps can go on.

    >>> rate, V = mixing_rate(MDP([[[0.5, 0.5]], [[0.5, 0.5]]], [1, 0], 0.9))
    >>> round(rate, 3), V.round(3)
    (0.0, array([2.843, 1.843]))
    """
    V, spans = np.zeros(mdp.S), []
    TV, actions = jacobi.optimality(mdp, V)
    backup = jacobi.policy(mdp, actions)
    for _ in range(sweeps + 1):
        spans.append(np.ptp(TV - V))
        V, TV = TV, backup(TV)
    return (float((spans[-1] / spans[0]) ** (1 / sweeps)) if spans[0] > 0 else 0.0), TV


def remaining(before: float, bound: float, tol: float) -> float:
    """Records until the bound (or the residual) is tol, if it goes on shrinking as it just did.

    >>> round(remaining(1.0, 0.1, 1e-3), 9)
    2.0
    """
    if bound <= tol or not math.isfinite(before):
        return 0.0
    return math.log(tol / bound) / math.log(bound / before) if bound < before else math.inf
