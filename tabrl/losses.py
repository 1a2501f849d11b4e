"""Losses, to be minimised, and the derivative of each.

logp, logp_old log-probabilities of the actions taken, now and when they were drawn; rho = exp(logp - logp_old) the
ratio, its logarithm clamped to +-weights.LIMIT; adv, A advantages; v values, y targets; all of any one shape, with a
loss of that shape; x, mask (B,T) tokens of sequences. NumPy or torch, by the argument. `d_loss` is the derivative of
`loss` with respect to logp or v, and what torch's autograd gives. Those of a KL and of an entropy: `divergences`.
"""

from tabrl._xp import Array, at_least, namespace, one_of
from tabrl.divergences import d_entropy, d_kl_estimate, d_kl_penalty, entropy, kl_estimate, kl_penalty
from tabrl.errors import ShapeError
from tabrl.weights import LIMIT, bounded_ratios, log_ratios

__all__ = [
    "adaptive_beta", "aggregate", "clipped", "d_aggregate", "d_entropy", "d_kl_estimate", "d_kl_penalty",
    "d_policy_gradient", "d_ppo_clip", "d_ppo_kl", "d_value_loss", "entropy", "kl_estimate", "kl_penalty",
    "policy_gradient", "ppo_clip", "ppo_kl", "value_loss",
]  # fmt: skip

HOWS = ("sequence", "token", "group_token", "constant")


def policy_gradient(logp: Array, adv: Array) -> Array:
    """The loss whose gradient is the score times the advantage, negated: -logp * A.

    With A the return, REINFORCE; less a baseline, REINFORCE with one; estimated by a critic, actor-critic.
    Raises ShapeError. Source: Sutton & Barto (2018), eq. 13.8 and 13.11; ledger E1.11 and E1.12.

    >>> import numpy as np
    >>> policy_gradient(np.array([-0.5]), np.array([2.0])), d_policy_gradient(np.array([-0.5]), np.array([2.0]))
    (array([1.]), array([-2.]))
    """
    namespace(logp=logp, adv=adv)
    return -logp * adv


def d_policy_gradient(logp: Array, adv: Array) -> Array:
    """-A, whatever logp is."""
    namespace(logp=logp, adv=adv)
    return -adv


def ppo_clip(
    logp: Array, logp_old: Array, adv: Array, *, low: float = 0.2, high: float = 0.2, dual: float | None = None
) -> Array:
    """The clipped surrogate: no reward for moving a ratio further than 1 - low or 1 + high.

        -min(rho A, clip(rho, 1 - low, 1 + high) A),   and at most -dual A where A < 0

    The minimum binds above for A > 0 and below for A < 0, which is how it is computed: rho is cut at 1 + high where
    A >= 0, at 1 - low (and dual) where A < 0. low, high >= 0; low = high gives PPO, high > low DAPO's clip-higher,
    dual > 1 the dual clip. Raises ShapeError, ValueError.
    Source: Schulman et al. (2017), eq. 7; Yu et al. (2025), DAPO, section 3.1; Ye et al. (2020), Mastering complex
    control in MOBA games, on the dual clip. Ledger E1.15, E2.11.

    >>> import numpy as np
    >>> ppo_clip(np.log([1.5, 1.5, 0.5]), np.zeros(3), np.array([1.0, -1.0, -1.0])).round(12)
    array([-1.2,  1.5,  0.8])
    """
    xp = namespace(logp=logp, logp_old=logp_old, adv=adv)
    check_clip(low, high, dual)
    rho = bounded_ratios(logp, logp_old)
    return -adv * xp.where(adv < 0, xp.clip(rho, 1 - low, dual), xp.clip(rho, None, 1 + high))


def clipped(
    logp: Array, logp_old: Array, adv: Array, *, low: float = 0.2, high: float = 0.2, dual: float | None = None
) -> Array:
    """Where the clip stops the gradient; its mean is the clip fraction.

        (A > 0 and rho > 1 + high) or (A < 0 and (rho < 1 - low or rho > dual)) or |log rho| > weights.LIMIT

    On a bound itself the gradient still passes. Arguments and errors as in `ppo_clip`. Ledger E1.15.

    >>> import numpy as np
    >>> clipped(np.log([1.5, 1.5, 0.5]), np.zeros(3), np.array([1.0, -1.0, -1.0]))
    array([ True, False,  True])
    """
    namespace(logp=logp, logp_old=logp_old, adv=adv)
    check_clip(low, high, dual)
    rho = bounded_ratios(logp, logp_old)
    stopped = ((adv > 0) & (rho > 1 + high)) | ((adv < 0) & (rho < 1 - low)) | (abs(logp - logp_old) > LIMIT)
    return stopped if dual is None else stopped | ((adv < 0) & (rho > dual))


def d_ppo_clip(
    logp: Array, logp_old: Array, adv: Array, *, low: float = 0.2, high: float = 0.2, dual: float | None = None
) -> Array:
    """-rho A, and 0 where `clipped`. At a kink: the side on which the gradient passes. At ratio 1: -A.

    >>> import numpy as np
    >>> d_ppo_clip(np.log([1.0, 1.5, 0.5]), np.zeros(3), np.array([2.0, 2.0, -2.0]))
    array([-2.,  0.,  0.])
    """
    xp = namespace(logp=logp, logp_old=logp_old, adv=adv)
    stopped = clipped(logp, logp_old, adv, low=low, high=high, dual=dual)
    return xp.where(stopped, 0.0, -adv * bounded_ratios(logp, logp_old))


def ppo_kl(logp: Array, logp_old: Array, adv: Array, *, beta: float) -> Array:
    """The surrogate with a penalty for leaving the old policy, from the actions that policy drew.

        -rho A + beta (rho - 1 - log rho)

    The bracket is >= 0 with mean KL(old || new) over the old policy's actions: the direction of the paper. beta=0
    leaves the surrogate alone. With the rows of both policies at hand `kl_penalty` is the bracket's exact mean.
    Raises ShapeError, ValueError. Source: Schulman et al. (2017), eq. 8; ledger E1.16, corrections 1 and 2.

    >>> import numpy as np
    >>> ppo_kl(np.log([0.5]), np.log([0.5]), np.array([3.0]), beta=1.0)
    array([-3.])
    """
    xp = namespace(logp=logp, logp_old=logp_old, adv=adv)
    at_least(0, beta=beta)
    x = log_ratios(logp, logp_old)
    return -xp.exp(x) * adv + beta * (xp.expm1(x) - x)


def d_ppo_kl(logp: Array, logp_old: Array, adv: Array, *, beta: float) -> Array:
    """-rho A + beta (rho - 1), and 0 where |log rho| > weights.LIMIT."""
    xp = namespace(logp=logp, logp_old=logp_old, adv=adv)
    at_least(0, beta=beta)
    x = log_ratios(logp, logp_old)
    return xp.where(abs(logp - logp_old) > LIMIT, 0.0, -xp.exp(x) * adv + beta * xp.expm1(x))


def adaptive_beta(beta: float, kl: float, target: float) -> float:
    """The penalty for the next update, from the KL(old || new) of the last one.

        beta / 2 if kl < target / 1.5,   2 beta if kl > 1.5 target,   else beta

    Raises ValueError for a KL that is no number. Source: Schulman et al. (2017), section 4; ledger E1.16.

    >>> adaptive_beta(1.0, 0.1, 0.01), adaptive_beta(1.0, 0.001, 0.01), adaptive_beta(1.0, 0.01, 0.01)
    (2.0, 0.5, 1.0)
    """
    at_least(0, beta=beta, target=target)
    if kl != kl:
        raise ValueError("kl is nan; a number is expected")
    return beta / 2 if kl < target / 1.5 else 2 * beta if kl > 1.5 * target else beta


def value_loss(v: Array, target: Array, v_old: Array | None = None, clip: float | None = None) -> Array:
    """The squared error of the critic, (v - y)^2, without a factor 1/2.

    With v_old and clip the larger of that and (clip(v, v_old - clip, v_old + clip) - y)^2: no reward for moving
    further from v_old than clip. Raises ShapeError; ValueError for one of the two without the other.
    Source: Schulman et al. (2017), eq. 9; the clip from OpenAI Baselines. Ledger E1.17.

    >>> import numpy as np
    >>> value_loss(np.array([1.0]), np.array([3.0])), value_loss(np.array([1.0]), np.array([3.0]), np.zeros(1), 0.5)
    (array([4.]), array([6.25]))
    """
    free, held = value_errors(v, target, v_old, clip)
    return namespace(v=v).where(free**2 >= held**2, free**2, held**2)


def d_value_loss(v: Array, target: Array, v_old: Array | None = None, clip: float | None = None) -> Array:
    """2 (v - y), and 0 where the clipped error is the larger. At a kink: 2 (v - y)."""
    free, held = value_errors(v, target, v_old, clip)
    inside = free**2 >= held**2 if v_old is None else (free**2 >= held**2) | (abs(v - v_old) <= clip)
    return namespace(v=v).where(inside, 2 * free, 0.0)


def aggregate(x: Array, mask: Array, *, how: str, group: Array | None = None, length: int | None = None) -> Array:
    """One number from the losses of the tokens, a weighted sum over those where mask is not 0.

        "sequence"     mean over sequences of the mean over the sequence's tokens (GRPO)
        "token"        mean over all tokens of the batch
        "group_token"  mean over groups of the mean over the group's tokens (DAPO); needs group (B,) labels
        "constant"     sum over tokens / (B length), length the longest allowed (Dr. GRPO); needs length

    x, mask: (B,T). Sequences and groups without tokens count with mean 0. What x is elsewhere does not matter.
    Raises ShapeError, and ValueError for an argument that is missing; one that `how` does not need is not looked at.
    Source: Shao et al. (2024), eq. 3; Yu et al. (2025), section 3.3; Liu et al. (2025). Ledger E2.3, E2.9.

    >>> import numpy as np
    >>> x, mask = np.array([[1.0, 3.0], [8.0, 0.0]]), np.array([[1, 1], [1, 0]])
    >>> aggregate(x, mask, how="sequence").item(), aggregate(x, mask, how="token").item()
    (5.0, 4.0)
    """
    w = d_aggregate(x, mask, how=how, group=group, length=length)
    return (namespace(x=x).where(mask != 0, x, 0.0) * w).sum()


def d_aggregate(x: Array, mask: Array, *, how: str, group: Array | None = None, length: int | None = None) -> Array:
    """The weight of each token, (B,T), 0 where mask is 0: d aggregate / d logp is this times d loss / d logp.

    >>> import numpy as np
    >>> d_aggregate(np.zeros((2, 2)), np.array([[1, 1], [1, 0]]), how="sequence")
    array([[0.25, 0.25],
           [0.5 , 0.  ]])
    """
    xp = namespace(x=x, mask=mask)
    one_of(HOWS, how=how)
    if x.ndim != 2:
        raise ShapeError(f"x has shape {tuple(x.shape)}; (B,T) is expected")
    w = xp.where(mask != 0, xp.ones_like(x), 0.0)
    if how == "sequence":
        return w / len(w) / xp.clip(w.sum(1), 1, None)[:, None]
    if how == "token":
        return w / xp.clip(w.sum(), 1, None)
    if how == "constant":
        at_least(1, length=length)
        return w / len(w) / length
    return w / tokens_of_groups(w.sum(1), group)[:, None]


def tokens_of_groups(tokens: Array, group: Array | None) -> Array:
    """Of each sequence (B,): how many groups there are times how many tokens its group has, at least 1."""
    if group is None:
        raise ValueError('group is None; how="group_token" needs the label of each sequence, (B,)')
    xp = namespace(sequences=tokens, group=group)
    _, own = xp.unique(group, return_inverse=True)
    total = xp.bincount(own, weights=tokens)
    return len(total) * xp.clip(total, 1, None)[own]


def value_errors(v: Array, target: Array, v_old: Array | None, clip: float | None) -> tuple[Array, Array]:
    """Error of the critic, v - y, and the same with v held within clip of v_old."""
    if (v_old is None) != (clip is None):
        raise ValueError(f"{'v_old' if v_old is None else 'clip'} is None; v_old and clip are expected together")
    xp = namespace(v=v, target=target)
    if v_old is None or clip is None:
        return v - target, v - target
    namespace(v=v, v_old=v_old)
    at_least(0, clip=clip)
    return v - target, v_old + xp.clip(v - v_old, -clip, clip) - target


def check_clip(low: float, high: float, dual: float | None) -> None:
    """Require bounds of a clip that lie on their side of 1."""
    at_least(0, low=low, high=high)
    if dual is not None and not dual > 1:
        raise ValueError(f"dual is {dual}; a number > 1 is expected")
