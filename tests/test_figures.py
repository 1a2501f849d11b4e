"""The book's learning curves: against a literal loop, and against the numbers it prints."""

from itertools import islice

import numpy as np

from tabrl import chain, envs, plots, sample
from tabrl.figures import n_step_surface
from tabrl.plot_learning import error_curves
from tabrl.prediction import n_step_td
from tabrl.trace import last


def test_surface_is_the_learner_run_by_run() -> None:
    walk = envs.random_walk_19()
    pi = np.ones((walk.S, 1))
    exact = chain.evaluate(chain.induce(walk, pi))
    surface = n_step_surface(
        walk, pi, np.random.default_rng(0), n=(1, 4), alpha=np.array([0.2, 0.5]), runs=3, episodes=4
    )
    streams = [sample.episodes(walk, pi, own) for own in np.random.default_rng(0).spawn(3)]
    drawn = [list(islice(stream, 4)) for stream in streams]
    for i, n in enumerate((1, 4)):
        for j, alpha in enumerate((0.2, 0.5)):
            for run in range(3):
                V, errors = np.zeros(walk.S), []
                for one in drawn[run]:
                    V = last(n_step_td([one], alpha=alpha, V=V, n=n)).V
                    errors.append(np.sqrt(((V - exact)[~walk.terminal] ** 2).mean()))
                assert abs(np.mean(errors) - surface.rms[i, j, run]) < 1e-12


def test_random_walk_minimum_is_at_four_steps() -> None:
    """Figure 7.2: the smallest error, about .27, is reached by n = 4; |z| < 5 for the printed value's half digit."""
    walk = envs.random_walk_19()
    surface = n_step_surface(walk, np.ones((walk.S, 1)), np.random.default_rng(1))
    mean = surface.rms.mean(axis=2)
    best = mean.min(axis=1)
    i = int(np.nanargmin(best))
    assert surface.n[i] == 4
    j = int(mean[i].argmin())
    error = surface.rms[i, j].std() / np.sqrt(surface.rms.shape[2])
    assert abs(best[i] - 0.27) < 0.005 + 5 * error
    assert np.allclose(mean[:, 0], mean[0, 0])  # alpha = 0 learns nothing


def test_curves_that_leave_the_picture_are_marked() -> None:
    x = np.array([0.0, 0.5, 1.0])
    tame = np.array([[1.0, 1.2], [0.5, 0.7], [0.6, 0.8]])
    wild = np.array([[1.0, 1.2], [0.9, 1.1], [np.inf, 50.0]])
    ax = plots.new_figure().add_subplot()
    error_curves(ax, x, [tame, wild], ["tame", "wild"], xlabel="alpha", top=2.0)
    assert ax.get_legend_handles_labels()[1] == ["tame", "wild"]
    drawn = {line.get_label(): line for line in ax.lines}
    assert np.allclose(np.asarray(drawn["tame"].get_ydata(), float), [1.1, 0.6, 0.7])
    marks = [np.asarray(line.get_xdata(), float).tolist() for line in ax.lines if line.get_marker() == "^"]
    assert marks == [[], [0.5]]
