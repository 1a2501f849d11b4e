"""The worlds against numbers that were computed in another way, or that the books print."""

import importlib.util
import itertools
import re
from collections import deque
from dataclasses import replace
from fractions import Fraction
from math import comb, exp, factorial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import tabrl.envs as envs
from tabrl import MDP
from tabrl.envs import KING, grid
from tabrl.envs.garnet import subsets
from tabrl.errors import ModelError, ShapeError


def optimum(mdp: Any, tol: Any = 1e-12, sweeps: Any = 100_000) -> Any:
    """V* by plain value iteration from 0."""
    V = np.zeros(mdp.S)
    forbidden = np.where(mdp.legal, 0.0, -np.inf)
    for _ in range(sweeps):
        new = (mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A) + forbidden).max(1)
        if np.abs(new - V).max() < tol:
            return new
        V = new
    raise AssertionError("value iteration did not settle")


def value(mdp: Any, pi: Any) -> Any:
    """V_pi by a linear solve over the non-terminal states."""
    live = ~mdp.terminal
    P = np.einsum("sa,sat->st", pi, mdp.P)[np.ix_(live, live)]
    V = np.zeros(mdp.S)
    V[live] = np.linalg.solve(np.eye(live.sum()) - mdp.gamma * P, (pi * mdp.r).sum(1)[live])
    return V


def uniform(mdp: Any) -> Any:
    return mdp.legal / mdp.legal.sum(1, keepdims=True)


def printed(text: Any) -> Any:
    return np.array([[float(x) for x in line.split()] for line in text.strip().splitlines()])


# ---- the textbook's grids ----


def test_grid4x4_random_policy_is_figure_4_1() -> None:
    world = envs.grid4x4()
    V = printed("""0 -14 -20 -22
                   -14 -18 -20 -20
                   -20 -20 -18 -14
                   -22 -20 -14 0""")
    np.testing.assert_allclose(world.on_grid(value(world, uniform(world))), V, atol=1e-10)
    i, j = np.indices((4, 4))
    np.testing.assert_array_equal(world.on_grid(optimum(world)), -np.minimum(i + j, 6 - i - j))


def test_grid5x5_is_figures_3_2_and_3_5() -> None:
    world = envs.grid5x5()
    random = printed("""3.3 8.8 4.4 5.3 1.5
                        1.5 3.0 2.3 1.9 0.5
                        0.1 0.7 0.7 0.4 -0.4
                        -1.0 -0.4 -0.4 -0.6 -1.2
                        -1.9 -1.3 -1.2 -1.4 -2.0""")
    best = printed("""22.0 24.4 22.0 19.4 17.5
                      19.8 22.0 19.8 17.8 16.0
                      17.8 19.8 17.8 16.0 14.4
                      16.0 17.8 16.0 14.4 13.0
                      14.4 16.0 14.4 13.0 11.7""")
    np.testing.assert_allclose(world.on_grid(value(world, uniform(world))), random, atol=0.05)
    np.testing.assert_allclose(world.on_grid(optimum(world)), best, atol=0.05)
    a = world.names.states.index("r0c1")
    assert optimum(world)[a] == pytest.approx(10 / (1 - 0.9**5))  # A, four moves back, and again


@pytest.mark.parametrize(
    "name, J",
    [("cliff", -13), ("windy", -15), ("windy-king", -7), ("dyna-maze", 0.95**13), ("cliff-gym", -13)],
)
def test_best_value_at_the_start(name: Any, J: Any) -> None:
    world = envs.make(name)
    assert world.mu @ optimum(world) == pytest.approx(J, abs=1e-10)


def test_staying_in_the_wind_does_not_help() -> None:
    world = envs.windy_king(stay=True)
    assert world.A == 9
    assert world.mu @ optimum(world) == -7


def windy_moves(moves: Any, wind: Any = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)) -> Any:
    """Fewest moves from (3,0) to (3,7), by breadth-first search over the book's rule."""
    reached, queue = {(3, 0): 0}, deque([(3, 0)])
    while queue:
        i, j = queue.popleft()
        for di, dj in moves:
            cell = (min(max(i + di - wind[j], 0), 6), min(max(j + dj, 0), 9))
            if cell not in reached:
                reached[cell] = reached[i, j] + 1
                queue.append(cell)
    return reached[3, 7]


def test_windy_agrees_with_breadth_first_search() -> None:
    four = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    king = [m for m in itertools.product((-1, 0, 1), repeat=2) if m != (0, 0)]
    for world, moves in ((envs.windy(), four), (envs.windy(king=True), king)):
        assert -(world.mu @ optimum(world)) == windy_moves(moves)


@pytest.mark.parametrize("slip, name", [(0.0, "cliff-gym"), (2 / 3, "cliff-slippery")])
def test_cliff_is_gymnasiums(slip: Any, name: Any) -> None:
    ours: Any = envs.cliff(slip=slip)
    theirs: Any = envs.make(name)
    keep = [theirs.index[i, j] for i, j in ours.cell]
    assert ours.names.actions == theirs.names.actions
    np.testing.assert_allclose(ours.P, theirs.P[np.ix_(keep, range(4), keep)], atol=1e-15)
    np.testing.assert_allclose(ours.r, theirs.r[keep], atol=1e-13)


@pytest.mark.parametrize("name", ["frozen-lake", "frozen-lake-8x8"])
def test_frozen_lake_is_a_grid_with_slip_two_thirds(name: Any) -> None:
    theirs: Any = envs.make(name)
    ours = grid(theirs.text(), rewards={"G": 1}, slip=2 / 3, gamma=1.0)
    order = [ours.names.actions.index(a) for a in theirs.names.actions]
    np.testing.assert_allclose(ours.P[:, order], theirs.P, atol=1e-15)
    np.testing.assert_allclose(ours.r[:, order], theirs.r, atol=1e-15)
    np.testing.assert_array_equal(ours.mu, theirs.mu)
    np.testing.assert_array_equal(ours.moves[order], theirs.moves)


def test_frozen_lake_success_is_14_17ths() -> None:
    world = envs.frozen_lake()
    assert world.mu @ optimum(world, 1e-14) == pytest.approx(float(Fraction(14, 17)), abs=1e-10)
    world = envs.frozen_lake_8x8()
    assert world.mu @ optimum(world, 1e-14) == pytest.approx(1, abs=1e-8)


def test_taxi_delivers() -> None:
    """From passenger at R, goal G: the shortest drive by hand is in the map; 20 minus a move each."""
    world = envs.taxi()
    s = world.names.states.index("r0c0 R>G")
    assert optimum(world)[s] == 20 - 1 - (2 + 4 + 2)  # pick up, then down 2, right 4, up 2; the drop-off pays 20
    assert world.names.states[-1] == "delivered"
    assert world.terminal[-1] and world.terminal.sum() == 1


def test_slippery_grid() -> None:
    n, gamma = 5, 0.99
    world = envs.slippery_grid(n, slip=0.0, gamma=gamma)
    assert world.is_sparse
    i, j = world.cell.T
    np.testing.assert_allclose(optimum(world), -(1 - gamma ** (2 * n - 2 - i - j)) / (1 - gamma), atol=1e-10)
    dense, sparse = envs.slippery_grid(n, sparse=False), envs.slippery_grid(n)
    np.testing.assert_array_equal(sparse.P.toarray().reshape(n * n, 4, -1), dense.P)
    np.testing.assert_array_equal(sparse.r, dense.r)


# ---- grid(text) ----


def test_slip_walls_and_edges() -> None:
    world = grid("..G\nS#X\n...", slip=0.2, step=-0.1)
    name = world.names.states.index
    row = world.P[name("r0c1"), 1]  # right, towards G: up is the edge, down a wall
    assert row[name("r0c2")] == 0.8
    assert row[name("r0c1")] == pytest.approx(0.2)
    row = world.P[name("r1c0"), 0]  # up: left is the edge, right a wall
    assert row[name("r0c0")] == 0.8
    assert row[name("r1c0")] == pytest.approx(0.2)
    assert world.R[name("r0c1"), 1, name("r0c2")] == 1
    assert world.R[name("r0c1"), 1, name("r0c1")] == -0.1
    assert world.R[name("r2c2"), 0, name("r1c2")] == -1
    assert world.terminal.sum() == 2
    assert world.mu[name("r1c0")] == 1


def test_jumps_falls_wind_and_bump() -> None:
    world = grid("S.A ..C b.G", rewards={"A": 7, "C": -5}, jumps={"A": "b"}, falls={"C": "S"}, step=-1, bump=-2)
    name = world.names.states.index
    up, right = 0, 1
    assert world.S == 8
    assert world.P[name("r0c2"), :, name("r2c0")].tolist() == [1] * 4
    assert world.r[name("r0c2")].tolist() == [7] * 4
    assert world.r[name("r0c1"), right] == -1  # entering a jump cell pays the step
    assert world.P[name("r1c1"), right, name("r0c0")] == 1
    assert world.r[name("r1c1"), right] == -5
    assert world.r[name("r0c0"), up] == -2
    blown = grid("... .#. S..", rewards={}, wind=(1, 1, 0), moves=KING)
    name, act = blown.names.states.index, blown.names.actions.index
    assert blown.P[name("r2c0"), act("right"), name("r2c0")] == 1  # blown onto the wall
    assert blown.P[name("r2c0"), act("down"), name("r2c0")] == 1  # against the wind
    assert blown.P[name("r2c1"), act("up"), name("r0c1")] == 1  # over it
    assert blown.P[name("r0c0"), act("up-right"), name("r0c1")] == 1  # along the edge


def literal(rows: Any, s: Any, move: Any, slip: float, wind: Any, rewards: Any, step: float, bump: Any) -> Any:
    """The rules of `grid`, one cell at a time: {cell reached: [(probability, reward), ...]}."""
    (i, j), (di, dj) = s, move
    if rows[i][j] in "GX":
        return {}
    find = {rows[x][y]: (x, y) for x in range(len(rows)) for y in range(len(rows[0])) if rows[x][y] in "Sa"}
    if rows[i][j] == "A":
        return {find["a"]: [(1.0, rewards["A"])]}
    out: dict[Any, Any] = {}
    for p, (x, y) in [(1 - slip, (di, dj)), (slip / 2, (dj, -di)), (slip / 2, (-dj, di))]:
        aim = (i + x - wind[j], j + y)
        stop = (min(max(aim[0], 0), len(rows) - 1), min(max(aim[1], 0), len(rows[0]) - 1))
        held = stop != aim
        if rows[stop[0]][stop[1]] == "#":
            stop, held = (i, j), True
        letter = rows[stop[0]][stop[1]]
        reward = bump if held and bump is not None else step if letter == "A" else rewards.get(letter, step)
        cell = find["S"] if letter == "C" else stop
        if p:
            out.setdefault(cell, []).append((p, reward))
    return out


@pytest.mark.parametrize("seed", range(25))
def test_random_grids_follow_the_rules_literally(seed: int) -> None:
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("...#CGX$A"), (rng.integers(2, 6), rng.integers(2, 6)))
    letters.ravel()[rng.permutation(letters.size)[:2]] = ["S", "a"]
    rows = ["".join(row) for row in letters]
    wind = rng.integers(-1, 2, letters.shape[1]) * (seed % 2)
    slip, bump, step = [0.0, 0.3, 1.0][seed % 3], [None, -2.5][seed % 2], -0.1
    rewards = {"G": 1.0, "$": 0.7, "C": -5.0, "A": 4.0}
    keywords: Any = {"jumps": {"A": "a"}, "falls": {"C": "S"}, "wind": wind, "moves": envs.KING_STAY}
    world = grid("\n".join(rows), rewards=rewards, step=step, bump=bump, slip=slip, **keywords)
    for s, cell in enumerate(world.cell.tolist()):
        for a, move in enumerate(world.moves.tolist()):
            expected = literal(rows, cell, move, slip, wind, rewards, step, bump)
            if world.terminal[s]:
                assert expected == {}
                continue
            P, R = np.zeros(world.S), np.zeros(world.S)
            for target, outcomes in expected.items():
                t = world.index[target]
                P[t] = sum(p for p, _ in outcomes)
                R[t] = sum(p * x for p, x in outcomes) / P[t]
            np.testing.assert_allclose(world.P[s, a], P, atol=1e-15)
            reward = world.R[s, a] if world.R.ndim == 3 else world.R[s, a] * (P > 0)
            np.testing.assert_allclose(reward, R, atol=1e-14)


def test_outcomes_that_meet_pay_their_mean() -> None:
    """In a corner, up bumps (-2) and left falls back to the same cell (-5): R is the weighted mean."""
    world = grid("CS.", rewards={"C": -5}, falls={"C": "S"}, bump=-2, slip=0.4)
    s, up = world.names.states.index("r0c1"), 0
    assert world.P[s, up, s] == pytest.approx(0.8)
    assert world.R[s, up, s] == pytest.approx((0.6 * -2 + 0.2 * -5) / 0.8)


@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_sparse_and_dense_grids_agree(slip: Any) -> None:
    keywords = {"rewards": {"G": 1, "$": 3}, "slip": slip, "bump": -1}
    dense = grid("S.$ .#. ..G", sparse=False, **keywords)
    sparse = grid("S.$ .#. ..G", sparse=True, **keywords)
    np.testing.assert_array_equal(sparse.P.toarray().reshape(dense.P.shape), dense.P)
    np.testing.assert_array_equal(sparse.r, dense.r)


@pytest.mark.parametrize(
    "text, keywords, message",
    [
        ("", {}, "text is empty"),
        ("S.. ..", {}, r"text\[row=1\] has 2 cells; 3 are expected"),
        ("S?. ...", {}, r"text\[row=0, column=1\] is '\?'; one of"),
        ("... ..G", {}, "text has no S; a start is expected"),
        ("## ##", {}, "walls only"),
        ("S.A", {"jumps": {"A": "a"}}, "text has 0 cells 'a'; exactly one is expected, as 'A' leads there"),
        ("SSC", {"falls": {"C": "S"}}, "text has 2 cells 'S'"),
        ("S.G", {"falls": {"G": "S"}}, "letter 'G' cannot lead elsewhere"),
        ("S.G", {"rewards": {"goal": 1}}, "letter 'goal' names no kind of cell"),
        ("S.G", {"rewards": {"G": np.nan}}, r"rewards\['G'\] is nan; a finite number is expected"),
        ("S.G", {"slip": 1.5}, r"slip is 1.5; a probability in \[0, 1\] is expected"),
        ("S.G", {"mu": "everywhere"}, "mu is 'everywhere'; an .S,. distribution or \"uniform\" is expected"),
        ("S.G", {"wind": (0.5, 0, 0)}, "wind has a fraction"),
        ("S.G", {"wind": (1, 0)}, r"wind has shape \(2,\); \(3,\) is expected"),
        ("S.G", {"gamma": 2}, "gamma is 2"),
    ],
)
def test_bad_text(text: Any, keywords: Any, message: Any) -> None:
    with pytest.raises((ModelError, ShapeError), match=message):
        grid(text, **keywords)


def test_grid_world_keeps_its_picture() -> None:
    world = grid("S.G .#.")
    other = replace(world, gamma=0.5)
    assert isinstance(other, envs.GridWorld) and other.gamma == 0.5
    assert other.layout == ("S.G", ".#.") and other.shape == (2, 3)
    np.testing.assert_array_equal(other.index, [[0, 1, 2], [3, -1, 4]])
    np.testing.assert_array_equal(other.on_grid(range(5), fill=-9), [[0, 1, 2], [3, -9, 4]])
    np.testing.assert_array_equal(other.moves, [(-1, 0), (0, 1), (1, 0), (0, -1)])
    assert world.text(3) == "S.G\n@#."
    assert not world.cell.flags.writeable
    change: Any = replace
    with pytest.raises(ShapeError, match=r"cell has shape \(2, 2\); \(5, 2\) is expected"):
        change(world, cell=np.zeros((2, 2)))
    with pytest.raises(ModelError, match=r"cell\[0\] is \(9, 0\)"):
        change(world, cell=[[9, 0], *world.cell[1:]])
    with pytest.raises(ModelError, match="cell has a row and column twice"):
        change(world, cell=[[0, 1], *world.cell[1:]])
    with pytest.raises(ShapeError, match=r"x has shape \(3,\)"):
        world.on_grid(np.zeros(3))


# ---- chains ----


@pytest.mark.parametrize("n, left, right", [(5, 0.0, 1.0), (19, -1.0, 1.0), (4, 2.0, -1.0), (1, 0.0, 1.0)])
def test_random_walk(n: Any, left: Any, right: Any) -> None:
    walk = envs.random_walk(n, left=left, right=right)
    V = left + (right - left) * np.arange(1, n + 1) / (n + 1)
    np.testing.assert_allclose(value(walk, uniform(walk))[1:-1], V, atol=1e-12)
    assert walk.mu @ np.arange(n + 2) == (n + 1) / 2


def test_random_walk_19_is_example_7_1() -> None:
    walk = envs.random_walk_19()
    np.testing.assert_allclose(value(walk, uniform(walk))[1:-1], np.arange(-9, 10) / 10, atol=1e-12)


def test_two_state_value_and_trajectory_bias() -> None:
    """The stationary mean of V under TD(0) along a trajectory, by the linear recursion of E[V_t; s_t = i]."""
    chain = envs.two_state()
    P, r, gamma, alpha = chain.P[:, 0], chain.r[:, 0], chain.gamma, 0.4
    V = value(chain, uniform(chain))
    p, q, k = 0.1, 0.2, 0.7
    assert V[0] - V[1] == pytest.approx(1 / (1 - gamma * k))
    assert (q * V[0] + p * V[1]) / (p + q) == pytest.approx(q / ((p + q) * (1 - gamma)))
    stationary, eye = np.array([q, p]) / (p + q), np.eye(2)
    step, constant = np.zeros((4, 4)), np.zeros(4)
    for i, j in itertools.product(range(2), repeat=2):
        update = eye + alpha * np.outer(eye[i], gamma * eye[j] - eye[i])
        step[2 * j : 2 * j + 2, 2 * i : 2 * i + 2] += P[i, j] * update
        constant[2 * j : 2 * j + 2] += P[i, j] * stationary[i] * alpha * r[i] * eye[i]
    mean = np.linalg.solve(np.eye(4) - step, constant).reshape(2, 2).sum(0)
    assert round(float(V[0]), 3) == 7.568
    assert round(float(mean[0]), 3) == 7.404


@pytest.mark.parametrize("n", [1, 2, 3])
def test_loop_value_and_every_visit_bias(n: Any) -> None:
    """n episodes with K loops in all: every-visit averages (sum of k_i (k_i+1)/2 stay)/(K+n) + end."""
    p, stay, end = 0.6, 2.0, 3.0
    chain = envs.loop(p, stay=stay, end=end)
    assert value(chain, uniform(chain))[0] == pytest.approx(p / (1 - p) * stay + end)
    mean = 0.0
    for ks in itertools.product(range(60 if n < 3 else 40), repeat=n):
        weight = (1 - p) ** n * p ** sum(ks)
        mean += weight * (stay * sum(k * (k + 1) / 2 for k in ks) / (sum(ks) + n) + end)
    assert mean == pytest.approx(p / (1 - p) * stay * n / (n + 1) + end, abs=1e-6)


def test_riverswim_right_is_best_among_all_policies() -> None:
    river = envs.riverswim()
    choices = itertools.product(range(2), repeat=6)
    values = {a: value(river, np.eye(2)[list(a)]) for a in choices}
    best = np.max(list(values.values()), axis=0)
    np.testing.assert_allclose(values[(1,) * 6], best, rtol=1e-12)
    np.testing.assert_allclose(optimum(river, 1e-9), best, rtol=1e-9)
    np.testing.assert_array_equal(river.P[2], [[0, 1, 0, 0, 0, 0], [0, 0.1, 0.6, 0.3, 0, 0]])
    np.testing.assert_array_equal(river.P[0], [[1, 0, 0, 0, 0, 0], [0.7, 0.3, 0, 0, 0, 0]])
    np.testing.assert_array_equal(river.P[5], [[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0.7, 0.3]])
    np.testing.assert_allclose(river.r, [[5, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 3000]])
    np.testing.assert_array_equal(river.mu, [0, 0.5, 0.5, 0, 0, 0])


def test_forest_is_the_toolboxs_example() -> None:
    np.testing.assert_allclose(optimum(envs.forest()), [26.244, 29.484, 33.484], atol=1e-9)
    P = [[[0.1, 0.9, 0], [0.1, 0, 0.9], [0.1, 0, 0.9]], [[1, 0, 0], [1, 0, 0], [1, 0, 0]]]
    theirs = MDP.from_toolbox(P, [[0, 0], [0, 1], [4, 2]], 0.9)
    np.testing.assert_array_equal(envs.forest().P, theirs.P)
    np.testing.assert_array_equal(envs.forest().r, theirs.r)


def test_gambler_bold_and_timid() -> None:
    game = envs.gambler()
    V, p = optimum(game), 0.4
    np.testing.assert_allclose(V[[25, 50, 75]], [p * p, p, p + (1 - p) * p], atol=1e-12)

    def bold(
        s: int,
    ) -> float:  # success of staking all that helps, s capital out of 100: the coin decides digit by digit
        total, factor = 0.0, 1.0
        for _ in range(200):
            s *= 2
            if s >= 100:
                total, factor, s = total + factor * p, factor * (1 - p), s - 100
            else:
                factor *= p
        return total

    np.testing.assert_allclose(V[1:100], [bold(s) for s in range(1, 100)], atol=1e-12)
    timid, odds = envs.gambler(0.55), 0.45 / 0.55
    ruin = (1 - odds ** np.arange(1, 100)) / (1 - odds**100)
    np.testing.assert_allclose(optimum(timid)[1:100], ruin, atol=1e-9)


def test_gambler_stakes() -> None:
    game, lazy = envs.gambler(goal=10), envs.gambler(goal=10, stay=True)
    for s in range(1, 10):
        assert np.flatnonzero(game.legal[s]).tolist() == list(range(1, min(s, 10 - s) + 1))
        assert np.flatnonzero(lazy.legal[s]).tolist() == list(range(min(s, 10 - s) + 1))
    assert lazy.P[4, 0, 4] == 1
    np.testing.assert_array_equal(optimum(lazy), optimum(game))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: envs.random_walk(0), "n is 0; a whole number of at least 1 is expected"),
        (lambda: envs.loop(1.5), r"p is 1.5; a probability in \[0, 1\] is expected"),
        (lambda: envs.make("gambler", goal=2.5), "goal is 2.5"),
        (lambda: envs.garnet(np.random.default_rng(0), 3, 2, 4), "branching is 4; at most S = 3"),
        (lambda: envs.blackjack(natural=-1), "natural is -1; a positive pay, or None, is expected"),
        (lambda: envs.car_rental(poisson_cut=0), "poisson_cut is 0"),
        (lambda: envs.slippery_grid(1), "n is 1; a whole number of at least 2"),
    ],
)
def test_bad_arguments(build: Any, message: Any) -> None:
    with pytest.raises(ModelError, match=message):
        build()


# ---- car rental ----


def poisson(lam: Any, n: Any = 120) -> Any:
    return np.array([exp(-lam) * lam**k / factorial(k) for k in range(n)])


def test_car_rental_is_the_double_sum() -> None:
    """One day from a few states and actions, summed literally over requests and returns."""
    mdp = envs.car_rental(cars=6, most=2)
    for (n1, n2), m in [((0, 0), 0), ((6, 6), 2), ((3, 5), -2), ((6, 1), 1)]:
        P, r = np.ones((2, 7)), -2.0 * abs(m)
        for place, (n, lam, rho) in enumerate([(n1 - m, 3, 3), (n2 + m, 4, 2)]):
            n, P[place] = min(n, 6), 0
            for x, px in enumerate(poisson(lam)):
                r += 10 * px * min(x, n)
                for y, py in enumerate(poisson(rho)):
                    P[place, min(n - min(x, n) + y, 6)] += px * py
        s = 7 * n1 + n2
        assert mdp.legal[s, m + 2]
        np.testing.assert_allclose(mdp.P[s, m + 2].reshape(7, 7), np.outer(*P), atol=1e-14)
        assert mdp.r[s, m + 2] == pytest.approx(r, abs=1e-12)
    assert not mdp.legal[7 * 1 + 4, 2 + 2]  # two cars away from one
    assert mdp.legal[7 * 1 + 4, 2 - 2]


def test_car_rental_values_and_cut() -> None:
    """Example 4.2 at gamma = .9: the exact range, what a cut at 10 does to it, and corners of figure 4.2."""
    exact = envs.car_rental()
    V = optimum(exact, 1e-9)
    assert [round(float(x), 3) for x in (V.min(), V.max())] == [421.414, 636.990]
    assert V.argmin() == 0 and V.argmax() == 440
    Q = np.where(exact.legal, exact.r + 0.9 * (exact.rows @ V).reshape(441, 11), -np.inf)
    policy = Q.argmax(1).reshape(21, 21) - 5
    assert policy[20, 0] == 5 and policy[0, 20] == -4 and policy[0, 0] == 0
    for cut, ends in ((10, [421.395, 636.855]), ((5, None), [420.350, 611.527])):
        V = optimum(envs.car_rental(poisson_cut=cut), 1e-9)
        assert [round(float(x), 3) for x in (V.min(), V.max())] == ends
    assert [round(float(x)) for x in (V.min(), V.max())] == [420, 612]  # printed on the axis of figure 4.2
    tail = envs.car_rental(poisson_cut=60)
    np.testing.assert_allclose(tail.P, exact.P, atol=1e-15)


def test_car_rental_without_the_tail() -> None:
    """The common script's model: numbers above 10 are dropped, as if the process then stopped for good."""
    k = np.arange(11)
    kernels, incomes = np.zeros((2, 21, 21)), np.zeros((2, 21))
    for place, (lam, rho) in enumerate([(3, 3), (4, 2)]):
        weight = np.outer(poisson(lam, 11), poisson(rho, 11))
        for n in range(21):
            rented = np.minimum(k, n)[:, None]
            np.add.at(kernels[place, n], np.minimum(n - rented + k, 20), weight)
            incomes[place, n] = 10 * (weight * rented).sum()
    mass = kernels[:, 0].sum(1)
    assert round(float(mass.prod()), 4) == 0.9966
    n1, n2, m = np.meshgrid(np.arange(21), np.arange(21), np.arange(-5, 6), indexing="ij")
    V = np.zeros((21, 21))
    for _ in range(300):
        day = incomes[0][:, None] * mass[1] + incomes[1] * mass[0] + 0.9 * kernels[0] @ V @ kernels[1].T
        Q = day[np.clip(n1 - m, 0, 20), np.clip(n2 + m, 0, 20)] - 2 * abs(m)
        V = np.where((m <= n1) & (-m <= n2), Q, -np.inf).max(2)
    assert [round(float(x), 1) for x in (V.min(), V.max())] == [405.3, 616.8]


def test_car_rental_exercise_4_7() -> None:
    plain, changed = envs.car_rental(), envs.car_rental(free=True, parking=4)
    s, one = 21 * 15 + 3, 5 + 1
    assert changed.r[s, one] - plain.r[s, one] == pytest.approx(2 - 4)  # a free car, 14 left overnight
    assert changed.r[s, one - 2] == plain.r[s, one - 2] - 4  # the other way costs as before
    np.testing.assert_array_equal(plain.P, changed.P)


# ---- blackjack ----

DECK = [Fraction(1, 13)] * 9 + [Fraction(4, 13)]  # 1 … 10


def best(cards: Any) -> Any:
    """The sum of a hand, an ace as 11 where it fits."""
    total = sum(cards)
    return total + 10 if 1 in cards and total <= 11 else total


def dealers(cards: Any, memo: Any) -> Any:
    """Final sums of the dealer (0 for bust), enumerated over hands of cards."""
    key = (sum(cards), 1 in cards)
    if key not in memo:
        if best(cards) >= 17:
            memo[key] = {best(cards) if best(cards) <= 21 else 0: Fraction(1)}
        else:
            ends: dict[int, Fraction] = {}
            for card, p in enumerate(DECK, 1):
                for end, q in dealers((*cards, card), memo).items():
                    ends[end] = ends.get(end, 0) + p * q
            memo[key] = ends
    return memo[key]


def game_value(natural: Any) -> Any:
    """The value of optimal play in exact fractions, hands as cards, the dealer's hole card dealt."""
    memo: dict[Any, Any] = {}
    plays: dict[Any, Any] = {}

    def play(cards: Any, up: Any) -> Any:
        key = (sum(cards), 1 in cards, up)
        if key not in plays:
            me = best(cards)
            stick = sum(
                p * q * ((me > end) - (me < end))
                for hole, p in enumerate(DECK, 1)
                for end, q in dealers((up, hole), memo).items()
            )
            hit = sum(p * (-1 if sum((*cards, c)) > 21 else play((*cards, c), up)) for c, p in enumerate(DECK, 1))
            plays[key] = max(stick, hit)
        return plays[key]

    total = Fraction(0)
    for first, second, up in itertools.product(range(1, 11), repeat=3):
        weight = DECK[first - 1] * DECK[second - 1] * DECK[up - 1]
        if natural is not None and {first, second} == {1, 10}:
            safe = 1 - {1: DECK[9], 10: DECK[0]}.get(up, 0)
            total += weight * safe * Fraction(natural)
        else:
            total += weight * play((first, second), up)
    return total


@pytest.mark.parametrize("natural", [None, 1, 1.5])
def test_blackjack_value_of_the_game(natural: Any) -> None:
    game = envs.blackjack(natural=natural)
    assert game.mu @ optimum(game) == pytest.approx(float(game_value(natural)), abs=1e-12)


def test_blackjack_optimal_policy_is_figure_5_2() -> None:
    game = envs.blackjack()
    V = optimum(game)
    Q = game.r + (game.rows @ V).reshape(game.S, 2)
    stick = (Q[:200, 0] >= Q[:200, 1]).reshape(10, 10, 2)  # sum 12 … 21, card ace … 10, usable
    hard = 12 + stick[:, :, 0].argmax(0)
    soft = 12 + stick[:, :, 1].argmax(0)
    assert hard.tolist() == [17, 13, 13, 12, 12, 12, 17, 17, 17, 17]
    assert soft[1:].tolist() == [18] * 7 + [19, 19]
    assert (np.diff(stick.astype(int), axis=0) >= 0).all()  # once it sticks, it sticks above too


def test_blackjack_start_is_gymnasiums() -> None:
    """First observations of gymnasium's game, hit until 12: chi-square with a false alarm of 1e-6."""
    from scipy.stats import chi2

    game = envs.blackjack(natural=None)
    env, counts = gymnasium.make("Blackjack-v1"), np.zeros(200)
    (total, card, usable), _ = env.reset(seed=3)
    for _ in range(8000):
        while total < 12:
            (total, card, usable), *_ = env.step(1)
        counts[((total - 12) * 10 + card - 1) * 2 + int(usable)] += 1
        (total, card, usable), _ = env.reset()
    seen = game.mu[:200] > 0
    assert counts[~seen].sum() == 0
    expected = 8000 * game.mu[:200][seen]
    distance = ((counts[seen] - expected) ** 2 / expected).sum()
    assert distance < chi2.isf(1e-6, seen.sum() - 1)


# ---- random models ----


def test_garnet_shape_and_seed() -> None:
    a, b = (envs.garnet(np.random.default_rng(5), 30, 3, 4, sparse=s) for s in (False, True))
    np.testing.assert_array_equal(b.P.toarray().reshape(30, 3, 30), a.P)
    np.testing.assert_array_equal(a.r, b.r)
    assert ((a.P > 0).sum(2) == 4).all()
    assert (envs.garnet(np.random.default_rng(5), 3, 2, 3).P > 0).all()
    np.testing.assert_array_equal(envs.garnet_example().P, envs.garnet(np.random.default_rng(7)).P)


def test_garnet_subsets_are_uniform() -> None:
    """20,000 pairs of 5, chi-square over the 10 sets; false alarm 1e-6."""
    from scipy.stats import chi2

    picks = subsets(np.random.default_rng(0), 20_000, 5, 2)
    _, counts = np.unique(picks, axis=0, return_counts=True)
    assert len(counts) == comb(5, 2)
    assert ((counts - 2000) ** 2 / 2000).sum() < chi2.isf(1e-6, 9)


# ---- the package ----


@pytest.mark.parametrize("name", envs.WORLDS)
def test_every_world_builds_and_is_documented(name: Any) -> None:
    build = envs.WORLDS[name]
    mdp = envs.make(name)
    assert isinstance(mdp, MDP) and type(build()) is type(mdp)
    doc = build.__doc__ or ""
    assert re.search(r"^ +Source: \w", doc, re.M), "no source"
    assert re.search(r"^ {8,}\S", doc, re.M), "no picture"
    assert ">>>" in doc
    if isinstance(mdp, envs.GridWorld):
        rows = [line.strip().replace(" ", "") for line in doc.splitlines() if line.startswith(" " * 8)]
        assert name == "slippery-grid" or tuple(rows[: mdp.shape[0]]) == mdp.layout


def test_make_names_close_matches() -> None:
    assert envs.make("gambler", goal=10).S == 11
    with pytest.raises(ModelError, match="name is 'clif'; the name of a world is expected; did you mean cliff"):
        envs.make("clif")
    with pytest.raises(ModelError, match="did you mean grid4x4, "):
        envs.make("zzzzz")


@pytest.mark.parametrize("folder", ["envs", "lessons"])
def test_packages_refuse_another_name(folder: Any) -> None:
    path = Path(__file__).parent.parent / folder / "__init__.py"
    spec: Any = importlib.util.spec_from_file_location(folder, path)
    with pytest.raises(ImportError, match=f"imported as {folder}; tabrl.{folder} is expected"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
