"""Correction 1: the factor log pi; judged by differences of the written objectives, closed forms and samples."""

import numpy as np
import pytest
from derivatives import central
from paths import agree

from tabrl import losses
from tabrl.gradient import policy_gradient
from tabrl.lessons import correction_1 as lesson
from tabrl.types import F

R = np.array([1.0, 0.5, 0.0])


def random_pair(seed: int) -> tuple[F, F]:
    rng = np.random.default_rng([11, seed])
    return tuple(rng.dirichlet(np.full(3, 2.0), 2))


def written(theta: F, pi_old: F, *, factor: bool) -> float:
    """The objective as it is written, literally."""
    pi = np.exp(theta) / np.exp(theta).sum()
    A, rho = R - pi_old @ R, pi / pi_old
    inner = np.minimum(rho * A, np.clip(rho, 0.8, 1.2) * A)
    return float((pi_old * inner * (np.log(pi) if factor else 1.0)).sum())


@pytest.mark.parametrize("seed", range(30))
def test_directions_are_gradients_of_what_is_written(seed: int) -> None:
    """By central differences; a random ratio is not within 1e-5 of a kink."""
    pi, pi_old = random_pair(seed)
    assert (abs(abs(pi / pi_old - 1) - 0.2) > 1e-5).all()
    for rule, factor in ((lesson.right, False), (lesson.wrong, True)):
        got, h = lesson.direction(rule, pi, pi_old, pi_old), 1e-6
        want = [
            (written(np.log(pi) + h * e, pi_old, factor=factor) - written(np.log(pi) - h * e, pi_old, factor=factor))
            / (2 * h)
            for e in np.eye(3)
        ]
        assert got == pytest.approx(want, abs=1e-8)


@pytest.mark.parametrize("seed", range(20))
def test_at_ratio_one(seed: int) -> None:
    """Right and stop-gradient: grad J. Wrong: the sum over a of pi A (1 + log pi) (e_a - pi), literally."""
    pi, _ = random_pair(seed)
    exact = policy_gradient(lesson.world(), np.array([np.log(pi), np.zeros(3)]))[0]
    for rule in (lesson.right, lesson.charitable):
        assert lesson.direction(rule, pi, pi, pi) == pytest.approx(exact, abs=1e-15)
    A = R - pi @ R
    want = sum(pi[a] * A[a] * (1 + np.log(pi[a])) * (np.eye(3)[a] - pi) for a in range(3))
    assert lesson.direction(lesson.wrong, pi, pi, pi) == pytest.approx(want, abs=1e-14)


def test_the_sign_turns_at_1_over_e() -> None:
    p = np.exp(-1) * np.array([1 - 1e-9, 1.0, 1 + 1e-9])
    push = -lesson.wrong(np.log(p), np.log(p), np.ones(3))
    assert push[0] < 0 < push[2]
    assert abs(push[1]) < 1e-15


def test_the_right_ascent_reaches_the_best_arm() -> None:
    J = lesson.ascend(lesson.right, lesson.START, 3000) @ R
    assert (np.diff(J) > 0).all()
    assert J[-1] > 0.999


def test_the_wrong_ascent_ends_in_the_trap() -> None:
    """J = .3586: the root solves the equation, and the ascent tends to it like 1/k from above."""
    path, end = lesson.ascend(lesson.wrong, lesson.START, 4000), lesson.trap()
    p = end[1]
    assert abs(1 + (1 - p) * np.log(p) + p * np.log(1 - p)) < 1e-14
    A = R - end @ R
    assert A[1] * (1 + np.log(p)) == pytest.approx(A[2] * (1 + np.log(1 - p)), abs=1e-14)
    gap = abs(path[[1000, 2000, 4000]] - end).max(axis=1)
    assert gap[1:] / gap[:-1] == pytest.approx([0.5, 0.5], abs=0.03)
    assert path[-1] @ R == pytest.approx(end @ R, abs=2e-4)
    assert end @ R == pytest.approx(0.359, abs=5e-4)
    assert (np.diff(path[:, 0]) < 0).all()


def test_the_other_end_is_a_stable_balance() -> None:
    p = lesson.balance()
    push = (R - p @ R) * (1 + np.log(p))
    assert np.ptp(push) < 1e-13
    assert lesson.ascend(lesson.wrong, lesson.from_best(0.5), 3000)[-1] == pytest.approx(p, abs=1e-10)


def test_from_no_start_does_the_wrong_ascent_reach_1() -> None:
    """Not even from next to the best arm: 200 starts end at one of three ends, and the third is the worst arm."""
    rng = np.random.default_rng(12)
    starts = np.vstack([rng.dirichlet(np.ones(3), 200) * 0.99 + 0.01 / 3, [[0.9998, 1e-4, 1e-4]]])
    J = lesson.ascend(lesson.wrong, starts, 3000)[-1] @ R
    ends = np.array([0.0, lesson.trap() @ R, lesson.balance() @ R])
    near = abs(J[:, None] - ends) < 1e-3
    assert near.any(axis=1).mean() > 0.97  # some start near an edge, and are still on their way
    assert near.sum(axis=0).min() > 10
    assert J.max() < 0.653
    assert J[-1] == pytest.approx(ends[2], abs=1e-3)
    right = lesson.ascend(lesson.right, starts, 3000) @ R
    assert (np.diff(right, axis=0) > 0).all()
    assert (right[-1] > 0.99).mean() > 0.97  # a softmax is slow where the best arm has hardly a chance


def test_the_threshold() -> None:
    p = lesson.threshold()
    final = lesson.ascend(lesson.wrong, np.array([lesson.from_best(x) for x in (p - 1e-3, p + 1e-3)]), 4000)[-1]
    assert final[0, 0] < 1e-3
    assert final[1, 0] == pytest.approx(lesson.balance()[0], abs=1e-3)


def test_wrong_is_the_charitable_reading_and_more() -> None:
    logp, old, A = np.log([0.2, 0.5, 0.3]), np.log([0.25, 0.3, 0.45]), np.array([1.0, -2.0, 0.5])
    literal = central(lambda x: losses.ppo_clip(x, old, A) * x, logp)
    assert lesson.wrong(logp, old, A) == pytest.approx(literal, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_the_charitable_reading_is_cispo_for_good_actions(seed: int) -> None:
    """A >= 0: CISPO with no lower bound. A < 0: the minimum bounds from below, CISPO from above."""
    rng = np.random.default_rng([13, seed])
    (logp, old), A = np.log(rng.random((2, 50))), rng.normal(size=50)
    ours, good = lesson.charitable(logp, old, A), A >= 0
    rho = np.exp(logp - old)
    cispo = -np.minimum(rho, 1.2) * A  # MiniMax (2025): -stop(clip(rho, 1 - low, 1 + high)) A log pi, low = 1
    assert ours[good] == pytest.approx(cispo[good], rel=1e-12)
    assert ours[~good] == pytest.approx((-np.maximum(rho, 0.8) * A)[~good], rel=1e-12)
    beyond = good & (rho > 1.2)
    assert not lesson.right(logp, old, A)[beyond].any()
    assert ours[beyond] == pytest.approx(-1.2 * A[beyond], rel=1e-12)


def test_sampled_directions_have_the_exact_mean() -> None:
    """20,000 batches, at ratio 1 and away from it, |z| <= 6.8 (see `paths`)."""
    rng = np.random.default_rng(14)
    pi, pi_old = random_pair(3)
    for rule in lesson.RULES.values():
        for now in (pi_old, pi):
            weight = rng.multinomial(lesson.BATCH, np.tile(pi_old, (20_000, 1))) / lesson.BATCH
            agree(lesson.direction(rule, now, pi_old, weight), lesson.direction(rule, now, pi_old, pi_old))


def test_a_sampled_run_by_a_literal_loop() -> None:
    path = lesson.ascend(lesson.wrong, lesson.START, 30, epochs=2, rng=np.random.default_rng(15))
    rng, theta = np.random.default_rng(15), np.log(lesson.START)
    for k in range(30):
        old = np.exp(theta) / np.exp(theta).sum()
        share = rng.multinomial(lesson.BATCH, old) / lesson.BATCH
        A = R - old @ R
        for _ in range(2):
            pi = np.exp(theta) / np.exp(theta).sum()
            step = np.zeros(3)
            for a in range(3):
                rho = pi[a] / old[a]
                stopped = (A[a] > 0 and rho > 1.2) or (A[a] < 0 and rho < 0.8)
                value = min(rho * A[a], min(max(rho, 0.8), 1.2) * A[a])
                step += share[a] * ((0.0 if stopped else rho * A[a]) * np.log(pi[a]) + value) * (np.eye(3)[a] - pi)
            theta = theta + lesson.ETA * step
        assert path[k + 1] == pytest.approx(np.exp(theta) / np.exp(theta).sum(), abs=1e-12)


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=5, updates=300)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert "J = 0.358626" in text
    assert "J = 0.651698" in text
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    assert len(fig.axes) == 6
    levels = sorted(float(np.asarray(x.get_ydata())[0]) for x in fig.axes[1].get_lines() if x.get_linestyle() == "--")
    assert levels == pytest.approx([lesson.trap() @ R, 1.0])
