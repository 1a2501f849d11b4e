"""Correction 2: direction, factor and rule of the KL penalty; judged by optimality, differences, loops, samples."""

from collections.abc import Callable

import numpy as np
import pytest
from paths import agree

from tabrl import dp, losses
from tabrl.gradient import exact
from tabrl.lessons import correction_2 as lesson
from tabrl.types import F

Q, A = lesson.OLD, np.array([1.0, 0.5, 0.0]) - lesson.OLD @ np.array([1.0, 0.5, 0.0])


def trial(seed: int) -> tuple[F, F, float]:
    rng = np.random.default_rng([21, seed])
    return rng.dirichlet(np.ones(4)), rng.normal(size=4), float(10 ** rng.uniform(-2, 1.5))


def divergence(p: F, q: F) -> float:
    return sum(float(x * np.log(x / y)) for x, y in zip(p, q, strict=True) if x > 0)


def softmax(theta: F) -> F:
    weight = np.exp(theta - theta.max())
    return np.asarray(weight / weight.sum())


@pytest.mark.parametrize("seed", range(30))
def test_both_optima_beat_their_neighbours(seed: int) -> None:
    """Concave objectives: the derivative p dL/dp is the same for all actions, and 200 other policies are worse."""
    q, adv, beta = trial(seed)
    rng = np.random.default_rng([22, seed])
    covers, seeks = lesson.covering(q, adv, beta), lesson.seeking(q, adv, beta)
    assert covers.sum() == pytest.approx(1, abs=1e-14)
    assert np.ptp(adv + beta * q / covers) < 1e-9 * (1 + beta)
    used = seeks > 1e-280
    assert np.ptp((adv - beta * np.log(np.maximum(seeks, 1e-300) / q))[used]) < 1e-9 * (1 + beta)
    top = covers @ adv - beta * divergence(q, covers), seeks @ adv - beta * divergence(seeks, q)
    for p in rng.dirichlet(np.ones(4), 200):
        assert p @ adv - beta * divergence(q, p) <= top[0] + 1e-12
        assert p @ adv - beta * divergence(p, q) <= top[1] + 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_limits_of_the_optima(seed: int) -> None:
    q, adv, _ = trial(seed)
    for best in (lesson.covering, lesson.seeking):
        assert best(q, adv, 1e7) == pytest.approx(q, abs=1e-6)
        assert best(q, adv, 1e-5)[adv.argmax()] > 0.99 or q[adv.argmax()] < 1e-3
        assert best(q, adv + 3.0, 0.7) == pytest.approx(best(q, adv, 0.7), abs=1e-12)
        assert best(np.tile(q, (2, 1)), np.tile(adv, (2, 1)), 0.7)[1] == pytest.approx(best(q, adv, 0.7), abs=1e-14)


def test_covering_and_seeking() -> None:
    """Halving beta halves the worst action's share in one direction, and squares its odds in the other."""
    for beta in (1e-3, 1e-4):
        share = [lesson.covering(Q, A, x)[2] for x in (beta, beta / 2)]
        assert share[0] / share[1] == pytest.approx(2, rel=2e-2)
    for beta in (0.1, 0.2):
        odds = [lesson.seeking(Q, A, x) for x in (beta, beta / 2)]
        ratios = [p[2] / p[0] / (Q[2] / Q[0]) for p in odds]
        assert ratios[1] == pytest.approx(ratios[0] ** 2, rel=1e-10)


def test_an_action_that_was_never_taken_stays_out() -> None:
    p = lesson.covering(np.array([0.0, 0.5, 0.5]), np.array([9.0, 1.0, 0.0]), 0.5)
    assert p[0] == 0
    assert p[1:] == pytest.approx(lesson.covering(np.array([0.5, 0.5]), np.array([1.0, 0.0]), 0.5), abs=1e-14)


@pytest.mark.parametrize("seed", range(20))
def test_losses_of_both_directions_have_the_right_mean_gradients(seed: int) -> None:
    q, adv, beta = trial(seed)
    theta = np.random.default_rng([23, seed]).normal(size=4)
    objectives: tuple[tuple[lesson.Derivative, Callable[[F], float]], ...] = (
        (lesson.d_paper, lambda p: float(p @ adv) - beta * divergence(q, p)),
        (lesson.d_reversed, lambda p: float(p @ adv) - beta * divergence(p, q)),
    )
    for d, L in objectives:
        p = softmax(theta)
        g = -q * d(np.log(p), np.log(q), adv, beta)
        got, h = g - p * g.sum(), 1e-5
        want = [(L(softmax(theta + h * e)) - L(softmax(theta - h * e))) / (2 * h) for e in np.eye(4)]
        assert got == pytest.approx(want, abs=1e-7 * (1 + beta))


@pytest.mark.parametrize("seed", range(20))
def test_the_gradient_with_the_factor(seed: int) -> None:
    q, adv, beta = trial(seed)
    theta = np.random.default_rng([24, seed]).normal(size=4)

    def L(x: F) -> float:
        p = softmax(x)
        return float(p @ adv - beta * divergence(p, q) * (q @ np.log(p)))

    assert lesson.multiplied(softmax(theta), q, adv, beta) == pytest.approx(L(theta), rel=1e-12)
    h = 1e-5
    want = [(L(theta + h * e) - L(theta - h * e)) / (2 * h) for e in np.eye(4)]
    assert lesson.d_multiplied(softmax(theta), q, adv, beta) == pytest.approx(want, abs=1e-6 * (1 + beta))


def test_with_the_factor_staying_is_the_worst() -> None:
    rng = np.random.default_rng(25)
    for p in rng.dirichlet(np.ones(3), 300):
        assert lesson.multiplied(p, Q, np.zeros(3), 1.0) > 0
    assert lesson.multiplied(Q, Q, np.zeros(3), 1.0) == 0
    nearly = np.array([1 - 2e-9, 1e-9, 1e-9])
    assert lesson.multiplied(nearly, Q, A, 0.5) > lesson.multiplied(np.array([0.98, 0.01, 0.01]), Q, A, 0.5) > 1


def test_ascent_finds_the_optimum_with_the_paper_and_none_with_the_factor() -> None:
    beta, p = 0.5, lesson.covering(Q, A, 0.5)
    right = lesson.climb(lambda x: x * A - x * (x @ A) - beta * (x - Q), 3000)
    wrong = lesson.climb(lambda x: lesson.d_multiplied(x, Q, A, beta), 1000)
    free = lesson.climb(lambda x: x * (A - x @ A), 1000)
    assert right[-1] == pytest.approx(divergence(Q, p), rel=1e-6)
    assert (np.diff(wrong) > 0).all()
    assert (wrong[5:] > free[5:]).all()
    assert wrong[-1] > 50 * right[-1]


def test_near_by_both_directions_are_half_the_variance() -> None:
    for x in (1e-2, 1e-3):
        p = softmax(np.log(Q) + x * A)
        half = x**2 / 2 * (Q @ A**2)
        assert [divergence(Q, p) / half, divergence(p, Q) / half] == pytest.approx([1, 1], abs=x)
    far = softmax(np.log(Q) + 60 * A)
    assert divergence(far, Q) == pytest.approx(-np.log(Q[0]), rel=1e-6)
    assert divergence(Q, far) > 20


def test_sampled_gradients_have_the_exact_mean() -> None:
    """20,000 batches at the optimum of each direction, where the mean is 0 after the baseline; |z| <= 6.8."""
    rng = np.random.default_rng(26)
    share = rng.multinomial(lesson.BATCH, Q, 20_000) / lesson.BATCH
    for d, best in ((lesson.d_paper, lesson.covering), (lesson.d_reversed, lesson.seeking)):
        p = best(Q, A, 0.3)
        g = -share * d(np.log(p), np.log(Q), A, 0.3)
        agree(g - p * g.sum(axis=1, keepdims=True), 0.0)
        with pytest.raises(AssertionError, match="z = "):
            agree(g - Q * g.sum(axis=1, keepdims=True), 0.0)


def test_what_is_learnt_is_near_the_optimum() -> None:
    """40 runs: within 4.5 standard errors and 2 % of the optimum (a constant step leaves a bias of its order)."""
    rng = np.random.default_rng(27)
    for d, best in ((lesson.d_paper, lesson.covering), (lesson.d_reversed, lesson.seeking)):
        p, exact_p = lesson.learnt(d, 0.3, 40, rng), best(Q, A, 0.3)
        assert (abs(p.mean(axis=0) - exact_p) < 4.5 * p.std(axis=0) / np.sqrt(40) + 0.02 * exact_p).all()


@pytest.mark.parametrize("adaptive", [True, False])
def test_updates_by_a_literal_loop(adaptive: bool) -> None:
    mdp, pi, beta = lesson.lake(1.0), np.full((16, 4), 0.25), 1.0
    x = lesson.ppo_kl(mdp, 1.0, 12, adaptive=adaptive)
    for k in range(12):
        now = exact(mdp, pi)
        new, total, weight = pi.copy(), 0.0, 0.0
        for s in np.flatnonzero(~mdp.terminal):
            new[s] = lesson.covering(pi[s], now.advantage[s], beta)
            total += now.d[s] * divergence(pi[s], new[s])
            weight += now.d[s]
        assert x.beta[k] == beta
        assert x.kl[k] == pytest.approx(total / weight, rel=1e-9)
        assert x.J[k] == pytest.approx(now.J, rel=1e-12)
        if adaptive and total / weight < lesson.TARGET / 1.5:
            beta /= 2
        elif adaptive and total / weight > lesson.TARGET * 1.5:
            beta *= 2
        pi = new


def test_adaptive_keeps_the_target_for_rewards_of_any_size_and_fixed_does_not() -> None:
    best = float(dp.solve(lesson.lake(1.0)).V[0])
    for scale in (0.01, *lesson.SCALES):
        x = lesson.ppo_kl(lesson.lake(scale), 1.0, 60, adaptive=True)
        start = int(np.argmax((x.kl > lesson.TARGET / 1.5) & (x.kl < lesson.TARGET * 1.5)))
        learning = slice(start, int(np.argmax(0.98 * best * scale < x.J)))
        assert learning.stop - learning.start >= 10
        assert (x.kl[learning] > lesson.TARGET / 4).all()
        assert (x.kl[learning] < lesson.TARGET * 4).all()
        assert x.J[-1] > 0.99 * best * scale
    small, large = (lesson.ppo_kl(lesson.lake(scale), 1.0, 10, adaptive=False) for scale in lesson.SCALES)
    assert (small.kl < lesson.TARGET / 20).all()
    assert large.kl[0] > 10 * lesson.TARGET
    assert losses.adaptive_beta(1.0, lesson.TARGET, lesson.TARGET) == 1.0


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=3)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert text.count("    beta = ") == 2 * len(lesson.BETAS)
    assert text.count("rewards x") == 4
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    assert len(fig.axes) == 6
    assert [len(ax.get_lines()) for ax in fig.axes[3:]] == [5, 4, 5]
