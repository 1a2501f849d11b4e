"""Token tasks as trees: against a literal recursion, the explicit model, complex steps, and sampled sequences."""

from typing import Any

import numpy as np
import pytest
from complex_step import H
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import agree

from tabrl import chain, dp, gradient
from tabrl.errors import ModelError, ShapeError
from tabrl.tokens.recursion import curvature, evaluate, log_softmax
from tabrl.tokens.rollout import sample
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask

WEIGHTS = (0.5, 0.2, 0.3)
SIZES = [(1, 3, 1, False), (3, 2, 3, False), (3, 3, 3, True), (1, 2, 4, True), (2, 4, 2, True), (3, 1, 3, False)]


def hashed(prompt: Any, tokens: Any) -> Any:
    """A reward without a pattern, of all tokens, their places and their number; the same bits for any batch."""
    code = prompt + 1
    for t in range(tokens.shape[1]):
        code = (31 * code + 7 * tokens[:, t] + 5) % 1009
    return code / 500 - 1


def patchy(prompt: Any, tokens: Any) -> Any:
    """A process reward for some prefixes."""
    return np.where(tokens.sum(axis=1) % 2 == 1, hashed(prompt + 1, tokens), np.nan)


def made(K: int, V: int, L: int, eos: bool, **more: Any) -> TokenTask:
    weights = np.array(WEIGHTS[:K]) / sum(WEIGHTS[:K])
    words, prompts = [f"w{i}" for i in range(V)], [f"prompt {k}" for k in range(K)]
    return TokenTask("made", words, prompts, L, more.pop("reward", hashed), eos=eos, weights=weights, **more)


tasks = pytest.mark.parametrize("task", [made(*size, steps=patchy) for size in SIZES], ids=repr)


def literal(task: TokenTask) -> list[tuple[int, tuple[int, ...]]]:
    """Every prompt with every prefix, in the order of the rows, one token at a time."""
    level: list[tuple[int, tuple[int, ...]]] = [(k, ()) for k in range(task.K)]
    found = []
    for _ in range(task.length):
        found += level
        level = [(k, (*w, a)) for k, w in level for a in range(task.V - task.eos)]
    return found


@tasks
def test_every_entry_by_a_literal_recursion(task: TokenTask) -> None:
    tree, rows = task.tree, literal(task)
    assert len(rows) == tree.N == task.N == tree.start[-1]
    for i, (k, w) in enumerate(rows):
        assert tree.start[len(w)] <= i < tree.start[len(w) + 1]
        for a in range(task.V):
            prompt, tokens = np.array([k]), np.array([[*w, a]])
            over = len(w) + 1 == task.length or (task.eos and a == task.V - 1)
            assert tree.ends[i, a] == over
            assert tree.reward[i, a] == (hashed(prompt, tokens)[0] if over else 0.0)
            step = patchy(prompt, tokens)[0]
            assert tree.step_end[i, a] == (step == step)
            assert tree.step_reward[i, a] == (step if step == step else 0.0)
            if not over:
                assert rows[tree.children(np.arange(tree.N), len(w))[i - tree.start[len(w)], a]] == (k, (*w, a))


@tasks
def test_verifiers_see_each_sequence_once_and_rewards_only_finished_ones(
    task: TokenTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabrl.tokens.tree.BLOCK", 5)  # several questions for one level
    asked: dict[str, list[Any]] = {"reward": [], "steps": []}

    def spy(name: str, f: Any) -> Any:
        def ask(prompt: Any, tokens: Any) -> Any:
            asked[name] += [(k, tuple(w)) for k, w in zip(prompt.tolist(), tokens.tolist(), strict=True)]
            return f(prompt, tokens)

        return ask

    again = made(task.K, task.V, task.length, task.eos, reward=spy("reward", hashed), steps=spy("steps", patchy))
    for x, y in zip(task.tree, again.tree, strict=True):
        np.testing.assert_array_equal(x, y)
    every = [(k, (*w, a)) for k, w in literal(task) for a in range(task.V)]
    finished = [(k, w) for k, w in every if len(w) == task.length or (task.eos and w[-1] == task.V - 1)]
    assert sorted(asked["reward"]) == sorted(finished) and sorted(asked["steps"]) == sorted(every)


def test_arrays_are_read_only() -> None:
    task = made(3, 3, 2, True, steps=patchy)
    for x in (*task.tree[5:], task.weights):
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 0
    assert task.tree is task.tree


# ---- the explicit model ----


def preferences(task: TokenTask, seed: int = 0) -> Any:
    return 2 * np.random.default_rng(seed).normal(size=(task.N, task.V))


def with_end(x: Any) -> Any:
    """Rows of the tree and one for the terminal state."""
    return np.concatenate([x, np.zeros((1, *x.shape[1:]))])


@tasks
def test_optimal_values_are_those_of_the_model(task: TokenTask) -> None:
    solution, tree = dp.solve(task.to_mdp()), task.tree
    V = np.zeros(tree.N)
    for i in reversed(range(tree.N)):
        t = int(np.searchsorted(tree.start, i, side="right")) - 1
        Q = tree.reward[i].copy()
        if t + 1 < tree.L:
            Q[: tree.C] += tree.children(V, t)[i - tree.start[t]]
        V[i] = Q.max()
    np.testing.assert_allclose(solution.V[:-1], V, rtol=0, atol=1e-12)
    assert solution.V[-1] == 0
    np.testing.assert_allclose([task.best(k)[1] for k in range(task.K)], V[: task.K], rtol=0, atol=0)


@tasks
def test_values_visits_gradient_and_curvature_are_those_of_the_model(task: TokenTask) -> None:
    mdp, theta, u = task.to_mdp(), preferences(task), preferences(task, 1)
    x = evaluate(task.tree, log_softmax(theta))
    pi = with_end(x.pi)
    pi[-1, 0] = 1.0
    process = chain.induce(mdp, pi)
    close: dict[str, Any] = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(x.V, chain.evaluate(process)[:-1], **close)
    np.testing.assert_allclose(x.d, chain.occupancy(process, mdp.mu)[:-1], **close)
    assert abs(x.J - gradient.objective(mdp, with_end(theta))) <= 1e-12
    np.testing.assert_allclose(x.slope, gradient.policy_gradient(mdp, with_end(theta))[:-1], **close)
    Hu = curvature(task.tree, log_softmax(theta), u)
    np.testing.assert_allclose(Hu, gradient.hessian_vector(mdp, with_end(theta), with_end(u))[:-1], **close)


@tasks
def test_gradient_and_curvature_by_complex_steps(task: TokenTask) -> None:
    theta, u = preferences(task), preferences(task, 1)
    x = evaluate(task.tree, log_softmax(theta))
    stepped = evaluate(task.tree, log_softmax(theta + 1j * H * u))
    assert (x.slope * u).sum() == pytest.approx(stepped.J.imag / H, abs=1e-13)
    Hu = curvature(task.tree, log_softmax(theta), u)
    np.testing.assert_allclose(Hu, stepped.slope.imag / H, rtol=0, atol=1e-13)


def test_process_rewards_join_the_model_on_request() -> None:
    task = made(2, 3, 3, True, steps=patchy)
    np.testing.assert_array_equal(task.to_mdp(process=True).R[:-1], task.tree.reward + task.tree.step_reward)
    np.testing.assert_array_equal(task.to_mdp().R[:-1], task.tree.reward)


# ---- sampled sequences ----


@tasks
def test_samples_by_a_literal_loop(task: TokenTask) -> None:
    policy, B = TableLM(task, preferences(task)), 40
    prompt, group = np.arange(B) % task.K, np.arange(B) // 4
    x = sample(policy, prompt, group, np.random.default_rng(5))
    u = policy.uniforms(np.random.default_rng(5), (task.length, B))
    rows = {prefix: i for i, prefix in enumerate(literal(task))}
    pi = np.exp(log_softmax(policy.table))
    for b in range(B):
        w: tuple[int, ...] = ()
        for t in range(task.length):
            row = rows[int(prompt[b]), w]
            below, a = 0.0, 0
            while a < task.V - 1 and u[t, b] >= below + pi[row, a]:
                below, a = below + pi[row, a], a + 1
            assert (x.row[b, t], x.tokens[b, t], x.mask[b, t]) == (row, a, 1.0)
            assert abs(x.logp[b, t] - np.log(pi[row, a])) <= 1e-12
            assert x.step_end[b, t] == task.tree.step_end[row, a]
            assert x.step_reward[b, t] == task.tree.step_reward[row, a]
            w = (*w, a)
            if task.eos and a == task.V - 1:
                break
        n, whole = len(w), np.array([w])
        assert x.length[b] == n and x.reward[b] == hashed(prompt[b : b + 1], whole)[0]
        for padded in (x.mask, x.tokens, x.logp, x.row, x.step_reward, x.step_end):
            assert (padded[b, n:] == 0).all()
        assert x.truncated[b] == (task.eos and w[-1] != task.V - 1)
    np.testing.assert_array_equal(x.prompt, prompt)
    np.testing.assert_array_equal(x.group, group)


@pytest.mark.parametrize("size", SIZES)
def test_mean_reward_length_and_truncated_share(size: Any) -> None:
    """z-tests at |z| <= 6.8 (see paths)."""
    task, n = made(*size), 40_000
    policy, rng = TableLM(task, preferences(task)), np.random.default_rng(0)
    prompt = rng.choice(task.K, n, p=task.weights)
    x = sample(policy, prompt, prompt, rng)
    tree, exact = task.tree, evaluate(task.tree, log_softmax(policy.table))
    cut = np.zeros((tree.N, tree.V))
    cut[tree.start[-2] :, : tree.C] = task.eos
    share = evaluate(tree, log_softmax(policy.table), cut).J
    agree(np.stack([x.reward, x.length, x.truncated], axis=1), np.array([exact.J, exact.d.sum(), share]))


# ---- text and errors ----


@given(st.lists(st.integers(0, 4), max_size=9))
@settings(max_examples=100, deadline=None)
def test_parse_reads_what_answer_writes(tokens: list[int]) -> None:
    task = made(1, 5, 3, True)
    assert task.parse(task.answer(tokens)) == tokens
    assert task.text(0, tokens) == f"prompt 0 | {task.answer(tokens)}"


def test_best_is_the_largest_reward_then_steps_then_the_shortest() -> None:
    def last(prompt: Any, tokens: Any) -> Any:
        return 1.0 * (tokens[:, -1] == 2) * (tokens.shape[1] > 1)

    assert made(1, 3, 3, True, reward=last).best(0) == ([0, 2], 1.0)
    assert made(1, 3, 3, True, reward=last, steps=lambda p, w: 1.0 * (w[:, -1] == 1)).best(0) == ([1, 1, 2], 1.0)
    assert made(1, 2, 1, False, reward=lambda p, w: -1.0 - w[:, 0]).best(0) == ([0], -1.0)


def test_a_page() -> None:
    lines = str(made(2, 3, 2, True)).splitlines()
    assert lines[0] == "TokenTask('made', K=2, V=3, length=2, EOS, 6 prefixes)"
    assert lines[1:3] == ["tokens: w0 w1 w2", "an answer ends with w2, at most 2 tokens"]
    task, uniform = made(2, 3, 2, True), np.full((6, 3), 1 / 3)
    exact = evaluate(task.tree, np.log(uniform)).V
    for k, line in enumerate(lines[5:7]):
        tokens, r = task.best(k)
        assert line.startswith(task.text(k, tokens)) and line.split()[-2:] == [f"{r:g}", f"{exact[k]:.4f}"]
    assert lines[7] == "weights of the prompts: 0.7143 0.2857"


def test_too_large_a_task_is_refused_before_anything_is_asked_or_laid_out() -> None:
    def never(prompt: Any, tokens: Any) -> Any:
        raise AssertionError("asked")

    for V, L, words in ((10, 9, "111111111 prefixes"), (10, 60_000, r"about 10\^59999 prefixes")):
        task = made(1, V, L, False, reward=never)
        with pytest.raises(
            ModelError, match=f"task 'made' has {words}, V = 10 and length {L}; at most 67108864 prefixes"
        ):
            _ = task.tree
        with pytest.raises(ModelError, match=f"has {words}; at most 20000 are expected for a model"):
            task.to_mdp()
        assert str(task).endswith("prompt 0")
    assert not made(1, 2, 10**6, True, reward=never).fits  # a long line
    with pytest.raises(ModelError, match="has 87381 prefixes; at most 20000"):
        made(1, 4, 9, False, reward=never).to_mdp()


@pytest.mark.parametrize(
    ("what", "f", "error", "message"),
    [
        ("reward", lambda p, w: np.where(w[:, 1] == 1, np.nan, 0), ModelError,
         r"reward\[prompt=0, tokens=\[0, 1\]\] is nan; a finite number is expected"),
        ("reward", lambda p, w: np.where(p == 1, -np.inf, 0), ModelError,
         r"reward\[prompt=1, tokens=\[0, 0\]\] is -inf; a finite number is expected"),
        ("steps", lambda p, w: np.where(w[:, -1] == 1, np.inf, np.nan), ModelError,
         r"steps\[prompt=0, tokens=\[1\]\] is inf; a finite number, or nan where no step ends, is expected"),
        ("reward", lambda p, w: 1.0, ShapeError,
         r"reward\(prompt \(8,\), tokens \(8, 2\)\) has shape \(\); \(8,\), one number for each sequence, is expected"),
        ("reward", lambda p, w: 1.0 * w, ShapeError, r"has shape \(8, 2\)"),
        ("steps", lambda p, w: ["yes"] * len(p), ModelError, r"steps\(prompt \(4,\), tokens \(4, 1\)\) has dtype <U3"),
    ],
)  # fmt: skip
def test_wrong_answers_of_verifiers(what: str, f: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = made(2, 2, 2, False, **{what: f}).tree


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": 5}, "vocab is 5; a sequence of texts is expected"),
        ({"vocab": "ab"}, "vocab is 'ab'"),
        ({"vocab": ["a", "b", "a"]}, r"vocab\[2\] is 'a', as vocab\[0\] is; different texts are expected"),
        ({"vocab": ["a", "b c"]}, r"vocab\[1\] is 'b c'; a word without spaces"),
        ({"vocab": ["a"], "eos": True}, "vocab has 1 entries; 2 or more are expected"),
        ({"prompts": []}, "prompts has 0 entries"),
        ({"length": 0}, "length is 0; a whole number >= 1"),
        ({"length": "3"}, "length is '3'"),
        ({"length": 1.5}, "length is 1.5"),
        ({"reward": 3}, r"reward is 3; a function of prompts \(n,\) and tokens \(n,T\) is expected"),
        ({"steps": 3}, "steps is 3; a function"),
        ({"weights": [0.4]}, "weights sums to 0.4"),
    ],
)
def test_wrong_tasks(change: dict[str, Any], message: str) -> None:
    right = {"vocab": ["a", "b"], "prompts": ["p"], "length": 2, "reward": hashed}
    with pytest.raises(ModelError, match=message):
        TokenTask("x", **{**right, **change})


def test_wrong_numbers_and_words() -> None:
    task = made(2, 3, 2, False)
    with pytest.raises(ModelError, match="prompt is 2; a number from 0 to 1 is expected"):
        task.text(2, [0])
    with pytest.raises(ModelError, match="prompt is -1"):
        task.best(-1)
    with pytest.raises(ModelError, match=r"tokens\[1\] is 3; a number from 0 to 2 is expected"):
        task.answer([0, 3])
    with pytest.raises(ModelError, match=r"text\[1\] is 'x'; a token is expected, one of w0 w1 w2"):
        task.parse("w0 x")
