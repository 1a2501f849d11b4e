"""Expected numbers of steps to the end (gamma = 1): of a policy, the longest over policies, the quickest.

w (S,) is 0 where nothing more is counted. For large models w is only as exact as it must be to prove that a chain
ends: w - P w >= 1/2, checked in twice the precision.
"""

import numpy as np

from tabrl import linear
from tabrl._jit import compiled
from tabrl.chain import Chain, evaluate_with_weight
from tabrl.errors import ModelError, NotConverged
from tabrl.mdp import MDP
from tabrl.ordering import as_rows, renumbered, reverse_breadth_first
from tabrl.sweep_kernels import slide
from tabrl.types import B, F, I, Matrix

ROUNDS = 200  # of policy iteration, at most; a tenth of it for large models
ENDLESS = 1e11  # expected steps from which on a large model counts as one that hardly ever ends
WINDOW = np.uint64(2048), np.uint64(60), np.uint64(10)  # states, rounds and policy sweeps of the quickest way
IMPROVEMENTS = 6  # of the quickest way, at most


def chosen(mdp: MDP, actions: I) -> Matrix:
    """Transitions (S,S) of deterministic actions (S,)."""
    return mdp.rows[np.arange(mdp.S) * mdp.A + actions]


def counted(P: Matrix, live: B) -> F:
    """Expected steps in the states `live` (S,) before the chain leaves them, w = 1 + P w.

    For large chains some w >= 1/2 + P w. Raises ModelError or NotConverged where it stays for ever, or where
    rounding hides that it does not.
    """
    keep = np.flatnonzero(live)
    if not (linear.large(P) and live.any()):
        return evaluate_with_weight(Chain(P, live.astype(np.float64), 1.0, ~live))[1]
    w = np.zeros(len(live))
    w[keep] = linear.weight(P[keep][:, keep])
    return w


def steps(mdp: MDP, actions: I) -> F:
    """Expected number of steps to the end, w = (I - P)^-1 1, of deterministic actions (S,)."""
    return counted(chosen(mdp, actions), ~mdp.terminal)


def longest(mdp: MDP, allowed: B, actions: I) -> F | None:
    """Largest expected number of steps over all policies that use allowed (S,A) actions; None if infinite.

    Policy iteration from `actions`, which must end. For large models any w with w - P w >= 1/2 for all allowed actions;
    None also if that takes too long. Source: Bertsekas & Tsitsiklis (1996), section 2.2.
    """
    large = mdp.is_sparse and mdp.S > linear.DIRECT
    for _ in range(ROUNDS // 10 if large else ROUNDS):
        try:
            w = steps(mdp, actions)
        except (ModelError, NotConverged):
            return None
        longer = np.where(allowed, 1 + (mdp.rows @ w).reshape(mdp.S, mdp.A), -np.inf)
        better = (longer.max(axis=1) > (w + 0.5 if large else w * (1 + 1e-9))) & ~mdp.terminal
        if not better.any():
            return w
        if large and w.max() > ENDLESS:
            return None
        actions = np.where(better, longer.argmax(axis=1), actions)
    return None


def quickest(mdp: MDP, allowed: B, target: B, distance: I, actions: I) -> I:
    """Allowed actions (S,) that reach `target` (S,) in few expected steps, for a large model.

    distance (S,) to the target, and actions (S,) that lead closer: where chance pushes back, they may take a number of
    steps exponential in the distance. One pass of windowed sweeps is followed by policy iteration with a discount that
    looks ahead 20 times the largest distance, so that hopeless policies have a value too. Good, not optimal.
    """
    walks = (distance > 0) & allowed.any(axis=1)
    use, keep = allowed & walks[:, None], np.flatnonzero(walks)
    best = swept(mdp, use, target, actions) if compiled() else actions
    gamma = 1 - 1 / (20 * max(int(distance.max()), 1))
    w = np.zeros(mdp.S)
    for _ in range(IMPROVEMENTS):
        w[keep] = linear.estimate(chosen(mdp, best)[keep][:, keep], gamma)[0]
        after = np.where(use, 1 + gamma * (mdp.rows @ w).reshape(mdp.S, mdp.A), np.inf)
        better = walks & (after.min(axis=1) < w - 0.1)
        best = np.where(better, after.argmin(axis=1), best)
        if better.sum() <= mdp.S / 1000:
            break
    return best


def swept(mdp: MDP, use: B, target: B, actions: I) -> I:
    """Actions after one pass of windowed sweeps that minimise the number of steps; `actions` where use has none."""
    walks = use.any(axis=1)
    r = np.where(use, -1.0, -np.inf)
    r[~walks] = 0.0
    rows = as_rows(mdp.csr, r, mdp.A, 1.0)
    order = reverse_breadth_first(rows, target)
    V, first, best = np.zeros(mdp.S), np.zeros(mdp.S, np.uint32), np.empty(mdp.S, np.int64)
    width, rounds, sweeps = WINDOW
    slide(width, True, *renumbered(rows, order), V, first, 0.1, rounds, sweeps, False)
    best[order] = first
    return np.where(walks, best, actions)
