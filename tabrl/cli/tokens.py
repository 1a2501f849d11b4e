"""The command `tabrl tokens`: train a small language model, with everything about it known exactly.

k updates; runs are independent; success is the exact chance of an answer of the largest reward.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabrl.cli.parts import DONE, UsageError, bar, console, figure_file, known, save_arrays, writable
from tabrl.cli.token_settings import check, interval, maker, pair

if TYPE_CHECKING:
    from tabrl.figures.token_runs import Runs
    from tabrl.tokens.train import Training


def tokens_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `tabrl tokens`."""
    p.add_argument("task", nargs="?", metavar="TASK", help="copy, sum, two-step, …; without one all are listed")
    p.add_argument("--algo", metavar="NAME", help="ppo, grpo, dapo, …; without one the task is printed")
    p.add_argument("--policy", default="table", metavar="P", help="table (the default), gru or transformer")
    p.add_argument("--steps", type=int, default=200, metavar="N", help="updates of a run (default: 200)")
    p.add_argument("--runs", type=int, metavar="N", help="runs, each with its own seed (default: 5)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all runs (default: 0)")
    p.add_argument("--G", type=int, metavar="G", help="answers to each prompt of a batch")
    p.add_argument("--prompts", type=int, metavar="N", help="prompts drawn for a batch (default: each one once)")
    p.add_argument("--lr", type=float, metavar="A", help="step size of Adam (default: the policy's own)")
    p.add_argument("--entropy", type=float, metavar="C", help="weight of the entropy")
    p.add_argument("--epochs", type=int, metavar="N", help="passes over a batch")
    p.add_argument("--clip", type=pair, metavar="LOW[:HIGH]", help="bounds of the ratio; one number caps it for cispo")
    p.add_argument("--beta", type=float, metavar="B", help="weight of the KL to the reference; 0 for none")
    p.add_argument("--kl", metavar="KIND", help="its estimate: k1, k2 or k3")
    p.add_argument("--place", metavar="WHERE", help="its place: loss, weighted (by the ratio) or reward")
    p.add_argument("--target", type=float, metavar="D", help="KL per sequence that beta is adapted to")
    p.add_argument("--std", metavar="KIND", help="deviation of a group: sample, population or none")
    p.add_argument("--how", metavar="HOW", help="mean over tokens: sequence, token, group_token or constant")
    p.add_argument("--process", action="store_true", help="credit steps, in a task that rewards them")
    p.add_argument("--device", metavar="D", help="of a network: auto (the default), cpu or cuda")
    p.add_argument("--dtype", metavar="T", help="of a network: float32 (the default) or float64")
    p.add_argument("--every", type=int, metavar="N", help="updates per record (default: a fortieth of the run)")
    p.add_argument("--plot", metavar="FILE", help="draw exact success over updates into a .png, .svg or .pdf file")
    p.add_argument("--save", metavar="FILE", help="write all records to an .npz file")
    p.add_argument("--checkpoint", metavar="FILE", help="write the state of a single run to an .npz file")
    p.add_argument("--resume", action="store_true", help="go on from the state in --checkpoint")


def tokens(options: argparse.Namespace) -> int:
    """List the tasks, print one, or train on it."""
    from tabrl.cli import token_show
    from tabrl.envs import token_tasks

    if options.task is None:
        if options.algo is not None:
            raise UsageError(f"TASK is missing before --algo {options.algo}; `tabrl tokens` lists the tasks")
        token_show.listing(console())
        return DONE
    known(options.task, token_tasks.TASKS, "task")
    if options.algo is None:
        token_show.described(console(), token_tasks.make(options.task))
        return DONE
    return train(options)


def train(options: argparse.Namespace) -> int:
    """Run a method over seeds, and print, draw and save what is exactly known of it."""
    from tabrl.cli import token_show
    from tabrl.envs import token_tasks

    check(options)
    figure_file(options.plot)
    writable(save=options.save, checkpoint=options.checkpoint)
    if options.resume and not options.checkpoint:
        raise UsageError("--checkpoint is missing; the file that --resume goes on from is expected")
    if options.checkpoint and options.runs not in (None, 1):
        raise UsageError(f"--runs is {options.runs}; 1 is expected, as --checkpoint keeps one run")
    options.runs = options.runs or (1 if options.checkpoint else 5)
    task = token_tasks.make(options.task)
    last, x = trained(options, maker(options, task))
    out = console()
    token_show.header(out, options, task, last)
    token_show.results(out, task, x, last)
    token_show.reasons(out, task, x, last)
    if options.plot:
        draw(options, task, x)
    if options.save:
        save_arrays(options.save, {name: y for name, y in x._asdict().items() if y.size})
    return DONE


def trained(options: argparse.Namespace, make: Any) -> tuple["Training", "Runs"]:
    """All runs, one after the other: the last of them, and the records of all."""
    import numpy as np

    from tabrl.figures.token_runs import Track, before, together
    from tabrl.tokens.judge import numbers

    every, found = interval(options), []
    with bar(transient=True, disable=not console(stderr=True).is_terminal) as progress:
        seen = progress.add_task("updates", total=options.runs * options.steps)
        for rng in np.random.default_rng(options.seed).spawn(options.runs):
            run = begun(options, make(rng), every)
            records = [before(run)]
            for _ in range(options.steps // every):
                records.append(next(run))
                progress.update(seen, advance=every)
            found.append(Track(records, numbers(run.policy.theta), np.zeros((len(records), 0))))
            if options.checkpoint:
                run.save(options.checkpoint)
    return run, together(found)


def begun(options: argparse.Namespace, run: "Training", every: int) -> "Training":
    """A run at its beginning, or where it was saved."""
    if options.resume:
        run.resume(options.checkpoint)
        if run.k % every:
            raise UsageError(f"--every is {every}; a divisor of the {run.k} updates in the file is expected")
    return run


def draw(options: argparse.Namespace, task: Any, x: "Runs") -> None:
    """Write the figure, whole or not at all."""
    import numpy as np

    from tabrl import plots
    from tabrl.figures import token_curves
    from tabrl.output import write

    title = f"{options.algo} on {task.name}, {options.policy}, {options.runs} runs"
    figure = token_curves.outcome(task, x, np.random.default_rng(options.seed), title=title)
    write(options.plot, plots.image(figure, kind=Path(options.plot).suffix[1:]))
