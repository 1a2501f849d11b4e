"""The worlds by their gymnasium ids: "tabrl/Cliff-v0", with "tabrl/Grid-v0" for any grid as text."""

from collections.abc import Iterable
from typing import Any

import gymnasium

from tabrl.envs.grid import grid
from tabrl.envs.tabular import TabularEnv, TabularVectorEnv
from tabrl.mdp import MDP

HERE = "tabrl.envs.registry"
TEXT = "...G .#.X S..."  # of Grid-v0, unless given
LIMITS = {"blackjack": 100, "frozen-lake": 100, "frozen-lake-8x8": 200, "taxi": 200, "grid4x4": 200}
LIMIT = 1000  # of the others


def register(names: Iterable[str]) -> None:
    """Register the worlds, and Grid-v0, with gymnasium; ids that are there already stay."""
    for name in names:
        put(gym_id(name), {"world": name}, LIMITS.get(name, LIMIT))
    put("tabrl/Grid-v0", {}, LIMIT)


def put(key: str, keywords: dict[str, Any], limit: int) -> None:
    """Register one id with its single and its vector form."""
    if key in gymnasium.registry:
        return
    gymnasium.register(
        key, entry_point=f"{HERE}:env", vector_entry_point=f"{HERE}:vector_env",
        max_episode_steps=limit, kwargs=keywords,
    )  # fmt: skip


def gym_id(name: str) -> str:
    """Return the id of a world.

    >>> gym_id("frozen-lake-8x8"), gym_id("grid4x4")
    ('tabrl/FrozenLake8x8-v0', 'tabrl/Grid4x4-v0')
    """
    return f"tabrl/{''.join(part.capitalize() for part in name.split('-'))}-v0"


def model(world: str | None, keywords: dict[str, Any]) -> MDP:
    """Build a world by name, or the grid of the keyword `text`."""
    from tabrl.envs import make

    return grid(**{"text": TEXT, **keywords}) if world is None else make(world, **keywords)


def env(world: str | None = None, *, render_mode: str | None = None, **keywords: Any) -> TabularEnv:
    """Return the environment of a world; keywords go to its constructor."""
    return TabularEnv(model(world, keywords), render_mode=render_mode)


def vector_env(
    world: str | None = None, *, num_envs: int = 1, max_episode_steps: int | None = None,
    render_mode: str | None = None, **keywords: Any,
) -> TabularVectorEnv:  # fmt: skip
    """Return many copies of the environment of a world, stepped together."""
    return TabularVectorEnv(
        model(world, keywords), num_envs=num_envs, max_episode_steps=max_episode_steps, render_mode=render_mode
    )
