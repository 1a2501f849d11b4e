"""Total reward without discounting (gamma = 1): when it exists, and how to certify it.

Where a policy can stay forever (an end component, see `graph`) the total reward exists in two cases.
Staying pays nothing: the component is collapsed into one state that may also stay for 0, which is what
removes the infinitely many fixed points of T. Staying costs: then it is never optimal, and a way out
must exist. What is left is a stochastic shortest path, where T has one fixed point.

w (S,) a weight with w - P w > 0: the expected number of steps to the end; U (S,) an upper bound.
Source: Bertsekas & Tsitsiklis (1991); de Alfaro (1997); Haddad & Monmege (2018).
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl.bellman import maximum, one_hot, q_from_v, rounding
from tabrl.chain import Chain, average, evaluate_with_weight, listed
from tabrl.errors import ModelError, NotConverged
from tabrl.graph import distance_to, end_components
from tabrl.mdp import MDP
from tabrl.types import B, F, I

LARGEST = 20_000_000  # rows of a quotient model


class Quotient(NamedTuple):
    """A model whose free end components are single states, and the way back to the original."""

    mdp: MDP  # the collapsed model; its last state is the end reached by staying, if anything collapsed
    state: I  # (S,) number of each original state in it
    inside: B  # (S,A) original actions that stay inside a collapsed component
    row: I  # (S',A') original row s·A+a of each action; -1 for staying and for illegal ones


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


def collapse(mdp: MDP, component: I, inside: B) -> Quotient:
    """Build the quotient: a component keeps the actions that leave it, and gains one that stays for 0."""
    S, A = mdp.S, mdp.A
    key = np.where(component >= 0, component, component.max() + 1 + np.arange(S))
    state = np.unique(key, return_inverse=True)[1].astype(np.int64)
    n = int(state.max()) + 1
    leaving = np.flatnonzero((mdp.legal & ~inside & ~mdp.terminal[:, None]).ravel())
    owner = state[leaving // A]
    order = np.argsort(owner, kind="stable")
    leaving, owner = leaving[order], owner[order]
    slot = np.arange(len(owner)) - np.searchsorted(owner, owner)
    width = int(slot.max(initial=-1)) + 2
    if (n + 1) * width > LARGEST:
        raise ModelError(
            f"mdp needs {n + 1} x {width} collapsed actions; at most {LARGEST} are supported; use gamma < 1"
        )
    row = np.full((n + 1, width), -1)
    row[owner, slot + 1] = leaving
    free = np.unique(state[component >= 0])
    legal = row >= 0
    legal[free, 0] = True
    merge = sp.csr_array((np.ones(S), (np.arange(S), state)), shape=(S, n + 1))
    place = (owner * width + slot + 1).astype(np.int64)
    lift = sp.csr_array((np.ones(len(place)), (place, leaving)), shape=((n + 1) * width, S * A))
    stay = sp.csr_array((np.ones(len(free)), (free * width, np.full(len(free), n))), shape=((n + 1) * width, n + 1))
    r = np.zeros((n + 1) * width)
    r[place] = mdp.r.ravel()[leaving]
    terminal = np.zeros(n + 1, np.bool_)
    terminal[state[mdp.terminal]] = True
    terminal[n] = True
    P = sp.csr_array(lift @ mdp.csr @ merge + stay)
    model = MDP(P, r.reshape(n + 1, width), 1.0, terminal=terminal, legal=legal)
    return Quotient(model, state, inside, row)


def lift(mdp: MDP, q: Quotient, V: F, actions: I) -> tuple[F, I, B]:
    """Carry values and actions of the quotient back: (V (S,), actions (S,), staying (S,) mask).

    In a collapsed component the state that owns the chosen action takes it, the others walk to it.
    """
    S, A = mdp.S, mdp.A
    chosen = q.row[q.state, actions[q.state]]  # (S,) original row, or -1
    out = np.where(chosen >= 0, chosen % A, np.argmax(mdp.legal, axis=1))
    inner = q.inside.any(axis=1)
    staying = inner & (chosen < 0)
    out[staying] = np.argmax(q.inside[staying], axis=1)
    owner = np.zeros(S, np.bool_)
    owner[chosen[inner & ~staying] // A] = True
    walk = distance_to(mdp, owner, q.inside)[1]
    walking = inner & ~staying & ~owner
    out[walking] = walk[walking]
    return V[q.state], out, staying


def proper_actions(mdp: MDP) -> I:
    """Return actions that end with probability 1 from everywhere. Raises ModelError where none do."""
    require_way_out(mdp)
    action = distance_to(mdp, mdp.terminal)[1]
    return np.where(action >= 0, action, np.argmax(mdp.legal, axis=1))


def steps(mdp: MDP, actions: I) -> F:
    """Expected number of steps to the end, w = (I - P)^-1 1, of deterministic actions (S,)."""
    pi = one_hot(actions, mdp.A)
    live = (~mdp.terminal).astype(np.float64)
    return evaluate_with_weight(Chain(average(mdp, pi, mdp.rows), live, 1.0, mdp.terminal))[1]


def longest(mdp: MDP, allowed: B, actions: I) -> F | None:
    """Largest expected number of steps over all policies that use allowed (S,A) actions; None if infinite.

    Policy iteration from `actions`, which must end. Source: Bertsekas & Tsitsiklis (1996), section 2.2.
    """
    for _ in range(200):
        try:
            w = steps(mdp, actions)
        except (ModelError, NotConverged):
            return None
        longer = np.where(allowed, 1 + (mdp.rows @ w).reshape(mdp.S, mdp.A), -np.inf)
        better = (longer.max(axis=1) > w * (1 + 1e-9)) & ~mdp.terminal
        if not better.any():
            return w
        actions = np.where(better, longer.argmax(axis=1), actions)
    return None


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
    pi = one_hot(actions, mdp.A) * live[:, None]
    P, r = average(mdp, pi, mdp.rows), (pi * mdp.r).sum(axis=1)
    try:
        w = evaluate_with_weight(Chain(P, live.astype(np.float64), 1.0, ~live))[1]
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
    Vq = np.zeros(q.mdp.S)
    Vq[q.state] = V
    loss = Vq[:, None] - q_from_v(q.mdp, Vq)
    start = np.where(q.mdp.legal, -loss, -np.inf).argmax(axis=1)
    for near in (math.inf, 1e-3, 1e-6, 1e-9):
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
