"""Token tasks and runs on them as text on a console: what every policy is worth, exactly, and why a run failed.

p (K,) chance of an answer of the largest reward to each of K prompts; G answers in a group.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from tabrl.cli.token_settings import policy_words
from tabrl.envs import token_tasks
from tabrl.figures.token_runs import Runs, failed, reached, success
from tabrl.learners import about
from tabrl.learners.show import error, facts
from tabrl.tokens import exact, train
from tabrl.tokens.critic import Gae
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F

if TYPE_CHECKING:
    from rich.console import Console

ENOUGH = 0.9  # success that a run should end with


def listing(out: "Console") -> None:
    """Print one line per task."""
    names = ("task", "prompts", "tokens", "length", "prefixes", "uniform J")
    table = columns(names)
    table.add_column("description")
    for name, constructor in token_tasks.TASKS.items():
        task = constructor()
        line = (constructor.__doc__ or "").strip().partition("\n")[0]
        end = " with EOS" if task.eos else ""
        J = exact.objective(task, TableLM(task))
        table.add_row(name, f"{task.K}", f"{task.V}", f"{task.length}{end}", f"{task.N:,}", f"{J:.4g}", line)
    out.print(table)
    out.print("uniform J: expected outcome of tokens drawn uniformly, exact", soft_wrap=True)


def described(out: "Console", task: TokenTask) -> None:
    """Print a task: what it asks, its sizes, the best answers, and what uniform tokens reach."""
    p = exact.success(task, TableLM(task))
    sentence = (token_tasks.TASKS[task.name].__doc__ or "").strip().partition("\n")[0]
    steps = "rewarded too" if task.steps is not None else "not rewarded"
    end = ", EOS counted" if task.eos else ""
    rows = [
        ("task", sentence),
        ("sizes", f"{task.K} prompts, {task.V} tokens, answers of up to {task.length}{end}; {task.N:,} prefixes"),
        ("tokens", " ".join(task.vocab)),
        ("steps", steps),
        ("uniform", f"J = {task.weights @ p:.4g}, from {p.min():.4g} to {p.max():.4g} over the prompts, exact"),
        ("best", f"J* = {largest(task):.4g}"),
    ]
    out.print(facts(rows))
    out.print()
    table = columns(("prompt", "a best answer", "reward", "uniform"), left=2)
    for k in range(task.K):
        answer, r = task.best(k)
        table.add_row(task.prompts[k], task.answer(answer), f"{r:g}", f"{p[k]:.4g}")
    out.print(table)
    out.print("uniform: expected outcome of tokens drawn uniformly, exact", soft_wrap=True)


def columns(names: tuple[str, ...], left: int = 1) -> Table:
    """A table with so many columns to the left."""
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(names):
        table.add_column(name, justify="left" if i < left else "right", no_wrap=True)
    return table


def largest(task: TokenTask) -> float:
    """J*, the expected outcome of the best answers."""
    return float(task.weights @ [task.best(k)[1] for k in range(task.K)])


def header(out: "Console", options: Any, task: TokenTask, run: train.Training) -> None:
    """Print what was run, with every part of the method."""
    out.print(f"{options.task}: {task!r}", soft_wrap=True)
    method = run.method
    words = method._asdict() | {"beta": None}
    words["credit"] = f"Gae(lam={method.credit.lam:g})" if isinstance(method.credit, Gae) else method.credit
    said = about(getattr(train, options.algo.replace("-", "_")))
    rows = [
        ("algorithm", f"{options.algo}: {said.title}" if said.title else options.algo),
        ("settings", ", ".join(f"{name} = {x}" for name, x in words.items() if x is not None)),
        ("policy", policy_words(options, run.policy)),
        ("experience", f"{options.steps:,} updates, {options.runs} run{'s' * (options.runs > 1)}, seed {options.seed}"),
    ]
    out.print(facts(rows))
    out.print()


def results(out: "Console", task: TokenTask, x: Runs, run: train.Training) -> None:
    """Print a row for every run, and their mean."""
    names = ("run", "J", "success", "KL", "entropy", "dead", "kept", "passes", "nets", "tokens/s", "to 90 %")
    table = columns(names)
    table.collapse_padding = True
    steps, kept = reached(x, task.weights, ENOUGH), np.nanmean(x.kept, axis=0)
    found = [x.J[-1], success(x, task.weights)[-1], x.kl[-1], x.entropy[-1], x.dead[-1], kept, passes(x, run), speed(x)]
    for i in range(len(x.theta)):
        J, p, kl, entropy, dead, share, forward, rate = (y[i] for y in found)
        numbers = [f"{J:.4f}", f"{p:.4f}", f"{kl:.4g}", f"{entropy:.4g}", f"{dead:.0f} of {task.K}", f"{share:.3f}"]
        table.add_row(str(i + 1), *numbers, f"{forward:.2f}", f"{run.networks}", f"{rate:,.0f}", updates(steps[i], x.k))
    out.print(table)
    J, p = found[:2]
    if len(J) > 1:
        ends = [f"{name} = {y.mean():.4f} ± {error(y):.2g}" for name, y in (("J", J), ("success", p))]
        out.print(f"mean: {', '.join(ends)}", soft_wrap=True)
    out.print(f"J* = {largest(task):.4g}; J was {x.J[0].mean():.4g} before the first update", soft_wrap=True)
    out.print(
        "exact: J, success (of the best answer), KL to the reference (nats per sequence), entropy (nats per token), "
        "dead; kept: share of the groups that were used; passes: forward passes per token used; nets: networks held; "
        f"to 90 %: updates to a success of 0.9, looked at every {x.k[1] - x.k[0]}",
        soft_wrap=True,
    )


def updates(steps: float, k: Any) -> str:
    """When a run was there, or that it never was."""
    return f"{steps:,.0f}" if np.isfinite(steps) else f"> {k[-1]:,}"


def passes(x: Runs, run: train.Training) -> F:
    """Forward passes for each token used, over whole runs: those of a used token, and all that were drawn."""
    drawn = np.diff(x.t, axis=0)
    with np.errstate(divide="ignore"):
        used = drawn / (x.passes[1:] - run.passes)
        found: F = run.passes + drawn.sum(axis=0) / used.sum(axis=0)
    return found


def speed(x: Runs) -> F:
    """Tokens drawn per second, over whole runs."""
    drawn = np.diff(x.t, axis=0)
    found: F = drawn.sum(axis=0) / (drawn / x.tokens_per_s[1:]).sum(axis=0)
    return found


def reasons(out: "Console", task: TokenTask, x: Runs, run: train.Training) -> None:
    """Say of each run that failed which prompts are dead, and why; or that there are none."""
    late = failed(x, task.weights, ENOUGH)
    G = run.method.draw.G
    for i in late:
        p = x.p[-1, i]
        dead = np.flatnonzero((1 - p) ** G > 0.99)
        if len(dead):
            words = ", ".join(f"{task.prompts[q]!r} (p = {p[q]:.1g})" for q in dead[:4])
            words += f", … {len(dead) - 4} more" if len(dead) > 4 else ""
            out.print(f"run {i + 1} failed: {len(dead)} of {task.K} prompts are dead: {words}", soft_wrap=True)
        else:
            least = f"the least p is {p.min():.2g}, of {task.prompts[int(p.argmin())]!r}"
            out.print(f"run {i + 1} has not arrived: no prompt is dead, {least}; more --steps may help", soft_wrap=True)
    if late and x.dead[-1, late].any():
        out.print(
            f"dead: {G} answers miss the best one with a chance above 99 %. Their rewards are then equal, their "
            "advantages 0, and nothing brings the prompt back; a larger --G or more --entropy keeps prompts alive",
            soft_wrap=True,
        )
