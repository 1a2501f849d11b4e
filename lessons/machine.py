"""The machine of the first lessons: three states, small fractions, and every answer can be checked by hand.

A machine is good, worn or broken; broken is the end. Running it pays 2 when it is good and 1 when it is worn, and each
time it is as likely to wear one step further as to stay as it is. A worn machine can be repaired, which costs 1 and
makes it good.
"""

import numpy as np

from tabrl.mdp import MDP
from tabrl.types import Episode, F, Names

GOOD, WORN, BROKEN = range(3)
RUN, REPAIR = range(2)


def machine(gamma: float = 0.5) -> MDP:
    """The model; repairing is legal where the machine is worn. Starts good.

    >>> machine().r
    array([[ 2.,  0.],
           [ 1., -1.],
           [ 0.,  0.]])
    """
    P = np.zeros((3, 2, 3))
    P[GOOD, RUN] = 1 / 2, 1 / 2, 0
    P[WORN, RUN] = 0, 1 / 2, 1 / 2
    P[WORN, REPAIR] = 1, 0, 0
    R = np.array([[2.0, 0.0], [1.0, -1.0], [0.0, 0.0]])
    legal = np.array([[True, False], [True, True], [True, True]])
    names = Names(("good", "worn", "broken"), ("run", "repair"))
    return MDP(P, R, gamma, mu=[1, 0, 0], terminal=[False, False, True], legal=legal, names=names)


def repairing(x: float = 0.0) -> F:
    """The policy that repairs a worn machine with probability x, and runs it otherwise: (3,2).

    >>> repairing(0.25)
    array([[1.  , 0.  ],
           [0.75, 0.25],
           [1.  , 0.  ]])
    """
    return np.array([[1.0, 0.0], [1.0 - x, x], [1.0, 0.0]])


def seen(*states: int) -> Episode:
    """An episode that ran through these states, good or worn, and then broke; never repaired, gamma = 1.

    >>> seen(GOOD, WORN).r, seen(GOOD, WORN).discount
    (array([2., 1.]), array([1., 0.]))
    """
    r = np.array([(2.0, 1.0)[s] for s in states])
    discount = np.append(np.ones(len(states) - 1), 0.0)
    return Episode(np.array([*states, BROKEN]), np.zeros(len(states), np.int64), r, discount, np.zeros(len(states)))
