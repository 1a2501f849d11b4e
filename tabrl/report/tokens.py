"""The page of the token tasks in the report: each task as text, and one run of GRPO and of DAPO on it, exactly judged.

J expected outcome; N prefixes, K prompts, V tokens; a run is a table that starts uniform and has the defaults of
`tabrl tokens`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from tabrl.envs import token_tasks
from tabrl.figures.token_runs import Runs, begin, several
from tabrl.output import write
from tabrl.plots.learning import exact_level, finish
from tabrl.plots.policies import colour
from tabrl.report import in_parallel, one_line
from tabrl.report.drawing import Drawing, Panel, picture
from tabrl.report.page import Link, Links, Page, Picture, Pre, Section, Table, Text, render
from tabrl.tokens.task import TokenTask

ALGORITHMS = ("grpo", "dapo")
UPDATES, EVERY = 200, 4
SURE = 1e-9  # by how much rounding may lift J above J*
FILE = "tokens.html"


class Study(NamedTuple):
    """One task, and what two methods made of it."""

    name: str
    sentence: str
    source: str
    text: str  # the task, readable
    sizes: Sequence[str]  # prompts, tokens, longest answer, prefixes
    levels: tuple[float, float]  # J of the uniform policy, J*
    ends: Sequence[float]  # J of the last policies
    table: Table
    pictures: Sequence[Picture]
    wrong: int  # policies better than the best answers, or runs that raised


def study(name: str) -> Study:
    """Build a task, run both methods, and judge every policy exactly; one that raises has a section that says so.

    >>> x = study("bandit")
    >>> x.wrong, x.levels, x.ends[0] > 0.95
    (0, (0.5, 1.0), True)
    """
    try:
        return studied(name)
    except Exception as error:  # the report shows what failed, and goes on
        message = f"{type(error).__name__}: {one_line(error)}"
        table = Table(["task", "error"], [(name, message)], (0, 1), bad=[0])
        return Study(name, "", "", "", ("–",) * 4, (np.nan, np.nan), (), table, (), 1)


def studied(name: str) -> Study:
    """The same, with errors raised."""
    task = token_tasks.make(name)
    said = (token_tasks.TASKS[name].__doc__ or "").strip()
    source = " ".join(said.partition("Source: ")[2].partition("\n\n")[0].split())
    best = float(task.weights @ [task.best(k)[1] for k in range(task.K)])
    found = {algo: run(name, algo) for algo in ALGORITHMS}
    first = float(next(iter(found.values())).J[0, 0])
    above = sum(int((best + SURE < x.J).sum()) for x in found.values())
    sizes = (f"{task.K}", f"{task.V}", f"{task.length}", f"{task.N:,}")
    ends = [float(x.J[-1, 0]) for x in found.values()]
    table, drawn = results(task, found, best), [picture(drawing(task, found, first, best))]
    about = name, said.partition("\n")[0], source, str(task)
    return Study(*about, sizes, (first, best), ends, table, drawn, above)


def run(name: str, algo: str) -> Runs:
    """One run with a seed that its names give."""
    rng = np.random.default_rng([0, *f"{name} {algo}".encode()])
    return several(partial(begin, name, algo, every=EVERY), rng, runs=1, records=UPDATES // EVERY, jobs=1)


def results(task: TokenTask, found: dict[str, Runs], best: float) -> Table:
    """The last policies beside the best there is."""
    rows = []
    for algo, x in found.items():
        there = np.flatnonzero(x.p[:, 0] @ task.weights >= 0.9)
        steps = f"{x.k[there[0]]}" if len(there) else f"> {x.k[-1]}"
        numbers = [f"{y[-1, 0]:.4f}" for y in (x.J, x.kl, x.entropy)]
        kept = f"{np.nanmean(x.kept):.2f}"
        rows.append((algo.upper(), *numbers, f"{x.dead[-1, 0]:.0f} of {task.K}", kept, f"{x.t[-1, 0]:,.0f}", steps))
    header = (
        "method",
        "J",
        "KL to the start",
        "entropy",
        "dead prompts",
        "groups kept",
        "tokens drawn",
        "to 90 %",
    )
    bad = [i for i, x in enumerate(found.values()) if (best + SURE < x.J).any()]
    caption = (
        f"J* = {best:g}, which no policy may exceed. All but the kept share and the tokens is exact; KL in nats per "
        f"sequence, entropy in nats per token; To 90 %: updates to so many best answers, looked at every {EVERY}."
    )
    return Table(header, rows, (0,), caption, bad)


def drawing(task: TokenTask, found: dict[str, Runs], first: float, best: float) -> Drawing:
    """Exact J and entropy over updates."""
    right = ((task.tree.reward == 0) | (task.tree.reward == 1)).all()

    def objective(ax: Axes) -> None:
        for i, (algo, x) in enumerate(found.items()):
            ax.plot(x.k, x.J[:, 0], color=colour(i), lw=1.8, label=algo.upper())
        exact_level(ax, best, f"J*: {best:g}")
        exact_level(ax, first, f"uniform: {first:.3g}", dash=2)
        finish(ax, "updates", "J = success probability, exact" if right else "J, exact")
        ax.legend(frameon=False, fontsize=9, loc="center right")

    def entropy(ax: Axes) -> None:
        for i, x in enumerate(found.values()):
            ax.plot(x.k, x.entropy[:, 0], color=colour(i), lw=1.8, label="_")
        ax.set_yscale("log")
        ax.set(xlabel="updates", ylabel="entropy of a token, nats, exact")
        ax.grid(color="#dddddd", lw=0.6)
        ax.spines[["top", "right"]].set_visible(False)

    alt = (
        f"Exact expected outcome of GRPO and DAPO on {task.name} over updates, from {first:.3g} up to {best:g} at most."
    )
    panels = [
        Panel(objective, 4.7, 3.3, alt),
        Panel(entropy, 4.4, 3.3, "Exact entropy of the same policies over updates."),
    ]
    caption = "One run of each method. Nothing is sampled but the training itself: every policy is evaluated exactly."
    return Drawing(panels, caption)


def section(x: Study) -> Section:
    """The section of one task."""
    blocks: list[Any] = [Text(x.sentence)] if x.sentence else []
    blocks += [Text(x.source, "Source:")] if x.source else []
    blocks += [Pre(x.text)] if x.text else []
    return Section(x.name, f"task-{x.name}", [*blocks, x.table, *x.pictures])


INTRODUCTION = (
    Text(
        "A token task asks a policy to write answers to prompts, token by token, and a verifier pays for the "
        "finished answer. Each task is small enough to list every answer, so the expected outcome J, the KL to the "
        "first policy, the entropy and the dead prompts of every policy are exact numbers and no estimates."
    ),
    Text(
        "Each task is learned by one run of GRPO and one of DAPO with the defaults of `tabrl tokens`: a table that "
        f"starts uniform, {UPDATES} updates of a group of 16 answers to every prompt. Other seeds, methods and "
        "networks: `tabrl tokens TASK --algo NAME`.",
        "The runs.",
    ),
)


def listing(found: Sequence[Study], page: str = "") -> Table:
    """One row per task, with a link to its section."""
    rows: list[tuple[Any, ...]] = []
    for x in found:
        ends = [f"{J:.4f}" for J in x.ends] or ["–"] * len(ALGORITHMS)
        link = Link(x.name, f"task-{x.name}", page)
        rows.append((link, *x.sizes, f"{x.levels[0]:.4g}", *ends, f"{x.levels[1]:g}"))
    header = ("task", "prompts", "tokens", "length", "prefixes", "J uniform", "J GRPO", "J DAPO", "J*")
    return Table(header, rows, (0,), "J is exact.", [i for i, x in enumerate(found) if x.wrong])


def verdict(found: Sequence[Study]) -> str:
    """Say whether anything was better than the best, or failed."""
    wrong = sum(x.wrong for x in found)
    return f"{wrong} results are wrong!" if wrong else "No policy is better than the best answers."


def overview(found: Sequence[Study]) -> Section:
    """List the tasks on the front page."""
    text = "Small language models, trained by the methods of large ones, with every policy evaluated exactly."
    link = Links([Link("all token tasks on one page", "top", FILE)])
    return Section("Token tasks", "tokens", [Text(text), Text(verdict(found), "Result:"), link, listing(found, FILE)])


def page(found: Sequence[Study]) -> Page:
    """Lay out the page of the token tasks."""
    links = Links([Link("all worlds and learners", "top", "index.html")])
    blocks: list[Any] = [links, *INTRODUCTION, Text(verdict(found), "Result:"), listing(found)]
    return Page("Token tasks: GRPO and DAPO, exactly judged", blocks, [section(x) for x in found])


def build(
    folder: str | Path, chosen: Sequence[str], *, jobs: int = -1, tick: Callable[[str], None] = lambda name: None
) -> list[Study]:
    """Study the tasks and write their page into the folder, which is made if it is not there."""
    found: list[Study] = in_parallel(study, chosen, jobs, tick)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write(target / FILE, render(page(found)).encode())
    return found
