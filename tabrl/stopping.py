"""Where a sweep method starts, what each sweep certifies, and when to stop.

V (S,) values; TV (S,) after an optimality backup of V; w (S,) the weight that certifies (None below gamma = 1);
tol certified accuracy asked for; limit largest number of sweeps.
"""

import numpy as np

from tabrl import bellman, checks
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.rounding import U
from tabrl.types import F, Sweep

LIMIT = 1_000_000


def initial(mdp: MDP, V: F | None, tol: float) -> F:
    """Copy of the starting values, 0 unless given; also checks tol."""
    checks.tolerance(tol)
    if V is None:
        return np.zeros(mdp.S)
    V = checks.real(V, "V", (mdp.S,))
    if V[mdp.terminal].any():
        s = int(np.argmax(mdp.terminal & (V != 0)))
        raise ModelError(f"V[{s}] is {V[s]}; terminal states have value 0")
    return V


def judge(mdp: MDP, k: int, V: F, residual: float, w: F | None, pi: F | None = None) -> Sweep:
    """Record a sweep together with its certified bound."""
    V_max = float(abs(V).max(initial=0.0)) + residual
    return Sweep(k, V, residual, bellman.error_bound(mdp, residual, V_max, w, pi))


def finished(mdp: MDP, sweep: Sweep, tol: float, limit: int) -> bool:
    """Whether to stop: certified, at the limit, diverged, or at the floor where rounding hides progress."""
    noise = bellman.rounding(mdp, mdp.R_max + mdp.gamma * float(abs(sweep.V).max(initial=0.0)))
    return sweep.bound <= tol or sweep.k >= limit or not sweep.residual > noise


def enclosed(mdp: MDP, k: int, V: F, TV: F, w: F | None = None) -> Sweep:
    """Record a backup of all states with the middle of what it leaves possible for V_star; at gamma = 1 as `judge`."""
    low, high = changes(V, TV)
    if mdp.gamma == 1.0:
        return judge(mdp, k, TV, max(0.0, -low, high), w)
    found = bellman.enclosure(mdp, low, high, float(abs(V).max(initial=0.0)))
    V = TV + found.middle
    return Sweep(k, V, max(0.0, -low, high), found.half + 4 * U * float(abs(V).max(initial=0.0)))


def changes(V: F, TV: F) -> tuple[float, float]:
    """Smallest and largest change of a backup; terminal states, where there are some, count with the change 0."""
    d = TV - V
    return float(d.min()), float(d.max())


def settled(mdp: MDP, sweep: Sweep, tol: float, limit: int) -> bool:
    """`finished`, for records of `enclosed`: at the floor the bound is what rounding alone would leave."""
    if mdp.gamma == 1.0:
        return finished(mdp, sweep, tol, limit)
    floor = bellman.enclosure(mdp, 0.0, 0.0, float(abs(sweep.V).max(initial=0.0)))
    return sweep.bound <= tol or sweep.k >= limit or not sweep.bound > 4 * floor.half


def status(bound: float, k: int, tol: float, limit: int) -> str:
    """Say why an iteration ended after k rounds (see `types.Solution`).

    >>> status(1e-9, 7, 1e-8, 100), status(1e-7, 7, 1e-8, 100)
    ('certified', 'rounding floor')
    """
    if bound <= tol:
        return "certified"
    if not np.isfinite(bound):
        return "not certifiable"
    return "iteration limit" if k >= limit else "rounding floor"
