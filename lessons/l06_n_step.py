"""Lesson 6: n-step returns and TD.

40 minutes. After: lessons 4 and 5. Rows: E1.8. Corrections: none.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="6 · n-step returns and TD")

with app.setup:
    from collections.abc import Sequence
    from itertools import islice

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import prediction, replay, returns, sample
    from tabrl.advantage_moments import n_step_advantage
    from tabrl.chain import evaluate, induce
    from tabrl.figures.episode_moments import monte_carlo_episodes, td0_episodes
    from tabrl.lessons import parts
    from tabrl.lessons.machine import GOOD, RUN, machine, repairing
    from tabrl.plots import COLOURS, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.td_moments import ValueMoments
    from tabrl.trace import last
    from tabrl.types import Episode, F

    MDP, PI = machine(0.9), repairing(0.5)
    V_PI = evaluate(induce(MDP, PI))
    EPISODES, LONGEST = 1000, 30
    STEPS = (1, 2, 3, 5, 8, 12, 20, 30)
    RUNS, LEARNT, ALPHAS = 200, 10, np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0])


@app.cell(hide_code=True)
def _():
    parts.head(
        6,
        """
        - compute the n-step return of any step by hand, also near the end of an episode, where fewer steps are left
        - say what a larger n takes away (error of the values) and what it adds (chance), and how fast
        - choose between TD(0), Monte Carlo and what lies between, and say what the choice depends on
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## How long to look before guessing

    Two ways of learning a value are known by now. **Monte Carlo** waits for the end and moves $V(s_t)$ towards the
    whole return: nothing in this target is guessed, but all the chance of the episode is in it. **TD(0)** waits for one
    reward and lets $V(s_{t+1})$ stand for the rest: little chance, but what stands for the rest is a guess, at first a
    bad one.

    Nothing forces us to choose. Wait for $n$ rewards, and only then let a value stand for the rest. The target is
    called the **n-step return** $G_t^{(n)}$. With $n = 1$ it is the target of TD(0). With $n$ as large as what is left
    of the episode nothing is left to guess, and it is the return.

    ## The machine, by hand

    Take the episode of lesson 1, $\gamma = \tfrac12$, and suppose that we believe $V(\text{good}) = V(\text{worn}) =
    2$. (Broken is the end: its value is 0, and nobody asks.)

    $$\text{good} \xrightarrow{\;2\;} \text{good} \xrightarrow{\;2\;} \text{worn} \xrightarrow{\;1\;} \text{broken}$$

    | from step | $n = 1$ | $n = 2$ | $n = 3$ and more |
    |:--|:--|:--|:--|
    | 0, good | $2 + \tfrac12 \cdot 2 = 3$ | $2 + \tfrac12 \cdot 2 + \tfrac14 \cdot 2 = 3.5$ | $2 + \tfrac12 \cdot 2 + \tfrac14 \cdot 1 = 3.25$ |
    | 1, good | $2 + \tfrac12 \cdot 2 = 3$ | $2 + \tfrac12 \cdot 1 = 2.5$ | $2.5$ |
    | 2, worn | $1$ | $1$ | $1$ |

    Two things to see. At step 1 two steps are left, so that $n = 2$ is already the whole return, and a larger $n$ adds
    nothing. And the guess enters with the weight $\gamma^n$: $\tfrac12$, then $\tfrac14$, then not at all.
    """)  # noqa: E501
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.7.2",
        r"""
        G_t^{(n)} = r_t + \gamma r_{t+1} + \dots + \gamma^{n-1} r_{t+n-1} + \gamma^n V(s_{t+n}), \qquad
        V(S_t) \leftarrow V(S_t) + \alpha \left(G_t^{(n)} - V(S_t)\right)
        """,
        r"""
        Print does not say what happens when fewer than $n$ steps are left. In the library $h = \min(t + n, T)$ is where
        the sum stops, and no power of $\gamma$ is ever taken: each factor is the `discount` of its step. It is 0 where
        the episode ended, so that nothing is added there; it is $\gamma$ where only a time limit cut the episode, so
        that the value of the last state stands for the rest. Note also *when* the update can be made: $n$ steps late.
        """,
        returns.n_step_returns,
    )
    return


@app.cell
def _():
    r, discount, v = np.array([2.0, 2.0, 1.0]), np.array([0.5, 0.5, 0.0]), np.array([2.0, 2.0, 2.0, 0.0])
    _rows = "\n".join(f"    | {n} | {returns.n_step_returns(r, discount, v, n).tolist()} |" for n in (1, 2, 3, 4))
    mo.md(f"""
    The library agrees with the table:

    | n | `n_step_returns(r, discount, v, n)` |
    |:--|:--|
{_rows}
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Two errors of one target

    How far is one target from the truth $V_\pi(s)$? Two parts add up:

    * **Bias**: the *mean* of the target is off, because the values that stand for the rest are off. The guess has the
      weight $\gamma^n$, so the largest error shrinks at least by that factor: $\max_s |\mathbb{E}[G^{(n)} | s] -
      V_\pi(s)| \le \gamma^n \max_s |V(s) - V_\pi(s)|$.
    * **Variance**: each further reward is one more thing that depends on chance.

    The mean square error is bias² + variance. All three are known exactly here: the machine now runs with $\gamma =
    0.9$, and a worn one is repaired half of the time.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["it falls all the way", "it grows all the way", "it falls, then grows"])
    parts.predict(
        r"""
        All values start at 0. Let $n$ grow from 1 to 30. What does the error of one target (the root of bias² +
        variance) do?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    n = mo.ui.slider(1, LONGEST, 1, value=1, label="steps n", show_value=True, full_width=True)
    share = mo.ui.slider(
        0, 100, 10, value=0, label="how good the values are: V is this many % of V_π", show_value=True, full_width=True
    )
    mo.vstack([n, share])
    return n, share


@app.cell
def _():
    episodes = list(islice(sample.episodes(MDP, PI, np.random.default_rng(6)), EPISODES))
    return (episodes,)


@app.function
def target(x: Episode, V: F, n: int) -> float:
    """The n-step return of the first step of an episode: n rewards, and a value behind them."""
    return float(returns.discounted_sum(x.r[:n], x.discount[:n], V[x.s[: n + 1][-1]])[0])


@app.function
def exact(V: F, n: int) -> tuple[float, float]:
    """Exact mean and variance of the n-step return of a good machine."""
    moments = n_step_advantage(MDP, PI, V, n)
    return float(V[GOOD] + moments.mean[GOOD, RUN]), float(moments.variance[GOOD, RUN])


@app.function
def draw_targets(ax: Axes, G: F, n: int, mean: float) -> None:
    """Draw how often each target came, beside the exact mean and the value that is sought."""
    ax.hist(G, bins=np.arange(-0.125, 16.3, 0.25).tolist(), color=COLOURS[0], alpha=0.8, label=f"{len(G):,} episodes")
    ax.axvline(mean, color=COLOURS[1], lw=1.8, label=f"exact mean {mean:.3f}")
    ax.axvline(V_PI[GOOD], color=INK, ls="--", lw=1.4, label=rf"$V_\pi$(good) = {V_PI[GOOD]:.3f}")
    ax.set(xlim=(0, 16), xlabel=f"{n}-step return from good (reward)", ylabel="episodes")
    ax.set_title(f"Targets with n = {n}", fontsize=11)
    ax.legend(frameon=False, fontsize=9)
    tidy(ax)


@app.function
def draw_errors(ax: Axes, V: F, n: int, episodes: Sequence[Episode]) -> None:
    """Draw the exact bias, spread and error up to n steps, and the errors of the episodes."""
    k, some = range(1, n + 1), [m for m in STEPS if m <= n]
    mean, variance = np.array([exact(V, m) for m in k]).T
    bias = mean - V_PI[GOOD]
    error = np.sqrt(bias**2 + variance)
    ax.plot(k, abs(bias), color=COLOURS[4], ls=(0, (2, 1.5)), lw=1.6, label="|bias|, exact")
    ax.plot(k, np.sqrt(variance), color=COLOURS[3], ls=(0, (6, 2)), lw=1.6, label="standard deviation, exact")
    ax.plot(k, error, color=INK, lw=1.8, label="root of bias² + variance, exact")
    squares = np.array([[(target(x, V, m) - V_PI[GOOD]) ** 2 for x in episodes] for m in some])
    half = 2 * standard_error(squares)
    low, high = np.sqrt(np.maximum(squares.mean(axis=1) - half, 0)), np.sqrt(squares.mean(axis=1) + half)
    middle = np.sqrt(squares.mean(axis=1))
    ax.errorbar(some, middle, (middle - low, high - middle), fmt="o", ms=4, capsize=3, color=COLOURS[0],
                label=f"{len(episodes):,} episodes ± 2 se")  # fmt: skip
    ax.plot(n, error[n - 1], "o", ms=11, mfc="none", mec=COLOURS[1], mew=1.8)
    best = int(error.argmin()) + 1
    ax.set(xlabel="steps n", ylabel="error of one target (reward)", ylim=(0, 5.6), xlim=(0, LONGEST + 1))
    ax.set_title(f"Smallest up to here at n = {best}: {error[best - 1]:.3f}", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    tidy(ax)


@app.function
def figure(n: int, share: float, episodes: Sequence[Episode]) -> Figure:
    """Targets of n steps beside their exact mean; their error over n."""
    fig, V = new_figure(10, 4), share * V_PI
    left, right = fig.subplots(1, 2)
    draw_targets(left, np.array([target(x, V, n) for x in episodes]), n, exact(V, n)[0])
    draw_errors(right, V, n, episodes)
    return fig


@app.cell(hide_code=True)
def _(episodes, n, share):
    _V = share.value / 100 * V_PI
    _mean, _variance = exact(_V, n.value)
    _G = np.array([target(x, _V, n.value) for x in episodes])
    _bound = 0.9**n.value * abs(_V - V_PI).max()
    _table = f"""
    | n = {n.value}, from good | exact | {EPISODES:,} episodes |
    |:--|--:|--:|
    | mean of the target | {_mean:.4f} | {_G.mean():.4f} ± {2 * standard_error(_G):.4f} |
    | bias (at most γⁿ max\\|V − V_π\\| = {_bound:.4f}) | {_mean - V_PI[GOOD]:.4f} | {_G.mean() - V_PI[GOOD]:.4f} |
    | standard deviation | {_variance**0.5:.4f} | {_G.std(ddof=1):.4f} |

    <small>± is two standard errors. The same episodes serve every n, so that neighbouring points err together.</small>
    """
    _alt = f"Targets with n = {n.value} steps, and bias, spread and error of one target over n"
    mo.vstack([parts.picture(figure(n.value, share.value / 100, episodes), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "it falls, then grows",
        r"""
        At $n = 1$ the target is the reward 2 in every episode: no chance at all, and wrong by almost 5. The bias then
        shrinks, quickly at first, while the spread grows up to that of the whole return and stays there, as episodes
        end. Between them there is a best $n$. Now move the second slider: the better the values are, the less there is
        to fear from a guess, and the fewer steps are best. With $V = V_\pi$ there is no bias at any $n$, and $n = 1$
        wins.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## From one target to learning

    A learner averages over many targets, and its values get better on the way. The step size $\alpha$ says how many
    targets it averages over. So $n$ and $\alpha$ belong together: noisy targets want a small step, and biased ones want
    a large one, to become unbiased soon. Both ends of the picture are exact: `n_step_td` with $n = 1$ is TD(0), and
    with $n = \infty$ it is Monte Carlo with updates at the end, whose expected square errors the library computes.
    """)
    return


@app.function
def learnt() -> dict[int, F]:
    """Squared errors after some episodes, mean over both states: n to (alphas,runs)."""
    streams = [sample.episodes(MDP, PI, x) for x in np.random.default_rng(66).spawn(RUNS)]
    rounds = list(islice(replay.side_by_side(streams, MDP.S), LEARNT))
    first = np.zeros((RUNS, MDP.S))

    def squares(n: int, alpha: float) -> F:
        V = last(prediction.n_step_td(rounds, alpha=alpha, V=first, n=n)).V
        return np.asarray(((V - V_PI)[:, :2] ** 2).mean(axis=1))

    return {n: np.array([squares(n, float(a)) for a in ALPHAS]) for n in (1, 2, 4, 8, 1000)}


@app.function
def root(x: ValueMoments) -> float:
    """Root of the expected square error, mean over both states, from the moments of the values."""
    return float(np.sqrt(((x.mean - V_PI) ** 2 + x.covariance.diagonal())[:2].mean()))


@app.function
def learning_figure() -> Figure:
    """Error after ten episodes over the step size, for several n; TD(0) and Monte Carlo exact."""
    fig = new_figure(8, 3.9)
    ax, fine = fig.add_subplot(), np.linspace(0.02, 1, 40)
    ends = {1: td0_episodes, 1000: monte_carlo_episodes}
    colours = dict(zip((1, 2, 4, 8, 1000), (COLOURS[i] for i in (0, 3, 5, 4, 1)), strict=True))
    for n, square in learnt().items():
        mean, half = square.mean(axis=1), 2 * standard_error(square)
        middle, low, high = np.sqrt(mean), np.sqrt(np.maximum(mean - half, 0)), np.sqrt(mean + half)
        name, line = ("n = ∞" if n == 1000 else f"n = {n}"), "none" if n in ends else ":"
        ax.errorbar(ALPHAS, middle, (middle - low, high - middle), fmt="o", ls=line, lw=1, ms=4, capsize=3,
                    color=colours[n], label=f"{name}, {RUNS} runs ± 2 se")  # fmt: skip
    for n, law in ends.items():
        y = [root(last(law(MDP, PI, alpha=float(a), episodes=LEARNT))) for a in fine]
        name = "TD(0), exact" if n == 1 else "Monte Carlo, exact"
        ax.plot(fine, y, color=colours[n], lw=1.8, ls="-" if n == 1 else "--", label=name)
    ax.set(xlabel="step size α", ylabel="RMS error of the values (reward)", ylim=(0, 5.6), xlim=(0, 1.03))
    ax.set_title(f"After {LEARNT} episodes from V = 0", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    tidy(ax)
    return fig


@app.cell(hide_code=True)
def _():
    mo.vstack(
        [
            parts.picture(
                learning_figure(), "Root mean square error after ten episodes over the step size, for several n"
            ),
            mo.md("""
        Every n has a step size of its own, and the larger n is, the smaller the step it wants. With its own step each
        does about equally well on this short machine. Where episodes are long, the middle wins clearly: `tabrl figure
        7.2` draws the chain of 19 states that the textbook uses.
        """),
        ]
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        6,
        """
        Write n-step TD along an episode. Mind the end: the last states have fewer than n rewards ahead of them, and
        they must be updated too. And mind the cut: what stands after the last reward when a time limit ended it?
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### The reward of every step is 1, every episode has exactly 5 steps, γ = 1, and V is 0 everywhere. Which n is best?

        Any $n \ge 5$. Nothing is left to chance here, so looking further costs nothing and only removes bias. More
        steps are bad only where the world is noisy. (They still make the learner wait, and remember more.)

        ### The values are exactly right. Is n = 1 then always the best target?

        Yes. Then $G^{(n)} - V(s)$ is the sum of $\gamma^k \delta_k$ over the first $n$ TD errors. Each has the mean 0
        whatever came before it, so that they are uncorrelated and their variances add up: every further step adds
        $\gamma^{2k}$ times the variance of one TD error, and takes nothing away.

        ### A program computes γⁿ V(s[t+n]) with n fixed, also when the episode ended two steps after t. What goes wrong?

        It reads a value that belongs to no step of this episode: an entry past the end of the array or, in a buffer of
        many episodes, a state of the *next* one. In the library the product of the discounts up to the end is 0, so
        that whatever stands there is multiplied by 0.
        """  # noqa: E501
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.7.2",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), section 7.1,
          equations 7.1 to 7.3, and figure 7.2
        - C. J. C. H. Watkins, *Learning from delayed rewards* (1989): n-step returns and the factor γⁿ
        """,
    )
    return


if __name__ == "__main__":
    app.run()
