"""Exercises of lessons 1 to 7: returns, Bellman equations, dynamic programming, prediction from samples."""

from tabrl.grading.bank_record import Exercise
from tabrl.verify import cases_pairs, cases_traces

EPISODE = """
s: (T+1,) states; r: (T,) rewards, r[t] follows s[t]; discount: (T,), discount[t] is gamma, or 0 if s[t+1] is
terminal. An episode that a time limit cut keeps gamma: the value of its last state counts. The value of a
terminal state is never used, whatever stands there.
"""
MODEL = """
P: (S,A,S) chances P[s, a, s_next]; the rows of terminal states are zero: nothing follows, their value is 0.
r: (S,A) expected rewards. gamma: the discount, from 0 to 1; at 1 every policy ends.
"""

EXERCISES = (
    Exercise(
        "returns", "r, discount", "The return from each step of an episode", 1, "E1.1", 10,
        "G[t] = r[t] + discount[t] G[t+1], and G[T] = 0",
        """
r: (T,) rewards. discount: (T,), discount[t] is what the return after r[t] is multiplied by; 0 where an episode
ends. Nothing follows the last step. Returns G (T,).
""",
    ),
    Exercise(
        "policy_values", "P, r, gamma, pi", "Values of a policy by linear algebra", 2, "E1.2", 15,
        "V = (I - gamma P_pi)^-1 r_pi, with averages over pi: r_pi(s) = sum of pi(a|s) r(s,a), P_pi likewise",
        f"{MODEL}pi: (S,A) chances of the actions. Returns V (S,), exact up to rounding.",
        advice=(("shape", "A mean over actions runs along the last axis of pi and r, and leaves (S,)."),),
    ),
    Exercise(
        "backup", "P, r, gamma, pi, V", "One backup of the values of a policy", 2, "E1.3", 10,
        "(T_pi V)(s) = sum over a of pi(a|s) (r(s,a) + gamma sum over s' of P(s'|s,a) V(s'))",
        f"{MODEL}pi: (S,A). V: (S,) the old values. Returns T_pi V (S,), every entry from the old values.",
        advice=(("shape", "A mean over actions runs along the last axis of pi and r, and leaves (S,)."),),
    ),
    Exercise(
        "optimal_values", "P, r, gamma", "Optimal values", 3, "E1.5", 20,
        "V*(s) = max over a of (r(s,a) + gamma sum over s' of P(s'|s,a) V*(s'))",
        f"{MODEL}Returns V* (S,), wrong by at most 1e-6 of its largest entry.",
        advice=(("time", "Each sweep shrinks the error by gamma: go on until it changes little, not until it is 0."),),
    ),
    Exercise(
        "optimal_policy", "P, r, gamma", "An optimal policy", 3, "E1.4", 25,
        "pi(s) in argmax over a of Q*(s,a), Q* = r + gamma P V*",
        f"{MODEL}Returns pi (S,A): each row is a distribution over actions, one-hot or mixed among the best ones.",
        advice=(
            ("time", "If it stops when the policy no longer changes: equally good actions may swap places for ever,"
                     " as their values differ by rounding. Keep the old action unless another one is better by more"
                     " than rounding, or watch the values."),
        ),
    ),
    Exercise(
        "first_visit_values", "episodes, S", "Monte Carlo averages of first visits", 4, "E1.6", 20,
        "V(s) = mean, over the episodes that visit s, of G[t], t being the first step of the episode with s[t] = s",
        """
episodes: a list of (s, r, discount), each to its end. s: (T+1,) states, the last one terminal; r: (T,); discount:
(T,), 0 at the last step. S: number of states. Returns V (S,); 0 for a state that no episode leaves.
""",
    ),
    Exercise(
        "first_visit_pairs", "episodes, S, A", "Monte Carlo averages for states and actions", 4, "E1.6", 15,
        "Q(s,a) = mean, over the episodes that take a in s, of G[t], t being the first step with s[t] = s and a[t] = a",
        """
episodes: a list of (s, a, r, discount), each to its end. s: (T+1,); a, r, discount: (T,). S, A: numbers of states and
actions. Returns Q (S,A); 0 for a pair that no episode tries.
""",
        special=cases_pairs.pair_cases,
    ),
    Exercise(
        "td0", "V, s, r, discount, alpha", "TD(0) along an episode", 5, "E1.7", 15,
        "V(s[t]) <- V(s[t]) + alpha delta, delta = r[t] + discount[t] V(s[t+1]) - V(s[t])",
        f"V: (S,) values before. alpha: step size.{EPISODE}"
        "Returns V (S,) after one pass; each step sees the values that the steps before it left.",
    ),
    Exercise(
        "n_step_td", "V, s, r, discount, alpha, n", "n-step TD along an episode", 6, "E1.8", 25,
        "V(s[t]) <- V(s[t]) + alpha (G - V(s[t])),"
        " G = r[t] + discount[t] r[t+1] + … + discount[t] … discount[h-1] V(s[h]), h = min(t + n, T)",
        f"V: (S,) values before. alpha: step size. n: steps, 1 or more.{EPISODE}"
        "Returns V (S,) after one pass. The states move in the order of their visits; each uses the V so far.",
    ),
    Exercise(
        "lambda_returns", "r, discount, v, lam", "Lambda-returns of an episode", 7, "E1.9", 20,
        "G[t] = r[t] + discount[t] ((1 - lam) v[t+1] + lam G[t+1]), and G[T] = v[T]",
        """
r, discount: (T,). v: (T+1,) values along the episode. lam: from 0 to 1. discount[t] is 0 if an episode ends with
r[t]; after a time limit v[T] counts. Returns G (T,).
""",
    ),
    Exercise(
        "td_lambda", "V, s, r, discount, alpha, lam", "TD(lambda) with traces", 7, "E1.9", 25,
        "z(s[t]) <- z(s[t]) + 1;  V <- V + alpha delta z;  z <- discount[t] lam z",
        f"V: (S,) values before. alpha: step size. lam: from 0 to 1.{EPISODE}"
        "There may be several episodes, one after the other: s[t+1] is then where the next one starts.\n"
        "Returns V (S,) after one pass, online, with accumulating traces that start from 0.",
        special=cases_traces.trace_cases,
    ),
)  # fmt: skip
