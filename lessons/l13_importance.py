"""Lesson 13: Importance sampling.

50 minutes. After: lessons 4 and 8. Rows: E1.14. Corrections: 10.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="13 · Importance sampling")

with app.setup:
    from collections.abc import Sequence
    from itertools import islice

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import importance, returns, sample, weights
    from tabrl.lessons import correction_10, parts
    from tabrl.lessons.machine import GOOD, machine, repairing
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.types import Episode, F

    MDP, B = machine(0.9), repairing(0.5)  # the model, and the policy that acts
    RUNS, EPISODES = 30, 200
    KINDS = ("whole product", "per decision", "weighted")
    PALETTE = (COLOURS[1], COLOURS[4], COLOURS[0])


@app.cell(hide_code=True)
def _():
    parts.head(
        13,
        """
        - price a policy with episodes of another one, in three ways, by hand
        - say which of them is unbiased, and which has a spread that may be infinite
        - find out from the model, not from a sample, whether the variance is finite
        - say which ratio PPO uses, and what is lost and won by that
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Somebody else's experience

    Episodes were played by a **behaviour policy** $b$; we want to know what a **target policy** $\pi$ is worth.
    Averaging the returns would answer for $b$. But an episode that $\pi$ would play twice as often may be counted
    twice, and one that it would never play, not at all. The **weight** of an episode is how much more probable it is
    under $\pi$. The world's own probabilities are the same for both and cancel; what is left is one **ratio** for each
    action,

    $$\rho_t = \frac{\pi(a_t \mid s_t)}{b(a_t \mid s_t)}, \qquad W = \rho_0\, \rho_1 \cdots \rho_{T-1}.$$

    Three estimates are made of these:

    | estimate | of $n$ episodes | |
    |:--|:--|:--|
    | whole product | mean of $W G$ | unbiased |
    | per decision | mean of $\rho_0 r_0 + \gamma \rho_0 \rho_1 r_1 + \dots$ | unbiased; later actions do not count |
    | weighted | sum of $W G$ / sum of $W$ | never leaves the range of the returns seen; biased, less and less |

    ## The machine, by hand

    The behaviour repairs a worn machine half of the time, the target one time in four: $\rho = \tfrac12$ for repairing,
    $\tfrac{3/4}{1/2} = \tfrac32$ for running. A good machine is always run: $\rho = 1$. With $\gamma = \tfrac12$:

    $$\text{good} \xrightarrow{\;2\;} \text{worn} \xrightarrow{\;\text{repaired: } -1\;} \text{good}
    \xrightarrow{\;2\;} \text{worn} \xrightarrow{\;\text{run: } 1\;} \text{broken}$$

    | step | state | reward | $\rho$ | return $G$ | per-decision return $\rho_t (r_t + \gamma G_{t+1})$ |
    |:--|:--|:--|:--|:--|:--|
    | 3 | worn | 1 | $\tfrac32$ | 1 | $\tfrac32 \cdot 1 = 1.5$ |
    | 2 | good | 2 | 1 | $2 + \tfrac12 = 2.5$ | $2 + \tfrac12 \cdot 1.5 = 2.75$ |
    | 1 | worn | −1 | $\tfrac12$ | $-1 + 1.25 = 0.25$ | $\tfrac12 (-1 + \tfrac12 \cdot 2.75) = 0.1875$ |
    | 0 | good | 2 | 1 | $2 + 0.125 = 2.125$ | $2 + \tfrac12 \cdot 0.1875 = 2.09375$ |

    The whole product is $W = \tfrac12 \cdot \tfrac32 = \tfrac34$, so this episode says $W G = 1.59375$ in the first
    estimate and 2.09375 in the second; in the third it counts as three quarters of an episode with return 2.125. The
    first reward, 2, was paid before anything was decided: only the whole product takes a quarter of it away.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 1.8.4",
        r"""
        w(\tau) = \prod_{t=0}^{T} \frac{\pi(a_t \mid s_t)}{\mu(a_t \mid s_t)}, \qquad
        \mathbb{E}_{\tau \sim \mu} \big[w(\tau) \, R(\tau) \big] = \mathbb{E}_{\tau \sim \pi} \big[R(\tau) \big]
        """,
        r"""
        The source calls the behaviour $\mu$; here it is $b$, as $\mu$ is where episodes start. It needs to be known:
        the library keeps $\log b(a_t|s_t)$ in each episode, written down while acting. And it must be positive wherever
        $\pi$ is. `W[t]` are the products from step $t$ on, for the value of the state in that step.
        """,
        weights.ratios,
        weights.remaining_products,
        weights.per_decision_returns,
    )
    return


@app.cell
def _():
    r, discount = np.array([2.0, -1.0, 2.0, 1.0]), np.array([0.5, 0.5, 0.5, 0.0])
    rho = weights.ratios(np.log([1.0, 0.25, 1.0, 0.75]), np.log([1.0, 0.5, 1.0, 0.5]))
    _W, _G = weights.remaining_products(rho)[0], returns.discounted_sum(r, discount)[0]
    mo.md(f"""
    The library agrees: W = {_W:g}, W G = {_W * _G:g}, and per decision
    {weights.per_decision_returns(r, discount, rho).tolist()}.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(
        ["it grows a little", "it grows without limit, but only towards 1", "it is infinite on the way"]
    )
    parts.predict(
        r"""
        Now $\gamma = 0.9$, and the behaviour still repairs half of the time. At first the target is the same policy:
        all weights are 1. Let it repair more and more often, up to 0.95. All rewards lie between −1 and 2. What does
        the *exact* spread of the whole product estimate $W G$ do?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    x = mo.ui.slider(
        0, 0.95, 0.05, value=0.5, label="target: probability of repairing", show_value=True, full_width=True
    )
    x
    return (x,)


@app.cell
def _():
    played = list(islice(sample.episodes(MDP, B, np.random.default_rng(13)), RUNS * EPISODES))
    return (played,)


@app.function
def one_episode(x: Episode, pi: F) -> tuple[float, float, float]:
    """What an episode says from its start: W G, the per-decision return, and W."""
    with np.errstate(divide="ignore"):  # the target may never take an action
        rho = weights.ratios(np.log(pi[x.s[:-1], x.a]), x.logp)
    W, G = weights.remaining_products(rho)[0], returns.discounted_sum(x.r, x.discount)[0]
    return W * G, weights.per_decision_returns(x.r, x.discount, rho)[0], W


@app.function
def said(played: Sequence[Episode], p: float) -> F:
    """What every episode says about the target that repairs with probability p: (3,runs,episodes)."""
    pi = repairing(p)
    return np.array([one_episode(x, pi) for x in played]).T.reshape(3, RUNS, EPISODES)


@app.function
def estimates(y: F) -> F:
    """The three estimates of each run, (3,runs), from what its episodes say."""
    return np.array([y[0].mean(axis=1), y[1].mean(axis=1), y[0].sum(axis=1) / y[2].sum(axis=1)])


@app.function
def exact(p: float) -> tuple[float, F]:
    """V_pi of a good machine, and the exact standard deviation of what one episode says, by kind.

    That of the weighted estimate is the leading term: n times its variance, for many episodes n.
    """
    laws = [f(MDP, repairing(p), B) for f in (importance.trajectory, importance.per_decision, importance.weighted)]
    return float(laws[0].mean[GOOD]), np.sqrt([law.variance[GOOD] for law in laws])


@app.function
def draw_estimates(ax: Axes, found: F, mean: float, deviation: F) -> None:
    """Draw the estimates of all runs by kind, the exact value, and two exact standard deviations to each side."""
    low, high = -6.0, 24.0
    ax.axhline(mean, color=INK, ls="--", lw=1.4, label=rf"$V_\pi$(good) = {mean:.3f}, exact")
    for k, colour in enumerate(PALETTE):
        half = 2 * deviation[k] / np.sqrt(EPISODES)
        if np.isfinite(half):
            bottom, top = max(mean - half, low), min(mean + half, high)
            ax.fill_between([k - 0.35, k + 0.35], bottom, top, color=colour, alpha=0.2, lw=0)
        else:
            ax.text(k, high - 0.3, "exact variance\ninfinite", ha="center", va="top", fontsize=9, color=colour)
        at, y = k + np.linspace(-0.25, 0.25, RUNS), found[k]
        inside = y <= high
        ax.plot(at[inside], y[inside], "o", ms=4, color=colour)
        if not inside.all():
            ax.plot(at[~inside], np.full((~inside).sum(), high), "^", ms=6, color=colour, clip_on=False)
    ax.plot([], [], color=GREY, alpha=0.3, lw=8, label="exact mean ± 2 std of a run")
    ax.set_xticks(range(3), KINDS)
    ax.set(xlim=(-0.5, 2.5), ylim=(low, high), ylabel="estimate (reward); ▲ above the axis")
    ax.set_title(f"{RUNS} runs of {EPISODES} episodes", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="lower left")
    tidy(ax, axis="y")


@app.function
def draw_spread(ax: Axes, p: float, y: F) -> None:
    """Draw the exact spread of one episode from the behaviour to the target, and what all episodes show."""
    grid = np.linspace(min(p, 0.5), max(p, 0.5), 76)
    lines = np.array([exact(float(q))[1] for q in grid])
    for k, (name, colour, style) in enumerate(zip(KINDS, PALETTE, ("-", (0, (6, 2)), (0, (2, 1.5))), strict=True)):
        line = np.where(np.isfinite(lines[:, k]), lines[:, k], np.nan)
        label = f"{name}, exact" + (" (many episodes)" if k == 2 else "")
        ax.plot(grid, line, color=colour, ls=style, lw=1.8, label=label)
        if k < 2:
            ax.plot(p, y[k].std(ddof=1), "os"[k], ms=7, mfc="none", mew=1.6, color=colour,
                    label=f"{name}, {RUNS * EPISODES:,} episodes")  # fmt: skip
    gone = grid[np.isinf(lines[:, 0])]
    if len(gone):
        ax.axvspan(gone[0], gone[-1] + 1e-3, color=PALETTE[0], alpha=0.1, lw=0)
        at, side = (gone.mean(), "center") if p > 0.5 else (0.02, "left")
        ax.annotate("product and weighted:\nvariance infinite", (at, 1.25), ha=side, fontsize=9)
    ax.set(yscale="log", ylim=(1, 1000), xlim=(-0.02, 1), xlabel="target: probability of repairing",
           ylabel="standard deviation of an episode (reward)")  # fmt: skip
    ax.set_title("Spread, from the behaviour (0.5) to the target", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    tidy(ax)


@app.cell(hide_code=True)
def _(played, x):
    y = said(played, x.value)
    found, (_mean, _std) = estimates(y), exact(x.value)
    _fig = new_figure(10.5, 4.4)
    _left, _right = _fig.subplots(1, 2)
    draw_estimates(_left, found, _mean, _std)
    draw_spread(_right, x.value, y)
    _run = [f"{y:.3f}" if np.isfinite(y) else "infinite" for y in _std / EPISODES**0.5]
    _rows = "\n".join(
        f"    | {name} | {_run[k]} | {found[k].mean():.3f} | {found[k].std(ddof=1):.3f} |"
        f" {abs(found[k] - _mean).max():.2f} |"
        for k, name in enumerate(KINDS)
    )
    _W, _near = y[2].ravel(), "" if np.isfinite(_std[0]) else " (± means nothing where the variance is infinite)"
    _radii = importance.radii(MDP, repairing(x.value), B)
    _table = f"""
    | target {x.value:g}, $V_\\pi$ = {_mean:.4f} | exact std of a run | mean of {RUNS} runs | std of {RUNS} runs | worst run is off by |
    |:--|--:|--:|--:|--:|
{_rows}

    <small>Mean weight of {_W.size:,} episodes: {_W.mean():.3f} ± {2 * standard_error(_W):.3f}{_near}, where 1 is exact.
    Largest weight: {_W.max():.4g}. The spectral radius, which must be below 1, is {_radii.trajectory:.4f} for the
    product and {_radii.per_decision:.4f} per decision.</small>
    """  # noqa: E501
    _alt = f"Target {x.value:g}: three estimates of 30 runs beside the exact value, and their exact spread"
    mo.vstack([parts.picture(_fig, _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "it is infinite on the way",
        r"""
        From 2/3 on the variance is infinite, and it is at 0, too. No sample says so. The runs still give numbers; most
        are too *low*, because the rare episodes that carry the average did not occur in them, and now and then one did,
        and its run is far too high. That the rewards are bounded does not help, because the weights are not. The
        weighted estimate stays within the returns seen; but no interval can be put around it either, and at 0.8 and
        beyond most of its runs are too low as well.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## When is the variance finite? By hand

    The variance needs the mean of $\rho^2$, step after step. Multiply it with the probabilities of moving, and a matrix
    appears whose powers say how the squared weights grow along an episode:

    $$B(s, s') = \sum_a \frac{\pi(a|s)^2}{b(a|s)}\, P(s'|s,a)$$

    For the machine, good and worn, with a target that repairs with probability $x$ and a behaviour of $\tfrac12$:

    $$B = \begin{pmatrix} \tfrac12 & \tfrac12 \\[6pt] 2x^2 & (1-x)^2 \end{pmatrix}$$

    The powers shrink as long as the largest eigenvalue is below 1. It is 1 where $\det(I - B) = 0$:

    $$\tfrac12 \left(1 - (1-x)^2\right) - \tfrac12 \cdot 2x^2 = x - \tfrac32 x^2 = 0
    \quad\Longleftrightarrow\quad x = 0 \ \text{ or }\ x = \tfrac23 .$$

    So the whole product has a finite variance for $0 < x < \tfrac23$ only. Per decision, what counts is $\gamma^2 B$,
    because a reward $t$ steps away has the weight $\gamma^{2t}$ in the variance: with $\gamma = 0.9$ that allows
    targets up to about 0.95. At $\gamma = 1$ both conditions are the same.
    """)
    return


@app.function
def correction_figure() -> Figure:
    """The experiment of correction 10 with fewer episodes: bias and spread of one-step ratios, missing support."""
    mdp, b = correction_10.world(), correction_10.behaviour()
    found, fig = correction_10.experiment(runs=correction_10.RUNS, episodes=100), new_figure(12, 8)
    axes = fig.subplots(2, 2).ravel()
    grid = np.append(np.geomspace(0.01, 0.1, 11), np.linspace(0.11, 1, 60))
    mean = np.array([correction_10.exact(mdp, correction_10.target(float(q)), b).mean for q in grid])
    correction_10.draw_means(axes[0], grid, mean, found)
    correction_10.draw_biases(axes[1], grid, mean)
    half = correction_10.target(0.5)
    correction_10.draw_horizons(
        axes[2], correction_10.horizons(mdp, half, b, 60), importance.radii(mdp, half, b).trajectory
    )
    lost, y = correction_10.silent(mdp, half, correction_10.timid()), found.silent
    lines = {"per decision": (y[0], lost.per_decision), "weighted": (y[1], lost.weighted)}
    correction_10.draw_running(axes[3], lost.J, lines, (-1, 12))
    axes[3].set_ylabel("estimate of J(π) (reward)")
    axes[3].set_title("b never goes on from room 1: silently wrong", fontsize=10)
    return fig


@app.cell(hide_code=True)
def _():
    parts.correction(
        10,
        r"""
        The source writes the product over the whole episode, and goes on to PPO as if it used that. Two things have to
        be said.

        **PPO uses the ratio of one step.** The states stay those that the old policy visited. On *rewards* this is
        wrong to first order in the change of the policy; on *advantages* only to second order (upper right: the slopes
        are 1 and 2). So it is a good picture of $J$ close to the old policy and a bad one far away, which is why PPO
        also has to stay close (lessons 14 and 15). What is won: the spread stays bounded, while that of the product
        grows exponentially with the length of the episode (lower left).

        **The behaviour must try whatever the target does.** Where it does not, every estimate settles quietly at
        another number, which is exact here as well (lower right). The one symptom is a mean weight below 1. With the
        model at hand the library refuses.

        The world is a corridor of four rooms, back or on; θ leads from the behaviour (0) to always on (1).
        """,
        correction_figure(),
        "Estimates of J with products and with one-step ratios over the distance of the policies; their biases; their "
        "variance over the length; estimates without support",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        13,
        """
        Write the per-decision returns. Mind which way up the ratio is, that it multiplies the reward *and* what comes
        after, and that no reward is weighed by actions that came later.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### What does the weighted estimate say after a single episode, and whose value is that on average?

        $W G / W = G$, whatever the weight: the return of the behaviour. So after one episode it is unbiased for the
        wrong policy. The bias goes away like $1/n$, as weights of many episodes begin to tell them apart.

        ### The target always takes one of two actions, the behaviour takes each half of the time, episodes have 20 steps. What do the weights look like?

        One episode in $2^{20} \approx$ 1,050,000 follows the target all the way; its weight is $2^{20}$. All others have
        weight 0. With 1,000 episodes the product estimate is almost surely 0, and the weighted one is 0/0.

        ### In 10,000 episodes the mean weight is 0.6. Name two things that may be wrong.

        The behaviour never takes some action of the target: then 0.6 is not chance, and more episodes will not help. Or
        the weights have a heavy tail, and the few heavy episodes that bring the mean up to 1 have not come yet. The
        first can be seen in the policies, the second in the radius of $B$; neither in a standard error.
        """  # noqa: E501
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 1.8.4",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 5.5 and
          5.9, equations 5.3 to 5.6, and example 5.5, where the variance is infinite
        - D. Precup, R. S. Sutton and S. Singh, *Eligibility traces for off-policy policy evaluation* (2000): per
          decision
        - S. Kakade and J. Langford, *Approximately optimal approximate reinforcement learning* (2002): one-step ratios
          on advantages
        """,
    )
    return


if __name__ == "__main__":
    app.run()
