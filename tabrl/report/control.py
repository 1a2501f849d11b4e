"""The cases of the control learners in the report: the exact return of the policy that acts, beside the best ones.

Q (K,runs,S,A); J expected return from the start distribution; eps exploration.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tabrl import envs
from tabrl._jit import compiled
from tabrl.learners import LEARNERS, Task, curves, settings, times
from tabrl.learners.draw import window
from tabrl.learners.judged import Acting
from tabrl.learners.show import setting, spread
from tabrl.mdp import MDP
from tabrl.plots import COLOURS
from tabrl.plots import runs as plot_runs
from tabrl.report.drawing import Drawing, Panel, picture
from tabrl.report.learners import Part
from tabrl.report.page import Table
from tabrl.types import F

RUNS, POINTS = (20 if compiled() else 4), 25
WORLDS: dict[str, tuple[Callable[[], MDP], int | None]] = {  # with a time limit where a policy may not end
    "cliff": (envs.cliff, 500),
    "gambler's problem up to 8": (lambda: envs.gambler(goal=8), None),
}
STEPS, ALPHA = (20_000 if compiled() else 1_000), 0.1  # fewer where every step is interpreted
WHOLE_EPISODES = ("mc-control", "exploring-starts", "off-policy-mc-control")  # they learn when an episode ends


def parts(name: str) -> list[Part]:
    """Both worlds for one learner."""
    return [case(name, title, world(), limit) for title, (world, limit) in WORLDS.items()]


def case(name: str, title: str, mdp: MDP, limit: int | None) -> Part:
    """Run a learner and evaluate, exactly, every policy that it acted by at the times of the curve."""
    options = settings(name, {"alpha": ALPHA} if "alpha" in LEARNERS[name].defaults else {})
    limit = limit if name in WHOLE_EPISODES else None
    task = Task(name, mdp, options, times(STEPS, POINTS), limit=limit)
    x = Acting(mdp, curves(task, 0, RUNS), options.get("eps", 0.0))
    table, broken = results(x)
    words = ", ".join(f"{k} = {setting(v)}" for k, v in options.items())
    words += "" if limit is None else f", episodes cut after {limit} steps"
    texts = [
        f"On the {title} (S = {mdp.S}, A = {mdp.A}, γ = {mdp.gamma:g}); {words}; {RUNS} runs of {task.times[-1]:,} "
        "transitions from Q = 0. The return J is not sampled: the policy that acts at a moment is evaluated exactly. "
        f"The expected curve has no closed form, but there is a limit: no policy is better than J*{and_soft(x)}. These "
        "limits are certified.",
    ]
    caption = (
        "Left, every point is the exact return of a policy; the mean is dragged down by policies that hardly ever end. "
        "Right, the largest distance is that of actions that are hardly ever tried."
    )
    drawn = picture(Drawing(panels(x, task.times), caption))
    return Part(title, texts, table, [drawn], (), broken)


def and_soft(x: Acting) -> str:
    """Name the second limit, where the learner explores."""
    return f", and no {x.eps:g}-greedy one better than the best {x.eps:g}-soft policy" if x.eps > 0 else ""


def results(x: Acting) -> tuple[Table, int]:
    """The end of the runs beside the optimum, and how many policies broke a bound."""
    star, curve, greedy = x.star, x.curve, x.worth(x.Q[-1], 0.0)
    above = [over(curve, star.J_eps, star.bound_eps), over(greedy, star.J, star.bound)]
    limits = [f"{star.J_eps:.6g} ± {star.bound_eps:.0e}", f"{star.J:.6g} ± {star.bound:.0e}"]
    rows = [
        ("J of the acting policy, at the end", spread(curve[-1]), limits[0], str(above[0])),
        ("J of the greedy policy, at the end", spread(greedy), limits[1], str(above[1])),
        ("median J of the acting policies", median(curve[-1]), f"{star.J_eps:.6g}", "–"),
        ("max |Q − Q*|", spread(x.gaps(star.Q)), "0", "–"),
    ]
    if x.eps > 0:
        rows.append((f"max |Q − Q| of the best {x.eps:g}-soft policy", spread(x.gaps(star.Q_eps)), "0", "–"))
    bad = [i for i, n in enumerate(above) if n]
    header = ("", "learned, mean ± s.e.", "best possible, exact", "policies above it")
    caption = (
        f"Policies above it: of all {curve.size} that were evaluated (acting), of {len(greedy)} (greedy). Must be 0."
    )
    return Table(header, rows, (0,), caption, bad), sum(above)


def over(J: F, best: float, bound: float) -> int:
    """Count policies that are worth more than the best one, beyond its bound and rounding."""
    return int((best + bound + 1e-9 * max(1.0, abs(best)) < J).sum())


def median(x: F) -> str:
    """Median over runs; a policy that never ends counts as the worst."""
    found = float(np.median(np.where(np.isnan(x), -np.inf, x)))
    return f"{found:.4g}" if np.isfinite(found) else "most never end"


def panels(x: Acting, t: Any) -> list[Panel]:
    """Exact return over time, and the distances of Q."""
    lines = {"J*": x.star.J}
    distances = [(distance(x, x.star.Q), "from Q*")]
    if x.eps > 0:
        lines[f"best {x.eps:g}-soft policy"] = x.star.J_eps
        distances.append((distance(x, x.star.Q_eps), f"from Q of the best {x.eps:g}-soft"))

    def returns(ax: Any) -> None:
        span = window(x.curve, x.star.J, x.star.J_eps)
        plot_runs.learning_curve(ax, t, x.curve, ylabel="exact return J", window=span, lines=lines)

    def gaps(ax: Any) -> None:
        for (y, label), colour, dash in zip(distances, (COLOURS[0], COLOURS[3]), ("-", "--"), strict=False):
            b = plot_runs.band(y)
            ax.plot(t, b.mean, color=colour, lw=1.8, ls=dash, label=label)
            ax.fill_between(t, b.low, b.high, color=colour, alpha=0.25, lw=0)
        ax.set(ylabel="largest |difference| of Q", ylim=(0, None), xlim=(0, None))
        plot_runs.finish(ax, "transitions")

    alt = f"Exact return of the acting policy over transitions, {x.curve.shape[1]} runs, below J* = {x.star.J:.6g}."
    return [Panel(returns, 4.7, 4.2, alt), Panel(gaps, 4.4, 4.2, "Largest distance of Q from its optimum over time.")]


def distance(x: Acting, Q_star: F) -> F:
    """Largest |Q - Q_star| over legal actions of live states, (K,runs)."""
    on = x.legal & ~x.mdp.terminal[:, None]
    return abs(x.Q - Q_star)[:, :, on].max(axis=2, initial=0.0)  # type: ignore[no-any-return]
