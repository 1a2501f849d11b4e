"""Worlds: grid worlds as text, the classic textbook models, random models, and gymnasium environments.

`WORLDS` maps names to constructors that need no argument; `make("cliff", gamma=0.9)` calls one by name.
Importing this package registers each of them with gymnasium, as "tabrl/Cliff-v0" and so on, together
with "tabrl/Grid-v0", which takes the keywords of `grid`.
"""

if __name__ != "tabrl.envs":
    raise ImportError(f"the package is imported as {__name__}; tabrl.envs is expected; write `import tabrl.envs`")

from collections.abc import Callable
from typing import Any

from tabrl.envs.blackjack import blackjack
from tabrl.envs.by_name import constructor
from tabrl.envs.car_rental import car_rental
from tabrl.envs.chains import forest, gambler, loop, random_walk, random_walk_19, riverswim, two_state
from tabrl.envs.classic import cliff, dyna_maze, grid4x4, grid5x5, slippery_grid, windy, windy_king
from tabrl.envs.garnet import garnet, garnet_example
from tabrl.envs.grid import FOUR, KING, KING_STAY, GridWorld, grid
from tabrl.envs.gym_worlds import cliff_gym, cliff_slippery, frozen_lake, frozen_lake_8x8, taxi
from tabrl.envs.registry import gym_id, register
from tabrl.envs.tabular import TabularEnv, TabularVectorEnv
from tabrl.mdp import MDP

WORLDS: dict[str, Callable[..., MDP]] = {
    "grid4x4": grid4x4,
    "grid5x5": grid5x5,
    "cliff": cliff,
    "windy": windy,
    "windy-king": windy_king,
    "dyna-maze": dyna_maze,
    "slippery-grid": slippery_grid,
    "random-walk": random_walk,
    "random-walk-19": random_walk_19,
    "two-state": two_state,
    "loop": loop,
    "riverswim": riverswim,
    "forest": forest,
    "gambler": gambler,
    "car-rental": car_rental,
    "blackjack": blackjack,
    "garnet": garnet_example,
    "frozen-lake": frozen_lake,
    "frozen-lake-8x8": frozen_lake_8x8,
    "cliff-gym": cliff_gym,
    "cliff-slippery": cliff_slippery,
    "taxi": taxi,
}


def make(name: str, **keywords: Any) -> MDP:
    """Build a world by its name in `WORLDS`; keywords go to its constructor.

    Raises ModelError, with the close matches, for an unknown name.

    >>> make("random-walk", n=3)
    MDP(S=5, A=1, gamma=1, 2 terminal, dense)
    """
    return constructor(name, WORLDS, "a world")(**keywords)


register(WORLDS)

__all__ = [
    "FOUR",
    "KING",
    "KING_STAY",
    "WORLDS",
    "GridWorld",
    "TabularEnv",
    "TabularVectorEnv",
    "blackjack",
    "car_rental",
    "cliff",
    "cliff_gym",
    "cliff_slippery",
    "dyna_maze",
    "forest",
    "frozen_lake",
    "frozen_lake_8x8",
    "gambler",
    "garnet",
    "garnet_example",
    "grid",
    "grid4x4",
    "grid5x5",
    "gym_id",
    "loop",
    "make",
    "random_walk",
    "random_walk_19",
    "riverswim",
    "slippery_grid",
    "taxi",
    "two_state",
    "windy",
    "windy_king",
]
