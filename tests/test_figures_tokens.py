"""Figures of token methods: what is drawn as exact is exact, and samples lie on it."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from paths import agree

from tabrl.advantages import group_advantages
from tabrl.divergences import KINDS as ESTIMATES
from tabrl.envs import token_tasks
from tabrl.figures import gallery, token_learning
from tabrl.figures.token_curves import curves, interval, outcome
from tabrl.figures.token_estimates import (
    PENALTIES,
    estimates,
    lengths,
    mean_weight,
    sampled_weights,
)
from tabrl.figures.token_gallery import TOKENS, gap
from tabrl.figures.token_groups import KINDS, kept, mixed_groups, refill, weights
from tabrl.figures.token_learning import clip_higher, dying, expected_path, predicted, supervision, ways
from tabrl.figures.token_runs import Runs, begin, failed, reached, several, success
from tabrl.figures.token_shared import SharedLM
from tabrl.losses import HOWS, d_aggregate
from tabrl.plots import image, new_figure
from tabrl.tokens import exact, train
from tabrl.tokens.counts import Estimator
from tabrl.tokens.draws import Dynamic, Groups
from tabrl.tokens.rates import kept_share, w
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.stationary import stationary
from tabrl.tokens.table import TableLM
from tabrl.tokens.tree import prefixes


def same(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance)


# ---- runs ----


def test_runs_are_the_methods_run_by_run() -> None:
    look = partial(lookup, 3)
    x = several(partial(begin, "modular", "dapo", every=3), np.random.default_rng(2), runs=2, records=4, look=look)
    task = token_tasks.make("modular")
    for i, own in enumerate(np.random.default_rng(2).spawn(2)):
        policy = TableLM(task)
        training = train.dapo(task, policy, own, every=3)
        assert x.p[0, i] == pytest.approx(1 / 7) and np.isnan(x.kept[0, i]) and x.kl[0, i] == 0
        for j, record in enumerate([next(training) for _ in range(4)], 1):
            assert x.k[j] == record.k and x.J[j, i] == record.J and x.kept[j, i] == record.kept
            assert x.entropy[j, i] == record.entropy and x.passes[j, i] == record.passes
        np.testing.assert_array_equal(x.theta[i], policy.theta)
        assert x.seen[-1, i, 0] == policy.theta[3] and x.seen[0, i, 0] == 0
    with pytest.raises(ValueError, match="runs is 0"):
        several(partial(begin, "modular", "dapo"), np.random.default_rng(0), runs=0, records=1)


def lookup(i: int, policy: Any) -> list[float]:
    return [policy.theta[i]]


def test_when_runs_arrive_and_which_fail() -> None:
    x = several(partial(begin, "bandit", "grpo", every=5), np.random.default_rng(1), runs=2, records=3)
    p = np.zeros((4, 2, 2))
    p[2:, 0], p[3, 1] = (1.0, 0.8), (0.9, 0.5)
    x, even = x._replace(p=p), np.array([0.5, 0.5])
    same(success(x, even)[:, 0], [0, 0, 0.9, 0.9])
    assert reached(x, even, 0.85).tolist() == [10, np.inf] and failed(x, even, 0.85) == [1]


def test_workers_do_not_change_the_numbers() -> None:
    make = partial(begin, "bandit", "grpo", every=2)
    one, two = (several(make, np.random.default_rng(3), runs=2, records=2, jobs=jobs) for jobs in (1, 2))
    for name in set(Runs._fields) - {"tokens_per_s"}:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


# ---- prompts that share ----


@pytest.mark.parametrize("name", ["reverse", "modular", "parity"])
def test_shared_logits_are_a_sum_and_pull_is_its_transpose(name: str) -> None:
    task = token_tasks.make(name)
    rng = np.random.default_rng(4)
    size = task.N * task.V + task.N // task.K * task.V
    policy = SharedLM(task, rng.normal(size=size))
    own, shared = policy.theta[: task.N * task.V].reshape(task.N, -1), policy.theta[task.N * task.V :]
    table = shared.reshape(-1, task.V)
    first = 0
    for t in range(task.length):  # literally: the tokens so far, read as a number, whatever the prompt
        _, tokens = prefixes(task.K, task.C, t)
        for i, row in enumerate(tokens):
            code = first + int(sum(int(a) * task.C ** (t - 1 - j) for j, a in enumerate(row)))
            h = task.tree.start[t] + i
            np.testing.assert_array_equal(policy.table[h], own[h] + table[code])
        first += task.C**t
    logits, pull = policy.logits()
    slope, direction = rng.normal(size=logits.shape), rng.normal(size=size)
    moved = SharedLM(task, direction).table
    assert pull(slope) @ direction == pytest.approx((slope * moved).sum(), rel=1e-12)
    x = Groups(3)(policy, rng).x
    z, pull = policy.rows(x)
    slope = rng.normal(size=z.shape)
    assert pull(slope) @ direction == pytest.approx((slope * moved[x.row]).sum(), rel=1e-12)
    np.testing.assert_array_equal(policy.copy().theta, policy.theta)


def test_prompts_that_share_die_and_others_wait() -> None:
    """Small groups without entropy: shared logits lose prompts, own ones none, entropy keeps most of them."""
    found = dying(np.random.default_rng(5), runs=4, updates=100)
    dead = {label: x.dead[-1].mean() for label, x in found.items()}
    assert dead["GRPO, G = 4, no shared logits"] == 0
    assert dead["GRPO, G = 4"] >= 2 and dead["GRPO, G = 4"] > dead["GRPO, G = 4, entropy 0.03"]
    task = token_tasks.make("copy")
    for label, x in found.items():
        kind = TableLM if "no shared" in label else SharedLM
        for i, theta in enumerate(x.theta):
            p = exact.success(task, kind(task, theta))
            same(x.p[-1, i], p)
            assert x.dead[-1, i] == ((1 - p) ** (8 if "G = 8" in label else 4) > 0.99).sum()


# ---- groups ----


def test_weights_of_prompts() -> None:
    x = weights(np.random.default_rng(6), runs=3000)
    for i, kind in enumerate(KINDS.values()):
        same(x.exact[i], w(x.p, 8, **kind))
        agree(x.samples[i].T, w(x.shown, 8, **kind))
    same(x.by_size[1], w(x.p, x.sizes[1]))
    rng = np.random.default_rng(6)  # literally: each group's own advantages times scores of a softmax of two tokens
    r = 1.0 * (rng.random((11, 3000, 8)) < x.shown[:, None, None])
    for m, j in ((0, 0), (5, 17), (10, 2999)):
        A = group_advantages(r[m, j], np.zeros(8, int), std="population", eps=0.0)
        estimate = sum(a * ((y == 1) - x.shown[m]) for a, y in zip(A, r[m, j], strict=True)) / 8
        same(x.samples[1, m, j], estimate / (x.shown[m] * (1 - x.shown[m])))


def test_kept_share() -> None:
    x = kept(np.random.default_rng(7), runs=2, groups=1000, updates=4)
    for i, G in enumerate(x.sizes):
        same(x.exact[i], 1 - x.p**G - (1 - x.p) ** G)
        shown = kept_share(x.shown, G)
        varies = x.samples[i].std(axis=1) > 0
        agree(x.samples[i][varies].T, shown[varies])
        assert (abs(x.samples[i].mean(axis=1) - shown)[~varies] < 0.01).all()
    a = kept_share(x.runs.p[:-1], 16)
    same(x.share, a.mean(axis=(1, 2)))
    same(x.refilled[1], np.mean([refill(a[1, j], 8) for j in range(2)]))
    assert mixed_groups(0.5, 16, 50, np.random.default_rng(0)).mean() > 0.9


def test_refill_is_what_dynamic_sampling_uses() -> None:
    task = token_tasks.make("sum")
    policy = TableLM(task, np.random.default_rng(8).normal(size=task.N * task.V))
    for limit in (2, 8):
        draw = Dynamic(8, limit=limit)
        rng = np.random.default_rng([8, limit])
        found = np.array([draw(policy, rng).kept for _ in range(300)])
        agree(found[:, None], np.array([refill(kept_share(exact.success(task, policy), 8), limit)]))
    assert refill(np.zeros(3), 4) == 0 and refill(np.ones(5), 1) == 1
    assert refill(np.array([1.0, 0.0]), 8) == 0.5  # the second batch gives the one that is missing


# ---- estimators ----


def test_kl_estimates_lie_on_their_moments() -> None:
    """Means, and mean squares where they are not ruled by answers too rare to be drawn (k3 far from the reference)."""
    x = estimates(np.random.default_rng(9), runs=4000, points=8, shown=3)
    assert np.isfinite(x.angle).all() and x.angle.shape == (len(PENALTIES), 8)
    near = x.at[:-1]
    for i, kind in enumerate(ESTIMATES):
        mean = x.kl + x.bias[i]
        agree(x.samples[i, :-1].T, mean[near])
        agree(((x.samples[i, :-1] - mean[near, None]) ** 2).T, x.std[i, near] ** 2)
        if kind != "k2":
            same(x.bias[i], 0, 1e-12)
    same(x.angle[0], 1)  # k1 in the reward
    assert (x.angle[1:] < 1 - 1e-6).all() and (x.angle[1:, -1] < x.angle[1:, 0]).all()


def test_lengths_by_finite_differences_and_by_batches() -> None:
    rng = np.random.default_rng(10)
    x = lengths(rng, runs=200, points=5)
    constant = HOWS.index("constant")
    same(x.angle[constant], 1)
    same(x.longer[constant], x.truth)
    agree(np.swapaxes(x.samples[HOWS.index("group_token")], 0, 1), x.weight[HOWS.index("group_token")])
    agree(np.swapaxes(x.samples[HOWS.index("token")], 0, 1), x.weight[HOWS.index("token")])
    same(x.weight[HOWS.index("sequence")], 1 / x.T)
    same(x.weight[constant], 1 / 6)
    task = token_tasks.make("parity")  # the expected length grows by `truth` along the gradient, by differences
    base = np.random.default_rng(10).normal(size=(task.N, task.V))
    base[:, -1] -= 3
    g = evaluate(task.tree, log_softmax(base)).slope
    g /= np.sqrt((g * g).sum())
    mean = [float(exact.lengths(task, TableLM(task, base + e * g)) @ np.arange(7)) for e in (-1e-4, 1e-4)]
    assert (mean[1] - mean[0]) / 2e-4 == pytest.approx(x.truth[0], abs=1e-7)
    assert np.mean(mean) == pytest.approx(x.mean[0], abs=1e-6)


def test_mean_weights_by_listing_all_batches() -> None:
    """Two prompts, groups of two: every combination of lengths with its probability."""
    task = token_tasks.parity(1, length=3)
    theta = np.random.default_rng(11).normal(size=(task.N, task.V))
    policy, logp = TableLM(task, theta), log_softmax(theta)
    alone = [only(policy, k) for k in range(2)]
    P = np.array([exact.lengths(x.task, x)[1:] for x in alone])
    for how in HOWS:
        sums, chance = np.zeros(3), np.zeros(3)
        for T in np.ndindex(3, 3, 3, 3):
            likely = P[0, T[0]] * P[0, T[1]] * P[1, T[2]] * P[1, T[3]]
            mask = 1.0 * (np.arange(3) <= np.array(T)[:, None])
            each = d_aggregate(mask, mask, how=how, group=np.array([0, 0, 1, 1]), length=3)[:, 0] * 4
            for i in range(4):
                sums[T[i]] += likely * each[i]
                chance[T[i]] += likely
        same(mean_weight(task.tree, logp, Estimator(2, how, "none", 0.0, True)), sums / chance)
    agree(np.swapaxes(sampled_weights(policy, 2, 400, np.random.default_rng(0))[1], 0, 1),
          mean_weight(task.tree, logp, Estimator(2, HOWS[1], "none", 0.0, True)))  # fmt: skip


def only(policy: TableLM, k: int) -> TableLM:
    """The same policy, asked one prompt only."""
    from dataclasses import replace

    weights = np.eye(policy.task.K)[k]
    return TableLM(replace(policy.task, weights=weights), policy.theta)


# ---- learning ----


def test_expected_path_is_the_mean_of_first_updates() -> None:
    """One step of many runs, in the mean, is the first step of the path; and the path is repeated steps."""
    task = token_tasks.make("brackets", tokens=4)
    path = expected_path(task, Estimator(16), dynamic=False, step=2.0, updates=3)
    assert path[0] == pytest.approx(2 / 16) and (np.diff(path) > 0).all()
    gradients = []
    for own in np.random.default_rng(12).spawn(300):
        policy = TableLM(task)
        next(train.grpo(task, policy, own, draw=Groups(16, 4), step=2.0, entropy=0.0))
        gradients.append(policy.theta)
    theta = np.mean(gradients, axis=0)
    gradient = exact.gradient(task, TableLM(task))
    one = float(w(2 / 16, 16, std="sample", eps=1e-4) / 4)
    agree(np.array(gradients), 2.0 * one * gradient)
    assert abs(float(exact.objective(task, TableLM(task, theta))) - path[1]) < 0.05


def test_predicted_runs_follow_with_many_groups() -> None:
    x = predicted(np.random.default_rng(13), runs=3, updates=6, groups=(4, 64))
    for path, (few, many) in zip(x.exact, x.runs, strict=True):
        assert few.k.tolist() == many.k.tolist() == [0, 2, 4, 6] and len(path) == 7
        assert abs(many.J.mean(axis=1) - path[many.k]).max() < 0.02


def test_ways_end_where_they_should() -> None:
    """k1 in the reward at the optimum, without noise; k3 in the loss at the rest that is computed, and not there."""
    x = ways(np.random.default_rng(14), runs=2, updates=400)
    task = token_tasks.make("copy", vocab=4, prompts=4)
    star = exact.optimum(task, TableLM(task), 0.5).logp
    uniform = log_softmax(np.zeros((task.N, task.V)))
    rest = TableLM(task, stationary(task.tree, uniform, 0.5, weight=partial(w, G=16, std="sample", eps=1e-4)))
    assert x.rest[0] == pytest.approx(0, abs=1e-14)
    assert x.rest[2] == pytest.approx(float(exact.kl(task, rest, TableLM(task, star)).sequence), abs=1e-12)
    assert x.runs[0].seen[-1].max() < 1e-6
    for run in x.runs[1:]:
        assert run.seen[-1, :, 1].max() < 0.02 < x.rest[1] < x.rest[2]
    same(x.runs[2].seen[0, :, 0], x.start)
    late = exact.kl(task, TableLM(task, x.runs[1].theta[0]), TableLM(task, star)).sequence
    assert x.runs[1].seen[-1, 0, 0] == pytest.approx(float(late), abs=1e-12)


def test_bounds_of_the_clip_begin_with_the_same_batch() -> None:
    a, b = clip_higher(np.random.default_rng(15), runs=2, highs=(0.2, 1.0), updates=4)
    np.testing.assert_array_equal(a.entropy[0], b.entropy[0])
    assert (a.clip_fraction[1:] >= 0).all() and (a.J[-1] != b.J[-1]).any()
    assert a.entropy[0] == pytest.approx(np.log(10))


def test_supervision_of_steps_makes_first_steps_right() -> None:
    found = supervision(np.random.default_rng(16), runs=3, updates=60)
    task = token_tasks.make("two-step")
    for label, x in found.items():
        assert (x.J[-1] > 0.95).all() and x.seen[0].ravel() == pytest.approx(1 / 7)
        pi = np.exp(log_softmax(TableLM(task, x.theta[0]).table))[:8]
        assert x.seen[-1, 0, 0] == pytest.approx((pi * task.tree.step_reward[:8]).sum() / 8)
        assert (x.seen[-1] > 0.95).all() == ("process" in label)


# ---- pictures ----

SMALL: dict[str, dict[str, Any]] = {
    "predicted": {"updates": 4, "groups": (2, 4)}, "clip_higher": {"updates": 4}, "ways": {"updates": 50},
    "dying": {"updates": 20}, "supervision": {"updates": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENS)
def test_pictures_draw(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with few runs and short ones; every panel has names, and something exact."""
    from tabrl.figures import token_gallery, token_pictures

    for function, small in SMALL.items():
        monkeypatch.setattr(token_gallery, function, partial(getattr(token_learning, function), **small))
    monkeypatch.setattr(token_pictures, "kept", partial(kept, groups=20, updates=4))
    assert gallery.FIGURES[name] is TOKENS[name]
    figure = TOKENS[name].draw(np.random.default_rng(17), 20 if TOKENS[name].runs > 100 else 2)
    assert image(figure).startswith(b"\x89PNG")
    for ax in figure.axes:
        assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title() and len(ax.lines) > 1


def test_curves_show_every_run_and_an_interval_that_holds_the_mean() -> None:
    rng = np.random.default_rng(18)
    y = rng.normal(size=(5, 12))
    b = interval(y, rng)
    assert (b.low < y.mean(axis=1)).all() and (y.mean(axis=1) < b.high).all()
    ax = new_figure().add_subplot()
    curves(ax, np.arange(5.0), [y, y + 1], ["a", "b"], rng, {"best": 3.0})
    thin = [line.get_ydata() for line in ax.lines if line.get_linewidth() < 1]
    same(np.array(thin), np.vstack([y.T, y.T + 1]), 0)
    one = interval(y[:, :1], rng)
    np.testing.assert_array_equal(one.low, one.high)
    assert gap(y, y, rng).startswith("+0.000")


def test_outcome_names_success_only_where_rewards_are_right_and_wrong() -> None:
    for name, words in (("modular", "success probability"), ("bandit", "J, exact")):
        x = several(partial(begin, name, "grpo"), np.random.default_rng(0), runs=2, records=2)
        figure = outcome(token_tasks.make(name), x, np.random.default_rng(0), title="t")
        assert words in figure.axes[0].get_ylabel() and "J*: 1" in figure.axes[0].get_legend_handles_labels()[1]
