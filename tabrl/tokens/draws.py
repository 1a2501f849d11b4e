"""How a step's sequences are drawn: a group of answers to each prompt, with or without dynamic sampling.

G answers in a group; n groups in a batch, of G n sequences; p chance that an answer is right.
"""

from typing import NamedTuple, Protocol

import numpy as np

from tabrl._xp import library
from tabrl.control.acting import Rng
from tabrl.tokens.policy import Policy
from tabrl.tokens.rollout import Rollouts, sample


class Drawn(NamedTuple):
    """The sequences of one step."""

    x: Rollouts  # of the groups that are used
    tokens: float  # tokens that were drawn, those of groups that are not used included
    kept: float  # share of the groups drawn that are used


class Draw(Protocol):
    """A way to draw a batch."""

    @property
    def G(self) -> int:
        """Answers in a group."""

    def __call__(self, policy: Policy, rng: Rng) -> Drawn:
        """Draw with the policy."""


class Groups(NamedTuple):
    """Every group that is drawn is used.

    G: answers to each prompt. n: None for every prompt of the task once, else so many prompts drawn by the task's
    weights, one may come twice. Source: Shao et al. (2024), DeepSeekMath, section 4.1. Ledger E2.3.
    """

    G: int = 16
    n: int | None = None

    def __call__(self, policy: Policy, rng: Rng) -> Drawn:
        """Draw one batch."""
        task = policy.task
        prompts = np.arange(task.K) if self.n is None else rng.choice(task.K, self.n, p=task.weights)
        prompt = policy.asarray(np.repeat(prompts, self.G))
        group = policy.asarray(np.repeat(np.arange(len(prompts)), self.G))
        x = sample(policy, prompt, group, rng)
        return Drawn(x, float(x.mask.sum()), 1.0)


class Dynamic(NamedTuple):
    """Dynamic sampling: groups whose rewards are all equal are dropped, and others are drawn until the batch is full.

    A group is judged by the verifier's rewards, before they are shaped. G, n as in `Groups`. limit: so many batches are
    drawn at most; what is short then stays short, and there may be nothing. Groups beyond a full batch are dropped, the
    last ones first. The chance to keep a group is 1 - p^G - (1-p)^G. Source: Yu et al. (2025), DAPO, eq. 11;
    ledger E2.8.
    """

    G: int = 16
    n: int | None = None
    limit: int = 8

    def __call__(self, policy: Policy, rng: Rng) -> Drawn:
        """Draw until the batch is full."""
        wanted, used, parts, drawn, tokens = self.n or policy.task.K, 0, [], 0, 0.0
        for _ in range(self.limit):
            more = Groups(self.G, self.n)(policy, rng)
            x = mixed(more.x, self.G, wanted - used, used)
            drawn, tokens = drawn + wanted, tokens + more.tokens
            used += len(x.reward) // self.G
            parts.append(x)
            if used == wanted:
                break
        return Drawn(joined(parts), tokens, used / drawn)


def mixed(x: Rollouts, G: int, most: int, first: int) -> Rollouts:
    """The first `most` groups whose rewards differ, numbered from `first`."""
    xp = library(x.reward, "x.reward")
    r = x.reward.reshape(-1, G)
    use = (r != r[:, :1]).any(1)
    use = use & (use.cumsum(0) <= most)
    label = (use.cumsum(0) - 1 + first)[:, None] + xp.zeros_like(x.group.reshape(-1, G))
    use = (use[:, None] & (r == r)).ravel()
    return Rollouts(*(y[use] for y in x._replace(group=label.ravel())))


def joined(parts: list[Rollouts]) -> Rollouts:
    """One batch of several."""
    xp = library(parts[0].reward, "reward")
    return Rollouts(*(xp.concatenate(list(same)) for same in zip(*parts, strict=True)))
