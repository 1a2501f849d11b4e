"""The Bellman operators, and how far their fixed point can be from a given V.

    (T V)(s) = max over a of r(s,a) + gamma * sum over s' of P(s'|s,a) V(s')

V (S,) values; Q (S,A) action values; pi (S,A) policy; w (S,) a positive weight (see `slack`).
This is the only place in the package where a backup is written for whole arrays.
"""

import math
from typing import NamedTuple, TypeAlias

import numpy as np

from tabrl.errors import ShapeError
from tabrl.mdp import MDP
from tabrl.rounding import UP, U, c
from tabrl.types import B, F

Weight: TypeAlias = F | None


def q_from_v(mdp: MDP, V: F) -> F:
    """Action values of one step followed by V.

        Q(s,a) = r(s,a) + gamma * sum over s' of P(s'|s,a) V(s')

    V: (S,). Returns (S,A); 0 for terminal states and illegal actions. Raises ShapeError.
    Source: Sutton & Barto (2018), eq. 4.6; ledger E1.2.

    >>> mdp = MDP([[[0.5, 0.5]], [[0, 1]]], [[1], [2]], 0.5)
    >>> q_from_v(mdp, np.array([4.0, 8.0]))
    array([[4.],
           [6.]])
    """
    if V.shape != (mdp.S,):
        raise ShapeError(f"V has shape {V.shape}; {(mdp.S,)} is expected")
    return mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A)  # type: ignore[no-any-return]


def maximum(Q: F, legal: B | None = None) -> F:
    """Largest legal action value of each state: Q (S,A) to (S,).

    >>> maximum(np.array([[1.0, 3.0]]), np.array([[True, False]]))
    array([1.])
    """
    return (Q if legal is None or legal.all() else np.where(legal, Q, -np.inf)).max(axis=1)  # type: ignore[no-any-return]


def greedy(Q: F, legal: B | None = None) -> F:
    """Policy that takes the first maximising legal action: Q (S,A) to one-hot (S,A).

    >>> greedy(np.array([[1.0, 3.0], [2.0, 2.0]]))
    array([[0., 1.],
           [1., 0.]])
    """
    best = (Q if legal is None or legal.all() else np.where(legal, Q, -np.inf)).argmax(axis=1)
    return one_hot(best, Q.shape[1])


def one_hot(actions: np.ndarray[tuple[int], np.dtype[np.int64]], A: int) -> F:
    """Deterministic policy (S,A) that takes actions[s] in state s.

    >>> one_hot(np.array([1, 0]), 2)
    array([[0., 1.],
           [1., 0.]])
    """
    pi = np.zeros((len(actions), A))
    pi[np.arange(len(actions)), actions] = 1.0
    return pi


def optimality(mdp: MDP, V: F) -> F:
    """One optimality backup, (T V)(s) = max over legal a of Q(s,a). V: (S,), returns (S,).

    gamma=0 gives the best immediate reward. Source: Sutton & Barto (2018), eq. 4.10; ledger E1.5.

    >>> optimality(MDP([[[0, 1], [1, 0]], [[0, 1], [0, 1]]], [[0, 1], [2, 3]], 0.5), np.array([0.0, 4.0]))
    array([2., 5.])
    """
    return maximum(q_from_v(mdp, V), mdp.legal)


def expectation(mdp: MDP, pi: F, V: F) -> F:
    """One policy backup, (T_pi V)(s) = sum over a of pi(a|s) Q(s,a). pi: (S,A), V: (S,), returns (S,).

    Source: Sutton & Barto (2018), eq. 4.5; ledger E1.3.

    >>> expectation(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), np.array([[0.5, 0.5]]), np.array([2.0]))
    array([2.])
    """
    return (pi * q_from_v(mdp, V)).sum(axis=1)  # type: ignore[no-any-return]


def rounding(mdp: MDP, scale: float, extra: int = 0) -> float:
    """Bound on the error of a computed backup, for terms whose absolute values add up to `scale`.

        (c(n + 3 + extra) (1 + e) + e) scale

    n: longest row; e: how far row sums are from 1; scale: max|R| + gamma max|V| for T V. The mean reward,
    the sum over next states, its product with gamma and the last addition take n + 3 roundings. The term
    e scale makes the bound hold both for the stored rows read as exact numbers and for those rows divided
    by their exact sums. Source: Higham (2002), section 3.1.

    >>> rounding(MDP([[[0.0, 1.0]], [[1.0, 0.0]]], [1, 0], 0.5), 2.0) < 1e-14
    True
    """
    n, e = mdp.longest_row, mdp.row_error
    return ((c(n + 3 + extra) * (1 + e) + e) * scale + 4 * n * math.ulp(0.0)) * UP


def slack(mdp: MDP, w: Weight = None, pi: F | None = None) -> float:
    """Largest delta that surely satisfies w(s) - gamma * sum over s' of P(s'|s,a) w(s') >= delta.

    Over all non-terminal states and legal actions, or over the actions of a policy pi (S,A); the rounding
    of the check is subtracted. w=None is w = 1, where delta = 1 - gamma (1 + e). A positive delta makes T
    a contraction in the maximum norm weighted by w, also at gamma = 1.
    Source: Bertsekas & Tsitsiklis (1996), proposition 2.2.

    >>> slack(MDP([[[1.0]]], [1], 0.75))
    0.25
    """
    e_pi = 0.0 if pi is None else _policy_error(pi)
    if w is None:
        return 1 - mdp.gamma * (1 + mdp.row_error) * (1 + e_pi) - (4 * U if mdp.row_error + e_pi else 0.0)
    Pw = mdp.gamma * (mdp.rows @ w).reshape(mdp.S, mdp.A)
    w_max = float(abs(w).max(initial=0.0))
    if pi is None:
        gap = np.where(mdp.legal, w[:, None] - Pw, np.inf)[~mdp.terminal]
    else:
        gap = (w - (pi * Pw).sum(axis=1))[~mdp.terminal]
    return float(gap.min(initial=np.inf) - rounding(mdp, w_max, mdp.A + 1) - (e_pi + 2 * U) * w_max)


def error_bound(mdp: MDP, residual: float, V_max: float, w: Weight = None, pi: F | None = None) -> float:
    """Certified max |V - V_star| from a computed residual max |T V - V|, rounding included.

        max|V - V_star| <= max(w) (residual + rounding) / delta

    With pi (S,A) the same for T_pi and V_pi. Holds for V, for T V, and for one Gauss-Seidel sweep with
    its largest change as the residual; with a weight, V must be 0 on terminal states. Returns inf when
    delta (see `slack`) is not positive or the residual is not finite.
    Source: Puterman (1994), theorem 6.3.3, with the rounding term of `rounding`; ledger E1.5.

    >>> error_bound(MDP([[[1.0]]], [1], 0.5), residual=0.25, V_max=2.0) >= 0.5
    True
    """
    noise = _noise(mdp, residual, V_max)
    if pi is not None:
        noise = _noise(mdp, residual, V_max, mdp.A + 1) + 2 * _policy_error(pi) * (mdp.R_max + mdp.gamma * V_max)
    return _divide(residual + noise, slack(mdp, w, pi), w)


def certified_bound(mdp: MDP, V: F, w: Weight = None) -> float:
    """Certified max |V - V_star|: never below the true error, the stored floats read as exact numbers.

    V: (S,). w: (S,) weight with positive `slack`, needed at gamma = 1 (there inf is returned without); with
    a weight V must be 0 on terminal states, else inf is returned.
    Source: Puterman (1994), theorem 6.3.3, with rounding; ledger E1.5.

    >>> certified_bound(MDP([[[1.0]]], [1], 0.5), np.array([2.5])) >= 0.5
    True
    """
    return error_bound(mdp, _largest(optimality(mdp, V) - V), _largest(V), w) if _grounded(mdp, V, w) else math.inf


def policy_bound(mdp: MDP, pi: F, V: F, w: Weight = None) -> float:
    """Certified max |V - V_pi|, as `certified_bound` but for a policy pi (S,A). Ledger E1.3.

    w: (S,) weight with positive `slack` under pi, as in `certified_bound`; needed at gamma = 1.

    >>> policy_bound(MDP([[[1.0], [1.0]]], [[1, 3]], 0.5), np.array([[0.5, 0.5]]), np.array([4.0])) < 1e-13
    True
    """
    residual = _largest(expectation(mdp, pi, V) - V)
    return error_bound(mdp, residual, _largest(V), w, pi) if _grounded(mdp, V, w) else math.inf


def loss_bound(mdp: MDP, V: F, w: Weight = None) -> float:
    """Certified max (V_star - V_pi) of the policy greedy in `q_from_v(mdp, V)`, rounding included.

        max(V_star - V_pi) <= max(w) (max(d, 0) + max(-d, 0) + 2 rounding) / delta,   d = T V - V

    V_star is at most V + max(w) max(d, 0)/delta and V_pi at least V - max(w) max(-d, 0)/delta. For a V
    that comes from a backup this is tighter than the textbook's 2 gamma max|V - V_star| / (1 - gamma).
    Source: Bertsekas & Tsitsiklis (1996), proposition 2.2, applied from both sides; ledger E1.4.

    >>> loss_bound(MDP([[[1.0]]], [1], 0.5), np.array([2.0])) < 1e-14
    True
    """
    d = optimality(mdp, V) - V
    spread = float(max(d.max(initial=0.0), 0.0) + max(-d.min(initial=0.0), 0.0))
    bound = _divide(spread + 2 * _noise(mdp, spread, _largest(V)), slack(mdp, w), w)
    return bound if _grounded(mdp, V, w) else math.inf


class Enclosure(NamedTuple):
    """What one optimality backup of V tells about V_star, rounding included."""

    middle: float  # V_star is at most `half` away from T V + middle in every non-terminal state
    half: float  # inf where nothing is certified
    loss: float  # max (V_star - V_pi) of a policy that attained the computed T V


def enclosure(mdp: MDP, d_min: float, d_max: float, V_max: float) -> Enclosure:
    """Bounds on V_star from the smallest and the largest change of one backup (gamma < 1).

        c min d <= V_star - T V <= c max d,   c = gamma / (1 - gamma),   d = T V - V

    d_min, d_max: computed over the non-terminal states; V_max = max|V|. Where a model can end, 0 joins the minimum
    and the maximum, as a step to the end carries no d with it, and middle = 0: what is added to all states alike would
    not be backed up to itself. Source: MacQueen (1966); Puterman (1994), theorem 6.6.3, with rounding and terminal
    states; ledger E1.5.

    >>> found = enclosure(MDP([[[1.0]]], [1], 0.5), 1.0, 1.0, 0.0)
    >>> round(found.middle, 9), found.half < 1e-11, found.loss < 1e-11
    (1.0, True, True)
    """
    delta = slack(mdp)
    if not (delta > 0 and math.isfinite(d_max - d_min)):
        return Enclosure(0.0, math.inf, math.inf)
    noise = _noise(mdp, max(abs(d_min), abs(d_max)), V_max)
    d_min, d_max, ends = d_min - noise, d_max + noise, bool(mdp.terminal.any())
    if ends:
        d_min, d_max = min(d_min, 0.0), max(d_max, 0.0)
    low, high = -_ahead(mdp, -d_min) - noise, _ahead(mdp, d_max) + noise
    middle = 0.0 if ends else (low + high) / 2
    half = max(high - middle, middle - low) * UP
    return Enclosure(middle, half, (high - low + 2 * noise / delta) * UP)


def _ahead(mdp: MDP, d: float) -> float:
    """Return gamma d / (1 - gamma) from above, whichever way the sums of the rows are off."""
    e = mdp.row_error if d > 0 else -mdp.row_error
    delta = 1 - mdp.gamma * (1 + e) - (math.copysign(4 * U, e) if e else 0.0)
    return d * mdp.gamma * (1 + e) / delta * (UP if d > 0 else 1 / UP)


def _grounded(mdp: MDP, V: F, w: Weight) -> bool:
    """Whether V fits a weight, which is 0 on terminal states: so must V be, as its error there has no weight."""
    return w is None or not V[mdp.terminal].any()


def _policy_error(pi: F) -> float:
    """Upper bound on how far the exact sum of a row of pi is from 1."""
    return float(abs(pi.sum(axis=1) - 1).max()) + c(pi.shape[1] + 1)


def _largest(x: F) -> float:
    return float(abs(x).max(initial=0.0))


def _noise(mdp: MDP, residual: float, V_max: float, extra: int = 0) -> float:
    """Rounding of the backup and of the subtraction that gave the residual."""
    return 4 * U * residual + rounding(mdp, mdp.R_max + mdp.gamma * V_max, extra)


def _divide(x: float, delta: float, w: Weight) -> float:
    """max(w) x / delta rounded up; inf where that certifies nothing."""
    if not (delta > 0 and math.isfinite(x)):
        return math.inf
    return x / delta * (1.0 if w is None else float(w.max(initial=0.0))) * UP
