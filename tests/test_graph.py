"""Reachability and end components, against their definitions."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from models import dense_P, generators, mdps, random_policy
from scipy.sparse.csgraph import connected_components

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


# Large models


def sparse_model(rng: np.random.Generator) -> MDP:
    """Up to 60 states with a few successors each, mostly near, so that components are many and of all sizes."""
    S, A = int(rng.integers(20, 60)), int(rng.integers(1, 4))
    P = np.zeros((S, A, S))
    for s in range(S):
        for a in range(A):
            to = (s + rng.integers(-3, 4, int(rng.integers(1, 4)))) % S if rng.random() < 0.9 else rng.integers(0, S, 2)
            P[s, a, to] = 1.0
    ends = np.arange(S) == S - 1
    P[ends] = 0.0
    legal = rng.random((S, A)) < 0.8
    legal[:, 0] = True
    return MDP.normalised(np.where(legal[:, :, None], P, 0.0), np.zeros(S), 1.0, terminal=ends, legal=legal)


def literal_end_components(m: MDP, allowed: Any) -> list[tuple[int, ...]]:
    """Drop actions that leave their strongly connected component, one layer at a time, until none does."""
    P, inside = dense_P(m) > 0, m.legal & ~m.terminal[:, None] & allowed
    while True:
        step = (P & inside[:, :, None]).any(1) | np.eye(m.S, dtype=bool)
        reach = np.linalg.matrix_power(step.astype(float), m.S) > 0
        together = reach & reach.T & inside.any(1)
        stays = inside & ~(P & ~together[:, None, :]).any(2)
        if (stays == inside).all():
            return sorted({tuple(np.flatnonzero(together[s]).tolist()) for s in np.flatnonzero(inside.any(1))})
        inside = stays


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_searches_of_medium_models(seed: int, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """End components, distances and reachable states by the literal algorithm; compiled and plain."""
    monkeypatch.setattr(graph, "SMALL", 10**9 if plain else 0)
    rng = np.random.default_rng(seed)
    m = sparse_model(rng)
    allowed = rng.random((m.S, m.A)) < (1.0 if seed % 2 else 0.8)
    component, inside = graph.end_components(m, allowed)
    expected = literal_end_components(m, allowed)
    found = [tuple(np.flatnonzero(component == k).tolist()) for k in range(component.max(initial=-1) + 1)]
    assert sorted(found) == expected
    P = dense_P(m) > 0
    for s in range(m.S):
        stays = (component[s] >= 0) & m.legal[s] & allowed[s] & ~P[s][:, component != component[s]].any(1)
        assert inside[s].tolist() == stays.tolist()
    target = rng.random(m.S) < 0.1
    distance, action = graph.distance_to(m, target, allowed)
    layers = np.where(target, 0, -1)
    for d in range(1, m.S):
        closer = (P & (m.legal & allowed)[:, :, None])[:, :, layers == d - 1].any(2)
        new = closer.any(1) & (layers < 0)
        layers[new] = d
        assert action[new].tolist() == closer[new].argmax(1).tolist()
    assert distance.tolist() == layers.tolist()
    step = P.any(1) | np.eye(m.S, dtype=bool)
    closure = np.linalg.matrix_power(step.astype(float), m.S) > 0
    assert graph.reachable(m, target).tolist() == closure[target].any(0).tolist()


def counting(name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls of a search, in a list that grows."""
    calls, search = [], getattr(graph, name)

    def run(*args: Any) -> Any:
        calls.append(name)
        return search(*args)

    monkeypatch.setattr(graph, name, run)
    return calls


def test_a_long_walk_takes_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """200,000 states between two ends: a round for each layer would take an hour."""
    n = 200_000
    i = np.arange(1, n + 1)
    P = sp.csr_array((np.full(2 * n, 0.5), (np.r_[i, i], np.r_[i - 1, i + 1])), shape=(n + 2, n + 2))
    walk = MDP(P, np.zeros(n + 2), 1.0, terminal=np.isin(np.arange(n + 2), [0, n + 1]))
    rounds = counting("strong", monkeypatch)
    component, inside = graph.end_components(walk)
    assert (component == -1).all() and not inside.any() and len(rounds) == 1
    distance, action = graph.distance_to(walk, walk.terminal)
    assert (distance == np.minimum(np.arange(n + 2), n + 1 - np.arange(n + 2))).all()
    assert (action == np.where(walk.terminal, -1, 0)).all()
    assert graph.reachable(walk, np.arange(n + 2) == 7).all()
    assert graph.breadth_first(walk.csr, walk.terminal)[:4].tolist() == [0, n + 1, 1, n]


def test_many_rings_take_two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 rings of five, each with a way to the next: every ring is a component of its own."""
    n = 100_000
    s = np.arange(n)
    P = sp.csr_array(
        (np.ones(2 * n), (np.r_[2 * s, 2 * s + 1], np.r_[s - s % 5 + (s + 1) % 5, np.minimum(s - s % 5 + 5, n)])),
        shape=(2 * n + 2, n + 1),
    )
    rings = MDP(P, np.zeros(n + 1), 1.0, terminal=np.arange(n + 1) == n)
    rounds = counting("strong", monkeypatch)
    component, inside = graph.end_components(rings)
    assert len(rounds) <= 3 and component[n] == -1
    assert (component[:n].reshape(-1, 5) == component[:n:5, None]).all() and len(set(component[:n])) == n // 5
    assert (inside[:n] == [True, False]).all()


@SETTINGS
@given(mdps())
def test_strong_components_are_numbered_against_the_transitions(mdp: MDP) -> None:
    """The components are those of SciPy; whatever follows a state has no larger number."""
    use = mdp.legal.ravel() & (np.arange(mdp.S * mdp.A) % 3 > 0)
    label = graph.strong_components(mdp.csr, use)
    row, column = mdp.csr.nonzero()
    row, column = row[use[row]] // mdp.A, column[use[row]]
    assert (label[row] >= label[column]).all()
    pairs = sp.csr_array((np.ones(len(row)), (row, column)), shape=(mdp.S, mdp.S))
    n, same = connected_components(pairs, connection="strong")
    assert len(set(zip(label.tolist(), same.tolist(), strict=True))) == n == label.max() + 1
