"""Lesson 9: The policy gradient theorem.

45 minutes. After: lessons 2 and 8. Rows: E1.10. Corrections: 4.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="9 · The policy gradient theorem")

with app.setup:
    from inspect import cleandoc
    from typing import Any

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import gradient
    from tabrl.lessons import correction_4, parts, worn
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, level, paths, points
    from tabrl.lessons.machine import REPAIR, WORN, machine
    from tabrl.lessons.worn import bar, discounted, played, preferences, slopes, world
    from tabrl.plots import COLOURS, new_figure
    from tabrl.plots.grid import INK
    from tabrl.policy import score
    from tabrl.types import F

    EPISODES, SEED = 1000, 9
    ALONG: dict[str, Any] = {"xlim": (-6.3, 3.3), "xlabel": "preference θ for repairing"}
    THETAS = np.linspace(-6, 3, 46)


@app.cell(hide_code=True)
def _():
    parts.head(
        9,
        """
        - write down the slope of what a policy earns, from its visits, its probabilities and its values
        - say why nobody has to differentiate the world: how visits change with the policy drops out
        - tell when a policy stops learning because it is good, and when because it is stuck
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Learning without a table of values

    So far we learnt what actions are worth and then took the best one. Now the policy itself is what we adjust. It is
    made of numbers $\theta$ that may be turned a little; what it earns from the start is $J(\theta)$, and we want the
    direction in which $J$ rises fastest, its gradient $\nabla J$.

    A policy that can be turned a little must be a matter of degree. The **softmax** gives every action a *preference*
    $\theta(s,a)$, any number at all, and makes probabilities of them:

    $$\pi_\theta(a|s) = \frac{e^{\theta(s,a)}}{\sum_b e^{\theta(s,b)}}, \qquad
    \frac{\partial \log \pi_\theta(a|s)}{\partial \theta(s,b)} = 1\{a = b\} - \pi_\theta(b|s).$$

    The second expression is the **score**: which way to turn the preferences so that $a$ becomes more likely. Raise
    the one of $a$, lower all others, and do it more when $a$ was a surprise.

    ## Why the world need not be differentiated

    Turning $\theta$ changes what is done, and thereby which states come next. The second effect looks hopeless: it
    depends on the world, which we do not know. Take the Bellman equation and differentiate both sides:

    $$V(s) = \sum_a \pi(a|s)\, Q(s,a) \quad\Longrightarrow\quad
    \nabla V(s) = \underbrace{\sum_a \nabla\pi(a|s)\, Q(s,a)}_{\text{what this decision adds}} \;+\;
    \gamma \sum_{a,s'} \pi(a|s)\, P(s'|s,a)\, \nabla V(s').$$

    That is a Bellman equation again, for $\nabla V$ in place of $V$, with the first sum in the place of the reward. Its
    solution is known from lesson 2: add up that "reward" along the way. Let $d(s)$ be how often state $s$ is visited
    from the start, a visit at time $t$ counting $\gamma^t$. Then

    $$\nabla J = \sum_s d(s) \sum_a \nabla \pi(a|s)\, Q(s,a)
    = \sum_s d(s) \sum_a \pi(a|s)\, \nabla \log \pi(a|s)\, Q(s,a).$$

    Nothing in it is differentiated but the policy. How $d$ changes with $\theta$ is not missing: it is in $Q$, which
    looks ahead.

    Probabilities add up to 1 whatever $\theta$ is, so that $\sum_a \nabla\pi(a|s) = 0$. Any number $b(s)$ may therefore
    be taken from $Q(s,a)$ without a change. The value is the usual choice, and $A(s,a) = Q(s,a) - V(s)$ is called the
    **advantage**: how much better $a$ is than what the policy does on average. For the softmax all of it becomes one
    product, $\partial J/\partial\theta(s,a) = d(s)\, \pi(a|s)\, A(s,a)$.

    ## The machine, by hand

    There is one decision on our machine: a *worn* one can run (it pays 1, and breaks half the time) or be repaired (it
    costs 1, and the machine is good again). Let $\gamma = \tfrac45$ and do either with probability $\tfrac12$.

    Values first. A good machine runs: $V_g = 2 + \tfrac45\left(\tfrac12 V_g + \tfrac12 V_w\right)$. A worn one:
    $V_w = \tfrac12\left(1 + \tfrac45 \cdot \tfrac12 V_w\right) + \tfrac12\left(-1 + \tfrac45 V_g\right)$. These give
    $V_g = 5$ and $V_w = 2.5$. Then visits, each state's being what flows into it:
    $d_g = 1 + \tfrac25 d_g + \tfrac25 d_w$ and $d_w = \tfrac25 d_g + \tfrac15 d_w$, so that $d_g = 2.5$, $d_w = 1.25$.

    | worn, action | $Q$ | $A = Q - 2.5$ | $\partial J/\partial\theta = d_w \cdot \tfrac12 \cdot A$ |
    |:--|:--|:--|:--|
    | run | $1 + \tfrac45 \cdot \tfrac12 \cdot 2.5 = 2$ | $-0.5$ | $-0.3125$ |
    | repair | $-1 + \tfrac45 \cdot 5 = 3$ | $+0.5$ | $+0.3125$ |

    Repairing is the better action, and the gradient says so. A good machine leaves no choice, so its row is 0.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.8",
        r"""
        J(\theta) = \mathbb{E}_{\pi}\Big[\sum_{t=0}^{T} r_t\Big], \qquad
        \nabla_\theta J(\theta) = \mathbb{E}_{\pi}\Big[\sum_{t=0}^{T}
        \nabla_\theta \log \pi_\theta(a_t|s_t)\, Q(s_t,a_t)\Big]
        """,
        r"""
        Print has a mean over episodes, the library the sum that this mean is. One thing differs: the $d(s)$ of the
        library counts a visit at time $t$ as $\gamma^t$, and print has no $\gamma$ at all. More on that below.
        """,
        score,
        gradient.policy_gradient,
    )
    return


@app.cell
def _():
    h = 1e-4
    by_theorem = gradient.policy_gradient(world(), preferences(0.0))[WORN, REPAIR]
    up, down = (gradient.objective(world(), preferences(x)) for x in (h, -h))
    mo.md(
        f"The library agrees with the table: `policy_gradient` gives {by_theorem:.6f} for repairing. So does a look at "
        f"J itself, a little to the right and to the left: (J(h) − J(−h)) / 2h = {(up - down) / (2 * h):.6f}."
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## One preference, and the whole landscape

    Let the preference for running be 0 and call that for repairing $\theta$. Then $J$ is a curve over $\theta$, and its
    slope is what the theorem gives. Beside it stand two estimates from 1,000 played episodes: the average of
    $\sum_t \gamma^t\, \nabla\log\pi(a_t|s_t)\, Q(s_t,a_t)$, and the same with $A$ in place of $Q$. Here both are exact;
    in the next lessons they have to be estimated as well.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["it grows", "it stays about the same", "it almost vanishes"])
    parts.predict(
        r"""
        Always repairing earns 5.71, never repairing 4.44. At $\theta = 0$ the slope is 0.31. Now turn $\theta$ down to
        $-6$: a policy that almost never repairs, and has the most to gain. What happens to the **slope**?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    theta = mo.ui.slider(-6, 3, 0.25, value=0.0, label="preference θ for repairing", show_value=True, full_width=True)
    theta
    return (theta,)


@app.function
def landscape() -> F:
    """J, and its slope by the theorem, over THETAS: (2,n)."""
    found = [gradient.at(world(), preferences(x)) for x in THETAS]
    return np.array([[x.J for x in found], [in_preference(x) for x in found]])


@app.function
def in_preference(x: gradient.Exact) -> float:
    """The slope of J in the one preference: d pi A."""
    return float(x.d[WORN] * x.pi[WORN, REPAIR] * x.advantage[WORN, REPAIR])


@app.function
def estimates(theta: float) -> dict[str, F]:
    """What each of the episodes at theta says: its return, and its slope with Q and with A."""
    x, exact = played(theta, EPISODES, SEED), gradient.at(world(), preferences(theta))
    both = {"Q": exact.Q, "A": exact.advantage}
    return {"return": discounted(x, x.r)} | {name: slopes(x, theta, y[x.s, x.a]) for name, y in both.items()}


@app.function
def draw_objective(ax: Axes, curve: F, theta: float, J: float, slope: float, G: F) -> None:
    """Draw J over theta, with the tangent at theta that the theorem gives."""
    ax.plot(THETAS, curve, color=INK, lw=1.6, label="J, exact")
    near = np.array([-1.5, 1.5])
    ax.plot(theta + near, J + slope * near, color=COLOURS[1], lw=2, label="slope by the theorem")
    bar(ax, theta, G, COLOURS[0], "o", f"{len(G):,} returns ± 2 se")
    worn.finish(ax, "What the policy earns", "upper left", ylabel="J (reward)", ylim=(4.1, 6.1), **ALONG)


@app.function
def draw_slope(ax: Axes, curve: F, theta: float, found: dict[str, F]) -> None:
    """Draw the slope of J over theta, and its estimates at theta."""
    ax.plot(THETAS, curve, color=INK, lw=1.6, label="dJ/dθ, exact")
    bar(ax, theta - 0.08, found["Q"], COLOURS[0], "s", "estimate with Q ± 2 se")
    bar(ax, theta + 0.08, found["A"], COLOURS[1], "o", "estimate with A ± 2 se")
    worn.finish(ax, "Its slope", "upper left", ylabel="slope of J (reward)", ylim=(-0.15, 0.55), **ALONG)


@app.function
def figure(theta: float, curves: F, found: dict[str, F]) -> Figure:
    """J and its slope over theta; exact lines, and estimates at theta."""
    fig, (J, slope) = new_figure(10, 4), curves
    left, right = fig.subplots(1, 2)
    x = gradient.at(world(), preferences(theta))
    draw_objective(left, J, theta, x.J, in_preference(x), found["return"])
    draw_slope(right, slope, theta, found)
    return fig


@app.cell
def _():
    curves = landscape()
    return (curves,)


@app.cell(hide_code=True)
def _(curves, theta):
    _found, _x = estimates(theta.value), gradient.at(world(), preferences(theta.value))
    _slope = in_preference(_x)
    _alt = f"At θ = {theta.value:g}: J is {_x.J:.3f}, its slope {_slope:.4f}, beside estimates from 1,000 episodes"
    _rows = [
        ("J", _x.J, _found["return"]),
        ("slope, from scores times Q", _slope, _found["Q"]),
        ("slope, from scores times A", _slope, _found["A"]),
    ]
    _note = f"""
    <small>± is two standard errors. A worn machine is visited d = {_x.d[WORN]:.3f} times, and the advantage of
    repairing it is {_x.advantage[WORN, REPAIR]:.3f}.</small>"""
    _table = worn.table(f"| repairing with probability {_x.pi[WORN, REPAIR]:.4f} | exact | 1,000 episodes |", _rows)
    mo.vstack([parts.picture(figure(theta.value, curves, _found), _alt), mo.md(_table + "\n\n" + cleandoc(_note))])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "it almost vanishes",
        r"""
        The advantage of repairing is there, but the slope has the factor $\pi(a|s)$: what is never tried changes
        nothing. To the left the curve is a **plateau** where learning is slow because the policy is sure of itself, to
        the right it flattens because nothing is left to gain. The slope alone does not tell the two apart. Look also at
        the intervals: both estimates have the same mean, and the one with $A$ is far narrower.
        """,
    )
    return


@app.cell
def _():
    even = preferences(0.0)
    right, usual = gradient.policy_gradient(world(), even), gradient.usual_gradient(world(), even)
    plain = gradient.policy_gradient(machine(1.0), even)
    mo.md(rf"""
    ## One equation, three meanings

    The source writes $J$ as a plain sum of rewards, and discounts $G_t$ and the TD error a page later. On the machine,
    both actions at even odds, that leaves three numbers to choose from:

    | slope in the preference for repairing | exact |
    |:--|--:|
    | with $\gamma^t$: the gradient of J with γ = 0.8 | {right[WORN, REPAIR]:.4f} |
    | without $\gamma^t$: as printed, with $Q$ discounted | {usual[WORN, REPAIR]:.4f} |
    | the gradient of J without any γ | {plain[WORN, REPAIR]:.4f} |
    """)
    return


@app.function
def draw_shared(path: Axes, ends: Axes, found: correction_4.Found) -> None:
    """Draw J on the fork while it is learnt, 12 rooms, and at the end by the number of rooms; the ends are exact."""
    L, late = np.arange(2, 17), correction_4.LATE * correction_4.GAMMA ** np.arange(1, 16)
    exact = {"right": np.maximum(1.0, late), "usual": late}
    for (name, y), colour, marker in zip(found.path.items(), (RIGHT, WRONG), "os", strict=True):
        said = {"right": "with γᵗ", "usual": "without"}[name]
        paths(path, np.arange(len(y)), y, colour, f"{said}, {y.shape[1]} runs ± 2 se")
        level(path, exact[name][10], 90, "exact end: {:.4f}", lift={"right": 2, "usual": -15}[name])
        ends.plot(L, exact[name], color=colour, lw=1.6, label=f"{said}, exact end")
        points(ends, np.array(correction_4.LENGTHS), found.ends[name], colour, f"{said}, 20 runs ± 2 se", marker)
    path.set_ylim(0.57, 1.05)
    ends.set_ylim(0, 2)
    finish(path, "update", "J (reward)", "12 rooms, one preference for all", legend="center right")
    finish(ends, "rooms", "J (reward)", "After 150 updates")


@app.cell(hide_code=True)
def _():
    _fig = new_figure(10, 4.2)
    draw_shared(*_fig.subplots(1, 2), correction_4.experiment())
    parts.correction(
        4,
        r"""
        Where returns are discounted, so is what is maximised, and the gradient has to say so:

        $$J = \mathbb{E}\Big[\sum_t \gamma^t r_t\Big], \qquad
        \nabla J = \mathbb{E}\Big[\sum_t \gamma^t\, \nabla \log \pi(a_t|s_t)\, A(s_t,a_t)\Big].$$

        Most programs leave $\gamma^t$ out, and mostly get away with it: with a row of preferences for each state, every
        row keeps its direction and only changes its length, as on the machine. Late states learn faster then, which can
        even help. Where states **share** preferences it does harm. Below, a corridor of rooms pays 1 for "early" in the
        first and 2 for "late" in the last, and one preference serves all rooms. In 8 rooms or more late is, discounted,
        worth less than early; without $\gamma^t$ the climb ends there all the same.
        """,
        _fig,
        "J over updates with and without the factor γ^t, and where both end, by the length of the corridor",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        9,
        """
        Write the gradient of J for a table of preferences: solve for the values and for the visits, then multiply. Mind
        which of the two systems has the transposed matrix, and that visits are not divided by their sum.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### We add 10 to the preferences of both actions in the worn state. What changes?

        Nothing. The softmax knows differences only. So every row of the gradient adds up to 0, as 0.3125 and −0.3125
        do, and a step along it never changes the sum of a row.

        ### The theorem holds for any b(s) taken from Q(s,a). Why not for a b(s,a)?

        Because $\sum_a \nabla\pi(a|s)\, b(s) = b(s)\, \nabla \sum_a \pi(a|s) = b(s)\, \nabla 1 = 0$ needs $b$ outside
        of the sum. If it depends on the action it stays inside, and the mean changes. With $b = Q$ nothing would be
        left of the gradient.

        ### Is a policy whose gradient is 0 the best one?

        No. $d(s)\, \pi(a|s)\, A(s,a)$ is 0 for every $a$ also where the state is never visited, and it comes as near to
        0 as you like where the good action is hardly ever taken. Only where every state is visited and every action has
        some probability does a gradient of 0 mean that no advantage is left.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.8",
        """
        - R. S. Sutton, D. McAllester, S. Singh and Y. Mansour, *Policy gradient methods for reinforcement learning with
          function approximation* (2000), theorem 1
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 13.1 and
          13.2
        - P. S. Thomas, *Bias in natural actor-critic algorithms* (2014), and C. Nota and P. S. Thomas, *Is the policy
          gradient a gradient?* (2020): what is left without the factor
        """,
    )
    return


if __name__ == "__main__":
    app.run()
