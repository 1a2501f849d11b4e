"""Grid worlds written as text.

layout rows of characters; cell (S,2) row and column of each state; moves (A,2) displacement of each action.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tabrl.envs.alphabet import (
    GOAL,
    START,
    TERMINAL,
    TRAP,
    WALL,
    characters,
    check_letters,
    check_sources,
    number,
    rows_of,
    whole,
)
from tabrl.envs.outcomes import Outcomes, arrays, merge
from tabrl.errors import ModelError, ShapeError
from tabrl.mdp import MDP, frozen
from tabrl.types import B, F, I, Names

Moves = Mapping[str, tuple[int, int]]  # action name -> (rows down, columns right)

FOUR: Moves = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
KING: Moves = {
    "up": (-1, 0), "up-right": (-1, 1), "right": (0, 1), "down-right": (1, 1),
    "down": (1, 0), "down-left": (1, -1), "left": (0, -1), "up-left": (-1, -1),
}  # fmt: skip
KING_STAY: Moves = {**KING, "stay": (0, 0)}

DENSE_UP_TO = 1000  # states; larger worlds are sparse unless asked otherwise
NAMES_UP_TO = 10_000  # states; larger worlds have no state names


@dataclass(frozen=True, eq=False, repr=False)
class GridWorld(MDP):
    """An MDP whose states are cells of a grid, with what a picture of it needs.

    layout: rows of characters ('.' floor, '#' wall, 'S' start, 'G' goal, 'X' trap, other letters as the
    world defines them). cell: (S,2) row and column of each state, no cell twice; characters without a
    state are walls or cells that nobody stays in. moves: (A,2) rows down and columns right of each action.
    `dataclasses.replace(world, gamma=0.9)` keeps all three. Raises ShapeError or ModelError where they
    do not fit the model.

    >>> world = grid("..G S#.", gamma=0.5)
    >>> world
    GridWorld(S=5, A=4, gamma=0.5, 1 terminal, dense)
    >>> world.on_grid(np.arange(5.0))
    array([[ 0.,  1.,  2.],
           [ 3., nan,  4.]])
    """

    layout: tuple[str, ...] = field(kw_only=True)
    cell: I = field(kw_only=True)
    moves: I = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        layout = rows_of(self.layout)
        cell = whole(self.cell, "cell", (self.S, 2))
        moves = whole(self.moves, "moves", (self.A, 2))
        off = ((cell < 0) | (cell >= (len(layout), len(layout[0])))).any(1)
        if off.any():
            s = int(np.argmax(off))
            raise ModelError(f"cell[{s}] is {tuple(cell[s].tolist())}; a row and column of the layout is expected")
        if (np.bincount(cell @ (len(layout[0]), 1)) > 1).any():
            raise ModelError("cell has a row and column twice; every state needs a cell of its own")
        for name, value in (("layout", layout), ("cell", frozen(cell)), ("moves", frozen(moves))):
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return len(self.layout), len(self.layout[0])

    @cached_property
    def chars(self) -> Any:
        """(rows, columns) array of the layout's characters."""
        return frozen(characters(self.layout))

    @cached_property
    def index(self) -> I:
        """(rows, columns) number of the state in each cell; -1 where there is none."""
        index = np.full(self.shape, -1)
        index[self.cell[:, 0], self.cell[:, 1]] = np.arange(self.S)
        return frozen(index)  # type: ignore[no-any-return]

    def on_grid(self, x: Any, fill: float = np.nan) -> F:
        """Lay one number per state, x (S,), out as (rows, columns); `fill` where there is no state."""
        x = np.asarray(x, dtype=np.float64)
        if x.shape != (self.S,):
            raise ShapeError(f"x has shape {x.shape}; {(self.S,)} is expected")
        out = np.full(self.shape, float(fill))
        out[self.cell[:, 0], self.cell[:, 1]] = x
        return out

    def text(self, s: int | None = None) -> str:
        """Write the layout, with '@' in the cell of state s.

        >>> print(grid("..G S#.").text(0))
        @.G
        S#.
        """
        rows = list(self.layout)
        if s is not None:
            i, j = self.cell[s]
            rows[i] = rows[i][:j] + "@" + rows[i][j + 1 :]
        return "\n".join(rows)


class Rules(NamedTuple):
    """What happens on entering a cell; all (rows, columns) but wind (columns,) and bump."""

    entry: I  # state reached; -1 for a wall
    pay: F  # reward
    wind: I
    bump: float | None


def grid(
    text: str,
    *,
    rewards: Mapping[str, float] | None = None,
    step: float = 0.0,
    bump: float | None = None,
    slip: float = 0.0,
    gamma: float = 0.9,
    jumps: Mapping[str, str] | None = None,
    falls: Mapping[str, str] | None = None,
    wind: Sequence[int] | None = None,
    moves: Moves = FOUR,
    mu: Any = None,
    sparse: bool | None = None,
) -> GridWorld:
    """Read a grid world from text.

        R(s, a, s') = rewards[letter of the cell entered], else step

    text: rows separated by newlines or spaces. '.' floor, '#' wall, 'S' start (several: each equally
    likely), 'G' goal and 'X' trap (both terminal), other letters as far as rewards, jumps or falls name
    them. rewards: {"G": 1, "X": -1} unless given; a letter's reward replaces the step reward. A move
    off the grid is cut back to the edge, coordinate by coordinate (a king's move slides along it), one
    onto a wall leaves the agent where it is; both pay `bump` if given, else what entering the cell pays.
    slip: with this probability the move is turned by 90 degrees, to the left or right with slip/2 each.
    jumps: {"A": "a"} every action in an A leads to the one cell marked a and pays the reward of A, which
    entering the A does not.
    falls: {"C": "S"} entering a C leads to the one S at once and pays the reward of C; a C is no state.
    wind: cells that each column blows upward, added to every move made from that column. moves: FOUR,
    KING, KING_STAY or any {name: (rows down, columns right)}. mu: (S,) start distribution or "uniform"
    (over non-terminal states) for worlds without an S. States are the cells that are neither wall nor
    fall, row by row, named "r0c1" up to 10,000 states. sparse: stored as CSR, by default above 1,000
    states. Where two outcomes of one action reach the same state with different rewards, R is their mean.

    Raises ModelError for ragged rows, unknown letters, a missing start, and targets that are not unique.
    Source: layout and letters follow gymnasium's FrozenLake maps; wind as in Sutton & Barto (2018), ex. 6.5.

    >>> world = grid("...G .#.X S...", rewards={"G": 1, "X": -1}, slip=0.2)
    >>> world.S, world.A, world.names.states[:2], world.names.actions
    (11, 4, ('r0c0', 'r0c1'), ('up', 'right', 'down', 'left'))
    >>> world.layout
    ('...G', '.#.X', 'S...')
    """
    layout = rows_of(text.split())
    chars = characters(layout)
    rewards = {GOAL: 1.0, TRAP: -1.0} if rewards is None else rewards
    jumps, falls = dict(jumps or {}), dict(falls or {})
    check_sources(jumps, falls)
    check_letters(chars, set(rewards) | {*jumps, *jumps.values(), *falls, *falls.values()})
    place = np.argwhere((chars != WALL) & ~np.isin(chars, list(falls)))
    if not len(place):
        raise ModelError("text has walls only; at least one floor cell is expected")
    letter = chars[place[:, 0], place[:, 1]]
    terminal = np.isin(letter, list(TERMINAL))
    entered = {key: value for key, value in rewards.items() if key not in jumps}
    rules = entering(chars, place, entered, step, bump, falls, wind)
    effects = merge(consequences(rules, place, list(moves.values()), slip))
    for source, target in jumps.items():
        divert(effects, letter == source, only(letter, target, source), number(rewards.get(source, step), source))
    divert(effects, terminal, np.flatnonzero(terminal), 0.0)
    P, R = arrays(effects, sparse=len(place) > DENSE_UP_TO if sparse is None else sparse)
    return GridWorld(
        P, R, gamma, mu=start(letter, terminal, mu), terminal=terminal, names=names(place, moves),
        layout=layout, cell=place, moves=np.array(list(moves.values()), np.int64),
    )  # fmt: skip


def entering(
    chars: Any, place: I, rewards: Mapping[str, float], step: float, bump: float | None,
    falls: Mapping[str, str], wind: Sequence[int] | None,
) -> Rules:  # fmt: skip
    """Tabulate where one is, and what is paid, after entering each cell."""
    entry = np.full(chars.shape, -1)
    entry[place[:, 0], place[:, 1]] = np.arange(len(place))
    letter = chars[place[:, 0], place[:, 1]]
    for source, target in falls.items():
        entry[chars == source] = only(letter, target, source)
    pay = np.full(chars.shape, number(step, "step"))
    for key, reward in rewards.items():
        pay[chars == key] = number(reward, key)
    blow = np.zeros(chars.shape[1], np.int64) if wind is None else whole(wind, "wind", (chars.shape[1],))
    return Rules(entry, pay, blow, None if bump is None else number(bump, "bump"))


def consequences(rules: Rules, place: I, moves: Sequence[tuple[int, int]], slip: float) -> Outcomes:
    """List the outcomes of every move: as intended, and with a slip turned right or left."""
    if not 0 <= slip <= 1:
        raise ModelError(f"slip is {slip}; a probability in [0, 1] is expected")
    turns = [((i, j), (j, -i), (-j, i)) for i, j in moves] if slip else [((i, j),) for i, j in moves]
    p = np.array([1 - slip, slip / 2, slip / 2] if slip else [1.0])
    shape = (len(place), len(moves), len(p))
    effects = Outcomes(np.empty(shape, np.int32), np.broadcast_to(p, shape).copy(), np.empty(shape))
    for a, turned in enumerate(turns):
        for k, move in enumerate(turned):
            effects.s_next[:, a, k], effects.x[:, a, k] = land(rules, place, move)
    return effects


def land(rules: Rules, place: I, move: tuple[int, int]) -> tuple[I, F]:
    """Return state and reward, (S,) each, of one displacement from every state."""
    aim = place + np.array(move)
    aim[:, 0] -= rules.wind[place[:, 1]]
    stop = np.clip(aim, 0, np.array(rules.entry.shape) - 1)
    held = (stop != aim).any(1)
    wall = rules.entry[stop[:, 0], stop[:, 1]] < 0
    stop = np.where(wall[:, None], place, stop)
    x = rules.pay[stop[:, 0], stop[:, 1]]
    if rules.bump is not None:
        x[held | wall] = rules.bump
    return rules.entry[stop[:, 0], stop[:, 1]], x


def divert(effects: Outcomes, where: B, target: Any, reward: float) -> None:
    """Let every action of the states `where` lead to `target` for certain."""
    effects.s_next[where] = np.reshape(target, (-1, 1, 1))
    effects.p[where] = np.eye(1, effects.p.shape[2])
    effects.x[where] = reward


def only(letter: Any, target: str, source: str) -> int:
    """Return the one state marked `target`."""
    found = np.flatnonzero(letter == target)
    if len(found) != 1:
        raise ModelError(f"text has {len(found)} cells {target!r}; exactly one is expected, as {source!r} leads there")
    return int(found[0])


def start(letter: Any, terminal: B, mu: Any) -> Any:
    """Return the start distribution: as given, uniform, or uniform over the cells marked S."""
    if isinstance(mu, str):
        if mu != "uniform":
            raise ModelError(f'mu is {mu!r}; an (S,) distribution or "uniform" is expected')
        return None
    if mu is not None:
        return mu
    starts = letter == START
    if not starts.any():
        raise ModelError('text has no S; a start is expected; mark one, or give mu="uniform"')
    return starts / starts.sum()


def names(place: I, moves: Moves) -> Names:
    """Name the states by row and column (unless there are very many) and the actions as given."""
    states = tuple(f"r{i}c{j}" for i, j in place.tolist()) if len(place) <= NAMES_UP_TO else ()
    return Names(states, tuple(moves))
