"""What one policy's visits and advantages say about another policy: surrogates of J, exactly.

pi the policy that was evaluated, pi_new the one in question, both (S,A); d (S,) visits and advantage (S,A) of pi;
rho = pi_new / pi; L the surrogate, J the truth. TV and KL per state, terminal states left out.
"""

import numpy as np

from tabrl import losses
from tabrl.errors import ModelError, ShapeError
from tabrl.gradient import Exact, exact
from tabrl.mdp import MDP
from tabrl.policy import kl, log, through_log, total_variation
from tabrl.types import F


def performance_difference(mdp: MDP, pi_new: F, pi: F) -> float:
    """How much better a policy is than another, from the other's advantages.

        J(pi_new) - J(pi) = sum over s of d_new(s) sum over a of pi_new(a|s) advantage_pi[s,a]

    d_new: visits of pi_new, unnormalised. Both (S,A). Raises ModelError or NotConverged at gamma = 1 as
    `gradient.exact`. Source: Kakade & Langford (2002), lemma 6.1; ledger E1.16.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1])
    >>> performance_difference(bandit, np.array([[0, 1.0]] * 2), np.array([[0.5, 0.5]] * 2))
    1.0
    """
    return float(exact(mdp, pi_new).d @ gains(pi_new, exact(mdp, pi).advantage))


def surrogate(mdp: MDP, pi_new: F, pi: F) -> float:
    """J(pi_new) to first order: as if pi_new visited the states that pi visits.

        L(pi_new) = J(pi) + sum over s of d(s) sum over a of pi_new(a|s) advantage[s,a]

    L(pi) = J(pi), and the gradients of L and J agree at pi. Both (S,A).
    Source: Schulman et al. (2015), eq. 3; ledger E1.16.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1])
    >>> surrogate(bandit, np.array([[0, 1.0]] * 2), np.array([[0.5, 0.5]] * 2))
    3.0
    """
    return first_order(exact(mdp, pi), pi_new)


def trpo_bound(mdp: MDP, pi_new: F, pi: F) -> float:
    """Lower bound on J(pi_new) from the largest total variation.

        J(pi_new) >= L(pi_new) - 4 eps gamma / (1-gamma)**2 max TV**2,   eps = max |advantage|

    Both (S,A). Equality at pi_new = pi. Needs gamma < 1 (ModelError).
    Source: Schulman et al. (2015), theorem 1; ledger E1.16.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.5, terminal=[0, 1])
    >>> trpo_bound(bandit, np.array([[0.25, 0.75]] * 2), np.array([[0.5, 0.5]] * 2))
    2.0
    """
    x = exact(mdp, pi)
    return first_order(x, pi_new) - penalty(mdp, x) * largest(mdp, total_variation(pi, pi_new)) ** 2


def trpo_bound_kl(mdp: MDP, pi_new: F, pi: F) -> float:
    """Lower bound on J(pi_new) from the largest KL(pi, pi_new): the objective that TRPO stands in for.

        J(pi_new) >= L(pi_new) - 4 eps gamma / (1-gamma)**2 max KL,   eps = max |advantage|

    Both (S,A). Never above `trpo_bound`; -inf where pi_new forbids what pi does. Needs gamma < 1 (ModelError).
    Source: Schulman et al. (2015), eq. 9; ledger E1.16.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.5, terminal=[0, 1])
    >>> trpo_bound_kl(bandit, np.array([[0.25, 0.75]] * 2), np.array([[0.5, 0.5]] * 2)).__round__(3)
    1.349
    """
    x, far = exact(mdp, pi), largest(mdp, kl(pi, pi_new))
    return first_order(x, pi_new) - (penalty(mdp, x) * far if np.isfinite(far) else far)


def mean_bound(mdp: MDP, pi_new: F, pi: F) -> float:
    """Lower bound on J(pi_new) from the mean total variation along the visits of pi; the sharpest of the three.

        J(pi_new) >= L(pi_new) - 2 eps gamma / (1-gamma) sum over s of d(s) TV(s)
        eps = max over s of |sum over a of pi_new(a|s) advantage[s,a]|

    With + in place of - it bounds J from above. Both (S,A). Needs gamma < 1 (ModelError).
    Source: Achiam et al. (2017), corollary 1, with d unnormalised; ledger E1.16.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.5, terminal=[0, 1])
    >>> mean_bound(bandit, np.array([[0.25, 0.75]] * 2), np.array([[0.5, 0.5]] * 2))
    2.25
    """
    x, horizon = exact(mdp, pi), steps(mdp)
    gain = gains(pi_new, x.advantage)
    moved = x.d @ np.where(mdp.terminal, 0.0, total_variation(pi, pi_new))
    return float(x.J + x.d @ gain - 2 * mdp.gamma * horizon * abs(gain).max() * moved)


def mixture_bound(mdp: MDP, pi_new: F, pi: F, alpha: float) -> float:
    """Lower bound on J of the mixture (1-alpha) pi + alpha pi_new: conservative policy iteration.

        J >= J(pi) + alpha G - 2 eps gamma alpha**2 / ((1-gamma) (1 - gamma (1-alpha)))
        G = sum over s of d(s) gain(s),   gain(s) = sum over a of pi_new(a|s) advantage[s,a],   eps = max |gain|

    Both (S,A); alpha in [0,1]. With G > 0 some alpha > 0 improves for certain. Needs gamma < 1 (ModelError).
    Source: Kakade & Langford (2002), theorem 4.1, with d unnormalised; ledger E1.16.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.5, terminal=[0, 1])
    >>> mixture_bound(bandit, np.array([[0.0, 1.0]] * 2), np.array([[0.5, 0.5]] * 2), 0.5).__round__(3)
    1.833
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; a number in [0, 1] is expected")
    x, horizon = exact(mdp, pi), steps(mdp)
    gain = gains(pi_new, x.advantage)
    loss = 2 * mdp.gamma * alpha**2 * abs(gain).max() * horizon / (1 - mdp.gamma * (1 - alpha))
    return float(x.J + alpha * (x.d @ gain) - loss)


def clip_surrogate(pi_new: F, pi: F, d: F, advantage: F, *, low: float = 0.2, high: float = 0.2) -> float:
    """PPO's clipped objective in full: its mean over all states and actions, to be maximised.

        sum over s of d(s) sum over a of pi(a|s) min(rho A, clip(rho, 1 - low, 1 + high) A)

    pi_new, pi, advantage: (S,A); d: (S,) weights of the states, `gradient.exact(mdp, pi).d` for the discounted ones
    or `gradient.visit_counts` for those of the usual sampled PPO. It is 0 at pi_new = pi when advantage is that of pi,
    and with low=1, high=inf (nothing clipped) `surrogate` less J(pi). Ratios as `losses.ppo_clip`, whose mean it is.
    Raises ShapeError, ValueError. Source: Schulman et al. (2017), eq. 7; ledger E1.15.

    >>> uniform, advantage = np.array([[0.5, 0.5]]), np.array([[1.0, -1.0]])
    >>> clip_surrogate(np.array([[0.75, 0.25]]), uniform, np.ones(1), advantage).__round__(9)
    0.2
    """
    shapes(pi_new, pi, d, advantage)
    each = losses.ppo_clip(log_new(pi_new), log(pi), advantage, low=low, high=high)
    return 0.0 - float((d[:, None] * pi * each).sum())


def clip_gradient(pi_new: F, pi: F, d: F, advantage: F, *, low: float = 0.2, high: float = 0.2) -> F:
    """Gradient of `clip_surrogate` with respect to the preferences of pi_new.

        g(a) - pi_new(a|s) sum over b of g(b),   g = d(s) pi_new(a|s) advantage[s,a] where not clipped, else 0

    Clipped is (A > 0 and rho > 1 + high) or (A < 0 and rho < 1 - low). Arguments as `clip_surrogate`. Returns (S,A).
    At pi_new = pi, with d and advantage of pi, it is grad J; a state whose actions are all clipped has gradient 0
    exactly. Source: Schulman et al. (2017), eq. 7; ledger E1.15.

    >>> uniform = np.array([[0.5, 0.5]])
    >>> clip_gradient(uniform, uniform, np.ones(1), np.array([[1.0, -1.0]]))
    array([[ 0.5, -0.5]])
    >>> clip_gradient(np.array([[0.75, 0.25]]), uniform, np.ones(1), np.array([[1.0, -1.0]]))
    array([[0., 0.]])
    """
    shapes(pi_new, pi, d, advantage)
    each = losses.d_ppo_clip(log_new(pi_new), log(pi), advantage, low=low, high=high)
    return 0.0 - through_log(pi_new, d[:, None] * pi * each)


def clip_fraction(pi_new: F, pi: F, d: F, advantage: F, *, low: float = 0.2, high: float = 0.2) -> float:
    """Share of the decisions of pi whose gradient the clip stops.

        sum over s of d(s) sum over a of pi(a|s) 1{clipped} / sum over s of d(s)

    Arguments as `clip_surrogate`. Returns a number in [0, 1]. Source: ledger E1.15.

    >>> uniform, advantage = np.array([[0.5, 0.5]]), np.array([[1.0, -1.0]])
    >>> clip_fraction(np.array([[0.75, 0.25]]), uniform, np.ones(1), advantage)
    1.0
    """
    shapes(pi_new, pi, d, advantage)
    stopped = losses.clipped(log_new(pi_new), log(pi), advantage, low=low, high=high)
    return float(d @ (pi * stopped).sum(axis=1) / d.sum())


def gains(pi_new: F, advantage: F) -> F:
    """(S,) what pi_new gains in each state over pi for one step, sum over a of pi_new(a|s) advantage[s,a]."""
    return (pi_new * advantage).sum(axis=1)  # type: ignore[no-any-return]


def first_order(x: Exact, pi_new: F) -> float:
    """J(pi) plus the gains of pi_new over the visits of pi."""
    return x.J + float(x.d @ gains(pi_new, x.advantage))


def largest(mdp: MDP, distance: F) -> float:
    """Largest distance over the non-terminal states."""
    return float(distance[~mdp.terminal].max(initial=0.0))


def penalty(mdp: MDP, x: Exact) -> float:
    """4 eps gamma / (1-gamma)**2 with eps = max |advantage|."""
    return 4 * float(abs(x.advantage).max()) * mdp.gamma * steps(mdp) ** 2


def steps(mdp: MDP) -> float:
    """1 / (1-gamma); ModelError at gamma = 1."""
    if mdp.gamma == 1.0:
        raise ModelError("gamma is 1; the bound needs gamma < 1")
    return 1 / (1 - mdp.gamma)


def log_new(pi: F) -> F:
    """Logarithm of the new policy's probabilities, far below any ratio's clamp where they are 0."""
    return np.where(pi > 0, log(pi), -1e4)


def shapes(pi_new: F, pi: F, d: F, advantage: F) -> None:
    """Raise ShapeError unless three tables (S,A) and weights (S,) were given."""
    for name, x, shape in (("pi_new", pi_new, pi.shape), ("d", d, pi.shape[:1]), ("advantage", advantage, pi.shape)):
        if x.shape != shape:
            raise ShapeError(f"{name} has shape {x.shape}; {shape} is expected, as pi has shape {pi.shape}")
