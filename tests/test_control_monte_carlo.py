"""Monte Carlo control: every learner against the book's loops, exact values, and Blackjack."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from bits import plain_and_compiled
from models import random_mdp, uniform_policy
from paths import Z, agree
from test_control import close, joined, model

from tabrl import MDP, bellman, chain, dp, envs, prediction
from tabrl.control import acting
from tabrl.control.kernels import Moves
from tabrl.control.monte_carlo import MonteCarlo, exploring_starts, mc_control, off_policy_mc_control
from tabrl.control.monte_carlo_kernels import EVERY, FIRST, WEIGHTED

RUNS = range(24)
STEPS = 500
LEARNERS: dict[str, Callable[..., Any]] = {
    "first": mc_control,
    "every": lambda *a, **k: mc_control(*a, visit="every", **k),
    "exploring": exploring_starts,
    "exploring every": lambda *a, **k: exploring_starts(*a, visit="every", **k),
    "weighted": off_policy_mc_control,
    "weighted b": lambda source, *a, **k: off_policy_mc_control(source, *a, b=behaviour(source), **k),
}


def rule_of(name: str) -> int:
    return WEIGHTED if name.startswith("weighted") else EVERY if name.endswith("every") else FIRST


def legal_of(source: Any) -> Any:
    return source.legal if isinstance(source, MDP) else np.ones(acting.world(source, 1.0)[1].shape, bool)


def behaviour(source: Any) -> Any:
    """A fixed soft policy: action a has weight a + 1."""
    weight = legal_of(source) * np.arange(1.0, legal_of(source).shape[1] + 1)
    return weight / weight.sum(1, keepdims=True)


def learner(name: str, source: Any, seed: int, **options: Any) -> MonteCarlo:
    """A learner with its defaults filled in."""
    eps = 0.0 if name.startswith("exploring") else 0.3
    given = {"alpha": 0.3, "eps": eps, "Q": None, "limit": None, "every": STEPS, "gamma": None, **options}
    b = behaviour(source) if name.endswith(" b") else None
    rng = np.random.default_rng(seed)
    return MonteCarlo(rule_of(name), b, name.startswith("exploring"), source, rng, *given.values())


def run(name: str, source: Any, seed: int, n: int = STEPS, **options: Any) -> tuple[Moves, MonteCarlo]:
    """Record the moves of the first n steps, and the learner after them."""
    x = learner(name, source, seed, **options)
    parts: list[Moves] = []
    for moves, _ in x.moves():
        parts.append(moves)
        if sum(len(p.r) for p in parts) >= n:
            return joined(parts), x
    raise AssertionError("moves are endless")


def acting_policy(name: str, Q: Any, legal: Any, eps: float, source: Any) -> Any:
    """(S,A): what acts while Q stands."""
    if name == "weighted b":
        return behaviour(source)
    ties = legal & (np.where(legal, Q, -np.inf).max(1, keepdims=True) == Q)
    return eps * legal / legal.sum(1, keepdims=True) + (1 - eps) * ties / ties.sum(1, keepdims=True)


def literal(
    name: str, x: Moves, source: Any, legal: Any, Q: Any, eps: float, alpha: float | None, u: Any
) -> tuple[Any, float]:
    """The book's loops (sections 5.3, 5.4 and 5.7), episode by episode, on recorded moves: Q and the last error.

    alpha None: averages of lists of returns. u: the uniform numbers, to check the actions with; None: unchecked.
    """
    Q, C, delta = Q.copy(), np.zeros(Q.shape), 0.0
    returns: dict[tuple[int, int], list[float]] = {}
    ends = [0, *(np.flatnonzero(x.last) + 1).tolist()]
    for i, j in zip(ends, [*ends[1:], len(x.r)], strict=True):
        pi = acting_policy(name, Q, legal, eps, source)
        if u is not None:
            check_actions(name, x, source, legal, Q, pi, eps, u, i, j)
        if i == j or not x.last[j - 1]:
            continue
        end = int(x.s_next[j - 1])
        best = max(Q[end, c] for c in np.flatnonzero(legal[end]))
        G = best if rule_of(name) == WEIGHTED else sum(pi[end, c] * Q[end, c] for c in range(Q.shape[1]))
        W = 1.0
        for t in reversed(range(i, j)):
            s, a = int(x.s[t]), int(x.a[t])
            G = x.r[t] + x.discount[t] * G
            if rule_of(name) == WEIGHTED:
                C[s, a] += W
                delta = G - Q[s, a]
                Q[s, a] += W / C[s, a] * (G - Q[s, a])
                if a != next(c for c in np.flatnonzero(legal[s]) if Q[s, c] == max(Q[s][legal[s]])):
                    break
                W = W / pi[s, a]
            elif rule_of(name) == EVERY or (s, a) not in [(x.s[k], x.a[k]) for k in range(i, t)]:
                delta = G - Q[s, a]
                returns.setdefault((s, a), []).append(G)
                Q[s, a] = np.mean(returns[s, a]) if alpha is None else Q[s, a] + alpha * (G - Q[s, a])
    return Q, delta


def same(x: MonteCarlo, expected: tuple[Any, float]) -> bool:
    Q, delta = expected
    return close(x.Q, Q) and abs(x.delta - delta) <= 1e-12 * max(1.0, abs(Q).max())


def check_actions(
    name: str, x: Moves, source: Any, legal: Any, Q: Any, pi: Any, eps: float, u: Any, i: int, j: int
) -> None:
    """Every action of steps i … j-1 follows from its uniform number."""
    pairs = np.argwhere(legal & ~source.terminal[:, None])
    for t in range(i, j):
        s, a = int(x.s[t]), int(x.a[t])
        options = np.flatnonzero(legal[s])
        if name.startswith("exploring") and t == i:
            assert (s, a) == tuple(pairs[int(u[t, 2] * len(pairs))])
        elif name == "weighted b":
            assert pi[s, :a].sum() - 1e-12 <= u[t, 0] <= pi[s, : a + 1].sum() + 1e-12
        elif u[t, 0] < eps:
            assert a == options[int(u[t, 0] / eps * len(options))]
        else:
            assert Q[s, a] >= Q[s, options].max() - 1e-12
            assert a in options


def numbers(seed: int) -> Any:
    return np.random.default_rng(seed).random((STEPS, MonteCarlo.draws))


def exploration(name: str) -> float:
    return 0.0 if name.startswith("exploring") else 0.3


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("seed", RUNS)
def test_replay(name: str, seed: int) -> None:
    mdp, limit = model(seed)
    x, done = run(name, mdp, seed, limit=limit)
    expected = literal(name, x, mdp, mdp.legal, np.zeros(mdp.legal.shape), exploration(name), 0.3, numbers(seed))
    assert same(done, expected)
    assert (done.Q[~mdp.legal] == 0).all()


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("seed", range(1, 5))
def test_replay_with_averages_and_first_values(name: str, seed: int) -> None:
    mdp, limit = model(seed)
    first = np.where(mdp.legal, np.random.default_rng(0).normal(size=mdp.legal.shape), 0.0)
    x, done = run(name, mdp, seed, limit=limit, alpha=prediction.harmonic, Q=first)
    assert same(done, literal(name, x, mdp, mdp.legal, first, exploration(name), None, numbers(seed)))


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("seed", RUNS)
def test_moves_are_moves_of_the_model(name: str, seed: int) -> None:
    """Rewards, discounts, ends and limits; an episode starts after an end, and only then."""
    mdp, limit = model(seed)
    x, _ = run(name, mdp, seed, limit=limit)
    rows = np.asarray(mdp.rows.toarray() if mdp.is_sparse else mdp.rows).reshape(mdp.S, mdp.A, mdp.S)
    assert (rows[x.s, x.a, x.s_next] > 0).all()
    assert (x.r == chain.entries_of(mdp, x.s * mdp.A + x.a, x.s_next)).all()
    assert (x.discount == np.where(mdp.terminal[x.s_next], 0.0, mdp.gamma)).all()
    on = ~x.last[:-1]
    assert (x.s[1:][on] == x.s_next[:-1][on]).all()
    lengths = np.diff(np.flatnonzero(np.append(True, x.last)))
    assert lengths.max(initial=1) <= limit
    ended = mdp.terminal[x.s_next[x.last]] | (lengths == limit)
    assert ended.all()
    assert not mdp.terminal[x.s_next[~x.last]].any()


def test_the_runs_hold_what_they_should() -> None:
    moves = [run("first", model(seed)[0], seed, limit=model(seed)[1])[0] for seed in RUNS]
    assert any((x.s == x.s_next).any() for x in moves)
    assert any((x.discount == 0).any() for x in moves)
    assert any((x.last & (x.discount > 0)).any() for x in moves)
    assert any(not model(seed)[0].legal.all() for seed in RUNS)
    assert any(len(np.unique(x.s * 9 + x.a)) < len(x.r) for x in moves)


# ---- starts, cuts and ratios ----


def test_exploring_starts_are_uniform_over_all_legal_pairs() -> None:
    """100,000 episodes of one step on a model that mu starts in one state: each pair within 6 standard errors.

    False alarm below 2e-9 for each of the pairs, 1e-7 together.
    """
    mdp = random_mdp(np.random.default_rng(41), S=8, A=4, gamma=0.9, masked=True, terminal=True)
    mdp = replace(mdp, mu=np.eye(8)[int(np.argmin(mdp.terminal))])
    n = 100_000
    x, _ = run("exploring", mdp, 3, n=n, limit=1, every=n)
    seen = np.zeros(mdp.legal.shape)
    np.add.at(seen, (x.s, x.a), 1)
    pairs = mdp.legal & ~mdp.terminal[:, None]
    p = 1 / pairs.sum()
    assert not pairs.all()
    assert (seen[~pairs] == 0).all()
    assert (abs(seen[pairs] - n * p) <= 6 * np.sqrt(n * p * (1 - p))).all()


def test_a_cut_episode_does_not_end() -> None:
    """One state, reward 1, discount .9, cut after 3 steps: Q <- Q + alpha (2.71 + .729 Q - Q), so Q goes to 10.

    Averages (the weights are 1 here) still hold the first tails: they go there too, but slowly.
    """
    one = MDP([[[1.0]]], [1.0], 0.9)
    for name in LEARNERS:
        x = next(LEARNERS[name](one, np.random.default_rng(0), limit=3, every=30_000, **options(name, 0.5)))
        if not name.startswith("weighted"):
            assert abs(x.Q[0, 0] - 10) < 1e-9
            continue
        Q = 0.0
        for k in range(0, 30_000, 3):
            G = Q
            for i in (1, 2, 3):
                G = 1 + 0.9 * G
                Q += (G - Q) / (k + i)
        assert abs(x.Q[0, 0] - Q) < 1e-9
        assert 8 < Q < 10


def options(name: str, alpha: Any) -> dict[str, Any]:
    return {} if name.startswith("weighted") else {"alpha": alpha}


def test_weights_are_the_inverse_probabilities_of_the_greedy_actions() -> None:
    """S0 -> S1 -> end: a pair of S0 collects 1/b(S1, greedy) in every episode that is greedy in S1."""
    P = np.zeros((3, 2, 3))
    P[0, :, 1], P[1, :, 2] = 1, 1
    mdp = MDP(P, [[0.0, 0.0], [5.0, 3.0], [0.0, 0.0]], 1.0, terminal=[0, 0, 1], mu=[1, 0, 0])
    b = np.array([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]])
    x = MonteCarlo(WEIGHTED, b, False, mdp, np.random.default_rng(0), 1.0, 0.1, None, None, 4000, None)
    (moves, _) = next(iter(x.moves()))
    a = moves.a.reshape(-1, 2)
    assert x.Q.tolist() == [[5.0, 5.0], [5.0, 3.0], [0.0, 0.0]]
    assert (x.C[1] == np.bincount(a[:, 1])).all()
    settled = a[np.argmax(a[:, 1] == 0) :]  # before that the only known action of S1 is the greedy one
    before = len(a) - len(settled)
    early = np.bincount(a[:before, 0], minlength=2) / 0.75
    assert abs(x.C[0] - 4 * np.bincount(settled[settled[:, 1] == 0, 0], minlength=2) - early).max() < 1e-9


def test_the_target_takes_legal_actions_alone() -> None:
    """S1 allows action 1 only, which is then greedy, though Q of action 0 is 0 too: S0 learns in every episode."""
    P = np.zeros((3, 2, 3))
    P[0, :, 1], P[1, 1, 2] = 1, 1
    legal = np.array([[1, 1], [0, 1], [1, 1]], bool)
    mdp = MDP(P, np.zeros((3, 2)), 1.0, terminal=[0, 0, 1], legal=legal, mu=[1, 0, 0])
    x = learner("weighted", mdp, 0, every=100)
    moves, _ = next(iter(x.moves()))
    assert (x.C[0] == np.bincount(moves.a[moves.s == 0], minlength=2)).all()


# ---- what the learners must converge to ----


def exact_Q(mdp: MDP, pi: Any) -> Any:
    V = chain.evaluate(chain.induce(mdp, pi))
    return np.where(mdp.legal, mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A), 0.0)


def short_model(seed: int, gamma: float) -> MDP:
    """A cyclic model whose actions all end with probability .4, some of them illegal."""
    rng = np.random.default_rng([42, seed])
    P = 0.6 * rng.dirichlet(np.ones(4), (4, 3))
    P[:, :, 3] += 0.4
    legal = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]], bool)
    P[~legal] = 0.0
    R = rng.normal(size=(4, 3, 4))
    P[3], R[3] = 0.0, 0.0
    mu = np.array([1, 1, 1, 0]) / 3
    return MDP(P, R, gamma, terminal=[0, 0, 0, 1], legal=legal, mu=mu)


@pytest.mark.parametrize("visit", ["first", "every"])
def test_eps_one_evaluates_the_uniform_policy(visit: str) -> None:
    """The average of 200 runs of 10,000 steps against Q of the uniform policy, |z| <= 6.8 (false alarm 1e-10)."""
    mdp = short_model(0, 0.9)
    alive = mdp.legal & ~mdp.terminal[:, None]
    keys: dict[str, Any] = {"eps": 1.0, "visit": visit, "every": 10_000}
    Q = np.array([next(mc_control(mdp, np.random.default_rng([1, i]), **keys)).Q[alive] for i in range(200)])
    agree(Q, exact_Q(mdp, uniform_policy(mdp))[alive])


def test_weighted_averages_are_values_of_the_target() -> None:
    """All actions but the first cost 1,000, so the target is known; 200 runs, |z| <= 6.8 (false alarm 1e-10).

    b takes the first action with probability .8 or more, so the variance of the weights is finite: .6 / .8 < 1.
    """
    mdp = short_model(1, 0.9)
    R = np.asarray(mdp.R) - 1000 * (np.arange(3) > 0)[:, None]
    R[3] = 0.0
    mdp = replace(mdp, R=R)
    target = np.eye(3)[np.zeros(4, int)]
    b = 0.7 * target + 0.3 * uniform_policy(mdp)
    start = -1e9 * (np.arange(3) > 0) * mdp.legal
    alive = mdp.legal & ~mdp.terminal[:, None]
    keys: dict[str, Any] = {"b": b, "Q": start, "every": 20_000}
    Q = np.array([next(off_policy_mc_control(mdp, np.random.default_rng([2, i]), **keys)).Q[alive] for i in range(200)])
    agree(Q, exact_Q(mdp, target)[alive])


def best_soft(mdp: MDP, eps: float) -> Any:
    """Values of the best eps-soft policy: optimal ones of a model where eps of the moves are random (section 5.4)."""
    rows = np.asarray(mdp.P).reshape(mdp.S, mdp.A, mdp.S) * (mdp.legal & ~mdp.terminal[:, None])[:, :, None]
    pi = uniform_policy(mdp)[:, :, None]
    mixed = (1 - eps) * rows + eps * (pi * rows).sum(1, keepdims=True)
    r = (1 - eps) * mdp.r + eps * (pi[:, :, 0] * mdp.r).sum(1, keepdims=True)
    mixed[~mdp.legal], r[~mdp.legal] = 0.0, 0.0
    V = dp.solve(MDP(mixed, r, mdp.gamma, terminal=mdp.terminal, legal=mdp.legal)).V
    return V, np.where(mdp.legal, mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A), 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_approaches_the_best_soft_policy(seed: int) -> None:
    """One million steps of size k**-.7: Q within 5 % of its largest value, the policy's values within 1 %."""
    mdp, eps = short_model(seed, 0.9), 0.3
    keys: dict[str, Any] = {"alpha": prediction.power(1.0, 0.7), "eps": eps, "every": 10**6}
    x = next(mc_control(mdp, np.random.default_rng(seed), **keys))
    V, Q = best_soft(mdp, eps)
    assert abs(x.Q - Q).max() < 0.05 * abs(Q).max()
    pi = (1 - eps) * bellman.greedy(x.Q, mdp.legal) + eps * uniform_policy(mdp)
    loss = V - chain.evaluate(chain.induce(mdp, pi))
    assert loss.min() > -1e-7
    assert loss.max() < 0.01 * abs(V).max()


@pytest.mark.parametrize("name", ["exploring", "exploring every"])
@pytest.mark.parametrize("seed", range(6))
def test_exploring_starts_reach_the_optimum(name: str, seed: int) -> None:
    """One million steps of size k**-.7, cut after 50 as nothing ends: Q within 5 % of the largest optimal value."""
    mdp = random_mdp(np.random.default_rng([22, seed]), S=4, A=3, gamma=0.8, terminal=False)
    keys: dict[str, Any] = {"alpha": prediction.power(1.0, 0.7), "limit": 50, "every": 10**6}
    x = next(LEARNERS[name](mdp, np.random.default_rng(seed), **keys))
    exact = np.where(mdp.legal, dp.solve(mdp).Q, 0.0)
    assert abs(x.Q - exact).max() < 0.05 * max(abs(exact).max(), 1e-9)


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_weighted_averages_reach_the_optimum(near: bool, seed: int) -> None:
    """One million steps of episodes that end by themselves: Q within 5 % of the largest optimal value.

    The policy that acts is eps-greedy in Q, or a given one near the optimum: its greedy actions have probability
    .8 or more, as .6 / .8 < 1 keeps the variance of the weights finite.
    """
    mdp = short_model(seed, 0.9)
    best = dp.solve(mdp)
    b = 0.7 * best.pi + 0.3 * uniform_policy(mdp) if near else None
    x = next(off_policy_mc_control(mdp, np.random.default_rng(seed), b=b, every=10**6))
    exact = np.where(mdp.legal, best.Q, 0.0)
    assert abs(x.Q - exact).max() < 0.05 * abs(exact).max()


def test_blackjack_stick_values_are_averages_of_independent_returns() -> None:
    """Exploring starts, 2 million steps: Q(s, stick) has a known mean and variance, |z| <= 6.8 for 210 states."""
    game = envs.blackjack()
    x = learner("exploring", game, 0, alpha=prediction.harmonic, every=2 * 10**6)
    next(x.records())
    alive = np.flatnonzero(~game.terminal)
    n = x.steps.count.reshape(game.S, 2)[alive, 0]
    variance = np.asarray(game.weighted(2)).reshape(game.S, 2, -1).sum(2)[alive, 0] - game.r[alive, 0] ** 2
    z = (x.Q[alive, 0] - game.r[alive, 0]) / np.sqrt(np.maximum(variance, 1e-300) / n)
    assert n.min() > 1000
    assert abs(np.where(variance > 1e-12, z, 0.0)).max() <= Z


@pytest.mark.parametrize("name", ["first", "exploring", "weighted", "weighted b"])
def test_blackjack_is_nearly_solved(name: str) -> None:
    """One million transitions: the exact value of the learned policy is within .005 of the optimum, -.0431.

    Over 40 seeds the worst of these learners, the on-policy one, loses .0017 on average, with a standard
    deviation of .0007: the bound lies almost five of them above.
    """
    game = envs.blackjack()
    optimum = game.mu @ dp.solve(game).V
    for seed in range(3):
        x = next(LEARNERS[name](game, np.random.default_rng(seed), every=10**6))
        value = game.mu @ chain.evaluate(chain.induce(game, bellman.greedy(x.Q, game.legal)))
        assert 0 <= optimum - value + 1e-9 < 0.005


# ---- gymnasium ----


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("world", ["Taxi-v4", "Blackjack-v1"])
def test_gymnasium(name: str, world: str) -> None:
    """The book's loop on what it did gives its values."""
    import gymnasium

    with gymnasium.make(world) as env:
        x = learner(name, env, 5, gamma=0.9, every=1, limit=30)
        moves = joined([m for m, _ in islice(x.moves(), 600)])
        assert x.Q.any()
        expected = literal(name, moves, env, x.legal, np.zeros(x.Q.shape), exploration(name), 0.3, None)
        assert same(x, expected)


@pytest.mark.parametrize("name", LEARNERS)
def test_gymnasium_respects_action_masks_and_cuts(name: str) -> None:
    mdp = next(m for m, _ in map(model, RUNS) if not m.legal.all() and m.terminal.any())
    b = behaviour(mdp) if name == "weighted b" else None
    settings = (0.3, exploration(name), None, 4, 1, mdp.gamma)
    env, exploring = envs.TabularEnv(mdp), name.startswith("exploring")
    x = MonteCarlo(rule_of(name), b, exploring, env, np.random.default_rng(1), *settings)
    moves = joined([m for m, _ in islice(x.moves(), 600)])
    assert mdp.legal[moves.s, moves.a].all()
    assert (moves.discount == np.where(mdp.terminal[moves.s_next], 0.0, mdp.gamma)).all()
    assert same(x, literal(name, moves, mdp, mdp.legal, np.zeros(x.Q.shape), exploration(name), 0.3, None))


def test_gymnasium_exploring_starts_draw_the_first_action_alone() -> None:
    """Of 4,000 episodes of two steps, the first action is uniform within 6 standard errors (false alarm 2e-9).

    Action 1 pays, so that after the first episode that tried it the second action is always 1.
    """
    two = MDP(np.ones((1, 2, 1)), [[0.0, 1.0]], 0.5)
    x = learner("exploring", envs.TabularEnv(two), 2, gamma=0.5, limit=2, every=1)
    a = joined([m for m, _ in islice(x.moves(), 8000)]).a.reshape(-1, 2)
    assert abs(a[:, 0].mean() - 0.5) < 6 * 0.5 / np.sqrt(4000)
    assert a[20:, 1].all()


# ---- bits, and bad input ----


@pytest.mark.parametrize("name", LEARNERS)
def test_every_and_blocks_do_not_change_the_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, limit = model(8)
    finals = set()
    for block in (1, 13, 4096):
        monkeypatch.setattr(acting, "BLOCK", block)
        for every in (1, 5, 40, 1000):
            records = LEARNERS[name](mdp, np.random.default_rng(2), limit=limit, every=every)
            final = next(islice(records, 1000 // every - 1, None))
            assert final.t == 1000
            finals.add((final.Q.tobytes(), final.delta))
    assert len(finals) == 1


def test_records_own_their_values() -> None:
    mdp, limit = model(8)
    first = np.zeros((mdp.S, mdp.A))
    for learn in LEARNERS.values():
        a, b = islice(learn(mdp, np.random.default_rng(0), limit=limit, Q=first, every=50), 2)
        assert not first.any()
        assert (a.t, b.t) == (50, 100)
        assert a.Q.tobytes() != b.Q.tobytes()


SCRIPT = """
import numpy as np
from tabrl import envs
from tabrl.control import monte_carlo as mc
for world in (envs.blackjack(), envs.frozen_lake(gamma=0.9), envs.cliff()):
    b = world.legal / world.legal.sum(1, keepdims=True)
    keys = {"limit": 60, "every": 4000}
    for records in (
        mc.mc_control(world, np.random.default_rng(7), **keys),
        mc.mc_control(world, np.random.default_rng(7), alpha=0.1, visit="every", **keys),
        mc.exploring_starts(world, np.random.default_rng(7), **keys),
        mc.off_policy_mc_control(world, np.random.default_rng(7), **keys),
        mc.off_policy_mc_control(world, np.random.default_rng(7), b=b, **keys),
    ):
        x = next(records)
        print(x.t, x.delta.hex(), x.Q.tobytes().hex())
"""


def test_same_bits_with_and_without_numba() -> None:
    outputs = plain_and_compiled(SCRIPT)
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == 15


def test_endless_policies_need_a_limit() -> None:
    """State 0 may stay for ever, by choice; state 1 of the other model has no choice."""
    choice = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, -1], [0, 0]], 1.0, terminal=[0, 1], mu=[1, 0])
    forced = MDP([[[0, 1.0]], [[0, 1.0]]], [1, 1], 0.9, mu=[1, 0])
    rng = np.random.default_rng(0)
    message = r"limit is None; a number of steps is expected, as an episode can stay in s={} for ever"
    with pytest.raises(ValueError, match=message.format(0)):
        exploring_starts(choice, rng)
    with pytest.raises(ValueError, match=message.format(0)):
        mc_control(choice, rng, eps=0.0)
    for learn in LEARNERS.values():
        with pytest.raises(ValueError, match=message.format(1)):
            learn(forced, rng)
        assert next(learn(forced, rng, limit=5, every=50)).Q.all()
    for learn in (mc_control, off_policy_mc_control):
        assert next(learn(choice, rng, every=50)).Q[0, 1] == -1
    x = next(exploring_starts(choice, rng, limit=10, every=1000))
    assert x.Q[0, 0] < x.Q[0, 1] == -1


def test_a_state_that_is_never_entered_may_be_endless() -> None:
    apart = MDP([[[0, 1, 0]], [[0, 1, 0]], [[0, 0, 1]]], [1, 0, 0], 0.9, terminal=[0, 1, 0], mu=[1, 0, 0])
    assert next(mc_control(apart, np.random.default_rng(0), every=9)).Q[0, 0] == 1
    with pytest.raises(ValueError, match="can stay in s=2 for ever"):
        exploring_starts(apart, np.random.default_rng(0))


def test_bad_input_is_named() -> None:
    import gymnasium

    mdp = short_model(0, 0.9)
    rng = np.random.default_rng(0)
    b = uniform_policy(mdp)
    with pytest.raises(ValueError, match="visit is 'last'; 'first' or 'every' is expected"):
        mc_control(mdp, rng, visit="last")
    with pytest.raises(ValueError, match="visit is 'last'; 'first' or 'every' is expected"):
        exploring_starts(mdp, rng, visit="last")
    with pytest.raises(ValueError, match=r"alpha is 1.5; a step size in \(0, 1\], or a schedule"):
        mc_control(mdp, rng, alpha=1.5)
    with pytest.raises(ValueError, match=r"eps is 2; a number in \[0, 1\] is expected"):
        mc_control(mdp, rng, eps=2)
    with pytest.raises(ValueError, match=r"eps is 0; a number in \(0, 1\] is expected, as the target"):
        off_policy_mc_control(mdp, rng, eps=0)
    with pytest.raises(ValueError, match=r"b has shape \(1, 1\); "):
        off_policy_mc_control(mdp, rng, b=np.ones((1, 1)))
    with pytest.raises(ValueError, match=r"b\[s=1, a=1\] is .*; the action is illegal there"):
        off_policy_mc_control(mdp, rng, b=np.full((4, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"b\[s=0, a=1\] is 0; a positive probability of every legal action"):
        off_policy_mc_control(mdp, rng, b=np.eye(3)[np.zeros(4, int)])
    with pytest.raises(ValueError, match=r"b\[s=0\] sums to 0.9; every row"):
        off_policy_mc_control(mdp, rng, b=b * np.array([[0.9], [1], [1], [1]]))
    with pytest.raises(ValueError, match="every is 0; a record after every 1 or more steps"):
        off_policy_mc_control(mdp, rng, every=0)
    with pytest.raises(ValueError, match="limit is 0; at least one step per episode"):
        exploring_starts(mdp, rng, limit=0)
    with gymnasium.make("Blackjack-v1") as env, pytest.raises(ValueError, match="gamma is None; a gymnasium"):
        mc_control(env, rng)
