"""gamma = 1: what is solved, what is certified, and what is refused."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from rational import at_most, distance, exact_optimal_values, exact_policy_values, shortfall

from tabrl import MDP, _jit, chain, collapse, durations, envs, graph
from tabrl.dp import METHODS, solve
from tabrl.errors import ModelError, NotConverged
from tabrl.undiscounted import quotient

NEVER = Fraction(-(10**30))  # stands for -inf


def eighths(rng: np.random.Generator, kind: str) -> MDP:
    """A small model whose probabilities are eighths (rows sum to 1 exactly), with loops that pay as `kind` says."""
    S, A = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    P = np.zeros((S, A, S))
    for s, a in product(range(S), range(A)):
        cuts = np.sort(rng.integers(0, 9, min(2, S - 1)))
        shares = np.diff(np.r_[0, cuts, 8]) / 8
        P[s, a, rng.permutation(S)[: len(shares)]] = shares
    P[:-1, 0] = 0
    P[:-1, 0, 1:] = np.eye(S - 1)  # the first action leads towards the end
    R = {
        "costs": -rng.integers(1, 5, (S, A)),
        "gains": rng.integers(0, 3, (S, A)) * (P[:, :, -1] > 0),
        "rests": rng.integers(-3, 1, (S, A)),
        "mixed": rng.integers(-2, 3, (S, A)),
    }[kind].astype(float)
    P[-1], R[-1] = 0, 0
    ends = np.arange(S) == S - 1
    return MDP(P, R, 1.0, terminal=ends)


def exact_values(mdp: MDP) -> list[Fraction]:
    """The best deterministic policy's total reward, per state; a recurrent class that costs is worth -inf."""
    S = mdp.S
    P = [[[Fraction(float(p)) for p in row] for row in rows] for rows in np.asarray(mdp.P)]
    r = [[Fraction(float(x)) for x in row] for row in mdp.r]
    best = [NEVER * 2] * S
    for actions in product(*[range(mdp.A) if not mdp.terminal[s] else [0] for s in range(S)]):
        V = policy_value(
            [P[s][a] for s, a in enumerate(actions)], [r[s][a] for s, a in enumerate(actions)], mdp.terminal
        )
        best = [max(b, v) for b, v in zip(best, V, strict=True)]
    return best


def gains_forever(mdp: MDP) -> bool:
    """Whether some deterministic policy meets a positive reward again and again."""
    for actions in product(*[range(mdp.A) if not mdp.terminal[s] else [0] for s in range(mdp.S)]):
        follows = (mdp.rows.reshape(mdp.S, mdp.A, mdp.S)[range(mdp.S), actions] > 0) | np.eye(mdp.S, dtype=bool)
        reach = np.linalg.matrix_power(follows.astype(float), mdp.S) > 0
        for s in np.flatnonzero(~mdp.terminal):
            closed = all(reach[t, s] for t in np.flatnonzero(reach[s]))
            if closed and mdp.r[s, actions[s]] > 0:
                return True
    return False


def policy_value(P: list[list[Fraction]], r: list[Fraction], terminal: Any) -> list[Fraction]:
    """Total reward of a chain: 0 in resting classes, -inf where a costly class may be entered."""
    S = len(r)
    reach = [[i == j or P[i][j] > 0 for j in range(S)] for i in range(S)]
    for k, i, j in product(range(S), range(S), range(S)):
        reach[i][j] = reach[i][j] or (reach[i][k] and reach[k][j])
    closed = [not terminal[i] and all(reach[j][i] for j in range(S) if reach[i][j]) for i in range(S)]
    costly = [closed[i] and any(r[j] != 0 for j in range(S) if reach[i][j]) for i in range(S)]
    doomed = [any(costly[j] for j in range(S) if reach[i][j]) for i in range(S)]
    keep = [i for i in range(S) if not (terminal[i] or closed[i] or doomed[i])]
    M = [[Fraction(i == j) - P[i][j] for j in keep] + [r[i]] for i in keep]
    for c in range(len(keep)):
        pivot = next(i for i in range(c, len(keep)) if M[i][c])
        M[c], M[pivot] = M[pivot], M[c]
        M[c] = [x / M[c][c] for x in M[c]]
        for i in range(len(keep)):
            if i != c and M[i][c]:
                M[i] = [x - M[i][c] * y for x, y in zip(M[i], M[c], strict=True)]
    V = [NEVER if doomed[i] else Fraction(0) for i in range(S)]
    for i, row in zip(keep, M, strict=True):
        V[i] = row[-1]
    return V


@pytest.mark.parametrize("kind", ["costs", "gains", "rests", "mixed"])
@pytest.mark.parametrize("seed", range(40))
def test_every_method_is_certified_or_refuses(kind: str, seed: int) -> None:
    mdp = eighths(np.random.default_rng([7, seed]), kind)
    truth = exact_values(mdp)
    try:
        quotient(mdp)
    except ModelError:
        assert gains_forever(mdp) or min(truth) <= NEVER  # only a loop that pays, or the value -inf, is refused
        return
    assert not gains_forever(mdp)
    assert min(truth) > NEVER
    for method in METHODS:
        x = solve(mdp, method)
        assert x.status == "certified", (method, x.bound)
        error = max(abs(Fraction(float(v)) - t) for v, t in zip(x.V, truth, strict=True))
        assert error <= Fraction(x.bound), method
        P = [[Fraction(float(p)) for p in mdp.P[s, a]] for s, a in enumerate(x.pi.argmax(1))]
        r = [Fraction(float(mdp.r[s, a])) for s, a in enumerate(x.pi.argmax(1))]
        own = policy_value(P, r, mdp.terminal)
        assert max(t - v for t, v in zip(truth, own, strict=True)) <= Fraction(x.policy_loss_bound), method


def frozen_lake() -> MDP:
    gymnasium = pytest.importorskip("gymnasium")
    return MDP.from_gym(gymnasium.make("FrozenLake-v1"))


@pytest.mark.parametrize("method", METHODS)
def test_frozen_lake_success_is_14_17(method: str) -> None:
    """Always up never ends there, so T has infinitely many fixed points; the certificate holds all the same."""
    mdp = frozen_lake()
    x = solve(mdp, method)
    assert x.converged
    assert abs(x.V[0] - 14 / 17) <= x.bound <= 1e-8


def test_a_residual_of_zero_proves_nothing_on_frozen_lake() -> None:
    from tabrl import bellman

    mdp = frozen_lake()
    V = np.where(mdp.terminal, 0.0, 1.0)  # 'always up' keeps the value 1 in the top row for ever
    for _ in range(3000):
        V = bellman.optimality(mdp, V)
    assert abs(bellman.optimality(mdp, V) - V).max() < 1e-14
    assert abs(V[0] - 14 / 17) > 0.17
    assert bellman.certified_bound(mdp, V) == np.inf


def loop(r_stay: float, r_exit: float) -> MDP:
    return MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[r_stay, r_exit], [0, 0]], 1.0, terminal=[False, True])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("stay", "leave", "value"), [(0, 5, 5.0), (0, -5, 0.0), (-1, -5, -5.0), (-1, 2, 2.0), (0, 0, 0.0)]
)
def test_one_loop(method: str, stay: float, leave: float, value: float) -> None:
    x = solve(loop(stay, leave), method)
    assert abs(x.V[0] - value) <= x.bound <= 1e-8


@pytest.mark.parametrize("method", METHODS)
def test_infinite_values_are_refused_by_name(method: str) -> None:
    with pytest.raises(ModelError, match=r"r\[s=0, a=0\] is 1 in states 0, where a policy can stay forever"):
        solve(loop(1, 0), method)
    with pytest.raises(ModelError, match=r"V\[s=0\] is -inf at gamma = 1: no policy ends from there"):
        solve(MDP([[[1.0]]], [-1], 1.0), method)


def test_policy_in_a_collapsed_component_walks_to_the_exit() -> None:
    """Three states in a free ring, a paying exit from the third only: the policy must not circle."""
    P = np.zeros((4, 2, 4))
    for s in range(3):
        P[s, 0, (s + 1) % 3] = 1
        P[s, 1, s] = 1
    P[2, 1] = [0, 0, 0, 1]
    R = np.zeros((4, 2))
    R[2, 1] = 7
    mdp = MDP(P, R, 1.0, terminal=[0, 0, 0, 1])
    x = solve(mdp)
    assert (x.V == [7, 7, 7, 0]).all()
    assert x.pi.argmax(1).tolist()[:3] == [0, 0, 1]
    assert x.policy_loss_bound < 1e-12


# Ends that rounding may hide


def hardly_ends(rng: np.random.Generator) -> MDP:
    """Rewards of both signs; every action ends, some of them once in up to 1e18 steps."""
    S, A = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    P = rng.exponential(size=(S, A, S)) * (rng.random((S, A, S)) < 0.6)
    P[:, :, -1] = 0.0
    P[np.arange(S), :, rng.integers(0, S - 1, S)] += 0.3
    leaves = 10.0 ** rng.integers(-18 if rng.random() < 0.5 else -6, 0, (S, A))
    P *= ((1 - leaves) / P.sum(axis=2))[:, :, None]
    P[:, :, -1] = leaves
    P[-1] = 0.0
    R = np.where(np.arange(S)[:, None] == S - 1, 0.0, rng.normal(size=(S, A)))
    return MDP(P, R, 1.0, terminal=np.arange(S) == S - 1)


@pytest.mark.parametrize("block", range(5))
def test_a_finite_bound_holds_however_rare_the_end(block: int) -> None:
    """In exact arithmetic, stored floats read as they stand: value and policy within their bounds, or bound = inf.

    Only "auto" always answers; policy iteration refuses where rounding hides the end of a policy.
    """
    certified = 0
    for seed in range(40):
        rng = np.random.default_rng([13, block, seed])
        m, method = hardly_ends(rng), ("auto", "policy_iteration", "gauss_seidel_policy_iteration")[seed % 3]
        try:
            x = solve(m, method, limit=300)
        except NotConverged:
            assert method != "auto"
            continue
        if not np.isfinite(x.bound):
            assert not x.converged
            continue
        best = exact_optimal_values(m)
        assert at_most(distance(x.V, best), x.bound), (block, seed)
        assert at_most(shortfall(best, exact_policy_values(m, x.pi)), x.policy_loss_bound), (block, seed)
        certified += 1
    assert certified > 15


# Components with many ways out


def many_exits(rng: np.random.Generator) -> MDP:
    """Three states in a free ring, three ways to risk the end from each, and rewards of both signs for them."""
    P, R = np.zeros((4, 4, 4)), np.zeros((4, 4))
    for s, a in product(range(3), range(1, 4)):
        cuts = np.sort(rng.integers(0, 8, 2))
        P[s, a, rng.permutation(3)] = np.diff(np.r_[0, cuts, 7]) / 8
        P[s, a, 3] = 1 / 8
        R[s, a] = rng.integers(-4, 5)
    P[range(3), 0, [1, 2, 0]] = 1
    return MDP(P, R, 1.0, terminal=[0, 0, 0, 1])


@pytest.mark.parametrize("seed", range(40))
def test_choices_in_several_steps_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collapsed with as many columns as there are ways out, and with two at a time: right and certified both times."""
    mdp = many_exits(np.random.default_rng([17, seed]))
    truth = exact_values(mdp)
    for method in ("auto", "gauss_seidel_policy_iteration"):
        for columns in (9, 2):
            monkeypatch.setattr(collapse, "columns", lambda *_, columns=columns: columns)
            q, x = quotient(mdp), solve(mdp, method)
            nodes = 0 if columns == 9 else 5 + 3 + 2  # pairs of 9 actions, of 5 nodes, of 3
            assert repr(q.mdp) == f"MDP(S={3 + nodes}, A={columns + 1}, gamma=1, 2 terminal, sparse)"
            assert x.status == "certified"
            assert max(abs(Fraction(float(v)) - t) for v, t in zip(x.V, truth, strict=True)) <= Fraction(x.bound)
            P = [[Fraction(float(p)) for p in mdp.P[s, a]] for s, a in enumerate(x.pi.argmax(1))]
            r = [Fraction(float(mdp.r[s, a])) for s, a in enumerate(x.pi.argmax(1))]
            own = policy_value(P, r, mdp.terminal)
            assert max(t - v for t, v in zip(truth, own, strict=True)) <= Fraction(x.policy_loss_bound)


def test_forty_ways_out_of_one_component(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring of 40 states, an exit from each that pays its number: four columns suffice, and 39 is found."""
    n = 40
    s = np.arange(n)
    rows, to = np.r_[2 * s, 2 * s + 1], np.r_[(s + 1) % n, np.full(n, n)]
    R = np.zeros((n + 1, 2))
    R[:n, 1] = np.random.default_rng(0).permutation(n)
    ring = MDP(
        sp.csr_array((np.ones(2 * n), (rows, to)), shape=(2 * n + 2, n + 1)), R, 1.0, terminal=np.arange(n + 1) == n
    )
    monkeypatch.setattr(collapse, "SMALL", 0)
    monkeypatch.setattr(collapse, "COLUMNS", 0)
    q = quotient(ring)
    assert q.mdp.A == 4 and n < q.mdp.S + n < 2 * n and (q.state[:n] == q.state[0]).all()
    assert sorted(q.row[q.row >= 0].tolist()) == (2 * s + 1).tolist()
    x = solve(ring)
    assert x.V.tolist() == [39.0] * n + [0.0]
    assert x.converged and x.policy_loss_bound < 1e-9
    assert (x.pi[:n, 1] == (R[:n, 1] == 39)).all()
    nodes = collapse.on_nodes(q, x.V)
    assert nodes[q.state[0]] == 39 and set(nodes[q.state.max() + 1 : -1]) <= set(range(n)) and nodes[-1] == 0


def pond(n: int) -> MDP:
    """An n x n lake of 8 x 8 patterns with holes; slippery; 1 for the far corner, and walking into walls is free."""
    rows = ["........", "........", "...H....", ".....H..", "...H....", ".HH...H.", ".H..H.H.", "...H...."]
    hole = np.tile(np.array([list(r) for r in rows]) == "H", (-(-n // 8), -(-n // 8)))[:n, :n].ravel()
    hole[-1] = False
    s = np.arange(n * n)
    x, y = s // n, s % n
    moves = np.stack([s - (y > 0), s + n * (x < n - 1), s + (y < n - 1), s - n * (x > 0)], axis=1)
    ends = hole | (s == n * n - 1)
    go = np.flatnonzero(~ends)
    entries = [(4 * go + a, moves[go, (a + d) % 4]) for a in range(4) for d in (-1, 0, 1)]
    row, col = (np.concatenate(z) for z in zip(*entries, strict=True))
    P = sp.csr_array((np.full(len(row), 1 / 3), (row, col)), shape=(4 * n * n, n * n))
    return MDP(P, np.asarray(P @ (s == n * n - 1.0)).reshape(-1, 4), 1.0, terminal=ends)


def test_a_lake_of_6_400_states_is_certified() -> None:
    """The shortest way to the exit would take 1e8 times as many steps as the quick one, and prove nothing."""
    if not _jit.compiled():
        pytest.skip("sweeps in plain Python take too long")
    lake = pond(80)
    x = solve(lake, tol=1e-6)
    assert x.converged and x.policy_loss_bound <= 1e-6
    w = durations.steps(lake, x.pi.argmax(axis=1))
    assert w.max() < 10_000
    assert x.V.max() <= 1 + x.bound and x.V[~lake.terminal].min() > 0


def test_the_quick_way_and_the_short_way() -> None:
    """On a small lake: steps of the short way, of the quick one, and of the best one, all by exact solves."""
    lake = pond(32)
    inside = quotient(lake).inside
    inner = inside.any(axis=1)
    target = inner & (np.arange(lake.S) == np.flatnonzero(inner)[-1])
    distance, short = graph.distance_to(lake, target, inside)
    walks = distance > 0
    quick = durations.quickest(lake, inside, target, distance, short)
    assert inside[walks, quick[walks]].all()
    few, many = (durations.counted(durations.chosen(lake, a), walks) for a in (quick, short))
    best = quick
    for _ in range(50):
        w = durations.counted(durations.chosen(lake, best), walks)
        after = np.where(inside, 1 + (lake.rows @ w).reshape(lake.S, 4), np.inf)
        best = np.where(walks & (after.min(axis=1) < w - 1e-9), after.argmin(axis=1), best)
    assert few.max() < 1.5 * w.max() < many.max() / 2


# Sizes


@pytest.mark.parametrize("costs", [True, False])
def test_a_grid_of_40_000_states_is_certified(costs: bool) -> None:
    """Every step costs, so that staying is never optimal; and the same with free steps and costs at the end alone."""
    if not _jit.compiled():
        pytest.skip("sweeps in plain Python take too long")
    grid: MDP = envs.slippery_grid(200, gamma=1.0)
    if not costs:
        to_end = np.asarray(grid.rows[:, np.flatnonzero(grid.terminal)].sum(axis=1)).reshape(grid.S, grid.A)
        grid = MDP(grid.P, to_end * 3.0, 1.0, terminal=grid.terminal)
    x = solve(grid, tol=1e-6)
    assert x.converged and x.policy_loss_bound <= 1e-6
    if not costs:
        assert abs(x.V[~grid.terminal] - 3.0).max() <= x.bound


def test_a_policy_of_40_000_states_takes_the_steps_it_takes() -> None:
    """`steps` of a large model proves w - P w >= 1/2 and is within a factor of two of the exact solve."""
    if not _jit.compiled():
        pytest.skip("sweeps in plain Python take too long")
    grid = envs.slippery_grid(200, gamma=1.0)
    distance, _ = graph.distance_to(grid, grid.terminal)
    actions = (grid.rows @ distance).reshape(grid.S, grid.A).argmin(axis=1)
    w, P = durations.steps(grid, actions), durations.chosen(grid, actions)
    one = (~grid.terminal).astype(np.float64)
    exact = chain.evaluate(chain.Chain(P, one, 1.0, grid.terminal))
    assert (w - P @ w)[~grid.terminal].min() >= 0.5
    assert (w <= 2 * exact).all() and (exact <= 2 * w).all()
