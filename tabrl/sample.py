"""Experience: episodes and streams of transitions, from an explicit model or a gymnasium environment.

s (T+1,) states; a, r, discount, logp (T,); discount[t] is gamma, and 0 where s[t+1] is terminal; a time
limit cuts the episode and keeps gamma. u uniform numbers in [0, 1).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tabrl import checks
from tabrl.branches import branches
from tabrl.chain import induce, occupancy
from tabrl.errors import ModelError, ShapeError
from tabrl.kernels import first_state, walk
from tabrl.mdp import MDP
from tabrl.types import B, Episode, F, I, Transitions

BLOCK = 8192  # transitions drawn at a time


class Tables(NamedTuple):
    """What can follow each state under a policy: K outcomes a state, drawn by the alias method.

    Outcome o = K s + k is taken with probability keep[o], else outcome other[o]. Source: Walker (1977).
    """

    K: int
    keep: F  # (S·K,)
    other: I  # (S·K,)
    s_next: I  # (S·K,)
    r: F  # (S·K,)
    discount: F  # (S·K,)
    ends: B  # (S·K,) whether s_next is terminal
    start: I  # (L,) states in which an episode can start
    start_keep: F  # (L,) alias table over them
    start_other: I  # (L,)
    action: I  # (S·K,)


class Outcomes(NamedTuple):
    """What can follow each state, one entry per state, action, next state and reward; sorted by s, the row."""

    s: I
    a: I
    s_next: I
    r: F
    p: F


def outcomes(mdp: MDP, pi: F) -> Outcomes:
    """List what can follow each state under pi (S,A)."""
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    x = branches(mdp)
    p = pi[x.s, x.a] * x.P
    on = p > 0
    return Outcomes(x.s[on], x.a[on], x.s_next[on], x.R[on], p[on])


def merged(x: Outcomes) -> Outcomes:
    """Add up outcomes that differ in the action alone: smaller tables stay in the cache. a is not kept."""
    order = np.lexsort((x.r, x.s_next, x.s))
    s, s_next, r = x.s[order], x.s_next[order], x.r[order]
    new = np.r_[True, (s[1:] != s[:-1]) | (s_next[1:] != s_next[:-1]) | (r[1:] != r[:-1])]
    p: F = np.bincount(np.cumsum(new) - 1, x.p[order]).astype(np.float64)
    return Outcomes(s[new], np.full(int(new.sum()), -1), s_next[new], r[new], p)


def tables(mdp: MDP, x: Outcomes, n: int) -> Tables:
    """Lay outcomes out for sampling in constant time, n rows numbered by x.s."""
    if mdp.terminal[mdp.mu > 0].any():
        s = int(np.argmax(mdp.terminal & (mdp.mu > 0)))
        raise ModelError(f"mu[{s}] is {mdp.mu[s]}; 0 is expected, as episodes start in non-terminal states")
    K = int(np.bincount(x.s, minlength=n).max(initial=1))
    place = x.s * K + np.arange(len(x.s)) - np.searchsorted(x.s, x.s)

    def laid_out(y: Any) -> Any:
        out = np.zeros(n * K, np.asarray(y).dtype)
        out[place] = y
        return out

    keep, other = alias(laid_out(x.p).reshape(n, K))
    s_next = laid_out(x.s_next)
    discount = np.where(mdp.terminal[x.s_next], 0.0, mdp.gamma)
    index = np.uint32 if n * K < 2**32 else np.uint64
    start = np.flatnonzero(mdp.mu)
    start_keep, start_other = alias(mdp.mu[None, start])
    return Tables(
        K, keep, other.astype(index), s_next.astype(index), laid_out(x.r), laid_out(discount),
        mdp.terminal[s_next], start.astype(index), start_keep, start_other, laid_out(x.a),
    )  # fmt: skip


def alias(p: F) -> tuple[F, I]:
    """Alias tables for the rows of p (n,K), which need not sum to 1: (keep (n·K,), other (n·K,)).

    Drawing column k uniformly and keeping it with probability keep, else taking `other`, has the
    distribution of the row. Rows of zeros keep everything. Source: Vose (1991).

    >>> keep, other = alias(np.array([[0.25, 0.75]]))
    >>> keep.tolist(), other.tolist()
    ([0.5, 1.0], [1, 1])
    """
    n, K = p.shape
    keep, other = np.ones((n, K)), np.arange(n * K).reshape(n, K)
    for i in np.flatnonzero(p.sum(axis=1) > 0):
        share = p[i] * (K / p[i].sum())
        small = [k for k in range(K) if share[k] < 1]
        large = [k for k in range(K) if share[k] >= 1]
        while small and large:
            low, high = small.pop(), large[-1]
            keep[i, low], other[i, low] = share[low], i * K + high
            share[high] -= 1 - share[low]
            if share[high] < 1:
                small.append(large.pop())
        for k in small:  # what rounding left over
            if share[k] < 0.5:
                keep[i, k], other[i, k] = 0.0, i * K + int(p[i].argmax())
    return keep.ravel(), other.ravel()


class Stream:
    """An endless stream of transitions of one policy on an explicit model, in blocks.

    Iterating yields `Transitions` of `block` steps; an episode may run on into the next block. After a
    terminal state, or after `limit` steps, the next transition starts from mu. Every transition uses two
    uniform numbers (one if mu is a single state), so the block size does not change what is drawn. They have
    32 bits, which is how exactly probabilities are kept.
    actions=True keeps apart what differs in the action alone; `tables.action[outcome]` is then the action.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> next(iter(Stream(two, np.ones((2, 1)), np.random.default_rng(0), block=3))).r
    array([5., 5., 5.])
    """

    def __init__(
        self,
        mdp: MDP,
        pi: F,
        rng: np.random.Generator,
        *,
        limit: int | None = None,
        block: int = BLOCK,
        actions: bool = False,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}; at least one step per episode is expected")
        x = outcomes(mdp, pi)
        t = self.tables = tables(mdp, x if actions else merged(x), mdp.S)
        self.rng, self.block, self.S = rng, block, mdp.S
        keep, other, to = np.rint(t.keep * 2.0**32).astype(np.uint64), t.other.astype(np.uint64), t.s_next
        row = to * np.uint64(t.K)  # first outcome of the state that follows
        discount = np.where(mdp.terminal, 0.0, mdp.gamma)
        start = (t.start, t.start_keep, t.start_other)
        self.model: Any = (
            np.uint64(t.K),
            keep,
            other,
            row,
            row[t.other],
            to,
            t.r,
            discount,
            mdp.terminal,
            *start,
        )
        self.limit: Any = np.uint64(limit or 2**62)
        self.at = np.empty(0, np.uint64)  # state, its first outcome, and steps of the running episode
        self.spare = np.empty(0, np.uint32)

    def __iter__(self) -> Iterator[Transitions]:
        while True:
            yield self.draw(self.block)[0]

    def draw(self, n: int) -> tuple[Transitions, I]:
        """Draw the next n transitions, and the outcome numbers that they took."""
        t = self.tables
        if not len(self.at):
            state = first_state(t.start, t.start_keep, t.start_other, self.rng.random())
            self.at = np.array([state, state * t.K, 0], np.uint64)
        u = self.uniform(n if len(t.start) == 1 else 2 * n).reshape(n, -1)
        outcome, s, s_next = (np.empty(n, np.int64) for _ in range(3))
        r, discount, last = np.empty(n), np.empty(n), np.empty(n, np.bool_)
        arguments: Any = (u, *self.model, self.limit, self.at, outcome, s, s_next, r, discount, last)
        walk(*arguments)
        return Transitions(s, s_next, r, discount, last), outcome

    def uniform(self, n: int) -> Any:
        """Draw n numbers of 32 bits; half of a 64-bit number may be left for the next time."""
        more = self.rng.integers(2**64, size=(n - len(self.spare) + 1) // 2, dtype=np.uint64).view(np.uint32)
        u = np.concatenate([self.spare, more]) if len(self.spare) else more
        self.spare = u[n:]
        return u[:n]


def episodes(
    source: Any, pi: F, rng: np.random.Generator, *, limit: int | None = None, gamma: float = 1.0
) -> Iterator[Episode]:
    """Endless episodes of a policy.

    source: an `MDP`, or a gymnasium environment with discrete, multi-discrete or tuple observations, whose
    discount is `gamma` (a model has its own). pi: (S,A). limit: largest number of steps; the cut episode
    keeps its discount. A model that cannot end needs a limit. Source: Sutton & Barto (2018), section 3.3.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> episode = next(episodes(two, np.ones((2, 1)), np.random.default_rng(0)))
    >>> episode.s, episode.r, episode.discount
    (array([0, 1]), array([5.]), array([0.]))
    """
    if isinstance(source, MDP):
        yield from model_episodes(source, pi, rng, limit)
    numbered(source.observation_space)
    pi = checks.policy(pi, *np.shape(pi))
    if pi.shape[1] != getattr(source.action_space, "n", None):
        raise ShapeError(f"pi has {pi.shape[1]} columns; one for each action of {source.action_space} is expected")
    while True:
        yield gym_episode(source, pi, rng, limit, gamma)


def simulate(source: Any, pi: F, rng: np.random.Generator, *, limit: int | None = None, gamma: float = 1.0) -> Episode:
    """One episode; arguments as in `episodes`. A model draws its random numbers in blocks.

    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> simulate(two, np.ones((2, 1)), np.random.default_rng(0)).s
    array([0, 1])
    """
    return next(episodes(source, pi, rng, limit=limit, gamma=gamma))


def model_episodes(mdp: MDP, pi: F, rng: np.random.Generator, limit: int | None) -> Iterator[Episode]:
    """Cut a stream at the ends of its episodes."""
    if limit is None:
        occupancy(induce(mdp, pi)._replace(gamma=1.0), mdp.mu)  # raises where the policy may never end
    stream = Stream(mdp, pi, rng, limit=limit, actions=True)
    with np.errstate(divide="ignore"):
        logp = np.log(pi)
    parts: list[Transitions] = []
    actions: list[I] = []
    while True:
        x, outcome = stream.draw(BLOCK)
        i = 0
        for j in [*(np.flatnonzero(x.last) + 1).tolist(), BLOCK]:
            parts.append(cut(x, i, j))
            actions.append(stream.tables.action[outcome[i:j]])
            i = j
            if j and x.last[j - 1] and len(parts[-1].r):
                y, a = join(parts), np.concatenate(actions)
                yield Episode(np.append(y.s, y.s_next[-1]), a, y.r, y.discount, logp[y.s, a])
                parts, actions = [], []


def gym_episode(env: Any, pi: F, rng: np.random.Generator, limit: int | None, gamma: float) -> Episode:
    """Play one episode of a gymnasium environment."""
    number = numbered(env.observation_space)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    s, a, r, discount, logp = [number(observation)], [], [], [], []
    over = False
    while not over:
        chance = pi[s[-1]]
        a.append(int(np.searchsorted(np.cumsum(chance), rng.random() * chance.sum(), side="right")))
        observation, reward, terminated, truncated, _ = env.step(a[-1])
        s.append(number(observation))
        r.append(float(reward))
        discount.append(0.0 if terminated else gamma)
        logp.append(float(np.log(chance[a[-1]])))
        over = terminated or truncated or len(a) == limit
    return Episode(np.array(s), np.array(a), np.array(r), np.array(discount), np.array(logp))


def numbered(space: Any) -> Any:
    """Return a function that numbers the observations of a discrete, multi-discrete or tuple space from 0."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return lambda x: int(x) - int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return lambda x: int(np.ravel_multi_index(tuple(np.asarray(x) - space.start), tuple(space.nvec)))
    parts = [p for p in getattr(space, "spaces", ()) if isinstance(p, spaces.Discrete)]
    if isinstance(space, spaces.Tuple) and len(parts) == len(space.spaces):
        starts, shape = [int(p.start) for p in parts], tuple(int(p.n) for p in parts)
        return lambda x: int(np.ravel_multi_index(tuple(int(y) - b for y, b in zip(x, starts, strict=True)), shape))
    raise ModelError(f"observation_space is {space}; a discrete, multi-discrete or tuple space is expected")


def cut(x: Transitions, i: int, j: int) -> Transitions:
    """Transitions i … j-1, as views."""
    columns: Any = (y[i:j] for y in x)
    return Transitions(*columns)


def join(parts: Sequence[Transitions]) -> Transitions:
    """Put pieces one after the other."""
    columns: Any = (np.concatenate(y) for y in zip(*parts, strict=True))
    return parts[0] if len(parts) == 1 else Transitions(*columns)


def transitions(experience: Any) -> Iterator[Transitions]:
    """Read experience as transitions: a `Stream`, or an iterable of `Episode` or `Transitions`."""
    for x in experience:
        yield x if isinstance(x, Transitions) else from_episode(x)


def from_episode(x: Episode) -> Transitions:
    """Lay an episode out as transitions; its last step ends the fragment."""
    T = len(x.r)
    if len(x.s) != T + 1 or len(x.discount) != T:
        raise ShapeError(
            f"episode has {len(x.s)} states, {T} rewards, {len(x.discount)} discounts; T+1, T, T are expected"
        )
    last: B = np.arange(T) == T - 1
    return Transitions(x.s[:-1], x.s[1:], x.r, x.discount, last)
