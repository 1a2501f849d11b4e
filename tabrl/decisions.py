"""Decisions that a softmax policy is improved from, drawn or in expectation, and the gradients of what they say.

theta (S,A) preferences; pi (S,A) = softmax of theta over the legal actions, rows (S,A) its logarithm, rows_old that of
the policy that acted; s, a (n,) decisions, logp their log-probabilities, adv their advantages, weight (n,) how much
each counts: 1/n where they were drawn, d(s) pi_old(a|s) in an expectation; w (S,) the weight of the states. Gradients
(S,A) are with respect to theta.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl.divergences import d_entropy, d_kl_penalty
from tabrl.errors import ShapeError
from tabrl.losses import d_policy_gradient
from tabrl.policy import entropy, kl, through_log
from tabrl.types import F, I

DLoss: TypeAlias = Callable[[F, F, F], F]  # logp, logp_old, adv to d loss / d logp; all (n,)


class Batch(NamedTuple):
    """What an update of the policy learns from."""

    s: I  # (n,)
    a: I  # (n,)
    logp_old: F  # (n,) log-probability under the policy that acted
    adv: F  # (n,)
    weight: F  # (n,) >= 0


def drawn(s: I, a: I, logp_old: F, adv: F) -> Batch:
    """Decisions that were drawn: each counts 1/n. All (n,); raises ShapeError, ValueError for none.

    >>> drawn(np.array([0, 0]), np.array([0, 1]), np.log([0.5, 0.5]), np.array([1.0, -1.0])).weight
    array([0.5, 0.5])
    """
    if not s.shape == a.shape == logp_old.shape == adv.shape or s.ndim != 1:
        shapes = ", ".join(str(x.shape) for x in (s, a, logp_old, adv))
        raise ShapeError(f"s, a, logp_old, adv have shapes {shapes}; one and the same (n,) is expected")
    if len(s) == 0:
        raise ValueError("s has 0 entries; 1 or more decisions are expected")
    return Batch(s, a, logp_old, adv, np.full(len(s), 1 / len(s)))


def expected(pi: F, d: F, advantage: F) -> Batch:
    """Every decision that a policy can take, with its weight d(s) pi(a|s): exact where d and advantage are.

    pi, advantage: (S,A); d: (S,) >= 0, the visits of non-terminal states (0 for terminal ones: nothing is decided
    there). With d and advantage of `gradient.exact` a gradient below is that of J, without any noise.
    Raises ShapeError, and ValueError where d is no finite number >= 0. Source: ledger E1.15.

    >>> expected(np.array([[0.25, 0.75]]), np.array([2.0]), np.array([[3.0, -1.0]])).weight
    array([0.5, 1.5])
    """
    if pi.ndim != 2 or advantage.shape != pi.shape or d.shape != pi.shape[:1]:
        raise ShapeError(f"pi, d, advantage have shapes {pi.shape}, {d.shape}, {advantage.shape}; (S,A), (S,), (S,A)")
    if not (np.isfinite(d) & (d >= 0)).all():
        wrong = int(np.argmin(np.isfinite(d) & (d >= 0)))
        raise ValueError(f"d[{wrong}] is {d[wrong]}; a finite number of visits >= 0 is expected")
    s, a = np.nonzero((pi > 0) & (d[:, None] > 0))
    return Batch(s, a, np.log(pi[s, a]), advantage[s, a], d[s] * pi[s, a])


def part(x: Batch, i: I) -> Batch:
    """The decisions i (m,) of a batch, their weights times n/m: over a random subset the mean stays what it was."""
    return Batch(x.s[i], x.a[i], x.logp_old[i], x.adv[i], x.weight[i] * (len(x.s) / len(i)))


def state_weights(x: Batch, S: int) -> F:
    """How much each state counts, (S,): the sum of the weights of its decisions."""
    return sums(x.s, x.weight, S)


def sums(i: I, x: F, n: int) -> F:
    """Sums (n,) of the numbers x with equal label i, both (m,)."""
    total: Any = np.bincount(i, x, n)
    return total  # type: ignore[no-any-return]


def loss_gradient(rows: F, x: Batch, d_loss: DLoss) -> F:
    """Gradient of the loss of single decisions, summed with their weights.

        sum over i of weight[i] d_loss[i] grad log pi(a[i]|s[i])

    rows: (S,A). d_loss: the derivative with respect to log pi of a loss of `losses`, such as `losses.d_ppo_clip`.
    Returns (S,A), 0 for states that are not in the batch and for illegal actions. Source: the chain rule; ledger E1.15.

    >>> from tabrl.losses import d_ppo_clip
    >>> x = expected(np.array([[0.5, 0.5]]), np.ones(1), np.array([[1.0, -1.0]]))
    >>> loss_gradient(np.log([[0.5, 0.5]]), x, d_ppo_clip)
    array([[-0.5,  0.5]])
    """
    S, A = rows.shape
    row = x.s * A + x.a
    each = x.weight * d_loss(rows.ravel()[row], x.logp_old, x.adv)
    return through_log(np.exp(rows), sums(row, each, S * A).reshape(S, A))


def estimate(rows: F, x: Batch) -> F:
    """The policy gradient as a batch has it, uphill: what every surrogate has for a gradient at the policy that acted.

        sum over i of weight[i] adv[i] grad log pi(a[i]|s[i])

    rows: (S,A). Returns (S,A). With `expected` and exact arguments it is grad J. Ledger E1.10, E1.15.
    """
    return -loss_gradient(rows, x, lambda logp, logp_old, adv: d_policy_gradient(logp, adv))


def kl_gradient(rows: F, rows_old: F, w: F) -> F:
    """Gradient of the mean KL from the policy that acted to this one, in expectation over actions.

        gradient of sum over s of w(s) KL(old || new)(s) = w(s) (pi - pi_old)

    rows, rows_old: (S,A); w: (S,). Returns (S,A). Source: Schulman et al. (2017), eq. 8; ledger E1.16.
    """
    return w[:, None] * d_kl_penalty(rows, rows_old)  # type: ignore[no-any-return]


def entropy_gradient(rows: F, w: F) -> F:
    """Gradient of sum over s of w(s) H(s), the mean entropy. rows: (S,A); w: (S,). Returns (S,A). Ledger E1.12."""
    return w[:, None] * d_entropy(rows)  # type: ignore[no-any-return]


def mean_kl(w: F, pi_old: F, pi: F) -> float:
    """Mean of KL(old || new) over states with weights w (S,), divided by their sum. Policies (S,A)."""
    at = np.flatnonzero(w)
    return float(w[at] @ kl(pi_old[at], pi[at]) / w[at].sum())


def mean_entropy(w: F, pi: F) -> float:
    """Mean of the entropy over states with weights w (S,), divided by their sum. pi: (S,A)."""
    return float(w @ entropy(pi) / w.sum())


def cosine(x: F, y: F) -> float:
    """Cosine of the angle between two gradients; nan where one is 0.

    >>> cosine(np.array([1.0, 0.0]), np.array([3.0, 4.0]))
    0.6
    """
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float((x * y).sum() / size) if size > 0 else float("nan")
