"""The cases of the policy gradients in the report: the exact return of every policy, the gradient beside the exact one.

theta (K,runs,S,A) preferences at K times; J expected return from the start distribution, exact.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tabrl import envs
from tabrl._jit import compiled
from tabrl.learners import Task, settings, times
from tabrl.learners.draw import from_start
from tabrl.learners.judged import Improved
from tabrl.learners.policies import FIXED, Paths, paths, unit
from tabrl.learners.show import setting, spread
from tabrl.mdp import MDP
from tabrl.plots import runs as plot_runs
from tabrl.report.control import over
from tabrl.report.drawing import Drawing, Panel, picture
from tabrl.report.learners import Part
from tabrl.report.page import Table
from tabrl.types import F, I

RUNS, POINTS, STEPS = (10, 25, 60_000) if compiled() else (3, 10, 10_000)  # fewer where every step is interpreted
WORLDS: dict[str, tuple[Callable[[], MDP], int]] = {  # with the time limit
    "grid of 8 × 8 cells, −1 a step": (lambda: envs.grid(GRID, step=-1.0, rewards={}, gamma=0.99), 500),
    "slippery frozen lake": (lambda: envs.frozen_lake(gamma=0.99), 500),
}
GRID = "S....... " + "........ " * 6 + ".......G"


def parts(name: str) -> list[Part]:
    """Both worlds for one learner."""
    return [case(name, title, world(), limit) for title, (world, limit) in WORLDS.items()]


def case(name: str, title: str, mdp: MDP, limit: int) -> Part:
    """Run a learner with its defaults and evaluate, exactly, the policies at the times of the curve."""
    options = settings(name, {})
    task = Task(name, mdp, options, times(STEPS, POINTS, unit(name, options)), limit=limit)
    x = paths(task, 0, RUNS)
    improved = Improved(mdp, x.theta)
    words = ", ".join(f"{k} = {setting(v)}" for k, v in {**options, **FIXED.get(name, {})}.items())
    texts = [
        f"On the {title} (S = {mdp.S}, A = {mdp.A}, γ = {mdp.gamma:g}); {words}; episodes cut after {limit} steps; "
        f"{RUNS} runs of {task.times[-1]:,} transitions from the uniform policy. J is not sampled: every softmax "
        "policy is evaluated exactly, and none may be better than J*, which is certified. These are the defaults of "
        "`tabrl learn`; runs that miss J* stay in the picture.",
    ]
    table, broken = results(improved, x)
    caption = (
        "Left, every point is the exact return of a policy. Right, the cosine between the gradient that was estimated "
        "for an update and the exact one; near the optimum the exact one vanishes, and the noise is left."
    )
    return Part(title, texts, table, [picture(Drawing(panels(improved, x, task.times), caption))], (), broken)


def results(improved: Improved, x: Paths) -> tuple[Table, int]:
    """The end of the runs beside the optimum, and how many policies are better than J*."""
    above, best = over(improved.curve, improved.J_star, improved.star.bound), f"{improved.J_star:.6g}"
    rows = [
        ("J of the last policy", spread(improved.curve[-1]), f"{best} ± {improved.star.bound:.0e}"),
        ("J of the uniform policy, where all begin", f"{improved.start:.6g}", best),
        ("runs within 1 % of J*", f"{improved.near} of {RUNS}", "–"),
        ("policies better than J*", str(above), "0"),
        ("cosine with the exact gradient, first point", spread(x.cosine[0]), "1"),
        ("entropy of the last policy (nats)", spread(x.entropy[-1]), "–"),
    ]
    header = ("", "found, mean ± s.e.", "best possible, exact")
    caption = f"Of all {improved.curve.size} policies that were evaluated none may be better than J*."
    return Table(header, rows, (0,), caption, [3] if above else []), above


def panels(improved: Improved, x: Paths, t: I) -> list[Panel]:
    """Exact return and cosine over time."""
    first = np.full((1, improved.curve.shape[1]), improved.start)
    span = from_start(improved.curve, improved.J_star, improved.start)
    curve, when = np.vstack([first, improved.curve]), np.append(0, t)

    def returns(ax: Any) -> None:
        lines = {"J*": improved.J_star}
        plot_runs.learning_curve(ax, when, curve, ylabel="exact return J", window=span, lines=lines)

    def angles(ax: Any) -> None:
        found: F = np.where(np.isfinite(x.cosine), x.cosine, 0.0)
        plot_runs.learning_curve(ax, t, found, ylabel="cosine with ∇J", window=(-1.05, 1.05), lines={"exact": 1.0})

    alt = f"Exact return of the softmax policy over transitions, {RUNS} runs, below J* = {improved.J_star:.6g}."
    cosines = "Cosine between the estimated and the exact gradient over transitions."
    return [Panel(returns, 4.7, 4.2, alt), Panel(angles, 4.4, 4.2, cosines)]
