"""Where training with a KL penalty comes to rest: the policies whose expected update is 0.

    w(p) times the gradient of p  =  beta times the expected slope of the penalty,   prompt by prompt

p mean outcome of a prompt; w what the group's advantages multiply its gradient by: 1 for the mean of the others as
baseline and no std; with std it depends on p. tree `Tree` of K prompts, N prefixes, V next tokens; logp_ref (N,V) of
the reference; beta > 0. For tables, which can be any policy; NumPy. k1 in the reward, with w = 1, has its rest in
`regularised.optimum`; the penalties in the loss have others.
"""

from collections.abc import Callable

import numpy as np

from tabrl._xp import one_of
from tabrl.tokens.penalties import LEVELS
from tabrl.tokens.recursion import check, evaluate, log_softmax
from tabrl.tokens.regularised import along, as_tokens, check_binary, gathered, positive, scattered
from tabrl.tokens.tree import Tree
from tabrl.types import F

Rows = Callable[[F, F, float], F]  # log-probabilities of rows (n,m) from those of the reference, values and beta
STEPS = 100  # of Newton's method for the k3 row, which needs about 6
SMALLEST = 1e-300  # probabilities of the reference below it count as 0 in the k3 row
HALVINGS = 64  # of the interval that holds w


def stationary(
    tree: Tree,
    logp_ref: F,
    beta: float,
    *,
    kind: str = "k3",
    level: str = "token",
    weight: Callable[[F], F] | None = None,
) -> F:
    """The policy at which policy gradient and penalty in the loss cancel, log-probabilities (N,V).

        k3:  pi = beta ref / (lambda - w Q)            k2:  pi = ref exp(w Q / beta) / Z

    level "sequence": these are rows of whole sequences, Q their outcomes. level "token": rows of next tokens, Q(h,a)
    the outcome to be expected under this same policy, found from the longest prefixes back. lambda > max w Q makes the
    row sum to 1. k1 in the loss has slope 0 and no rest; the ratio-weighted k1 and k3 have the slope of k2, and its
    rest. k2 on sequences with w = 1 gives `regularised.optimum`; token by token it has the plain Q where the optimum
    has the soft one. All tokens weigh the same here ("constant"; any aggregation where all sequences are equally long).

    weight: w of the success probabilities (K,), such as that of GRPO's std; 1 unless given. Outcomes must be 0 and 1
    then, and w is found by bisection, so that the policy's own p gives it: there is a root, and for k3 on sequences
    only one where w(p) p (1-p) is concave, as with the std of a group at eps=0. k2 can have three; this is then one of
    the outer two, at which w(p) falls short above and exceeds below, so that training comes back to it. Tokens and
    sequences that the reference never writes stay at 0. Raises ModelError, ShapeError, ValueError. Ledger E2.7.

    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> np.exp(stationary(task.tree, np.log([[0.5, 0.5]]), 0.75)).round(12)  # p (1 - p) = beta (p - 1/2)
    array([[0.25, 0.75]])
    """
    one_of(LEVELS, level=level)
    one_of(tuple(ROWS), kind=kind)
    positive(beta)
    check(tree, logp_ref=logp_ref)
    level_rows, rows = of_sequences if level == "sequence" else of_tokens, ROWS[kind]

    def rest(w: F) -> F:
        return level_rows(tree, logp_ref, beta, rows, w)

    if weight is None:
        return rest(np.ones(tree.K))
    check_binary(tree)
    return rest(own_weights(tree, rest, weight))


def own_weights(tree: Tree, rest: Callable[[F], F], weight: Callable[[F], F]) -> F:
    """The weights w (K,) that the policy rest(w) has itself, by bisection; each prompt has its own interval."""
    low, high = np.zeros(tree.K), np.ones(tree.K)
    for _ in range(HALVINGS):
        up = missing(tree, rest(high), high, weight) > 0
        if not up.any():
            break
        high = np.where(up, 2 * high, high)
    else:
        raise ValueError(f"weight asks for more than {high.max():g}; a function with a bound is expected")
    for _ in range(HALVINGS):
        w = (low + high) / 2
        up = missing(tree, rest(w), w, weight) > 0
        low, high = np.where(up, w, low), np.where(up, high, w)
    return (low + high) / 2


def missing(tree: Tree, logp: F, w: F, weight: Callable[[F], F]) -> F:
    """How much the weight that belongs to a policy exceeds the one that made it, (K,). Raises ValueError for nan."""
    own = weight(np.clip(evaluate(tree, logp).V[: tree.K], 0.0, 1.0))
    if not np.isfinite(own).all():
        raise ValueError(f"weight is {own[~np.isfinite(own)][0]} at p = 1; a finite number is expected")
    return own - w


def of_sequences(tree: Tree, logp_ref: F, beta: float, rows: Rows, w: F) -> F:
    """One row for each prompt, of all its sequences."""
    ref = gathered(tree, np.where(tree.ends, along(tree, logp_ref), -np.inf))
    q = rows(ref, w[:, None] * gathered(tree, tree.reward), beta)
    return as_tokens(tree, scattered(tree, np.exp(q)))  # type: ignore[no-any-return]


def of_tokens(tree: Tree, logp_ref: F, beta: float, rows: Rows, w: F) -> F:
    """One row for each prefix; the values of the longer ones are known when it is its turn."""
    Q = tree.reward * scattered(tree, np.repeat(w[:, None], tree.N * tree.V // tree.K, 1))
    V, logp = np.zeros(tree.N), np.zeros_like(logp_ref)
    for t in reversed(range(tree.L)):
        q = tree.level(Q, t)
        if t + 1 < tree.L:
            q[:, : tree.C] += tree.children(V, t)
        row = rows(tree.level(logp_ref, t), q, beta)
        tree.level(logp, t)[:] = row
        tree.level(V, t)[:] = (np.exp(row) * q).sum(1)
    return logp


# ---- rows ----


def k2_rows(ref: F, Q: F, beta: float) -> F:
    """The row at which Q and the slope of KL(pi || ref) cancel: ref exp(Q / beta), normalised."""
    never = np.isneginf(ref)
    best = np.where(never, -np.inf, Q).max(1, keepdims=True)
    return log_softmax(ref + np.where(never, 0.0, Q - best) / beta)  # type: ignore[no-any-return]


def k3_rows(ref: F, Q: F, beta: float) -> F:
    """The row at which Q and the slope of KL(ref || pi) cancel: beta ref / (lambda - Q).

        sum over a of ref / (u + gap) = 1,   gap = (max Q - Q) / beta, u = (lambda - max Q) / beta

    The inverse of the sum is concave and grows with u, so Newton's method on it climbs to the root from the left.
    """
    c = np.exp(ref)
    never = c < SMALLEST
    best = np.where(never, -np.inf, Q).max(1, keepdims=True)
    gap = np.where(never, 1.0, best - Q) / beta
    u = (c - gap).max(1, keepdims=True, initial=-np.inf, where=~never)
    for _ in range(STEPS):
        share = np.where(never, 0.0, c / (u + gap))
        total = share.sum(1, keepdims=True)
        step = (total - 1) * total / (share / (u + gap)).sum(1, keepdims=True)
        u = u + step
        if (abs(step) <= 1e-16 * u).all():
            break
    return log_softmax(np.where(never, -np.inf, ref - np.log(u + gap)))  # type: ignore[no-any-return]


ROWS: dict[str, Rows] = {"k2": k2_rows, "k3": k3_rows}
