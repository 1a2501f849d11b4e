"""A task handed over to the engines that train large models, TRL and verl: prompts, rewards, and the names of settings.

Tasks go as text: a prompt is its text, an answer the words of its tokens with spaces between them. What is returned is
dictionaries, texts and floats: nothing imports an engine, and nothing needs torch. How to: docs/engines.md.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tabrl.errors import ModelError, ShapeError
from tabrl.tokens.engines import SETTINGS, Setting, keys_of, renewed, table
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import paid

__all__ = ["SETTINGS", "Setting", "keys_of", "prompt_set", "renewed", "reward_function", "table", "verl_reward"]

Message = dict[str, str]


def prompt_set(task: TokenTask, *, chat: bool = False) -> list[dict[str, Any]]:
    """The prompts in rows that both engines take: one row for each prompt, in the task's order.

    prompt: the text, for TRL and models without a chat template; with chat=True a message of the user, for verl and
    for TRL with a chat model. The other columns are those that verl asks for; ground_truth is the number of the prompt:
    all that the task's verifier wants to know. The task's weights are not in it, since both engines draw each row as
    often as the others. Nothing is enumerated, so the task may be of any size. Ledger E2.12.

    >>> from tabrl.envs import token_tasks
    >>> task = token_tasks.copy(vocab=2, prompts=2)
    >>> prompt_set(task)[1]["prompt"], prompt_set(task)[1]["reward_model"]
    ('copy: a b', {'style': 'rule', 'ground_truth': '1'})
    """
    return [
        {
            "prompt": [{"role": "user", "content": text}] if chat else text,
            "data_source": f"tabrl/{task.name}",
            "ability": "tokens",
            "reward_model": {"style": "rule", "ground_truth": str(k)},
            "extra_info": {"index": k, "split": "train"},
        }
        for k, text in enumerate(task.prompts)
    ]


def reward_function(task: TokenTask) -> Callable[..., list[float]]:
    """The task's verifier in the shape of a reward function of TRL.

    What is returned takes prompts and completions, each a list of texts or of messages, ignores the other columns, and
    returns a list of rewards. A completion is read as `read` does, and one that is no answer gets 0. Raises ModelError
    for a prompt that is not the task's. Ledger E2.12.

    >>> from tabrl.envs import token_tasks
    >>> task = token_tasks.copy(vocab=2, prompts=2)
    >>> reward_function(task)(prompts=["copy: b a", "copy: a b"], completions=["b a", "It is a b."])
    [1.0, 0.0]
    """
    number = {text: k for k, text in enumerate(task.prompts)}
    words = {word: a for a, word in enumerate(task.vocab)}

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        texts = [content(x) for x in prompts]
        for i, text in enumerate(texts):
            if text not in number:
                raise ModelError(f"prompts[{i}] is {text!r}; a prompt of task {task.name!r} is expected")
        return scores(task, [number[text] for text in texts], [read(task, words, content(x)) for x in completions])

    return reward


def verl_reward(task: TokenTask) -> Callable[..., float]:
    """The task's verifier in the shape of verl's compute_score.

    What is returned takes data_source, solution_str, ground_truth and extra_info. It looks at the second, the
    completion, read as `read` does, and the third, the number of the prompt as `prompt_set` gives it. A completion that
    is no answer gets 0. Raises ModelError for a number that is no prompt. Ledger E2.12.

    >>> from tabrl.envs import token_tasks
    >>> task = token_tasks.copy(vocab=2, prompts=2)
    >>> verl_reward(task)("tabrl/copy", "a b", "1")
    1.0
    """
    numbers = {str(k): k for k in range(task.K)}
    words = {word: a for a, word in enumerate(task.vocab)}

    def compute_score(
        data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **others: Any
    ) -> float:
        if str(ground_truth) not in numbers:
            raise ModelError(
                f"ground_truth is {ground_truth!r}; the number of a prompt, 0 to {task.K - 1}, is expected"
            )
        return scores(task, [numbers[str(ground_truth)]], [read(task, words, solution_str)])[0]

    return compute_score


def content(x: str | Sequence[Message]) -> str:
    """The text itself, or that of the last message."""
    return x if isinstance(x, str) else x[-1]["content"]


def read(task: TokenTask, words: dict[str, int], text: str) -> list[int] | None:
    """The tokens of a finished sequence, or None for a text that is none.

    Words with spaces between them, as `task.answer` writes them. Decoders drop EOS: where the task has one, an answer
    that is short of the length limit is given it back. Words that are no tokens, tokens behind EOS, too many tokens, or
    in a task without EOS too few, are no answer.
    """
    tokens = [words.get(word, -1) for word in text.split()]
    if task.eos and len(tokens) < task.length and task.C not in tokens:
        tokens.append(task.C)
    ended = len(tokens) == task.length or (task.eos and tokens[-1:] == [task.C])
    fine = ended and len(tokens) <= task.length and -1 not in tokens and task.C not in tokens[:-1]
    return tokens if fine else None


def scores(task: TokenTask, prompt: Sequence[int], answers: Sequence[list[int] | None]) -> list[float]:
    """What the verifier says of each answer, asked once for each length; 0 where there is no answer.

    Raises ShapeError for lists that differ in length, or a verifier that returns no number for each sequence.
    """
    if len(prompt) != len(answers):
        raise ShapeError(f"completions has {len(answers)} entries; {len(prompt)}, as many as prompts, are expected")
    found = [0.0] * len(prompt)
    for T in sorted({len(x) for x in answers if x is not None}):
        which = [i for i, x in enumerate(answers) if x is not None and len(x) == T]
        tokens = np.array([answers[i] for i in which])
        for i, r in zip(which, paid("reward", task.reward, np.array(prompt)[which], tokens).tolist(), strict=True):
            found[i] = r
    return found
