"""Lesson 11: Actor–critic.

45 minutes. After: lessons 5 and 10. Rows: E1.12. Corrections: 5.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="11 · Actor–critic")

with app.setup:
    from inspect import cleandoc
    from itertools import islice

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import returns
    from tabrl.actor_critic import a2c, actor_critic
    from tabrl.actor_critic_kernels import td_step
    from tabrl.advantage_moments import advantage, advantage_gradient
    from tabrl.gradient import at
    from tabrl.lessons import correction_5, parts, worn
    from tabrl.lessons._drawing import RIGHT, WRONG, finish
    from tabrl.lessons.machine import REPAIR, RUN, WORN
    from tabrl.lessons.worn import bar, played, preferences, slopes, world
    from tabrl.plots import COLOURS, new_figure
    from tabrl.plots.grid import INK
    from tabrl.policy_gradients import returns_to_go
    from tabrl.rollout import Rollout
    from tabrl.score_sums import GradientMoments
    from tabrl.summary import standard_error
    from tabrl.types import F

    EPISODES, SEED, THETA = 2000, 11, 0.0
    EXACT = at(world(), preferences(THETA))
    LEARNERS = {
        "actor–critic, critic's step 0.01": lambda rng: actor_critic(
            world(), rng, alpha_theta=0.3, alpha_V=0.01, every=1000
        ),
        "actor–critic, critic's step 0.1": lambda rng: actor_critic(
            world(), rng, alpha_theta=0.3, alpha_V=0.1, every=1000
        ),
        "A2C, 20 steps at a time": lambda rng: a2c(world(), rng, step=1.0, critic=0.1, steps=20, every=50),
    }


@app.cell(hide_code=True)
def _():
    parts.head(
        11,
        """
        - let one TD error teach both, the critic what to expect and the actor what to do
        - compute the bias of the TD error from the error of the critic, and tell when it does no harm
        - say why a critic should learn faster than the actor that believes it
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Not waiting for the end

    REINFORCE waits for the end of the episode, and all the chance on the way there is in its $G_t$. Lesson 5 had a way
    out: let a learnt value stand for what is still to come. Do the same here. A **critic** keeps $V(s)$, an estimate of
    the value of the policy; the **actor** is the policy. After every step both learn from the same number:

    $$\delta = r + \gamma V(s') - V(s), \qquad V(s) \leftarrow V(s) + \beta\, \delta, \qquad
    \theta \leftarrow \theta + \alpha\, \gamma^t\, \delta\, \nabla\log\pi(a|s).$$

    $\delta$ says how much better it went than expected. The critic corrects the expectation; the actor takes the action
    more often, or less. Note what the actor may *not* do: to make $\delta$ large by changing $V$. For the actor
    $\delta$ is a plain number, and no derivative is taken through it.

    **A2C** does the same with a batch: some steps with one and the same policy, returns that run to the end of the
    batch with $V$ behind them, then one step of the actor along the average, and one of the critic.

    ## What the TD error is on average

    If the critic is right, $V = V_\pi$, then $r + \gamma V(s')$ is on average $Q(s,a)$, and $\delta$ is on average the
    advantage. If it is wrong by $e(s) = V(s) - V_\pi(s)$, then

    $$\mathbb{E}[\delta \mid s,a] - A(s,a) = \gamma \sum_{s'} P(s'|s,a)\, e(s') - e(s).$$

    The last term is the same for every action: it is a baseline, and does not harm. The first is not: an action that
    leads to states which the critic flatters is flattered itself.

    ## The machine, by hand

    Once more $\gamma = 0.8$ and even odds, where $V_g = 5$ and $V_w = 2.5$. Let the critic underrate a good machine by
    1: $V_g = 4$. In the worn state

    | action | $A$ | mean of $\delta$ | bias |
    |:--|:--|:--|:--|
    | run | $-0.5$ | $1 + 0.8 \cdot \tfrac12 \cdot 2.5 - 2.5 = -0.5$ | 0 |
    | repair | $+0.5$ | $-1 + 0.8 \cdot 4 - 2.5 = -0.3$ | $-0.8$ |

    The slope of $J$ is $d_w \cdot \tfrac12 \cdot \tfrac12 \cdot (A_\text{repair} - A_\text{run}) = 1.25 \cdot \tfrac14
    \cdot 1 = 0.3125$. With the mean of $\delta$ it becomes $1.25 \cdot \tfrac14 \cdot 0.2 = 0.0625$: uphill still, at a
    fifth of the speed.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.8.2",
        r"""
        A(s_t, a_t) \approx \delta_t = r_t + \gamma V(s_{t+1}) - V(s_t), \qquad
        \nabla_{\theta} J(\theta) = \mathbb{E}_{\pi}\Big[\sum_{t=0}^{T}
        \nabla_{\theta} \log \pi_{\theta}(a_t|s_t)\, \delta_t\Big]
        """,
        r"""
        The library's step knows traces as well, which fade by `fade_V` and `fade_theta`; at 0 they are the score and
        the state of this step alone. `rates[5]` is $\gamma^t$, and `discount` is 0 at the end of the episode.
        """,
        returns.td_errors,
        td_step,
    )
    return


@app.cell
def _():
    by_hand = advantage(world(), EXACT.pi, [4.0, 2.5, 0.0], 0.0)
    mean_slope = advantage_gradient(world(), EXACT.pi, [4.0, 2.5, 0.0], 0.0).mean[WORN, REPAIR]
    mo.md(
        f"The library agrees: mean TD errors {by_hand.mean[WORN].round(4).tolist()}, biases "
        f"{by_hand.bias[WORN].round(4).tolist()}, mean slope {mean_slope:.4f}."
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## An actor that believes its critic

    Turn the critic's value of a good machine; it is right at 5. The worn machine's value stays right, and nothing is
    learnt: we only look at which way the actor is pushed. On the left the mean TD error of both actions, on the right
    the push, beside that of REINFORCE with the same $V$ as a baseline.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["towards repairing, but slower", "nowhere", "towards running, the wrong way"])
    parts.predict(
        r"""
        The critic says 3 for a good machine in place of 5. It is still the better machine, and repairing is still the
        better action. Where does the actor go, on average?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    said = mo.ui.slider(
        0, 10, 0.25, value=5.0, label="what the critic says of a good machine", show_value=True, full_width=True
    )
    said
    return (said,)


@app.cell
def _():
    drawn = played(THETA, EPISODES, SEED)
    return (drawn,)


@app.function
def critic(good: float) -> F:
    """Values (3,) of a critic that is right about the worn state."""
    return np.array([good, EXACT.V[WORN], 0.0])


@app.function
def errors(x: Rollout, V: F) -> F:
    """TD errors of all steps."""
    return x.r + x.discount * V[x.s_next] - V[x.s]


@app.function
def pushes(x: Rollout, V: F) -> dict[str, F]:
    """The estimate of the slope that each episode gives: with TD errors, and with returns."""
    return {
        "TD error": slopes(x, THETA, errors(x, V)),
        "G − V": slopes(x, THETA, returns_to_go(x, np.zeros(3)) - V[x.s]),
    }


@app.function
def moments(V: F) -> dict[str, GradientMoments]:
    """Exact mean and variance of both."""
    return {name: advantage_gradient(world(), EXACT.pi, V, lam) for name, lam in (("TD error", 0.0), ("G − V", 1.0))}


@app.function
def draw_errors(ax: Axes, x: Rollout, good: float) -> None:
    """Draw the mean TD error of both actions over the critic's value, and their advantages."""
    ends = [advantage(world(), EXACT.pi, critic(g), 0.0).mean[WORN] for g in (0.0, 10.0)]  # straight lines
    delta, here = errors(x, critic(good)), x.s == WORN
    for a, name, colour, marker in ((RUN, "run", COLOURS[1], "s"), (REPAIR, "repair", COLOURS[0], "o")):
        ax.plot([0, 10], [y[a] for y in ends], color=colour, lw=1.6, label=f"{name}: mean TD error, exact")
        ax.axhline(EXACT.advantage[WORN, a], color=colour, lw=1, ls="--", label=f"{name}: advantage")
        bar(ax, good, delta[here & (x.a == a)], colour, marker)
    names = {"xlabel": "critic's value of a good machine (reward)", "ylabel": "TD error in the worn state (reward)"}
    worn.finish(ax, "What each action seems to be worth", "upper left", ylim=(-4.2, 6.4), **names)


@app.function
def draw_pushes(ax: Axes, found: dict[str, F], good: float) -> None:
    """Draw the mean push on the preference for repairing over the critic's value."""
    ends = [moments(critic(g)) for g in (0.0, 10.0)]
    for i, (name, colour, marker) in enumerate((("TD error", COLOURS[0], "o"), ("G − V", COLOURS[3], "s"))):
        ax.plot([0, 10], [y[name].mean[WORN, REPAIR] for y in ends], color=colour, lw=1.6, label=f"{name}, exact mean")
        bar(ax, good + 0.1 * (2 * i - 1), found[name], colour, marker, f"{name}, {EPISODES:,} episodes ± 2 se")
    ax.axhline(0, color=INK, lw=0.8)
    names = {"xlabel": "critic's value of a good machine (reward)", "ylabel": "push towards repairing (reward)"}
    worn.finish(ax, "Where the actor is pushed", "upper left", ylim=(-1.1, 2.5), **names)


@app.function
def figure(x: Rollout, found: dict[str, F], good: float) -> Figure:
    """Mean TD errors and mean pushes over the critic's value: exact lines, and samples at one value."""
    fig = new_figure(10, 4)
    left, right = fig.subplots(1, 2)
    draw_errors(left, x, good)
    draw_pushes(right, found, good)
    return fig


@app.cell(hide_code=True)
def _(drawn, said):
    _V = critic(said.value)
    _found, _exact = pushes(drawn, _V), moments(_V)
    _alt = f"With the value {said.value:g} for a good machine, the mean push by TD errors and by returns"
    _rows = [(f"mean, {k}", _exact[k].mean[WORN, REPAIR], y) for k, y in _found.items()]
    _rows += [(f"variance, {k}", _exact[k].variance[WORN, REPAIR], (y - y.mean()) ** 2) for k, y in _found.items()]
    _table = worn.table(f"| push of one episode, V(good) = {said.value:g} | exact | {EPISODES:,} episodes |", _rows)
    mo.vstack([parts.picture(figure(drawn, _found, said.value), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "towards running, the wrong way",
        r"""
        With $V_g = 3$ the mean TD error of repairing is $-1 + 0.8 \cdot 3 - 2.5 = -1.1$, less than the $-0.5$ of
        running. At 3.75 both look alike and nothing is learnt. REINFORCE does not mind: for it $V$ is a baseline, and
        the mean push stays 0.3125. What it pays is variance. This is the trade of the whole field: **bias for
        variance**.
        """,
    )
    return


@app.function
def learnt(name: str, runs: int = 10) -> F:
    """J of a learner after 1000, 2000 and 3000 steps: (runs,3)."""
    rngs = [np.random.default_rng(x) for x in np.random.SeedSequence(SEED).spawn(runs)]
    return np.array([[x.J for x in islice(LEARNERS[name](rng), 3)] for rng in rngs])


@app.cell
def _():
    ends = {name: learnt(name) for name in LEARNERS}
    return (ends,)


@app.cell(hide_code=True)
def _(ends):
    def _cell(y):
        return f"{y.mean():.3f} ± {2 * standard_error(y):.3f}"

    _lines = "\n".join(f"| {name} | {_cell(y[:, 0])} | {_cell(y[:, 2])} |" for name, y in ends.items())
    _text = """
    ## The critic first

    Now both learn, from even odds and V = 0; J is 5 at the start and 5.714 at best. A critic that knows nothing takes a
    repair for −1 and a run for +1.

    | J, mean of 10 runs ± 2 se | after 1,000 steps | after 3,000 steps |
    |:--|--:|--:|
    LINES

    With the slow critic the actor goes the wrong way first, and is then worse than at the start: it believed the critic
    before there was reason to. Hence the rule that the critic takes the larger steps. (A2C leaves out $\\gamma^t$, so
    that its steps are longer here; it is not to be compared with the others.)
    """
    mo.md(cleandoc(_text).replace("LINES", _lines))
    return


@app.function
def draw_biases(ax: Axes) -> None:
    """Draw the bias of the TD error and of the gradient over the size of the critic's error, for two kinds of it."""
    x = np.array([-1.0, 0.0, 1.0])  # both are |x| times their value at 1
    kinds = {"e = x (2, −1, 1)": (correction_5.ERROR, WRONG), "e = x (1, 1, 1)": (np.array([1.0, 1, 1, 0]), RIGHT)}
    for name, (e, colour) in kinds.items():
        delta, push = zip(*(correction_5.biases(correction_5.world(), y * e) for y in x), strict=True)
        ax.plot(x, delta, color=colour, lw=1.6, label=f"{name}: largest |bias of δ|, exact")
        ax.plot(x, push, color=colour, lw=1.6, ls="--", label=f"{name}: |bias of gradient|, exact")
    ax.set_ylim(-0.1, 4.2)
    finish(ax, "x, size of the error e = V − V_π", "bias (reward)", "Right for V_π alone", legend="upper center")


@app.cell(hide_code=True)
def _():
    _fig = new_figure(10, 4.4)
    _biases, _values = _fig.subplots(1, 2)
    draw_biases(_biases)
    correction_5.draw_learning(_values, correction_5.experiment(episodes=20))
    parts.correction(
        5,
        r"""
        The source calls the TD error an unbiased estimate of the advantage, for any $V$. It is one for $V = V_\pi$
        **alone**: the bias $\gamma \sum P\, e(s') - e(s)$ vanishes for all states and actions only where $e = 0$. The
        *gradient* may be right all the same: if $\sum P\, e(s')$ is the same for every action, as where the critic is
        off by one constant, only the harmless term is left (left picture, blue; it is of a ring of three states, where
        any step may be the last).

        The source also has the critic trained to minimise the TD error. TD(0) does not. It moves $V(s)$ towards $r +
        \gamma V(s')$ as if that were fixed; the descent of $\mathbb{E}[\delta^2]$ moves $V(s')$ too, and ends
        elsewhere, because it also tries to make the *chance* of the next value small. Both start at $V_\pi$ on the
        right: TD(0) stays, the other leaves.
        """,
        _fig,
        "Bias of TD error and gradient by the error of the critic; values learnt by TD(0) and by descending δ²",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        11,
        r"""
        Write one pass over an episode: compute $\delta$ once, then move critic and actor. Mind which $V$ and which
        $\theta$ the step uses, and the $\gamma^t$.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### The critic is 10 too high in every state that is not the end. What happens to the actor?

        If no action can end the episode at once, $\sum P\, e(s')$ is 10 for all: no harm. In the worn state of our
        machine it is 10 for repairing, but 5 for running, which ends half of the time. A constant error is harmless
        only as long as the actions are equally likely to end.

        ### Why not let the actor see the derivative of δ as well?

        Then it would raise $\delta$ where that is easy: by changing $V$, if they share parameters, instead of the
        policy. The theorem asks for $\nabla\log\pi$ times a number. In programs: detach the advantage.

        ### δ is 0 on average in every state. Has the actor found the best policy?

        No. Averaged over the actions of the policy, $\delta$ is 0 wherever the critic is right, for any policy. What
        counts is the mean given the action: when that is 0 for every action, none has an advantage.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.8.2",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 11.5
          (what the squared TD error leads to) and 13.5
        - V. R. Konda and J. N. Tsitsiklis, *On actor-critic algorithms* (2003): two speeds
        - V. Mnih and others, *Asynchronous methods for deep reinforcement learning* (2016): A3C, of which A2C is the
          version in step
        """,
    )
    return


if __name__ == "__main__":
    app.run()
