"""Correction 12: PPO's ratio and advantage belong to a token, and a reward at the end is a matter of credit.

As written, PPO for language models has one ratio pi(o|q,o_<t) / pi_old(o|q,o_<t) and one advantage for an answer o,
with no sum over t, though t appears. Right: ratio and advantage of the token o_t after q and o_<t, summed over t,

    mean over answers of sum over t of min(rho_t A_t, clip(rho_t) A_t)

1. The readings that are left differ: the last token alone, a mean over tokens, the product of all ratios. At ratio 1
   only the sum over tokens and the product have the gradient of J. The product's variance grows exponentially with T,
   and a clip on it stops whole answers (correction 13).
2. "Token level loss: the reward is at the last token only" is listed as a drawback. A reward at the end says nothing
   about losses of tokens: it makes credit hard. Given to all tokens alike, the outcome is mostly noise to each of them.
   A critic's advantage A_t = Q - V finds the token that decided. Token-level loss in DAPO (2.3.2) is how tokens are
   averaged, a cure for another thing: it changes no token's advantage. (Less noise is not always faster: the runs stay
   together and near the exact ascent, while J is convex there, and noise carries some runs ahead.)

Bracket strings of T tokens, outcomes 0 and 1; V, Q exact values of prefixes and next tokens; lam of GAE; q chances of
answers.
"""

from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl.decisions import cosine
from tabrl.envs.token_tasks import brackets, parity
from tabrl.lessons._answers import every, of_tokens, push
from tabrl.summary import standard_error
from tabrl.tokens import train
from tabrl.tokens.credit import terminal_rewards, token_gae
from tabrl.tokens.draws import Groups
from tabrl.tokens.methods import Scored
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.trace import column
from tabrl.types import F, I

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OPEN = 0.75  # share of open brackets under the new policy; the old one is uniform
LENGTHS = (2, 4, 6, 8, 10)
LAMBDAS = (0.0, 0.5, 0.8, 0.95, 1.0)
READINGS = ("sum over tokens", "mean over tokens", "last token", "whole answer")
OUTCOME = "outcome − V(q)"
RUNS, DRAWS, UPDATES, STEP, SEED = 20, 1000, 90, 8.0, 12


class Found(NamedTuple):
    """What was sampled."""

    ratio: dict[str, F]  # (LENGTHS,runs) variance of ratios of "token" and "answer" among DRAWS answers
    noise: dict[str, F]  # (T,runs) mean square error of advantages by position, by credit
    J: dict[str, F]  # (UPDATES,runs) exact J while learning, by credit


# ---- ratios ----


def ratio_variance(length: int, of: str) -> float:
    """Variance of the ratio of a token, or of an answer of so many tokens, under the uniform old policy.

        E[rho^2] = sum over a of pi(a)^2 / pi_old(a),   of the answer that to the power T

    >>> ratio_variance(8, "token"), round(ratio_variance(8, "answer"), 4)
    (0.25, 4.9605)
    """
    square = (OPEN**2 + (1 - OPEN) ** 2) / 0.5
    return float(square ** (1 if of == "token" else length) - 1)


def sampled_ratios(length: int, runs: int, rng: np.random.Generator) -> dict[str, F]:
    """Variances of both among DRAWS answers, (runs,) each."""
    opened = rng.random((runs, DRAWS, length)) < 0.5
    rho = np.where(opened, OPEN, 1 - OPEN) / 0.5
    return {"token": rho[..., 0].var(axis=1, ddof=1), "answer": rho.prod(axis=2).var(axis=1, ddof=1)}


@cache
def ragged() -> tuple[TokenTask, F]:
    """Parity of one bit, answers of 1 to 5 tokens, and a policy (N,3) that is not uniform."""
    task = parity(1, length=5)
    return task, np.exp(log_softmax(np.random.default_rng(0).normal(size=(task.N, task.V))))


def reading(name: str) -> F:
    """Mean gradient (N,3) of a reading of the objective at ratio 1, with the exact A = Q - V, or r - V(q) of answers.

    >>> task, pi = ragged()
    >>> [round(cosine(reading(name), evaluate(task.tree, np.log(pi)).slope), 4) for name in READINGS]
    [1.0, 0.951, 0.9181, 1.0]
    """
    (task, pi), x = ragged(), every(ragged()[0])
    values = evaluate(task.tree, np.log(pi))
    q = of_tokens(pi, x).prod(axis=1) * task.weights[x.prompt]
    A = values.Q[x.row, x.tokens] - values.V[x.row]
    last = np.arange(A.shape[1]) == x.length[:, None] - 1
    weights = {
        "sum over tokens": A,
        "mean over tokens": A / x.length[:, None],
        "last token": A * last,
        "whole answer": np.broadcast_to((x.reward - values.V[x.prompt])[:, None], A.shape),
    }
    return push(pi, x, q[:, None] * weights[name])


# ---- credit ----


@cache
def task() -> TokenTask:
    """Balanced brackets, 8 tokens."""
    return brackets(8)


def credits_of(x: Rollouts, V: F, lam: float | None) -> F:
    """Advantages (B,T) of answers to one prompt: GAE with values V (N,), or for lam=None the outcome less V(q)."""
    if lam is None:
        return np.asarray((x.reward - V[x.prompt])[:, None] * x.mask)
    return np.asarray(token_gae(terminal_rewards(x.reward, x.mask), V[x.row] * x.mask, x.mask, lam))


def named(lam: float | None) -> str:
    """What a credit is called."""
    return OUTCOME if lam is None else f"GAE, λ = {lam:g}"


@cache
def listed() -> tuple[Rollouts, F, F, F]:
    """All bracket strings; their chances (B,) under the uniform policy; V (N,); exact advantages (B,T)."""
    x, pi = every(task()), np.full((task().N, 2), 0.5)
    values = evaluate(task().tree, np.log(pi))
    return x, of_tokens(pi, x).prod(axis=1), values.V, values.Q[x.row, x.tokens] - values.V[x.row]


def noise(lam: float | None) -> F:
    """Mean square of the error of a token's advantage, (T,), under the uniform policy; no error for lam = 0.

    >>> float(noise(0.0).max()), noise(1.0).round(4)[[0, 7]]
    (0.0, array([0.0487, 0.    ]))
    """
    x, q, V, A = listed()
    return np.asarray(q @ (credits_of(x, V, lam) - A) ** 2)


def signal() -> F:
    """Mean square of the exact advantage by position, (T,)."""
    _, q, _, A = listed()
    return np.asarray(q @ A**2)


def gradient_variance(lam: float | None) -> float:
    """Total variance of the gradient estimate from one answer, over the squared length of the gradient.

        sum over t of E A_t^2 |grad log pi(o_t)|^2 - |grad J|^2,   |grad log pi|^2 = 1/2 for a uniform choice of two

    as the tokens of an answer follow different prefixes.
    """
    x, q, V, _ = listed()
    exactly = evaluate(task().tree, np.full((task().N, 2), np.log(0.5))).slope
    return float((q @ credits_of(x, V, lam) ** 2).sum() / 2 / (exactly**2).sum() - 1)


class Exact(NamedTuple):
    """Credit by a critic that is always exact, for `train`; lam=None gives the outcome less V(q)."""

    model: TableLM
    lam: float | None

    def advantages(self, batch: Scored) -> F:
        """Advantages (B,T)."""
        V = evaluate(self.model.tree, log_softmax(self.model.table)).V
        return credits_of(batch.x, V, self.lam)


def learnt(lam: float | None, seed: int, updates: int) -> F:
    """Exact J after 1, 2, … updates from 8 answers each, (updates,): ratio 1, sum over tokens, plain steps."""
    model = TableLM(task())
    run = train.grpo(task(), model, np.random.default_rng([SEED, seed]), step=STEP, credit=Exact(model, lam),
                     draw=Groups(8), how="constant", entropy=0.0)  # fmt: skip
    return column(islice(run, updates), "J")


def ascent(updates: int) -> F:
    """J after 1, 2, … steps along the exact gradient, as long as the mean steps of the learners at that policy."""
    z, J = np.zeros((task().N, 2)), []
    for _ in range(updates):
        z = z + STEP / task().length * evaluate(task().tree, log_softmax(z)).slope
        J.append(float(evaluate(task().tree, log_softmax(z)).J))
    return np.array(J)


def example() -> I:
    """Tokens (8,) of an answer that goes wrong at its third token: ( ) ) ( ( ) ( )."""
    return np.array([0, 1, 1, 0, 0, 1, 0, 1])


def experiment(*, runs: int = RUNS, updates: int = UPDATES) -> Found:
    """Draw ratios, advantages and runs."""
    rng, (x, q, V, A) = np.random.default_rng(SEED), listed()
    ratios = [sampled_ratios(n, runs, rng) for n in LENGTHS]
    at = rng.choice(len(q), (runs, DRAWS), p=q)
    errors = {named(lam): ((credits_of(x, V, lam) - A) ** 2)[at].mean(axis=1).T for lam in (None, 1.0, 0.8)}
    J = {named(lam): np.array([learnt(lam, seed, updates) for seed in range(runs)]).T for lam in (None, 1.0, 0.0)}
    return Found({of: np.array([y[of] for y in ratios]) for of in ("token", "answer")}, errors, J)


def figure(fig: "Figure") -> None:
    """Draw ratios, readings, credit and learning; fig: an empty figure, about 14 by 8 inches, "constrained"."""
    axes, found = fig.subplots(2, 3).ravel(), experiment()
    draw_ratios(axes[0], found)
    draw_readings(axes[1])
    draw_example(axes[2])
    draw_noise(axes[3], found)
    draw_variance(axes[4])
    draw_learning(axes[5], found)


def draw_ratios(ax: "Axes", found: Found) -> None:
    """Draw the variance of the ratio of a token and of an answer against the length."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, points

    for (of, y), colour, marker in zip(found.ratio.items(), (RIGHT, WRONG), "os", strict=True):
        ax.plot(LENGTHS, [ratio_variance(n, of) for n in LENGTHS], color=colour, lw=1.6, label=f"of the {of}, exact")
        points(ax, np.array(LENGTHS), y, colour, f"of the {of}, sampled ± 2 se", marker)
    ax.set(yscale="log", ylim=(0.1, 100))
    finish(ax, "tokens of an answer", "variance of the ratio", "Ratios between two policies", legend="upper left")


def draw_readings(ax: "Axes") -> None:
    """Draw the cosine of each reading's mean gradient with the gradient of J."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish

    exactly = evaluate(ragged()[0].tree, np.log(ragged()[1])).slope
    y = [cosine(reading(name), exactly) for name in READINGS]
    ax.barh(READINGS[::-1], y[::-1], color=[RIGHT, WRONG, WRONG, RIGHT], height=0.6)
    for i, value in enumerate(y[::-1]):
        ax.text(value - 0.02, i, f"{value:.4f}", ha="right", va="center", color="white", fontsize=10)
    finish(ax, "cosine with ∇J at ratio 1, exact", "", "What the missing sum over t can mean", legend=None)


def draw_example(ax: "Axes") -> None:
    """Draw the credit of each token of one wrong answer."""
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish

    x, _, V, _ = listed()
    i, t = int((x.tokens == example()).all(axis=1).argmax()), np.arange(8)
    for lam, colour, style in ((None, WRONG, "--s"), (0.0, RIGHT, "-o"), (0.8, OTHER, ":^")):
        ax.plot(t, credits_of(x, V, lam)[i], style, color=colour, lw=1.5, ms=5, label=f"{named(lam)}, exact V")
    ax.axhline(0, color="black", lw=0.7)
    ax.set_xticks(t, task().answer(example().tolist()).split())
    ax.set_ylim(-0.24, 0.16)
    finish(ax, "token", "advantage", "Lost at its third token: which one is to blame?", legend="upper right")


def draw_noise(ax: "Axes", found: Found) -> None:
    """Draw the noise of advantages by position, beside the exact advantage itself."""
    from tabrl.lessons._drawing import INK, OTHER, RIGHT, WRONG, finish, points

    t = np.arange(1, 9)
    for lam, colour, marker in ((None, WRONG, "s"), (1.0, RIGHT, "o"), (0.8, OTHER, "^")):
        ax.plot(t, noise(lam), color=colour, lw=1.6, label=f"noise of {named(lam)}, exact")
        points(ax, t, found.noise[named(lam)], colour, marker=marker)
    ax.plot(t, signal(), color=INK, ls="--", lw=1.3, label="the advantage itself, exact; λ = 0: no noise")
    ax.set_ylim(-0.003, 0.105)
    finish(ax, "token t", "mean square", "Noise of a token’s advantage (points ± 2 se)", legend="upper left")


def draw_variance(ax: "Axes") -> None:
    """Draw the variance of the gradient estimate against lam."""
    from tabrl.lessons._drawing import RIGHT, finish, level

    lam = np.linspace(0, 1, 41)
    ax.plot(lam, [gradient_variance(x) for x in lam], color=RIGHT, lw=1.8, label="GAE with the exact critic, exact")
    level(ax, gradient_variance(None), 0.05, OUTCOME + ": {:.1f}")
    ax.set_ylim(0, 1.25 * gradient_variance(None))
    finish(ax, "λ", "variance of one answer / |∇J|²", "Variance of the gradient estimate", legend="lower right")


def draw_learning(ax: "Axes", found: Found) -> None:
    """Draw J over updates, by credit."""
    from tabrl.lessons._drawing import INK, OTHER, RIGHT, WRONG, finish, paths

    k = np.arange(1, len(found.J[OUTCOME]) + 1)
    for (name, y), colour in zip(found.J.items(), (WRONG, OTHER, RIGHT), strict=True):
        paths(ax, k, y, colour, f"{name}, {y.shape[1]} runs ± 2 se")
    ax.plot(k, ascent(len(k)), color=INK, ls="--", lw=1.5, label="ascent along the exact gradient")
    ax.set_ylim(0, 1.4)
    finish(ax, "update (8 answers each)", "J, exact", "Learning with each credit", legend="upper left")


def main() -> None:
    """Print the findings."""
    found, exactly = experiment(), evaluate(ragged()[0].tree, np.log(ragged()[1])).slope
    for name in READINGS:
        print(f"{name}: cosine with the gradient of J at ratio 1 {cosine(reading(name), exactly):.6f}")
    for of, rows in found.ratio.items():
        for n, y in zip(LENGTHS, rows, strict=True):
            print(f"variance of the ratio of the {of}, {n} tokens: {ratio_variance(n, of):.4f} exact, "
                  f"{y.mean():.4f} ± {2 * standard_error(y):.4f} sampled")  # fmt: skip
    print(f"mean square of the exact advantage by token: {signal().round(4)}")
    for name, lam in ((OUTCOME, None), *((named(x), x) for x in LAMBDAS)):
        print(f"{name}: noise by token {noise(lam).round(4)}; gradient variance {gradient_variance(lam):.3f} |∇J|²")
    print(f"J after {UPDATES} steps along the exact gradient: {ascent(UPDATES)[-1]:.4f}")
    for name, y in found.J.items():
        print(f"{name}: J after {len(y)} updates {y[-1].mean():.4f} ± {2 * standard_error(y[-1]):.4f}")


if __name__ == "__main__":
    main()
