"""Correction 5: TD errors as advantages, and what TD(0) descends; judged by sums, fractions and samples."""

from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
import pytest
from models import dense_P, dense_R, random_mdp, random_policy
from paths import agree

from tabrl import MDP, chain, sample
from tabrl.gradient import exact
from tabrl.lessons import correction_5 as lesson
from tabrl.returns import gae

EPISODES = 20_000


def proper(seed: int, *, end: bool = True) -> tuple[MDP, Any]:
    """A cyclic model and a policy; with terminal states, or none."""
    rng = np.random.default_rng([50, seed])
    mdp = random_mdp(rng, S=4, A=3, gamma=0.9, proper=end, terminal=end, masked=True, rewards="sas", sparse=False)
    return mdp, random_policy(rng, mdp)


def literal(mdp: MDP, pi: Any, V: Any) -> float:
    """Mean of delta^2, states drawn evenly, by a sum over everything that can happen."""
    P, R, live = dense_P(mdp), dense_R(mdp), np.flatnonzero(~mdp.terminal)
    V = np.where(mdp.terminal, 0.0, V)
    total = 0.0
    for s in live:
        for a in range(mdp.A):
            for y in range(mdp.S):
                total += pi[s, a] * P[s, a, y] * (R[s, a, y] + mdp.gamma * V[y] - V[s]) ** 2
    return total / len(live)


@pytest.mark.parametrize("e", [(1.0, 0.0, 0.0), (0.0, -2.0, 0.0), (3.0, 1.0, -1.0), (1.0, 1.0, 1.0)])
def test_the_bias_of_the_td_error(e: tuple[float, ...]) -> None:
    """gamma P e - e, literally; 0 only for e = 0: I - gamma P is regular."""
    mdp, error = lesson.world(), np.array([*e, 0.0])
    V = chain.evaluate(chain.induce(mdp, lesson.even())) + error
    bias = lesson.estimated(mdp, V, 0.0).bias
    for s in range(3):
        for a in range(2):
            assert bias[s, a] == pytest.approx(0.9 * dense_P(mdp)[s, a] @ error - error[s], abs=1e-12)
    assert abs(bias).max() > 0.05
    assert lesson.biases(mdp, error)[0] == pytest.approx(abs(bias).max(), abs=1e-12)
    assert lesson.biases(mdp, 0 * error) == pytest.approx((0, 0), abs=1e-13)


def test_the_gradient_is_unbiased_iff_the_next_error_does_not_depend_on_the_action() -> None:
    mdp = lesson.world()
    constant = np.array([1.0, 1.0, 1.0, 0.0])
    assert lesson.biases(mdp, constant)[1] < 1e-13
    assert lesson.biases(mdp, constant)[0] == pytest.approx(1 - 0.9 * 0.9)
    assert lesson.biases(mdp, lesson.ERROR)[1] > 1
    pi, x = lesson.even(), exact(mdp, lesson.even())
    V = x.V + lesson.ERROR
    literal_gradient = np.zeros((4, 2))
    for s in range(3):
        for a in range(2):
            mean = dense_P(mdp)[s, a] @ (dense_R(mdp)[s, a] + 0.9 * np.where(mdp.terminal, 0, V)) - V[s]
            literal_gradient[s] += x.d[s] * pi[s, a] * (mean - x.advantage[s, a]) * (np.eye(2)[a] - pi[s])
    assert lesson.biases(mdp, lesson.ERROR)[1] == pytest.approx(np.linalg.norm(literal_gradient), rel=1e-12)


def test_sampled_advantages_have_the_exact_moments() -> None:
    """First steps of 20,000 episodes, mean and variance for every lam and both critics, at |z| <= 6.8 (see `paths`)."""
    mdp = lesson.world()
    drawn = list(islice(sample.episodes(mdp, lesson.even(), np.random.default_rng(51)), EPISODES))
    a = np.array([x.a[0] for x in drawn])
    for V in lesson.critics(mdp).values():
        for lam in (0.0, 0.6, 1.0):
            A = np.array([gae(x.r, x.discount, V[x.s], lam)[0] for x in drawn])
            want = lesson.estimated(mdp, V, lam)
            for k in (0, 1):
                agree(A[a == k], want.mean[0, k])
                agree((A[a == k] - want.mean[0, k]) ** 2, want.variance[0, k])


def test_the_judge_sees_the_bias() -> None:
    mdp = lesson.world()
    V = lesson.critics(mdp)["wrong V"]
    drawn = list(islice(sample.episodes(mdp, lesson.even(), np.random.default_rng(52)), EPISODES))
    stays = np.array([gae(x.r, x.discount, V[x.s], 0.0)[0] for x in drawn if x.a[0] == 0])
    with pytest.raises(AssertionError, match="z = "):
        agree(stays, exact(mdp, lesson.even()).advantage[0, 0])


def test_what_is_sampled_by_a_literal_loop() -> None:
    mdp = lesson.world()
    mean, variance = lesson.sampled(mdp, 2, 30, np.random.default_rng(53))
    source = sample.episodes(mdp, lesson.even(), np.random.default_rng(53))
    for run in range(2):
        drawn = list(islice(source, 30))
        for name, V in lesson.critics(mdp).items():
            for i, lam in enumerate(lesson.LAMBDAS):
                first: tuple[list[float], list[float]] = ([], [])
                for x in drawn:
                    A, weight = 0.0, 1.0
                    for t in range(len(x.r)):
                        A += weight * (x.r[t] + x.discount[t] * V[x.s[t + 1]] - V[x.s[t]])
                        weight *= lam * x.discount[t]
                    first[x.a[0]].append(A)
                for k in (0, 1):
                    assert mean[name][k, i, run] == pytest.approx(np.mean(first[k]), abs=1e-11)
                    assert variance[name][k, i, run] == pytest.approx(np.var(first[k], ddof=1), abs=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_squared_td_error(seed: int) -> None:
    """Cyclic models with ends and masked actions: a literal sum; least at the minimiser, and flat there."""
    mdp, pi = proper(seed)
    live = ~mdp.terminal
    rng, V = np.random.default_rng(seed), np.zeros(mdp.S)
    V[live] = rng.normal(size=live.sum()) * (1 + mdp.R_max)
    size = 1e-11 * (1 + literal(mdp, pi, V))
    assert lesson.squared_error(mdp, pi, V[live]) == pytest.approx(literal(mdp, pi, V), abs=size)
    best = np.zeros(mdp.S)
    best[live] = lesson.minimiser(mdp, pi)
    for _ in range(20):
        other = best + live * rng.normal(size=mdp.S) * 0.1 * (1 + mdp.R_max)
        assert literal(mdp, pi, other) > literal(mdp, pi, best)
    H, h, _ = lesson.squared(mdp, pi)
    assert abs(H @ best[live] - h).max() <= 1e-10 * (1 + abs(h).max())
    assert np.allclose(H, H.T, rtol=0, atol=1e-15)


def test_the_minimiser_in_fractions() -> None:
    """The ring with noise 2/5 and gamma 7/10, by Cramer's rule on the normal equations."""
    p, g = Fraction(2, 5), Fraction(7, 10)
    pays = (Fraction(0), Fraction(1), Fraction(3))
    H = [[Fraction(0)] * 3 for _ in range(3)]
    h = [Fraction(0)] * 3
    for s in range(3):
        for y, q in (((s + 1) % 3, 1 - p), ((s + 2) % 3, p)):
            x = [Fraction(int(k == s)) - g * int(k == y) for k in range(3)]
            for i in range(3):
                h[i] += q * pays[y] * x[i]
                for j in range(3):
                    H[i][j] += q * x[i] * x[j]

    def det(M: list[list[Fraction]]) -> Fraction:
        a, b, c = M
        return (
            a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
        )

    found = lesson.minimiser(lesson.ring(), lesson.going())
    for k in range(3):
        replaced = [[h[i] if j == k else H[i][j] for j in range(3)] for i in range(3)]
        assert found[k] == pytest.approx(float(det(replaced) / det(H)), rel=1e-12)


def test_without_chance_both_agree_and_with_it_they_do_not() -> None:
    for noise in (0.0, 1.0):
        ring = lesson.ring(noise)
        assert lesson.minimiser(ring, lesson.going()) == pytest.approx(
            chain.evaluate(chain.induce(ring, lesson.going()))[:3], rel=1e-12
        )
    V_pi, least = lesson.ends()
    assert abs(V_pi - least).max() > 0.2
    errors = [float(lesson.squared_error(lesson.ring(), lesson.going(), V)) for V in (V_pi, least)]
    assert errors[0] > 1.15 * errors[1]


def test_td_climbs_the_squared_td_error_and_is_no_gradient() -> None:
    V_pi, least = lesson.ends()
    ring, pi = lesson.ring(), lesson.going()
    E = [lesson.squared_error(ring, pi, lesson.means(ring, pi, *x)) for x in
         (("TD(0)", 3000, least), ("residual", 3000, V_pi))]  # fmt: skip
    assert (np.diff(E[0][:40]) > 0).all()
    assert (np.diff(E[1]) < 1e-12).all()
    limits = [float(lesson.squared_error(ring, pi, V)) for V in (V_pi, least)]
    assert [E[0][-1], E[1][-1]] == pytest.approx(limits, rel=1e-6)
    assert lesson.means(ring, pi, "TD(0)", 6000, least)[-1] == pytest.approx(V_pi, abs=1e-3)
    assert lesson.means(ring, pi, "residual", 60_000, V_pi)[-1] == pytest.approx(least, abs=1e-3)
    J = np.eye(3) - 0.7 * chain.induce(ring, pi).P[:3, :3]  # of TD(0)'s mean update, negated, times 3
    assert abs(J - J.T).max() > 0.1


@pytest.mark.parametrize("rule", ["TD(0)", "residual"])
def test_learning_by_a_literal_loop(rule: str) -> None:
    ring, pi = lesson.ring(), lesson.going()
    got = lesson.learn(ring, pi, rule, 3, 60, np.random.default_rng(54))
    rng, V = np.random.default_rng(54), np.tile(lesson.ends()[0], (3, 1))
    for k in range(60):
        s, u = rng.integers(3, size=3), rng.random(3)
        for run in range(3):
            here, heap = int(s[run]), 0.0
            for y in range(3):
                heap += dense_P(ring)[here, 1, y]
                if u[run] < heap:
                    break
            delta = dense_R(ring)[here, 1, y] + 0.7 * V[run, y] - V[run, here]
            V[run, here] += lesson.ALPHA * delta
            V[run, y] -= lesson.ALPHA * 0.7 * delta * (rule == "residual")
        if (k + 1) % lesson.EVERY == 0:
            assert got[(k + 1) // lesson.EVERY - 1] == pytest.approx(V, abs=1e-12)


@pytest.mark.parametrize("rule", ["TD(0)", "residual"])
def test_learnt_values_have_the_exact_mean(rule: str) -> None:
    """3,000 runs of 300 updates from V_pi, |z| <= 6.8 (see `paths`); the other rule's means are refused."""
    ring, pi = lesson.ring(), lesson.going()
    V = lesson.learn(ring, pi, rule, 3000, 300, np.random.default_rng(55)).transpose(1, 0, 2)
    agree(V, lesson.means(ring, pi, rule, 300, lesson.ends()[0]))
    other = {"TD(0)": "residual", "residual": "TD(0)"}[rule]
    with pytest.raises(AssertionError, match="z = "):
        agree(V, lesson.means(ring, pi, other, 300, lesson.ends()[0]))


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=3, episodes=40, updates=300)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert text.count(", lam = ") == 2 * len(lesson.LAMBDAS)
    assert "TD(0): V(2) -> 3.7586 exact" in text
    assert "residual: V(2) -> 3.4855 exact" in text
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    assert len(fig.axes) == 6
    assert len(fig.axes[0].containers) == len(fig.axes[1].containers) == 4
    exact_lines = [np.asarray(x.get_ydata()) for x in fig.axes[0].get_lines() if len(np.asarray(x.get_xdata())) == 101]
    assert abs(exact_lines[0]).max() < 1e-12
    assert [exact_lines[2][-1], exact_lines[3][-1]] == pytest.approx([-2, -2])
