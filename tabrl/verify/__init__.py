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
    E2.1  f(pi, reward) -> V                      (N,) values of the prefixes of a prompt
    E2.2  f(r, v, mask, lam) -> A                 (B,T) generalised advantages of tokens, without discount
    E2.3  f(logp, logp_old, adv, mask, low, high) -> loss    GRPO's loss of a batch, one number; adv (B,)
    E2.4  f(reward, group) -> A                   (B,) outcomes normalised within groups, sample std + 1e-4
    E2.5  f(step_reward, step_end, group, mask) -> A    (B,T) process advantages, sample std + 1e-4
    E2.6  f(logp, logp_ref) -> k3                 (T,) estimate of KL(pi || ref) of each token that pi drew
    E2.7  f(ref, r, beta) -> pi_star              (n,) the best distribution over all sequences of a prompt
    E2.8  f(p, G) -> share                        (n,) of the groups that dynamic sampling keeps
    E2.9  f(x, mask, group) -> loss               DAPO's mean over groups of means over tokens, one number
    E2.10  f(critic, kl, epochs, kept) -> counts  (2,) networks held, forward passes for each token used
    E2.11  f(length, longest, cache) -> penalty   (B,) of overlong answers, to be added to the outcome
    E2.12  f(prompts, completions) -> rewards     (B,) of the copy task, as TRL asks for them

P (S,A,S) is P[s, a, s_next]; the rows of terminal states are zero: nothing follows, their value is 0.
r (S,A) is the expected reward. gamma is 0, 0.9, 0.99 or 1 (then every policy ends).

An episode is s (T+1,), r (T,), discount (T,): r[t] follows s[t], and discount[t] is gamma, or 0 if s[t+1] is
terminal. An episode cut by a time limit keeps gamma: the value of its last state counts. The value that V has in a
terminal state is never used. episodes: a list of (s, r, discount), each to its end.

Policies are softmax tables: gradients are with respect to theta (S,A), and all actions are legal. The episodes of E1.11
run to their end. gamma^t, the product of discount[0] … discount[t-1], belongs to a step's score in E1.11 and E1.12. In
E1.12 delta is computed from the V so far; then V moves by beta delta, and theta by alpha gamma^t delta times the score.

Sequences of tokens: arrays are (B,T), mask is 1 for tokens that count, which come first, and what other arrays hold
where it is 0 means nothing; A is 0 there. group (B,) holds labels, in any order. r[t] is paid with token t, v[t] is the
value of the prefix before it. In E2.1 pi and reward are (N,V): row 0 is the empty prefix, row h V + 1 + a follows token
a of row h, and where there is no such row the sequence ends. step_end (B,T) is true where a step ends. In E2.8 p (n,)
are chances of success. In E2.10 critic and kl are 0 or 1, epochs looks at a batch, kept the share of the drawn tokens
that are used. In E2.12 a prompt is "copy: a b", and the right completion "a b", word by word; it pays 1, any other 0.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from tabrl.verify import rows_tabular, rows_tokens
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


for _row in (*rows_tabular.ROWS, *rows_tokens.ROWS):
    register(_row)
