"""Exact ascent on J: the natural gradient step in closed form, mirror descent, plain gradient ascent.

theta (S,A) preferences; pi (S,A) = softmax of theta; V (S,), advantage (S,A) of pi; eta step size; k updates done.
No sampling: these are the paths that sampled algorithms follow in the mean.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from tabrl import bellman, checks, undiscounted
from tabrl.errors import ShapeError
from tabrl.gradient import Exact, Table, at
from tabrl.mdp import MDP
from tabrl.types import F

StepSize: TypeAlias = float | Callable[[int], float]  # one number, or the step size of update k = 1, 2, …
LIMIT = 100_000


class PolicyStep(NamedTuple):
    """A policy on the way, with its exact values."""

    k: int  # updates done
    theta: F  # (S,A)
    pi: F  # (S,A)
    V: F  # (S,) of pi
    J: float  # mu . V
    bound: float  # certified max |V - V_star|; inf where gamma = 1 and some policy never ends


def npg_step(pi: F, advantage: F, eta: float) -> F:
    """One step of the natural policy gradient for softmax tables, in closed form.

        pi'(a|s) = pi(a|s) exp(eta advantage[s,a]) / sum over b of pi(b|s) exp(eta advantage[s,b])

    It is theta + eta * advantage, and also the maximiser of sum over a of pi'(a|s) advantage[s,a] - KL(pi', pi) / eta.
    pi, advantage: (...,A); a constant added to a row of advantage changes nothing. eta=0 gives pi, eta to infinity
    the best action that pi takes (policy iteration). Raises ShapeError, ValueError.
    Source: Agarwal et al. (2021), lemma 15, with unnormalised visits; ledger E1.16.

    >>> npg_step(np.array([[0.5, 0.5]]), np.array([[0.0, np.log(3.0)]]), 1.0)
    array([[0.25, 0.75]])
    """
    if pi.shape != advantage.shape:
        raise ShapeError(f"advantage has shape {advantage.shape}; the shape of pi, {pi.shape}, is expected")
    if not 0 <= eta < np.inf:
        raise ValueError(f"eta is {eta}; a finite step size >= 0 is expected")
    best = np.where(pi > 0, advantage, -np.inf).max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # -inf, and so weight 0, is right
        weight = pi * np.exp(eta * np.minimum(advantage - best, 0.0))
    return weight / weight.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def mirror_descent(
    mdp: MDP, *, eta: StepSize, theta: Table | None = None, tol: float = 1e-8, limit: int = LIMIT
) -> Iterator[PolicyStep]:
    """Policy mirror descent with the Kullback-Leibler divergence: exact natural gradient steps in every state.

        pi_k+1(.|s) = argmax over p of sum over a of p(a) Q_k(s,a) - KL(p, pi_k(.|s)) / eta_k,   theta += eta_k A_k

    V never falls in any state, for any eta > 0, and with g_k the largest -log pi_k(best action of Q_k | s),

        max(V_star - V_k+1) <= gamma max(V_star - V_k) + g_k / eta_k

    so step sizes that grow like gamma**-k give a linear rate, and eta to infinity is policy iteration. theta: (S,A)
    start, the uniform policy unless given. Yields the start (k = 0) and every update; stops when the certified bound
    is at most tol, or after limit updates. Source: Xiao (2022), On the convergence rates of policy gradient methods;
    Agarwal et al. (2021), theorem 16, for constant eta. Ledger E1.16.

    >>> two = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [2, 2]], 0.9, mu=[1, 0])
    >>> [round(x.J, 3) for x in mirror_descent(two, eta=0.5, limit=3)]
    [17.273, 17.631, 17.786, 17.869]
    """
    return ascent(mdp, lambda x: x.advantage, eta, theta, tol, limit)


def gradient_ascent(
    mdp: MDP, *, eta: StepSize, theta: Table | None = None, tol: float = 1e-8, limit: int = LIMIT
) -> Iterator[PolicyStep]:
    """Exact gradient ascent: what REINFORCE would do without noise.

        theta += eta_k grad J(theta)

    Rows of theta keep their sum, and states that mu never reaches never change. Slow where a wrong policy is nearly
    deterministic: the gradient is small there. Arguments and records as in `mirror_descent`.
    Source: Agarwal et al. (2021), section 5; ledger E1.10.

    >>> two = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [2, 2]], 0.9, mu=[1, 0])
    >>> [round(x.J, 3) for x in gradient_ascent(two, eta=0.5, limit=3)]
    [17.273, 17.607, 17.725, 17.788]
    """
    return ascent(mdp, lambda x: x.d[:, None] * x.pi * x.advantage, eta, theta, tol, limit)


def ascent(
    mdp: MDP, direction: Callable[[Exact], F], eta: StepSize, theta: Table | None, tol: float, limit: int
) -> Iterator[PolicyStep]:
    """Climb along a direction that is a function of the exact quantities of the policy."""
    checks.tolerance(tol)
    w = undiscounted.weight(mdp)
    theta = np.zeros((mdp.S, mdp.A)) if theta is None else checks.real(theta, "theta", (mdp.S, mdp.A))
    k = 0
    while True:
        x = at(mdp, theta)
        bound = bellman.certified_bound(mdp, x.V, w)
        yield PolicyStep(k, theta, x.pi, x.V, x.J, bound)
        if bound <= tol or k >= limit:
            return
        k += 1
        theta = theta + size(eta, k) * direction(x)


def size(eta: StepSize, k: int) -> float:
    """Step size of update k."""
    step = float(eta(k) if callable(eta) else eta)
    if not 0 < step < np.inf:
        raise ValueError(f"eta is {step} in update {k}; a finite step size > 0 is expected")
    return step
