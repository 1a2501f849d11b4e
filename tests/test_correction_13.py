"""Correction 13: ratios and KLs of tokens, updates on one batch; judged by differences of what is written, samples."""

from functools import partial
from itertools import product
from math import comb

import numpy as np
import pytest
from paths import agree

from tabrl.advantages import group_advantages
from tabrl.decisions import cosine
from tabrl.lessons import correction_13 as lesson
from tabrl.lessons._answers import every, objective
from tabrl.losses import d_ppo_clip
from tabrl.tokens.counts import Estimator
from tabrl.tokens.draws import Groups
from tabrl.tokens.groups import expected_surrogate_gradient
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.table import TableLM
from tabrl.types import F

RATIOS, G = ("token", "answer"), lesson.G


def literally(logp: F, ratio: str, high: float) -> float:
    """GRPO's objective in the mean over prompts, answers and the number of right ones beside, as it is written."""
    x, task, value = every(lesson.task()), lesson.task(), 0.0
    p = evaluate(task.tree, lesson.old()).V[: task.K]
    for prompt, tokens, rows, mask, reward in zip(x.prompt, x.tokens, x.row, x.mask, x.reward, strict=True):
        T = int(mask.sum())
        before = np.array([lesson.old()[rows[t], tokens[t]] for t in range(T)])
        now = np.array([logp[rows[t], tokens[t]] for t in range(T)])
        rho = np.exp(now - before) if ratio == "token" else np.full(T, np.exp((now - before).sum()))
        for k in range(G):
            r = np.array([reward] + [1.0] * k + [0.0] * (G - 1 - k))
            A = 0.0 if r.std() == 0 else (r[0] - r.mean()) / r.std()
            chance = comb(G - 1, k) * p[prompt] ** k * (1 - p[prompt]) ** (G - 1 - k)
            low = max(1 - high, 0.0)
            inner = np.minimum(rho * A, np.clip(rho, low, 1 + high) * A).mean()
            value += 0.5 * np.exp(before.sum()) * chance * float(inner)
    return value


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("high", [0.2, np.inf])
def test_mean_gradients_by_differences(ratio: str, high: float) -> None:
    """Along 4 random directions, at a policy that is not within 1e-4 of a kink."""
    rng, logp, h = np.random.default_rng(13), lesson.moved(1.3), 1e-6
    assert (abs(abs(np.exp(lesson.log_rho(logp, ratio)) - 1) - 0.2) > 1e-4).all()
    g = lesson.surrogate(logp, ratio, high)
    for _ in range(4):
        u = rng.normal(size=logp.shape)
        up, down = (literally(log_softmax(logp + sign * h * u), ratio, high) for sign in (1, -1))
        assert (g * u).sum() == pytest.approx((up - down) / (2 * h), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("x", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("high", [0.2, np.inf])
def test_token_ratios_as_the_package_has_them(x: float, high: float) -> None:
    rule, d_loss = Estimator(G, std="population", eps=0.0), partial(d_ppo_clip, low=min(high, 1.0), high=high)
    want = expected_surrogate_gradient(lesson.task().tree, lesson.moved(x), lesson.old(), rule, d_loss=d_loss)
    assert lesson.surrogate(lesson.moved(x), "token", high) == pytest.approx(want, abs=1e-13)


@pytest.mark.parametrize("ratio", RATIOS)
def test_with_one_update_the_clip_does_nothing(ratio: str) -> None:
    g = [lesson.surrogate(lesson.old(), ratio, high) for high in (1e-9, 0.2, np.inf)]
    assert np.array_equal(g[0], g[1])
    assert np.array_equal(g[1], g[2])
    assert lesson.stopped(lesson.old(), ratio) == 0
    paths = [lesson.squeezed(high, 2, ratio) for high in (0.02, np.inf)]
    assert np.array_equal(paths[0][1], paths[1][1])
    assert abs(paths[0][2] - paths[1][2]).max() > 1e-3


@pytest.mark.parametrize("x", [0.0, 1.0, 4.0])
def test_without_a_clip_the_ratio_of_the_answer_is_the_exact_weight(x: float) -> None:
    """Per prompt it is w(p_old) times the gradient there, however far the policy is."""
    tree, logp = lesson.task().tree, lesson.moved(x)
    g, exactly = lesson.surrogate(logp, "answer", np.inf), evaluate(tree, logp).slope
    for k in (0, 1):
        own = np.zeros(tree.N, bool)
        for t in range(tree.L):
            tree.level(own, t).reshape(2, -1)[k] = True
        assert cosine(g[own], exactly[own]) == pytest.approx(1, abs=1e-12)
    assert cosine(lesson.surrogate(lesson.moved(4.0), "token", np.inf), evaluate(tree, lesson.moved(4.0)).slope) < 0.8


def test_stopped_tokens_by_counting() -> None:
    """20,000 groups of each prompt: means over groups of tokens stopped, and of tokens; |z| <= 6.8."""
    x, rng = every(lesson.task()), np.random.default_rng(14)
    logp = lesson.moved(2.0)
    q = np.exp(lesson.old())[x.row, x.tokens]
    chance = np.where(x.mask != 0, q, 1.0).prod(axis=1)
    for ratio in RATIOS:
        rho = np.exp(lesson.log_rho(logp, ratio))
        stopped, tokens = [], []
        for k in (0, 1):
            of = np.flatnonzero(x.prompt == k)
            i = of[rng.choice(len(of), (20_000, G), p=chance[of] / chance[of].sum())]
            A = group_advantages(x.reward[i].ravel(), np.repeat(np.arange(20_000), G)).reshape(i.shape)[..., None]
            at = ((A > 0) & (rho[i] > 1.2)) | ((A < 0) & (rho[i] < 0.8))
            stopped.append((at & (x.mask[i] != 0)).sum(axis=(1, 2)))
            tokens.append(x.length[i].sum(axis=1))
        share = lesson.stopped(logp, ratio)
        agree((stopped[0] + stopped[1]) - share * (tokens[0] + tokens[1]), np.array(0.0))


def test_a_batch_by_a_literal_loop() -> None:
    """Three updates with the clip on one batch, tokens one by one."""
    J = lesson.on_one_batch(0.2, 3, np.random.default_rng(15))
    model = TableLM(lesson.task(), lesson.old())
    x = Groups(G)(model, np.random.default_rng(15)).x
    z = lesson.old().copy()
    for k in range(4):
        logp = log_softmax(z)
        assert J[k] == pytest.approx(objective(lesson.task(), logp), abs=1e-12)
        g = np.zeros_like(z)
        for i, t in product(range(len(x.reward)), range(5)):
            r = x.reward[x.group == x.group[i]]
            A = 0.0 if r.std() == 0 else (x.reward[i] - r.mean()) / r.std()
            h, a = x.row[i, t], x.tokens[i, t]
            rho = np.exp(logp[h, a] - lesson.old()[h, a])
            if x.mask[i, t] and not (A > 0 and rho > 1.2) and not (A < 0 and rho < 0.8):
                g[h] += rho * A * (np.eye(3)[a] - np.exp(logp[h])) / x.length[i] / len(x.reward)
        z = z + lesson.STEP * g


def test_the_clip_keeps_the_policy_near() -> None:
    near, far = (lesson.distance(lesson.squeezed(high, 30)[-1]) for high in lesson.CLIPS.values())
    assert near < 0.1 < 1 < far
    assert lesson.distance(lesson.old()) == 0


@pytest.mark.parametrize("n", lesson.LENGTHS)
def test_moments_of_the_estimates_in_closed_form(n: int) -> None:
    """Tokens are independent: sums have n times the moments of one; E[(ref/pi)^2] of the answer is (4/3)^n."""
    pi, x = np.array([0.75, 0.25]), np.log(0.5 / np.array([0.75, 0.25]))
    kl = -pi @ x
    one = {"sum of tokens’ k1": -x, "sum of tokens’ k3": np.exp(x) - 1 - x}
    for name, y in one.items():
        assert lesson.moments(name, n) == pytest.approx((n * kl, n * (pi @ y**2 - (pi @ y) ** 2)), rel=1e-12)
    mean, variance = lesson.moments("k3 of the answer", n)
    k = np.arange(n + 1)  # open brackets
    chance = np.array([comb(n, i) * 0.75**i * 0.25 ** (n - i) for i in k])
    ratio = np.log(0.5**n / (0.75**k * 0.25 ** (n - k)))
    y = np.exp(ratio) - 1 - ratio
    assert (mean, variance) == pytest.approx((n * kl, chance @ y**2 - (chance @ y) ** 2), rel=1e-11)
    assert chance @ np.exp(2 * ratio) == pytest.approx((4 / 3) ** n, rel=1e-12)


def test_sampled_estimates_have_the_exact_mean() -> None:
    rng = np.random.default_rng(16)
    q, logp, ref = lesson.answers(6)
    at = rng.choice(len(q), 50_000, p=q / q.sum())
    for name, estimate in lesson.ESTIMATORS.items():
        agree(estimate(logp[at], ref[at]), np.array(lesson.moments(name, 6)[0]))


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=3, updates=4)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert "x = 0, ratio of the token, clip .2: cosine 0.9623; 0.0000 of the tokens stopped" in text
    assert text.count("0.1308 a token") == 3 * len(lesson.LENGTHS)
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    assert [len(ax.get_lines()) >= n for ax, n in zip(fig.axes, (4, 4, 2, 2, 2, 3), strict=True)] == [True] * 6
    assert len(fig.axes[5].containers) == 3
