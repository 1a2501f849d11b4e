"""Tasks whose states are prompts and the tokens so far, and whose actions are next tokens.

K prompts, V tokens, L the longest answer in tokens (EOS counted); prompt (n,) numbers of prompts, tokens (n,T) numbers
of tokens. Nothing is random but the policy; a sequence ends with EOS or at length L, and pays its reward then. The
return is not discounted: gamma = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tabrl import checks
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.tokens.tree import Tree, Verifier, build, prefixes, sizes
from tabrl.types import F, Names

LARGEST = 2**26  # next tokens of all prefixes: half a gigabyte for each array of numbers
LARGEST_MDP = 20_000  # prefixes of a task that is written out as a model


@dataclass(frozen=True, eq=False, repr=False)
class TokenTask:
    """A token MDP that is small enough to be enumerated.

    name: what it is called. vocab: V different words without spaces; with eos=True the last of them ends a sequence.
    prompts: K different texts. length: L, the most tokens of an answer. reward: called with the prompts (n,) and the
    tokens (n,T) of n finished sequences of T tokens each, returns (n,) rewards. steps: called likewise with prefixes,
    returns the process reward of the step that ends with the last of these tokens, nan where none does; it is never
    part of J. weights: (K,) distribution of the prompts, uniform unless given.

    Raises ModelError and ShapeError; the verifiers are called when `tree` is first asked for. Ledger E2.1.

    >>> def same(prompt, tokens):
    ...     return 1.0 * (tokens[:, 0] == prompt)
    >>> task = TokenTask("repeat", ("a", "b"), ("say a", "say b"), 1, same)
    >>> task.tree.reward
    array([[1., 0.],
           [0., 1.]])
    """

    name: str
    vocab: Sequence[str]
    prompts: Sequence[str]
    length: int
    reward: Verifier
    eos: bool = False
    steps: Verifier | None = None
    weights: F = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, least in (("vocab", 1 + self.eos), ("prompts", 1)):
            object.__setattr__(self, name, different(getattr(self, name), name, least))
        for i, word in enumerate(self.vocab):
            if word.split() != [word]:
                raise ModelError(f"vocab[{i}] is {word!r}; a word without spaces is expected")
        if self.length != int(self.length) or self.length < 1:
            raise ModelError(f"length is {self.length!r}; a whole number >= 1 is expected")
        K = len(self.prompts)
        weights = np.full(K, 1 / K) if self.weights is None else checks.distribution(self.weights, "weights", K)
        object.__setattr__(self, "weights", weights)

    @property
    def K(self) -> int:
        """Number of prompts."""
        return len(self.prompts)

    @property
    def V(self) -> int:
        """Number of tokens, EOS included."""
        return len(self.vocab)

    @property
    def C(self) -> int:
        """Number of tokens that continue a sequence."""
        return self.V - self.eos

    @property
    def N(self) -> int:
        """Number of prefixes that are shorter than `length`: states in which a token is chosen."""
        return sizes(self.K, self.C, self.length)[-1]

    @cached_property
    def tree(self) -> Tree:
        """All prefixes and what each next token pays; laid out once. Raises ModelError where there are too many."""
        if self.N * self.V > LARGEST:
            raise ModelError(
                f"task {self.name!r} has {self.N} prefixes of {self.V} next tokens; at most {LARGEST} next tokens are expected; "
                "shorten the answers, or hand over to an engine (docs/engines.md)"
            )
        return build(self.K, self.V, self.eos, self.length, self.weights, self.reward, self.steps)

    def text(self, prompt: int, tokens: Sequence[int]) -> str:
        """One sequence as readable text: the prompt, a bar, the tokens.

        >>> TokenTask("t", ("x", "y"), ("first",), 2, lambda prompt, tokens: 0.0 * prompt).text(0, [1, 0])
        'first | y x'
        """
        return f"{self.prompts[prompt]} | {self.answer(tokens)}"

    def answer(self, tokens: Sequence[int]) -> str:
        """Tokens as words with spaces between them."""
        return " ".join(self.vocab[int(a)] for a in tokens)

    def parse(self, text: str) -> list[int]:
        """The tokens of words with spaces between them, as `answer` writes them. Raises ModelError for other words.

        >>> TokenTask("t", ("x", "y"), ("first",), 2, lambda prompt, tokens: 0.0 * prompt).parse("y x")
        [1, 0]
        """
        number = {word: a for a, word in enumerate(self.vocab)}
        for i, word in enumerate(text.split()):
            if word not in number:
                raise ModelError(f"text[{i}] is {word!r}; a token is expected, one of {' '.join(self.vocab)}")
        return [number[word] for word in text.split()]

    def best(self, prompt: int) -> tuple[list[int], float]:
        """The tokens of a sequence of the largest reward, the shortest and first of these, and that reward."""
        tree, found = self.tree, (-np.inf, [0])
        for t in range(tree.L):
            n = tree.C**t
            rows = slice(prompt * n, (prompt + 1) * n)
            r = np.where(tree.level(tree.ends, t)[rows], tree.level(tree.reward, t)[rows], -np.inf)
            i, a = np.unravel_index(int(r.argmax()), r.shape)
            if r[i, a] > found[0]:
                found = (float(r[i, a]), [*prefixes(1, tree.C, t)[1][i].tolist(), int(a)])
        return found[1], found[0]

    def __str__(self) -> str:
        """The task on a page: sizes, tokens, and each prompt with an answer of the largest reward."""
        lines = [repr(self), f"tokens: {' '.join(self.vocab)}"]
        for k in range(self.K):
            tokens, r = self.best(k)
            lines.append(f"{self.text(k, tokens)}   (reward {r:g})")
        return "\n".join(lines)

    def __repr__(self) -> str:
        end = ", EOS" if self.eos else ""
        return f"TokenTask({self.name!r}, K={self.K}, V={self.V}, length={self.length}{end}, {self.N} prefixes)"

    def to_mdp(self, *, process: bool = False) -> MDP:
        """The task as an explicit model: one state per prefix, one for the end, and gamma = 1.

        process=True adds the process rewards to the outcomes. Raises ModelError for more than 20,000 prefixes.

        >>> task = TokenTask("repeat", ("a", "b"), ("say a",), 1, lambda prompt, tokens: 1.0 * (tokens[:, 0] == prompt))
        >>> task.to_mdp()
        MDP(S=2, A=2, gamma=1, 1 terminal, dense)
        """
        if self.N > LARGEST_MDP:
            raise ModelError(f"task {self.name!r} has {self.N} prefixes; at most {LARGEST_MDP} are expected for a model")
        return written_out(self, process)


def different(words: Any, name: str, least: int) -> tuple[str, ...]:
    """Require a sequence of different texts."""
    found = tuple(words)
    if isinstance(words, str) or not all(isinstance(w, str) for w in found):
        raise ModelError(f"{name} is {words!r}; a sequence of texts is expected")
    if len(found) < least:
        raise ModelError(f"{name} has {len(found)} entries; {least} or more are expected")
    for i, word in enumerate(found):
        if word in found[:i]:
            raise ModelError(f"{name}[{i}] is {word!r}, as {name}[{found.index(word)}] is; different texts are expected")
    return found


def written_out(task: TokenTask, process: bool) -> MDP:
    """The model of a task: rows of the tree, then the terminal state."""
    import scipy.sparse as sp

    tree = task.tree
    following = np.full((tree.N, tree.V), tree.N)
    for t in range(tree.L - 1):
        rows = np.arange(tree.start[t + 1], tree.start[t + 2])
        tree.level(following, t)[:, : tree.C] = rows.reshape(-1, tree.C)
    over = np.full((1, tree.V), tree.N)
    S = tree.N + 1
    column = np.concatenate([following, over]).ravel()
    P = sp.csr_array((np.ones(S * tree.V), column, np.arange(S * tree.V + 1)), shape=(S * tree.V, S))
    pays = tree.reward + tree.step_reward if process else tree.reward
    R = np.concatenate([pays, np.zeros((1, tree.V))])
    mu, terminal = np.zeros(S), np.arange(S) == tree.N
    mu[: tree.K] = task.weights
    dense = P.toarray().reshape(S, tree.V, S) if S * S * tree.V <= 2**20 else P
    return MDP(dense, R, 1.0, mu=mu, terminal=terminal, names=Names(states(task), tuple(task.vocab)))


def states(task: TokenTask) -> tuple[str, ...]:
    """A label for each row of the tree, and one for the end."""
    labels = []
    for t in range(task.length):
        prompt, tokens = prefixes(task.K, task.C, t)
        labels += [task.text(k, row) for k, row in zip(prompt.tolist(), tokens.tolist(), strict=True)]
    return (*labels, "end")

