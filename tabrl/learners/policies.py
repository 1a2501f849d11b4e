"""Policy gradients as learners by name: what the user's options mean to each, and how their runs become curves.

theta (S,A) preferences of a softmax policy; k updates, t transitions so far; times (K,) when a curve is read off.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl.learners import LEARNERS, Task, kept, seeded
from tabrl.optimise import adam
from tabrl.schedules import Schedule
from tabrl.types import F, PGStep

Keywords = dict[str, Any]


class Paths(NamedTuple):
    """What several runs went through, read off at K times; before the first update theta is 0, the rest nan."""

    theta: F  # (K,runs,S,A)
    cosine: F  # (K,runs) of the last update's gradient estimate with the exact gradient; nan without a model
    clip_fraction: F  # (K,runs)
    kl: F  # (K,runs) mean KL(old || new) of the last update
    entropy: F  # (K,runs) mean over the states of the last batch


def named(name: str) -> Callable[[Any], Keywords]:
    """An option that the learner calls `name`."""
    return lambda x: {name: x}


def step(x: Any) -> Keywords:
    """The step size of Adam."""
    return {"step": adam(positive(x))}


def natural(x: Any) -> Keywords:
    """The step size along the natural gradient."""
    return {"eta": positive(x)}


def alone(x: Any) -> Keywords:
    """The step size of policy and critic, where no schedule will do."""
    if callable(x):
        raise ValueError("--alpha is 1/k; a number is expected")
    return {"alpha_theta": positive(x), "alpha_V": x}


def traces(x: Any) -> Keywords:
    """The decay of both traces."""
    return {"lam_theta": x, "lam_V": x}


def positive(x: Any) -> Any:
    """Require a step size > 0, or a schedule."""
    if not callable(x) and not 0 < x < np.inf:
        raise ValueError(f"--alpha is {x}; a positive number is expected")
    return x


def first_value(x: Any) -> Keywords:
    """What the critic holds of every state at first."""
    if not np.isfinite(x):
        raise ValueError(f"--optimism is {x}; a finite number is expected")
    return {"V": x}


def count(name: str) -> Callable[[int], Keywords]:
    """The size of a batch, which the learner calls `name`."""

    def named(n: int) -> Keywords:
        if n < 1:
            raise ValueError(f"--batch is {n}; 1 or more are expected")
        return {name: n}

    return named


Meaning: TypeAlias = Callable[[Any], Keywords]  # of an option: its value to keywords of the learner
START: dict[str, Meaning] = {"optimism": first_value}
BATCH = {"batch": count("steps"), "lam": named("lam")} | START
PROXIMAL = {"alpha": step, "epochs": named("epochs"), "entropy": named("entropy")} | BATCH
# options of each learner, and the keywords that they become
KEYWORDS: dict[str, dict[str, Meaning]] = {
    "reinforce": {"alpha": step, "batch": count("episodes")} | START,
    "actor-critic": {"alpha": alone, "lam": traces, **START},
    "a2c": {"alpha": step, "entropy": named("entropy")} | BATCH,
    "ppo": {"clip": lambda x: {"clip": (x, x)}} | PROXIMAL,
    "ppo-kl": {"beta": named("beta"), "target": named("target")} | PROXIMAL,
    "npg": {"alpha": natural} | BATCH,
    "trpo": {"delta": named("delta")} | BATCH,
}
# what the user cannot set, and a reader wants to know
FIXED: dict[str, Keywords] = {
    "reinforce": {"critic": 0.5, "whiten": True},
    "a2c": {"critic": 0.5, "whiten": False},
    "ppo": {"critic": 0.5, "whiten": True, "minibatches": 4},
    "ppo-kl": {"critic": 0.5, "whiten": True, "minibatches": 4},
    "npg": {"critic": 0.5, "whiten": True},
    "trpo": {"critic": 0.5, "whiten": True},
}


class falling:  # noqa: N801
    """A schedule from one number to another, linear over n updates and constant from then on.

    >>> falling(0.5, 0.1, 4)(np.array([1.0, 3.0, 5.0, 9.0]))
    array([0.5, 0.3, 0.1, 0.1])
    """

    def __init__(self, start: float, end: float, n: int) -> None:
        self.start, self.end, self.n = start, end, n

    def __call__(self, k: F) -> F:
        """Return the sizes of the k-th updates, k from 1."""
        share: F = np.minimum((k - 1) / self.n, 1.0)
        return self.start + (self.end - self.start) * share


def unit(name: str, settings: Mapping[str, Any]) -> int:
    """Transitions of one update; 1 where their number is not known before."""
    return int(keywords(name, settings).get("steps", 1))


def keywords(name: str, settings: Mapping[str, Any]) -> Keywords:
    """The keywords of a learner that the options stand for.

    >>> keywords("ppo", {"clip": 0.1, "batch": 64})
    {'clip': (0.1, 0.1), 'steps': 64, 'critic': 0.5, 'whiten': True, 'minibatches': 4}
    """
    found: Keywords = {}
    for option, value in settings.items():
        if value is not None:
            found |= KEYWORDS[name][option](value)
    return found | FIXED.get(name, {})


def paths(task: Task, seed: int, runs: int, tick: Callable[[], None] = lambda: None) -> Paths:
    """Run a learner several times, each with its own child of the seed."""
    found = seeded(lambda rng: path(task, rng), seed, runs, tick)
    return Paths(*(np.stack(column, axis=1) for column in zip(*found, strict=True)))


def path(task: Task, rng: np.random.Generator) -> Paths:
    """One run, without the axis of the runs."""
    batch = unit(task.name, task.settings)
    every = 1 if task.name == "reinforce" else int(task.times[0]) // batch
    options = keywords(task.name, task.settings)
    if isinstance(options.get("entropy"), tuple):
        first, end = options["entropy"]
        options["entropy"] = annealed(first, end, int(task.times[-1]) // batch)
    learner = LEARNERS[task.name].load()
    records = learner(task.source, rng, limit=task.limit, gamma=task.gamma, every=every, **options)
    found = kept(records, task.times, before)
    return Paths(*(np.array([getattr(x, name) for x in found]) for name in Paths._fields))


def annealed(start: float, end: float, n: int) -> Schedule:
    """A weight >= 0 that falls over the updates of a run."""
    for x in (start, end):
        if not 0 <= x < np.inf:
            raise ValueError(f"--entropy is {start:g}:{end:g}; two numbers >= 0 are expected")
    return falling(start, end, n)


def before(x: PGStep) -> PGStep:
    """What counts before the first update."""
    return x._replace(theta=np.zeros_like(x.theta), cosine=np.nan, clip_fraction=np.nan, kl=np.nan, entropy=np.nan)
