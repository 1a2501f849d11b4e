"""The report: every world solved by every method, each answer beside the exact one.

bound certified max |V - V_star|; error the true one, measured against `reference`. A page is a list of
sections (see `report_page`); this module makes the page of the worlds.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from inspect import isgeneratorfunction
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from tabrl import dp, plots, undiscounted
from tabrl._jit import compiled
from tabrl.mdp import MDP
from tabrl.output import write
from tabrl.reference import Reference, reference
from tabrl.report import drawing
from tabrl.report.page import Link, Links, Page, Picture, Pre, Section, Table, Text, render
from tabrl.stopping import LIMIT

TOL = 1e-8  # accuracy that every method is asked for
WORK = 3_000_000_000  # entries of P that the loops of one method may read: some seconds; 1 % of it without numba


class Row(NamedTuple):
    """What one method did on one world."""

    method: str
    iterations: int
    seconds: float
    bound: float  # certified max |V - V_star|; inf without a certificate
    error: float  # true max |V - V_star|; nan when the method failed
    status: str  # of the solution, or why there is none
    failed: bool = False


class Study(NamedTuple):
    """One world, solved by every method."""

    name: str
    size: tuple[int, int]  # S, A
    gamma: float
    about: tuple[str, str, str]  # sentence, source, diagram
    exact: float  # accuracy of the reference
    rows: list[Row]
    pictures: list[Picture]

    @property
    def violations(self) -> list[Row]:
        """Rows whose bound does not contain the true error: there must be none."""
        return [row for row in self.rows if row.error > row.bound + self.exact]

    @property
    def failures(self) -> list[Row]:
        """Rows of methods that raised an error."""
        return [row for row in self.rows if row.failed]


def study(name: str) -> Study:
    """Build a world, compute its reference, run every method, and draw the figures.

    >>> x = study("two-state")
    >>> [row.method for row in x.rows] == list(dp.METHODS), x.violations
    (True, [])
    """
    from tabrl import envs

    warm_up()
    mdp = envs.make(name)
    exact = reference(mdp)
    rows, curves = [], {}
    for method in dp.METHODS:
        row, curve = attempt(mdp, method, exact)
        rows.append(row)
        if curve is not None:
            curves[method] = curve
    V = exact.V.astype(np.float64)
    drawn = [drawing.values(name, mdp, V, maximisers(mdp, exact))]
    if curves:
        drawn.append(drawing.convergence(mdp, V, curves))
    pictures = [drawing.picture(x) for x in drawn]
    about = describe(envs.WORLDS[name], grid=hasattr(mdp, "layout"))
    return Study(name, (mdp.S, mdp.A), mdp.gamma, about, exact.error, rows, pictures)


@cache
def warm_up() -> None:
    """Run every method once on a tiny model, so that no row pays for imports and compilation."""
    for method in dp.METHODS:
        with suppress(Exception):  # a method that is broken says so in its rows
            dp.solve(MDP([[[0.5, 0.5]], [[0.0, 1.0]]], [1, 0], 0.5), method)


def attempt(mdp: MDP, method: str, exact: Reference, tol: float = TOL) -> tuple[Row, plots.Curve | None]:
    """Watch a method, then time it; whatever it raises becomes the status of its row."""
    limit = affordable(mdp, method)
    try:
        curve = watch(mdp, method, exact, tol, limit)
        start = perf_counter()
        solution = dp.solve(mdp, method, tol=tol, limit=limit)
        seconds = perf_counter() - start
    except Exception as error:  # the report shows what failed, and goes on
        return Row(method, 0, math.nan, math.inf, math.nan, f"{type(error).__name__}: {one_line(error)}", True), None
    distance = float(abs(solution.V - exact.V).max(initial=0.0))
    return Row(method, solution.iterations, seconds, solution.bound, distance, solution.status), curve


def affordable(mdp: MDP, method: str) -> int:
    """Largest number of iterations of a loop over single states that takes about `WORK` steps.

    One sweep reads every entry of P; one record of prioritized sweeping reads, S times, the rows of all
    states that lead to the one it backs up. Other methods have the limit of `dp`.
    """
    entries = int(mdp.csr.nnz)
    if method == "prioritized_sweeping":
        row, s_next = mdp.csr.nonzero()
        edges = np.unique(s_next.astype(np.int64) * mdp.S + row // mdp.A)
        entries *= int(np.bincount(edges // mdp.S).max(initial=1))
    elif method != "gauss_seidel":
        return LIMIT
    return min(LIMIT, max(1, (WORK if compiled() else WORK // 100) // max(entries, 1)))


def watch(mdp: MDP, method: str, exact: Reference, tol: float, limit: int) -> plots.Curve | None:
    """Follow the records of a method; None for a direct one.

    At gamma = 1 it runs on the quotient model, as `dp.solve` does.
    """
    generator = dp.METHODS[method]
    if not isgeneratorfunction(generator):
        return None
    quotient = undiscounted.quotient(mdp) if mdp.gamma == 1 else None
    records = generator(mdp if quotient is None else quotient.mdp, tol=tol, limit=limit)
    lifted = (x if quotient is None else x._replace(V=x.V[quotient.state]) for x in records)
    return plots.curve(lifted, exact.V)


def maximisers(mdp: MDP, exact: Reference) -> Any:
    """(S,A) mask of the actions whose Q is largest, up to rounding; none in terminal states."""
    tie = 1e-12 * max(1.0, float(abs(exact.V).max(initial=0.0))) + 4 * exact.error
    largest = exact.Q.max(axis=1, keepdims=True)
    return (largest - tie <= exact.Q) & mdp.legal & ~mdp.terminal[:, None]


def describe(world: Callable[..., MDP], *, grid: bool) -> tuple[str, str, str]:
    """First sentence, source and diagram of a world's docstring; a grid draws its own diagram."""
    text = (world.__doc__ or "").strip()
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    source = text.partition("Source: ")[2].split("\n\n")[0]
    diagram: list[str] = []
    for line in lines[2:]:
        if line.strip() and not line.startswith("    "):
            break
        diagram.append(line.removeprefix("    "))
    picture = "\n".join(diagram).strip("\n").rstrip()
    return lines[0], " ".join(source.split()), "" if grid else picture


def one_line(error: BaseException) -> str:
    """First words of a message."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:299] + "…"


def section(x: Study) -> Section:
    """Write the section of one world."""
    sentence, source, diagram = x.about
    S, A = x.size
    blocks: list[Any] = [Text(sentence), Text(source, "Source:")]
    blocks += [Pre(diagram)] if diagram else []
    caption = f"S = {S} states, A = {A} action{'s' if A > 1 else ''}, γ = {x.gamma:g}, tolerance {TOL:g}. {accuracy(x)}"
    rows = [
        (row.method.replace("_", " "), *(("–",) * 4 if row.failed else figures(row, x.exact)), row.status)
        for row in x.rows
    ]
    bad = [i for i, row in enumerate(x.rows) if row.failed or row in x.violations]
    header = ("method", "iterations", "seconds", "certified bound", "true error", "status")
    blocks.append(Table(header, rows, left=(0, 5), caption=caption, bad=bad))
    return Section(x.name, f"world-{x.name}", [*blocks, *x.pictures])


def accuracy(x: Study) -> str:
    """Say how accurate the reference is."""
    kind = "an estimate: γ = 1" if x.gamma == 1 else "certified"
    return f"V* is known to {x.exact:.0e} ({kind}); a smaller error is shown as ≤."


def figures(row: Row, exact: float) -> tuple[str, str, str, str]:
    """Numbers of a row as text: iterations, seconds, bound, error."""
    error = f"≤ {row.error + exact:.1e}" if row.error <= exact else f"{row.error:.1e}"
    bound = f"{row.bound:.1e}" if math.isfinite(row.bound) else "none"
    return f"{row.iterations:,}", f"{row.seconds:.4f}", bound, error


INTRODUCTION = (
    Text(
        "Every world below is a small model written out in full: transition probabilities P, rewards R and a "
        "discount γ. Each was solved by every method of the package, and each answer comes with two numbers."
    ),
    Text(
        "is what the solver can prove about its own answer without knowing the truth: max |V − V*| is at most this "
        "number, rounding errors included. “None” means that nothing was proved, not that the answer is wrong.",
        "Certified bound",
    ),
    Text(
        "is the actual max |V − V*|. V* was computed apart, by policy iteration whose values were refined in "
        "extended precision; how accurate that is stands under each table. The bound must never lie below the true "
        "error. It may lie far above: rounding is assumed to be as bad as it can be.",
        "True error",
    ),
    Text(
        f"says why a method stopped: certified (the bound reached the tolerance {TOL:g}), rounding floor (float64 "
        "allows no better bound), iteration limit, or not certifiable. Only the seconds differ from run to run.",
        "Status",
    ),
)


def verdict(studies: Sequence[Study]) -> str:
    """Say whether every bound held and every method ran."""
    wrong, failed = sum(len(x.violations) for x in studies), sum(len(x.failures) for x in studies)
    words = f"{len(studies)} worlds, {sum(len(x.rows) for x in studies)} answers. "
    words += f"{wrong} bounds lie below the true error!" if wrong else "Every bound contains the true error."
    return words + (f" {failed} runs failed with an error." if failed else "")


def overview(studies: Sequence[Study]) -> list[Any]:
    """List the worlds, after the verdict."""
    header = ("world", "states", "actions", "γ", "certified", "largest bound", "largest error")
    body = []
    for x in studies:
        good = [row for row in x.rows if not row.failed]
        certified = f"{sum(row.status == 'certified' for row in good)} of {len(x.rows)}"
        _, _, bound, error = figures(
            Row("", 0, 0, max((r.bound for r in good), default=math.inf), max((r.error for r in good), default=0), ""),
            x.exact,
        )
        link = Link(x.name, f"world-{x.name}")
        body.append((link, f"{x.size[0]:,}", f"{x.size[1]:,}", f"{x.gamma:g}", certified, bound, error))
    note = f"Certified: methods whose bound reached {TOL:g}. The largest bound and error are over all methods."
    bad = [i for i, x in enumerate(studies) if x.violations or x.failures]
    return [Text(verdict(studies), "Result:"), Table(header, body, caption=note, bad=bad)]


def worlds_page(studies: Sequence[Study], more: Sequence[Section] = ()) -> Page:
    """Lay out the page of the worlds; `more` sections stand first, with links to them."""
    jump = [Links([Link(x.title, x.anchor) for x in more])] if more else []
    if not studies:
        return Page("tabrl", jump, more)
    title = "tabrl: every world, solved by every method"
    return Page(title, [*jump, *INTRODUCTION, *overview(studies)], [*more, *(section(x) for x in studies)])


SLOW = ("car-rental",)  # begun first, so that no worker waits for them at the end


def in_parallel(study: Callable[[str], Any], names: Sequence[str], jobs: int, tick: Callable[[str], None]) -> list[Any]:
    """Study names in parallel, in their order; `tick` hears each finished one. jobs: -1 for one per processor."""
    from joblib import Parallel, delayed

    order = sorted(range(len(names)), key=lambda i: names[i] not in SLOW)
    alone = 1 if len(names) == 1 else jobs
    parallel = Parallel(n_jobs=alone, return_as="generator_unordered")
    done: dict[int, Any] = {}
    for i, result in parallel(delayed(numbered)(study, i, names[i]) for i in order):
        done[i] = result
        tick(names[i])
    return [done[i] for i in range(len(names))]


def numbered(study: Callable[[str], Any], i: int, name: str) -> tuple[int, Any]:
    """Study a name and keep its position."""
    return i, study(name)


def build(
    folder: str | Path, names: Sequence[str], *, jobs: int = -1, tick: Callable[[str], None] = lambda name: None,
    more: Sequence[Section] = (),
) -> tuple[Path, list[Study]]:  # fmt: skip
    """Study the worlds and write folder/index.html; `tick` hears the name of each finished world.

    jobs: processes, -1 for one per processor. more: other sections of the page. The folder is made if it is
    not there; the file appears whole or not at all. Returns its path and the studies.
    """
    studies = in_parallel(study, names, jobs, tick)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / "index.html"
    write(path, render(worlds_page(studies, more)).encode())
    return path, studies
