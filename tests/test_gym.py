"""Environments over explicit models: gymnasium's own checks, and exact frequencies.

Every chi-square test uses a fixed seed and a false alarm of 1e-7.
"""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from scipy.stats import chi2

import tabrl.envs as envs
from tabrl import MDP
from tabrl.envs import TabularEnv, TabularVectorEnv, gym_id, render, sampling
from tabrl.errors import ModelError, ShapeError

FALSE_ALARM = 1e-7


def model() -> Any:
    """Six states, two of them terminal, illegal actions, rewards that depend on s'."""
    rng = np.random.default_rng(4)
    P = rng.dirichlet(np.full(6, 0.6), (6, 3))
    P[P < 0.02] = 0
    legal = np.ones((6, 3), bool)
    legal[1, 0] = legal[2, 2] = False
    terminal = np.arange(6) >= 4
    P[terminal] = 0
    R = rng.normal(size=(6, 3, 6)) * ~terminal[:, None, None]
    mu = [0.1, 0.2, 0.3, 0.4, 0, 0]
    return MDP.normalised(P, R, 0.9, terminal=terminal, legal=legal, mu=mu)


def chi_square(counts: Any, P: Any) -> Any:
    """The statistic and its degrees of freedom over all rows of counts; impossible entries must be empty."""
    n = counts.sum(-1, keepdims=True)
    possible = (P > 0) & (n > 0)
    assert counts[~possible].sum() == 0
    expected = (n * P)[possible]
    df = possible.sum() - (n > 0).sum()
    return ((counts[possible] - expected) ** 2 / expected).sum(), df


class Forgiving(TabularEnv):
    """Takes any action as one of the legal ones, since the checker samples without the mask."""

    def step(self, action: Any) -> Any:
        legal = np.flatnonzero(self.mdp.legal[self.s])
        return super().step(legal[action % len(legal)])


# ---- one environment ----


@pytest.mark.parametrize("name", envs.WORLDS)
def test_gymnasiums_checker_passes(name: Any) -> None:
    env: Any = gymnasium.make(gym_id(name)).unwrapped
    if env.mdp.legal.all():
        check_env(env)
    else:
        check_env(Forgiving(env.mdp), skip_render_check=True)
    env.close()


def test_grid_takes_text() -> None:
    check_env(gymnasium.make("tabrl/Grid-v0").unwrapped)
    env: Any = gymnasium.make("tabrl/Grid-v0", text="S.G", rewards={"G": 5}, slip=0.0)
    assert env.reset(seed=0)[0] == 0
    assert env.step(1)[:3] == (1, 0.0, False)
    assert env.step(1)[:4] == (2, 5.0, True, False)


def test_time_limit_truncates_and_keywords_reach_the_world() -> None:
    env: Any = gymnasium.make("tabrl/Riverswim-v0", max_episode_steps=3, n=4)
    assert env.observation_space.n == 4
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]
    assert gymnasium.spec("tabrl/FrozenLake-v0").max_episode_steps == 100


def test_steps_follow_the_model() -> None:
    mdp, env = model(), TabularEnv(model())
    rng, counts, begun = np.random.default_rng(0), np.zeros((6, 3, 6)), np.zeros(6)
    s, details = env.reset(seed=11)
    begun[s] += 1
    for _ in range(30_000):
        np.testing.assert_array_equal(details["action_mask"], mdp.legal[s])
        a = rng.choice(np.flatnonzero(details["action_mask"]))
        t, reward, terminated, truncated, details = env.step(a)
        counts[s, a, t] += 1
        assert reward == mdp.R[s, a, t]
        assert terminated == mdp.terminal[t] and not truncated
        s = t
        if terminated:
            s, details = env.reset()
            begun[s] += 1
    statistic, df = chi_square(counts, mdp.P)
    assert statistic < chi2.isf(FALSE_ALARM, df)
    statistic, df = chi_square(begun, mdp.mu)
    assert statistic < chi2.isf(FALSE_ALARM, df)


def test_same_seed_same_episode() -> None:
    def run() -> Any:
        env = TabularEnv(envs.garnet_example())
        return [int(env.reset(seed=5)[0])] + [int(env.step(k % 4)[0]) for k in range(50)]

    assert run() == run()


def test_reset_in_a_chosen_state() -> None:
    env: Any = TabularEnv(model())
    assert env.reset(options={"state": 2})[0] == 2
    with pytest.raises(ModelError, match=r"options\['state'\] is 5; the number of a non-terminal state"):
        env.reset(options={"state": 5})


def test_wrong_use_is_named() -> None:
    env: Any = TabularEnv(model(), render_mode="ansi")
    for call in (env.render, lambda: env.step(0)):
        with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
            call()
    env.reset(options={"state": 1})
    for a in (0, 3, -1, 1.0, None):
        with pytest.raises(ModelError, match=r"action\[s=1\] is .*; one of the legal actions \[1, 2\] is expected"):
            env.step(a)
    while not env.step(np.flatnonzero(env.mdp.legal[env.s])[0])[2]:
        pass
    with pytest.raises(ResetNeeded):
        env.step(1)
    with pytest.raises(ValueError, match="render_mode is 'human'; None or one of"):
        TabularEnv(model(), render_mode="human")
    with pytest.raises(ModelError, match=r"mu\[5\] is 1, and state 5 is terminal"):
        TabularEnv(replace(model(), mu=np.eye(6)[5]))


@pytest.mark.parametrize("kind", ["state-action", "dense", "sparse"])
def test_rewards_of_every_shape(kind: Any) -> None:
    mdp = model()
    if kind == "state-action":
        mdp = MDP(mdp.P, mdp.r, 0.9, terminal=mdp.terminal, legal=mdp.legal)
    elif kind == "sparse":
        import scipy.sparse as sp

        flat = tuple(sp.csr_array(np.reshape(x, (18, 6))) for x in (mdp.P, mdp.R))
        mdp = MDP(flat[0], flat[1], 0.9, terminal=mdp.terminal, legal=mdp.legal)
    table = sampling.transitions(mdp)
    row = np.repeat(np.arange(18), np.diff(table.indptr))
    p = np.diff(table.total, prepend=0.0)
    p[table.indptr[:-1][np.diff(table.indptr) > 0]] = table.total[table.indptr[:-1][np.diff(table.indptr) > 0]]
    np.testing.assert_allclose(np.bincount(row, p * table.x, 18), mdp.r.ravel(), atol=1e-12)


def test_draw_is_the_inverse_of_the_running_sum() -> None:
    table = sampling.transitions(model())
    rng = np.random.default_rng(1)
    rows = rng.choice(np.flatnonzero(np.diff(table.indptr)), 500)
    u = np.append(rng.random(499), np.nextafter(1.0, 0))
    u[:50] = table.total[table.indptr[rows[:50]]] % 1  # exactly on a step
    for row, x, entry in zip(rows, u, sampling.draw(table, rows, u), strict=True):
        low, high = table.indptr[row], table.indptr[row + 1]
        k = low
        while k < high - 1 and table.total[k] <= x:
            k += 1
        assert entry == k


# ---- many at once ----


def test_vector_steps_follow_the_model() -> None:
    """Transitions, rewards, starts and resets of 50 copies, each copy's next step a reset once it ended."""
    mdp, env = model(), TabularVectorEnv(model(), num_envs=50)
    rng, counts, begun = np.random.default_rng(0), np.zeros((6, 3, 6)), np.zeros(6)
    s, details = env.reset(seed=2)
    np.add.at(begun, s, 1)
    over = np.zeros(50, bool)
    for _ in range(1000):
        a = np.array([rng.choice(np.flatnonzero(mask)) for mask in details["action_mask"]])
        t, reward, terminated, truncated, details = env.step(a)
        go = ~over
        np.add.at(counts, (s[go], a[go], t[go]), 1)
        np.testing.assert_array_equal(reward[go], mdp.R[s[go], a[go], t[go]])
        np.add.at(begun, t[over], 1)
        assert (reward[over] == 0).all() and not terminated[over].any()
        np.testing.assert_array_equal(terminated, mdp.terminal[t])
        np.testing.assert_array_equal(details["action_mask"], mdp.legal[t])
        assert not truncated.any()
        s, over = t, terminated
    assert begun.sum() > 1000
    for seen, P in ((counts, mdp.P), (begun, mdp.mu)):
        statistic, df = chi_square(seen, P)
        assert statistic < chi2.isf(FALSE_ALARM, df)


def test_copies_are_independent() -> None:
    """Pairs of copies of a fair coin: the four joint outcomes are equally likely."""
    coin = MDP(np.full((2, 1, 2), 0.5), np.zeros(2), 0.9)
    env: Any = TabularVectorEnv(coin, num_envs=2)
    env.reset(seed=8)
    joint = np.zeros(4)
    for _ in range(4000):
        s = env.step(np.zeros(2, int))[0]
        joint[2 * s[0] + s[1]] += 1
    statistic, df = chi_square(joint, np.full(4, 0.25))
    assert statistic < chi2.isf(FALSE_ALARM, df)


def test_make_vec_and_its_time_limit() -> None:
    env: Any = gymnasium.make_vec("tabrl/Cliff-v0", num_envs=8, vectorization_mode="vector_entry_point")
    assert isinstance(env.unwrapped, TabularVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.max_episode_steps == gymnasium.spec("tabrl/Cliff-v0").max_episode_steps
    s, _ = env.reset(seed=0)
    assert s in env.observation_space and s.shape == (8,)
    env = gymnasium.make_vec("tabrl/Cliff-v0", num_envs=3, max_episode_steps=2)
    start, _ = env.reset(seed=0)
    up = np.zeros(3, int)
    assert not env.step(up)[3].any()
    s, _, terminated, truncated, _ = env.step(up)
    assert truncated.all() and not terminated.any() and (s != start).all()
    s, reward, _, truncated, _ = env.step(up)
    assert (s == start).all() and (reward == 0).all() and not truncated.any()


def test_vector_agrees_with_gymnasiums_own_vector_where_nothing_is_random() -> None:
    ours: Any = gymnasium.make_vec("tabrl/Cliff-v0", num_envs=4, max_episode_steps=30)
    theirs: Any = gymnasium.make_vec("tabrl/Cliff-v0", num_envs=4, max_episode_steps=30, vectorization_mode="sync")
    rng = np.random.default_rng(0)
    ours.reset(seed=0), theirs.reset(seed=0)
    for _ in range(500):
        a = rng.integers(4, size=4)
        for x, y in zip(ours.step(a)[:4], theirs.step(a)[:4], strict=True):
            np.testing.assert_array_equal(x, y)
    theirs.close()


def test_vector_reset_mask_and_seed() -> None:
    env: Any = TabularVectorEnv(model(), num_envs=4)
    with pytest.raises(ResetNeeded, match="never reset"):
        env.reset(options={"reset_mask": np.array([True, False, False, False])})
    first = env.reset(seed=1)[0]
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    env.s, env.over = np.array([4, 5, 0, 1]), np.array([True, True, False, False])
    s, _ = env.reset(options={"reset_mask": np.array([True, False, False, False])})
    assert s[1:].tolist() == [5, 0, 1] and s[0] < 4
    assert env.over.tolist() == [False, True, False, False]
    with pytest.raises(ShapeError, match=r"reset_mask has shape \(2,\)"):
        env.reset(options={"reset_mask": np.ones(2, bool)})


def test_vector_refuses_illegal_actions() -> None:
    env: Any = TabularVectorEnv(model(), num_envs=2)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(2, int))
    env.reset(seed=0)
    env.s = np.array([0, 1])
    with pytest.raises(ModelError, match=r"actions\[1\] is 0 in state 1; one of the legal actions \[1, 2\]"):
        env.step(np.array([0, 0]))
    with pytest.raises(ModelError, match=r"actions\[0\] is 7"):
        env.step(np.array([7, 1]))
    for bad in (np.zeros(3, int), np.zeros(2)):
        with pytest.raises(ShapeError, match=r"actions has shape .*; \(2,\) integers are expected"):
            env.step(bad)


# ---- pictures ----


def test_ansi() -> None:
    env: Any = gymnasium.make("tabrl/Grid-v0", text="S.G .#.", render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "@.G\n.#."
    env.step(1)
    assert env.render() == "S@G\n.#."
    env = gymnasium.make("tabrl/Forest-v0", render_mode="ansi")
    s, _ = env.reset(seed=0)
    assert env.render() == f"state age {s}"


def test_image_shows_every_kind_of_cell_and_the_agent() -> None:
    world = envs.grid("S.X A#a GC.", jumps={"A": "a"}, falls={"C": "S"})
    env: Any = TabularEnv(world, render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert image.shape == (192, 192, 3) and image.dtype == np.uint8

    def corner(i: int, j: int) -> Any:  # a pixel inside the cell, beside its edge
        return tuple(image[64 * i + 8, 64 * j + 2].tolist())

    ground = {corner(0, 1), corner(0, 2), corner(1, 0), corner(1, 1), corner(2, 0)}
    assert len(ground) == 5  # floor, trap, jump, wall, goal
    assert corner(2, 1) == corner(0, 2) == render.VERMILION  # the cliff looks like a trap
    assert tuple(image[64 * 2 + 8, 2].tolist()) == render.GREEN
    assert tuple(image[32, 32].tolist()) == render.BLUE
    env.step(1)
    moved = env.render()
    assert tuple(moved[32, 32].tolist()) == render.PAPER
    assert tuple(moved[32, 96].tolist()) == render.BLUE
    assert (image[64:] == moved[64:]).all()


def test_images_of_models_without_a_grid_and_of_copies() -> None:
    env: Any = gymnasium.make("tabrl/CarRental-v0", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (756, 756, 3)
    many: Any = gymnasium.make_vec("tabrl/RandomWalk-v0", num_envs=2, render_mode="rgb_array")
    many.reset(seed=0)
    assert [frame.shape for frame in many.render()] == [(64, 448, 3)] * 2
    texts: Any = TabularVectorEnv(envs.random_walk(), num_envs=2, render_mode="ansi")
    texts.reset(seed=0)
    assert texts.render() == ("state C", "state C")


def test_tabrl_alone_is_light() -> None:
    code = "import sys, tabrl; print([m for m in ('gymnasium', 'tabrl.envs', 'matplotlib.pyplot') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
