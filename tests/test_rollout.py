"""Rollouts: the model's own transitions, with its own frequencies, from every kind of source."""

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from bits import plain_and_compiled
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from models import dense_P, dense_R, random_mdp, random_policy
from paths import Z, agree

from tabrl import MDP, chain, envs, rollout
from tabrl.envs import TabularEnv, TabularVectorEnv
from tabrl.errors import ModelError
from tabrl.rollout import Actor, Rollout
from tabrl.rollout_kernels import draw_action

RUNS = range(24)
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]
COPIES = 5


def model(seed: int) -> tuple[MDP, Any, int]:
    """A random cyclic model that starts in states that are not terminal, a policy, a limit."""
    rng = np.random.default_rng([41, seed])
    mdp = random_mdp(rng, S=int(rng.integers(2, 7)), A=int(rng.integers(1, 4)), gamma=0.9, proper=seed % 2 == 0)
    free = np.where(mdp.terminal, 0.0, 1.0)
    mdp = replace(mdp, mu=free / free.sum())
    return mdp, random_policy(rng, mdp), int(rng.integers(1, 15))


def source_of(kind: Any, mdp: MDP) -> Any:
    """The model itself, an environment of it, or copies of that."""
    if kind == "model":
        return mdp
    if kind == "one":
        return TabularEnv(mdp)
    if kind == "array":
        return TabularVectorEnv(mdp, num_envs=COPIES)
    return SyncVectorEnv([partial(TabularEnv, mdp)] * COPIES, autoreset_mode=kind)


def actor(kind: Any, mdp: MDP, seed: int, limit: int | None = None) -> Actor:
    return Actor(source_of(kind, mdp), np.random.default_rng(seed), gamma=mdp.gamma, limit=limit)


def joined(parts: list[Rollout]) -> Rollout:
    columns: Any = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Rollout(*columns)


def fragments(x: Rollout) -> list[Any]:
    """Where each fragment begins, and the step after its end."""
    ends = (np.flatnonzero(x.last) + 1).tolist()
    ends = ends if not len(x.s) or x.last[-1] else [*ends, len(x.s)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def check_moves(x: Rollout, mdp: MDP, pi: Any) -> None:
    """Every step is a step of the model under the policy, and follows the step before it."""
    assert (dense_P(mdp)[x.s, x.a, x.s_next] > 0).all()
    np.testing.assert_allclose(x.r, dense_R(mdp)[x.s, x.a, x.s_next], rtol=1e-15)
    assert (x.discount == np.where(mdp.terminal[x.s_next], 0.0, mdp.gamma)).all()
    assert (x.logp == np.log(pi[x.s, x.a])).all()
    assert x.last[mdp.terminal[x.s_next]].all()
    on = ~x.last[:-1]
    assert (x.s[1:][on] == x.s_next[:-1][on]).all()


# ---- an explicit model ----


@pytest.mark.parametrize("seed", RUNS)
def test_steps_are_those_of_a_literal_loop(seed: int) -> None:
    """Action, outcome and start are drawn from three uniform numbers per step, whatever the block."""
    mdp, pi, limit = model(seed)
    player = actor("model", mdp, seed, limit)
    x = joined([player.steps(pi, n) for n in (1, 7, 120, 2)])
    u, t = np.random.default_rng(seed).random((130, 3)), player.play.model  # type: ignore[union-attr]
    s, steps, cut = -1, 0, 0
    for k in range(130):
        if s < 0:
            column = int(u[k, 2] * len(t.start))
            kept = u[k, 2] * len(t.start) - column < t.start_keep[column]
            s, steps = int(t.start[column if kept else t.start_other[column]]), 0
            assert mdp.mu[s] > 0
        a = min(int(np.searchsorted(np.cumsum(pi[s]), u[k, 0], side="right")), mdp.A - 1)
        column = int(u[k, 1] * t.K)
        o = (s * mdp.A + a) * t.K + column
        o = o if u[k, 1] * t.K - column < t.keep[o] else int(t.other[o])
        s_next, steps = int(t.s_next[o]), steps + 1
        over = bool(mdp.terminal[s_next]) or steps == limit
        cut += over and not mdp.terminal[s_next]
        assert (x.s[k], x.a[k], x.s_next[k], x.last[k]) == (s, a, s_next, over)
        s = -1 if over else s_next
    check_moves(x, mdp, pi)
    assert cut or mdp.terminal.any()


@pytest.mark.parametrize("seed", RUNS)
def test_actions_are_drawn_by_the_running_sum(seed: int) -> None:
    """500 rows, some with impossible actions; numbers on the very steps of the sum, and next to 1, too."""
    rng = np.random.default_rng([47, seed])
    for _ in range(500):
        p = rng.dirichlet(np.ones(4)) * (rng.random(4) < 0.7)
        if p.sum() > 0:
            total = (p / p.sum()).cumsum()
            for u in (rng.random(), 0.0, total[0] % 1, total[2] % 1, np.nextafter(1.0, 0.0)):
                a = min(int(np.searchsorted(total, u, side="right")), int(np.flatnonzero(p)[-1]))
                assert draw_action((p / p.sum())[None], 0, u) == a
                assert p[a] > 0


def test_the_runs_hold_what_they_should() -> None:
    runs = [actor("model", model(k)[0], k, model(k)[2]).steps(model(k)[1], 130) for k in RUNS]
    assert any((x.s == x.s_next).any() for x in runs)
    assert any((x.discount == 0).any() for x in runs)
    assert any((x.last & (x.discount > 0)).any() for x in runs)
    assert any(not model(k)[0].legal.all() for k in RUNS)


@pytest.mark.parametrize("seed", RUNS)
def test_episodes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole episodes, as many as wanted, the same for every block."""
    mdp, pi, limit = model(seed)
    drawn = []
    for block in (1, 5, 8192):
        monkeypatch.setattr(rollout, "BLOCK", block)
        player = actor("model", mdp, seed, limit)
        parts = [player.episodes(pi, 3), player.episodes(pi, 1), player.steps(pi, 4), player.episodes(pi, 9)]
        assert [int(x.last.sum()) for x in parts[:2]] == [3, 1]
        drawn.append(b"".join(y.tobytes() for x in parts for y in x))
    assert len(set(drawn)) == 1
    x = parts[-1]
    check_moves(x, mdp, pi)
    assert x.last[-1] and x.last.sum() == 9
    for i, j in fragments(x):
        assert mdp.mu[x.s[i]] > 0
        assert j - i == limit or mdp.terminal[x.s_next[j - 1]]


def test_frequencies() -> None:
    """Starts, actions and outcomes of 400,000 steps."""
    mdp, pi, _ = model(4)
    x = actor("model", mdp, 3, 6).steps(pi, 400_000)
    check_frequencies(x, mdp, pi)


def check_frequencies(x: Rollout, mdp: MDP, pi: Any) -> None:
    """z-tests of each (s, a, s') given s, and of each start."""
    joint, P = np.zeros((mdp.S, mdp.A, mdp.S)), pi[:, :, None] * dense_P(mdp)
    np.add.at(joint, (x.s, x.a, x.s_next), 1)
    check_counts(joint.reshape(mdp.S, -1), P.reshape(mdp.S, -1))
    begins = x.s[1:][x.last[:-1]]
    check_counts(np.bincount(begins, minlength=mdp.S)[None], mdp.mu[None])


def check_counts(seen: Any, p: Any) -> None:
    n = seen.sum(1, keepdims=True)
    assert (abs(seen - n * p) <= Z * np.sqrt(n * p * (1 - p)) + 1e-6).all()


SCRIPT = """
import numpy as np
from tabrl import envs
from tabrl.rollout import Actor
world = envs.frozen_lake(gamma=0.9)
pi = np.random.default_rng(0).dirichlet(np.ones(4), world.S)
actor = Actor(world, np.random.default_rng(7), limit=30)
for x in (actor.steps(pi, 500), actor.episodes(pi, 20)):
    print(*[y.tobytes().hex() for y in x])
"""


def test_same_bits_with_and_without_numba() -> None:
    outputs = plain_and_compiled(SCRIPT)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 2


# ---- environments ----


@pytest.mark.parametrize("kind", ["one", "array", *MODES])
@pytest.mark.parametrize("seed", range(0, 24, 3))
def test_environments_take_the_models_steps(kind: Any, seed: int) -> None:
    """No step that only resets counts; streams go on where they stopped; the end of a copy's block is marked."""
    mdp, pi, limit = model(seed)
    player = actor(kind, mdp, seed, limit)
    N = 1 if kind == "one" else COPIES
    begun = []
    for n in (1, 33, 40):
        x = player.steps(pi, n)
        assert n <= len(x.s) < n + N
        check_moves(x, mdp, pi)
        pieces = fragments(x)
        assert all(j - i <= limit for i, j in pieces)
        begun += [x.s[i] for i, _ in pieces[1:]] if N == 1 else []
    assert (mdp.mu[begun] > 0).all()
    x = player.episodes(pi, 7)
    check_moves(x, mdp, pi)
    assert x.last.sum() == 7 and x.last[-1]
    for i, j in fragments(x):
        assert mdp.mu[x.s[i]] > 0
        assert j - i == limit or mdp.terminal[x.s_next[j - 1]]


@pytest.mark.parametrize("kind", ["one", "array", *MODES])
def test_frequencies_in_environments(kind: Any) -> None:
    """Whole episodes: starts, actions and outcomes, and with the mean length no preference for short ones."""
    mdp, pi, _ = model(4)
    n = 500
    x = actor(kind, mdp, 5).episodes(pi, n)
    check_frequencies(x, mdp, pi)
    lengths = np.array([j - i for i, j in fragments(x)])
    flow = chain.induce(mdp, pi)._replace(gamma=1.0)
    agree(lengths[:, None].astype(float), chain.occupancy(flow, mdp.mu)[~mdp.terminal].sum()[None])


@pytest.mark.parametrize("mode", MODES)
def test_truncation_keeps_the_discount_across_autoreset(mode: AutoresetMode) -> None:
    """A corridor cut after 2 steps, by the environment itself or by the actor; the cut state counts, no reset does."""
    way = envs.grid("S..G")
    own = partial(gymnasium.wrappers.TimeLimit, TabularEnv(way), max_episode_steps=2)
    right = np.eye(4)[np.ones(way.S, int)]
    for make, limit in ((own, None), (partial(TabularEnv, way), 2)):
        player = Actor(SyncVectorEnv([make], autoreset_mode=mode), np.random.default_rng(0), gamma=0.9, limit=limit)
        x = player.steps(right, 7)
        assert x.s.tolist() == [0, 1] * 3 + [0]
        assert x.s_next.tolist() == [1, 2] * 3 + [1]
        assert x.last.tolist() == [False, True] * 3 + [False]
        assert (x.discount == 0.9).all()


def test_many_copies_end_their_blocks() -> None:
    way = envs.grid("S...........G")
    right = np.eye(4)[np.ones(way.S, int)]
    x = Actor(TabularVectorEnv(way, num_envs=2), np.random.default_rng(0), gamma=0.9).steps(right, 5)
    assert x.s.tolist() == [0, 1, 2, 0, 1, 2]
    assert x.last.tolist() == [False, False, True] * 2
    assert x.discount.all()


def test_taxi_and_blackjack() -> None:
    """Action masks are found while acting and never broken; tuples of numbers are numbered."""
    with gymnasium.make("Taxi-v4") as taxi:
        player = Actor(taxi, np.random.default_rng(1), gamma=0.9, limit=50)
        pi = np.full((500, 6), 1 / 6)
        x = player.steps(pi, 300)
    assert player.legal.any(axis=1).all() and not player.legal.all()
    assert player.legal[x.s, x.a].all()
    np.testing.assert_allclose(x.logp, -np.log(player.legal[x.s].sum(1)))
    cards: Any = gymnasium.make_vec("Blackjack-v1", num_envs=3, vectorization_mode="sync")
    player = Actor(cards, np.random.default_rng(1), gamma=1.0)
    x = player.episodes(np.full((player.S, player.A), 0.5), 20)
    cards.close()
    assert (player.S, player.A) == (704, 2)
    assert x.last.sum() == 20 and (x.discount[x.last] == 0).all()


def test_same_seed_same_rollout() -> None:
    mdp, pi, limit = model(2)
    for kind in ("one", "array", *MODES):
        one, two = (actor(kind, mdp, 8, limit).steps(pi, 60) for _ in range(2))
        assert all((x == y).all() for x, y in zip(one, two, strict=True))


# ---- bad input ----


def test_bad_input_is_named() -> None:
    mdp, pi, _ = model(4)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="limit is 0; at least one step"):
        Actor(mdp, rng, limit=0)
    with pytest.raises(ModelError, match=r"gamma is 0.5; the model's own"):
        Actor(mdp, rng, gamma=0.5)
    with pytest.raises(ValueError, match="gamma is None; a gymnasium environment"):
        Actor(TabularEnv(mdp), rng)
    with pytest.raises(ModelError, match="observation_space is Box"):
        Actor(gymnasium.make("CartPole-v1"), rng, gamma=0.9)
    player = Actor(mdp, rng)
    with pytest.raises(ValueError, match="n is 0; 1 or more"):
        player.steps(pi, 0)
    with pytest.raises(ValueError, match=r"pi has shape \(1, 1\)"):
        player.steps(np.ones((1, 1)), 5)
    with pytest.raises(ModelError, match="sums to 2"):
        player.episodes(2 * pi, 5)
    stay = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[0, 0], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    with pytest.raises(ModelError, match="limit is None; a number of steps is expected, as this policy may never end"):
        Actor(stay, rng).episodes(np.array([[1.0, 0.0], [1.0, 0.0]]), 1)
    vector: Any = TabularVectorEnv(mdp, num_envs=2)
    vector.metadata = {}
    with pytest.raises(ModelError, match=r"metadata\['autoreset_mode'\] is None; a gymnasium"):
        Actor(vector, rng, gamma=0.9)
