"""Total reward without discounting (gamma = 1): when it exists, and how to certify it.

Where a policy can stay forever (an end component, see `graph`) the total reward exists in two cases.
Staying pays nothing: the component is collapsed into one state that may also stay for 0, which is what
removes the infinitely many fixed points of T. Staying costs: then it is never optimal, and a way out
must exist. What is left is a stochastic shortest path, where T has one fixed point.

w (S,) a weight with w - P w > 0: the expected number of steps to the end; U (S,) an upper bound.
Source: Bertsekas & Tsitsiklis (1991); de Alfaro (1997); Haddad & Monmege (2018).
"""

import math

import numpy as np

from tabrl.bellman import maximum, one_hot, q_from_v, rounding
from tabrl.chain import listed
from tabrl.collapse import Quotient, collapse, lift, on_nodes
from tabrl.durations import chosen, counted, longest
from tabrl.errors import ModelError, NotConverged
from tabrl.graph import distance_to, end_components
from tabrl.mdp import MDP
from tabrl.types import B, F, I

__all__ = [
    "Quotient",
    "free_components",
    "greedy_actions",
    "lift",
    "proper_actions",
    "quotient",
    "two_sided",
    "weight",
]

NEAR = math.inf, 1e-3, 1e-6, 1e-9  # how far below the best an action may be that the weight must cover
DIRECT = 3000  # states up to which all actions are tried first


def quotient(mdp: MDP) -> Quotient:
    """Collapse the end components that pay nothing; refuse models whose total reward is not finite.

    Raises ModelError, naming states, where an end component pays a positive reward or where a state
    that pays to stay cannot leave.

    >>> loop = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[0, 1], [0, 0]], 1.0, terminal=[0, 1])
    >>> quotient(loop).mdp
    MDP(S=3, A=2, gamma=1, 2 terminal, sparse)
    """
    component, inside = free_components(mdp)
    if not inside.any():
        require_way_out(mdp)
        rows = np.arange(mdp.S * mdp.A).reshape(mdp.S, mdp.A)
        return Quotient(mdp, np.arange(mdp.S), inside, np.where(mdp.legal, rows, -1))
    collapsed = collapse(mdp, component, inside)
    require_way_out(collapsed.mdp, collapsed.state)
    return collapsed


def free_components(mdp: MDP) -> tuple[I, B]:
    """End components in which every action pays 0; raise if one can collect positive reward forever."""
    component, inside = end_components(mdp)
    gains = inside & (mdp.r > 0)
    if gains.any():
        k = component[np.argmax(gains.any(axis=1))]
        s, a = np.argwhere(gains & (component == k)[:, None])[0]
        raise ModelError(
            f"r[s={s}, a={a}] is {mdp.r[s, a]:.6g} in states {listed(np.flatnonzero(component == k))}, where a policy "
            "can stay forever; at gamma = 1 the total reward must not grow without end; use gamma < 1, a terminal "
            "state, or dp.relative_value_iteration for the average reward"
        )
    return end_components(mdp, inside & (mdp.r == 0))


def require_way_out(mdp: MDP, state: I | None = None) -> None:
    """Raise unless every state can reach a terminal one; `state` translates numbers for the message."""
    lost = distance_to(mdp, mdp.terminal)[0] < 0
    if lost.any():
        names = np.flatnonzero(lost if state is None else lost[state])
        raise ModelError(
            f"V[s={listed(names)}] is -inf at gamma = 1: no policy ends from there, and every step costs; "
            "a way to a terminal state is expected; use gamma < 1"
        )


def proper_actions(mdp: MDP, prefer: I | None = None) -> I:
    """Actions (S,) that end with probability 1 from everywhere. Raises ModelError where none do.

    `prefer` (S,) is kept where it can lead to the end; other states take the shortest way there.

    >>> loop = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[0, -1], [0, 0]], 1.0, terminal=[0, 1])
    >>> proper_actions(loop, np.array([0, 0]))
    array([1, 0])
    """
    require_way_out(mdp)
    action = distance_to(mdp, mdp.terminal)[1]
    shortest = np.where(action >= 0, action, np.argmax(mdp.legal, axis=1))
    if prefer is None:
        return shortest
    return np.where(distance_to(mdp, mdp.terminal, one_hot(prefer, mdp.A) > 0)[0] >= 0, prefer, shortest)


def weight(mdp: MDP) -> F | None:
    """Weight that makes T a contraction, (S,), or None.

    None stands for 1 below gamma = 1. At gamma = 1 it is the longest expected time to the end, or None
    where some policy never ends.

    >>> weight(MDP([[[0.5, 0.5]], [[0, 1]]], [1, 0], 1.0, terminal=[0, 1]))
    array([2., 0.])
    """
    if mdp.gamma < 1 or end_components(mdp)[1].any():
        return None
    return longest(mdp, mdp.legal, proper_actions(mdp))


def two_sided(mdp: MDP, q: Quotient, V: F, actions: I, staying: B) -> tuple[float, float]:
    """Certified (max |V - V_star|, max (V_star - V_pi)) at gamma = 1, rounding included; inf where none is found.

    Below: V_pi >= V - c w with w the expected steps of pi. Above: U = V + c w with T U <= U, w the longest
    expected steps over the nearly optimal actions, since then T**k U falls to V_star. Actions inside a
    collapsed component need no check: V and w are constant there and they pay 0.
    """
    if not np.isfinite(V).all():
        return math.inf, math.inf
    below = lower_gap(mdp, V, actions, staying)
    above = upper_gap(mdp, q, V, actions)
    bound = max(below, above)
    return (bound, below + above) if math.isfinite(bound) else (math.inf, math.inf)


def lower_gap(mdp: MDP, V: F, actions: I, staying: B) -> float:
    """Certified max (V - V_pi) of deterministic actions."""
    if (V[staying] > 0).any():
        return math.inf
    live = ~mdp.terminal & ~staying
    P, r = chosen(mdp, actions), mdp.r[np.arange(mdp.S), actions]
    try:
        w = counted(P, live)
    except (ModelError, NotConverged):
        return math.inf
    w_max, V_max = float(w.max(initial=0.0)), float(abs(V).max(initial=0.0))
    gap = w - P @ w - rounding(mdp, 2 * w_max, mdp.A)
    short = V - (r + P @ V) + rounding(mdp, 2 * (mdp.R_max + V_max), mdp.A)
    return _times(short[live], gap[live], w_max)


def upper_gap(mdp: MDP, q: Quotient, V: F, actions: I) -> float:
    """Certified max (V_star - V): the first c w that makes U = V + c w satisfy T U <= U, over several w."""
    V_max = float(abs(V).max(initial=0.0))
    noise = rounding(mdp, 2 * (mdp.R_max + V_max))
    checked = mdp.legal & ~q.inside & ~mdp.terminal[:, None]
    excess = q_from_v(mdp, V) - V[:, None] + noise  # (S,A), must be covered by c (w - P w)
    free = q.inside.any(axis=1)
    Vq = on_nodes(q, V)
    loss = Vq[:, None] - q_from_v(q.mdp, Vq)
    start = np.where(q.mdp.legal, -loss, -np.inf).argmax(axis=1)
    for near in NEAR if q.mdp.S <= DIRECT else NEAR[::-1]:
        w = longest(q.mdp, q.mdp.legal & (loss <= near * max(1.0, V_max)), start)
        if w is None:
            continue
        w = w[q.state]
        w_max = float(w.max(initial=0.0))
        fall = w[:, None] - (mdp.rows @ w).reshape(mdp.S, mdp.A) - rounding(mdp, 2 * w_max)
        usable = checked & (fall > 0)
        scale = (np.maximum(excess[usable], 0.0) / fall[usable]).max(initial=0.0) * (1 + 1e-9)
        margin = scale * fall - 1e-12 * abs(scale * fall)
        covered = (excess <= margin) | ~checked
        if covered.all() and (V[free] + scale * w[free] >= 0).all():
            return float(scale * w_max * (1 + 1e-9))
    return math.inf


def _times(short: F, gap: F, w_max: float) -> float:
    """Largest max(short, 0) / gap, times w_max, rounded up; inf where a gap is not positive."""
    if not (gap > 0).all():
        return math.inf
    return float((np.maximum(short, 0.0) / gap).max(initial=0.0) * w_max * (1 + 1e-9))


def greedy_actions(mdp: MDP, V: F, keep: I | None = None) -> I:
    """Actions that maximise Q(V); `keep` (S,) are kept unless another is better by more than rounding."""
    Q = np.where(mdp.legal, q_from_v(mdp, V), -np.inf)
    if keep is None:
        return np.asarray(Q.argmax(axis=1))
    tie = 2 * rounding(mdp, mdp.R_max + mdp.gamma * float(abs(V).max(initial=0.0)))
    better = maximum(Q) > Q[np.arange(mdp.S), keep] + tie
    actions: I = np.where(better, Q.argmax(axis=1), keep)
    return actions
