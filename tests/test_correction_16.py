"""Correction 16: flat groups, token means, clips and lengths; judged by listed groups, samples and literal loops."""

from itertools import product

import numpy as np
import pytest
from paths import agree

from tabrl.advantages import group_advantages
from tabrl.envs.token_tasks import copy
from tabrl.lessons import _answers
from tabrl.lessons import correction_16 as lesson
from tabrl.losses import d_aggregate, ppo_clip
from tabrl.tokens import train
from tabrl.tokens.counts import Estimator
from tabrl.tokens.draws import Groups
from tabrl.tokens.groups import expected_gradient, kept
from tabrl.tokens.methods import Method, Outcome
from tabrl.tokens.outcomes import places
from tabrl.tokens.recursion import evaluate
from tabrl.tokens.table import TableLM
from tabrl.types import F


@pytest.mark.parametrize("p", [0.03, 0.4, 0.95])
def test_shares_by_listing_groups(p: float) -> None:
    listed = [(p ** sum(g) * (1 - p) ** (5 - sum(g)), sum(g)) for g in product((0, 1), repeat=5)]
    mixed = sum(chance for chance, k in listed if 0 < k < 5)
    not_right = sum(chance for chance, k in listed if k < 5)
    assert lesson.kept_share(np.array(p), 5) == pytest.approx(mixed, abs=1e-14)
    assert lesson.read_literally(np.array(p), 5) == pytest.approx((not_right, mixed / not_right), abs=1e-14)


def test_the_start_with_rare_answers() -> None:
    task = copy(vocab=8)
    model = TableLM(task, lesson.half_dead(task))
    p = evaluate(task.tree, model.table).V[:8]
    assert p == pytest.approx(np.repeat([lesson.RARE, 1 / 64], 4), rel=1e-12)
    share = kept(task.tree, model.table, lesson.G)
    assert share == pytest.approx(lesson.kept_share(p), rel=1e-9)
    untouched = 4 * (1 - share[0] - lesson.RARE**lesson.G) ** 30  # flat and wrong, 30 times
    assert lesson.untouched(np.array(30), 1) == pytest.approx(untouched, rel=1e-9)


def test_dynamic_sampling_and_entropy_on_dead_prompts() -> None:
    """Entropy alone revives all four, in three runs; with dynamic sampling it does not within 30 updates."""
    for seed in range(3):
        assert lesson.dying("all groups, entropy .03", seed, 30)[-1] == 0
        assert lesson.dying("dynamic, entropy .03", seed, 30)[-1] > 0


@pytest.mark.parametrize("how", lesson.HOWS)
@pytest.mark.parametrize("e", [0.2, 0.6])
def test_pushes_have_the_mean_of_literal_groups(how: str, e: float) -> None:
    """20,000 groups of 8, the first answer's advantage times weight, given its reward and length: |z| <= 6.8."""
    rng, x = np.random.default_rng([16, int(10 * e)]), _answers.every(lesson.task())
    of_one = np.flatnonzero(x.prompt == 0)
    q = _answers.of_tokens(np.exp(lesson.policy(e)), x).prod(axis=1)[of_one]
    i = of_one[rng.choice(len(of_one), (20_000, lesson.G), p=q / q.sum())]
    A = group_advantages(x.reward[i].ravel(), np.repeat(np.arange(20_000), lesson.G)).reshape(i.shape)
    tokens = x.length[i]
    weight = {
        "sequence": 1 / tokens[:, 0],
        "group_token": lesson.G / tokens.sum(axis=1),
        "constant": np.full(20_000, 1 / 6),
    }[how]
    exactly = lesson.pushes(how, e)
    for own, t in product((0, 1), range(6)):
        at = (x.reward[i[:, 0]] == own) & (tokens[:, 0] == t + 1)
        if at.sum() > 50:
            agree(6 * (A[:, 0] * weight)[at], exactly[own, t])
    assert np.isnan(exactly[1, 0])


def test_weights_of_the_token_means_are_those_of_the_losses() -> None:
    mask, group = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]), np.array([0, 0, 1, 1])
    paper = d_aggregate(np.zeros((4, 3)), mask, how="group_token", group=group)
    engines = d_aggregate(np.zeros((4, 3)), mask, how="token")
    assert paper[:, 0] == pytest.approx([1 / 8, 1 / 8, 1 / 10, 1 / 10])
    assert engines[:, 0] == pytest.approx(np.full(4, 1 / 9))


def test_long_answers_are_pushed_harder_right_and_wrong() -> None:
    for e in (0.2, 0.5, 0.8):
        wrong, right = lesson.pushes("group_token", e) * np.arange(1, 7)
        assert (np.diff(wrong) < 0).all()
        assert (np.diff(right[1:]) > 0).all()
        wrong, right = lesson.pushes("sequence", e) * np.arange(1, 7)
        assert np.ptp(wrong) < 1e-12
        assert np.ptp(right[1:]) < 1e-12


@pytest.mark.parametrize("e", [0.15, 0.4, 0.7])
def test_drifts_by_differences_of_the_mean_length(e: float) -> None:
    x, logp, h = _answers.every(lesson.task()), lesson.policy(e), 1e-5

    def length(z: F) -> float:
        pi = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        return float(_answers.of_tokens(pi, x).prod(axis=1) @ x.length / 2)

    for how in lesson.HOWS:
        g = expected_gradient(lesson.task().tree, logp, Estimator(lesson.G, how))
        g /= np.linalg.norm(g)
        want = (length(logp + h * g) - length(logp - h * g)) / (2 * h)
        assert lesson.drift(how, e) == pytest.approx(want, rel=1e-6)
    exactly = evaluate(lesson.task().tree, logp).slope
    mean = expected_gradient(lesson.task().tree, logp, Estimator(lesson.G, "constant"))
    assert mean * np.linalg.norm(exactly) / np.linalg.norm(mean) == pytest.approx(exactly, abs=1e-12)
    assert lesson.drift("group_token", e, cache_=2) < lesson.drift("group_token", e)


def test_shaping_takes_what_the_paper_says() -> None:
    tree = lesson.task().tree
    reward = lesson.shaped(tree, 2)
    assert reward is not None
    rows = [tree.start[t] for t in range(6)]
    lost = (tree.reward - reward)[rows, 2]  # answers that end with EOS after 1 … 6 tokens
    assert lost == pytest.approx([0, 0, 0, 0, 0.5, 1])
    assert lesson.shaped(tree, None) is None


def test_sampled_updates_weigh_the_prompts_as_computed() -> None:
    """Parts along the exact gradients of both prompts, of 2,000 updates, |z| <= 6.8; shares are their ratio."""
    logp, how, rng = lesson.policy(0.2, 0.6), "group_token", np.random.default_rng(17)
    method = Method(Groups(lesson.G), Outcome(), how=how)
    model, tree = TableLM(lesson.task(), logp), lesson.task().tree
    exactly, prompt = evaluate(tree, logp).slope, places(tree)[0]
    found = np.empty((2000, 2))
    for i in range(2000):
        x = method.draw(model, rng).x
        g = train.gradient(model, method, x, method.credit.advantages(train.scored(method, x, None)))
        found[i] = [(g.reshape(logp.shape) * exactly)[prompt == k].sum() for k in (0, 1)]
    mean = expected_gradient(tree, logp, Estimator(lesson.G, how))
    agree(found, np.array([(mean * exactly)[prompt == k].sum() for k in (0, 1)]))
    sizes = [(exactly**2)[prompt == k].sum() for k in (0, 1)]
    ratio = (mean * exactly)[prompt == 0].sum() / sizes[0] / ((mean * exactly)[prompt == 1].sum() / sizes[1])
    assert lesson.shares(how, 0.6) == pytest.approx(ratio, rel=1e-12)


def test_growth_by_a_literal_loop() -> None:
    """Ascent on the written loss by differences, 4 arms, 2 batches."""
    p, arms = 0.05, 4
    z = np.log(np.append(p, np.full(3, (1 - p) / 3)))
    for _ in range(2):
        old = z - np.log(np.exp(z).sum())
        A = np.eye(arms)[0] - np.exp(old[0])
        A /= np.sqrt(np.exp(old) @ A**2)

        def value(y: F, old: F = old, A: F = A) -> float:
            return float(-np.exp(old) @ ppo_clip(y - np.log(np.exp(y).sum()), old, A, high=0.28))

        for _ in range(5):
            z = z + 0.2 * np.array([(value(z + 1e-6 * e) - value(z - 1e-6 * e)) / 2e-6 for e in np.eye(arms)])
    assert lesson.growth(0.28, 2, p, arms, 5)[-1] == pytest.approx(np.exp(z[0]) / np.exp(z).sum(), rel=1e-7)


def test_a_higher_clip_grows_faster() -> None:
    low, high = lesson.growth(0.2, 10), lesson.growth(0.28, 10)
    assert (high[1:] > low[1:]).all()
    k = np.arange(11)
    assert (low >= 1e-3 * 1.2**k - 1e-15).all()
    assert (low < 1e-3 * 1.24**k + 1e-15).all()


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    monkeypatch.setattr(lesson, "BATCHES", 3)
    few = lesson.experiment(runs=2, updates=20)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert "dropping all-right groups only at p = 0.02: 1.0000 kept, 0.1492 of these not flat" in text
    assert text.count("drift of the length") == len(lesson.HOWS)
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    assert len(fig.axes) == 6
    assert len(fig.axes[0].containers) == 1
    assert len(fig.axes[4].containers) == 2
