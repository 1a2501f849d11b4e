"""PPO: its gradient against complex steps and the exact one, its updates against a literal loop, two worlds learned."""

import copy
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from bits import plain_and_compiled
from complex_step import derivative, policy, trial
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from models import random_mdp
from paths import agree

from tabrl import MDP, chain, dp, envs, losses, surrogate
from tabrl.decisions import Batch, drawn, estimate, expected, part
from tabrl.envs import TabularEnv, TabularVectorEnv
from tabrl.errors import ModelError, ShapeError
from tabrl.gradient import at, objective, policy_gradient
from tabrl.on_policy import OnPolicy, Plan, averages, descent, judged
from tabrl.optimise import adam, sgd
from tabrl.policy import log_softmax
from tabrl.ppo import Clip, Passes, Penalty, Proximal, ppo, ppo_kl, proximal_gradient
from tabrl.types import PGStep

RUNS = range(24)


def close(x: Any, y: Any, tolerance: float = 1e-12) -> bool:
    """Largest difference, relative to the largest number where that is above 1."""
    x, y = np.asarray(x), np.asarray(y)
    return bool(abs(x - y).max(initial=0.0) <= tolerance * max(1.0, abs(y).max(initial=0.0)))


def decisions(m: MDP, theta: Any) -> tuple[Any, Batch]:
    """The exact batch of a softmax policy: all that it can do, weighed by its visits."""
    x = at(m, theta)
    return x, expected(x.pi, np.where(m.terminal, 0.0, x.d), x.advantage)


def near(m: MDP, theta: Any, seed: int) -> Any:
    """Preferences some way from theta, far enough for some decisions to be clipped."""
    return theta + np.random.default_rng([1, seed]).normal(size=theta.shape) * 0.4


# ---- the gradient ----


@pytest.mark.parametrize("seed", range(60))
def test_at_the_old_policy_the_exact_gradient_is_that_of_J(seed: int) -> None:
    m, theta = trial(seed)
    x, batch = decisions(m, theta)
    rows, exact = log_softmax(theta, m.legal), policy_gradient(m, theta)
    assert close(x.pi, np.exp(rows))
    scale = max(1.0, (x.d[:, None] * abs(x.Q)).max())  # of what cancels in an advantage
    for g in (proximal_gradient(rows, rows, batch, y) for y in (Clip(), Clip(0.01, 0.5), Penalty(0.0), Penalty(3.0))):
        assert close(g / scale, exact / scale)
    assert close(estimate(rows, batch) / scale, exact / scale)


def objective_of(m: MDP, theta: Any, old: Any, batch: Batch, loss: Any, c: float) -> Any:
    """What PPO ascends, written out decision by decision; theta may be complex."""
    pi, total = policy(m, theta), 0.0
    for s, a, logp_old, adv, weight in zip(*batch, strict=True):
        rho = pi[s, a] / np.exp(logp_old)
        if isinstance(loss, Clip):
            cut = 1 - loss.low if rho.real < 1 - loss.low else 1 + loss.high if rho.real > 1 + loss.high else rho
            total = total + weight * min(rho * adv, cut * adv, key=lambda z: z.real)
        else:
            total = total + weight * rho * adv
    for s in range(m.S):
        w, row, legal = batch.weight[batch.s == s].sum(), pi[s], m.legal[s]
        total = total - w * c * (row[legal] * np.log(row[legal])).sum()
        total = total - w * loss.beta * (old[s][legal] * (np.log(old[s][legal]) - np.log(row[legal]))).sum()
    return total


@pytest.mark.parametrize("seed", RUNS)
@pytest.mark.parametrize("loss", [Clip(), Clip(0.1, 0.4), Penalty(0.7)])
def test_gradient_is_that_of_the_objective(seed: int, loss: Any) -> None:
    """Away from the old policy, with part of the batch clipped, to 1e-9 by complex step."""
    m, theta = trial(seed)
    x, batch = decisions(m, theta)
    batch = batch._replace(adv=batch.adv / max(1.0, abs(batch.adv).max()))
    new, c = near(m, theta, seed), 0.3
    g = proximal_gradient(log_softmax(new, m.legal), log_softmax(theta, m.legal), batch, loss, c)
    assert close(g, derivative(lambda z: objective_of(m, z, x.pi, batch, loss, c), new), 1e-9)
    assert (g[~m.legal] == 0).all() and (g[m.terminal] == 0).all()


@pytest.mark.parametrize("seed", RUNS)
def test_exact_gradient_and_clip_are_those_of_the_exact_surrogate(seed: int) -> None:
    m, theta = trial(seed)
    x, batch = decisions(m, theta)
    new = near(m, theta, seed)
    rows, d = log_softmax(new, m.legal), np.where(m.terminal, 0.0, x.d)
    g = proximal_gradient(rows, log_softmax(theta, m.legal), batch, Clip(0.2, 0.3))
    assert close(g, surrogate.clip_gradient(np.exp(rows), x.pi, d, x.advantage, high=0.3))
    stopped = Clip(0.2, 0.3).stopped(rows[batch.s, batch.a], batch.logp_old, batch.adv)
    share = batch.weight @ stopped / batch.weight.sum()
    assert close(share, surrogate.clip_fraction(np.exp(rows), x.pi, d, x.advantage, high=0.3))


@pytest.mark.parametrize("seed", RUNS)
def test_in_the_clipped_region_the_gradient_is_exactly_zero(seed: int) -> None:
    """One action's ratio far up, all others' far down, and advantages that say: further."""
    m, theta = trial(seed)
    x, _ = decisions(m, theta)
    up = np.where(m.legal, theta, np.inf).argmin(axis=1)
    new = theta + 30.0 * np.eye(m.A)[up]
    s, a = np.nonzero(m.legal & (m.legal.sum(axis=1) > 1)[:, None] & ~m.terminal[:, None])
    adv = np.where(a == up[s], 1.0, -1.0)
    batch = drawn(s, a, np.log(x.pi[s, a]), adv)
    rows = log_softmax(new, m.legal)
    free = x.pi[s, a] * 1.2 >= 1  # such an action has no way up: its ratio stays below the bound
    g = proximal_gradient(rows, log_softmax(theta, m.legal), part(batch, np.flatnonzero(~free)), Clip())
    assert not g.any()
    opposite = batch._replace(adv=-adv)
    assert proximal_gradient(rows, log_softmax(theta, m.legal), opposite, Clip()).any()


def test_parts_of_a_batch_have_its_mean() -> None:
    rng = np.random.default_rng(0)
    s, a = rng.integers(0, 3, (2, 12))
    x = Batch(s, a, -rng.random(12), rng.normal(size=12), rng.random(12))
    rows = log_softmax(rng.normal(size=(3, 3)))
    parts = [part(x, i) for i in np.array_split(rng.permutation(12), 4)]
    assert close(np.mean([estimate(rows, y) for y in parts], axis=0), estimate(rows, x))


# ---- updates ----


def model(seed: int) -> tuple[MDP, int]:
    """A random cyclic model (self-loops, terminal states, masked actions), and a time limit."""
    rng = np.random.default_rng([51, seed])
    size: dict[str, Any] = {"S": int(rng.integers(2, 7)), "A": int(rng.integers(2, 5))}
    mdp = random_mdp(rng, **size, gamma=float(rng.choice([0.8, 0.95])), proper=seed % 2 == 0)
    free = np.where(mdp.terminal, 0.0, 1.0)
    return replace(mdp, mu=free / free.sum()), int(rng.integers(1, 15))


class Watched(Proximal):
    """PPO that keeps its rollouts, and its generator as it was after each."""

    def batch(self) -> Any:
        act = self.actor.steps
        self.actor.steps = lambda pi, n: self.keep(act(pi, n))  # type: ignore[method-assign]
        out = super().batch()
        self.actor.steps = act  # type: ignore[method-assign]
        return out

    def keep(self, x: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), (x, copy.deepcopy(self.rng))]
        return x


def start(mdp: MDP, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng([52, seed])
    return rng.normal(size=(mdp.S, mdp.A)), rng.normal(size=mdp.S)


def watched(
    source: Any, loss: Any, passes: Passes, seed: int, plan: Plan, critic: Any, limit: int, **at: Any
) -> Watched:
    theta, V = at["start"]
    return Watched(loss, passes, source, np.random.default_rng(seed), plan, critic, theta, V, limit, at.get("gamma"))


def row(theta: Any, legal: Any, s: int) -> Any:
    """pi(.|s)."""
    weight = [np.exp(theta[s, a]) if legal[s, a] else 0.0 for a in range(len(theta[s]))]
    return np.array(weight) / sum(weight)


def literal_adv(x: Any, V: Any, lam: float) -> Any:
    """GAE, fragment by fragment, as a double sum."""
    adv = np.zeros(len(x.r))
    for t in range(len(x.r)):
        factor = 1.0
        for k in range(t, len(x.r)):
            adv[t] += factor * (x.r[k] + x.discount[k] * V[x.s_next[k]] - V[x.s[k]])
            factor *= lam * x.discount[k]
            if x.last[k]:
                break
    return adv


def literal_step(theta: Any, legal: Any, old: Any, x: Any, adv: Any, i: Any, loss: Any, c: float) -> Any:
    """Gradient of a minibatch, decision by decision."""
    g = np.zeros_like(theta)
    for t in i:
        s, a = x.s[t], x.a[t]
        pi = row(theta, legal, s)
        rho = pi[a] / old[s][a]
        clipped = isinstance(loss, Clip) and (
            (adv[t] > 0 and rho > 1 + loss.high) or (adv[t] < 0 and rho < 1 - loss.low)
        )
        logs = np.log(np.where(pi > 0, pi, 1.0))
        g[s] += (0.0 if clipped else rho * adv[t]) * (np.eye(len(pi))[a] - pi) / len(i)
        g[s] -= (loss.beta * (pi - old[s]) + c * pi * (logs - pi @ logs)) / len(i)
    return g


class LiteralAdam:
    """Kingma & Ba, algorithm 1."""

    def __init__(self, lr: float) -> None:
        self.lr, self.m, self.v, self.k = lr, 0.0, 0.0, 0

    def __call__(self, theta: Any, g: Any) -> Any:
        self.k += 1
        self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g * g
        return theta + self.lr * (self.m / (1 - 0.9**self.k)) / (np.sqrt(self.v / (1 - 0.999**self.k)) + 1e-8)


def literal_critic(V: Any, s: Any, y: Any, alpha: float) -> Any:
    """Each state moves towards the mean of its targets."""
    new = V.copy()
    for z in set(s.tolist()):
        own = [y[t] for t in range(len(s)) if s[t] == z]
        new[z] = V[z] + alpha * (sum(own) / len(own) - V[z])
    return new


def literal_kl(theta: Any, legal: Any, old: Any, s: Any) -> float:
    """Mean of KL(old || new) over the states of a batch."""
    total = 0.0
    for z in s:
        pi = row(theta, legal, z)
        total += sum(p * np.log(p / q) for p, q in zip(old[z], pi, strict=True) if p > 0)
    return total / len(s)


def literal(seen: Any, legal: Any, theta: Any, V: Any, loss: Any, passes: Passes, plan: Plan, lr: float) -> Any:
    """PPO in loops: algorithm 1 of the paper. Yields (theta, V, kl, entropy, clip fraction, next beta)."""
    step = LiteralAdam(lr)
    for k, (x, rng) in enumerate(seen, start=1):
        old = [row(theta, legal, s) for s in range(len(V))]
        adv = literal_adv(x, V, plan.lam)
        y = adv + V[x.s]
        adv = (adv - adv.mean()) / (adv.std() + 1e-8) if plan.whiten and np.ptp(adv) > 0 else adv
        c = passes.entropy(np.array([float(k)]))[0] if callable(passes.entropy) else passes.entropy
        for _ in range(passes.epochs):
            order = rng.permutation(len(y)) if passes.minibatches > 1 else range(len(y))
            for i in np.array_split(order, passes.minibatches):
                theta = step(theta, literal_step(theta, legal, old, x, adv, i, loss, c))
                V = literal_critic(V, x.s[i], y[i], 0.5)
            if passes.stop_kl is not None and literal_kl(theta, legal, old, x.s) > passes.stop_kl:
                break
        kl = literal_kl(theta, legal, old, x.s)
        H = np.mean([-sum(p * np.log(p) for p in row(theta, legal, s) if p > 0) for s in x.s])
        rho = np.array([row(theta, legal, s)[a] / old[s][a] for s, a in zip(x.s, x.a, strict=True)])
        far = ((adv > 0) & (rho > 1.2)) | ((adv < 0) & (rho < 0.8)) if isinstance(loss, Clip) else np.zeros(len(y))
        if isinstance(loss, Penalty) and loss.target is not None:
            factor = 0.5 if kl < loss.target / 1.5 else 2.0 if kl > loss.target * 1.5 else 1.0
            loss = Penalty(loss.beta * factor, loss.target)
        yield theta, V, kl, H, far.mean(), loss.beta


KINDS: dict[str, Any] = {
    "clip": (Clip(), Passes(3, 4, adam(0.05), 0.0, None)),
    "clip, entropy annealed, one part": (Clip(), Passes(2, 1, adam(0.2), lambda k: 0.1 / k, None)),
    "clip, early stop": (Clip(), Passes(5, 2, adam(0.05), 0.02, 0.01)),
    "fixed penalty": (Penalty(0.5), Passes(3, 3, adam(0.05), 0.0, None)),
    "adaptive penalty": (Penalty(0.5, 0.01), Passes(3, 2, adam(0.1), 0.01, None)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", RUNS)
def test_replay(seed: int, kind: str) -> None:
    """Three updates, and all that is reported about them."""
    mdp, limit = model(seed)
    loss, passes = KINDS[kind]
    first, plan = start(mdp, seed), Plan(24, 0.9, seed % 2 == 0, 1)
    learner = watched(mdp, loss, passes, seed, plan, 0.5, limit, start=first)
    first = (first[0], np.where(mdp.terminal, 0.0, first[1]))
    records = [(x, learner.loss.beta) for x in islice(learner.records(), 3)]
    lr: Any = getattr(passes.step, "lr")  # noqa: B009
    for (x, beta), y in zip(records, literal(learner.seen, mdp.legal, *first, loss, passes, plan, lr), strict=True):
        theta, V, kl, H, clip, next_beta = y
        assert close(x.theta, theta) and close(x.V, V)
        assert close(x.kl, kl) and close(x.entropy, H)
        assert x.clip_fraction == pytest.approx(clip, abs=1e-15)
        assert beta == next_beta


def test_the_replays_hold_what_they_should() -> None:
    """Cut and ended episodes, clipped decisions, epochs left out, betas that rise and fall."""
    stopped, betas, kept = [], set(), []
    for seed in RUNS:
        mdp, limit = model(seed)
        for kind, (loss, passes) in KINDS.items():
            learner = watched(mdp, loss, passes, seed, Plan(24, 0.9, True, 1), 0.5, limit, start=start(mdp, seed))
            xs = list(islice(learner.records(), 3))
            if kind == "clip":
                stopped.append(max(x.clip_fraction for x in xs))
                kept += [x for x, _ in learner.seen]
            if kind == "adaptive penalty":
                betas.add(learner.loss.beta)
            if kind == "clip, early stop":
                assert learner.step.k <= 30  # type: ignore[attr-defined]
                stopped.append(learner.step.k < 30)  # type: ignore[attr-defined]
    assert sum(stopped) > 10 and min(betas) < 0.5 < max(betas)
    assert any((x.discount == 0).any() for x in kept) and any((x.last & (x.discount > 0)).any() for x in kept)
    assert any((x.s == x.s_next).any() for x in kept) and any(not model(seed)[0].legal.all() for seed in RUNS)


@pytest.mark.parametrize("seed", range(6))
def test_J_and_cosine_are_exact(seed: int) -> None:
    mdp, limit = model(seed)
    theta, V = start(mdp, seed)
    learner = watched(mdp, Clip(), KINDS["clip"][1], seed, Plan(30, 0.9, False, 1), 0.5, limit, start=(theta, V))
    x = next(learner.records())
    seen, V = learner.seen[0][0], np.where(mdp.terminal, 0.0, V)
    g = np.zeros_like(theta)
    for s, a, A in zip(seen.s, seen.a, literal_adv(seen, V, 0.9), strict=True):
        g[s] += A * (np.eye(mdp.A)[a] - row(theta, mdp.legal, s))
    exact = policy_gradient(mdp, theta)
    assert close(x.J, objective(mdp, x.theta))
    assert close(x.cosine, (g * exact).sum() / np.sqrt((g * g).sum() * (exact * exact).sum()), 1e-9)


def test_no_finite_number_stands_for_a_J_that_rounding_hides() -> None:
    """gamma = 1, and a policy that leaves with probability 1e-17: nan, and learning goes on."""
    loop = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, -1], [0, 0]], 1.0, terminal=[0, 1], mu=[1, 0])
    theta = np.array([[39.0, 0.0], [0.0, 0.0]])
    assert np.isnan(judged(loop, theta, theta, theta)).all()
    x = next(ppo(loop, np.random.default_rng(0), theta=theta, steps=8, limit=4))
    assert np.isnan(x.J) and np.isfinite(x.theta).all()


# ---- the critics ----


@pytest.mark.parametrize("seed", RUNS)
@pytest.mark.parametrize("clip", [None, 0.3])
def test_descent_on_the_value_loss(seed: int, clip: float | None) -> None:
    rng = np.random.default_rng(seed)
    V, old, s, y = rng.normal(size=4), rng.normal(size=4), rng.integers(0, 3, 15), rng.normal(size=15)
    learned, step = descent(adam(0.1), clip), LiteralAdam(0.1)
    want, got = V, V
    for _ in range(3):
        got = learned(got, s, y, old)
        g = np.zeros(4)
        for t in range(15):
            held = old[s[t]] + min(max(want[s[t]] - old[s[t]], -(clip or 9e9)), clip or 9e9)
            free, cut = want[s[t]] - y[t], held - y[t]
            inside = abs(want[s[t]] - old[s[t]]) <= (clip or 9e9)
            g[s[t]] -= 2 * free / 15 if inside or free**2 >= cut**2 else 0.0
        want = step(want, g)
    assert close(got, want)
    assert got[3] == V[3]


def test_critics_are_alternatives() -> None:
    mdp, limit = model(2)
    runs = [
        next(ppo(mdp, np.random.default_rng(1), steps=64, limit=limit, critic=critic, minibatches=1, epochs=1))
        for critic in (0.5, averages(0.5), descent(sgd(0.5)), descent(adam(0.1), 0.2))
    ]
    assert (runs[0].V == runs[1].V).all()
    assert len({x.V.tobytes() for x in runs}) == 3


# ---- expectation ----


def test_the_mean_is_the_usual_gradient() -> None:
    """Estimates from 8 steps, the critic being V_pi: visits without gamma^t, restarts included; |z| <= 6.8."""
    mdp, _ = model(4)
    theta, _ = start(mdp, 4)
    x = at(mdp, theta)
    T, p, visits, P = 8, np.array(mdp.mu), np.zeros(mdp.S), chain.induce(mdp, x.pi).P
    for _ in range(T):
        visits += p
        arrived = p @ P
        p = np.where(mdp.terminal, 0.0, arrived) + arrived[mdp.terminal].sum() * mdp.mu
    exact = visits[:, None] / T * x.pi * x.advantage
    samples = []
    for seed in range(1200):
        learner: OnPolicy = Proximal(
            Clip(), KINDS["clip"][1], mdp, np.random.default_rng([53, seed]), Plan(T, 0.7, False, 1), 0.5, theta, x.V,
            None, None,
        )  # fmt: skip
        samples.append(estimate(learner.rows(), learner.batch()[0]))
    agree(np.array(samples), exact)


# ---- runs ----


def bits(x: PGStep) -> Any:
    return b"".join(np.asarray(y).tobytes() for y in x)


@pytest.mark.parametrize("learner", [ppo, ppo_kl])
def test_same_seed_same_bits(learner: Any) -> None:
    mdp, limit = model(7)
    step = adam(0.05)

    def run(seed: int, every: int, **options: Any) -> PGStep:
        options = {"step": step, "steps": 40, "limit": limit, **options}
        xs: list[PGStep] = list(islice(learner(mdp, np.random.default_rng(seed), every=every, **options), 6 // every))
        return xs[-1]

    assert bits(run(0, 1)) == bits(run(0, 3)) == bits(run(0, 6))  # the optimiser is not shared by runs
    assert bits(run(0, 1)) != bits(run(1, 1))
    assert bits(run(0, 1, minibatches=1)) != bits(run(0, 1))


def test_the_parts_are_drawn() -> None:
    """Four parts of the same batch, put together differently, move theta differently; one part draws nothing."""
    mdp, limit = model(9)
    after = []
    for k in (0, 1):
        learner = watched(mdp, Clip(), KINDS["clip"][1], 3, Plan(40, 0.9, True, 1), 0.5, limit, start=start(mdp, 9))
        x, y = learner.batch()
        learner.rng.random(k)
        learner.update(x, y, learner.rows())
        after.append(learner.theta)
    assert abs(after[0] - after[1]).max() > 1e-6
    passes = KINDS["clip"][1]._replace(minibatches=1)
    learner = watched(mdp, Clip(), passes, 3, Plan(40, 0.9, True, 1), 0.5, limit, start=start(mdp, 9))
    x, y = learner.batch()
    before = learner.rng.bit_generator.state
    learner.update(x, y, learner.rows())
    assert learner.rng.bit_generator.state == before


def test_without_numba_too() -> None:
    """Rollouts have the same bits; a softmax may differ in the last one."""
    program = (
        "import numpy as np; from tabrl import envs; from tabrl.ppo import ppo;"
        "m = envs.make('grid4x4', gamma=.9);"
        "x = [y for y, _ in zip(ppo(m, np.random.default_rng(0), steps=200, limit=30), range(3))][-1];"
        "print(x.t, *x.theta.ravel())"
    )
    out = [text.split() for text in plain_and_compiled(program)]
    assert close(np.array(out[0], float), np.array(out[1], float))


def test_first_values() -> None:
    mdp, limit = model(2)
    V = np.linspace(1, 2, mdp.S)
    for given, wanted in ((V, V), (3.0, np.full(mdp.S, 3.0)), (None, np.zeros(mdp.S))):
        plan = Plan(8, 0.9, True, 1)
        learner = watched(mdp, Clip(), KINDS["clip"][1], 0, plan, 0.5, limit, start=(None, given))
        assert np.array_equal(learner.V, np.where(mdp.terminal, 0.0, wanted))


@pytest.mark.parametrize("kind", ["one", "array", AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("learner", [ppo, ppo_kl])
def test_environments(kind: Any, learner: Any) -> None:
    """One environment or many, with masks: the policy becomes better, and no illegal action gets a gradient."""
    mdp = random_mdp(np.random.default_rng(5), S=5, A=3, gamma=0.9, proper=True, masked=True, rewards="sas")
    mdp = replace(mdp, R=mdp.R / mdp.R_max, mu=np.where(mdp.terminal, 0, 1) / (~mdp.terminal).sum())

    def source() -> Any:
        if kind == "one":
            return TabularEnv(mdp)
        if kind == "array":
            return TabularVectorEnv(mdp, num_envs=4)
        return SyncVectorEnv([lambda: TabularEnv(mdp)] * 4, autoreset_mode=kind)

    def run() -> list[PGStep]:
        options: dict[str, Any] = {"gamma": 0.9, "steps": 64, "limit": 20}
        return list(islice(learner(source(), np.random.default_rng(3), **options), 12))

    xs = run()
    assert np.isnan(xs[-1].J) and np.isnan(xs[-1].cosine)
    assert [x.k for x in xs] == list(range(1, 13)) and all(64 * x.k <= x.t < 68 * x.k for x in xs)
    assert objective(mdp, xs[-1].theta) > objective(mdp, np.zeros((mdp.S, mdp.A)))
    assert all(0 < x.kl < np.inf and 0 <= x.clip_fraction <= 1 for x in xs)
    assert bits(xs[-1]) == bits(run()[-1])


# ---- what must be learned: the whole budget, on every seed ----


def grid8() -> MDP:
    """8 by 8, -1 per step, from one corner to the other."""
    return envs.grid("S....... " + "........ " * 6 + ".......G", rewards={}, step=-1.0, gamma=0.99)


def linear(start: float, end: float, n: int) -> Any:
    """From start to end in n updates."""
    return lambda k: start + (end - start) * np.minimum(k / n, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_grid(seed: int) -> None:
    """150 updates of 1,024 steps: exact J of the softmax policy within 1 % of J*."""
    m = grid8()
    best = float(m.mu @ dp.solve(m).V)
    x = next(ppo(m, np.random.default_rng(seed), limit=500, every=150))
    assert x.t == 150 * 1024
    assert best * 1.01 <= x.J <= best + 1e-9


@pytest.mark.parametrize("seed", range(2))
def test_frozen_lake(seed: int) -> None:
    """300 updates of 4,096 steps, an optimistic critic, entropy annealed: within 1 % of J*."""
    m = envs.make("frozen-lake", gamma=0.99)
    best = float(m.mu @ dp.solve(m).V)
    options: dict[str, Any] = {"steps": 4096, "lam": 0.8, "V": 1.0, "entropy": linear(0.05, 0.0, 300)}
    x = next(ppo(m, np.random.default_rng(seed), every=300, **options))
    assert best * 0.99 <= x.J <= best + 1e-9


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"minibatches": 0}, ValueError, "minibatches is 0"),
        ({"minibatches": 2000}, ValueError, "minibatches is 2000; at most steps, 1024"),
        ({"every": 0}, ValueError, "every is 0"),
        ({"lam": 1.5}, ValueError, "lam is 1.5"),
        ({"step": -1.0}, ValueError, "lr is -1.0"),
        ({"critic": 0.0}, ValueError, "alpha is 0.0"),
        ({"stop_kl": 0.0}, ValueError, "stop_kl is 0.0"),
        ({"entropy": np.nan}, ValueError, "entropy is nan"),
        ({"limit": 0}, ValueError, "limit is 0"),
        ({"gamma": 0.5}, ModelError, "gamma is 0.5"),
        ({"V": [1.0]}, ShapeError, "V has shape"),
        ({"V": np.nan}, ModelError, r"V\[0\] is nan"),
        ({"theta": np.zeros((1, 1))}, ShapeError, "theta has shape"),
        ({"clip": (-0.1, 0.2)}, ValueError, "low is -0.1"),
    ],
)
def test_bad_input(options: Any, error: Any, message: str) -> None:
    mdp, _ = model(0)
    with pytest.raises(error, match=message):
        ppo(mdp, np.random.default_rng(0), **options)


def test_more_bad_input() -> None:
    mdp, _ = model(0)
    with pytest.raises(ValueError, match="beta is -1"):
        ppo_kl(mdp, np.random.default_rng(0), beta=-1.0)
    with pytest.raises(ValueError, match=r"target is -0\.1"):
        ppo_kl(mdp, np.random.default_rng(0), target=-0.1)
    with pytest.raises(ValueError, match="clip is 0"):
        descent(0.1, 0.0)
    with pytest.raises(ShapeError, match="one and the same"):
        drawn(np.zeros(2, int), np.zeros(2, int), np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="0 entries"):
        drawn(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0))
    with pytest.raises(ShapeError, match="pi, d, advantage"):
        expected(np.ones((2, 1)), np.ones(3), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"d\[1\] is nan"):
        expected(np.ones((2, 1)), np.array([1.0, np.nan]), np.ones((2, 1)))
    assert losses.adaptive_beta(1.0, 0.0, 0.1) == 0.5
