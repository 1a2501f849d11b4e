"""Control: every learner against a literal loop, the exact optimum, and the textbook's figures."""

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from bits import plain_and_compiled
from models import random_mdp, uniform_policy

from tabrl import MDP, chain, control, dp, envs, prediction
from tabrl.control import acting
from tabrl.control.kernels import DOUBLE_Q, EXPECTED_SARSA, Q_LEARNING, SARSA, Moves
from tabrl.control.one_step import OneStep
from tabrl.types import ActionUpdate

RUNS = range(24)
RULES = {
    "q_learning": Q_LEARNING,
    "sarsa": SARSA,
    "expected_sarsa": EXPECTED_SARSA,
    "double_q_learning": DOUBLE_Q,
}
ALPHA, STEPS = 0.3, 500


def model(seed: int) -> tuple[MDP, int]:
    """A random cyclic model (self-loops, terminal states, masked actions), and a time limit."""
    rng = np.random.default_rng([21, seed])
    mdp = random_mdp(rng, S=int(rng.integers(2, 7)), gamma=float(rng.choice([0.8, 0.95])), proper=seed % 2 == 0)
    mu = np.where(mdp.terminal, 0.0, 1.0)
    mdp = replace(mdp, mu=mu / mu.sum()) if not mdp.terminal.all() else mdp
    return mdp, int(rng.integers(1, 15))


def learner(name: str, source: Any, seed: int, **options: Any) -> OneStep:
    """A learner with its defaults filled in."""
    given = {"alpha": ALPHA, "eps": 0.3, "Q": None, "limit": None, "every": STEPS, "gamma": None, **options}
    return OneStep(RULES[name], source, np.random.default_rng(seed), *given.values())


def columns(name: str, mdp: MDP) -> int:
    """Uniform numbers per step: action, outcome, start, one more; none for the start where it is the last, and one."""
    return 4 if name in ("sarsa", "double_q_learning") else 2 + int(np.count_nonzero(mdp.mu) > 1)


def joined(parts: list[Moves]) -> Moves:
    columns: Any = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Moves(*columns)


def run(name: str, source: Any, seed: int, n: int = STEPS, **options: Any) -> tuple[Moves, Any]:
    """Record the moves of the first n steps, and the action values after them."""
    x = learner(name, source, seed, **options)
    parts: list[Moves] = []
    for moves, _ in x.moves():
        parts.append(moves)
        if sum(len(p.r) for p in parts) >= n:
            break
    return joined(parts), x.Q


def literal(name: str, x: Moves, u: Any, legal: Any, eps: float, Q: Any, step: Any = None) -> Any:
    """The book's loops (sections 6.4 to 6.7) on recorded moves, checking that each action is eps-greedy."""
    Q1, Q2, n = Q.copy(), Q.copy(), np.zeros(Q.shape)
    for t in range(len(x.r)):
        s, a, s_next = int(x.s[t]), int(x.a[t]), int(x.s_next[t])
        behaviour = (Q1 + Q2) / 2 if name == "double_q_learning" else Q1
        at, chosen = (s_next, int(x.a_next[t])) if name == "sarsa" else (s, a)
        options = np.flatnonzero(legal[at])
        assert chosen in options
        if u[t, 0] >= eps:
            assert behaviour[at, chosen] >= behaviour[at, options].max() - 1e-12
        else:
            assert chosen == options[int(u[t, 0] / eps * len(options))]
        n[s, a] += 1
        alpha = ALPHA if step is None else step(n[s, a])
        ahead = np.flatnonzero(legal[s_next])
        if name == "q_learning":
            Q1[s, a] += alpha * (x.r[t] + x.discount[t] * max(Q1[s_next, b] for b in ahead) - Q1[s, a])
        elif name == "sarsa":
            Q1[s, a] += alpha * (x.r[t] + x.discount[t] * Q1[s_next, x.a_next[t]] - Q1[s, a])
        elif name == "expected_sarsa":
            greedy = [b for b in ahead if Q1[s_next, b] == max(Q1[s_next, c] for c in ahead)]
            pi = {b: eps / len(ahead) + (1 - eps) * (b in greedy) / len(greedy) for b in ahead}
            mean = sum(pi[b] * Q1[s_next, b] for b in ahead)
            Q1[s, a] += alpha * (x.r[t] + x.discount[t] * mean - Q1[s, a])
        else:
            one, two = (Q1, Q2) if u[t, 3] < 0.5 else (Q2, Q1)
            ties = [b for b in ahead if one[s_next, b] == max(one[s_next, c] for c in ahead)]
            star = ties[int((2 * u[t, 3]) % 1 * len(ties))]
            one[s, a] += alpha * (x.r[t] + x.discount[t] * two[s_next, star] - one[s, a])
    return (Q1 + Q2) / 2 if name == "double_q_learning" else Q1


def close(x: Any, y: Any) -> bool:
    return bool(abs(x - y).max() <= 1e-12 * max(1.0, abs(y).max()))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", RUNS)
def test_replay(name: str, seed: int) -> None:
    mdp, limit = model(seed)
    x, Q = run(name, mdp, seed, limit=limit)
    u = np.random.default_rng(seed).random((STEPS, columns(name, mdp)))
    assert close(Q, literal(name, x, u, mdp.legal, 0.3, np.zeros((mdp.S, mdp.A))))


@pytest.mark.parametrize("name", RULES)
def test_replay_with_a_schedule_and_first_values(name: str) -> None:
    mdp, limit = model(3)
    first = np.where(mdp.legal, np.random.default_rng(0).normal(size=(mdp.S, mdp.A)), 0.0)
    x, Q = run(name, mdp, 3, limit=limit, alpha=prediction.harmonic, Q=first)
    u = np.random.default_rng(3).random((STEPS, columns(name, mdp)))
    assert close(Q, literal(name, x, u, mdp.legal, 0.3, first, lambda k: 1 / k))


@pytest.mark.parametrize("seed", RUNS)
def test_moves_are_moves_of_the_model(seed: int) -> None:
    """Rewards, discounts, ends and limits; an episode starts after an end, and only then."""
    mdp, limit = model(seed)
    x, Q = run("sarsa", mdp, seed, limit=limit)
    rows = np.asarray(mdp.rows.toarray() if mdp.is_sparse else mdp.rows).reshape(mdp.S, mdp.A, mdp.S)
    assert (rows[x.s, x.a, x.s_next] > 0).all()
    assert (x.r == chain.entries_of(mdp, x.s * mdp.A + x.a, x.s_next)).all()
    assert (x.discount == np.where(mdp.terminal[x.s_next], 0.0, mdp.gamma)).all()
    assert mdp.legal[x.s, x.a].all()
    assert (Q[~mdp.legal] == 0).all()
    lengths = np.diff(np.flatnonzero(np.append(True, x.last)))
    assert lengths.max() <= limit
    on = ~x.last[:-1]
    assert (x.s[1:][on] == x.s_next[:-1][on]).all()
    assert (x.a[1:][on] == x.a_next[:-1][on]).all()
    assert (mdp.mu[x.s[1:][~on]] > 0).all()
    ended = np.cumsum(np.ones(len(x.r))) - np.maximum.accumulate(
        np.append(0, np.where(x.last[:-1], np.arange(1, len(x.r)), 0))
    )
    assert (x.last == (mdp.terminal[x.s_next] | (ended == limit))).all()


def test_the_runs_hold_what_they_should() -> None:
    moves = [run("q_learning", model(seed)[0], seed, limit=model(seed)[1])[0] for seed in RUNS]
    assert any((x.s == x.s_next).any() for x in moves)
    assert any((x.discount == 0).any() for x in moves)
    assert any((x.last & (x.discount > 0)).any() for x in moves)
    assert any(not model(seed)[0].legal.all() for seed in RUNS)


def test_outcomes_and_ties_have_their_probabilities() -> None:
    """400,000 steps of the uniform policy: every transition within 6 standard errors (false alarm < 1e-6)."""
    mdp, _ = model(4)
    x, _ = run("q_learning", mdp, 9, n=400_000, eps=1.0, limit=5, every=10**6)
    P = np.asarray(mdp.rows.toarray() if mdp.is_sparse else mdp.rows).reshape(mdp.S, mdp.A, mdp.S)
    joint = uniform_policy(mdp)[:, :, None] * P
    seen = np.zeros_like(joint)
    np.add.at(seen, (x.s, x.a, x.s_next), 1)
    n = np.bincount(x.s, minlength=mdp.S)[:, None, None]
    error = np.sqrt(np.maximum(n * joint * (1 - joint), 1e-9))
    assert (abs(seen - n * joint) <= 6 * error + 1e-6).all()
    bandit = MDP(np.ones((1, 3, 1)), np.zeros((1, 3)), 0.5)
    x, _ = run("q_learning", bandit, 1, n=30_000, eps=0.0, every=10**6)
    assert (abs(np.bincount(x.a) - len(x.a) / 3) < 6 * np.sqrt(len(x.a) * 2 / 9)).all()


# ---- what the learners must converge to ----


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["q_learning", "double_q_learning"])
def test_reaches_the_optimum(name: str, seed: int) -> None:
    """One million steps of size k**-.7, all actions tried: within 5 % of the largest optimal value."""
    rng = np.random.default_rng([22, seed])
    mdp = random_mdp(rng, S=4, A=3, gamma=0.8, terminal=False)
    options: dict[str, Any] = {"alpha": prediction.power(1.0, 0.7), "eps": 0.5, "every": 10**6, "limit": 50}
    x = next(getattr(control, name)(mdp, np.random.default_rng(seed), **options))
    exact = np.where(mdp.legal, dp.solve(mdp).Q, 0.0)
    assert abs(x.Q - exact).max() < 0.05 * max(abs(exact).max(), 1e-9)


@pytest.mark.parametrize("name", ["sarsa", "expected_sarsa"])
def test_eps_one_evaluates_the_uniform_policy(name: str) -> None:
    mdp = random_mdp(np.random.default_rng(23), S=4, A=3, gamma=0.8, terminal=False)
    options: dict[str, Any] = {"alpha": prediction.power(1.0, 0.7), "eps": 1.0, "every": 10**6, "limit": 50}
    x = next(getattr(control, name)(mdp, np.random.default_rng(1), **options))
    V = chain.evaluate(chain.induce(mdp, uniform_policy(mdp)))
    exact = np.where(mdp.legal, mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A), 0.0)
    assert abs(x.Q - exact).max() < 0.05 * abs(exact).max()


def test_expected_sarsa_with_greedy_targets_is_q_learning() -> None:
    mdp, limit = model(6)
    one = run("q_learning", mdp, 6, limit=limit, eps=0.0)
    two = run("expected_sarsa", mdp, 6, limit=limit, eps=0.0)
    assert close(one[1], two[1])
    assert (one[0].a == two[0].a).all()


# ---- the textbook's figures ----


def eps_greedy(Q: Any, eps: float) -> Any:
    """Ties uniform, up to 1e-9."""
    ties = Q.max(1, keepdims=True) - Q <= 1e-9
    return eps / Q.shape[1] + (1 - eps) * ties / ties.sum(1, keepdims=True)


def episode_returns(x: Moves, n: int) -> Any:
    """Undiscounted returns of the first n episodes."""
    ends = np.flatnonzero(x.last)[:n]
    assert len(ends) == n
    return np.diff(np.append(0.0, np.cumsum(x.r)[ends]))


def test_cliff_walking() -> None:
    """Sutton & Barto, example 6.6: alpha = .5, eps = .1, episodes 101 to 500, seeds 0 to 19."""
    cliff = envs.cliff()
    best = dp.solve(cliff)
    s = int(np.argmax(cliff.mu))
    exact = chain.evaluate(chain.induce(cliff, eps_greedy(best.Q, 0.1)))[s]
    assert abs(best.V[s] + 13) < 1e-6
    assert abs(exact + 50.8) < 0.1
    gaps, means = [], []
    for seed in range(20):
        options: dict[str, Any] = {"alpha": 0.5, "eps": 0.1, "n": 40_000}
        q, sarsa = (
            episode_returns(run(name, cliff, seed, **options)[0], 500)[100:].mean() for name in ("q_learning", "sarsa")
        )
        gaps.append(sarsa - q)
        means.append((q, sarsa))
    half = 4 * np.std(gaps, ddof=1) / np.sqrt(20)
    assert np.mean(gaps) - half > 0
    assert -60 < np.mean(means, axis=0)[0] < -40
    assert -35 < np.mean(means, axis=0)[1] < -20


def maximisation_bias() -> MDP:
    """Sutton & Barto, figure 6.5: from A right ends, left leads to B, whose 10 actions pay -1.1 or .9 and end."""
    P, R = np.zeros((4, 10, 4)), np.zeros((4, 10, 4))
    legal = np.ones((4, 10), bool)
    legal[0, 2:] = False
    P[0, 0, 2], P[0, 1, 1] = 1, 1
    P[1, :, 2:] = 0.5
    R[1, :, 2], R[1, :, 3] = -1.1, 0.9
    return MDP(P, R, 1.0, terminal=[0, 0, 1, 1], legal=legal, mu=[1, 0, 0, 0])


def test_double_q_learning_reduces_the_maximisation_bias() -> None:
    """From Q* itself every drift is bias: after 300 steps, alpha = eps = .1, seeds 0 to 299, Q(A, left) = -.1
    has moved up under Q-learning, by more than 4 standard errors and by more than twice double Q-learning's drift.
    From zeros, as in the figure, Q-learning also goes left more often."""
    mdp = maximisation_bias()
    exact = dp.solve(mdp).Q
    assert abs(exact[0, 1] + 0.1) < 1e-9
    drift, left = {}, {}
    for name in ("q_learning", "double_q_learning"):
        options: dict[str, Any] = {"n": 300, "alpha": 0.1, "eps": 0.1, "every": 300}
        drift[name] = np.array([run(name, mdp, seed, Q=exact, **options)[1][0, 1] for seed in range(300)]) + 0.1
        moves = [run(name, mdp, seed, **options)[0] for seed in range(300)]
        left[name] = np.array([(x.a[x.s == 0] == 1).mean() for x in moves])
    assert drift["q_learning"].mean() > 4 * drift["q_learning"].std(ddof=1) / np.sqrt(300)
    assert drift["q_learning"].mean() > 2 * abs(drift["double_q_learning"].mean())
    gap = left["q_learning"] - left["double_q_learning"]
    assert gap.mean() > 4 * gap.std(ddof=1) / np.sqrt(300)


# ---- gymnasium ----


class Recorded:
    """A generator that remembers the uniform numbers of each step."""

    def __init__(self, seed: int) -> None:
        self.rng, self.drawn = np.random.default_rng(seed), list[Any]()

    def integers(self, *args: Any) -> Any:
        return self.rng.integers(*args)

    def random(self, n: int | None = None) -> Any:
        u = self.rng.random(n)
        if n is not None:
            self.drawn.append(u)
        return u


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("world", ["Taxi-v4", "Blackjack-v1"])
def test_gymnasium(name: str, world: str) -> None:
    """The plain loop is the same learner: the replay of what it did gives its values."""
    import gymnasium

    with gymnasium.make(world) as env:
        x, rng = learner(name, env, 5, gamma=0.9, eps=1.0, every=1, limit=30), Recorded(5)
        x.rng = rng  # type: ignore[assignment]
        moves = joined([m for m, _ in islice(x.moves(), 300)])
        assert x.Q.shape == {"Taxi-v4": (500, 6), "Blackjack-v1": (704, 2)}[world]
        assert x.Q.any()
        u = np.full((300, 4), np.nan)
        u[:, 3] = np.array(rng.drawn)[:300, -1]  # the coin of double Q-learning
        assert close(x.Q, replayed(name, moves, u, x.legal))


def replayed(name: str, x: Moves, u: Any, legal: Any) -> Any:
    """Replay without a check of the actions (the uniform numbers are not known)."""
    options = np.cumsum(legal, 1) - 1
    at, a = (x.s_next, x.a_next) if name == "sarsa" else (x.s, x.a)
    u[:, 0] = (options[at, a] + 0.5) / legal[at].sum(1)
    return literal(name, x, u, legal, 1.0, np.zeros(legal.shape))


def test_gymnasium_respects_action_masks_and_cuts() -> None:
    mdp = next(m for m, _ in map(model, RUNS) if not m.legal.all() and m.terminal.any())
    env = envs.TabularEnv(mdp)
    for name in RULES:
        x = learner(name, env, 1, gamma=mdp.gamma, limit=4)
        moves = joined([m for m, _ in islice(x.moves(), 400)])
        assert mdp.legal[moves.s, moves.a].all()
        assert (moves.discount == np.where(mdp.terminal[moves.s_next], 0.0, mdp.gamma)).all()


# ---- bits, and bad input ----


@pytest.mark.parametrize("name", RULES)
def test_every_and_blocks_do_not_change_the_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, limit = model(8)
    finals = set()
    for block in (1, 13, 4096):
        monkeypatch.setattr(acting, "BLOCK", block)
        for every in (1, 5, 40, 1000):
            records = getattr(control, name)(
                mdp, np.random.default_rng(2), alpha=0.2, eps=0.2, limit=limit, every=every
            )
            final: ActionUpdate = next(islice(records, 1000 // every - 1, None))
            assert final.t == 1000
            finals.add((final.Q.tobytes(), final.delta))
    assert len(finals) == 1


def test_records_own_their_values() -> None:
    mdp, limit = model(8)
    first = np.zeros((mdp.S, mdp.A))
    a, b = islice(control.q_learning(mdp, np.random.default_rng(0), alpha=0.5, limit=limit, Q=first, every=50), 2)
    assert not first.any()
    assert (a.t, b.t) == (50, 100)
    assert a.Q.tobytes() != b.Q.tobytes()


SCRIPT = """
import numpy as np
from tabrl import control, envs
for world, limit in ((envs.cliff(), 50), (envs.frozen_lake(gamma=0.9), 30)):
    for learner in (control.q_learning, control.sarsa, control.expected_sarsa, control.double_q_learning):
        x = next(learner(world, np.random.default_rng(7), alpha=0.1, eps=0.1, limit=limit, every=3000))
        print(x.t, x.delta.hex(), x.Q.tobytes().hex())
"""


def test_same_bits_with_and_without_numba() -> None:
    outputs = plain_and_compiled(SCRIPT)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 8


def test_bad_input_is_named() -> None:
    import gymnasium

    mdp, _ = model(8)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"alpha is 1.5; a step size in \(0, 1\], or a schedule"):
        control.q_learning(mdp, rng, alpha=1.5)
    with pytest.raises(ValueError, match=r"eps is 2; a number in \[0, 1\] is expected"):
        control.sarsa(mdp, rng, alpha=0.5, eps=2)
    with pytest.raises(ValueError, match="every is 0; a record after every 1 or more steps"):
        control.sarsa(mdp, rng, alpha=0.5, every=0)
    with pytest.raises(ValueError, match="limit is 0; at least one step per episode"):
        control.sarsa(mdp, rng, alpha=0.5, limit=0)
    with pytest.raises(ValueError, match=r"Q has shape \(1, 1\); "):
        control.sarsa(mdp, rng, alpha=0.5, Q=np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"gamma is 0\.123; the model's own"):
        control.sarsa(mdp, rng, alpha=0.5, gamma=0.123)
    with pytest.raises(ValueError, match=r"mu\[1\] is 0.5; 0 is expected"):
        ends = MDP([[[0, 1]], [[0, 1]]], [1, 0], 0.5, terminal=[0, 1], mu=[0.5, 0.5])
        next(control.sarsa(ends, rng, alpha=0.5))
    with gymnasium.make("FrozenLake-v1") as env, pytest.raises(ValueError, match="gamma is None; a gymnasium"):
        control.q_learning(env, rng, alpha=0.5)
    with gymnasium.make("CartPole-v1") as env, pytest.raises(ValueError, match="observation_space is Box"):
        control.q_learning(env, rng, alpha=0.5, gamma=1.0)
