"""The learning figures of Sutton & Barto, and figures of policy gradients, computed beside the exact values.

Each function computes the arrays of one figure from a random generator and sizes; `tabrl.figures.gallery` draws them
and lists them by name. V (runs,S) values of many independent runs; alpha step sizes; RMS root mean square error.
"""

from tabrl.figures.ascent import Climb, climb, eight_by_eight, grid_methods, lake_methods
from tabrl.figures.bias import LeftMoves, left_moves, maximisation_bias
from tabrl.figures.cliff import Lines, Performance, Returns, exploring_lines, online_returns, performance, smoothed
from tabrl.figures.control_runs import episode_lengths, episode_returns, first_episodes
from tabrl.figures.episode_moments import monte_carlo_episodes, td0_episodes
from tabrl.figures.estimators import Baselines, Gae, Parabola, baselines, gae, parabola
from tabrl.figures.maze import Lengths, expected_steps, step_counts
from tabrl.figures.random_walk import (
    BatchErrors,
    Errors,
    Estimates,
    batch_errors,
    td0_estimates,
    td_against_mc,
)
from tabrl.figures.simplex import ExactPaths, SampledPaths, bandit, exact_paths, sampled_paths
from tabrl.figures.surfaces import (
    FINE,
    LAMBDAS,
    POWERS,
    ExactErrors,
    Surface,
    error_surface,
    exact_errors,
    n_step_surface,
)

__all__ = [
    "FINE", "LAMBDAS", "POWERS", "Baselines", "BatchErrors", "Climb", "Errors", "Estimates", "ExactErrors",
    "ExactPaths", "Gae", "LeftMoves", "Lengths", "Lines", "Parabola", "Performance", "Returns", "SampledPaths",
    "Surface", "bandit", "baselines", "batch_errors", "climb", "eight_by_eight", "episode_lengths", "episode_returns",
    "error_surface", "exact_errors", "exact_paths", "expected_steps", "exploring_lines", "first_episodes", "gae",
    "grid_methods", "lake_methods", "left_moves", "maximisation_bias", "monte_carlo_episodes", "n_step_surface",
    "online_returns", "parabola", "performance", "sampled_paths", "smoothed", "step_counts", "td0_episodes",
    "td0_estimates", "td_against_mc",
]  # fmt: skip
