"""Estimators of the KL to a reference, and the four ways to average over tokens: exact, with samples beside it.

KL(pi || ref) of whole sequences, in nats; k1, k2, k3 its estimates from one sequence; how an aggregation of
`losses.aggregate`; T the length of a sequence. P points of the curves, M points with n samples each.
"""

from typing import Any, NamedTuple

import numpy as np

from tabrl.control.acting import Rng
from tabrl.decisions import cosine
from tabrl.divergences import KINDS, kl_estimate
from tabrl.envs import token_tasks
from tabrl.losses import HOWS, d_aggregate
from tabrl.tokens.counts import Estimator, token_weights
from tabrl.tokens.draws import Groups
from tabrl.tokens.groups import expected_gradient
from tabrl.tokens.methods import taken
from tabrl.tokens.outcomes import outcomes
from tabrl.tokens.penalties import kl_moments, kl_slope
from tabrl.tokens.recursion import evaluate, log_softmax
from tabrl.tokens.regularised import regularised
from tabrl.tokens.table import TableLM
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import Tree
from tabrl.types import F, I

PENALTIES = {  # kind, place, level of the slopes that are compared
    "k1 in the reward": ("k1", "reward", "token"),
    "k3 in the loss, sequences": ("k3", "loss", "sequence"),
    "k2 in the loss, tokens": ("k2", "loss", "token"),
    "k3 in the loss, tokens": ("k3", "loss", "token"),
}


class Estimates(NamedTuple):
    """Three estimates of a KL, further and further from the reference."""

    kl: F  # (P,) exact
    bias: F  # (3,P) exact mean less KL
    std: F  # (3,P) exact deviation of the estimate from one sequence
    at: I  # (M,) points with samples
    samples: F  # (3,M,n) estimates, the same sequences for all
    angle: F  # (len(PENALTIES),P) cosine of the mean slope of a penalty with the gradient of KL(pi || ref)


def estimates(rng: Rng, *, runs: int = 4000, points: int = 30, shown: int = 6) -> Estimates:
    """Answers of up to four tokens; logits go in a random direction, further and further from the uniform reference."""
    task = token_tasks.make("parity", bits=1, length=4)
    u, scale = rng.normal(size=(task.N, task.V)), np.geomspace(0.1, 2.2, points)
    ref = log_softmax(np.zeros_like(u))
    rows = [log_softmax(s * u) for s in scale]
    moments = np.array([[kl_moments(task.tree, x, ref, kind=kind, level="sequence") for x in rows] for kind in KINDS])
    kl = np.array([kl_moments(task.tree, x, ref, kind="k1")[0] for x in rows])
    at = np.linspace(0, points - 1, shown).round().astype(int)
    samples = np.swapaxes([drawn(task, rows[i], ref, runs, rng) for i in at], 0, 1)
    angle = [[angle_of(task, x, ref, *penalty) for x in rows] for penalty in PENALTIES.values()]
    return Estimates(kl, moments[..., 0] - kl, np.sqrt(moments[..., 1]), at, samples, np.array(angle))


def drawn(task: TokenTask, logp: F, logp_ref: F, n: int, rng: Rng) -> F:
    """The three estimates of n sequences that the policy draws: (3,n)."""
    policy, ref = TableLM(task, logp), TableLM(task, logp_ref)
    x = Groups(1, n)(policy, rng).x
    sums = [taken(log_softmax(y.rows(x)[0]), x).sum(1) for y in (policy, ref)]
    return np.array([kl_estimate(*sums, kind=kind) for kind in KINDS])


def angle_of(task: TokenTask, logp: F, logp_ref: F, kind: str, place: str, level: str) -> float:
    """Cosine of the mean slope of a penalty with the gradient of KL(pi || ref)."""
    nothing = np.zeros((task.N, task.V))
    gradient = -regularised(task.tree, logp, logp_ref, 1.0, nothing).slope
    return cosine(kl_slope(task.tree, logp, logp_ref, kind=kind, place=place, level=level), gradient)


class Lengths(NamedTuple):
    """Four ways to average over tokens, on answers of different lengths."""

    mean: F  # (P,) expected length of the policies that are compared
    angle: F  # (4,P) cosine of the mean update with the gradient of J
    longer: F  # (4,P) slope of the expected length along the mean update, per unit of its length
    truth: F  # (P,) the same along the gradient of J
    T: I  # (L,) lengths
    weight: F  # (4,L) mean weight of a token in a sequence of T tokens, times the sequences of a batch; of one policy
    samples: F  # (4,L,n) the same from n batches: terms whose mean is the ratio of sums over batches


def lengths(rng: Rng, *, runs: int = 400, G: int = 8, points: int = 21) -> Lengths:
    """Parity with thoughts: random logits, and EOS likelier or less likely.

    The baseline is the mean of the others, without std: "constant" is then the gradient of J, but for its length.
    """
    task = token_tasks.make("parity")
    tree, base = task.tree, rng.normal(size=(task.N, task.V))
    ends = np.zeros(task.V)
    ends[-1] = 1.0
    rows = [log_softmax(base + e * ends) for e in np.linspace(-3.0, 4.0, points)]
    rules = [Estimator(G, how, "none", 0.0, True) for how in HOWS]
    of_length = np.where(tree.ends, places_of(tree), 0.0)
    mean = np.array([evaluate(tree, x, of_length).J for x in rows])
    grow = [evaluate(tree, x, of_length).slope for x in rows]
    true = [evaluate(tree, x).slope for x in rows]
    steps = [[expected_gradient(tree, x, rule) for x in rows] for rule in rules]
    angle = np.array([[cosine(g, t) for g, t in zip(several, true, strict=True)] for several in steps])
    longer = np.array([[along(d, g) for d, g in zip(grow, several, strict=True)] for several in steps])
    truth = np.array([along(d, t) for d, t in zip(grow, true, strict=True)])
    middle = log_softmax(base)
    weight = np.array([mean_weight(tree, middle, rule) for rule in rules])
    samples = sampled_weights(TableLM(task, middle), G, runs, rng)
    return Lengths(mean, angle, longer, truth, np.arange(1, task.length + 1), weight, samples)


def places_of(tree: Tree) -> F:
    """Length (N,1) of a sequence that ends with the next token."""
    t = np.repeat(np.arange(1.0, tree.L + 1), np.diff(tree.start))
    return t[:, None]


def along(slope: F, g: F) -> float:
    """Change of a quantity with that slope (N,V), per unit of the length of a step g."""
    return float((slope * g).sum() / np.sqrt((g * g).sum()))


def mean_weight(tree: Tree, logp: F, rule: Estimator) -> F:
    """Exact mean weight (L,) of a token in a sequence of T tokens, times the number of sequences; a group per prompt.

    E[w | T] = sum over x of u[T-1,x] E[x^(tokens of the others)]
    """
    prob = outcomes(tree, logp).prob.sum(1)
    x, u = token_weights(rule, tree.L, tree.K)
    f = prob @ x ** np.arange(1, tree.L + 1)[:, None]
    others = f ** (rule.G - 1)
    if rule.how == "token":
        others = others * np.prod(f**rule.G, axis=0) / f**rule.G
    each = others @ u.T  # (K,L)
    found: F = (prob * each).sum(0) / prob.sum(0)
    return found


def sampled_weights(policy: TableLM, G: int, n: int, rng: Rng) -> F:
    """Weights of tokens by the length of their sequence, from n batches: (4,L,n), terms of ratios of sums."""
    L = policy.tree.L
    sums, count = np.zeros((len(HOWS), L, n)), np.zeros((L, n))
    for b in range(n):
        x = Groups(G)(policy, rng).x
        T = x.length.astype(int)
        count[:, b] = np.bincount(T - 1, minlength=L)
        for i, how in enumerate(HOWS):
            w: Any = d_aggregate(x.mask, x.mask, how=how, group=x.group, length=L)[:, 0] * len(T)
            sums[i, :, b] = np.bincount(T - 1, w, L)
    ratio = sums.sum(2) / count.sum(1)
    terms: F = ratio[..., None] + (sums - ratio[..., None] * count) / count.mean(axis=1)[:, None]
    return terms
