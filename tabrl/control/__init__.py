"""Control from samples: action values of a good policy, learned while acting.

Q (S,A) action values; pi eps-greedy in Q: with probability eps any legal action, else one of the maximisers,
ties broken uniformly. alpha step size; delta TD error. Every learner is an endless generator of
`ActionUpdate` (take what is wanted with `itertools.islice`) over an explicit `MDP`, or a gymnasium
environment with discrete, multi-discrete or tuple observations. `acting` is what they share.
"""

from tabrl.control.dyna import dyna_q, dyna_q_plus, prioritized_dyna
from tabrl.control.monte_carlo import exploring_starts, mc_control, off_policy_mc_control
from tabrl.control.n_step import n_step_expected_sarsa, n_step_sarsa, tree_backup
from tabrl.control.one_step import double_q_learning, expected_sarsa, q_learning, sarsa
from tabrl.control.traces import sarsa_lambda, watkins_q

__all__ = [
    "double_q_learning",
    "dyna_q",
    "dyna_q_plus",
    "expected_sarsa",
    "exploring_starts",
    "mc_control",
    "n_step_expected_sarsa",
    "n_step_sarsa",
    "off_policy_mc_control",
    "prioritized_dyna",
    "q_learning",
    "sarsa",
    "sarsa_lambda",
    "tree_backup",
    "watkins_q",
]
