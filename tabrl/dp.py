"""Exact solvers: every answer comes with a certified bound.

V (S,) values; Q (S,A); pi (S,A); tol absolute accuracy asked for; k iterations. METHODS names what
computes V_star; `solve` runs one of them and says how far its answer can be from the truth.
"""

import difflib
import math
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np

from tabrl import bellman, checks, jacobi, undiscounted
from tabrl.average import relative_value_iteration
from tabrl.chain import evaluate, induce
from tabrl.choice import plan, remaining
from tabrl.errors import ModelError, NotConverged
from tabrl.lp import linear_program
from tabrl.mdp import MDP
from tabrl.rounding import UP, U
from tabrl.sliding import gauss_seidel_policy_iteration
from tabrl.stopping import LIMIT, changes, status
from tabrl.sweeps import (
    gauss_seidel,
    modified_policy_iteration,
    policy_evaluation,
    prioritized_sweeping,
    value_iteration,
)
from tabrl.trace import last
from tabrl.types import F, I, Improvement, Solution, Stage

__all__ = [
    "METHODS",
    "backward_induction",
    "gauss_seidel",
    "gauss_seidel_policy_iteration",
    "linear_program",
    "modified_policy_iteration",
    "policy_evaluation",
    "policy_iteration",
    "prioritized_sweeping",
    "relative_value_iteration",
    "solve",
    "value_iteration",
]


def policy_iteration(mdp: MDP, *, pi: F | None = None, tol: float = 1e-8, limit: int = LIMIT) -> Iterator[Improvement]:
    """Policy iteration: evaluate the policy exactly, then make it greedy; stop when nothing improves.

    pi: (S,A) deterministic start; the best immediate reward unless given (at gamma = 1 a policy that
    ends). An action is kept unless another is better by more than rounding, so ties cannot cycle; it also
    stops when a round no longer raises any value. tol plays no part in the iteration.
    Source: Howard (1960); Puterman (1994), section 6.4. Ledger E1.5.

    >>> two = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [2, 2]], 0.9)
    >>> [x.changed for x in policy_iteration(two)]
    [1, 0]
    """
    checks.tolerance(tol)
    w = undiscounted.weight(mdp)
    actions, V_old = first_actions(mdp, pi), np.full(mdp.S, -np.inf)
    for k in count(1):
        V = evaluate(induce(mdp, bellman.one_hot(actions, mdp.A)))
        residual = float(abs(bellman.optimality(mdp, V) - V).max())
        bound = bellman.error_bound(mdp, residual, float(abs(V).max()), w)
        better = undiscounted.greedy_actions(mdp, V, keep=actions)
        changed = int((better != actions).sum())
        yield Improvement(k, V, residual, bound, bellman.one_hot(better, mdp.A), changed)
        if not changed or k >= limit or not np.any(V_old < V):
            return
        actions, V_old = better, V


def first_actions(mdp: MDP, pi: F | None) -> I:
    """Actions (S,) to start from."""
    if pi is None:
        return (
            undiscounted.proper_actions(mdp) if mdp.gamma == 1.0 else undiscounted.greedy_actions(mdp, np.zeros(mdp.S))
        )
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    mixed = (pi != 0) & (pi != 1)
    if mixed.any():
        s, a = np.argwhere(mixed)[0]
        raise ModelError(f"pi[s={s}, a={a}] is {pi[s, a]}; policy iteration starts from a deterministic policy, 0 or 1")
    return np.asarray(pi.argmax(axis=1))


def backward_induction(mdp: MDP, horizon: int, *, V: F | None = None) -> Iterator[Stage]:
    """Optimal values and decisions for a finite horizon, from the end backwards.

        V_0 = final values,  V_k(s) = max over a of r(s,a) + gamma * sum over s' of P(s'|s,a) V_k-1(s')

    horizon: number of steps. V: (S,) value of what is left at the end, 0 unless given. Yields one `Stage`
    for k = 1, …, horizon steps to go; any gamma in [0,1], no condition on the model. The bound adds the
    rounding of each stage. Source: Puterman (1994), section 4.5.

    >>> [float(x.V[0]) for x in backward_induction(MDP([[[1.0]]], [1], 1.0), 3)]
    [1.0, 2.0, 3.0]
    """
    if horizon < 0:
        raise ValueError(f"horizon is {horizon}; 0 or more steps are expected")
    V, bound = np.zeros(mdp.S) if V is None else checks.real(V, "V", (mdp.S,)), 0.0
    for k in range(1, horizon + 1):
        noise = bellman.rounding(mdp, mdp.R_max + mdp.gamma * float(abs(V).max()))
        Q = bellman.q_from_v(mdp, V)
        V = bellman.maximum(Q, mdp.legal)
        bound = (mdp.gamma * bound * (1 + mdp.row_error) + noise) * UP
        yield Stage(k, V, bellman.greedy(Q, mdp.legal), bound)


def by_linear_program(mdp: MDP, *, tol: float, limit: int) -> Any:
    """Solve the linear program, then evaluate the policy of its basis exactly."""
    program = linear_program(mdp)
    actions = np.where(mdp.legal, program.occupancy, -np.inf).argmax(axis=1)
    pi = bellman.one_hot(actions, mdp.A)
    return next(policy_iteration(mdp, pi=pi, tol=tol, limit=limit))


METHODS: dict[str, Callable[..., Any]] = {
    "value_iteration": value_iteration,
    "gauss_seidel": gauss_seidel,
    "policy_iteration": policy_iteration,
    "modified_policy_iteration": modified_policy_iteration,
    "gauss_seidel_policy_iteration": gauss_seidel_policy_iteration,
    "prioritized_sweeping": prioritized_sweeping,
    "linear_program": by_linear_program,
}
UNCERTAIN = 1e-6  # of tol: the residual that is waited for at gamma = 1, where sweeps alone certify nothing


def solve(
    mdp: MDP, method: str = "auto", *, tol: float = 1e-8, limit: int = LIMIT, engine: str | None = None
) -> Solution:
    """Compute V_star, a policy and a certified bound on the error of both.

        max |V - V_star| <= bound,   max |Q - Q_star| <= bound,   max (V_star - V_pi) <= policy_loss_bound

    method: a key of METHODS, or "auto" (see `automatic`; `Solution.method` says which one answered). tol: absolute
    accuracy asked for; where rounding makes it unreachable the answer stops at the floor, `converged` is False and
    `status` says so. The answer is one more backup of what the method found, moved to the middle of what the backup
    leaves possible (`bellman.enclosure`).

    engine: "petsc" spreads the work over the processes of an MPI run (`tabrl.petsc`, which also takes models that no
    process holds as a whole); each process gets the whole answer.

    gamma = 1: components where staying pays 0 are collapsed (see `undiscounted`), and the bound is found
    from both sides; it is inf, with status "not certifiable", where that fails. Raises ModelError, naming
    states, where V_star is not finite, and NotConverged where a named method finds no answer because rounding hides
    the end; "auto" then says what it has. Source: Puterman (1994), chapters 6 and 7. Ledger E1.4, E1.5.

    >>> solution = solve(MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [2, 2]], 0.9))
    >>> solution.V.round(9), solution.status
    (array([18., 20.]), 'certified')
    """
    checks.tolerance(tol)
    check_method(method)
    if engine is not None:
        return elsewhere(engine, mdp, method, tol, limit)
    if mdp.gamma == 1.0:
        return solve_undiscounted(mdp, method, tol, limit)
    record, name = run(mdp, method, tol, limit)
    V, Q, actions, bound, loss = certified(mdp, record.V)
    return report(mdp, V, Q, bellman.one_hot(actions, mdp.A), bound, loss, record.k, tol, limit, name)


def elsewhere(engine: str, mdp: MDP, method: str, tol: float, limit: int) -> Solution:
    """Hand the model to another engine, which has one method of its own."""
    if engine != "petsc":
        raise ValueError(f"engine is {engine!r}; None or 'petsc' is expected")
    if method != "auto":
        raise ValueError(f"method is {method!r}; engine='petsc' has one method; leave method out")
    from tabrl import petsc

    return petsc.solve(mdp, tol=tol, limit=limit)


def certified(mdp: MDP, V: F) -> tuple[F, F, I, float, float]:
    """Back V up once more: V and Q in the middle of the enclosure, greedy actions, bounds on error and policy loss."""
    Q = jacobi.q_values(mdp, V)
    TV, actions = jacobi.greedy(mdp, Q)
    found = bellman.enclosure(mdp, *changes(V, TV), float(abs(V).max(initial=0.0)))
    if found.middle:  # then no state is terminal
        TV = TV + found.middle
        Q += found.middle * mdp.legal
    return TV, Q, actions, found.half + 4 * U * float(abs(TV).max(initial=0.0)), found.loss


def check_method(method: str) -> None:
    """Refuse unknown names."""
    if method != "auto" and method not in METHODS:
        close = difflib.get_close_matches(method, METHODS, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"method is {method!r}; one of auto, {', '.join(METHODS)} is expected{hint}")


def run(mdp: MDP, method: str, tol: float, limit: int) -> tuple[Any, str]:
    """Run a method, or the choice of "auto", to its end; return its last record and its name."""
    if method == "auto":
        return automatic(mdp, tol, limit)
    result = METHODS[method](mdp, tol=tol, limit=limit)
    return last(result) if isinstance(result, Iterator) else result, method


def automatic(mdp: MDP, tol: float, limit: int) -> tuple[Any, str]:
    """Try methods from the cheapest to the surest, each for as long as it promises to be done soon.

    Up to 500 states: policy iteration. Beyond, modified policy iteration where the model mixes; else Gauss-Seidel
    policy iteration, which follows values along the transitions; at last policy iteration, which needs neither, from
    the policy found so far. Where none settles, as at gamma = 1 when rounding hides the end, the last record is
    returned; NotConverged is raised if there is none.
    """
    found: tuple[Any, str] | None = None
    error = None
    for x in plan(mdp):
        before, V = math.inf, found[0].V if x.follows and found else x.V
        try:
            for record in METHODS[x.name](mdp, tol=tol, limit=limit, **start(mdp, x.name, V)):
                found = record, x.name
                left, goal = (record.bound, tol) if math.isfinite(record.bound) else (record.residual, UNCERTAIN * tol)
                if record.k >= x.least and remaining(before, left, goal) > x.patience:
                    break
                before = left
            else:
                return record, x.name
        except NotConverged as unsettled:
            error = unsettled
    if found is None:
        raise error or AssertionError("a plan has methods")
    return found


def start(mdp: MDP, name: str, V: F | None) -> dict[str, F]:
    """Where a method goes on from V (S,), its own start if None; policy iteration from the actions that V suggests."""
    if V is None:
        return {}
    if name != "policy_iteration":
        return {"V": V}
    actions = undiscounted.greedy_actions(mdp, V)
    return {"pi": bellman.one_hot(undiscounted.proper_actions(mdp, actions) if mdp.gamma == 1.0 else actions, mdp.A)}


def solve_undiscounted(mdp: MDP, method: str, tol: float, limit: int) -> Solution:
    """Solve at gamma = 1 through the quotient model, and certify on the original."""
    q = undiscounted.quotient(mdp)
    record, name = run(q.mdp, method, tol / 8, limit)  # the certificate from both sides may be a little wider
    keep = record.pi.argmax(axis=1) if hasattr(record, "pi") else None
    V, actions, staying = undiscounted.lift(mdp, q, record.V, undiscounted.greedy_actions(q.mdp, record.V, keep))
    bound, loss = undiscounted.two_sided(mdp, q, V, actions, staying)
    Q, pi = bellman.q_from_v(mdp, V), bellman.one_hot(actions, mdp.A)
    return report(mdp, V, Q, pi, bound, loss, record.k, tol, limit, name)


def report(
    mdp: MDP, V: F, Q: F, pi: F, bound: float, loss: float, k: int, tol: float, limit: int, name: str
) -> Solution:
    """Assemble the answer and say why it ended."""
    return Solution(V, Q, pi, bound, loss, k, bound <= tol, status(bound, k, tol, limit), name)
