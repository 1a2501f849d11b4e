"""The figures of token methods by name: exact success of every run, beside what is exact about the method.

A picture takes a random generator and a number of runs. Thin lines are single runs, all of them are shown, those that
fail too; black lines that are not solid are exact.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tabrl.control.acting import Rng
from tabrl.figures.picture import Picture, sheet
from tabrl.figures.token_curves import EACH, curves
from tabrl.figures.token_learning import Ways, clip_higher, dying, predicted, supervision, ways
from tabrl.figures.token_pictures import group_weights, kept_share_picture, kl_estimates, length_bias, without_legend
from tabrl.plots.grid import minus
from tabrl.plots.learning import exact_curve, exact_level, finish
from tabrl.plots.policies import colour
from tabrl.plots.runs import THIN
from tabrl.summary import bootstrap_interval
from tabrl.types import F

SUCCESS = "J = success probability, exact"
ENTROPY = "entropy of a token, nats, exact (log scale)"
LEAST = 1e-17  # of a KL on a log axis: below is rounding


def success_recursion(rng: Rng, runs: int) -> Figure:
    """GRPO and DAPO beside the path of expected updates."""
    x = predicted(rng, runs=runs)
    figure = sheet(13.6, 4.7, f"{EACH}; dotted: every update is the expected one (exact enumeration)")
    for ax, name, exact, several in zip(figure.subplots(1, 2), ("GRPO", "DAPO"), x.exact, x.runs, strict=True):
        k = several[0].k.astype(np.float64)
        labels = [f"{n} groups a batch" for n in x.groups]
        curves(ax, k, [y.J for y in several], labels, rng)
        exact_curve(ax, np.arange(float(len(exact))), exact, "expected updates")
        far = [abs(y.J.mean(axis=1) - exact[y.k]).max() for y in several]
        bounds = " and ".join(f"{gap:.2f}" for gap in far)
        title = f"{name} on balanced brackets, G = 16:\nthe mean stays within {bounds} of the expected path"
        finish(ax, "updates, plain steps of 16", SUCCESS, title)
    return figure


def clip_picture(rng: Rng, runs: int) -> Figure:
    """Entropy with and without clip-higher."""
    highs = (0.2, 0.28, 1.0)
    found = clip_higher(rng, runs=runs, highs=highs)
    said = "Sums, G = 16, 4 epochs on each batch, no entropy bonus; all bounds begin with the same batches"
    figure = sheet(17.5, 4.7, f"{EACH}. {said}")
    left, middle, right = figure.subplots(1, 3)
    k, labels = found[0].k.astype(np.float64), [f"clip 0.2, {high:g}" for high in highs]
    curves(left, k, [x.entropy for x in found], labels, rng)
    left.set_yscale("log")
    curves(middle, k[1:], [100 * x.clip_fraction[1:] for x in found], labels, rng)
    for i, (x, label) in enumerate(zip(found, labels, strict=True)):
        right.plot(x.J[:, :THIN], x.entropy[:, :THIN], color=colour(i), lw=0.6, alpha=0.4)
        right.plot(x.J.mean(axis=1), x.entropy.mean(axis=1), color=colour(i), lw=1.8, label=label)
    right.set_yscale("log")
    difference = gap(found[0].entropy, found[1].entropy, rng)
    finish(left, "updates", ENTROPY, f"0.28 less 0.2, mean over updates:\n{difference}")
    finish(middle, "updates", "tokens clipped (%)", "how much is clipped")
    finish(right, SUCCESS, ENTROPY, "entropy at the same success")
    without_legend(left, middle)
    return figure


def gap(y: F, other: F, rng: Rng) -> str:
    """The difference of two methods in the mean over updates, with its interval over runs, in words."""
    difference = other.mean(axis=0) - y.mean(axis=0)
    if len(difference) < 2:
        return f"{difference[0]:+.3f}"
    low, high = bootstrap_interval(difference, rng)
    return minus(f"{difference.mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")


def optimum_paths(rng: Rng, runs: int) -> Figure:
    """The way to the regularised optimum, and to where other penalties rest."""
    x = ways(rng, runs=runs)
    figure = sheet(14.4, 4.9, f"thin: every run; thick: median of the {runs} runs; black: exact")
    left, right = figure.subplots(1, 2)
    labels = ["k1 in the reward, no std", "k3 in the loss, no std", "k3 in the loss, std"]
    for column, ax in enumerate((left, right)):
        for i, label in enumerate(labels):
            y = np.maximum(x.runs[i].seen[..., column], LEAST)
            ax.plot(x.runs[i].k, y, color=colour(i), lw=0.7, alpha=0.5)
            ax.plot(x.runs[i].k, np.median(y, axis=1), color=colour(i), lw=1.8, label=label)
        ax.set_yscale("log")
    for i, rest in enumerate(x.rest[1:], 1):
        exact_level(left, rest, f"rest of {labels[i]}: {rest:.3f}", dash=i)
    title = "copying, KL to the uniform reference, β = 0.5:\nk1 in the reward rests at π*, k3 in the loss elsewhere"
    finish(left, "updates", "KL(π || π*) of sequences, nats (log scale)", title)
    finish(right, "updates", "KL(π || rest) of sequences, nats (log scale)", ending(x))
    without_legend(right)
    return figure


def ending(x: Ways) -> str:
    """How far the runs end from where they should rest, in words."""
    largest = ", ".join(f"{y.seen[-1, :, 1].max():.0e}" for y in x.runs)
    return f"how far from the rest that is computed for each:\nfarthest run at the end {minus(largest)}"


def dead_prompts(rng: Rng, runs: int) -> Figure:
    """Prompts that die."""
    found = dying(rng, runs=runs)
    figure = sheet(14.8, 4.9, f"{EACH}. Unless it is said the prompts share logits, and there is no entropy bonus")
    left, right = figure.subplots(1, 2)
    labels, k = list(found), next(iter(found.values())).k.astype(np.float64)
    curves(left, k, [x.J for x in found.values()], labels, rng, {"J*": 1.0})
    curves(right, k, [x.dead for x in found.values()], labels, rng)
    ends = ", ".join(f"{np.mean(x.dead[-1]):.1f}" for x in found.values())
    finish(left, "updates", SUCCESS, f"copying, small groups, {runs} runs (dashed: J*)")
    title = f"dead at the end, mean, in the order of the legend:\n{ends}"
    finish(right, "updates", "dead prompts of 8, exact", title)
    without_legend(left)
    return figure


def process_picture(rng: Rng, runs: int) -> Figure:
    """Process against outcome supervision, DAPO against GRPO."""
    found = supervision(rng, runs=runs)
    figure = sheet(17.5, 4.7, f"{EACH}. Two-step arithmetic modulo 7, G = 16, entropy bonus 0.03")
    axes = figure.subplots(1, 3)
    labels, k = list(found), next(iter(found.values())).k.astype(np.float64)
    names = (SUCCESS, "chance that the first step is right, exact", ENTROPY)
    columns: Any = zip(*((x.J, x.seen[..., 0], x.entropy) for x in found.values()), strict=True)
    a, b = found["GRPO, outcome"], found["DAPO, outcome"]
    difference = gap(a.entropy[-1:], b.entropy[-1:], rng)
    titles = ("right answers", "right steps", f"at the end, DAPO less GRPO, outcome:\n{difference}")
    for ax, ys, name, title in zip(axes, columns, names, titles, strict=True):
        curves(ax, k, ys, labels, rng)
        finish(ax, "updates", name, title)
    axes[2].set_yscale("log")
    without_legend(*axes[:2])
    return figure


TOKENS: dict[str, Picture] = {
    "token-success": Picture("GRPO and DAPO beside the path of their expected updates", success_recursion, 8),
    "token-weights": Picture("How much a prompt weighs in a group's update, over its p", group_weights, 4000),
    "token-kept": Picture("What dynamic sampling keeps, over p and while DAPO learns", kept_share_picture, 8),
    "token-kl": Picture("Bias and deviation of k1, k2, k3, and where KL penalties push", kl_estimates, 4000),
    "token-lengths": Picture("The length bias of four ways to average over tokens", length_bias, 400),
    "token-clip": Picture("Entropy collapse with and without clip-higher", clip_picture, 8),
    "token-optimum": Picture("The way to the KL-regularised optimum, and where others rest", optimum_paths, 4),
    "token-dead": Picture("Prompts that die in small groups without entropy", dead_prompts, 6),
    "token-process": Picture("Process against outcome supervision, DAPO against GRPO", process_picture, 8),
}
