"""Lesson 7: λ-returns and traces.

50 minutes. After: lesson 6. Rows: E1.9. Corrections: 7.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="7 · λ-returns and traces")

with app.setup:
    from collections.abc import Sequence
    from itertools import islice

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import prediction, returns, sample
    from tabrl.chain import evaluate, induce, occupancy
    from tabrl.lessons import correction_7, parts
    from tabrl.lessons.machine import GOOD, machine, repairing
    from tabrl.operators import apply, lambda_operator
    from tabrl.plots import COLOURS, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.trace import last
    from tabrl.types import Episode, F

    MDP, PI = machine(0.9), repairing(0.5)
    CHAIN = induce(MDP, PI)
    V = 0.5 * evaluate(CHAIN)  # values to learn from: half of the right ones
    EPISODES, ALPHA = 1000, 0.3


@app.cell(hide_code=True)
def _():
    parts.head(
        7,
        """
        - mix all n-step returns of a step into one λ-return, with weights that add up to 1 also at the end of an episode
        - compute it backwards, and as a sum of TD errors
        - turn the view round: carry a trace of what was visited, and learn from each TD error at once
        - tell an end from a time limit, and say what is learnt when they are confused
        """,  # noqa: E501
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Why choose one n?

    Lesson 6 gave a target for every $n$. Any average of them is a target too, as long as the weights add up to 1. The
    **λ-return** takes weights that fall by the factor $\lambda$ from one $n$ to the next. At $\lambda = 0$ only $n = 1$
    is left, which is TD(0). The closer $\lambda$ is to 1, the more weight goes to long returns; at $\lambda = 1$ it is
    the return itself.

    An episode has a last n-step return: the whole return, with as many steps as were left. All $n$ beyond it would give
    the same number, so it gets *all the weight that is left*.

    ## The machine, by hand

    The episode of lessons 1 and 6, with $\gamma = \lambda = \tfrac12$ and $V(\text{good}) = V(\text{worn}) = 2$. From
    step 0 the n-step returns are 3, 3.5 and 3.25, and their weights $\tfrac12$, $\tfrac14$ and, as the rest,
    $\tfrac14$:

    $$G_0^{\lambda} = \tfrac12 \cdot 3 + \tfrac14 \cdot 3.5 + \tfrac14 \cdot 3.25 = 3.1875$$

    Walking back is cheaper. Half of what comes next is the value, half is the next λ-return:

    | step | state | reward | λ-return | TD error $\delta$ |
    |:--|:--|:--|:--|:--|
    | 2 | worn | 1 | $1$ | $1 + 0 - 2 = -1$ |
    | 1 | good | 2 | $2 + \tfrac12 (\tfrac12 \cdot 2 + \tfrac12 \cdot 1) = 2.75$ | $2 + \tfrac12 \cdot 2 - 2 = 1$ |
    | 0 | good | 2 | $2 + \tfrac12 (\tfrac12 \cdot 2 + \tfrac12 \cdot 2.75) = 3.1875$ | $2 + \tfrac12 \cdot 2 - 2 = 1$ |

    And there is a third way. What the λ-return says beyond $V$ is a sum of TD errors, each weaker by $\gamma\lambda =
    \tfrac14$ than the one before: $3.1875 - 2 = 1 + \tfrac14 \cdot 1 + \tfrac1{16} \cdot (-1)$.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.7.3",
        r"""
        G_t^{(\lambda)} = (1 - \lambda) \sum_{n=1}^{\infty} \lambda^{n-1} G_t^{(n)}
        = \sum_{n=0}^{\infty} (\gamma \lambda)^n \left[ r_{t+n} + (1-\lambda) \gamma V(s_{t+n+1}) \right]
        """,
        r"""
        Print sums to infinity; the correction below says what to do with an end. The library takes the third way: it
        sums TD errors backwards, with `lam * discount` in the place of $\gamma\lambda$, and adds the value. (`gae` is
        the advantage of lesson 12: the same sum before the value is added.) `v` has one entry more than `r`.
        """,
        returns.lambda_returns,
        returns.gae,
        returns.td_errors,
    )
    return


@app.cell
def _():
    r, discount, v = np.array([2.0, 2.0, 1.0]), np.array([0.5, 0.5, 0.0]), np.array([2.0, 2.0, 2.0, 0.0])
    mo.md(f"The library agrees: `lambda_returns(r, discount, v, 0.5)` = {returns.lambda_returns(r, discount, v, 0.5)}.")
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Turn the view round

    So far each state looked *forward*, at rewards that are still to come; it has to wait for the end. Sort the same sum
    by TD errors instead of by states. The TD error of step $t$ enters the λ-return of every earlier step $k$, with the
    weight $(\gamma\lambda)^{t-k}$. So when $\delta_t$ becomes known, look *backward*: tell each state that was visited,
    and the louder, the more recent and the more frequent its visits were. One number per state remembers that, its
    **eligibility trace** $z(s)$:

    $$z(s_t) \leftarrow z(s_t) + 1, \qquad \text{change of } V(s) = \alpha\, \delta_t\, z(s) \text{ for all } s,
    \qquad z \leftarrow \gamma \lambda z$$

    By hand, in the episode above ($\gamma\lambda = \tfrac14$, and changes collected with $\alpha = 1$):

    | step | $\delta$ | $z(\text{good})$ | $z(\text{worn})$ | change of good | change of worn |
    |:--|:--|:--|:--|:--|:--|
    | 0 | 1 | 1 | 0 | 1 | 0 |
    | 1 | 1 | $\tfrac14 + 1 = 1.25$ | 0 | 1.25 | 0 |
    | 2 | −1 | $\tfrac14 \cdot 1.25 = 0.3125$ | 1 | −0.3125 | −1 |
    | **sum** | | | | **1.9375** | **−1** |

    The forward view gives good $(3.1875 - 2) + (2.75 - 2) = 1.9375$, and worn $1 - 2 = -1$.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["only at λ = 0", "only at λ = 0 and λ = 1", "at every λ"])
    parts.predict(
        """
        A long episode with many visits, changes collected and made at its end. At which λ do both views change the
        values by the same amount?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    lam = mo.ui.slider(0, 1, 0.05, value=0.0, label="λ", show_value=True, full_width=True)
    lam
    return (lam,)


@app.cell
def _():
    episodes = list(islice(sample.episodes(MDP, PI, np.random.default_rng(7)), EPISODES))
    one = next(x for x in episodes if len(x.r) == 14)
    return episodes, one


@app.function
def forward(x: Episode, lam: float) -> F:
    """Collected change of each state, step by step of the episode, as λ-returns say: (T,S)."""
    move = returns.lambda_returns(x.r, x.discount, V[x.s], lam) - V[x.s[:-1]]
    return np.eye(MDP.S)[x.s[:-1]] * move[:, None]


@app.function
def backward(x: Episode, lam: float) -> F:
    """Collected change of each state, step by step of the episode, as TD errors and traces say: (T,S)."""
    z, moves = np.zeros(MDP.S), np.empty((len(x.r), MDP.S))
    for t, delta in enumerate(returns.td_errors(x.r, x.discount, V[x.s])):
        z[x.s[t]] += 1
        moves[t] = delta * z
        z *= lam * x.discount[t]
    return moves


@app.function
def exact(lam: float) -> F:
    """Exact mean of the collected changes: expected visits times what the λ-return expects beyond V."""
    visits = occupancy(CHAIN._replace(gamma=1.0), MDP.mu)
    return visits * (apply(lambda_operator(CHAIN, lam), V) - V)


@app.function
def draw_episode(ax: Axes, x: Episode, lam: float) -> None:
    """Draw the collected change of good by both views, step by step of one episode."""
    t = np.arange(len(x.r) + 1)
    for view, colour, style, name in (
        (forward, COLOURS[1], (0, (6, 2)), "forward: waits, then walks the steps again"),
        (backward, COLOURS[0], "-", "backward: learns as it goes"),
    ):
        y = np.append(0.0, np.cumsum(view(x, lam)[:, GOOD]))
        ax.step(t, y, where="post", color=colour, ls=style, lw=1.8, label=f"{name}, {y[-1]:.3f}")
        ax.plot(t[-1], y[-1], "o", ms=6, color=colour)
    names = [MDP.names.states[s][0] for s in x.s]
    ax.set_xticks(t, names)
    ax.set(xlabel="steps of the episode: g good, w worn, b broken", ylabel="collected change of V(good) (reward)")
    ax.margins(y=0.25)
    ax.set_title(f"One episode, λ = {lam:g}", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    tidy(ax)


@app.function
def draw_mean(ax: Axes, totals: Sequence[F], lam: float) -> None:
    """Draw the exact mean change over λ, and the means that both views give at one λ."""
    fine = np.linspace(0, 1, 51)
    y = np.array([exact(float(x)) for x in fine])
    for s, name, style in ((0, "good", "-"), (1, "worn", "--")):
        ax.plot(fine, y[:, s], color=INK, ls=style, lw=1.6, label=f"{name}, exact")
        for x, view, colour, shift in zip(
            totals, ("forward", "backward"), COLOURS[1::-1], (-0.012, 0.012), strict=True
        ):
            label = f"{view}, {len(x):,} episodes ± 2 se" if s == 0 else None
            ax.errorbar(lam + shift, x[:, s].mean(), 2 * standard_error(x[:, s]), fmt="os"[s], color=colour, ms=5,
                        capsize=4, label=label)  # fmt: skip
    ax.set(xlabel="λ", ylabel="collected change of an episode (reward)", xlim=(-0.05, 1.05), ylim=(0, None))
    ax.set_title("Mean over episodes", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    tidy(ax)


@app.cell(hide_code=True)
def _(episodes, lam, one):
    totals = [np.array([view(x, lam.value).sum(axis=0) for x in episodes]) for view in (forward, backward)]
    _fig = new_figure(10, 4.2)
    _left, _right = _fig.subplots(1, 2)
    draw_episode(_left, one, lam.value)
    draw_mean(_right, totals, lam.value)
    _gap = abs(totals[0] - totals[1]).max()
    _exact = exact(lam.value)
    _rows = "\n".join(
        f"    | {name} | {_exact[s]:.4f} | {totals[0][:, s].mean():.4f} ± {2 * standard_error(totals[0][:, s]):.4f} |"
        f" {totals[1][:, s].mean():.4f} |"
        for s, name in enumerate(("good", "worn"))
    )
    _table = f"""
    | mean change, λ = {lam.value:g} | exact | forward, {EPISODES:,} episodes | backward, the same episodes |
    |:--|--:|--:|--:|
{_rows}

    <small>Exact: expected visits of an episode × (T^λ V − V). V is half of V_π. ± is two standard errors. Largest
    difference between the views in any state of any of the {EPISODES:,} episodes: {_gap:.1e}.</small>
    """
    _alt = (
        f"Collected changes of V at λ = {lam.value:g}: both views on one episode, and their means beside the exact one"
    )
    mo.vstack([parts.picture(_fig, _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "at every λ",
        r"""
        The two views sort the same double sum, $\sum_{k \le t} (\gamma\lambda)^{t-k} \delta_t$, by $k$ or by $t$. They
        differ on the way, which is the point: the backward view needs no future, and keeps no more than one number per
        state. They end in the same place up to rounding, in every episode, not just in the mean.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Learning at once

    The sums are equal because $V$ stood still during the episode. **TD(λ)** makes each change at once, so that later TD
    errors are measured with newer values: then the views differ, and the less, the smaller $\alpha$ is.
    **True online TD(λ)** mends this with a slightly different trace: after every step it stands exactly where the
    forward view would stand that knows the episode up to there, and starts again each time. On the episode of the
    picture, with $\alpha = 0.3$ and $\lambda$ from the slider:
    """)
    return


@app.cell(hide_code=True)
def _(lam, one):
    _learners = {
        "λ-return at the end: `lambda_return`": prediction.lambda_return,
        "TD(λ) at once: `td_lambda`": prediction.td_lambda,
        "true online TD(λ): `true_online_td`": prediction.true_online_td,
    }
    _found = {name: last(f([one], alpha=ALPHA, V=V, lam=lam.value)).V for name, f in _learners.items()}
    _rows = "\n".join(f"    | {name} | {y[0]:.4f} | {y[1]:.4f} |" for name, y in _found.items())
    _truth = evaluate(CHAIN)
    mo.md(f"""
    | after the episode, λ = {lam.value:g} | V(good) | V(worn) |
    |:--|--:|--:|
    | before | {V[0]:.4f} | {V[1]:.4f} |
{_rows}
    | $V_\\pi$, exact | {_truth[0]:.4f} | {_truth[1]:.4f} |
    """)
    return


@app.function
def correction_figure() -> Figure:
    """The experiment of correction 7 with fewer episodes: a time limit taken for an end, a sum cut off."""
    fig, runs = new_figure(12, 8), correction_7.RUNS
    axes = fig.subplots(2, 2)
    correction_7.draw_time(axes[0, 0], correction_7.by_time(runs))
    every, fine = range(2, 51), np.linspace(0, 1, 51).tolist()
    limits, lams = correction_7.LIMITS, correction_7.LAMBDAS
    by_limit, exact_by_limit = correction_7.by_limit(runs, 4000), correction_7.exact_by_limit(every)
    correction_7.draw_lines(axes[0, 1], limits, by_limit, every, exact_by_limit)
    axes[0, 1].set(xscale="log", xlabel="time limit L (steps)")
    axes[0, 1].set_title(f"A time limit is not an end ({runs} runs ± 2 se; lines exact)", fontsize=10)
    axes[0, 1].set_xticks(limits, [str(x) for x in limits])
    axes[0, 1].minorticks_off()
    correction_7.draw_weights(axes[1, 0])
    correction_7.draw_lines(axes[1, 1], lams, correction_7.by_lam(runs, 60), fine, correction_7.exact_by_lam(fine))
    axes[1, 1].set(xlabel="λ", ylim=(-0.5, 14.5))
    axes[1, 1].set_title(f"What is learnt with both sums ({runs} runs ± 2 se; lines exact)", fontsize=10)
    return fig


@app.cell(hide_code=True)
def _():
    parts.correction(
        7,
        r"""
        The source sums to infinity and says nothing of ends. Two things have to be said.

        **The last return gets the rest.** With $T$ steps to go the weights are $(1-\lambda)\lambda^{n-1}$ for $n < T$
        and $\lambda^{T-1}$ for $n = T$. Who just stops the printed sum at $T$ has weights that add up to
        $1 - \lambda^T$ only: all values come out too small, and at $\lambda = 1$ they are 0 (lower pictures). The
        second sum of print, the one with $(\gamma\lambda)^n$, may be stopped at an end: beyond it there are neither
        rewards nor values.

        **A time limit is no terminal state.** An episode that was stopped after $L$ steps has not ended: the machine
        would have gone on. So `discount` stays γ in its last step, and the value of the state that was reached stands
        for what was not seen. Who writes 0 there learns other values, TD(0) and Monte Carlo each its own (upper
        pictures). The machine of this experiment pays as ours does, but a worn one can also recover by itself.
        """,
        correction_figure(),
        "TD(0) and Monte Carlo under a time limit, with and without a value at the cut; weights and values of the "
        "λ-return with the last weight right and cut off",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        7,
        """
        Write the λ-returns of an episode, and TD(λ) with traces over several episodes. Mind that the weights add up to
        1, that λ never comes without γ, and that a new episode starts with a trace of 0.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### With λ = 0.9, how many steps does the λ-return look ahead?

        No single number, but a mean: weights $(1-\lambda)\lambda^{n-1}$ have the mean $1/(1-\lambda) = 10$ steps, as
        long as the episode is much longer. In the sum of TD errors the factor is $\gamma\lambda$, so that with
        $\gamma = 0.9$ an error 10 steps away counts $0.81^{10} \approx 0.12$.

        ### An episode ends while z is not 0. What must be done before the next one, and what goes wrong otherwise?

        Set the trace to 0. Otherwise the first TD errors of the new episode also move states of the old one, as if they
        had led there. At an end a library may be lucky, because the discount of the last step is 0 and takes the trace
        along; after a time limit it stays γ, and the trace survives unless it is cleared.

        ### Is λ = 1 the best, as it alone has no bias?

        Only if there is enough data to average the chance away, or if states cannot be told apart well. Between the
        ends the λ-return trades bias for variance just as n does in lesson 6, and which λ is best depends on how good
        the values already are, on how noisy the world is, and on the step size.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.7.3",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), chapter 12,
          equations 12.2 to 12.5; `tabrl figure 12.6` draws one of its figures
        - R. S. Sutton, *Learning to predict by the methods of temporal differences* (1988): traces
        - H. van Seijen and others, *True online temporal-difference learning* (2016)
        - F. Pardo and others, *Time limits in reinforcement learning* (2018)
        """,
    )
    return


if __name__ == "__main__":
    app.run()
