"""Dyna-Q, Dyna-Q+ and prioritized sweeping: literal loops, the exact optimum, the exact limit, the textbook's maze."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from bits import plain_and_compiled
from models import csr, dense_P, dense_R, random_mdp, uniform_policy
from paths import agree

from tabrl import MDP, chain, control, dp, envs, prediction
from tabrl.control import acting, dyna
from tabrl.control.kernels import Moves
from tabrl.longrun import hitting_times
from tabrl.types import ActionUpdate

RUNS = range(24)
ALPHA, EPS, STEPS = 0.3, 0.3, 300


def several(mdp: MDP) -> bool:
    """Whether episodes can start in several states: only then is there a number for the start, the last one."""
    return bool(np.count_nonzero(mdp.mu) > 1)


def model(seed: int, deterministic: bool = False) -> tuple[MDP, int]:
    """A random cyclic model (self-loops, terminal states, masked actions), and a time limit."""
    rng = np.random.default_rng([31, seed])
    mdp = random_mdp(rng, S=int(rng.integers(2, 7)), gamma=float(rng.choice([0.8, 0.95])), proper=seed % 2 == 0)
    if deterministic:
        P, R = dense_P(mdp), dense_R(mdp)
        on = mdp.legal & ~mdp.terminal[:, None]
        mdp = replace(mdp, P=np.eye(mdp.S)[(P * rng.random(P.shape)).argmax(2)] * on[:, :, None], R=R)
    mu = np.where(mdp.terminal, 0.0, 1.0)
    return replace(mdp, mu=mu / mu.sum()), int(rng.integers(1, 15))


def first_values(mdp: MDP) -> Any:
    """Normal, in terminal states too, where they must not matter; 0 for illegal actions."""
    return np.where(mdp.legal, np.random.default_rng(0).normal(size=(mdp.S, mdp.A)), 0.0)


def dyna_learner(source: Any, seed: int, planning: int, kappa: float | None = None, **options: Any) -> dyna.Dyna:
    """Dyna-Q with its defaults filled in."""
    given = {"alpha": ALPHA, "eps": EPS, "Q": None, "limit": None, "every": STEPS, "gamma": None, **options}
    return dyna.Dyna(planning, kappa, source, np.random.default_rng(seed), *given.values())


def sweeper(source: Any, seed: int, planning: int, theta: float, **options: Any) -> dyna.Prioritized:
    """Prioritized sweeping with its defaults filled in."""
    given = {"alpha": ALPHA, "eps": EPS, "Q": None, "limit": None, "every": STEPS, "gamma": None, **options}
    return dyna.Prioritized(planning, theta, source, np.random.default_rng(seed), *given.values())


def joined(parts: list[Moves]) -> Moves:
    columns: Any = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Moves(*columns)


def run(x: acting.Learner, n: int = STEPS) -> tuple[Moves, Any]:
    """Record the moves of the first n steps, and the action values after them."""
    parts: list[Moves] = []
    for moves, _ in x.moves():
        parts.append(moves)
        if sum(len(p.r) for p in parts) >= n:
            break
    return joined(parts), x.Q


def close(x: Any, y: Any) -> bool:
    return bool(abs(x - y).max() <= 1e-12 * max(1.0, abs(y).max()))


# ---- the book's loops ----


def check_action(Q: Any, legal: Any, s: int, a: int, u: float) -> None:
    """With probability EPS any legal action, else a maximiser."""
    options = np.flatnonzero(legal[s])
    if u < EPS:
        assert a == options[int(u / EPS * len(options))]
    else:
        assert a in options
        assert Q[s, a] >= Q[s, options].max() - 1e-12


def top(Q: Any, legal: Any, s: int) -> float:
    return max(float(Q[s, b]) for b in np.flatnonzero(legal[s]))


def steps_of(x: Moves) -> Iterator[tuple[int, int, float, float, int]]:
    return zip(*(y.tolist() for y in (x.s, x.a, x.r, x.discount, x.s_next)), strict=True)


def literal_dyna(x: Moves, u: Any, legal: Any, Q: Any, n: int, kappa: float | None = None, **given: Any) -> Any:
    """Tabular Dyna-Q (section 8.2) on recorded moves; with kappa, Dyna-Q+ (section 8.3).

    given: alpha, step size of the pair's k-th update; gamma, of the imagined self-loops; plan (T,n) uniforms.
    """
    Q, tried = Q.copy(), {}
    world: dict[tuple[int, int], tuple[float, float, int]] = {}
    alpha, gamma, plan, updates = given["alpha"], given["gamma"], given["plan"], np.zeros(Q.shape)

    def learn(s: int, a: int, target: float) -> None:
        updates[s, a] += 1
        Q[s, a] += alpha(updates[s, a]) * (target - Q[s, a])

    for t, (s, a, r, d, s_next) in enumerate(steps_of(x)):
        check_action(Q, legal, s, a, u[t, 0])
        learn(s, a, r + d * top(Q, legal, s_next))
        if kappa is not None:
            for b in np.flatnonzero(legal[s]).tolist():
                world.setdefault((s, b), (0.0, gamma, s))
        world[s, a], tried[s, a] = (r, d, s_next), t + 1
        for k in range(n):
            pair = list(world)[int(plan[t, k] * len(world))]
            R, D, S_next = world[pair]
            bonus = 0.0 if kappa is None else kappa * np.sqrt(t + 1 - tried.get(pair, 0))
            learn(*pair, R + bonus + D * top(Q, legal, S_next))
    return Q


@pytest.mark.parametrize("kappa", [None, 0.05])
@pytest.mark.parametrize("seed", RUNS)
def test_replay_dyna(seed: int, kappa: float | None) -> None:
    mdp, limit = model(seed)
    first = first_values(mdp)
    x, Q = run(dyna_learner(mdp, seed, 3, kappa, limit=limit, Q=first))
    u = np.random.default_rng(seed).random((STEPS, 6))
    given: dict[str, Any] = {"alpha": lambda k: ALPHA, "gamma": mdp.gamma, "plan": u[:, 3:]}
    assert close(Q, literal_dyna(x, u, mdp.legal, first, 3, kappa, **given))


def test_replay_dyna_with_a_schedule() -> None:
    mdp, limit = model(3)
    first = first_values(mdp)
    x, Q = run(dyna_learner(mdp, 3, 20, limit=limit, alpha=prediction.power(1.0, 0.7), Q=first))
    u = np.random.default_rng(3).random((STEPS, 23))
    given: dict[str, Any] = {"alpha": lambda k: k**-0.7, "gamma": mdp.gamma, "plan": u[:, 3:]}
    assert close(Q, literal_dyna(x, u, mdp.legal, first, 20, **given))


def literal_box(x: Moves, u: Any, legal: Any, Q: Any, n: int, theta: float, alpha: float) -> Any:
    """Prioritized sweeping for a deterministic environment (section 8.4), on recorded moves."""
    Q = Q.copy()
    queue: dict[tuple[int, int], float] = {}
    world: dict[tuple[int, int], tuple[float, float, int]] = {}

    def error(pair: tuple[int, int]) -> float:
        r, d, s_next = world[pair]
        return float(r + d * top(Q, legal, s_next) - Q[pair])

    def insert(pair: tuple[int, int]) -> None:
        if abs(error(pair)) > theta:
            queue[pair] = max(queue.get(pair, 0.0), abs(error(pair)))

    for t, (s, a, r, d, s_next) in enumerate(steps_of(x)):
        check_action(Q, legal, s, a, u[t, 0])
        world[s, a] = (r, d, s_next)
        insert((s, a))
        for _ in range(n):
            if not queue:
                break
            pair = min(queue, key=lambda p: (-queue[p], p))
            del queue[pair]
            Q[pair] += alpha * error(pair)
            for other, (_, D, S_next) in world.items():
                if S_next == pair[0] and D > 0:
                    insert(other)
    return Q


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("seed", RUNS)
def test_replay_prioritized_in_a_deterministic_world(seed: int, alpha: float) -> None:
    mdp, limit = model(seed, deterministic=True)
    first = first_values(mdp)
    x, Q = run(sweeper(mdp, seed, 4, 0.01, limit=limit, alpha=alpha, Q=first))
    u = np.random.default_rng(seed).random((STEPS, 2 + several(mdp)))
    assert close(Q, literal_box(x, u, mdp.legal, first, 4, 0.01, alpha))


def literal_counts(x: Moves, u: Any, legal: Any, Q: Any, n: int, theta: float, alpha: Any) -> Any:
    """The same with counts and expected updates. Sums run from the newest outcome to the oldest, as equal
    priorities that differ in the last bit would change the order of the updates."""
    Q = Q.copy()
    queue: dict[tuple[int, int], float] = {}
    seen: dict[tuple[int, int], list[Any]] = {}  # times, mean reward, {s': times}, gamma
    updates = np.zeros(Q.shape)

    def error(pair: tuple[int, int]) -> float:
        times, r, goes, gamma = seen[pair]
        ahead = 0.0
        for s_next in reversed(goes):
            ahead += goes[s_next] / times * top(Q, legal, s_next)
        return float(r + gamma * ahead - Q[pair])

    def insert(pair: tuple[int, int]) -> None:
        if abs(error(pair)) > theta:
            queue[pair] = max(queue.get(pair, 0.0), abs(error(pair)))

    for t, (s, a, r, d, s_next) in enumerate(steps_of(x)):
        check_action(Q, legal, s, a, u[t, 0])
        known = seen.setdefault((s, a), [0, 0.0, {}, 0.0])
        known[0] += 1
        known[1] += (r - known[1]) / known[0]
        if d > 0:
            known[2][s_next], known[3] = known[2].get(s_next, 0) + 1, d
        insert((s, a))
        for _ in range(n if queue else 0):
            pair = min(queue, key=lambda p: (-queue[p], p))
            del queue[pair]
            updates[pair] += 1
            Q[pair] += alpha(updates[pair]) * error(pair)
            for other in [p for p in seen if pair[0] in seen[p][2]]:
                insert(other)
            if not queue:
                break
    return Q


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("seed", RUNS)
def test_replay_prioritized(seed: int, alpha: float) -> None:
    mdp, limit = model(seed)
    first = first_values(mdp)
    x, Q = run(sweeper(mdp, seed, 4, 0.01, limit=limit, alpha=alpha, every=150, Q=first), 150)
    u = np.random.default_rng(seed).random((150, 2 + several(mdp)))
    assert close(Q, literal_counts(x, u, mdp.legal, first, 4, 0.01, lambda k: alpha))


def test_replay_prioritized_with_a_schedule() -> None:
    """One state that leads to itself, and so is updated 20 times a step."""
    mdp = MDP(np.ones((1, 1, 1)), np.ones((1, 1)), 0.99)
    learner = sweeper(mdp, 3, 20, 0.0, alpha=prediction.power(1.0, 0.5), every=150)
    x, Q = run(learner, 150)
    assert learner.steps.count[0] == 3000
    u = np.random.default_rng(3).random((150, 2 + several(mdp)))
    assert close(Q, literal_counts(x, u, mdp.legal, np.zeros((1, 1)), 20, 0.0, lambda k: k**-0.5))


def test_the_runs_hold_what_they_should() -> None:
    for deterministic in (False, True):
        worlds = [model(seed, deterministic) for seed in RUNS]
        moves = [run(dyna_learner(m, seed, 3, limit=limit))[0] for seed, (m, limit) in enumerate(worlds)]
        assert any((x.s == x.s_next).any() for x in moves)
        assert any((x.discount == 0).any() for x in moves)
        assert any((x.last & (x.discount > 0)).any() for x in moves)
        assert any(not m.legal.all() for m, _ in worlds)
        assert any(((P := dense_P(m)) > 0).sum() > (P.sum(2) > 0).sum() for m, _ in worlds) != deterministic


# ---- identities, and what the learners must reach ----


@pytest.mark.parametrize("seed", RUNS)
def test_no_planning_is_q_learning(seed: int) -> None:
    mdp, limit = model(seed)
    options: dict[str, Any] = {"alpha": 0.2, "eps": 0.2, "limit": limit, "every": 50}
    one = islice(control.q_learning(mdp, np.random.default_rng(seed), **options), 4)
    two = islice(dyna.dyna_q(mdp, np.random.default_rng(seed), planning=0, **options), 4)
    for a, b in zip(one, two, strict=True):
        assert (a.t, a.Q.tobytes(), a.delta) == (b.t, b.Q.tobytes(), b.delta)


@pytest.mark.parametrize("seed", range(12))
def test_a_deterministic_world_is_solved(seed: int) -> None:
    """20,000 steps of the uniform policy try every pair; what is left is rounding, and theta / (1 - gamma)."""
    mdp, _ = model(seed, deterministic=True)
    best = dp.solve(mdp, tol=1e-9)
    slack = best.bound + 1e-9 * max(1.0, abs(best.Q).max())
    options: dict[str, Any] = {"alpha": 1.0, "eps": 1.0, "limit": 20, "every": 20_000}
    x = next(dyna.dyna_q(mdp, np.random.default_rng(seed), planning=10, **options))
    assert abs(x.Q - best.Q).max() <= slack
    for theta in (0.0, 0.01):
        x = next(dyna.prioritized_dyna(mdp, np.random.default_rng(seed), planning=10, theta=theta, **options))
        assert abs(x.Q - best.Q).max() <= slack + theta / (1 - mdp.gamma)


@pytest.mark.parametrize("seed", RUNS)
def test_an_empty_queue_means_that_the_model_seen_is_solved(seed: int) -> None:
    """Certainty equivalence: the counts as a model, in which an untried action ends and pays its first value."""
    mdp, limit = model(seed)
    first = first_values(mdp)
    learner = sweeper(mdp, seed, 100_000, 1e-3, alpha=1.0, Q=first, limit=limit)
    x, Q = run(learner)
    assert learner.queue.length[0] == 0
    S, A = mdp.S, mdp.A
    P, R = np.zeros((S + 1, A, S + 1)), np.zeros((S + 1, A))
    np.add.at(P, (x.s, x.a, np.where(x.discount > 0, x.s_next, S)), 1)
    np.add.at(R, (x.s, x.a), x.r)
    n = P.sum(2)
    R[:S] = np.where(n[:S] > 0, R[:S] / np.maximum(n[:S], 1), first)
    P[:S] = np.where(n[:S, :, None] > 0, P[:S] / np.maximum(n[:S, :, None], 1), np.eye(S + 1)[S])
    legal = np.vstack([mdp.legal, np.ones((1, A), bool)])
    P[~legal], R[~legal], P[S] = 0.0, 0.0, 0.0
    best = dp.solve(MDP(P, R, mdp.gamma, terminal=np.arange(S + 1) == S, legal=legal), tol=1e-9)
    gap = abs(Q - best.Q[:S])[mdp.legal].max()
    assert gap <= best.bound + 1e-3 / (1 - mdp.gamma) + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_prioritized_reaches_the_optimum_of_a_random_world(seed: int) -> None:
    """200,000 tries: the counts leave an error of about 1 % of the largest value; 5 % is asked."""
    mdp = random_mdp(np.random.default_rng([32, seed]), S=4, A=3, gamma=0.8, terminal=False)
    options: dict[str, Any] = {"planning": 3, "eps": 0.5, "every": 200_000, "limit": 50}
    x = next(dyna.prioritized_dyna(mdp, np.random.default_rng(seed), **options))
    exact = np.where(mdp.legal, dp.solve(mdp).Q, 0.0)
    assert abs(x.Q - exact).max() < 0.05 * max(abs(exact).max(), 1e-9)


# ---- what the last outcome forgets ----


def detour(gamma: float) -> MDP:
    """From state 0 a coin decides: the end, paying 1, or a way of five states back to the start, paying 0."""
    P, R = np.zeros((7, 1, 7)), np.zeros((7, 1, 7))
    P[0, 0, [1, 6]], R[0, 0, 6] = 0.5, 1.0
    P[[1, 2, 3, 4, 5], 0, [2, 3, 4, 5, 0]] = 1.0
    return MDP(P, R, gamma, terminal=np.arange(7) == 6, mu=np.eye(7)[0])


def test_the_limit_by_hand() -> None:
    """The end is followed by the next try at once, the detour five steps later: weights 1 + n/6 and 1 + 6 n/6."""
    mdp, pi = detour(0.5), np.ones((7, 1))
    for n in (0, 3, 12):
        P = dyna.remembered(mdp, pi, n).P
        end, away = 1 + n / 6, 1 + n
        assert abs(P[0, 0, 6] - end / (end + away)) < 1e-12
        assert abs(P[0, 0, 1] - away / (end + away)) < 1e-12


@pytest.mark.parametrize("seed", range(8))
def test_when_the_limit_is_the_truth(seed: int) -> None:
    mdp, _ = model(seed)
    pi = uniform_policy(mdp)
    if mdp.terminal.any() and seed % 2 == 0:
        assert abs(dense_P(dyna.remembered(mdp, pi, 0)) - dense_P(mdp)).max() < 1e-15
        same = replace(mdp, P=csr(dense_P(mdp)), R=csr(dense_R(mdp)))
        a, b = dyna.remembered(mdp, pi, 5), dyna.remembered(same, pi, 5)
        assert abs(dense_P(a) - dense_P(b)).max() < 1e-12
    fixed = replace(envs.grid("S.G ...", gamma=0.9), gamma=0.8)
    assert (dense_P(dyna.remembered(fixed, uniform_policy(fixed), 5)) == dense_P(fixed)).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_limit_of_averages(seed: int) -> None:
    """gamma = 0 and step sizes 1/k: Q is the mean of the rewards remembered. 64 runs of 20,000 steps against
    `remembered`; a false alarm has |z| > 6.8 at 63 degrees of freedom, below 1e-8 for each of some 40 numbers."""
    rng = np.random.default_rng([33, seed])
    mdp = random_mdp(rng, S=4, A=2, gamma=0.0, proper=True, rewards="sas", masked=False)
    mdp = replace(mdp, mu=(~mdp.terminal) / (~mdp.terminal).sum())
    options: dict[str, Any] = {"planning": 4, "alpha": prediction.harmonic, "eps": 1.0, "every": 20_000}
    Q = np.array([next(dyna.dyna_q(mdp, np.random.default_rng([seed, i]), **options)).Q for i in range(64)])
    limit = dyna.remembered(mdp, uniform_policy(mdp), 4).r
    agree(Q, np.where(mdp.terminal[:, None], 0.0, limit))
    if seed == 0:
        with pytest.raises(AssertionError, match="z ="):
            agree(Q, np.where(mdp.terminal[:, None], 0.0, mdp.r))


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_dyna_q_settles_on_the_model_it_remembers(gamma: float) -> None:
    """One million steps of size k**-.7 on the detour: within 3 % of the limit, which is far from Q*."""
    mdp = detour(gamma)
    limit, truth = (dp.solve(m).Q for m in (dyna.remembered(mdp, np.ones((7, 1)), 6), mdp))
    options: dict[str, Any] = {"planning": 6, "alpha": prediction.power(1.0, 0.7), "every": 10**6}
    x = next(dyna.dyna_q(mdp, np.random.default_rng(1), **options))
    assert abs(x.Q - limit).max() < 0.03 * limit.max()
    assert abs(x.Q - truth).max() > 0.3 * truth.max()
    x = next(dyna.prioritized_dyna(mdp, np.random.default_rng(1), planning=6, every=10**5))
    assert abs(x.Q - truth).max() < 0.03 * truth.max()


# ---- the textbook's mazes ----


def test_the_dyna_maze() -> None:
    """Example 8.1 (alpha = eps = .1, 30 runs of 50 episodes): planning 50 beats 5 beats 0 in episodes 2 to 10, each
    by more than 5 standard errors of the paired difference."""
    maze = envs.dyna_maze()
    s = int(np.argmax(maze.mu))
    assert abs(dp.solve(maze).V[s] - 0.95**13) < 1e-9  # 14 steps, and no way is shorter
    steps = {}
    for n in (0, 5, 50):
        learners = [dyna_learner(maze, seed, n, alpha=0.1, eps=0.1, every=1024) for seed in range(30)]
        steps[n] = np.array([dyna.steps_per_episode(x, 50) for x in learners])
    assert all((x >= 14).all() for x in steps.values())
    early = {n: x[:, 1:10].mean(1) for n, x in steps.items()}
    for more, less in ((50, 5), (5, 0)):
        gap = early[less] - early[more]
        assert gap.mean() > 5 * gap.std(ddof=1) / np.sqrt(30)


def test_the_first_episode_has_no_preference() -> None:
    """All values are 0 until the goal is found: its length over 400 runs is that of the uniform policy, 868.7."""
    maze = envs.dyna_maze()
    learners = [dyna_learner(maze, seed, 1, eps=0.1, every=1024) for seed in range(400)]
    first = np.array([float(dyna.steps_per_episode(x, 1)[0]) for x in learners])
    agree(first, hitting_times(chain.induce(maze, uniform_policy(maze)), maze.terminal)[np.argmax(maze.mu)])


@pytest.mark.parametrize("seed", range(30))
def test_the_dyna_maze_is_solved_where_everything_is_tried(seed: int) -> None:
    """Under eps = 1, in every one of 30 runs: Q is Q*, so that without exploration every episode takes 14 steps."""
    maze = envs.dyna_maze()
    best = dp.solve(maze, tol=1e-12)
    one = dyna_learner(maze, seed, 20, alpha=1.0, eps=1.0, every=30_000)
    two = sweeper(maze, seed, 20, 0.0, alpha=1.0, eps=1.0, every=30_000)
    for x in (one, two):
        _, Q = run(x, 30_000)
        assert abs(Q - best.Q).max() <= best.bound + 1e-12
        assert greedy_length(maze, Q) == 14
        greedy = dyna_learner(maze, seed, 5, Q=Q, eps=0.0, every=140)
        assert (dyna.steps_per_episode(greedy, 10) == 14).all()


def greedy_length(mdp: MDP, Q: Any) -> float:
    """Steps from the start to the end of the policy greedy in Q, inf where it may never end; ties are mixed."""
    ties = (np.where(mdp.legal, Q, -np.inf).max(1, keepdims=True) - Q <= 1e-12) & mdp.legal
    h = hitting_times(chain.induce(mdp, ties / ties.sum(1, keepdims=True)), mdp.terminal)
    return float(h[np.argmax(mdp.mu)])


def shortcut_maze() -> tuple[MDP, MDP]:
    """The long way round alone, and with a door on the right: the same states, the door shut or open."""
    after = envs.grid("........G ......... ......... .#######. ......... ...S.....", gamma=0.95)
    door = int(np.argmax((after.cell == (3, 8)).all(1)))
    P, into = dense_P(after).copy(), dense_P(after)[:, :, door].copy()
    P[:, :, door] -= into
    P[np.arange(after.S), :, np.arange(after.S)] += into
    before = replace(after, P=P)
    assert [greedy_length(m, dp.solve(m).Q) for m in (before, after)] == pytest.approx([16, 10])
    return before, after


def test_dyna_q_plus_finds_a_shortcut() -> None:
    """Example 8.3: the door opens after 3,000 steps. Over 20 paired runs Dyna-Q+ earns more in the next 6,000, by
    more than 5 standard errors; then its episodes are shorter than any without the door, and Dyna-Q's are not."""
    before, after = shortcut_maze()
    earned, lengths = {}, {}
    for kappa in (None, 1e-3):
        learners = [dyna_learner(before, seed, 20, kappa, alpha=0.5, eps=0.1, every=3000) for seed in range(20)]
        for x in learners:
            run(x, 3000)
            x.source = after
        earned[kappa] = np.array([run(x, 6000)[0].r.sum() for x in learners])
        lengths[kappa] = np.array([dyna.steps_per_episode(x, 50).mean() for x in learners])
    gap = earned[1e-3] - earned[None]
    assert gap.mean() > 5 * gap.std(ddof=1) / np.sqrt(20)
    assert (lengths[None] > 16).all()
    assert (lengths[1e-3] < 16).all()


# ---- gymnasium ----


@pytest.mark.parametrize("kappa", [None, 0.05])
@pytest.mark.parametrize("world", ["Taxi-v4", "Blackjack-v1"])
def test_gymnasium_dyna(world: str, kappa: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    with gymnasium.make(world) as env:
        x = dyna_learner(env, 5, 3, kappa, gamma=0.9, every=1, limit=30)
        moves, u = recorded(x, monkeypatch)
        assert x.Q.shape == {"Taxi-v4": (500, 6), "Blackjack-v1": (704, 2)}[world]
        given: dict[str, Any] = {"alpha": lambda k: ALPHA, "gamma": 0.9, "plan": u[:, 3:]}
        assert close(x.Q, literal_dyna(moves, u, x.legal, np.zeros(x.Q.shape), 3, kappa, **given))
        assert (moves.last & (moves.discount > 0)).any() == (world == "Taxi-v4")
        assert (moves.discount == 0).any() == (world == "Blackjack-v1")


@pytest.mark.parametrize("world", ["Taxi-v4", "Blackjack-v1"])
def test_gymnasium_prioritized(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    with gymnasium.make(world) as env:
        x = sweeper(env, 5, 3, 0.01, gamma=0.9, every=1, limit=30, alpha=0.7)
        moves, u = recorded(x, monkeypatch)
        assert close(x.Q, literal_counts(moves, u, x.legal, np.zeros(x.Q.shape), 3, 0.01, lambda k: 0.7))
        assert x.Q.any()


def recorded(x: acting.Learner, monkeypatch: pytest.MonkeyPatch) -> tuple[Moves, Any]:
    """300 steps in an environment, and the uniform numbers that they used."""
    drawn: list[Any] = []
    update = x.update

    def noted(move: Moves, u: Any) -> float:
        drawn.append(u)
        return update(move, u)

    monkeypatch.setattr(x, "update", noted)
    moves = joined([m for m, _ in islice(x.moves(), 300)])
    return moves, np.array(drawn)


# ---- bits, and bad input ----


@pytest.mark.parametrize("seed", [8, 9])
def test_every_and_blocks_do_not_change_the_values(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, limit = model(seed)
    learners: dict[Any, dict[str, Any]] = {
        dyna.dyna_q: {"planning": 2},
        dyna.dyna_q_plus: {"planning": 2, "kappa": 0.1},
        dyna.prioritized_dyna: {"planning": 2, "theta": 0.0},
    }
    for learner, options in learners.items():
        finals = set()
        for block in (1, 13, 4096):
            monkeypatch.setattr(acting, "BLOCK", block)
            for every in (1, 5, 40, 1000):
                x = learner(mdp, np.random.default_rng(2), alpha=0.2, eps=0.2, limit=limit, every=every, **options)
                final: ActionUpdate = next(islice(x, 1000 // every - 1, None))
                assert final.t == 1000
                finals.add((final.Q.tobytes(), final.delta))
        assert len(finals) == 1


def test_a_model_and_its_environment_leave_what_is_unknown_alone() -> None:
    """Pairs never tried keep their first values, in a world with masks, walked by kernel or by gymnasium."""
    mdp = next(m for m, _ in map(model, RUNS) if not m.legal.all() and m.terminal.any())
    for source in (mdp, envs.TabularEnv(mdp)):
        options: dict[str, Any] = {"Q": np.full((mdp.S, mdp.A), 7.0), "limit": 4, "gamma": mdp.gamma, "every": 20}
        for x in (dyna_learner(source, 1, 2, **options), sweeper(source, 1, 2, 0.0, **options)):
            moves, Q = run(x, 20)
            tried = np.zeros((mdp.S, mdp.A), bool)
            tried[moves.s, moves.a] = True
            assert (Q[~tried & x.legal] == 7).all()
            assert not tried[~mdp.legal].any()


SCRIPT = """
import numpy as np
from tabrl import envs
from tabrl.control import dyna
for world, limit in ((envs.dyna_maze(), 500), (envs.frozen_lake(gamma=0.9), 30)):
    for learner, options in (
        (dyna.dyna_q, {}), (dyna.dyna_q_plus, {"kappa": 0.01}), (dyna.prioritized_dyna, {"theta": 0.0}),
    ):
        x = next(learner(world, np.random.default_rng(7), planning=4, alpha=0.1, limit=limit, every=600, **options))
        print(x.t, x.delta.hex(), x.Q.tobytes().hex())
"""


def test_same_bits_with_and_without_numba() -> None:
    outputs = plain_and_compiled(SCRIPT)
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == 6


def test_bad_input_is_named() -> None:
    mdp, _ = model(8)
    rng = np.random.default_rng(0)
    for planning in (-1, 2.5, True):
        with pytest.raises(ValueError, match=f"planning is {planning}; a whole number from 0 on is expected"):
            dyna.dyna_q(mdp, rng, planning=planning, alpha=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="planning is 0; a whole number from 1 on is expected"):
        dyna.prioritized_dyna(mdp, rng, planning=0)
    with pytest.raises(ValueError, match=r"theta is -0.1; a finite number >= 0 is expected"):
        dyna.prioritized_dyna(mdp, rng, planning=1, theta=-0.1)
    for kappa in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"kappa is {kappa}; a finite number >= 0 is expected"):
            dyna.dyna_q_plus(mdp, rng, planning=1, alpha=0.5, kappa=kappa)
    with pytest.raises(ValueError, match=r"alpha is 1.5; a step size in \(0, 1\], or a schedule"):
        dyna.prioritized_dyna(mdp, rng, planning=1, alpha=1.5)
    with pytest.raises(ValueError, match="episodes is 0; a whole number from 1 on is expected"):
        dyna.steps_per_episode(dyna_learner(mdp, 0, 1), 0)
    with pytest.raises(ValueError, match=r"mu\[1\] is 0.5; 0 is expected"):
        dyna.remembered(MDP([[[0, 1]], [[0, 1]]], [1, 0], 0.5, terminal=[0, 1], mu=[0.5, 0.5]), np.ones((2, 1)), 1)
    with pytest.raises(ValueError, match="state 0 is met and may never be met again; a policy that keeps returning"):
        dyna.remembered(MDP([[[0, 1]], [[0, 1]]], [1, 0], 0.5, mu=[1, 0]), np.ones((2, 1)), 1)
