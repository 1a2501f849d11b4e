"""Prediction: every learner against a literal loop on recorded traces, identities, and published curves."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from models import random_mdp, random_policy

from tabrl import chain, envs, operators, prediction, sample
from tabrl.batch import batch_mc, batch_td, lstd
from tabrl.prediction import lambda_return, monte_carlo, n_step_td, td0, td_lambda, true_online_td
from tabrl.replay import n_step_transitions, side_by_side
from tabrl.returns import discounted_sum, lambda_returns, n_step_returns, td_errors
from tabrl.trace import last
from tabrl.types import Episode, Transitions

TRACES = range(24)
ALPHA = 0.3


def trace(seed: int) -> tuple[list[Episode], Any]:
    """Recorded episodes of a random cyclic model (self-loops, terminal states, time limits), and a start V."""
    rng = np.random.default_rng([20, seed])
    mdp = random_mdp(rng, S=int(rng.integers(2, 7)), gamma=float(rng.choice([0.8, 0.95, 1.0])), proper=True)
    pi = random_policy(rng, mdp)
    mu = np.where(mdp.terminal, 0.0, 1.0)
    mdp = type(mdp)(mdp.P, mdp.R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal, legal=mdp.legal)
    source = sample.episodes(mdp, pi, rng, limit=int(rng.integers(1, 15)))
    V = np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S))
    return [next(source) for _ in range(12)], V


def close(x: Any, y: Any) -> bool:
    return bool(abs(np.asarray(x) - np.asarray(y)).max() <= 1e-12 * max(1.0, abs(np.asarray(y)).max()))


def test_the_traces_hold_what_they_should() -> None:
    episodes = [x for seed in TRACES for x in trace(seed)[0]]
    assert any((x.s[1:] == x.s[:-1]).any() for x in episodes)
    assert any(x.discount[-1] == 0 for x in episodes)
    assert any(x.discount[-1] > 0 for x in episodes)
    assert any(len(set(x.s[:-1].tolist())) < len(x.r) for x in episodes)


# ---- literal loops ----


def literal_td0(episodes: list[Episode], V: Any) -> Any:
    V = V.copy()
    for x in episodes:
        for t in range(len(x.r)):
            V[x.s[t]] = V[x.s[t]] + ALPHA * (x.r[t] + x.discount[t] * V[x.s[t + 1]] - V[x.s[t]])
    return V


def literal_n_step(episodes: list[Episode], V: Any, n: int) -> Any:
    """The box on page 144 of Sutton & Barto, with a cut episode ending in the value of its last state."""
    V = V.copy()
    for x in episodes:
        T = len(x.r)
        for t in range(T + n):
            tau = t - n + 1
            if tau < 0 or tau >= T:
                continue
            h = min(tau + n, T)
            G, weight = 0.0, 1.0
            for i in range(tau, h):
                G += weight * x.r[i]
                weight *= x.discount[i]
            G += weight * V[x.s[h]]
            V[x.s[tau]] += ALPHA * (G - V[x.s[tau]])
    return V


def literal_td_lambda(episodes: list[Episode], V: Any, lam: float, kind: str) -> Any:
    V = V.copy()
    for x in episodes:
        z, decay = np.zeros(len(V)), 0.0
        for t in range(len(x.r)):
            z = decay * z
            old = z[x.s[t]]
            z[x.s[t]] = {"accumulating": old + 1, "replacing": 1.0, "dutch": old + 1 - ALPHA * old}[kind]
            delta = x.r[t] + x.discount[t] * V[x.s[t + 1]] - V[x.s[t]]
            V = V + ALPHA * delta * z
            decay = x.discount[t] * lam
    return V


def literal_online_lambda_return(episodes: list[Episode], V: Any, lam: float) -> Any:
    """Redo all updates of the episode at every horizon h, with returns cut at h (Sutton & Barto, eq. 12.10)."""
    V = V.copy()
    for x in episodes:
        T = len(x.r)
        history = [V.copy()]  # V as it was after each horizon, for the bootstrap at s[k]
        for h in range(1, T + 1):
            W = V.copy()
            for t in range(h):
                G, weight, share, total = 0.0, 1.0, 1.0, 0.0
                for i in range(t, h):
                    G += weight * x.r[i]
                    weight *= x.discount[i]
                    n_step = G + weight * history[i][x.s[i + 1]]
                    total += (share * (1 - lam) if i < h - 1 else share) * n_step
                    share *= lam
                W[x.s[t]] += ALPHA * (total - W[x.s[t]])
            history.append(W)
        V = history[-1]
    return V


def literal_monte_carlo(episodes: list[Episode], V: Any, visit: str, average: bool) -> Any:
    V, n = V.copy(), np.zeros(len(V))
    for x in episodes:
        tail = V[x.s[-1]]
        G: list[float] = []
        for t in reversed(range(len(x.r))):
            tail = x.r[t] + x.discount[t] * tail
            G.insert(0, tail)
        for t in range(len(x.r)):
            s = x.s[t]
            if visit == "every" or s not in x.s[:t].tolist():
                n[s] += 1
                V[s] += (1 / n[s] if average else ALPHA) * (G[t] - V[s])
    return V


def literal_lambda_return(episodes: list[Episode], V: Any, lam: float) -> Any:
    V = V.copy()
    for x in episodes:
        T = len(x.r)
        target = []
        for t in range(T):
            total, share, G, weight = 0.0, 1.0, 0.0, 1.0
            for i in range(t, T):
                G += weight * x.r[i]
                weight *= x.discount[i]
                total += (share * (1 - lam) if i < T - 1 else share) * (G + weight * V[x.s[i + 1]])
                share *= lam
            target.append(total)
        for t in range(T):
            V[x.s[t]] += ALPHA * (target[t] - V[x.s[t]])
    return V


@pytest.mark.parametrize("seed", TRACES)
def test_replay_td0(seed: int) -> None:
    episodes, V = trace(seed)
    assert close(last(td0(episodes, alpha=ALPHA, V=V)).V, literal_td0(episodes, V))


@pytest.mark.parametrize("n", [1, 2, 4, 20])
@pytest.mark.parametrize("seed", TRACES)
def test_replay_n_step(seed: int, n: int) -> None:
    episodes, V = trace(seed)
    assert close(last(n_step_td(episodes, alpha=ALPHA, V=V, n=n)).V, literal_n_step(episodes, V, n))


@pytest.mark.parametrize("kind", ["accumulating", "replacing", "dutch"])
@pytest.mark.parametrize("seed", TRACES)
def test_replay_td_lambda(seed: int, kind: str) -> None:
    episodes, V = trace(seed)
    for lam in (0.0, 0.7, 1.0):
        x = last(td_lambda(episodes, alpha=ALPHA, V=V, lam=lam, trace=kind))
        assert close(x.V, literal_td_lambda(episodes, V, lam, kind))


@pytest.mark.parametrize("seed", TRACES)
def test_true_online_td_is_the_online_lambda_return(seed: int) -> None:
    episodes, V = trace(seed)
    for lam in (0.0, 0.6, 1.0):
        x = last(true_online_td(episodes, alpha=ALPHA, V=V, lam=lam))
        assert close(x.V, literal_online_lambda_return(episodes, V, lam))


@pytest.mark.parametrize("visit", ["first", "every"])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("seed", TRACES)
def test_replay_monte_carlo(seed: int, visit: str, average: bool) -> None:
    episodes, V = trace(seed)
    alpha = prediction.harmonic if average else ALPHA
    x = last(monte_carlo(episodes, alpha=alpha, V=V, visit=visit))
    assert close(x.V, literal_monte_carlo(episodes, V, visit, average))


@pytest.mark.parametrize("seed", TRACES)
def test_replay_lambda_return(seed: int) -> None:
    episodes, V = trace(seed)
    for lam in (0.0, 0.4, 1.0):
        assert close(
            last(lambda_return(episodes, alpha=ALPHA, V=V, lam=lam)).V, literal_lambda_return(episodes, V, lam)
        )


# ---- identities ----


@pytest.mark.parametrize("seed", TRACES)
def test_limits_are_each_other(seed: int) -> None:
    episodes, V = trace(seed)
    td = last(td0(episodes, alpha=ALPHA, V=V)).V
    assert close(last(n_step_td(episodes, alpha=ALPHA, V=V, n=1)).V, td)
    assert close(last(td_lambda(episodes, alpha=ALPHA, V=V, lam=0.0)).V, td)
    assert close(last(true_online_td(episodes, alpha=ALPHA, V=V, lam=0.0)).V, td)
    mc = last(monte_carlo(episodes, alpha=ALPHA, V=V)).V
    assert close(last(lambda_return(episodes, alpha=ALPHA, V=V, lam=1.0)).V, mc)


@pytest.mark.parametrize("seed", TRACES)
def test_forward_view_is_backward_view_offline(seed: int) -> None:
    """Sum of lambda-return errors = sum of TD errors times accumulating traces, V held fixed."""
    episodes, V = trace(seed)
    for x in episodes:
        forward, backward, z, decay = np.zeros(len(V)), np.zeros(len(V)), np.zeros(len(V)), 0.0
        np.add.at(forward, x.s[:-1], lambda_returns(x.r, x.discount, V[x.s], 0.8) - V[x.s[:-1]])
        for t in range(len(x.r)):
            z = z * decay
            z[x.s[t]] += 1
            backward += z * (x.r[t] + x.discount[t] * V[x.s[t + 1]] - V[x.s[t]])
            decay = 0.8 * x.discount[t]
        assert close(forward, backward)


@pytest.mark.parametrize("seed", TRACES)
def test_return_functions_agree(seed: int) -> None:
    for x in trace(seed)[0]:
        v = np.linspace(-1, 2, len(x.s))
        T = len(x.r)
        assert close(n_step_returns(x.r, x.discount, v, 1), lambda_returns(x.r, x.discount, v, 0.0))
        monte = discounted_sum(x.r, x.discount, v[-1])
        assert close(n_step_returns(x.r, x.discount, v, T), monte)
        assert close(lambda_returns(x.r, x.discount, v, 1.0), monte)
        lam = 0.6
        weights = [lam ** (n - 1) * (1 - lam) if n < T else lam ** (T - 1) for n in range(1, T + 1)]
        assert abs(sum(weights) - 1) < 1e-12
        mixed = sum(w * n_step_returns(x.r, x.discount, v, n)[0] for n, w in enumerate(weights, 1))
        assert close(lambda_returns(x.r, x.discount, v, lam)[0], mixed)


@pytest.mark.parametrize("every", [1, 2, 7, 1000])
def test_every_and_blocks_do_not_change_the_values(every: int) -> None:
    walk = envs.random_walk(5)
    pi = np.ones((walk.S, 1))
    finals = []
    for block in (1, 13, 64):
        for learner, extra in (
            (td0, {}),
            (n_step_td, {"n": 3}),
            (td_lambda, {"lam": 0.5}),
            (true_online_td, {"lam": 0.5}),
        ):
            stream = sample.Stream(walk, pi, np.random.default_rng(3), block=block)
            for x in learner(stream, alpha=0.1, V=np.zeros(walk.S), every=every, **extra):
                if x.t == 1000:
                    finals.append((learner.__name__, x.V.tobytes()))
                if x.t >= 1000:
                    break
    if 1000 % every == 0:
        assert len(set(finals)) == 4
        assert len(finals) == 12


def test_compiled_and_plain_kernels_give_the_same_bits() -> None:
    from tabrl import learning_kernels

    episodes, V = trace(0)
    x = sample.join([sample.from_episode(e) for e in episodes])
    to, R, D = np.empty_like(x.s_next), np.empty_like(x.r), np.empty_like(x.r)
    G, seen = np.empty_like(x.r), np.empty(len(V), np.int64)
    sums, moved = [], []
    for compiled in (True, False):
        fill, move = learning_kernels.n_step_sums, learning_kernels.lambda_return_pass
        fill, move = (fill, move) if compiled else (fill.py_func, move.py_func)  # type: ignore[attr-defined]
        sums.append((fill(*x[1:], 3, to, R, D), to.tobytes(), R.tobytes(), D.tobytes()))
        W = V.copy()
        move(W, *x, 0.7, False, np.array([0.1, 0.05]), np.zeros(len(V), np.int64), G, seen)
        moved.append(W.tobytes())
    assert sums[0] == sums[1]
    assert moved[0] == moved[1]
    for name, extra in (("td_lambda_pass", (0.7, 2)), ("true_online_pass", (0.7,)), ("td0_pass", ())):
        results = []
        for function in (getattr(learning_kernels, name), getattr(learning_kernels, name).py_func):
            W, z, old = V.copy(), np.zeros(len(V)), np.zeros(1)
            state = {"td0_pass": (W,), "td_lambda_pass": (W, z, len(V)), "true_online_pass": (W, z, old, len(V))}[name]
            inputs = (x.s, x.s_next, x.r, x.discount) + (() if name == "td0_pass" else (x.last,))
            function(*state, *inputs, *extra, np.array([0.1, 0.05]), np.zeros(len(V), np.int64))
            results.append(W.tobytes())
        assert results[0] == results[1]


# ---- batch methods and what they must converge to ----


@pytest.mark.parametrize("seed", TRACES)
def test_lstd_zero_is_certainty_equivalence_and_one_is_the_average_return(seed: int) -> None:
    episodes, V = trace(seed)
    S = len(V)
    ended = [x for x in episodes if x.discount[-1] == 0]
    if not ended:
        return
    counts, total, n = np.zeros((S, S)), np.zeros(S), np.zeros(S)
    returns = np.zeros(S)
    for x in ended:
        for t in range(len(x.r)):
            counts[x.s[t], x.s[t + 1]] += x.discount[t]
            total[x.s[t]] += x.r[t]
            n[x.s[t]] += 1
        np.add.at(returns, x.s[:-1], discounted_sum(x.r, x.discount))
    seen = n > 0
    P = counts[np.ix_(seen, seen)] / n[seen, None]
    certain = np.linalg.solve(np.eye(seen.sum()) - P, total[seen] / n[seen])
    assert np.allclose(lstd(ended, S=S)[seen], certain, rtol=1e-9, atol=1e-9 * abs(certain).max())
    assert np.allclose(lstd(ended, S=S, lam=1.0)[seen], returns[seen] / n[seen], rtol=1e-9, atol=1e-9)
    assert np.isnan(lstd(ended, S=S)[~seen]).all()


# ---- many runs at once ----

LEARNERS: list[tuple[Any, dict[str, Any]]] = [
    (td0, {}),
    (n_step_td, {"n": 3}),
    (td_lambda, {"lam": 0.7, "trace": "dutch"}),
    (true_online_td, {"lam": 0.7}),
    (monte_carlo, {"visit": "first"}),
    (monte_carlo, {"visit": "every"}),
    (lambda_return, {"lam": 0.4}),
]


@pytest.mark.parametrize(("learner", "extra"), LEARNERS)
@pytest.mark.parametrize("seed", TRACES)
def test_runs_side_by_side_are_the_runs_alone(learner: Any, extra: dict[str, Any], seed: int) -> None:
    """Bit for bit, with a step size that depends on the visits of each run."""
    episodes, V = trace(seed)
    runs = [episodes[0:4], episodes[4:8], episodes[8:12]]
    start = np.stack([V, 2 * V, V - V])
    options: dict[str, Any] = {"alpha": prediction.power(0.5, 0.6), **extra}
    together = list(learner(side_by_side(runs, len(V)), V=start, **options))
    assert [x.t for x in together] == np.cumsum([sum(len(run[k].r) for run in runs) for k in range(4)]).tolist()
    for i, run in enumerate(runs):
        for k in range(4):
            alone = last(learner(run[: k + 1], V=start[i], every=10**6, **options)).V
            assert together[k].V[i].tobytes() == alone.tobytes()


def test_streams_side_by_side_are_the_streams_alone() -> None:
    walk = envs.random_walk(5)
    pi = np.ones((walk.S, 1))

    def streams() -> list[Any]:
        return [sample.Stream(walk, pi, rng, block=50) for rng in np.random.default_rng(3).spawn(4)]

    for learner, extra in ((td0, {}), (td_lambda, {"lam": 0.5}), (true_online_td, {"lam": 0.5})):
        rounds = learner(side_by_side(streams(), walk.S), alpha=0.1, V=np.zeros((4, walk.S)), every=2, **extra)
        together = next(rounds)
        assert together.t == 400
        for i, stream in enumerate(streams()):
            alone = next(learner(stream, alpha=0.1, V=np.zeros(walk.S), every=100, **extra))
            assert together.V[i].tobytes() == alone.V.tobytes()
    with pytest.raises(ValueError, match=r"last\[199\] is False; a round of whole episodes"):
        next(islice(n_step_td(side_by_side(streams(), walk.S), alpha=0.1, V=np.zeros((4, walk.S)), n=2), 1, None))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
def test_n_step_transitions_of_a_stream_do_not_depend_on_its_blocks(n: int) -> None:
    """Cut into blocks of any length, the same bits; and every window is the sum of its rewards."""
    rng = np.random.default_rng(n)
    T = 400
    s = rng.integers(0, 9, T + 1)
    ends = rng.random(T) < 0.06
    ends[-1] = True
    x = Transitions(s[:-1], s[1:], rng.normal(size=T), np.where(ends & (rng.random(T) < 0.5), 0.0, 0.9), ends)
    found = []
    for block in (1, 5, 64, T):
        parts = [sample.cut(x, i, min(i + block, T)) for i in range(0, T, block)]
        y = sample.join(list(n_step_transitions(parts, n)))
        found.append(tuple(column.tobytes() for column in y))
    assert len(set(found)) == 1
    for t in range(T):
        h = t + int(np.argmax(ends[t:]))
        stop = min(t + n - 1, h)
        assert abs(y.r[t] - sum(0.9 ** (k - t) * x.r[k] for k in range(t, stop + 1))) < 1e-12
        assert abs(y.discount[t] - np.prod(x.discount[t : stop + 1])) < 1e-12
        assert y.s_next[t] == x.s_next[stop]


@pytest.mark.parametrize("seed", TRACES)
def test_batch_learners_reach_their_closed_forms(seed: int) -> None:
    """Batch TD is certainty equivalence, batch Monte Carlo the average return; from the same ended episodes."""
    episodes, V = trace(seed)
    ended = [x for x in episodes if x.discount[-1] == 0]
    if not ended:
        return
    visits = np.bincount(np.concatenate([x.s[:-1] for x in ended]), minlength=len(V))
    tuples = [(x.s, x.r, x.discount) for x in ended]
    for learner, exact in ((batch_td, operators.batch_td), (batch_mc, operators.batch_mc)):
        sweeps = learner(ended, alpha=0.9 / visits.max(), V=V)
        x = next(x for x in sweeps if x.delta < 1e-13)
        assert np.allclose(x.V, exact(tuples, len(V), V).V, rtol=1e-8, atol=1e-8)


def test_a_sweep_of_a_batch_is_the_sum_of_its_increments() -> None:
    for seed in TRACES:
        episodes, V = trace(seed)
        increments = {batch_td: np.zeros(len(V)), batch_mc: np.zeros(len(V))}
        for x in episodes:
            np.add.at(increments[batch_td], x.s[:-1], td_errors(x.r, x.discount, V[x.s]))
            np.add.at(increments[batch_mc], x.s[:-1], discounted_sum(x.r, x.discount, V[x.s[-1]]) - V[x.s[:-1]])
        for learner, change in increments.items():
            assert close(next(learner(episodes, alpha=0.01, V=V)).V, V + 0.01 * change)


def test_learners_reach_the_exact_values() -> None:
    """With Robbins-Monro steps every learner comes within 5 standard errors of the truth, or .02."""
    walk = envs.random_walk(5)
    pi = np.ones((walk.S, 1))
    exact = chain.evaluate(chain.induce(walk, pi))
    source = sample.episodes(walk, pi, np.random.default_rng(4))
    episodes = [next(source) for _ in range(4000)]
    slow = prediction.power(1.0, 0.8)
    learned = [
        last(monte_carlo(episodes, V=np.zeros(walk.S), every=4000)),
        last(td0(episodes, alpha=slow, V=np.zeros(walk.S), every=10**6)),
        last(n_step_td(episodes, alpha=slow, V=np.zeros(walk.S), n=4, every=10**6)),
        last(td_lambda(episodes, alpha=slow, V=np.zeros(walk.S), lam=0.5, every=10**6)),
        last(true_online_td(episodes, alpha=slow, V=np.zeros(walk.S), lam=0.5, every=10**6)),
    ]
    for x in learned:
        assert abs(x.V - exact).max() < 0.05


def test_monte_carlo_average_has_the_standard_error_of_the_return_variance() -> None:
    """n = 20,000 first visits of one start state; |z| < 5.5 has a false alarm below 1e-7."""
    walk = envs.random_walk(5)
    pi = np.ones((walk.S, 1))
    V = chain.evaluate(chain.induce(walk, pi))
    variance = chain.return_variance(walk, pi)
    source = sample.episodes(walk, pi, np.random.default_rng(5))
    episodes = [next(source) for _ in range(20_000)]
    x = last(monte_carlo(episodes, V=np.zeros(walk.S), visit="first", every=20_000))
    s = int(np.argmax(walk.mu))
    assert abs(x.V[s] - V[s]) / np.sqrt(variance[s] / 20_000) < 5.5


def test_bad_input_is_named() -> None:
    episodes, V = trace(1)
    with pytest.raises(ValueError, match=r"alpha is 1.5; a step size in \(0, 1\], or a schedule"):
        next(td0(episodes, alpha=1.5, V=V))
    with pytest.raises(ValueError, match=r"lam is 2; a number in \[0, 1\]"):
        next(td_lambda(episodes, alpha=0.1, V=V, lam=2))
    with pytest.raises(ValueError, match="trace is 'fading'; one of accumulating, replacing, dutch"):
        next(td_lambda(episodes, alpha=0.1, V=V, lam=0.5, trace="fading"))
    with pytest.raises(ValueError, match="n is 0; 1 or more steps"):
        next(n_step_td(episodes, alpha=0.1, V=V, n=0))
    with pytest.raises(ValueError, match=r"a state below 1, the length of V"):
        one = Episode(np.array([0, 1]), np.zeros(1, np.int64), np.ones(1), np.ones(1), np.zeros(1))
        next(td0([one], alpha=0.1, V=np.zeros(1)))
    with pytest.raises(ValueError, match="every is 0"):
        next(td0(episodes, alpha=0.1, V=V, every=0))
    with pytest.raises(ValueError, match="visit is 'last'; 'first' or 'every'"):
        next(monte_carlo(episodes, V=V, visit="last"))
    with pytest.raises(ValueError, match="3 states, 1 rewards"):
        next(td0([Episode(*np.zeros((5, 3)))._replace(r=np.zeros(1))], alpha=0.1, V=V))
