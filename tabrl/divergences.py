"""How far two policies are from one another, how random one is, and the derivatives of both.

logp, logp_ref log-probabilities of the actions taken, of any one shape; or rows of them, (…,A), one entry per action, z
the logits of a row: logp = z - log sum exp(z). p = exp(logp). NumPy or torch, by the argument. `d_f` is the derivative
of `f`, for a row with respect to z.
"""

from tabrl._xp import Array, namespace, one_of

KINDS = ("k1", "k2", "k3")


def kl_estimate(logp: Array, logp_ref: Array, *, kind: str = "k3") -> Array:
    """Estimates of KL(pi || ref), one for each action that pi drew; x = logp_ref - logp.

        k1 = -x,   k2 = x^2 / 2,   k3 = exp(x) - 1 - x

    k1 and k3 have the mean KL(pi || ref); k2 and k3 are >= 0. Nothing is clamped, so that this is exact. Their
    gradients, averaged over actions that pi drew, are another matter: 0 for k1, that of KL(pi || ref) for k2, that of
    KL(ref || pi) for k3. Raises ShapeError, ValueError.
    Source: Schulman (2020), Approximating KL divergence; Shao et al. (2024), eq. 4. Ledger E2.6.

    >>> import numpy as np
    >>> [kl_estimate(np.log([0.5]), np.log([0.25]), kind=kind).item() for kind in ("k1", "k2", "k3")]
    [0.6931471805599453, 0.2402265069591007, 0.1931471805599453]
    """
    xp = namespace(logp=logp, logp_ref=logp_ref)
    one_of(KINDS, kind=kind)
    x = logp_ref - logp
    return -x if kind == "k1" else x**2 / 2 if kind == "k2" else xp.expm1(x) - x


def d_kl_estimate(logp: Array, logp_ref: Array, *, kind: str = "k3") -> Array:
    """k1: 1, k2: logp - logp_ref, k3: 1 - exp(logp_ref - logp); no kinks.

    >>> import numpy as np
    >>> [d_kl_estimate(np.log([0.5]), np.log([0.25]), kind=kind).item() for kind in ("k1", "k2", "k3")]
    [1.0, 0.6931471805599453, 0.5]
    """
    xp = namespace(logp=logp, logp_ref=logp_ref)
    one_of(KINDS, kind=kind)
    x = logp_ref - logp
    return xp.ones_like(x) if kind == "k1" else -x if kind == "k2" else -xp.expm1(x)


def kl_penalty(logp: Array, logp_old: Array) -> Array:
    """KL(old || new) of rows of log-probabilities: (…,A) and (…,A) to (…).

        sum over a of p_old(a) (logp_old(a) - logp(a))

    Rows are normalised; -inf is an action that is never taken. inf where the new policy excludes what the old one
    takes. Raises ShapeError. Source: Schulman et al. (2017), eq. 8; ledger E1.16, correction 2.

    >>> import numpy as np
    >>> kl_penalty(np.log([0.5, 0.5]), np.log([0.5, 0.5])).item()
    0.0
    """
    xp = namespace(logp=logp, logp_old=logp_old)
    p = xp.exp(logp_old)
    return (p * (xp.where(p > 0, logp_old, 0.0) - xp.where(p > 0, logp, 0.0))).sum(-1)


def d_kl_penalty(logp: Array, logp_old: Array) -> Array:
    """With respect to the logits z of the new policy, (…,A): p - p_old.

    >>> import numpy as np
    >>> d_kl_penalty(np.log([0.25, 0.75]), np.log([0.5, 0.5])).round(12)
    array([-0.25,  0.25])
    """
    xp = namespace(logp=logp, logp_old=logp_old)
    return xp.exp(logp) - xp.exp(logp_old)


def entropy(logp: Array) -> Array:
    """Entropy of rows of log-probabilities, in nats: (…,A) to (…). A bonus: subtract it from a loss.

        H = -sum over a of p(a) log p(a)

    Rows are normalised; -inf is an action that is never taken. log A for the uniform row, 0 for a certain action.
    Source: Williams & Peng (1991); Mnih et al. (2016), Asynchronous methods, section 4. Ledger E1.12.

    >>> import numpy as np
    >>> entropy(np.log([[0.5, 0.5], [1.0, 1e-300]])).round(6)
    array([0.693147, 0.      ])
    """
    xp = namespace(logp=logp)
    p = xp.exp(logp)
    return (p * xp.where(p > 0, -logp, 0.0)).sum(-1)


def d_entropy(logp: Array) -> Array:
    """With respect to the logits z, (…,A): -p(a) (log p(a) + H), 0 for an action that is never taken.

    >>> import numpy as np
    >>> (d_entropy(np.log([0.25, 0.75])) / np.log(3)).round(12)  # log 3 is the difference of the logits
    array([ 0.1875, -0.1875])
    """
    xp = namespace(logp=logp)
    p = xp.exp(logp)
    return -p * (xp.where(p > 0, logp, 0.0) + entropy(logp)[..., None])
