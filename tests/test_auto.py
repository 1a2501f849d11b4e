"""What "auto" chooses for which model: the choice is documented, and every choice is certified."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from test_certified import renamed

from tabrl import MDP, bellman, choice, dp, envs
from tabrl._jit import compiled
from tabrl.choice import Attempt, mixing_rate, plan, remaining
from tabrl.errors import NotConverged
from tabrl.types import Improvement, Sweep
from tabrl.undiscounted import proper_actions

MIXING, ALONG, SURE = "modified_policy_iteration", "gauss_seidel_policy_iteration", "policy_iteration"
TOL = 1e-6
with_numba = pytest.mark.skipif(not compiled(), reason="without numba the loops of Gauss-Seidel are left out")


def dense(S: int, gamma: float) -> MDP:
    """Every action can lead everywhere."""
    rng = np.random.default_rng(71)
    return MDP(rng.dirichlet(np.ones(S), (S, 2)), rng.normal(size=(S, 2)), gamma)


def forest(S: int, gamma: float) -> MDP:
    """`envs.forest` stored sparse."""
    small = envs.forest(S, gamma=gamma)
    return MDP(sp.csr_array(small.P.reshape(2 * S, S)), small.r, gamma)


def walk(n: int, gamma: float, *, ends: bool = False) -> MDP:
    """Symmetric random walk with one action: the right half pays; or both ends are terminal, and the right one pays."""
    s = np.arange(n)
    row, column = np.concatenate([s, s]), np.concatenate([np.maximum(s - 1, 0), np.minimum(s + 1, n - 1)])
    terminal = ends & ((s == 0) | (s == n - 1))
    P = sp.csr_array((np.where(terminal[row], 0.0, 0.5), (row, column)), shape=(n, n))
    return MDP(P, 0.5 * (s == n - 2) if ends else s >= n // 2, gamma, terminal=terminal)


def rooms(n: int, gamma: float) -> MDP:
    """Two rooms of n x n cells, one door, four slippery moves; each step into the far corner pays; nothing ends."""
    height, width = n, 2 * n + 1
    wall = np.zeros((height, width), np.bool_)
    wall[:, n] = np.arange(n) != n // 2
    number = np.where(wall, -1, np.cumsum(~wall).reshape(wall.shape) - 1)
    cells, S, moves = np.argwhere(~wall), int((~wall).sum()), np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
    land = []
    for move in moves:
        there = np.clip(cells + move, 0, [height - 1, width - 1])
        hit = number[tuple(there.T)] < 0
        land.append(np.where(hit, np.arange(S), number[tuple(there.T)]))
    row = np.concatenate([4 * np.arange(S) + a for a in range(4) for _ in range(3)])
    column = np.concatenate([land[(a + turn) % 4] for a in range(4) for turn in (0, 1, -1)])
    p = np.concatenate([np.full(S, share) for _ in range(4) for share in (0.8, 0.1, 0.1)])
    P = sp.csr_array((p, (row, column)), shape=(4 * S, S))
    return MDP(P, P[:, [S - 1]].toarray().reshape(S, 4), gamma)


EXAMPLES: dict[str, tuple[Callable[[], MDP], str]] = {
    "small": (lambda: envs.slippery_grid(20, gamma=0.99), SURE),
    "dense": (lambda: dense(600, 0.99), MIXING),
    "dense, slow discount": (lambda: dense(600, 0.999), MIXING),
    "garnet": (lambda: envs.garnet(np.random.default_rng(72), 3000, 4, 5, gamma=0.99, sparse=True), MIXING),
    "grid": (lambda: envs.slippery_grid(50, gamma=0.99), ALONG),
    "grid, fast discount": (lambda: envs.slippery_grid(50, gamma=0.5), ALONG),
    "grid, slow discount": (lambda: envs.slippery_grid(50, gamma=0.9999), ALONG),
    "forest": (lambda: forest(1000, 0.99), MIXING),
    "rooms, fast discount": (lambda: rooms(25, 0.8), ALONG),
    "rooms": (lambda: rooms(25, 0.99), ALONG),
    "rooms, slow discount": (lambda: rooms(25, 0.9999), ALONG),
    "walk without drift": (lambda: walk(2000, 0.9999), SURE),
    "grid, no discount": (lambda: envs.slippery_grid(40, gamma=1.0), ALONG),
    "walk to both ends, no discount": (lambda: walk(1000, 1.0, ends=True), SURE),
}


@with_numba
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_method_chosen_and_certified(name: str) -> None:
    build, expected = EXAMPLES[name]
    mdp = build()
    x = dp.solve(mdp, tol=TOL)
    assert (x.method, x.status) == (expected, "certified")
    assert x.bound <= TOL
    new = np.random.default_rng(73).permutation(mdp.S)
    y = dp.solve(renamed(mdp, new) if mdp.is_sparse else shuffled(mdp, new), tol=TOL)
    assert y.status == "certified"
    assert abs(x.V - y.V[new]).max() <= x.bound + y.bound


def shuffled(mdp: MDP, new: Any) -> MDP:
    """The same dense model with state s called new[s]."""
    old = np.argsort(new)
    return MDP(mdp.P[old][:, :, old], mdp.R[old], mdp.gamma, terminal=mdp.terminal[old])


def test_without_numba_the_loops_of_gauss_seidel_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABRL_NUMBA", "0")
    grid = envs.slippery_grid(30, gamma=0.9)
    assert [x.name for x in plan(grid)] == [MIXING, SURE, SURE]
    assert dp.solve(grid, tol=TOL).status == "certified"
    monkeypatch.setattr(choice, "PLAIN", 800)
    assert plan(grid) == [Attempt(MIXING, 25, math.inf)]
    assert [x.name for x in plan(envs.slippery_grid(20, gamma=0.9))] == [SURE, ALONG]


@with_numba
def test_what_is_tried_in_which_order() -> None:
    assert [x.name for x in plan(envs.slippery_grid(22, gamma=0.9))] == [SURE, ALONG]
    assert [x.name for x in plan(envs.slippery_grid(23, gamma=0.9))] == [ALONG, SURE, SURE]
    assert [x.name for x in plan(dense(600, 0.9))] == [MIXING, ALONG, SURE, SURE]
    assert [x.name for x in plan(envs.slippery_grid(23, gamma=1.0))] == [ALONG, SURE, SURE]
    for build, _ in EXAMPLES.values():
        sure = [x for x in plan(build()) if x.name == SURE]
        assert all(x.patience == math.inf for x in sure)
        assert [x.follows for x in sure] == [True, False][-len(sure) :]


def test_a_method_that_gets_nowhere_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped at its first record after `least`, and what the next method found is the answer."""
    drawn: list[int] = []

    def stuck(mdp: MDP, *, tol: float, limit: int) -> Iterator[Sweep]:
        for k in range(1, limit + 1):
            drawn.append(k)
            yield Sweep(k, np.zeros(mdp.S), 1.0, 1.0)

    monkeypatch.setitem(dp.METHODS, "stuck", stuck)
    monkeypatch.setattr(dp, "plan", lambda mdp: [Attempt("stuck", 7, 20.0), Attempt(SURE, 0, math.inf)])
    assert dp.solve(walk(20, 0.9)).method == SURE
    assert drawn == list(range(1, 8))
    drawn.clear()
    x = dp.solve(walk(20, 0.9), limit=5)
    assert (x.method, x.status, x.iterations) == ("stuck", "iteration limit", 5)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_policy_iteration_goes_on_from_what_was_found(gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the values of another method it has nothing to improve; where it finds no answer it starts on its own."""
    mdp = walk(20, gamma, ends=True) if gamma == 1.0 else envs.slippery_grid(5, gamma=gamma)
    best, starts = dp.solve(mdp).V, []

    def found(mdp: MDP, *, tol: float, limit: int) -> Iterator[Sweep]:
        yield Sweep(1, best, 1.0, 1.0)

    def sure(mdp: MDP, *, tol: float, limit: int, pi: Any = None) -> Iterator[Improvement]:
        starts.append(pi)
        if len(starts) == 1:
            raise NotConverged("rounding hides the end")
        yield from dp.policy_iteration(mdp, tol=tol, limit=limit, pi=starts[0])

    monkeypatch.setitem(dp.METHODS, "found", found)
    monkeypatch.setitem(dp.METHODS, SURE, sure)
    ways = [Attempt("found", 1, -1.0), Attempt(SURE, follows=True), Attempt(SURE)]
    monkeypatch.setattr(dp, "plan", lambda mdp: ways)
    x = dp.solve(mdp)
    assert (x.method, x.status, x.iterations) == (SURE, "certified", 1)
    assert starts[1] is None
    assert (bellman.optimality(mdp, best) - bellman.expectation(mdp, starts[0], best) < 1e-12).all()


def test_what_was_found_is_returned_where_nothing_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsettled(mdp: MDP, **_: Any) -> Iterator[Sweep]:
        yield Sweep(3, np.zeros(mdp.S), 1.0, math.inf)
        raise NotConverged("rounding hides the end")

    def nothing(mdp: MDP, **_: Any) -> Iterator[Sweep]:
        raise NotConverged("rounding hides the end")

    monkeypatch.setitem(dp.METHODS, "unsettled", unsettled)
    monkeypatch.setitem(dp.METHODS, "nothing", nothing)
    monkeypatch.setattr(dp, "plan", lambda mdp: [Attempt("unsettled"), Attempt("nothing")])
    x = dp.solve(walk(20, 0.9))
    assert (x.method, x.iterations, x.converged) == ("unsettled", 3, False) and x.bound < 10
    monkeypatch.setattr(dp, "plan", lambda mdp: [Attempt("nothing")])
    with pytest.raises(NotConverged, match="rounding hides the end"):
        dp.solve(walk(20, 0.9))


def test_preferred_actions_are_kept_where_they_lead_to_the_end() -> None:
    """State 0 prefers to stay for ever, state 1 to leave with probability 1/2, state 2 to go to state 0."""
    P = np.zeros((4, 2, 4))
    P[0, 0, 0] = P[0, 1, 1] = P[1, 0, 0] = P[2, 0, 0] = P[2, 1, 3] = P[3, :, 3] = 1.0
    P[1, 1, [0, 3]] = 0.5
    mdp = MDP(P, -np.ones((4, 2)) * ([[1], [1], [1], [0]]), 1.0, terminal=[0, 0, 0, 1])
    actions = proper_actions(mdp, np.array([0, 1, 0, 0]))
    assert actions[:3].tolist() == [1, 1, 1]
    assert proper_actions(mdp, np.array([1, 1, 0, 0]))[:3].tolist() == [1, 1, 0]


@with_numba
@pytest.mark.parametrize("cost", [1.0, 1e-4])
def test_what_is_left_at_gamma_one_is_seen_from_the_residual(cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a sweep has no bound. Where the end is unlikely its residual hardly falls, and policy iteration answers.

    With the small cost the residual is below tol from the start, which says nothing.
    """
    monkeypatch.setattr(choice, "DIRECT", 0)
    P, r = [[[0, 1, 0]], [[1 - 1e-9, 0, 1e-9]], [[0, 0, 1]]], np.array([-cost, -cost, 0.0])
    x = dp.solve(MDP(P, r, 1.0, terminal=[0, 0, 1]), tol=1e-3, limit=20_000)
    assert (x.method, x.status) == (SURE, "rounding floor")
    assert abs(x.V[0] + 2e9 * cost) <= x.bound + 2 * cost


@pytest.mark.parametrize(
    ("before", "bound", "tol", "expected"),
    [
        (1.0, 0.1, 1e-3, 2.0),
        (1.0, 0.5, 0.125, 2.0),
        (1.0, 0.1, 0.1, 0.0),
        (1.0, 0.1, 1.0, 0.0),
        (math.inf, 0.1, 1e-3, 0.0),
        (0.1, 0.1, 1e-3, math.inf),
        (0.1, 0.2, 1e-3, math.inf),
        (0.1, math.inf, 1e-3, math.inf),
    ],
)
def test_records_that_remain(before: float, bound: float, tol: float, expected: float) -> None:
    assert remaining(before, bound, tol) == pytest.approx(expected, rel=1e-12)


def test_the_mixing_rate_of_two_states_is_gamma_times_the_second_eigenvalue() -> None:
    """P = ((1-p, p), (q, 1-q)) has the eigenvalues 1 and 1 - p - q, and every change is an eigenvector of it."""
    for p, q, gamma in ((0.1, 0.2, 0.9), (0.5, 0.4, 0.99), (0.9, 0.8, 0.5)):
        two = envs.two_state(p, q, gamma=gamma)
        assert mixing_rate(two)[0] == pytest.approx(gamma * abs(1 - p - q), rel=1e-9)
        assert mixing_rate(two, sweeps=2)[0] == pytest.approx(gamma * abs(1 - p - q), rel=1e-9)


def test_the_mixing_rate_at_its_ends() -> None:
    assert mixing_rate(MDP(np.full((3, 1, 3), 1 / 3), [1, 2, 4], 0.9))[0] < 1e-3
    assert mixing_rate(MDP(np.eye(3)[:, None], [1, 2, 4], 0.9))[0] == pytest.approx(0.9)
    assert mixing_rate(MDP(np.full((3, 1, 3), 1 / 3), [2, 2, 2], 0.9))[0] == 0.0  # nothing to even out
    assert mixing_rate(MDP(np.zeros((2, 1, 2)), [0, 0], 0.9, terminal=[1, 1]))[0] == 0.0


def test_where_a_model_ends_the_common_change_counts() -> None:
    """A state that stays with probability .5 and else ends: V_k+1 - V_k = (gamma / 2)**k, though its span is 0."""
    loop = MDP([[[0.5, 0.5]], [[0, 1]]], [1, 0], 0.9, terminal=[0, 1])
    assert mixing_rate(loop)[0] == pytest.approx(0.45)
    assert mixing_rate(MDP(loop.P, -loop.r, 0.9, terminal=[0, 1]))[0] == pytest.approx(0.45)
    two = MDP([[[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]]], [1, 1, 0], 0.9, terminal=[0, 0, 1])
    assert mixing_rate(two)[0] == pytest.approx(0.9)


def test_the_mixing_rate_follows_the_best_paid_actions() -> None:
    """The first action of each state stays and pays more; the second, which mixes at once, does not count."""
    P = np.stack([np.eye(3), np.full((3, 3), 1 / 3)], axis=1)
    assert mixing_rate(MDP(P, [[1, 0], [2, 0], [4, 0]], 0.9))[0] == pytest.approx(0.9)
    assert mixing_rate(MDP(P, [[0, 1], [0, 2], [0, 4]], 0.9))[0] < 1e-3
