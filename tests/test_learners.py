"""The registry of learners, and how a run becomes a curve."""

import inspect
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest
from models import random_mdp, random_policy

from tabrl import MDP, companions, control, envs, prediction, sample
from tabrl.learners import (
    CONTROL,
    LEARNERS,
    OPTIONS,
    POLICIES,
    PREDICTION,
    Task,
    about,
    act,
    blocks,
    curve,
    curves,
    held,
    policy,
    settings,
    takes,
    times,
)
from tabrl.prediction import harmonic
from tabrl.trace import last

LEARNED = [name for name, x in LEARNERS.items() if x.kind == PREDICTION]
ACTING = [name for name, x in LEARNERS.items() if x.kind == CONTROL]


class Record(NamedTuple):
    t: int
    V: Any


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_there_described_and_has_what_it_needs(name: str) -> None:
    function = LEARNERS[name].load()
    said = about(function)
    assert said.title and said.source.startswith(("Sutton", "van", "Watkins", "Rummery", "Precup", "Moore"))
    assert not said.equation.startswith(" ")
    given = settings(name, {})
    assert set(given) <= set(takes(name)) <= set(OPTIONS)
    own = {"experience", "source", "rng", "V", "every", "pi"}
    needed = {x for x, p in inspect.signature(function).parameters.items() if p.default is inspect.Parameter.empty}
    assert needed - own <= set(given)


def test_what_the_user_sets_comes_last_and_foreign_options_are_named() -> None:
    assert settings("td-lambda", {"lam": 0.5}) == {"alpha": 0.1, "lam": 0.5, "trace": "accumulating"}
    assert settings("monte-carlo", {}) == {"alpha": harmonic, "visit": "every"}
    with pytest.raises(ValueError, match=r"--lam is 0.5; sarsa takes --alpha, --eps$"):
        settings("sarsa", {"lam": 0.5})


def test_docstrings_are_read_as_title_equation_and_source() -> None:
    def learner() -> None:
        """A `rule`: in words.

            x <- x + 1
              <- y

        More words. Source: Someone (1999),
        chapter 2.

        >>> 1
        1
        """

    assert about(learner) == ("A rule: in words", "x <- x + 1\n  <- y", "Someone (1999), chapter 2.")
    assert about(lambda: None) == ("", "", "")


@pytest.mark.parametrize(("steps", "points"), [(1, 50), (49, 50), (50, 50), (51, 50), (10_000, 50), (9_973, 7)])
def test_times_end_at_the_steps_or_within_one_interval(steps: int, points: int) -> None:
    t = times(steps, points)
    assert len(t) <= points and (np.diff(t, prepend=0) == t[0]).all()
    assert steps <= t[-1] < steps + t[0]
    with pytest.raises(ValueError, match="steps is 0; one transition or more"):
        times(0)


@pytest.mark.parametrize("seed", range(30))
def test_between_records_the_older_one_counts(seed: int) -> None:
    rng = np.random.default_rng([50, seed])
    t = np.sort(rng.choice(np.arange(1, 40), size=int(rng.integers(1, 12)), replace=False))
    when = times(int(rng.integers(5, 50)), int(rng.integers(1, 10)))
    records = [Record(int(x), np.array([float(x)])) for x in t]
    found = held(iter(records), "V", when, np.array([-1.0]))[:, 0]
    for x, value in zip(when, found, strict=True):
        before = t[t <= x]
        assert value == (before[-1] if len(before) else -1.0)


def test_holding_stops_an_endless_learner_and_refuses_a_silent_one() -> None:
    seen: list[int] = []

    def endless() -> Any:
        for t in range(5, 10**9, 5):
            seen.append(t)
            yield Record(t, np.ones((2, 2)))

    assert held(endless(), "V", np.array([7, 14]), None)[:, 0, 0].tolist() == [1.0, 1.0]
    assert seen[-1] == 15
    assert held(iter([Record(9, np.ones(1))]), "V", np.array([4]), None).tolist() == [[0.0]]
    with pytest.raises(ValueError, match="records is empty"):
        held(iter([]), "V", np.array([1]), None)


@pytest.mark.parametrize("steps", [1, 100, 8192, 20_000])
def test_blocks_hold_exactly_the_steps(steps: int) -> None:
    stream = sample.Stream(envs.random_walk(5), np.ones((7, 1)), np.random.default_rng(0))
    parts = [x.r.size for x in blocks(stream, steps)]
    assert sum(parts) == steps and max(parts) <= stream.block


def started(mdp: MDP) -> MDP:
    mu = np.where(mdp.terminal, 0.0, 1.0)
    return MDP(mdp.P, mdp.R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal, legal=mdp.legal)


def world(seed: int) -> MDP:
    return started(random_mdp(np.random.default_rng([51, seed]), S=5, A=3, gamma=0.9, proper=True, masked=True))


@pytest.mark.parametrize("name", ["td0", "n-step-td", "td-lambda", "true-online-td"])
def test_a_curve_is_the_learner_on_one_stream(name: str) -> None:
    mdp, when = world(0), times(400, 8)
    pi = policy(mdp, "uniform", 1.0)
    V = curve(Task(name, mdp, settings(name, {}), when, pi, limit=7), np.random.default_rng(3))
    stream = sample.Stream(mdp, pi, np.random.default_rng(3), limit=7)
    whole = last(LEARNERS[name].load()([stream.draw(400)[0]], V=np.zeros(mdp.S), every=400, **settings(name, {})))
    assert V.shape == (8, mdp.S)
    # updates of n-step TD lag: its last record within the 400 transitions comes before the end
    assert (V[-1] == whole.V).all() or name == "n-step-td"
    assert (abs(V[-1] - whole.V) <= 1.0 * abs(whole.V).max()).all() and (V[0] != V[-1]).any()


@pytest.mark.parametrize("name", ["monte-carlo", "lambda-return", "off-policy-monte-carlo"])
def test_a_curve_of_an_episodic_learner_counts_whole_episodes(name: str) -> None:
    mdp, when = world(1), times(300, 6)
    pi, b = random_policy(np.random.default_rng(4), mdp), policy(mdp, "uniform", 1.0)
    V = curve(Task(name, mdp, settings(name, {}), when, pi, b), np.random.default_rng(5))
    acting = b if name.startswith("off") else pi
    episodes, t = [], 0
    for x in islice(sample.episodes(mdp, acting, np.random.default_rng(5)), 400):
        t += len(x.r)
        if t > 300:
            break
        episodes.append(x)
    extra = {"pi": pi} if name.startswith("off") else {}
    whole = last(LEARNERS[name].load()(episodes, V=np.zeros(mdp.S), every=10**9, **extra, **settings(name, {})))
    assert abs(V[-1] - whole.V).max() <= 1e-12


@pytest.mark.parametrize("name", ACTING)
def test_every_control_learner_runs_on_a_model_with_masks(name: str) -> None:
    mdp, when = world(2), times(300, 5)
    Q = curves(Task(name, mdp, settings(name, {}), when, limit=50), seed=0, runs=2)
    assert Q.shape == (5, 2, mdp.S, mdp.A) and np.isfinite(Q).all()
    assert (Q[:, :, ~mdp.legal] == 0).all() and (Q[-1, 0] != Q[-1, 1]).any()


def test_control_curves_are_those_of_the_learner() -> None:
    mdp, when = world(3), times(500, 5)
    Q = act(Task("sarsa", mdp, settings("sarsa", {}), when), LEARNERS["sarsa"], np.random.default_rng(7))
    records = islice(control.sarsa(mdp, np.random.default_rng(7), alpha=0.5, eps=0.1, every=100), 5)
    assert (np.array([x.Q for x in records]) == Q).all()


def test_runs_have_their_own_seeds_and_more_runs_keep_the_first() -> None:
    mdp = world(4)
    task = Task("td0", mdp, {"alpha": 0.1}, times(100, 4), policy(mdp, "uniform", 1.0))
    heard: list[int] = []
    three = curves(task, 9, 3, lambda: heard.append(1))
    assert heard == [1, 1, 1] and three.shape == (4, 3, mdp.S)
    assert (curves(task, 9, 2) == three[:, :2]).all()
    assert (three[:, 0] != three[:, 1]).any() and (curves(task, 10, 1)[:, 0] != three[:, 0]).any()
    with pytest.raises(ValueError, match="runs is 0; one run or more"):
        curves(task, 9, 0)


def test_policies_by_name() -> None:
    mdp = envs.cliff()
    assert set(POLICIES) == {"uniform", "optimal", "eps-greedy"}
    best, mixed = policy(mdp, "optimal", 0.3), policy(mdp, "eps-greedy", 0.3)
    assert (policy(mdp, "uniform", 0.0) == mdp.legal / mdp.legal.sum(axis=1, keepdims=True)).all()
    assert set(np.unique(best)) == {0.0, 1.0}
    assert np.allclose(mixed, 0.7 * best + 0.3 * policy(mdp, "uniform", 0.0), atol=1e-15)
    assert companions.worth(mdp, best) == pytest.approx(-13.0)


def test_a_schedule_is_taken_as_it_is() -> None:
    mdp = envs.random_walk(5)
    task = Task("td0", mdp, settings("td0", {"alpha": harmonic}), times(50, 1), np.ones((7, 1)))
    stream = sample.Stream(mdp, np.ones((7, 1)), np.random.default_rng(2))
    expected = last(prediction.td0([stream.draw(50)[0]], alpha=harmonic, V=np.zeros(7), every=50)).V
    assert (curve(task, np.random.default_rng(2))[0] == expected).all()
