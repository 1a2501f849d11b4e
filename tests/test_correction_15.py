"""Correction 15: flat groups, and the own reward in the group's mean; judged by listed groups and fractions."""

from fractions import Fraction
from itertools import product
from math import sqrt

import numpy as np
import pytest
from paths import agree

from tabrl.envs.token_tasks import bandit, parity, reverse
from tabrl.lessons import _answers
from tabrl.lessons import correction_15 as lesson
from tabrl.tokens import exact
from tabrl.tokens.methods import Outcome
from tabrl.tokens.recursion import log_softmax
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F


def listed(p: Fraction, G: int, *, leave_one_out: bool) -> list[tuple[Fraction, Fraction]]:
    """Probability of each group of right and wrong, and its estimate on a bandit, in fractions."""
    found = []
    for group in product((0, 1), repeat=G):
        chance, estimate = Fraction(1), Fraction(0)
        for i, r in enumerate(group):
            chance *= p if r else 1 - p
            others = [x for j, x in enumerate(group) if j != i or not leave_one_out]
            estimate += (r - Fraction(sum(others), len(others))) * ((1 - p) if r else -p) / G
        found.append((chance, estimate))
    return found


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("G", [2, 3, 5])
@pytest.mark.parametrize("p", [Fraction(1, 10), Fraction(1, 3), Fraction(1, 2), Fraction(9, 10)])
def test_means_and_errors_by_listing_all_groups(p: Fraction, G: int, leave_one_out: bool) -> None:
    groups = listed(p, G, leave_one_out=leave_one_out)
    mean = sum(chance * x for chance, x in groups)
    assert mean == p * (1 - p) * (1 if leave_one_out else Fraction(G - 1, G))
    at = np.array(float(p))
    got = lesson.factor(at, G, leave_one_out=leave_one_out)
    assert got == pytest.approx(float(mean / (p * (1 - p))), abs=1e-13)
    square = sum(chance * (x - p * (1 - p)) ** 2 for chance, x in groups)
    credit = Outcome("none", leave_one_out=leave_one_out)
    assert lesson.error(at, G, credit) == pytest.approx(sqrt(square) / float(p * (1 - p)), rel=1e-12)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5])
def test_the_exact_baseline_has_the_error_of_an_average(p: float) -> None:
    """(r - p) grad log pi: (1-p)^2 with probability p, p^2 else; n of them have 1/n of the variance, and no bias."""
    variance = p * (1 - p) ** 4 + (1 - p) * p**4 - (p * (1 - p)) ** 2
    for G in (2, 7):
        assert lesson.error(np.array(p), G, None) == pytest.approx(sqrt(variance / G) / (p * (1 - p)), abs=1e-12)


def test_leave_one_out_is_the_other_times_g_over_g_less_1() -> None:
    for G in (2, 5, 16):
        own, others = (lesson.of_counts(np.array(0.2), G, credit) for credit in lesson.CREDITS.values())
        assert others == pytest.approx(own * G / (G - 1), abs=1e-15)
        assert own[[0, -1]].tolist() == [0, 0]


@pytest.mark.parametrize("G", [2, 4, 8])
def test_flat_groups(G: int) -> None:
    p = Fraction(3, 10)
    flat = sum(p ** sum(g) * (1 - p) ** (G - sum(g)) for g in product((0, 1), repeat=G) if sum(g) in (0, G))
    assert lesson.flat_share(np.array(0.3), G) == pytest.approx(float(flat), abs=1e-15)


@pytest.mark.parametrize("G", [2, 6])
def test_sampled_estimates_have_the_exact_mean(G: int) -> None:
    """1,000 batches, of a task with three prompts of different p, |z| <= 6.8 (see `paths`)."""
    rng = np.random.default_rng([15, G])
    for credit in lesson.CREDITS.values():
        exactly = lesson.factor(np.array(0.3), G, leave_one_out=credit.leave_one_out)
        agree(lesson.estimates(G, credit, 1000, rng), exactly)


def test_nothing_moves_until_a_group_is_mixed() -> None:
    """Shares of 150 runs at p = .01, within 6.8 exact standard errors: 6 comparisons of shares between .07 and .93."""
    still = lesson.waiting(0.01, 150, np.random.default_rng(16))
    want = lesson.flat_share(np.array(0.01), 8) ** lesson.WAITS
    assert (abs(still.mean(axis=1) - want) <= 6.8 * np.sqrt(want * (1 - want) / 150)).all()
    assert (np.diff(still, axis=0) <= 0).all()


# ---- the parts that lessons share ----


@pytest.mark.parametrize("task", [parity(2, length=4), reverse(2, vocab=3, prompts=2), bandit()], ids=repr)
def test_every_answer_once(task: TokenTask) -> None:
    x = _answers.every(task)
    texts = [task.text(k, o[: int(n)]) for k, o, n in zip(x.prompt, x.tokens, x.length, strict=True)]
    assert len(set(texts)) == len(texts) == task.tree.ends.sum()
    pi = np.exp(log_softmax(np.random.default_rng(17).normal(size=(task.N, task.V))))
    q = _answers.of_tokens(pi, x).prod(axis=1)
    assert np.bincount(x.prompt, q) == pytest.approx(np.ones(task.K), abs=1e-12)
    for i in range(len(q)):
        assert task.tree.reward[x.row[i, int(x.length[i]) - 1], x.tokens[i, int(x.length[i]) - 1]] == x.reward[i]


@pytest.mark.parametrize("task", [parity(2, length=4), reverse(2, vocab=3, prompts=2), bandit()], ids=repr)
def test_the_push_of_all_answers_is_the_gradient(task: TokenTask) -> None:
    model = TableLM(task, np.random.default_rng(18).normal(size=task.N * task.V))
    x, pi = _answers.every(task), np.exp(log_softmax(model.table))
    q = _answers.of_tokens(pi, x).prod(axis=1) * task.weights[x.prompt]
    g = (q * x.reward)[:, None] * x.mask
    assert _answers.push(pi, x, g).ravel() == pytest.approx(exact.gradient(task, model), abs=1e-14)
    assert _answers.objective(task, np.log(pi)) == pytest.approx(q @ x.reward, abs=1e-14)


def test_mean_advantages_by_listing_groups() -> None:
    def settings(r: F) -> F:
        return np.asarray((r - r.mean()) ** 3)

    p, G = 0.3, 4
    A, want = _answers.beside(G, settings), np.zeros(2)
    for others in product((0, 1), repeat=G - 1):
        chance = p ** sum(others) * (1 - p) ** (G - 1 - sum(others))
        for own in (0, 1):
            want[own] += chance * settings(np.array([own, *others], float))[0]
    assert _answers.mean_advantages(np.array(p), A) == pytest.approx(want, abs=1e-15)


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=10)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert "mean of the group, G =  8: 0.8750 grad J exact" in text
    assert "mean of the others, G =  8: 1.0000 grad J exact" in text
    assert text.count("flat groups of 8") == len(lesson.CHANCES)
    fig = new_figure(11, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    share, size, _, wait = fig.axes
    own = {str(x.get_label()): np.asarray(x.get_ydata()) for x in size.get_lines()}["mean of the group, exact"]
    assert np.allclose(own, 1 - 1 / np.arange(2, 17))
    assert len(share.get_lines()) >= 4
    assert len(wait.containers) == len(lesson.STARTS)
