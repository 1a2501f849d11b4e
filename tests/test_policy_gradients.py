"""REINFORCE: against a literal loop, against its exact mean and variance, and on the 8 by 8 grid."""

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from bits import plain_and_compiled
from models import random_mdp
from paths import agree

from tabrl import MDP, chain, dp, envs, gradient_moments, policy_gradients, rollout
from tabrl.envs import TabularEnv, TabularVectorEnv
from tabrl.errors import ModelError
from tabrl.gradient import policy_gradient, usual_gradient
from tabrl.optimise import adam
from tabrl.policy import softmax
from tabrl.policy_gradients import no_baseline, reinforce
from tabrl.rollout import Actor
from tabrl.types import PGStep

RUNS = range(24)
KINDS: list[dict[str, Any]] = [
    {},
    {"discounted": False},
    {"whole": True},
    {"critic": 0.5},
    {"critic": 0.3, "discounted": False, "whiten": True},
    {"critic": 0.3, "baseline": no_baseline},
    {"baseline": lambda pi, V: pi @ np.arange(1.0, pi.shape[1] + 1)},
    {"whole": True, "whiten": True, "critic": 1.0},
]


def model(seed: int, *, proper: bool = False) -> tuple[MDP, int]:
    """A random cyclic model (self-loops, terminal states, masked actions), and a time limit."""
    rng = np.random.default_rng([42, seed])
    size: dict[str, Any] = {"S": int(rng.integers(2, 6)), "A": int(rng.integers(2, 4))}
    mdp = random_mdp(rng, **size, gamma=float(rng.choice([0.8, 0.95])), proper=proper or seed % 2 == 0)
    free = np.where(mdp.terminal, 0.0, 1.0)
    return replace(mdp, mu=free / free.sum()), int(rng.integers(1, 12))


def first(mdp: MDP, seed: int) -> Any:
    """First preferences."""
    return np.random.default_rng([43, seed]).normal(size=(mdp.S, mdp.A))


def literal(
    actor: Actor, theta: Any, V: Any, updates: int, *, step: float = 0.05, episodes: int = 2, critic: float = 0.0,
    baseline: Any = None, discounted: bool = True, whole: bool = False, whiten: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """The book's loop (sections 13.3 and 13.4), sum by sum."""
    out, t = [], 0
    for _ in range(updates):
        pi = softmax(theta, actor.legal)
        x = actor.episodes(pi, episodes)
        pi = softmax(theta, actor.legal)
        b = V if baseline is None else baseline(pi, V)
        steps = []  # (s, a, number in the episode, return, what multiplies the score)
        begin = 0
        for end in (np.flatnonzero(x.last) + 1).tolist():
            for i in range(begin, end):
                G, factor = 0.0, 1.0
                for j in range(i, end):
                    G, factor = G + factor * x.r[j], factor * x.discount[j]
                G += factor * V[x.s_next[end - 1]]
                steps.append([x.s[i], x.a[i], i - begin, G, G - b[x.s[i]]])
                if whole:
                    steps[-1][4] = steps[begin][4]
            begin = end
        adv = np.array([y[4] for y in steps])
        if whiten:
            sd = np.sqrt(np.mean((adv - adv.mean()) ** 2))
            adv = (adv - adv.mean()) / (sd + 1e-8) if sd > 1e-12 else 0 * adv
        g, weight = np.zeros_like(theta), np.zeros(len(V))
        for (s, a, k, _, _), A in zip(steps, adv, strict=True):
            w = actor.gamma**k if discounted and not whole else 1.0
            for c in range(theta.shape[1]):
                g[s, c] += w * A * ((c == a) - pi[s, c]) / episodes
            weight[s] += w
        new, V_new = theta + step * g, V.copy()
        for s in range(len(V)):
            mine = [y[3] for y in steps if y[0] == s]
            V_new[s] += critic * (np.mean(mine) - V[s]) if mine else 0.0
        pi_new, t = softmax(new, actor.legal), t + len(x.s)
        on = pi > 0
        kl = np.where(on, pi * np.log(np.where(on, pi, 1) / np.where(on, pi_new, 1)), 0).sum(1)
        H = -np.where(on, pi_new * np.log(np.where(on, pi_new, 1)), 0).sum(1)
        means = {"kl": weight @ kl / weight.sum(), "entropy": weight @ H / weight.sum()}
        out.append({"t": t, "theta": new, "V": V_new, "g": g, "old": theta, **means})
        theta, V = new, V_new
    return out


def check(record: PGStep, expected: dict[str, Any]) -> None:
    assert record.t == expected["t"]
    assert record.clip_fraction == 0
    for name in ("theta", "V", "kl", "entropy"):
        np.testing.assert_allclose(getattr(record, name), expected[name], rtol=1e-12, atol=1e-12, err_msg=name)


def start_of(mdp: MDP, seed: int) -> Any:
    """First values, 0 where the model ends."""
    return np.where(mdp.terminal, 0.0, np.random.default_rng([44, seed]).normal(size=mdp.S))


@pytest.mark.parametrize("seed", RUNS)
def test_replay(seed: int) -> None:
    """Every way to weigh the scores, on every kind of model: theta, V and what the records say."""
    mdp, limit = model(seed)
    options = KINDS[seed % len(KINDS)]
    theta, V = first(mdp, seed), start_of(mdp, seed)
    expected = literal(Actor(mdp, np.random.default_rng(seed), limit=limit), theta, V, 6, **options)
    settings: dict[str, Any] = {"step": 0.05, "episodes": 2, "theta": theta, "V": V, "limit": limit}
    records = list(islice(reinforce(mdp, np.random.default_rng(seed), **settings, **options), 6))
    for k, (x, y) in enumerate(zip(records, expected, strict=True), 1):
        assert x.k == k
        check(x, y)
        pi = softmax(y["theta"], mdp.legal)
        np.testing.assert_allclose(x.J, mdp.mu @ values(mdp, pi), rtol=1e-12, atol=1e-12)
        exact, size = policy_gradient(mdp, y["old"]), np.linalg.norm(y["g"])
        if size > 1e-12 and np.linalg.norm(exact) > 1e-12:
            cosine = (y["g"] * exact).sum() / size / np.linalg.norm(exact)
            assert x.cosine == pytest.approx(cosine, abs=1e-9)
    assert (records[-1].theta[~mdp.legal] == theta[~mdp.legal]).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("copies", [0, 3])
def test_replay_on_environments(seed: int, copies: int) -> None:
    mdp, limit = model(seed)
    options = KINDS[seed]

    def world() -> Any:
        return TabularVectorEnv(mdp, num_envs=copies) if copies else TabularEnv(mdp)

    theta, V = first(mdp, seed), np.random.default_rng(seed).normal(size=mdp.S)
    actor = Actor(world(), np.random.default_rng(seed), gamma=mdp.gamma, limit=limit)
    expected = literal(actor, theta, V, 5, episodes=4, **options)
    settings: dict[str, Any] = {"step": 0.05, "episodes": 4, "theta": theta, "V": V, "limit": limit}
    records = reinforce(world(), np.random.default_rng(seed), **settings, gamma=mdp.gamma, **options)
    for x, y in zip(records, expected, strict=False):
        check(x, y)
        assert np.isnan(x.J) and np.isnan(x.cosine)


def test_the_runs_hold_what_they_should() -> None:
    runs = [(m, Actor(m, np.random.default_rng(k), limit=n)) for k in RUNS for m, n in [model(k)]]
    drawn = [actor.episodes(softmax(first(m, k), m.legal), 12) for k, (m, actor) in enumerate(runs)]
    assert any((x.s == x.s_next).any() for x in drawn)
    assert any((x.discount == 0).any() for x in drawn)
    assert any((x.last & (x.discount > 0)).any() for x in drawn)
    assert any(not m.legal.all() for m, _ in runs)


# ---- the estimate itself ----


def estimates(mdp: MDP, theta: Any, seed: int, n: int, **options: Any) -> Any:
    """(n,S,A) gradient estimates at one and the same theta."""
    seen: list[Any] = []

    def stay(theta: Any, g: Any) -> Any:
        seen.append(g)
        return theta

    next(reinforce(mdp, np.random.default_rng(seed), step=stay, theta=theta, every=n, **options))
    return np.array(seen)


def values(mdp: MDP, pi: Any) -> Any:
    return chain.evaluate(chain.induce(mdp, pi))


def by_differences(mdp: MDP, theta: Any) -> Any:
    """Central differences of mu . V."""
    g = np.zeros_like(theta)
    for i in np.ndindex(theta.shape):
        up, down = theta.copy(), theta.copy()
        up[i] += 1e-5
        down[i] -= 1e-5
        J = [mdp.mu @ values(mdp, softmax(x, mdp.legal)) for x in (up, down)]
        g[i] = (J[0] - J[1]) / 2e-5
    return g


UNBIASED: dict[str, Any] = {
    "plain": {},
    "learned": {"critic": 0.2},
    "fixed": {"V": 3.0},
    "any": {"baseline": lambda pi, V: np.arange(len(V)) * pi[:, 0]},
    "whole": {"whole": True},
}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_is_the_exact_gradient(name: str) -> None:
    """10,000 episodes each, in batches of 10."""
    mdp, _ = model(3, proper=True)
    theta = first(mdp, 3)
    g = estimates(mdp, theta, 1, 1000, episodes=10, **UNBIASED[name])
    exact = by_differences(mdp, theta)
    np.testing.assert_allclose(exact, policy_gradient(mdp, theta), atol=1e-7 * (1 + abs(exact).max()))
    agree(g, exact)


def test_without_discounted_weights_the_mean_is_another() -> None:
    """On a corridor of about 50 steps an episode the usual estimate has its own exact mean, far from grad J."""
    way = envs.grid("S....G", step=-1, gamma=0.8)
    theta = np.zeros((way.S, way.A))
    V = values(way, softmax(theta))
    g = estimates(way, theta, 6, 1000, episodes=10, V=V, discounted=False)
    agree(g, usual_gradient(way, theta))
    with pytest.raises(AssertionError, match="z = "):
        agree(g, policy_gradient(way, theta))


@pytest.mark.parametrize("value", [False, True])
def test_the_variance_is_the_exact_one(value: bool) -> None:
    """Second moments of single episodes, without a baseline and with V_pi."""
    mdp, _ = model(2, proper=True)
    theta = first(mdp, 2)
    pi = softmax(theta, mdp.legal)
    V = values(mdp, pi) if value else np.zeros(mdp.S)
    exact = gradient_moments.reinforce(mdp, pi, V)
    g = estimates(mdp, theta, 5, 10_000, V=V)
    agree(g, exact.mean)
    agree((g - exact.mean) ** 2, exact.variance)


@pytest.mark.parametrize("discounted", [True, False])
def test_a_cut_episode_goes_on_as_the_critic_says(discounted: bool) -> None:
    """With V = V_pi the mean is that of the first steps: no end of the returns is missing."""
    mdp, _ = model(5)
    theta, limit = first(mdp, 5), 4
    pi = softmax(theta, mdp.legal)
    V, P = values(mdp, pi), chain.induce(mdp, pi).P
    Q = mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A)
    p, exact = mdp.mu, np.zeros(pi.shape)
    for t in range(limit):
        weight = mdp.gamma**t if discounted else 1.0
        exact += weight * np.where(mdp.terminal, 0.0, p)[:, None] * pi * np.where(mdp.legal, Q - V[:, None], 0.0)
        p = P.T @ p
    g = estimates(mdp, theta, 2, 1000, episodes=10, V=V, limit=limit, discounted=discounted)
    agree(g, exact)
    none = estimates(mdp, theta, 2, 1000, episodes=10, limit=1)
    np.testing.assert_array_equal(none, estimates(mdp, theta, 2, 1000, episodes=10, limit=1, whole=True))


def test_whitening_forgets_shift_and_scale_of_the_rewards() -> None:
    mdp, limit = model(7)
    large = replace(mdp, R=1024 * mdp.R)
    one, two = (
        estimates(m, first(mdp, 7), 4, 50, episodes=3, limit=limit, whiten=True, critic=0.5) for m in (mdp, large)
    )
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)


# ---- bits, records, bad input ----


def test_every_and_blocks_do_not_change_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, limit = model(8)
    finals = set()
    for block in (1, 13, 8192):
        monkeypatch.setattr(rollout, "BLOCK", block)
        for every in (1, 5, 30):
            options: dict[str, Any] = {"step": adam(0.1), "episodes": 3, "critic": 0.4, "limit": limit}
            records = reinforce(mdp, np.random.default_rng(2), every=every, **options)
            x = next(islice(records, 30 // every - 1, None))
            assert x.k == 30
            finals.add((x.t, x.theta.tobytes(), x.V.tobytes(), x.kl, x.cosine))
    assert len(finals) == 1


def test_records_own_their_arrays() -> None:
    mdp, limit = model(8)
    theta = first(mdp, 8)
    kept = theta.copy()
    a, b = islice(reinforce(mdp, np.random.default_rng(0), step=0.1, theta=theta, critic=0.5, limit=limit), 2)
    assert (theta == kept).all()
    before = a.theta.copy()
    b.theta[:] = 0
    assert (a.theta == before).all()


SCRIPT = """
import numpy as np
from tabrl import envs
from tabrl.actor_critic import a2c
from tabrl.optimise import adam
from tabrl.policy_gradients import reinforce
world = envs.frozen_lake(gamma=0.9)
options = {"step": adam(0.1), "critic": 0.3, "whiten": True, "limit": 30, "every": 20}
for x in (
    next(reinforce(world, np.random.default_rng(7), episodes=5, **options)),
    next(a2c(world, np.random.default_rng(7), steps=30, lam=0.9, entropy=0.01, **options)),
):
    print(x.t, x.theta.tobytes().hex(), x.V.tobytes().hex())
"""


def test_same_bits_with_and_without_numba() -> None:
    outputs = plain_and_compiled(SCRIPT)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 2


@pytest.mark.parametrize("certain", [100.0, 1000.0])
def test_a_policy_that_ends_too_rarely_has_no_finite_J_at_gamma_1(certain: float) -> None:
    """Waiting costs 1: with a chance to leave that rounding hides, J is nan, not what rounding makes of it."""
    wait = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, 2], [0, 0]], 1.0, terminal=[0, 1], mu=[1, 0])
    theta = np.array([[certain, 0.0], [0.0, 0.0]])
    x = next(reinforce(wait, np.random.default_rng(0), step=0.01, theta=theta, limit=5))
    assert np.isnan(x.J) and np.isnan(x.cosine)
    with pytest.raises(ModelError, match="limit is None; a number of steps is expected"):
        next(reinforce(wait, np.random.default_rng(0), step=0.01, theta=theta))
    x = next(reinforce(wait, np.random.default_rng(0), step=0.01))
    np.testing.assert_allclose(x.J, wait.mu @ values(wait, softmax(x.theta)), rtol=1e-12)


def test_bad_input_is_named() -> None:
    mdp, _ = model(8)

    def run(**options: Any) -> Any:
        return reinforce(mdp, np.random.default_rng(0), **{"step": 0.1, "limit": 5, **options})

    with pytest.raises(ValueError, match="episodes is 0; 1 or more are expected"):
        run(episodes=0)
    with pytest.raises(ValueError, match="every is 0; 1 or more are expected"):
        run(every=0)
    with pytest.raises(ValueError, match="limit is 0; at least one step"):
        run(limit=0)
    with pytest.raises(ValueError, match="lr is -1; a positive number"):
        run(step=-1)
    with pytest.raises(ValueError, match="alpha is 2; a step size"):
        run(critic=2)
    with pytest.raises(ValueError, match=r"theta has shape \(1, 1\)"):
        run(theta=np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"baseline has shape \(1,\)"):
        next(run(baseline=lambda pi, V: np.zeros(1)))
    stay = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[0, 0], [0, 0]], 0.9, mu=[1, 0])
    with pytest.raises(ValueError, match="limit is None; a number of steps is expected, as this policy may never end"):
        next(reinforce(stay, np.random.default_rng(0), step=0.1))


# ---- what it reaches ----

GRID = envs.grid(" ".join(["S......."] + ["........"] * 6 + [".......G"]), step=-1, rewards={"G": -1}, gamma=0.99)


@pytest.mark.parametrize("seed", range(3))
def test_reaches_the_optimum_of_the_grid(seed: int) -> None:
    """8 by 8 grid, 300 updates of 16 episodes, whitened, Adam .1: exact J within 1 % of J* at the end.

    Seeds 0 to 99, all of them, ended within .2 %.
    """
    options: dict[str, Any] = {"episodes": 16, "critic": 0.5, "whiten": True, "limit": 500, "every": 300}
    x = next(reinforce(GRID, np.random.default_rng(seed), step=adam(0.1), **options))
    best = float(GRID.mu @ dp.solve(GRID).V)
    assert x.k == 300
    assert abs(x.J - best) <= 0.01 * abs(best)


@pytest.mark.parametrize(("step", "worst"), [(0.001, 0.2), (0.1, 6.0)])
def test_without_baseline_and_batch_it_is_slow_or_fails(step: float, worst: float) -> None:
    """As many transitions, one episode an update: small steps are far from J* still, large ones ran into a wall."""
    best = float(GRID.mu @ dp.solve(GRID).V)
    for seed in range(2):
        records = reinforce(GRID, np.random.default_rng(seed), step=step, limit=500, every=50)
        x = next(x for x in records if x.t >= 90_000)
        assert (best - x.J) / abs(best) > worst


def test_positions() -> None:
    x = Actor(GRID, np.random.default_rng(0), limit=3).steps(np.full((GRID.S, 4), 0.25), 7)
    start, t = policy_gradients.positions(x)
    assert start.tolist() == [0, 0, 0, 3, 3, 3, 6]
    assert t.tolist() == [0, 1, 2, 0, 1, 2, 0]
