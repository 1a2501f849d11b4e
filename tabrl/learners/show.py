"""What was learned, as text on a console, beside what is exactly known.

V (runs,S), Q (K,runs,S,A) estimates; V_pi (S,) exact; J expected return from the start distribution.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from tabrl.learners import LEARNERS, about
from tabrl.learners.judged import Acting, Valued
from tabrl.show import HEAD, label
from tabrl.types import F, I

if TYPE_CHECKING:
    from rich.console import Console


def header(out: "Console", options: Any, world: Any, settings: dict[str, Any], times: I) -> None:
    """Print what was run."""
    said = about(LEARNERS[options.algo].load())
    out.print(f"{options.env}: {world!r}", soft_wrap=True)
    words = ", ".join(f"{name} = {setting(value)}" for name, value in settings.items())
    words += "" if options.limit is None else f", episodes cut after {options.limit:,} steps"
    rows = [("algorithm", said.title), ("equation", said.equation), ("settings", words)]
    plural = "" if options.runs == 1 else "s"
    rows.append(("experience", f"{times[-1]:,} transitions, {options.runs:,} run{plural}, seed {options.seed}"))
    out.print(facts([x for x in rows if x[1]]))
    out.print()


def setting(value: Any) -> str:
    """Write an option: a schedule by its formula, or by its first and last number."""
    if isinstance(value, tuple):
        return ":".join(setting(x) for x in value)
    if value is None:
        return "none"
    return "1/k" if callable(value) else f"{value:g}" if isinstance(value, float) else str(value)


def facts(rows: list[tuple[str, str]]) -> Table:
    """A table of names and what they are."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def spread(x: F) -> str:
    """Mean over runs and its standard error; runs without a finite number are counted apart."""
    good = x[np.isfinite(x)]
    if len(good) < len(x):
        rest = f"; {spread(good)} in the others" if len(good) else ""
        return f"never ends in {len(x) - len(good)} of {len(x)} runs{rest}"
    text = f"{x.mean():.4g}"
    return text if len(x) < 2 else f"{text} ± {error(x):.2g}"


def error(x: F) -> float:
    """Standard error of the mean over axis 0 of numbers of runs; nan for one run."""
    return float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan


def estimates(names: list[str], rows: list[list[str]]) -> Table:
    """A table of states: the first column to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(names):
        table.add_column(name, justify="left" if i == 0 or name == "action" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def values(out: "Console", x: Valued) -> None:
    """Print estimate, standard error, exact value and difference of the first states."""
    mdp, V, V_pi = x.mdp, x.V[-1], x.V_pi
    middle, shown = V.mean(axis=0), np.flatnonzero(~mdp.terminal).tolist()
    names = ["state", "estimate", "s.e.", "exact", "difference", *(["expected"] if x.moments else [])]
    rows = []
    for s in shown[:HEAD]:
        expected = [f"{x.moments[-1].mean[s]:.6g}"] if x.moments else []
        numbers = [f"{middle[s]:.6g}", short(error(V[:, s])), f"{V_pi[s]:.6g}", f"{middle[s] - V_pi[s]:+.2g}"]
        rows.append([label(mdp.names.states, s), *numbers, *expected])
    out.print(estimates(names, rows))
    rest(out, len(shown), (middle - V_pi)[~mdp.terminal])
    if x.moments:
        out.print("expected: the exact mean of the learner's value after so many transitions, not V_pi", soft_wrap=True)
    out.print()


def short(x: float) -> str:
    """Two digits, or a dash where there is no number."""
    return f"{x:.2g}" if math.isfinite(x) else "–"


def rest(out: "Console", n: int, difference: F) -> None:
    """Say what was left out of a table."""
    if n > HEAD:
        out.print(f"… {n - HEAD:,} more states; differences from {difference.min():+.3g} to {difference.max():+.3g}")


def errors(out: "Console", x: Valued) -> None:
    """Print the root of the mean square error over states and runs, beside its exact expectation."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, half = float(x.squares[-1].mean()), error(x.squares[-1])
    root = math.sqrt(mean) if math.isfinite(mean) else math.inf
    text = f"{root:.4g}" + (f" ± {half / (2 * root):.2g}" if math.isfinite(half) and root > 0 else "")
    rows = [("RMS error", f"{text}  of V, root of the mean square over states and runs")]
    if x.expected is not None:
        rows.append(("expected", f"{math.sqrt(x.expected[-1]):.4g}  exact, from the moments of TD(0)"))
    else:
        rows.append(("expected", "not known exactly for these settings"))
    if x.floor is not None:
        rows.append(("floor", f"{math.sqrt(x.floor):.4g}  exact limit with this step size"))
    out.print(facts(rows))


def control(out: "Console", x: Acting) -> None:
    """Print the learned values of the states, and the exact worth of the policies."""
    mdp, star, Q = x.mdp, x.star, x.Q[-1]
    top = np.where(x.legal, Q, -np.inf).max(axis=2)
    shown, rows = [s for s in range(mdp.S) if not mdp.terminal[s]], []
    for s in shown[:HEAD]:
        action = int(np.bincount(np.where(x.legal[s], Q[:, s], -np.inf).argmax(axis=1)).argmax())
        middle = top[:, s].mean()
        numbers = [f"{middle:.6g}", short(error(top[:, s])), f"{star.V[s]:.6g}", f"{middle - star.V[s]:+.2g}"]
        rows.append([label(mdp.names.states, s), *numbers, label(mdp.names.actions, action)])
    out.print(estimates(["state", "max Q", "s.e.", "V*", "difference", "action"], rows))
    rest(out, len(shown), (top.mean(axis=0) - star.V)[~mdp.terminal])
    out.print()
    out.print(facts(worths(x)))


def worths(x: Acting) -> list[tuple[str, str]]:
    """Distances and exact returns, from the start distribution."""
    star, greedy, acting = x.star, x.worth(x.Q[-1], 0.0), x.worth(x.Q[-1], x.eps)
    rows = [
        ("max |Q - Q*|", f"{spread(x.gaps(star.Q))}  largest over states and actions"),
        ("J*", f"{star.J:.6g}  exact, bound {star.bound:.1g}"),
        ("J greedy", f"{spread(greedy)}  exact return of the policy that is greedy in Q"),
    ]
    if x.eps > 0:
        name = f"{x.eps:g}-soft"
        rows.insert(1, ("max |Q - Q*eps|", f"{spread(x.gaps(star.Q_eps))}  from the values of the best {name} policy"))
        rows.append(("J acting", f"{spread(acting)}  exact return of the {x.eps:g}-greedy policy that acts"))
        rows.append(("J*eps", f"{star.J_eps:.6g}  exact, of the best {name} policy: no other does better"))
    return rows


def returns(out: "Console", x: F, *, exact: bool) -> None:
    """Print the average return of the last tenth of the episodes."""
    rows = [("return", f"{spread(x)}  average of the last 10 % of the episodes, undiscounted, while exploring")]
    if not exact:
        rows.append(("exact", "none: the environment has no model to solve"))
    out.print(facts(rows))
    out.print()
