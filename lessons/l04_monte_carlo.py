"""Lesson 4: Monte Carlo.

40 minutes. After: lesson 2. Rows: E1.6. Corrections: 8.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="4 · Monte Carlo")

with app.setup:
    from itertools import islice

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import chain, learning_kernels, prediction, sample, visits
    from tabrl.lessons import correction_8, parts
    from tabrl.lessons.machine import GOOD, WORN, machine, repairing, seen
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.replay import side_by_side
    from tabrl.summary import standard_error
    from tabrl.trace import last
    from tabrl.types import F

    RUNS, EPISODES = 400, 64


@app.cell(hide_code=True)
def _():
    parts.head(
        4,
        """
        - estimate values from nothing but recorded episodes, by first visits and by every visit
        - say how far off an average of n returns is, before drawing any of them
        - tell the biased average from the unbiased one, and say when the biased one is nevertheless the better
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## No model any more

    From here on nobody tells us $P$ and $R$. All we have is a record: states, actions, rewards, until the end. But a
    value is a mean of returns, and a mean can be estimated by an **average**: watch, add up what followed each visit to
    a state, divide. That is the whole method. It asks for complete episodes, since a return is known only at the end.

    ## Two episodes, by hand

    The machine is run until it breaks, and $\gamma = 1$. We saw

    $$
    \text{good} \xrightarrow{2} \text{good} \xrightarrow{2} \text{worn} \xrightarrow{1} \text{broken}
    \qquad\qquad
    \text{good} \xrightarrow{2} \text{worn} \xrightarrow{1} \text{worn} \xrightarrow{1} \text{worn} \xrightarrow{1}
    \text{broken}
    $$

    with the returns 5, 3, 1 and 5, 3, 2, 1. The first episode visits *good* twice. Do both visits count?

    | | V(good) | V(worn) |
    |:--|:--|:--|
    | **first visit**: the first one in each episode | (5 + 5) / 2 = 5 | (1 + 3) / 2 = 2 |
    | **every visit**: all of them | (5 + 3 + 5) / 3 = 4.33 | (1 + 3 + 2 + 1) / 4 = 1.75 |
    | exact, lesson 2 | 6 | 2 |

    Both are averages of returns, and they are not the same.
    """)
    return


@app.cell
def _():
    record = [seen(GOOD, GOOD, WORN), seen(GOOD, WORN, WORN, WORN)]
    learnt = {way: last(prediction.monte_carlo(record, V=np.zeros(3), visit=way)).V for way in ("first", "every")}
    mo.md(
        "The library agrees: "
        + ", ".join(f"{way} visit {V[GOOD]:.4g} and {V[WORN]:.4g}" for way, V in learnt.items())
        + "."
    )
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.6",
        r"V(s) = \frac1n \sum_{i=1}^{n} G_t^i \qquad n \text{ the number of visits to } s",
        r"""
        An average need not be stored as a sum: move the old average towards the new return by $1/k$ of the difference
        at the $k$-th visit, and it is the average of all $k$. `alpha=harmonic` is that step size. The kernel walks each
        episode back for the returns (with `lam` = 1 its target is the whole return; lesson 7 is about the others), and
        then forward for the visits.
        """,
        prediction.monte_carlo,
        learning_kernels.lambda_return_pass,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## How good is an average?

    With first visits, the returns of different episodes are independent, each with mean $V_\pi(s)$ and variance
    $\mathrm{Var}[G]$. So the average over $n$ episodes has mean $V_\pi(s)$ (it is **unbiased**) and variance
    $\mathrm{Var}[G]/n$. Both are known exactly here, before a single episode is drawn. The figure draws 400 learners of
    64 episodes each, and holds them against it.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["it is a quarter as wide", "it is half as wide", "it is as wide as before"])
    parts.predict(
        "Go from 8 episodes to 32, four times as many. How wide is the cloud of first-visit estimates then?", guess
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    n = mo.ui.slider(steps=[1, 2, 4, 8, 16, 32, 64], value=1, label="episodes n", show_value=True, full_width=True)
    n
    return (n,)


@app.function
def estimates(runs: int = RUNS, seed: int = 4) -> dict[str, F]:
    """V(good) after 1, 2, …, EPISODES episodes by both ways of counting, on the same episodes: (EPISODES,runs)."""
    mdp, pi = machine(1.0), repairing(0)
    rngs = np.random.default_rng(seed).spawn(runs)
    drawn = [list(islice(sample.episodes(mdp, pi, rng), EPISODES)) for rng in rngs]

    def learn(way: str) -> F:
        rounds = side_by_side(drawn, mdp.S)
        learner = prediction.monte_carlo(rounds, V=np.zeros((runs, mdp.S)), visit=way)
        return np.array([x.V[:, GOOD] for x in learner])

    return {way: learn(way) for way in ("first", "every")}


@app.function
def error(way: str, n: int) -> visits.Error:
    """Exact bias, variance and mean-square error of V(good) after n episodes."""
    law = {"first": visits.first_visit, "every": visits.every_visit}[way]
    return law(machine(1.0), repairing(0), GOOD, n)


@app.function
def draw_runs(ax: Axes, V: F, n: int, exact: float) -> None:
    """Draw forty learners over their episodes, with the exact mean and two exact standard deviations."""
    k = np.arange(1, len(V) + 1)
    funnel = 2 * np.sqrt(error("first", 1).variance / k)
    ax.plot(k, V[:, :40], color=COLOURS[0], lw=0.6, alpha=0.35)
    ax.plot([], [], color=COLOURS[0], lw=1, label="40 learners, first visit")
    ax.fill_between(k, exact - funnel, exact + funnel, color=GREY, alpha=0.18, lw=0, label="exact mean ± 2 std")
    ax.axhline(exact, color=INK, ls="--", lw=1.3, label=f"exact value {exact:g}")
    ax.axvline(n, color=COLOURS[1], lw=1.2, ls=":", label=f"n = {n}")
    ax.set(xscale="log", xlabel="episodes", ylabel="estimate of V(good) (reward)", ylim=(0, 16))
    ax.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    ax.minorticks_off()
    ax.set_title("Learning", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    tidy(ax)


@app.function
def draw_cloud(ax: Axes, V: dict[str, F], n: int, exact: float) -> None:
    """Draw all estimates after n episodes by both ways, and their exact means."""
    bins = np.arange(2.25, 16.3, 0.5)
    for way, colour in (("first", COLOURS[0]), ("every", COLOURS[1])):
        mean = exact + error(way, n).bias
        style = {"color": colour, "label": f"{way} visit, {V[way].shape[1]} learners"}
        ax.hist(V[way][n - 1], bins=bins, histtype="step", lw=1.6, **style)
        ax.axvline(mean, color=colour, ls="--", lw=1.4, label=f"{way} visit, exact mean {mean:.3f}")
    ax.set(xlim=(2, 16), xlabel="estimate of V(good) (reward)", ylabel="learners")
    ax.set_title(f"After n = {n} episode{'s' * (n > 1)}", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    tidy(ax)


@app.function
def figure(V: dict[str, F], n: int) -> Figure:
    """Learners over episodes, and all of them after n."""
    fig, exact = new_figure(10, 4.2), float(chain.evaluate(chain.induce(machine(1.0), repairing(0)))[GOOD])
    runs, cloud = fig.subplots(1, 2)
    draw_runs(runs, V["first"], n, exact)
    draw_cloud(cloud, V, n, exact)
    return fig


@app.cell
def _():
    V = estimates()
    return (V,)


@app.cell(hide_code=True)
def _(V, n):
    def _row(way: str) -> str:
        x, now = error(way, n.value), V[way][n.value - 1]
        mean = f"{6 + x.bias:.3f} | {now.mean():.3f} ± {2 * standard_error(now):.3f}"
        return f"| {way} visit | {mean} | {np.sqrt(x.variance):.3f} | {now.std(ddof=1):.3f} | {np.sqrt(x.mse):.3f} |"

    _alt = f"Estimates after {n.value} episodes by first visits and by every visit, with their exact means"
    _head = "| | mean, exact | mean, 400 learners | std, exact | std, 400 learners | RMS error, exact |"
    _table = f"{_head}\n|:--|--:|--:|--:|--:|--:|\n{_row('first')}\n{_row('every')}"
    mo.vstack([parts.picture(figure(V, n.value), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "it is half as wide",
        r"""
        The variance falls like $1/n$, so the width, a standard deviation, falls like $1/\sqrt n$. One more digit costs
        a hundred times as many episodes. Nothing in this depends on the number of states: Monte Carlo does not care how
        large the model is, only how much a return varies.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    world = correction_8.world()
    fig, found = new_figure(10, 4.2), correction_8.experiment(world, runs=100)
    mean, square = fig.subplots(1, 2)
    cross, value = correction_8.crossing(world), correction_8.value(world)
    correction_8.draw_mean(mean, found, value)
    correction_8.draw_square(square, found, value, cross)
    parts.correction(
        8,
        rf"""
        Section 1.6 divides by "the number of times state $s$ has been visited". Counted like that, **every visit**, the
        average is *biased*: a long episode brings many visits at once, and its late visits have seen the long part
        already. The number of terms and the terms hang together, and a ratio of two such sums is off for every finite
        number of episodes. Counting **first visits** gives the unbiased average.

        Unbiased does not mean better. The figure shows a state that repeats with probability ¾ and pays 1 a step, so
        that $V = {value:g}$. With one episode the every-visit average has the mean {value + found[1].exact[0].bias:g};
        but it varies less, and up to {cross - 1} episodes its mean-square error is the smaller one. From {cross} on,
        first visits win.
        """,
        fig,
        "Mean and mean-square error of both averages against the number of episodes, exact lines and sampled points",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        4,
        """
        Write first-visit averages, of states and then of pairs of state and action. Returns run from the end to the
        start, first visits from the start to the end; the discount belongs to the step it stands on; and a visit to a
        pair is not a visit to its state.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### One episode, every visit: why is the estimate of V(good) 5 on average, and not 6?

        If the machine stays good for $k$ steps, its returns are $2k + W, \dots, 2 + W$, with $W$ from the worn part.
        Their average is $(k + 1) + W$; the mean of $k$ is 2 and that of $W$ is 2, so it is 5. The first of them alone
        is $2k + W$, with mean 6.

        ### How many episodes until V(good) is known to ±0.1, two standard deviations?

        The variance of the return is 10, so $2\sqrt{10/n} = 0.1$ at $n = 4000$.

        ### The machine is never repaired. Can V(good) be learnt from episodes that all start worn?

        No: no visit, no average. Monte Carlo learns about what is visited. If the choice of actions decides what is
        visited, some exploration is needed; that is what control adds in lesson 8.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.6",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), section 5.1
        - S. P. Singh and R. S. Sutton, *Reinforcement learning with replacing eligibility traces*, Machine Learning 22
          (1996): bias and error of both averages
        """,
    )
    return


if __name__ == "__main__":
    app.run()
