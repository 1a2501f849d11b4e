"""The exact objective of what policy-gradient methods have learned, transition by transition.

t (K,) transitions; J (L,K,runs) exact mu . V of the policy that is held after t of them, for L methods; kl, clip of
the same shape: how far its last update moved it, and how much of that update was clipped; J* of the best policy.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl import dp, envs
from tabrl.actor_critic import a2c, actor_critic
from tabrl.cells import check_count
from tabrl.control.acting import Rng
from tabrl.gradient import objective
from tabrl.mdp import MDP
from tabrl.optimise import adam
from tabrl.policy_gradients import reinforce
from tabrl.ppo import ppo
from tabrl.schedules import Schedule
from tabrl.trpo import trpo
from tabrl.types import F, PGStep

Method: TypeAlias = Callable[[MDP, Rng], Iterator[PGStep]]


class Climb(NamedTuple):
    """What the policies of some methods are worth, exactly, after t transitions."""

    labels: Sequence[str]
    t: F  # (K,) increasing
    J: F  # (L,K,runs)
    kl: F  # (L,K,runs) nats; 0 before the first update
    clip: F  # (L,K,runs) share of decisions; 0 before the first update
    best: float  # J*
    first: float  # J of the uniform policy, where all begin


def grid_methods() -> dict[str, Method]:
    """Settings for a grid of 64 cells that pays -1 per step; the first two do without baseline and batch.

    The others are meant to be within 1 % of J* after 64,000 transitions.
    """
    cut: dict[str, Any] = {"limit": 500}
    batch: dict[str, Any] = {"critic": 0.5, "whiten": True, "episodes": 16}
    return {
        "REINFORCE, plain, α = 0.1": partial(reinforce, step=0.1, every=10, **cut),
        "REINFORCE, plain, α = 0.001": partial(reinforce, step=0.001, every=20, **cut),
        "REINFORCE, baseline, 16 episodes": partial(reinforce, step=adam(0.1), every=2, **batch, **cut),
        "actor–critic, one step": partial(actor_critic, alpha_theta=0.3, alpha_V=0.3, every=500, **cut),
        "A2C": partial(a2c, step=adam(0.1), critic=0.3, steps=128, lam=0.95, whiten=True, every=10, **cut),
        "PPO": partial(ppo, every=3, **cut),
        "TRPO": partial(trpo, every=2, steps=1024, **cut),
    }


def lake_methods(updates: int) -> dict[str, Method]:
    """PPO for the slippery lake, 4,096 transitions per update: as it is usually set, and so that it reaches J*.

    The second begins with V = 1, more than can be had, looks less far ahead, and anneals an entropy bonus to 0 in
    `updates`.
    """
    tuned: dict[str, Any] = {"lam": 0.8, "V": 1.0, "entropy": falling(0.05, updates)}
    return {
        "usual: V = 0, λ = 0.95, no entropy": partial(ppo, steps=4096, every=4),
        "V = 1, λ = 0.8, entropy 0.05 → 0": partial(ppo, steps=4096, every=4, **tuned),
    }


def falling(start: float, n: int) -> Schedule:
    """Return a schedule that falls from start to 0 in n updates, and stays there.

    >>> falling(1.0, 4)(np.array([1.0, 4.0, 9.0]))
    array([0.75, 0.  , 0.  ])
    """
    check_count(n, "updates", 1)
    return lambda k: start * np.maximum(1 - k / n, 0.0)


def eight_by_eight() -> MDP:
    """Eight by eight cells, -1 per step, from one corner to the other, without slip; gamma = .99."""
    return envs.grid(" ".join(["S......."] + ["........"] * 6 + [".......G"]), step=-1, rewards={"G": -1}, gamma=0.99)


def climb(mdp: MDP, methods: Mapping[str, Method], rng: Rng, *, t: F, runs: int = 20) -> Climb:
    """Exact J of the policy that each method holds after t transitions, run by run.

    methods: label -> method(mdp, rng), a generator of records with J. t: (K,) increasing. A policy is held until the
    next record. Each run has a random stream of its own. A run whose J is not known exactly is nan there.

    >>> from tabrl import MDP
    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> method = {"PPO": partial(ppo, steps=64)}
    >>> x = climb(bandit, method, np.random.default_rng(0), t=np.array([63.0, 64.0, 3200.0]), runs=2)
    >>> x.J.shape, x.J[0, 0], x.first, x.best, bool((x.J[0, 2] > 2.9).all())
    ((1, 3, 2), array([2., 2.]), 2.0, 3.0, True)
    """
    first = objective(mdp, np.zeros((mdp.S, mdp.A)))
    found = np.empty((len(methods), check_count(runs, "runs", 1), len(t), 3))
    for i, method in enumerate(methods.values()):
        for j, own in enumerate(rng.spawn(runs)):
            kept = held(method(mdp, own), t)
            found[i, j] = [(first, 0.0, 0.0) if x is None else (x.J, x.kl, x.clip_fraction) for x in kept]
    J, kl, clip = np.moveaxis(found, (3, 0, 2, 1), (0, 1, 2, 3))
    return Climb(tuple(methods), t, J, kl, clip, float(mdp.mu @ dp.solve(mdp).V), first)


def held(records: Iterable[PGStep], t: F) -> list[PGStep | None]:
    """For each number of transitions, the last record that had seen no more; None before the first."""
    out: list[PGStep | None] = []
    now: PGStep | None = None
    for x in records:
        out += [now] * (int(np.searchsorted(t, x.t)) - len(out))
        now = x
        if len(out) == len(t):
            break
    return out
