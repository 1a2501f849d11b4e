"""What token methods do on their way, beside what is exact about it.

J expected outcome, exact for every policy; G answers in a group; pi* the best policy when every nat of distance from a
reference costs beta, KL(pi || pi*) of whole sequences. Every function returns the runs of some methods, side by side.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tabrl.control.acting import Rng
from tabrl.envs import token_tasks
from tabrl.figures.token_runs import Make, Runs, begin, several
from tabrl.figures.token_shared import SharedLM
from tabrl.optimise import sgd
from tabrl.tokens import exact, train
from tabrl.tokens.draws import Dynamic, Groups
from tabrl.tokens.groups import Estimator, expected_gradient
from tabrl.tokens.methods import Clip, Outcome, Penalty, Process
from tabrl.tokens.rates import w
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.stationary import stationary
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F

G = 16


# ---- the mean update, followed ----


class Predicted(NamedTuple):
    """Runs with plain steps, beside the path on which every update is the expected one."""

    exact: Sequence[F]  # (updates + 1,) J for each method
    runs: Sequence[Sequence[Runs]]  # for each method, for each number of groups in a batch
    groups: Sequence[int]


def predicted(
    rng: Rng, *, runs: int = 8, updates: int = 40, every: int = 2, step: float = 16.0, groups: Sequence[int] = (4, 16)
) -> Predicted:  # fmt: skip
    """GRPO and DAPO on balanced brackets, without entropy bonus, by theta <- theta + step gradient.

    The exact path takes E[gradient] in its place. A batch of more groups has less noise and the same mean.
    """
    task = token_tasks.make("brackets")
    rules: Any = {"grpo": (Groups, Estimator(G)), "dapo": (partial(Dynamic, limit=100), Estimator(G, "group_token"))}
    paths, found = [], []
    for name, (draw, rule) in rules.items():
        paths.append(expected_path(task, rule, dynamic=name == "dapo", step=step, updates=updates))
        settings: dict[str, Any] = {"entropy": 0.0, "step": step, "shape": None, "every": every}
        makes = [partial(begin, "brackets", name, draw=draw(G, n), **settings) for n in groups]
        found.append([several(make, rng, runs=runs, records=updates // every) for make in makes])
    return Predicted(paths, found, groups)


def expected_path(task: TokenTask, rule: Estimator, *, dynamic: bool, step: float, updates: int) -> F:
    """J (updates + 1,) of a table from uniform on, when every update is the expected one.

        theta <- theta + step E[gradient],   for prompts drawn by the task's weights

    >>> expected_path(token_tasks.make("bandit", rewards=(1.0, 0.0)), Estimator(4, "constant", "none", 0.0, True),
    ...               dynamic=False, step=1.0, updates=1).round(6)  # logits +-1/4 after the update
    array([0.5     , 0.622459])
    """
    theta, J = np.zeros((task.N, task.V)), []
    for _ in range(updates + 1):
        logp = log_softmax(theta)
        J.append(evaluate(task.tree, logp).J)
        theta = theta + step * expected_gradient(task.tree, logp, rule, 1, dynamic=dynamic)
    return np.array(J)


# ---- entropy ----


def clip_higher(
    rng: Rng, *, runs: int = 10, highs: Sequence[float] = (0.2, 0.28, 1.0), updates: int = 60, epochs: int = 4
) -> list[Runs]:
    """GRPO on sums, without entropy bonus, several epochs on each batch, with some upper bounds of the ratio.

    The runs of all bounds begin with the same batch.
    """
    seed, found = int(rng.integers(2**62)), []
    for high in highs:
        settings: dict[str, Any] = {"loss": Clip(0.2, high), "epochs": epochs, "entropy": 0.0, "every": 2}
        make = partial(begin, "sum", "grpo", **settings)
        found.append(several(make, np.random.default_rng(seed), runs=runs, records=updates // 2))
    return found


# ---- the way to an optimum ----


class Ways(NamedTuple):
    """Runs of three KL penalties: `seen` holds KL(pi || pi*) and KL(pi || where the method rests)."""

    runs: Sequence[Runs]
    rest: Sequence[float]  # KL(rest || pi*) of each, exact
    start: float  # KL(uniform || pi*)


def ways(rng: Rng, *, runs: int = 4, updates: int = 700, beta: float = 0.5) -> Ways:
    """Copying with a KL to the uniform reference: k1 in the reward, k3 in the loss without and with std.

    RLOO's baseline without std rests at pi* itself, and with no noise left, as r - beta log(pi / ref) is constant
    there. Penalties in the loss rest elsewhere, where noise stays: their steps shrink as 8 / (1 + k / 50).
    """
    task = token_tasks.make("copy", vocab=4, prompts=4)
    ref = TableLM(task)
    star = TableLM(task, exact.optimum(task, ref, beta).logp)
    weighted: Sequence[Callable[[F], F] | None] = (None, partial(w, G=G, std="sample", eps=1e-4))
    rests = [star, *(TableLM(task, stationary(task.tree, log_softmax(ref.table), beta, weight=x)) for x in weighted)]
    shrinking, every = sgd(shrink), max(1, updates // 50)
    reward, loss = Penalty(beta, "k1", "reward"), Penalty(beta, "k3", "loss")
    parts: list[dict[str, Any]] = [
        {"kl": reward, "step": 8.0}, {"kl": loss, "step": shrinking}, {"kl": loss, "step": shrinking},
    ]  # fmt: skip
    names = ("rloo", "rloo", "grpo")
    makes = [
        partial(on, task, TableLM, name, entropy=0.0, every=every, **p) for name, p in zip(names, parts, strict=True)
    ]
    found = [
        several(make, rng, runs=runs, records=updates // every, look=partial(distances, task, star, rest))
        for make, rest in zip(makes, rests, strict=True)
    ]
    return Ways(found, [sequence_kl(task, x, star) for x in rests], sequence_kl(task, ref, star))


def shrink(k: F) -> F:
    """Step sizes 8 / (1 + k / 50)."""
    return 8.0 / (1 + k / 50)


def distances(task: TokenTask, star: TableLM, rest: TableLM, policy: Any) -> list[float]:
    """KL of whole sequences from a policy to two others."""
    return [sequence_kl(task, policy, x) for x in (star, rest)]


def sequence_kl(task: TokenTask, policy: Any, other: TableLM) -> float:
    """KL(policy || other), exact. The task may be a copy that another process was sent."""
    here = TableLM(task, policy.theta), TableLM(task, other.theta)
    return float(exact.kl(task, *here).sequence)


def on(task: TokenTask, kind: Any, algo: str, rng: Rng, **settings: Any) -> train.Training:
    """A run on a task that is built already, with a kind of table."""
    return train.METHODS[algo](task, kind(task), rng, **settings)


# ---- prompts that die ----


def dying(rng: Rng, *, runs: int = 6, updates: int = 200) -> dict[str, Runs]:
    """Copying with groups of 4, without entropy bonus unless it is said; the last with a table of its own rows."""
    shared = partial(on, token_tasks.make("copy"), SharedLM)
    own = partial(on, token_tasks.make("copy"), TableLM)
    few, dynamic = Groups(4), Dynamic(4)
    makes: dict[str, Make] = {
        "GRPO, G = 4": partial(shared, "grpo", draw=few, entropy=0.0, every=10),
        "GRPO, G = 8": partial(shared, "grpo", draw=Groups(8), entropy=0.0, every=10),
        "DAPO, G = 4": partial(shared, "dapo", draw=dynamic, entropy=0.0, every=10),
        "GRPO, G = 4, entropy 0.03": partial(shared, "grpo", draw=few, every=10),
        "GRPO, G = 4, no shared logits": partial(own, "grpo", draw=few, entropy=0.0, every=10),
    }
    return {label: several(make, rng, runs=runs, records=updates // 10) for label, make in makes.items()}


# ---- who is credited ----


def supervision(rng: Rng, *, runs: int = 10, updates: int = 100) -> dict[str, Runs]:
    """GRPO and DAPO on two-step arithmetic, by outcome and by process; `seen`: chance that the first step is right."""
    credits = {"outcome": Outcome(), "process": Process()}
    return {
        f"{algo.upper()}, {name}": several(
            partial(begin, "two-step", algo, credit=credit, every=2),
            rng, runs=runs, records=updates // 2, look=first_step,
        )
        for algo in ("grpo", "dapo") for name, credit in credits.items()
    }  # fmt: skip


def first_step(policy: Any) -> list[float]:
    """The exact mean of the process reward of the first token."""
    tree, pi = policy.tree, np.exp(log_softmax(policy.logits()[0]))
    return [float(tree.weights @ (pi[: tree.K] * tree.step_reward[: tree.K]).sum(1))]
