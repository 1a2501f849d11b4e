"""Lesson 12: Generalised advantage estimation.

45 minutes. After: lessons 7 and 11. Rows: E1.13, E1.17. Corrections: 3.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="12 · Generalised advantage estimation")

with app.setup:
    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import returns
    from tabrl.advantage_moments import advantage_gradient
    from tabrl.chain import evaluate, induce
    from tabrl.gradient import at
    from tabrl.lessons import correction_3, parts, worn
    from tabrl.lessons.machine import REPAIR, WORN
    from tabrl.lessons.worn import played, preferences, slopes, world
    from tabrl.plots import COLOURS, new_figure
    from tabrl.plots.grid import INK
    from tabrl.rollout import Rollout
    from tabrl.summary import standard_error
    from tabrl.types import F

    EPISODES, SEED, THETA = 4096, 12, 0.0
    EXACT = at(world(), preferences(THETA))
    SLOPE = float(EXACT.d[WORN] * EXACT.pi[WORN, REPAIR] * EXACT.advantage[WORN, REPAIR])
    V = np.array([4.0, 2.0, 0.0])  # the critic, which is wrong
    LAMBDAS, FINE = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0]), np.linspace(0, 1, 41)


@app.cell(hide_code=True)
def _():
    parts.head(
        12,
        """
        - compute generalised advantages backwards along an episode, by hand and for a buffer of many
        - say what λ trades against what, and why a larger batch calls for a larger λ
        - write down what the critic should answer, with V in it once and not twice
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Between one step and all steps

    Two estimates of the advantage are known. The TD error $\delta_t$ has little variance, and the bias of the critic.
    The return less the value, $G_t - V(s_t)$, has no bias that harms, and the variance of the whole episode. Lesson 7
    had the same two ends for values, and the same remedy: let what comes later count by $\lambda$ less with each step.

    The two ends are made of the same pieces. Write out $\delta_t + \gamma\delta_{t+1} + \gamma^2\delta_{t+2} + \dots$
    up to the end of the episode: every $\gamma V(s_{t+1})$ is added by one term and taken away by the next, and what is
    left is $G_t - V(s_t)$. So put a $\lambda$ beside each $\gamma$. This is **generalised advantage estimation**, GAE:

    $$A_t = \delta_t + \gamma\lambda\, \delta_{t+1} + (\gamma\lambda)^2\, \delta_{t+2} + \dots
    \;=\; \delta_t + \gamma\lambda\, A_{t+1}.$$

    At $\lambda = 0$ it is the TD error, at $\lambda = 1$ the return less the value.

    ## One episode, by hand

    The machine with $\gamma = 0.8$, and a critic that underrates it: $V(\text{good}) = 4$ and $V(\text{worn}) = 2$, in
    place of 5 and 2.5. Take $\lambda = \tfrac12$, so that $\gamma\lambda = 0.4$, and start at the end:

    | $t$ | state, action | $r$ | $\delta_t = r + 0.8\, V' - V$ | $A_t = \delta_t + 0.4\, A_{t+1}$ | $A_t + V(s_t)$ |
    |:--|:--|:--|:--|:--|:--|
    | 3 | worn, run | 1 | $1 + 0 - 2 = -1$ | $-1$ | 1 |
    | 2 | good, run | 2 | $2 + 1.6 - 4 = -0.4$ | $-0.4 - 0.4 = -0.8$ | 3.2 |
    | 1 | worn, repair | −1 | $-1 + 3.2 - 2 = 0.2$ | $0.2 - 0.32 = -0.12$ | 1.88 |
    | 0 | good, run | 2 | $2 + 1.6 - 4 = -0.4$ | $-0.4 - 0.048 = -0.448$ | 3.552 |

    The repair looks good for one step (0.2), as it led to a good machine. It looks less so with what came later.

    ## What the critic should answer

    The last column is what the critic is moved to: advantage **plus** value. The advantage is measured from $V(s_t)$;
    add it back, and what remains is a return, the λ-return of lesson 7. Check the last row but one: with
    $\lambda = 1$ it would be $-1 + 0.8 \cdot 2.8 = 1.24$, what really came.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "sections 1.8.3 and 1.8.7",
        r"""
        A^{GAE(\lambda,\gamma)} = \sum_{l=0}^{\infty} (\gamma\lambda)^l\, \delta_{t+l}, \qquad
        V_t^{\text{target}} = V_t^{GAE} + V_{\phi_{old}}(s_t)
        """,
        r"""
        The sum has no end in print. In the library `discount` is 0 where the episode ends, which cuts it. A buffer
        holds many episodes one after the other: no sum may run from one into the next, and that is what `last` is for.
        Where a *time limit* cuts an episode, $V$ of the next state still counts, but nothing beyond it.
        """,
        returns.gae,
        returns.gae_fragments,
        returns.value_target,
    )
    return


@app.cell
def _():
    s, r = np.array([0, 1, 0, 1, 2]), np.array([2.0, -1.0, 2.0, 1.0])
    discount = np.array([0.8, 0.8, 0.8, 0.0])
    rows = [(lam, returns.gae(r, discount, V[s], lam)) for lam in (0.0, 0.5, 1.0)]
    lines = "\n".join(
        f"| {lam:g} | {A.round(3).tolist()} | {returns.value_target(A, V[s[:-1]]).round(3).tolist()} |"
        for lam, A in rows
    )
    mo.md(f"The library agrees:\n\n| λ | advantages | targets of the critic |\n|:--|:--|:--|\n{lines}")
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Which λ?

    The same wrong critic, and the slope of $J$ at even odds, 0.3125 as before. Each episode gives one estimate, $\sum_t
    \gamma^t\, \nabla\log\pi(a_t|s_t)\, A_t$. On the left its bias and its standard deviation over $\lambda$. What
    counts in the end is how far the mean of a **batch** is from the truth: squared, on average,

    $$\text{mean squared error} = \text{bias}^2 + \frac{\text{variance}}{\text{episodes in the batch}}.$$
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["at a smaller λ", "at the same λ", "at a larger λ"])
    parts.predict(
        r"""
        With a single episode the error is least at $\lambda \approx 0.3$. Now average 64 episodes, with the same
        critic. Where is the error least?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    batch = mo.ui.slider(
        steps=[2**k for k in range(9)], value=1, label="episodes in a batch", show_value=True, full_width=True
    )
    batch
    return (batch,)


@app.function
def estimates(x: Rollout, lam: float) -> F:
    """The estimate of the slope that each episode gives."""
    A = returns.gae_fragments(x.r, x.discount, V[x.s], V[x.s_next], x.last, lam)
    return slopes(x, THETA, A)


@app.function
def moments(lams: F) -> tuple[F, F]:
    """Exact bias and variance of one estimate for every lam."""
    found = [advantage_gradient(world(), EXACT.pi, V, lam) for lam in lams]
    mean, variance = np.array([(x.mean[WORN, REPAIR], x.variance[WORN, REPAIR]) for x in found]).T
    return mean - SLOPE, variance


@app.cell
def _():
    drawn = played(THETA, EPISODES, SEED)
    sampled = np.array([estimates(drawn, lam) for lam in LAMBDAS])
    exact = moments(FINE)
    return exact, sampled


@app.function
def squared_errors(g: F, n: int) -> F:
    """Squared error of the mean of every batch of n episodes, (lams,batches)."""
    means = g.reshape(len(g), -1, n).mean(axis=2)
    return np.asarray((means - SLOPE) ** 2)


@app.function
def points(ax: Axes, y: F, colour: str, marker: str, label: str) -> None:
    """Draw means over the last axis with two standard errors, over LAMBDAS."""
    ax.errorbar(LAMBDAS, y.mean(1), 2 * standard_error(y), fmt=marker, color=colour, ms=5, capsize=3, label=label)


@app.function
def draw_one(ax: Axes, exact: tuple[F, F], g: F) -> None:
    """Draw bias and standard deviation of one estimate: exact lines, sampled points."""
    bias, variance = exact
    ax.plot(FINE, bias, color=COLOURS[1], lw=1.6, label="bias, exact")
    points(ax, g - SLOPE, COLOURS[1], "s", f"sampled, {g.shape[1]:,} episodes ± 2 se")
    ax.plot(FINE, np.sqrt(variance), color=COLOURS[0], lw=1.6, label="standard deviation, exact")
    deviation = g.std(axis=1, ddof=1)
    half = standard_error((g - g.mean(axis=1, keepdims=True)) ** 2) / deviation  # two standard errors of a root
    ax.errorbar(LAMBDAS, deviation, half, fmt="o", color=COLOURS[0], ms=5, capsize=3, label="sampled, ± 2 se")
    ax.axhline(0, color=INK, lw=0.8)
    worn.finish(ax, "One episode", "upper left", ylim=(-0.3, 0.95), xlabel="λ", ylabel="slope of J (reward)")


@app.function
def draw_batch(ax: Axes, exact: tuple[F, F], g: F, n: int) -> None:
    """Draw the mean squared error of a batch: exact line, its parts, and the error of sampled batches."""
    bias, variance = exact
    error = bias**2 + variance / n
    ax.plot(FINE, error, color=INK, lw=1.8, label="mean squared error, exact")
    ax.plot(FINE, bias**2, color=COLOURS[1], lw=1.2, ls="--", label="bias²")
    ax.plot(FINE, variance / n, color=COLOURS[0], lw=1.2, ls="--", label="variance / episodes")
    points(ax, squared_errors(g, n), COLOURS[3], "o", f"{EPISODES // n:,} batches ± 2 se")
    best = error.argmin()
    ax.plot(FINE[best], error[best], "v", color=INK, ms=8, label=f"least, at λ = {FINE[best]:.2f}")
    names = {"xlabel": "λ", "ylabel": "squared error of the slope (reward²)"}
    top = 1.9 * max(error.max(), bias[0] ** 2)
    worn.finish(ax, f"Batches of {n}", "upper left", ylim=(0, top), **names)


@app.function
def figure(exact: tuple[F, F], g: F, n: int) -> Figure:
    """Bias and deviation of one estimate, and the error of a batch of n, over lam."""
    fig = new_figure(10, 4.2)
    left, right = fig.subplots(1, 2)
    draw_one(left, exact, g)
    draw_batch(right, exact, g, n)
    return fig


@app.cell(hide_code=True)
def _(batch, exact, sampled):
    _bias, _variance = exact
    _n = batch.value
    _least = (_bias**2 + _variance / _n).argmin()
    _alt = f"Error of batches of {_n} episodes over λ; it is least at λ = {FINE[_least]:.2f}"
    _error = squared_errors(sampled, _n)
    _at = [int(np.argmin(abs(FINE - lam))) for lam in LAMBDAS]
    _rows = [
        (f"λ = {lam:g}", float(_bias[k] ** 2 + _variance[k] / _n), y)
        for lam, k, y in zip(LAMBDAS, _at, _error, strict=True)
    ]
    _table = worn.table(f"| squared error, batches of {_n} | exact | {EPISODES // _n:,} batches |", _rows)
    mo.vstack([parts.picture(figure(exact, sampled, _n), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "at a larger λ",
        r"""
        Averaging divides the variance and leaves the bias as it is. So the more episodes, the more the bias counts, and
        the nearer $\lambda$ should be to 1. With a better critic it is the other way round: less bias, and a smaller
        $\lambda$ will do. There is no best $\lambda$ as such; 0.95 is a habit that suits large batches.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    _fig, _found = new_figure(10, 4.4), correction_3.experiment(runs=5)
    _ring, (_one, _all) = correction_3.world(), _fig.subplots(1, 2)
    _V = evaluate(induce(_ring, correction_3.only(_ring)))[0]
    correction_3.draw_learning(_one, [x for x in _found if x.lam == 0.95], _V)
    correction_3.draw_all(_all, [x for x in _found if x.name == "wrong"], _V)
    parts.correction(
        3,
        r"""
        The source expands the target of the critic and loses a term. From
        $A_t = r_t + \gamma V(s_{t+1}) - V(s_t) + \gamma\lambda A_{t+1}$ follows

        $$A_t + V(s_t) = r_t + \gamma V(s_{t+1}) + \gamma\lambda\, A_{t+1},$$

        and in print another $V(s_t)$ is added to the right side. It is in there already: the minus in $\delta$ takes it
        away, the plus brings it back. With $V$ counted twice the target grows with what it is to correct. No learner
        comes to rest there: the critic grows without bound, exponentially for $\lambda < 1$. The pictures show it on a
        ring of three states.
        """,
        _fig,
        "Values learnt with the right target settle at V_π, with V counted twice they grow without bound",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        12,
        """
        Write the backward walk for the advantages, then the targets of the critic. Mind which discount belongs to which
        step, what stands behind the last one, and how often V is in the target.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### The critic is exact. Which λ is best?

        The smaller, the better, as a rule: at $V = V_\pi$ no $\lambda$ has any bias, and $\lambda = 0$ looks at the
        least chance. That is why a good critic is worth its price: with it, one step tells as much as a whole episode.

        ### At λ = 1 the advantage is biased for every wrong V. Why does the gradient not mind?

        Its bias is $-e(s)$, the same for all actions of a state: a baseline. The bias of smaller $\lambda$ depends on
        where the action leads, and this is what the gradient sees.

        ### An episode is cut by a time limit after step t. What is $A_t$, and what would be wrong?

        $A_t = \delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)$: $V$ stands for the missing future. Wrong would be $\gamma =
        0$ there, as if the world had ended, and wrong would be to add $\gamma\lambda A_{t+1}$ from the next row of the
        buffer, which belongs to another episode.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "sections 1.8.3 and 1.8.7",
        """
        - J. Schulman, P. Moritz, S. Levine, M. I. Jordan and P. Abbeel, *High-dimensional continuous control using
          generalized advantage estimation* (2016), equations 16 to 18
        - J. Schulman, F. Wolski, P. Dhariwal, A. Radford and O. Klimov, *Proximal policy optimization algorithms*
          (2017), section 5: the target of the critic
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), section 12.1
        """,
    )
    return


if __name__ == "__main__":
    app.run()
