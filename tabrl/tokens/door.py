"""The checks at the door of a training run: what is wrong is named before anything is drawn."""

import math
from typing import Any

import numpy as np

from tabrl._xp import one_of
from tabrl.divergences import KINDS
from tabrl.errors import ModelError
from tabrl.losses import HOWS
from tabrl.tokens.critic import Gae
from tabrl.tokens.methods import Method, Penalty, Process
from tabrl.tokens.penalties import PLACES
from tabrl.tokens.task import TokenTask

PARTS = {  # what a part must have, and what it could be
    "draw": ("G", "Groups(G, n) or Dynamic(G, n, limit) of tabrl.tokens.draws"),
    "credit": ("advantages", "Outcome(), Process() or Gae(critic)"),
    "loss": ("slope", "Clip(low, high), Sequence() or Capped()"),
}
INSTEAD = {  # settings that are known by other names
    "G": "draw=Groups(G)", "n": "draw=Groups(G, n)", "beta": "kl=Penalty(beta)", "std": "credit=Outcome(std)",
    "clip": "loss=Clip(low, high)", "low": "loss=Clip(low)", "high": "loss=Clip(.2, high)", "lr": "step=adam(lr)",
}  # fmt: skip


def check_run(task: Any, policy: Any, rng: Any, method: Method, every: Any) -> None:
    """Require the arguments of a run to fit one another. Raises ModelError, TypeError, ValueError."""
    if not isinstance(task, TokenTask):
        raise TypeError(f"task is {task!r}; a TokenTask is expected, as tabrl.envs.token_tasks.make(name) gives")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {rng!r}; a numpy Generator is expected; write np.random.default_rng(seed)")
    same_task(task, policy, "policy")
    count("every", every, 1)
    check_method(method)
    if isinstance(method.credit, Process) and task.steps is None:
        raise ModelError(f"credit is Process(), but {task!r} rewards no steps; a task with steps is expected")
    if isinstance(method.credit, Gae):
        same_task(task, method.credit.critic, "critic")


def same_task(task: TokenTask, x: Any, name: str) -> None:
    """Require a policy or critic of the very task."""
    if not hasattr(x, "task"):
        raise TypeError(f"{name} is a {type(x).__name__}; one that is made for the task is expected, as TableLM(task)")
    if x.task is not task:
        raise ModelError(
            f"{name} is made for {x.task!r}, another object than {task!r}; "
            "the same one is expected; make the task once and pass it to both"
        )


def check_method(method: Method) -> None:
    """Require parts that can work together, and numbers in their ranges."""
    for name, (needed, choices) in PARTS.items():
        part = getattr(method, name)
        if not hasattr(part, needed):
            raise TypeError(f"{name} is {part!r}; {choices} is expected")
    count("G", method.draw.G, 1 if isinstance(method.credit, Gae) else 2)
    for name in ("n", "limit"):
        number = getattr(method.draw, name, None)
        if number is not None:
            count(name, number, 1)
    one_of(HOWS, how=method.how)
    count("epochs", method.epochs, 1)
    weight("entropy", method.entropy)
    if method.kl is not None:
        check_penalty(method.kl)


def check_penalty(kl: Any) -> None:
    """Require a KL with a weight, a kind and a place."""
    if not isinstance(kl, Penalty):
        raise TypeError(f"kl is {kl!r}; Penalty(beta, kind, place), or None, is expected")
    weight("beta", kl.beta)
    one_of(KINDS, kind=kl.kind)
    one_of(PLACES, place=kl.place)
    if kl.target is not None:
        weight("target", kl.target)


def known_parts(parts: dict[str, Any]) -> None:
    """Require names of parts that methods have. Raises ValueError that says how to write the others."""
    for name in parts:
        if name not in Method._fields:
            cure = f"; write {INSTEAD[name]}" if name in INSTEAD else ""
            raise ValueError(f"{name!r} is no part of a method; one of {', '.join(Method._fields)} is expected{cure}")


def count(name: str, x: Any, least: int) -> None:
    """Require a whole number."""
    if isinstance(x, bool) or not isinstance(x, int | np.integer) or x < least:
        raise ValueError(f"{name} is {x!r}; a whole number >= {least} is expected")


def weight(name: str, x: Any) -> None:
    """Require a finite number that is not negative."""
    if isinstance(x, str) or not (math.isfinite(x) and x >= 0):
        raise ValueError(f"{name} is {x!r}; a finite number >= 0 is expected")
