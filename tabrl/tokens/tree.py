"""The tree of prefixes: every state of a token task, level by level, as one set of rows.

K prompts; V tokens, of which C continue a sequence (the last one ends it where the task has an EOS: C = V - 1, else
C = V); L the longest sequence; N rows, one for each prompt with a prefix of 0 to L - 1 tokens. Rows of one length stand
together, in the order of prompt and tokens: child c of row start[t] + i is row start[t+1] + i C + c.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tabrl._xp import Array
from tabrl.errors import ModelError, ShapeError
from tabrl.types import F, I

Verifier = Callable[[I, I], npt.NDArray[Any]]  # prompts (n,) and their tokens (n,T) to rewards (n,)
BLOCK = 2**20  # sequences that a verifier is asked about at once, at most


class Tree(NamedTuple):
    """All prefixes of a task, and what each next token pays. NumPy arrays, or torch tensors on one device."""

    K: int
    V: int
    C: int
    L: int
    start: tuple[int, ...]  # L + 1 numbers: the first row of the prefixes of t tokens; start[L] = N
    weights: Array  # (K,) distribution of the prompts
    reward: Array  # (N,V) outcome of the sequence that ends with the token; 0 where it goes on
    ends: Array  # (N,V) bool: whether the sequence ends with the token
    step_reward: Array  # (N,V) process reward of the step that ends with the token; 0 where none does
    step_end: Array  # (N,V) bool: whether a step ends with the token

    def __repr__(self) -> str:
        return f"Tree(K={self.K}, V={self.V}, C={self.C}, L={self.L}, {self.N} prefixes)"

    @property
    def N(self) -> int:
        """Number of prefixes."""
        return self.start[-1]

    def level(self, x: Array, t: int) -> Array:
        """The rows of x (N,…) that belong to the prefixes of t tokens: a view."""
        return x[self.start[t] : self.start[t + 1]]

    def children(self, x: Array, t: int) -> Array:
        """The rows (n,C) of x (N,) that follow the n prefixes of t tokens, t < L - 1: a view."""
        return self.level(x, t + 1).reshape(-1, self.C)


def sizes(K: int, C: int, L: int) -> tuple[int, ...]:
    """The first row of each level, and the number of rows.

    >>> sizes(1, 10, 6)
    (0, 1, 11, 111, 1111, 11111, 111111)
    """
    start = [0]
    for t in range(L):
        start.append(start[-1] + K * C**t)
    return tuple(start)


def prefixes(K: int, C: int, t: int, rows: I | None = None) -> tuple[I, I]:
    """The prompts (n,) and tokens (n,t) of the prefixes of t tokens: of all n = K C^t, in order, or of some rows.

    rows: (n,) rows of the tree, less start[t].

    >>> prefixes(1, 2, 2)[1].tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    i = np.arange(K * C**t) if rows is None else rows
    powers = C ** np.arange(t)[::-1]
    return i // C**t, i[:, None] // powers % C


def build(K: int, V: int, eos: bool, L: int, weights: F, reward: Verifier, steps: Verifier | None) -> Tree:
    """Lay out the tree, asking the verifier about every finished sequence and `steps` about every prefix."""
    C = V - 1 if eos else V
    start = sizes(K, C, L)
    shape = (start[-1], V)
    numbers = (np.zeros(shape), np.zeros(shape, bool), np.zeros(shape), np.zeros(shape, bool))
    tree = Tree(K, V, C, L, start, weights.copy(), *numbers)
    tree.ends[start[L - 1] :] = True
    tree.ends[:, C:] = True
    at_once = max(1, BLOCK // V)
    for t in range(L):
        for first in range(start[t], start[t + 1], at_once):
            ask(tree, t, slice(first, min(first + at_once, start[t + 1])), reward, steps)
    for x in tree[5:]:
        x.flags.writeable = False
    return tree


def ask(tree: Tree, t: int, rows: slice, reward: Verifier, steps: Verifier | None) -> None:
    """Ask the verifiers about every next token of some prefixes of t tokens, and write down what they say."""
    prompt, tokens = prefixes(tree.K, tree.C, t, np.arange(rows.start, rows.stop) - tree.start[t])
    last = np.tile(np.arange(tree.V), len(prompt))
    prompt, tokens = np.repeat(prompt, tree.V), np.column_stack([np.repeat(tokens, tree.V, axis=0), last])
    over = tree.ends[rows]
    at = over.ravel()
    if at.any():
        tree.reward[rows][over] = paid("reward", reward, prompt[at], tokens[at])
    if steps is not None:
        found = paid("steps", steps, prompt, tokens, nan=True).reshape(-1, tree.V)
        tree.step_end[rows] = ~np.isnan(found)
        tree.step_reward[rows] = np.nan_to_num(found)


def paid(name: str, f: Verifier, prompt: I, tokens: I, *, nan: bool = False) -> F:
    """Ask a verifier, and check its answer: (n,) finite numbers, or nan where that is allowed.

    Raises ShapeError and ModelError, with the first prompt and tokens that are not answered.

    >>> paid("reward", lambda prompt, tokens: tokens[:, -1] == prompt, np.array([0, 1]), np.array([[0, 1], [0, 1]]))
    array([0., 1.])
    """
    said: Any = np.asarray(f(prompt, tokens))
    if said.shape != prompt.shape:
        raise ShapeError(
            f"{name}(prompt {prompt.shape}, tokens {tokens.shape}) has shape {said.shape}; "
            f"{prompt.shape}, one number for each sequence, is expected"
        )
    if said.dtype.kind not in "biuf":
        raise ModelError(
            f"{name}(prompt {prompt.shape}, tokens {tokens.shape}) has dtype {said.dtype}; real is expected"
        )
    result: F = said.astype(np.float64)
    wrong = np.isinf(result) | (np.isnan(result) & (not nan))
    if wrong.any():
        i = int(wrong.argmax())
        number = "a finite number, or nan where no step ends," if nan else "a finite number"
        raise ModelError(
            f"{name}[prompt={prompt[i]}, tokens={tokens[i].tolist()}] is {result[i]}; {number} is expected"
        )
    return result
