import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabrl import optimise
from tabrl.envs import token_tasks
from tabrl.errors import ModelError, ShapeError
from tabrl.losses import HOWS
from tabrl.tokens import bridge, draws, engines, methods
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import prefixes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "engines.md"
TASKS = [
    token_tasks.copy(vocab=5),
    token_tasks.reverse(vocab=3, prompts=6),
    token_tasks.target_sum(vocab=4, prompts=4),
    token_tasks.modular(3),
    token_tasks.brackets(4),
    token_tasks.parity(2, length=4),
    token_tasks.two_step(3, prompts=4),
    token_tasks.bandit((0.5, -2.0)),
]
NAMES: dict[str, Any] = {**vars(methods), **vars(draws), **vars(optimise), "TokenTask": TokenTask}


def finished(task: TokenTask) -> list[tuple[int, list[int], float]]:
    """Prompt, tokens and reward of every finished sequence, from the tree."""
    tree, found = task.tree, []
    for t in range(tree.L):
        prompt, tokens = prefixes(tree.K, tree.C, t)
        for i, a in np.argwhere(tree.level(tree.ends, t)):
            found.append((int(prompt[i]), [*tokens[i].tolist(), int(a)], float(tree.level(tree.reward, t)[i, a])))
    return found


def always(length: int, *, eos: bool) -> TokenTask:
    """A task in which every answer pays 1, so that 0 is paid to what is no answer alone."""
    return TokenTask(
        "always", ("a", "b", "<eos>"), ("go", "go on"), length, lambda prompt, tokens: np.ones(len(prompt)), eos
    )


def test_the_page_holds_the_present_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert bridge.renewed(text) == text, (
        'docs/engines.md is out of date; write it with: python -c "from pathlib import Path; from tabrl.tokens import '
        "bridge; p = Path('docs/engines.md'); p.write_text(bridge.renewed(p.read_text('utf-8')), 'utf-8')\""
    )
    assert all(f"| {row.what} |" in text for row in bridge.SETTINGS)
    for version in engines.READ.values():
        assert version in text.partition("<!-- settings -->")[0]


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="page has no <!-- settings -->"):
        bridge.renewed("<!-- end --> before <!-- settings -->\n")


def test_every_row_is_a_row() -> None:
    """Five cells of one line, no bar that would part a cell in two, and no row without a word of ours or theirs."""
    for line in bridge.table().splitlines():
        assert line.count("|") == 6, line
    assert len({row.what for row in bridge.SETTINGS}) == len(bridge.SETTINGS)
    for row in bridge.SETTINGS:
        assert {row.ours, row.trl, row.verl} != {engines.NONE}


@pytest.mark.parametrize("ours", [row.ours for row in bridge.SETTINGS])
def test_our_names_are_names_of_ours(ours: str) -> None:
    """Calls name a class or function and arguments that it has; keywords alone are fields of a Method."""
    if ours == engines.NONE or ours.startswith("("):
        return
    call = ast.parse(ours if ours.partition("=")[0].count("(") else f"Method({ours})", mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    parameters = inspect.signature(NAMES[call.func.id]).parameters
    assert len(call.args) <= len(parameters)
    for keyword in call.keywords:
        assert keyword.arg in parameters
        if keyword.arg == "how":
            assert isinstance(keyword.value, ast.Constant)
            assert keyword.value.value in HOWS


def test_keys_of_an_engine() -> None:
    trl = bridge.keys_of("trl")
    assert set(trl["scale_rewards"]) == {"group", "none", "batch"}
    assert trl["beta"] == ("0.04",)  # RLOOTrainer's is a remark
    assert not any(key.startswith("(") for key in trl)
    assert "algorithm.adv_estimator" in bridge.keys_of("verl")
    with pytest.raises(ValueError, match="engine is 'vllm'; one of trl, verl is expected"):
        bridge.keys_of("vllm")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_prompt_set_is_plain_and_complete(task: TokenTask) -> None:
    for chat in (False, True):
        rows = bridge.prompt_set(task, chat=chat)
        assert json.loads(json.dumps(rows)) == rows
        assert [bridge.content(row["prompt"]) for row in rows] == list(task.prompts)
        assert [row["reward_model"]["ground_truth"] for row in rows] == [str(k) for k in range(task.K)]
        assert [row["extra_info"]["index"] for row in rows] == list(range(task.K))
        assert all(set(row) == {"prompt", "data_source", "ability", "reward_model", "extra_info"} for row in rows)
    assert rows[0]["prompt"] == [{"role": "user", "content": task.prompts[0]}]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("dropped", ["", "<eos>"])
def test_rewards_of_texts_are_those_of_the_tree(task: TokenTask, dropped: str) -> None:
    """Every finished sequence, as TRL and as verl would ask for it; with EOS, and as a decoder that drops it."""
    prompts, texts, expected, number = [], [], [], []
    for k, tokens, r in finished(task):
        prompts.append(task.prompts[k])
        texts.append(task.answer(tokens).removesuffix(dropped))
        expected.append(r)
        number.append(str(k))
    reward = bridge.reward_function(task)
    assert reward(prompts=prompts, completions=texts, extra_info=[{}] * len(texts)) == expected
    messages = [[{"role": "system", "content": "s"}, {"role": "user", "content": prompt}] for prompt in prompts]
    assert reward(messages, [[{"role": "assistant", "content": text}] for text in texts]) == expected
    compute_score = bridge.verl_reward(task)
    for truth, text, r in list(zip(number, texts, expected, strict=True))[:: max(1, len(texts) // 100)]:
        assert compute_score("tabrl", text, truth, {"index": int(truth)}, reward_router_address=None) == r


@pytest.mark.parametrize(
    ("text", "without", "with_eos"),
    [
        ("a b", 1.0, 1.0),
        ("  b\n a ", 1.0, 1.0),
        ("", 0.0, 1.0),  # EOS alone, which the decoder dropped
        ("a", 0.0, 1.0),  # a and EOS
        ("<eos>", 0.0, 1.0),
        ("a <eos>", 1.0, 1.0),  # without EOS the third token is one like the others
        ("<eos> a", 1.0, 0.0),
        ("<eos> <eos>", 1.0, 0.0),
        ("a b a", 0.0, 0.0),
        ("a b <eos>", 0.0, 0.0),
        ("a c", 0.0, 0.0),
        ("c", 0.0, 0.0),
        ("ab", 0.0, 0.0),
        ("A b", 0.0, 0.0),
        ("a, b", 0.0, 0.0),
    ],
)
def test_what_is_no_answer_is_paid_nothing(text: str, without: float, with_eos: float) -> None:
    for eos, expected in ((False, without), (True, with_eos)):
        task = always(2, eos=eos)
        assert bridge.reward_function(task)(prompts=["go on"], completions=[text]) == [expected]
        assert bridge.verl_reward(task)("x", text, "1") == expected


def test_a_batch_may_mix_lengths_and_nonsense() -> None:
    def length(prompt: Any, tokens: Any) -> Any:
        return tokens.shape[1] + 10.0 * prompt

    task = TokenTask("long", ("a", "<eos>"), ("p", "q"), 3, length, eos=True)
    texts = ["a", "", "?", "a a a", "a <eos>", "a a"]
    rewards = bridge.reward_function(task)(prompts=["p", "q", "q", "q", "q", "p"], completions=texts)
    assert rewards == [2.0, 11.0, 0.0, 13.0, 12.0, 3.0]
    assert bridge.reward_function(task)(prompts=[], completions=[]) == []


def test_a_task_that_is_too_large_to_enumerate_is_handed_over() -> None:
    task = token_tasks.copy(12, vocab=26, prompts=3)
    with pytest.raises(ModelError, match=r"engine \(docs/engines\.md\)"):
        _ = task.tree
    words = [text.removeprefix("copy: ") for text in task.prompts]
    assert bridge.reward_function(task)(prompts=list(task.prompts), completions=words) == [1.0] * 3
    assert len(bridge.prompt_set(task)) == 3


ALWAYS = always(2, eos=False)


def wrong_shape(prompt: Any, tokens: Any) -> Any:
    return np.zeros(1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bridge.reward_function(ALWAYS)(["go", "?"], ["a b"] * 2), ModelError, r"prompts\[1\] is '\?'"),
        (lambda: bridge.reward_function(ALWAYS)(["go"], []), ShapeError, "completions has 0 entries; 1"),
        (lambda: bridge.verl_reward(ALWAYS)("x", "a b", "2"), ModelError, "ground_truth is '2'; the number"),
        (lambda: bridge.verl_reward(ALWAYS)("x", "a b", None), ModelError, "ground_truth is None"),
        (
            lambda: bridge.reward_function(TokenTask("w", ("a",), ("p",), 1, wrong_shape))(["p"] * 2, ["a"] * 2),
            ShapeError,
            "reward.* has shape",
        ),
    ],
)  # fmt: skip
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_bridge_works_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['trl'] = None\n"
        "from tabrl.envs import token_tasks; from tabrl.tokens import bridge\n"
        "task = token_tasks.copy(); rows = bridge.prompt_set(task)\n"
        "assert bridge.reward_function(task)([rows[0]['prompt']], ['j p']) == [1.0]\n"
        "assert bridge.verl_reward(task)('', 'j p', rows[0]['reward_model']['ground_truth']) == 1.0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
