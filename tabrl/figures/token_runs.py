"""Runs of token methods side by side: what is exact about every policy on their way.

k updates; M records of a run and one before its first update; K prompts; p chance of an answer of the largest reward.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl.cells import check_count
from tabrl.control.acting import Rng
from tabrl.tokens.judge import Tally, TokenStep, numbers
from tabrl.tokens.train import Training
from tabrl.types import F, I

Make: TypeAlias = Callable[[Rng], Training]  # a run at its beginning, with a policy of its own
Look: TypeAlias = Callable[[Any], Sequence[float]]  # numbers about a policy
FIELDS = tuple(name for name in TokenStep._fields if name != "k")


class Runs(NamedTuple):
    """The records of several runs; row 0 is before any update, where what a batch says is nan."""

    k: I  # (M+1,) updates
    t: F  # (M+1,runs) tokens drawn
    J: F  # (M+1,runs) exact expected outcome
    p: F  # (M+1,runs,K) exact
    kl: F  # (M+1,runs) exact, to the reference, nats per sequence
    entropy: F  # (M+1,runs) exact, nats per token
    dead: F  # (M+1,runs) prompts
    cosine: F  # (M+1,runs)
    clip_fraction: F  # (M+1,runs)
    kept: F  # (M+1,runs) share of the groups drawn that were used
    length: F  # (M+1,runs) tokens
    networks: F  # (M+1,runs)
    passes: F  # (M+1,runs) forward passes for each token used
    tokens_per_s: F  # (M+1,runs)
    theta: F  # (runs,n) at the end
    seen: F  # (M+1,runs,…) what `look` says of each policy


def nothing(policy: Any) -> Sequence[float]:
    """What is looked at where nothing else is of interest."""
    return ()


def several(
    make: Make, rng: Rng, *, runs: int, records: int, look: Look = nothing, jobs: int | None = None
) -> Runs:  # fmt: skip
    """Run a method several times, each with a random stream of its own.

    records: that many after the first; `make` says how many updates lie between them. look: more numbers about the
    policy of every record. jobs: processes, -1 for one per processor, None for one, or what `joblib.parallel_config`
    says. The numbers do not depend on it.

    >>> from functools import partial
    >>> x = several(partial(begin, "two-step", "grpo", every=20), np.random.default_rng(0), runs=2, records=5)
    >>> x.k.tolist(), x.J.shape, bool((x.J[-1] > 0.9).all())
    ([0, 20, 40, 60, 80, 100], (6, 2), True)
    """
    from joblib import Parallel, delayed

    check_count(records, "records", 1)
    work = delayed(one)
    return together(Parallel(n_jobs=jobs)(work(make, own, records, look) for own in rng.spawn(counted(runs))))


def counted(runs: int) -> int:
    """Require at least one run."""
    return check_count(runs, "runs", 1)


class Track(NamedTuple):
    """One run."""

    records: list[TokenStep]
    theta: F  # (n,) at the end
    seen: F  # (M+1,…)


def one(make: Make, rng: Rng, records: int, look: Look = nothing) -> Track:
    """The records of one run, and its parameters at the end."""
    run = make(rng)
    found, seen = [before(run)], [look(run.policy)]
    for x in islice(run, records):
        found.append(x)
        seen.append(look(run.policy))
    return Track(found, numbers(run.policy.theta), np.array(seen, np.float64))


def before(run: Training) -> TokenStep:
    """What is known of a run before it goes on; what a batch would say is nan."""
    tally = Tally(1)
    tally.batches = tally.seconds = 1.0
    x = run.judge.record(run.policy, run.k, run.t, np.nan, tally)
    return x._replace(kept=np.nan, clip_fraction=np.nan, passes=np.nan, tokens_per_s=np.nan)


def together(found: Sequence[Track]) -> Runs:
    """Put runs of the same length side by side."""
    columns: Any = [
        np.stack([np.array([getattr(x, name) for x in one.records], np.float64) for one in found], axis=1)
        for name in FIELDS
    ]
    k = np.array([x.k for x in found[0].records])
    theta, seen = np.stack([x.theta for x in found]), np.stack([x.seen for x in found], axis=1)
    return Runs(k, **dict(zip(FIELDS, columns, strict=True)), theta=theta, seen=seen)


def begin(name: str, algo: str, rng: Rng, *, size: dict[str, Any] | None = None, **settings: Any) -> Training:
    """A run of a method with a table on a task of `token_tasks`. size: of the task. settings: of the method."""
    from tabrl.envs import token_tasks
    from tabrl.tokens.table import TableCritic, TableLM
    from tabrl.tokens.train import METHODS, ppo

    task = token_tasks.make(name, **(size or {}))
    if algo == "ppo":
        return ppo(task, TableLM(task), TableCritic(task), rng, **settings)
    return METHODS[algo](task, TableLM(task), rng, **settings)


def success(x: Runs, weights: F) -> F:
    """Chance (M+1,runs) that an answer has the largest reward of its prompt, over prompts of some weights (K,)."""
    found: F = x.p @ weights
    return found


def reached(x: Runs, weights: F, share: float = 0.9) -> F:
    """The updates (runs,) of the first record with that success; inf where no record has it."""
    there = success(x, weights) >= share
    return np.where(there.any(axis=0), x.k[there.argmax(axis=0)], np.inf)


def failed(x: Runs, weights: F, share: float = 0.9) -> list[int]:
    """The runs that end below that success."""
    found: list[int] = np.flatnonzero(success(x, weights)[-1] < share).tolist()
    return found
