"""The tasks that come with the package: what is right is counted by loops over all answers."""

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest

from tabrl.envs import token_tasks
from tabrl.envs.token_parts import spread
from tabrl.envs.token_tasks import TASKS, make
from tabrl.errors import ModelError
from tabrl.tokens.recursion import evaluate
from tabrl.tokens.task import TokenTask

Judge = Callable[[str, list[str]], float]


def balanced(prompt: str, words: list[str]) -> float:
    text = "".join(words)
    while "()" in text:
        text = text.replace("()", "")
    return float(text == "")


def parity_right(prompt: str, words: list[str]) -> float:
    wanted = str(prompt.split("of ")[1].count("1") % 2)
    return float(len(words) > 1 and words[-1] == "<eos>" and words[-2] == wanted)


def calculated(prompt: str, words: list[str]) -> float:
    formula, m = prompt.split(" mod ")
    numbers = [int(x) for x in formula.replace("(", "").replace(")", "").replace("+", " ").replace("*", " ").split()]
    value = numbers[0] + numbers[1]
    return float(int(words[-1]) == (value * numbers[2] if len(numbers) == 3 else value) % int(m))


JUDGES: dict[str, Judge] = {  # from the text of the prompt and the words alone
    "copy": lambda p, w: float(w == p.split()[1:]),
    "reverse": lambda p, w: float(w == [*p.split()[:0:-1], "<eos>"]),
    "sum": lambda p, w: float(sum(map(int, w)) == int(p.split()[2]) and len(w) == int(p.split()[4])),
    "modular": calculated,
    "brackets": balanced,
    "parity": parity_right,
    "two-step": calculated,
    "bandit": lambda p, w: {"a": 1.0, "b": 0.5, "c": 0.0}[w[0]],
}
UNIFORM = {
    "copy": Fraction(1, 256),
    "reverse": Fraction(1, 343),
    "sum": Fraction(2 * (10 + 28 + 55 + 73), 8 * 1000),
    "modular": Fraction(1, 7),
    "brackets": Fraction(comb(8, 4), 5 * 256),
    "parity": (1 - Fraction(2, 3) ** 5) / 3,
    "two-step": Fraction(1, 7),
    "bandit": Fraction(1, 2),
}


def answers(task: TokenTask) -> Any:
    """Every finished sequence of tokens."""
    go_on = range(task.V - task.eos)
    for n in range(1, task.length + 1):
        for begun in product(go_on, repeat=n - 1):
            yield from ([*begun, a] for a in range(task.V) if n == task.length or a not in go_on)


def uniform(task: TokenTask) -> Any:
    return evaluate(task.tree, np.full((task.N, task.V), -np.log(task.V)))


@pytest.mark.parametrize("name", TASKS)
def test_rewards_by_a_loop_over_the_words(name: str) -> None:
    task = TASKS[name]()
    every = list(answers(task))
    for tokens in every[:: max(1, len(every) // 400)]:
        prompt, row = np.arange(task.K), np.tile(tokens, (task.K, 1))
        words = task.answer(tokens).split()
        assert task.reward(prompt, row).tolist() == [JUDGES[name](text, words) for text in task.prompts]
    for k in range(task.K):
        best, r = task.best(k)
        assert r == JUDGES[name](task.prompts[k], task.answer(best).split()) == 1.0


@pytest.mark.parametrize("name", TASKS)
def test_what_uniform_tokens_earn(name: str) -> None:
    assert abs(uniform(TASKS[name]()).J - float(UNIFORM[name])) <= 1e-14


def test_the_table_of_chances_is_complete() -> None:
    assert set(UNIFORM) == set(JUDGES) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_names_pages_and_prompts(name: str) -> None:
    task = make(name)
    assert task.name == name and task.prompts == TASKS[name]().prompts
    page = str(task)
    assert all(text in page for text in task.prompts) and " ".join(task.vocab) in page
    assert len(task.prompts) == (1 if name in ("brackets", "bandit") else 8)


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_recitals_of_all_sizes(tokens: int, eos: bool) -> None:
    vocab = 3
    most = vocab**tokens - vocab * (tokens > 1)
    for make_it, step in ((token_tasks.copy, 1), (token_tasks.reverse, -1)):
        task = make_it(tokens, vocab=vocab, prompts=most, eos=eos)
        assert len(set(task.prompts)) == most
        for k, text in enumerate(task.prompts):
            wanted = text.split()[1:]
            assert tokens == 1 or len(set(wanted)) > 1
            assert task.best(k) == (task.parse(" ".join([*wanted[::step], *["<eos>"] * eos])), 1.0)
        np.testing.assert_allclose(uniform(task).V[:most], (vocab + eos) ** -float(tokens + eos), rtol=1e-13)
        with pytest.raises(ModelError, match=f"prompts is {most + 1}; a whole number of at least 1 and at most {most}"):
            make_it(tokens, vocab=vocab, prompts=most + 1, eos=eos)


@pytest.mark.parametrize(("tokens", "vocab", "prompts"), [(3, 10, 26), (2, 4, 3), (1, 2, 1), (4, 3, 7)])
def test_targets_are_different_and_can_be_reached(tokens: int, vocab: int, prompts: int) -> None:
    task = token_tasks.target_sum(tokens, vocab=vocab, prompts=prompts)
    assert len(set(task.prompts)) == prompts and (uniform(task).V[:prompts] > 0).all()


@pytest.mark.parametrize("thoughts", [0, 1, 2])
def test_all_pairs_and_thoughts(thoughts: int) -> None:
    task = token_tasks.modular(5, prompts=25, thoughts=thoughts)
    assert len(set(task.prompts)) == 25 and task.length == thoughts + 1
    np.testing.assert_allclose(uniform(task).V[:25], 1 / 5, rtol=1e-13)


@pytest.mark.parametrize("n", [2, 4, 10])
def test_balanced_answers_are_counted_by_catalan(n: int) -> None:
    assert token_tasks.brackets(n).tree.reward.sum() == comb(n, n // 2) / (n // 2 + 1)


@pytest.mark.parametrize(("bits", "length"), [(1, 2), (2, 3), (4, 5)])
def test_parities_of_all_strings(bits: int, length: int) -> None:
    task = token_tasks.parity(bits, length=length)
    assert len(set(task.prompts)) == 2**bits
    np.testing.assert_allclose(uniform(task).V[: task.K], (1 - (2 / 3) ** (length - 1)) / 3, rtol=1e-13)


@pytest.mark.parametrize(("m", "prompts"), [(3, 9), (5, 75), (7, 8)])
def test_steps_pay_for_the_sum_and_for_the_product(m: int, prompts: int) -> None:
    task = token_tasks.two_step(m, prompts=prompts)
    assert len(set(task.prompts)) == prompts and task.tree.step_end.all()
    wrong_sum_right_product = 0
    for k, text in enumerate(task.prompts):
        inner = text[1 : text.index(")")].split(" + ")
        first = sum(map(int, inner)) % m
        for a, b in product(range(m), repeat=2):
            row = task.tree.start[1] + k * m + a
            right = JUDGES["two-step"](text, [str(a), str(b)])
            assert task.tree.step_reward[k, a] == (a == first)
            assert task.tree.step_reward[row, b] == task.tree.reward[row, b] == right
            wrong_sum_right_product += int(a != first and right)
        assert task.best(k)[0][0] == first
    assert wrong_sum_right_product == prompts * (m - 1)


@pytest.mark.parametrize(("base", "n", "how_many"), [(2, 1, 2), (16, 2, 256), (7, 3, 100), (10, 12, 9)])
def test_spread_out_sequences_differ(base: int, n: int, how_many: int) -> None:
    found = spread(base, n, how_many)
    assert found.shape == (how_many, n) and len({tuple(row) for row in found.tolist()}) == how_many
    assert found.min() >= 0 and found.max() < base


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("cop", {}, "name is 'cop'; the name of a task is expected; did you mean copy?"),
        ("two_step", {}, "did you mean two-step?"),
        ("copy", {"tokens": 0}, "tokens is 0; a whole number of at least 1 is expected"),
        ("copy", {"tokens": 2.5}, "tokens is 2.5; a whole number"),
        ("reverse", {"vocab": 1}, "vocab is 1; a whole number of at least 2"),
        ("sum", {"prompts": 27}, "prompts is 27; a whole number of at least 1 and at most 26"),
        ("modular", {"prompts": 50}, "prompts is 50; a whole number of at least 1 and at most 49"),
        ("modular", {"thoughts": -1}, "thoughts is -1"),
        ("brackets", {"tokens": 7}, "tokens is 7; an even number of brackets is expected"),
        ("parity", {"length": 1}, "length is 1; a whole number of at least 2"),
        ("two-step", {"m": 2}, "m is 2; a whole number of at least 3"),
        ("bandit", {"rewards": []}, r"rewards has shape \(0,\); one number for each token is expected"),
        ("bandit", {"rewards": [1, np.nan]}, r"rewards\[1\] is nan; a finite number is expected"),
    ],
)
def test_wrong_sizes(name: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make(name, **keywords)


def test_the_other_worlds_do_not_load_token_tasks() -> None:
    program = "import tabrl.envs, sys; print(any('token' in name for name in sys.modules if name.startswith('tabrl')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
