"""Actor-critic: against literal loops, against exact means, and on the 8 by 8 grid."""

from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import gymnasium
import numpy as np
import pytest
from bits import plain_and_compiled
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from models import random_mdp
from paths import agree

from tabrl import MDP, actor_critic, chain, dp, envs
from tabrl.actor_critic import a2c
from tabrl.actor_critic import actor_critic as one_step
from tabrl.envs import TabularEnv, TabularVectorEnv
from tabrl.errors import ModelError
from tabrl.gradient import objective, policy_gradient
from tabrl.on_policy import descent
from tabrl.optimise import adam
from tabrl.policy import softmax, through_pi
from tabrl.rollout import Actor
from tabrl.types import PGStep

RUNS = range(24)
STEPS = 200
TRACES = [(0.0, 0.0), (0.7, 0.0), (0.0, 0.9), (0.5, 0.8), (1.0, 1.0)]


def model(seed: int, **fixed: Any) -> tuple[MDP, int]:
    """A random cyclic model (self-loops, terminal states, masked actions), and a time limit."""
    rng = np.random.default_rng([45, seed])
    size = {"S": int(rng.integers(2, 6)), "A": int(rng.integers(2, 4)), "gamma": float(rng.choice([0.8, 0.95]))}
    mdp = random_mdp(rng, **{**size, "proper": seed % 2 == 0, **fixed})
    free = np.where(mdp.terminal, 0.0, 1.0)
    scale = max(1.0, float(abs(mdp.r).max()))  # rewards of size 1 keep the learners from diverging
    return replace(mdp, mu=free / free.sum(), R=mdp.R / scale), int(rng.integers(1, 12))


def first(mdp: MDP, seed: int) -> tuple[Any, Any]:
    """First preferences, and first values, 0 where the model ends."""
    rng = np.random.default_rng([46, seed])
    return rng.normal(size=(mdp.S, mdp.A)), np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S))


def values(mdp: MDP, pi: Any) -> Any:
    return chain.evaluate(chain.induce(mdp, pi))


# ---- one step at a time ----


def literal_steps(
    actor: Actor, theta: Any, V: Any, n: int, alpha_theta: float, alpha_V: float, lam: tuple[float, float], gammas: bool
) -> tuple[Any, Any, Any]:
    """The book's loop (section 13.6); also the states in which it acted."""
    theta, V, seen, over = theta.copy(), V.copy(), [], True
    for _ in range(n):
        x = actor.steps(softmax(theta, actor.legal), 1)
        s, a, s_next = int(x.s[0]), int(x.a[0]), int(x.s_next[0])
        pi = softmax(theta, actor.legal)
        if over:
            z_theta, z_V, I = np.zeros_like(theta), np.zeros_like(V), 1.0  # noqa: E741
        delta = x.r[0] + x.discount[0] * V[s_next] - V[s]
        z_theta, z_V = actor.gamma * lam[0] * z_theta, actor.gamma * lam[1] * z_V
        z_V[s] += 1
        for b in range(theta.shape[1]):
            z_theta[s, b] += I * ((a == b) - pi[s, b])
        V += alpha_V * delta * z_V
        theta += alpha_theta * delta * z_theta
        I *= actor.gamma if gammas else 1.0  # noqa: E741
        over = bool(x.last[0])
        seen.append(s)
    return theta, V, np.array(seen)


def check_record(x: PGStep, mdp: MDP, theta: Any, V: Any, seen: Any, first_theta: Any, legal: Any) -> None:
    np.testing.assert_allclose(x.theta, theta, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x.V, V, rtol=1e-12, atol=1e-12)
    old, new = softmax(first_theta, legal), softmax(theta, legal)
    on = old > 0
    kl = np.where(on, old * np.log(np.where(on, old, 1) / np.where(on, new, 1)), 0).sum(1)
    H = -np.where(new > 0, new * np.log(np.where(new > 0, new, 1)), 0).sum(1)
    assert x.kl == pytest.approx(kl[seen].mean(), abs=1e-10)
    assert x.entropy == pytest.approx(H[seen].mean(), abs=1e-10)
    assert x.clip_fraction == 0


@pytest.mark.parametrize("seed", RUNS)
def test_replay(seed: int) -> None:
    """With and without traces and gamma^t: 200 steps, in one record or many."""
    mdp, limit = model(seed)
    theta, V = first(mdp, seed)
    lam, gammas = TRACES[seed % len(TRACES)], seed % 3 > 0
    actor = Actor(mdp, np.random.default_rng(seed), limit=limit)
    expected = literal_steps(actor, theta, V, STEPS, 0.2, 0.1, lam, gammas)
    options: dict[str, Any] = {"alpha_theta": 0.2, "alpha_V": 0.1, "lam_theta": lam[0], "lam_V": lam[1]}
    options |= {"discounted": gammas, "theta": theta, "V": V, "limit": limit}
    x = next(one_step(mdp, np.random.default_rng(seed), every=STEPS, **options))
    assert (x.k, x.t) == (STEPS, STEPS)
    check_record(x, mdp, *expected, theta, mdp.legal)
    assert pytest.approx(mdp.mu @ values(mdp, softmax(expected[0], mdp.legal)), abs=1e-11, rel=1e-11) == x.J
    change, exact = expected[0] - theta, policy_gradient(mdp, theta)
    if np.linalg.norm(exact) > 1e-9:
        cosine = (change * exact).sum() / np.linalg.norm(change) / np.linalg.norm(exact)
        assert x.cosine == pytest.approx(cosine, abs=1e-9)
    many = list(islice(one_step(mdp, np.random.default_rng(seed), every=40, **options), 5))
    assert [y.t for y in many] == [40, 80, 120, 160, 200]
    assert many[-1].theta.tobytes() == x.theta.tobytes()
    assert (x.theta[~mdp.legal] == theta[~mdp.legal]).all()


def test_the_runs_hold_what_they_should() -> None:
    worlds = [model(k) for k in RUNS]
    runs = [
        Actor(m, np.random.default_rng(k), limit=n).steps(softmax(first(m, k)[0], m.legal), STEPS)
        for k, (m, n) in enumerate(worlds)
    ]
    assert any((x.s == x.s_next).any() for x in runs)
    assert any((x.discount == 0).any() for x in runs)
    assert any((x.last & (x.discount > 0)).any() for x in runs)
    assert any(not m.legal.all() for m, _ in worlds)


@pytest.mark.parametrize("seed", range(0, 10, 2))
def test_replay_on_an_environment(seed: int) -> None:
    mdp, limit = model(seed)
    theta, V = first(mdp, seed)
    lam, gammas = TRACES[seed // 2], seed % 4 > 0
    actor = Actor(TabularEnv(mdp), np.random.default_rng(seed), gamma=mdp.gamma, limit=limit)
    expected = literal_steps(actor, theta, V, 120, 0.2, 0.1, lam, gammas)
    options: dict[str, Any] = {"alpha_theta": 0.2, "alpha_V": 0.1, "lam_theta": lam[0], "lam_V": lam[1]}
    options |= {"discounted": gammas, "theta": theta, "V": V, "limit": limit, "gamma": mdp.gamma}
    x = next(one_step(TabularEnv(mdp), np.random.default_rng(seed), every=120, **options))
    check_record(x, mdp, *expected, theta, actor.legal)
    assert np.isnan(x.J) and np.isnan(x.cosine)


def test_the_mean_step_is_the_exact_one() -> None:
    """20,000 first steps with a wrong critic: the mean is pi (r + gamma P V - V - its own mean), not grad J."""
    mdp, _ = model(3)
    theta, V = first(mdp, 3)
    pi = softmax(theta, mdp.legal)
    rates = np.array([1.0, 0.5, 0.0, 0.0, mdp.gamma, 1.0])
    learner = actor_critic.OneStep(mdp, Actor(mdp, np.random.default_rng(0), limit=1), rates, theta, V)
    seen, change = np.zeros(mdp.S, np.int64), np.empty((20_000, mdp.S, mdp.A + 1))
    for i in range(len(change)):
        learner.theta[:], learner.V[:] = theta, V
        learner.go(1, seen)
        change[i] = np.column_stack([learner.theta - theta, 2 * (learner.V - V)])
    delta = mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A) - V[:, None]
    delta = np.where(mdp.legal, delta, 0.0)
    agree(change[:, :, :-1], mdp.mu[:, None] * through_pi(pi, delta))
    agree(change[:, :, -1], mdp.mu * (pi * delta).sum(1))
    assert seen.sum() == len(change)


def test_every_and_blocks_do_not_change_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, limit = model(8)
    finals = set()
    for block in (1, 13, 8192):
        monkeypatch.setattr(actor_critic, "BLOCK", block)
        for every in (1, 5, 300):
            options: dict[str, Any] = {"alpha_theta": 0.1, "alpha_V": 0.2, "lam_theta": 0.5, "limit": limit}
            x = next(islice(one_step(mdp, np.random.default_rng(2), every=every, **options), 300 // every - 1, None))
            assert x.t == 300
            finals.add((x.theta.tobytes(), x.V.tobytes()))
    assert len(finals) == 1


SCRIPT = """
import numpy as np
from tabrl import envs
from tabrl.actor_critic import actor_critic
world = envs.frozen_lake(gamma=0.9)
for lam in (0.0, 0.8):
    options = {"alpha_theta": 0.3, "alpha_V": 0.1, "lam_theta": lam, "lam_V": lam, "limit": 30, "every": 2000}
    x = next(actor_critic(world, np.random.default_rng(7), **options))
    print(*[float(y).hex() for y in [*x.theta.ravel(), *x.V]])
"""


def test_same_with_and_without_numba() -> None:
    """Powers of e enter: within 1e-12, after 2,000 steps."""
    outputs = plain_and_compiled(SCRIPT)
    one, two = (np.array([[float.fromhex(y) for y in x.split()] for x in out.splitlines()]) for out in outputs)
    assert one.shape == (2, 80)
    assert one.any(axis=1).all()
    np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)


# ---- batches ----


def literal_batches(
    actor: Actor, theta: Any, V: Any, updates: int, *, steps: int, lam: float, critic: float, step: float,
    entropy: float = 0.0, whiten: bool = False,
) -> list[Any]:  # fmt: skip
    """A2C, sum by sum."""
    out, t = [], 0
    for _ in range(updates):
        x = actor.steps(softmax(theta, actor.legal), steps)
        pi = softmax(theta, actor.legal)
        n = len(x.s)
        t += n
        adv = np.zeros(n)
        for i in range(n):
            factor = 1.0
            for j in range(i, n):
                adv[i] += factor * (x.r[j] + x.discount[j] * V[x.s_next[j]] - V[x.s[j]])
                factor *= lam * x.discount[j]
                if x.last[j]:
                    break
        V_new = V.copy()
        for s in range(len(V)):
            mine = (adv + V[x.s])[x.s == s]
            V_new[s] += critic * (mine.mean() - V[s]) if len(mine) else 0.0
        if whiten:
            sd = np.sqrt(np.mean((adv - adv.mean()) ** 2))
            adv = (adv - adv.mean()) / (sd + 1e-8) if sd > 1e-12 else 0 * adv
        g = np.zeros_like(theta)
        for s, a, A in zip(x.s, x.a, adv, strict=True):
            H = -sum(p * np.log(p) for p in pi[s] if p > 0)
            for c in np.flatnonzero(pi[s]):
                g[s, c] += (A * ((c == a) - pi[s, c]) - entropy * pi[s, c] * (np.log(pi[s, c]) + H)) / n
        theta, V = theta + step * g, V_new
        out.append((t, theta, V, x.s))
    return out


@pytest.mark.parametrize("seed", RUNS)
def test_a2c_replay(seed: int) -> None:
    """On models, one environment and many, whatever their autoreset mode."""
    mdp, limit = model(seed)
    theta, V = first(mdp, seed)
    sources: list[Any] = [
        lambda: mdp,
        lambda: TabularEnv(mdp),
        lambda: TabularVectorEnv(mdp, num_envs=3),
        *(partial(SyncVectorEnv, [partial(TabularEnv, mdp)] * 2, autoreset_mode=mode) for mode in AutoresetMode),
    ]
    source = sources[seed % len(sources)] if seed % 4 else sources[0]
    options: dict[str, Any] = {"lam": [1.0, 0.0, 0.7][seed % 3], "critic": 0.3, "step": 0.2, "steps": 14}
    options |= {"entropy": 0.1 * (seed % 2), "whiten": seed % 5 == 0}
    actor = Actor(source(), np.random.default_rng(seed), gamma=mdp.gamma, limit=limit)
    expected = literal_batches(actor, theta, V, 6, **options)
    settings: dict[str, Any] = {"theta": theta, "V": V, "limit": limit, "gamma": mdp.gamma}
    records = a2c(source(), np.random.default_rng(seed), **options, **settings)
    old = theta
    for x, (t, theta_k, V_k, s) in zip(records, expected, strict=False):
        assert x.t == t
        check_record(x, mdp, theta_k, V_k, s, old, actor.legal)
        old = theta_k


def means(mdp: MDP, theta: Any, limit: int) -> Any:
    """Mean visits (S,) per step of episodes that are cut after `limit` steps, in a model without an end."""
    P, p, visits = chain.induce(mdp, softmax(theta, mdp.legal)).P, mdp.mu, np.zeros(mdp.S)
    for _ in range(limit):
        visits, p = visits + p / limit, P.T @ p
    return visits


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("exact", [True, False])
def test_the_mean_of_a2c(lam: float, exact: bool) -> None:
    """10,000 episodes: with V_pi the advantages are right for every lam; else with lam=0 their error is known.

    A bonus for entropy adds its exact gradient at the states that are visited.
    """
    if not exact and lam > 0:
        lam = 0.0
    mdp, _ = model(5, terminal=False, proper=False)
    theta, V = first(mdp, 5)
    pi, limit, c = softmax(theta, mdp.legal), 4, 0.05
    V = values(mdp, pi) if exact else V
    seen: list[Any] = []

    def stay(theta: Any, g: Any) -> Any:
        seen.append(g)
        return theta

    options: dict[str, Any] = {"critic": lambda V, s, y, V_old: V, "steps": 10 * limit, "every": 1000}
    options |= {"lam": lam, "V": V, "entropy": c, "limit": limit}
    next(a2c(mdp, np.random.default_rng(1), step=stay, theta=theta, **options))
    delta = mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A) - V[:, None]
    slope = -np.log(np.where(pi > 0, pi, 1.0))
    agree(np.array(seen), means(mdp, theta, limit)[:, None] * through_pi(pi, np.where(mdp.legal, delta, 0) + c * slope))


def test_a2c_with_adam_and_a_descending_critic_goes_the_same_way_however_it_is_recorded() -> None:
    mdp, limit = model(6)
    finals = set()
    for every in (1, 4, 12):
        options: dict[str, Any] = {"step": adam(0.1), "critic": descent(0.2), "steps": 9, "limit": limit}
        records = a2c(mdp, np.random.default_rng(2), lam=0.5, entropy=lambda k: 0.1 / k, every=every, **options)
        x = next(islice(records, 12 // every - 1, None))
        finals.add((x.k, x.t, x.theta.tobytes(), x.V.tobytes(), x.kl, x.cosine))
    assert len(finals) == 1


# ---- what they reach ----

GRID = envs.grid(" ".join(["S......."] + ["........"] * 6 + [".......G"]), step=-1, rewards={"G": -1}, gamma=0.99)
BEST = float(GRID.mu @ dp.solve(GRID).V)


@pytest.mark.parametrize("seed", range(3))
def test_actor_critic_reaches_the_optimum_of_the_grid(seed: int) -> None:
    """8 by 8 grid, alpha = .3 for both, 30,000 steps: exact J within 1 % of J* at the end.

    Seeds 0 to 99, all of them, ended within .2 %.
    """
    rng = np.random.default_rng(seed)
    x = next(one_step(GRID, rng, alpha_theta=0.3, alpha_V=0.3, limit=500, every=30_000))
    assert abs(x.J - BEST) <= 0.01 * abs(BEST)


@pytest.mark.parametrize("seed", range(3))
def test_a2c_reaches_the_optimum_of_the_grid(seed: int) -> None:
    """8 by 8 grid, 300 updates of 128 steps, whitened, Adam .1: exact J within 1 % of J* at the end.

    Seeds 0 to 99, all of them, ended within .2 %.
    """
    options: dict[str, Any] = {"steps": 128, "lam": 0.95, "critic": 0.3, "whiten": True, "limit": 500, "every": 300}
    x = next(a2c(GRID, np.random.default_rng(seed), step=adam(0.1), **options))
    assert x.t == 38_400
    assert abs(x.J - BEST) <= 0.01 * abs(BEST)


def test_gymnasium() -> None:
    """FrozenLake without slipping, as gymnasium has it, one and four at once: within 2 % of the shortest way."""
    lake = partial(gymnasium.make, "FrozenLake-v1", is_slippery=False)
    many: Any = gymnasium.make_vec("FrozenLake-v1", num_envs=4, vectorization_mode="sync", is_slippery=False)
    with lake() as env:
        mdp = MDP.from_gym(env, 0.9)
        options: dict[str, Any] = {"alpha_theta": 1.0, "alpha_V": 0.3, "V": 1.0, "every": 6000, "gamma": 0.9}
        one = next(one_step(env, np.random.default_rng(0), **options))
    options = {"step": adam(0.1), "critic": 0.3, "steps": 64, "lam": 0.9, "whiten": True, "every": 150, "gamma": 0.9}
    two = next(a2c(many, np.random.default_rng(0), **options))
    many.close()
    for x in (one, two):
        assert np.isnan(x.J)
        assert objective(mdp, x.theta) >= 0.98 * 0.9**5
    assert (two.k, 9600 <= two.t < 9600 + 3 * 150) == (150, True)


# ---- bad input ----


def test_bad_input_is_named() -> None:
    mdp, _ = model(8)
    rng = np.random.default_rng(0)
    good: dict[str, Any] = {"alpha_theta": 0.1, "alpha_V": 0.1}
    for wrong, message in (
        ({"alpha_theta": 0}, "alpha_theta is 0; a positive number"),
        ({"alpha_V": 1.5}, r"alpha_V is 1.5; a step size in \(0, 1\]"),
        ({"lam_theta": 2}, r"lam_theta is 2; a number in \[0, 1\]"),
        ({"lam_V": -1}, r"lam_V is -1; a number in \[0, 1\]"),
        ({"every": 0}, "every is 0; 1 or more"),
        ({"limit": 0}, "limit is 0; at least one step"),
        ({"gamma": 0.1}, "gamma is 0.1; the model's own"),
        ({"theta": np.zeros(3)}, r"theta has shape \(3,\)"),
        ({"V": np.zeros(99)}, r"V has shape \(99,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            one_step(mdp, rng, **{**good, **wrong})
    with pytest.raises(ModelError, match="source has 2 environments; one is expected"):
        one_step(TabularVectorEnv(mdp, num_envs=2), rng, gamma=0.9, **good)
    good = {"step": 0.1, "critic": 0.5}
    for wrong, message in (
        ({"step": 0}, "lr is 0; a positive number"),
        ({"critic": 0}, r"alpha is 0; a step size in \(0, 1\]"),
        ({"steps": 0}, "steps is 0; 1 or more"),
        ({"lam": 1.1}, r"lam is 1.1; a number in \[0, 1\]"),
        ({"entropy": -1}, "entropy is -1; a number >= 0"),
        ({"every": 0}, "every is 0; 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            a2c(mdp, rng, **{**good, **wrong})
