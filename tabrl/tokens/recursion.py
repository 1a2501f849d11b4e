"""The one recursion over the tree of prefixes: every expectation over finished sequences is it, with another reward.

tree `Tree` of N prefixes and V next tokens; logp (N,V) log-probabilities of a policy, pi their exponentials; reward
(N,V) what a next token pays; V (N,) and Q (N,V) values of prefixes and next tokens; d (N,) the weight of the prompt
times the probability of the prefix; z (N,V) logits. NumPy (float64, or complex for complex steps) or torch.
"""

from typing import NamedTuple

from tabrl._xp import Array, library
from tabrl.errors import ShapeError
from tabrl.tokens.tree import Tree


class Evaluation(NamedTuple):
    """What a policy earns, prefix by prefix."""

    pi: Array  # (N,V)
    V: Array  # (N,) expected reward from the prefix on
    Q: Array  # (N,V) expected reward from the next token on
    d: Array  # (N,) probability that the prefix occurs; sums to 1 over the empty prefixes
    J: Array  # expected reward, the weights of the prompts times V of the empty prefixes

    @property
    def slope(self) -> Array:
        """The gradient of J with respect to the logits, (N,V): d pi (Q - V)."""
        return self.d[:, None] * self.pi * (self.Q - self.V[:, None])


def log_softmax(z: Array) -> Array:
    """Log-probabilities of logits, along the last axis.

        logp(a) = z(a) - log sum over b of exp(z(b))

    >>> import numpy as np
    >>> np.exp(log_softmax(np.array([0.0, np.log(3.0)]))).round(12)
    array([0.25, 0.75])
    """
    xp = library(z, "z")
    shifted = z - xp.amax(z.real, -1)[..., None]
    return shifted - xp.log(total(xp.exp(shifted)))[..., None]


def total(x: Array) -> Array:
    """Sums along the last axis; faster than `sum` for many short rows in NumPy."""
    return library(x, "x").einsum("...a->...", x)


def pick(x: Array, index: Array) -> Array:
    """The entries of x (…,V) that index (…) names, one of each row."""
    xp = library(x, "x")
    flat = x.reshape(-1, x.shape[-1])
    return flat[xp.arange(len(flat), device=x.device), index.ravel()].reshape(index.shape)


def evaluate(tree: Tree, logp: Array, reward: Array | None = None) -> Evaluation:
    """Exact values, probabilities and J of a policy: once up the tree, once down.

        Q(h,a) = reward(h,a) + V(h a),   V(h) = sum over a of pi(a|h) Q(h,a),   d(h a) = d(h) pi(a|h)

    logp: (N,V). reward: (N,V), the outcomes of the task unless given. Returns an `Evaluation`. Raises ShapeError.
    Source: the Bellman equation on a tree, with gamma = 1; ledger E2.1.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("both", ("0", "1"), ("say 1 1",), 2, lambda prompt, tokens: 1.0 * (tokens.sum(1) == 2))
    >>> x = evaluate(task.tree, np.log(np.full((3, 2), 0.5)))
    >>> x.J.item(), x.V, x.d
    (0.25, array([0.25, 0.  , 0.5 ]), array([1. , 0.5, 0.5]))
    """
    reward = tree.reward if reward is None else reward
    check(tree, logp=logp, reward=reward)
    pi = library(logp, "logp").exp(logp)
    V, Q = values(tree, pi, reward)
    return Evaluation(pi, V, Q, reach(tree, pi), (tree.weights * V[: tree.K]).sum())


def values(tree: Tree, pi: Array, reward: Array) -> tuple[Array, Array]:
    """V (N,) and Q (N,V) of the probabilities pi (N,V), from the longest prefixes to the empty ones."""
    xp = library(pi, "pi")
    Q, V = reward + xp.zeros_like(pi), xp.zeros_like(pi[:, 0])
    for t in reversed(range(tree.L)):
        q = tree.level(Q, t)
        if t + 1 < tree.L:
            q[:, : tree.C] += tree.children(V, t)
        tree.level(V, t)[:] = xp.einsum("na,na->n", tree.level(pi, t), q)
    return V, Q


def reach(tree: Tree, pi: Array, weights: Array | None = None) -> Array:
    """The probability d (N,) of each prefix under pi (N,V), prompts drawn by `weights` (K,), those of the task."""
    xp = library(pi, "pi")
    d = xp.zeros_like(pi[:, 0])
    d[: tree.K] = tree.weights if weights is None else weights
    for t in range(tree.L - 1):
        tree.children(d, t)[:] = tree.level(d, t)[:, None] * tree.level(pi, t)[:, : tree.C]
    return d


def curvature(tree: Tree, logp: Array, direction: Array, reward: Array | None = None) -> Array:
    """The Hessian of J with respect to the logits, times a direction (N,V).

    Each quantity of `evaluate` is differentiated along the direction u: dlogp = u - sum over b of pi(b) u(b), and so on
    up and down the tree. Returns (N,V). Ledger E2.1.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> curvature(task.tree, np.log([[0.75, 0.25]]), np.array([[0.0, 1.0]]))  # p (1 - p) (1 - 2 p)
    array([[-0.09375,  0.09375]])
    """
    reward = tree.reward if reward is None else reward
    x = evaluate(tree, logp, reward)
    check(tree, logp=logp, direction=direction)
    xp = library(logp, "logp")
    d_pi = x.pi * (direction - total(x.pi * direction)[:, None])
    gain = xp.einsum("na,na->n", d_pi, x.Q)
    d_V, d_Q = values(tree, x.pi, gain[:, None] + xp.zeros_like(x.pi))
    d_Q = d_Q - gain[:, None]
    d_d = xp.zeros_like(x.d)
    for t in range(tree.L - 1):
        grown = tree.level(d_d, t)[:, None] * tree.level(x.pi, t) + tree.level(x.d, t)[:, None] * tree.level(d_pi, t)
        tree.children(d_d, t)[:] = grown[:, : tree.C]
    A = x.Q - x.V[:, None]
    d_A = d_Q - d_V[:, None]
    return d_d[:, None] * x.pi * A + x.d[:, None] * (d_pi * A + x.pi * d_A)


def check(tree: Tree, **arrays: Array) -> None:
    """Require arrays of the tree's shape (N,V)."""
    for name, x in arrays.items():
        library(x, name)
        if tuple(x.shape) != (tree.N, tree.V):
            raise ShapeError(f"{name} has shape {tuple(x.shape)}; (N,V) = {(tree.N, tree.V)} is expected")
