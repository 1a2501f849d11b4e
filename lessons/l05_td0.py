"""Lesson 5: TD(0).

45 minutes. After: lesson 4. Rows: E1.7. Corrections: 6.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="5 · TD(0)")

with app.setup:
    from itertools import islice
    from typing import NamedTuple

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import chain, learning_kernels, prediction, returns, sample, td_limits, td_moments
    from tabrl.lessons import correction_6, parts
    from tabrl.lessons.machine import GOOD, WORN, machine, repairing, seen
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.replay import side_by_side
    from tabrl.schedules import power
    from tabrl.summary import standard_error
    from tabrl.types import F, Transitions

    RUNS, BLOCK, BLOCKS = 200, 20, 100
    ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


@app.cell(hide_code=True)
def _():
    parts.head(
        5,
        r"""
        - carry out TD(0) by hand, one step at a time, and say what it bootstraps from
        - tell what vanishes when it has learnt, the *mean* of the TD error, from what does not
        - choose a step size knowing what it costs: speed, noise that stays, and a bias that stays
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Do not wait for the end

    Monte Carlo waits until the episode is over. But the Bellman equation says what the rest is worth on average:
    $V_\pi(s_{t+1})$. We do not have $V_\pi$, only an estimate of it; **TD(0)** uses the estimate anyway. After *every*
    step it compares what it believed, $V(s_t)$, with what it now knows better, $r_t + \gamma V(s_{t+1})$, and moves a
    little towards it. The difference is the **TD error** $\delta_t$. To learn from one's own estimate is called to
    bootstrap.

    ## Two episodes, by hand

    The two episodes of lesson 4, $\gamma = 1$, $\alpha = \tfrac12$, and $V = 0$ at first:

    | step | | δ = r + V(next) − V | V(good) | V(worn) |
    |:--|:--|:--|--:|--:|
    | | | | 0 | 0 |
    | 0 | good → good | 2 + 0 − 0 = 2 | **1** | 0 |
    | 1 | good → worn | 2 + 0 − 1 = 1 | **1.5** | 0 |
    | 2 | worn → broken | 1 + **0** − 0 = 1 | 1.5 | **0.5** |
    | 3 | good → worn | 2 + 0.5 − 1.5 = 1 | **2** | 0.5 |
    | 4 | worn → worn | 1 + 0.5 − 0.5 = 1 | 2 | **1** |
    | 5 | worn → worn | 1 + 1 − 1 = 1 | 2 | **1.5** |
    | 6 | worn → broken | 1 + **0** − 1.5 = −0.5 | 2 | **1.25** |

    The bold zeros are not estimates: a broken machine is worth nothing, whatever stands in the table at its place. In
    step 1 the good state learns from an estimate that is still wrong; in step 3 from a better one.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.7.1",
        r"""
        V(s_t) \leftarrow V(s_t) + \alpha\,\delta_t, \qquad
        \delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)
        """,
        r"""
        `discount[t]` is 0 where the next state is terminal, so the kernel needs no question about the end. At a *time
        limit* it stays $\gamma$: the episode was cut, the world goes on, and $V(s_{t+1})$ stands for the rest.
        """,
        returns.td_errors,
        learning_kernels.td0_pass,
    )
    return


@app.cell
def _():
    record = [seen(GOOD, GOOD, WORN), seen(GOOD, WORN, WORN, WORN)]
    steps = list(prediction.td0(record, alpha=0.5, V=np.zeros(3)))
    mo.md(
        "The library agrees. δ: "
        + ", ".join(f"{x.delta:g}" for x in steps)
        + f"; at the end V(good) = {steps[-1].V[GOOD]:g} and V(worn) = {steps[-1].V[WORN]:g}."
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## The step size

    The values move with every step, and every step is chance. Their mean and their spread after any number of updates
    are nevertheless known exactly: the library carries mean and covariance of $V$ along the trajectory. The figure
    holds 200 learners against them.
    """)
    return


@app.cell(hide_code=True)
def _():
    settles = "V(good) settles at its value, 6"
    around = "it fluctuates for ever, with mean 6"
    beside = "it fluctuates for ever, and its mean is not 6"
    guess = mo.ui.radio([settles, around, beside])
    parts.predict(r"The step size stays $\alpha = 0.4$ for ever. What happens in the long run?", guess)
    return beside, guess


@app.cell(hide_code=True)
def _():
    alpha = mo.ui.slider(steps=list(ALPHAS), value=0.01, label="step size α", show_value=True, full_width=True)
    alpha
    return (alpha,)


@app.class_definition
class Law(NamedTuple):
    """Exact mean and standard deviation of V(good)."""

    x: F  # (K,) updates or step sizes
    mean: F  # (K,)
    std: F  # (K,)


@app.function
def drawn(seed: int = 5) -> list[Transitions]:
    """BLOCKS rounds of BLOCK steps of all runs; a broken machine is replaced by a good one."""
    rngs = np.random.default_rng(seed).spawn(RUNS)
    streams = [sample.Stream(machine(1.0), repairing(0), rng, block=BLOCK) for rng in rngs]
    return list(islice(side_by_side(streams, 3), BLOCKS))


@app.function
def learnt(rounds: list[Transitions], alpha: float) -> F:
    """V(good) of every run after each block: (BLOCKS,RUNS)."""
    return np.array([x.V[:, GOOD] for x in prediction.td0(rounds, alpha=alpha, V=np.zeros((RUNS, 3)))])


@app.function
def over_time(alpha: float) -> Law:
    """The law of V(good) along a trajectory, after each block."""
    law = list(
        td_moments.trajectory_moments(machine(1.0), repairing(0), alpha=alpha, steps=BLOCK * BLOCKS, every=BLOCK)
    )
    variance = np.array([x.covariance[GOOD, GOOD] for x in law])
    return Law(np.array([float(x.t) for x in law]), np.array([x.mean[GOOD] for x in law]), np.sqrt(variance.clip(0)))


@app.function
def in_the_long_run(alphas: F) -> Law:
    """The law of V(good) after infinitely many updates, by step size."""
    law = [td_limits.trajectory_limit(machine(1.0), repairing(0), alpha=float(a)) for a in alphas]
    std = np.sqrt([x.covariance[GOOD, GOOD] for x in law])
    return Law(alphas, np.array([x.mean[GOOD] for x in law]), std)


@app.function
def draw_time(ax: Axes, V: F, law: Law, exact: float) -> None:
    """Draw forty learners over time inside their exact law."""
    ax.plot(law.x, V[:, :40], color=COLOURS[0], lw=0.5, alpha=0.35)
    ax.plot([], [], color=COLOURS[0], lw=1, label="40 of 200 learners")
    ax.fill_between(law.x, law.mean - 2 * law.std, law.mean + 2 * law.std, color=GREY, alpha=0.2, lw=0)
    ax.plot(law.x, law.mean, color=COLOURS[1], lw=1.8, label="exact mean; grey: ± 2 exact std")
    ax.axhline(exact, color=INK, ls="--", lw=1.2, label=f"exact value {exact:g}")
    ax.set(xlabel="updates", ylabel="V(good) (reward)", ylim=(0, 13), xlim=(0, law.x[-1]))
    ax.set_title("Over time", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    tidy(ax)


@app.function
def draw_limit(ax: Axes, law: Law, alpha: float, last: F, exact: float) -> None:
    """Draw bias and noise that stay for step sizes up to this one, and the sample at it."""
    shown = law.x <= alpha * 1.001 + 0.01
    ax.plot(
        law.x[shown], (exact - law.mean)[shown], color=COLOURS[1], lw=1.8, label="bias (value − mean) that stays, exact"
    )
    ax.plot(law.x[shown], law.std[shown], color=COLOURS[0], lw=1.8, label="noise (std) that stays, exact")
    bars = ax.errorbar([alpha], [exact - last.mean()], 2 * standard_error(last), fmt="s", color=COLOURS[1], capsize=3)
    bars.set_label(f"bias of 200 learners, update 2,000: {exact - last.mean():.3f} ± 2 se")
    std = float(last.std(ddof=1))
    ax.plot([alpha], [std], "o", color=COLOURS[0], label=f"std of 200 learners, update 2,000: {std:.3f}")
    ax.set(xlabel="step size α", ylabel="in the long run (reward)", xlim=(0, 0.42), ylim=(-0.1, 2.6))
    ax.set_title("What stays, up to α", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    tidy(ax)


@app.function
def figure(rounds: list[Transitions], alpha: float, limit: Law) -> Figure:
    """Learners over time inside their exact law, and what stays of bias and noise."""
    fig, exact = new_figure(10, 4.2), float(chain.evaluate(chain.induce(machine(1.0), repairing(0)))[GOOD])
    V = learnt(rounds, alpha)
    time, stays = fig.subplots(1, 2)
    draw_time(time, V, over_time(alpha), exact)
    draw_limit(stays, limit, alpha, V[-1], exact)
    return fig


@app.cell
def _():
    rounds = drawn()
    limit = in_the_long_run(np.linspace(0.005, 0.4, 25))
    return limit, rounds


@app.cell(hide_code=True)
def _(alpha, limit, rounds):
    parts.picture(
        figure(rounds, alpha.value, limit),
        f"Learners at step size {alpha.value:g} inside their exact law; bias and noise against the step size",
    )
    return


@app.cell(hide_code=True)
def _(beside, guess):
    _mean = in_the_long_run(np.array([0.4])).mean[0]
    parts.verdict(
        guess,
        beside,
        rf"""
        The noise stays because every step is still chance, and a fixed share of it enters $V$. The bias is less known.
        Along a trajectory the next state is not drawn independently: while the machine stays good, V(good) chases its
        own last value. The exact mean at $\alpha = 0.4$ is {_mean:.4g}, and $6 - 2\alpha$ in general. At
        $\alpha = 0.01$ both are small, and the left panel shows the price: it takes more than a thousand updates to
        arrive. Step sizes that fall like $c/k$, with $c$ large enough, end both.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    world = correction_6.world()
    deltas = correction_6.deltas(world, power(correction_6.SCALE, 1.0))
    moments = correction_6.delta_moments(
        world, correction_6.only(world), chain.evaluate(chain.induce(world, correction_6.only(world)))
    )
    fig = new_figure(11, 4.4)
    errors, means = fig.subplots(1, 2)
    correction_6.draw_delta(errors, world, deltas)
    correction_6.draw_means(means, world, deltas)
    parts.correction(
        6,
        rf"""
        Section 1.7.1 says that TD(0) reduces the TD error $\delta_t$, and that thereby $V$ converges. In a random model
        $\delta_t$ does **not** go to zero, not even when $V$ is exact: the next state and the reward still differ from
        one time to the next. What vanishes is its *mean* in each state, $\mathbb{{E}}[\delta_t \mid s_t = s] = 0$, and
        that is nothing but the Bellman equation. Its variance stays; it is what one step of chance adds to the return.

        The figure shows two states that follow each other at random for ever, with step sizes $10/k$. On the left each
        δ of one run: it settles on four values, not on zero. On the right the mean goes to 0, and the mean of δ² to
        {moments.variance[0]:.4f} and {moments.variance[1]:.4f}. And where the step size stays, $V$ does not settle
        either, as the figure above shows.
        """,
        fig,
        "TD errors that settle on four values, and their mean and mean square by state against exact lines",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        5,
        """
        Write one pass of TD(0) over an episode. Read V of the next state before you change anything, use the discount
        of the step and not a constant, and let neither the end nor a time limit surprise you.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### TD(0) learns from its own guesses. Why is it not a closed circle?

        Because of $r_t$, and of the end. Each update mixes in one real reward, and terminal states are worth exactly 0.
        The backup behind it shrinks errors (lesson 2), so whatever was guessed at first is forgotten.

        ### Ten recorded episodes are replayed until V no longer changes. Do TD(0) and Monte Carlo agree then?

        No. Monte Carlo ends at the average returns. TD(0) ends at the exact values of the model that the record
        suggests: transitions counted, rewards averaged, then lesson 2. If the world is a Markov chain the second uses
        more of what was seen, and is usually closer.

        ### Is TD(0) gradient descent on $\delta^2$?

        No. The target $r + \gamma V(s')$ depends on $V$ too, and TD(0) ignores that; it is a *semi-gradient*. True
        descent on $\delta^2$ also pulls $V(s')$ towards $V(s)$, and in a random model ends at the wrong values.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.7.1",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 6.1 to
          6.3 and 11.5
        - R. S. Sutton, *Learning to predict by the methods of temporal differences*, Machine Learning 3 (1988)
        - M. J. Sobel, *The variance of discounted Markov decision processes* (1982)
        """,
    )
    return


if __name__ == "__main__":
    app.run()
