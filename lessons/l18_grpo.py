"""Lesson 18: GRPO.

45 minutes. After: lesson 17. Rows: E2.3, E2.4. Corrections: 13, 15.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="18 · GRPO")

with app.setup:
    from fractions import Fraction
    from typing import Any

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl.advantages import group_advantages
    from tabrl.lessons import correction_13, correction_15, parts
    from tabrl.losses import aggregate, ppo_clip
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.tokens import TokenTask, groups, rates
    from tabrl.tokens.counts import Estimator
    from tabrl.tokens.recursion import evaluate
    from tabrl.types import F

    FORMS: dict[str, dict[str, Any]] = {
        "GRPO: own mean, sample std": {"std": "sample", "eps": 1e-4},
        "Dr. GRPO: own mean, no std": {"std": "none"},
        "RLOO: mean of the others, no std": {"std": "none", "leave_one_out": True},
    }
    CHANCES = np.array([0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95])
    LARGEST, DRAWN = 32, 1500  # answers in a group; groups of each chance


@app.cell(hide_code=True)
def _():
    parts.head(
        18,
        """
        - compute the advantages of a group of answers, and the update they make, with a pencil
        - say which prompts GRPO pushes hardest, and which choice of a divisor decides it
        - tell what the clip is for, and why with one update per batch it is for nothing
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## A baseline without a critic

    PPO subtracts from each reward what a critic expected. For a language model the critic is a second network as large
    as the first. GRPO does without: it asks the policy for $G$ answers to the *same* prompt, a **group**, and compares
    each answer with the others. Their mean reward estimates the value of the prompt, and nothing has to be learnt for
    it. What is lost: a mean of a few answers is noisy, and it is one number for the whole answer, where a critic has
    one for each token.

    An answer better than its group has a positive **advantage**, and all its tokens are made likelier; a worse one has
    a negative advantage. GRPO then divides by the group's standard deviation, so that advantages have the same size
    whatever the unit of the reward. What that division really does is the subject of this lesson.

    ## Three tokens, by hand

    A prompt asks for the letter a, and an answer is one of three letters. The policy says

    $$\pi(\text{a}) = \tfrac14 = p, \qquad \pi(\text{b}) = \tfrac12, \qquad \pi(\text{c}) = \tfrac14 .$$

    We draw $G = 4$ answers, a, b, b, c, and the verifier pays 1, 0, 0, 0. The mean is $\tfrac14$, the squares of the
    differences add up to $\tfrac9{16} + 3 \cdot \tfrac1{16} = \tfrac34$. The *sample* standard deviation divides that
    by $G - 1 = 3$: it is $\tfrac12$.

    | answer | reward | less the mean | over the std | less the mean of the others |
    |:--|--:|--:|--:|--:|
    | a | 1 | 3/4 | 3/2 | 1 |
    | b | 0 | −1/4 | −1/2 | −1/3 |
    | b | 0 | −1/4 | −1/2 | −1/3 |
    | c | 0 | −1/4 | −1/2 | −1/3 |

    The update is the mean of advantage times score. In the logits the score of an answer is 1 at its own letter, less
    $\pi$; as the advantages of a group add up to 0, $\pi$ drops out, and the update is

    $$\tfrac14\left(\tfrac32, -\tfrac12 - \tfrac12, -\tfrac12\right) = \left(\tfrac38, -\tfrac14, -\tfrac18\right).$$

    The gradient of $p$ itself is $p\,(1 - p, -\pi(\text{b}), -\pi(\text{c})) = \left(\tfrac3{16}, -\tfrac18,
    -\tfrac1{16}\right)$: the same direction, half as long. For another draw it is another vector, and for the draw
    b, b, c, b it is nothing at all: in a group of equal rewards all advantages are 0.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 2.2",
        r"""
        L(\theta) = \mathbb{E}\; \frac1G \sum_{i=1}^{G} \frac1{|o_i|} \sum_{t=1}^{|o_i|}
        \min\left(r_\theta(q, o_i)\, \hat A_{i,t},\; \mathrm{clip}(r_\theta(q, o_i), 1 - \epsilon, 1 + \epsilon)\,
        \hat A_{i,t}\right) - \beta D_{KL}[\pi_\theta \| \pi_{ref}], \qquad
        \hat A_{i,t} = \frac{r_i - \mathrm{mean}(r)}{\mathrm{std}(r)}
        """,
        r"""
        Print leaves a few things to be decided; the library says them. The ratio is that of the **token**,
        $\rho_{i,t} = \pi_\theta(o_{i,t}|\dots) / \pi_{old}(o_{i,t}|\dots)$. The std is that of the sample, plus a small
        $\varepsilon$, and a group of equal rewards gives exactly 0 and not 0/0. The mean is first over the tokens of an
        answer, then over answers: `aggregate(…, how="sequence")`; lesson 20 tries others. The KL is lesson 19.
        """,
        group_advantages,
        ppo_clip,
    )
    return


@app.function
def letters() -> TokenTask:
    """One prompt, three letters, and the first one is right."""
    return TokenTask("letters", ("a", "b", "c"), ("say a",), 1, lambda prompt, tokens: 1.0 * (tokens[:, 0] == 0))


@app.function
def fractions(x: F) -> str:
    """Numbers as small fractions."""
    return ", ".join(str(Fraction(float(v)).limit_denominator(1000)) for v in x)


@app.cell
def _():
    _r, _group, _logp = np.array([1.0, 0, 0, 0]), np.zeros(4, int), np.log([[0.25, 0.5, 0.25]])
    _over = group_advantages(_r, _group, eps=0.0)
    _others = group_advantages(_r, _group, std="none", leave_one_out=True)
    _score = np.eye(3)[[0, 1, 1, 2]] - np.exp(_logp)
    _tree = letters().tree
    _mean = groups.expected_gradient(_tree, _logp, Estimator(4, eps=0.0))[0]
    _gradient = evaluate(_tree, _logp).slope[0]
    _ratio = (_mean / _gradient)[0]
    _w = rates.w(0.25, 4, std="sample")
    mo.md(f"""
    The library agrees, and adds what no single draw shows, the mean over **all** groups of four:

    | | |
    |:--|:--|
    | advantages over the std | {fractions(_over)} |
    | less the mean of the others | {fractions(_others)} |
    | update of this group | {fractions(_over @ _score / 4)} |
    | gradient of p | {fractions(_gradient)} |
    | mean update of all groups, over the gradient of p | {_ratio:.6f} |
    | `rates.w(1/4, 4)`, the closed form below | {_w:.6f} |
    | loss at ratio 1: −mean of the advantages | {abs(aggregate(ppo_clip(0 * _over, 0 * _over, _over)[:, None], np.ones((4, 1)), how="sequence")):g} |

    The last line is no mistake: at ratio 1 the loss of a group is always 0. Its *gradient* is what counts; a curve of
    the loss says nothing about learning.
    """)  # noqa: E501
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## How much a prompt counts

    Rewards are 0 and 1, a prompt is answered rightly with probability $p$, and $K$ of its $G$ answers are right.
    Average the update over all groups that can be drawn, and what remains is the true gradient of $p$ times a number:

    $$\mathbb{E}[\text{update}] = w_G(p)\, \nabla p, \qquad
    w_G(p) = \frac{G - 1}{G}\; \mathbb{E}\left[\frac1{s_K + \varepsilon}\right], \quad K - 1 \sim
    \text{Binomial}(G - 2,\, p),$$

    where $s_K$ is the std of a group with $K$ right answers. Why: one right and one wrong answer are what moves the
    policy; the other $G - 2$ only decide what the std is. Without the division $w = (G - 1)/G$ for every prompt, and
    with the mean of the *other* answers as baseline it is 1: the exact gradient. (All answers are taken to be equally
    long here; else $1/|o_i|$ has a say too, and that is for lesson 20.)
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(parts.listing(rates.w))
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["those answered rightly half of the time", "the very hard and the very easy", "none"])
    parts.predict(
        r"""
        With two answers in a group the three lines on the left are flat: all prompts count alike. Turn $G$ up. Which
        prompts does the division by the std favour?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    G = mo.ui.slider(2, LARGEST, 1, value=2, label="answers in a group G", show_value=True, full_width=True)
    G
    return (G,)


@app.cell
def _():
    luck = np.random.default_rng(18).random((len(CHANCES), DRAWN, LARGEST))
    return (luck,)


@app.function
def sampled(luck: F, G: int, form: dict[str, Any]) -> F:
    """What groups of G drawn answers make of the gradient of p: (CHANCES,DRAWN), their mean is w.

    The score of the choice between right and wrong is r - p, and its mean square p (1 - p) is the gradient.
    """
    r = (luck[..., :G] < CHANCES[:, None, None]).astype(np.float64)
    A = group_advantages(r.ravel(), np.arange(r.size) // G, **form).reshape(r.shape)
    p = CHANCES[:, None]
    return np.asarray((A * (r - p[..., None])).mean(axis=2) / (p * (1 - p)))


@app.function
def draw_weights(ax: Axes, G: int, luck: F) -> None:
    """Draw the weight of a prompt against its chance of success: exact lines, drawn groups, the limit."""
    p = np.linspace(0.02, 0.98, 193)
    for i, (name, form) in enumerate(FORMS.items()):
        colour, y = (COLOURS[1], COLOURS[3], COLOURS[0])[i], sampled(luck, G, form)
        ax.plot(p, rates.w(p, G, **form), color=colour, lw=1.8, label=f"{name}, exact")
        ax.errorbar(CHANCES + 0.008 * (i - 1), y.mean(axis=1), 2 * standard_error(y), fmt="os^"[i], ms=4, capsize=2,
                    lw=1, color=colour)  # fmt: skip
    ax.plot(p, 1 / np.sqrt(p * (1 - p)), color=INK, ls="--", lw=1.2, label="1/√(p(1 − p)): GRPO as G → ∞")
    ax.set(xlabel="chance p of a right answer", ylabel="weight w of the prompt: mean update / ∇p")
    ax.set(xlim=(0, 1), ylim=(0, 7.4))
    ax.set_title(f"G = {G}; points: {DRAWN:,} groups ± 2 se", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5, loc="upper center")
    tidy(ax)


@app.function
def draw_groups(ax: Axes, G: int, luck: F) -> None:
    """Draw the share of flat groups against p, exact and counted."""
    p = np.linspace(0, 1, 201)
    k = (luck[..., :G] < CHANCES[:, None, None]).sum(axis=2)
    flat = ((k == 0) | (k == G)).astype(np.float64)
    ax.plot(p, 1 - rates.kept_share(p, G), color=COLOURS[4], lw=1.8, label=f"G = {G}, exact: $p^G + (1 - p)^G$")
    ax.errorbar(CHANCES, flat.mean(axis=1), 2 * standard_error(flat), fmt="o", ms=4, capsize=2, lw=1,
                color=COLOURS[4], label=f"{DRAWN:,} groups ± 2 se")  # fmt: skip
    ax.plot(p, 1 - rates.kept_share(p, 8), color=GREY, ls=":", lw=1.2, label="G = 8, exact")
    ax.set(xlabel="chance p of a right answer", ylabel="share of groups", xlim=(0, 1), ylim=(0, 1.03))
    ax.set_title("Groups of equal rewards: no update", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5, loc="upper center")
    tidy(ax)


@app.function
def figure(G: int, luck: F) -> Figure:
    """The weight of a prompt, and how many groups are for nothing."""
    fig = new_figure(10, 4.4)
    left, right = fig.subplots(1, 2)
    draw_weights(left, G, luck)
    draw_groups(right, G, luck)
    return fig


@app.cell(hide_code=True)
def _(G, luck):
    _rows = []
    for _name, _form in FORMS.items():
        _exact, _y = rates.w(CHANCES, G.value, **_form), sampled(luck, G.value, _form)
        _drawn = (f"{_y[i].mean():.3f} ± {2 * standard_error(_y[i]):.3f}" for i in (0, 3))
        _cells = (f"{x:.4f}" for x in _exact[[0, 3]])
        _rows.append(f"    | {_name} | " + " | ".join(f"{a} | {b}" for a, b in zip(_cells, _drawn, strict=True)) + " |")
    _table = "\n".join(_rows)
    _alt = f"Weight of a prompt over its chance of success, and the share of flat groups, for G = {G.value}"
    _text = f"""
    | weight of a prompt, G = {G.value} | p = 0.05, exact | drawn | p = 0.5, exact | drawn |
    |:--|--:|--:|--:|--:|
{_table}

    <small>± is two standard errors of {DRAWN:,} groups. The same draws serve every G and every line.</small>
    """
    mo.vstack([parts.picture(figure(G.value, luck), _alt), mo.md(_text)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "the very hard and the very easy",
        r"""
        A mixed group of a hard prompt has one right answer among many wrong ones: its std is small, and dividing by it
        makes the advantages large. With $G = 2$ and $3$ every mixed group has the same std, so nothing can differ; with
        many answers $w$ goes to $1/\sqrt{p(1 - p)}$. So GRPO does not follow the gradient of the mean success: it
        follows that of a sum in which every prompt counts as its $w$, for large groups the gradient of $2 \arcsin\sqrt
        p$. That may be what you want. It is not a way to less variance, and Dr. GRPO leaves it out.

        Look right, too: near 0 and 1, where the weight is largest, almost all groups are flat. A rare mixed group of
        them is a large and noisy step.
        """,
    )
    return


@app.function
def clip_figure() -> Figure:
    """Exact size of the mean update with either ratio, and many updates on one batch."""
    fig = new_figure(13, 4.2)
    size, share, updates = fig.subplots(1, 3)
    spare = new_figure(4, 4).add_subplot()
    correction_13.draw_ratios(size, spare, share)
    correction_13.draw_updates(updates, correction_13.experiment(runs=20))
    return fig


@app.cell(hide_code=True)
def _():
    parts.correction(
        13,
        r"""
        The printed objective has one ratio $r_\theta(q, o_i)$ per answer inside a sum over its tokens. Then all terms
        of that sum are the same, $1/|o_i|$ cancels, and one clip stops **all** tokens of an answer at once. The ratio
        meant is that of each token. (GSPO takes one ratio per answer on purpose: the geometric mean of those of the
        tokens, with bounds that are hundreds of times tighter.)

        Nor is it said how often a batch is used. With one update the ratio is 1 and the clip does nothing: each solid
        line begins where its dashed one does. With many updates the clip decides how far the policy moves away from the
        one that drew the batch, for better (what one batch shows may be luck) or worse (it may be true).
        """,
        clip_figure(),
        "Mean update over the gradient with a ratio per token or per answer; tokens stopped; J over updates on a batch",
    )
    return


@app.function
def baseline_figure() -> Figure:
    """The factor of the group's own mean, the error of both baselines, and the wait for the first mixed group."""
    fig = new_figure(13, 4.2)
    size, error, wait = fig.subplots(1, 3)
    found = correction_15.experiment(runs=40)
    correction_15.draw_factor(size, found)
    correction_15.draw_error(error)
    correction_15.draw_wait(wait, found)
    return fig


@app.cell(hide_code=True)
def _():
    parts.correction(
        15,
        r"""
        "Different advantages across the group" holds for groups whose rewards differ. A prompt that is answered rightly
        once in a thousand times draws flat groups of 8 in 99 of 100 updates, and as long as that lasts the policy stays
        *exactly* where it is (right).

        And the mean of a group contains the answer it is subtracted from. The baseline then depends on the action, and
        the mean update is $(G - 1)/G$ of the gradient (left). The mean of the **other** answers has no such factor; it
        is $G/(G - 1)$ times the former, group by group. With groups of one size that is a matter of the step size, and
        the shrunk one even has the smaller error, but for larger groups near $p = \tfrac12$ (middle).
        """,
        baseline_figure(),
        "Mean estimate over the exact gradient by group size, error of both baselines, and policies not yet moved",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        18,
        """
        Write the advantages of groups whose labels come in any order, and then the loss of a batch. Mind flat groups,
        the divisor of the std, tokens behind the end, and the order of the two means.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### A group of 8 answers has one right one. What is its advantage with the sample std and ε = 0, and that of the others?

        The mean is 1/8, the squares add up to $\tfrac{49}{64} + 7 \cdot \tfrac1{64} = \tfrac78$, the sample variance is
        $\tfrac18$. So $\tfrac78 \sqrt 8 \approx 2.47$ for the right one and $-\tfrac18 \sqrt 8 \approx -0.35$ for each
        other. In general one right of $G$ has $(G - 1)/\sqrt G$: the rarer, the louder.

        ### We train with GRPO and ε = 10⁻⁴. Would rewards of 0 and 100, instead of 0 and 1, change anything?

        Almost nothing: the std grows by 100 as well, and only ε stays. Rewards of 0 and $10^{-4}$ would: there ε is as
        large as the std. Without the division, rewards of 0 and 100 make every update a hundred times as long (Adam
        would take most of that back).

        ### The mean reward stays flat, and so does the loss. Is the run broken?

        The loss says nothing: with one update per batch it is 0 up to the KL, always. Look at the share of flat groups.
        If nearly all are flat, there is nothing to learn from these prompts at this $G$: take easier ones, more answers,
        or the dynamic sampling of lesson 20.
        """  # noqa: E501
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "sections 2.2.1 to 2.2.3",
        """
        - Z. Shao and others, *DeepSeekMath* (2024), section 4.1: GRPO
        - Z. Liu and others, *Understanding R1-Zero-like training* (2025): Dr. GRPO, without the std
        - A. Ahmadian and others, *Back to basics* (2024): the mean of the others, RLOO
        - Y. Mroueh, *Reinforcement learning with verifiable rewards* (2025): the weight 1/√(p(1 − p)) of large groups
        - C. Zheng and others, *Group sequence policy optimization* (2025): one ratio per answer
        """,
    )
    return


if __name__ == "__main__":
    app.run()
