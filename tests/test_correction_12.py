"""Correction 12: ratios and credit of tokens; judged by differences, closed forms, sums over answers and samples."""

import numpy as np
import pytest
from paths import agree

from tabrl.decisions import cosine
from tabrl.lessons import correction_12 as lesson
from tabrl.lessons._answers import every, objective, of_tokens, push
from tabrl.tokens.draws import Groups
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.table import TableLM
from tabrl.types import F

CREDITS = (None, 0.0, 0.5, 0.8, 1.0)


@pytest.mark.parametrize("n", lesson.LENGTHS)
def test_ratio_variances_by_listing_answers(n: int) -> None:
    bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    rho = np.where(bits == 1, lesson.OPEN, 1 - lesson.OPEN) / 0.5
    for of, ratio in (("token", rho[:, 0]), ("answer", rho.prod(axis=1))):
        assert ratio.mean() == pytest.approx(1, abs=1e-12)
        assert lesson.ratio_variance(n, of) == pytest.approx(ratio.var(), rel=1e-12)
    assert lesson.ratio_variance(n, "answer") == pytest.approx(1.25**n - 1, rel=1e-12)


def test_sampled_ratio_variances() -> None:
    """Means of 200 sample variances, |z| <= 6.8, for lengths where the tail is short."""
    found = lesson.sampled_ratios(4, 200, np.random.default_rng(12))
    for of, y in found.items():
        agree(y, np.array(lesson.ratio_variance(4, of)))


def written(z: F, name: str) -> float:
    """The mean of a reading of the objective at logits z, for the batch that the policy draws, literally."""
    (task, pi), x, value = lesson.ragged(), every(lesson.ragged()[0]), 0.0
    new, at = np.exp(log_softmax(z)), evaluate(task.tree, np.log(pi))
    for i in range(len(x.prompt)):
        T = int(x.length[i])
        rows, tokens = x.row[i, :T], x.tokens[i, :T]
        rho = new[rows, tokens] / pi[rows, tokens]
        terms = rho * (at.Q[rows, tokens] - at.V[rows])
        inner = {
            "sum over tokens": terms.sum(),
            "mean over tokens": terms.mean(),
            "last token": terms[-1],
            "whole answer": rho.prod() * (x.reward[i] - at.V[x.prompt[i]]),
        }[name]
        value += pi[rows, tokens].prod() / 2 * float(inner)
    return value


@pytest.mark.parametrize("name", lesson.READINGS)
def test_readings_by_differences(name: str) -> None:
    (task, pi), g, rng = lesson.ragged(), lesson.reading(name), np.random.default_rng(13)
    for _ in range(4):
        u, h = rng.normal(size=pi.shape), 1e-6
        want = (written(np.log(pi) + h * u, name) - written(np.log(pi) - h * u, name)) / (2 * h)
        assert (g * u).sum() == pytest.approx(want, abs=1e-9)
    exactly = evaluate(task.tree, np.log(pi)).slope
    if name in ("sum over tokens", "whole answer"):
        assert g == pytest.approx(exactly, abs=1e-14)
    else:
        assert cosine(g, exactly) < 0.96


@pytest.mark.parametrize("lam", CREDITS)
def test_every_credit_has_the_gradient_in_the_mean(lam: float | None) -> None:
    x, q, V, A = lesson.listed()
    pi = np.full((lesson.task().N, 2), 0.5)
    g = push(pi, x, q[:, None] * lesson.credits_of(x, V, lam))
    assert g == pytest.approx(evaluate(lesson.task().tree, np.log(pi)).slope, abs=1e-14)
    if lam == 0:
        assert lesson.credits_of(x, V, lam) == pytest.approx(A, abs=1e-14)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.8, 0.95, 1.0])
def test_noise_is_a_sum_of_later_squares(lam: float) -> None:
    """TD errors of an exact critic are uncorrelated: sum over u > t of lam^(2 (u-t)) E delta_u^2."""
    s = lesson.signal()
    want = [sum(lam ** (2 * (u - t)) * s[u] for u in range(t + 1, 8)) for t in range(8)]
    assert lesson.noise(lam) == pytest.approx(want, abs=1e-14)


def test_noise_of_the_outcome_in_closed_form() -> None:
    """Its square is p (1-p) at every token, and is signal and noise and what the prefix has told: V(h) - V(q)."""
    x, q, V, _ = lesson.listed()
    p = 14 / 256
    told = q @ (V[x.row] - V[0]) ** 2
    assert lesson.noise(None) + lesson.signal() == pytest.approx(np.full(8, p * (1 - p)), abs=1e-14)
    assert lesson.noise(None) == pytest.approx(lesson.noise(1.0) + told, abs=1e-14)


@pytest.mark.parametrize("lam", CREDITS)
def test_gradient_variance_by_all_answers(lam: float | None) -> None:
    x, q, V, _ = lesson.listed()
    pi = np.full((lesson.task().N, 2), 0.5)
    exactly = evaluate(lesson.task().tree, np.log(pi)).slope
    A, total = lesson.credits_of(x, V, lam), 0.0
    for i in range(len(q)):
        g = np.zeros_like(pi)
        for t in range(8):
            g[x.row[i, t]] += A[i, t] * (np.eye(2)[x.tokens[i, t]] - 0.5)
        total += q[i] * ((g - exactly) ** 2).sum()
    assert lesson.gradient_variance(lam) == pytest.approx(total / (exactly**2).sum(), rel=1e-10)


def test_the_order_of_the_variances() -> None:
    y = [lesson.gradient_variance(lam) for lam in (*lesson.LAMBDAS, None)]
    assert (np.diff(y) > 0).all()


def test_the_example_is_lost_at_its_third_token() -> None:
    x, _, V, A = lesson.listed()
    i = int((x.tokens == lesson.example()).all(axis=1).argmax())
    assert (V[x.row[i, 3:]] == 0).all()
    assert A[i, 2] == -V[x.row[i, 2]] < 0
    assert (A[i, 3:] == 0).all()
    assert x.reward[i] == 0


def test_sampled_noise_has_the_exact_mean() -> None:
    """20,000 answers, three credits at eight tokens: |z| <= 6.8."""
    x, q, V, A = lesson.listed()
    at = np.random.default_rng(14).choice(len(q), 20_000, p=q)
    for lam in (None, 0.8, 1.0):
        agree(((lesson.credits_of(x, V, lam) - A) ** 2)[at], lesson.noise(lam))


@pytest.mark.parametrize("lam", [None, 0.0, 0.8])
def test_learning_by_a_literal_loop(lam: float | None) -> None:
    J = lesson.learnt(lam, 3, 4)
    rng, z = np.random.default_rng([lesson.SEED, 3]), np.zeros((lesson.task().N, 2))
    for k in range(4):
        model = TableLM(lesson.task(), z)
        x = Groups(8)(model, rng).x
        pi = np.exp(log_softmax(z))
        V = evaluate(lesson.task().tree, np.log(pi)).V
        g = np.zeros_like(z)
        for i in range(8):
            v = [*V[x.row[i]], 0.0]
            r = [0.0] * 7 + [x.reward[i]]
            for t in range(8):
                deltas = [lam ** (u - t) * (r[u] + v[u + 1] - v[u]) for u in range(t, 8)] if lam is not None else []
                A = x.reward[i] - V[0] if lam is None else sum(deltas)
                g[x.row[i, t]] += A * (np.eye(2)[x.tokens[i, t]] - pi[x.row[i, t]]) / 64
        z = z + lesson.STEP * g
        assert J[k] == pytest.approx(objective(lesson.task(), log_softmax(z)), abs=1e-12)


def test_the_ascent_is_in_the_length_of_the_mean_step() -> None:
    """From the uniform policy: the mean first step of the learner is STEP / 8 times the gradient."""
    x, pi = every(lesson.task()), np.full((lesson.task().N, 2), 0.5)
    q = of_tokens(pi, x).prod(axis=1)
    V = evaluate(lesson.task().tree, np.log(pi)).V
    mean = push(pi, x, q[:, None] * lesson.credits_of(x, V, None) / 8)
    assert lesson.ascent(1)[0] == pytest.approx(objective(lesson.task(), log_softmax(lesson.STEP * mean)), abs=1e-13)


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=2, updates=5)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert "sum over tokens: cosine with the gradient of J at ratio 1 1.000000" in text
    assert text.count("gradient variance") == 1 + len(lesson.LAMBDAS)
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    assert len(fig.axes) == 6
    assert len(fig.axes[0].containers) == 2
    assert len(fig.axes[3].containers) == 3
