"""Inexact policy iteration on a model whose rows are spread over processes.

V (n,) values of the states first, …, last - 1 of this process; Q, pi (n,A); residual and bound are those of all states.
Every process calls the same functions with the same arguments: `mpirun -n 2 python script.py`.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple, cast, overload

import numpy as np

from tabrl import bellman, checks
from tabrl.mdp import MDP
from tabrl.petsc.evaluation import krylov, sweeps
from tabrl.petsc.part import Part, part_of
from tabrl.petsc.processes import gather, total
from tabrl.petsc.rows import Rows
from tabrl.petsc.values import Backup, Values, judge
from tabrl.stopping import status
from tabrl.trace import last
from tabrl.types import F, Solution

LIMIT = 100_000
SLOW = 0.5  # a round that leaves more of the bound than this is followed by a Krylov solve
PATIENCE = 16  # most rounds without one after solves that did not help
NAME = "inexact_policy_iteration"


class Round(NamedTuple):
    """One round: an optimality backup, and the evaluation of the policy that led to it."""

    k: int
    V: F  # (n,) values of this process's states
    residual: float  # max over all states of |T V_before - V_before|
    bound: float  # certified max |V - V_star| over all states
    changed: int  # states, of all, whose action changed
    inner: int  # Krylov iterations of the evaluation; 0 where it was done by sweeps alone


class Share(NamedTuple):
    """What a process knows of the answer: the states first, …, last - 1; the bounds hold for all states."""

    first: int
    last: int
    solution: Solution  # V (n,), Q (n,A), pi (n,A)


def inexact_policy_iteration(model: MDP | Rows, *, tol: float = 1e-8, limit: int = LIMIT) -> Iterator[Round]:
    """Policy iteration whose policies are evaluated only roughly, on all processes together.

        pi greedy in V,     V <- nearly (I - gamma P_pi)^-1 r_pi

    A policy is evaluated by sweeps, each process over its own states with the newest values it has of others. Where a
    round of them no longer halves the bound, a Krylov method evaluates the policy, to 2 digits while it still changes;
    what that gives is dropped unless the bound falls to 3/4 of the least so far. V starts below V_star. gamma < 1.
    Each round is certified by a backup of all states at once (`bellman.enclosure`); its V is the middle of what is
    possible. Stops when the bound is at most tol, at the rounding floor, or after `limit` rounds.
    Raises ModelError, the same on all processes, and MissingExtra without petsc4py.
    Source: Gargiani et al. (2023), inexact policy iteration; Puterman (1994), section 6.5. Ledger E1.5.
    """
    checks.tolerance(tol)
    yield from rounds(part_of(model), tol, limit)


def rounds(part: Part, tol: float, limit: int) -> Iterator[Round]:
    """Rounds on the part of this process; see `inexact_policy_iteration`."""
    V, before, best, inner, rest, pause = Values(part), np.inf, np.inf, 0, 0, 1
    V.own[:] = np.where(part.terminal, 0.0, part.lowest)
    actions: Any = np.zeros(part.n, np.uint32)
    for k in count(1):
        x = judge(V)
        changed, best = improve(V, x, actions), min(best, x.bound)
        yield Round(k, part.laid_out(x.V), x.residual, x.bound, changed, inner)
        if x.bound <= tol or k >= limit or not x.bound > 2 * x.floor:
            return
        V.own[:], inner, helped = np.where(part.terminal, 0.0, x.TV + x.shift), 0, False
        if rest == 0 and x.bound > SLOW * before:
            helped, inner = krylov(V, actions, best, 1.0 if changed else tol / x.bound)
            rest, pause = (0, 1) if helped else (pause, min(2 * pause, PATIENCE))
        else:
            rest = max(rest - 1, 0)
        if not helped:
            sweeps(V, actions)
        before = x.bound


def improve(V: Values, x: Backup, actions: Any) -> int:
    """Take the greedy action where it is better by more than rounding; return how many states, of all, changed."""
    scales = V.part.scales
    margin = 2 * bellman.rounding(cast(MDP, scales), scales.R_max + scales.gamma * x.V_max)
    better = x.Q[np.arange(len(x.Q)), actions] + margin < x.TV
    actions[better] = x.Q.argmax(axis=1)[better]
    return int(total(better.sum()))


@overload
def solve(model: MDP, *, tol: float = ..., limit: int = ...) -> Solution: ...
@overload
def solve(model: Rows, *, tol: float = ..., limit: int = ...) -> Share: ...


def solve(model: MDP | Rows, *, tol: float = 1e-8, limit: int = LIMIT) -> Solution | Share:
    """Compute V_star, a policy and a certified bound on the error of both, on all processes together.

        max |V - V_star| <= bound,   max |Q - Q_star| <= bound,   max (V_star - V_pi) <= policy_loss_bound

    model: an MDP, which every process holds and whose whole Solution every process returns; or `Rows`, of which each
    process builds and returns its own, as a Share (`gather(share.solution.V)` is V (S,)). The answer is one more backup
    of what `inexact_policy_iteration` found; tol, limit and errors as there, the fields of a Solution as in `dp.solve`.
    """
    checks.tolerance(tol)
    part = part_of(model)
    record = last(rounds(part, tol, limit))
    solution = report(part, record, tol, limit)
    if not isinstance(model, MDP):
        return Share(part.first, part.first + part.n, solution)
    return solution._replace(V=gather(solution.V), Q=gather(solution.Q), pi=gather(solution.pi))


def report(part: Part, record: Round, tol: float, limit: int) -> Solution:
    """Back the last values up once more, certify them with their policy, and say why the iteration ended."""
    V = Values(part)
    V.own[:] = record.V[part.order]
    x = judge(V)
    Q, pi = part.laid_out(x.Q), bellman.greedy(part.laid_out(x.Q))
    live = np.isfinite(Q) & ~part.laid_out(part.terminal)[:, None]
    Q = np.where(live, Q + x.middle, 0.0)
    return Solution(
        part.laid_out(x.V),
        Q,
        pi,
        x.bound,
        x.loss,
        record.k,
        x.bound <= tol,
        status(x.bound, record.k, tol, limit),
        NAME,
    )
