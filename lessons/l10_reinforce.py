"""Lesson 10: REINFORCE and baselines.

45 minutes. After: lessons 1 and 9. Rows: E1.11. Corrections: none.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="10 · REINFORCE and baselines")

with app.setup:
    from inspect import cleandoc

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import losses, policy_gradients
    from tabrl.gradient import at
    from tabrl.gradient_moments import optimal_baseline, reinforce, whole_return
    from tabrl.lessons import parts, worn
    from tabrl.lessons.machine import REPAIR, WORN
    from tabrl.lessons.worn import bar, played, preferences, scores, slopes, world
    from tabrl.mdp import MDP
    from tabrl.plots import COLOURS, new_figure
    from tabrl.plots.grid import INK
    from tabrl.policy_gradients import returns_to_go
    from tabrl.rollout import Rollout
    from tabrl.summary import standard_error
    from tabrl.types import F

    EPISODES, SEED, THETA = 2000, 10, 0.0
    EXACT = at(world(), preferences(THETA))
    BEST = optimal_baseline(world(), EXACT.pi)
    SLOPE = float(EXACT.d[WORN] * EXACT.pi[WORN, REPAIR] * EXACT.advantage[WORN, REPAIR])


@app.cell(hide_code=True)
def _():
    parts.head(
        10,
        """
        - estimate the gradient from a single episode, with nothing known of the world
        - say why a baseline may be anything that does not know the action, and what it buys
        - compute how many episodes an estimate costs, and find the baseline that costs least
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## The theorem, by playing

    The policy gradient theorem needs visits $d$ and values $Q$, and we have neither. But an episode that the policy
    plays *visits* states as often as it should, and the return $G_t$ that follows $a_t$ is $Q(s_t,a_t)$ on average. So
    put the one in the place of the other, and add up along the episode. That is **REINFORCE**:

    $$g = \sum_t \gamma^t\, \nabla \log\pi(a_t|s_t)\, G_t, \qquad \mathbb{E}[g] = \nabla J.$$

    In words: make each action more likely, in proportion to what came after it. Not after *good* actions only: after
    every action, and if all returns are positive, each action is pushed up. What sorts them out is that better ones are
    pushed harder. It works on average, and it takes many episodes until the average shows.

    A **baseline** pushes by comparison instead: $G_t - b(s_t)$, how much better it went than $b$. As
    $\sum_a \pi(a|s)\, \nabla\log\pi(a|s)\, b(s) = 0$, the mean stays the same for **every** $b$ that does not depend on
    the action. What changes is how far single estimates lie from it.

    ## One episode, by hand

    The machine of the last lesson: $\gamma = 0.8$, a worn one is repaired with probability $\tfrac12$, and the slope in
    the preference $\theta$ for repairing is 0.3125. The score is $+\tfrac12$ where it was repaired, $-\tfrac12$ where
    it ran. Suppose we saw

    $$\text{good} \xrightarrow{\;2\;} \text{worn} \xrightarrow[\text{repair}]{\;-1\;} \text{good}
    \xrightarrow{\;2\;} \text{worn} \xrightarrow[\text{run}]{\;1\;} \text{broken}.$$

    | $t$ | state, action | $G_t$ | $\gamma^t$ · score | no baseline | $b = V(\text{worn}) = 2.5$ |
    |:--|:--|:--|:--|:--|:--|
    | 3 | worn, run | 1 | $-0.256$ | $-0.256 \cdot 1 = -0.256$ | $-0.256 \cdot (-1.5) = 0.384$ |
    | 2 | good, run | 2.8 | 0 | 0 | 0 |
    | 1 | worn, repair | 1.24 | $0.4$ | $0.4 \cdot 1.24 = 0.496$ | $0.4 \cdot (-1.26) = -0.504$ |
    | 0 | good, run | 2.992 | 0 | 0 | 0 |
    | | | | **sum** | **0.240** | **−0.120** |

    Two estimates of 0.3125 from the same episode, and neither is wrong: an estimate is right in the mean. Both pushes
    change their sign. Running led to 1, less than a worn machine brings on average, so it is now made less likely; the
    repair was followed by bad luck, and is blamed for it.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.8.1",
        r"""
        \nabla_{\theta} J(\theta) = \mathbb{E}_{\pi}\Big[\sum_{t=0}^{T}
        \nabla_{\theta} \log \pi_{\theta}(a_t|s_t)\, G_t\Big], \qquad A(s_t, a_t) \approx G_t - V(s_t)
        """,
        r"""
        Print leaves $\gamma^t$ out, as in lesson 9. Programs state a loss to be *minimised* and let a machine
        differentiate it: its gradient is minus what is wanted here, and the advantage in it counts as a constant.
        """,
        losses.policy_gradient,
        returns_to_go,
    )
    return


@app.cell
def _():
    s, a = np.array([0, 1, 0, 1]), np.array([0, 1, 0, 0])
    r, discount = np.array([2.0, -1.0, 2.0, 1.0]), np.array([0.8, 0.8, 0.8, 0.0])
    one = Rollout(s, a, r, discount, np.array([1, 0, 1, 2]), discount == 0, np.log(EXACT.pi[s, a]))
    G = returns_to_go(one, np.zeros(3))
    plain, less = (slopes(one, THETA, G - b)[0] for b in (0.0, EXACT.V[s]))
    mo.md(
        f"The library agrees with the table: the returns are {G.round(3).tolist()}, the estimate is {plain:.3f} "
        f"without a baseline and {less:.3f} with V."
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## How far from the mean?

    The estimate is chance, but its variance is a number like any other, and the library computes it: Bellman equations
    once more, for squares in place of means. Over $b$ it is a **parabola**. Here it is for the baseline of the worn
    state, the only one that matters, as there is no choice in the others. The 2,000 episodes are the same for all $b$.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["smaller still", "the same as at 2.5", "about as large as without a baseline"])
    parts.predict(
        r"""
        Without a baseline the variance of one estimate is 1.31. With $b = V(\text{worn}) = 2.5$ it is 0.19. Now take
        twice as much, $b = 5$. The variance is …
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    b = mo.ui.slider(-1, 7, 0.1, value=0.0, label="baseline b of the worn state", show_value=True, full_width=True)
    b
    return (b,)


@app.cell
def _():
    drawn = played(THETA, EPISODES, SEED)
    return (drawn,)


@app.function
def estimates(x: Rollout, b: float) -> F:
    """The estimate of the slope that each episode gives, with the baseline b in the worn state."""
    return slopes(x, THETA, returns_to_go(x, np.zeros(3)) - b)


@app.function
def variance(b: float | F) -> F:
    """Exact variance of one estimate: half of the total, as the two preferences of a row move against each other."""
    return np.asarray((BEST.total + BEST.curvature[WORN] * (b - BEST.b[WORN]) ** 2) / 2)


@app.function
def squares(g: F) -> F:
    """Squared distances from the sample mean, whose average is the sample variance."""
    return (g - g.mean()) ** 2 * len(g) / (len(g) - 1)


@app.function
def draw_variance(ax: Axes, b: float, g: F) -> None:
    """Draw the variance over the baseline: the exact parabola, and the sample at b."""
    fine = np.linspace(-1, 7, 161)
    ax.plot(fine, variance(fine), color=INK, lw=1.6, label="variance, exact")
    ax.axvline(EXACT.V[WORN], color=COLOURS[2], lw=1.2, ymax=0.66, label=f"V(worn) = {EXACT.V[WORN]:g}")
    ax.plot(BEST.b[WORN], variance(BEST.b[WORN]), "v", color=INK, ms=7, label=f"least, at b = {BEST.b[WORN]:.3f}")
    bar(ax, b, squares(g), COLOURS[0], "o", f"{len(g):,} episodes ± 2 se")
    names = {"xlabel": "baseline b of the worn state (reward)", "ylabel": "variance of one estimate (reward²)"}
    worn.finish(ax, "How much an estimate varies", "upper center", ylim=(0, 4.9), **names)


@app.function
def draw_estimates(ax: Axes, g: F) -> None:
    """Draw how often each estimate came, and the exact mean."""
    ax.hist(
        np.clip(g, -4, 4), bins=np.arange(-4.1, 4.2, 0.2), color=COLOURS[0], alpha=0.8, label=f"{len(g):,} episodes"
    )
    ax.axvline(SLOPE, color=INK, ls="--", lw=1.4, label=f"exact mean {SLOPE:.4f}")
    names = {"xlabel": "estimate of the slope (reward; beyond ±4 in the last bar)", "ylabel": "episodes"}
    worn.finish(ax, "Single estimates", "upper left", xlim=(-4.2, 4.2), ylim=(0, 550), **names)


@app.function
def figure(b: float, g: F) -> Figure:
    """The variance over the baseline, and the estimates at b, beside the exact answers."""
    fig = new_figure(10, 4)
    left, right = fig.subplots(1, 2)
    draw_variance(left, b, g)
    draw_estimates(right, g)
    return fig


@app.cell(hide_code=True)
def _(b, drawn):
    _g = estimates(drawn, b.value)
    _exact = float(variance(b.value))
    _alt = (
        f"With baseline {b.value:g} the variance of an estimate is {_exact:.3f}; 2,000 estimates around the exact mean"
    )
    _rows = [("mean", SLOPE, _g), ("variance", _exact, squares(_g))]
    _table = worn.table(f"| estimate of the slope, b = {b.value:g} | exact | 2,000 episodes |", _rows)
    _need = f"Episodes for a standard error of 0.01: **{np.ceil(_exact / 1e-4):,.0f}**"
    mo.vstack([parts.picture(figure(b.value, _g), _alt), mo.md(f"{_table}\n\n{_need}")])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "about as large as without a baseline",
        r"""
        A parabola is symmetric: what lies as far above its lowest point as 0 lies below costs the same. Still larger
        baselines cost more than none, without any limit. The mean does not move, wherever you go: only the width of the
        right picture does.
        """,
    )
    return


@app.cell
def _(drawn):
    first = np.r_[True, drawn.last[:-1]]
    to_go = returns_to_go(drawn, np.zeros(3))
    summed = np.bincount(np.cumsum(drawn.last) - drawn.last, scores(drawn, THETA))
    A = EXACT.advantage[drawn.s, drawn.a]
    kinds = [
        ("whole return for every step", whole_return(world(), EXACT.pi).total / 2, summed * to_go[first]),
        ("return to go", float(variance(0.0)), estimates(drawn, 0.0)),
        ("return to go less V", float(variance(EXACT.V[WORN])), estimates(drawn, EXACT.V[WORN])),
        ("return to go less the best b", float(variance(BEST.b[WORN])), estimates(drawn, BEST.b[WORN])),
    ]
    mo.md(
        "## What it costs\n\nAll of these have the mean 0.3125. The first gives every action the return of the whole "
        "episode, also what was earned before it; that is chance and nothing else. The last two hardly differ here.\n\n"
        + worn.table("| variance of one estimate | exact | 2,000 episodes |", [(k, v, squares(g)) for k, v, g in kinds])
        + f"\n\nWere the advantages known exactly, {squares(slopes(drawn, THETA, A)).mean():.4f} would be left "
        "(sampled): chance in the visits and actions alone. That is what a good critic is after, in the next lesson."
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## V is not the best baseline, and can be worse than none

    The best constant for a state balances the actions' scores: without a return to the state it is
    $\mathbb{E}[|\nabla\log\pi|^2\, Q] \,/\, \mathbb{E}[|\nabla\log\pi|^2]$, and a rare action, whose score is large,
    counts more in it than in $V$. Where the state comes **again**, a further term enters: a baseline shifts the push of
    this visit and of the next ones, which are not independent. On our machine, at even odds, the first makes no
    difference and the second moves the best $b$ from 2.5 to 2.556. It can be far more:
    """)
    return


@app.cell
def _():
    odds = np.full((2, 2), 0.5)
    wait = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, 2], [0, 0]], 1.0, terminal=[0, 1], mu=[1, 0])
    least = optimal_baseline(wait, odds)
    V_wait = at(wait, np.zeros((2, 2))).V[0]
    mo.md(f"""
    *Waiting costs 1, leaving pays 2 and ends the episode; even odds, γ = 1.*

    | baseline | total variance, exact |
    |:--|--:|
    | none | {reinforce(wait, odds, 0.0).total:.3f} |
    | $V$ = {V_wait:g} | {reinforce(wait, odds, V_wait).total:.3f} |
    | the best, {least.b[0]:g} | {least.total:.3f} |
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## A baseline out of the batch

    Where does $b$ come from, when $V$ is not known? One way is to learn $V$ from the returns, as the source does:
    $V(s_t) \leftarrow V(s_t) + \alpha\,(G_t - V(s_t))$, the Monte Carlo method of lesson 4. Another needs no table:
    play $n$ episodes from the same start, and compare each with the average of the batch. But the average contains the
    episode itself, and so it knows a little of the action:

    $$r_i - \tfrac1n \textstyle\sum_j r_j = \left(1 - \tfrac1n\right)
    \Big(r_i - \tfrac{1}{n-1} \sum_{j \ne i} r_j\Big).$$

    The mean of the **others** is a proper baseline. With the mean of all, every estimate is too small by the factor
    $(n-1)/n$: at $n = 2$ it is half of the gradient. Keep this in mind for lesson 18.
    """)
    return


@app.function
def learnt(V: F | None, critic: float | None, runs: int = 20, updates: int = 20) -> F:
    """J after some updates of one episode each, for every run; V: the first values, critic: their step size."""
    rngs = [np.random.default_rng(x) for x in np.random.SeedSequence(SEED).spawn(runs)]
    learners = [policy_gradients.reinforce(world(), rng, step=0.5, V=V, critic=critic, every=updates) for rng in rngs]
    return np.array([next(records).J for records in learners])


@app.cell
def _():
    ends = {
        "none": learnt(None, None),
        "V, learnt on the way from 0": learnt(None, 0.1),
        "V, right from the start": learnt(EXACT.V, 0.1),
    }
    lines = "\n".join(
        f"| {name} | {y.mean():.3f} ± {2 * standard_error(y):.3f} | {y.min():.3f} |" for name, y in ends.items()
    )
    never, always = (at(world(), preferences(x)).J for x in (-30.0, 30.0))
    text = f"""
    ## And it learns

    Twenty updates of one episode each, twenty runs, from even odds, where J = {EXACT.J:g}. Never to repair earns
    {never:.3f}, always {always:.3f}.

    | baseline | J, mean of 20 runs ± 2 se | worst run |
    |:--|--:|--:|
    LINES

    The worst runs did not learn slowly: a few unlucky episodes have put them on the plateau of lesson 9, where they
    hardly learn. A good baseline keeps them off it; one that has yet to be learnt is at first no baseline.
    """
    mo.md(cleandoc(text).replace("LINES", lines))
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        10,
        r"""
        Write the estimate of one episode: returns from the end, scores, $\gamma^t$, a baseline. Then, for one state and
        one step, the baseline that is made of the other episodes.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### All rewards grow by 100. What does that do to REINFORCE, with and without a baseline?

        If all episodes have one length, it adds to $G_t$ a number that depends on $t$ alone. The gradient stays, and
        the variance explodes, as with a baseline that is off by as much. With $b = V$ nothing changes, as $V$ grows
        along. Where episodes differ in length the problem itself is another one.

        ### May the baseline depend on the state before, on the time, or on the weather?

        On everything that is settled before the action is drawn. Given all of that, the score still has mean 0. On
        nothing that the action had a part in: not on the reward, the next state, or the length of the episode.

        ### An estimate has variance 1.31 without and 0.19 with a baseline. What is the gain worth?

        The standard error of a mean of $n$ episodes is $\sqrt{\text{variance}/n}$. The same accuracy takes
        $1.31/0.19 \approx 6.7$ times fewer episodes. To halve the error by playing more takes four times as many.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.8.1",
        """
        - R. J. Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement learning*
          (1992)
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 13.3 and
          13.4
        - E. Greensmith, P. L. Bartlett and J. Baxter, *Variance reduction techniques for gradient estimates in
          reinforcement learning* (2004): the best baseline; with revisits it is computed in the library
        """,
    )
    return


if __name__ == "__main__":
    app.run()
