"""Figures of runs: what is drawn is what was given."""

import matplotlib.collections
import numpy as np
import pytest

from tabrl.plots import image, new_figure
from tabrl.plots import runs as plot_runs


def labels(ax: object) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[attr-defined]


def test_the_mean_the_interval_and_the_exact_curve_are_drawn() -> None:
    rng = np.random.default_rng(0)
    t, y = np.arange(1.0, 6.0), rng.random((5, 30)) + 1
    ax = new_figure().add_subplot()
    plot_runs.learning_curve(
        ax, t, y, ylabel="error", window=(0, 3), root=True, exact=np.full(5, 1.2), lines={"limit": 1.0}
    )
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines}
    assert np.allclose(drawn["mean over runs ± 2 s.e."], np.sqrt(y.mean(axis=1)))
    assert (drawn["exact expectation"] == 1.2).all() and (drawn["limit"] == 1.0).all()
    assert labels(ax) == ["mean over runs ± 2 s.e.", "exact expectation", "limit"]
    assert len(ax.lines) == 30 + 3  # every run is there
    fills = [x for x in ax.collections if isinstance(x, matplotlib.collections.FillBetweenPolyCollection)]
    half = 2 * y.std(axis=1, ddof=1) / np.sqrt(30)
    top = fills[0].get_paths()[0].vertices[:, 1].max()  # type: ignore[index, union-attr]
    assert top == pytest.approx(np.sqrt(y.mean(axis=1) + half).max())
    assert image(ax.figure, dpi=40)[:4] == b"\x89PNG"  # type: ignore[arg-type]


def test_runs_that_leave_are_marked_where_they_leave() -> None:
    y = np.ones((4, 5))
    y[2, 0], y[3, 1], y[1:, 2] = 9.0, np.nan, -np.inf
    ax = new_figure().add_subplot()
    plot_runs.learning_curve(ax, np.arange(4.0), y, ylabel="J", window=(0, 2))
    marks = {line.get_marker(): line for line in ax.lines if line.get_marker() in ("^", "v")}
    assert marks["^"].get_xydata().tolist() == [[2.0, 2.0]]  # type: ignore[union-attr]
    assert sorted(marks["v"].get_xydata().tolist()) == [[1.0, 0.0], [3.0, 0.0]]  # type: ignore[union-attr]
    assert labels(ax)[0] == "outside: 3 of 5 runs, 2 at the end"
    mean = next(line for line in ax.lines if line.get_label() == "mean over runs ± 2 s.e.")
    assert np.asarray(mean.get_ydata())[0] == 1 and not np.isfinite(np.asarray(mean.get_ydata())[3])


def test_a_band_of_one_run_has_no_width_and_never_goes_below_zero() -> None:
    one = plot_runs.band(np.array([[4.0], [9.0]]), root=True)
    assert one.mean.tolist() == one.low.tolist() == one.high.tolist() == [2.0, 3.0]
    assert plot_runs.band(np.array([[0.0, 1.0]]), root=True).low.tolist() == [0.0]


def test_samples_stand_on_their_exact_curves() -> None:
    rng = np.random.default_rng(1)
    estimates, exact = rng.normal(size=(3, 50, 2)), np.zeros((3, 2))
    ax = new_figure().add_subplot()
    plot_runs.against_exact(ax, np.arange(3), estimates, exact, ["a", "b"], xlabel="steps")
    assert labels(ax) == ["a", "b"] and len(ax.containers) == 2
    for k, bar in enumerate(ax.containers):
        assert np.allclose(bar.lines[0].get_ydata(), estimates[:, :, k].mean(axis=1))  # type: ignore[attr-defined]


def test_scores_keep_what_is_far_out_in_the_picture() -> None:
    z = np.array([[0.5, np.nan], [-9.0, 1.0]])
    ax = new_figure().add_subplot()
    plot_runs.scores(ax, np.arange(2), z, ["a", "b"], xlabel="steps")
    assert ax.get_ylim()[0] < -9 < 9 < ax.get_ylim()[1]


def test_many_quantities_are_thinned_evenly() -> None:
    assert plot_runs.spread(3) == [0, 1, 2] and plot_runs.spread(1) == [0]
    assert plot_runs.spread(100) == [0, 16, 33, 50, 66, 82, 99]
