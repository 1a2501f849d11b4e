"""Advantages from numbers that are compared with one another.

reward, group (B,): the reward of each sample and the label of its group; G (K,) samples in each of the K groups; adv
advantage estimates of any one shape; A what is returned. NumPy or torch, by the argument.
"""

from tabrl._xp import Array, at_least, namespace, one_of
from tabrl.errors import ShapeError

STDS = ("sample", "population", "none")


def group_advantages(
    reward: Array, group: Array, *, std: str = "sample", eps: float = 1e-4, leave_one_out: bool = False
) -> Array:
    """How much better each sample did than its group.

        A[i] = (reward[i] - mean of the group) / (std of the group + eps)

    reward, group: (B,); equal labels make a group, in any order, and groups may differ in size. std: "sample" divides
    the sum of squares by G - 1, "population" by G, "none" leaves the difference as it is (Dr. GRPO). leave_one_out
    takes the mean of the others, G / (G - 1) times the difference; with std="none" that is RLOO. A group of equal
    rewards gives exactly 0, for eps=0 too. Returns (B,). Raises ShapeError, and ValueError for a group of one sample.
    Source: Shao et al. (2024), DeepSeekMath, section 4.1.2; Liu et al. (2025), Understanding R1-Zero-like training;
    Ahmadian et al. (2024), Back to basics. Ledger E2.4.

    >>> import numpy as np
    >>> group_advantages(np.array([1.0, 0.0, 7.0, 7.0]), np.array([5, 5, 8, 8]), std="population", eps=0.0)
    array([ 1., -1.,  0.,  0.])
    """
    xp = namespace(reward=reward, group=group)
    one_of(STDS, std=std)
    at_least(0, eps=eps)
    if reward.ndim != 1:
        raise ShapeError(f"reward has shape {tuple(reward.shape)}; (B,) is expected")
    labels, own = xp.unique(group, return_inverse=True)
    G = xp.bincount(own)
    if len(G) and G.min() < 2:
        raise ValueError(f"group {labels[G.argmin()].item()!r} has 1 sample; 2 or more are expected")
    centred = less_group_mean(reward * 1.0, own, G)
    A = centred * G[own] / (G - 1)[own] if leave_one_out else centred
    if std == "none":
        return A
    squares = xp.bincount(own, weights=centred**2)
    return A / spread(squares / (G - 1 if std == "sample" else G), eps)[own]


def whiten(adv: Array, mask: Array | None = None, *, eps: float = 1e-8) -> Array:
    """Advantages moved to mean 0 and scaled to standard deviation 1.

        A = (adv - mean) / (std + eps),   std from the sum of squares divided by n (population)

    adv, and mask where given: any one shape. The n entries where mask is not 0 count; the others become 0, whatever
    they were. Equal entries give exactly 0, for eps=0 too. A choice of the algorithm that has to be said: mean and
    scale come from the batch, so the gradient has another length than the objective's, and is no longer unbiased.
    Raises ShapeError, and ValueError where nothing counts.
    Source: Andrychowicz et al. (2021), What matters for on-policy deep actor-critic methods?; ledger E1.15.

    >>> import numpy as np
    >>> whiten(np.array([3.0, 1.0]), eps=0.0)
    array([ 1., -1.])
    """
    xp = namespace(adv=adv) if mask is None else namespace(adv=adv, mask=mask)
    at_least(0, eps=eps)
    x = adv.ravel() if mask is None else adv[mask != 0]
    if len(x) == 0:
        raise ValueError("adv has 0 entries that count; 1 or more are expected")
    shift = x[0] + (x - x[0]).mean()
    A = (adv - shift) / spread(((x - shift) ** 2).mean(), eps)
    return A if mask is None else xp.where(mask != 0, A, 0.0)


def less_group_mean(x: Array, own: Array, G: Array) -> Array:
    """Difference from the mean of the group, exactly 0 in a group of equal numbers.

    x (B,) float; own (B,) the position of the group of each entry; G (K,) sizes. Each group is first moved so that its
    first entry is 0: the mean of equal numbers is not always that number in floating point.
    """
    xp = namespace(x=x)
    first = xp.argsort(own, stable=True)[G.cumsum(0) - G]
    moved = x - x[first][own]
    return moved - (xp.bincount(own, weights=moved) / G)[own]


def spread(variance: Array, eps: float) -> Array:
    """What to divide by: std + eps, and 1 where nothing varies, so that 0 stays 0."""
    xp = namespace(variance=variance)
    sd = xp.sqrt(variance)
    return xp.where(sd > 0, sd + eps, 1.0)
