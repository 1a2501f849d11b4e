"""What the lessons on token tasks share: all answers of a task, the push on their tokens, groups of right and wrong.

B answers of at most T tokens, N prefixes, V next tokens; pi (N,V); q (B,) probability of each answer to its prompt; p
probability of a right one; G answers in a group.
"""

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np

from tabrl.advantages import group_advantages
from tabrl.tokens.recursion import evaluate
from tabrl.tokens.rollout import Rollouts, scored
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import prefixes
from tabrl.types import F

Advantage = Callable[[F], F]  # of rewards (G,) of one group to advantages (G,)


def every(task: TokenTask) -> Rollouts:
    """All finished answers to all prompts, the shortest first; the group is the prompt.

    >>> from tabrl.envs.token_tasks import parity
    >>> x = every(parity(1, length=2))
    >>> [task.text(k, o[:n]) for task in [parity(1, length=2)] for k, o, n in zip(x.prompt[:3], x.tokens, (1, 1, 2))]
    ['parity of 0 | <eos>', 'parity of 1 | <eos>', 'parity of 0 | 0 0']
    """
    tree, found = task.tree, []
    for t in range(tree.L):
        before, last = np.column_stack(prefixes(tree.K, tree.C, t)), np.arange(tree.V)
        all_of_them = np.column_stack([np.repeat(before, tree.V, axis=0), np.tile(last, len(before))])
        ended = all_of_them[tree.level(tree.ends, t).ravel()]
        found.append(np.pad(ended, ((0, 0), (0, tree.L - t - 1)), constant_values=-1))
    rows = np.concatenate(found)
    prompt, mask = rows[:, 0], rows[:, 1:] >= 0
    tokens, index, row = rows[:, 1:] * mask, prompt, np.zeros(mask.shape, np.int64)
    for t in range(tree.L):
        row[:, t] = (tree.start[t] + index) * mask[:, t]
        index = (index * tree.C + tokens[:, t]) * mask[:, t]
    return scored(tree, prompt, prompt, tokens, mask, np.zeros(mask.shape), row)


def of_tokens(pi: F, x: Rollouts) -> F:
    """Entries of pi (N,V) at the tokens of answers, (B,T); 1 behind the end."""
    return np.where(x.mask != 0, pi[x.row, x.tokens], 1.0)


def push(pi: F, x: Rollouts, g: F) -> F:
    """Sum over answers and tokens of g (B,T) grad log pi(token), in the logits (N,V)."""
    N, V = pi.shape
    at = np.bincount((x.row * V + x.tokens).ravel(), (g * x.mask).ravel(), N * V).reshape(N, V)
    return np.asarray(at - pi * at.sum(axis=1, keepdims=True))


def objective(task: TokenTask, logp: F) -> float:
    """J of log-probabilities (N,V)."""
    return float(evaluate(task.tree, logp).J)


def beside(G: int, advantage: Advantage | None = None, **settings: Any) -> F:
    """Advantage of a wrong and of a right answer beside k right ones among the G - 1 others: (2,G).

    advantage: that of one group; `advantages.group_advantages` with the settings unless given.

    >>> beside(2, std="none")
    array([[ 0. , -0.5],
           [ 0.5,  0. ]])
    """
    group = np.zeros(G, np.int64)
    A = np.empty((2, G))
    for own, k in np.ndindex(2, G):
        r = np.array([own] + [1] * k + [0] * (G - 1 - k), np.float64)
        A[own, k] = (advantage(r) if advantage else group_advantages(r, group, **settings))[0]
    return A


def binomial(n: int, p: F) -> F:
    """Probabilities of 0, 1, … n right answers among n: (...,n+1).

    >>> binomial(2, np.array(0.5))
    array([0.25, 0.5 , 0.25])
    """
    k, p = np.arange(n + 1), np.asarray(p)[..., None]
    return np.asarray(np.array([comb(n, i) for i in k], np.float64) * p**k * (1 - p) ** (n - k))


def mean_advantages(p: F, A: F) -> F:
    """Mean advantage of a wrong and of a right answer, (...,2), from a table `beside` and the probability p (...).

    The difference is the weight w_G(p): the mean of the sum over tokens of A grad log pi is w_G(p) grad p.

    >>> np.diff(mean_advantages(np.array([0.1, 0.5]), beside(4, std="none"))).ravel()
    array([0.75, 0.75])
    """
    return np.asarray(binomial(A.shape[1] - 1, p) @ A.T)
