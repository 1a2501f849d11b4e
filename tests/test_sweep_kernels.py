"""The sweeps against the same sweeps written as plain loops over lists, to the last bit."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bits import plain_and_compiled
from models import random_mdp
from rational import distance, exact_optimal_values

from tabrl import MDP, sweep_kernels
from tabrl.ordering import Rows, rows_of

kernels: Any = sweep_kernels  # called with tuples of arguments
Table = list[list[list[tuple[int, float]]]]  # next states and probabilities of each state and action


class Literal:
    """A model as lists, and every sweep of the module as its docstring states it."""

    def __init__(self, rows: Rows, V: Any) -> None:
        A, (self.S, self.gamma) = int(rows.A), (len(V), float(rows.gamma))
        ahead = list(zip(rows.indices.tolist(), rows.p.tolist(), strict=True))
        at = rows.indptr.tolist()
        self.next: Table = [[ahead[at[k] : at[k + 1]] for k in range(s * A, s * A + A)] for s in range(self.S)]
        self.r = rows.r.reshape(self.S, A).tolist()
        self.V, self.action, self.done = [float(v) for v in V], [0] * self.S, 0

    def q(self, s: int, a: int) -> float:
        total = 0.0
        for x, p in self.next[s][a]:
            total += p * self.V[x]
        return float(self.r[s][a] + self.gamma * total)

    def best(self, s: int) -> tuple[float, int]:
        Q = [self.q(s, a) for a in range(len(self.r[s]))]
        return max(Q), Q.index(max(Q))

    def jacobi(self, lo: int, hi: int) -> list[tuple[float, int]]:
        return [self.best(s) for s in range(lo, hi)]

    def improve(self, lo: int, hi: int) -> float:
        change = 0.0
        for s in range(lo, hi):
            old = self.V[s]
            self.V[s], self.action[s] = self.best(s)
            change = max(change, abs(self.V[s] - old))
            self.done += len(self.r[s])
        return change

    def evaluate(self, lo: int, hi: int) -> float:
        change = 0.0
        for s in range(lo, hi):
            old, self.V[s] = self.V[s], self.q(s, self.action[s])
            change = max(change, abs(self.V[s] - old))
            self.done += 1
        return change

    def enter(self, lo: int, hi: int) -> None:
        for s in range(lo, hi):
            first = [self.entry(s, a) for a in range(len(self.r[s]))]
            self.V[s] = max((v for v in first if v > -math.inf), default=self.V[s])

    def entry(self, s: int, a: int) -> float:
        known = stay = 0.0
        for x, p in self.next[s][a]:
            known, stay = (known + p * self.V[x], stay) if x < s else (known, stay + p)
        if self.gamma * stay >= 1.0:
            return -math.inf
        return float((self.r[s][a] + self.gamma * known) / (1.0 - self.gamma * stay))

    def level(self) -> None:
        shift = (self.best(0)[0] - self.V[0]) / (1.0 - self.gamma)
        self.V = [v + shift for v in self.V]

    def settle(self, lo: int, hi: int, ahead: int, eps: float, rounds: int, sweeps: int, endless: bool) -> None:
        for k in range(rounds):
            if k in (0, 1, 2, 3):
                self.enter(hi, ahead)
            if self.improve(lo, hi) <= eps:
                return
            any(self.evaluate(lo, hi) <= eps for _ in range(sweeps))
            if endless and lo == 0:
                self.level()

    def slide(self, width: int, fresh: bool, eps: float, rounds: int, sweeps: int, endless: bool) -> None:
        entered = 0
        for lo, hi in windows(self.S, width):
            ahead = hi
            if fresh:
                self.enter(entered, hi)
                entered, ahead = hi, min(hi + width // 2, self.S)
            self.settle(lo, hi, ahead, eps, rounds, sweeps, endless)


def windows(S: int, width: int) -> list[tuple[int, int]]:
    """(0, w), (w/2, 3w/2), … until one ends with the last state."""
    starts = range(0, max(S - width, 0) + width // 2, width // 2)
    return [(lo, min(lo + width, S)) for lo in starts]


def written(rows: Rows, kind: Any = np.uint32) -> Any:
    """The same rows in memory that may be written, with whole numbers of another type."""
    types: dict[str, Any] = {"indptr": kind, "indices": kind, "p": np.float64, "r": np.float64}
    changed: Any = {name: np.array(getattr(rows, name), type_) for name, type_ in types.items()}
    return rows._replace(**changed)


def examples() -> Iterator[tuple[str, MDP]]:
    """Random models, and those at the edge."""
    for seed in range(12):
        rng = np.random.default_rng([21, seed])
        yield f"random {seed}", random_mdp(rng, sparse=True, proper=seed % 4 == 3, gamma=1.0 if seed % 4 == 3 else None)
    yield "all terminal", MDP(np.zeros((3, 2, 3)), np.zeros((3, 2)), 0.9, terminal=[1, 1, 1])
    yield "one terminal state", MDP([[[1.0]]], [0], 0.9, terminal=[1])
    yield "one state", MDP([[[1.0], [1.0]]], [[1, 2]], 0.9)
    yield "self-loops only", MDP(np.eye(5)[:, None].repeat(2, 1), np.arange(10.0).reshape(5, 2), 0.5)
    one = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]]
    yield "mostly illegal", MDP(np.eye(4)[:, None].repeat(3, 1), -np.ones((4, 3)), 0.9, legal=one)


MODELS = dict(examples())
each_model = pytest.mark.parametrize("name", MODELS)
each_type = pytest.mark.parametrize("kind", [np.uint32, np.uint64])


def pair(name: str, kind: Any = np.uint32) -> tuple[Any, Any, Any, Literal, np.random.Generator]:
    """Rows, V and actions for the kernels, and the literal sweeps with the same V."""
    mdp, rng = MODELS[name], np.random.default_rng([22, *name.encode()])
    V = np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S))
    rows = written(rows_of(mdp), kind)
    return rows, V.copy(), np.zeros(mdp.S, np.uint32), Literal(rows, V), rng


def u(*numbers: int) -> Any:
    return tuple(np.uint64(n) for n in numbers)


def some_states(rng: np.random.Generator, S: int) -> tuple[int, int]:
    lo, hi = sorted(rng.integers(0, S + 1, 2).tolist())
    return (lo, hi) if lo < hi else (0, S)


def agree(V: Any, actions: Any, literal: Literal) -> None:
    """The same bits; actions of states that no sweep has met are 0 in both."""
    assert V.tolist() == literal.V
    assert actions.tolist() == literal.action


@each_type
@each_model
def test_action_values(name: str, kind: Any) -> None:
    rows, V, _, literal, _ = pair(name, kind)
    for s in range(len(V)):
        for a in range(int(rows.A)):
            q = kernels.action_value(np.uint64(s) * rows.A + np.uint64(a), *rows[1:], V)
            assert q == literal.q(s, a)
            assert math.isinf(q) == (not MODELS[name].legal[s, a])


@each_type
@each_model
def test_jacobi(name: str, kind: Any) -> None:
    rows, V, actions, literal, rng = pair(name, kind)
    lo, hi = some_states(rng, len(V))
    TV, before = np.full(len(V), 7.0), V.copy()
    kernels.jacobi(*u(lo, hi), *rows, V, TV, actions)
    expected = literal.jacobi(lo, hi)
    assert TV[lo:hi].tolist() == [v for v, _ in expected]
    assert actions[lo:hi].tolist() == [a for _, a in expected]
    assert (before == V).all() and (np.delete(TV, range(lo, hi)) == 7.0).all()
    again = np.full(len(V), 7.0)
    kernels.jacobi_policy(*u(lo, hi), *rows, V, again, actions)
    assert (again == TV).all()


@each_type
@each_model
def test_all_action_values(name: str, kind: Any) -> None:
    rows, V, actions, literal, rng = pair(name, kind)
    lo, hi = some_states(rng, len(V))
    A = int(rows.A)
    Q, TV = np.full(len(V) * A, 7.0), np.full(len(V), 7.0)
    kernels.action_values(*u(lo, hi), *rows, V, Q)
    assert Q[lo * A : hi * A].tolist() == [literal.q(s, a) for s in range(lo, hi) for a in range(A)]
    assert (np.delete(Q, range(lo * A, hi * A)) == 7.0).all()
    kernels.largest(*u(lo, hi), rows.A, Q, TV, actions)
    assert list(zip(TV[lo:hi].tolist(), actions[lo:hi].tolist(), strict=True)) == literal.jacobi(lo, hi)
    assert (np.delete(TV, range(lo, hi)) == 7.0).all()


@each_model
def test_jacobi_of_a_policy_that_is_not_the_best(name: str) -> None:
    rows, V, actions, literal, _ = pair(name)
    actions[:] = rows.A - np.uint64(1) - rows.r.reshape(len(V), -1)[:, ::-1].argmax(axis=1).astype(np.uint32)
    TV = np.empty(len(V))
    kernels.jacobi_policy(*u(0, len(V)), *rows, V, TV, actions)
    assert TV.tolist() == [literal.q(s, int(a)) for s, a in enumerate(actions)]


@each_type
@each_model
def test_gauss_seidel_sweeps(name: str, kind: Any) -> None:
    rows, V, actions, literal, rng = pair(name, kind)
    for _ in range(3):
        lo, hi = some_states(rng, len(V))
        assert kernels.improve(*u(lo, hi), *rows, V, actions) == literal.improve(lo, hi)
        agree(V, actions, literal)
        assert kernels.evaluate(*u(lo, hi), *rows, V, actions) == literal.evaluate(lo, hi)
        agree(V, actions, literal)


def test_the_largest_change_is_that_of_any_state() -> None:
    """A change downwards counts, and one that later states do not match."""
    down = written(rows_of(MDP(np.eye(3)[:, None], [0, 0, 0], 0.5)))
    V, actions = np.array([1.0, 8.0, 2.0]), np.zeros(3, np.uint32)
    assert kernels.improve(*u(0, 3), *down, V, actions) == 4.0
    assert kernels.evaluate(*u(0, 3), *down, V, actions) == 2.0


@each_type
@each_model
def test_enter(name: str, kind: Any) -> None:
    rows, V, actions, literal, rng = pair(name, kind)
    lo, hi = some_states(rng, len(V))
    kernels.enter(*u(lo, hi), *rows, V)
    literal.enter(lo, hi)
    agree(V, actions, literal)


@pytest.mark.parametrize("seed", range(10))
def test_an_entered_value_is_optimal_where_every_unknown_step_stays(seed: int) -> None:
    """It solves v = max over a of r + gamma (known + stay v): a model of one state whose known steps end."""
    mdp = random_mdp(np.random.default_rng([23, seed]), sparse=True, gamma=0.9)
    V = np.where(mdp.terminal, 0.0, np.random.default_rng(seed).normal(size=mdp.S))
    P, new = mdp.rows.toarray().reshape(mdp.S, mdp.A, mdp.S), V.copy()
    kernels.enter(*u(0, mdp.S), *written(rows_of(mdp)), new)
    for s in range(mdp.S):
        earlier = new[:s]  # entered just before
        v = 0.0
        for _ in range(400):
            v = max(
                mdp.r[s, a] + 0.9 * (P[s, a, :s] @ earlier + P[s, a, s:].sum() * v)
                for a in np.flatnonzero(mdp.legal[s])
            )
        assert math.isclose(new[s], v, rel_tol=1e-12, abs_tol=1e-12)


def test_a_value_without_a_first_guess_stays() -> None:
    """gamma = 1: state 0 only steps ahead, so nothing known can follow; state 1 reaches state 0 half of the time."""
    walk = MDP([[[0, 1, 0]], [[0.5, 0, 0.5]], [[0, 0, 1]]], [-1, -1, 0], 1.0, terminal=[0, 0, 1])
    V = np.array([5.0, 7.0, 0.0])
    kernels.enter(*u(0, 3), *written(rows_of(walk)), V)
    assert V.tolist() == [5.0, (-1 + 2.5) / 0.5, 0.0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.999])
def test_level_makes_the_bellman_equation_hold_in_state_0(gamma: float) -> None:
    rng = np.random.default_rng(24)
    mdp = random_mdp(rng, S=6, terminal=False, sparse=True, gamma=gamma)
    before = rng.normal(size=6)
    V, literal = before.copy(), Literal(rows_of(mdp), before)
    kernels.level(*written(rows_of(mdp)), V)
    literal.level()
    assert V.tolist() == literal.V
    after = Literal(rows_of(mdp), V)
    assert math.isclose(after.best(0)[0], V[0], rel_tol=1e-9)
    np.testing.assert_allclose(V - before, (V - before)[0], rtol=1e-12)


@each_type
@each_model
@pytest.mark.parametrize("endless", [False, True])
def test_settle(name: str, kind: Any, endless: bool) -> None:
    rows, V, actions, literal, rng = pair(name, kind)
    endless = endless and not MODELS[name].terminal.any()
    for rounds, sweeps, eps in ((1, 0, 0.0), (5, 2, 0.0), (2, 3, 1e-2), (7, 2, 1e-6)):
        lo, hi = some_states(rng, len(V))
        lo, ahead = 0 if endless else lo, int(rng.integers(hi, len(V) + 1))
        literal.done = 0
        literal.settle(lo, hi, ahead, eps, rounds, sweeps, endless)
        assert kernels.settle(*u(lo, hi, ahead), *rows, V, actions, eps, *u(rounds, sweeps), endless) == literal.done
        agree(V, actions, literal)


@each_type
@each_model
@pytest.mark.parametrize("width", [2, 3, 4, 64])
def test_slide(name: str, kind: Any, width: int) -> None:
    rows, V, actions, literal, _ = pair(name, kind)
    endless = not MODELS[name].terminal.any()
    for fresh in (True, False):
        literal.done = 0
        literal.slide(width, fresh, 1e-3, 5, 2, endless)
        done = kernels.slide(np.uint64(width), fresh, *rows, V, actions, 1e-3, *u(5, 2), endless)
        assert done == literal.done
        agree(V, actions, literal)


def test_the_windows_of_the_literal_loop() -> None:
    assert windows(9, 4) == [(0, 4), (2, 6), (4, 8), (6, 9)]
    assert windows(4, 4) == windows(4, 64) == [(0, 4)]
    assert windows(5, 3) == [(0, 3), (1, 4), (2, 5)]


@pytest.mark.parametrize("width", [2, 5, 64])
@pytest.mark.parametrize("seed", range(6))
def test_passes_of_a_narrow_window_end_at_the_optimum(seed: int, width: int) -> None:
    mdp = random_mdp(np.random.default_rng([25, seed]), S=8, sparse=True, gamma=0.9)
    V, actions, rows = np.zeros(8), np.zeros(8, np.uint32), written(rows_of(mdp))
    for k in range(400):
        endless = not mdp.terminal.any() and k < 3
        kernels.slide(np.uint64(width), k == 0, *rows, V, actions, 0.0, *u(10, 5), endless)
    assert distance(V, exact_optimal_values(mdp)) <= Fraction(1e-12) * Fraction(1 + 10 * mdp.R_max)


SCRIPT = """
import numpy as np
from models import random_mdp
from tabrl import sweep_kernels as kernels
from tabrl.ordering import rows_of

def u(*numbers):
    return tuple(np.uint64(n) for n in numbers)

for seed in range(8):
    rng = np.random.default_rng([26, seed])
    mdp = random_mdp(rng, sparse=True)
    V, actions = np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S)), np.zeros(mdp.S, np.uint32)
    S, ends = mdp.S, mdp.terminal.any()
    rows, TV, seen = rows_of(mdp), np.zeros(mdp.S), []
    kernels.jacobi(*u(0, S), *rows, V, TV, actions)
    kernels.jacobi_policy(*u(0, S), *rows, TV, V, actions)
    seen += [TV.copy(), V.copy(), actions.copy()]
    seen += [float(kernels.improve(*u(0, S), *rows, V, actions)), float(kernels.evaluate(*u(1, S), *rows, V, actions))]
    seen += [V.copy()]
    kernels.enter(*u(0, S), *rows, V)
    seen += [V.copy()]
    if not ends:
        kernels.level(*rows, V)
    seen += [V.copy(), int(kernels.settle(*u(0, S - 1, S), *rows, V, actions, 1e-3, *u(4, 2), not ends)), V.copy()]
    seen += [int(kernels.slide(np.uint64(4), True, *rows, V, actions, 1e-3, *u(4, 2), not ends)), V.copy(), actions]
    print(seed, *(x.tobytes().hex() if isinstance(x, np.ndarray) else repr(x) for x in seen))
"""


def test_the_same_bits_plain_and_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    plain, fast = plain_and_compiled(SCRIPT)
    assert len(plain.splitlines()) == 8
    assert plain == fast
