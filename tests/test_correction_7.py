"""Correction 7: ends and time limits; judged by literal sums, a clock in the state, and samples.

A learner settles where its mean update is zero in every state. The mean update at the exact limit is a mean over
independent episodes, so a z-test needs no learner that has nearly converged: |z| <= 6.8, see `paths`.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
from models import random_mdp, random_policy
from paths import agree

from tabrl import MDP, chain, envs, sample
from tabrl.lessons import correction_7 as lesson
from tabrl.prediction import lstd
from tabrl.returns import discounted_sum, lambda_returns, n_step_returns, td_errors
from tabrl.types import Episode, F

EPISODES = 10_000
LIMITS = (1, 2, 5, 9)


def proper(seed: int) -> tuple[MDP, Any]:
    """A cyclic model in which every policy ends, started in all non-terminal states, and a policy."""
    rng = np.random.default_rng([70, seed])
    mdp = random_mdp(rng, S=4, A=3, gamma=(0.9, 1.0)[seed % 2], proper=True, masked=True, rewards="sas", sparse=False)
    mu = np.where(mdp.terminal, 0.0, 1.0)
    mdp = MDP(mdp.P, mdp.R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal, legal=mdp.legal)
    return mdp, random_policy(rng, mdp)


def drawn(seed: int, n: int, limit: int | None = None) -> tuple[MDP, Any, list[Episode]]:
    mdp, pi = proper(seed)
    return mdp, pi, list(islice(sample.episodes(mdp, pi, np.random.default_rng([71, seed]), limit=limit), n))


def updates(episodes: list[Episode], V: Any, targets: Callable[[Episode], F]) -> Any:
    """Sum of (target - V) over the visits of each state, one row per episode: (n,S)."""
    rows = np.zeros((len(episodes), len(V)))
    for row, x in zip(rows, episodes, strict=True):
        np.add.at(row, x.s[:-1], targets(x) - V[x.s[:-1]])
    return rows


def finished(x: Episode) -> Episode:
    """The mistake on an `Episode`: discount 0 after the last step."""
    return x._replace(discount=np.append(x.discount[:-1], 0.0))


def clocked(mdp: MDP, pi: Any, limit: int) -> Any:
    """Stationary updates of TD(0) in the chain of (state, steps so far), its last layer leading nowhere: (S,) values.

    Solves for the V(s) that all copies of a state share, weighted by how often each copy is visited.
    """
    induced = chain.induce(mdp, pi)
    A, b = np.zeros((mdp.S, mdp.S)), np.zeros(mdp.S)
    d = np.where(mdp.terminal, 0.0, mdp.mu)
    for k in range(limit):
        for s in range(mdp.S):
            A[s, s] += d[s]
            b[s] += d[s] * induced.r[s]
            for y in np.flatnonzero(~mdp.terminal):
                A[s, y] -= d[s] * (mdp.gamma * induced.P[s, y] if k < limit - 1 else 0.0)
        d = np.where(mdp.terminal, 0.0, d @ induced.P)
    live = np.flatnonzero(~mdp.terminal)
    V = np.zeros(mdp.S)
    V[live] = np.linalg.solve(A[np.ix_(live, live)], b[live])
    return V


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("seed", range(10))
def test_td_with_an_end_at_the_limit_by_a_clock(seed: int, limit: int) -> None:
    mdp, pi = proper(seed)
    V = lesson.ended_td(chain.induce(mdp, pi), mdp.mu, limit)
    assert np.allclose(V, clocked(mdp, pi, limit), rtol=1e-10, atol=1e-10 * mdp.R_max)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("seed", range(2))
def test_mean_updates_vanish_at_the_exact_limits(seed: int, limit: int) -> None:
    """Wrong rule: at `ended_td` and `ended_mc`. Right rule: at V_pi."""
    mdp, pi, episodes = drawn(seed, EPISODES, limit)
    induced = chain.induce(mdp, pi)
    V = lesson.ended_td(induced, mdp.mu, limit)
    agree(updates([finished(x) for x in episodes], V, lambda x: x.r + x.discount * V[x.s[1:]]), 0.0)
    V = lesson.ended_mc(induced, mdp.mu, limit)
    agree(updates([finished(x) for x in episodes], V, lambda x: discounted_sum(x.r, x.discount)), 0.0)
    V = chain.evaluate(induced)
    agree(updates(episodes, V, lambda x: x.r + x.discount * V[x.s[1:]]), 0.0)
    agree(updates(episodes, V, lambda x: discounted_sum(x.r, x.discount, float(V[x.s[-1]]))), 0.0)


def test_the_same_judge_sees_both_mistakes_on_the_machine() -> None:
    """At V_pi the mean updates of the wrong rules are far from zero: the judge above can fail."""
    mdp = lesson.world()
    V = chain.evaluate(chain.induce(mdp, lesson.only(mdp)))
    cut = list(islice(sample.episodes(mdp, lesson.only(mdp), np.random.default_rng(74), limit=20), EPISODES))
    whole = list(islice(sample.episodes(mdp, lesson.only(mdp), np.random.default_rng(75)), EPISODES))
    wrong = (
        updates([finished(x) for x in cut], V, lambda x: x.r + x.discount * V[x.s[1:]]),
        updates([finished(x) for x in cut], V, lambda x: discounted_sum(x.r, x.discount)),
        updates(whole, V, lambda x: lesson.cut_returns(x.r, x.discount, V[x.s], 0.9)),
    )
    for y in wrong:
        with pytest.raises(AssertionError, match="z = "):
            agree(y, 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_a_limit_of_one_leaves_the_reward_and_a_long_one_does_no_harm(seed: int) -> None:
    mdp, pi = proper(seed)
    induced = chain.induce(mdp, pi)
    V = chain.evaluate(induced)
    for f in (lesson.ended_td, lesson.ended_mc):
        assert np.allclose(f(induced, mdp.mu, 1), induced.r, rtol=1e-13, atol=1e-13 * mdp.R_max)
        assert np.allclose(f(induced, mdp.mu, 1000), V, rtol=1e-9, atol=1e-9 * abs(V).max())
        far = [abs(f(induced, mdp.mu, L) - V).max() for L in (50, 100, 200)]
        rounding = 1e-12 * abs(V).max()
        assert far[0] + rounding >= far[1] and far[1] + rounding >= far[2]


def test_states_that_are_not_reached_have_no_value() -> None:
    mdp = lesson.world()
    induced = chain.induce(mdp, lesson.only(mdp))
    for f in (lesson.ended_td, lesson.ended_mc):
        assert np.isnan(f(induced, mdp.mu, 1)[1])
        assert f(induced, mdp.mu, 1)[[0, 2]].tolist() == [2.0, 0.0]


def test_the_altered_steps_are_those_that_end_a_fragment() -> None:
    mdp = lesson.world()
    x, _ = sample.Stream(mdp, lesson.only(mdp), np.random.default_rng(72), limit=4).draw(1000)
    y = lesson.ended(x)
    cut = x.last & (x.discount > 0)
    assert cut.any()
    assert not y.discount[cut].any()
    assert np.array_equal(np.delete(y.discount, np.flatnonzero(cut)), np.delete(x.discount, np.flatnonzero(cut)))
    assert x.discount[cut].tolist() == [0.95] * cut.sum()  # the record itself keeps gamma


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.9, 1.0])
def test_weights(lam: float) -> None:
    for T in range(1, 12):
        assert lesson.weights(T, lam).sum() == pytest.approx(1, abs=1e-15)
        assert lesson.cut_weights(T, lam).sum() == pytest.approx(1 - lam**T, abs=1e-15)
        assert np.array_equal(lesson.weights(T, lam)[:-1], lesson.cut_weights(T, lam)[:-1])


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_both_sums_are_weighted_n_step_returns(seed: int, lam: float) -> None:
    """Recorded episodes, ended or cut: literal sums over n, and lambda-return = cut sum + lam^(T-t) G."""
    mdp, _, episodes = drawn(seed, 5, limit=7)
    V = np.where(mdp.terminal, 0.0, np.random.default_rng(seed).normal(size=mdp.S))
    for x in episodes:
        T, v, size = len(x.r), V[x.s], 1e-12 * (1 + mdp.R_max * len(x.r))
        right, wrong = lambda_returns(x.r, x.discount, v, lam), lesson.cut_returns(x.r, x.discount, v, lam)
        G = np.array([n_step_returns(x.r, x.discount, v, n) for n in range(1, T + 1)])  # [n-1, t]
        for t in range(T):
            assert right[t] == pytest.approx(lesson.weights(T - t, lam) @ G[: T - t, t], abs=size)
            assert wrong[t] == pytest.approx(lesson.cut_weights(T - t, lam) @ G[: T - t, t], abs=size)
        lost = lam ** np.arange(T, 0.0, -1) * discounted_sum(x.r, x.discount, float(v[-1]))
        assert np.allclose(right, wrong + lost, rtol=0, atol=size)


def test_the_sum_of_td_errors_may_be_cut() -> None:
    mdp, _, episodes = drawn(1, 20, limit=7)
    V = np.where(mdp.terminal, 0.0, 1.0)
    for x in episodes:
        delta, right = td_errors(x.r, x.discount, V[x.s]), lambda_returns(x.r, x.discount, V[x.s], 0.8)
        for t in range(len(x.r)):
            total = sum((0.8 * mdp.gamma) ** (k - t) * delta[k] for k in range(t, len(x.r)))
            assert right[t] == pytest.approx(V[x.s[t]] + total, abs=1e-12 * (1 + mdp.R_max))


@pytest.mark.parametrize("lam", [0.3, 0.9])
@pytest.mark.parametrize("seed", range(2))
def test_mean_updates_of_both_sums_vanish_at_their_limits(seed: int, lam: float) -> None:
    mdp, pi, episodes = drawn(seed, EPISODES)
    V = lesson.cut_limit(mdp, pi, lam)
    agree(updates(episodes, V, lambda x: lesson.cut_returns(x.r, x.discount, V[x.s], lam)), 0.0)
    V = chain.evaluate(chain.induce(mdp, pi))
    agree(updates(episodes, V, lambda x: lambda_returns(x.r, x.discount, V[x.s], lam)), 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_at_lam_0_nothing_is_lost_and_at_lam_1_everything(seed: int) -> None:
    mdp, pi = proper(seed)
    V = chain.evaluate(chain.induce(mdp, pi))
    assert np.allclose(lesson.cut_limit(mdp, pi, 0.0), V, rtol=1e-11, atol=1e-11 * abs(V).max())
    assert abs(lesson.cut_limit(mdp, pi, 1.0)).max() <= 1e-11 * abs(V).max()


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_the_loop_in_closed_form(p: float) -> None:
    """V = T^lam V - w on the loop at gamma = 1: both sums over the geometric number T of steps."""
    lam, stay, end = 0.8, 2.0, 5.0
    mdp = envs.loop(p, stay=stay, end=end)
    V = lesson.cut_limit(mdp, np.ones((2, 1)), lam)[0]
    T = np.arange(1, 2000)
    share, G = (1 - p) * p ** (T - 1.0), stay * (T - 1) + end
    target = 0.0
    for t, q, g in zip(T[:400], share, G, strict=False):
        n = np.arange(1, t + 1)
        target += q * (lesson.cut_weights(int(t), lam) @ np.where(n < t, stay * n + V, g))
    assert pytest.approx(target, rel=1e-12) == V


@pytest.mark.parametrize("seed", range(20))
def test_batches_settle_where_every_value_is_its_mean_target(seed: int) -> None:
    mdp, _, episodes = drawn(seed, 30)
    right = lesson.settle(episodes, mdp.S, 0.7, lambda_returns)
    seen = np.unique(np.concatenate([x.s[:-1] for x in episodes]))
    assert np.allclose(right[seen], lstd(episodes, S=mdp.S, lam=0.7)[seen], rtol=1e-9, atol=1e-9 * mdp.R_max)
    wrong = lesson.settle(episodes, mdp.S, 0.7, lesson.cut_returns)
    rest = updates(episodes, wrong, lambda x: lesson.cut_returns(x.r, x.discount, wrong[x.s], 0.7)).sum(axis=0)
    assert abs(rest).max() <= 1e-10 * mdp.R_max * 30
    assert not wrong[np.setdiff1d(np.arange(mdp.S), seen)].any()


def test_learners_of_the_library_are_near_the_limits() -> None:
    """60 runs at L = 5: within 4.5 standard errors and 1 % of the exact limit, which TD(0) reaches only as t grows."""
    mdp, L = lesson.world(), 5
    V = lesson.exact_by_limit([L])
    got = np.empty((60, 3))
    for run, rng in enumerate(lesson.rngs(73, 60)):
        x = sample.Stream(mdp, lesson.only(mdp), rng, limit=L).draw(20_000)[0]
        wrong = lesson.ended(x)
        got[run] = lesson.td(x, 20_000)[-1], lesson.td(wrong, 20_000)[-1], lesson.mc(wrong)
    for y, exact in zip(got.T, V, strict=True):
        assert abs(y.mean() - exact[0]) < 4.5 * y.std() / np.sqrt(60) + 0.01 * exact[0]
    assert V[1][0] < 0.6 * V[0][0] and V[2][0] < V[1][0]


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=2)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert text.startswith("V_pi(good) = 13.0692\n")
    assert text.count(" L = ") == 3 * len(lesson.LIMITS)
    assert text.count(" lam = ") == 2 * len(lesson.LAMBDAS)
    assert "lam = 1      0.0000     0.000 ± 0.000" in text
    fig = new_figure(12, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    time, limits, bars, lam = fig.axes
    assert len(time.get_lines()) == 2 * (2 + 2)
    assert len(limits.containers) == 3
    assert [x.get_label() for x in bars.containers] == ["last weight λ^(T−1): sum 1.000", "cut at T: sum 0.738"]
    exact = [np.asarray(x.get_ydata()) for x in lam.get_lines() if len(np.asarray(x.get_xdata())) == 101]
    assert exact[0] == pytest.approx(exact[0][0])
    assert (np.diff(exact[1]) < 0).all() and abs(exact[1][-1]) < 1e-12
