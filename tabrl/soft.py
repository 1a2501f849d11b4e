"""Entropy-regularised (soft) values: reward plus tau times the entropy of every decision on the way.

tau > 0 temperature; H(s) entropy of pi(.|s); V (S,) soft values, 0 on terminal states; Q (S,A) = r + gamma P V, which
leaves the entropy of its own first decision out; pi (S,A). tau to 0 gives back V_pi and V_star.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np

from tabrl import bellman, checks, undiscounted
from tabrl.chain import evaluate, induce
from tabrl.errors import NotConverged
from tabrl.gradient import Table, at
from tabrl.mdp import MDP
from tabrl.policy import entropy, log_softmax, softmax, through_pi
from tabrl.rounding import U
from tabrl.stopping import LIMIT, finished, initial
from tabrl.trace import last
from tabrl.types import F, Sweep


class SoftSolution(NamedTuple):
    """The optimum of the entropy-regularised objective."""

    V: F  # (S,)
    Q: F  # (S,A)
    pi: F  # (S,A) softmax of Q / tau
    bound: float  # certified max |V - V_star_tau|


def evaluate_soft(mdp: MDP, pi: F, tau: float) -> F:
    """Soft values of a policy.

        V = (I - gamma P_pi)^-1 (r_pi + tau H),   V(s) = sum over a of pi(a|s) (Q(s,a) - tau log pi(a|s))

    pi: (S,A); tau > 0. Returns (S,). tau to 0 gives V_pi, as does a deterministic policy. Raises as `chain.evaluate`
    (at gamma = 1 the policy must end). Source: Haarnoja et al. (2018), lemma 1; ledger E1.16.

    >>> evaluate_soft(MDP([[[1.0], [1.0]]], [[0, 0]], 0.5), np.array([[0.5, 0.5]]), 1.0) / np.log(2)
    array([2.])
    """
    chain = induce(mdp, pi)
    return evaluate(chain._replace(r=chain.r + temperature(tau) * entropy(np.asarray(pi))))


def soft_maximum(mdp: MDP, Q: F, tau: float) -> F:
    """Smoothed maximum of each state's legal action values, the soft value of the best policy for one step.

        tau log sum over legal a of exp(Q(s,a) / tau) = max over p of sum over a of p(a) (Q(s,a) - tau log p(a))

    Between max Q and max Q + tau log A; 0 on terminal states. Q: (S,A). Returns (S,). Large Q / tau do not overflow.
    Source: Ziebart (2010), Modeling purposeful adaptive behavior; ledger E1.16.

    >>> soft_maximum(MDP([[[1.0], [1.0]]], [[0, 0]], 0.5), np.array([[3.0, 3.0]]), 1.0) - np.log(2)
    array([3.])
    """
    weight = np.where(mdp.legal, np.exp(exponents(mdp, Q, tau)), 0.0)
    return np.where(mdp.terminal, 0.0, bellman.maximum(Q, mdp.legal) + tau * np.log(weight.sum(axis=1)))


def soft_policy(mdp: MDP, Q: F, tau: float) -> F:
    """Policy that is best against soft action values: the softmax of Q / tau.

        pi(a|s) = exp((Q(s,a) - V(s)) / tau),   V the `soft_maximum`

    Q: (S,A). Returns (S,A). tau to 0 gives a greedy policy, ties shared. Source: as `soft_maximum`; ledger E1.16.

    >>> soft_policy(MDP([[[1.0], [1.0]]], [[0, 0]], 0.5), np.array([[0.0, np.log(3.0)]]), 1.0)
    array([[0.25, 0.75]])
    """
    return softmax(exponents(mdp, Q, tau), mdp.legal)


def exponents(mdp: MDP, Q: F, tau: float) -> F:
    """(Q - max Q) / tau, 0 for illegal actions; cut at -1000, where exp is 0 already, so that no tau overflows."""
    gap = np.where(mdp.legal, Q - bellman.maximum(Q, mdp.legal)[:, None], 0.0)
    return np.maximum(gap, -1000 * temperature(tau)) / tau


def soft_value_iteration(
    mdp: MDP, tau: float, *, V: F | None = None, tol: float = 1e-8, limit: int = LIMIT
) -> Iterator[Sweep]:
    """Soft value iteration: the maximum of value iteration made smooth.

        V_k+1(s) = tau log sum over legal a of exp(Q_k(s,a) / tau),   Q_k = r + gamma P V_k

    V: (S,) start, 0 unless given. A contraction by gamma, as the maximum is, so the residual certifies the distance to
    the optimum, rounding included (exp and log counted as accurate to 4 units in the last place). Stops when the bound
    is at most tol or at the rounding floor. At gamma = 1 the bound is inf where some policy never ends, and V grows for
    ever where lingering earns more entropy than it costs.
    Source: Ziebart (2010); Haarnoja et al. (2017), theorem 3. Ledger E1.16.

    >>> one = MDP([[[1.0], [1.0]]], [[0, 0]], 0.5)
    >>> [round(float(x.V[0] / np.log(2)), 3) for x in soft_value_iteration(one, 1.0, limit=3)]
    [1.0, 1.5, 1.75]
    """
    temperature(tau)
    V, w = initial(mdp, V, tol), undiscounted.weight(mdp)
    for k in count(1):
        TV = soft_maximum(mdp, bellman.q_from_v(mdp, V), tau)
        residual, V = float(abs(TV - V).max()), TV
        sweep = certified(mdp, k, V, residual, tau, w)
        yield sweep
        if finished(mdp, sweep, tol, limit) or residual <= noise(mdp, sweep, tau):
            return


def certified(mdp: MDP, k: int, V: F, residual: float, tau: float, w: F | None) -> Sweep:
    """Record a sweep with its bound, the rounding of the smooth maximum included."""
    sweep = Sweep(k, V, residual, np.inf)
    V_max = float(abs(V).max(initial=0.0)) + residual
    return sweep._replace(bound=bellman.error_bound(mdp, residual + noise(mdp, sweep, tau), V_max, w))


def noise(mdp: MDP, sweep: Sweep, tau: float) -> float:
    """Rounding of the smooth maximum, beyond that of the backup.

    The sum of A exponentials has relative error (2 A + 8) u, its logarithm 8 u log A more; the last sum 1 u.
    """
    V_max = float(abs(sweep.V).max(initial=0.0)) + sweep.residual
    return U * (4 * V_max + (2 * mdp.A + 32) * tau * (1 + float(np.log(mdp.A))))


def soft_policy_iteration(
    mdp: MDP, tau: float, *, pi: F | None = None, tol: float = 1e-8, limit: int = 1000
) -> Iterator[Sweep]:
    """Soft policy iteration: evaluate exactly, then take the softmax of Q / tau.

        V_k = soft values of pi_k,   pi_k+1 = softmax of Q_k / tau

    Values never fall, and it is Newton's method on the smooth Bellman equation: a handful of rounds. pi: (S,A) start,
    uniform over the legal actions unless given. Yields one `Sweep` per evaluation; its residual is max |T V - V|.
    Stops when the bound is at most tol, or when rounding hides any progress.
    Source: Haarnoja et al. (2018), theorem 1; Geist et al. (2019). Ledger E1.16.

    >>> one = MDP([[[1.0], [1.0]]], [[0, 0]], 0.5)
    >>> [round(float(x.V[0] / np.log(2)), 3) for x in soft_policy_iteration(one, 1.0)]
    [2.0]
    """
    checks.tolerance(tol)
    w, V_old = undiscounted.weight(mdp), np.full(mdp.S, -np.inf)
    pi = mdp.legal / mdp.legal.sum(axis=1, keepdims=True) if pi is None else pi
    for k in range(1, limit + 1):
        V = evaluate_soft(mdp, pi, tau)
        Q = bellman.q_from_v(mdp, V)
        residual = float(abs(soft_maximum(mdp, Q, tau) - V).max())
        sweep = certified(mdp, k, V, residual, tau, w)
        yield sweep
        if finished(mdp, sweep, tol, limit) or not np.any(V_old < V):
            return
        pi, V_old = soft_policy(mdp, Q, tau), V


def soft_optimum(mdp: MDP, tau: float, *, tol: float = 1e-8) -> SoftSolution:
    """Optimum of the entropy-regularised objective, with a certified bound.

        V(s) = tau log sum over legal a of exp(Q(s,a) / tau),   pi(a|s) = exp((Q(s,a) - V(s)) / tau)

    0 <= V - V_star <= tau log A / (1-gamma): tau to 0 gives V_star. Raises NotConverged, with the last `Sweep`, when
    the bound does not reach tol (at gamma = 1 it is inf where some policy never ends).
    Source: Ziebart (2010); Geist et al. (2019), A theory of regularized Markov decision processes. Ledger E1.16.

    >>> soft_optimum(MDP([[[1.0], [1.0]]], [[0, np.log(3)]], 0.5), 1.0).pi.round(12)
    array([[0.25, 0.75]])
    """
    sweep = last(soft_policy_iteration(mdp, tau, tol=tol))
    if not sweep.bound <= tol:
        raise NotConverged(f"bound is {sweep.bound:.3g}; at most tol = {tol:.3g} is expected", sweep)
    Q = bellman.q_from_v(mdp, sweep.V)
    return SoftSolution(sweep.V, Q, soft_policy(mdp, Q, tau), sweep.bound)


def soft_objective(mdp: MDP, theta: Table, tau: float) -> float:
    """Entropy-regularised objective of a softmax policy, J_tau = mu . V with V its soft values.

    theta: (S,A). Source: Mei et al. (2020); ledger E1.16.

    >>> round(soft_objective(MDP([[[1.0], [1.0]]], [[0, 0]], 0.5), [[0.0, 0.0]], 1.0), 6)
    1.386294
    """
    return float(mdp.mu @ evaluate_soft(mdp, at(mdp, theta).pi, tau))


def soft_policy_gradient(mdp: MDP, theta: Table, tau: float) -> F:
    """Exact gradient of the entropy-regularised objective.

        dJ_tau / dtheta[s,a] = d(s) pi(a|s) (Q(s,a) - tau log pi(a|s) - V(s))

    with soft Q and V. It is 0 at the soft optimum. An entropy bonus that is added to a loss, state by state, leaves out
    the entropy of later states, and so follows another direction. theta: (S,A). Returns (S,A).
    Source: Mei et al. (2020), lemma 10, with d unnormalised; ledger E1.16.

    >>> soft_policy_gradient(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), [[0.0, 0.0]], 1.0)
    array([[-1.,  1.]])
    """
    x = at(mdp, theta)
    Q = bellman.q_from_v(mdp, evaluate_soft(mdp, x.pi, tau))
    logp = np.where(mdp.legal, log_softmax(theta, mdp.legal), 0.0)
    weight = np.where(mdp.terminal, 0.0, x.d)
    return weight[:, None] * through_pi(x.pi, Q - tau * logp)


def temperature(tau: float) -> float:
    """Return tau if it is a finite number > 0."""
    if not 0 < tau < np.inf:
        raise ValueError(f"tau is {tau}; a finite temperature > 0 is expected")
    return float(tau)
