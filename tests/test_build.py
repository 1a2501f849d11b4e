"""Models from transition lists, gymnasium tables and action-major arrays."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from models import dense_P, dense_R, mdps, same_model, uniform_policy

from tabrl import MDP, chain
from tabrl.errors import ModelError, ShapeError
from tabrl.types import Names

Table = list[tuple[Any, Any, Any, float, float]]


def transitions(m: MDP) -> Table:
    """List a model's transitions, terminal states left out."""
    P, R = dense_P(m), dense_R(m)
    return [(int(s), int(a), int(x), float(P[s, a, x]), float(R[s, a, x])) for s, a, x in np.argwhere(P > 0)]


@given(mdps(rewards="sas", masked=False), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_model_comes_back_from_its_transitions(m: MDP, random: Any) -> None:
    table = transitions(m)
    random.shuffle(table)
    again = MDP.from_transitions(table, m.gamma, mu=m.mu, terminal=m.terminal, sparse=m.is_sparse)
    if (again.A, again.S) == (m.A, m.S):
        assert same_model(again, m)


@given(mdps(rewards="sas", S=4, A=2), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_split_transitions_add_up(m: MDP, n: int) -> None:
    """n equal parts with the same reward are one transition."""
    table = [(s, a, x, p / n, r) for s, a, x, p, r in transitions(m) for _ in range(n)]
    again = MDP.from_transitions(table, m.gamma, terminal=m.terminal)
    assert np.allclose(dense_P(again), dense_P(m)[:, : again.A], rtol=1e-14, atol=0)
    assert np.allclose(dense_R(again), dense_R(m)[:, : again.A], rtol=1e-13, atol=0)


def test_duplicates_take_the_mean_of_their_rewards() -> None:
    m = MDP.from_transitions([(0, 0, 1, 0.25, 4.0), (0, 0, 1, 0.5, 1.0), (0, 0, 0, 0.25, 8.0)], 0.5, terminal=[1])
    assert m.P[0, 0].tolist() == [0.25, 0.75]
    assert m.R[0, 0].tolist() == [8, 2]
    assert m.r[0, 0] == 0.25 * 4 + 0.5 * 1 + 0.25 * 8


def test_a_single_entry_keeps_its_reward_to_the_last_bit() -> None:
    m = MDP.from_transitions([(0, 0, 1, 0.3, 0.1), (0, 0, 0, 0.7, 0.7)], 0.5, terminal=[1])
    assert m.R[0, 0].tolist() == [0.7, 0.1]


def test_labels_are_numbered_as_they_appear() -> None:
    table: Table = [("home", "walk", "work", 0.5, 1), ("home", "walk", "home", 0.5, 0), ("work", "stay", "end", 1.0, 2)]
    m = MDP.from_transitions(table, 0.9, terminal=["end"], mu={"work": 1.0})
    assert m.names == Names(("home", "work", "end"), ("walk", "stay"))
    assert m.terminal.tolist() == [False, False, True]
    assert m.mu.tolist() == [0, 1, 0]
    assert m.legal.tolist() == [[True, False], [False, True], [True, True]]
    assert m.r.tolist() == [[0.5, 0], [0, 2], [0, 0]]


def test_numbers_keep_their_own_number() -> None:
    m = MDP.from_transitions([(2, 1, 0, 1.0, 5.0), (0, 0, 2, 1.0, 0.0), (1, 0, 1, 1.0, 0.0)], 0.9)
    assert (m.S, m.A, m.names) == (3, 2, Names())
    assert m.P[2, 1, 0] == 1 and m.R[2, 1, 0] == 5
    assert m.legal.tolist() == [[True, False], [True, False], [False, True]]


@pytest.mark.parametrize("terminal", [[1], np.array([False, True]), [False, True], (np.int64(1),)])
def test_terminal_states_as_numbers_or_as_a_mask(terminal: Any) -> None:
    m = MDP.from_transitions([(0, 0, 1, 1.0, 1.0)], 0.9, terminal=terminal)
    assert m.terminal.tolist() == [False, True]


def test_a_mask_of_labelled_states_follows_their_order() -> None:
    m = MDP.from_transitions([("a", "go", "b", 1.0, 1.0)], 0.9, terminal=np.array([False, True]))
    assert m.terminal.tolist() == [False, True] and m.names.states == ("a", "b")


def test_a_transition_of_probability_zero_is_none() -> None:
    m = MDP.from_transitions([(0, 0, 1, 1.0, 1.0), (0, 1, 1, 0.0, 9.0)], 0.9, terminal=[1])
    assert m.legal[0].tolist() == [True, False] and m.R_max == 1


TABLE: Table = [("a", "go", "b", 1.0, 0.0)]
WRONG: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "empty": (ModelError, r"transitions is empty; at least one", lambda: MDP.from_transitions([], 0.9)),
    "short": (ShapeError, r"transitions\[1\] has 4 entries; \(s, a, s_next, probability, reward\)",
              lambda: MDP.from_transitions([(0, 0, 1, 1.0, 0.0), (0, 0, 1, 1.0)], 0.9)),  # type: ignore[list-item]
    "sum": (ModelError, r"P\[s=0, a=0\] sums to 0\.5; .*MDP\.normalised",
            lambda: MDP.from_transitions([(0, 0, 1, 0.5, 0.0)], 0.9, terminal=[1])),
    "negative": (ModelError, r"transitions\[1\] has probability -0\.5 and reward",
                 lambda: MDP.from_transitions([(0, 0, 1, 1.5, 0.0), (0, 0, 0, -0.5, 0.0)], 0.9, terminal=[1])),
    "probability nan": (ModelError, r"probability\[0\] is nan; a finite number",
                        lambda: MDP.from_transitions([(0, 0, 1, np.nan, 0.0)], 0.9, terminal=[1])),
    "reward inf": (ModelError, r"reward\[0\] is inf; a finite number",
                   lambda: MDP.from_transitions([(0, 0, 1, 1.0, np.inf)], 0.9, terminal=[1])),
    "reward text": (ModelError, r"reward has dtype <U",
                    lambda: MDP.from_transitions([(0, 0, 1, 1.0, "x")], 0.9)),  # type: ignore[list-item]
    "dead end": (ModelError, r"transitions\[s='b'\] is missing; .*terminal", lambda: MDP.from_transitions(TABLE, 0.9)),
    "gap": (ModelError, r"transitions\[s=1\] is missing; .*terminal",
            lambda: MDP.from_transitions([(0, 0, 2, 1.0, 0.0)], 0.9, terminal=[2])),
    "negative number": (ModelError, r"transitions\[s\] is -1; numbers from 0, or labels",
                        lambda: MDP.from_transitions([(0, 0, -1, 1.0, 0.0)], 0.9)),
    "unknown end": (ModelError, r"terminal\['c'\] occurs in no transition; the label of a state",
                    lambda: MDP.from_transitions([*TABLE, ("b", "go", "b", 1.0, 0.0)], 0.9, terminal=["c"])),
    "unknown start": (ModelError, r"mu\['c'\] is 1\.0; the label of a state",
                      lambda: MDP.from_transitions(TABLE, 0.9, terminal=["b"], mu={"c": 1.0})),
    "mask length": (ShapeError, r"terminal has shape \(3,\); a boolean mask of shape \(2,\)",
                    lambda: MDP.from_transitions(TABLE, 0.9, terminal=[False, True, True])),
    "no table": (ModelError, r"env is .*no transition table P; .*FrozenLake-v1", lambda: MDP.from_gym(object())),
    "toolbox axes": (ShapeError, r"P has shape \(3, 2, 3\); \(A, S, S\)",
                     lambda: MDP.from_toolbox(np.zeros((3, 2, 3)), [0] * 3, 0.9)),
    "toolbox sizes": (ShapeError, r"P\[1\] has shape \(3, 3\); \(2, 2\) is expected",
                      lambda: MDP.from_toolbox([sp.eye_array(2), sp.eye_array(3)], [0, 0], 0.9)),
    "toolbox duplicates": (ModelError, r"P\[a=0\] has more than one entry at row 0, column 1",
                           lambda: MDP.from_toolbox([sp.coo_array(([1, 1, 1], ([0, 0, 1], [1, 1, 1])))], [0, 0], 0.9)),
    "toolbox sum": (ModelError, r"P\[s=1, a=0\] sums to 0\.5",
                    lambda: MDP.from_toolbox([[[1, 0], [0, 0.5]]], [0, 0], 0.9)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_message(case: str) -> None:
    kind, pattern, wrong = WRONG[case]
    with pytest.raises(kind, match=pattern) as caught:
        wrong()
    assert type(caught.value) is kind and "; " in str(caught.value)


def make(name: str, **keywords: Any) -> Any:
    import gymnasium

    return gymnasium.make(name, **keywords)


def check_against_table(m: MDP, env: Any) -> None:
    """Every entry of the environment's own table is in the model, and nothing else."""
    table, end = env.unwrapped.P, env.observation_space.n
    for s in range(end):
        if m.terminal[s]:
            continue
        for a in range(m.A):
            P, paid = np.zeros(m.S), np.zeros(m.S)
            for p, x, r, over in table[s][a]:
                target = end if over and not m.terminal[x] else x
                P[target] += p
                paid[target] += p * r
            assert np.allclose(m.P[s, a], P, rtol=0, atol=1e-15), (s, a)
            assert np.allclose(m.P[s, a] * m.R[s, a], paid, rtol=1e-12, atol=1e-15), (s, a)


@pytest.mark.parametrize(("name", "keywords", "S", "A", "ends"), [
    ("FrozenLake-v1", {"map_name": "4x4"}, 16, 4, [5, 7, 11, 12, 15]),
    ("FrozenLake-v1", {"map_name": "4x4", "is_slippery": False}, 16, 4, [5, 7, 11, 12, 15]),
    ("FrozenLake-v1", {"map_name": "8x8"}, 64, 4, [19, 29, 35, 41, 42, 46, 49, 52, 54, 59, 63]),
    ("CliffWalking-v1", {}, 48, 4, [47]),
    ("CliffWalkingSlippery-v1", {}, 48, 4, [47]),
    ("Taxi-v4", {}, 501, 6, [500]),
])  # fmt: skip
def test_gymnasium_tables(name: str, keywords: dict[str, Any], S: int, A: int, ends: list[int]) -> None:
    env = make(name, **keywords)
    m = MDP.from_gym(env, 0.9)
    assert (m.S, m.A, m.gamma) == (S, A, 0.9)
    assert np.flatnonzero(m.terminal).tolist() == ends
    assert np.array_equal(m.mu[: env.observation_space.n], env.unwrapped.initial_state_distrib)
    check_against_table(m, env)


def test_frozen_lake_merges_duplicates() -> None:
    m = MDP.from_gym(make("FrozenLake-v1"))
    assert m.gamma == 1.0
    assert m.P[0, 0, 0] == pytest.approx(2 / 3)  # left and up both stay in the corner
    assert m.P[14, 2, 15] == pytest.approx(1 / 3) and m.R[14, 2, 15] == 1.0


def test_cliff_walking_pays_for_the_fall() -> None:
    m = MDP.from_gym(make("CliffWalking-v1"))
    assert m.P[36, 1, 36] == 1 and m.r[36, 1] == -100  # right of the start is the cliff
    assert m.P[35, 2, 47] == 1 and m.r[35, 2] == -1


def test_keywords_override_the_environment() -> None:
    mu = np.eye(16)[14]
    assert MDP.from_gym(make("FrozenLake-v1"), mu=mu).mu.tolist() == mu.tolist()


def test_an_end_that_is_also_passed_through() -> None:
    """1 is entered with and without an end; 2 is entered with an end, and from 1 without: both go on."""
    over, on = True, False
    env = SimpleNamespace(P={
        0: {0: [(0.25, 1, 1.0, over), (0.25, 1, 2.0, on), (0.5, 2, 4.0, over)]},
        1: {0: [(1.0, 2, 8.0, on)]},
        2: {0: [(1.0, 3, 16.0, over)]},
        3: {0: [(1.0, 3, 0.0, over)]},
    })  # fmt: skip
    env.unwrapped = env
    m = MDP.from_gym(env)
    assert m.terminal.tolist() == [False, False, False, True, True]
    assert m.P[0, 0].tolist() == [0, 0.25, 0, 0, 0.75]
    V = chain.evaluate(chain.induce(m, uniform_policy(m)))
    assert V.tolist() == [0.25 * 1 + 0.25 * (2 + 8 + 16) + 0.5 * 4, 8 + 16, 16, 0, 0]


@given(mdps(sparse=False, masked=False))
@settings(max_examples=50, deadline=None)
def test_toolbox_arrays_dense_and_sparse(m: MDP) -> None:
    P, R = np.swapaxes(m.P, 0, 1), np.swapaxes(m.R, 0, 1) if m.R.ndim == 3 else m.R
    keywords = {"mu": m.mu, "terminal": m.terminal}
    assert same_model(MDP.from_toolbox(P, R, m.gamma, **keywords), m)
    sparse = replace(
        m, P=sp.csr_array(m.P.reshape(-1, m.S)), R=sp.csr_array(m.R.reshape(-1, m.S)) if m.R.ndim == 3 else m.R
    )
    listed = [sp.csr_array(p) for p in P]
    forms: list[Any] = [listed, [sp.coo_array(p) for p in P], [sp.csr_matrix(p) for p in P]]
    for form in forms:
        assert same_model(MDP.from_toolbox(form, R, m.gamma, **keywords), sparse)
    if R.ndim == 3:
        assert same_model(MDP.from_toolbox(listed, [sp.csr_array(x) for x in R], m.gamma, **keywords), sparse)


def test_toolbox_example() -> None:
    """The example of pymdptoolbox's documentation."""
    P, R = [[[0.5, 0.5], [0.8, 0.2]], [[0, 1], [0.1, 0.9]]], [[5, 10], [-1, 2]]
    m = MDP.from_toolbox(P, R, 0.9)
    assert m.P[0, 1].tolist() == [0, 1] and m.P[1, 0].tolist() == [0.8, 0.2]
    assert m.r.tolist() == R
