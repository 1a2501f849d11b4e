"""gymnasium's toy-text environments as explicit models; those with a map as grid worlds."""

from typing import Any

import gymnasium
import numpy as np

from tabrl.envs.grid import GridWorld
from tabrl.mdp import MDP
from tabrl.types import Names

STEPS = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
FROZEN = str.maketrans("FH", ".X")  # frozen floor, hole


def frozen_lake(map_name: str = "4x4", *, slippery: bool = True, gamma: float = 1.0, **keywords: Any) -> GridWorld:
    """Frozen lake 4x4: reach the goal over ice without falling into a hole X.

        S . . .
        . X . X
        . . . X
        X . . G

    Reaching G pays 1, all else 0. On slippery ice a move goes as intended, or turned to the left or
    right, with probability 1/3 each. At gamma = 1, V*(S) = 14/17, the best chance of reaching the goal.
    map_name: "4x4" or "8x8"; further keywords go to gymnasium.make (desc=[...] for a map of your own).
    Source: gymnasium, FrozenLake-v1.

    >>> frozen_lake()
    GridWorld(S=16, A=4, gamma=1, 5 terminal, dense)
    """
    env = gymnasium.make("FrozenLake-v1", map_name=map_name, is_slippery=slippery, **keywords)
    desc: Any = env.unwrapped.desc  # type: ignore[attr-defined]
    rows = ["".join(c.decode() for c in row).translate(FROZEN) for row in desc]
    return mapped(env, rows, ("left", "down", "right", "up"), gamma)


def frozen_lake_8x8(*, slippery: bool = True, gamma: float = 1.0) -> GridWorld:
    """Frozen lake 8x8: reach the goal over ice without falling into a hole X.

        S . . . . . . .
        . . . . . . . .
        . . . X . . . .
        . . . . . X . .
        . . . X . . . .
        . X X . . . X .
        . X . . X . X .
        . . . X . . . G

    Rules as in `frozen_lake`. At gamma = 1, V*(S) = 1: a careful skater always arrives.
    Source: gymnasium, FrozenLake-v1 with map_name="8x8".

    >>> frozen_lake_8x8()
    GridWorld(S=64, A=4, gamma=1, 11 terminal, dense)
    """
    return frozen_lake("8x8", slippery=slippery, gamma=gamma)


def cliff_gym(*, slippery: bool = False, gamma: float = 1.0) -> GridWorld:
    """Cliff walking as gymnasium has it: a move costs 1, the cliff C costs 100 and leads back to S.

        . . . . . . . . . . . .
        . . . . . . . . . . . .
        . . . . . . . . . . . .
        S C C C C C C C C C C G

    V*(S) = -13 at gamma = 1. Cells of the cliff are states here, which nobody enters. slippery: see
    `cliff_slippery`.
    Source: gymnasium, CliffWalking-v1, after Sutton & Barto (2018), example 6.6.

    >>> cliff_gym()
    GridWorld(S=48, A=4, gamma=1, 1 terminal, dense)
    """
    env = gymnasium.make("CliffWalkingSlippery-v1" if slippery else "CliffWalking-v1")
    rows = 3 * ["." * 12] + ["S" + "C" * 10 + "G"]
    return mapped(env, rows, ("up", "right", "down", "left"), gamma)


def cliff_slippery(*, gamma: float = 1.0) -> GridWorld:
    """Cliff walking on slippery ground: a move costs 1, the cliff C costs 100 and leads back to S.

        . . . . . . . . . . . .
        . . . . . . . . . . . .
        . . . . . . . . . . . .
        S C C C C C C C C C C G

    A move goes as intended, or turned to the left or right, with probability 1/3 each.
    Source: gymnasium, CliffWalkingSlippery-v1.

    >>> cliff_slippery()
    GridWorld(S=48, A=4, gamma=1, 1 terminal, dense)
    """
    return cliff_gym(slippery=True, gamma=gamma)


def taxi(*, gamma: float = 1.0, **keywords: Any) -> MDP:
    """Taxi: fetch a passenger at one of four stands and take them to another.

        +---------+
        |R: | : :G|
        | : | : : |
        | : : : : |        R, G, Y, B stands; | walls
        | | : | : |
        |Y| : |B: |
        +---------+

    A move costs 1, delivering pays 20, a wrong pick-up or drop-off costs 10. States 0 … 499 code taxi
    row, column, passenger's place and destination; state 500 is the end. Further keywords (is_rainy,
    fickle_passenger) go to gymnasium.make.
    Source: gymnasium, Taxi-v4; Dietterich (2000).

    >>> taxi()
    MDP(S=501, A=6, gamma=1, 1 terminal, dense)
    """
    env = gymnasium.make("Taxi-v4", **keywords)
    decode: Any = env.unwrapped.decode  # type: ignore[attr-defined]
    place = ["R", "G", "Y", "B", "taxi"]
    states = []
    for s in range(500):
        row, column, passenger, target = decode(s)
        states.append(f"r{row}c{column} {place[passenger]}>{place[target]}")
    actions = ("down", "up", "right", "left", "pick up", "drop off")
    return MDP.from_gym(env, gamma, names=Names((*states, "delivered"), actions))


def mapped(env: Any, rows: list[str], actions: tuple[str, ...], gamma: float) -> GridWorld:
    """Read an environment whose states are the cells of a map, row by row."""
    cell = np.argwhere(np.ones((len(rows), len(rows[0])), np.bool_))
    names = Names(tuple(f"r{i}c{j}" for i, j in cell.tolist()), actions)
    moves = np.array([STEPS[a] for a in actions])
    return GridWorld.from_gym(env, gamma, layout=tuple(rows), cell=cell, moves=moves, names=names)
