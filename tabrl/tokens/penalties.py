"""What estimates of the KL to a reference push towards, in the mean over all sequences, and how much they vary.

tree `Tree` of N prefixes and V next tokens; logp, logp_ref (N,V) of the policy that draws and learns, and of the
reference; x = logp_ref - logp; k one of k1 = -x, k2 = x^2 / 2, k3 = exp(x) - 1 - x; k' its derivative with respect to
logp. level: "sequence" is k of the sums of logp and logp_ref along a sequence, "token" the sum along the sequence of k
of each token. d (N,) probabilities of prefixes. Slopes are derivatives with respect to the logits, (N,V).
"""

from tabrl._xp import Array, library, one_of
from tabrl.divergences import KINDS, d_kl_estimate, kl_estimate
from tabrl.tokens.recursion import check, evaluate, total
from tabrl.tokens.regularised import along
from tabrl.tokens.tree import Tree

PLACES = ("loss", "weighted", "reward")
LEVELS = ("token", "sequence")


def kl_slope(
    tree: Tree, logp: Array, logp_ref: Array, *, kind: str = "k3", place: str = "loss", level: str = "token"
) -> Array:
    """The expected slope of a KL penalty, estimated from sequences that the policy itself draws: (N,V).

        loss:      the derivative of k
        weighted:  the derivative of rho k, rho the ratio to the policy that drew, 1 now
        reward:    minus what -k as a reward does to a policy gradient

    Whole sequences: k1 in the loss has slope 0, k2 that of KL(pi || ref), k3 that of KL(ref || pi); weighted k1 and k3,
    and k1 in the reward, that of KL(pi || ref). Token by token only k1 in the reward keeps it: each of the others, for
    every prefix, turns the row alone, and what a token does to the KL of the prefixes after it is not seen. k3 and k2
    in the reward have slopes that belong to no KL. place: "loss", "weighted" or "reward". A loss is to be descended
    on. Raises ShapeError, ValueError. Source: Schulman (2020), Approximating KL divergence; Tang & Munos (2025), On a
    few pitfalls in KL divergence gradient estimation; ledger E2.6.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> kl_slope(task.tree, np.log([[0.25, 0.75]]), np.log([[0.5, 0.5]])).round(12)
    array([[-0.25,  0.25]])
    """
    one_of(KINDS, kind=kind)
    one_of(PLACES, place=place)
    one_of(LEVELS, level=level)
    check(tree, logp=logp, logp_ref=logp_ref)
    if level == "token":
        g = score_weight(logp, logp_ref, kind, place)
        return evaluate(tree, logp, g).slope if place == "reward" else row_slope(tree, logp, g)
    g = score_weight(along(tree, logp), along(tree, logp_ref), kind, place)
    return evaluate(tree, logp, library(g, "g").where(tree.ends, g, 0.0)).slope


def score_weight(logp: Array, logp_ref: Array, kind: str, place: str) -> Array:
    """What multiplies the gradient of log pi: k' in the loss, k in the reward, and k + k' where the ratio is there."""
    if place == "loss":
        return d_kl_estimate(logp, logp_ref, kind=kind)
    k = kl_estimate(logp, logp_ref, kind=kind)
    return k if place == "reward" else k + d_kl_estimate(logp, logp_ref, kind=kind)


def row_slope(tree: Tree, logp: Array, g: Array) -> Array:
    """Expected sum over tokens of g(h,a) times the slope of log pi(a|h): d pi (g - mean of g), (N,V)."""
    x = evaluate(tree, logp)
    return x.d[:, None] * x.pi * (g - total(x.pi * g)[:, None])


def kl_moments(
    tree: Tree, logp: Array, logp_ref: Array, *, kind: str = "k3", level: str = "token"
) -> tuple[Array, Array]:
    """Mean and variance of an estimate of KL(pi || ref) from one sequence that the policy draws.

    A prompt is drawn as well. k1 and k3 have the mean KL(pi || ref) of sequences on either level; k1 is one and the
    same on both, its variance too. The variance of k3 holds the mean of (ref / pi)^2, and grows without bounds where
    the reference writes what the policy does not. Returns two numbers. Raises ShapeError, ValueError.
    Source: Schulman (2020), Approximating KL divergence; ledger E2.6.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> mean, variance = kl_moments(task.tree, np.log([[0.25, 0.75]]), np.log([[0.5, 0.5]]), kind="k1")
    >>> (mean / np.log(2)).round(6), (variance / np.log(3) ** 2).round(6)
    (np.float64(0.188722), np.float64(0.1875))
    """
    one_of(KINDS, kind=kind)
    one_of(LEVELS, level=level)
    check(tree, logp=logp, logp_ref=logp_ref)
    if level == "sequence":
        k = kl_estimate(along(tree, logp), along(tree, logp_ref), kind=kind)
    else:
        k = along(tree, kl_estimate(logp, logp_ref, kind=kind))
    xp = library(k, "k")
    mean = evaluate(tree, logp, xp.where(tree.ends, k, 0.0)).J
    return mean, evaluate(tree, logp, xp.where(tree.ends, (k - mean) ** 2, 0.0)).J
