"""The first update of each learner against fractions, on the very steps it saw: rows E1.11, E1.12, E1.15 and E1.16.

theta (S,A) preferences; pi (S,A) softmax; V (S,) critic; psi score; A advantages; n steps of a batch, M its episodes;
delta how far a step may go, in nats.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from tabrl import actor_critic, policy, policy_gradients, ppo, rational, rollout, trpo
from tabrl.decisions import expected
from tabrl.rational import Row, dot
from tabrl.types import F, PGStep
from tabrl.verify import complex_step, estimates, literal
from tabrl.verify.advantage_laws import values
from tabrl.verify.estimates import Multipliers, Run
from tabrl.verify.literal import ONE, ZERO
from tabrl.verify.own_trust_region import kl_of
from tabrl.verify.record import Check, Comparison, agree, within
from tabrl.verify.softmax_models import Softmax, softmaxes

STEP, LAM, ALPHA = 0.25, 0.75, 0.5
EPISODES, STEPS, LIMIT = 3, 40, 9


def some() -> tuple[Softmax, ...]:
    """With and without an end, a discount, forbidden actions."""
    return softmaxes()[1::3]


def rng() -> np.random.Generator:
    """What the learner and the judge draw from: the same steps."""
    return np.random.default_rng(31)


def acting(x: Softmax) -> F:
    """The policy that acts, to the last bit."""
    return np.exp(policy.log_softmax(x.theta, x.mdp.legal))


def runs(y: rollout.Rollout) -> Iterator[Run]:
    """Fragments of a rollout; the end of the rollout ends one."""
    cuts = sorted({*(np.flatnonzero(y.last) + 1).tolist(), len(y.s)})
    for i, j in zip([0, *cuts[:-1]], cuts, strict=True):
        s = np.append(y.s[i:j], y.s_next[j - 1])
        yield Run(ONE, literal.read(s, y.r[i:j], y.discount[i:j]), y.a[i:j].tolist())


def climbed(x: Softmax, law: Iterable[Run], f: Multipliers, w: Fraction, share: Fraction) -> Row:
    """Theta plus the step size times the mean estimate."""
    found = [estimates.estimate(run, x.weight, f(run.x), w) for run in law]
    total = [sum(column, ZERO) for column in zip(*found, strict=True)]
    return [a + Fraction(STEP) * share * g for a, g in zip(rational.exact(x.theta.ravel()), total, strict=True)]


def reinforced() -> list[Check]:
    """E1.11: a batch of whole episodes, with and without gamma^t; exact J in the record."""
    theta, J = [], []
    for x in (x for x in some() if x.ends):
        law = list(runs(rollout.Actor(x.mdp, rng()).episodes(acting(x), EPISODES)))
        b = values(x, x.b)
        for discounted in (True, False):
            learner = policy_gradients.reinforce(
                x.mdp, rng(), step=STEP, episodes=EPISODES, discounted=discounted, theta=x.theta, V=x.b
            )
            found = next(learner)
            w = x.t.gamma if discounted else ONE
            exact = climbed(x, law, estimates.returns(b), w, Fraction(1, EPISODES))
            theta.append(Comparison(f"{x.name}, {'' if discounted else 'no '}gamma^t", found.theta.ravel(), exact))
            J.append(Comparison(x.name, found.J, objective(x, found.theta)))
    return [
        agree("E1.11", "theta after an update of reinforce, against sums over its episodes in fractions", theta),
        agree("E1.11", "J in the record, against mu . V_pi in fractions", J),
    ]


def objective(x: Softmax, theta: F) -> Fraction:
    """The exact J of preferences."""
    V = rational.policy_values(x.t, complex_step.softmax(theta, x.mdp.legal))
    return dot(rational.exact(x.mdp.mu), V)


def batches(row: str, name: str, learner: Callable[..., Any]) -> list[Check]:
    """The actor's and the critic's step on a batch of advantages by GAE, all steps alike; some episodes are cut."""
    theta, V = [], []
    for x in some():
        y = rollout.Actor(x.mdp, rng(), limit=LIMIT).steps(acting(x), STEPS)
        law, start, lam = list(runs(y)), values(x, x.V), Fraction(LAM)
        found: PGStep = next(
            learner(x.mdp, rng(), steps=STEPS, lam=LAM, step=STEP, critic=ALPHA, theta=x.theta, V=x.V, limit=LIMIT)
        )
        exact = climbed(x, law, estimates.advantages(start, lam), ONE, Fraction(1, STEPS))
        theta.append(Comparison(x.name, found.theta.ravel(), exact))
        targets: list[Row] = [[] for _ in start]
        for run in law:
            G = literal.recursive_lambda_returns(run.x, literal.along(start, run.x), lam)
            for s, target in zip(run.x.s, G, strict=False):
                targets[s].append(target)
        moved = [
            v + Fraction(ALPHA) * (sum(G, ZERO) / len(G) - v) if G else v for v, G in zip(start, targets, strict=True)
        ]
        V.append(Comparison(x.name, found.V, moved))
    return [
        agree(row, f"theta after an update of {name}, against sums over its steps in fractions", theta),
        agree(row, "V after it, against means of lambda-returns in fractions", V),
    ]


def advantage_actor_critic() -> list[Check]:
    """E1.12: A2C."""
    return batches("E1.12", "a2c", actor_critic.a2c)


def proximal() -> list[Check]:
    """E1.15: one pass of PPO over a batch, where all ratios are 1."""

    def one_pass(*args: Any, **options: Any) -> Iterator[PGStep]:
        return ppo.ppo(*args, epochs=1, minibatches=1, whiten=False, **options)

    return batches("E1.15", "ppo with one pass", one_pass)


def trusted() -> list[Check]:
    """E1.16: PPO-KL at ratio 1; TRPO holds delta on its batches, and with exact quantities J does not fall."""

    def one_pass(*args: Any, **options: Any) -> Iterator[PGStep]:
        return ppo.ppo_kl(*args, beta=2.0, epochs=1, minibatches=1, whiten=False, **options)

    kl, held, falls = [], [], []
    for x in some():
        found = next(trpo.trpo(x.mdp, rng(), delta=0.125, steps=STEPS, theta=x.theta, limit=LIMIT))
        y = rollout.Actor(x.mdp, rng(), limit=LIMIT).steps(acting(x), STEPS)
        new = complex_step.softmax(found.theta, x.mdp.legal)
        mean = sum(kl_of(x.pi[s], new[s]) for s in y.s) / STEPS
        kl.append(Comparison(x.name, found.kl, mean))
        held.append((x.name, Fraction(mean), 0.125 + 1e-12))
        d, A = np.where(x.mdp.terminal, 0.0, np.array(x.d, np.float64)), np.array(x.advantage, np.float64)
        step = trpo.trpo_step(x.theta, expected(x.pi, d, A), 0.125, legal=x.mdp.legal)
        J = objective(x, x.theta)
        fall = max(J - objective(x, step.theta), ZERO)
        falls.append((x.name, fall, 1e-12 * max(1.0, abs(float(J)))))
    return [
        *batches("E1.16", "ppo_kl with one pass", one_pass),
        agree("E1.16", "KL of an update of trpo, against its mean over the steps", kl),
        within("E1.16", "that KL, at most delta", held),
        within("E1.16", "fall of J in a step of TRPO with exact advantages, in fractions, at most rounding", falls),
    ]
