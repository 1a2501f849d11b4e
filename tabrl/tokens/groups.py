"""Exact expectations of group estimators, for any policy over tokens: no sample is drawn.

tree `Tree` of N prefixes, V next tokens, K prompts, L the longest answer; logp (N,V) log-probabilities of a policy;
rule an `Estimator` of G samples in a group; batch the prompts of one update, a group each. M different rewards; X
points of `counts`; f (K,M,X). A sequence i with advantage A_i, whose tokens weigh w_i, adds A_i w_i times its score to
the update. What that is in the mean depends on its own reward and length only:

    c(sequence) = E[A_i w_i | reward, length],   E[update] = sum over sequences of P c score,

and this sum is the gradient of an expected reward, with c for the reward: `recursion.evaluate`. Gradients (N,V) are
with respect to the logits, in the direction of ascent: minus the gradient of the aggregated loss, without its terms of
KL and entropy; the `pull` of a policy takes them to its parameters. NumPy, float64.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from tabrl import checks
from tabrl.errors import ModelError
from tabrl.losses import d_ppo_clip
from tabrl.tokens.counts import Estimator, chances, compositions, normalised, refuse_large, token_weights
from tabrl.tokens.counts import check as check_rule
from tabrl.tokens.outcomes import Outcomes, kept, mixed, outcomes, places
from tabrl.tokens.recursion import evaluate, reach, values
from tabrl.tokens.tree import Tree
from tabrl.types import F

__all__ = ["Estimator", "credit", "expected_gradient", "expected_surrogate_gradient", "kept"]

Batch: TypeAlias = int | Sequence[int] | None
DLoss: TypeAlias = Callable[[F, F, F], F]  # logp, logp_old, adv to d loss / d logp, all (N,V)


# ---- expected updates ----


def expected_gradient(
    tree: Tree, logp: F, rule: Estimator, batch: Batch = None, *, dynamic: bool = False, reward: F | None = None
) -> F:
    """The mean of the first update that a group estimator makes from on-policy samples (ratio 1, nothing clips).

        sum over sequences of P(sequence) c(sequence) score(sequence)

    logp: (N,V). batch: prompts of the groups of one update; None for each prompt once; a whole number n for n prompts
    drawn by the task's weights. It sets the weights of the prompts, and with how="token" also what the groups share.
    dynamic: groups of equal rewards are dropped and others drawn until n are kept, without a limit: 1/mean of `kept`
    times the gradient without it, unless how="token" (the tokens of dropped groups no longer count, which can turn the
    direction). reward: (N,V), the task's outcomes unless given. Returns (N,V); 0 at prompts whose answers are all worth
    the same. Raises ShapeError, ModelError, ValueError. Ledger E2.3, E2.8, E2.9.

    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> half = np.log(np.full((1, 2), 0.5))
    >>> expected_gradient(task.tree, half, Estimator(4, "constant", "none"))  # (G-1)/G = 3/4 of (-1/4, 1/4)
    array([[-0.1875,  0.1875]])
    """
    c = credit(tree, logp, rule, batch, dynamic=dynamic, reward=reward)
    drawn = tree._replace(weights=prompt_weights(tree, batch))
    slope: F = evaluate(drawn, checks.real(logp, "logp"), c).slope
    return slope


def expected_surrogate_gradient(
    tree: Tree,
    logp: F,
    logp_old: F,
    rule: Estimator,
    batch: Batch = None,
    *,
    d_loss: DLoss = d_ppo_clip,
    dynamic: bool = False,
    reward: F | None = None,
) -> F:
    """The mean of a later update, at logp, from samples that were drawn at logp_old.

        d_old(h) pi_old(a|h) (-d_loss(logp, logp_old, Q+) - d_loss(logp, logp_old, Q-)),   h a prefix, a next token

    Q+ and Q- (N,V) are the values under pi_old of E[max(A, 0) w | sequence] and E[min(A, 0) w | sequence]: a clip of
    tokens looks at the sign of A and at the ratio, and is proportional to A beyond that. d_loss: such a derivative, of
    logp, logp_old and adv; for other bounds functools.partial(d_ppo_clip, low=0.2, high=0.28); surrogates.d_cispo has
    it too, ratios of whole sequences have not. At logp = logp_old it is `expected_gradient`. Other arguments as there.
    Source: Shao et al. (2024), DeepSeekMath, eq. 3; Schulman et al. (2017), eq. 7; ledger E2.3, E2.11.

    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> old, new = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])  # ratios 1/2 and 3/2 are beyond the bounds
    >>> expected_surrogate_gradient(task.tree, new, old, Estimator(4))
    array([[0., 0.]])
    """
    old, new = checks.real(logp_old, "logp_old"), checks.real(logp, "logp")
    parts = [credit(tree, old, rule, batch, dynamic=dynamic, reward=reward, part=part) for part in (positive, negative)]
    pi_old = np.exp(old)
    weight = reach(tree, pi_old, prompt_weights(tree, batch))[:, None] * pi_old
    pushed = sum(-d_loss(new, old, values(tree, pi_old, c)[1]) for c in parts) * weight
    slope: F = pushed - np.exp(new) * pushed.sum(1, keepdims=True)
    return slope


def credit(
    tree: Tree,
    logp: F,
    rule: Estimator,
    batch: Batch = None,
    *,
    dynamic: bool = False,
    reward: F | None = None,
    part: Callable[[F], F] = np.asarray,
) -> F:
    """What a sequence earns in the mean over the other samples, c (N,V), at its last token; 0 where none ends.

        c = E[part(A_i) w_i | own reward, own length],   w_i in units of 1 / (number of sequences)

    The others' rewards are enumerated by counts; their tokens, where how asks for them, by the mean of x^(tokens) (see
    `counts`). part: what is taken of the advantage, all of it unless given. Arguments and errors as in
    `expected_gradient`; ValueError where the enumeration is too large.

    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> credit(task.tree, np.log([[0.75, 0.25]]), Estimator(4, "constant", "none", leave_one_out=True))  # r - p
    array([[-0.25,  0.75]])
    """
    check_rule(rule)
    found = outcomes(tree, logp, reward)
    q, n = prompt_weights(tree, batch), group_count(tree, batch)
    share = kept_groups(found, q, batch, rule.G) if dynamic else 1.0
    x, u = token_weights(rule, tree.L, n)
    f = found.prob @ x ** np.arange(1, tree.L + 1)[:, None]
    H = np.ones((tree.K, 1))
    if rule.how == "token":
        H = other_groups(mixed(f, rule.G) if dynamic else f.sum(1) ** rule.G, q, n, batch, share)
    c = np.zeros(found.prob.shape)
    for k in range(tree.K):
        m = found.seen[k]
        c[k, m] = (mean_advantage(found.value[m], f[k, m], rule, part) * H[k]) @ u.T / share
    prompt, length = places(tree)
    return np.where(tree.ends, c[prompt[:, None], found.label, length[:, None] - 1], 0.0)


def mean_advantage(value: F, f: F, rule: Estimator, part: Callable[[F], F]) -> F:
    """E[part(A) x^(tokens of the others) | own value], (M,X): a sum over the counts of the other G - 1 samples."""
    M, X = f.shape
    refuse_large(rule.G, M, max(M, X))
    others = compositions(rule.G - 1, M)
    own = np.eye(M, dtype=np.int64)
    A = np.column_stack([normalised(value, others + own[m], rule)[:, m] for m in range(M)])
    mean: F = part(A).T @ chances(others, f)
    return mean


def positive(A: F) -> F:
    """Advantages of samples that are to become likelier."""
    return np.maximum(A, 0.0)


def negative(A: F) -> F:
    """Advantages of samples that are to become less likely."""
    return np.minimum(A, 0.0)


# ---- the batch ----


def prompt_weights(tree: Tree, batch: Batch) -> F:
    """How much each prompt counts in the mean update, (K,), sums to 1."""
    if batch is None:
        return np.full(tree.K, 1 / tree.K)
    if isinstance(batch, int | np.integer):
        return np.asarray(tree.weights)
    prompts = np.asarray(batch)
    if prompts.ndim != 1 or prompts.dtype.kind not in "iu" or not len(prompts):
        raise ModelError(f"batch is {batch!r}; a number of groups, or a prompt for each group, is expected")
    if prompts.min() < 0 or prompts.max() >= tree.K:
        i = int(((prompts < 0) | (prompts >= tree.K)).argmax())
        raise ModelError(f"batch[{i}] is {prompts[i]}; a prompt in 0 … {tree.K - 1} is expected")
    return np.bincount(prompts, minlength=tree.K) / len(prompts)


def group_count(tree: Tree, batch: Batch) -> int:
    """Number of groups of one update."""
    n = tree.K if batch is None else int(batch) if isinstance(batch, int | np.integer) else len(batch)
    if n < 1:
        raise ModelError(f"batch is {batch}; a number of groups >= 1 is expected")
    return n


def other_groups(g: F, q: F, n: int, batch: Batch, share: float) -> F:
    """Mean of x^(tokens of the other n - 1 groups), (K,X), for a group of each prompt.

    g: (K,X) mean of x^(tokens of a group), 0 for a group that is dropped; q: (K,) weights of the prompts. Prompts that
    are drawn are independent of one another; of those that are given, the others are all but one.
    """
    if isinstance(batch, int | np.integer):
        return np.broadcast_to((q @ g / share) ** (n - 1), g.shape)
    all_of_them: F = np.prod(g ** np.rint(q * n)[:, None], axis=0)
    return np.divide(all_of_them, g, out=np.zeros_like(g), where=g > 0)


def kept_groups(found: Outcomes, q: F, batch: Batch, G: int) -> float:
    """Share of the groups drawn that dynamic sampling keeps, more than 0."""
    if not isinstance(batch, int | np.integer):
        raise ModelError(
            f"batch is {batch!r}; a number of groups is expected, which dynamic sampling draws until it has them"
        )
    share = float(q @ mixed(found.prob.sum(2)[..., None], G)[:, 0])
    if share <= 0:
        raise ModelError("every group has equal rewards; dynamic sampling would never keep one")
    return share
