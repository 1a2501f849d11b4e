"""Lesson 20: DAPO.

45 minutes. After: lesson 18. Rows: E2.8, E2.9, E2.10, E2.11. Corrections: 16.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="20 · DAPO")

with app.setup:
    from collections.abc import Mapping
    from itertools import islice
    from typing import NamedTuple

    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl import losses
    from tabrl.envs import token_tasks
    from tabrl.lessons import correction_16, parts
    from tabrl.plots import COLOURS, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.tokens import TableCritic, TableLM, credit, rates, train
    from tabrl.tokens.draws import Groups
    from tabrl.tokens.methods import Method, Outcome, Penalty
    from tabrl.types import F, I

    NAMES = {"sequence": "mean per answer (GRPO)", "group_token": "mean over tokens (DAPO)"}
    ENDS = np.linspace(0.1, 0.9, 33)
    GROUPS = 1500


@app.cell(hide_code=True)
def _():
    parts.head(
        20,
        """
        - name the four things that DAPO changes in GRPO and the one it leaves out, and what each costs
        - compute how hard an answer is pushed by a mean per answer and by a mean over tokens
        - tell which claims about long answers hold, and for which of them
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Five changes

    DAPO is GRPO with repairs, each against something that happens in long runs on hard questions.

    | it happens that | DAPO |
    |:--|:--|
    | a group is all right or all wrong, and teaches nothing | **dynamic sampling**: drop it, draw another prompt |
    | a token of a long answer weighs less than one of a short answer | **token-level loss**: all tokens of a group weigh the same |
    | a rare token cannot grow past $1 + \epsilon$ times its probability | **clip-higher**: bounds 0.8 and 1.28 |
    | an answer that hits the length limit is punished as if it were wrong | **overlong shaping**: lose a little before the limit already |
    | the policy should go far from where it began | **no KL**, and no reference model |

    ## By hand

    Two tokens to think with, 0 and 1, and one to end. A group has two answers: a right one of 2 tokens, and a wrong one
    of 4. Let the advantages be $+1$ and $-1$.

    | | weight of a token, right answer | of the wrong answer | whole right answer | whole wrong answer |
    |:--|--:|--:|--:|--:|
    | mean per answer, then over answers (GRPO) | 1/2 · 1/2 = 1/4 | 1/2 · 1/4 = 1/8 | +1/2 | −1/2 |
    | mean over the group's tokens (DAPO) | 1/6 | 1/6 | +1/3 | −2/3 |

    Under GRPO an answer as a whole counts once, however long it is; so that a token of a long one counts less. Under
    DAPO a token counts once; so that a long answer as a whole counts more. Neither is free. The exact gradient gives
    every token its full advantage, without any division by a length (`how="constant"`, Dr. GRPO).

    *Dynamic sampling.* A prompt is answered rightly with $p = \tfrac14$, and $G = 4$. All right happens with
    probability $\tfrac1{256}$, all wrong with $\tfrac{81}{256}$; so $\tfrac{174}{256} = 0.68$ of the groups are kept,
    and for each kept one 1.47 are drawn.

    *Overlong shaping.* At most 6 tokens, and a margin of 2: an answer of 4 tokens loses nothing, of 5 tokens
    $\tfrac12$, of 6 tokens 1.

    *Clip-higher.* Within one batch the ratio of a token that did well stops at 1.2, or with DAPO at 1.28. A token of
    probability .5 gains .10 or .14 that way; one of probability .001 gains .0002 or .00028. Common tokens hardly notice
    an upper bound, as their probability cannot pass 1; the rare ones are held back by it.
    """)  # noqa: E501
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 2.3.2",
        r"""
        J_{DAPO} = \mathbb{E}\left[\frac1{\sum_{i=1}^{G} |o_i|} \sum_{i=1}^{G} \sum_{t=1}^{|o_i|} J_\theta\right],
        \qquad 0 < \#\{\text{right answers}\} < G
        """,
        r"""
        The library's `aggregate` is a weighted sum over tokens, and `d_aggregate` gives the weights: `"sequence"` is
        GRPO, `"group_token"` this equation, `"token"` what engines do in its place, `"constant"` Dr. GRPO. Groups are
        judged by right and wrong *before* the length penalty is added; else a flat group of wrong answers that differ
        in length would be kept.
        """,
        losses.d_aggregate,
        rates.kept_share,
        credit.overlong_penalty,
    )
    return


@app.cell
def _():
    _mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    _A = np.array([[1.0], [-1.0]])
    _rows = []
    for _how in ("sequence", "group_token"):
        _w = losses.d_aggregate(1.0 * _mask, _mask, how=_how, group=np.zeros(2, int))
        _whole = (_w * _A).sum(axis=1)
        _rows.append(f"    | {NAMES[_how]} | {_w[0, 0]:.4f} | {_w[1, 0]:.4f} | {_whole[0]:+.4f} | {_whole[1]:+.4f} |")
    _share = rates.kept_share(0.25, 4)
    _lost = credit.overlong_penalty(np.array([4.0, 5.0, 6.0]), 6, 2)
    _table = "\n".join(_rows)
    mo.md(f"""
    The library agrees:

    | | token of the right answer | of the wrong answer | whole right | whole wrong |
    |:--|--:|--:|--:|--:|
{_table}

    `kept_share(1/4, 4)` is {_share:.4f}, drawn for each kept {1 / _share:.4f};
    `overlong_penalty` of 4, 5, 6 tokens: {", ".join(f"{abs(x):g}" for x in _lost)} lost.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## What a mean does to lengths

    The source says that the token-level loss lets long answers with a high reward learn more. True; but what of the
    long answers with a low reward? The task: tell the parity of a bit, after as many thoughts as you like, in at most 6
    tokens. The policy ends its answer after each token with probability $e$, and otherwise writes 0 or 1 at random; so
    right and wrong answers come in all lengths. The **push** on an answer is the sum over its tokens of weight times
    advantage.
    """)
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["the mean per answer (GRPO)", "the mean over tokens (DAPO)", "neither"])
    parts.predict(
        "Under which mean is a long *wrong* answer, as a whole, pushed down harder than a short wrong one?", guess
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    e = mo.ui.slider(
        10, 90, 5, value=80, label="chance to end after each token, in %", show_value=True, full_width=True
    )
    e
    return (e,)


@app.class_definition
class Pushes(NamedTuple):
    """What answers that are drawn are pushed by."""

    length: I  # (n,)
    right: I  # (n,)
    push: dict[str, F]  # (n,) by mean, of the first answer of each group: they are independent


@app.function
def drawn(e: float) -> Pushes:
    """The first answers of groups to both prompts."""
    G = correction_16.G
    method = Method(Groups(G, GROUPS), Outcome())
    x = method.draw(TableLM(correction_16.task(), correction_16.policy(e)), np.random.default_rng(20)).x
    adv = method.credit.advantages(train.scored(method, x, None))
    found = {}
    for how in NAMES:
        w = losses.d_aggregate(adv, x.mask, how=how, group=x.group) * len(adv)
        found[how] = (w * adv).sum(axis=1)[::G]
    return Pushes(x.length[::G].astype(int), x.reward[::G].astype(int), found)


@app.function
def draw_pushes(ax: Axes, e: float, x: Pushes) -> None:
    """Draw the mean push on right and on wrong answers against their length: exact, and drawn."""
    length = np.arange(1, 7)
    for how, colour, aside in zip(NAMES, (COLOURS[1], COLOURS[0]), (-0.05, 0.05), strict=True):
        for own, style in ((1, "-"), (0, "--")):
            exact = length / 6 * correction_16.pushes(how, e)[own]
            label = f"{NAMES[how]}, {('wrong', 'right')[own]} answers"
            ax.plot(length, exact, ls=style, color=colour, lw=1.7, label=label)
            for n in length:
                y = x.push[how][(x.length == n) & (x.right == own)]
                if len(y) > 9:
                    ax.errorbar(n + aside, y.mean(), 2 * standard_error(y), fmt="o", ms=4, capsize=3, color=colour)
    ax.axhline(0, color=INK, lw=0.7)
    ax.set(xlabel="length of the answer (tokens)", ylabel="push: tokens × weight × advantage", ylim=(-2.5, 9.6))
    ax.set_title(f"Lines exact; points: {GROUPS:,} groups of {correction_16.G}, ± 2 se", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left")
    tidy(ax)


@app.function
def draw_drift(ax: Axes, e: float, lines: Mapping[str, F]) -> None:
    """Draw how fast the expected length grows along each mean update, against the chance to end."""
    for (name, y), colour, style in zip(lines.items(), (COLOURS[1], COLOURS[0], INK), ("-", "-", "--"), strict=True):
        ax.plot(100 * ENDS, y, color=colour, ls=style, lw=1.7, label=f"{name}, exact")
    ax.axvline(100 * e, color=COLOURS[4], lw=1.2, ls=":", label="the policy on the left")
    ax.axhline(0, color=INK, lw=0.7)
    ax.set(xlabel="chance to end after each token (%)", ylabel="growth of the mean length (tokens per unit step)")
    ax.set_ylim(-0.05, 0.66)
    ax.set_title("What one update does to the length", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")
    tidy(ax)


@app.cell
def _():
    lines = {
        name: np.array([correction_16.drift(how, x) for x in ENDS])
        for how, name in {**NAMES, "constant": "full advantage (Dr. GRPO)"}.items()
    }
    return (lines,)


@app.function
def figure(e: float, x: Pushes, lines: Mapping[str, F]) -> Figure:
    """Pushes by length, and what becomes of the length."""
    fig = new_figure(10.5, 4.5)
    left, right = fig.subplots(1, 2)
    draw_pushes(left, e, x)
    draw_drift(right, e, lines)
    return fig


@app.cell(hide_code=True)
def _(e, lines):
    _x, _e = drawn(e.value / 100), e.value / 100
    _rows = []
    for _how, _name in NAMES.items():
        _exact = np.array([1, 4]) / 6 * correction_16.pushes(_how, _e)[0, [0, 3]]
        _samples = [_x.push[_how][(_x.length == n) & (_x.right == 0)] for n in (1, 4)]
        _cells = [
            f"{a:.4f} | {y.mean():.3f} ± {2 * standard_error(y):.3f}" if len(y) > 9 else f"{a:.4f} | too few"
            for a, y in zip(_exact, _samples, strict=True)
        ]
        _rows.append(f"    | {_name} | " + " | ".join(_cells) + " |")
    _table = "\n".join(_rows)
    _text = f"""
    | push on wrong answers, e = {_e:g} | of 1 token, exact | drawn | of 4 tokens, exact | drawn |
    |:--|--:|--:|--:|--:|
{_table}

    <small>± is two standard errors, over the first answers of {GROUPS:,} groups; points of fewer than 10 answers are
    left out.</small>
    """
    _alt = f"Push on right and wrong answers by length, and growth of the mean length, at e = {_e:g}"
    mo.vstack([parts.picture(figure(_e, _x, lines), _alt), mo.md(_text)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "the mean over tokens (DAPO)",
        r"""
        Under the mean per answer the push does not depend on the length. Under the mean over tokens it grows with it,
        upwards for right answers and downwards for wrong ones. That is the repair: with GRPO a long wrong answer is
        hardly punished per token, so babbling on is cheap, and the mean length grows faster (right). The token mean
        is close to what the exact gradient does. It does not "encourage long answers"; it stops *sparing* them.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## What it costs

    Dropping groups costs draws: when almost every prompt is solved, or almost none, most of what is drawn is thrown
    away. It buys no new direction either: a group that is dropped has the advantage 0 anyway. In the mean the update of
    the kept groups is that of all groups, times one over the share kept; it is a longer and steadier step. Leaving out
    the KL saves one network and one pass. Counted in runs on a small copy task, $G = 16$, at the
    twentieth update, when hardly any group is mixed any more:
    """)
    return


@app.cell
def _():
    _task, _rng = token_tasks.copy(vocab=4, prompts=4), np.random.default_rng(20)
    _runs = {
        "PPO (critic, KL in the reward, 2 epochs)": train.ppo(_task, TableLM(_task), TableCritic(_task), _rng),
        "GRPO with a KL": train.grpo(_task, TableLM(_task), _rng, kl=Penalty(0.04)),
        "GRPO without": train.grpo(_task, TableLM(_task), _rng),
        "DAPO": train.dapo(_task, TableLM(_task), _rng),
    }
    _found = {name: list(islice(run, 20))[-1] for name, run in _runs.items()}
    _table = "\n".join(
        f"    | {name} | {x.networks} | {x.passes:.2f} | {100 * x.kept:.0f} % | {x.J:.3f} |"
        for name, x in _found.items()
    )
    mo.md(f"""
    | | networks held | forward passes for each token used | groups used, last update | J, exact |
    |:--|--:|--:|--:|--:|
{_table}

    Drawing a token is one pass, learning from it another, asking a reference one more. PPO looks twice at each batch
    with two networks, and asks both the critic and the reference once before: 1 + 4 + 2.
    """)
    return


@app.function
def correction_figure() -> Figure:
    """Kept groups, the weight of prompts by mean, and the growth of a rare token."""
    fig, rng = new_figure(13, 4.4), np.random.default_rng(correction_16.SEED)
    left, middle, right = fig.subplots(1, 3)
    p, G = correction_16.CHANCES, correction_16.G
    k = rng.binomial(G, np.broadcast_to(p, (8, correction_16.DRAWN, len(p))))
    share = {
        how: np.array([[correction_16.sampled_share(how, x, rng) for _ in range(4)] for x in correction_16.ENDS])
        for how in ("group_token", "token")
    }
    found = correction_16.Found(((k > 0) & (k < G)).mean(axis=1).T, {}, share)
    correction_16.draw_kept(left, found)
    correction_16.draw_shares(middle, found)
    correction_16.draw_growth(right)
    return fig


@app.cell(hide_code=True)
def _():
    _batches = [int((correction_16.growth(high, 60) < 0.5).sum()) for high in (0.2, 0.28)]
    parts.correction(
        16,
        rf"""
        The source speaks of groups that are all right. Groups that are all **wrong** are as flat, and where questions
        are hard there are many more of them: who drops only the first kind fills the batch with groups that teach
        nothing (left). Kept are those with $0 <$ right $< G$.

        The mean is over the tokens of the **group** in the paper, and over those of the **batch** in the engines that
        carry its name. They agree when all groups have equally many tokens. When one prompt needs long answers, the
        group mean gives it too little weight, and the batch mean about what the exact gradient does (middle: 1).

        And two parts are missing: the higher upper clip, so that a rare right token can grow (right: about by the
        clip from batch to batch; from .001 to one half in {_batches[1]} batches instead of {_batches[0]}), and the
        length penalty.
        """,
        correction_figure(),
        "Share of groups kept; weight of a prompt with long answers by mean; growth of a rare token by clip",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        20,
        """
        Write the mean over tokens, the share of groups that is kept, which ones they are, and the length penalty. Mind
        tokens behind the end, groups of different sizes, and what a group is judged by.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### A model answers every prompt rightly with p = 0.99, and G = 16. How many groups does dynamic sampling draw for each one it keeps?

        It keeps $1 - 0.99^{16} - 0.01^{16} \approx 0.149$, so it draws 6.7. With $G = 64$ it would be 2.1 groups, but
        each of four times as many answers: 135 answers drawn for 64 used, instead of 108 for 16.

        ### An answer was cut by the length limit and is wrong. It gets 0 from the verifier and −1 from the length penalty. The other 7 are wrong and short. Is the group kept?

        No. It is judged by the verifier's rewards, all 0, and dropped. Judged by the shaped rewards it would be kept,
        and teach nothing but shortness.

        ### Does dynamic sampling find right answers that would not have been found without it?

        Only by drawing more. A prompt with $p = 10^{-4}$ keeps 1 group of 8 in 1,250, whoever asks. What changes is the
        rest of the batch: it is full of groups from which something can be learnt.
        """  # noqa: E501
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "sections 2.3.1 to 2.3.3",
        """
        - Q. Yu and others, *DAPO: an open-source LLM reinforcement learning system at scale* (2025): equations 8 to 13
        - Z. Liu and others, *Understanding R1-Zero-like training* (2025): what dividing by the length does
        - G. Sheng and others, *HybridFlow: a flexible and efficient RLHF framework* (2024): verl
        """,
    )
    return


if __name__ == "__main__":
    app.run()
