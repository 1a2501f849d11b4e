"""Chains and other small models with few actions, most with a closed form."""

from typing import Any

import numpy as np

from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.types import Names


def random_walk(n: int = 5, *, left: float = 0.0, right: float = 1.0, gamma: float = 1.0) -> MDP:
    """Random walk over n states, to the left or right with probability 1/2 until it falls off an end.

        [left] <- A <-> B <-> C <-> D <-> E -> [right]        (n = 5, start in C)

    Leaving pays `left` or `right`, everything else 0. State 0 and state n + 1 are the terminal ends. At
    gamma = 1, V(i) = left + (right - left) i / (n + 1): 1/6, 2/6, …, 5/6 for n = 5. The start is the
    middle state (the two middle ones, equally likely, for even n).
    Source: Sutton & Barto (2018), example 6.2; with n = 19 and left = -1 example 7.1.

    >>> random_walk()
    MDP(S=7, A=1, gamma=1, 2 terminal, dense)
    """
    count("n", n, 1)
    P, R = np.zeros((n + 2, 1, n + 2)), np.zeros((n + 2, 1, n + 2))
    inner = np.arange(1, n + 1)
    P[inner, 0, inner - 1] = P[inner, 0, inner + 1] = 0.5
    R[1, 0, 0], R[n, 0, n + 1] = left, right
    mu = np.zeros(n + 2)
    np.add.at(mu, [(n + 1) // 2, n // 2 + 1], 0.5)
    letters = [chr(ord("A") + i) for i in range(n)] if n <= 26 else [f"s{i}" for i in range(1, n + 1)]
    names = Names(("left end", *letters, "right end"), ("step",))
    return MDP(P, R, gamma, mu=mu, terminal=np.isin(np.arange(n + 2), (0, n + 1)), names=names)


def random_walk_19(*, gamma: float = 1.0) -> MDP:
    """Random walk over 19 states that pays -1 at the left end and +1 at the right end.

        [-1] <- A <-> B <-> … <-> J <-> … <-> R <-> S -> [+1]        (start in J)

    At gamma = 1, V(i) = i / 10 - 1 for i = 1 … 19.
    Source: Sutton & Barto (2018), example 7.1.

    >>> random_walk_19().S
    21
    """
    return random_walk(19, left=-1.0, gamma=gamma)


def two_state(p: float = 0.1, q: float = 0.2, *, rewards: tuple[float, float] = (1.0, 0.0), gamma: float = 0.9) -> MDP:
    """Two states that follow each other for ever: 0 to 1 with probability p, 1 to 0 with probability q.

                    p
         1-p ( 0 ------> 1 ) 1-q
                 <------
                    q

    Leaving state i pays rewards[i]. With k = 1 - p - q: V(0) - V(1) = (r0 - r1) / (1 - gamma k), and the
    stationary distribution (q, p) / (p + q) averages V to (q r0 + p r1) / ((p + q)(1 - gamma)); here
    V = (7.568, 4.865). TD(0) along a trajectory with constant alpha = 0.4 settles at a mean of 7.404 in
    state 0: a bias of order alpha that independent draws do not have.
    Source: made for this package; the simplest chain on which successive states are correlated.

    >>> two_state().P[:, 0]
    array([[0.9, 0.1],
           [0.2, 0.8]])
    """
    return MDP([[[1 - p, p]], [[q, 1 - q]]], np.array(rewards), gamma, names=Names(("0", "1"), ("step",)))


def loop(p: float = 0.9, *, stay: float = 1.0, end: float = 1.0, gamma: float = 1.0) -> MDP:
    """One state that loops with probability p and ends with probability 1 - p.

        p ( s ) --- 1-p ---> [end]

    Looping pays `stay`, ending pays `end`. V(s) = (p stay + (1 - p) end) / (1 - gamma p). First-visit
    Monte Carlo is unbiased here; every-visit is not: after n episodes its mean at gamma = 1 is
    p stay / (1 - p) * n / (n + 1) + end.
    Source: Singh & Sutton (1996), Reinforcement learning with replacing eligibility traces; with stay = 0
    Sutton & Barto (2018), example 5.5.

    >>> loop().r[0, 0]
    np.float64(1.0)
    """
    probability("p", p)
    terminal = np.array([False, True])
    names = Names(("s", "end"), ("step",))
    return MDP([[[p, 1 - p]], [[0, 0]]], [[[stay, end]], [[0, 0]]], gamma, terminal=terminal, names=names)


def riverswim(n: int = 6, *, gamma: float = 0.95) -> MDP:
    """Swim up a river: downstream is sure and pays 5 at the bank, upstream is hard and pays 10,000 at the source.

        left:   0 <-1- 1 <-1- 2 <-1- 3 <-1- 4 <-1- 5        (0 stays, pays 5)
        right:  0 stays .7, forward .3; 1 … 4 back .1, stay .6, forward .3;
                5 back .7, stays .3 (action right pays 10,000 on staying)

    The start is state 1 or 2, equally likely. It never ends. Swimming right is optimal everywhere at
    the default gamma = 0.95 (the paper measures total reward over 5,000 steps).
    Source: Strehl & Littman (2008), An analysis of model-based interval estimation (RiverSwim).

    >>> riverswim()
    MDP(S=6, A=2, gamma=0.95, 0 terminal, dense)
    """
    count("n", n, 3)
    P, R = np.zeros((n, 2, n)), np.zeros((n, 2, n))
    s = np.arange(n)
    P[s, 0, np.maximum(s - 1, 0)] = 1.0
    inner = s[1:-1]
    P[inner, 1, inner - 1], P[inner, 1, inner], P[inner, 1, inner + 1] = 0.1, 0.6, 0.3
    P[0, 1, :2] = 0.7, 0.3
    P[-1, 1, -2:] = 0.7, 0.3
    R[0, 0, 0], R[-1, 1, -1] = 5.0, 10_000.0
    mu = np.zeros(n)
    mu[1:3] = 0.5
    return MDP(P, R, gamma, mu=mu, names=Names(tuple(map(str, s)), ("left", "right")))


def forest(S: int = 3, *, r1: float = 4.0, r2: float = 2.0, p: float = 0.1, gamma: float = 0.9) -> MDP:
    """Wait for a forest to grow, or cut it, with a yearly risk of fire.

        wait:  0 -1-p-> 1 -1-p-> 2 ( 1-p )        fire: every age -p-> 0
        cut:   every age -1-> 0

    Waiting in the oldest state pays r1; cutting pays 0 in the youngest, r2 in the oldest, 1 in between.
    With the defaults waiting is optimal everywhere and V* = (26.244, 29.484, 33.484).
    Source: pymdptoolbox, mdptoolbox.example.forest (its own example: S = 3, r1 = 4, r2 = 2, p = 0.1).

    >>> forest().P[2]
    array([[0.1, 0. , 0.9],
           [1. , 0. , 0. ]])
    """
    count("S", S, 2)
    probability("p", p)
    P, R = np.zeros((S, 2, S)), np.zeros((S, 2))
    s = np.arange(S)
    P[s, 0, np.minimum(s + 1, S - 1)] = 1 - p
    P[:, 0, 0] += p
    P[:, 1, 0] = 1.0
    R[1:, 1], R[-1] = 1.0, (r1, r2)
    return MDP(P, R, gamma, names=Names(tuple(f"age {i}" for i in s), ("wait", "cut")))


def gambler(p_h: float = 0.4, *, goal: int = 100, stay: bool = False, gamma: float = 1.0) -> MDP:
    """Gambler's problem: stake on a coin until broke or at the goal.

        0 (ruin) <- s - stake <- s -> s + stake -> … -> goal (pays 1)        heads with probability p_h

    State s is the capital, action a the stake, 1 … min(s, goal - s); V(s) is the probability of reaching
    the goal. Stake 0 is illegal, so that every policy ends; stay = True allows it. At p_h < 1/2 bold play
    is optimal: V*(50) = p_h, V*(25) = p_h^2, V*(75) = p_h + (1 - p_h) p_h; at p_h >= 1/2 timid play: V* of
    the gambler's ruin. The start is uniform over 1 … goal - 1.
    Source: Sutton & Barto (2018), example 4.3 (p_h = 0.4, goal 100).

    >>> gambler()
    MDP(S=101, A=51, gamma=1, 2 terminal, dense)
    """
    probability("p_h", p_h)
    count("goal", goal, 2)
    S, A = goal + 1, goal // 2 + 1
    s, a = np.meshgrid(np.arange(S), np.arange(A), indexing="ij")
    legal = (a <= np.minimum(s, goal - s)) & ((a > 0) | stay)
    terminal = np.isin(np.arange(S), (0, goal))
    i, k = np.nonzero(legal & ~terminal[:, None])
    P, R = np.zeros((S, A, S)), np.zeros((S, A, S))
    P[i, k, i + k] += p_h
    P[i, k, i - k] += 1 - p_h
    R[:-1, :, goal] = 1.0
    names = Names(tuple(map(str, range(S))), tuple(f"stake {k}" for k in range(A)))
    return MDP(P, R, gamma, terminal=terminal, legal=legal, names=names)


def count(name: str, n: Any, least: int) -> None:
    """Refuse a count that is not a whole number of at least `least`."""
    if int(n) != n or n < least:
        raise ModelError(f"{name} is {n}; a whole number of at least {least} is expected")


def probability(name: str, p: float) -> None:
    """Refuse a number outside [0, 1]."""
    if not 0 <= p <= 1:
        raise ModelError(f"{name} is {p}; a probability in [0, 1] is expected")
