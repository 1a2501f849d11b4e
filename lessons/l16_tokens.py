"""Lesson 16: From MDP to tokens.

45 minutes. After: lessons 2 and 9. Rows: E2.1. Corrections: 11.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="16 · From MDP to tokens")

with app.setup:
    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import chain
    from tabrl.envs.token_tasks import parity
    from tabrl.lessons import correction_11, parts
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish, level
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.tokens import exact, recursion
    from tabrl.tokens.rollout import Rollouts, sample
    from tabrl.tokens.table import TableLM
    from tabrl.tokens.tree import prefixes
    from tabrl.types import F

    TASK, ANSWERS = parity(1, length=3), 2000
    EOS = 2  # the number of the token that ends an answer; 0 and 1 are themselves


@app.cell(hide_code=True)
def _():
    parts.head(
        16,
        """
        - say what state, action, reward and policy are when a language model writes an answer
        - compute the values of all prefixes of a prompt by hand, from the longest to the empty one
        - say what ends an answer, and what a value must not be asked about behind the end
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## A language model is a policy

    A language model reads a text and gives a distribution over the next token. Draw one, append it, and ask again. That
    is a Markov decision process like any other:

    | in lessons 1 to 15 | here |
    |:--|:--|
    | state $s_t$ | the prompt $q$ and the tokens $o_0 \dots o_{t-1}$ so far: a **prefix** |
    | action $a_t$ | the next token $o_t$ |
    | transition | none to learn: the token is appended, always |
    | reward | 0 until the answer ends; then what a **verifier** says about the whole answer |
    | end | the token `<eos>`, or the length limit |
    | $\gamma$ | 1: a right answer is worth the same, however long it took |
    | start | a prompt, drawn from a set of prompts |

    Two things are special. No prefix comes twice in one answer, so the states form a **tree**, and one walk from its
    leaves to its root solves the Bellman equation: no iteration, no linear system. And chance is all in the policy; the
    world adds none.

    ## Three tokens, by hand

    The prompt asks for the parity of 1. The vocabulary is `0`, `1` and `<eos>`; at most three tokens are allowed. The
    bit right before `<eos>` is the answer, bits before it are thoughts. So `1 <eos>`, `0 1 <eos>` and `1 1 <eos>` are
    right, and each pays one; nothing else pays. A policy that knows nothing draws each token with probability 1/3.
    Start **at the longest prefixes**: after `0 1` one token is left, and `<eos>` is the right one.

    | prefix | next `0` | next `1` | next `<eos>` | $V$ |
    |:--|--:|--:|--:|--:|
    | `0 0` and `1 0` | 0 | 0 | 0 | $0$ |
    | `0 1` and `1 1` | 0 | 0 | 1 | $\tfrac13 \cdot 1 = \tfrac13$ |
    | `0` | $V(\texttt{0 0}) = 0$ | $V(\texttt{0 1}) = \tfrac13$ | 0 | $\tfrac13 \cdot \tfrac13 = \tfrac19$ |
    | `1` | $V(\texttt{1 0}) = 0$ | $V(\texttt{1 1}) = \tfrac13$ | 1 | $\tfrac13 (\tfrac13 + 1) = \tfrac49$ |
    | empty | $V(\texttt{0}) = \tfrac19$ | $V(\texttt{1}) = \tfrac49$ | 0 | $\tfrac13 \cdot \tfrac59 = \tfrac5{27}$ |

    The entries are $Q$, their mean is $V$, and $A = Q - V$ is what lesson 9 needs: for the first token it is
    $-\tfrac2{27}$, $+\tfrac7{27}$ and $-\tfrac5{27}$. The gradient of $J$ in the logit of a token is $d\,\pi A$, where
    $d$ is the chance that the prefix occurs: $-\tfrac2{81}, \tfrac7{81}, -\tfrac5{81}$. Write `1` more often, `0` a
    little less often, and do not end with an empty answer.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 2",
        r"""
        s_t = \text{prompt} + \text{generated tokens up to } t, \qquad
        R = \sum_{k=t}^{T} r_k \;\text{(accumulated return)}, \qquad V(s_t) = \mathbb{E}[R \mid s_t]
        """,
        r"""
        Read "up to" as "before": $s_t$ does not hold $o_t$ yet. The library lays out all prefixes of one length side
        by side, and walks: $Q(h, a) = r(h, a) + V(h a)$ and $V(h) = \sum_a \pi(a \mid h)\, Q(h, a)$ from the longest
        prefixes to the empty ones, $d(h a) = d(h)\, \pi(a \mid h)$ the other way. Where `<eos>` or the limit ends the
        answer there is no $V(h a)$ to add.
        """,
        recursion.values,
        recursion.reach,
    )
    return


@app.function
def model(e: float) -> TableLM:
    """The policy that ends with probability e after every prefix, and else writes 0 and 1 equally often."""
    return TableLM(TASK, np.tile(np.log([(1 - e) / 2, (1 - e) / 2, e]), (TASK.N, 1)))


@app.cell
def _():
    _x, _row = exact.forward(TASK, model(1 / 3))[0], {"empty": 1, "0": 4, "1": 5, "0 0": 10, "0 1": 11}
    _lines = [
        f"| {name} | {_x.V[i]:.4f} | {_x.d[i] * TASK.K:.4f} | {' '.join(f'{a:+.4f}' for a in _x.Q[i] - _x.V[i])} |"
        for name, i in _row.items()
    ]
    _mdp = TASK.to_mdp()
    _V = chain.evaluate(chain.induce(_mdp, np.vstack([_x.pi, np.full((1, 3), 1 / 3)])))
    mo.md(
        "\n".join(
            [
                "The library agrees (5/27 = 0.1852); d is the chance of the prefix, given the prompt:",
                "",
                "| prefix of “parity of 1” | V | d | Q − V of `0`, `1`, `<eos>` |",
                "|:--|--:|--:|:--|",
                *_lines,
                "",
                f"Written out as a model with {_mdp.S} states and solved by the linear system of lesson 2, the values",
                f"differ by {abs(_V[:-1] - _x.V).max():.0e}.",
            ]
        )
    )
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["it rises all the way", "it falls all the way", "it rises, then falls"])
    parts.predict(
        r"""
        A policy writes `<eos>` with probability $e$ after every prefix, and otherwise `0` or `1`, equally often. Turn
        $e$ up from 0 to 1. What happens to the share of right answers?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    _label = "probability e that the answer ends here"
    e = mo.ui.slider(0.02, 0.98, 0.02, value=0.34, label=_label, show_value=True, full_width=True)
    e
    return (e,)


@app.function
def drawn(e: float, seed: int = 16) -> Rollouts:
    """Answers to both prompts, half of them to each."""
    prompt = np.arange(ANSWERS) % TASK.K
    return sample(model(e), prompt, prompt, np.random.default_rng(seed))


@app.function
def place(t: int, i: int) -> tuple[float, float]:
    """Where prefix i of t tokens stands in the drawing of the tree."""
    return float(t), -(i + 0.5) * 4 / 2**t


@app.function
def draw_tree(ax: Axes, e: float) -> None:
    """Draw the prefixes of the prompt that asks for 1, with their values; lines are as thick as tokens are likely."""
    V, tree = exact.values(TASK, model(e))[0], TASK.tree
    for t in range(tree.L):
        for i, tokens in enumerate(prefixes(1, tree.C, t)[1]):
            row, (x, y) = tree.start[t] + tree.C**t + i, place(t, i)
            if t:
                x0, y0 = place(t - 1, i // 2)
                ax.plot([x0, x], [y0, y], color=GREY, lw=8 * (1 - e) / 2 + 0.3, zorder=1)
            right = tree.reward[row, EOS] > 0
            ax.plot([x, x + 0.45], [y, y], color=RIGHT if right else GREY, lw=8 * e + 0.3, zorder=1)
            ax.plot(x + 0.45, y, "s", ms=9, color=RIGHT if right else "white", mec=RIGHT if right else GREY)
            ax.plot(x, y, "o", ms=30, color="white", mec=INK, zorder=2)
            ax.text(x, y, f"{V[row]:.3f}", ha="center", va="center", fontsize=8.5, zorder=3)
            ax.text(x - 0.02, y - 0.47, TASK.answer(tokens) or "empty", ha="center", va="center", fontsize=8.5)
    ax.set(xlim=(-0.35, 2.65), ylim=(-4.15, 0.35))
    ax.set_axis_off()
    ax.set_title("V of each prefix, exact; squares: <eos>,\nfilled where it is right", fontsize=10)


@app.function
def draw_lengths(ax: Axes, e: float, x: Rollouts) -> None:
    """Draw how long answers are, exactly and as drawn."""
    t, P = np.arange(1, 4), exact.lengths(TASK, model(e))[1:]
    cut = float(exact.truncated(TASK, model(e)))
    ax.bar(t, P, width=0.6, color=COLOURS[8], label="exact")
    ax.bar(3, cut, width=0.6, color="none", edgecolor=GREY, hatch="///", label="of these cut, exact")
    share = (x.length[:, None] == t).T * 1.0
    ax.errorbar(t, share.mean(axis=1), 2 * standard_error(share), fmt="o", color=WRONG, ms=4, capsize=2,
                label=f"{ANSWERS:,} answers ± 2 se")  # fmt: skip
    ax.set(xticks=t, ylim=(0, 1.35), yticks=np.arange(0, 1.1, 0.25))
    finish(ax, "tokens of an answer, <eos> counted", "share of the answers", "Length", legend="upper left")


@app.function
def draw_share(ax: Axes, e: float, x: Rollouts, whole: bool) -> None:
    """Draw the share of right answers at e; whole: at all other e as well."""
    grid = np.linspace(0, 1, 201)[1:-1]
    if whole:
        y = [float(exact.objective(TASK, model(p))) for p in grid]
        ax.plot(grid, y, color=RIGHT, lw=1.6, label="exact, for all e")
    J = float(exact.objective(TASK, model(e)))
    level(ax, J, 0.62, "exact {:.4f}")
    ax.errorbar(e, x.reward.mean(), 2 * standard_error(x.reward), fmt="o", color=WRONG, ms=5, capsize=3,
                label=f"{ANSWERS:,} answers ± 2 se")  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 0.3))
    finish(ax, "probability e of <eos>", "share of right answers, J", "What it earns", legend="upper left")


@app.function
def spread(x: F) -> str:
    """The mean of a sample and two standard errors, as text."""
    return f"{x.mean():.4f} ± {2 * standard_error(x):.4f}"


@app.function
def figure(e: float, x: Rollouts, whole: bool = True) -> Figure:
    """The tree of prefixes, the lengths of answers, and what they earn."""
    fig = new_figure(12, 4.3)
    tree, lengths, share = fig.subplots(1, 3, width_ratios=(1.25, 1, 1))
    draw_tree(tree, e)
    draw_lengths(lengths, e, x)
    draw_share(share, e, x, whole)
    return fig


@app.cell(hide_code=True)
def _(e, guess):
    _x, _lm = drawn(e.value), model(e.value)
    _mean = float(exact.lengths(TASK, _lm) @ np.arange(4))
    _table = f"""
    | e = {e.value:g} | exact | {ANSWERS:,} answers |
    |:--|--:|--:|
    | share of right answers, J | {exact.objective(TASK, _lm):.4f} | {spread(_x.reward)} |
    | tokens of an answer | {_mean:.4f} | {spread(_x.length)} |
    | share that the limit cuts | {exact.truncated(TASK, _lm):.4f} | {spread(_x.truncated * 1.0)} |

    <small>± is two standard errors: each exact number lies within them about 19 times out of 20.</small>
    """
    _alt = f"Tree of prefixes, lengths and the share of right answers where <eos> has probability {e.value:g}"
    mo.vstack([parts.picture(figure(e.value, _x, guess.value is not None), _alt), mo.md(_table)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "it rises, then falls",
        r"""
        An answer that never ends is cut by the limit and pays nothing; an answer that ends at once has said nothing.
        Exactly one half of the answers that end after at least one bit are right, so
        $J = \tfrac12 \big[(1-e) - (1-e)^3\big]$, which is largest at $1 - e = 1/\sqrt3$: $e \approx 0.42$. A policy
        that may choose another $e$ after each prefix does far better, and that is what learning is for: the best one
        writes the right bit and ends, $J = 1$. Note what the limit does: were it longer, a smaller $e$ would be best.
        The limit is part of the task.
        """,
    )
    return


@app.function
def draw_weights(ax: Axes) -> None:
    """Draw the variance of the update from one answer, by what multiplies the score of a token; say its mean."""
    names = correction_11.WEIGHTS[::-1]
    found = [correction_11.moments(name) for name in names]
    length = np.linalg.norm(correction_11.moments("to go")[0])
    y = [variance for _, variance in found]
    ax.barh(names, y, color=[WRONG, OTHER, OTHER, RIGHT], height=0.6)
    for i, (mean, variance) in enumerate(found):
        share = np.linalg.norm(mean) / length
        ax.text(variance + 0.01, i, f"{variance:.2f}, mean {share:.0f} × ∇J", va="center", fontsize=9)
    ax.set_xlim(0, 1.05)
    finish(ax, "variance of the update from one answer, exact", "", "What multiplies ∇ log π of a token", legend=None)


@app.function
def draw_discount(ax: Axes) -> None:
    """Draw what a right answer is worth at its start, by its length, for several discounts."""
    T = np.arange(2, 7)
    for gamma, colour, style in zip((1.0, 0.95, 0.8, 0.5), (RIGHT, OTHER, COLOURS[4], WRONG), "o^Ds", strict=True):
        J = correction_11.turned(gamma)[0]
        ax.plot(T, gamma ** (T - 1.0), f"-{style}", color=colour, ms=5, label=f"γ = {gamma:g}: J = {J:.3f}")
    ax.set(xticks=T, ylim=(0, 1.5), yticks=np.arange(0, 1.1, 0.25))
    finish(ax, "tokens of a right answer", "worth at its first token", "A discount prefers short answers",
           legend="upper left")  # fmt: skip


@app.function
def draw_end(ax: Axes) -> None:
    """Draw the value of prefixes by the tokens that are left, and were there no limit."""
    left, right, wrong = np.array(correction_11.by_tokens_left()).T
    _, right_on, wrong_on = correction_11.without_end()
    for y, on, colour, name in ((right, right_on, RIGHT, "right"), (wrong, wrong_on, WRONG, "wrong")):
        ax.plot(left, y, "-o", color=colour, label=f"ends with the {name} bit")
        ax.axhline(on, color=colour, ls="--", lw=1.2)
    ax.set(xticks=left, ylim=(-0.03, 1.0))
    tidy(ax)
    finish(ax, "tokens left", "V of the prefix, exact", "Dashed: if there were no limit", legend="upper left")


@app.cell(hide_code=True)
def _():
    _fig = new_figure(14, 4.2)
    for _draw, _ax in zip((draw_weights, draw_discount, draw_end), _fig.subplots(1, 3), strict=True):
        _draw(_ax)
    parts.correction(
        11,
        r"""
        The definitions of section 2 need four words more.

        1. A sum that begins at $t$ is the **return to go**, not the accumulated return of the answer. Both give the
           right mean update; the whole return brings the noise of tokens that were written before $o_t$ (left).
        2. $s_t$ holds the tokens **before** $o_t$. With $o_t$ in it, its value is $Q(s_t, o_t)$, and as a baseline that
           takes away all that $o_t$ could be judged by: the mean update is 0 (left, bottom).
        3. **γ = 1** has to be said. A discount makes right answers short: their worth falls with each token (middle;
           the uniform policy, answers of at most six tokens).
        4. `<eos>` and the **length limit** are both ends. Nothing is bootstrapped behind them, and how many tokens are
           left is part of the state: values differ from those of answers that could go on for ever (right).
        """,
        _fig,
        "Variance of updates by the weight of a token, the worth of answers under a discount, values by tokens left",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        16,
        """
        Write the walk through the tree yourself: from the chances of the next tokens and what they pay to the values of
        all prefixes. Mind which row follows which, and what has no row.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### A model knows 50,000 tokens and writes 1,000. How many prefixes are there, and what is left of this lesson?

        About $50000^{999}$: no table, and no walk. The equations stay; what changes is who knows $V$. A critic network
        estimates it (lesson 17), or a group of answers to the same prompt stands in for it (lesson 18). The small tasks
        of this course have the same shape, and are small enough to know the exact answer.

        ### The answer is cut by the length limit, and would have been right one token later. What is its reward?

        What the verifier says about what is there, here 0. In lesson 7 a time limit was only the end of our patience,
        and the value of the state behind it was put in place of the rest. Here the limit is part of the task: the
        model knows it, and has to finish in time. If you stop answers early to save time, and the model would have
        been allowed more, then it is as in lesson 7.

        ### Why is the advantage of a token not 0 on average over all tokens of right answers?

        It is 0 on average over the tokens that the policy *would choose* after the same prefix. Right answers are
        chosen from what came out: their tokens are better than the mean token on average, and those of wrong answers
        are worse.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 2",
        """
        - R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition (2018), sections 3.5 and
          13.2
        - M. Ranzato, S. Chopra, M. Auli and W. Zaremba, *Sequence level training with recurrent neural networks*
          (2016): REINFORCE on tokens
        - L. Ouyang et al., *Training language models to follow instructions with human feedback* (2022)
        """,
    )
    return


if __name__ == "__main__":
    app.run()
