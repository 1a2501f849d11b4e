"""Models whose free end components are single states, and the way back to the original model.

In a free component a policy can go anywhere for nothing, so all of it is worth the same: the best of the actions that
leave, or 0 for staying. Where a component has more such actions than a table should have columns, the choice is made
in several steps: the state leads to nodes, these to others, and the last of them own the actions.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl.bellman import optimality
from tabrl.durations import quickest
from tabrl.graph import distance_to
from tabrl.mdp import MDP
from tabrl.types import B, F, I

COLUMNS = 4  # times as many entries as the original table may be spent before choices are made in several steps
MANY = 3000  # states from which on the way to the owner is not just short but quick
SMALL = 10_000  # entries that are always allowed


class Quotient(NamedTuple):
    """A model whose free end components are single states, and the way back to the original."""

    mdp: MDP  # the collapsed model; its last state is the end reached by staying, if anything collapsed
    state: I  # (S,) number of each original state in it
    inside: B  # (S,A) original actions that stay inside a collapsed component
    row: I  # (S',A') original row s·A+a of each action; -1 for staying and illegal ones; -2-x where it leads to node x


class Choices(NamedTuple):
    """Where the actions that leave are placed: action[i] in row place[i]; node[j] is chosen in row above[j]."""

    place: I
    above: I
    node: I
    nodes: int  # how many, with those that stand for original states


def collapse(mdp: MDP, component: I, inside: B) -> Quotient:
    """Build the quotient: a component keeps the actions that leave it, and gains one that stays for 0."""
    A = mdp.A
    state = numbered(component)
    n = int(state.max()) + 1
    leaving = np.flatnonzero((mdp.legal & ~inside & ~mdp.terminal[:, None]).ravel())
    leaving = leaving[np.argsort(state[leaving // A], kind="stable")]
    owner = state[leaving // A]
    most = int(np.bincount(owner, minlength=1).max())
    fan = columns(mdp, n, most)
    choices = placed(owner, n, fan)
    width, end = fan + 1, choices.nodes
    row = np.full((end + 1) * width, -1)
    row[choices.place], row[choices.above] = leaving, -2 - choices.node
    free = np.unique(state[component >= 0])
    legal = row != -1
    legal[free * width] = True
    to = np.concatenate([choices.above, free * width])
    P = selected(mdp, leaving, choices.place, state, (end + 1) * width, end + 1)
    sure = sp.csr_array((np.ones(len(to)), (to, np.append(choices.node, np.full(len(free), end)))), shape=P.shape)
    r = np.zeros((end + 1) * width)
    r[choices.place] = mdp.r.ravel()[leaving]
    terminal = np.zeros(end + 1, np.bool_)
    terminal[state[mdp.terminal]] = terminal[end] = True
    shape = end + 1, width
    model = MDP(P + sure, r.reshape(shape), 1.0, terminal=terminal, legal=legal.reshape(shape))
    return Quotient(model, state, inside, row.reshape(shape))


def columns(mdp: MDP, n: int, most: int) -> int:
    """How many actions a state of the quotient gets: as many as leave, unless the table of n states grows too large."""
    return most if (n + 1) * (most + 1) <= max(SMALL, COLUMNS * mdp.S * mdp.A) else max(mdp.A, 3)


def numbered(component: I) -> I:
    """Number the states of the quotient: first the components, then what lies outside, in order.

    >>> numbered(np.array([-1, 0, 0, -1]))
    array([1, 0, 0, 2])
    """
    n = int(component.max(initial=-1)) + 1
    outside = component < 0
    return np.where(outside, n - 1 + np.cumsum(outside), component)


def placed(owner: I, n: int, fan: int) -> Choices:
    """Place the actions of each owner (sorted, of n), at most `fan` in a row of columns 1, …, fan.

    >>> placed(np.array([0, 0, 0, 1]), 2, 2)  # owner 0 chooses node 2 or 3, then an action
    Choices(place=array([ 7,  8, 10,  4]), above=array([1, 2]), node=array([2, 3]), nodes=4)
    """
    width = fan + 1
    item, first = np.arange(len(owner)), True
    place, above, node = np.full(len(owner), -1), [], []
    while True:
        slot = np.arange(len(owner)) - np.searchsorted(owner, owner)
        many = np.bincount(owner, minlength=n)[owner] > fan
        new = many & (slot % fan == 0)
        at = np.where(many, n - 1 + np.cumsum(new), owner)
        where = at * width + 1 + slot % fan
        if first:
            place[item] = where
        else:
            above.append(where)
            node.append(item)
        if not many.any():
            break
        item, owner, first = at[new], owner[new], False
        n += len(item)
    none = np.empty(0, np.int64)
    return Choices(place, np.concatenate([none, *above]), np.concatenate([none, *node]), n)


def selected(mdp: MDP, leaving: I, place: I, state: I, rows: int, columns: int) -> "sp.csr_array":
    """Put the transitions of rows `leaving` into rows `place`, to the states of the quotient."""
    taken = mdp.csr[leaving]
    row = np.repeat(place, np.diff(taken.indptr))
    return sp.csr_array((taken.data, (row, state[taken.indices])), shape=(rows, columns))


def lift(mdp: MDP, q: Quotient, V: F, actions: I) -> tuple[F, I, B]:
    """Carry values and actions of the quotient back: (V (S,), actions (S,), staying (S,) mask).

    In a collapsed component the state that owns the chosen action takes it, the others walk to it.
    """
    S, A = mdp.S, mdp.A
    chosen = q.row[np.arange(q.mdp.S), actions]
    while (chosen <= -2).any():  # down to the node that owns the action
        chosen = np.where(chosen <= -2, chosen[np.maximum(-2 - chosen, 0)], chosen)
    chosen = chosen[q.state]  # (S,) original row, or -1
    out = np.where(chosen >= 0, chosen % A, np.argmax(mdp.legal, axis=1))
    inner = q.inside.any(axis=1)
    staying = inner & (chosen < 0)
    out[staying] = np.argmax(q.inside[staying], axis=1)
    owner = np.zeros(S, np.bool_)
    owner[chosen[inner & ~staying] // A] = True
    distance, walk = distance_to(mdp, owner, q.inside)
    if mdp.S > MANY and (distance > 0).any():
        walk = quickest(mdp, q.inside, owner, distance, walk)
    walking = inner & ~staying & ~owner
    out[walking] = walk[walking]
    return V[q.state], out, staying


def on_nodes(q: Quotient, V: F) -> F:
    """Values of the quotient from those of the original model: a node is worth the best of what it leads to."""
    n = int(q.state.max()) + 1
    nodes = np.arange(n, q.mdp.S - 1)
    Vq = np.zeros(q.mdp.S)
    Vq[q.state], Vq[nodes] = V, -np.inf
    old, best = np.full(len(nodes), np.inf), Vq[nodes]
    while not np.array_equal(old, best):
        old, best = best, optimality(q.mdp, Vq)[nodes]
        Vq[nodes] = best
    return Vq
