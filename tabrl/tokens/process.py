"""The exact expectation of process supervision: rewards of steps, compared within the group.

tree, logp, rule, batch as in `groups`; B sequences of at most T tokens, all that there are; sequences that are rewarded
alike at the same places make a class. U different rewards of steps; A_t of a token is the sum of the normalised rewards
of the steps that end with it or later, so that its mean over the other samples depends on its sequence's class only.
"""

from typing import NamedTuple

import numpy as np

from tabrl import checks
from tabrl.tokens.counts import Estimator, chances, check, compositions, normalised, refuse_large, token_weights
from tabrl.tokens.groups import Batch, group_count, other_groups, prompt_weights
from tabrl.tokens.recursion import reach
from tabrl.tokens.rollout import Rollouts, scored
from tabrl.tokens.tree import Tree, prefixes
from tabrl.types import F, I

LARGEST = 2**22  # tokens of all sequences, written out


def every_sequence(tree: Tree, logp: F) -> tuple[Rollouts, F]:
    """All finished sequences of a task as a batch of B, each prompt a group, and their probabilities (B,).

    The probabilities are given the prompt: they sum to 1 over the sequences of each. Sums over this batch are exact
    expectations. Raises ValueError where there are too many.

    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("t", ("x", "."), ("?",), 2, lambda prompt, tokens: 1.0 * tokens.sum(1), eos=True)
    >>> x, p = every_sequence(task.tree, np.log(np.full((2, 2), 0.5)))
    >>> x.tokens.tolist(), x.mask.tolist(), p.round(12).tolist()
    ([[1, 0], [0, 0], [0, 1]], [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]], [0.5, 0.25, 0.25])
    """
    if int(tree.ends.sum()) * tree.L > LARGEST:
        raise ValueError(f"the task has {tree.ends.sum()} sequences; at most {LARGEST // tree.L} are expected here")
    logp = checks.real(logp, "logp", (tree.N, tree.V))
    parts = [finished(tree, t) for t in range(tree.L)]
    prompt, tokens, row, mask = (np.concatenate(same) for same in zip(*parts, strict=True))
    x = scored(tree, prompt, prompt, tokens, mask, np.where(mask, logp[row, tokens], 0.0), row)
    pi = np.exp(logp)
    p: F = (reach(tree, pi, np.ones(tree.K))[:, None] * pi)[tree.ends]
    return x, p


def finished(tree: Tree, t: int) -> tuple[I, I, I, I]:
    """The sequences that end with the token after t others: prompt (n,), tokens, rows and mask (n,L)."""
    before, last = np.nonzero(tree.level(tree.ends, t))
    prompt, tokens = prefixes(tree.K, tree.C, t, before)
    padded = np.zeros((len(prompt), tree.L), np.int64)
    padded[:, :t], padded[:, t] = tokens, last
    row, index = np.zeros_like(padded), prompt
    for u in range(t + 1):
        row[:, u] = tree.start[u] + index
        index = index * tree.C + padded[:, u]
    return prompt, padded, row, np.broadcast_to(np.arange(tree.L) <= t, padded.shape)


class Classes(NamedTuple):
    """The sequences of one prompt, those that are rewarded alike together."""

    own: I  # (B,) class of each sequence
    p: F  # (M,) probability
    length: I  # (M,)
    value: F  # (U,) different rewards of steps
    label: I  # (M,T) which of them the token's step gets, U where no step ends


def classes(x: Rollouts, p: F) -> Classes:
    """Sort sequences by length, by where steps end, and by what they are paid."""
    paid = np.where(x.step_end, x.step_reward, np.inf)
    key = np.column_stack([paid, x.length])
    kinds, own = np.unique(key, axis=0, return_inverse=True)
    own = own.ravel()
    value, label = np.unique(kinds[:, :-1], return_inverse=True)
    finite = value[np.isfinite(value)]
    chance: F = np.bincount(own, p).astype(np.float64)
    return Classes(own, chance, kinds[:, -1].astype(np.int64), finite, label.reshape(kinds[:, :-1].shape))


def process_gradient(tree: Tree, logp: F, rule: Estimator, batch: Batch = None) -> F:
    """The mean of the first update by process supervision from on-policy samples (ratio 1, nothing clips).

        sum over sequences and their tokens of P(sequence) E[A_t w | sequence] score of the token

    What `credit.process_advantages` and `losses.aggregate` give in the mean. It is not the gradient of the expected
    step rewards: a token's advantage is a sum of differences from the mean of all steps, so the number of steps counts.
    rule: leave_one_out is not defined here. Other arguments, and (N,V), as in `groups.expected_gradient`. Raises
    ModelError, and ValueError for a task of too many sequences or kinds of them.
    Source: Shao et al. (2024), DeepSeekMath, section 4.1.3; ledger E2.5.

    >>> from tabrl.tokens.task import TokenTask
    >>> right = lambda prompt, tokens: 1.0 * tokens[:, -1]
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, right, steps=right)
    >>> process_gradient(task.tree, np.log(np.full((1, 2), 0.5)), Estimator(4, "constant", "none"))
    array([[-0.1875,  0.1875]])
    """
    check(rule)
    if rule.leave_one_out:
        raise ValueError("leave_one_out is True; process supervision compares steps with all steps of the group")
    x, p = every_sequence(tree, logp)
    q, n = prompt_weights(tree, batch), group_count(tree, batch)
    points, u = token_weights(rule, tree.L, n)
    H = np.ones((tree.K, 1))
    if rule.how == "token":
        group = [(p * (x.prompt == k)) @ points ** x.length[:, None] for k in range(tree.K)]
        H = other_groups(np.array(group) ** rule.G, q, n, batch, 1.0)
    c = np.zeros(x.tokens.shape)
    for k in range(tree.K):
        at = x.prompt == k
        kinds = classes(Rollouts(*(y[at] for y in x)), p[at])
        c[at] = class_credit(kinds, rule, points, u * H[k])[kinds.own]
    pushed = np.bincount(
        (x.row * tree.V + x.tokens).ravel(), (c * x.mask * (p * q[x.prompt])[:, None]).ravel(), tree.N * tree.V
    ).reshape(tree.N, tree.V)
    slope: F = pushed - np.exp(logp) * pushed.sum(1, keepdims=True)
    return slope


def class_credit(kinds: Classes, rule: Estimator, points: F, u: F) -> F:
    """E[A_t w | class] for the tokens of each class, (M,T)."""
    M, U = len(kinds.p), len(kinds.value)
    if U == 0:
        return np.zeros(kinds.label.shape)
    refuse_large(rule.G, M, max(M, U, len(points)))
    others = compositions(rule.G - 1, M)
    steps = (kinds.label[..., None] == np.arange(U)).sum(1)  # (M,U) steps of each reward in a class
    likely = chances(others, kinds.p[:, None] * points ** kinds.length[:, None])
    mean = np.zeros((M, U + 1))
    for m in range(M):
        A = normalised(kinds.value, others @ steps + steps[m], rule)
        mean[m, :U] = u[kinds.length[m] - 1] @ likely.T @ A
    earned = np.take_along_axis(mean, kinds.label, axis=1)
    credit: F = earned[:, ::-1].cumsum(1)[:, ::-1]
    return credit
