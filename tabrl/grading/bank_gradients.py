"""Exercises of lessons 9 to 15: policy gradients, actor-critic, advantages, importance sampling, PPO, divergences."""

from tabrl.grading.bank_prediction import EPISODE
from tabrl.grading.bank_record import Exercise
from tabrl.verify import cases_baseline

ALONG = """
r, discount: (T,). v: (T+1,) values of the states along the episode, v[t] before r[t]. lam: from 0 to 1. discount[t]
is gamma, or 0 if an episode ends with r[t]; a time limit keeps gamma: v[T] counts there.
"""

EXERCISES = (
    Exercise(
        "policy_gradient", "P, r, gamma, mu, theta", "The policy gradient theorem", 9, "E1.10", 30,
        "dJ / dtheta[s,a] = d(s) pi(a|s) (Q(s,a) - V(s)), d = mu' (I - gamma P_pi)^-1",
        """
P: (S,A,S) chances P[s, a, s_next]; rows of terminal states are zero. r: (S,A). gamma: the discount; at 1 every policy
ends. mu: (S,) start distribution. theta: (S,A) preferences, pi(.|s) their softmax. J = mu . V_pi. Returns the gradient
of J with respect to theta (S,A). Visits d are not normalised.
""",
    ),
    Exercise(
        "reinforce", "pi, s, a, r, discount, baseline", "REINFORCE with a baseline, one episode", 10, "E1.11", 20,
        "g = sum over t of gamma^t grad log pi(a[t]|s[t]) (G[t] - baseline(s[t])),"
        " d log pi(a|s) / d theta[s,b] = 1{a=b} - pi(b|s)",
        """
pi: (S,A) softmax policy of preferences theta (S,A). s: (T+1,); a, r, discount: (T,): a whole episode; gamma^t is the
product discount[0] … discount[t-1]. baseline: (S,). Returns g (S,A), an unbiased estimate of grad J.
""",
    ),
    Exercise(
        "leave_one_out", "pi, a, r", "A baseline made of the other episodes", 10, "E1.11", 15,
        "g = mean over i of grad log pi(a[i]) (r[i] - mean over the others j of r[j])",
        """
One state, one step: episode i takes action a[i] and gets r[i]. pi: (A,) softmax policy of preferences theta (A,).
a: (n,) actions; r: (n,) rewards; n is 2 or more. Returns g (A,), an unbiased estimate of grad J.
""",
        special=cases_baseline.baseline_cases,
    ),
    Exercise(
        "actor_critic", "theta, V, s, a, r, discount, alpha, beta", "One-step actor-critic along an episode",
        11, "E1.12", 25,
        "V(s[t]) <- V(s[t]) + beta delta;  theta <- theta + alpha gamma^t delta grad log pi(a[t]|s[t]),"
        " delta = r[t] + discount[t] V(s[t+1]) - V(s[t])",
        "theta: (S,A) preferences, pi their softmax. V: (S,) the critic. a: (T,) actions. alpha, beta: step sizes."
        f"{EPISODE}gamma^t is the product discount[0] … discount[t-1]. delta is computed once, from the V so far;\n"
        "then both move.\n"
        "Returns theta (S,A) after one pass.",
    ),
    Exercise(
        "gae", "r, discount, v, lam", "Generalised advantages", 12, "E1.13", 20,
        "A[t] = delta[t] + lam discount[t] A[t+1], delta[t] = r[t] + discount[t] v[t+1] - v[t], and A[T] = 0",
        f"{ALONG}Returns A (T,).",
    ),
    Exercise(
        "critic_target", "r, discount, v, lam", "Targets of the critic", 12, "E1.17", 10,
        "y[t] = A[t] + v[t], A the generalised advantage",
        f"{ALONG}Returns y (T,).",
    ),
    Exercise(
        "per_decision_returns", "r, discount, rho", "Per-decision importance sampling", 13, "E1.14", 15,
        "G[t] = rho[t] (r[t] + discount[t] G[t+1]), and G[T] = 0",
        """
r, discount: (T,) as in exercise 1. rho: (T,) ratios pi/b of the actions that were taken, 0 or more. Returns G (T,),
an unbiased estimate of the values under pi from an episode under b: a reward is weighed by the actions before it.
""",
    ),
    Exercise(
        "ppo_clip", "logp, logp_old, adv, low, high", "The loss of PPO-clip", 14, "E1.15", 15,
        "loss = -min(rho A, clip(rho, 1 - low, 1 + high) A), rho = exp(logp - logp_old)",
        """
logp, logp_old: (T,) log-probabilities of the actions under the new and the old policy, in nats. adv: (T,) advantages.
low, high: how far the ratio may go below and above 1. Returns the loss of each step (T,), to be minimised.
""",
    ),
    Exercise(
        "kl", "pi_old, pi_new", "The divergence of two policies", 15, "E1.16", 10,
        "KL(pi_old, pi_new)(s) = sum over a of pi_old(a|s) log(pi_old(a|s) / pi_new(a|s))",
        """
pi_old, pi_new: (S,A) policies. pi_new is positive wherever pi_old is. Returns KL (S,) in nats; 0 log 0 is 0.
""",
        advice=(("not finite", "Where pi_old(a|s) is 0 the action adds nothing: 0 log 0 is 0, not nan."),),
    ),
)  # fmt: skip
