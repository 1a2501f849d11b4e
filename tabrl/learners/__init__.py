"""The learners by name, and how one run of them becomes a curve.

V (S,) values; Q (S,A) action values; pi (S,A) policy; t transitions; times (K,) when a curve is read off.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tabrl import sample
from tabrl.learners.registry import (
    CONTROL,
    LEARNERS,
    OPTIONS,
    POLICY,
    PREDICTION,
    About,
    Learner,
    about,
    settings,
    takes,
)
from tabrl.mdp import MDP
from tabrl.types import F, I, Transitions

__all__ = [
    "CONTROL", "LEARNERS", "OPTIONS", "POLICIES", "POLICY", "PREDICTION", "About", "Learner", "Task", "about",
    "act", "blocks", "curve", "curves", "held", "kept", "policy", "predict", "seeded", "settings", "takes",
    "times",
]  # fmt: skip
POINTS = 50  # of a curve
T = TypeVar("T")


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


def times(steps: int, points: int = POINTS, unit: int = 1) -> I:
    """At most `points` evenly spaced times, multiples of `unit`, the last one `steps` or a little more.

    >>> times(1000, 4)
    array([ 250,  500,  750, 1000])
    >>> times(10, 4)
    array([ 3,  6,  9, 12])
    >>> times(10, 4, unit=4)
    array([ 4,  8, 12])
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; one transition or more is expected")
    every = -(-steps // (points * unit)) * unit
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

    def before(x: Any) -> Any:
        return x._replace(**{name: np.zeros_like(getattr(x, name)) if start is None else start})

    return np.array([getattr(x, name) for x in kept(records, times, before)])


def kept(records: Iterable[Any], times: I, before: Callable[[Any], Any]) -> list[Any]:
    """The record that counts at each of the times: the last one that was yielded by then.

    before: makes what counts before the first record out of it. Stops at the last time.
    """
    out: list[Any] = []
    now = None
    for x in records:
        now = before(x) if now is None else now
        while len(out) < len(times) and times[len(out)] < x.t:
            out.append(now)
        now = x
        if len(out) < len(times) and times[len(out)] == x.t:
            out.append(now)
        if len(out) == len(times):
            break
    if now is None:
        raise ValueError("records is empty; a learner that yields at least once is expected")
    return [*out, *[now] * (len(times) - len(out))]


def curves(task: Task, seed: int, runs: int, tick: Callable[[], None] = lambda: None) -> F:
    """Run a learner several times, each with its own child of the seed: (K, runs, *shape).

    The first runs are the same whatever their number. tick: called after each.
    """
    return np.stack(seeded(lambda rng: curve(task, rng), seed, runs, tick), axis=1)


def seeded(run: Callable[[np.random.Generator], T], seed: int, runs: int, tick: Callable[[], None]) -> list[T]:
    """What a function returns for each child of the seed; tick is called after each."""
    if runs < 1:
        raise ValueError(f"runs is {runs}; one run or more is expected")
    found = []
    for child in np.random.SeedSequence(seed).spawn(runs):
        found.append(run(np.random.default_rng(child)))
        tick()
    return found


def policy(mdp: MDP, name: str, eps: float) -> F:
    """A policy by name: "uniform" over the legal actions, "optimal", or "eps-greedy" in the optimal Q: (S,A)."""
    from tabrl import dp
    from tabrl.companions import eps_greedy

    if name == "uniform":
        return eps_greedy(np.zeros((mdp.S, mdp.A)), mdp.legal, 1.0)
    best = dp.solve(mdp).pi
    return best if name == "optimal" else eps_greedy(best, mdp.legal, eps)


POLICIES = ("uniform", "optimal", "eps-greedy")
