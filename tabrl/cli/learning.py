"""The command `tabrl learn`: run a learner over several seeds and put the exact answer beside it.

t transitions; V (K,runs,S) and Q (K,runs,S,A) what was learned, at K times.
"""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tabrl.cli.parts import DONE, UsageError, bar, console, figure_file, known, model, save_arrays, writable

if TYPE_CHECKING:
    from tabrl.learners import Task
    from tabrl.learners.watched import Watched
    from tabrl.mdp import MDP
    from tabrl.types import F

MEMORY = 20_000_000  # numbers that are kept of all runs; fewer points of the curve where they would be more
STEPS = 10_000
T = TypeVar("T")


def learn_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `tabrl learn`."""
    p.add_argument("env", metavar="ENV", help="a world (see `tabrl envs`), an .npz model, or a gymnasium environment")
    p.add_argument("--algo", required=True, metavar="NAME", help="td0, q-learning, ppo, …; an unknown name lists all")
    p.add_argument("--steps", type=int, metavar="T",
                   help="transitions of a run (default: 10,000; 100,000 for policy gradients on a model)")  # fmt: skip
    p.add_argument("--runs", type=int, default=20, metavar="N", help="runs, each with its own seed (default: 20)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all runs (default: 0)")
    p.add_argument("--alpha", type=step, metavar="A", help="step size, a number or 1/k")
    p.add_argument("--eps", type=float, metavar="E", help="exploration, of control or of --policy eps-greedy")
    p.add_argument("--n", type=int, metavar="N", help="steps of n-step methods")
    p.add_argument("--lam", type=float, metavar="L", help="trace decay lambda")
    p.add_argument("--trace", metavar="KIND", help="accumulating, replacing or dutch")
    p.add_argument("--visit", metavar="KIND", help="first or every, for Monte Carlo")
    p.add_argument("--kind", metavar="KIND", help="ordinary, per_decision or weighted, for importance sampling")
    p.add_argument("--planning", type=int, metavar="N", help="imagined steps per real one, for Dyna")
    p.add_argument("--kappa", type=float, metavar="K", help="bonus of Dyna-Q+ for what was not tried for long")
    p.add_argument("--theta", type=float, metavar="E", help="errors that prioritized-dyna leaves alone")
    gradient_arguments(p)
    p.add_argument("--policy", metavar="P", help="policy to predict: uniform (the default), optimal, eps-greedy")
    p.add_argument("--limit", type=int, metavar="T", help="cut episodes after so many steps")
    p.add_argument("--gamma", type=float, metavar="G", help="discount; required for a gymnasium environment")
    p.add_argument("--plot", metavar="FILE", help="draw the learning curve into a .png, .svg or .pdf file")
    p.add_argument("--save", metavar="FILE", help="write what was learned and the exact values to an .npz file")


def gradient_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of policy gradients only."""
    p.add_argument("--batch", type=int, metavar="N", help="transitions per update (episodes for reinforce)")
    p.add_argument("--clip", type=float, metavar="C", help="how far the ratio may move from 1, for ppo")
    p.add_argument("--epochs", type=int, metavar="N", help="passes over a batch, for ppo and ppo-kl")
    p.add_argument("--entropy", type=falling, metavar="C", help="weight of the entropy; C:D falls over the run to D")
    p.add_argument("--beta", type=float, metavar="B", help="weight of the KL, for ppo-kl")
    p.add_argument("--target", type=float, metavar="D", help="KL that beta is adapted to, for ppo-kl (default: fixed)")
    p.add_argument("--delta", type=float, metavar="D", help="largest KL of an update, for trpo")
    p.add_argument("--optimism", type=float, metavar="V", help="value of all states that the critic starts from")


def falling(text: str) -> Any:
    """Read a weight: a number, or two for one that falls from the first to the second."""
    start, colon, end = text.partition(":")
    return (float(start), float(end)) if colon else float(start)


def step(text: str) -> Any:
    """Read a step size: a number, or the schedule 1/k."""
    from tabrl.schedules import harmonic

    return harmonic if text == "1/k" else float(text)


def learn(options: argparse.Namespace) -> int:
    """Run a learner, print what it learned beside the exact answer, and draw or save it."""
    from tabrl import learners

    known(options.algo, learners.LEARNERS, "algo")
    figure_file(options.plot)
    writable(save=options.save)
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}; a whole number >= 0 is expected")
    kind = learners.LEARNERS[options.algo].kind
    if kind != learners.PREDICTION and options.policy:
        raise UsageError(f"--policy is {options.policy!r}; none is expected, as {options.algo} looks for its own")
    if kind == learners.PREDICTION and is_gym(options.env):
        raise UsageError(f"ENV is {options.env!r}; a world or an .npz model is expected, whose exact values are known")
    if kind == learners.POLICY:
        from tabrl.cli.improving import improve

        improve(options)
        return DONE
    options.steps = STEPS if options.steps is None else options.steps
    (act if kind == learners.CONTROL else predict)(options)
    return DONE


def given(options: argparse.Namespace) -> dict[str, Any]:
    """List the options of a learner that the user has set; eps may belong to --policy instead."""
    from tabrl import learners

    names = [x for x in learners.OPTIONS if getattr(options, x) is not None]
    if learners.LEARNERS[options.algo].kind == learners.PREDICTION and options.policy == "eps-greedy":
        names = [x for x in names if x != "eps"]
    return {x: getattr(options, x) for x in names}


def times(options: argparse.Namespace, size: int, unit: int = 1) -> Any:
    """Times at which the curve is read off: fewer where the runs would not fit in memory."""
    from tabrl import learners

    return learners.times(options.steps, min(learners.POINTS, max(1, MEMORY // (size * max(options.runs, 1)))), unit)


def run(options: argparse.Namespace, work: Callable[..., T], task: "Task", after: Callable[[], None]) -> T:
    """Run all seeds, with a progress bar; `after` is called after each."""
    with bar(transient=True, disable=not console(stderr=True).is_terminal) as progress:
        task_bar = progress.add_task("runs", total=options.runs)

        def tick() -> None:
            after()
            progress.update(task_bar, advance=1)

        return work(task, options.seed, options.runs, tick)


def nothing() -> None:
    """What is done after a run where nothing is to be done."""


def predict(options: argparse.Namespace) -> None:
    """Learn the values of a policy."""
    from tabrl import learners
    from tabrl.learners import judged
    from tabrl.learners import show as show_learning

    name, eps = options.policy or "uniform", 0.1 if options.eps is None else options.eps
    known(name, learners.POLICIES, "policy")
    settings = learners.settings(options.algo, given(options))
    mdp = model(options.env, options.gamma)
    pi, b = learners.policy(mdp, name, eps), learners.policy(mdp, "uniform", 1.0)
    task = learners.Task(options.algo, mdp, settings, times(options, mdp.S), pi, b, options.limit)
    exact = judged.exact(task)  # first: it refuses what has no value
    x = judged.Valued(mdp, run(options, learners.curves, task, nothing), *exact)
    words = {"policy": name, **({"eps": eps} if name == "eps-greedy" else {}), **settings}
    out = console()
    show_learning.header(out, options, mdp, words, task.times)
    show_learning.values(out, x)
    show_learning.errors(out, x)
    if options.plot:
        from tabrl.learners import draw as draw_learning

        draw_learning.draw_errors(options.plot, title(options, mdp), task.times, x)
    if options.save:
        known_exactly = {} if x.expected is None else {"expected_square_error": x.expected}
        save_arrays(options.save, {"t": task.times, "V": x.V, "V_pi": x.V_pi, "pi": pi, **known_exactly})


def act(options: argparse.Namespace) -> None:
    """Learn to act."""
    from tabrl import learners
    from tabrl.learners.watched import Watched

    settings = learners.settings(options.algo, given(options))
    source = world(options.env, options.gamma)
    watched = source if isinstance(source, Watched) else None
    gamma, after = (options.gamma, watched.next_run) if watched else (None, nothing)
    when = times(options, source.legal.size)
    task = learners.Task(options.algo, source, settings, when, limit=options.limit, gamma=gamma)
    Q = run(options, learners.curves, task, after)
    arrays = judge_played(options, task, Q, watched) if watched else judge(options, task, Q, source)
    if options.save:
        save_arrays(options.save, {"t": when, "Q": Q, **arrays})


def judge(options: argparse.Namespace, task: "Task", Q: "F", mdp: "MDP", *, first: bool = True) -> dict[str, Any]:
    """Hold what was learned against the solved model; returns the exact values."""
    from tabrl.learners import judged
    from tabrl.learners import show as show_learning

    out, x = console(), judged.Acting(mdp, Q, task.settings.get("eps", 0.0))
    if first:
        show_learning.header(out, options, mdp, dict(task.settings), task.times)
    show_learning.control(out, x)
    if options.plot:
        from tabrl.learners import draw as draw_learning

        draw_learning.draw_worth(options.plot, title(options, mdp), task.times, x)
    return {"Q_star": x.star.Q, "V_star": x.star.V}


def judge_played(options: argparse.Namespace, task: "Task", Q: "F", played: "Watched") -> dict[str, Any]:
    """The same for a gymnasium environment: its returns, and its model if it carries one."""
    from tabrl.learners import show as show_learning

    mdp = played.model(options.gamma)
    show_learning.header(console(), options, played.env, dict(task.settings), task.times)
    show_learning.returns(console(), played.last_returns(), exact=mdp is not None)
    if mdp is not None:
        return judge(options, task, played.pad(Q, mdp.S), mdp, first=False)
    if options.plot:
        from tabrl.learners import draw as draw_learning

        draw_learning.draw_returns(options.plot, title(options, None), played.runs)
    return {}


def title(options: argparse.Namespace, mdp: Any) -> str:
    """Name the learner and the world in a figure."""
    return f"{options.algo} on {Path(options.env).name}" + ("" if mdp is None else f", γ = {mdp.gamma:g}")


def is_gym(name: str) -> bool:
    """Whether a name is that of a gymnasium environment, which end in a version."""
    return re.search(r"-v\d+$", name) is not None and not Path(name).is_file()


def world(name: str, gamma: float | None) -> Any:
    """Build a world or read a model, or make a gymnasium environment whose returns are watched."""
    if not is_gym(name):
        return model(name, gamma)
    import gymnasium

    from tabrl.learners.watched import Watched

    if gamma is None or not math.isfinite(gamma):
        raise UsageError(f"--gamma is {gamma}; a discount is expected, as {name} has none of its own")
    try:
        return Watched(gymnasium.make(name))
    except gymnasium.error.Error as error:
        raise UsageError(" ".join(str(error).split())) from None
