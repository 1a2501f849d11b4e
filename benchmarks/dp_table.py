"""Text of benchmarks/dp.py: a line for the screen, and the section of docs/benchmarks.md.

x: what one row measured, see dp_row.py; a row that failed has only model, solver and failed.
"""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dp_models import MODELS

BEGIN, END = "<!-- benchmarks/dp.py writes from here -->", "<!-- to here -->"
TOL = 1e-6
PACKAGES = ("tabrl", "quantecon", "stormpy", "mdpsolver", "pymdptoolbox", "numpy", "scipy", "numba")
LABELS = {
    "auto": "tabrl", "quantecon": "QuantEcon", "storm": "Storm", "mdpsolver": "MDPSolver", "toolbox": "pymdptoolbox",
    "sweeps60": "60 sweeps",
}  # fmt: skip

NOTES = f"""\
Accuracy {TOL:g} in V is asked of everybody, in the way each documents: ε = 2e-6 of QuantEcon, whose V is within ε/2,
the precision of Storm's discounted reward and optimistic value iteration, the tolerance of MDPSolver, ε of
pymdptoolbox. Storm's plain value iteration promises no accuracy and is given 1e-7. Storm "sink" ends the episode with
probability 1 - γ in place of discounting. Every row has its own process; building a solver's model is not timed;
seconds are medians after a solve that warms up (left out where it takes over ten seconds). MDPSolver starts from its
last answer and is made anew for every solve. Memory is the peak of the process while it solves, its model included.
The best peer is the fastest whose true error is at most {TOL:g}; the true error includes that of the reference, which
is found by code of its own with residuals in extended precision. MDPSolver took more than ten times as long as the
best peer on grid 300 × 300 and on two rooms, γ .99, and is left out of the rooms and of the other grids; pymdptoolbox
is left out of all but two models: on the forest it took seconds, and on 90,000 states it asked for a dense matrix."""

Row = dict[str, Any]


def line(x: Row) -> str:
    """One row for the screen."""
    if "failed" in x:
        return f"  {x['solver']:18} {x['failed']}"
    claim = (
        f", first {number(x['first'])} s, bound {x['bound']:.1e} ({x['method']}, {x['rounds']} rounds, {x['status']})"
        if "bound" in x
        else ""
    )
    error = f", error {x['error']:.1e}" if "error" in x else ""
    memory = f", peak {x['peak'] / 2**20:.0f} MiB" if "peak" in x else ""
    spent = f" (cpu {number(x['cpu'])})" if "cpu" in x else ""
    return f"  {x['solver']:18} {number(x['median'])} s of {len(x['seconds'])}{spent}{error}{claim}{memory}"


def document(found: dict[str, list[Row]]) -> str:
    """Return the whole section: machine, how to read it, summary, and a table for each model."""
    tables = [table(name, rows) for name, rows in found.items() if rows]
    return "\n\n".join([machine(), NOTES, summary(found) + yardstick(found), *tables])


def yardstick(found: dict[str, list[Row]]) -> str:
    """Compare our solve of a model with 60 plain sweeps over it."""
    text = ""
    for name, rows in found.items():
        times = {x["solver"]: x["median"] for x in rows if "failed" not in x}
        if {"auto", "sweeps60"} <= set(times):
            ratio, plain = number(times["auto"] / times["sweeps60"]), number(times["sweeps60"])
            text += f"\n\n60 compiled Bellman sweeps on two threads over {MODELS[name].title} take {plain} s; "
            text += f"tabrl's whole solve takes {ratio} times as long."
    return text


def machine() -> str:
    """Say where and with what the rows were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}; {names}."
    )


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())


def version_of(package: str) -> str:
    """Version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def best_peer(rows: list[Row]) -> Row | None:
    """Fastest row of others whose V is right to 1e-6."""
    good = [x for x in rows if x.get("error", 1.0) <= TOL and "bound" not in x]
    return min(good, key=lambda x: float(x["median"]), default=None)


def summary(found: dict[str, list[Row]]) -> str:
    """Table of the models: our time, the best peer's, and their ratio."""
    lines = ["| model | tabrl, s | best peer, s | tabrl / best peer |", "|---|---|---|---|"]
    for name, rows in found.items():
        ours = next((x for x in rows if x["solver"] == "auto" and "failed" not in x), None)
        best = best_peer(rows)
        if ours is None or best is None:
            continue
        ratio = number(ours["median"] / best["median"])
        lines.append(
            f"| {MODELS[name].title} | {number(ours['median'])} | {label(best)} {number(best['median'])} | {ratio} |"
        )
    return "\n".join(lines)


def table(name: str, rows: list[Row]) -> str:
    """Table of one model: ours first, the others by time."""
    some, best = next((x for x in rows if "S" in x), None), best_peer(rows)
    lines = [f"**{MODELS[name].title}**" + (sizes(some, rows) if some else "") + ".", ""]
    lines += [
        "| | setting | threads | s | / best peer | bound | true error | bound ≥ error | peak MiB |",
        "|---" * 9 + "|",
    ]
    for x in sorted(rows, key=lambda x: ("bound" not in x, x.get("median", 1e9))):
        lines.append("| " + " | ".join(cells(x, best)) + " |")
    return "\n".join(lines)


def sizes(x: Row, rows: list[Row]) -> str:
    """How large the model is, and how well its values are known."""
    known = next((f", reference within {y['reference']:.0e}" for y in rows if "reference" in y), "")
    return f": {x['S']:,} states, {x['A']} actions, {x['entries']:,} transitions, {x['size'] / 2**20:.0f} MiB{known}"


def cells(x: Row, best: Row | None) -> list[str]:
    """Return the cells of one row."""
    if "failed" in x:
        return [label(x), x["solver"], "", x["failed"], "", "", "", "", ""]
    ratio = number(x["median"] / best["median"]) if best else ""
    method = f"{x['setting']}: {x['method']}" if "method" in x else x["setting"]
    claim = [f"{x['bound']:.1e}"] if "bound" in x else [""]
    right = ["yes" if x["bound"] >= x["error"] else "**no**"] if "bound" in x and "error" in x else [""]
    error = f"{x['error']:.1e}" if "error" in x else ""
    peak = f"{x['peak'] / 2**20:.0f}" if "peak" in x else ""
    return [label(x), method, x["threads"], number(x["median"]), ratio, *claim, error, *right, peak]


def label(x: Row) -> str:
    """Name of the solver's package."""
    solver = str(x["solver"])
    return LABELS.get(solver) or LABELS.get(solver.split("-")[0], "tabrl")


def number(x: float) -> str:
    """Three digits, without a leading zero."""
    text = f"{x:.3g}" if x >= 0.001 else f"{x:.1e}"
    return text.removeprefix("0") if text.startswith("0.") else text


def write(path: Path, text: str) -> None:
    """Replace what stands between the two marker comments of a file."""
    old = path.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise ValueError(f"{path} has no {BEGIN} … {END}; both comments are expected")
    head, rest = old.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")
