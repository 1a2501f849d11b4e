"""Lesson 17: PPO for language models.

50 minutes. After: lessons 12, 14 and 16. Rows: E2.2. Corrections: 12.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="17 · PPO for language models")

with app.setup:
    from typing import NamedTuple

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl.envs.token_tasks import parity
    from tabrl.lessons import correction_12, parts
    from tabrl.lessons._answers import push
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish
    from tabrl.lessons.correction_12 import credits_of, listed
    from tabrl.optimise import adam
    from tabrl.plots import GREY, new_figure
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.tokens import credit, exact, train
    from tabrl.tokens.methods import Penalty
    from tabrl.tokens.recursion import evaluate
    from tabrl.tokens.table import TableCritic, TableLM
    from tabrl.types import F

    BATCH, BATCHES, SEED = 64, 300, 17
    RIGHT_ANSWER, WRONG_ANSWER = (0, 1, 0, 0, 1, 1, 0, 1), (0, 1, 1, 0, 0, 1, 0, 1)  # 0 opens, 1 closes a bracket
    CRITICS = ("knows nothing, V = 0", "a rough one", "exact")


@app.cell(hide_code=True)
def _():
    parts.head(
        17,
        """
        - follow one reward from the end of an answer to the advantage of each of its tokens, by hand
        - say what λ trades when the critic is wrong, and which λ is safe when it knows nothing
        - put a KL to a reference into the rewards, and say which policy is best then
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## One reward, many tokens

    An answer of a thousand tokens gets one number, at its end. Which of the tokens earned it? PPO for language models
    answers with what lessons 12 and 14 have built, token by token:

    1. **Rewards of tokens.** The outcome is paid with the last token; all others are paid 0. Usually each token is
       also charged $\beta \log(\pi / \pi_{\text{ref}})$, so that the model stays near the **reference** it started as.
    2. **A token critic** $v$: a second network, as large as the first, that guesses $V$ of every prefix.
    3. **GAE** with $\gamma = 1$: $\delta_t = r_t + v_{t+1} - v_t$, and $A_t = \delta_t + \lambda A_{t+1}$, where $v$
       and $A$ are 0 behind the last token.
    4. **The clip** of lesson 14 for each token, with its own ratio and its own advantage; and the critic is moved
       towards $A_t + v_t$.

    Why is it enough to look at $v_{t+1} - v_t$? Because a token changes nothing but what may be expected. If the chance
    of a right answer was 0.75 before a token and is 0.25 after it, that token was a mistake worth −0.5, whatever comes
    later.

    ## Three tokens, by hand

    The answer has three tokens and is right: it pays 1. The critic says 0.5, 0.25, 0.75 before them.

    | token | $r$ | $v$ | $\delta$ | $A$ for $\lambda = \tfrac12$ | $A$ for $\lambda = 1$ |
    |:--|--:|--:|:--|:--|:--|
    | 2 | 1 | 0.75 | $1 - 0.75 = 0.25$ | $0.25$ | $1 - 0.75 = 0.25$ |
    | 1 | 0 | 0.25 | $0.75 - 0.25 = 0.5$ | $0.5 + \tfrac12 \cdot 0.25 = 0.625$ | $1 - 0.25 = 0.75$ |
    | 0 | 0 | 0.5 | $0.25 - 0.5 = -0.25$ | $-0.25 + \tfrac12 \cdot 0.625 = 0.0625$ | $1 - 0.5 = 0.5$ |

    With $\lambda = 0$ the first token is blamed, −0.25: the critic saw the chances fall. With $\lambda = 1$ it is
    praised, 0.5: the answer was right, after all. Now charge for leaving the reference, $\beta = 0.1$: where
    $\log(\pi / \pi_{\text{ref}})$ is 1, 0 and −0.5, the rewards become −0.1, 0 and 1.05.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 2.1",
        r"""
        L^{\text{PPO}}(\theta) = \mathbb{E}_{q,o \sim \pi_{\theta_{\text{old}}}} \left[\min \left(r_{\theta}(q,o)\,
        \hat{A}(q,o),\; \operatorname{clip} \left(r_{\theta}(q,o), 1 - \epsilon, 1 + \epsilon \right) \hat{A}(q,o)
        \right) \right], \qquad
        r_{\theta}(q,o) = \frac{\pi_{\theta}(o \mid q, o_{< t})}{\pi_{\theta_{\text{old}}}(o \mid q, o_{< t})}
        """,
        r"""
        Here the ratio is called $r_\theta$; it is no reward. Both it and $\hat A$ belong to a token $o_t$, and are
        summed over the tokens: see below. The clip is `losses.ppo_clip` of lesson 14, applied to arrays `(B,T)`. What
        is new is how the advantages are made. `mask` says which entries are tokens: answers differ in length, and
        what stands behind an end must not matter.
        """,
        credit.terminal_rewards,
        credit.kl_rewards,
        credit.token_gae,
        credit.backward,
    )
    return


@app.cell
def _():
    _on = np.ones((1, 3))
    _r, _v = credit.terminal_rewards(np.array([1.0]), _on), np.array([[0.5, 0.25, 0.75]])
    _rows = [
        f"| {lam:g} | " + " | ".join(f"{a:g}" for a in credit.token_gae(_r, _v, _on, lam)[0]) + " |"
        for lam in (0.0, 0.5, 1.0)
    ]
    _charged = _r + credit.kl_rewards(np.array([[1.0, 0.0, -0.5]]), 0 * _on, _on, 0.1)
    mo.md(
        "\n".join(
            [
                "The library agrees with the table:",
                "",
                "| λ | token 0 | token 1 | token 2 |",
                "|:--|--:|--:|--:|",
                *_rows,
                "",
                f"and the rewards with the charge are {', '.join(f'{x:g}' for x in _charged[0])}.",
            ]
        )
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(rf"""
    ## Credit, by a critic that may be wrong

    The task is to write eight brackets that are balanced: 14 of the 256 strings are. The policy is uniform. All
    strings can be listed, so the exact advantage of each token is known, and so are the mean and the variance of an
    update for any critic and any $\lambda$. The rough critic is the exact one with an error of standard deviation
    0.05 at every prefix. On the right: how far the update from {BATCH} answers is from the exact gradient, as a share
    of its length. **Bias** is the distance of the mean update; **noise** the standard deviation around it; the
    **error** is the root of the sum of their squares. Points are {BATCHES} sampled batches.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["all of them alike", "only the last one", "those that decided it"])
    parts.predict(
        r"""
        The critic knows nothing yet: $v = 0$ everywhere. The answer is right, and $\lambda = 0$. Which of its tokens
        get a positive advantage?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    critic = mo.ui.dropdown(CRITICS, value=CRITICS[0], label="critic")
    lam = mo.ui.slider(0, 1, 0.05, value=1.0, label="λ", show_value=True)
    mo.hstack([critic, lam], justify="start", gap=3)
    return critic, lam


@app.class_definition
class Update(NamedTuple):
    """The update from BATCH answers, against the gradient of J; all as shares of the gradient's length."""

    bias: float
    noise: float

    @property
    def error(self) -> float:
        """Root mean square distance from the gradient."""
        return float(np.hypot(self.bias, self.noise))


@app.function
def guessed(critic: str) -> F:
    """Values (N,) of all prefixes by one of the critics."""
    V = listed()[2]
    rough = V + 0.05 * np.random.default_rng(SEED).normal(size=V.shape)
    return {CRITICS[0]: np.zeros_like(V), CRITICS[1]: rough, CRITICS[2]: V}[critic]


@app.function
def slope() -> F:
    """The exact gradient of J in the logits, (N,2), for the uniform policy."""
    tree = correction_12.task().tree
    return np.asarray(evaluate(tree, np.full((tree.N, 2), np.log(0.5))).slope)


@app.function
def exactly(v: F, lam: float) -> Update:
    """Bias and noise of an update, as sums over all answers; the tokens of an answer follow different prefixes."""
    (x, q, _, _), g = listed(), slope()
    A = credits_of(x, v, lam)
    mean = push(np.full(g.shape, 0.5), x, q[:, None] * A)
    variance = (q @ A**2).sum() / 2 - (mean**2).sum()
    length = np.linalg.norm(g)
    return Update(float(np.linalg.norm(mean - g) / length), float(np.sqrt(variance / BATCH) / length))


@app.function
def sampled(v: F, lam: float) -> F:
    """Squared relative errors of BATCHES updates, (BATCHES,)."""
    (x, q, _, _), g, rng = listed(), slope(), np.random.default_rng(SEED)
    A, counts = credits_of(x, v, lam), rng.multinomial(BATCH, q, BATCHES) / BATCH
    errors = [push(np.full(g.shape, 0.5), x, n[:, None] * A) - g for n in counts]
    return np.array([(e**2).sum() for e in errors]) / (g**2).sum()


@app.function
def draw_credit(ax: Axes, answer: tuple[int, ...], v: F, lam: float, title: str) -> None:
    """Draw the advantages of the tokens of one answer, and the exact ones."""
    x, _, _, A = listed()
    i, t = int((x.tokens == answer).all(axis=1).argmax()), np.arange(8)
    ax.bar(t, credits_of(x, v, lam)[i], width=0.55, color=RIGHT, label=f"GAE, λ = {lam:g}")
    ax.plot(t, A[i], "D", color=INK, ms=5, label="exact, Q − V")
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xticks(t, correction_12.task().answer(answer).split(), fontsize=12)
    ax.set(ylim=(-0.35, 1.45), yticks=np.arange(-0.25, 1.1, 0.25))
    finish(ax, "token", "advantage", title, legend="upper left")


@app.function
def draw_error(ax: Axes, v: F, lam: float) -> None:
    """Draw bias, noise and error of the update against lam, with sampled batches at lam."""
    grid = np.linspace(0, 1, 41)
    found = [exactly(v, y) for y in grid]
    ax.plot(grid, [y.bias for y in found], color=WRONG, ls="--", label="bias, exact")
    ax.plot(grid, [y.noise for y in found], color=OTHER, ls=":", lw=1.8, label="noise, exact")
    ax.plot(grid, [y.error for y in found], color=RIGHT, lw=1.8, label="error, exact")
    square = sampled(v, lam)
    low, mid, high = np.sqrt(square.mean() + np.array([-2, 0, 2]) * standard_error(square))
    ax.errorbar(lam, mid, [[mid - low], [high - mid]], fmt="o", color=INK, ms=5, capsize=3,
                label=f"{BATCHES} batches ± 2 se")  # fmt: skip
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 2.1))
    finish(ax, "λ", "share of the length of ∇J", f"{BATCH} answers: distance from ∇J", legend="upper left")


@app.function
def figure(critic: str, lam: float) -> Figure:
    """Credit of the tokens of a right and of a wrong answer; the error of an update."""
    fig, v = new_figure(12, 4.2), guessed(critic)
    right, wrong, error = fig.subplots(1, 3)
    draw_credit(right, RIGHT_ANSWER, v, lam, "A right answer")
    draw_credit(wrong, WRONG_ANSWER, v, lam, "A wrong one: lost at its third token")
    draw_error(error, v, lam)
    return fig


@app.cell(hide_code=True)
def _(critic, lam):
    _v = guessed(critic.value)
    _x, _drawn = exactly(_v, lam.value), np.sqrt(sampled(_v, lam.value).mean())
    _table = f"""
    | critic: {critic.value}; λ = {lam.value:g} | exact | {BATCHES} batches |
    |:--|--:|--:|
    | bias of the update / length of ∇J | {_x.bias:.3f} | |
    | noise from {BATCH} answers | {_x.noise:.3f} | |
    | error | {_x.error:.3f} | {_drawn:.3f} |
    """
    _alt = f"Credit of tokens, and the error of an update against λ, for the critic: {critic.value}"
    mo.vstack([parts.picture(figure(critic.value, lam.value), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "only the last one",
        r"""
        With $v = 0$ every $\delta$ is 0 but the last, and $\lambda = 0$ passes nothing on: all other tokens would
        never learn. (The critic does learn, from the end to the front, one token per round.) At $\lambda = 1$ all
        tokens share the outcome alike: no bias, whatever the critic says, but most noise. Now choose the exact critic
        and $\lambda = 0$: each token gets what it is worth, and in the right answer the second one, which closes a
        bracket so early, is slightly *bad*. A rough critic is best with a $\lambda$ in between; engines take 0.95 or
        1, as early in training no critic can be trusted.
        """,
    )
    return


@app.function
def settled(beta: float) -> str:
    """A row of a table: J, KL and J - beta KL after 400 updates of PPO, and at the exact optimum."""
    task = parity(1, length=3)
    ref, model = TableLM(task), TableLM(task)
    kl = Penalty(beta, "k1", "reward")
    next(train.ppo(task, model, TableCritic(task), np.random.default_rng(SEED), kl=kl, entropy=0.0, every=400,
                   step=adam(0.03)))  # fmt: skip
    best = TableLM(task, exact.optimum(task, ref, beta).logp)
    cells = []
    for policy in (model, best):
        J, far = float(exact.objective(task, policy)), float(exact.kl(task, policy, ref).sequence)
        cells += [f"{J:.4f}", f"{far:.4f}", f"{J - beta * far:.4f}"]
    return f"| {beta:g} | " + " | ".join(cells) + " |"


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## With a KL in the rewards

    Charged for every token, the sum of $\beta \log(\pi/\pi_{\text{ref}})$ over an answer has the mean
    $\beta\,\mathrm{KL}(\pi \,\|\, \pi_{\text{ref}})$, so PPO climbs on $J - \beta\,\mathrm{KL}$. The best policy for
    that is known: $\pi^* \propto \pi_{\text{ref}}\, e^{r/\beta}$ over whole answers. On the parity task of lesson 16,
    with a uniform reference, we let PPO make 400 updates with a critic that it trains beside the policy:
    """)
    return


@app.cell(hide_code=True)
def _():
    _head = "| β | J of PPO | KL | J − β KL | J of the best | KL | J − β KL |\n|:--|--:|--:|--:|--:|--:|--:|"
    _rows = "\n".join(settled(beta) for beta in (0.1, 0.3, 1.0))
    mo.md(f"{_head}\n{_rows}\n\nA large β buys nearness, and pays with right answers: the best J itself falls.")
    return


@app.cell(hide_code=True)
def _():
    _fig, _rng = new_figure(14, 4.3), np.random.default_rng(correction_12.SEED)
    _readings, _ratios, _variance = _fig.subplots(1, 3)
    _drawn = [correction_12.sampled_ratios(n, 20, _rng) for n in correction_12.LENGTHS]
    _ratio = {of: np.array([y[of] for y in _drawn]) for of in ("token", "answer")}
    correction_12.draw_readings(_readings)
    correction_12.draw_ratios(_ratios, correction_12.Found(_ratio, {}, {}))
    correction_12.draw_variance(_variance)
    parts.correction(
        12,
        r"""
        The printed objective has one ratio and one advantage for a whole answer, and a $t$ that nothing sums over.
        Right is a **sum over tokens**, each with its own ratio $\rho_t$ and advantage $A_t$. Of the other ways to
        read it two turn the gradient away (left), and the ratio of the whole answer, a product over all tokens, has a
        variance that grows exponentially with the length (middle).

        The source also lists "token level loss, the reward is at the last token only" as a drawback. These are two
        things. A reward at the end makes **credit** hard, and a critic is the answer to it: with the outcome given to
        all tokens alike the variance of the update is largest, with an exact critic and a small λ far smaller
        (right). How losses are averaged over **tokens** is another question, and changes no token's advantage: lesson
        20.
        """,
        _fig,
        "What the missing sum can mean, the variance of ratios of tokens and of answers, and of updates by λ",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        17,
        """
        Write GAE for a batch of answers of different lengths. Mind the last token of each: what follows it is 0, and
        not what happens to stand in the next column.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### The critic is trained, too. Why is λ = 1 unbiased even if it is wrong?

        At $\lambda = 1$ the sum of all $\delta$ from $t$ on is the outcome less $v_t$: the other values cancel. And
        $v_t$, whatever it is, does not depend on the token $o_t$: it is a baseline, which changes the noise and not
        the mean (lesson 10).

        ### Where does the KL go if it is not put into the rewards, and does it matter?

        It can be added to the loss, token by token. That is not the same: in the loss, a token is charged for itself
        alone, while a charge in the rewards flows back through GAE to the tokens that led there. Only that one is the
        gradient of the KL of whole answers; lesson 19 compares them.

        ### What does the critic cost, and what if we cannot pay?

        A second network of about the size of the first, with its own optimiser, its own pass over every answer and
        its own errors. GRPO leaves it out and compares answers to the same prompt instead: $\lambda = 1$, with the
        mean of a group in place of $v$ at the first prefix, for all tokens. The next lesson.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 2.1",
        """
        - D. Ziegler et al., *Fine-tuning language models from human preferences* (2019), section 2: KL in the rewards
        - L. Ouyang et al., *Training language models to follow instructions with human feedback* (2022), section 3.5
          and appendix C
        - J. Schulman, P. Moritz, S. Levine, M. Jordan and P. Abbeel, *High-dimensional continuous control using
          generalized advantage estimation* (2016)
        """,
    )
    return


if __name__ == "__main__":
    app.run()
