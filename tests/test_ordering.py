"""The order of the sweeps against a literal breadth-first search, and renumbered models against their definition."""

from typing import Any

import numpy as np
import pytest
from models import csr, dense_P, random_mdp

from tabrl import MDP
from tabrl.ordering import Rows, predecessors, renumbered, reverse_breadth_first, rows_of
from tabrl.sliding import sources

each_seed = pytest.mark.parametrize("seed", range(30))


def steps_to(P: Any, source: Any) -> list[float]:
    """Fewest steps from each state into a source, by relaxation; inf where no path leads there."""
    follows = P.max(axis=1) > 0
    steps = np.where(source, 0.0, np.inf)
    for _ in steps:
        ahead = np.where(follows, steps, np.inf).min(axis=1)
        steps = np.minimum(steps, 1 + ahead)
    return [float(n) for n in steps]


def drawn(seed: int) -> tuple[MDP, Any]:
    """A model of at most 16 states that each lead to one or two others, and some sources; perhaps none."""
    rng = np.random.default_rng([31, seed])
    S, A = int(rng.integers(2, 17)), int(rng.integers(1, 3))
    P = np.zeros((S, A, S))
    np.add.at(P, (np.arange(S)[:, None, None], np.arange(A)[:, None], rng.integers(0, S, (S, A, 2))), 0.5)
    ends, legal = rng.random(S) < 0.2, np.ones((S, A), np.bool_)
    legal[:, 1:] = rng.random((S, A - 1)) < 0.5
    P[ends], P[~legal] = 0.0, 0.0
    r = rng.normal(size=(S, A)) * (legal & ~ends[:, None])
    mdp = MDP(csr(P), r, 0.9, terminal=ends, legal=legal)
    return mdp, rng.random(S) < rng.choice([0.0, 0.1, 0.3])


@each_seed
def test_every_state_once_and_the_nearest_first(seed: int) -> None:
    mdp, source = drawn(seed)
    order, steps = reverse_breadth_first(rows_of(mdp), source).tolist(), steps_to(dense_P(mdp), source)
    assert sorted(order) == list(range(mdp.S))
    assert [steps[s] for s in order] == sorted(steps)
    assert order[: source.sum()] == np.flatnonzero(source).tolist()
    never = [s for s in range(mdp.S) if steps[s] == np.inf]
    assert order[mdp.S - len(never) :] == never


@each_seed
def test_a_queue_decides_among_states_of_the_same_distance(seed: int) -> None:
    """Who was found by an earlier state comes earlier."""
    mdp, source = drawn(seed)
    order, steps = reverse_breadth_first(rows_of(mdp), source).tolist(), steps_to(dense_P(mdp), source)
    place, follows = {s: k for k, s in enumerate(order)}, dense_P(mdp).max(axis=1) > 0
    found = [s for s in order if 0 < steps[s] < np.inf]
    by = [min(place[x] for x in np.flatnonzero(follows[s]).tolist() if steps[x] < steps[s]) for s in found]
    assert by == sorted(by)


def test_the_drawn_models_have_lost_states_and_long_ways() -> None:
    steps = [steps_to(dense_P(m), x) for m, x in map(drawn, range(30))]
    assert sum(np.inf in n and 0 in n for n in steps) >= 8
    assert sum(2 in n for n in steps) >= 8


@each_seed
def test_predecessors_list_every_transition_backwards(seed: int) -> None:
    mdp, _ = drawn(seed)
    rows, P = rows_of(mdp), dense_P(mdp)
    start, back = np.zeros(mdp.S + 1, np.uint64), np.empty(len(rows.indices), np.uint32)
    predecessors(rows.A, rows.indptr, rows.indices, start, back)
    for s in range(mdp.S):
        leads = [x for x in range(mdp.S) for a in range(mdp.A) if P[x, a, s] > 0]
        assert sorted(back[start[s] : start[s + 1]].tolist()) == leads
    assert start[mdp.S] == len(back)


def test_a_path_is_ordered_from_its_end() -> None:
    n = 3000
    path = MDP.from_transitions(((s, 0, s + 1, 1.0, -1.0) for s in range(n)), 1.0, terminal=[n], sparse=True)
    order = reverse_breadth_first(rows_of(path), path.terminal)
    assert (order == np.arange(n, -1, -1)).all()


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
@each_seed
def test_renumbered_rows_describe_the_same_model(seed: int, kind: Any) -> None:
    mdp, source = drawn(seed)
    rows = rows_of(mdp)
    rows = rows._replace(indptr=rows.indptr.astype(kind), indices=rows.indices.astype(kind))
    order = np.random.default_rng(seed).permutation(mdp.S).astype(np.uint32)
    for chosen in (order, reverse_breadth_first(rows, source)):
        new = renumbered(rows, chosen)
        P, r = as_arrays(new, mdp.S)
        assert (dense_P(mdp)[chosen][:, :, chosen] == P).all()
        assert (r == np.where(mdp.legal, mdp.r, -np.inf)[chosen]).all()
        assert (new.A, new.gamma) == (rows.A, rows.gamma)
        assert (new.indptr.dtype, new.indices.dtype) == (kind, kind)


def as_arrays(rows: Rows, S: int) -> tuple[Any, Any]:
    """P (S,A,S) and r (S,A) read entry by entry."""
    A = int(rows.A)
    P = np.zeros((S * A, S))
    for k in range(S * A):
        for i in range(int(rows.indptr[k]), int(rows.indptr[k + 1])):
            P[k, rows.indices[i]] += rows.p[i]
    return P.reshape(S, A, S), rows.r.reshape(S, A)


def test_the_model_itself_is_not_changed() -> None:
    mdp, source = drawn(2)
    before = [x.copy() for x in (mdp.csr.indptr, mdp.csr.indices, mdp.csr.data, mdp.r, source)]
    renumbered(rows_of(mdp), reverse_breadth_first(rows_of(mdp), source))
    after = (mdp.csr.indptr, mdp.csr.indices, mdp.csr.data, mdp.r, source)
    assert all((x == y).all() for x, y in zip(before, after, strict=True))


def test_rows_are_views_of_the_model() -> None:
    mdp = random_mdp(np.random.default_rng(1), sparse=True, masked=False, terminal=False, rewards="sa")
    rows = rows_of(mdp)
    assert all(np.shares_memory(x, y) for x, y in zip(rows[1:5], (*indices(mdp), mdp.csr.data, mdp.r), strict=True))
    assert rows.indptr.dtype.kind == rows.indices.dtype.kind == "u"


def indices(mdp: MDP) -> tuple[Any, Any]:
    return mdp.csr.indptr, mdp.csr.indices


def paying(r: Any, ends: Any = None, **keywords: Any) -> list[int]:
    """States that `sources` names for a model with these rewards."""
    S = len(r)
    P = np.eye(S, k=1)[:, None].repeat(np.size(r) // S, axis=1)
    P[-1, :, -1] = 1.0
    P[np.zeros(S, np.bool_) if ends is None else np.array(ends, np.bool_)] = 0.0
    return np.flatnonzero(sources(MDP(P, r, 0.9, terminal=ends, **keywords))).tolist()


def test_terminal_states_are_the_sources_where_every_step_costs() -> None:
    assert paying([-1.0, -2, -1, 0], [0, 0, 0, 1]) == [3]
    assert paying([0.0, 0, 0, 0], [0, 0, 0, 1]) == [3]
    assert paying([-1.0, 0, -1, -1, -1, -1, -1, 0], [0] * 7 + [1]) == [7]  # a free step earns nothing


def test_rare_rewards_are_sources_even_where_episodes_end() -> None:
    assert paying([0.0, 0, 5, 0], [0, 0, 0, 1]) == [2]
    assert paying([0.0, 0, 5, 2, 3, 0, 0, 0], [0] * 7 + [1]) == [2, 4]  # half of the best pay and more


def test_frequent_rewards_are_no_sources_where_episodes_end() -> None:
    assert paying([0.0, 5, 5, 0], [0, 0, 0, 1]) == [3]
    assert paying([0.0, 5, 5, 0, 0, 0, 0, 0], [0] * 7 + [1]) == [1, 2]  # exactly a quarter is rare


def test_without_an_end_the_best_paid_states_are_the_sources() -> None:
    assert paying([1.0, 5, 5, 5]) == [1, 2, 3]
    assert paying([-3.0, -1, -2, -1]) == [1, 3]
    assert paying([0.0, 0, 0, 0]) == [0, 1, 2, 3]


def test_what_an_illegal_action_would_pay_does_not_count() -> None:
    r = [[0.0, 9], [0, 0], [4, 0], [0, 0]]
    assert paying(r, [0, 0, 0, 1]) == [0]
    assert paying(r, [0, 0, 0, 1], legal=[[1, 0], [1, 1], [1, 1], [1, 1]]) == [2]
    assert paying([[-3.0, -3], [-1, -1], [-2, 0]], legal=[[1, 1], [1, 1], [1, 0]]) == [1]


def test_where_everything_has_ended_all_states_are_sources() -> None:
    assert paying([0.0, 0, 0], [1, 1, 1]) == [0, 1, 2]
