"""Losses of tokens beyond those of `losses`, to be minimised, and the derivative of each.

logp, logp_old, logp_ref log-probabilities of the tokens: now, when they were drawn, under the reference; adv, A
advantages; rho = exp(logp - logp_old) the ratio of a token, its logarithm clamped to +-weights.LIMIT; mask (B,T) is not
0 where a token counts. sg(x) is x, taken as a constant by a derivative. A loss has the shape of its arguments, and
`d_loss` is its derivative with respect to logp, entry by entry, as torch's autograd gives it. A batch is
`losses.aggregate` of the loss, and its derivative `losses.d_aggregate` times d_loss. NumPy or torch, by the argument.
"""

from tabrl._xp import Array, at_least, namespace
from tabrl.divergences import d_kl_estimate, kl_estimate
from tabrl.losses import clipped, d_ppo_clip, ppo_clip
from tabrl.tokens.credit import kept, tokens_of
from tabrl.weights import LIMIT, bounded_ratios

# ---- GSPO ----


def sequence_log_ratios(logp: Array, logp_old: Array, mask: Array) -> Array:
    """Log of the ratio of whole sequences, per token: (B,T) to (B,).

        log s = mean over the sequence's tokens of logp - logp_old

    s is the geometric mean of the ratios of the tokens. 0 for a sequence without tokens. Nothing is clamped.
    Raises ShapeError. Source: Zheng et al. (2025), Group sequence policy optimization, eq. 7; ledger E2.3.

    >>> import numpy as np
    >>> sequence_log_ratios(np.array([[-1.0, -2.0, 5.0]]), np.array([[-2.0, -4.0, 0.0]]), np.array([[1, 1, 0]]))
    array([1.5])
    """
    xp, on = tokens_of(mask)
    namespace(mask=mask, logp=logp, logp_old=logp_old)
    n = kept(on, xp.ones_like(logp)).sum(1)
    return (kept(on, logp) - kept(on, logp_old)).sum(1) / xp.clip(n, 1, None)


def gspo(logp: Array, logp_old: Array, adv: Array, mask: Array, *, low: float = 3e-4, high: float = 4e-4) -> Array:
    """The clipped surrogate with one ratio per sequence instead of one per token.

        -min(s A, clip(s, 1 - low, 1 + high) A),   log s = sg(mean of log rho) + logp - sg(logp)

    All (B,T); 0 where mask is 0. The value is that of the sequence's own ratio s; the derivative goes to each token by
    itself (GSPO-token in the paper). Where A is one number along a sequence, as an outcome gives it, that is GSPO: any
    aggregate then has the value and, summed over a sequence's equally weighted tokens, the derivative of the
    sequence's -min(s A, clip(s) A). A sequence of one token gives `losses.ppo_clip`. Bounds and errors as there, but
    s moves less than rho, by the length: hence the small bounds. Raises ShapeError, ValueError.
    Source: Zheng et al. (2025), eq. 5 and 13, bounds from section 5.1. Ledger E2.3.

    >>> import numpy as np
    >>> logp, adv, mask = np.log([[1.5, 1.5], [1.5, 9.0]]), np.ones((2, 2)), np.array([[1, 1], [1, 0]])
    >>> gspo(logp, np.zeros((2, 2)), adv, mask, low=0.2, high=0.2)
    array([[-1.2, -1.2],
           [-1.2,  0. ]])
    """
    x, A, on = sequence_arguments(logp, logp_old, adv, mask)
    return kept(on, ppo_clip(x, 0.0 * A, A, low=low, high=high))


def d_gspo(logp: Array, logp_old: Array, adv: Array, mask: Array, *, low: float = 3e-4, high: float = 4e-4) -> Array:
    """-s A, and 0 where `gspo_clipped` and where mask is 0. At a kink: the side on which the gradient passes."""
    x, A, on = sequence_arguments(logp, logp_old, adv, mask)
    return kept(on, d_ppo_clip(x, 0.0 * A, A, low=low, high=high))


def gspo_clipped(
    logp: Array, logp_old: Array, adv: Array, mask: Array, *, low: float = 3e-4, high: float = 4e-4
) -> Array:
    """Where the clip stops the gradient, (B,T): `losses.clipped` of the sequence's ratio, False where mask is 0."""
    x, A, on = sequence_arguments(logp, logp_old, adv, mask)
    return on & clipped(x, 0.0 * A, A, low=low, high=high)


def sequence_arguments(logp: Array, logp_old: Array, adv: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Log-ratio of the sequence at each of its tokens, advantages, and where tokens count; 0 where none does."""
    namespace(logp=logp, logp_old=logp_old, adv=adv, mask=mask)
    on = mask != 0
    own = kept(on, logp)
    x = fixed(sequence_log_ratios(logp, logp_old, mask))[:, None] + (own - fixed(own))
    return kept(on, x), kept(on, adv), on


# ---- CISPO ----


def cispo(logp: Array, logp_old: Array, adv: Array, *, low: float | None = None, high: float = 4.0) -> Array:
    """Policy gradient with a bounded importance weight; every token keeps its gradient.

        -sg(clip(rho, 1 - low, 1 + high)) A logp

    One shape for all. low=None: no lower bound, as published; high=inf: none above but weights.LIMIT. low, high >= 0.
    high=4 caps the weight at 5. Only the gradient has a meaning, the value has none. Raises ShapeError, ValueError.
    Source: MiniMax (2025), MiniMax-M1, eq. 4 and 5; the cap from Khatri et al. (2025), The art of scaling
    reinforcement learning compute for LLMs. Ledger E2.3 and correction 1.

    >>> import numpy as np
    >>> cispo(np.log([0.5, 0.5]), np.log([0.5, 0.05]), -np.ones(2)) / np.log(0.5)
    array([1., 5.])
    """
    return -fixed(capped_ratios(logp, logp_old, adv, low, high)) * adv * logp


def d_cispo(logp: Array, logp_old: Array, adv: Array, *, low: float | None = None, high: float = 4.0) -> Array:
    """-clip(rho, 1 - low, 1 + high) A, never stopped. At ratio 1: -A.

    >>> import numpy as np
    >>> d_cispo(np.log([0.5, 0.5]), np.log([0.5, 0.05]), np.ones(2))
    array([-1., -5.])
    """
    return -capped_ratios(logp, logp_old, adv, low, high) * adv


def cispo_capped(logp: Array, logp_old: Array, adv: Array, *, low: float | None = None, high: float = 4.0) -> Array:
    """Where a bound replaces the weight of a token whose advantage is not 0; its mean is CISPO's clip fraction.

    >>> import numpy as np
    >>> cispo_capped(np.log([0.5, 0.5]), np.log([0.5, 0.05]), np.ones(2))
    array([False,  True])
    """
    weight = capped_ratios(logp, logp_old, adv, low, high)
    return (adv != 0) & (weight != bounded_ratios(logp, logp_old))


def capped_ratios(logp: Array, logp_old: Array, adv: Array, low: float | None, high: float) -> Array:
    """Clip(rho, 1 - low, 1 + high), once all shapes agree."""
    xp = namespace(logp=logp, logp_old=logp_old, adv=adv)
    at_least(0, high=high, low=0.0 if low is None else low)
    return xp.clip(bounded_ratios(logp, logp_old), None if low is None else 1 - low, 1 + high)


# ---- KL to a reference ----


def weighted_kl(logp: Array, logp_old: Array, logp_ref: Array, *, kind: str = "k3") -> Array:
    """Estimate of KL(pi || ref) from what the old policy drew, with a gradient that is that of the KL.

        rho k(logp, logp_ref)

    One shape for all; k from `divergences.kl_estimate`, the gradient flows through both factors. Over the old policy's
    draws k1 and k3 have the mean KL(pi || ref) and their derivatives the mean of its gradient, whatever the old policy:
    without rho the derivative of k3 has that of KL(ref || pi). That holds for one draw: applied token by token it
    misses, as every KL in the loss, what a token does to the prefixes after it. Raises ShapeError, ValueError.
    Source: DeepSeek-AI (2025), DeepSeek-V3.2, on the unbiased KL estimate; ledger E2.6.

    >>> import numpy as np
    >>> weighted_kl(np.log([0.5]), np.log([0.25]), np.log([0.25]), kind="k1") / np.log(2)
    array([2.])
    """
    namespace(logp=logp, logp_old=logp_old, logp_ref=logp_ref)
    return bounded_ratios(logp, logp_old) * kl_estimate(logp, logp_ref, kind=kind)


def d_weighted_kl(logp: Array, logp_old: Array, logp_ref: Array, *, kind: str = "k3") -> Array:
    """Rho (k + dk / dlogp), and rho dk / dlogp where |log rho| > weights.LIMIT. On-policy, for k3: logp - logp_ref.

    >>> import numpy as np
    >>> d_weighted_kl(np.array([-1.0]), np.array([-1.0]), np.array([-3.0])).round(12)
    array([2.])
    """
    xp = namespace(logp=logp, logp_old=logp_old, logp_ref=logp_ref)
    rho, k = bounded_ratios(logp, logp_old), kl_estimate(logp, logp_ref, kind=kind)
    through_rho = xp.where(abs(logp - logp_old) > LIMIT, 0.0, rho * k)
    return through_rho + rho * d_kl_estimate(logp, logp_ref, kind=kind)


def fixed(x: Array) -> Array:
    """sg(x): for torch the tensor cut from its history, in NumPy x itself."""
    return x.detach() if hasattr(x, "detach") else x
