"""The registry of learners, and how a run becomes a curve."""

import inspect
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest
from models import random_mdp, random_policy

from tabrl import MDP, actor_critic, companions, control, dp, envs, gradient, policy_gradients, ppo, prediction, sample
from tabrl.learners import (
    CONTROL,
    LEARNERS,
    OPTIONS,
    POLICIES,
    POLICY,
    PREDICTION,
    Task,
    about,
    act,
    blocks,
    curve,
    curves,
    held,
    judged,
    policies,
    policy,
    settings,
    takes,
    times,
)
from tabrl.learners.draw import from_start
from tabrl.optimise import adam
from tabrl.policy import softmax
from tabrl.prediction import harmonic
from tabrl.trace import last

LEARNED = [name for name, x in LEARNERS.items() if x.kind == PREDICTION]
ACTING = [name for name, x in LEARNERS.items() if x.kind == CONTROL]
IMPROVING = [name for name, x in LEARNERS.items() if x.kind == POLICY]
AUTHORS = ("Sutton", "van", "Watkins", "Rummery", "Precup", "Moore", "Williams", "Mnih", "Schulman", "Kakade")


class Record(NamedTuple):
    t: int
    V: Any


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_there_described_and_has_what_it_needs(name: str) -> None:
    function = LEARNERS[name].load()
    said = about(function)
    assert said.title and said.source.startswith(AUTHORS)
    assert not said.equation.startswith(" ")
    given = settings(name, {})
    assert set(given) <= set(takes(name)) <= set(OPTIONS)
    own = {"experience", "source", "rng", "V", "every", "pi"}
    needed = {x for x, p in inspect.signature(function).parameters.items() if p.default is inspect.Parameter.empty}
    assert needed - own <= set(policies.keywords(name, given) if name in IMPROVING else given)


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
    whole = times(steps, points, 7)
    assert len(whole) <= points and (whole % 7 == 0).all() and steps <= whole[-1] < steps + whole[0]


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


# ---- policy gradients ----

TRIED: dict[str, Any] = {
    "alpha": 0.02, "lam": 0.5, "batch": 64, "clip": 0.1, "epochs": 2, "entropy": 0.01, "beta": 0.5, "target": 0.02,
    "delta": 0.003, "optimism": 2.0,
}  # fmt: skip


def improved(name: str, given: Any, steps: int = 320, seed: int = 2) -> tuple[Task, policies.Paths]:
    mdp, options = world(seed), settings(name, given)
    when = times(steps, 5, policies.unit(name, options))
    task = Task(name, mdp, options, when, limit=50)
    return task, policies.paths(task, 0, 2)


@pytest.mark.parametrize("name", IMPROVING)
def test_every_policy_gradient_runs_on_a_model_with_masks(name: str) -> None:
    batch = {"batch": 4 if name == "reinforce" else 64} if "batch" in takes(name) else {}
    task, x = improved(name, batch)
    mdp = task.source
    assert x.theta.shape == (5, 2, mdp.S, mdp.A) and np.isfinite(x.theta).all() and x.kl.shape == (5, 2)
    assert (x.theta[:, :, ~mdp.legal] == 0).all() and (x.theta[-1, 0] != x.theta[-1, 1]).any()
    assert (abs(x.cosine[-1]) <= 1).all() and (x.kl[-1] >= 0).all()
    assert (x.entropy[-1] > 0).all() and (x.entropy[-1] <= np.log(mdp.A)).all()


@pytest.mark.parametrize("name", IMPROVING)
@pytest.mark.parametrize("option", TRIED)
def test_an_option_reaches_its_learner_or_is_refused(name: str, option: str) -> None:
    if option not in takes(name):
        with pytest.raises(ValueError, match=f"--{option} is .*; {name} takes --"):
            settings(name, {option: TRIED[option]})
        return
    batch = {"batch": 6 if name == "reinforce" else 64} if "batch" in takes(name) and option != "batch" else {}
    _, plain = improved(name, batch, 640)
    _, other = improved(name, batch | {option: 8 if (name, option) == ("reinforce", "batch") else TRIED[option]}, 640)
    assert plain.theta[-1].tobytes() != other.theta[-1].tobytes()


def literal(name: str, mdp: MDP, rng: np.random.Generator) -> Any:
    """The same learners, called as a user of the library calls them."""
    if name == "ppo":
        return ppo.ppo(mdp, rng, step=adam(0.1), clip=(0.3, 0.3), steps=64, epochs=4, lam=0.95, limit=50)
    if name == "actor-critic":
        each: dict[str, Any] = {"alpha_theta": 0.2, "alpha_V": 0.2, "lam_theta": 0.5, "lam_V": 0.5}
        return actor_critic.actor_critic(mdp, rng, **each, every=64, limit=50)
    return policy_gradients.reinforce(mdp, rng, step=adam(0.1), episodes=3, critic=0.5, whiten=True, limit=50)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("ppo", {"alpha": 0.1, "clip": 0.3, "batch": 64}),
        ("actor-critic", {"alpha": 0.2, "lam": 0.5}),
        ("reinforce", {"batch": 3}),
    ],
)
def test_policy_curves_are_those_of_the_learner(name: str, given: dict[str, Any]) -> None:
    task, x = improved(name, given)
    assert task.times.tolist() == [64, 128, 192, 256, 320]
    children = np.random.SeedSequence(0).spawn(2)
    for run, child in enumerate(children):
        records = [*islice(literal(name, task.source, np.random.default_rng(child)), 200)]
        for k, t in enumerate(task.times):
            past = [y for y in records if y.t <= t]
            expected = past[-1].theta if past else np.zeros_like(x.theta[0, 0])
            assert (x.theta[k, run] == expected).all()
            if past:
                found = x.cosine[k, run], x.clip_fraction[k, run], x.kl[k, run], x.entropy[k, run]
                assert found == (past[-1].cosine, past[-1].clip_fraction, past[-1].kl, past[-1].entropy)
                assert judged.worth(task.source, x.theta[k, run]) == pytest.approx(past[-1].J, rel=1e-12)


def test_before_the_first_batch_nothing_is_learned() -> None:
    _, x = improved("reinforce", {"batch": 300})
    assert (x.theta == 0).all() and np.isnan(x.cosine).all() and np.isnan(x.kl).all() and np.isnan(x.entropy).all()


def test_entropy_falls_from_the_first_update_to_the_end() -> None:
    weight = policies.annealed(0.5, 0.1, 4)
    assert [float(weight(np.array([k]))[0]) for k in (1.0, 3.0, 5.0, 99.0)] == pytest.approx([0.5, 0.3, 0.1, 0.1])
    task, x = improved("a2c", {"batch": 64, "entropy": (0.5, 0.0)})
    rng = np.random.default_rng(np.random.SeedSequence(0).spawn(2)[0])
    options: dict[str, Any] = {"steps": 64, "lam": 0.95, "critic": 0.5, "every": 5, "limit": 50}
    y = next(actor_critic.a2c(task.source, rng, step=adam(0.1), entropy=policies.annealed(0.5, 0.0, 5), **options))
    assert (y.theta == x.theta[-1, 0]).all()
    with pytest.raises(ValueError, match="--entropy is 0:-1; two numbers >= 0"):
        policies.annealed(0.0, -1.0, 3)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("ppo", {"alpha": 0.0}, "--alpha is 0.0; a positive number"),
        ("npg", {"alpha": np.nan}, "--alpha is nan; a positive number"),
        ("actor-critic", {"alpha": harmonic}, "--alpha is 1/k; a number"),
        ("reinforce", {"batch": 0}, "--batch is 0; 1 or more"),
        ("trpo", {"batch": -1}, "--batch is -1; 1 or more"),
        ("a2c", {"optimism": np.inf}, "--optimism is inf; a finite number"),
    ],
)
def test_options_without_meaning_are_named(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        improved(name, given)


@pytest.mark.parametrize("seed", range(20))
def test_the_worth_of_a_policy_is_the_exact_objective(seed: int) -> None:
    mdp = world(seed)
    theta = np.random.default_rng([52, seed]).normal(size=(mdp.S, mdp.A))
    assert judged.worth(mdp, theta) == pytest.approx(gradient.objective(mdp, theta), rel=1e-12)


@pytest.mark.parametrize(("z", "ends"), [(0.0, True), (20.0, True), (36.0, False), (37.0, False), (800.0, False)])
def test_a_saturated_policy_has_no_worth_without_discount(z: float, ends: bool) -> None:
    loop = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [-1, 0], 1.0, terminal=[0, 1], mu=[1, 0])
    J = judged.worth(loop, np.array([[z, 0.0], [0.0, 0.0]]))
    # the mean number of steps is 1 / (chance to end) = 1 + exp(z); what rounding takes from it is about U exp(z)
    assert np.isnan(J) if not ends else pytest.approx(-1.0 - np.exp(z), rel=1e-6) == J


def test_runs_near_the_optimum_are_counted() -> None:
    mdp = envs.make("frozen-lake", gamma=0.99)
    star = dp.solve(mdp)
    best = 50.0 * star.pi
    some = np.log(0.85 * star.pi + 0.05)  # right in every state, but not sure
    x = judged.Improved(mdp, np.stack([[best, np.zeros_like(best), some]]))
    assert x.curve[0, 0] == pytest.approx(x.J_star, rel=1e-9) and x.curve[0, 1] == x.start
    assert x.start < x.curve[0, 2] < 0.99 * x.J_star and x.near == 1
    assert np.allclose(x.final[2], softmax(some)) and x.J_star == float(mdp.mu @ star.V)


def test_the_axis_begins_at_the_first_policy_unless_that_is_far_away() -> None:
    curve = np.array([[-900.0, -800.0], [-14.0, -15.0]])
    assert from_start(curve, -13.0, -100.0) == pytest.approx((-105.22, -7.78))
    low, high = from_start(curve, -13.0, -6e4)
    assert -100 < low < -15 and high > -13
    low, high = from_start(np.full((2, 2), np.nan), -13.0, np.nan)
    assert low < -13 < high
