"""Lesson 3: Optimality and dynamic programming.

50 minutes. After: lesson 2. Rows: E1.4, E1.5. Corrections: 9.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="3 · Optimality")

with app.setup:
    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import bellman, dp, rational
    from tabrl.lessons import correction_9, parts
    from tabrl.lessons.machine import REPAIR, RUN, WORN, machine
    from tabrl.plots import COLOURS, convergence, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.types import F, Sweep


@app.cell(hide_code=True)
def _():
    parts.head(
        3,
        r"""
        - find the best policy of a small model by hand, by evaluating and improving in turn
        - run value iteration, and say how far its answer can be from the truth without knowing the truth
        - say exactly which policies are optimal, and where the usual sentence about it fails
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## The best that can be done

    Lesson 2 took a policy and found its values. Now we choose. $V_*(s)$ is the largest value that any policy has in
    $s$, and $Q_*(s,a)$ is what one gets by taking $a$ first and doing the best from then on. There are
    $A^S$ ways to fix an action in each state, far too many to try; but the best first action can be found **one step at
    a time**, if only one knows what the next states are worth.

    ## Evaluate, improve, by hand

    The machine again, now with a choice. A *worn* machine can be **run** (pays 1, and breaks half of the time) or
    **repaired** (costs 1, and it is good again). Let $\gamma = \tfrac45$.

    *Start with: always run.* As in lesson 2, $V(\text{worn}) = \frac{1}{1 - 2/5} = \tfrac53$ and
    $V(\text{good}) = \frac{2 + \frac25 \cdot \frac53}{1 - 2/5} = \tfrac{40}{9}$. Is repairing better, once, in the worn
    state? $Q(\text{worn}, \text{repair}) = -1 + \tfrac45 \cdot \tfrac{40}9 = \tfrac{23}9 > \tfrac53$. Yes: change it.

    *Now: repair.* $V(\text{worn}) = -1 + \tfrac45 V(\text{good})$ put into
    $V(\text{good}) = 2 + \tfrac25 V(\text{good}) + \tfrac25 V(\text{worn})$ gives $V(\text{good}) = \tfrac{40}7$ and
    $V(\text{worn}) = \tfrac{25}7$. Is running better, once?
    $Q(\text{worn}, \text{run}) = 1 + \tfrac25 \cdot \tfrac{25}7 = \tfrac{17}7 < \tfrac{25}7$.
    No. **Nothing can be improved in one step, so nothing can be improved at all**: this
    policy is optimal. That was policy iteration, and it took two rounds.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.5",
        r"""
        \begin{aligned}
        V_*(s) &= \max_a \sum_{s'} P(s'|s,a)\left[R(s,a) + \gamma V_*(s')\right] \\
        Q_*(s,a) &= \sum_{s'} P(s'|s,a)\left[R(s,a) + \gamma \max_{a'} Q_*(s',a')\right]
        \end{aligned}
        """,
        r"""
        The maximum makes the equation non-linear: it cannot be solved like that of lesson 2. But the right-hand side is
        still a backup, $T V$, and it still shrinks errors by $\gamma$. Only legal actions take part.
        """,
        bellman.optimality,
        bellman.maximum,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.code(
        r"""
        ## Two ways to the fixed point

        **Value iteration** repeats the backup. All new values are computed from the old ones; the largest change of a
        sweep, the *residual*, bounds the error: $\max|V - V_*| \le \text{residual}/(1-\gamma)$, apart from rounding,
        which `bound` includes. Each algorithm is a generator: one small record a sweep.
        """,
        dp.value_iteration,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.code(
        """
        **Policy iteration** is what we did by hand. An action is changed only where another is better by more than
        rounding: two equally good actions could otherwise take turns for ever.
        """,
        dp.policy_iteration,
    )
    return


@app.cell
def _():
    by_hand = machine(0.8)
    rounds = list(dp.policy_iteration(by_hand, pi=np.eye(2)[[RUN, RUN, RUN]]))
    exact = rational.best_values(rational.tables(by_hand))
    mo.md(
        "| γ = 4/5 | V(good) | V(worn) | states changed |\n|:--|--:|--:|--:|\n"
        + "\n".join(f"| round {x.k} | {x.V[0]:.6f} | {x.V[1]:.6f} | {x.changed} |" for x in rounds)
        + f"\n| V* in fractions, of the stored 0.8 | {float(exact[0]):.6f} | {float(exact[1]):.6f} | |"
    )
    return


@app.cell(hide_code=True)
def _():
    answers = ["never: a repair costs 1 and earns nothing", "from γ = 1/2 on", "from γ = 2/3 on", "always"]
    guess = mo.ui.radio(answers)
    parts.predict(
        r"""
        An owner who cares about tomorrow has a $\gamma$ close to 1. For which discounts does it pay to **repair** a
        worn machine? Two lines of algebra tell; a guess will do.
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    gamma = mo.ui.slider(0, 0.95, 0.05, value=0.3, label="discount γ", show_value=True, full_width=True)
    gamma
    return (gamma,)


@app.function
def action_values(gammas: F) -> F:
    """Exact Q* of a worn machine, run and repair, for many discounts: (K,2)."""
    return np.array([dp.solve(machine(float(g)), "policy_iteration").Q[WORN] for g in gammas])


@app.function
def draw_actions(ax: Axes, gamma: float) -> None:
    """Draw the values of both actions for discounts up to gamma, and mark the better one there."""
    gammas = np.linspace(0, gamma, 60)
    Q = action_values(gammas)
    for a, name, colour in ((RUN, "run", COLOURS[4]), (REPAIR, "repair", COLOURS[0])):
        ax.plot(gammas, Q[:, a], color=colour, lw=1.8, label=f"$Q_*$(worn, {name}), exact: {Q[-1, a]:.3f}")
    best = ("run", "repair")[int(Q[-1].argmax())]
    ax.plot([gamma], [Q[-1].max()], "*", color=INK, ms=13, label=f"best at γ = {gamma:g}: {best}")
    ax.set(xlabel="discount γ", ylabel="value in the worn state (reward)", xlim=(0, 1))
    ax.set_ylim(-1.5, max(3.5, 1.4 * float(Q[-1].max())))
    ax.set_title("What the two actions are worth, up to γ", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    tidy(ax)


@app.function
def iterated(gamma: float) -> list[Sweep]:
    """Value iteration until its bound is 1e-6."""
    return list(dp.value_iteration(machine(gamma), tol=1e-6))


@app.function
def figure(gamma: float) -> Figure:
    """Both actions against the discount; value iteration at this discount, its error and its bound."""
    fig = new_figure(10, 4.4)
    actions, errors = fig.subplots(1, 2)
    draw_actions(actions, gamma)
    exact = np.array(rational.best_values(rational.tables(machine(gamma))), np.float64)
    convergence(errors, iterated(gamma), exact)
    errors.set_title("Value iteration at this discount", fontsize=11)
    errors.set(xlabel="sweep k", ylabel="error (reward)")
    return fig


@app.cell(hide_code=True)
def _(gamma):
    _sweeps, _rounds = iterated(gamma.value), list(dp.policy_iteration(machine(gamma.value)))
    mo.vstack(
        [
            parts.picture(
                figure(gamma.value),
                f"Values of running and repairing against the discount; value iteration at {gamma.value:g}",
            ),
            mo.md(
                f"At γ = {gamma.value:g} value iteration needs **{len(_sweeps)} sweeps** until its bound is 1e-6, "
                f"policy iteration **{len(_rounds)}** round{'s' * (len(_rounds) > 1)}, the last of which finds nothing "
                "to change."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "from γ = 2/3 on",
        r"""
        At $\gamma = \tfrac23$ always running gives $V(\text{worn}) = \tfrac32$ and $V(\text{good}) = \tfrac{15}4$, and
        repairing once is worth $-1 + \tfrac23 \cdot \tfrac{15}4 = \tfrac32$: the same. Below it the repair comes back
        too late, above it a good machine is worth more than what it costs. At exactly $\tfrac23$ **both** are optimal,
        and so is any mixture of them: keep that for the next section.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    fig = new_figure(13, 4)
    correction_9.figure(fig)
    best, waiting = correction_9.waiting()
    parts.correction(
        9,
        rf"""
        Section 1.4 says that a policy is optimal **if and only if** $\pi_*(a|s) = \arg\max_a Q_*(s,a)$. A distribution
        is not an action, and the sentence fails three times:

        1. *Ties.* Any mixture of actions that reach the maximum is optimal too: the middle grid is as good as the left.
        2. *States that are never visited.* If what counts is $J = \sum_s \mu(s) V_\pi(s)$, the policy may do anything
           where it never goes. On the right it is hopeless in nine states, and $J$ is the same to the last digit. It is
           not optimal *in every state*, which is the stronger wish.
        3. *No discount.* At $\gamma = 1$ the other direction fails. In a room where waiting is free and leaving pays
           1, both actions have $Q_* = {best}$; the policy that always waits takes a maximising action every time, and
           earns {waiting}.

        What is right: for $\gamma < 1$, a policy is optimal in every state **iff** it puts all its probability on
        maximising actions. The grid below costs 1 a step; rings mark the states that are visited from S, arrows what
        the policy does, and the colour what is lost.
        """,
        fig,
        "Three policies with the same J on a grid; the third loses up to 8 in nine states it never visits",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        3,
        """
        Write optimal values, and an optimal policy. Keep the old values until the sweep is over, put the reward inside
        the maximum, improve until nothing changes, and decide what to do when two actions tie.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### A sweep of value iteration changes no value by more than 0.01, at γ = 0.9. How wrong can the values be?

        By at most $\gamma/(1-\gamma)$ times as much, 0.09, for the values after the sweep; $1/(1-\gamma)$ times, 0.1,
        for those before it. Close to $\gamma = 1$ a small change says little.

        ### What changes if new values are used at once, within the sweep?

        That is the Gauss–Seidel way. It has the same fixed point and is no slower in the worst case, but each sweep is
        another function of the old values, and it depends on the order of the states. An exercise that asks for one
        synchronous sweep can tell the two apart after a single one.

        ### Why can policy iteration not go round in circles?

        Every change makes the value of some state larger and of none smaller, so no policy comes twice, and there are
        finitely many. This needs the rule that ties keep the old action; computed with rounding, ties look like tiny
        improvements.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "sections 1.4 and 1.5",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 3.6 and
          4.2 to 4.4
        - M. L. Puterman, *Markov Decision Processes* (1994), theorems 6.2.10 and 6.3.3, section 6.4; chapter 7 for
          γ = 1
        - R. A. Howard, *Dynamic Programming and Markov Processes* (1960): policy iteration
        """,
    )
    return


if __name__ == "__main__":
    app.run()
