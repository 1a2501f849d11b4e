"""Compare the package, or a function of your own, with the closed forms of the ledger (docs/equations.md).

`run()` verifies the package. `check("E1.5", my_solver)` verifies a function of yours on the cases of a row:

    E1.1  f(r, discount) -> G            r, discount (T,); G[t] = r[t] + discount[t] G[t+1], nothing after the end
    E1.2  f(P, r, gamma, pi) -> V        values of the policy pi (S,A)
    E1.3  f(P, r, gamma, pi, V) -> T_pi V     one backup of V (S,), from the old values
    E1.4  f(P, r, gamma) -> pi           (S,A) an optimal policy, one-hot or mixed, judged on its exact values
    E1.5  f(P, r, gamma) -> V            V* (S,)
    E1.6  f(episodes, S) -> V            (S,) average return after the first visit of each episode, 0 if never visited
    E1.7  f(V, s, r, discount, alpha) -> V        V (S,) after one pass of TD(0) over an episode
    E1.8  f(V, s, r, discount, alpha, n) -> V     V (S,) after one pass of n-step TD over an episode
    E1.9  f(r, discount, v, lam) -> G             (T,) lambda-returns, v (T+1,) the values along the episode
    E1.10  f(P, r, gamma, mu, theta) -> grad J    (S,A) of the softmax policy of theta (S,A), from mu (S,)
    E1.11  f(pi, s, a, r, discount, baseline) -> g    (S,A) sum of gamma^t grad log pi (G[t] - baseline[s[t]])
    E1.12  f(theta, V, s, a, r, discount, alpha, beta) -> theta    (S,A) after a pass of one-step actor-critic
    E1.13  f(r, discount, v, lam) -> A            (T,) generalised advantages, v (T+1,) as in E1.9
    E1.14  f(r, discount, rho) -> G               (T,) per-decision returns, rho (T,) ratios pi/b of the actions
    E1.15  f(logp, logp_old, adv, low, high) -> loss  (T,) the PPO-clip loss of each step, to be minimised
    E1.16  f(pi_old, pi_new) -> KL                (S,) KL(pi_old, pi_new) of each state, in nats; 0 log 0 = 0
    E1.17  f(r, discount, v, lam) -> y            (T,) targets of the critic, v (T+1,) as in E1.9

P (S,A,S) is P[s, a, s_next]; the rows of terminal states are zero: nothing follows, their value is 0.
r (S,A) is the expected reward. gamma is 0, 0.9, 0.99 or 1 (then every policy ends).

An episode is s (T+1,), r (T,), discount (T,): r[t] follows s[t], and discount[t] is gamma, or 0 if s[t+1] is
terminal. An episode cut by a time limit keeps gamma: the value of its last state counts. The value that V has in a
terminal state is never used. episodes: a list of (s, r, discount), each to its end.

Policies are softmax tables: gradients are with respect to theta (S,A), and all actions are legal. The episodes of E1.11
run to their end. gamma^t, the product of discount[0] … discount[t-1], belongs to a step's score in E1.11 and E1.12. In
E1.12 delta is computed from the V so far; then V moves by beta delta, and theta by alpha gamma^t delta times the score.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from tabrl.verify import (
    cases,
    cases_actor_critic,
    cases_advantages,
    cases_gradient,
    cases_monte_carlo,
    cases_surrogate,
    cases_td,
    own,
    own_actor_critic,
    own_advantages,
    own_gradient,
    own_importance,
    own_lambda,
    own_learners,
    own_monte_carlo,
    own_n_step,
    own_reinforce,
    own_surrogate,
    own_td,
    own_trust_region,
)
from tabrl.verify.record import Case, Check, Row
from tabrl.verify.users import judge, load, own_checks

__all__ = ["ROWS", "Case", "Check", "Row", "check", "find", "load", "register", "run"]

ROWS: dict[str, Row] = {}


def register(row: Row) -> None:
    """Add a done row of the ledger. Raises ValueError when its id is there already."""
    if row.id in ROWS:
        raise ValueError(f"row {row.id} is registered twice; one definition is expected")
    ROWS[row.id] = row


def find(row: str) -> Row:
    """Return a row by its id. Raises ValueError, with the close matches and the list, when there is none.

    >>> find("E1.5").signature
    'V(s) = f(P, r, gamma): V* (S,)'
    """
    if row not in ROWS:
        close = difflib.get_close_matches(str(row).upper(), ROWS, n=2, cutoff=0.6)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"row is {row!r}; one of {', '.join(ROWS)} is expected{hint}")
    return ROWS[row]


def run(rows: Sequence[str] | None = None) -> list[Check]:
    """Compare the package with the closed forms of the given rows, all unless given.

    Several checks per row; an error inside the package is a failed check.

    >>> all(check.passed for check in run(["E1.1"]))
    True
    """
    return [check for row in (ROWS if rows is None else rows) for check in own_checks(find(row))]


def check(row: str, fn: Callable[..., Any], *, tol: float = 1e-6) -> list[Check]:
    """Run a function of yours on the cases of a row, and compare it with the closed form.

    row: an id; fn: as listed above. The tolerance of a case is tol times its largest |expected|, or tol if
    that is below 1. Returns one `Check` per case; a wrong shape, an exception or a nan is a failed check
    that says so, and a difference that a well-known mistake explains is named.

    >>> backup = lambda P, r, gamma, pi, V: (pi * (r + gamma * P @ V)).sum(1)
    >>> all(c.passed for c in check("E1.3", backup))
    True
    >>> forgetful = lambda P, r, gamma, pi, V: (pi * (r + P @ V)).sum(1)
    >>> check("E1.3", forgetful)[1].where
    's=0: 1.46479 instead of 1.35367; this is what you get when you forget gamma'
    """
    if not callable(fn):
        raise TypeError(f"fn is {fn!r}; a function is expected")
    if not tol > 0:
        raise ValueError(f"tol is {tol}; a positive number is expected")
    return judge(find(row), fn, tol)


def joined(*parts: Callable[[], list[Check]]) -> Callable[[], list[Check]]:
    """The checks of several modules as one."""
    return lambda: [check for part in parts for check in part()]


for _row in (
    Row("E1.1", "G[t] = r[t] + discount[t] G[t+1]", "G(t) = f(r, discount): (T,)", own.returns, cases.return_cases),
    Row(
        "E1.2",
        "V_pi = (I - gamma P_pi)^-1 r_pi,  Q = r + gamma P V",
        "V(s) = f(P, r, gamma, pi): V_pi (S,)",
        own.evaluation,
        cases.evaluation_cases,
    ),
    Row(
        "E1.3",
        "V = T_pi V,  d = mu' (I - gamma P_pi)^-1,  J = d . r_pi",
        "T_pi_V(s) = f(P, r, gamma, pi, V): one backup (S,)",
        own.bellman_equation,
        cases.backup_cases,
    ),
    Row(
        "E1.4",
        "pi(s) in argmax of Q*,  max(V* - V_pi) <= policy_loss_bound",
        "V_pi(s) of pi = f(P, r, gamma): an optimal policy (S,A)",
        own.optimal_policy,
        cases.policy_cases,
    ),
    Row(
        "E1.5",
        "V* = T V*,  max|V - V*| <= bound",
        "V(s) = f(P, r, gamma): V* (S,)",
        own.optimality,
        cases.optimal_cases,
    ),
    Row(
        "E1.6",
        "V(s) = average of G[t] over first visits t, and over every visit",
        "V(s) = f(episodes, S): averages of first visits (S,)",
        own_monte_carlo.monte_carlo,
        cases_monte_carlo.average_cases,
    ),
    Row(
        "E1.7",
        "V(s) <- V(s) + alpha delta,  delta = r + discount V(s') - V(s)",
        "V(s) = f(V, s, r, discount, alpha): after one pass (S,)",
        own_td.td,
        cases_td.td_cases,
    ),
    Row(
        "E1.8",
        "G = r[t] + discount r[t+1] + … + discount^n V(s[t+n]),  V(s[t]) <- V(s[t]) + alpha (G - V(s[t]))",
        "V(s) = f(V, s, r, discount, alpha, n): after one pass (S,)",
        own_n_step.n_steps,
        cases_td.n_step_cases,
    ),
    Row(
        "E1.9",
        "G[t] = r[t] + discount[t] ((1 - lam) v[t+1] + lam G[t+1]),  G[T] = v[T]",
        "G(t) = f(r, discount, v, lam): lambda-returns (T,)",
        own_lambda.lambdas,
        cases_td.lambda_cases,
    ),
    Row(
        "E1.10",
        "dJ / dtheta[s,a] = d(s) pi(a|s) (Q(s,a) - V(s))",
        "grad(s,a) = f(P, r, gamma, mu, theta): gradient of J (S,A)",
        own_gradient.policy_gradient,
        cases_gradient.gradient_cases,
    ),
    Row(
        "E1.11",
        "g = sum over t of gamma^t grad log pi(a[t]|s[t]) (G[t] - b(s[t]))",
        "g(s,a) = f(pi, s, a, r, discount, baseline): estimate of the gradient of J (S,A)",
        joined(own_reinforce.reinforce, own_learners.reinforced),
        cases_gradient.reinforce_cases,
    ),
    Row(
        "E1.12",
        "theta <- theta + alpha gamma^t delta grad log pi(a[t]|s[t]),  E[delta|s,a] - A = gamma P e - e(s)",
        "theta(s,a) = f(theta, V, s, a, r, discount, alpha, beta): after one pass (S,A)",
        joined(own_actor_critic.actor_critic, own_learners.advantage_actor_critic),
        cases_actor_critic.actor_critic_cases,
    ),
    Row(
        "E1.13",
        "A[t] = delta[t] + lam discount[t] A[t+1]",
        "A(t) = f(r, discount, v, lam): generalised advantages (T,)",
        own_advantages.gae,
        cases_advantages.advantage_cases,
    ),
    Row(
        "E1.14",
        "G[t] = rho[t] (r[t] + discount[t] G[t+1])",
        "G(t) = f(r, discount, rho): per-decision returns (T,)",
        own_importance.sampling,
        cases_monte_carlo.importance_cases,
    ),
    Row(
        "E1.15",
        "-min(rho A, clip(rho, 1 - low, 1 + high) A)",
        "loss(t) = f(logp, logp_old, adv, low, high): to be minimised (T,)",
        joined(own_surrogate.clip, own_learners.proximal),
        cases_surrogate.clip_cases,
    ),
    Row(
        "E1.16",
        "KL(s) = sum of pi_old log(pi_old / pi_new),  F x = grad J,  J(pi_new) >= L - C max TV^2",
        "KL(s) = f(pi_old, pi_new): divergence of each state (S,)",
        joined(own_trust_region.trust_region, own_learners.trusted),
        cases_surrogate.kl_cases,
    ),
    Row(
        "E1.17",
        "y[t] = A[t] + v[t]",
        "y(t) = f(r, discount, v, lam): targets of the critic (T,)",
        own_advantages.targets,
        cases_advantages.target_cases,
    ),
):
    register(_row)
