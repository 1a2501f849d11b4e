"""Correction 8: every-visit averages are biased, first-visit averages are not; judged by geometric visits."""

import re
from typing import Any

import numpy as np
import pytest
from paths import agree

from tabrl.lessons import correction_8 as lesson
from tabrl.visits import every_visit_rate, first_visit

DRAWS = 100_000


def drawn(p: float, n: int, seed: int) -> dict[str, Any]:
    """Both estimates of the loop without the package: k visits, geometric, are followed by the returns k, …, 1."""
    k = np.random.default_rng([80, seed]).geometric(1 - p, (DRAWS, n)).astype(float)
    return {"first": k.mean(axis=1), "every": (k * (k + 1) / 2).sum(axis=1) / k.sum(axis=1)}


@pytest.mark.parametrize("n", [1, 2, 5, 20])
@pytest.mark.parametrize("p", [0.3, 0.75, 0.9])
def test_exact_errors_are_those_of_geometric_visits(p: float, n: int) -> None:
    """Means and mean-square errors at |z| <= 6.8 (see `paths`): 48 comparisons, false alarm below 1e-9."""
    mdp = lesson.world(p)
    V = lesson.value(mdp)
    assert pytest.approx(1 / (1 - p)) == V
    for visit, estimates in drawn(p, n, round(100 * p) + n).items():
        (error,) = lesson.exact(mdp, visit, np.array([n]))
        agree(estimates, V + error.bias)
        agree((estimates - V) ** 2, error.mse)


def test_what_is_learnt_has_the_exact_errors() -> None:
    """The learner at |z| <= 6.8: 12 comparisons of 2,000 runs."""
    for x in lesson.experiment(n=np.array([1, 3, 8]), runs=2000, seed=81):
        for k, error in enumerate(x.exact):
            agree(x.V[:, k], 4 + error.bias)
            agree((x.V[:, k] - 4) ** 2, error.mse)


def test_the_bias_of_one_count_is_none_and_of_the_other_three_over_n_plus_one() -> None:
    n = np.arange(1, 200)
    first, every = (lesson.exact(lesson.world(), visit, n) for visit in lesson.VISITS)
    assert all(x.bias == 0 for x in first)
    assert np.allclose([x.bias for x in every], -3 / (n + 1), rtol=1e-7, atol=0)


def test_the_errors_cross_once() -> None:
    for p in (0.5, 0.75, 0.95):
        mdp = lesson.world(p)
        cross = lesson.crossing(mdp)
        ratio = lesson.ratio(mdp, np.arange(1, 200))
        assert (ratio[: cross - 1] < 1).all()
        assert (ratio[cross - 1 :] > 1).all()
        assert cross > 1
    with pytest.raises(ValueError, match="most is 4; more episodes are expected"):
        lesson.crossing(lesson.world(), most=4)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.75, 0.99])
def test_the_ratio_of_the_errors_tends_to_one_plus_p(p: float) -> None:
    mdp = lesson.world(p)
    rate = every_visit_rate(mdp, lesson.only(mdp), 0).mse / first_visit(mdp, lesson.only(mdp), 0, 1).mse
    assert rate == pytest.approx(1 + p, rel=1e-9)
    far, farther = 1 + p - lesson.ratio(mdp, np.array([1000, 2000]))
    assert 0 < farther < far < 0.01
    assert far / farther == pytest.approx(2, rel=0.02)  # what is missing shrinks like 1/n


def test_loops_that_change_no_return_bias_nothing() -> None:
    flat, discounted = lesson.unbiased_loops()
    assert abs(flat) < 1e-15
    assert discounted > 0.05


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=20)
    monkeypatch.setattr(lesson, "experiment", lambda *_: few)
    lesson.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [re.findall(r"-?\d+\.?\d*", line) for line in lines if line.startswith("n =")]
    assert [int(row[0]) for row in rows] == lesson.EPISODES.tolist()
    assert all(float(row[1]) == 4 for row in rows)
    assert all(float(row[5]) == pytest.approx(4 - 3 / (int(row[0]) + 1), abs=1e-4) for row in rows)
    assert "up to n = 4" in lines[-2]
    fig = new_figure(13, 4)
    lesson.figure(fig)
    fig.draw_without_rendering()
    mean, square, share = fig.axes
    lines_of = {str(x.get_label()): np.asarray(x.get_ydata()) for x in mean.get_lines()}
    assert np.allclose(lines_of["every visit, exact"], 4 - 3 / (lesson.EPISODES + 1))
    assert len(mean.containers) == len(square.containers) == 2
    assert len(share.get_legend_handles_labels()[1]) == 3
