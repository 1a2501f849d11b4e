"""Sequences drawn from a policy.

B sequences of at most T = L tokens; prompt (B,) numbers of prompts, group (B,) labels; row (B,T) of the prefix that
each token follows, in the task's tree; mask (B,T) 1 where a token counts, EOS included, 0 behind the end.
"""

from typing import TYPE_CHECKING, NamedTuple

from tabrl._xp import Array, library
from tabrl.control.acting import Rng
from tabrl.tokens.recursion import log_softmax, pick
from tabrl.tokens.tree import Tree

if TYPE_CHECKING:
    from tabrl.tokens.policy import Policy


class Rollouts(NamedTuple):
    """A batch of sequences, in NumPy arrays or torch tensors on one device."""

    prompt: Array  # (B,)
    tokens: Array  # (B,T) 0 behind the end
    mask: Array  # (B,T) 1.0 for tokens that count, EOS included
    logp: Array  # (B,T) log-probability of each token when it was drawn; 0 behind the end
    reward: Array  # (B,) the verifier's
    group: Array  # (B,) sequences that are compared with one another have one label
    step_reward: Array  # (B,T) process reward of the step that ends with the token; 0 where none does
    step_end: Array  # (B,T) bool
    truncated: Array  # (B,) bool: ended by the length and not by EOS, in a task that has one
    row: Array  # (B,T) row of the prefix that the token follows; 0 behind the end

    @property
    def length(self) -> Array:
        """Number of tokens of each sequence (B,)."""
        return self.mask.sum(1)


def sample(policy: "Policy", prompt: Array, group: Array, rng: Rng) -> Rollouts:
    """Draw one answer to each prompt.

    prompt: (B,) numbers of prompts. group: (B,) labels. Each token is drawn by one uniform number, so a seed gives the
    same sequences whatever the batch's history. Returns `Rollouts` with T = L columns. Ledger E2.1.

    >>> import numpy as np
    >>> from tabrl.tokens.table import TableLM
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> x = sample(TableLM(task), np.zeros(1000, int), np.zeros(1000, int), np.random.default_rng(0))
    >>> x.reward.mean()
    np.float64(0.527)
    """
    tree = policy.tree
    xp = library(tree.reward, "policy.tree.reward")
    u = policy.uniforms(rng, (tree.L, len(prompt)))
    logits, state = policy.begin(prompt)
    alive, index = prompt == prompt, prompt
    tokens, rows, masks, logps = [], [], [], []
    for t in range(tree.L):
        logp = log_softmax(logits)
        token = draw(logp, u[t])
        tokens.append(token * alive)
        rows.append((tree.start[t] + index) * alive)
        masks.append(alive)
        logps.append(xp.where(alive, pick(logp, token), 0.0))
        if t + 1 < tree.L:
            alive = alive & (token < tree.C)
            index = index * tree.C + token * alive
            logits, state = policy.advance(state, token, tree.start[t + 1] + index)
    stacked = [xp.stack(x, 1) for x in (tokens, masks, logps, rows)]
    return scored(tree, prompt, group, *stacked)


def draw(logp: Array, u: Array) -> Array:
    """The token (B,) that each row of log-probabilities (B,V) gives to a uniform number (B,)."""
    xp = library(logp, "logp")
    below = xp.cumsum(xp.exp(logp), -1)
    return (below[:, :-1] <= (u * below[:, -1])[:, None]).sum(-1)


def scored(tree: Tree, prompt: Array, group: Array, tokens: Array, mask: Array, logp: Array, row: Array) -> Rollouts:
    """The sequences with their rewards, looked up in the tree."""
    xp = library(tokens, "tokens")
    on = xp.where(mask, xp.ones_like(logp), 0.0)
    last = mask.sum(1) - 1
    i = xp.arange(len(last), device=last.device)
    reward = tree.reward[row[i, last], tokens[i, last]]
    truncated = (last == tree.L - 1) & (tokens[i, last] < tree.C) & (tree.C < tree.V)
    step_end = tree.step_end[row, tokens] & mask
    step_reward = xp.where(step_end, tree.step_reward[row, tokens], 0.0)
    return Rollouts(prompt, tokens, on, logp, reward, group, step_reward, step_end, truncated, row)
