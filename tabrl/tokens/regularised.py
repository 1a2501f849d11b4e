"""Reward less the cost of leaving a reference policy, and the policy that is best for it.

    J_beta = E[r] - beta KL(pi || ref),   KL of whole sequences given the prompt

tree `Tree` of K prompts, N prefixes, V next tokens; logp, logp_ref (N,V) log-probabilities; -inf is a token that is
never taken. beta > 0 in units of reward per nat. NumPy or torch, by the argument.
"""

from itertools import pairwise
from typing import NamedTuple

from tabrl._xp import Array, library
from tabrl.errors import ModelError
from tabrl.tokens.recursion import Evaluation, check, evaluate, log_softmax, values
from tabrl.tokens.tree import Tree


class Optimum(NamedTuple):
    """The best policy of the regularised objective."""

    logp: Array  # (N,V) its log-probabilities
    V: Array  # (N,) what it reaches from each prefix: reward less beta times KL
    Q: Array  # (N,V) the same from a next token on, without the cost of that token itself
    J: Array  # weights of the prompts times V of the empty prefixes


def optimum(tree: Tree, logp_ref: Array, beta: float, reward: Array | None = None) -> Optimum:
    """The best policy, prefix by prefix: the soft Bellman recursion.

        V(h) = beta log sum over a of ref(a|h) exp(Q(h,a) / beta),   pi(a|h) = ref(a|h) exp((Q(h,a) - V(h)) / beta)

    with Q(h,a) = reward(h,a) + V(h a). It is `sequence_optimum` written as choices of tokens. reward: (N,V), the
    outcomes of the task unless given. beta to 0 gives the largest reward that the reference does not exclude, beta to
    inf the reference. Tokens that the reference never takes are not taken. Returns an `Optimum`. Raises ShapeError,
    ValueError. Source: Ziebart (2010), Modeling purposeful adaptive behavior; Rafailov et al. (2024), From r to Q*;
    ledger E2.7.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> x = optimum(task.tree, np.log([[0.5, 0.5]]), 1 / np.log(3))
    >>> np.exp(x.logp).round(12), round(float(x.J * np.log2(3)), 12)
    (array([[0.25, 0.75]]), 1.0)
    """
    reward = tree.reward if reward is None else reward
    check(tree, logp_ref=logp_ref, reward=reward)
    positive(beta)
    xp = library(logp_ref, "logp_ref")
    Q, V, logp = reward + xp.zeros_like(logp_ref), xp.zeros_like(logp_ref[:, 0]), xp.zeros_like(logp_ref)
    for t in reversed(range(tree.L)):
        q, ref = tree.level(Q, t), tree.level(logp_ref, t)
        if t + 1 < tree.L:
            q[:, : tree.C] += tree.children(V, t)
        never = xp.isneginf(ref)
        best = xp.amax(xp.where(never, ref, q), -1)
        z = ref + xp.where(never, 0.0, q - best[:, None]) / beta
        tree.level(logp, t)[:] = log_softmax(z)
        tree.level(V, t)[:] = best + beta * log_sum(z)
    return Optimum(logp, V, Q, (tree.weights * V[: tree.K]).sum())


def sequence_optimum(tree: Tree, logp_ref: Array, beta: float, reward: Array | None = None) -> tuple[Array, Array]:
    """The best distribution over whole sequences, and beta log Z of each prompt.

        log pi(o|q) = log ref(o|q) + r(q,o) / beta - log Z(q),   Z(q) = sum over o of ref(o|q) exp(r(q,o) / beta)

    reward: (N,V) with all of it at the last token, the outcomes of the task unless given. Returns log pi(o|q) at the
    sequence's last token, (N,V), -inf where none ends, and beta log Z (K,), which is the objective's value. Raises
    ShapeError, ValueError. Source: Korbak et al. (2022), RL with KL penalties is better viewed as Bayesian inference;
    Rafailov et al. (2023), Direct preference optimization, eq. 4; ledger E2.7.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> np.exp(sequence_optimum(task.tree, np.log([[0.5, 0.5]]), 1 / np.log(3))[0]).round(12)
    array([[0.25, 0.75]])
    """
    reward = tree.reward if reward is None else reward
    check(tree, logp_ref=logp_ref, reward=reward)
    positive(beta)
    xp = library(logp_ref, "logp_ref")
    z = gathered(tree, xp.where(tree.ends, along(tree, logp_ref) + reward / beta, -xp.inf))
    log_z = log_sum(z)
    return scattered(tree, z - log_z[:, None]), beta * log_z


def as_tokens(tree: Tree, q: Array) -> Array:
    """A distribution over sequences as choices of tokens: log-probabilities (N,V).

        pi(a|h) = q(sequences that begin with h a) / q(sequences that begin with h)

    q: (N,V) >= 0 at the last token of each sequence, 0 elsewhere; each prompt may have its own sum > 0. Prefixes that
    q never writes get the uniform choice, which then does not matter.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("t", ("0", "."), ("?",), 2, lambda prompt, tokens: 0.0 * prompt, eos=True)
    >>> np.exp(as_tokens(task.tree, np.array([[0.0, 0.25], [0.25, 0.5]]))).round(12)
    array([[0.75      , 0.25      ],
           [0.33333333, 0.66666667]])
    """
    check(tree, q=q)
    xp = library(q, "q")
    mass = values(tree, xp.ones_like(q), q)[1]
    mass = xp.where((mass.sum(-1) > 0)[:, None], mass, 1.0)
    taken = mass > 0
    return xp.where(taken, xp.log(xp.where(taken, mass, 1.0)), -xp.inf) - xp.log(mass.sum(-1))[:, None]


def regularised(tree: Tree, logp: Array, logp_ref: Array, beta: float, reward: Array | None = None) -> Evaluation:
    """Values of a policy that pays for leaving the reference; `.J` is J_beta and `.slope` its gradient in the logits.

        reward(h,a) - beta (logp(h,a) - logp_ref(h,a)),   in the one recursion

    This reward depends on the policy, yet the recursion's gradient, which takes it as a constant, is the whole
    gradient: what is missing is beta sum over h of d(h) times the sum over a of pi(a|h) times the gradient of
    log pi(a|h), and that sum is the gradient of the sum of pi(.|h) = 1, so 0. beta >= 0; beta = 0 gives
    `recursion.evaluate`. J is -inf where the policy takes what the reference never takes. Raises ShapeError,
    ValueError. Ledger E2.6, E2.7.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> x = regularised(task.tree, np.log([[0.25, 0.75]]), np.log([[0.5, 0.5]]), 1 / np.log(3))
    >>> abs(x.slope).max().round(12)
    np.float64(0.0)
    """
    if not beta >= 0:
        raise ValueError(f"beta is {beta}; a number >= 0 is expected")
    reward = tree.reward if reward is None else reward
    check(tree, logp=logp, logp_ref=logp_ref, reward=reward)
    return evaluate(tree, logp, reward - beta * log_ratio(logp, logp_ref))


# ---- sums along sequences ----


def log_ratio(logp: Array, logp_ref: Array) -> Array:
    """Log of pi / ref, and 0 where pi is 0: such a token is never seen."""
    xp = library(logp, "logp")
    never = xp.isneginf(logp.real)
    return xp.where(never, 0.0, xp.where(never, 0.0, logp) - xp.where(never, 0.0, logp_ref))


def along(tree: Tree, x: Array) -> Array:
    """Sums over the tokens of a sequence, from its first token to this one: (N,V) to (N,V).

        X(h a) = X(h) + x(h,a),   X(empty prefix) = 0

    At the last token it is the sum over the sequence.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("both", ("0", "1"), ("say 1 1",), 2, lambda prompt, tokens: 1.0 * (tokens.sum(1) == 2))
    >>> along(task.tree, np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]))
    array([[  1.,   2.],
           [ 11.,  21.],
           [102., 202.]])
    """
    check(tree, x=x)
    X = x + library(x, "x").zeros_like(x)
    for t in range(tree.L - 1):
        before = tree.level(X, t)[:, : tree.C]
        tree.level(X, t + 1).reshape(*before.shape, tree.V)[:] += before[:, :, None]
    return X


def gathered(tree: Tree, x: Array) -> Array:
    """The entries of x (N,V) in one row for each prompt, (K, N V / K)."""
    levels = [tree.level(x, t).reshape(tree.K, -1) for t in range(tree.L)]
    return library(x, "x").concatenate(levels, 1)


def scattered(tree: Tree, x: Array) -> Array:
    """The inverse of `gathered`: (K, N V / K) to (N,V)."""
    ends = [start * tree.V // tree.K for start in tree.start]
    levels = [x[:, i:j].reshape(-1, tree.V) for i, j in pairwise(ends)]
    return library(x, "x").concatenate(levels, 0)


def log_sum(z: Array) -> Array:
    """Log of the sum of exponentials along the last axis; -inf where all are."""
    xp = library(z, "z")
    top = xp.amax(z, -1)
    safe = xp.where(xp.isneginf(top), 0.0, top)
    with_zeros = xp.exp(z - safe[..., None]).sum(-1)
    return xp.where(with_zeros > 0, safe + xp.log(xp.where(with_zeros > 0, with_zeros, 1.0)), -xp.inf)


# ---- checks ----


def positive(beta: float) -> None:
    """Require a finite number > 0."""
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta is {beta}; a finite number > 0 is expected")


def check_binary(tree: Tree) -> None:
    """Require outcomes 0 and 1 only, in the way that a verifier says wrong and right."""
    wrong = (tree.reward != 0) & (tree.reward != 1)
    if wrong.any():
        h, a = divmod(int((wrong * 1).argmax()), tree.V)
        raise ModelError(f"reward[h={h}, a={a}] is {tree.reward[h, a]:g}; an outcome of 0 or 1 is expected")
