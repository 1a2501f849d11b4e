"""Lesson 21: What the engines do.

40 minutes. After: lesson 20. Rows: E2.12. Corrections: none.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="21 · What the engines do")

with app.setup:
    import marimo as mo
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tabrl.advantages import group_advantages
    from tabrl.envs import token_tasks
    from tabrl.figures.token_estimates import mean_weight, sampled_weights
    from tabrl.lessons import correction_16, parts
    from tabrl.losses import HOWS, clipped, ppo_clip
    from tabrl.plots import COLOURS, GREY, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.tokens import TableLM, bridge, engines, methods, train
    from tabrl.tokens.counts import Estimator
    from tabrl.tokens.draws import Groups
    from tabrl.tokens.methods import Method, Outcome
    from tabrl.types import F

    FIRST = {  # the first row of each part of the table
        "Drawing and stepping": "Answers per prompt, G",
        "Advantages": "Baseline: mean of the group",
        "Ratio and clip": "Clip",
        "Means over tokens": "Mean over sequences of their means (GRPO)",
        "KL and entropy": "KL in the loss, k3",
        "Groups, lengths, critic": "Dynamic sampling",
    }
    ENDS, FINE = np.array([0.3, 0.55, 0.8]), np.linspace(0.15, 0.85, 29)
    BLOCKS, BATCHES, DRAWN = 6, 40, 100


@app.cell(hide_code=True)
def _():
    parts.head(
        21,
        """
        - read the settings of TRL and verl as choices that you have met, and find the ones that nobody mentions
        - tell where one word means two things, and what the difference does to an update
        - hand a task and its verifier over to an engine, and know what it must see on the other side
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## From a formula to a settings file

    What we trained here fits into a table. Models that do not are trained by engines: TRL and verl are two of them.
    They have no other mathematics. But where a paper has one symbol an engine has a key, with a default that somebody
    chose, and the same word can stand for different things. Whoever can say which equation a key switches on can read
    any of them. A good order of work: find the settings on a small task, where the exact answer stands beside every
    estimate; hand over *the same task*, and see that the engine's curve is the one you know; only then change the model
    and the task.

    ## By hand: one word, two numbers

    **A batch of 8.** Eight prompts, sixteen answers each. In verl `data.train_batch_size=8`: it counts prompts. In TRL
    `per_device_train_batch_size=128`: it counts answers, on each device. Eight there, on one device, would be half
    a group.

    **A cap of 5.** CISPO weighs a token with its ratio, but not beyond a cap. TRL's `epsilon_high=5.0` is the cap
    itself. In verl `clip_ratio_high=4.0` is what the cap is above 1. Same cap, other number.

    **A clip that is not in the paper.** Take a token whose ratio has gone up to 5, with the advantage $-1$. In PPO's
    clip nothing binds: $\min(\rho A, \mathrm{clip}(\rho) A) = -5$, and its gradient pulls the token down. verl always
    has a second bound, 3 unless told otherwise: there the value stops at $-3$, and the gradient is 0.

    **A small number.** A group of four, paid 1, 0, 0, 0, has the sample std $\tfrac12$. TRL adds $10^{-4}$ to it, verl
    $10^{-6}$: advantages of the right answer $\tfrac34 / 0.5001$ and $\tfrac34 / 0.500001$. That is nothing, until
    somebody pays 0.001 and 0.
    """)
    return


@app.cell
def _():
    _r, _group = np.array([1.0, 0, 0, 0]), np.zeros(4, int)
    _A = [[group_advantages(s * _r, _group, eps=eps)[0] for eps in (1e-4, 1e-6)] for s in (1, 0.001)]
    _token = np.log([5.0]), np.zeros(1), -np.ones(1)
    _plain, _dual = (-ppo_clip(*_token, dual=dual).item() for dual in (None, 3.0))
    _stops = [bool(clipped(*_token, dual=dual)[0]) for dual in (None, 3.0)]
    mo.md(f"""
    The library agrees:

    | | as in TRL | as in verl |
    |:--|--:|--:|
    | advantage of 1 among 1, 0, 0, 0 | {_A[0][0]:.6f} | {_A[0][1]:.6f} |
    | advantage of 0.001 among 0.001, 0, 0, 0 | {_A[1][0]:.4f} | {_A[1][1]:.4f} |
    | ratio 5, advantage −1: value | {_plain:g} | {_dual:g} |
    | gradient stopped | {"yes" if _stops[0] else "no"} | {"yes" if _stops[1] else "no"} |
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 2.2.1",
        r"""
        \underbrace{\frac1G \sum_{i=1}^{G} \frac1{|o_i|} \sum_{t=1}^{|o_i|}}_{\text{mean over tokens}}
        \Big[ \underbrace{\min\left(r_\theta, \; \mathrm{clip}(r_\theta, 1 - \epsilon, 1 + \epsilon)\right)
        }_{\text{ratio, clip}} \; \underbrace{\hat A_{i,t}}_{\text{advantage}} \Big] -
        \underbrace{\beta D_{KL}}_{\text{which estimate, where}}
        """,
        r"""
        The braces are ours: each is a part that can be exchanged. (The minimum is that of both products with
        $\hat A$.) In the library a `Method` is a choice of such parts, and this is all that is computed from them: the
        derivative of the loss in the logits of every token.
        """,
        methods.slope,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(rf"""
    ## The table, part by part

    What follows was read from the source of TRL {engines.READ["trl"]} and verl {engines.READ["verl"]}; other versions
    may differ. A dash says that an engine has no such choice. Open each part, and look for these:

    * **Drawing and stepping.** The temperature divides logits when drawing *and* when learning, on both sides; with
      `top_p` or `top_k` the ratio is no longer that of what was drawn. The learning rate of TRL falls to 0 unless told
      not to, and verl decays weights. With one update per batch no clip does anything (lesson 18).
    * **Advantages.** The mean of the group, the sample in it, is what `grpo` means everywhere. Whether it is divided by
      the std, and by whose, is a key: it decides which prompts count (lesson 18).
    * **Ratio and clip.** One per token unless told otherwise. verl's dual clip is always there.
    * **Means over tokens.** No engine has the mean that the DAPO paper prints, and the one named `dapo` is the default
      of TRL (lesson 20).
    * **KL and entropy.** TRL's KL in the loss is weighed by the ratio unless told otherwise, which gives it another
      gradient at ratio 1, too: in the mean that of $KL(\pi \| \pi_{{ref}})$, token by token, and not that of $KL(\pi_{{ref}}
      \| \pi)$ (lesson 19).
    * **Groups, lengths, critic.** Only verl draws again for flat groups. The length penalty is a function that is handed
      over, on both sides.
    """)  # noqa: E501
    return


@app.function
def portions() -> dict[str, list[engines.Setting]]:
    """The rows of the table by part."""
    names = [x.what for x in engines.SETTINGS]
    starts = [names.index(first) for first in FIRST.values()]
    ends = [*starts[1:], len(names)]
    return {part: list(engines.SETTINGS[i:j]) for part, i, j in zip(FIRST, starts, ends, strict=True)}


@app.function
def shown(rows: list[engines.Setting]) -> str:
    """Rows as a table in Markdown: what, our name, both engines, and what differs in a line of its own."""
    short = {"actor_rollout_ref.actor.": "….", "reward.reward_kwargs.": "…kwargs."}
    lines = ["| what | tabrl | TRL | verl |", "|:--|:--|:--|:--|"]
    for x in rows:
        verl = x.verl
        for long, brief in short.items():
            verl = verl.replace(long, brief)
        cells = (engines.code(keys) for keys in (x.ours, x.trl, verl))
        note = f"<br><small>{x.note}</small>" if x.note else ""
        lines.append(f"| **{x.what}**{note} | {' | '.join(cells)} |")
    return "\n".join(lines)


@app.cell(hide_code=True)
def _():
    mo.vstack(
        [
            mo.accordion({part: mo.md(shown(rows)) for part, rows in portions().items()}, multiple=True),
            mo.md(
                "<small>In keys of verl `….` stands for `actor_rollout_ref.actor.`, and `…kwargs.` for "
                "`reward.reward_kwargs.`</small>"
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(
        ["per answer, then over answers", "over all tokens of the batch", "over each group’s tokens, then over groups"]
    )
    parts.predict(
        "You take TRL’s `GRPOTrainer` and leave `loss_type` alone. Which mean over tokens do you train with?", guess
    )
    return (guess,)


@app.function
def option(how: str) -> str:
    """What one writes to get a mean, from the table."""
    row = next(x for x in engines.SETTINGS if x.ours == f'how="{how}"')
    trl = "no key in TRL or verl" if row.trl == engines.NONE else f"TRL {row.trl.split('; ')[0]}"
    return f"{row.what}: {trl}"


@app.cell(hide_code=True)
def _():
    how = mo.ui.dropdown({option(x): x for x in HOWS}, value=option(HOWS[0]), label="mean over tokens", full_width=True)
    e = mo.ui.slider(
        15, 85, 5, value=20, label="chance that the other prompt’s answers end after a token, in %", show_value=True,
        full_width=True
    )  # fmt: skip
    mo.vstack([how, e])
    return e, how


@app.function
def shares(e: float, rng: np.random.Generator) -> F:
    """Weight of the prompt with long answers over that of the other, by mean and block of batches: (HOWS,BLOCKS)."""
    logp, method = correction_16.policy(0.2, e), Method(Groups(correction_16.G), Outcome())
    model, found = TableLM(correction_16.task(), logp), np.empty((len(HOWS), BLOCKS))
    for block in range(BLOCKS):
        update = np.zeros((len(HOWS), logp.size))
        for _ in range(BATCHES):
            x = method.draw(model, rng).x
            adv = method.credit.advantages(train.scored(method, x, None))
            update += [train.gradient(model, method._replace(how=how), x, adv) for how in HOWS]
        found[:, block] = [correction_16.of_prompts(y.reshape(logp.shape), logp) for y in update]
    return found


@app.cell
def _():
    _rng = np.random.default_rng(21)
    drawn = np.array([shares(float(x), _rng) for x in ENDS])
    lines = {x: np.array([correction_16.shares(x, float(y)) for y in FINE]) for x in HOWS}
    return drawn, lines


@app.function
def draw_weights(ax: Axes, how: str, e: float) -> None:
    """Draw the mean weight of a token against the length of its answer, exact and drawn."""
    length, task, logp = np.arange(1, 7), correction_16.task(), correction_16.policy(0.2, e)
    for name in HOWS:
        y = mean_weight(task.tree, logp, Estimator(correction_16.G, name))
        if name == how:
            ax.plot(length, y, color=INK, lw=1.8, zorder=3, label="chosen mean, exact")
        else:
            ax.plot(length, y, color="#c4c8cc", lw=1.4, label="_")
    ax.plot([], [], color="#c4c8cc", lw=1.4, label="the other means, exact")
    y = sampled_weights(TableLM(task, logp), correction_16.G, DRAWN, np.random.default_rng(21))[HOWS.index(how)]
    ax.errorbar(length, y.mean(axis=1), 2 * standard_error(y), fmt="o", ms=5, capsize=3, color=COLOURS[0], zorder=4,
                label=f"{DRAWN} batches drawn, ± 2 se")  # fmt: skip
    ax.set(xlabel="tokens of the answer", ylabel="weight of one of its tokens, times the answers", ylim=(0, 1.08))
    ax.set_title("How much a token weighs", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5)
    tidy(ax)


@app.function
def draw_prompts(ax: Axes, how: str, e: float, drawn: F, lines: dict[str, F]) -> None:
    """Draw the weight of the prompt with long answers over that of the other, exact and drawn."""
    for name, y in lines.items():
        if name != how:
            ax.plot(FINE, y, color="#c4c8cc", lw=1.4)
    ax.plot([], [], color="#c4c8cc", lw=1.4, label="the other means, exact")
    ax.plot(FINE, lines[how], color=INK, lw=1.8, label="chosen mean, exact")
    y = drawn[:, HOWS.index(how)]
    ax.errorbar(ENDS, y.mean(axis=1), 2 * standard_error(y), fmt="o", ms=5, capsize=3, color=COLOURS[0],
                label=f"{BLOCKS} × {BATCHES} batches drawn, ± 2 se")  # fmt: skip
    ax.axhline(1, color=GREY, lw=1, ls="--", label="the exact gradient")
    ax.plot(
        e, correction_16.shares(how, e), "o", ms=11, mfc="none", mec=COLOURS[1], mew=1.8, label="the policy on the left"
    )
    ax.set(xlabel="chance to end in the other prompt’s answers", ylabel="weight of the long prompt / other")
    ax.set_ylim(0, 2.4)
    ax.set_title("How much a prompt with long answers counts", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left")
    tidy(ax)


@app.function
def figure(how: str, e: float, drawn: F, lines: dict[str, F]) -> Figure:
    """Weights of tokens and of prompts under a mean."""
    fig = new_figure(10.5, 4.4)
    left, right = fig.subplots(1, 2)
    draw_weights(left, how, e)
    draw_prompts(right, how, e, drawn, lines)
    return fig


@app.cell(hide_code=True)
def _(drawn, e, how, lines):
    _exact = [correction_16.shares(how.value, float(x)) for x in ENDS]
    _rows = "\n".join(
        f"    | {x:g} | {share:.4f} | {y.mean():.3f} ± {2 * standard_error(y):.3f} |"
        for x, share, y in zip(ENDS, _exact, drawn[:, HOWS.index(how.value)], strict=True)
    )
    _text = f"""
    | the other prompt’s answers end with chance | weight of the long prompt / other, exact | drawn |
    |:--|--:|--:|
{_rows}

    <small>Parity of one bit, one group of {correction_16.G} answers to each of two prompts. Answers to the long prompt
    end with chance 0.2 after each token. ± is two standard errors.</small>
    """
    _alt = f"Weight of tokens by length, and of a prompt with long answers, at {e.value} %: {option(how.value)}"
    mo.vstack([parts.picture(figure(how.value, e.value / 100, drawn, lines), _alt), mo.md(_text)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "over all tokens of the batch",
        r"""
        The trainer is called GRPO, the default is called DAPO, and the mean is neither paper's: it is the one over all
        tokens of the batch, in both engines. Where prompts differ in length, as here, it mostly stays closer to the
        exact gradient than the other two. (What is missing to 1 even under Dr. GRPO's mean is the std's doing: the two
        prompts are answered rightly with different chances.) But it makes the update of one prompt depend on what the
        others draw, and on how a batch is split over devices if the split is not told of it. Write `loss_type` down,
        whatever you choose.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Handing over

    An engine wants two things: prompts as text, and a function that pays completions. Both come from the task, and the
    function asks the task's own verifier; so what is paid there is what was paid here. A completion that is no answer
    (a word that is no token, too many of them, too few) is paid 0, and nothing fails. By hand: the task is to copy two
    letters out of three, the prompt "copy: b a".
    """)
    return


@app.cell
def _():
    _task = token_tasks.copy(2, vocab=3, prompts=6)
    _k = _task.prompts.index("copy: b a")
    _texts = ["b a", "a b", "It is b a", "b", "b a a"]
    _trl = bridge.reward_function(_task)(prompts=[_task.prompts[_k]] * len(_texts), completions=_texts)
    _verl = [bridge.verl_reward(_task)("tabrl/copy", text, str(_k)) for text in _texts]
    _why = ["right", "wrong", "words that are no tokens", "too short", "too long"]
    _rows = "\n".join(
        f"    | {text} | {why} | {a:g} | {b:g} |" for text, why, a, b in zip(_texts, _why, _trl, _verl, strict=True)
    )
    _row = bridge.prompt_set(_task)[_k]
    mo.md(f"""
    | completion | | `reward_function`, for TRL | `verl_reward` |
    |:--|:--|--:|--:|
{_rows}

    The row of the prompt: `{ {key: _row[key] for key in ("prompt", "data_source", "reward_model")} }`.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(f"{parts.listing(bridge.reward_function)}\n\nScripts and commands for both engines: `docs/engines.md`.")
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        21,
        """
        Write a verifier as an engine asks for it, from text to numbers, and count what a method asks of its networks.
        Mind completions that are no answers: they are paid 0, and must not raise.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### We move a run from TRL to verl, set every key of the table, and get another curve. What to look at first?

        What is *not* in the settings: dropout, the chat template, how an answer is cut out of the text, the precision
        of the log-probabilities, and whether those of the drawing engine are the ones that were learnt with. A ratio
        that is not 1 at the first update of a batch betrays several of them.

        ### A run has μ = 1, no KL, and someone tunes the upper clip. What do they find?

        Noise, as long as the ratio is 1: nothing clips, and the runs are the same up to rounding. They find something
        only if a batch is split into several updates, or if the drawing engine's probabilities differ from those that
        are learnt with.

        ### Why should one run the small task in the large engine at all?

        Its exact answer is known. A reward function that pays the wrong text, a mask that is off by one, an end that is
        not counted: each still gives *some* curve on a large task, and only looks like a hard problem. On the small one
        it is a wrong number.
        """
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "section 2.3.3",
        f"""
        - L. von Werra and others, *TRL: transformer reinforcement learning*, version {engines.READ["trl"]}
        - G. Sheng and others, *HybridFlow: a flexible and efficient RLHF framework* (2024): verl, version
          {engines.READ["verl"]}
        - D. Ye and others, *Mastering complex control in MOBA games with deep reinforcement learning* (2020): dual clip
        - MiniMax, *MiniMax-M1* (2025): CISPO
        """,
    )
    return


if __name__ == "__main__":
    app.run()
