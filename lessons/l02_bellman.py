"""Lesson 2: The Bellman equation by linear algebra.

40 minutes. After: lesson 1. Rows: E1.2, E1.3. Corrections: none.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="2 · The Bellman equation")

with app.setup:
    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import bellman, chain, rational
    from tabrl.lessons import parts
    from tabrl.lessons.machine import GOOD, WORN, machine, repairing
    from tabrl.mdp import MDP
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.types import F

    SWEEPS = 80


@app.cell(hide_code=True)
def _():
    parts.head(
        2,
        r"""
        - write down the Bellman equations of a policy, one per state, and solve them by hand
        - solve them for any number of states: $V_\pi = (I - \gamma P_\pi)^{-1} r_\pi$
        - say why repeating a backup finds the same answer, and how many repeats it takes
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Values talk to each other

    The value $V_\pi(s)$ is the mean return from state $s$ when the agent follows the policy $\pi$. It could be found by
    averaging over all episodes, and there are infinitely many. But a return is one reward plus a discounted return
    ($G_t = r_t + \gamma G_{t+1}$), so its mean is the mean of one reward plus the discounted mean of what the next
    state is worth. That is one equation per state, in as many unknowns: **nothing is left of the infinitely many
    episodes but a small linear system**.

    ## Two equations, by hand

    The machine of lesson 1 is run until it breaks; $\gamma = \tfrac12$. A broken machine is worth 0. From each other
    state the machine stays or moves on, with probability ½ each:

    $$
    \begin{aligned}
    V(\text{worn}) &= 1 + \tfrac12\left(\tfrac12 V(\text{worn}) + \tfrac12 \cdot 0\right)
        &&\Rightarrow\quad \tfrac34 V(\text{worn}) = 1 &&\Rightarrow\quad V(\text{worn}) = \tfrac43 \\
    V(\text{good}) &= 2 + \tfrac12\left(\tfrac12 V(\text{good}) + \tfrac12 V(\text{worn})\right)
        &&\Rightarrow\quad \tfrac34 V(\text{good}) = \tfrac73 &&\Rightarrow\quad V(\text{good}) = \tfrac{28}{9}
    \end{aligned}
    $$

    So $V(\text{good}) = 3.111$: the exact mean in the figure of lesson 1, at $\gamma = \tfrac12$.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.3",
        r"""
        \begin{aligned}
        V_\pi(s) &= \mathbb{E}_\pi\left[R_{t+1} + \gamma V_\pi(S_{t+1}) \mid S_t = s\right]
            = \sum_a \pi(a|s) \sum_{s'} P(s'|s,a)\left[R(s,a) + \gamma V_\pi(s')\right] \\
        Q_\pi(s,a) &= \mathbb{E}_\pi\left[R_{t+1} + \gamma Q_\pi(S_{t+1}, A_{t+1}) \mid S_t = s, A_t = a\right]
        \end{aligned}
        """,
        r"""
        The library keeps the two sums apart. `q_from_v` takes the mean over next states, and is the only place where
        that is done; `expectation` takes the mean over actions. Applied to *any* numbers V, the two are called a
        **backup**, $T_\pi V$; the equation says that $V_\pi$ is what a backup leaves as it is. The reward may also
        depend on the next state; `mdp.r` is its mean. Terminal states have rows of zeros in `mdp.rows`, so that
        nothing is worth anything after the end.
        """,
        bellman.q_from_v,
        bellman.expectation,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Any number of states

    Let the policy choose, and a model with actions becomes a **chain**: $P_\pi(s,s') = \sum_a \pi(a|s) P(s'|s,a)$ and
    $r_\pi(s) = \sum_a \pi(a|s)\, r(s,a)$. All equations at once read

    $$V_\pi = r_\pi + \gamma P_\pi V_\pi \quad\Longleftrightarrow\quad (I - \gamma P_\pi)\, V_\pi = r_\pi .$$

    The rows of $(I - \gamma P_\pi)^{-1} = I + \gamma P_\pi + \gamma^2 P_\pi^2 + \dots$ can be read too: the entry
    $(s,s')$ is how often $s'$ is visited on average, discounted, by those who start in $s$. A value is visits times
    rewards.
    """)
    return


@app.cell
def _():
    mdp, pi = machine(0.5), repairing(0)
    c = chain.induce(mdp, pi)
    A = np.eye(3) - c.gamma * c.P
    system = "\n".join(
        f"| {name} | {' | '.join(f'{x:g}' for x in row)} | {r:g} |"
        for name, row, r in zip(mdp.names.states, A, c.r, strict=True)
    )
    mo.md("| equation of | V(good) | V(worn) | V(broken) | = r |\n|:--|--:|--:|--:|--:|\n" + system)
    return A, c, mdp, pi


@app.cell
def _(A, c, mdp, pi):
    solved, evaluated = np.linalg.solve(A, c.r), chain.evaluate(c)
    fractions = rational.exact_policy_values(mdp, pi)
    mo.md(f"""
    | solved by | V(good) | V(worn) | V(broken) |
    |:--|--:|--:|--:|
    | `np.linalg.solve(I − γP, r)` | {solved[0]:.9f} | {solved[1]:.9f} | {solved[2]:g} |
    | `tabrl.chain.evaluate` | {evaluated[0]:.9f} | {evaluated[1]:.9f} | {evaluated[2]:g} |
    | `tabrl.rational`, in fractions | {fractions[0]} | {fractions[1]} | {fractions[2]} |
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Or repeat the backup

    Take any numbers, say $V = 0$, and put them into the right-hand side: out comes $T_\pi V$. Do it again and again.
    Each **sweep** shrinks the largest error at least by the factor $\gamma$, because errors enter the right-hand side
    only through $\gamma$ times an average.

    In the figure the two unknowns are the two axes. Each equation is a line; the exact solution is where they cross;
    the dots are the sweeps from $V = 0$. Now a worn machine may be repaired: that costs 1 and makes it good.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["about 7 sweeps", "about 20 sweeps", "about 65 sweeps", "about 650 sweeps"])
    parts.predict(
        r"""
        A worn machine is *always* repaired, so it never breaks. How many sweeps make the error a thousand times smaller
        at $\gamma = 0.9$?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    gamma = mo.ui.slider(0, 0.95, 0.05, value=0.5, label="discount γ", show_value=True)
    x = mo.ui.slider(0, 1, 0.25, value=1, label="chance of a repair x", show_value=True)
    mo.hstack([gamma, x], justify="start", gap=3)
    return gamma, x


@app.function
def sweeps(mdp: MDP, pi: F) -> F:
    """Backups from V = 0: (SWEEPS + 1, S)."""
    V = [np.zeros(mdp.S)]
    for _ in range(SWEEPS):
        V.append(bellman.expectation(mdp, pi, V[-1]))
    return np.array(V)


@app.function
def draw_lines(ax: Axes, mdp: MDP, pi: F, V: F, exact: F) -> None:
    """Draw the two Bellman equations as lines, the sweeps, and where the lines cross."""
    c = chain.induce(mdp, pi)
    side = max(3.0, 1.25 * exact[:2].max())
    other = np.array([-1.4, side])
    for s, name, colour in ((GOOD, "good", COLOURS[0]), (WORN, "worn", COLOURS[4])):
        along, across = (WORN, GOOD) if s == GOOD else (GOOD, WORN)  # solve the equation of s for V(s)
        own = (c.r[s] + c.gamma * c.P[s, along] * other) / (1 - c.gamma * c.P[s, across])
        points = (other, own) if s == GOOD else (own, other)
        ax.plot(*points, color=colour, lw=1.6, label=f"equation of the {name} state")
    ax.plot(V[:, WORN], V[:, GOOD], "o-", color=GREY, ms=4, lw=0.8, label="sweeps from V = 0")
    ax.plot(exact[WORN], exact[GOOD], "*", color=INK, ms=13, label=f"exact: {exact[GOOD]:.3f} and {exact[WORN]:.3f}")
    ax.set(xlim=other, ylim=other, xlabel="V(worn) (reward)", ylabel="V(good) (reward)")
    ax.set_title("Each equation is a line", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    tidy(ax)


@app.function
def draw_errors(ax: Axes, gamma: float, error: F) -> None:
    """Draw the largest error after each sweep, and the guarantee gamma**k."""
    k = np.arange(len(error))
    most = np.maximum(gamma**k * error[0], 1e-12)
    ax.semilogy(k, most, color=INK, ls="--", lw=1.5, zorder=3, label=r"guarantee: $\gamma^k$ times the first error")
    ax.semilogy(k, np.maximum(error, 1e-12), "o-", color=GREY, ms=3, lw=1, label=r"error max$|V_k - V_\pi|$")
    ax.axhline(error[0] / 1000, color=COLOURS[1], lw=1.2, ls=":", label="a thousandth of the first error")
    ax.set(xlabel="sweep k", ylabel="error (reward)", ylim=(1e-5, 100))
    ax.set_title("A sweep shrinks the error", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    tidy(ax)


@app.function
def figure(gamma: float, x: float) -> Figure:
    """The equations as lines with the sweeps between them, and the error after each sweep."""
    mdp, pi, fig = machine(gamma), repairing(x), new_figure(10, 4.4)
    V, exact = sweeps(mdp, pi), chain.evaluate(chain.induce(mdp, pi))
    lines, errors = fig.subplots(1, 2)
    draw_lines(lines, mdp, pi, V, exact)
    draw_errors(errors, gamma, abs(V - exact).max(axis=1))
    return fig


@app.cell(hide_code=True)
def _(gamma, x):
    parts.picture(
        figure(gamma.value, x.value),
        f"Two lines that cross at the exact values, and sweeps towards them, at discount {gamma.value:g}",
    )
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "about 65 sweeps",
        r"""
        $0.9^k = 1/1000$ at $k = \log 1000 / \log (1/0.9) \approx 66$, and the repaired machine does no better than the
        guarantee. Move $x$ to 0: a machine that breaks forgets faster, since each sweep the chance of still running is
        halved as well. Close to $\gamma = 1$ the number of sweeps grows like $1/(1-\gamma)$, and the linear system,
        which does not care about $\gamma$, is the better way.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        2,
        """
        Two functions: the values of a policy by solving a linear system, and a single backup. Mind which axis of `P` is
        the state you come from, that rewards are averaged over actions and not over states, and that terminal states
        have rows of zeros.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### Could the equations have two solutions?

        Not for $\gamma < 1$. The difference $d$ of two solutions satisfies $d = \gamma P_\pi d$; averaging cannot make
        the largest entry larger, so $\max|d| \le \gamma \max|d|$, and $d = 0$. At $\gamma = 1$ the same holds if every
        episode ends with probability 1.

        ### What happens to the two lines at γ = 1, if a worn machine is always repaired?

        They become parallel: $V(\text{good}) - V(\text{worn})$ is 4 by the one equation and 1 by the other. There is no
        solution, as the machine earns 1 a step on average, for ever. The library refuses, and names the states.

        ### Never repaired, γ = 1: how often is each state visited from a good start, and what is it worth?

        Each state is left with probability ½, so each is visited twice on average: the first row of $(I - P)^{-1}$ is
        (2, 2). Visits times rewards: $2 \cdot 2 + 2 \cdot 1 = 6$.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "sections 1.2 and 1.3",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 3.5 and
          4.1, equations 3.14 and 4.3 to 4.5
        - M. L. Puterman, *Markov Decision Processes* (1994), theorem 6.1.1: the inverse, and when it exists
        """,
    )
    return


if __name__ == "__main__":
    app.run()
