"""Token MDPs: language-model reinforcement learning on tasks small enough to enumerate, with everything exact.

task      TokenTask: prompts, tokens, a length, a verifier; the tasks themselves are in tabrl.envs.token_tasks
tree      all prefixes, level by level; recursion: exact values, probabilities and gradients on them
table     TableLM, a policy with one row of logits per prefix; nets: a GRU and a transformer (needs torch)
rollout   sequences drawn from a policy; draws: groups of them, with dynamic sampling or without
credit    from rewards to the advantage of each token; surrogates: losses of tokens beyond those of tabrl.losses
methods   the parts that a method is made of; train: PPO, GRPO, DAPO and others, one loop
exact     exact answers about a policy; groups: exact means of group estimators; regularised: optima under a KL
bridge    the same settings, prompts and rewards for production engines
"""

from tabrl.tokens.table import TableCritic, TableLM
from tabrl.tokens.task import TokenTask

__all__ = ["TableCritic", "TableLM", "TokenTask"]
