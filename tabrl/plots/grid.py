"""Pictures of values and policies on a grid, and of tables of decisions.

V (S,) values; pi (S,A) policy or mask of actions; x (rows, columns) one number per cell, nan where none is.
Functions draw on the axes they are given; colours are those of Okabe & Ito (2008), distinct under the
common colour blindnesses, and the map is cividis.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from tabrl.errors import ShapeError
from tabrl.types import B, F, I

if TYPE_CHECKING:
    from tabrl.envs.grid import GridWorld

MAP = "cividis"
WALL, GOAL, TRAP, START, MARK = "#40424a", "#009e73", "#d55e00", "#56b4e9", "#ffffff"
INK, PAPER = "#1a1a1a", "#ffffff"
TEXT_UP_TO = 150  # cells; larger grids have no numbers
COLUMNS = 15  # widest grid with numbers


def grid_values(ax: Axes, world: "GridWorld", V: F, pi: Any = None, *, text: bool | None = None) -> None:
    """Draw values as a heat map on the grid, with an arrow for every action of positive probability.

    V: (S,) values. pi: (S,A) policy, or any mask of actions such as all maximising ones; None draws no
    arrows. Goals are green with a diamond, traps and cliffs orange with a cross, walls dark, starts framed
    in blue; other letters stand in a corner. text: numbers in the cells, by default up to 150 cells.
    Raises ShapeError when V or pi does not fit the world.

    >>> from tabrl.envs import grid4x4
    >>> from tabrl.plots import new_figure
    >>> ax = new_figure(3, 3).add_subplot()
    >>> grid_values(ax, grid4x4(), np.arange(16.0))
    >>> len(ax.texts)
    14
    """
    if pi is not None and np.shape(pi) != (world.S, world.A):
        raise ShapeError(f"pi has shape {np.shape(pi)}; {(world.S, world.A)} is expected")
    x = world.on_grid(V)
    special = special_cells(world)
    x[special] = np.nan
    colours = heat(ax, x)
    text = shows_numbers(world.shape) if text is None else text
    marks(ax, world, special)
    if text:
        numbers(ax, x, colours)
    if pi is not None:
        open_states = ~special[world.cell[:, 0], world.cell[:, 1]]
        arrows(ax, world.cell, world.moves, (np.asarray(pi) > 0) & open_states[:, None], colours, edge=text)
    frame(ax, x.shape)


def shows_numbers(shape: tuple[int, int]) -> bool:
    """Whether a grid of this many rows and columns is small enough for numbers in its cells."""
    return shape[0] * shape[1] <= TEXT_UP_TO and shape[1] <= COLUMNS


def special_cells(world: "GridWorld") -> B:
    """Cells whose colour is their kind, not a value: walls, terminal states, cells without a state, cliffs."""
    special: B = world.index < 0
    special |= np.isin(world.chars, ["#", "G", "X", "C"])
    ends = world.cell[world.terminal]
    special[ends[:, 0], ends[:, 1]] = True
    return special


def heat(ax: Axes, x: F) -> Any:
    """Draw the heat map and return a function from values to colours (n,4)."""
    finite = x[np.isfinite(x)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):  # one value: the middle of the map
        low, high = low - 0.5, high + 0.5
    norm, cmap = Normalize(low, high), mpl.colormaps[MAP]
    ax.imshow(np.ma.masked_invalid(x), cmap=cmap, norm=norm, zorder=0)
    return lambda values: cmap(norm(values))


def marks(ax: Axes, world: "GridWorld", special: B) -> None:
    """Draw walls, goals, traps, starts and the letters of the layout."""
    for i, j in np.argwhere(world.chars != "."):
        letter = str(world.chars[i, j])
        if special[i, j]:
            colour, symbol = {"#": (WALL, ""), "G": (GOAL, "D")}.get(letter, (TRAP, "x"))
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, edgecolor="none", zorder=1))
            if symbol:
                size = 0.25 * cell_points(ax, world.shape)
                ax.plot(j, i, symbol, color=MARK, markersize=size, markeredgewidth=max(1.0, size / 5), zorder=3)
        elif letter == "S":
            ax.add_patch(Rectangle((j - 0.455, i - 0.455), 0.91, 0.91, fill=False, edgecolor=START, lw=2.2, zorder=2))
        else:
            box = {"boxstyle": "round,pad=0.12", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.85}
            ax.text(j - 0.43, i - 0.41, letter, ha="left", va="top", fontsize=8, weight="bold", color=INK, bbox=box)


def numbers(ax: Axes, x: F, colours: Any) -> None:
    """Write the values in their cells, dark on light and light on dark."""
    spec = written(x[np.isfinite(x)])
    widest = max((len(f"{v:{spec}}") for v in x[np.isfinite(x)]), default=1)
    size = min(11.0, 0.5 * cell_points(ax, x.shape) / (0.6 * widest))
    for i, j in np.argwhere(np.isfinite(x)):
        ax.text(
            j, i, minus(f"{x[i, j]:{spec}}"), ha="center", va="center", fontsize=size,
            color=legible(colours(x[i, j])), zorder=4,
        )  # fmt: skip


def arrows(ax: Axes, cell: I, moves: I, chosen: B, colours: Any, *, edge: bool) -> None:
    """Draw the chosen actions (S,A): heads at the edge of the cell, or whole arrows from its middle."""
    x = np.asarray(next(im.get_array() for im in ax.images), dtype=np.float64)
    size = cell_points(ax, (x.shape[0], x.shape[1]))
    for a, (down, right) in enumerate(moves):
        states = np.flatnonzero(chosen[:, a])
        if not len(states):
            continue
        i, j = cell[states].T
        ink = [legible(c) for c in colours(x[i, j])]
        if down == right == 0:
            ax.scatter(j + (0.3 if edge else 0), i - (0.3 if edge else 0), s=(0.12 * size) ** 2, c=ink, zorder=3)
        elif edge:
            head: Any = (3, 0, math.degrees(math.atan2(-right, -down)))
            y, z = (np.array([down, right]) * 0.375).tolist()
            ax.scatter(j + z, i + y, s=(0.16 * size) ** 2, marker=head, c=ink, linewidths=0, zorder=3)
        else:
            length = 0.72 / math.hypot(down, right)
            ax.quiver(
                j, i, right * length, down * length, color=ink, angles="xy", scale_units="xy", scale=1, pivot="mid",
                units="xy", width=0.075, headwidth=4.2, headlength=4, headaxislength=3.8, zorder=3,
            )  # fmt: skip


def table(ax: Axes, x: F, rows: Sequence[str], columns: Sequence[str], *, colours: Any = None, spec: str = "") -> None:
    """Draw a matrix as coloured cells with their numbers; rows and columns name its edges.

    x: (rows, columns). colours: a function from values to colours, cividis between the extremes unless given.
    spec: format of a number, such as "z.2f".
    """
    own = heat(ax, x)
    spec = spec or written(x[np.isfinite(x)])
    widest = max((len(f"{v:{spec}}") for v in x[np.isfinite(x)]), default=1)
    size = min(10.0, 0.72 * cell_points(ax, x.shape) / (0.6 * widest))
    for i, j in np.argwhere(np.isfinite(x)):
        colour = legible((colours or own)(x[i, j]))
        ax.text(j, i, minus(f"{x[i, j]:{spec}}"), ha="center", va="center", fontsize=size, color=colour)
    frame(ax, x.shape)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)


def policy_contour(ax: Axes, decision: I, *, origin: str = "lower") -> None:
    """Draw an integer decision for each cell of a table, with borders and one number per region.

    decision: (rows, columns), such as the net number of cars moved for n1 (rows) and n2 (columns) cars.
    Source: the contour plots of Sutton & Barto (2018), figure 4.2.

    >>> from tabrl.plots import new_figure
    >>> ax = new_figure(2, 2).add_subplot()
    >>> policy_contour(ax, np.array([[0, 0], [0, -1]]))
    >>> sorted(label.get_text() for label in ax.texts)
    ['0', '−1']
    """
    from scipy.ndimage import label

    top = max(int(abs(decision).max()), 1)
    norm, cmap = Normalize(-1.25 * top, 1.25 * top), mpl.colormaps["PuOr"]
    ax.imshow(decision, cmap=cmap, norm=norm, origin=origin)  # type: ignore[arg-type]
    borders(ax, decision)
    for value in np.unique(decision):
        parts, n = label(decision == value)
        for k in range(1, n + 1):
            i, j = middle(parts == k)
            ax.text(
                j, i, minus(f"{value:+d}" if value else "0"), ha="center", va="center", fontsize=8.5, weight="bold",
                zorder=4, color=legible(cmap(norm(value))),
            )  # fmt: skip


def value_contour(ax: Axes, x: F, *, levels: int = 8) -> None:
    """Draw a matrix as a heat map with labelled contour lines and a colour bar, rows upwards."""
    drawn = ax.imshow(x, cmap=MAP, origin="lower")
    lines = ax.contour(x, levels=levels, colors="white", linewidths=0.8)
    ax.clabel(lines, fontsize=8, fmt="%.0f")
    ax.figure.colorbar(drawn, ax=ax, shrink=0.85)


def middle(region: B) -> tuple[int, int]:
    """Cell of a region that is farthest from its border, and among those nearest to its centre."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    deepest = np.argwhere(depth > depth.max() - 0.5)
    centre = np.argwhere(region).mean(axis=0)
    i, j = deepest[abs(deepest - centre).sum(axis=1).argmin()].tolist()
    return i, j


def borders(ax: Axes, decision: Any, colour: str = INK, width: float = 1.3) -> None:
    """Draw a line between neighbouring cells that differ; decision: (rows, columns)."""
    i, j = np.nonzero(decision[:, 1:] != decision[:, :-1])
    lines = [((b + 0.5, a - 0.5), (b + 0.5, a + 0.5)) for a, b in zip(i.tolist(), j.tolist(), strict=True)]
    i, j = np.nonzero(decision[1:] != decision[:-1])
    lines += [((b - 0.5, a + 0.5), (b + 0.5, a + 0.5)) for a, b in zip(i.tolist(), j.tolist(), strict=True)]
    ax.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting", zorder=3))


def frame(ax: Axes, shape: tuple[int, ...]) -> None:
    """Draw the lines between cells and hide ticks."""
    rows, columns = shape
    width = 1.0 if max(shape) <= 30 else 0.3
    across = [((j - 0.5, -0.5), (j - 0.5, rows - 0.5)) for j in range(columns + 1)]
    down = [((-0.5, i - 0.5), (columns - 0.5, i - 0.5)) for i in range(rows + 1)]
    ax.add_collection(LineCollection([*across, *down], colors=PAPER, linewidths=width, zorder=1.5))
    ax.tick_params(length=0, labelsize=9)
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(rows - 0.5, -0.5)


def cell_points(ax: Axes, shape: tuple[int, ...]) -> float:
    """Side of a cell in points (1/72 inch), roughly: a layout engine widens the axes when the figure is drawn."""
    box, figure = ax.get_position(), ax.get_figure(root=True)
    width, height = (float(n) for n in figure.get_size_inches())  # type: ignore[union-attr]
    wider = 1.0 if figure is None or figure.get_layout_engine() is None else 1.2
    return 72 * wider * min(box.width * width / shape[1], box.height * height / shape[0])


def legible(colour: Any) -> str:
    """Dark ink on a light colour, light on a dark one, by relative luminance (WCAG 2).

    >>> legible((1.0, 1.0, 1.0, 1.0)), legible((0.0, 0.1, 0.3, 1.0))
    ('#1a1a1a', '#ffffff')
    """
    rgb = np.asarray(colour, np.float64)[:3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return INK if linear @ (0.2126, 0.7152, 0.0722) > 0.19 else PAPER


def written(x: F) -> str:
    """Format that shows about three figures of the largest number; no digits after the point for whole numbers.

    >>> written(np.array([0.51, 0.2])), written(np.array([-13.0, 2.0])), written(np.array([24.42]))
    ('z.2f', 'z.0f', 'z.1f')
    >>> written(np.array([1e9]))
    'z.1e'
    """
    top = float(abs(x).max(initial=0.0))
    if top >= 1e5 or 0 < top < 1e-3:
        return "z.1e"
    if (abs(x - np.round(x)) <= 1e-9 * max(top, 1.0)).all():
        return "z.0f"
    return f"z.{max(2 - math.floor(math.log10(top)) - (top < 1), 0)}f"


def minus(text: str) -> str:
    """Write a proper minus sign."""
    return text.replace("-", "−")
