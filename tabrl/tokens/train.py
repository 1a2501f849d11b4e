"""Training of token policies: PPO, GRPO, DAPO and their relatives are one loop with different parts.

k updates; t tokens drawn so far; G answers to each prompt of a batch; beta weight of a KL to the reference. What each
method does differently is a `methods.Method`; its functions here say which parts it is made of.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tabrl._xp import Array
from tabrl.control.acting import Rng
from tabrl.losses import adaptive_beta
from tabrl.optimise import Step, adam, ascent, held
from tabrl.tokens import checkpoint
from tabrl.tokens.credit import kl_rewards, terminal_rewards
from tabrl.tokens.critic import Critic, Gae
from tabrl.tokens.door import check_run, known_parts, same_task
from tabrl.tokens.draws import Dynamic
from tabrl.tokens.judge import Judge, Tally, TokenStep
from tabrl.tokens.methods import Capped, Clip, Method, Outcome, Overlong, Penalty, Scored, Sequence, slope, taken
from tabrl.tokens.policy import Policy
from tabrl.tokens.recursion import log_softmax
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.task import TokenTask


class Training(Iterator[TokenStep]):
    """The run of one method: iterate it for records, save it, resume it.

    task, policy: the policy is trained in place. rng: `numpy.random.Generator`. method: see `methods.Method`. step: an
    optimiser of `tabrl.optimise`; Adam with the policy's own step size, gradients held to length 1, unless given.
    reference: a policy that KLs are measured to; the policy as it is now unless given. every: updates per record.
    """

    def __init__(
        self, task: TokenTask, policy: Policy, rng: Rng, method: Method, *, step: Step | float | None = None,
        reference: Policy | None = None, every: int = 1,
    ) -> None:  # fmt: skip
        check_run(task, policy, rng, method, every)
        self.policy, self.rng, self.method, self.every = policy, rng, method, every
        self.reference = policy.copy() if reference is None else reference
        same_task(task, self.reference, "reference")
        self.step = ascent(held(1.0, adam(policy.lr)) if step is None else step)
        self.beta = 0.0 if method.kl is None else method.kl.beta
        self.k = self.t = 0
        self.judge = Judge(self.reference, method.draw.G)
        self.records = self.run()

    def __next__(self) -> TokenStep:
        return next(self.records)

    def save(self, path: str | Path) -> None:
        """Write all that the run needs to go on, as .npz without pickle; whole or not at all."""
        checkpoint.save(self, path)

    def resume(self, path: str | Path) -> "Training":
        """Go on from a file that a run of the same method and sizes has written: the same bits as without a stop."""
        checkpoint.load(self, path)
        return self

    def run(self) -> Iterator[TokenStep]:
        """Yield a record after every `every` updates, for ever."""
        tally = Tally(self.method.epochs)
        while True:
            self.k += 1
            judged = self.k % self.every == 0
            angle = self.update(tally, judged)
            if judged:
                yield self.judge.record(self.policy, self.k, self.t, angle, tally)
                tally = Tally(self.method.epochs)

    def update(self, tally: Tally, judged: bool) -> float:
        """Draw a batch and improve the policy on it. Returns the cosine of its gradient with the exact one if asked."""
        start = perf_counter()
        drawn = self.method.draw(self.policy, self.rng)
        x, angle, aside = drawn.x, np.nan, 0.0
        self.t += int(drawn.tokens)
        if len(x.reward):
            method, logp_ref = self.settled(), self.under_reference(x)
            adv = method.credit.advantages(scored(method, x, logp_ref))
            if judged:
                aside = -perf_counter()
                angle = self.judge.cosine(self.policy, gradient(self.policy, method, x, adv))
                aside += perf_counter()
            tally.stopped += self.improve(method, x, adv, logp_ref)
        tally.add(drawn, self.networks, self.passes, perf_counter() - start - aside)
        return angle

    def improve(self, method: Method, x: Rollouts, adv: Array, logp_ref: Array | None) -> Array:
        """Descend on the loss of a batch. Returns how many tokens a bound held, over all epochs."""
        held_tokens: Array = 0.0
        for _ in range(method.epochs):
            logits, pull = self.policy.rows(x)
            out, stopped = slope(method, x, log_softmax(logits), adv, logp_ref)
            self.policy.theta = self.step(self.policy.theta, -pull(out))
            held_tokens = held_tokens + stopped.sum()
            if isinstance(method.credit, Gae):
                method.credit.learn(x)
        if method.kl is not None and method.kl.target is not None:
            kl = float((x.logp - logp_ref).sum() / len(x.reward))
            self.beta = adaptive_beta(self.beta, kl, method.kl.target)
        return held_tokens

    def under_reference(self, x: Rollouts) -> Array | None:
        """Log-probabilities (B,T) of the tokens under the reference; None where the method needs none."""
        return None if self.method.kl is None else taken(log_softmax(self.reference.rows(x)[0]), x)

    def settled(self) -> Method:
        """The method with the beta of this update."""
        kl = self.method.kl
        return self.method if kl is None else self.method._replace(kl=kl._replace(beta=self.beta))

    @property
    def networks(self) -> int:
        """Networks that are held: the policy, a critic, a reference."""
        return 1 + isinstance(self.method.credit, Gae) + (self.method.kl is not None)

    @property
    def passes(self) -> int:
        """Forward passes for each token of a batch, besides drawing it."""
        critic = (1 + self.method.epochs) * isinstance(self.method.credit, Gae)
        return self.method.epochs + critic + (self.method.kl is not None)


def gradient(policy: Policy, method: Method, x: Rollouts, adv: Array) -> Array:
    """The estimate (n,) of the gradient of J that a batch gives: its loss without KL and entropy, uphill."""
    logits, pull = policy.rows(x)
    out, _ = slope(method._replace(kl=None, entropy=0.0), x, log_softmax(logits), adv, None)
    return -pull(out)


def scored(method: Method, x: Rollouts, logp_ref: Array | None) -> Scored:
    """The rewards of tokens: the outcome, shaped, at the last one, and what a KL in the reward takes from each."""
    outcome = x.reward if method.shape is None else method.shape(x)
    r = terminal_rewards(outcome, x.mask)
    kl = method.kl
    if kl is not None and kl.place == "reward":
        r = r + kl_rewards(x.logp, logp_ref, x.mask, kl.beta, kind=kl.kind)
    return Scored(x, r)


GRPO = Method(entropy=0.03)
DAPO = Method(Dynamic(), loss=Clip(0.2, 0.28), how="group_token", entropy=0.03)
DR_GRPO = Method(credit=Outcome("none"), how="constant", entropy=0.03)
RLOO = Method(credit=Outcome("none", leave_one_out=True), how="constant", entropy=0.03)
GSPO = Method(loss=Sequence(), entropy=0.03)
CISPO = Method(loss=Capped(), how="token", entropy=0.03)
PPO = Method(how="token", kl=Penalty(0.01, "k1", "reward"), entropy=0.03, epochs=2)  # and a `Gae` of its own critic


def grpo(
    task: TokenTask, policy: Policy, rng: Rng, *, step: Step | float | None = None, reference: Policy | None = None,
    every: int = 1, **parts: Any,
) -> Training:  # fmt: skip
    """Group relative policy optimisation: a sequence is judged against other answers to its prompt.

        loss = mean over sequences of mean over tokens of -min(rho A, clip(rho, .8, 1.2) A),
        A = (reward - mean of the group) / (std of the group + eps)

    parts replace those of `GRPO`: draw=Groups(G, n), credit=Process() for process supervision, kl=Penalty(beta) for the
    published KL in the loss (with a reference), loss, how, entropy, epochs. The default has no KL, and a weight of .03
    on the entropy, without which prompts that are never answered die out. Returns a `Training`: iterate it.
    Source: Shao et al. (2024), DeepSeekMath, eq. 3 and section 4.1; ledger E2.3 to E2.6.

    >>> import numpy as np
    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> run = grpo(task, TableLM(task), np.random.default_rng(0), every=100)
    >>> next(run).J > 0.95
    True
    """
    return start(GRPO, task, policy, rng, step, reference, every, parts)


def dapo(
    task: TokenTask, policy: Policy, rng: Rng, *, step: Step | float | None = None, reference: Policy | None = None,
    every: int = 1, **parts: Any,
) -> Training:  # fmt: skip
    """GRPO with the four changes of DAPO: dynamic sampling, a higher upper clip, a token mean, and overlong shaping.

        loss = mean over groups of mean over the group's tokens of -min(rho A, clip(rho, .8, 1.28) A)

    parts replace those of `DAPO`; shape=Overlong(longest, cache) shortens answers, and is `Overlong(L, L // 4)` where
    answers can end before the length L and L >= 8 unless given; shape=None leaves it out. No KL and no reference.
    Source: Yu et al. (2025), DAPO, eq. 8 to 13; ledger E2.8 to E2.11.

    >>> import numpy as np
    >>> from tabrl.tokens.table import TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> next(dapo(task, TableLM(task), np.random.default_rng(0), every=100)).J > 0.95
    True
    """
    if task.eos and task.length >= 8:
        parts = {"shape": Overlong(task.length, task.length // 4)} | parts
    return start(DAPO, task, policy, rng, step, reference, every, parts)


def ppo(
    task: TokenTask, policy: Policy, critic: Critic, rng: Rng, *, lam: float = 0.95, clip_value: float | None = None,
    critic_step: Step | float | None = None, step: Step | float | None = None, reference: Policy | None = None,
    every: int = 1, **parts: Any,
) -> Training:  # fmt: skip
    """PPO for language models: a critic of prefixes, advantages by GAE, a terminal reward, a KL in the reward.

        r[t] = -beta log(pi_old / pi_ref)[t] + outcome at the last token,   A = GAE(1, lam) of r

    critic: trained beside the policy, in place. parts replace those of `PPO`; kl=Penalty(beta, "k1", "reward", target)
    adapts beta to a KL per sequence. Source: Ouyang et al. (2022); Ziegler et al. (2019), section 2.2; ledger E2.2.

    >>> import numpy as np
    >>> from tabrl.tokens.table import TableCritic, TableLM
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> next(ppo(task, TableLM(task), TableCritic(task), np.random.default_rng(0), every=100)).J > 0.95
    True
    """
    credit = Gae(critic, lam, step=critic_step, clip=clip_value)
    return start(PPO, task, policy, rng, step, reference, every, {"credit": credit} | parts)


def start(
    method: Method, task: TokenTask, policy: Policy, rng: Rng, step: Step | float | None, reference: Policy | None,
    every: int, parts: dict[str, Any],
) -> Training:  # fmt: skip
    """A run of a method with some of its parts replaced. Raises ValueError for a part that methods do not have."""
    known_parts(parts)
    return Training(task, policy, rng, method._replace(**parts), step=step, reference=reference, every=every)


def variant(method: Method) -> Callable[..., Training]:
    """A function like `grpo` with other parts."""

    def run(
        task: TokenTask, policy: Policy, rng: Rng, *, step: Step | float | None = None, reference: Policy | None = None,
        every: int = 1, **parts: Any,
    ) -> Training:  # fmt: skip
        return start(method, task, policy, rng, step, reference, every, parts)

    return run


dr_grpo, rloo, gspo, cispo = variant(DR_GRPO), variant(RLOO), variant(GSPO), variant(CISPO)
METHODS: dict[str, Callable[..., Training]] = {
    "grpo": grpo, "dapo": dapo, "dr-grpo": dr_grpo, "rloo": rloo, "gspo": gspo, "cispo": cispo,
}  # fmt: skip
