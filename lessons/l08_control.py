"""Lesson 8: Control.

50 minutes. After: lessons 3 and 5. Rows: E1.4, E1.5. Corrections: none.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="8 · Control")

with app.setup:
    from typing import NamedTuple

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl.companions import eps_greedy, worth
    from tabrl.control import kernels
    from tabrl.control.kernels import EXPECTED_SARSA, Q_LEARNING, SARSA
    from tabrl.control.one_step import OneStep
    from tabrl.envs import cliff
    from tabrl.figures.bias import left_moves
    from tabrl.figures.cliff import Lines, exploring_lines, smoothed
    from tabrl.figures.control_runs import episode_returns, first_episodes
    from tabrl.lessons import parts
    from tabrl.lessons.machine import GOOD, REPAIR, RUN, WORN
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.types import F

    RULES = {"SARSA": SARSA, "Q-learning": Q_LEARNING, "expected SARSA": EXPECTED_SARSA}
    PALETTE = dict(zip(RULES, (COLOURS[0], COLOURS[1], COLOURS[3]), strict=True))
    RUNS, EPISODES, ALPHA, WINDOW = 20, 300, 0.5, 20
    WORST = 3000.0  # lower edge of the pictures: what costs more, or never ends, is drawn there


@app.cell(hide_code=True)
def _():
    parts.head(
        8,
        """
        - make SARSA, Q-learning and expected SARSA from one update, and say what each of them learns the value of
        - tell what a learner earns from what it has learnt, and say why they differ as long as it explores
        - explain why a maximum of estimates is too large, and how two tables mend it
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Acting while learning

    Lesson 3 found the best policy when the model was known; lessons 4 to 7 learnt the value of a *given* policy without
    a model. Now both at once: no model, and the policy is to become good. Two things change.

    * We learn **action values** $Q(s,a)$. From $V$ alone nobody can tell which action is best without knowing where
      each of them leads; from $Q$ one can: take the largest.
    * We must **explore**. An action that is never tried is never learnt. An *ε-greedy* policy takes any action with
      probability $\varepsilon$, and otherwise the one that looks best.

    The update is that of TD(0), with $Q$ in the place of $V$: $Q(s,a) \leftarrow Q(s,a) + \alpha\,(\text{target} -
    Q(s,a))$, and the target is $r + \gamma \cdot$ *what the next state is worth*. Three answers to what it is worth
    make three learners:

    | learner | the next state is worth | so it learns the value of |
    |:--|:--|:--|
    | SARSA | $Q(s',a')$ of the action that is taken next | the policy that acts, exploration included |
    | Q-learning | $\max_b Q(s',b)$ | the greedy policy, whatever acts: *off-policy* |
    | expected SARSA | $\sum_b \pi(b \mid s')\, Q(s',b)$ | the policy that acts, without the chance of drawing $a'$ |

    ## The machine, by hand

    Let $\gamma = \alpha = \tfrac12$ and $\varepsilon = 0.2$. So far $Q(\text{good}, \text{run}) = 4$, $Q(\text{worn},
    \text{run}) = 2$ and $Q(\text{worn}, \text{repair}) = 1$. The machine is good, we run it, it pays 2 and is worn now.
    The ε-greedy policy runs a worn machine with probability $0.8 + 0.1 = 0.9$, but this time it explores: the next
    action is to repair.

    | learner | target | new $Q(\text{good}, \text{run})$ |
    |:--|:--|:--|
    | SARSA | $2 + \tfrac12 \cdot 1 = 2.5$ | $4 + \tfrac12 (2.5 - 4) = 3.25$ |
    | Q-learning | $2 + \tfrac12 \cdot 2 = 3$ | $4 + \tfrac12 (3 - 4) = 3.5$ |
    | expected SARSA | $2 + \tfrac12 (0.9 \cdot 2 + 0.1 \cdot 1) = 2.95$ | $4 + \tfrac12 (2.95 - 4) = 3.475$ |
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.5",
        r"Q_*(s, a) = \sum_{s'} P(s'|s, a) \left[R(s, a) + \gamma \max_{a'} Q_*(s', a') \right]",
        r"""
        The source has no section on learning to act, and the ledger no row of its own; what these learners aim at is
        in its sections 1.4 and 1.5 (rows E1.4 and E1.5). Q-learning is this equation with one observed step in the
        place of the sum. As in lesson 3 the sum must also hold the reward if that depends on $s'$; in a sample it does
        by itself. The value of a terminal state needs no rule: its `discount` is 0.
        """,
        kernels.next_value,
        kernels.mean,
        kernels.towards,
    )
    return


@app.cell
def _():
    Q = np.array([[4.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
    targets = {name: 2 + 0.5 * kernels.next_value(rule, Q, None, 0.2, WORN, REPAIR) for name, rule in RULES.items()}
    _moved = {name: Q[GOOD, RUN] + 0.5 * (x - Q[GOOD, RUN]) for name, x in targets.items()}
    mo.md("The library agrees: " + ", ".join(f"{k} {targets[k]:g} → {_moved[k]:g}" for k in RULES) + ".")
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Walking along a cliff

    A grid of 4 × 12 cells: start at the lower left, goal at the lower right, and all the edge between them is a cliff.
    Each move costs 1; a step over the edge costs 100 and leads back to the start. The shortest way is 13 moves, right
    along the edge. Nothing is left to chance but the exploration of the learner.

    Because the model is known *to us*, the worth of any policy can be computed exactly, also of one that a learner has
    in mind at the end. There are three exact lines:

    * the best that can be done at all: −13
    * the best that can be done *while exploring* with ε: no learner of this kind can expect more, at any time
    * what one earns who knows $Q_*$ and explores with ε
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(
        [
            "Q-learning both earns more and has learnt the better way",
            "Q-learning has learnt the better way, but SARSA earns more",
            "SARSA both earns more and has learnt the better way",
        ]
    )
    parts.predict(
        """
        Without exploration (ε = 0) all three have the same target, and find the shortest way here: every move costs, so
        that whatever was not tried yet looks better. Now let them explore one time in ten. What happens?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    eps = mo.ui.slider(0, 0.4, 0.05, value=0.0, label="exploration ε", show_value=True, full_width=True)
    eps
    return (eps,)


@app.class_definition
class Learnt(NamedTuple):
    """What the runs of one learner earned, and what the policies they ended with are worth."""

    returns: F  # (episodes,runs)
    acting: F  # (runs,) exact J of the policy that explores
    greedy: F  # (runs,) exact J of the greedy policy; nan where it never ends


@app.function
def learn(rule: int, eps: float) -> Learnt:
    """Let a learner walk along the cliff, in many runs."""
    world, returns, J = cliff(), [], []
    for rng in np.random.default_rng(8).spawn(RUNS):
        learner = OneStep(rule, world, rng, ALPHA, eps, None, None, 256, None)
        returns.append(episode_returns(first_episodes(learner, EPISODES)))
        J.append([worth(world, eps_greedy(learner.Q, world.legal, x)) for x in (eps, 0.0)])
    acting, greedy = np.array(J).T
    return Learnt(np.array(returns).T, acting, greedy)


@app.function
def cost_axis(ax: Axes) -> None:
    """Costs upwards from bad to good, in powers of ten."""
    ax.set(yscale="log", ylim=(WORST * 1.15, 10))
    ax.set_yticks([13, 20, 50, 100, 200, 500, 1000], ["−13", "−20", "−50", "−100", "−200", "−500", "−1000"])
    ax.minorticks_off()
    tidy(ax)


@app.function
def draw_lines(ax: Axes, x: Lines, *, named: bool) -> None:
    """Draw the three exact lines."""
    for J, style, name in (
        (x.optimal, "-", "best of all, exact"),
        (x.soft, "--", "best while exploring, exact"),
        (x.greedy, ":", "explores around Q*, exact"),
    ):
        ax.axhline(-J, color=INK, ls=style, lw=1.5, label=f"{name}: {J:.1f}".replace("-", "−") if named else None)


@app.function
def draw_earned(ax: Axes, found: dict[str, Learnt], lines: Lines) -> None:
    """Draw the returns of the episodes: mean over runs, of the last few episodes, and an interval."""
    draw_lines(ax, lines, named=True)
    t = np.arange(1, EPISODES + 1)
    for name, x in found.items():
        y = smoothed(x.returns, WINDOW)
        mean, half = y.mean(axis=1), 2 * standard_error(y)
        ax.plot(t, -mean, color=PALETTE[name], lw=1.5, label=name)
        ax.fill_between(t, -mean - half, np.maximum(half - mean, 10), color=PALETTE[name], alpha=0.25, lw=0)
    ax.set(xlabel="episode", ylabel=f"return, mean of {WINDOW} episodes (reward, log scale)")
    ax.set_title(f"What they earn while learning ({RUNS} runs ± 2 se)", fontsize=11)
    cost_axis(ax)
    ax.legend(frameon=False, fontsize=9, loc="lower right", ncols=2)


@app.function
def draw_learnt(ax: Axes, found: dict[str, Learnt], lines: Lines) -> None:
    """Draw the exact worth of every run's last policy, with exploration and without."""
    draw_lines(ax, lines, named=False)
    for i, (name, x) in enumerate(found.items()):
        for j, (J, marker) in enumerate(((x.acting, "o"), (x.greedy, "D"))):
            at = i + 0.36 * (j - 0.5) + np.linspace(-0.1, 0.1, RUNS)
            lost = ~(-J < WORST)
            ax.plot(at[~lost], -J[~lost], marker, ms=4, color=PALETTE[name], mfc=("none", PALETTE[name])[j])
            ax.plot(at[lost], np.full(lost.sum(), WORST), "v", ms=5, color=PALETTE[name])
    ax.plot([], [], "o", mfc="none", color=GREY, label="policy that explores")
    ax.plot([], [], "D", color=GREY, label="greedy policy", ms=4)
    ax.plot([], [], "v", color=GREY, label="never ends, or worse than the axis")
    ax.set_xticks(range(len(found)), found)
    ax.set(xlim=(-0.5, 2.5), ylabel="exact J of the policy (reward, log scale)")
    ax.set_title(f"What the policies after {EPISODES} episodes are worth", fontsize=11)
    cost_axis(ax)
    ax.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 0.06))


@app.cell(hide_code=True)
def _(eps):
    found = {name: learn(rule, eps.value) for name, rule in RULES.items()}
    lines = exploring_lines(cliff(), eps.value)
    _fig = new_figure(11, 4.8)
    _left, _right = _fig.subplots(1, 2)
    draw_earned(_left, found, lines)
    draw_learnt(_right, found, lines)
    _rows = "\n".join(
        f"    | {name} | {x.returns[-100:].mean():.1f} ± {2 * standard_error(x.returns[-100:].mean(axis=0)):.1f} |"
        f" {np.median(x.acting):.1f} | {int(np.isnan(x.greedy).sum())} of {RUNS} | {int((x.greedy > -13.5).sum())} |"
        for name, x in found.items()
    )
    _table = f"""
    | ε = {eps.value:g} | earned, last 100 episodes | exact J that explores, median run | greedy policy never ends | … takes the shortest way |
    |:--|--:|--:|--:|--:|
{_rows}

    <small>± is two standard errors over {RUNS} runs, step size {ALPHA}. Exact: best while exploring {lines.soft:.2f};
    around Q* {lines.greedy:.2f} if ties are shared, {lines.greedy_low:.2f} to {lines.greedy_high:.2f} for other ways to
    break them.</small>
    """  # noqa: E501
    _alt = f"At exploration {eps.value:g}: what three learners earn per episode, and exact worth of their last policies"
    mo.vstack([parts.picture(_fig, _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "Q-learning has learnt the better way, but SARSA earns more",
        r"""
        Q-learning learns what the *greedy* policy is worth, and finds the shortest way, along the edge. But it does not
        walk greedily: at ε = 0.1 every tenth move is drawn blindly, and along the edge one of four such moves is a
        fall. SARSA learns what *exploring* is worth, and keeps away from the edge. Expected SARSA does the same with
        less noise: its exploring policy comes close to the dashed line. SARSA's targets stay noisy at a constant step
        size, so that some of its runs end with a greedy policy that walks in circles for ever. What a learner earns,
        what its policy is worth, and what its greedy policy is worth are three different numbers.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## A maximum of estimates is too large

    Suppose that running and repairing a worn machine are worth the same (with $\gamma = \tfrac23$ they are), and that
    both estimates are right on average but off by +1 or −1, each as likely. Four cases are possible:

    | error of run | error of repair | error of the larger one |
    |:--|:--|:--|
    | +1 | +1 | +1 |
    | +1 | −1 | +1 |
    | −1 | +1 | +1 |
    | −1 | −1 | −1 |

    The maximum is too large by $\tfrac12$ on average, though nothing is biased before it is taken. Q-learning takes it
    at every step and hands it on. **Double Q-learning** keeps two tables, from different samples: one says which action
    is best, the other what it is worth. The second knows nothing of the luck of the first, so its error is 0 on
    average.

    In the picture the first action leads to the end and pays 0, or *left*, to a state whose ten actions all pay −0.1 on
    average, with a standard deviation of 1. Going left is a mistake. With ε = 0.1 it should be made in 5 % of the
    episodes, for exploration.
    """)
    return


@app.function
def bias_figure() -> Figure:
    """How often Q-learning and double Q-learning go left, beside what is exact."""
    x, fig = left_moves(np.random.default_rng(88), runs=400, episodes=200), new_figure(8, 3.6)
    ax, t = fig.add_subplot(), np.arange(1, 201)
    for i, (name, left) in enumerate(zip(x.labels, 100 * x.left, strict=True)):
        mean, half = left.mean(axis=1), 2 * standard_error(left)
        ax.plot(t, mean, color=COLOURS[1 - i], lw=1.6, label=f"{name}, 400 runs ± 2 se")
        ax.fill_between(t, mean - half, mean + half, color=COLOURS[1 - i], alpha=0.25, lw=0)
    ax.axhline(100 * x.optimal, color=INK, ls="--", lw=1.5, label=f"ε-greedy in Q*, exact: {100 * x.optimal:.0f} %")
    ax.plot(1.5, 100 * x.first, "x", color=INK, ms=8, label=f"episodes 1 and 2, exact: {100 * x.first:.0f} %")
    ax.set(xlabel="episode", ylabel="runs that go left (%)", ylim=(0, 100), xlim=(0, 200))
    ax.set_title("Ten actions that pay −0.1 on average look good for a long time", fontsize=11)
    ax.legend(frameon=False, fontsize=9)
    tidy(ax)
    return fig


@app.cell(hide_code=True)
def _():
    parts.picture(bias_figure(), "Share of runs that go left, for Q-learning and double Q-learning, over 200 episodes")
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        8,
        """
        Write Q-learning along an episode. Mind where the maximum is taken: over the actions of the next state, and from
        the values as they are at that moment. A terminal state has no value, whatever its row in Q says.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### Why does expected SARSA with a greedy target policy need no importance ratios, though another policy acts?

        Its target for $(s,a)$ starts *after* $a$ was taken: what follows is averaged over the target policy by
        computing, not by sampling. So it does not matter who chose $a$, or who will choose next. That also makes
        Q-learning off-policy for free. Over more than one step the actions in between were chosen by the other policy,
        and ratios are needed (lesson 13).

        ### When do these learners find the best policy for certain?

        Q-learning: if every action of every state is tried again and again for ever, and the step sizes of each pair
        add up to infinity while their squares do not. SARSA: if in addition the exploration goes to 0, slowly enough
        that everything is still tried for ever. With a constant ε it can at best reach the best *exploring* policy, the
        dashed line.

        ### One action looks better than it is, another looks worse than it is. Which error lasts longer?

        The second. An action that looks best is taken, and its estimate falls to the truth. One that looks bad is
        avoided, and only exploration can mend it. This is why starting values that are too high make a learner explore
        by itself, as at ε = 0 above.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "sections 1.4 and 1.5; on learning to act it says nothing",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 6.4 to
          6.7, examples 6.6 and 6.7; `tabrl figure 6.3` and `tabrl figure 6.5` draw its figures
        - C. J. C. H. Watkins and P. Dayan, *Q-learning* (1992)
        - G. A. Rummery and M. Niranjan, *On-line Q-learning using connectionist systems* (1994): SARSA
        - H. van Hasselt, *Double Q-learning* (2010)
        """,
    )
    return


if __name__ == "__main__":
    app.run()
