"""The exact policy gradient of a softmax table, and what goes with it.

theta (S,A) preferences; pi (S,A) = softmax of theta over the legal actions; V (S,), Q, advantage (S,A) of pi; mu (S,)
start distribution; d (S,) expected discounted visits, unnormalised; J = mu . V. Terminal states and illegal actions
have gradient 0. Linear systems, no sampling.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tabrl import bellman, checks
from tabrl.chain import evaluate, induce, occupancy
from tabrl.errors import ModelError, NotConverged
from tabrl.markov import solve, visited
from tabrl.mdp import MDP
from tabrl.policy import score, softmax, through_pi
from tabrl.rounding import U
from tabrl.types import F

Table = npt.ArrayLike  # (S,A) numbers


class Exact(NamedTuple):
    """Everything the gradient of a policy is made of."""

    pi: F  # (S,A)
    V: F  # (S,)
    Q: F  # (S,A) 0 for terminal states and illegal actions
    advantage: F  # (S,A) Q - V; 0 for terminal states and illegal actions
    d: F  # (S,) expected discounted visits from mu
    J: float  # mu . V


def exact(mdp: MDP, pi: F) -> Exact:
    """Values, advantages, visits and objective of a policy.

        V = r_pi + gamma P_pi V,   Q = r + gamma P V,   advantage = Q - V,   d = mu + gamma P_pi' d,   J = mu . V

    pi: (S,A). At gamma = 1 the policy must end: ModelError where it never does, NotConverged where the end is so
    far away that rounding hides it. Source: Sutton et al. (2000), theorem 1; ledger E1.10.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1])
    >>> exact(bandit, np.array([[0.5, 0.5], [0.5, 0.5]])).advantage
    array([[-1.,  1.],
           [ 0.,  0.]])
    """
    chain = induce(mdp, pi)
    d, V = occupancy(chain, mdp.mu), evaluate(chain)
    steps = float(d.sum())
    if not U * (mdp.S + mdp.A) * steps < 1e-3:  # the rounding of P_pi is no longer small beside the chance to end
        raise NotConverged(f"pi takes about {steps:.3g} steps to end, so rounding hides whether it ends; use gamma < 1")
    Q = bellman.q_from_v(mdp, V)
    advantage = np.where(mdp.legal & ~mdp.terminal[:, None], Q - V[:, None], 0.0)
    return Exact(np.asarray(pi), V, Q, advantage, d, float(mdp.mu @ V))


def softmax_policy(mdp: MDP, theta: Table) -> F:
    """Policy (S,A) of a table of preferences (S,A), over the legal actions of a model. Ledger E1.10.

    >>> softmax_policy(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), [[0.0, 0.0]])
    array([[0.5, 0.5]])
    """
    return softmax(checks.real(theta, "theta", (mdp.S, mdp.A)), mdp.legal)


def at(mdp: MDP, theta: Table) -> Exact:
    """`exact` for the softmax policy of theta (S,A).

    A softmax gives every legal action a positive probability; in floating point it may round to 0. Where a policy never
    ends for that reason, at gamma = 1, NotConverged is raised: the number that rounding leaves is not J.

    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1])
    >>> at(bandit, np.zeros((2, 2))).J
    2.0
    """
    pi = softmax_policy(mdp, theta)
    try:
        return exact(mdp, pi)
    except ModelError as error:
        lost = (pi == 0) & mdp.legal
        if not lost.any():
            raise
        s, a = np.argwhere(lost)[0]
        raise NotConverged(
            f"pi[s={s}, a={a}] is 0 by underflow, and {error}; a policy that ends in floating point is expected; "
            "use smaller preferences"
        ) from error


def objective(mdp: MDP, theta: Table) -> float:
    """Expected return of a softmax policy from the start distribution.

        J(theta) = mu . V_pi

    theta: (S,A). Raises ModelError or NotConverged at gamma = 1 (see `at`).
    Source: Sutton & Barto (2018), eq. 13.4, discounted; ledger E1.10.

    >>> objective(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), [[0.0, 0.0]])
    2.0
    """
    return at(mdp, theta).J


def policy_gradient(mdp: MDP, theta: Table) -> F:
    """Exact gradient of J, by the policy gradient theorem.

        dJ / dtheta[s,a] = d(s) pi(a|s) (Q(s,a) - V(s))

    theta: (S,A). Returns (S,A); each row sums to 0. Q may be replaced by Q - b with any b(s): sums over a of
    d pi(a|s) / d theta are 0. Raises as `objective`. Source: Sutton et al. (2000), theorem 1; ledger E1.10.

    >>> policy_gradient(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), [[0.0, 0.0]])
    array([[-1.,  1.]])
    """
    x = at(mdp, theta)
    return x.d[:, None] * x.pi * x.advantage


def hessian_vector(mdp: MDP, theta: Table, v: Table) -> F:
    """Exact derivative of the gradient along a direction, (Hessian of J) v.

        pi. = pi (v - pi . v),   V. = (I - gamma P_pi)^-1 (pi. . Q),   Q. = gamma P V.
        d. = (I - gamma P_pi')^-1 gamma P_pi.' d
        H v = d. pi (Q - V) + d pi. (Q - V) + d pi (Q. - V.)

    (a dot marks the derivative along v). theta, v: (S,A). Returns (S,A), linear in v. Two linear solves, whatever
    the size of theta. Raises as `objective`. Source: the product rule on `policy_gradient`; ledger E1.10.

    >>> hessian_vector(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), [[0.0, np.log(3)]], [[0.0, 1.0]])
    array([[ 0.375, -0.375]])
    """
    v = checks.real(v, "v", (mdp.S, mdp.A))
    x = at(mdp, theta)
    chain, live = induce(mdp, x.pi), mdp.legal & ~mdp.terminal[:, None]
    pi_dot = through_pi(x.pi, v)
    V_dot = evaluate(chain._replace(r=(pi_dot * x.advantage).sum(axis=1)))
    A_dot = np.where(live, mdp.gamma * (mdp.rows @ V_dot).reshape(mdp.S, mdp.A) - V_dot[:, None], 0.0)
    seen = np.flatnonzero(visited(chain.P, mdp.mu > 0))
    d_dot, push = np.zeros(mdp.S), mdp.gamma * (mdp.rows.T @ (x.d[:, None] * pi_dot).ravel())
    d_dot[seen] = solve(chain.P[seen][:, seen].T, mdp.gamma, push[seen])
    change: F = d_dot[:, None] * x.pi * x.advantage + x.d[:, None] * (pi_dot * x.advantage + x.pi * A_dot)
    return change


def fisher(mdp: MDP, theta: Table) -> F:
    """Fisher information of the softmax policy, weighed by unnormalised visits.

        F = sum over s of d(s) sum over a of pi(a|s) grad log pi(a|s) grad log pi(a|s)'

    Block diagonal with blocks d(s) (diag(pi) - pi pi'); it is also the Hessian of sum over s of d(s) KL(pi, pi') at
    pi' = pi. theta: (S,A). Returns (S·A, S·A), row s·A + a; 0 for terminal states. `fisher_vector` needs no matrix.
    Source: Kakade (2001), with d unnormalised; ledger E1.16.

    >>> fisher(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), [[0.0, 0.0]])
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])
    """
    x = at(mdp, theta)
    weight, s = np.where(mdp.terminal, 0.0, x.d), np.arange(mdp.S)
    F = np.zeros((mdp.S, mdp.A, mdp.S, mdp.A))
    F[s, :, s, :] = (weight[:, None] * x.pi)[:, :, None] * score(x.pi)
    return F.reshape(mdp.S * mdp.A, mdp.S * mdp.A)


def fisher_vector(mdp: MDP, theta: Table, v: Table) -> F:
    """Fisher information times a direction, without the matrix.

        (F v)[s,a] = d(s) pi(a|s) (v[s,a] - sum over b of pi(b|s) v[s,b])

    theta, v: (S,A). Returns (S,A). Source: as `fisher`; ledger E1.16.

    >>> fisher_vector(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), [[0.0, 0.0]], [[1.0, 0.0]])
    array([[ 0.5, -0.5]])
    """
    x = at(mdp, theta)
    weight = np.where(mdp.terminal, 0.0, x.d)
    return weight[:, None] * through_pi(x.pi, checks.real(v, "v", (mdp.S, mdp.A)))


def natural_gradient(mdp: MDP, theta: Table) -> F:
    """Natural gradient of J: a solution x of F x = grad J.

        x[s,a] = Q(s,a) - V(s)   where d(s) > 0, else 0

    F leaves a constant per state open, which changes no policy: this is the solution with sum over a of pi(a|s) x = 0.
    The Moore-Penrose solution pinv(F) grad J is x less its plain mean over the legal actions of each state. (Under a
    normalised (1-gamma) d in F alone, x is 1/(1-gamma) times as long.) theta: (S,A). Returns (S,A).
    Source: Kakade (2001), theorem 1; Agarwal et al. (2021), lemma 15. Ledger E1.16.

    >>> natural_gradient(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), [[0.0, 0.0]])
    array([[-1.,  1.]])
    """
    x = at(mdp, theta)
    return np.where(x.d[:, None] > 0, x.advantage, 0.0)


def visit_counts(mdp: MDP, pi: F, horizon: int | None = None) -> F:
    """Expected number of visits to each state without discount, whatever gamma values them with.

        n(s) = sum over t of P(s_t = s),   t < horizon

    pi: (S,A). horizon: number of steps T, or None for whole episodes, which must end (ModelError). Returns (S,); a
    terminal state counts its one visit. Source: Nota & Thomas (2020); ledger E1.15.

    >>> walk = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [1, 1, 0], 0.5, mu=[1, 0, 0], terminal=[0, 0, 1])
    >>> visit_counts(walk, np.ones((3, 1))), visit_counts(walk, np.ones((3, 1)), 1)
    (array([1., 1., 1.]), array([1., 0., 0.]))
    """
    chain = induce(mdp, pi)
    if horizon is None:
        return occupancy(chain._replace(gamma=1.0), mdp.mu)
    if horizon < 0:
        raise ValueError(f"horizon is {horizon}; 0 or more steps are expected")
    n, p = np.zeros(mdp.S), np.array(mdp.mu)
    for _ in range(horizon):
        n, p = n + p, chain.P.T @ p
    return n


def usual_gradient(mdp: MDP, theta: Table, *, horizon: int | None = None) -> F:
    """What sampled actor-critic and PPO follow in the mean when every visit counts the same, without gamma**t.

        n(s) pi(a|s) (Q(s,a) - V(s)),   n the undiscounted `visit_counts`

    with the exact discounted advantages: the estimate's target, for whole episodes or for the first `horizon` steps
    of each. It equals grad J at gamma = 1 alone, and is in general the gradient of no function of theta. theta: (S,A).
    Returns (S,A). Source: Thomas (2014); Nota & Thomas (2020). Ledger E1.15.

    >>> walk = MDP([[[0, 1, 0]] * 2, [[0, 0, 1]] * 2, [[0, 0, 1]] * 2], [[0, 0], [0, 1], [0, 0]], 0.5,
    ...            mu=[1, 0, 0], terminal=[0, 0, 1])
    >>> usual_gradient(walk, np.zeros((3, 2)))[1] / policy_gradient(walk, np.zeros((3, 2)))[1]
    array([2., 2.])
    """
    x = at(mdp, theta)
    return visit_counts(mdp, x.pi, horizon)[:, None] * x.pi * x.advantage
