"""What the figures show: marks, numbers, curves; and that they can be read."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.quiver import Quiver

from tabrl import dp, envs, plots
from tabrl.errors import ShapeError
from tabrl.plots import grid as plot_grid
from tabrl.trace import column
from tabrl.types import Sweep


@pytest.fixture
def ax() -> Axes:
    return plots.new_figure(5, 5).add_subplot()


def texts(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.texts]


def heads(ax: Axes) -> int:
    return sum(len(np.asarray(c.get_offsets())) for c in ax.collections if isinstance(c, PathCollection))


def test_no_window_toolkit_is_imported() -> None:
    code = "import sys, tabrl.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_grid_shows_every_value_once_and_no_number_on_goals(ax: Axes) -> None:
    world = envs.grid4x4()
    plots.grid_values(ax, world, np.arange(16.0))
    assert sorted(texts(ax), key=float) == [str(s) for s in range(1, 15)]


def test_grid_draws_an_arrow_for_every_positive_probability(ax: Axes) -> None:
    world = envs.grid4x4()
    pi = np.zeros((16, 4))
    pi[1], pi[5, :2] = 0.25, 0.5
    pi[0] = 0.25  # terminal: no arrow
    plots.grid_values(ax, world, np.zeros(16), pi)
    assert heads(ax) == 4 + 2


def test_arrow_heads_point_and_sit_in_the_direction_of_the_move(ax: Axes) -> None:
    world = envs.grid4x4()
    for a, (down, right) in enumerate(world.moves.tolist()):
        pi = np.zeros((16, 4))
        pi[5, a] = 1.0
        ax.clear()
        plots.grid_values(ax, world, np.zeros(16), pi)
        (head,) = (c for c in ax.collections if isinstance(c, PathCollection))
        x, y = np.asarray(head.get_offsets())[0]
        assert np.sign([y - 1, x - 1]).tolist() == [down, right]
        tip = np.asarray(head.get_paths()[0].vertices)[0]  # first corner of the triangle, y upward
        assert np.round(2 * tip, 9).tolist() == [right, -down]


def test_large_grid_has_whole_arrows_and_no_numbers(ax: Axes) -> None:
    world = envs.slippery_grid(20)
    pi = np.zeros((400, 4))
    pi[:, 1] = 1
    plots.grid_values(ax, world, np.arange(400.0), pi)
    (arrows,) = (c for c in ax.collections if isinstance(c, Quiver))
    assert texts(ax) == [] and arrows.N == 399


def test_walls_goals_traps_and_starts_differ_in_colour_and_form(ax: Axes) -> None:
    world = envs.grid("S.#G .X..", gamma=0.9)
    plots.grid_values(ax, world, np.zeros(world.S))
    patches = {
        (round(p.get_x() + p.get_width() / 2), round(p.get_y() + p.get_height() / 2)): p
        for p in ax.patches
        if isinstance(p, Rectangle)
    }
    assert {k: p.get_facecolor()[:3] for k, p in patches.items() if p.get_fill()} == {
        (2, 0): to_rgb(plot_grid.WALL),
        (3, 0): to_rgb(plot_grid.GOAL),
        (1, 1): to_rgb(plot_grid.TRAP),
    }
    assert patches[0, 0].get_edgecolor()[:3] == to_rgb(plot_grid.START)
    assert sorted(str(line.get_marker()) for line in ax.lines) == ["D", "x"]


def luminance(colour: str) -> float:
    rgb = np.asarray(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_ink_is_legible_on_every_colour_of_the_map() -> None:
    import matplotlib as mpl

    for colour in mpl.colormaps[plot_grid.MAP](np.linspace(0, 1, 256)):
        assert contrast(plot_grid.legible(colour), tuple(colour[:3])) > 3.9  # type: ignore[arg-type]


def test_kinds_of_cells_differ_without_colour_vision() -> None:
    kinds = [plot_grid.WALL, plot_grid.GOAL, plot_grid.TRAP, plot_grid.START]
    assert min(contrast(a, plot_grid.MARK) for a in kinds[:3]) > 2.9


def test_grid_refuses_other_shapes(ax: Axes) -> None:
    with pytest.raises(ShapeError, match=r"pi has shape \(16, 3\); \(16, 4\) is expected"):
        plots.grid_values(ax, envs.grid4x4(), np.zeros(16), np.ones((16, 3)))
    with pytest.raises(ShapeError, match=r"x has shape \(3,\)"):
        plots.grid_values(ax, envs.grid4x4(), np.zeros(3))


@pytest.mark.parametrize("V", [np.zeros(16), np.full(16, 1e300), np.full(16, -1e-300), np.linspace(0, 1e-12, 16)])
def test_grid_draws_constant_tiny_and_huge_values(V: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    figure = plots.new_figure(3, 3)
    plots.grid_values(figure.add_subplot(), envs.grid4x4(), V)
    assert plots.image(figure, dpi=40)[:4] == b"\x89PNG"


def test_convergence_draws_the_three_curves_and_the_rate(ax: Axes) -> None:
    mdp = envs.grid5x5()
    sweeps = list(dp.value_iteration(mdp))
    V = dp.solve(mdp).V
    plots.convergence(ax, sweeps, V, mdp.gamma)
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}
    assert np.array_equal(drawn["certified bound"], column(sweeps, "bound"))
    assert np.array_equal(drawn["residual"], column(sweeps, "residual"))
    assert np.array_equal(drawn["true error"], [abs(x.V - V).max() for x in sweeps])
    rate = drawn[r"$\gamma^k\,\max|V^*|$"]
    assert (drawn["true error"][: len(rate) - 1] <= rate[1 : len(sweeps) + 1] + dp.solve(mdp).bound).all()
    assert ax.get_yscale() == "log"


def test_convergence_marks_zeros_and_says_that_nothing_is_certified(ax: Axes) -> None:
    sweeps = [Sweep(1, np.ones(1), 1.0, np.inf), Sweep(2, np.full(1, 2.0), 0.0, np.inf)]
    plots.convergence(ax, sweeps, np.array([2.0]))
    assert "certified bound: none known" in [line.get_label() for line in ax.lines]
    zeros = [line for line in ax.lines if line.get_marker() == "v"]
    assert [np.asarray(line.get_xdata()).tolist() for line in zeros] == [[2.0], [2.0]]
    assert {float(np.asarray(line.get_ydata())[0]) for line in zeros} == {ax.get_ylim()[0]}
    plots.image(ax.get_figure(), dpi=40)  # type: ignore[arg-type]


def test_methods_are_told_apart_by_colour_and_dash(ax: Axes) -> None:
    curves = {name: plots.Curve(*np.ones((4, 3))) for name in dp.METHODS}
    plots.methods(ax, curves)
    styles = {(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in ax.lines}
    assert len(styles) == len(curves)


def test_bars_name_states_and_group_by_action(ax: Axes) -> None:
    pi = np.array([[1, 0], [1, 1], [0, 1]])
    plots.value_bars(ax, np.array([1.0, -2.0, 3.0]), ["a", "b", "c"], pi=pi, actions=["left", "right"])
    legend = ax.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["left", "any", "right"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    assert texts(ax) == ["1", "−2", "3"]


def test_gambler_shows_all_ties(ax: Axes) -> None:
    optimal = np.zeros((5, 3), np.bool_)
    optimal[1, 1], optimal[2, 1:], optimal[3, 1] = True, True, True
    plots.policy_steps(ax, optimal)
    assert np.asarray(ax.collections[0].get_offsets()).tolist() == [[1, 1], [2, 1], [2, 2], [3, 1]]
    assert np.asarray(ax.lines[0].get_ydata()).tolist() == [1, 1, 1]


def test_value_curve_shows_the_chosen_sweeps_and_the_last(ax: Axes) -> None:
    plots.value_curve(ax, dp.value_iteration(envs.gambler(goal=10)), shown=(1, 3))
    labels = [str(line.get_label()) for line in ax.lines]
    assert labels[:2] == ["sweep 1", "sweep 3"] and labels[2].endswith("(final)")


def test_contour_labels_every_region_inside_itself(ax: Axes) -> None:
    decision = np.zeros((7, 9), np.int64)
    decision[:3, :4], decision[5:, 6:], decision[6, 0] = 2, -1, 2
    plots.policy_contour(ax, decision)
    found = [(t.get_text(), int(t.get_position()[0]), int(t.get_position()[1])) for t in ax.texts]
    assert sorted(text for text, _, _ in found) == ["+2", "+2", "0", "−1"]
    assert all(decision[y, x] == int(text.replace("−", "-")) for text, x, y in found)


def test_borders_lie_between_cells_that_differ(ax: Axes) -> None:
    plots.borders(ax, np.array([[0, 1], [0, 0]]))
    segments = {tuple(map(tuple, s.tolist())) for s in ax.collections[0].get_segments()}  # type: ignore[attr-defined]
    assert segments == {((0.5, -0.5), (0.5, 0.5)), ((0.5, 0.5), (1.5, 0.5))}


def test_table_writes_no_negative_zero(ax: Axes) -> None:
    plots.table(ax, np.array([[-0.001, 0.52]]), ["r"], ["a", "b"], spec="z.2f")
    assert texts(ax) == ["0.00", "0.52"]


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_same_figure_same_bytes(kind: str, magic: bytes) -> None:
    figures = [plots.new_figure(2, 2), plots.new_figure(2, 2)]
    for figure in figures:
        plots.value_bars(figure.add_subplot(), np.array([1.0, 2.0]))
    first, second = (plots.image(figure, kind=kind, dpi=50) for figure in figures)
    assert first.startswith(magic)
    assert kind == "svg" or first == second  # ids in svg are salted
