"""The cases of the prediction learners in the report: small cyclic worlds whose expectations are known exactly.

WALK has terminal states; GAMBLER has terminal states, masked actions and self-loops; DETOUR starts in a state that is
never seen again. alpha step size, L longest fragment.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tabrl import envs, importance, off_policy, prediction
from tabrl._jit import compiled
from tabrl.companions import square
from tabrl.learners import policy
from tabrl.mdp import MDP
from tabrl.plots import COLOURS, tidy
from tabrl.plots import runs as plot_runs
from tabrl.report import studies
from tabrl.report.drawing import Drawing, Panel, picture
from tabrl.report.learners import Part, comparison
from tabrl.report.page import Table
from tabrl.types import F
from tabrl.verify import literal

Rng = np.random.Generator
Case: TypeAlias = Callable[[Rng], Part]
ALPHA, LAM, N = 0.2, 0.8, 3
RUNS, FEW = (10_000, 500) if compiled() else (400, 50)  # fewer where every step is interpreted
TIMES, COUNTS = np.arange(25, 501, 25), np.arange(5, 61, 5)
VISITS = np.array([1, 2, 3, 5, 8, 12, 18, 25, 32])


def walk() -> tuple[MDP, str]:
    """The random walk with five states."""
    return envs.random_walk(5), "five-state random walk, undiscounted"


def gambler() -> tuple[MDP, str]:
    """A gambler who needs 6 and may stake nothing."""
    return envs.gambler(
        goal=6, stay=True
    ), "gambler's problem up to 6, stakes masked by the capital, stake 0 a self-loop"


def loop() -> tuple[MDP, str]:
    """One state that is left with probability 0.4 a step."""
    return envs.loop(0.6, stay=1.0, end=1.0), "loop of one state, which ends with probability 0.4, reward 1 a step"


WORLDS = {walk: 6, gambler: 3}  # longest fragment of each, so that few enough of them exist


def detour() -> MDP:
    """A start that is never seen again, then a loop: start -> 1 <-> 2 -> end, with one legal action in 2."""
    P, R = np.zeros((4, 2, 4)), np.zeros((4, 2, 4))
    P[0, 0, 1], P[0, 1, 2], R[0, 1, 2] = 1.0, 1.0, 1.0
    P[1, 0, 2], P[1, 0, 3], R[1, 0, 3] = 0.6, 0.4, 1.0
    P[1, 1, 1], P[1, 1, 3], R[1, 1, 3] = 0.5, 0.5, -1.0
    P[2, 0, 1], P[2, 0, 3], R[2, 0, 3] = 0.5, 0.5, 2.0
    legal = np.array([[1, 1], [1, 1], [1, 0], [1, 1]], np.bool_)
    return MDP(P, R, 0.9, mu=[1, 0, 0, 0], terminal=[0, 0, 0, 1], legal=legal)


def td0(world: Callable[[], tuple[MDP, str]], rng: Rng, *, afresh: bool) -> Part:
    """TD(0) beside its exact mean and mean square error."""
    mdp, name = world()
    pi = policy(mdp, "uniform", 1.0)
    x, moments = studies.td0_moments(mdp, pi, rng, alpha=ALPHA, times=TIMES, runs=RUNS // 2, afresh=afresh)
    squares = ((x.estimates - x.truth) ** 2).mean(axis=2)
    V = np.zeros(mdp.S)
    V[~mdp.terminal] = x.truth
    exact = np.array([square(m, V, mdp.terminal) for m in moments])
    how = "every transition from a state drawn afresh" if afresh else "along a trajectory"
    texts = [
        f"On the {name}, {how}; uniform policy, α = {ALPHA:g}. The mean and the covariance of the values obey linear "
        "recursions, so both are exact at every step: the expected value is not V_pi.",
    ]
    drawing = Drawing([error_panel(x.t, squares, exact)], "The root of the mean square error over states and runs.")
    x = studies.with_squares(x, squares, exact)
    return comparison(f"{name.partition(',')[0]}, {how}", texts, x, xlabel="transitions", more=[drawing])


def error_panel(t: Any, squares: F, exact: F) -> Panel:
    """RMS error over time with its exact expectation."""
    top = 1.25 * math.sqrt(max(float(exact.max()), float(squares[0].mean())))

    def draw(ax: Any) -> None:
        plot_runs.learning_curve(ax, t, squares, ylabel="RMS error", window=(0.0, top), root=True, exact=np.sqrt(exact))

    return Panel(draw, 5.6, 3.8, "RMS error over transitions, mean over runs and exact expectation.")


def fragments(
    world: Callable[[], tuple[MDP, str]], rng: Rng, *, rule: studies.Rule, update: Any, settings: str
) -> Part:
    """A learner on episodes that are cut early, beside the sum over all such fragments."""
    (mdp, name), L = world(), WORLDS[world]
    x = studies.by_fragment(
        mdp, policy(mdp, "uniform", 1.0), rng, rule, update, L=L, counts=COUNTS, runs=RUNS
    )  # fmt: skip
    texts = [
        f"On the {name}; uniform policy, {settings}. Episodes are cut after {L} steps; what would follow counts as the "
        "value of the state it was cut in. The expectation is the sum over every possible fragment, worked out from "
        "the literal definition: one fragment changes the expected values by an affine map. Updates and returns of a "
        "fragment depend on each other, so that with a constant α the expected value need not settle at V_pi.",
    ]
    return comparison(f"{name.partition(',')[0]}, {settings}", texts, x, xlabel="fragments")


def monte_carlo(world: Callable[[], tuple[MDP, str]], rng: Rng, *, visit: str) -> Part:
    """Average returns of the start state, by the number of episodes."""
    mdp, name = world()
    s = 3 if mdp.S > 3 else 0
    mu = np.arange(mdp.S) == s
    start = MDP(mdp.P, mdp.R, mdp.gamma, mu=mu, terminal=mdp.terminal, legal=mdp.legal)
    pi = policy(mdp, "uniform", 1.0)
    x, mse = studies.by_visits(start, pi, rng, s, visit=visit, counts=VISITS, runs=RUNS // 2)
    bias = (
        "First-visit averages are unbiased for every number of episodes."
        if visit == "first"
        else "Every-visit averages are ratios, and biased for few episodes; the bias is known in closed form."
    )
    texts = [f"On the {name}; uniform policy, all episodes from state {s}, step size 1/k. {bias}"]
    x = studies.with_squares(x, (x.estimates[:, :, 0] - x.truth[0]) ** 2, mse)
    return comparison(f"{name.partition(',')[0]}, {visit} visits", texts, x, xlabel="episodes")


def off_policy_case(rng: Rng) -> Part:
    """Importance sampling from a state that is visited once an episode."""
    mdp = detour()
    pi, b = np.array([[0.7, 0.3], [0.8, 0.2], [1, 0], [1, 0]]), policy(mdp, "uniform", 1.0)
    x, (leading, deviation) = studies.by_importance(mdp, pi, b, rng, 0, counts=VISITS, runs=FEW)
    radius = importance.radii(mdp, pi, b)
    texts = [
        "Start, then a loop of two states with a self-loop, one legal action in one of them, γ = 0.9. The target "
        "prefers the first action; the uniform policy acts. Ordinary and per-decision estimates are unbiased, and "
        f"their exact variances finite: the spectral radii are {radius.trajectory:.3f} and {radius.per_decision:.3f}.",
        "The weighted estimate has no exact expectation here; the second picture holds it against the leading terms of "
        "its bias and deviation, which are right for many episodes only. It is not scored.",
    ]

    drawing = Drawing(
        [weighted_panel(x, leading), spread_panel(x, deviation)],
        "Left, weighted estimates and the leading term of their bias. Right, the spread of all three over the runs.",
    )
    return comparison("detour, target and behaviour apart", texts, x, xlabel="episodes", more=[drawing])


def weighted_panel(x: studies.Comparison, leading: F) -> Panel:
    """The weighted estimates and the leading terms of their mean (K,)."""

    def draw(ax: Any) -> None:
        plot_runs.against_exact(ax, x.t, x.estimates[:, :, 2:], leading[:, None], ["mean"], xlabel="episodes")
        ax.lines[0].set_label("leading term")
        plot_runs.finish(ax, "episodes", title="weighted\ncircle: sample mean")

    return Panel(draw, 4.5, 3.3, "Weighted estimates and the leading term of their mean, by episodes.")


def spread_panel(x: studies.Comparison, leading: F) -> Panel:
    """Standard deviation of the estimates over the runs; exact for the first two, leading (K,) for the third."""
    assert x.error is not None
    known = [*(np.sqrt(x.estimates.shape[1]) * x.error[:, :2].T), leading]

    def draw(ax: Any) -> None:
        for i, (name, y) in enumerate(zip(x.labels, known, strict=True)):
            ax.plot(x.t, y, color=COLOURS[i], lw=1.3, ls="-" if i < 2 else "--", label=name)
            ax.plot(x.t, x.estimates[:, :, i].std(axis=1, ddof=1), "o", color=COLOURS[i], mfc="white", ms=4)
        ax.set(ylabel="standard deviation of an estimate", ylim=(0, None))
        plot_runs.finish(ax, "episodes", title="line: exact\n(dashed: leading)\ncircle: sample")

    return Panel(draw, 4.6, 3.3, "Standard deviation of the three estimates by episodes.")


def batch(rng: Rng) -> Part:
    """Batch learners beside what they converge to."""
    rows: list[tuple[str, ...]] = []
    bad: list[int] = []
    drawn: list[tuple[studies.Solved, MDP, str]] = []
    for world in WORLDS:
        mdp, name = world()
        for x in studies.batches(mdp, policy(mdp, "uniform", 1.0), rng, episodes=30, limit=20_000, alpha=0.004):
            difference = float(abs(x.learned - x.exact).max())
            bad += [] if difference <= 1e-9 else [len(rows)]  # nan is bad
            title = name.partition(",")[0]
            rows.append((x.learner, title, x.form, f"{x.sweeps:,}", f"{difference:.1e}"))
            drawn += [(x, mdp, title)] if x.sweeps > 1 else []
    texts = [
        "A batch of 30 episodes is used again and again. Batch TD(0) converges to the values of the model that the "
        "batch describes, batch Monte Carlo to the average return of each state; LSTD(λ) solves for the limit.",
    ]
    header = ("learner", "world", "closed form", "sweeps", "largest difference")
    caption = "A difference above 1e-9 counts as wrong. Uniform policy, α = 0.004."
    panels = [batch_panel(drawn[:2]), batch_panel(drawn[2:])]
    picture_ = picture(Drawing(panels, "Same batch, two answers: neither is V_pi, which no batch knows."))
    return Part(
        "one batch, four answers", texts, Table(header, rows, (0, 1, 2), caption, bad), [picture_], (), len(bad)
    )


def batch_panel(pair: Sequence[tuple[studies.Solved, MDP, str]]) -> Panel:
    """Values of the two batch learners over the states, on their closed forms, with V_pi."""
    from tabrl.chain import evaluate, induce
    from tabrl.plots.grid import INK

    def draw(ax: Any) -> None:
        _, mdp, title = pair[0]
        states, names = studies.live(mdp)
        at = np.arange(len(states))
        truth = evaluate(induce(mdp, policy(mdp, "uniform", 1.0)))[states]
        for i, (x, _, _) in enumerate(pair):
            colour = COLOURS[i]
            ax.plot(at, x.exact[states], "-", color=colour, lw=1.3, label=f"{x.learner}, closed form")
            ax.plot(at, x.learned[states], "os"[i], color=colour, mfc="white", ms=6, label=f"{x.learner}, learned")
        ax.plot(at, truth, ":", color=INK, lw=1.3, label="V_pi")
        ax.set_xticks(at, [n.removeprefix("s = ") for n in names])
        ax.set(ylabel="value")
        ax.set_title(title, fontsize=11)
        ax.legend(frameon=False, fontsize=9)
        tidy(ax)
        ax.set_xlabel("state")

    return Panel(draw, 4.5, 3.6, f"Values that batch learners came to on the {pair[0][2]}, and their closed forms.")


def cut(learner: Any, definition: Callable[..., Any], settings: str, **options: Any) -> list[Case]:
    """Both worlds for one learner with a literal definition."""
    rule, update = partial(learner, alpha=ALPHA, **options), partial(defined, definition, *options.values())
    return [
        partial(fragments, world, rule=rule, update=update, settings=f"α = {ALPHA:g}{settings}") for world in WORLDS
    ]


def defined(definition: Callable[..., Any], *arguments: Any) -> Any:
    """Call a literal definition f(trace, V, alpha, *options) with the trace and V given last."""
    *options, x, V = arguments
    return definition(x, V, ALPHA, *options)


def constant_monte_carlo(x: Any, V: Any, alpha: Any) -> Any:
    """Move towards the returns of the fragment: the lambda-return with lambda = 1."""
    return literal.offline_lambda_return(x, V, alpha, 1.0)  # type: ignore[arg-type]


def traces(kind: str) -> list[Case]:
    """TD(lambda) with one kind of trace."""
    return cut(prediction.td_lambda, literal.td_lambda, f", λ = {LAM:g}, {kind} trace", lam=LAM, trace=kind)


LAMBDA = f", λ = {LAM:g}"
# title, or function whose docstring has it, and cases
CASES: dict[str, tuple[Any, Sequence[Case]]] = {
    "td0": (prediction.td0, [
        partial(td0, walk, afresh=False), partial(td0, gambler, afresh=False), partial(td0, gambler, afresh=True),
    ]),
    "n-step-td": (prediction.n_step_td, cut(prediction.n_step_td, literal.n_step_td, f", n = {N}", n=N)),
    "td-lambda": (prediction.td_lambda, [
        traces("accumulating")[0], traces("accumulating")[1], traces("replacing")[1], traces("dutch")[1],
    ]),
    "true-online-td": (
        prediction.true_online_td, cut(prediction.true_online_td, literal.online_lambda_return, LAMBDA, lam=LAM)
    ),
    "lambda-return": (
        prediction.lambda_return, cut(prediction.lambda_return, literal.offline_lambda_return, LAMBDA, lam=LAM)
    ),
    "monte-carlo": (prediction.monte_carlo, [
        *(partial(monte_carlo, world, visit=visit) for world in (loop, gambler) for visit in ("first", "every")),
        *cut(prediction.monte_carlo, constant_monte_carlo, ", constant, every visit"),
    ]),
    "off-policy-monte-carlo": (off_policy.off_policy_monte_carlo, [off_policy_case]),
    "batch": ("Batch learners: one batch, used again and again", [batch]),
}  # fmt: skip
