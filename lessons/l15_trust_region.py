"""Lesson 15: PPO-KL, natural gradient and TRPO.

50 minutes. After: lesson 14. Rows: E1.16. Corrections: 2.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="15 · PPO-KL, natural gradient and TRPO")

with app.setup:
    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import losses, natural
    from tabrl.decisions import Batch, drawn, expected
    from tabrl.gradient import Exact, exact
    from tabrl.lessons import correction_2, parts
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish, level
    from tabrl.lessons.machine import REPAIR, RUN, WORN, machine, repairing
    from tabrl.plots import new_figure
    from tabrl.plots.grid import INK
    from tabrl.policy import kl, softmax
    from tabrl.summary import standard_error
    from tabrl.surrogate import mean_bound, surrogate, trpo_bound_kl
    from tabrl.trpo import TrustStep, trpo_step
    from tabrl.types import F

    MDP, OLD = machine(0.8), repairing(0.5)
    DECISIONS, BATCHES, SEED = 20, 100, 15


@app.cell(hide_code=True)
def _():
    parts.head(
        15,
        """
        - measure how far apart two policies are, by the KL in both directions, and say why it is not symmetric
        - take a natural gradient step by hand, and say what it has over a plain one
        - say what the penalty of PPO-KL, the constraint of TRPO and the bound behind both promise, and what not
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## How far is far?

    The clip of lesson 14 takes the gain away, and promises nothing. Here are two ways to hold a policy near the old one
    in earnest. Both measure distance by what the policies *do*, with the Kullback–Leibler divergence of a state

    $$\mathrm{KL}(\pi_{\text{old}} \,\|\, \pi) =
      \sum_a \pi_{\text{old}}(a \mid s) \log \frac{\pi_{\text{old}}(a \mid s)}{\pi(a \mid s)},$$

    averaged over the states that the old policy visits. It is 0 where they agree, infinite where $\pi$ gives up an
    action of the old policy, and not symmetric.

    - **PPO-KL** climbs on $\rho A - \beta\,\mathrm{KL}$. No single β is right for all problems, so it **adapts**: twice
      as large after an update that went too far, half as large after one that hardly moved.
    - **TRPO** climbs as far as $\mathrm{KL} \le \delta$ allows. The way it takes is the **natural gradient**: the
      direction that gains most per KL, not per length of the parameters.

    For a softmax table the natural gradient is something old friends know: it is the advantage. A step of length η is

    $$\theta \leftarrow \theta + \eta A, \qquad\text{so}\qquad \pi'(a \mid s) \propto \pi(a \mid s) e^{\eta A(s, a)} .$$

    The plain gradient is $d(s)\, \pi(a \mid s)\, A(s, a)$ instead: it is small for a good
    action that is rare, and in a state that is.

    ## The machine, by hand

    Take the machine of lesson 1 with $\gamma = 0.8$, and let the old policy repair a worn machine every other time.
    Then $V(\text{good}) = 5$ and $V(\text{worn}) = 2.5$. When it is worn

    $$Q(\text{run}) = 1 + 0.8 \cdot \tfrac12 \cdot 2.5 = 2, \qquad Q(\text{repair}) = -1 + 0.8 \cdot 5 = 3,
      \qquad A = \mp \tfrac12 .$$

    A natural step of length $\eta = \ln 3$ multiplies the two chances by $3^{-1/2}$ and $3^{1/2}$: they were 1 to 1,
    and are 1 to 3. The machine is now repaired with probability ¾. How far was that?

    | direction | by hand | nats |
    |:--|:--|--:|
    | KL(old ‖ new) | $\tfrac12 \ln \tfrac{1/2}{1/4} + \tfrac12 \ln \tfrac{1/2}{3/4} = \tfrac12 \ln \tfrac43$ | 0.144 |
    | KL(new ‖ old) | $\tfrac14 \ln \tfrac{1/4}{1/2} + \tfrac34 \ln \tfrac{3/4}{1/2}$ | 0.131 |
    | near the old policy, both | $\tfrac12 \eta^2 \operatorname{Var}(A) = \tfrac12 (\ln 3)^2 \cdot \tfrac14$ | 0.151 |

    The last row is the rule of thumb of this lesson: **the KL grows with the square of the step.**
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.8.6",
        r"""
        \operatorname{argmax} \mathbb{J}(\pi_{\theta}) = \mathbb{E}_{\pi_{old}} \left[\left(
        \frac{\pi_{\theta}(a_t|s_t)}{\pi_{old}(a_t|s_t)} A^{GAE}(s_t, a_t) -
        \beta \cdot \operatorname{KL}(\pi_{\theta}||\pi_{old}) \right) \log \pi_{\theta}(a_t|s_t) \right]
        """,
        r"""
        The direction of the KL and the factor $\log \pi$ are corrected below. In the library the loss of one decision
        has $\rho - 1 - \log \rho$ for a penalty: never negative, and its mean over the actions of the old policy is
        KL(old ‖ new). The source has no equation for the natural gradient and TRPO; these are the library's.
        """,
        losses.ppo_kl,
        losses.adaptive_beta,
        natural.npg_step,
        trpo_step,
    )
    return


@app.function
def quantities(p: float) -> Exact:
    """Visits and advantages of the policy that repairs with probability p."""
    return exact(MDP, repairing(p))


@app.cell
def _():
    _new = natural.npg_step(OLD, quantities(0.5).advantage, np.log(3))
    _rows = []
    for _p in (0.5, 0.1, 0.01, 0.001):
        _x = quantities(_p)
        _A = _x.advantage[WORN, REPAIR]
        _plain = _x.d[WORN] * _p * _A
        _after = natural.npg_step(_x.pi, _x.advantage, np.log(3))[WORN, REPAIR]
        _rows.append(f"| {_p:g} | {_plain:.5f} | {_A:.3f} | {_after:.4f} |")
    mo.md(
        "\n".join(
            [
                f"The library agrees: after the step the chance to repair is {_new[WORN, REPAIR]:.4f}, and the",
                f"divergences are {kl(OLD, _new)[WORN]:.4f} and {kl(_new, OLD)[WORN]:.4f}. And this is how the two",
                "gradients fare when repairing, though better, is rare:",
                "",
                "| chance to repair | plain gradient | natural gradient | chance after a natural step, η = ln 3 |",
                "|--:|--:|--:|--:|",
                *_rows,
            ]
        )
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(rf"""
    ## One step within a trust region

    TRPO takes the natural gradient, goes as far as the KL allows, and shortens the step until it is inside and a
    gain. Below: one such step from the old policy, with exact advantages, and the steps that {BATCHES} batches of
    {DECISIONS} decisions give. States come as often as the old policy visits them (discounted), actions are the old
    policy's, and the advantage of a decision is its TD error under the exact $V$, whose mean is $A$. (The KL of a
    batch is the mean over its own states.)

    The orange line is the promise: from TRPO's paper, $J(\pi) \ge L(\pi) - C \max \mathrm{{KL}}$ with
    $C = 4 \gamma \max|A| / (1 - \gamma)^2$ and $L$ the surrogate, $J$ as if the visits did not change. The dotted one
    is a sharper bound, from the mean total variation.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["twice as far", "four times as far", "sixteen times as far"])
    parts.predict(
        "Make δ four times as large. How much further does the step go, measured in the preferences θ?",
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    _steps = [0.01, 0.02, 0.04, 0.08, 0.16]
    delta = mo.ui.slider(steps=_steps, value=0.01, label="δ, nats", show_value=True, full_width=True)
    delta
    return (delta,)


@app.function
def batches() -> list[Batch]:
    """Decisions of the old policy where it is, with their TD errors for advantages."""
    rng, x = np.random.default_rng(SEED), quantities(0.5)
    visits = np.where(MDP.terminal, 0.0, x.d)
    found = []
    for _ in range(BATCHES):
        s = rng.choice(MDP.S, DECISIONS, p=visits / visits.sum())
        a = (rng.random(DECISIONS) >= OLD[s, RUN]).astype(int)
        after = (rng.random((DECISIONS, 1)) > MDP.P[s, a].cumsum(axis=1)[:, :-1]).sum(axis=1)
        found.append(drawn(s, a, np.log(OLD[s, a]), MDP.r[s, a] + MDP.gamma * x.V[after] - x.V[s]))
    return found


@app.function
def step(batch: Batch | None, delta: float) -> TrustStep:
    """A step of TRPO from the old policy, on a batch, or with exact visits and advantages."""
    if batch is None:
        x = quantities(0.5)
        batch = expected(x.pi, np.where(MDP.terminal, 0.0, x.d), x.advantage)
    return trpo_step(np.zeros((MDP.S, MDP.A)), batch, delta, legal=MDP.legal)


@app.function
def repairs(x: TrustStep) -> float:
    """The chance to repair after a step."""
    return float(softmax(x.theta, MDP.legal)[WORN, REPAIR])


@app.function
def longer(x: TrustStep) -> float:
    """How much the preference for repairing has grown over that for running."""
    return float(x.theta[WORN, REPAIR] - x.theta[WORN, RUN])


@app.function
def draw_distance(ax: Axes, one: TrustStep, many: list[TrustStep], delta: float) -> None:
    """Draw the mean KL against the step in the preferences, its square law, and the steps."""
    x = np.linspace(-2.5, 2.5, 201)
    pi = np.array([softmax(np.array([-y / 2, y / 2])) for y in x])
    d = np.where(MDP.terminal, 0.0, quantities(0.5).d)
    share = d[WORN] / d.sum()
    ax.plot(x, share * kl(np.array([0.5, 0.5]), pi), color=RIGHT, lw=1.8, label="mean KL(old‖new), exact")
    ax.plot(x, share * x**2 / 8, color=INK, ls=":", lw=1.4, label="its square law near 0")
    level(ax, delta, -0.45, "δ = {:g}")
    ax.plot([longer(y) for y in many], [y.kl for y in many], "o", color=WRONG, ms=3, alpha=0.4,
            label=f"steps from {BATCHES} batches")  # fmt: skip
    ax.plot(longer(one), one.kl, "D", color=INK, ms=7, label="step with exact advantages")
    ax.set(xlim=(-2.5, 2.5), ylim=(-0.008, 0.4))
    finish(ax, "step: growth of θ(repair) − θ(run)", "mean over visited states (nats)", "Distance", legend="upper left")


@app.function
def after(many: list[TrustStep]) -> F:
    """J after each step; many steps end at the same policy."""
    p, at = np.unique([repairs(x) for x in many], return_inverse=True)
    return np.array([quantities(y).J for y in p])[at]


@app.function
def curves() -> dict[str, F]:
    """J, the surrogate and two lower bounds over the chance to repair, p."""
    p = np.linspace(0.08, 0.95, 59)
    new = [repairing(y) for y in p]
    return {
        "p": p,
        "J": np.array([exact(MDP, pi).J for pi in new]),
        "L": np.array([surrogate(MDP, pi, OLD) for pi in new]),
        "TRPO": np.array([trpo_bound_kl(MDP, pi, OLD) for pi in new]),
        "sharper": np.array([mean_bound(MDP, pi, OLD) for pi in new]),
    }


@app.function
def draw_promise(ax: Axes, y: dict[str, F], one: TrustStep, many: list[TrustStep]) -> None:
    """Draw J, the surrogate and two lower bounds against the chance to repair, and the steps."""
    ax.plot(y["p"], y["J"], color=RIGHT, lw=2, label="J, exact")
    ax.plot(y["p"], y["L"], color=OTHER, ls="--", label="surrogate L, exact")
    ax.plot(y["p"], y["TRPO"], color="#e76300", lw=1.6, label="bound of TRPO’s paper")
    ax.plot(y["p"], y["sharper"], color="#e76300", ls=":", label="sharper bound")
    ax.plot([repairs(x) for x in many], after(many), "o", color=WRONG, ms=3, alpha=0.4)
    ax.plot(repairs(one), quantities(repairs(one)).J, "D", color=INK, ms=7)
    ax.set(xlim=(0.08, 0.95), ylim=(4.0, 6.2))
    finish(ax, "chance to repair in the new policy", "J (reward)", "Gain, and what is promised", legend="upper left")


@app.function
def figure(y: dict[str, F], delta: float, many: list[TrustStep]) -> Figure:
    """Distance and gain of steps of TRPO."""
    fig, one = new_figure(11, 4.5), step(None, delta)
    left, right = fig.subplots(1, 2)
    draw_distance(left, one, many, delta)
    draw_promise(right, y, one, many)
    return fig


@app.cell(hide_code=True)
def _():
    drawn_batches, known = batches(), curves()
    return drawn_batches, known


@app.cell(hide_code=True)
def _(delta, drawn_batches, known):
    _one, _many = step(None, delta.value), [step(x, delta.value) for x in drawn_batches]
    _J, _far = after(_many), np.array([longer(x) for x in _many])
    _before, _after = quantities(0.5).J, after([_one])[0]
    _table = f"""
    | δ = {delta.value:g} | exact advantages | {BATCHES} batches |
    |:--|--:|--:|
    | step in θ | {longer(_one):.4f} | {_far.mean():.4f} ± {2 * standard_error(_far):.4f} |
    | largest mean KL(old ‖ new) | {_one.kl:.5f} | {max(x.kl for x in _many):.5f} |
    | J after the step, {_before:g} before | {_after:.4f} | {_J.mean():.4f} ± {2 * standard_error(_J):.4f} |
    | steps that lower J | {int(_after < _before)} of 1 | {(_before > _J).sum()} of {BATCHES} |

    <small>± is two standard errors of the mean over the batches.</small>
    """
    _alt = f"Distance and gain of steps of TRPO where delta is {delta.value:g}"
    mo.vstack([parts.picture(figure(known, delta.value, _many), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    _p = np.linspace(0.5, 0.52, 41)
    _best = _p[np.argmax([trpo_bound_kl(MDP, repairing(y), OLD) for y in _p])]
    parts.verdict(
        guess,
        "twice as far",
        rf"""
        The KL grows with the square of the step, so four times the KL is twice the step, until the square law ends.
        Two more things to see. With exact advantages no step lowers J, whatever δ is; with drawn ones a step can go
        the wrong way, and it goes **as far as any other**, since δ says how far, and not whether. And the bound of
        the paper is safe but timid: it is largest where the machine is repaired with probability {_best:.4f} instead
        of 0.5, and promises no gain beyond about twice that step. That is why nobody uses it as it stands; δ is
        chosen by hand.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    _fig, _spare = new_figure(14, 4.5), new_figure().subplots(1, 2)
    _divergences, _factor, _rule = _fig.subplots(1, 3)
    correction_2.draw_divergences(_divergences)
    correction_2.draw_factor(_factor)
    _settings = [(scale, adaptive) for scale in correction_2.SCALES for adaptive in (True, False)]
    _traces = {(x, y): correction_2.ppo_kl(correction_2.lake(x), 1.0, 25, adaptive=y) for x, y in _settings}
    correction_2.draw_rule([_rule, *_spare], _traces)  # of its three pictures the first
    _rule.set_title(f"FrozenLake, target {correction_2.TARGET:g}", fontsize=10)
    parts.correction(
        2,
        r"""
        The printed penalty differs from PPO's in three ways.

        1. **Direction.** PPO has KL(old ‖ new). Near the old policy both directions agree; far away they do not.
           KL(old ‖ new) is infinite for a policy that gives up an action, so every old action keeps a share of the
           order of β. KL(new ‖ old) lets bad actions vanish exponentially (left).
        2. **The factor log π.** It is negative, so it turns the penalty into a reward for leaving, and there is no
           optimum (middle).
        3. **The rule for β** is missing. With a fixed β, how far an update goes depends on the size of the rewards. The
           adaptive rule finds its β whatever that size is (right, on FrozenLake with rewards of 1 and of 100).

        Also, the source says that PPO introduces GAE. GAE is older, with a paper of its own: lesson 12.
        """,
        _fig,
        "Both directions of the KL, what the factor log pi does, and KL under fixed and adaptive beta",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        15,
        """
        Write the divergence of two policies, state by state. Mind the direction, and the actions that the old policy
        never takes.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### PPO-KL with a large β, TRPO with a small δ: are these the same?

        For one update there is a β that leads to the same policy as a given δ: β is the price of distance at which
        the constraint would be met. But that price changes from update to update, with the size of the advantages; a
        fixed β means another δ each time, a fixed δ another β.

        ### Why does the natural gradient not depend on how the policy is written down?

        The KL compares policies, not parameters. Stretch a parameter by ten, and the plain gradient in it is a tenth,
        whose step moves the policy a hundredth as far. "The largest gain within a given KL" asks about policies alone.

        ### A network has millions of parameters. Where does TRPO get F⁻¹ from?

        Nowhere. It needs only the direction $x$ with $Fx = \nabla J$, and ten or so products $Fv$ give it well
        enough, by conjugate gradients (`tabrl.trpo.conjugate_gradient`). A product costs about as much as two
        gradients. PPO leaves even that out, which is one reason why language models are trained with the clip.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.8.6",
        """
        - J. Schulman, S. Levine, P. Moritz, M. Jordan and P. Abbeel, *Trust region policy optimization* (2015)
        - J. Schulman et al., *Proximal policy optimization algorithms* (2017), equation 8 and section 4
        - S. Kakade, *A natural policy gradient* (2001); A. Agarwal et al., *On the theory of policy gradient methods*
          (2021), lemma 15
        - J. Achiam, D. Held, A. Tamar and P. Abbeel, *Constrained policy optimization* (2017), corollary 1: the sharper
          bound
        """,
    )
    return


if __name__ == "__main__":
    app.run()
