"""Correction 11: return, state, gamma and end; judged by the model of the task, literal sums, fractions and samples."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from paths import agree

from tabrl import MDP, chain
from tabrl.gradient_moments import reinforce, whole_return
from tabrl.lessons import correction_11 as lesson
from tabrl.lessons._answers import every, of_tokens, push
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.types import F


def model() -> tuple[MDP, F]:
    """The task as an explicit model that pays its steps and not its outcome, and the policy (S,3) on it."""
    mdp, tree = lesson.steps().to_mdp(process=True), lesson.steps().tree
    R = np.vstack([tree.step_reward, np.zeros((1, 3))])
    assert np.array_equal(mdp.r[:-1], tree.reward + tree.step_reward)
    pi = np.vstack([np.exp(lesson.policy()), np.full((1, 3), 1 / 3)])
    return MDP(mdp.P, R, 1.0, mu=mdp.mu, terminal=mdp.terminal), pi


def test_values_are_those_of_the_model() -> None:
    """Value of every prefix by a linear solve."""
    V, _ = lesson.values(lesson.policy())
    assert chain.evaluate(chain.induce(*model()))[:-1] == pytest.approx(V, abs=1e-13)


def test_variances_are_those_of_the_model() -> None:
    """By the recursions of `gradient_moments` on the chain."""
    V = np.append(lesson.values(lesson.policy())[0], 0.0)
    found = [reinforce(*model(), V), reinforce(*model()), whole_return(*model())]
    want = [lesson.moments(name)[1] for name in lesson.WEIGHTS[:3]]
    assert [x.total for x in found] == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("prompt", [0, 1])
@pytest.mark.parametrize("tokens", list(product(range(3), repeat=2)))
def test_a_choice_by_hand(prompt: int, tokens: tuple[int, int]) -> None:
    first, second = lesson.choices(prompt, tokens)
    assert first.whole == second.whole == first.r + second.r
    assert (first.to_go, second.to_go) == (first.r + second.r, second.r)
    assert first.state == f"{lesson.steps().prompts[prompt]} |"
    assert second.state == f"{first.state} {first.token}"
    assert pytest.approx(first.r + second.V, abs=1e-14) == first.Q
    assert second.r == second.Q
    for x in (first, second):
        assert pytest.approx(x.Q - x.V) == x.A


@pytest.mark.parametrize("name", lesson.WEIGHTS)
def test_moments_by_listing_answers(name: str) -> None:
    x, pi, h = every(lesson.steps()), np.exp(lesson.policy()), lesson.values(lesson.policy())
    q = of_tokens(pi, x).prod(axis=1) / 2
    mean, variance = lesson.moments(name)
    total = np.zeros_like(pi)
    square = 0.0
    for i in range(len(q)):
        g = np.zeros_like(pi)
        for t in range(2):
            row, a = x.row[i, t], x.tokens[i, t]
            G = x.step_reward[i, t:].sum()
            w = {
                "to go less V(s)": G - h[0][row],
                "to go": G,
                "whole return": x.step_reward[i].sum(),
                lesson.WRONG_STATE: G - h[1][row, a],
            }[name]
            g[row] += w * (np.eye(3)[a] - pi[row])
        total += q[i] * g
        square += q[i] * (g**2).sum()
    assert mean == pytest.approx(total, abs=1e-15)
    assert variance == pytest.approx(square - (total**2).sum(), rel=1e-12)
    exactly = evaluate(lesson.steps().tree, lesson.policy(), lesson.steps().tree.step_reward).slope
    assert mean == pytest.approx(0 * exactly if name == lesson.WRONG_STATE else exactly, abs=1e-15)


def test_the_order_of_the_variances() -> None:
    y = [lesson.moments(name)[1] for name in lesson.WEIGHTS[:3]]
    assert y[0] < y[1] < y[2]


@pytest.mark.parametrize("name", lesson.WEIGHTS)
def test_sampled_updates_have_the_exact_mean(name: str) -> None:
    """20,000 answers, the push on each logit: |z| <= 6.8."""
    x, pi = every(lesson.steps()), np.exp(lesson.policy())
    q = of_tokens(pi, x).prod(axis=1) / 2
    w = lesson.weights(name, x, lesson.policy())
    g = np.array([push(pi, x, w * (np.arange(len(q)) == i)[:, None]).ravel() for i in range(len(q))])
    agree(g[np.random.default_rng(11).choice(len(q), 20_000, p=q)], lesson.moments(name)[0].ravel())


def test_with_the_token_in_the_state_nothing_is_learnt() -> None:
    """From .49 the right weight passes 1.2 in each of 5 runs; the wrong one goes nowhere: mean within 4.5 se + .1."""
    before = evaluate(lesson.steps().tree, lesson.policy(), lesson.steps().tree.step_reward).J
    right = [lesson.learnt(lesson.WEIGHTS[0], seed, 100) for seed in range(5)]
    wrong = np.array([lesson.learnt(lesson.WRONG_STATE, seed, 100) for seed in range(20)])
    assert min(right) > 1.2
    assert abs(wrong.mean() - before) < 4.5 * wrong.std() / np.sqrt(20) + 0.1


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.5])
def test_gamma_by_counting_right_answers(gamma: float) -> None:
    """(1/3)^T each; 2^(T-2) right answers of T tokens to each prompt."""
    want = sum(2 ** (T - 2) / 3**T * gamma ** (T - 1) for T in range(2, 7))
    J, _, drift = lesson.turned(gamma)
    assert pytest.approx(want, rel=1e-12) == J
    x = every(lesson.ragged())
    z, g = lesson.uniform(), evaluate(lesson.ragged().tree, lesson.uniform(), lesson.discounted(gamma)).slope
    g = g / np.linalg.norm(g)
    lengths = [of_tokens(np.exp(log_softmax(z + h * g)), x).prod(axis=1) @ x.length / 2 for h in (-1e-5, 1e-5)]
    assert drift == pytest.approx((lengths[1] - lengths[0]) / 2e-5, rel=1e-6)


def test_a_smaller_gamma_shortens() -> None:
    rows = np.array([lesson.turned(gamma) for gamma in (1.0, 0.95, 0.8, 0.5)])
    assert (np.diff(rows, axis=0) < 0).all()


def test_values_by_tokens_left_in_fractions() -> None:
    right, wrong = Fraction(1, 3), Fraction(0)
    rows = lesson.by_tokens_left()[::-1]
    for n, (left, V_right, V_wrong) in enumerate(rows):
        assert left == n + 1
        assert (V_right, V_wrong) == pytest.approx((float(right), float(wrong)), abs=1e-15)
        later = (right + wrong) / 3
        right, wrong = Fraction(1, 3) + later, later
    assert lesson.turned(1.0)[0] == pytest.approx(float(wrong), abs=1e-14)


def test_without_a_limit() -> None:
    """The limits of the values by tokens left: 1/3, 2/3, 1/3."""
    assert lesson.without_end() == pytest.approx((1 / 3, 2 / 3, 1 / 3), abs=1e-15)
    assert lesson.cut_share() == pytest.approx((2 / 3) ** 6, rel=1e-12)


def test_the_lesson_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson, "RUNS", 2)
    monkeypatch.setattr(lesson, "UPDATES", 3)
    lesson.main()
    text = capsys.readouterr().out
    assert "1.1713 - 1.1713 = 0" in text
    assert "were there no limit: 0.6667 | 0.3333, and J 0.3333 instead of 0.2894" in text
    assert text.count("total variance") == len(lesson.WEIGHTS)
