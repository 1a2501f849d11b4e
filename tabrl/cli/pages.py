"""The command `tabrl report`: worlds, learners and token tasks, judged exactly, on pages."""

import argparse
from collections.abc import Sequence
from typing import Any

from tabrl.cli.parts import DONE, FAILED, UsageError, bar, console, known


def report_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `tabrl report`."""
    p.add_argument("--out", default="report", metavar="DIR", help="folder of index.html (default: %(default)s)")
    p.add_argument("--env", nargs="+", action="extend", metavar="NAME", help="only these worlds (default: all)")
    p.add_argument("--learner", nargs="+", action="extend", metavar="NAME", help="only these learners (default: all)")
    p.add_argument("--task", nargs="+", action="extend", metavar="NAME", help="only these token tasks (default: all)")
    p.add_argument("--jobs", type=int, default=-1, metavar="N", help="processes (default: one per processor)")


def report(options: argparse.Namespace) -> int:
    """Solve the worlds by every method, judge learners and token methods exactly, and write the report."""
    from tabrl import envs
    from tabrl import report as pages
    from tabrl.envs import token_tasks
    from tabrl.report import learners as report_learners
    from tabrl.report import tokens as report_tokens

    everything = not (options.env or options.learner or options.task)
    worlds = chosen(options.env, envs.WORLDS, "world", everything)
    learners = chosen(options.learner, report_learners.names(), "learner", everything)
    tasks = chosen(options.task, token_tasks.TASKS, "task", everything)
    if options.jobs == 0 or options.jobs < -1:
        raise UsageError(f"--jobs is {options.jobs}; a positive number, or -1 for all processors, is expected")
    with bar() as progress:
        task = progress.add_task("solving", total=len(worlds) + len(learners) + len(tasks))

        def tick(name: str) -> None:
            progress.update(task, advance=1, description=name)

        judged = report_learners.build(options.out, learners, jobs=options.jobs, tick=tick)
        trained = report_tokens.build(options.out, tasks, jobs=options.jobs, tick=tick) if tasks else []
        more = [report_learners.overview(judged)] if judged else []
        more += [report_tokens.overview(trained)] if trained else []
        path, studies = pages.build(options.out, worlds, jobs=options.jobs, tick=tick, more=more)
    out = console()
    if studies:
        out.print(pages.verdict(studies), soft_wrap=True)
    if judged:
        out.print(f"{len(judged)} learners. {report_learners.verdict(judged)}", soft_wrap=True)
    if trained:
        out.print(f"{len(trained)} token tasks. {report_tokens.verdict(trained)}", soft_wrap=True)
    out.print(f"wrote {path}", soft_wrap=True)
    wrong = any(x.violations or x.failures for x in studies) or any(x.wrong for x in judged)
    wrong = wrong or any(x.wrong for x in trained)
    return FAILED if wrong else DONE


def chosen(names: Sequence[str] | None, known_names: Any, what: str, everything: bool) -> list[str]:
    """The names that were asked for, once each; all if nothing was asked for."""
    found = list(dict.fromkeys(names or (known_names if everything else ())))
    for name in found:
        known(name, known_names, what)
    return found
