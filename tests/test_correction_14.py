"""Correction 14: which std, which eps, what at 0, and process rewards; judged by listed groups and closed forms."""

from itertools import product
from math import comb, sqrt

import numpy as np
import pytest
from paths import agree

from tabrl.advantages import group_advantages
from tabrl.decisions import cosine
from tabrl.envs.token_tasks import bandit
from tabrl.lessons import correction_14 as lesson
from tabrl.lessons._answers import every, of_tokens, push
from tabrl.tokens.counts import Estimator
from tabrl.tokens.groups import expected_gradient
from tabrl.types import F

P = (0.07, 0.3, 0.5, 0.85)


def root_of_counts(p: float, G: int) -> float:
    """E sqrt(K (G-K)) / (G p (1-p)), K binomial."""
    mean = sum(comb(G, k) * p**k * (1 - p) ** (G - k) * sqrt(k * (G - k)) for k in range(G + 1))
    return mean / (G * p * (1 - p))


@pytest.mark.parametrize("G", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("p", P)
def test_weights_are_the_closed_forms(p: float, G: int) -> None:
    w = root_of_counts(p, G)
    got = [float(lesson.weight(np.array(p), G, form)) for form in lesson.FORMS]
    assert got == pytest.approx([w, w * sqrt((G - 1) / G), (G - 1) / G, 1.0], rel=1e-11)


def test_weights_are_the_exact_expectations_of_the_package() -> None:
    """On a bandit of two arms, whose gradient is p (1-p) in the logit."""
    tree = bandit((1.0, 0.0)).tree
    for p in P:
        logp = np.log([[p, 1 - p]])
        for form in lesson.FORMS:
            g = expected_gradient(tree, logp, Estimator(5, "constant", **lesson.FORMS[form]))
            assert g[0, 0] / (p * (1 - p)) == pytest.approx(float(lesson.weight(np.array(p), 5, form)), rel=1e-11)


@pytest.mark.parametrize("G", [2, 3])
def test_small_groups_weigh_all_prompts_alike(G: int) -> None:
    w = lesson.weight(np.linspace(0.01, 0.99, 50), G, "population std")
    assert np.ptp(w) < 1e-12
    assert np.ptp(lesson.weight(np.linspace(0.01, 0.99, 50), 4, "population std")) > 0.1


def test_large_groups_tend_to_the_std_of_the_prompt() -> None:
    p = np.array([0.2, 0.5])
    limit = 1 / np.sqrt(p * (1 - p))
    gaps = [abs(lesson.weight(p, G, "population std") - limit).max() for G in (32, 64)]
    assert 0 < gaps[1] < 0.55 * gaps[0]


def test_as_written_a_flat_group_is_nan_and_nothing_else() -> None:
    for r in product((0.0, 1.0), repeat=4):
        flat = len(set(r)) == 1
        found = lesson.written(np.array(r))
        assert np.isnan(found).all() == flat
        assert np.isnan(found).any() == flat
        if not flat:
            group = np.zeros(4, int)
            assert found == pytest.approx(group_advantages(np.array(r), group, std="population", eps=0.0))
            assert lesson.written(np.array(r), 1) == pytest.approx(group_advantages(np.array(r), group, eps=0.0))


def test_eps_by_hand() -> None:
    """One right of 8, reward c: sample std c / sqrt(8)."""
    for c in (1.0, 1e-3, 1e-6):
        for eps in (1e-9, 1e-4):
            assert lesson.kept_size(c, eps) == pytest.approx(c / sqrt(8) / (c / sqrt(8) + eps), rel=1e-9)
    assert lesson.rounding(0.0) == pytest.approx(7 / sqrt(8))
    assert lesson.rounding(1e-4) < 1e-11


def literal_process(r: F, rule: str) -> F:
    """Advantages of a group's step rewards (GROUP,2), by loops."""
    A, steps = np.zeros_like(r), r.ravel()
    for i, t in np.ndindex(r.shape):
        for u in range(2):
            same = {"own answer’s mean, std": r[i], "mean, std by step": r[:, u]}.get(rule, steps)
            counts = {"index(j) > t": u > t, "all steps": True}.get(rule, u >= t)
            if counts and np.ptp(same) > 0:
                A[i, t] += (r[i, u] - same.mean()) / same.std()
    return A


@pytest.mark.parametrize("rule", lesson.RULES)
def test_process_rules_by_loops(rule: str) -> None:
    groups, first = lesson.by_pattern(rule)
    assert len(groups) == 4**lesson.GROUP
    for g, A in zip(groups[::5], first[::5], strict=True):
        r = np.column_stack([g // 2, g % 2]) * 1.0
        assert literal_process(r, rule)[0] == pytest.approx(A, abs=1e-12)


def test_mean_process_gradient_by_listing_groups_of_answers() -> None:
    """All groups of 4 of the 9 answers: 6,561, with their probabilities."""
    pi, x = lesson.policy(0.4), every(lesson.task())
    q = of_tokens(pi, x).prod(axis=1)
    i = np.indices((9,) * 4).reshape(4, -1).T
    A = lesson.right(x.step_reward[i.ravel()], np.ones((4 * 9**4, 2)), np.repeat(np.arange(9**4), 4)).reshape(-1, 4, 2)
    total = np.zeros((9, 2))
    np.add.at(total, i, q[i].prod(axis=1)[:, None, None] * A / 4)
    want = push(pi, x, total)
    assert lesson.mean_gradient("index(j) ≥ t, whole group", 0.4)[0] == pytest.approx(want, abs=1e-14)


def test_the_gradient_of_the_process_objective() -> None:
    """Expected number of right steps p + p p + (1-p) p/2, and its gradient by differences."""

    def value(pi: F) -> float:
        x = every(lesson.task())
        return float(of_tokens(pi, x).prod(axis=1) @ x.step_reward.sum(axis=1))

    z, h = np.log(lesson.policy(0.3)), 1e-6
    want = np.empty_like(z)
    for i in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[i] += h
        down[i] -= h
        values = [value(np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)) for y in (up, down)]
        want[i] = (values[0] - values[1]) / (2 * h)
    assert value(lesson.policy(0.3)) == pytest.approx(0.3 + 0.3 * 0.3 + 0.7 * 0.15, abs=1e-12)
    assert lesson.mean_gradient("all steps", 0.3)[1] == pytest.approx(want, abs=1e-9)


def test_what_goes_wrong() -> None:
    for p in (0.05, 0.2, 0.5, 0.9):
        right, wrong = (
            lesson.mean_gradient(rule, p) for rule in ("index(j) ≥ t, whole group", "own answer’s mean, std")
        )
        assert cosine(*right) > 0.99
        assert cosine(*wrong) < 0.6
        assert not wrong[0][0].any()  # the first token learns nothing from its own answer's steps alone
        assert not lesson.mean_gradient("index(j) > t", p)[0][1:].any()  # nor does the last one
        assert lesson.noise("all steps", p) > lesson.noise("index(j) ≥ t, whole group", p)
    assert lesson.along(*lesson.mean_gradient("index(j) > t", 0.1)) < 0


def test_samples_have_the_exact_means() -> None:
    """5 x 4 weights, 5 shares and 5 x 5 parts, 40 runs of 400 groups; |z| <= 6.8 of means of runs (t of 39 degrees)."""
    found = lesson.experiment()
    for form, y in found.weight.items():
        agree(y.T, lesson.weight(lesson.CHANCES, lesson.G, form))
    agree(found.spoilt.T, lesson.spoilt_share(lesson.CHANCES, 8))
    for rule, y in found.along.items():
        agree(y.T, np.array([lesson.along(*lesson.mean_gradient(rule, p)) for p in lesson.CHANCES]))


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=3)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert "no std, mean of others p = 0.3: 1.0000" in text
    assert text.count("; one answer ") == 5 * len(lesson.RULES)
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    assert [len(ax.get_lines()) >= n for ax, n in zip(fig.axes, (4, 6, 3, 4, 5, 5), strict=True)] == [True] * 6
    assert len(fig.axes[0].containers) == len(lesson.FORMS)
