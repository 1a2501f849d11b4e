"""The learners by name: where they are, what they take, and how one run of them becomes a curve.

V (S,) values; Q (S,A) action values; pi (S,A) policy; t transitions; times (K,) when a curve is read off.
A name leads to a function that is imported when it is asked for; what it takes is read from its signature, what it
does from its docstring.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from textwrap import dedent
from typing import Any, NamedTuple

import numpy as np

from tabrl import sample
from tabrl.mdp import MDP
from tabrl.schedules import harmonic
from tabrl.types import F, I, Transitions

PREDICTION, CONTROL = "prediction", "control"
# what a user can set, where a learner takes it
OPTIONS = ("alpha", "eps", "n", "lam", "trace", "visit", "kind", "planning", "kappa", "theta")
POINTS = 50  # of a curve


class Learner(NamedTuple):
    """Where a learner is, and what it is given where the user says nothing."""

    kind: str  # PREDICTION: V of a policy; CONTROL: Q of a good one
    module: str
    function: str
    defaults: Mapping[str, Any]
    feed: str = "stream"  # "stream" of transitions, whole "episodes", or episodes of another policy: "behaviour"

    def load(self) -> Callable[..., Iterator[Any]]:
        """Import the function."""
        return getattr(import_module(f"tabrl.{self.module}"), self.function)  # type: ignore[no-any-return]


class About(NamedTuple):
    """What a docstring says: its first line, the equations under it, and where they come from."""

    title: str
    equation: str
    source: str


STEP, EXPLORE = {"alpha": 0.1}, {"alpha": 0.5, "eps": 0.1}
LEARNERS: dict[str, Learner] = {
    "td0": Learner(PREDICTION, "prediction", "td0", STEP),
    "n-step-td": Learner(PREDICTION, "prediction", "n_step_td", {**STEP, "n": 4}),
    "td-lambda": Learner(PREDICTION, "prediction", "td_lambda", {**STEP, "lam": 0.8}),
    "true-online-td": Learner(PREDICTION, "prediction", "true_online_td", {**STEP, "lam": 0.8}),
    "monte-carlo": Learner(PREDICTION, "prediction", "monte_carlo", {"alpha": harmonic}, "episodes"),
    "lambda-return": Learner(PREDICTION, "prediction", "lambda_return", {**STEP, "lam": 0.8}, "episodes"),
    "off-policy-monte-carlo": Learner(PREDICTION, "off_policy", "off_policy_monte_carlo", {}, "behaviour"),
    "q-learning": Learner(CONTROL, "control", "q_learning", EXPLORE),
    "sarsa": Learner(CONTROL, "control", "sarsa", EXPLORE),
    "expected-sarsa": Learner(CONTROL, "control", "expected_sarsa", EXPLORE),
    "double-q-learning": Learner(CONTROL, "control", "double_q_learning", EXPLORE),
    "n-step-sarsa": Learner(CONTROL, "control_n_step", "n_step_sarsa", {**EXPLORE, "n": 4}),
    "n-step-expected-sarsa": Learner(CONTROL, "control_n_step", "n_step_expected_sarsa", {**EXPLORE, "n": 4}),
    "tree-backup": Learner(CONTROL, "control_n_step", "tree_backup", {**EXPLORE, "n": 4}),
    "sarsa-lambda": Learner(CONTROL, "control_traces", "sarsa_lambda", {**EXPLORE, "lam": 0.8, "trace": "replacing"}),
    "watkins-q": Learner(CONTROL, "control_traces", "watkins_q", {**EXPLORE, "lam": 0.8, "trace": "replacing"}),
    "mc-control": Learner(CONTROL, "control_monte_carlo", "mc_control", {}),
    "exploring-starts": Learner(CONTROL, "control_monte_carlo", "exploring_starts", {}),
    "off-policy-mc-control": Learner(CONTROL, "control_monte_carlo", "off_policy_mc_control", {}),
    "dyna-q": Learner(CONTROL, "dyna", "dyna_q", {**EXPLORE, "planning": 10}),
    "dyna-q-plus": Learner(CONTROL, "dyna", "dyna_q_plus", {**EXPLORE, "planning": 10, "kappa": 1e-3}),
    "prioritized-dyna": Learner(CONTROL, "dyna", "prioritized_dyna", {"planning": 10}),
}


class Task(NamedTuple):
    """What one run does."""

    name: str  # of the learner
    source: Any  # an MDP, or a gymnasium environment (control)
    settings: Mapping[str, Any]  # options of the learner
    times: I  # (K,) transitions after which the curve is read off; the last one ends the run
    pi: F | None = None  # (S,A) the policy that is predicted
    b: F | None = None  # (S,A) the policy that acts instead, off-policy
    limit: int | None = None
    gamma: float | None = None  # of a gymnasium environment


def about(function: Callable[..., Any]) -> About:
    """Read title, equations and source from a docstring.

    >>> from tabrl.prediction import td0
    >>> about(td0).title
    'TD(0)'
    >>> print(about(td0).equation)
    V(s) <- V(s) + alpha delta,   delta = r + discount V(s') - V(s)
    """
    text = inspect.getdoc(function) or ""
    title = text.partition("\n")[0].rstrip(".").replace("`", "")
    equation = next((part for part in text.split("\n\n") if part.startswith("    ")), "")
    source = text.partition("Source: ")[2].split("\n\n")[0]
    return About(title, dedent(equation).strip(), " ".join(source.split()))


def takes(name: str) -> tuple[str, ...]:
    """List the options that a learner takes.

    >>> takes("n-step-td")
    ('alpha', 'n')
    """
    parameters = inspect.signature(LEARNERS[name].load()).parameters
    return tuple(x for x in OPTIONS if x in parameters)


def settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the options of a learner; ValueError for one that it does not take.

    >>> settings("td-lambda", {"lam": 0.5})
    {'trace': 'accumulating', 'alpha': 0.1, 'lam': 0.5}
    """
    learner, allowed = LEARNERS[name], takes(name)
    for x, value in given.items():
        if x not in allowed:
            raise ValueError(f"--{x} is {value}; {name} takes {', '.join('--' + y for y in allowed)}")
    own = {x: p.default for x, p in inspect.signature(learner.load()).parameters.items() if x in allowed}
    return {**{x: y for x, y in own.items() if y is not inspect.Parameter.empty}, **learner.defaults, **given}


def times(steps: int, points: int = POINTS) -> I:
    """At most `points` evenly spaced times, the last one `steps` or a little more.

    >>> times(1000, 4)
    array([ 250,  500,  750, 1000])
    >>> times(10, 4)
    array([ 3,  6,  9, 12])
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; one transition or more is expected")
    every = -(-steps // points)
    return np.arange(every, steps + every, every)


def curve(task: Task, rng: np.random.Generator) -> F:
    """Run a learner once from zeros; its V (K,S) or Q (K,S,A) at the times of the task.

    Between two records the older one counts: a learner that waits for the end of an episode has not learned
    anything from the running one.
    """
    learner = LEARNERS[task.name]
    follow = act if learner.kind == CONTROL else predict
    return follow(task, learner, rng)


def predict(task: Task, learner: Learner, rng: np.random.Generator) -> F:
    """Values (K,S) along one run."""
    mdp, pi = task.source, task.pi
    every = int(task.times[0]) if learner.feed == "stream" else 1
    experience: Iterable[Any]
    if learner.feed == "stream":
        experience = blocks(sample.Stream(mdp, pi, rng, limit=task.limit), int(task.times[-1]))  # type: ignore[arg-type]
    else:
        acting = task.b if learner.feed == "behaviour" else pi
        experience = sample.episodes(mdp, acting, rng, limit=task.limit)  # type: ignore[arg-type]
    target = {"pi": pi} if learner.feed == "behaviour" else {}
    V = np.zeros(mdp.S)
    return held(learner.load()(experience, V=V, every=every, **target, **task.settings), "V", task.times, V)


def act(task: Task, learner: Learner, rng: np.random.Generator) -> F:
    """Action values (K,S,A) along one run."""
    function = learner.load()
    wanted = {"limit": task.limit, "gamma": task.gamma, "every": int(task.times[0])}
    taken = inspect.signature(function).parameters
    records = function(task.source, rng, **task.settings, **{x: y for x, y in wanted.items() if x in taken})
    return held(records, "Q", task.times, None)


def blocks(stream: sample.Stream, steps: int) -> Iterator[Transitions]:
    """Draw exactly `steps` transitions of a stream, in blocks."""
    for i in range(0, steps, stream.block):
        yield stream.draw(min(stream.block, steps - i))[0]


def held(records: Iterable[Any], name: str, times: I, start: F | None) -> F:
    """Read a field off at given times, keeping the older record in between: (K, *shape).

    start: what counts before the first record; None: zeros of its shape. Stops at the last time.
    """
    out: list[F] = []
    now = start
    for x in records:
        new = getattr(x, name)
        now = np.zeros_like(new) if now is None else now
        while len(out) < len(times) and times[len(out)] < x.t:
            out.append(now)
        now = new
        if len(out) < len(times) and times[len(out)] == x.t:
            out.append(now)
        if len(out) == len(times):
            break
    if now is None:
        raise ValueError("records is empty; a learner that yields at least once is expected")
    return np.array([*out, *[now] * (len(times) - len(out))])


def curves(task: Task, seed: int, runs: int, tick: Callable[[], None] = lambda: None) -> F:
    """Run a learner several times, each with its own child of the seed: (K, runs, *shape).

    The first runs are the same whatever their number. tick: called after each.
    """
    if runs < 1:
        raise ValueError(f"runs is {runs}; one run or more is expected")
    found = []
    for child in np.random.SeedSequence(seed).spawn(runs):
        found.append(curve(task, np.random.default_rng(child)))
        tick()
    return np.stack(found, axis=1)


def policy(mdp: MDP, name: str, eps: float) -> F:
    """A policy by name: "uniform" over the legal actions, "optimal", or "eps-greedy" in the optimal Q: (S,A)."""
    from tabrl import dp
    from tabrl.companions import eps_greedy

    if name == "uniform":
        return eps_greedy(np.zeros((mdp.S, mdp.A)), mdp.legal, 1.0)
    best = dp.solve(mdp).pi
    return best if name == "optimal" else eps_greedy(best, mdp.legal, eps)


POLICIES = ("uniform", "optimal", "eps-greedy")
