"""The parts that methods of language-model RL are made of, and the slope of their losses.

B sequences of at most T tokens; logp, logp_old, logp_ref (B,T) log-probabilities of the tokens drawn: now, then, under
the reference; adv (B,T); mask (B,T); r (B,T) rewards of tokens; rows (B,T,V) all log-probabilities. A `Method` is a
choice of parts; what it descends on, with w the weights of an aggregation, is

    sum over tokens of w (loss(logp, logp_old, adv) + beta k(logp, logp_ref) - entropy H(rows))
"""

from typing import Any, NamedTuple, Protocol

from tabrl._xp import Array, library
from tabrl.advantages import group_advantages
from tabrl.divergences import d_entropy, d_kl_estimate
from tabrl.losses import clipped, d_aggregate, d_ppo_clip
from tabrl.tokens.credit import overlong_penalty, per_token, process_advantages
from tabrl.tokens.draws import Draw, Groups
from tabrl.tokens.recursion import pick
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.surrogates import cispo_capped, d_cispo, d_gspo, d_weighted_kl, gspo_clipped


class Loss(Protocol):
    """A loss of tokens."""

    def slope(self, logp: Array, logp_old: Array, adv: Array, mask: Array) -> Array:
        """Its derivative with respect to logp, (B,T)."""

    def stopped(self, logp: Array, logp_old: Array, adv: Array, mask: Array) -> Array:
        """Where a bound changes that derivative, (B,T) bool."""


class Clip(NamedTuple):
    """PPO's clipped surrogate; high > low is DAPO's clip-higher. See `losses.ppo_clip`."""

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None

    def slope(self, logp: Array, logp_old: Array, adv: Array, mask: Array) -> Array:
        """-rho A, 0 where clipped."""
        return d_ppo_clip(logp, logp_old, adv, low=self.low, high=self.high, dual=self.dual)

    def stopped(self, logp: Array, logp_old: Array, adv: Array, mask: Array) -> Array:
        """Where the gradient is 0."""
        return clipped(logp, logp_old, adv, low=self.low, high=self.high, dual=self.dual) & (mask != 0)


class Sequence(NamedTuple):
    """GSPO: the clipped surrogate with the ratio of the sequence. See `surrogates.gspo`."""

    low: float = 3e-4
    high: float = 4e-4

    def slope(self, logp: Array, logp_old: Array, adv: Array, mask: Array) -> Array:
        """-s A, 0 where clipped."""
        return d_gspo(logp, logp_old, adv, mask, low=self.low, high=self.high)

    def stopped(self, logp: Array, logp_old: Array, adv: Array, mask: Array) -> Array:
        """Where the gradient is 0."""
        return gspo_clipped(logp, logp_old, adv, mask, low=self.low, high=self.high)


class Capped(NamedTuple):
    """CISPO: policy gradient weighted by a capped ratio. See `surrogates.cispo`."""

    low: float | None = None
    high: float = 4.0

    def slope(self, logp: Array, logp_old: Array, adv: Array, mask: Array) -> Array:
        """-clip(rho) A."""
        return d_cispo(logp, logp_old, adv, low=self.low, high=self.high)

    def stopped(self, logp: Array, logp_old: Array, adv: Array, mask: Array) -> Array:
        """Where a bound replaces the ratio."""
        return cispo_capped(logp, logp_old, adv, low=self.low, high=self.high) & (mask != 0)


class Scored(NamedTuple):
    """A batch whose rewards are settled."""

    x: Rollouts
    r: Array  # (B,T) rewards of tokens: the shaped outcome at the last one, and what a KL takes from each


class Credit(Protocol):
    """What turns rewards into advantages."""

    def advantages(self, batch: Scored) -> Array:
        """Advantages (B,T)."""


class Outcome(NamedTuple):
    """Outcome supervision: the sequence's reward against its group. See `advantages.group_advantages`."""

    std: str = "sample"
    eps: float = 1e-4
    leave_one_out: bool = False

    def advantages(self, batch: Scored) -> Array:
        """One number for all tokens of a sequence."""
        x = batch.x
        adv = group_advantages(batch.r.sum(1), x.group, std=self.std, eps=self.eps, leave_one_out=self.leave_one_out)
        return per_token(adv, x.mask)


class Process(NamedTuple):
    """Process supervision: rewards of steps against all steps of the group. See `credit.process_advantages`."""

    std: str = "sample"
    eps: float = 1e-4

    def advantages(self, batch: Scored) -> Array:
        """What a token and the steps after it earn."""
        x = batch.x
        return process_advantages(x.step_reward, x.step_end, x.group, x.mask, std=self.std, eps=self.eps)


class Penalty(NamedTuple):
    """A KL to the reference: `kind` of estimate, weighed by beta.

    place: "loss" adds beta k to each token's loss; "weighted" the same times the ratio; "reward" takes beta k from each
    token's reward. target: None for a fixed beta, else the KL per sequence that `losses.adaptive_beta` steers to.
    """

    beta: float
    kind: str = "k3"
    place: str = "loss"
    target: float | None = None

    def slope(self, logp: Array, logp_old: Array, logp_ref: Array) -> Array:
        """The derivative (B,T) of its part of the loss with respect to logp."""
        if self.place == "weighted":
            return self.beta * d_weighted_kl(logp, logp_old, logp_ref, kind=self.kind)
        return self.beta * d_kl_estimate(logp, logp_ref, kind=self.kind)


class Overlong(NamedTuple):
    """Overlong shaping: answers of more than longest - cache tokens lose up to 1. See `credit.overlong_penalty`."""

    longest: int
    cache: int

    def __call__(self, x: Rollouts) -> Array:
        """Shaped outcomes (B,)."""
        return x.reward + overlong_penalty(x.length, self.longest, self.cache)


class Method(NamedTuple):
    """One method: how it draws, what it credits, what it descends on. Other methods are other parts."""

    draw: Draw = Groups()
    credit: Any = Outcome()  # a `Credit`
    loss: Loss = Clip()
    how: str = "sequence"  # see `losses.aggregate`
    kl: Penalty | None = None
    shape: Overlong | None = None
    entropy: float = 0.0  # weight of the entropy of each token's row
    epochs: int = 1  # passes over a batch


def taken(rows: Array, x: Rollouts) -> Array:
    """Log-probabilities (B,T) of the tokens drawn, out of all (B,T,V); 0 behind the end."""
    return pick(rows, x.tokens) * x.mask


def slope(method: Method, x: Rollouts, rows: Array, adv: Array, logp_ref: Array | None) -> tuple[Array, Array]:
    """The derivative (B,T,V) of the loss of a batch with respect to the logits, and where a bound binds (B,T)."""
    xp = library(rows, "rows")
    logp = taken(rows, x)
    w = d_aggregate(adv, x.mask, how=method.how, group=x.group, length=adv.shape[1])
    g = method.loss.slope(logp, x.logp, adv, x.mask)
    if method.kl is not None and method.kl.place != "reward":
        g = g + method.kl.slope(logp, x.logp, logp_ref)
    g = (g * w)[..., None]
    pi = xp.exp(rows)
    chosen = xp.arange(rows.shape[-1], device=rows.device) == x.tokens[..., None]
    out = xp.where(chosen, g - g * pi, -g * pi)
    if method.entropy:
        out = out - (method.entropy * w)[..., None] * d_entropy(rows)
    return out, method.loss.stopped(logp, x.logp, adv, x.mask)
