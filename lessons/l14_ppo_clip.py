"""Lesson 14: PPO-clip.

45 minutes. After: lessons 12 and 13. Rows: E1.15. Corrections: 1.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="14 · PPO-clip")

with app.setup:
    from functools import partial

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import losses
    from tabrl.gradient import exact
    from tabrl.lessons import correction_1, parts
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, paths
    from tabrl.lessons.correction_1 import ETA, PAYS, START, ascend
    from tabrl.lessons.machine import WORN, machine, repairing
    from tabrl.plots import new_figure
    from tabrl.plots.grid import INK
    from tabrl.policy import log_softmax, through_log
    from tabrl.summary import standard_error
    from tabrl.surrogate import clip_surrogate
    from tabrl.types import F

    RUNS, UPDATES, BATCH, NOISE = 40, 60, 16, 2.0


@app.cell(hide_code=True)
def _():
    parts.head(
        14,
        """
        - say why a batch may be used several times, and what goes wrong when it is used too often
        - compute the clipped objective of a decision by hand, for good and for bad actions, on both sides of the bounds
        - say when its gradient is 0, and why it is never 0 where a step back is needed
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## One batch, many steps

    A policy gradient is true at one point: at the policy $\pi_{\text{old}}$ that drew the batch. One step, and the
    batch is out of date; REINFORCE throws it away. That is a waste where acting is dear. Lesson 13 has the remedy:
    weigh each decision by its **ratio**

    $$\rho = \frac{\pi(a \mid s)}{\pi_{\text{old}}(a \mid s)},$$

    and the average of $\rho A$ speaks about the *new* policy $\pi$. At $\pi = \pi_{\text{old}}$ every ratio is 1, and
    the gradient of $\rho A$ is $A \nabla \log \pi$: the policy gradient again. After that we may go on climbing on the
    same batch. But not far, for two reasons. The states in the batch are those that the *old* policy visits; and the
    advantages are noisy, so that whoever climbs long enough climbs on the noise.

    **PPO** takes the gain away instead of forbidding the step. Pick $\epsilon$, say 0.2. A good action ($A > 0$)
    earns $\rho A$ until its ratio is $1 + \epsilon$, and nothing more from there on. A bad one ($A < 0$) is relieved
    until its ratio is $1 - \epsilon$, and nothing more below. Where nothing is to be gained the gradient is 0, and
    the step ends by itself.

    ## The machine, by hand

    Take the machine of lesson 1 with $\gamma = 1$, and a policy that repairs a worn machine every other time. Two
    equations with two unknowns give $V(\text{good}) = 12$ and $V(\text{worn}) = 8$; so, when it is worn,

    $$Q(\text{run}) = 1 + \tfrac12 \cdot 8 = 5, \qquad Q(\text{repair}) = -1 + 12 = 11,
      \qquad A = -3 \text{ and } +3 .$$

    Now a new policy repairs with probability 0.7, or with 0.3. With $\epsilon = 0.2$ each decision is worth

    | new chance to repair | action | $\rho$ | $\rho A$ | clipped ratio times $A$ | the smaller |
    |:--|:--|--:|--:|--:|--:|
    | 0.7 | repair, $A = 3$ | 1.4 | 4.2 | $1.2 \cdot 3 = 3.6$ | **3.6**, clipped |
    | 0.7 | run, $A = -3$ | 0.6 | −1.8 | $0.8 \cdot (-3) = -2.4$ | **−2.4**, clipped |
    | 0.3 | repair, $A = 3$ | 0.6 | 1.8 | $0.8 \cdot 3 = 2.4$ | **1.8** |
    | 0.3 | run, $A = -3$ | 1.4 | −4.2 | $1.2 \cdot (-3) = -3.6$ | **−4.2** |

    In the first two rows the policy moved the right way and too far: both are clipped, both have gradient 0. In the
    last two it moved the wrong way just as far, and *nothing* is clipped: it pays the full price, and the gradient
    brings it back. That is what the minimum is for. A clip alone would stop the way back too.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.8.5",
        r"""
        L^{\text{CLIP}}(\theta) = \mathbb{E}_t \Big[\min \big(r_t(\theta) A^{GAE}(s_t, a_t),\;
        \text{clip}(r_t(\theta), 1 - \epsilon, 1 + \epsilon)\, A^{GAE}(s_t, a_t) \big)
        \log \pi_{\theta}(a_t | s_t) \Big],
        \qquad r_t(\theta) = \frac{\pi_{\theta}(a_t | s_t)}{\pi_{\theta_{\text{old}}}(a_t | s_t)}
        """,
        r"""
        Three things to mind. $r_t(\theta)$ is the ratio $\rho$, no reward. The factor $\log \pi$ at the end does not
        belong there: see below. And the library's functions are **losses**, to be made small, hence the minus sign.
        For $A \ge 0$ the minimum can only cut from above, for $A < 0$ only from below, which is how it is written;
        `low` and `high` may differ (lesson 20), and `dual` is a third bound that is off here.
        """,
        losses.ppo_clip,
        losses.clipped,
    )
    return


@app.function
def worth(p: float) -> tuple[float, float]:
    """The clipped objective of repairing and of running a worn machine, when p is the new chance to repair."""
    x, new = exact(machine(1.0), repairing(0.5)), repairing(p)
    run, repair = -losses.ppo_clip(np.log(new[WORN]), np.log(x.pi[WORN]), x.advantage[WORN])
    return float(repair), float(run)


@app.cell
def _():
    _x = exact(machine(1.0), repairing(0.5))
    _L = [clip_surrogate(repairing(p), _x.pi, _x.d, _x.advantage) for p in (0.5, 0.6, 0.7, 0.9)]
    mo.md(
        f"""
        The library agrees with the table: {worth(0.7)[0]:.1f} and {worth(0.7)[1]:.1f} at 0.7, {worth(0.3)[0]:.1f} and
        {worth(0.3)[1]:.1f} at 0.3. A worn machine is decided on {_x.d[WORN]:g} times in an episode. Over all
        decisions the clipped objective is {_L[0]:.1f}, {_L[1]:.1f}, {_L[2]:.1f} and {_L[3]:.1f} where the chance to
        repair is 0.5, 0.6, 0.7 and 0.9: beyond 0.6, where both bounds are met, it is flat.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(rf"""
    ## What the clip is good for

    Three arms pay {PAYS[0]:g}, {PAYS[1]:g} and {PAYS[2]:g} on average, but every single pay has a noise of standard
    deviation {NOISE:g}. The policy starts at {START[0]:g}, {START[1]:g}, {START[2]:g}. An update draws {BATCH} pulls,
    $A$ is the pay less the exact value of the policy, and some **passes** over the batch follow, each one gradient step
    of length {ETA:g}. We watch {RUNS} runs with the clip, and {RUNS} runs without it on the same random numbers. The
    dashed lines have no noise at all: the same updates on all arms, with exact advantages.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(
        ["without the clip they are simply faster", "without the clip many runs end with a wrong arm", "no difference"]
    )
    parts.predict(
        r"""
        With one pass the ratio is 1 throughout, the clip never binds, and both kinds of runs are the same. Now take
        **ten passes** over each batch. What happens to the runs?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    passes = mo.ui.slider(steps=[1, 2, 5, 10, 20], value=1, label="passes over a batch", show_value=True)
    eps = mo.ui.slider(0.05, 1, 0.05, value=0.2, label="ε of the clip", show_value=True)
    mo.hstack([passes, eps], justify="start", gap=3)
    return eps, passes


@app.function
def learnt(eps: float, passes: int, seed: int = 14) -> F:
    """Probabilities of the arms after 0, 1, … updates on noisy batches, (updates+1,runs,3)."""
    rng, theta, path = np.random.default_rng(seed), np.tile(np.log(START), (RUNS, 1)), []
    for _ in range(UPDATES):
        rows = log_softmax(theta)
        path.append(np.exp(rows))
        a = (rng.random((RUNS, BATCH, 1)) > path[-1].cumsum(axis=1)[:, None, :-1]).sum(axis=2)
        A = PAYS[a] + NOISE * rng.normal(size=a.shape) - (path[-1] @ PAYS)[:, None]
        old, chosen = np.take_along_axis(rows, a, axis=1), np.eye(3)[a]
        for _ in range(passes):
            rows = log_softmax(theta)
            slope = losses.d_ppo_clip(np.take_along_axis(rows, a, axis=1), old, A, low=eps, high=eps) / BATCH
            theta = theta - ETA * through_log(np.exp(rows), np.einsum("rb,rba->ra", slope, chosen))
    return np.array([*path, np.exp(log_softmax(theta))])


@app.function
def exactly(eps: float, passes: int) -> F:
    """J after 0, 1, … updates without noise, (updates+1,)."""
    return ascend(partial(losses.d_ppo_clip, low=eps, high=eps), START, UPDATES, epochs=passes) @ PAYS


@app.function
def draw_objective(ax: Axes, eps: float) -> None:
    """Draw the objective of one decision against its ratio, with and without the clip."""
    rho = np.linspace(0.0, 2.2, 441)[1:]
    for A, colour, name in ((1.0, RIGHT, "good action, A = 1"), (-1.0, WRONG, "bad action, A = −1")):
        ax.plot(rho, rho * A, color=colour, lw=1, ls=":")
        y = -losses.ppo_clip(np.log(rho), np.zeros(440), np.full(440, A), low=eps, high=eps)
        ax.plot(rho, y, color=colour, lw=2, label=name)
    ax.axvspan(max(1 - eps, 0), 1 + eps, color=INK, alpha=0.07, lw=0, label=f"1 ± {eps:g}")
    ax.plot([1, 1], [1, -1], "o", color=INK, ms=5)
    ax.set(xlim=(0, 2.2), ylim=(-2.3, 2.9))
    finish(ax, "ratio ρ; dots: the old policy", "objective of the decision", "Dotted: without the clip",
           legend="upper left")  # fmt: skip


@app.function
def draw_runs(ax: Axes, found: dict[str, F], eps: float, passes: int) -> None:
    """Draw exact J over updates: runs on noisy batches, and the same updates without noise."""
    k = np.arange(UPDATES + 1)
    for (name, pi), colour, bound in zip(found.items(), (WRONG, RIGHT), (1e6, eps), strict=True):
        paths(ax, k, pi @ PAYS, colour, f"{name}: {RUNS} runs, mean ± 2 se")
        ax.plot(k, exactly(bound, passes), color=colour, ls="--", lw=1.6, label=f"{name}: without noise, exact")
    ax.set(ylim=(-0.03, 1.6), yticks=np.arange(0, 1.1, 0.2))
    finish(ax, "update", "J of the policy (reward), exact", f"{passes} passes over each batch" if passes > 1 else
           "One pass over each batch", legend="upper left")  # fmt: skip


@app.function
def figure(found: dict[str, F], eps: float, passes: int) -> Figure:
    """The objective of one decision; J over the updates with and without the clip."""
    fig = new_figure(10, 4.2)
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.25))
    draw_objective(left, eps)
    draw_runs(right, found, eps, passes)
    return fig


@app.cell(hide_code=True)
def _(eps, passes):
    found = {"no clip": learnt(1e6, passes.value), f"ε = {eps.value:g}": learnt(eps.value, passes.value)}
    _rows = []
    for (_name, _pi), _bound in zip(found.items(), (1e6, eps.value), strict=True):
        _J, _lost = _pi[-1] @ PAYS, (_pi[-1, :, 0] < 0.5).sum()
        _mean = f"{_J.mean():.3f} ± {2 * standard_error(_J):.3f}"
        _rows.append(f"| {_name} | {exactly(_bound, passes.value)[-1]:.3f} | {_mean} | {_lost} of {RUNS} |")
    _table = "\n".join(
        [
            f"| J after {UPDATES} updates | without noise, exact | {RUNS} runs | best arm below ½ |",
            "|:--|--:|--:|--:|",
            *_rows,
        ]
    )
    _alt = f"J with and without a clip at {eps.value:g}, {passes.value} passes over each batch"
    mo.vstack([parts.picture(figure(found, eps.value, passes.value), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "without the clip many runs end with a wrong arm",
        r"""
        Without noise more passes are just more speed, clip or no clip: look at the dashed lines. With noise the late
        passes climb on what the sixteen pays happened to be. An arm that looked bad is pushed to a probability near
        0, is never pulled again, and nobody ever learns better. With the clip the push ends where an update has said
        "a fifth more, a fifth less", so an error of one batch is mended by the next. Its price is seen early on: with
        the clip the mean of the first updates is lower. Try a wide clip, and see the failures come back. And no clip
        promises anything: with ε = 0.2 a few runs may still be lost.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    _fig = new_figure(14, 4.6)
    _push, _clip, _epochs = _fig.subplots(1, 3)
    correction_1.draw_push(_push, _clip)
    correction_1.draw_epochs(_epochs)
    _end = correction_1.ascend(correction_1.wrong, START, 60, epochs=10)[-1] @ PAYS
    parts.correction(
        1,
        rf"""
        The source multiplies the clipped objective by $\log \pi_\theta$. The ratio already carries the score:
        $\nabla \rho = \rho \nabla \log \pi$. With the factor, the product rule gives at $\rho = 1$

        $$A\,(1 + \log \pi)\,\nabla \log \pi \qquad\text{{instead of}}\qquad A\,\nabla \log \pi .$$

        $1 + \log \pi$ is negative for every action whose probability is below $1/e \approx 0.37$: good actions that
        are still rare are pushed *down*, bad ones up. With a vocabulary of thousands that is nearly every token. On
        the three arms without noise it ends at J = {_end:.3f} instead of nearly 1 (right). There is a charitable
        reading: hold the clipped ratio constant, and let $\log \pi$ alone be differentiated. That is a policy
        gradient with a capped weight, known as CISPO (dashed purple); it does not stop at $1 + \epsilon$ (middle).
        """,
        _fig,
        "The push on an action with and without the factor log pi, the gradient beyond the clip, and J over updates",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        14,
        """
        Write the loss of PPO-clip for a batch of decisions. Mind where the minimum stands: first multiply by A, then
        take the smaller; and the two bounds may have different sizes.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### Does the clip keep the ratio between 1 − ε and 1 + ε?

        No. It only takes the gain away. The step that crosses the bound may carry the ratio well beyond it, and steps
        that are meant for other decisions move the same parameters, and with them this ratio. Who wants a promise needs
        a constraint on the policy: the next lesson.

        ### An action with A > 0 has ρ = 0.5, far outside the bounds. Is it clipped?

        No. $\min(0.5 A, 0.8 A) = 0.5 A$, and its gradient is $0.5 A \nabla \log \pi$: the policy moved the wrong way
        and is drawn back. Clipped is $A > 0$ with $\rho > 1 + \epsilon$, and $A < 0$ with $\rho < 1 - \epsilon$;
        nothing else.

        ### How many of the decisions are clipped in the first step on a fresh batch, and does that depend on ε?

        None, whatever ε is: all ratios are 1. With one step per batch PPO-clip *is* the policy gradient, and ε has no
        effect at all. Keep that in mind when you read that a run "used ε = 0.2": how many steps were taken on each
        batch?
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "sections 1.8.5 and 1.8.6",
        """
        - J. Schulman, F. Wolski, P. Dhariwal, A. Radford and O. Klimov, *Proximal policy optimization algorithms*
          (2017), equations 6 and 7 and figure 1
        - S. Kakade and J. Langford, *Approximately optimal approximate reinforcement learning* (2002): why a policy
          should not move far on old data
        - MiniMax, *MiniMax-M1* (2025), equations 4 and 5: CISPO
        """,
    )
    return


if __name__ == "__main__":
    app.run()
