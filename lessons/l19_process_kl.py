"""Lesson 19: Process supervision and KL.

50 minutes. After: lesson 18. Rows: E2.5, E2.6, E2.7. Corrections: 14.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="19 · Process supervision and KL")

with app.setup:
    from collections.abc import Callable, Mapping
    from functools import partial
    from itertools import islice
    from typing import Any, NamedTuple

    import marimo as mo
    import numpy as np
    from matplotlib.figure import Figure

    from tabrl.decisions import cosine
    from tabrl.divergences import kl_estimate
    from tabrl.envs import token_tasks
    from tabrl.lessons import correction_14, parts
    from tabrl.optimise import sgd
    from tabrl.plots import COLOURS, new_figure, tidy
    from tabrl.plots.grid import INK
    from tabrl.summary import standard_error
    from tabrl.tokens import TableLM, TokenTask, rates, regularised, train
    from tabrl.tokens.credit import process_advantages
    from tabrl.tokens.draws import Groups
    from tabrl.tokens.methods import Penalty
    from tabrl.tokens.penalties import kl_slope
    from tabrl.tokens.recursion import log_softmax
    from tabrl.tokens.stationary import stationary
    from tabrl.types import F

    PI, REF = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.25, 0.5]])
    G, RUNS, UPDATES, EVERY = 16, 3, 60, 3
    BETAS = np.linspace(0.1, 1, 37)


@app.cell(hide_code=True)
def _():
    parts.head(
        19,
        """
        - turn the rewards of steps into advantages of tokens, and say whom a step is compared with
        - estimate a KL from samples in three ways, and tell an estimate's mean from the direction it pushes in
        - compute the best policy under a KL penalty, and where training with one really comes to rest
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## Rewards for steps

    An outcome reward says at the end whether an answer was right; every token of it gets the same advantage. If someone
    can say after each *step* of the answer whether it was a good one, a token can be told more: it should be paid for
    its own step and for those after it, which it can still influence, and not for those before.

    **By hand.** Two answers of a group have two steps, of one token each. Their steps are rewarded 1, 0 and 1, 1. All
    four together have the mean $\tfrac34$; the squares of the differences add up to $\tfrac34$; the sample std is
    $\sqrt{\tfrac34 / 3} = \tfrac12$. So a reward of 1 becomes $(1 - \tfrac34)/\tfrac12 = \tfrac12$, and 0 becomes
    $-\tfrac32$. A token adds up what is at its own step and after it:

    | | first token | second token |
    |:--|--:|--:|
    | steps 1, 0 | 1/2 − 3/2 = −1 | −3/2 |
    | steps 1, 1 | 1/2 + 1/2 = 1 | 1/2 |

    Both first steps were rewarded with 1; yet one of the first tokens is made likelier and the other is not, for what
    came of it.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 2.2.2",
        r"""
        \tilde r_i^{\,index(j)} = \frac{r_i^{\,index(j)} - \mathrm{mean}(\mathbf{R})}{\mathrm{std}(\mathbf{R})}, \qquad
        \hat A_{i,t} = \sum_{index(j) \ge t} \tilde r_i^{\,index(j)}
        """,
        r"""
        $\mathbf R$ holds the step rewards of **all** answers of the group, and $index(j)$ is the last token of step
        $j$. In the library `step_end` says where a step ends; `token_returns` adds up from the right.
        """,
        process_advantages,
    )
    return


@app.cell
def _():
    _r, _on, _group = np.array([[1.0, 0.0], [1.0, 1.0]]), np.ones((2, 2), bool), np.zeros(2, int)
    _A = process_advantages(_r, _on, _group, _on, eps=0.0)
    mo.md(f"The library agrees with the table: {_A[0].tolist()} and {_A[1].tolist()}.")
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## A price for leaving

    What a verifier pays is not all that a language model should do. So one often charges $\beta$ for every nat of
    distance from the model that training began with, the **reference**: maximise $\mathbb{E}[r] - \beta\, KL(\pi \|
    \pi_{ref})$. The KL is a mean over what $\pi$ says, so it can be estimated from the answers that were drawn anyway.
    With $x = \log \pi_{ref} - \log \pi$ of a drawn token,

    $$k_1 = -x, \qquad k_2 = \tfrac12 x^2, \qquad k_3 = e^x - 1 - x .$$

    **By hand.** Three letters again; a is paid 1.

    | letter | $\pi$ | $\pi_{ref}$ | $x$ | $k_1$ | $k_2$ | $k_3$ |
    |:--|--:|--:|--:|--:|--:|--:|
    | a | 1/2 | 1/4 | −log 2 | .693 | .240 | .193 |
    | b | 1/4 | 1/4 | 0 | 0 | 0 | 0 |
    | c | 1/4 | 1/2 | log 2 | −.693 | .240 | .307 |
    | mean over π | | | | .173 | .180 | .173 |

    $k_1$ and $k_3$ have the right mean, $\tfrac14 \log 2$; $k_2$ is a little off. $k_3$ is never negative, and varies
    less as long as the policies are close.

    The **best policy** under the penalty is known: $\pi^*(o) = \pi_{ref}(o)\, e^{r(o)/\beta} / Z$. Take $\beta = 1/\log
    2$, so that $e^{1/\beta} = 2$: weights $\tfrac14 \cdot 2, \tfrac14, \tfrac12$ add up to $Z = \tfrac54$, and $\pi^* =
    (\tfrac25, \tfrac15, \tfrac25)$. The wrong letters keep their proportion; only the right one is lifted.
    """)
    return


@app.cell(hide_code=True)
def _():
    parts.equation(
        "section 2.2.1",
        r"L(\theta) = \dots - \beta D_{KL}[\pi_\theta \| \pi_{ref}]",
        r"""
        Print says what is to be small, and not how it is estimated nor where it goes. GRPO as published adds $\beta
        k_3$ of each token to the loss; RLHF with PPO takes $\beta k_1$ of each token from its reward.
        """,
        kl_estimate,
        regularised.sequence_optimum,
    )
    return


@app.function
def letters() -> TokenTask:
    """One prompt, three letters, and the first one is right."""
    return TokenTask("letters", ("a", "b", "c"), ("say a",), 1, lambda prompt, tokens: 1.0 * (tokens[:, 0] == 0))


@app.cell
def _():
    _means = [float((np.exp(PI) * kl_estimate(PI, REF, kind=kind)).sum()) for kind in ("k1", "k2", "k3")]
    _best = np.exp(regularised.sequence_optimum(letters().tree, REF, 1 / np.log(2))[0])[0]
    mo.md(f"""
    The library agrees: means {", ".join(f"{x:.4f}" for x in _means)}; the best policy is
    {", ".join(f"{x:.4f}" for x in _best)}.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## A right mean is not a right push

    Training does not use the estimate but its *gradient*, at the answers that $\pi$ drew. That is not the gradient of
    the mean: how $\pi$ changes what is drawn is missing from it. For $k_1$ in the loss nothing is left at all: the mean
    of $\nabla \log \pi$ is 0. For $k_3$ what is left is $\pi - \pi_{ref}$, the gradient of the *other* KL,
    $KL(\pi_{ref} \| \pi)$. Exact mean slopes: of the three letters, and of a task with answers of up to 4 tokens, where
    the estimate is added up token by token and a second thing goes missing: what a token does to the KL of the tokens
    behind it. Only a reward, which is summed from there to the end, sees that.
    """)
    return


@app.function
def many_tokens() -> tuple[TokenTask, F, F]:
    """A task of several tokens, a policy that is not uniform, and the uniform reference."""
    task = token_tasks.parity(1, length=4)
    u = np.random.default_rng(19).normal(size=(task.N, task.V))
    return task, np.asarray(log_softmax(u)), np.asarray(log_softmax(0 * u))


@app.function
def gradient(task: TokenTask, logp: F, ref: F) -> F:
    """The gradient of KL(pi || ref) of whole answers in the logits."""
    return np.asarray(-regularised.regularised(task.tree, logp, ref, 1.0, np.zeros_like(logp)).slope)


@app.cell
def _():
    _task, _pi, _ref = many_tokens()
    _one, _many, _other = gradient(letters(), PI, REF), gradient(_task, _pi, _ref), np.exp(PI) - np.exp(REF)
    _rows = []
    for _kind, _place in (("k1", "loss"), ("k2", "loss"), ("k3", "loss"), ("k3", "weighted"), ("k1", "reward")):
        _s = kl_slope(letters().tree, PI, REF, kind=_kind, place=_place)
        _name = f"{_kind} in the {_place}" if _place != "weighted" else f"{_kind} in the loss, times the ratio"
        if abs(_s).max() < 1e-12:
            _rows.append(f"    | {_name} | 0, 0, 0 | none | none | no KL at all |")
            continue
        _slope = ", ".join(f"{x + 0.0:.3f}" for x in _s[0].round(12))
        _long = cosine(kl_slope(_task.tree, _pi, _ref, kind=_kind, place=_place), _many)
        _rows.append(f"    | {_name} | {_slope} | {cosine(_s, _one):.4f} | {cosine(_s, _other):.4f} | {_long:.4f} |")
    _table = "\n".join(_rows)
    mo.md(f"""
    | estimate and place | mean slope, three letters | cosine with ∇KL(π‖ref) | with ∇KL(ref‖π) | many tokens: with ∇KL(π‖ref) |
    |:--|:--|--:|--:|--:|
{_table}
    """)  # noqa: E501
    return


@app.cell(hide_code=True)
def _():
    guess = mo.ui.radio(["both do", "only k1 in the reward", "only k3 in the loss", "neither"])
    parts.predict(
        r"""
        Two runs on the three letters, from the reference, with the mean of the others as baseline and no std. One takes
        $\beta k_1$ from the reward, the other adds $\beta k_3$ to the loss. Both have the right mean. Which of them
        comes to rest at the best policy $\pi^*$, whatever $\beta$ is?
        """,
        guess,
    )
    return (guess,)


@app.cell(hide_code=True)
def _():
    beta = mo.ui.slider(0.1, 1, 0.05, value=0.6, label="price β of a nat, in rewards", show_value=True, full_width=True)
    beta
    return (beta,)


@app.class_definition
class Way(NamedTuple):
    """A way to train, and where it is to come to rest."""

    run: Callable[..., train.Training]
    kind: str
    place: str
    rest: Callable[[float], float]  # chance of the right letter, exact, for a price


@app.function
def best(beta: float) -> float:
    """Chance of the right letter under the best policy."""
    return float(np.exp(regularised.optimum(letters().tree, REF, beta).logp)[0, 0])


@app.function
def resting(beta: float, weight: Callable[[F], F] | None = None) -> float:
    """Chance of the right letter where advantage and slope of k3 cancel."""
    return float(np.exp(stationary(letters().tree, REF, beta, weight=weight))[0, 0])


@app.function
def ways() -> dict[str, Way]:
    """Four ways to charge for a KL."""
    divided = partial(rates.w, G=G, std="sample", eps=1e-4)
    return {
        "k1 in the reward": Way(train.rloo, "k1", "reward", best),
        "k3 in the loss": Way(train.rloo, "k3", "loss", resting),
        "k3 in the loss, over the std (GRPO)": Way(train.grpo, "k3", "loss", partial(resting, weight=divided)),
        "k1 in the loss": Way(train.rloo, "k1", "loss", lambda beta: 1.0),
    }


@app.function
def trained(way: Way, beta: float) -> F:
    """Exact success of runs from the reference: (RUNS,records); steps shrink, so that noise dies down."""
    task, first = letters(), 1.2 / (0.2 + beta)
    settings: dict[str, Any] = {
        "kl": Penalty(beta, way.kind, way.place),
        "draw": Groups(G, 8),
        "step": sgd(lambda k: first / (1 + k / 20)),
        "entropy": 0.0,
    }
    runs = [
        way.run(task, TableLM(task, REF), np.random.default_rng([19, i]), reference=TableLM(task, REF), every=EVERY,
                **settings)
        for i in range(RUNS)
    ]  # fmt: skip
    return np.array([[0.25] + [x.J for x in islice(run, UPDATES // EVERY)] for run in runs])


@app.cell
def _():
    rests = {name: np.array([way.rest(float(b)) for b in BETAS]) for name, way in ways().items()}
    return (rests,)


@app.function
def figure(beta: float, rests: Mapping[str, F], runs: Mapping[str, F]) -> Figure:
    """Runs beside where they must come to rest, and the rest over the price."""
    fig, k = new_figure(10.5, 4.5), np.arange(0, UPDATES + 1, EVERY)
    left, right = fig.subplots(1, 2, sharey=True)
    colours = (COLOURS[0], COLOURS[1], COLOURS[3], COLOURS[4])
    for i, ((name, line), colour, way) in enumerate(zip(rests.items(), colours, ways().values(), strict=True)):
        left.plot(k, runs[name].T, color=colour, lw=1, alpha=0.8)
        left.axhline(way.rest(beta), color=colour, ls="--", lw=1.3)
        right.plot(BETAS, line, color=colour, lw=1.8, label=f"{name}, exact", ls="-" if i else (0, (5, 1)))
        y = runs[name][:, -1]
        face = {"ms": 5} if i else {"ms": 10, "mfc": "none"}  # two of the points may meet
        right.errorbar(beta, y.mean(), 2 * standard_error(y), fmt="os^D"[i], capsize=3, color=colour, **face)
    left.plot([], [], color=INK, lw=1, label=f"{RUNS} runs of each way")
    left.plot([], [], color=INK, ls="--", lw=1.3, label="where they come to rest, exact")
    left.set(xlabel="updates", ylabel="chance of the right letter", ylim=(0, 1.04), title=f"Training at β = {beta:g}")
    right.set(xlabel="price β (reward per nat)", title="Rests over β; points: runs, mean ± 2 se")
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8.5, loc="lower right" if ax is left else "lower left")
        tidy(ax)
    return fig


@app.cell(hide_code=True)
def _(beta, rests):
    _runs = {name: trained(way, beta.value) for name, way in ways().items()}
    _table = "\n".join(
        f"    | {name} | {way.rest(beta.value):.4f} | {_runs[name][:, -1].mean():.4f} ± "
        f"{2 * standard_error(_runs[name][:, -1]):.4f} |"
        for name, way in ways().items()
    )
    _text = f"""
    | chance of the right letter, β = {beta.value:g} | at rest, exact | after {UPDATES} updates, {RUNS} runs |
    |:--|--:|--:|
{_table}

    <small>Groups of {G}, 8 a batch; ± is two standard errors over the runs, whose success is exact. The first line is
    the best policy. k1 in the loss has no rest but success itself, and nears it ever more slowly; a run of
    another way that is still on its way lies below its line, too.</small>
    """
    _alt = f"Success of runs with a KL penalty at β = {beta.value:g} beside their exact points of rest"
    mo.vstack([parts.picture(figure(beta.value, rests, _runs), _alt), mo.md(_text)])
    return


@app.cell(hide_code=True)
def _(guess):
    parts.verdict(
        guess,
        "only k1 in the reward",
        r"""
        With $k_3$ in the loss the rest is where $p\,(1 - p) = \beta\,(p - p_{ref})$: it balances the reward with the
        *other* KL. Near $\beta = 0.6$ the two happen to cross; for a small $\beta$ it stays far behind the best policy,
        as $KL(\pi_{ref} \| \pi)$ punishes whoever forgets a letter altogether. Dividing by the std multiplies the
        reward's side by $w_G(p)$ (lesson 18), so GRPO's $\beta$ is a smaller price than it says. And $k_1$ in the loss
        is no penalty, only noise.

        At the best policy every answer has the same $r - \beta \log(\pi/\pi_{ref})$. So with $k_1$ in the reward all
        advantages vanish there, and with them the noise: look how the runs settle.
        """,
    )
    return


@app.function
def correction_figure() -> Figure:
    """Batches that are nan as written; direction and size of process supervision by rule."""
    fig = new_figure(13.5, 4.6)
    spoilt, angle, size = fig.subplots(1, 3)
    found = correction_14.experiment(runs=6)
    correction_14.draw_spoilt(spoilt, found)
    correction_14.draw_process(angle, size, found)
    return fig


@app.cell(hide_code=True)
def _():
    parts.correction(
        14,
        r"""
        "Normalised return" leaves much open. It is a reward, not a return: one number of the finished answer.
        Which std is lesson 18. Which $\varepsilon$ matters only where rewards are tiny or equal but for rounding. At
        std 0 the formula as it stands is 0/0, and **one** flat group makes the gradient of a whole batch nan (left);
        right is 0.

        For steps, mean and std are those of all steps of the **group**. With each answer's own they always add up to 0,
        and the first token is never taught anything. And $index(j) \ge t$ includes the step that the token itself ends:
        with $>$ the last step goes unpaid, and the update can point down (middle and right).
        """,
        correction_figure(),
        "Share of batches whose gradient is nan; cosine and size of process supervision by rule",
    )
    return


@app.cell(hide_code=True)
def _():
    parts.exercise(
        19,
        """
        Write the advantages of process supervision, the estimate k3, and the best distribution under a penalty. Mind
        steps that lie behind the end, groups of equal rewards, the sign of x, and exponents that overflow for a small
        β.
        """,
    )
    return


@app.cell(hide_code=True)
def _():
    parts.questions(
        r"""
        ### The reference writes a token with probability 0.5, the policy with 0.001, and it was drawn. What are k1 and k3?

        $x = \log 500 = 6.2$: $k_1 = -6.2$ and $k_3 = 500 - 1 - 6.2 \approx 493$. It is drawn once in a thousand times,
        so it adds about .5 to the mean of $k_3$ and almost everything to its variance. Near the reference $k_3$ is the
        steadier one, far from it $k_1$ is.

        ### Why not take k3 from the reward?

        The mean is right there too, but a policy gradient adds the score times $-k_3$, and the mean of that is the
        gradient of no KL: the derivative of $k_3$ itself is missing. For $k_1$ that derivative is the score, whose mean
        is 0, so nothing is missing.

        ### Does a KL penalty bound how far GRPO goes?

        With $k_3$ in the loss it comes to rest somewhere. But take the penalty exactly and solve each update to its
        end, with rewards over the std: then $\log\frac{p}{1-p}$ is what it is for the reference plus
        $1/(\beta\sqrt{p(1-p)})$ of the policy before. The nearer $p$ is to 1, the larger is that term. For $p_{ref} =
        \tfrac12$ and any $\beta$ below 1.51 no $p$ solves it, and success runs away to 1 (`tokens.amplification`).
        """  # noqa: E501
    )
    return


@app.cell(hide_code=True)
def _():
    parts.sources(
        "sections 2.2.1 and 2.2.2",
        """
        - Z. Shao and others, *DeepSeekMath* (2024), sections 4.1.1 to 4.1.3: k3 in the loss, process supervision
        - J. Schulman, *Approximating KL divergence* (2020): k1, k2, k3
        - Y. Tang and R. Munos, *On a few pitfalls in KL divergence gradient estimation for RL* (2025)
        - T. Korbak and others, *RL with KL penalties is better viewed as Bayesian inference* (2022): the best policy
        - Y. Mroueh, *Reinforcement learning with verifiable rewards* (2025): success amplification
        """,
    )
    return


if __name__ == "__main__":
    app.run()
