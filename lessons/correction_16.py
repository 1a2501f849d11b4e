"""Correction 16: what DAPO drops, what it divides by, and what belongs to it.

1. Dynamic sampling is motivated by groups that are all right. Groups that are all wrong are as flat: what is kept is
   0 < right < G, a share of 1 - p^G - (1-p)^G. Dropping only the first kind, 1 - p^G, fills a batch with groups that
   teach nothing. A prompt that is hardly ever answered stays dead until luck strikes. Drawing again up to 8 times
   helps as far as it draws more. An entropy bonus revives dead prompts, but not together with dynamic sampling: groups
   that are dropped get no bonus.
2. The mean over tokens is over those of the *group* in the paper, and over those of the *batch* in the engines. Prompts
   with long answers then count more.
3. "Encourages long answers with high reward": each token of a long answer weighs as much as one of a short answer, so
   a long answer as a whole is pushed harder. That holds for the wrong ones too, which are pushed down harder.
4. Two parts are missing: the clip reaches higher than lower (.28, .2), so that rare tokens can grow; and answers that
   come near the limit lose up to 1.

p chance of a right answer; G answers in a group; e chance to end after each token, in the parity task.
"""

from collections.abc import Sequence
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tabrl.envs.token_tasks import copy, parity
from tabrl.losses import d_ppo_clip
from tabrl.summary import standard_error
from tabrl.tokens import groups, train
from tabrl.tokens.counts import Estimator
from tabrl.tokens.credit import overlong_penalty
from tabrl.tokens.draws import Dynamic, Groups
from tabrl.tokens.methods import Method, Outcome
from tabrl.tokens.outcomes import places
from tabrl.tokens.recursion import evaluate, values
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import Tree
from tabrl.types import F, I

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

G = 8
HOWS = {"sequence": "mean per answer", "group_token": "mean over tokens", "constant": "constant length"}
LEARNERS: dict[str, dict[str, Any]] = {
    "all groups": {"draw": Groups(G), "entropy": 0.0},
    "dynamic": {"draw": Dynamic(G), "entropy": 0.0},
    "all groups, entropy .03": {"draw": Groups(G), "entropy": 0.03},
    "dynamic, entropy .03": {"draw": Dynamic(G), "entropy": 0.03},
}
RARE = 1e-4  # chance of a right answer of four of the eight prompts at the start; of the others 1/64
CHANCES, ENDS = np.array([0.02, 0.1, 0.3, 0.5, 0.7, 0.9]), np.array([0.2, 0.35, 0.5, 0.65, 0.8])
RUNS, UPDATES, EVERY, DRAWN, BATCHES, SEED = 8, 120, 10, 300, 80, 16


class Found(NamedTuple):
    """What was sampled."""

    kept: F  # (CHANCES,runs) share of groups kept, of DRAWN
    dead: dict[str, F]  # (UPDATES/EVERY,runs) prompts that are dead, by learner
    share: dict[str, F]  # (ENDS,runs) weight of the prompt with long answers over that of the other, by mean


# ---- which groups ----


def kept_share(p: F, size: int = G) -> F:
    """Share of groups with some right and some wrong answers.

    >>> kept_share(np.array([0.0, 0.5, 1.0])).round(4)
    array([0.    , 0.9922, 0.    ])
    """
    return np.asarray(1 - p**size - (1 - p) ** size)


def read_literally(p: F, size: int = G) -> tuple[F, F]:
    """The mistake, dropping only groups that are all right: what is kept, and which part of that teaches anything.

    >>> [x.round(3).item() for x in read_literally(np.array(0.02))]
    [1.0, 0.149]
    """
    kept = 1 - p**size
    return np.asarray(kept), np.asarray(kept_share(p, size) / kept)


def half_dead(of: TokenTask) -> F:
    """Logits (N,V) of a copy task: right answers have the chance RARE for the first half of the prompts, else V^-2."""
    tree = of.tree
    worth = values(tree, np.full((tree.N, tree.V), 1 / tree.V), tree.reward)[1] > 0
    rare = (worth.any(axis=1) & (places(tree)[0] < tree.K // 2))[:, None]
    first = np.sqrt(RARE)
    return np.log(np.where(rare, np.where(worth, first, (1 - first) / (tree.V - 1)), 1 / tree.V))


def dying(name: str, seed: int, updates: int = UPDATES) -> F:
    """Dead prompts of a copy task after every EVERY updates of one run: (updates/EVERY,)."""
    task = copy(vocab=8)
    model, rng = TableLM(task, half_dead(task)), np.random.default_rng([SEED, seed])
    run = train.grpo(task, model, rng, every=EVERY, **LEARNERS[name])
    return np.array([x.dead for x in islice(run, updates // EVERY)], np.float64)


def untouched(k: F | I, rounds: int) -> F:
    """Expected number of the four rare prompts without a right answer in k updates of `rounds` groups each."""
    return np.asarray(4 * (1 - RARE) ** (G * rounds * k))


# ---- which tokens ----


@cache
def task() -> TokenTask:
    """Parity of one bit, at most 6 tokens: two prompts, right and wrong answers of every length."""
    return parity(1, length=6)


def policy(e: float, e_other: float | None = None) -> F:
    """Log-probabilities (N,3): end with probability e after any token, with e_other for the second prompt."""
    tree = task().tree
    prompt, _ = places(tree)
    end = np.where(prompt == 0, e, e if e_other is None else e_other)
    return np.asarray(np.log(np.column_stack([(1 - end) / 2, (1 - end) / 2, end])))


def pushes(how: str, e: float) -> F:
    """Mean of advantage times weight of each token, of answers of 1 to 6 tokens to one prompt: wrong, right (2,6).

    Times the number of prompts and 6, so that a mean over constant length has the advantage itself. No right answer
    has one token: nan.
    """
    tree, found = task().tree, np.full((2, 6), np.nan)
    c = 6 * groups.credit(tree, policy(e), Estimator(G, how))
    _, length = places(tree)
    for own, t in np.ndindex(2, 6):
        at = tree.ends & (tree.reward == own) & (length == t + 1)[:, None]
        found[own, t] = c[at][0] if at.any() else np.nan
    return found


def drift(how: str, e: float, *, cache_: int | None = None) -> float:
    """How fast the mean length grows along the mean update: d length / d step, over the length of the update.

    cache_: None, or overlong shaping from 6 - cache_ tokens on.

    >>> [round(drift(how, 0.2), 3) for how in HOWS]
    [0.33, 0.205, 0.191]
    """
    tree, logp = task().tree, policy(e)
    g = groups.expected_gradient(tree, logp, Estimator(G, how), reward=shaped(tree, cache_))
    _, length = places(tree)
    longer = evaluate(tree, logp, np.where(tree.ends, length[:, None], 0.0)).slope
    return float((g * longer).sum() / np.linalg.norm(g))


def shaped(tree: Tree, cache_: int | None) -> F | None:
    """Outcomes (N,V) less what answers lose that come near the limit; None for the plain ones."""
    if cache_ is None:
        return None
    _, length = places(tree)
    lost = overlong_penalty(length * 1.0, tree.L, cache_)
    return np.where(tree.ends, tree.reward + lost[:, None], 0.0)


# ---- group or batch ----


def of_prompts(g: F, logp: F) -> float:
    """Weight of the first prompt in an update g (N,3) over the second: parts along their own exact gradients."""
    prompt, _ = places(task().tree)
    exactly = evaluate(task().tree, logp).slope
    part = [(g * exactly)[prompt == k].sum() / (exactly**2)[prompt == k].sum() for k in (0, 1)]
    return float(part[0] / part[1])


def shares(how: str, e_other: float) -> float:
    """`of_prompts` of the mean update: long answers end with probability .2 after each token, the others with e_other.

    >>> [round(shares(how, 0.8), 2) for how in ("group_token", "token")]
    [0.34, 0.91]
    """
    logp = policy(0.2, e_other)
    return of_prompts(groups.expected_gradient(task().tree, logp, Estimator(G, how)), logp)


def sampled_share(how: str, e_other: float, rng: np.random.Generator) -> float:
    """The same of the mean of BATCHES updates that are drawn."""
    logp, method = policy(0.2, e_other), Method(Groups(G), Outcome(), how=how)
    model, total = TableLM(task(), logp), np.zeros(logp.size)
    for _ in range(BATCHES):
        x = method.draw(model, rng).x
        total += train.gradient(model, method, x, method.credit.advantages(train.scored(method, x, None)))
    return of_prompts(total.reshape(logp.shape), logp)


# ---- which clip ----


def growth(high: float, batches: int, p: float = 1e-3, arms: int = 32, epochs: int = 60) -> F:
    """Probability of the one right arm after 0, 1, … batches of exact mean updates of the clipped loss: (batches+1,).

    Many small steps on each batch: the right arm moves until the clip stops it, and a little further as others fall.

    >>> (growth(0.28, 3) / growth(0.2, 3)).round(3)
    array([1.   , 1.067, 1.134, 1.211])
    """
    z, path = np.log(np.append(p, np.full(arms - 1, (1 - p) / (arms - 1)))), [p]
    reward, d_loss = np.eye(arms)[0], partial(d_ppo_clip, high=high)
    for _ in range(batches):
        old = z - np.log(np.exp(z).sum())
        A = reward - np.exp(old[0])
        A = A / np.sqrt((np.exp(old) * A**2).sum())
        for _ in range(epochs):
            logp = z - np.log(np.exp(z).sum())
            g = -np.exp(old) * d_loss(logp, old, A)
            z = z + 0.2 * (g - np.exp(logp) * g.sum())
        path.append(float(np.exp(z[0]) / np.exp(z).sum()))
    return np.array(path)


def experiment(*, runs: int = RUNS, updates: int = UPDATES) -> Found:
    """Draw groups and updates, and train on a task half of whose prompts are dead."""
    rng = np.random.default_rng(SEED)
    right = rng.binomial(G, np.broadcast_to(CHANCES, (runs, DRAWN, len(CHANCES))))
    dead = {name: np.array([dying(name, run, updates) for run in range(runs)]).T for name in LEARNERS}
    share = {
        how: np.array([[sampled_share(how, e, rng) for _ in range(runs)] for e in ENDS])
        for how in ("group_token", "token")
    }
    return Found(((right > 0) & (right < G)).mean(axis=1).T, dead, share)


def figure(fig: "Figure") -> None:
    """Draw groups, deaths, pushes, lengths, prompts and clips; fig: empty, about 14 by 8 inches, "constrained"."""
    axes, found = fig.subplots(2, 3).ravel(), experiment()
    draw_kept(axes[0], found)
    draw_dead(axes[1], found)
    draw_pushes(axes[2])
    draw_drift(axes[3])
    draw_shares(axes[4], found)
    draw_growth(axes[5])


def draw_kept(ax: "Axes", found: Found) -> None:
    """Draw what is kept, and which part of it teaches, against p."""
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish, points

    p = np.linspace(0.002, 0.998, 250)
    kept, useful = read_literally(p)
    ax.plot(p, kept, color=WRONG, lw=1.6, label="all-right groups dropped: kept, exact")
    ax.plot(p, useful, color=OTHER, lw=1.6, ls="--", label="of these, not flat, exact")
    ax.plot(p, kept_share(p), color=RIGHT, lw=1.8, label="all flat groups dropped: kept, exact")
    points(ax, CHANCES, found.kept, RIGHT, "the same, sampled ± 2 se")
    ax.set_ylim(-0.03, 1.05)
    finish(
        ax,
        "chance p of a right answer",
        "share",
        f"Wrong groups are as flat as right ones (G = {G})",
        legend="lower center",
    )


def draw_dead(ax: "Axes", found: Found) -> None:
    """Draw the number of dead prompts over updates, by learner: runs, and what luck leaves, exactly."""
    from tabrl.lessons._drawing import FOURTH, INK, OTHER, RIGHT, WRONG, finish, paths

    k = EVERY * np.arange(1, len(found.dead["dynamic"]) + 1)
    for (name, y), colour in zip(found.dead.items(), (WRONG, OTHER, RIGHT, FOURTH), strict=True):
        paths(ax, k, y, colour, f"{name}, {y.shape[1]} runs ± 2 se")
        ax.plot(k, y.mean(axis=1), color=colour, lw=1.4)
    for rounds, style in ((1, "--"), (8, ":")):
        ax.plot(k, untouched(k, rounds), color=INK, ls=style, lw=1.2, label=f"no luck yet, {rounds} × {G} draws, exact")
    ax.set_ylim(-0.2, 8)
    finish(ax, "update", "dead prompts", "Half of 8 prompts start at p = .0001", legend="upper right")


def draw_pushes(ax: "Axes", e: float = 0.35) -> None:
    """Draw the mean push on a whole answer against its length: tokens times weight times advantage."""
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish

    length = np.arange(1, 7)
    for (how, name), colour in zip(HOWS.items(), (WRONG, RIGHT, OTHER), strict=True):
        wrong, right = length * pushes(how, e)
        ax.plot(length, right, "-o", color=colour, lw=1.6, ms=4, label=f"{name}, right answers, exact")
        ax.plot(length, wrong, "--s", color=colour, lw=1.6, ms=4, label=f"{name}, wrong answers, exact")
    ax.axhline(0, color="black", lw=0.7)
    ax.set_ylim(-8, 36)
    finish(
        ax,
        "length of the answer (tokens)",
        "tokens × weight × advantage",
        "Long wrong answers are pushed harder too",
        legend="upper left",
    )


def draw_drift(ax: "Axes") -> None:
    """Draw how fast the mean length grows along the mean update, against the chance to end."""
    from tabrl.lessons._drawing import FOURTH, OTHER, RIGHT, WRONG, finish

    e = np.linspace(0.1, 0.9, 41)
    for (how, name), colour, style in zip(HOWS.items(), (WRONG, RIGHT, OTHER), ("-", "-", "--"), strict=True):
        like = ", as the exact gradient" if how == "constant" else ""
        ax.plot(e, [drift(how, x) for x in e], color=colour, ls=style, lw=1.6, label=f"{name}{like}, exact")
    y = [drift("group_token", x, cache_=2) for x in e]
    ax.plot(e, y, color=FOURTH, lw=1.6, label="mean over tokens, overlong shaping, exact")
    ax.axhline(0, color="black", lw=0.7)
    ax.set_ylim(-0.6, 1.05)
    finish(
        ax,
        "chance to end after a token",
        "growth of the mean length",
        "What an update does to the length",
        legend="upper left",
    )


def draw_shares(ax: "Axes", found: Found) -> None:
    """Draw the weight of the prompt with long answers over that of the other, by mean."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, points

    e, names = np.linspace(0.15, 0.85, 36), ("tokens of the group (paper)", "tokens of the batch (engines)")
    for (how, y), name, colour, marker in zip(found.share.items(), names, (WRONG, RIGHT), "os", strict=True):
        ax.plot(e, [shares(how, x) for x in e], color=colour, lw=1.6, label=f"{name}, exact")
        points(ax, ENDS, y, colour, f"{name}, sampled ± 2 se", marker)
    ax.axhline(1, color="black", lw=0.7)
    ax.set_ylim(0, 2)
    finish(
        ax,
        "chance to end in the other prompt’s answers",
        "weight of the long prompt / other",
        "Two prompts, one with longer answers",
        legend="upper left",
    )


def draw_growth(ax: "Axes", batches: int = 40) -> None:
    """Draw the probability of a rare right token over batches, for both upper clips."""
    from tabrl.lessons._drawing import INK, RIGHT, WRONG, finish

    k = np.arange(batches + 1)
    for high, colour, style in ((0.2, WRONG, "--"), (0.28, RIGHT, ":")):
        ax.plot(k, growth(high, batches), color=colour, lw=1.8, label=f"clip at 1 + {high:g}, exact")
        ax.plot(k, np.minimum(1e-3 * (1 + high) ** k, 1), color=INK, ls=style, lw=1, label=f".001 (1 + {high:g})^k")
    ax.set(yscale="log", ylim=(8e-4, 3))
    finish(
        ax,
        "batch k",
        "probability of the right token",
        "A rare token grows by the clip, batch by batch",
        legend="lower right",
    )


def printed(name: str, rows: F, exactly: Sequence[float], x: F) -> None:
    """Print sampled numbers beside exact ones."""
    for at, y, want in zip(x, rows, exactly, strict=True):
        print(f"{name} {at:g}: {want:.4f} exact, {y.mean():.4f} ± {2 * standard_error(y):.4f} sampled")


def main() -> None:
    """Print the findings."""
    found = experiment()
    printed(f"share of groups of {G} kept at p =", found.kept, kept_share(CHANCES).tolist(), CHANCES)
    for p, kept, useful in zip(CHANCES, *read_literally(CHANCES), strict=True):
        print(f"dropping all-right groups only at p = {p:g}: {kept:.4f} kept, {useful:.4f} of these not flat")
    for name, y in found.dead.items():
        print(f"{name}: {y[-1].mean():.2f} ± {2 * standard_error(y[-1]):.2f} of 8 prompts dead after {UPDATES} updates")
    for how, name in HOWS.items():
        print(f"{name}: drift of the length {drift(how, 0.2):.4f} at e = .2; "
              f"with overlong shaping {drift(how, 0.2, cache_=2):.4f}")  # fmt: skip
        for own, push in zip(("wrong", "right"), pushes(how, 0.35), strict=True):
            print(f"    {own}: push per token {push.round(3)}, per answer {(push * np.arange(1, 7)).round(3)}")
    for how, y in found.share.items():
        printed(f"{how}: weight of the long prompt / other, e =", y, [shares(how, e) for e in ENDS], ENDS)
    for high in (0.2, 0.28):
        k = int((growth(high, 60) < 0.5).sum())
        print(f"clip at 1 + {high:g}: a right token of probability .001 passes 1/2 with batch {k}")


if __name__ == "__main__":
    main()
