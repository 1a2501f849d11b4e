"""Lesson 1: Returns.

30 minutes. After: nothing but sums and averages. Rows: E1.1. Corrections: none.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="1 · Returns")

with app.setup:
    from itertools import islice

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import returns, sample
    from tabrl.chain import evaluate, induce, return_variance
    from tabrl.lessons import parts
    from tabrl.lessons.machine import machine, repairing
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.types import Episode, F

    EPISODES = 2000


@app.cell(hide_code=True)
def _():
    parts.head(
        1,
        """
        - compute a return by hand, from the last step to the first, and say why that order is the cheap one
        - tell the return, which is chance, from its mean, which is a number, and know how far apart they are
        - read both ways of numbering rewards, and never be one step off again
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## What is a step worth?

    An agent acts, the world answers with a reward and a new state, and so on until the episode ends. What the agent
    should care about at time $t$ is not the next reward but all that is still to come. That sum is the **return**
    $G_t$.

    A reward that comes later counts less: one that is $k$ steps away is multiplied by $\gamma^k$. The **discount**
    $\gamma$ is a number between 0 and 1. At $\gamma = 0$ only the next reward counts; at $\gamma = 1$ all count the
    same, which is fine as long as every episode ends. One way to read $\gamma$: after each step the world goes on with
    probability $\gamma$ and stops otherwise; then $1/(1-\gamma)$ steps are what the agent can expect to see.

    ## A machine, by hand

    A machine is *good*, *worn* or *broken*. Running it pays 2 while it is good and 1 while it is worn; each time it is
    as likely to move one state on as to stay where it is. Broken is the end. Suppose we saw

    $$\text{good} \xrightarrow{\;2\;} \text{good} \xrightarrow{\;2\;} \text{worn} \xrightarrow{\;1\;} \text{broken}$$

    and let $\gamma = \tfrac12$. Start **at the end**, where nothing is still to come, and walk back. Each return is the
    reward of its step plus half of the return after it:

    | step | state | reward | return |
    |:--|:--|:--|:--|
    | 2 | worn | 1 | $1 + \tfrac12 \cdot 0 = 1$ |
    | 1 | good | 2 | $2 + \tfrac12 \cdot 1 = 2.5$ |
    | 0 | good | 2 | $2 + \tfrac12 \cdot 2.5 = 3.25$ |

    Walking back costs one product and one addition per step. Writing out every sum from the front costs a number of
    them that grows with the square of the length.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.1",
        r"G_t = R_{t+1} + \gamma R_{t+2} + \gamma^2 R_{t+3} + \dots \;=\; R_{t+1} + \gamma\, G_{t+1}",
        r"""
        The sum has no end in print. In the library `discount[t]` is $\gamma$, and **0 on the step that ends the
        episode**: what would come after the end is multiplied by 0, and no formula needs to ask whether it is over.
        """,
        returns.discounted_sum,
        returns.backward,
    )
    return


@app.cell
def _():
    r, discount = np.array([2.0, 2.0, 1.0]), np.array([0.5, 0.5, 0.0])
    G = returns.discounted_sum(r, discount)
    mo.md(f"The library agrees with the table: `discounted_sum` gives $G_0, G_1, G_2$ = {G.tolist()}.")
    return G, discount, r


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## The return is chance, its mean is not

    Run the machine again and it breaks at another time: the return is a **random number**. Its mean over all that can
    happen is called the *value* of the state it starts in, and the next lesson finds it from two equations. Here the
    library gives the exact mean and the exact standard deviation, and we hold 2,000 episodes against them.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["it grows", "it stays the same", "it shrinks"])
    parts.predict(
        r"""
        At $\gamma = 1$ the return of a good machine is 6 on average, and runs from 3 to more than 15. Turn $\gamma$
        down. What happens to the **spread** of the returns?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    gamma = mo.ui.slider(0, 1, 0.05, value=1.0, label="discount γ", show_value=True, full_width=True)
    gamma
    return (gamma,)


@app.function
def drawn(gamma: float, seed: int = 1) -> list[Episode]:
    """Episodes of the machine, the same ones for every discount."""
    source = sample.episodes(machine(gamma), repairing(0), np.random.default_rng(seed))
    return list(islice(source, EPISODES))


@app.function
def first_returns(episodes: list[Episode]) -> F:
    """The return from the first step of each episode."""
    return np.array([returns.discounted_sum(x.r, x.discount)[0] for x in episodes])


@app.function
def exact(gamma: float) -> tuple[float, float]:
    """Mean and standard deviation of the return of a good machine that is never repaired."""
    mdp, pi = machine(gamma), repairing(0)
    return float(evaluate(induce(mdp, pi))[0]), float(np.sqrt(return_variance(mdp, pi)[0]))


@app.function
def draw_episode(ax: Axes, x: Episode) -> None:
    """Draw the rewards of one episode as bars, and the returns from each step as points."""
    t, G = np.arange(len(x.r)), returns.discounted_sum(x.r, x.discount)
    ax.bar(t, x.r, width=0.6, color=COLOURS[8], label="reward of the step")
    ax.plot(t, G, "o-", color=COLOURS[0], lw=1.4, label="return $G_t$ from the step on")
    for k, g in zip(t, G, strict=True):
        ax.annotate(f"{g:.2f}", (k, g), (0, 6), textcoords="offset points", ha="center", fontsize=9)
    names = machine().names.states
    ax.set_xticks(t, [f"{k}\n{names[s]}" for k, s in zip(t, x.s[:-1], strict=True)])
    ax.set(xlabel="step t, and the state in it", ylabel="reward", ylim=(0, 8.9))
    ax.set_title("One episode", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    tidy(ax, axis="y")


@app.function
def draw_returns(ax: Axes, G: F, mean: float, deviation: float) -> None:
    """Draw how often each return came, the exact mean, and one exact standard deviation to each side."""
    ax.axvspan(mean - deviation, mean + deviation, color=GREY, alpha=0.15, lw=0, label="exact mean ± std")
    ax.hist(G, bins=np.arange(-0.125, 20.5, 0.25), color=COLOURS[0], alpha=0.8, label=f"{len(G):,} episodes")
    ax.axvline(mean, color=INK, ls="--", lw=1.4, label=f"exact mean {mean:.3f}")
    ax.set(xlim=(0, 20), xticks=range(0, 21, 2), xlabel="return $G_0$ of an episode (reward)", ylabel="episodes")
    ax.set_title("All episodes", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    tidy(ax)


@app.function
def figure(gamma: float) -> Figure:
    """One episode and its returns; the returns of all episodes beside their exact mean and spread."""
    fig, episodes = new_figure(10, 4), drawn(gamma)
    one, every = fig.subplots(1, 2)
    draw_episode(one, next(x for x in episodes if len(x.r) == 5))
    draw_returns(every, first_returns(episodes), *exact(gamma))
    return fig


@app.cell(hide_code=True)
def _(gamma):
    _G, (_mean, _std) = first_returns(drawn(gamma.value)), exact(gamma.value)
    _alt = f"At discount {gamma.value:g}: the returns of 2,000 episodes, and their exact mean {_mean:.3f}"
    _table = f"""
    | return from the good state, γ = {gamma.value:g} | exact | 2,000 episodes |
    |:--|--:|--:|
    | mean | {_mean:.4f} | {_G.mean():.4f} ± {2 * standard_error(_G):.4f} |
    | standard deviation | {_std:.4f} | {_G.std(ddof=1):.4f} |

    <small>± is two standard errors: the exact mean lies within them about 19 times out of 20.</small>
    """
    mo.vstack([parts.picture(figure(gamma.value), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "it shrinks",
        r"""
        What the episodes differ in is *when* they end, and that comes late. The discount makes late rewards small, and
        with them the differences. At $\gamma = 0$ every episode has the return 2: no spread at all. Keep this in mind:
        a smaller $\gamma$ is the oldest way to buy less variance, and it is paid for by answering another question.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## $r_t$ or $R_{t+1}$?

    The same reward has two names, and the source uses both: $R_{t+1}$ in sections 1.1 to 1.6, $r_t$ at its very start
    and from 1.7 on.

    *Books* number a reward by when it **arrives**. Act at time $t$; the reward comes together with the next state, so
    both are numbered $t+1$: $S_t, A_t, R_{t+1}, S_{t+1}$. *Papers and code* number it by the action it **belongs to**:
    what $a_t$ earned is $r_t$. Nothing but the name differs: $r_t = R_{t+1}$.

    | | step 0 | step 1 | step 2 | end |
    |:--|:--|:--|:--|:--|
    | state | `s[0]` good | `s[1]` good | `s[2]` worn | `s[3]` broken |
    | action | `a[0]` run | `a[1]` run | `a[2]` run | |
    | reward, as code | `r[0]` = 2 | `r[1]` = 2 | `r[2]` = 1 | |
    | reward, as books | $R_1$ = 2 | $R_2$ = 2 | $R_3$ = 1 | |
    | discount | `discount[0]` = γ | `discount[1]` = γ | `discount[2]` = 0 | |

    In this library arrays follow the second habit: **`r[t]` is the reward that follows `a[t]`**. An episode of $T$
    steps has $T$ actions, $T$ rewards and $T$ discounts, but $T + 1$ states. The first return is then
    $G_0 = r_0 + \gamma r_1 + \dots = R_1 + \gamma R_2 + \dots$, one sum with two spellings.

    The accident happens where the spellings mix. Take the book's $G_t = R_{t+1} + \dots$, read $R$ as the array `r`,
    and `r[0]` is never counted while every other reward comes one step too early:
    """)
    return


@app.cell
def _(G, discount, r):
    off = returns.discounted_sum(np.append(r[1:], 0.0), discount)
    mo.md(f"""
    | returns of the episode above | $G_0$ | $G_1$ | $G_2$ |
    |:--|--:|--:|--:|
    | right: `r[t] + discount[t] * G[t+1]` | {G[0]:g} | {G[1]:g} | {G[2]:g} |
    | one step off: `r[t+1] + discount[t] * G[t+1]` | {off[0]:g} | {off[1]:g} | {off[2]:g} |
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        1,
        """
        Write the backward walk yourself: a function that takes the rewards and discounts of an episode and gives all
        its returns. Mind what stands after the last step, and which discount belongs to which reward.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### Every reward of an endless episode is 1. What is its return at γ = 0.9, and how many steps hold 99 % of it?

        $1 + \gamma + \gamma^2 + \dots = 1/(1-\gamma) = 10$. The first $n$ steps hold the share $1 - \gamma^n$ of it, so
        $n = \log 0.01 / \log 0.9 \approx 44$. As a rule, four or five times $1/(1-\gamma)$ steps hold almost all.

        ### We add 1 to every reward. Does that change which of two policies earns more?

        Where no episode ends it does not: every return grows by the same $1/(1-\gamma)$. Where episodes end it can, as
        a longer episode collects more of the ones. A maze whose steps cost 1 is left quickly; if they pay instead,
        staying inside is best.

        ### An episode is stopped after 100 steps because the time is up. What is the discount of the last step?

        γ, not 0. The world would have gone on, so something was still to come; only we stopped looking. The sum over
        the recorded steps is too small then. Lesson 7 says what to put in place of the missing part.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.1",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 3.3 and
          3.4, equations 3.7 to 3.9
        - M. J. Sobel, *The variance of discounted Markov decision processes* (1982): the exact spread in the figure
        """,
    )
    return


if __name__ == "__main__":
    app.run()
