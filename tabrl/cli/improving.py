"""Policy gradients for `tabrl learn`: run one over several seeds and put the exact answer beside it.

t transitions; theta (K,runs,S,A) preferences of a softmax policy, at K times.
"""

import argparse
from typing import TYPE_CHECKING, Any

from tabrl.cli.learning import STEPS, given, nothing, run, times, title, world
from tabrl.cli.parts import console, save_arrays

if TYPE_CHECKING:
    from tabrl.learners import Task
    from tabrl.learners.policies import Paths
    from tabrl.learners.watched import Watched
    from tabrl.mdp import MDP

STEPS_ON_MODELS = 100_000


def improve(options: argparse.Namespace) -> None:
    """Improve a policy along its gradient."""
    from tabrl import learners
    from tabrl.learners import policies
    from tabrl.learners.watched import Watched

    settings = learners.settings(options.algo, given(options))
    source = world(options.env, options.gamma)
    watched = source if isinstance(source, Watched) else None
    gamma, after = (options.gamma, watched.next_run) if watched else (None, nothing)
    if options.steps is None:
        options.steps = STEPS if watched else STEPS_ON_MODELS
    when = times(options, source.legal.size, policies.unit(options.algo, settings))
    task = learners.Task(options.algo, source, settings, when, limit=options.limit, gamma=gamma)
    x = run(options, policies.paths, task, after)
    arrays = judge_played(options, task, x, watched) if watched else judge(options, task, x, source)
    if options.save:
        save_arrays(options.save, {"t": when, **x._asdict(), **arrays})


def header(options: argparse.Namespace, task: "Task", world: Any) -> None:
    """Print what was run, with what the user cannot set."""
    from tabrl.learners import show as show_learning
    from tabrl.learners.policies import FIXED

    words = {**task.settings, **FIXED.get(task.name, {})}
    show_learning.header(console(), options, world, words, task.times)


def judge(options: argparse.Namespace, task: "Task", x: "Paths", mdp: "MDP", *, first: bool = True) -> dict[str, Any]:
    """Hold the policies against the solved model; returns their exact worth."""
    from tabrl.learners import judged, show_policies

    out, found = console(), judged.Improved(mdp, x.theta)
    if first:
        header(options, task, mdp)
    show_policies.decisions(out, found)
    show_policies.worths(out, found)
    show_policies.diagnostics(out, x, clips="clip" in task.settings)
    if options.plot:
        from tabrl.learners import draw as draw_learning

        draw_learning.draw_policies(options.plot, title(options, mdp), task.times, found)
    return {"J": found.curve, "J_star": found.J_star}


def judge_played(options: argparse.Namespace, task: "Task", x: "Paths", played: "Watched") -> dict[str, Any]:
    """The same for a gymnasium environment: its returns, and its model if it carries one."""
    from tabrl.learners import show as show_learning
    from tabrl.learners import show_policies

    mdp = played.model(options.gamma)
    header(options, task, played.env)
    show_learning.returns(console(), played.last_returns(), exact=mdp is not None)
    if mdp is not None:
        return judge(options, task, x._replace(theta=played.pad(x.theta, mdp.S)), mdp, first=False)
    show_policies.diagnostics(console(), x, clips="clip" in task.settings)
    if options.plot:
        from tabrl.learners import draw as draw_learning

        draw_learning.draw_returns(options.plot, title(options, None), played.runs)
    return {}
