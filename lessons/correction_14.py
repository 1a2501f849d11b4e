"""Correction 14: a normalised reward, by which standard deviation, and what a process reward is compared with.

"The advantage is the normalised return, (r_i - mean(r)) / std(r)" leaves open what an implementation must decide:

1. It is a reward, not a return: one number of the finished answer, the same at each of its tokens.
2. Which std. For rewards 0 and 1 the mean of the sum over tokens of A grad log pi is w_G(p) grad p, K of G right,

       w_G(p) = mean of sqrt(K (G-K)) / (G p (1-p))   population std
                times sqrt((G-1)/G)                   sample std
                (G-1)/G, without std;   1, without std and with the mean of the others

   so the choice says which prompts count: with a std and G > 3, the very hard and the very easy ones count more.
3. Which eps: std + eps matters only where rewards vary by as little as eps, or should not vary at all but for rounding.
4. What happens at std = 0: as written, 0/0. One flat group makes the whole gradient of a batch nan. Right: 0.
5. Process rewards: mean and std are those of *all* step rewards of the group, and a token gets the steps with an end at
   or after it, its own included: index(j) >= t. With > the last step goes unpaid, and the update can point down.

p chance of a right answer; G answers in a group; r rewards; the process part is a task of two steps.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tabrl.advantages import group_advantages
from tabrl.decisions import cosine
from tabrl.envs.token_tasks import two_step
from tabrl.lessons._answers import beside, every, mean_advantages, of_tokens, push
from tabrl.summary import standard_error
from tabrl.tokens.credit import process_advantages, token_returns
from tabrl.tokens.recursion import evaluate
from tabrl.tokens.task import TokenTask
from tabrl.types import F, I

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

G, P = 8, "chance p of a right answer"
FORMS: dict[str, dict[str, Any]] = {
    "population std": {"std": "population", "eps": 0.0},
    "sample std": {"std": "sample", "eps": 0.0},
    "no std": {"std": "none"},
    "no std, mean of others": {"std": "none", "leave_one_out": True},
}
CHANCES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
GROUP = 4  # answers in a group of the process part
RUNS, BATCH, SEED = 40, 400, 14


class Found(NamedTuple):
    """What was sampled, at CHANCES; BATCH groups a run."""

    weight: dict[str, F]  # (CHANCES,runs) by form, of single groups on a bandit
    spoilt: F  # (CHANCES,runs) share of batches of 8 groups whose gradient is nan, as written
    along: dict[str, F]  # (CHANCES,runs) by rule: process supervision, part along the exact gradient


# ---- outcome ----


def written(r: F, ddof: int = 0) -> F:
    """The mistake: the formula as it stands, for groups (…,G); nan where all rewards are equal.

    >>> written(np.array([[1.0, 0.0], [1.0, 1.0]]))
    array([[ 1., -1.],
           [nan, nan]])
    """
    with np.errstate(invalid="ignore"):
        return np.asarray((r - r.mean(axis=-1, keepdims=True)) / r.std(axis=-1, ddof=ddof, keepdims=True))


def weight(p: F, size: int, form: str) -> F:
    """w_G(p), exact: what the mean of the estimate is, in multiples of grad p.

    >>> [weight(np.array([0.1, 0.5]), 8, form).round(3).tolist() for form in FORMS]
    [[2.328, 1.856], [2.177, 1.736], [0.875, 0.875], [1.0, 1.0]]
    """
    means = mean_advantages(p, beside(size, **FORMS[form]))
    return np.asarray(means[..., 1] - means[..., 0])


def kept_size(scale: float, eps: float) -> float:
    """What is left of an advantage when rewards are 0 and `scale` and the std is eased by eps; one right of G.

    >>> kept_size(1.0, 1e-4) > 0.999, round(kept_size(1e-4, 1e-4), 3)
    (True, 0.261)
    """
    r, group = scale * np.eye(G)[0], np.zeros(G, np.int64)
    eased, plain = (group_advantages(r, group, eps=x)[0] for x in (eps, 0.0))
    return float(eased / plain)


def rounding(eps: float) -> float:
    """Largest advantage in a group of G rewards that are .1 + .2 or .3: equal but for rounding.

    >>> round(rounding(0.0), 2), rounding(1e-9) < 1e-6
    (2.47, True)
    """
    r = np.where(np.arange(G) == 0, 0.1 + 0.2, 0.3)
    return float(abs(group_advantages(r, np.zeros(G, np.int64), eps=eps)).max())


def spoilt_share(p: F, groups: int) -> F:
    """Probability that a batch of groups of G holds a flat one, so that its gradient as written is nan.

    >>> spoilt_share(np.array([0.1, 0.5]), 8).round(3)
    array([0.989, 0.061])
    """
    return np.asarray(1 - (1 - p**G - (1 - p) ** G) ** groups)


# ---- process ----


def task() -> TokenTask:
    """(2 + 1) * 2 mod 3: two tokens, each of them a step."""
    return two_step(3, prompts=1)


def policy(p: float) -> F:
    """Both steps are right with probability p, the second one only half as often after a wrong first one: (4,3)."""
    right = np.array([p, *np.where(task().tree.step_reward[0] == 1, p, p / 2)])
    other = (1 - right) / 2
    return np.where(task().tree.step_reward == 1, right[:, None], other[:, None])


def right(r: F, end: F, group: I) -> F:
    """Advantages (B,2) with mean and std over the whole group, and index(j) >= t."""
    return np.asarray(process_advantages(r, end, group, end, std="population", eps=0.0))


def own_answer(r: F, end: F, group: I) -> F:
    """The mistake: mean and std of the answer's own steps. They add up to 0, so the first token always gets 0."""
    return np.asarray(token_returns(np.nan_to_num(written(r)), end))


def by_step(r: F, end: F, group: I) -> F:
    """Another choice, not the published one: mean and std of the first steps, of the second steps, … of the group."""
    normal = [group_advantages(r[:, t], group, std="population", eps=0.0) for t in range(r.shape[1])]
    return np.asarray(token_returns(np.column_stack(normal), end))


def later_steps(r: F, end: F, group: I) -> F:
    """The mistake: index(j) > t. A token is not paid for the step that it ends."""
    return np.column_stack([right(r, end, group)[:, 1:], np.zeros(len(r))])


def all_steps(r: F, end: F, group: I) -> F:
    """The mistake: no condition on index(j). What came before a token is noise to it: much the same mean."""
    return np.repeat(right(r, end, group)[:, :1], r.shape[1], axis=1)


RULES = {
    "index(j) ≥ t, whole group": right,
    "own answer’s mean, std": own_answer,
    "mean, std by step": by_step,
    "index(j) > t": later_steps,
    "all steps": all_steps,
}


@cache
def by_pattern(rule: str) -> tuple[I, F]:
    """All groups of patterns (n,GROUP), pattern 2 r_1 + r_2, and the first answer's advantages (n,2)."""
    groups = np.indices((4,) * GROUP).reshape(GROUP, -1).T
    r = np.stack([groups // 2, groups % 2], axis=-1).reshape(-1, 2).astype(np.float64)
    A = RULES[rule](r, np.ones_like(r), np.repeat(np.arange(len(groups)), GROUP))
    return groups, A.reshape(-1, GROUP, 2)[:, 0]


def moments(rule: str, p: float, power: int) -> F:
    """Means (9,2) of A^power given each answer, over the other answers of the group."""
    x = every(task())
    q, pattern = of_tokens(policy(p), x).prod(axis=1), (x.step_reward @ [2, 1]).astype(int)
    groups, A = by_pattern(rule)
    chance = np.bincount(pattern, q, 4)[groups[:, 1:]].prod(axis=1)
    mean: F = np.array([(chance * (groups[:, 0] == k)) @ A**power for k in range(4)])
    return np.asarray(mean[pattern])


def mean_gradient(rule: str, p: float) -> tuple[F, F]:
    """Mean of the sum over tokens of A grad log pi, and the gradient of the expected sum of step rewards, (4,3)."""
    pi, x = policy(p), every(task())
    g = of_tokens(pi, x).prod(axis=1)[:, None] * moments(rule, p, 1)
    return push(pi, x, g), np.asarray(evaluate(task().tree, np.log(pi), task().tree.step_reward).slope)


def noise(rule: str, p: float) -> float:
    """Root of the mean square of what one answer adds to the update, over the exact gradient.

        E |sum over t of A_t grad log pi(o_t)|^2 = sum over t of E A_t^2 |grad log pi(o_t)|^2

    as the tokens of an answer follow different prefixes.

    >>> noise("all steps", 0.5) > 1.05 * noise("index(j) ≥ t, whole group", 0.5)
    True
    """
    pi, x = policy(p), every(task())
    score = 1 - 2 * of_tokens(pi, x) + (pi**2).sum(axis=1)[x.row]
    square = of_tokens(pi, x).prod(axis=1) @ (moments(rule, p, 2) * score).sum(axis=1)
    return float(np.sqrt(square) / np.linalg.norm(mean_gradient(rule, p)[1]))


def along(g: F, exactly: F) -> float:
    """The part of g along the exact gradient, in multiples of it."""
    return float((g * exactly).sum() / (exactly**2).sum())


def sampled(rule: str, p: float, rng: np.random.Generator) -> float:
    """`along` of the mean over BATCH groups that are drawn."""
    pi, x = policy(p), every(task())
    i = rng.choice(len(x.prompt), BATCH * GROUP, p=of_tokens(pi, x).prod(axis=1))
    A = RULES[rule](x.step_reward[i], x.mask[i], np.repeat(np.arange(BATCH), GROUP))
    total = np.column_stack([np.bincount(i, A[:, t], len(x.prompt)) for t in (0, 1)])
    return along(push(pi, x, total / len(i)), mean_gradient(rule, p)[1])


def experiment(*, runs: int = RUNS) -> Found:
    """Draw groups with outcomes and with process rewards."""
    rng = np.random.default_rng(SEED)
    r = (rng.random((runs, BATCH, G, len(CHANCES))) < CHANCES).swapaxes(2, 3).astype(np.float64)
    score = (r - CHANCES[:, None]) / (CHANCES * (1 - CHANCES))[:, None]
    group = np.arange(r.size) // G
    weights = {
        name: (group_advantages(r.ravel(), group, **form).reshape(r.shape) * score).mean(axis=(1, 3)).T
        for name, form in FORMS.items()
    }
    spoilt = np.isnan(written(r)).any(axis=3).reshape(runs, -1, 8, len(CHANCES)).any(axis=2).mean(axis=1).T
    process = {rule: np.array([[sampled(rule, p, rng) for _ in range(runs)] for p in CHANCES]) for rule in RULES}
    return Found(weights, spoilt, process)


def figure(fig: "Figure") -> None:
    """Draw weights, eps, flat groups and process rewards; fig: an empty figure, about 14 by 8 inches, "constrained"."""
    axes, found = fig.subplots(2, 3).ravel(), experiment()
    draw_weights(axes[0], found)
    draw_sizes(axes[1])
    draw_eps(axes[2])
    draw_spoilt(axes[3], found)
    draw_process(axes[4], axes[5], found)


def draw_weights(ax: "Axes", found: Found) -> None:
    """Draw w_G(p) for every choice of std and mean: exact lines, sampled points."""
    from tabrl.lessons._drawing import FOURTH, OTHER, RIGHT, WRONG, finish, points

    p = np.linspace(0.02, 0.98, 193)
    for i, (form, colour) in enumerate(zip(FORMS, (WRONG, FOURTH, OTHER, RIGHT), strict=True)):
        ax.plot(p, weight(p, G, form), color=colour, lw=1.6, label=f"{form}, exact")
        points(ax, CHANCES + 0.006 * (i - 1.5), found.weight[form], colour, marker="os^D"[i])
    ax.set_ylim(0, 4.6)
    finish(
        ax,
        P,
        "w_G(p)",
        f"Which prompts count (G = {G}; points ± 2 se)",
        legend="upper center",
    )


def draw_sizes(ax: "Axes") -> None:
    """Draw w_G(p) for groups of several sizes, with the population std."""
    from tabrl.lessons._drawing import FOURTH, INK, OTHER, RIGHT, WRONG, finish

    p = np.linspace(0.02, 0.98, 193)
    for size, colour in zip((2, 3, 4, 16, 64), (RIGHT, OTHER, WRONG, FOURTH, "#94a4a2"), strict=True):
        ax.plot(p, weight(p, size, "population std"), color=colour, lw=1.6, label=f"G = {size}, exact")
    ax.plot(p, 1 / np.sqrt(p * (1 - p)), color=INK, ls="--", lw=1.2, label="G → ∞: 1 / √(p (1 − p))")
    ax.set_ylim(0, 7)
    finish(ax, P, "w_G(p)", "For G = 2 and 3 all prompts count alike", legend="upper center")


def draw_eps(ax: "Axes") -> None:
    """Draw what eps leaves of an advantage against the size of the rewards."""
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish

    scale = np.geomspace(1e-10, 1, 101)
    for eps, colour in ((1e-4, RIGHT), (1e-6, OTHER), (1e-9, WRONG)):
        label = f"ε = {eps:g}, exact; of rounding it makes {rounding(eps):.0e}"
        ax.plot(scale, [kept_size(x, eps) for x in scale], color=colour, lw=1.6, label=label)
    ax.set(xscale="log", ylim=(-0.03, 1.4))
    title = f"ε matters for tiny rewards, and for rounding (ε = 0: {rounding(0.0):.2f})"
    finish(ax, "size of the reward of a right answer", "advantage / advantage with ε = 0", title, legend="upper left")


def draw_spoilt(ax: "Axes", found: Found) -> None:
    """Draw the chance that the gradient of a batch is nan, as written."""
    from tabrl.lessons._drawing import FOURTH, OTHER, RIGHT, WRONG, finish, points

    p = np.linspace(0, 1, 201)
    for groups, colour in zip((1, 8, 64), (OTHER, WRONG, FOURTH), strict=True):
        ax.plot(p, spoilt_share(p, groups), color=colour, lw=1.6, label=f"as written, {groups} groups, exact")
    points(ax, CHANCES, found.spoilt, WRONG, "as written, 8 groups, sampled ± 2 se")
    ax.axhline(0, color=RIGHT, lw=1.8, label="a flat group gives 0: never")
    ax.set_ylim(-0.03, 1.6)
    finish(
        ax,
        P,
        "share of batches",
        "0/0: batches whose gradient is nan",
        legend="upper center",
    )


def draw_process(angle: "Axes", size: "Axes", found: Found) -> None:
    """Draw direction and size of the mean update under process supervision, by rule."""
    from tabrl.lessons._drawing import FOURTH, OTHER, RIGHT, WRONG, finish, points

    p, colours = np.linspace(0.04, 0.96, 93), (RIGHT, WRONG, OTHER, FOURTH, "#94a4a2")
    for i, (rule, colour) in enumerate(zip(RULES, colours, strict=True)):
        both = [mean_gradient(rule, x) for x in p]
        angle.plot(p, [cosine(*x) for x in both], color=colour, lw=1.6, label=f"{rule}, exact")
        size.plot(p, [along(*x) for x in both], color=colour, lw=1.6)
        points(size, CHANCES + 0.006 * (i - 2), found.along[rule], colour, marker="os^Dv"[i])
    step = "chance p of a right step"
    angle.set_ylim(-1.05, 1.05)
    size.axhline(0, color="black", lw=0.7)
    finish(
        angle,
        "chance p of a right step",
        "cosine with the exact gradient",
        "Process rewards: direction",
        legend="lower center",
    )
    title = f"Process rewards: size (G = {GROUP}; points ± 2 se)"
    finish(size, step, "update / exact gradient", title, legend=None)


def main() -> None:
    """Print the findings."""
    found = experiment()
    print(f"w_G(p), G = {G}: exact | sampled ± 2 se")
    for form, rows in found.weight.items():
        for p, y in zip(CHANCES, rows, strict=True):
            print(f"    {form:22} p = {p:g}: {weight(p, G, form):.4f} | {y.mean():.4f} ± {2 * standard_error(y):.4f}")
    for p, y in zip(CHANCES, found.spoilt, strict=True):
        print(f"p = {p:g}: nan in {spoilt_share(p, 8):.4f} of the batches of 8 groups as written; "
              f"{y.mean():.4f} ± {2 * standard_error(y):.4f} counted")  # fmt: skip
    for eps in (0.0, 1e-9, 1e-6, 1e-4):
        print(f"eps = {eps:g}: rewards 0 and 1 keep {kept_size(1.0, eps):.6f}, "
              f"0 and 1e-6 keep {kept_size(1e-6, eps):.4f}; "
              f"rewards equal but for rounding: advantages up to {rounding(eps):.1e}")  # fmt: skip
    for rule in RULES:
        for p, y in zip(CHANCES, found.along[rule], strict=True):
            both = mean_gradient(rule, p)
            print(f"    {rule:26} p = {p:g}: cosine {cosine(*both):7.4f}, {along(*both):7.4f} exact | "
                  f"{y.mean():7.4f} ± {2 * standard_error(y):.4f}; one answer {noise(rule, p):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
