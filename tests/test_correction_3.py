"""Correction 3: the critic's target; judged by literal sums, eigenvalues, closed forms and samples."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from models import dense_P, random_mdp
from paths import agree

from tabrl import MDP, chain, sample
from tabrl.lessons import correction_3 as lesson
from tabrl.types import Episode

LAMS = (0.0, 0.4, 0.9, 1.0)


def proper(seed: int) -> MDP:
    """A cyclic model with one action that ends."""
    rng = np.random.default_rng([30, seed])
    mdp = random_mdp(rng, S=5, A=1, gamma=0.9, proper=True, masked=False, rewards="sas", sparse=False)
    mu = np.where(mdp.terminal, 0.0, 1.0)
    return MDP(mdp.P, mdp.R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal)


def regular(seed: int) -> MDP:
    """As `proper`, with P regular between the non-terminal states; one draw in twenty is not, and the next is taken."""
    while True:
        mdp = proper(seed)
        live = np.flatnonzero(~mdp.terminal)
        if np.linalg.cond(dense_P(mdp)[:, 0][np.ix_(live, live)]) < 1e6:
            return mdp
        seed += 100


def drawn(mdp: MDP, n: int, seed: int, limit: int | None = None) -> list[Episode]:
    return list(islice(sample.episodes(mdp, np.ones((mdp.S, 1)), np.random.default_rng([31, seed]), limit=limit), n))


def values(mdp: MDP, seed: int) -> Any:
    return np.where(mdp.terminal, 0.0, np.random.default_rng([32, seed]).normal(size=mdp.S) * (1 + mdp.R_max))


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("seed", range(20))
def test_targets_by_literal_sums(seed: int, lam: float) -> None:
    """Episodes that end or are cut: right is the lambda-return, doubled adds V, everywhere drops every -V."""
    mdp = proper(seed)
    V = values(mdp, seed)
    for x in drawn(mdp, 4, seed, limit=6):
        v, T, size = V[x.s], len(x.r), 1e-12 * (1 + abs(V).max() + mdp.R_max) * 10
        right, doubled, everywhere = (f(x.r, x.discount, v, lam) for f, _ in lesson.RULES.values())
        for t in range(T):
            weight, A, kept = 1.0, 0.0, 0.0
            for k in range(t, T):
                A += weight * (x.r[k] + x.discount[k] * v[k + 1] - v[k])
                kept += weight * (x.r[k] + x.discount[k] * v[k + 1])
                weight *= lam * x.discount[k]
            assert right[t] == pytest.approx(A + v[t], abs=size)
            assert doubled[t] == pytest.approx(A + 2 * v[t], abs=size)
            assert everywhere[t] == pytest.approx(kept + v[t], abs=size)


def test_at_lam_0_both_mistakes_are_the_same() -> None:
    mdp = proper(3)
    V = values(mdp, 3)
    for x in drawn(mdp, 20, 3):
        a, b = (f(x.r, x.discount, V[x.s], 0.0) for f in (lesson.doubled, lesson.everywhere))
        assert np.allclose(a, b, rtol=0, atol=1e-12 * (1 + abs(V).max() + mdp.R_max))


@pytest.mark.parametrize("lam", [0.4, 0.9])
@pytest.mark.parametrize("seed", range(2))
def test_mean_targets(seed: int, lam: float) -> None:
    """Targets of first steps from 10,000 episodes, less their exact mean by start state; |z| <= 6.8 (see `paths`)."""
    mdp = proper(seed)
    V, episodes = values(mdp, seed), drawn(mdp, 10_000, 90 + seed)
    induced = chain.induce(mdp, np.ones((mdp.S, 1)))
    for target, mean in lesson.RULES.values():
        x, rows = mean(induced, lam), np.zeros((len(episodes), mdp.S))
        expected = x.vector + x.matrix @ V
        for row, y in zip(rows, episodes, strict=True):
            row[y.s[0]] = target(y.r, y.discount, V[y.s], lam)[0] - expected[y.s[0]]
        agree(rows, 0.0)


def test_the_judge_of_means_can_fail() -> None:
    mdp = proper(0)
    V, episodes = values(mdp, 0), drawn(mdp, 10_000, 90)
    x = lesson.mean_right(chain.induce(mdp, np.ones((mdp.S, 1))), 0.4)
    rows = np.zeros((len(episodes), mdp.S))
    for row, y in zip(rows, episodes, strict=True):
        row[y.s[0]] = lesson.doubled(y.r, y.discount, V[y.s], 0.4)[0] - (x.vector + x.matrix @ V)[y.s[0]]
    with pytest.raises(AssertionError, match="z = "):
        agree(rows, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_only_these_values_meet_the_wrong_target(seed: int) -> None:
    """T^lam V + V = V, where P is regular; at lam = 1 nothing does."""
    mdp = regular(seed)
    induced = chain.induce(mdp, np.ones((mdp.S, 1)))
    for lam in (0.0, 0.4, 0.9):
        V, x = lesson.wrong_values(induced, lam), lesson.mean_doubled(induced, lam)
        assert np.allclose(x.vector + x.matrix @ V, V, rtol=0, atol=1e-8 * (1 + abs(V).max()))
    with pytest.raises(ValueError, match="lam is 1; a number below 1 is expected"):
        lesson.wrong_values(induced, 1.0)


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("seed", range(10))
def test_rates_are_eigenvalues(seed: int, lam: float) -> None:
    mdp = proper(seed)
    induced = chain.induce(mdp, np.ones((mdp.S, 1)))
    for mean, every in ((lesson.mean_doubled, False), (lesson.mean_everywhere, True)):
        top = np.linalg.eigvals(mean(induced, lam).matrix).real.max()
        assert top == pytest.approx(1 + lesson.growth(induced, lam, every=every), abs=1e-9)
        assert top > 1 or lam == 1 or lesson.radius(induced) < 1e-6


def test_in_the_mean_the_right_target_settles_and_the_wrong_one_does_not() -> None:
    induced = chain.induce(lesson.world(), np.ones((4, 1)))
    V_pi = chain.evaluate(induced)
    for lam in (0.0, 0.5, 0.95):
        right = lesson.means(induced, lesson.mean_right(induced, lam), 1500)
        wrong = abs(lesson.means(induced, lesson.mean_doubled(induced, lam), 1500)[:, 0])
        assert np.allclose(right[-1], V_pi, rtol=0, atol=1e-10)
        assert wrong[-1] / wrong[-2] == pytest.approx(1 + lesson.ALPHA * lesson.growth(induced, lam), rel=1e-9)
        assert wrong[-1] > 1e6


def test_at_lam_1_it_grows_by_alpha_v_pi_for_ever() -> None:
    induced = chain.induce(lesson.world(), np.ones((4, 1)))
    V = lesson.means(induced, lesson.mean_doubled(induced, 1.0), 100)
    assert np.allclose(V, lesson.ALPHA * np.arange(101)[:, None] * chain.evaluate(induced), rtol=1e-12)


def test_the_wrong_solution_repels() -> None:
    induced, lam = chain.induce(lesson.world(), np.ones((4, 1))), 0.5
    x, V = lesson.mean_doubled(induced, lam), lesson.wrong_values(induced, lam)
    near = V + 1e-6 * np.array([1.0, 1.0, 1.0, 0.0])
    for _ in range(600):
        near = near + lesson.ALPHA * (x.vector + x.matrix @ near - near)
    assert abs(near - V).max() > 1e3


def test_learning_by_a_literal_loop() -> None:
    mdp = lesson.world()
    batches = lesson.fresh(mdp, 5, np.random.default_rng(33))
    assert [len(x) for x in batches] == [3 * lesson.EPISODES] * 5
    for target, _ in lesson.RULES.values():
        V, found = np.zeros(4), lesson.learn(batches, 4, 0.7, target)
        for k, batch in enumerate(batches):
            new = V.copy()
            for s in range(3):
                y = [target(x.r, x.discount, V[x.s], 0.7)[0] for x in batch if x.s[0] == s]
                assert len(y) == lesson.EPISODES
                new[s] += lesson.ALPHA * (sum(y) / len(y) - V[s])
            V = new
            assert found[k + 1] == pytest.approx(V, abs=1e-12)


def test_learnt_values_have_the_exact_mean() -> None:
    """200 runs of 12 updates by all three targets, |z| <= 6.8 (see `paths`)."""
    mdp = lesson.world()
    induced = chain.induce(mdp, np.ones((4, 1)))
    drawn = [lesson.fresh(mdp, 12, rng) for rng in np.random.default_rng(34).spawn(200)]
    for target, mean in lesson.RULES.values():
        V = np.array([lesson.learn(batches, 4, 0.5, target) for batches in drawn])
        agree(V[:, 1:, :3], lesson.means(induced, mean(induced, 0.5), 12)[1:, :3])


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=3, updates=30)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert text.count("|V| grows by") == len(lesson.LAMBDAS)
    assert "met by nothing" in text
    fig = new_figure(13, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    learning, every, growth, fixed = fig.axes
    assert len(learning.get_lines()) == 2 * (3 + 1) + 1
    assert len(every.containers) == len(lesson.LAMBDAS)
    assert len(growth.get_lines()) == 7
    assert len(fixed.containers) == 4
