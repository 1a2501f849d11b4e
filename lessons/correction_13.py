"""Correction 13: a ratio for each token, a KL for each token, and how often a batch is used.

As written, GRPO's objective has one ratio r(q, o_i) per answer inside a sum over its tokens, a KL outside of all sums,
and does not say how many updates a batch is used for. Right, and what each part does:

1. The ratio is rho_{i,t}, that of token t of answer i. With the ratio of the whole answer all terms of the sum over t
   are equal, so that 1/|o_i| cancels, and one clip stops all tokens of the answer at once.
   (Without a clip the ratio of the answer is the exact importance weight: its mean gradient stays right at any
   distance, that of the token ratios turns away; but its variance is another matter, see correction 12.)
2. With mu = 1 update per batch the ratio is 1: whatever the clip, it does nothing. It is for mu > 1, where it keeps the
   policy near the one that drew the batch, for better or worse: what one batch shows may be true or luck.
3. The KL is estimated inside the sum, by k3 of each token. Its mean over an answer of T tokens is 1/T of the KL of the
   answers, so beta is a price per token. Taken of the whole answer at once, k3 has the right mean too, but a variance
   that grows exponentially with the length.

p_old the policy that drew the batch; x the distance of the new one along the exact gradient; mu updates; G answers.
"""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tabrl.decisions import cosine
from tabrl.divergences import kl_estimate
from tabrl.envs.token_tasks import brackets, parity
from tabrl.lessons._answers import beside, binomial, every, objective, of_tokens, push
from tabrl.losses import clipped, d_ppo_clip
from tabrl.summary import standard_error
from tabrl.tokens import train
from tabrl.tokens.draws import Groups
from tabrl.tokens.methods import Clip, Method, Outcome
from tabrl.tokens.recursion import evaluate, log_softmax, reach, total
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.types import F

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

G, STEP = 8, 4.0  # answers in a group; length of an inner update
CLIPS = {"clip .2": 0.2, "no clip": np.inf}
LENGTHS = (2, 4, 6, 8, 10)
RUNS, UPDATES, DRAWS, SEED = 40, 30, 400, 13


class Found(NamedTuple):
    """What was sampled."""

    J: dict[str, F]  # (UPDATES+1,runs) after inner updates on one batch, by clip
    kl: dict[str, F]  # (LENGTHS,runs) variance of an estimate of KL(pi || ref) of answers, by estimator


# ---- ratios ----


@cache
def task() -> TokenTask:
    """Parity of one bit: answers of 1 to 5 tokens."""
    return parity(1, length=5)


@cache
def listed() -> Rollouts:
    """All answers to both prompts."""
    return every(task())


@cache
def old() -> F:
    """Log-probabilities (N,3) of the policy that draws; not uniform."""
    return np.asarray(log_softmax(np.random.default_rng(0).normal(size=(task().N, task().V))))


def moved(x: float) -> F:
    """The policy at distance x from `old` along the exact gradient."""
    g = evaluate(task().tree, old()).slope
    return np.asarray(log_softmax(old() + x * g / np.linalg.norm(g)))


def log_rho(logp: F, ratio: str) -> F:
    """Logarithm of the ratio at each token of all answers, (B,T): of the "token", or of the "answer" as written."""
    x = listed()
    each = np.log(of_tokens(np.exp(logp - old()), x))
    return each if ratio == "token" else np.broadcast_to(each.sum(axis=1)[:, None], each.shape)


@cache
def drawn() -> tuple[F, list[tuple[F, F]]]:
    """Chance of each answer (B,), and advantages (B,) of its group with their chances (B,), by the number of others."""
    x, p = listed(), evaluate(task().tree, old()).V[: task().K]
    q = of_tokens(np.exp(old()), x).prod(axis=1) * task().weights[x.prompt]
    A, chance = beside(G, std="population", eps=0.0), binomial(G - 1, p)[x.prompt]
    return q, [(A[x.reward.astype(int), k], chance[:, k]) for k in range(G)]


def surrogate(logp: F, ratio: str, high: float = 0.2) -> F:
    """Mean gradient (N,3) of GRPO's clipped objective when the policy is at logp, over all answers and all groups.

    ratio: "token" as published, or "answer": the T terms of an answer are equal then, and 1/T cancels.
    """
    x, lr, (q, groups) = listed(), log_rho(logp, ratio), drawn()
    mean = np.zeros(lr.shape)
    for A, chance in groups:
        adv = np.broadcast_to(A[:, None], lr.shape)
        mean -= chance[:, None] * d_ppo_clip(lr, 0 * lr, adv, low=min(high, 1.0), high=high)
    share = q / x.length if ratio == "token" else q
    return push(np.exp(logp), x, share[:, None] * mean)


def stopped(logp: F, ratio: str) -> float:
    """Share of the tokens that the old policy draws whose gradient the clip stops.

    >>> stopped(moved(0.0), "token"), stopped(moved(3.0), "token") < stopped(moved(3.0), "answer")
    (0.0, True)
    """
    x, lr, (q, groups) = listed(), log_rho(logp, ratio), drawn()
    at = sum(c[:, None] * clipped(lr, 0 * lr, np.broadcast_to(A[:, None], lr.shape)) for A, c in groups)
    return float((q[:, None] * x.mask * at).sum() / (q @ x.length))


# ---- updates ----


def squeezed(high: float, updates: int, ratio: str = "token") -> F:
    """Log-probabilities (updates+1,N,3) after 0, 1, … updates on one batch that is infinitely large."""
    z, path = old(), [old()]
    for _ in range(updates):
        z = z + STEP * surrogate(log_softmax(z), ratio, high)
        path.append(log_softmax(z))
    return np.array(path)


def on_one_batch(high: float, updates: int, rng: np.random.Generator) -> F:
    """J (updates+1,) after 0, 1, … updates on one group of G answers to each prompt."""
    model = TableLM(task(), old())
    method = Method(Groups(G), Outcome("population", 0.0), Clip(min(high, 1.0), high))
    x = method.draw(model, rng).x
    adv, J = method.credit.advantages(train.scored(method, x, None)), [objective(task(), old())]
    for _ in range(updates):
        model.theta = model.theta + STEP * train.gradient(model, method, x, adv)
        J.append(objective(task(), log_softmax(model.table)))
    return np.array(J)


def distance(logp: F) -> float:
    """KL(old || new) of answers, in nats."""
    d = reach(task().tree, np.exp(old()))
    return float((d * total(np.exp(old()) * (old() - logp))).sum())


# ---- KL ----


@cache
def answers(length: int) -> tuple[F, F, F]:
    """All bracket strings: chances q (B,) when 3 of 4 are open, log pi (B,T), and log ref (B,T) of a uniform policy."""
    of = brackets(length)
    x, pi = every(of), np.tile([0.75, 0.25], (of.N, 1))
    return of_tokens(pi, x).prod(axis=1), np.log(of_tokens(pi, x)), np.full((len(x.prompt), length), np.log(0.5))


ESTIMATORS: dict[str, Callable[[F, F], F]] = {
    "sum of tokens’ k1": lambda logp, ref: np.asarray(kl_estimate(logp, ref, kind="k1").sum(axis=1)),
    "sum of tokens’ k3": lambda logp, ref: np.asarray(kl_estimate(logp, ref, kind="k3").sum(axis=1)),
    "k3 of the answer": lambda logp, ref: np.asarray(kl_estimate(logp.sum(axis=1), ref.sum(axis=1), kind="k3")),
}


def moments(name: str, length: int) -> tuple[float, float]:
    """Mean and variance of an estimate of KL(pi || ref) of answers of so many tokens.

    >>> [round(moments(name, 8)[0], 4) for name in ESTIMATORS]
    [1.0465, 1.0465, 1.0465]
    """
    q, logp, ref = answers(length)
    y = ESTIMATORS[name](logp, ref)
    return float(q @ y), float(q @ (y - q @ y) ** 2)


def experiment(*, runs: int = RUNS, updates: int = UPDATES) -> Found:
    """Squeeze batches that are drawn, and estimate KLs of answers that are drawn."""
    rng = np.random.default_rng(SEED)
    J = {name: np.array([on_one_batch(high, updates, rng) for _ in range(runs)]).T for name, high in CLIPS.items()}
    kl = {name: np.empty((len(LENGTHS), runs)) for name in ESTIMATORS}
    for (i, length), run in product(enumerate(LENGTHS), range(runs)):
        q, logp, ref = answers(length)
        at = rng.choice(len(q), DRAWS, p=q / q.sum())
        for name, estimate in ESTIMATORS.items():
            kl[name][i, run] = estimate(logp[at], ref[at]).var(ddof=1)
    return Found(J, kl)


def figure(fig: "Figure") -> None:
    """Draw ratios, updates and KLs; fig: an empty figure, about 14 by 8 inches, layout "constrained"."""
    axes, found = fig.subplots(2, 3).ravel(), experiment()
    draw_ratios(axes[0], axes[1], axes[2])
    draw_updates(axes[3], found)
    draw_distance(axes[4])
    draw_kl(axes[5], found)


def draw_ratios(size: "Axes", angle: "Axes", share: "Axes") -> None:
    """Draw size and direction of the mean gradient, and the share of tokens that are stopped, against x."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish

    X, where = np.linspace(0, 6, 61), "distance x of the policy along ∇J (logits)"
    exactly = [evaluate(task().tree, moved(x)).slope for x in X]
    for ratio, colour in (("token", RIGHT), ("answer", WRONG)):
        for name, high in CLIPS.items():
            g = [surrogate(moved(x), ratio, high) for x in X]
            style: dict[str, Any] = {"color": colour, "ls": "-" if high < 1 else "--", "lw": 1.6}
            label = f"ρ of the {ratio}, {name}, exact"
            along = [(a * b).sum() / (b**2).sum() for a, b in zip(g, exactly, strict=True)]
            size.plot(X, along, label=label, **style)
            angle.plot(X, [cosine(a, b) for a, b in zip(g, exactly, strict=True)], label=label, **style)
        y = [stopped(moved(x), ratio) for x in X]
        share.plot(X, y, color=colour, lw=1.6, label=f"ρ of the {ratio}, exact")
    size.set_ylim(-0.2, 4.5)
    angle.set_ylim(-0.4, 1.05)
    share.set_ylim(-0.02, 1.02)
    finish(size, where, "mean gradient / ∇J there", "One ratio per answer stops whole answers", legend="upper right")
    finish(angle, where, "cosine with ∇J there", "Its direction (lines as on the left)", legend=None)
    finish(share, where, "share of tokens", "Tokens that the clip stops (none at x = 0)", legend="upper left")


def draw_updates(ax: "Axes", found: Found) -> None:
    """Draw J over updates on one batch: an infinite batch exactly, and groups that are drawn."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, paths

    k = np.arange(len(found.J["clip .2"]))
    for (name, high), colour in zip(CLIPS.items(), (RIGHT, WRONG), strict=True):
        y = found.J[name]
        paths(ax, k, y, colour, f"{name}, {y.shape[1]} batches, G = {G}, ± 2 se")
        exactly = [objective(task(), logp) for logp in squeezed(high, len(k) - 1)]
        ax.plot(k, exactly, color=colour, lw=2, label=f"{name}, infinite batch, exact")
    ax.set_ylim(0, 1.6)
    finish(ax, "updates μ on one batch", "J", "One batch, used again and again", legend="upper left")


def draw_distance(ax: "Axes") -> None:
    """Draw how far the policy is from the one that drew the batch, over updates."""
    from tabrl.lessons._drawing import GREY, RIGHT, WRONG, finish

    k = np.arange(UPDATES + 1)
    for (name, high), colour in zip(CLIPS.items(), (RIGHT, WRONG), strict=True):
        ax.plot(k, [distance(logp) for logp in squeezed(high, UPDATES)], color=colour, lw=1.8, label=f"{name}, exact")
    ax.axvline(1, color=GREY, ls=":", lw=1.2)
    ax.annotate("μ = 1: the same", (1, 1.4), (6, 0), textcoords="offset points", fontsize=9)
    finish(
        ax,
        "updates μ on the infinite batch",
        "KL(old || new) of answers (nats)",
        "The clip stops the policy",
        legend="upper left",
    )


def draw_kl(ax: "Axes", found: Found) -> None:
    """Draw the variance of estimates of the KL of answers against their length."""
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish, points

    for i, ((name, y), colour) in enumerate(zip(found.kl.items(), (OTHER, RIGHT, WRONG), strict=True)):
        ax.plot(LENGTHS, [moments(name, n)[1] for n in LENGTHS], color=colour, lw=1.6, label=f"{name}, exact")
        points(ax, np.array(LENGTHS) + 0.1 * (i - 1), y, colour, f"{name}, sampled ± 2 se", "os^"[i])
    ax.set(yscale="log", ylim=(0.01, 3e4))
    finish(
        ax,
        "tokens of an answer",
        "variance of the estimate (nats²)",
        "All have the mean KL(π || ref)",
        legend="upper left",
    )


def main() -> None:
    """Print the findings."""
    found = experiment()
    for x in (0.0, 1.0, 3.0):
        exactly = evaluate(task().tree, moved(x)).slope
        for ratio, (name, high) in product(("token", "answer"), CLIPS.items()):
            g = surrogate(moved(x), ratio, high)
            print(f"x = {x:g}, ratio of the {ratio}, {name}: cosine {cosine(g, exactly):.4f}; "
                  f"{stopped(moved(x), ratio) if high < 1 else 0:.4f} of the tokens stopped")  # fmt: skip
    for name, high in CLIPS.items():
        path, last = squeezed(high, UPDATES), found.J[name][-1]
        for mu in (1, 5, UPDATES):
            print(
                f"{name}, infinite batch, mu = {mu}: J {objective(task(), path[mu]):.4f}, KL {distance(path[mu]):.4f}"
            )
        print(f"{name}, batches of G = {G}, mu = {len(found.J[name]) - 1}: J {last.mean():.4f} ± "
              f"{2 * standard_error(last):.4f}, from {last.min():.4f} to {last.max():.4f}")  # fmt: skip
    for name, rows in found.kl.items():
        for n, y in zip(LENGTHS, rows, strict=True):
            mean, variance = moments(name, n)
            print(f"{name}, {n} tokens: mean {mean:.4f}, {mean / n:.4f} a token; variance {variance:.4f} exact, "
                  f"{y.mean():.4f} ± {2 * standard_error(y):.4f} sampled")  # fmt: skip


if __name__ == "__main__":
    main()
