"""Token tasks: prompts, a small vocabulary, and a verifier that is a few lines of NumPy.

`TASKS` maps names to constructors that need no argument; `make("copy", vocab=4)` calls one by name. V is the number of
tokens, EOS included; p the probability that tokens drawn uniformly are right. Prompts are not drawn: they are spread
over all that there are, always the same ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tabrl import checks
from tabrl.envs.by_name import constructor
from tabrl.envs.token_parts import EOS, digits, letters, one, spread, whole
from tabrl.errors import ModelError
from tabrl.tokens.task import TokenTask
from tabrl.types import F, I


def copy(tokens: int = 2, *, vocab: int = 16, prompts: int = 8, eos: bool = False) -> TokenTask:
    """Repeat the letters of the prompt.

        copy: j p  ->  j p

    tokens: letters of a prompt, not all equal. vocab: number of letters. prompts: how many. eos: whether the answer has
    to end with EOS. Pays 1 for the exact answer, else 0; p = vocab^-tokens = 1/256, with EOS (vocab + 1)^-(tokens + 1).
    Source: made for this package; ledger E2.1.

    >>> task = copy(vocab=2, prompts=2)
    >>> task.prompts, task.tree.reward[2:].tolist()  # of the answers that begin with a, with b, to each prompt
    (('copy: b a', 'copy: a b'), [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    """
    return recital("copy", 1, tokens, vocab, prompts, eos)


def reverse(tokens: int = 2, *, vocab: int = 6, prompts: int = 8, eos: bool = True) -> TokenTask:
    """Say the letters of the prompt in reverse order, then end.

        reverse: d f  ->  f d <eos>

    Arguments as of `copy`. With EOS the answers of a policy are of all lengths up to tokens + 1.
    Pays 1 for the exact answer, else 0; p = (vocab + 1)^-(tokens + 1) = 1/343, without EOS vocab^-tokens.
    Source: made for this package; ledger E2.1.

    >>> task = reverse(3, vocab=3, prompts=1)
    >>> task.text(0, task.best(0)[0])
    'reverse: b c c | c c b <eos>'
    """
    return recital("reverse", -1, tokens, vocab, prompts, eos)


def target_sum(tokens: int = 3, *, vocab: int = 10, prompts: int = 8) -> TokenTask:
    """Choose digits that add up to the target.

        sum to 12 with 3 digits  ->  0 3 9

    tokens: digits of an answer. vocab: number of digits, 0 and up. prompts: targets, evenly spread between 0 and the
    largest sum. Pays 1 where the digits add up to the target, else 0; there are many right answers. p = 0.0415 on
    average over the targets 3, 6, …, 24: from 0.010 (3 and 24) to 0.073 (12 and 15).
    Source: made for this package; ledger E2.1.

    >>> task = target_sum(2, vocab=4, prompts=2)
    >>> task.prompts[1], task.tree.reward[[6, 7, 8, 9]].sum(1).tolist()  # 4 = 1 + 3 = 2 + 2 = 3 + 1
    ('sum to 4 with 2 digits', [0.0, 1.0, 1.0, 1.0])
    """
    whole("tokens", tokens, 1)
    whole("vocab", vocab, 2)
    most = tokens * (vocab - 1)
    whole("prompts", prompts, 1, max(1, most - 1))
    targets = np.rint(np.linspace(0, most, prompts + 2)[1:-1]).astype(int)

    def reward(prompt: I, tokens: I) -> F:
        return one(tokens.sum(axis=1) == targets[prompt])

    asked = [f"sum to {x} with {tokens} digits" for x in targets]
    return TokenTask("sum", digits(vocab), asked, tokens, reward)


def modular(m: int = 7, *, prompts: int = 8, thoughts: int = 1) -> TokenTask:
    """Add two numbers modulo m, after a thought that may be any token.

        5 + 4 mod 7  ->  0 2

    m: modulus and number of tokens. prompts: pairs, of m^2 (49 for all at m = 7). thoughts: free tokens before the
    answer. Pays 1 where the last token is the sum, else 0; p = 1/m. What stands in a thought pays nothing by itself.
    Source: made for this package, after the modular addition of Power et al. (2022); ledger E2.1.

    >>> task = modular(2, prompts=1)
    >>> task.prompts[0], task.tree.reward[1:].tolist()  # after the thought 0, after the thought 1
    ('1 + 1 mod 2', [[1.0, 0.0], [1.0, 0.0]])
    """
    whole("m", m, 2)
    whole("prompts", prompts, 1, m * m)
    whole("thoughts", thoughts, 0)
    pairs = spread(m, 2, prompts)
    answer = pairs.sum(axis=1) % m

    def reward(prompt: I, tokens: I) -> F:
        return one(tokens[:, -1] == answer[prompt])

    return TokenTask("modular", digits(m), [f"{a} + {b} mod {m}" for a, b in pairs], thoughts + 1, reward)


def brackets(tokens: int = 8) -> TokenTask:
    """Write brackets that are balanced: none is closed before it is opened, and all are closed at the end.

        balance 8 brackets  ->  ( ( ( ( ) ) ) )

    tokens: an even number n. Pays 1 for a balanced answer, else 0; p = Catalan(n/2) / 2^n = 14/256.
    Source: made for this package; the count is Stanley (2015), Catalan numbers; ledger E2.1.

    >>> brackets(4).tree.reward.sum()  # (()) and ()()
    np.float64(2.0)
    """
    whole("tokens", tokens, 2)
    if tokens % 2:
        raise ModelError(f"tokens is {tokens}; an even number of brackets is expected, as others are never balanced")

    def reward(prompt: I, tokens: I) -> F:
        depth = (1 - 2 * tokens).cumsum(axis=1)
        return one((depth >= 0).all(axis=1) & (depth[:, -1] == 0))

    return TokenTask("brackets", ("(", ")"), [f"balance {tokens} brackets"], tokens, reward)


def parity(bits: int = 3, *, length: int = 6) -> TokenTask:
    """Tell the parity of a bit string, after as many thoughts as one likes, and end.

        parity of 1 0 1  ->  0 <eos>        or 1 1 0 <eos>, with two thoughts

    bits: of a prompt; all 2^bits strings are asked. length: L, the most tokens of an answer, EOS counted. The bit
    before EOS is the answer, bits before it are thoughts. Pays 1 where the answer is the parity, 0 where it is not or
    EOS is missing; p = (1 - (2/3)^(L-1)) / 3 = 0.289. Right answers of every length from 2 to L pay the same: the
    lengths that a policy learns to prefer come from its loss. Source: made for this package; ledger E2.1, E2.9.

    >>> task = parity(1, length=2)
    >>> task.text(1, [1, 2]), task.tree.reward[4:].tolist()  # of prompt 0 after 0 and 1, of prompt 1 after 0
    ('parity of 1 | 1 <eos>', [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    """
    whole("bits", bits, 1, 16)
    whole("length", length, 2)
    strings = np.array([np.array(list(np.binary_repr(i, bits)), int) for i in range(2**bits)])
    answer = strings.sum(axis=1) % 2

    def reward(prompt: I, tokens: I) -> F:
        if tokens.shape[1] < 2:
            return np.zeros(len(prompt))
        return one((tokens[:, -1] == 2) & (tokens[:, -2] == answer[prompt]))

    asked = [f"parity of {' '.join(map(str, x))}" for x in strings]
    return TokenTask("parity", ("0", "1", EOS), asked, length, reward, eos=True)


def two_step(m: int = 7, *, prompts: int = 8) -> TokenTask:
    """Compute (a + b) * c modulo m in two steps: first the sum, then the product.

        (1 + 5) * 4 mod 7  ->  6 3

    m: modulus and number of tokens. prompts: triples with c from 2 to m - 1, of m^2 (m - 2). The outcome pays 1 where
    the last token is right, whatever the first one is; each step pays its process reward of 1 at its token where that
    token is right, else 0. p = 1/m. A wrong sum with a right product is paid by the outcome and not by the first step:
    there outcome and process supervision differ. Source: made for this package; ledger E2.1, E2.5.

    >>> task = two_step(3, prompts=1)
    >>> task.prompts[0], task.tree.step_reward[0].tolist(), task.tree.reward[1].tolist()
    ('(2 + 1) * 2 mod 3', [1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    """
    whole("m", m, 3)
    whole("prompts", prompts, 1, m * m * (m - 2))
    order = spread(m * m * (m - 2), 1, prompts)[:, 0]
    c, a, b = order % (m - 2) + 2, order // (m - 2) // m, order // (m - 2) % m
    answers = np.column_stack([(a + b) % m, (a + b) * c % m])

    def steps(prompt: I, tokens: I) -> F:
        last = tokens.shape[1] - 1
        return one(tokens[:, last] == answers[prompt, last])

    asked = [f"({x} + {y}) * {z} mod {m}" for x, y, z in zip(a, b, c, strict=True)]
    return TokenTask("two-step", digits(m), asked, 2, steps, steps=steps)


def bandit(rewards: Sequence[float] = (1.0, 0.5, 0.0)) -> TokenTask:
    """Choose one token, and get its reward: the smallest case, one prompt and one token.

        choose  ->  a

    rewards: one number for each token. The task in which every expectation can be written on one line.
    Source: made for this package, after Sutton & Barto (2018), section 2.8; ledger E2.1.

    >>> bandit((1.0, -1.0)).tree.reward
    array([[ 1., -1.]])
    """
    pays = checks.real(rewards, "rewards")
    if pays.ndim != 1 or len(pays) < 1:
        raise ModelError(f"rewards has shape {pays.shape}; one number for each token is expected")

    def reward(prompt: I, tokens: I) -> F:
        chosen: F = pays[tokens[:, 0]]
        return chosen

    return TokenTask("bandit", letters(len(pays)), ["choose"], 1, reward)


TASKS: dict[str, Callable[..., TokenTask]] = {
    "copy": copy,
    "reverse": reverse,
    "sum": target_sum,
    "modular": modular,
    "brackets": brackets,
    "parity": parity,
    "two-step": two_step,
    "bandit": bandit,
}


def make(name: str, **keywords: Any) -> TokenTask:
    """Build a task by its name in `TASKS`; keywords go to its constructor.

    Raises ModelError, with the close matches, for an unknown name.

    >>> make("copy", vocab=4)
    TokenTask('copy', K=8, V=4, length=2, 40 prefixes)
    """
    return constructor(name, TASKS, "a task")(**keywords)


def recital(name: str, step: int, tokens: int, vocab: int, prompts: int, eos: bool) -> TokenTask:
    """Say the letters of the prompt, forwards (step 1) or backwards (step -1)."""
    whole("tokens", tokens, 1)
    whole("vocab", vocab, 2)
    whole("prompts", prompts, 1, vocab**tokens - vocab * (tokens > 1))
    several = spread(vocab, tokens, prompts + vocab * (tokens > 1))
    mixed = several if tokens == 1 else several[(several != several[:, :1]).any(axis=1)]
    words = (*letters(vocab), EOS) if eos else letters(vocab)
    asked = mixed[:prompts]
    answer = np.column_stack([asked[:, ::step], np.full((prompts, int(eos)), vocab)])

    def reward(prompt: I, tokens: I) -> F:
        if tokens.shape[1] != answer.shape[1]:
            return np.zeros(len(prompt))
        return one((tokens == answer[prompt]).all(axis=1))

    texts = [f"{name}: {' '.join(words[i] for i in row)}" for row in asked]
    return TokenTask(name, words, texts, tokens + eos, reward, eos=eos)
