"""Values spread over processes, and what a backup of them certifies.

V (n,) values by places; TV (n,), Q (n,A) after a backup; low, high over all states: V_star - TV lies between them.
"""

from typing import NamedTuple, cast

import numpy as np

from tabrl import bellman
from tabrl.mdp import MDP
from tabrl.petsc.part import Part
from tabrl.petsc.processes import Spread, largest
from tabrl.rounding import U
from tabrl.types import F


class Values(Spread):
    """Values of this process's places, and copies of the ghosts' values."""

    def __init__(self, part: Part) -> None:
        super().__init__(part.n, part.S, part.ghosts)
        self.part = part

    def action_values(self) -> F:
        """One backup: Q (n,A) by places, -inf for illegal actions."""
        part = self.part
        with self.all() as V:
            ahead = part.scales.gamma * (part.P @ V)
        return (part.rows.r[: len(ahead)] + ahead).reshape(part.n, part.A)  # type: ignore[no-any-return]


class Backup(NamedTuple):
    """One optimality backup of all states, and what it leaves possible for V_star."""

    Q: F  # (n,A) by places, -inf for illegal actions
    TV: F  # (n,)
    V: F  # (n,) TV, moved to the middle of what is possible
    middle: float  # by which it was moved
    shift: float  # what surely brings TV closer to V_star, and not past it
    residual: float  # max |T V - V|
    bound: float  # certified max |V - V_star|, for the V of this record
    loss: float  # certified max (V_star - V_pi) of a policy greedy in Q
    floor: float  # the bound that rounding alone leaves
    V_max: float  # max |V| before the backup


def judge(V: Values) -> Backup:
    """Back all states up once; all processes together."""
    Q, scales = V.action_values(), cast(MDP, V.part.scales)
    TV = Q.max(axis=1)
    d = (TV - V.own)[~V.part.terminal]
    down, up, V_max = largest(-d.min(initial=np.inf), d.max(initial=-np.inf), abs(V.own).max())
    down, up = (0.0, 0.0) if up == -np.inf else (down, up)
    found = bellman.enclosure(scales, -down, up, V_max)
    closer = np.where(V.part.terminal, 0.0, TV + found.middle)
    middle, half = found.middle, found.half
    return Backup(
        Q=Q, TV=TV, V=closer, middle=middle, shift=max(middle - half, 0.0) + min(middle + half, 0.0),
        residual=max(down, up), bound=half + 4 * U * (2 * V_max + max(down, up) + abs(middle)), loss=found.loss,
        floor=bellman.enclosure(scales, 0.0, 0.0, V_max).half, V_max=V_max,
    )  # fmt: skip
