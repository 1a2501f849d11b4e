"""An independent judge of token tasks: every sequence is written down, with its probability and its score.

Rows of prefixes are numbered as documented: by length, then prompt, then tokens.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np

from tabrl.tokens.task import TokenTask


class Listed(NamedTuple):
    """One sequence."""

    prompt: int
    rows: list[int]  # of the prefix before each token
    tokens: list[int]
    reward: float
    weight: float  # of its prompt

    def __len__(self) -> int:
        return len(self.tokens)


def random_task(seed: int, *, binary: bool = False) -> TokenTask:
    """One to three prompts, two or three tokens, up to three of them in an answer, EOS or not, rewards at random."""
    rng = np.random.default_rng([50, seed])
    K, V, L, eos = int(rng.integers(1, 4)), int(rng.integers(2, 4)), int(rng.integers(1, 4)), bool(seed % 2)
    paid: Any = rng.normal(size=(K, *[V + 1] * L))
    if binary:
        paid = 1.0 * (paid > 0.3)
        for k in range(K):
            paid[k][(0,) * L], paid[k][(V - 1,) * L] = 1.0, 0.0
            paid[k][(V - 1,) + (V,) * (L - 1)] = 0.0

    def reward(prompt: Any, tokens: Any) -> Any:
        padded = np.full((len(prompt), L), V)
        padded[:, : tokens.shape[1]] = tokens
        return paid[(prompt, *padded.T)]

    weights = rng.dirichlet(np.ones(K)) if seed % 3 else None
    vocab = [chr(97 + v) for v in range(V)]
    return TokenTask(f"random {seed}", vocab, [str(k) for k in range(K)], L, reward, eos, weights=weights)  # type: ignore[arg-type]


def random_logp(task: TokenTask, seed: int, width: float = 1.0) -> Any:
    """Log-probabilities (N,V) of a random table."""
    return rows_logp(random_logits(task, seed, width))


def random_logits(task: TokenTask, seed: int, width: float = 1.0) -> Any:
    return width * np.random.default_rng([51, seed]).normal(size=(task.N, task.V))


def rows_logp(z: Any) -> Any:
    """Rows of log-probabilities of logits, real or complex."""
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def listing(task: TokenTask) -> list[Listed]:
    """All sequences of all prompts."""
    K, V, C, L = len(task.prompts), len(task.vocab), len(task.vocab) - task.eos, task.length
    row: dict[tuple[int, ...], int] = {}
    for t in range(L):
        for k in range(K):
            for before in product(range(C), repeat=t):
                row[(k, *before)] = len(row)
    found = []
    for t, k in product(range(1, L + 1), range(K)):
        for head in product(range(C), repeat=t - 1):
            for a in range(V):
                if t < L and a < C:
                    continue
                tokens = [*head, a]
                paid = float(task.reward(np.array([k]), np.array([tokens]))[0])
                rows = [row[(k, *tokens[:i])] for i in range(t)]
                found.append(Listed(k, rows, tokens, paid, float(task.weights[k])))
    return found


def log_probability(x: Listed, logp: Any) -> Any:
    """Of a sequence, given its prompt."""
    return sum(logp[h, a] for h, a in zip(x.rows, x.tokens, strict=True))


def score(x: Listed, logp: Any, g: Any = None) -> Any:
    """Sum over the tokens of a sequence of g[t] times the gradient of log pi in the logits, (N,V)."""
    out = np.zeros(logp.shape)
    for t, (h, a) in enumerate(zip(x.rows, x.tokens, strict=True)):
        weight = 1.0 if g is None else g[t]
        out[h] -= weight * np.exp(logp[h])
        out[h, a] += weight
    return out


def mean(task: TokenTask, logp: Any, f: Any) -> Any:
    """The expectation of f(sequence) over what a policy writes, prompts drawn by their weights."""
    return sum(x.weight * np.exp(log_probability(x, logp)) * f(x) for x in listing(task))
