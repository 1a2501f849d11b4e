"""PPO's credit: advantages by GAE from a critic of prefixes, which learns beside the policy.

v (B,T) the critic's value of the prefix before each token; target (B,T) what it should have been; mask (B,T).
"""

from typing import Protocol

from tabrl._xp import Array
from tabrl.advantages import whiten
from tabrl.losses import d_aggregate, d_value_loss
from tabrl.optimise import Step, adam, ascent
from tabrl.returns import check_lam, value_target
from tabrl.tokens.credit import token_gae
from tabrl.tokens.methods import Scored
from tabrl.tokens.policy import Pull
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.task import TokenTask


class Critic(Protocol):
    """Values of prefixes, with parameters."""

    task: TokenTask  # whose prefixes it judges
    theta: Array  # (n,) all parameters; setting it sets them
    lr: float  # a step size of Adam that suits it

    def values(self, x: Rollouts) -> tuple[Array, Pull]:
        """Values (B,T) of the prefixes before each token, and their vector-Jacobian product."""

    def all(self) -> tuple[Array, Pull]:
        """Values (N,) of every prefix."""


class Gae:
    """Generalised advantages of a token critic, which descends on the squared error of its targets.

    lam: 1 credits a token with all that follows, less the critic's value; smaller ones trust the critic more. clip:
    None, or how far a value may move from where it was. whiten: whether a batch's advantages are moved to mean 0 and
    deviation 1. See `credit.token_gae`, `losses.value_loss`, `returns.value_target`. Ledger E2.2.
    """

    def __init__(
        self, critic: Critic, lam: float = 0.95, *, step: Step | float | None = None, clip: float | None = None,
        whiten: bool = True,
    ) -> None:  # fmt: skip
        check_lam(lam)
        self.critic, self.lam, self.clip, self.whiten = critic, lam, clip, whiten
        self.step = ascent(adam(critic.lr) if step is None else step)

    def __repr__(self) -> str:
        return f"Gae(lam={self.lam}, clip={self.clip}, whiten={self.whiten})"

    def advantages(self, batch: Scored) -> Array:
        """GAE (B,T); the targets are kept for `learn`."""
        v, _ = self.critic.values(batch.x)
        adv = token_gae(batch.r, v, batch.x.mask, self.lam)
        self.v, self.target = v, value_target(adv, v)
        return whiten(adv, batch.x.mask) if self.whiten else adv

    def learn(self, x: Rollouts) -> None:
        """One step of the critic on the mean over tokens of its loss."""
        v, pull = self.critic.values(x)
        old = self.v if self.clip is not None else None
        w = d_aggregate(v, x.mask, how="token")
        self.critic.theta = self.step(self.critic.theta, -pull(w * d_value_loss(v, self.target, old, self.clip)))
