"""Reachability and end components, against their definitions."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from models import dense_P, generators, mdps, random_policy

from tabrl import MDP, graph

SETTINGS = settings(max_examples=120, deadline=None)


def stays(P: Any, use: Any, members: set[int]) -> dict[int, list[int]]:
    """Actions of each member that never leave the set."""
    outside = [x for x in range(len(P)) if x not in members]
    return {s: [int(a) for a in np.flatnonzero(use[s]) if not P[s, a, outside].any()] for s in members}


def strongly_connected(P: Any, actions: dict[int, list[int]]) -> bool:
    reach = {s: {s} for s in actions}
    for _ in actions:
        for s, seen in reach.items():
            seen |= {int(x) for y in list(seen) for a in actions[y] for x in np.flatnonzero(P[y, a])} - ({s} - seen)
    return all(seen >= set(actions) for seen in reach.values())


def brute_force(P: Any, use: Any) -> list[set[int]]:
    """Maximal sets that have an inner action everywhere and are strongly connected by inner actions."""
    states = [s for s in range(len(P)) if use[s].any()]
    subsets = (set(c) for n in range(len(states), 0, -1) for c in itertools.combinations(states, n))
    found: list[set[int]] = []
    for members in subsets:
        actions = stays(P, use, members)
        if all(actions.values()) and strongly_connected(P, actions) and not any(members <= old for old in found):
            found.append(members)
    return found


@given(mdps(S=5, A=2), st.booleans(), generators())
@SETTINGS
def test_end_components_are_the_maximal_ones(m: MDP, restrict: bool, rng: np.random.Generator) -> None:
    allowed = rng.random((m.S, m.A)) < 0.7 if restrict else None
    thin = MDP(thinned(m, rng), np.zeros(m.S), 0.9, terminal=m.terminal, legal=m.legal)
    use = thin.legal & ~thin.terminal[:, None] & (True if allowed is None else allowed)
    component, inside = graph.end_components(thin, allowed)
    P = dense_P(thin)
    expected = brute_force(P, use)
    found = [set(np.flatnonzero(component == k).tolist()) for k in range(component.max(initial=-1) + 1)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    for s in range(thin.S):
        members = next((c for c in expected if s in c), set())
        assert np.flatnonzero(inside[s]).tolist() == (stays(P, use, members)[s] if members else [])


def thinned(m: MDP, rng: np.random.Generator) -> Any:
    """A sparser P, deterministic for two thirds of the actions, so that there is something to find."""
    P = dense_P(m)
    one = np.eye(m.S)[rng.integers(0, m.S, (m.S, m.A))]
    return np.where((rng.random((m.S, m.A)) < 0.67)[:, :, None] & (P.sum(2) > 0)[:, :, None], one, P)


def test_end_components_by_hand() -> None:
    P = np.zeros((5, 2, 5))
    P[0, 0, 1] = P[1, 0, 0] = 1  # 0 and 1 form a cycle
    P[0, 1, [2, 1]] = 0.5  # leaves it by chance
    P[1, 1, 2] = 1
    P[2, 0, 3] = P[2, 1, 2] = 1  # 2 can stay alone
    P[3, :, 4] = 1
    m = MDP(P, np.zeros(5), 1.0, terminal=[0, 0, 0, 0, 1])
    component, inside = graph.end_components(m)
    assert component.tolist() == [0, 0, 1, -1, -1]
    assert inside.tolist() == [[True, False], [True, False], [False, True], [False, False], [False, False]]


@pytest.mark.parametrize("sparse", [False, True])
def test_recurrent_classes(sparse: bool) -> None:
    P = np.zeros((6, 6))
    P[0, 1] = P[1, 0] = 1  # a class of period 2
    P[2, [0, 3]] = 0.5  # passing
    P[3, 3] = 1
    P[4, 5] = 1  # leads to 5, whose row is zero
    classes, n = graph.recurrent_classes(sp.csr_array(P) if sparse else P)
    assert classes.tolist() == [0, 0, -1, 1, -1, -1] and n == 2


@given(mdps(S=6), generators())
@SETTINGS
def test_reachable_is_the_transitive_closure(m: MDP, rng: np.random.Generator) -> None:
    start, pi = rng.random(m.S) < 0.3, random_policy(rng, m)
    P = dense_P(m) * (rng.random((m.S, m.A, m.S)) < 2)
    for policy, weight in ((None, m.legal * 1.0), (pi, pi)):
        step = (np.einsum("sa,sax->sx", weight, P) > 0) | np.eye(m.S, dtype=bool)
        closure = np.linalg.matrix_power(step.astype(float), m.S) > 0
        expected = closure[start].any(0) if start.any() else np.zeros(m.S, bool)
        assert graph.reachable(m, start, policy).tolist() == expected.tolist()


@given(mdps(S=6, A=3), st.booleans(), generators())
@SETTINGS
def test_distance_to_is_the_shortest_path(m: MDP, restrict: bool, rng: np.random.Generator) -> None:
    target = rng.random(m.S) < 0.3
    allowed = rng.random((m.S, m.A)) < 0.6 if restrict else None
    P = np.where((m.legal & (True if allowed is None else allowed))[:, :, None], dense_P(m), 0.0)
    distance, action = graph.distance_to(m, target, allowed)
    expected = np.where(target, 0, -1)
    for d in range(1, m.S + 1):
        closer: Any = (P[:, :, expected == d - 1] > 0).any(2)
        new = closer.any(1) & (expected < 0)
        expected[new] = d
        assert action[new].tolist() == closer[new].argmax(1).tolist()
    assert distance.tolist() == expected.tolist()
    assert ((action < 0) == (expected <= 0)).all()
