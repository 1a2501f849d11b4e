"""The pages of the report about learners: what they estimate on small worlds, beside what is exactly true.

z = (sample mean - exact expectation) / standard error. A page is made of parts, one for each case; a learner whose
score lies beyond `BEYOND` is wrong.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from tabrl.learners import LEARNERS, POLICY, PREDICTION, About, about
from tabrl.output import write
from tabrl.plots import runs as plot_runs
from tabrl.report import in_parallel, one_line, studies
from tabrl.report.drawing import Drawing, Panel, picture
from tabrl.report.page import Link, Links, Page, Picture, Pre, Section, Table, Text, render
from tabrl.types import F

BEYOND = 6.0  # a z-score beyond this does not happen by chance


class Part(NamedTuple):
    """One case: what was done, a table, pictures; scores; and what is wrong."""

    title: str
    texts: Sequence[str]
    table: Table
    pictures: Sequence[Picture] = ()
    z: Sequence[float] = ()  # of comparisons with an exact expectation
    wrong: int = 0  # rows that are set off: scores beyond `BEYOND`, broken bounds, differences that should be none


class Study(NamedTuple):
    """One learner, and its cases."""

    name: str
    about: About
    parts: Sequence[Part]

    @property
    def z(self) -> F:
        """All scores of the page."""
        return np.array([z for part in self.parts for z in part.z])

    @property
    def wrong(self) -> int:
        """Rows that are set off."""
        return sum(part.wrong for part in self.parts)


def comparison(
    title: str, texts: Sequence[str], x: studies.Comparison, *, xlabel: str, more: Sequence[Drawing] = ()
) -> Part:
    """Lay out a case that has an exact expectation: an early and the last point as a table, all of them as pictures.

    Early points show a wrong step size, late ones a wrong target.
    """
    rows: list[tuple[str, ...]] = []
    bad: list[int] = []
    found: list[float] = []
    runs = x.estimates.shape[1]
    mean, error, scores = x.mean, x.standard_error, x.z
    for k in (len(x.t) // 5, len(x.t) - 1):
        for i, name in enumerate(x.labels):
            z = float(scores[k, i])
            numbers = map(number, (x.truth[i], x.exact[k, i], mean[k, i], error[k, i]))
            bad += [len(rows)] if abs(z) > BEYOND else []
            found += [] if math.isnan(z) else [z]
            rows.append((name, f"{x.t[k]:,}", *numbers, score(z)))
    kind = "sample standard error" if x.error is None else "standard error from the exact variance"
    header = ("value of", xlabel, "V_pi, exact", "expected, exact", "sample mean", "s.e.", "z")
    table = Table(header, rows, caption=f"{runs:,} runs from V = 0; {kind}.", bad=bad)
    drawn = [Drawing(panels(x, xlabel), f"Bars: two standard errors over {runs:,} runs. {NORMAL}"), *more]
    return Part(title, texts, table, [picture(d) for d in drawn], found, len(bad))


NORMAL = (
    "Scores of one quantity hang together over time, and early ones are not normal: few runs have met a reward yet."
)


def panels(x: studies.Comparison, xlabel: str) -> list[Panel]:
    """Sample means of values on the exact curves, and all scores."""
    drawn: Any = np.isfinite(x.truth) & np.isfinite(x.exact[-1])
    names = [name for name, k in zip(x.labels, drawn, strict=True) if k]
    scored: Any = np.isfinite(x.exact[-1])
    all_names = [name for name, k in zip(x.labels, scored, strict=True) if k]

    def curves(ax: Axes) -> None:
        plot_runs.against_exact(ax, x.t, x.estimates[:, :, drawn], x.exact[:, drawn], names, xlabel=xlabel)

    def scores(ax: Axes) -> None:
        plot_runs.scores(ax, x.t, x.z[:, scored], all_names, xlabel=xlabel)

    alt = f"Sample mean and exact expectation of {', '.join(names)} by {xlabel}."
    return [Panel(curves, 4.6, 3.3, alt), Panel(scores, 4.5, 3.3, f"The z-scores of the same numbers by {xlabel}.")]


def number(x: float) -> str:
    """Six digits, or a dash."""
    return f"{x:.6f}" if math.isfinite(x) else "–"


def score(z: float) -> str:
    """A z-score, or a dash where nothing varies."""
    return "–" if math.isnan(z) else f"{z:+.2f}"


def study(name: str) -> Study:
    """Run all cases of a learner; one that raises has a page that says so.

    >>> study("batch").wrong
    0
    """
    from tabrl.report import cases as report_cases
    from tabrl.report import control as report_control
    from tabrl.report import policies as report_policies

    if name in report_cases.CASES:
        said, cases = report_cases.CASES[name]
        words = about(said) if callable(said) else About(said, "", "")
        rng = np.random.default_rng([0, *name.encode()])
        return Study(name, words, attempted(lambda: [case(rng) for case in cases]))
    parts = report_policies.parts if LEARNERS[name].kind == POLICY else report_control.parts
    return Study(name, about(LEARNERS[name].load()), attempted(lambda: parts(name)))


def attempted(run: Callable[[], Sequence[Part]]) -> Sequence[Part]:
    """Run the cases; whatever they raise becomes a part that is wrong."""
    try:
        return run()
    except Exception as error:  # the report shows what failed, and goes on
        message = f"{type(error).__name__}: {one_line(error)}"
        return [Part("failed", [], Table(["case", "error"], [("all", message)], (0, 1), bad=[0]), wrong=1)]


def names() -> list[str]:
    """List the learners that have a page."""
    from tabrl.report.cases import CASES

    return [*CASES, *(name for name, x in LEARNERS.items() if x.kind != PREDICTION)]


def file(name: str) -> str:
    """File name of a learner's page."""
    return f"learner-{name}.html"


def page(x: Study, all_names: Sequence[str]) -> Page:
    """Lay out the page of a learner."""
    links = Links([Link("all worlds and learners", "top", "index.html"),
                   *(Link(name, "top", file(name)) for name in all_names if name != x.name)])  # fmt: skip
    blocks: list[Any] = [links]
    blocks += [Pre(x.about.equation)] if x.about.equation else []
    blocks += [Text(x.about.source, "Source:")] if x.about.source else []
    blocks.append(Text(verdict([x]), "Result:"))
    sections = [
        Section(p.title, f"case-{i}", [*map(Text, p.texts), p.table, *p.pictures]) for i, p in enumerate(x.parts, 1)
    ]
    return Page(x.about.title, blocks, sections)


def verdict(found: Sequence[Study]) -> str:
    """Say how the scores lie, beside what chance alone would do."""
    z = np.concatenate([x.z for x in found]) if found else np.empty(0)
    words = []
    if len(z):
        outside, wild = int((abs(z) > 2).sum()), float(abs(z).max())
        words.append(
            f"{outside} of {len(z)} z-scores lie outside ±2, where chance alone puts about {0.0455 * len(z):.1f}; "
            f"the largest is {wild:.2f}."
        )
    wrong = sum(x.wrong for x in found)
    words.append(f"{wrong} rows are wrong!" if wrong else "No row is wrong.")
    return " ".join(words)


def overview(found: Sequence[Study]) -> Section:
    """List the learners on the front page."""
    rows = []
    for x in found:
        largest = f"{abs(x.z).max():.2f}" if len(x.z) else "–"
        outside = f"{int((abs(x.z) > 2).sum())} of {len(x.z)}" if len(x.z) else "–"
        rows.append((Link(x.name, "top", file(x.name)), str(len(x.parts)), outside, largest, str(x.wrong)))
    bad = [i for i, x in enumerate(found) if x.wrong]
    header = ("learner", "cases", "|z| > 2", "largest |z|", "wrong rows")
    caption = (
        "z: sample mean less exact expectation, in standard errors. Without scores: a learner that acts is held "
        f"against exact returns and bounds, a batch against its closed form. A row is wrong beyond |z| = {BEYOND:g}, "
        "or where a bound is broken."
    )
    text = "Every learner has a page: what it learned over many runs, beside what is exactly known about it."
    table = Table(header, rows, (0,), caption, bad)
    return Section("Learners, one page each", "learners", [Text(text), Text(verdict(found), "Result:"), table])


def build(
    folder: str | Path, chosen: Sequence[str], *, jobs: int = -1, tick: Callable[[str], None] = lambda name: None
) -> list[Study]:
    """Study the learners and write one page for each into the folder, which is made if it is not there."""
    found: list[Study] = in_parallel(study, chosen, jobs, tick)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for x in found:
        write(target / file(x.name), render(page(x, chosen)).encode())
    return found
