"""What the answers of a policy come to: the distribution of reward and length, and of groups of answers.

tree `Tree` of N prefixes, V next tokens, K prompts, L the longest answer; logp (N,V) log-probabilities of a policy;
reward (N,V) what a sequence earns that ends with the token; M different rewards; G answers in a group. NumPy.
"""

from typing import NamedTuple

import numpy as np

from tabrl import checks
from tabrl._xp import library
from tabrl.errors import ModelError
from tabrl.tokens.counts import Estimator, check
from tabrl.tokens.recursion import reach
from tabrl.tokens.tree import Tree
from tabrl.types import B, F, I


class Outcomes(NamedTuple):
    """What answers come to, and how likely that is."""

    value: F  # (M,) different rewards
    label: I  # (N,V) which of them the sequence gets that ends with the token
    prob: F  # (K,M,L) probability of value and length given the prompt; length t at t - 1
    seen: B  # (K,M) whether any answer to the prompt is worth it


def outcomes(tree: Tree, logp: F, reward: F | None = None) -> Outcomes:
    """The different rewards of a task, and how likely each is at each length. Arguments as in `expected_gradient`."""
    if library(tree.reward, "tree.reward") is not np:
        raise TypeError("tree.reward is a torch tensor; the task's own tree, in NumPy arrays, is expected")
    reward = tree.reward if reward is None else checks.real(reward, "reward", (tree.N, tree.V))
    pi = probabilities(tree, logp)
    value, inverse = np.unique(reward[tree.ends], return_inverse=True)
    label = np.zeros((tree.N, tree.V), np.int64)
    label[tree.ends] = inverse
    prompt, length = places(tree)
    shape = (tree.K, len(value), tree.L)
    at = ((prompt[:, None] * shape[1] + label) * tree.L + length[:, None] - 1)[tree.ends]
    p = (reach(tree, pi, np.ones(tree.K))[:, None] * pi)[tree.ends]
    size = tree.K * len(value) * tree.L
    prob: F = np.bincount(at, p, size).astype(np.float64).reshape(shape)
    seen = np.bincount(at, minlength=size).reshape(shape).sum(2) > 0
    return Outcomes(value, label, prob, seen)


def places(tree: Tree) -> tuple[I, I]:
    """Of each prefix the prompt and the length of a sequence that ends with the next token: (N,), (N,)."""
    sizes = [tree.C**t for t in range(tree.L)]
    prompt = np.concatenate([np.repeat(np.arange(tree.K), n) for n in sizes])
    return prompt, np.repeat(np.arange(1, tree.L + 1), [tree.K * n for n in sizes])


def probabilities(tree: Tree, logp: F) -> F:
    """Exponentials of log-probabilities (N,V). Raises ModelError where a row does not sum to 1, as logits would not."""
    pi: F = np.exp(checks.real(logp, "logp", (tree.N, tree.V)))
    off = abs(pi.sum(1) - 1) > 1e-6  # float32 networks
    if off.any():
        h = int(off.argmax())
        raise ModelError(
            f"logp[{h}] sums to {pi[h].sum():.6g} as probabilities; log-probabilities are expected; "
            "write recursion.log_softmax(logits)"
        )
    return pi


def kept(tree: Tree, logp: F, G: int, *, reward: F | None = None) -> F:
    """Chance that the rewards of G samples are not all equal, for each prompt (K,): what dynamic sampling keeps.

        1 - sum over values m of p_m^G

    For rewards 0 and 1 it is `rates.kept_share` of p. Source: Yu et al. (2025), DAPO, eq. 11; ledger E2.8.

    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> kept(task.tree, np.log(np.full((1, 2), 0.5)), 4)
    array([0.875])
    """
    check(Estimator(G))
    share: F = mixed(outcomes(tree, logp, reward).prob.sum(2)[..., None], G)[:, 0]
    return share


def mixed(f: F, G: int) -> F:
    """(sum over m of f_m)^G - sum over m of f_m^G, without cancellation: f (K,M,X) >= 0 to (K,X)."""
    f = np.sort(f, axis=1)
    top, rest = f[:, -1], f[:, :-1]
    above = np.expm1(G * np.log1p(rest.sum(1) / np.where(top > 0, top, 1.0)))
    difference: F = top**G * above - (rest**G).sum(1)
    return difference
