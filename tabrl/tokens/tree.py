"""The tree of prefixes: every state of a token task, level by level, as one set of rows.

K prompts; V tokens, of which C continue a sequence (the last one ends it where the task has an EOS: C = V - 1, else
C = V); L the longest sequence; N rows, one for each prompt with a prefix of 0 to L - 1 tokens. Rows of one length stand
together, in the order of prompt and tokens: child c of row start[t] + i is row start[t+1] + i C + c.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tabrl._xp import Array, library
from tabrl.errors import ModelError, ShapeError
from tabrl.types import F, I

Verifier = Callable[[I, I], F]  # prompts (n,) and their tokens (n,T) to rewards (n,)


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

    def like(self, x: Array) -> "Tree":
        """The same tree in arrays of the library, device and type of x; its numbers stay what they are."""
        xp = library(x, "x")
        if xp is np:
            return self
        here = {name: xp.as_tensor(getattr(self, name), device=x.device) for name in self._fields[5:]}
        return self._replace(**{name: y if y.dtype == xp.bool else y.to(x.dtype) for name, y in here.items()})


def sizes(K: int, C: int, L: int) -> tuple[int, ...]:
    """The first row of each level, and the number of rows.

    >>> sizes(1, 10, 6)
    (0, 1, 11, 111, 1111, 11111, 111111)
    """
    start = [0]
    for t in range(L):
        start.append(start[-1] + K * C**t)
    return tuple(start)


def prefixes(K: int, C: int, t: int) -> tuple[I, I]:
    """The prompts (n,) and tokens (n,t) of all prefixes of t tokens, n = K C^t, in the order of the rows.

    >>> prefixes(1, 2, 2)[1].tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    i = np.arange(K * C**t)
    powers = C ** np.arange(t)[::-1]
    return i // C**t, i[:, None] // powers % C


def sequences(K: int, V: int, C: int, t: int) -> tuple[I, I]:
    """Every prefix of t tokens with every next token: prompts (n V,) and tokens (n V, t + 1), n = K C^t."""
    prompt, tokens = prefixes(K, C, t)
    last = np.tile(np.arange(V), len(prompt))
    return np.repeat(prompt, V), np.column_stack([np.repeat(tokens, V, axis=0), last])


def build(K: int, V: int, eos: bool, L: int, weights: F, reward: Verifier, steps: Verifier | None) -> Tree:
    """Lay out the tree, asking the verifier about every finished sequence and `steps` about every prefix."""
    C = V - 1 if eos else V
    start = sizes(K, C, L)
    shape = (start[-1], V)
    tree = Tree(K, V, C, L, start, weights, np.zeros(shape), np.zeros(shape, bool), np.zeros(shape), np.zeros(shape, bool))
    tree.ends[start[L - 1] :] = True
    tree.ends[:, C:] = True
    for t in range(L):
        prompt, tokens = sequences(K, V, C, t)
        over = tree.level(tree.ends, t)
        at = over.ravel()
        if at.any():
            tree.level(tree.reward, t)[over] = paid("reward", reward, prompt[at], tokens[at])
        if steps is not None:
            paid_step = paid("steps", steps, prompt, tokens, nan=True).reshape(-1, V)
            tree.level(tree.step_end, t)[:] = ~np.isnan(paid_step)
            tree.level(tree.step_reward, t)[:] = np.nan_to_num(paid_step)
    for x in (tree.reward, tree.ends, tree.step_reward, tree.step_end, tree.weights):
        x.flags.writeable = False
    return tree


def paid(name: str, f: Verifier, prompt: I, tokens: I, *, nan: bool = False) -> F:
    """Ask a verifier, and check its answer: (n,) finite numbers, or nan where that is allowed."""
    answer: Any = np.asarray(f(prompt, tokens), np.float64)
    if answer.shape != prompt.shape:
        raise ShapeError(f"{name} returned shape {answer.shape}; {prompt.shape}, one number per sequence, is expected")
    wrong = np.isinf(answer) | (np.isnan(answer) & (not nan))
    if wrong.any():
        i = int(wrong.argmax())
        raise ModelError(f"{name}[prompt={prompt[i]}, tokens={tokens[i].tolist()}] is {answer[i]}; a finite number is expected")
    result: F = answer
    return result
