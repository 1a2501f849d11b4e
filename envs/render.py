"""Pictures of a state: text, or an image drawn with NumPy alone.

layout (rows of characters) and cell (S,2) say where the states are; px is the side of a cell in pixels.
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from tabrl.envs.alphabet import CLIFF, GOAL, START, TERMINAL, TRAP, WALL
from tabrl.envs.grid import GridWorld
from tabrl.mdp import MDP
from tabrl.types import B, F, I

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

# Okabe & Ito (2008): distinct under the common colour blindnesses
PAPER, LINE, STONE = (252, 252, 250), (214, 214, 210), (64, 66, 72)
GREEN, VERMILION, SKY, BLUE = (0, 158, 115), (213, 94, 0), (86, 180, 233), (0, 114, 178)
OTHERS = ((230, 159, 0), (204, 121, 167), (240, 228, 66))
WHITE = (255, 255, 255)

LARGEST_CELL, LARGEST_IMAGE = 64, 768  # pixels
SAMPLES = 4  # per pixel and axis, against jagged edges


def text(mdp: MDP, s: int) -> str:
    """Write the grid with '@' in the cell of state s, or the name of s where there is no grid."""
    if isinstance(mdp, GridWorld):
        return mdp.text(s)
    return f"state {mdp.names.states[s] if mdp.names.states else s}"


def background(mdp: MDP) -> tuple[Image, I, int]:
    """Draw the world without the agent; return the image, the cell of each state, and px."""
    layout, cell = board(mdp)
    px = max(1, min(LARGEST_CELL, LARGEST_IMAGE // max(len(layout), len(layout[0]))))
    stateless = {c for row in layout for c in row} - {layout[i][j] for i, j in cell.tolist()} - {WALL}
    tiles = {c: tile(TRAP if c in stateless | {CLIFF} else c, px) for row in layout for c in row}
    return np.vstack([np.hstack([tiles[c] for c in row]) for row in layout]), cell, px


def board(mdp: MDP) -> tuple[tuple[str, ...], I]:
    """Return layout and cells; states without a grid stand in a row, or in a square from 26 states on."""
    if isinstance(mdp, GridWorld):
        return mdp.layout, mdp.cell
    width = mdp.S if mdp.S <= 25 else math.ceil(math.sqrt(mdp.S))
    marks = "".join("T" if end else "." for end in mdp.terminal)
    marks += WALL * (-mdp.S % width)
    layout = tuple(marks[i : i + width] for i in range(0, len(marks), width))
    return layout, np.stack(np.divmod(np.arange(mdp.S), width), 1)


def with_agent(picture: Image, where: I, px: int) -> Image:
    """Copy the image with the agent, a disc, in row and column `where`."""
    out = picture.copy()
    i, j = (where * px).tolist()
    view = out[i : i + px, j : j + px]
    y, x = points(px)
    r = np.hypot(y - 0.5, x - 0.5)
    view[:] = over(over(view.astype(np.float64), r < 0.38, WHITE), r < 0.32, BLUE).round()
    return out


@cache
def tile(letter: str, px: int) -> Image:
    """Draw one cell: (px, px, 3)."""
    y, x = points(px)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    right, down = np.abs(x - 0.5), np.abs(y - 0.5)
    out = np.full((px, px, 3), fill(letter), np.float64)
    if letter == GOAL:
        out = over(out, right + down < 0.3, WHITE)
    elif letter == TRAP:
        out = over(out, (np.abs(right - down) < 0.07) & (np.maximum(right, down) < 0.27), WHITE)
    elif letter == START:
        out = over(out, (edge > 0.06) & (edge < 0.14), SKY)
    elif letter.islower():  # where a jump leads: a frame in the colour of its capital
        out = over(out, (edge > 0.06) & (edge < 0.2), fill(letter.upper()))
    if letter != WALL and px >= 8:
        out = over(out, edge < 0.5 / px, LINE)
    return out.round().astype(np.uint8)


def fill(letter: str) -> Colour:
    """Return the ground colour of a cell."""
    if letter in TERMINAL + WALL:
        return {GOAL: GREEN, TRAP: VERMILION, WALL: STONE}[letter]
    return OTHERS[ord(letter) % len(OTHERS)] if letter.isupper() and letter != START else PAPER


def points(px: int) -> tuple[F, F]:
    """Return the coordinates y, x in (0, 1) of the sample points of a cell."""
    n = px * SAMPLES
    y, x = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(n) + 0.5) / n, indexing="ij")
    return y, x


def over(image: F, shape: B, colour: Colour) -> F:
    """Lay a shape, given on the sample points, over the image."""
    px = len(image)
    cover = shape.reshape(px, SAMPLES, px, SAMPLES).mean((1, 3))[..., None]
    blend: F = image * (1 - cover) + np.array(colour, np.float64) * cover
    return blend
