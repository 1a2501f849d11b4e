"""Recorded episodes of models with cycles, some end, some are cut by a time limit; and learners replayed on them.

V (S,) values; s (T+1,) states; r, discount (T,): gamma, 0 where s[t+1] is terminal, gamma at a time limit.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tabrl import rational, sample
from tabrl.rational import Row
from tabrl.trace import last
from tabrl.types import Episode, F, I
from tabrl.verify import enumeration, literal, models
from tabrl.verify.literal import Trace
from tabrl.verify.record import Comparison

ALPHA = 0.25  # step size of the replayed learners
STEP = Fraction(ALPHA)
LIMIT = 7  # steps after which an episode of a model is cut
END = 4  # the terminal room of the written-out episodes


class Recording(NamedTuple):
    """One episode, and the values that a learner starts from; V is not 0 in the terminal state, where it is unused."""

    name: str
    V: F  # (5,)
    s: I  # (T+1,)
    r: F  # (T,)
    discount: F  # (T,)
    alpha: float

    @property
    def trace(self) -> Trace:
        """The episode in fractions."""
        return literal.read(self.s, self.r, self.discount)

    @property
    def values(self) -> Row:
        """V in fractions."""
        return rational.exact(self.V)  # type: ignore[no-any-return]


V = np.array([1.0, -0.5, 2.0, 0.25, 8.0])
ENDS = np.array([0, 1, 1, 2, 0, 3, END]), np.array([1.0, -2.0, 0.5, 3.0, 0.0, 4.0])
CUT = np.array([2, 2, 0, 1, 0, 3, 1]), np.array([0.5, 2.0, -1.0, 1.5, 1.0, -3.0])


def discounts(s: I, gamma: float) -> F:
    """Gamma, and 0 where the next state is the terminal one."""
    return np.where(s[1:] == END, 0.0, gamma)


@cache
def recordings() -> tuple[Recording, ...]:
    """Episodes of five rooms, written out; room 4 is the end."""

    def recording(name: str, s: I, r: F, gamma: float, alpha: float) -> Recording:
        return Recording(f"{name}, gamma {gamma:g}, alpha {alpha:g}", V, s, r, discounts(s, gamma), alpha)

    return (
        recording("an episode that ends", *ENDS, 0.9, 0.5),
        recording("an episode cut by a time limit", *CUT, 0.9, 0.5),
        recording("an episode that ends", *ENDS, 1.0, 0.25),
        recording("an episode cut by a time limit", *CUT, 1.0, 0.25),
        recording("an episode cut by a time limit", *CUT, 0.9, 0.1),
        recording("an episode that ends", *ENDS, 0.9, 1.0),
        recording("a long episode that ends", *doubled(), 0.9, 0.3),
        recording("a single step to the end", ENDS[0][-2:], ENDS[1][-1:], 0.9, 0.5),
        recording("a single step that is cut", CUT[0][:2], CUT[1][:1], 0.9, 0.5),
        recording("an episode that ends", *ENDS, 0.0, 0.5),
    )


def doubled() -> tuple[I, F]:
    """The episode that is cut, and from its last state on the one that ends."""
    return np.concatenate([CUT[0], ENDS[0][1:]]), np.concatenate([CUT[1], ENDS[1]])


def written(names: list[str], gamma: float) -> list[tuple[I, F, F]]:
    """Whole episodes (s, r, discount): "0112" visits rooms 0, 1, 1, 2, and then the end."""
    found = []
    for k, rooms in enumerate(names):
        s = np.array([*map(int, rooms), END])
        r = np.array([1.0, -2.0, 0.5, 3.0, 0.0, 4.0, -1.0, 2.0])[np.arange(k, k + len(rooms)) % 8]
        found.append((s, r, discounts(s, gamma)))
    return found


class Batch(NamedTuple):
    """Episodes of a model under its policy."""

    x: models.Instance
    episodes: list[Episode]

    @property
    def traces(self) -> list[Trace]:
        """The episodes in fractions."""
        return [literal.read(e.s, e.r, e.discount) for e in self.episodes]

    @property
    def V(self) -> F:
        """Values to start from, not 0 in terminal states, where they are unused."""
        return self.x.V + 3.0 * self.x.mdp.terminal


def batches(limit: int | None = LIMIT) -> tuple[Batch, ...]:
    """Six episodes of each small model, cut at a limit; without one only the models that end are played."""
    return drawn_batches(limit)


@cache
def drawn_batches(limit: int | None) -> tuple[Batch, ...]:
    """Play the episodes, once for each limit."""
    found = []
    for k, x in enumerate(models.instances()):
        if limit is not None or x.mdp.terminal.any():
            rng = np.random.default_rng([17, k])
            found.append(Batch(x, [played(x, rng, limit or 10**6) for _ in range(6)]))
    return tuple(found)


def unique() -> list[Batch]:
    """Batches whose values are determined: at gamma = 1 the whole episodes, as a cut one may go round for ever."""
    return [x for x in batches() if x.x.mdp.gamma < 1] + [x for x in batches(None) if x.x.mdp.gamma == 1]


def played(x: models.Instance, rng: np.random.Generator, limit: int) -> Episode:
    """Draw one episode, outcome by outcome."""
    mdp, law = x.mdp, enumeration.outcomes(x.mdp, x.pi)
    s, a, r = [drawn(rng, mdp.mu)], list[int](), list[float]()
    while len(r) < limit and not mdp.terminal[s[-1]]:
        o = law[drawn(rng, [float(o.p) * (o.s == s[-1]) for o in law])]
        s, a, r = [*s, o.s_next], [*a, o.a], [*r, float(o.r)]
    states, actions = np.array(s), np.array(a)
    discount = np.where(mdp.terminal[states[1:]], 0.0, mdp.gamma)
    return Episode(states, actions, np.array(r), discount, np.log(x.pi[states[:-1], actions]))


def drawn(rng: np.random.Generator, p: Any) -> int:
    """Draw an index with probability proportional to p."""
    total = np.cumsum(p)
    return int(np.searchsorted(total, rng.random() * total[-1], side="right"))


@cache
def passed(one_pass: Callable[..., Row], limit: int | None, options: tuple[tuple[str, Any], ...]) -> list[Row]:
    """Values after a literal pass over each episode in turn, model by model."""
    found = []
    for x in batches(limit):
        V = rational.exact(x.V)
        for trace in x.traces:
            V = one_pass(trace, V, STEP, **{k: Fraction(y) if isinstance(y, float) else y for k, y in options})
        found.append(V)
    return found


def replays(
    learner: Callable[..., Any], one_pass: Callable[..., Row], *, limit: int | None = LIMIT, **options: Any
) -> Iterator[Comparison]:
    """A learner on the recorded episodes of each model, one by one and in a single buffer, beside a literal pass.

    one_pass(x, V, alpha, **options) gives the values after one more episode.
    """
    where = "".join(f", {k} = {v}" for k, v in options.items())
    for x, V in zip(batches(limit), passed(one_pass, limit, tuple(options.items())), strict=True):
        buffer = [sample.join([sample.from_episode(e) for e in x.episodes])]
        for name, experience, every in (("", x.episodes, 1), (", in one buffer", buffer, 1000)):
            found = last(learner(experience, V=x.V, alpha=ALPHA, every=every, **options)).V
            yield Comparison(f"{x.x.name}{where}{name}", found, V)


def sweeps(learner: Callable[..., Any], target: Callable[[Trace, Row, int], Fraction]) -> Iterator[Comparison]:
    """A batch learner after two sweeps over the episodes of each model, beside literal sums."""
    for x in batches():
        V = rational.exact(x.V)
        for _ in range(2):
            V = literal.sweep(x.traces, V, STEP, target)
        _, second = islice(learner(x.episodes, alpha=ALPHA, V=x.V), 2)
        yield Comparison(x.x.name, second.V, V)
