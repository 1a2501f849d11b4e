"""Pictures of what is exact about groups, kept shares, KL estimates and lengths, with samples beside the curves.

A picture takes a random generator and a number of runs. Circles are sample means with bars of two standard errors.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tabrl.control.acting import Rng
from tabrl.divergences import KINDS as ESTIMATES
from tabrl.figures.picture import sheet
from tabrl.figures.token_curves import curves
from tabrl.figures.token_estimates import PENALTIES, Estimates, Lengths, estimates, lengths
from tabrl.figures.token_groups import KINDS, Kept, kept, weights
from tabrl.losses import HOWS
from tabrl.plots import DASHES
from tabrl.plots.learning import exact_curve, finish
from tabrl.plots.policies import exact_line, sampled_points

SAMPLED = "lines: exact; circles: {}, bars: two standard errors"
NAMES = {
    "sequence": "sequence (GRPO)", "token": "token (batch)", "group_token": "group_token (DAPO)",
    "constant": "constant (Dr. GRPO)",
}  # fmt: skip


def group_weights(rng: Rng, runs: int) -> Figure:
    """w(p) for four ways to normalise, and over the size of the group."""
    x = weights(rng, runs=runs)
    figure = sheet(14.0, 4.7, SAMPLED.format(f"{runs:,} groups of 8 answers, the same for all four"))
    left, right = figure.subplots(1, 2)
    for i, kind in enumerate(KINDS):
        exact_line(left, x.p, x.exact[i], i, kind)
        sampled_points(left, x.shown, x.samples[i], i)
    left.set_ylim(0, 1.1 * x.exact.max())
    title = "E[update] = w(p) ∇p: with std, easy and hard prompts weigh more (G = 8)"
    finish(left, "p, chance of a right answer", "weight w(p) of a prompt", title)
    for i, G in enumerate(x.sizes):
        exact_line(right, x.p, x.by_size[i], i, f"G = {G}")
    exact_curve(right, x.p, 1 / np.sqrt(x.p * (1 - x.p)), r"$1 / \sqrt{p (1 - p)}$, $G \to \infty$")
    right.set_ylim(0, 8)
    title = "std of the population, by the size of the group"
    finish(right, "p, chance of a right answer", "weight w(p) of a prompt", title)
    return figure


def kept_share_picture(rng: Rng, runs: int) -> Figure:
    """a(p), and what DAPO keeps while it learns."""
    x = kept(rng, runs=runs)
    n = x.samples.shape[2]
    figure = sheet(14.0, 4.7, f"left: {SAMPLED.format(f'{n} groups')}; right: 95 % bootstrap interval over {runs} runs")
    left, right = figure.subplots(1, 2)
    for i, G in enumerate(x.sizes):
        exact_line(left, x.p, x.exact[i], i, f"G = {G}")
        sampled_points(left, x.shown, x.samples[i], i)
    finish(left, "p, chance of a right answer", "share of groups kept", r"dynamic sampling keeps $1 - p^G - (1 - p)^G$")
    kept_while_learning(right, x, rng)
    return figure


def kept_while_learning(ax: Axes, x: Kept, rng: Rng) -> None:
    """What DAPO keeps on sums, update by update."""
    k = x.runs.k[1:].astype(np.float64)
    curves(ax, k, [x.runs.kept[1:]], ["DAPO: used / drawn"], rng)
    exact_curve(ax, k, x.share, "a(p), exact", dash=1)
    exact_curve(ax, k, x.refilled, "used / drawn, exact")
    ax.plot(x.runs.k, x.runs.J.mean(axis=1), color="#999999", lw=1.2, label="success, exact", zorder=2)
    finish(ax, "updates", "share", "DAPO on sums, G = 16: batches are drawn whole,\nso less is used than a(p)")


def kl_estimates(rng: Rng, runs: int) -> Figure:
    """Bias and deviation of k1, k2, k3, and where penalties push."""
    x = estimates(rng, runs=runs)
    figure = sheet(17.5, 4.7, SAMPLED.format(f"{runs:,} answers, the same for all three"))
    left, middle, right = figure.subplots(1, 3)
    for i, kind in enumerate(ESTIMATES):
        exact_line(left, x.kl, x.bias[i], i, kind, dash=DASHES[i])
        exact_line(middle, x.kl, x.std[i], i, kind, dash=DASHES[i])
        sampled_points(left, x.kl[x.at], x.samples[i] - x.kl[x.at, None], i, shift=0.94 + 0.06 * i)
        square = (x.samples[i] - x.kl[x.at, None] - x.bias[i, x.at, None]) ** 2
        sampled_points(middle, x.kl[x.at], square, i, root=True, shift=0.94 + 0.06 * i)
    largest = 1.3 * max(float(abs(y).max()) for y in (x.bias, x.samples.mean(axis=2) - x.kl[x.at]))
    left.set_ylim(-largest, largest)
    middle.set_ylim(0.5 * x.std.min(), 2 * x.std.max())
    middle.set_yscale("log")
    angles(right, x)
    for ax in (left, middle, right):
        ax.set_xscale("log")
    distance = "KL(π || ref) of sequences, nats (log scale)"
    finish(left, distance, "bias, nats", "k1 and k3 have no bias, k2 has;\nfar away few samples of k3 see its mean")
    title = "near the reference k1 varies most, far from it k3,\nthrough answers too rare to be seen in samples"
    finish(middle, distance, "standard deviation, nats (log scale)", title)
    finish(right, distance, "cosine with ∇KL(π || ref)", "where the penalties push, in the mean (exact)")
    return figure


def angles(ax: Axes, x: Estimates) -> None:
    """Cosines of mean slopes with the gradient of the KL."""
    for i, name in enumerate(PENALTIES):
        exact_line(ax, x.kl, x.angle[i], i, name, dash=DASHES[i])
    ax.set_ylim(min(0.5, float(x.angle.min()) - 0.05), 1.02)


def length_bias(rng: Rng, runs: int) -> Figure:
    """Four ways to average over tokens."""
    x = lengths(rng, runs=runs)
    figure = sheet(18.0, 4.7, SAMPLED.format(f"{runs} batches of 8 groups of 8 answers"))
    left, middle, right = figure.subplots(1, 3)
    for i, how in enumerate(HOWS):
        exact_line(left, x.mean, x.angle[i], i, NAMES[how], dash=DASHES[i])
        exact_line(middle, x.mean, x.longer[i], i, NAMES[how], dash=DASHES[i])
        exact_line(right, x.T.astype(np.float64), x.weight[i], i, NAMES[how], dash=DASHES[i])
        sampled_points(right, x.T.astype(np.float64) + 0.06 * (i - 1.5), x.samples[i], i)
    exact_curve(middle, x.mean, x.truth, "∇J itself")
    words(left, middle, right, x)
    return figure


def words(left: Axes, middle: Axes, right: Axes, x: Lengths) -> None:
    """Axes and titles of the lengths."""
    length = "expected length of an answer, tokens"
    title = f"parity with thoughts: a mean per sequence\nturns the update (cosine ≥ {x.angle[0].min():.2f})"
    finish(left, length, "cosine with ∇J", title)
    finish(middle, length, "growth of the length, tokens per unit step", "and what the updates do to the length")
    right.set_ylim(0, 1.08)
    title = "why: a token of a short sequence weighs more"
    finish(right, "tokens in the sequence", "weight of one of its tokens, times the sequences", title)
    without_legend(left, middle)


def without_legend(*axes: Any) -> None:
    """Take the legends away where the next panel has the same."""
    for ax in axes:
        ax.get_legend().remove()
