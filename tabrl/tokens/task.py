"""Tasks whose states are prompts and the tokens so far, and whose actions are next tokens.

K prompts, V tokens, L the longest answer in tokens (EOS counted); prompt (n,) numbers of prompts, tokens (n,T) numbers
of tokens. Nothing is random but the policy; a sequence ends with EOS or at length L, and pays its reward then. The
return is not discounted: gamma = 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log, log10
from typing import Any

import numpy as np

from tabrl import checks
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.tokens.recursion import evaluate
from tabrl.tokens.tree import Tree, Verifier, build, prefixes
from tabrl.types import F, Names

LARGEST = 2**26  # next tokens of all prefixes: half a gigabyte for each array of numbers
BEST = "prompt | a best answer"  # head of a page
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
    weights: F = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, least in (("vocab", 1 + bool(self.eos)), ("prompts", 1)):
            object.__setattr__(self, name, different(getattr(self, name), name, least))
        wrong = [i for i, word in enumerate(self.vocab) if word.split() != [word]]
        if wrong:
            raise ModelError(f"vocab[{wrong[0]}] is {self.vocab[wrong[0]]!r}; a word without spaces is expected")
        if not isinstance(self.length, int | np.integer) or self.length < 1:
            raise ModelError(f"length is {self.length!r}; a whole number >= 1 is expected")
        for name in ("reward", "steps"):
            f = getattr(self, name)
            if not (callable(f) or (f is None and name == "steps")):
                raise ModelError(f"{name} is {f!r}; a function of prompts (n,) and tokens (n,T) is expected")
        K = len(self.prompts)
        weights = np.full(K, 1 / K) if self.weights is None else checks.distribution(self.weights, "weights", K)
        weights.flags.writeable = False
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "length", int(self.length))

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
        return self.K * (self.length if self.C == 1 else (self.C**self.length - 1) // (self.C - 1))

    @property
    def fits(self) -> bool:
        """Whether the tree is small enough to be laid out."""
        return self.length * log(self.C) <= log(LARGEST) and self.N * max(self.V, self.length) <= LARGEST

    @cached_property
    def tree(self) -> Tree:
        """All prefixes and what each next token pays; laid out once. Raises ModelError where there are too many."""
        if not self.fits:
            raise ModelError(
                f"task {self.name!r} has {many(self)}, V = {self.V} and length {self.length}; at most {LARGEST} "
                "prefixes times the larger are expected; shorten the answers, or use an engine (docs/engines.md)"
            )
        return build(self.K, self.V, bool(self.eos), self.length, self.weights, self.reward, self.steps)

    def text(self, prompt: int, tokens: Sequence[int]) -> str:
        """One sequence as readable text: the prompt, a bar, the tokens. Raises ModelError for unknown numbers.

        >>> TokenTask("t", ("x", "y"), ("first",), 2, lambda prompt, tokens: 0.0 * prompt).text(0, [1, 0])
        'first | y x'
        """
        return f"{self.prompts[below(prompt, self.K, 'prompt')]} | {self.answer(tokens)}"

    def answer(self, tokens: Sequence[int]) -> str:
        """Tokens as words with spaces between them, as in `text`. Raises ModelError for unknown numbers."""
        return " ".join(self.vocab[below(a, self.V, f"tokens[{i}]")] for i, a in enumerate(tokens))

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
        """The tokens of a sequence of the largest reward, and that reward.

        Of several such sequences, one of the largest sum of process rewards; of these, the shortest and first.
        """
        below(prompt, self.K, "prompt")
        tree, found = self.tree, ((-np.inf, -np.inf), [0])
        gone = np.zeros(1)  # process rewards on the way to the prefixes
        for t in range(tree.L):
            n = tree.C**t
            rows = slice(prompt * n, (prompt + 1) * n)
            r = np.where(tree.level(tree.ends, t)[rows], tree.level(tree.reward, t)[rows], -np.inf)
            total = gone[:, None] + tree.level(tree.step_reward, t)[rows]
            i, a = np.unravel_index(int(np.where(r == r.max(), total, -np.inf).argmax()), r.shape)
            if (r[i, a], total[i, a]) > found[0]:
                found = ((r[i, a], total[i, a]), [*prefixes(1, tree.C, t)[1][i].tolist(), int(a)])
            gone = total[:, : tree.C].ravel()
        return found[1], float(found[0][0])

    def __str__(self) -> str:
        """The task on a page: sizes, tokens, and each prompt with an answer of the largest reward."""
        ends = f"ends with {self.vocab[-1]}, at most" if self.eos else "has"
        length = f"an answer {ends} {self.length} token{'s' * (self.length > 1)}"
        head = [repr(self), f"tokens: {' '.join(self.vocab)}", length, ""]
        return "\n".join([*head, *(page(self) if self.fits else self.prompts)])

    def __repr__(self) -> str:
        return (
            f"TokenTask({self.name!r}, K={self.K}, V={self.V}, length={self.length}{', EOS' * self.eos}, {many(self)})"
        )

    def to_mdp(self, *, process: bool = False) -> MDP:
        """The task as an explicit model: one state per prefix, one for the end, and gamma = 1.

        process=True adds the process rewards to the outcomes. Raises ModelError for more than 20,000 prefixes.

        >>> task = TokenTask("repeat", ("a", "b"), ("say a",), 1, lambda prompt, tokens: 1.0 * (tokens[:, 0] == prompt))
        >>> task.to_mdp()
        MDP(S=2, A=2, gamma=1, 1 terminal, dense)
        """
        if not self.fits or self.N > LARGEST_MDP:
            raise ModelError(f"task {self.name!r} has {many(self)}; at most {LARGEST_MDP} are expected for a model")
        return written_out(self, process)


def different(words: Any, name: str, least: int) -> tuple[str, ...]:
    """Require a sequence of different texts."""
    found = tuple(words) if isinstance(words, Iterable) else (words,)
    if isinstance(words, str) or not all(isinstance(w, str) for w in found):
        raise ModelError(f"{name} is {words!r}; a sequence of texts is expected")
    if len(found) < least:
        raise ModelError(f"{name} has {len(found)} entries; {least} or more are expected")
    for i, word in enumerate(found):
        if word in found[:i]:
            raise ModelError(
                f"{name}[{i}] is {word!r}, as {name}[{found.index(word)}] is; different texts are expected"
            )
    return found


def below(i: int, n: int, name: str) -> int:
    """Require a number from 0 to n - 1."""
    if not 0 <= i < n:
        raise ModelError(f"{name} is {i}; a number from 0 to {n - 1} is expected")
    return int(i)


def many(task: TokenTask) -> str:
    """The number of prefixes in words."""
    digits = log10(task.K) + (task.length - 1) * log10(task.C)
    return f"about 10^{digits:.0f} prefixes" if digits > 12 else f"{task.N} prefix{'es' * (task.N > 1)}"


def page(task: TokenTask) -> list[str]:
    """A line for each prompt: an answer of the largest reward, and what uniform tokens earn."""
    tree = task.tree
    uniform = evaluate(tree, np.full((tree.N, tree.V), -log(tree.V))).V
    best = [task.best(k) for k in range(task.K)]
    texts = [task.text(k, tokens) for k, (tokens, _) in enumerate(best)]
    wide = max(map(len, (BEST, *texts)))
    lines = [f"{BEST:{wide}}  reward  mean reward of uniform tokens"]
    lines += [f"{text:{wide}}  {best[k][1]:<6g}  {uniform[k]:.4f}" for k, text in enumerate(texts)]
    if np.ptp(task.weights):
        lines.append(f"weights of the prompts: {' '.join(f'{w:.4g}' for w in task.weights)}")
    return lines


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
