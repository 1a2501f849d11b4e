"""Every episode of a small model, listed, and the policy gradient estimates that each of them gives: literal sums.

An episode is (probability, states, actions, rewards); psi_t has the entries 1{a_t = c} - pi(c|s_t) in row s_t.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from models import acyclic_mdp, dense_P, dense_R, random_mdp, random_policy
from paths import move

from tabrl import MDP


class Episode(NamedTuple):
    p: float
    s: tuple[int, ...]  # T + 1
    a: tuple[int, ...]  # T
    r: tuple[float, ...]  # T


def episodes(m: MDP, pi: Any, steps: int = 99, first: Any = None) -> Iterator[Episode]:
    """Every episode of positive probability, from mu or from states weighed otherwise, cut after some steps."""
    P, R = dense_P(m), dense_R(m)
    ways = [
        [(a, x, pi[s, a] * P[s, a, x], R[s, a, x]) for a, x in np.argwhere(pi[s, :, None] * P[s])] for s in range(m.S)
    ]

    def walk(e: Episode) -> Iterator[Episode]:
        if m.terminal[e.s[-1]] or len(e.a) == steps:
            yield e
            return
        for a, x, p, r in ways[e.s[-1]]:
            yield from walk(Episode(e.p * p, (*e.s, int(x)), (*e.a, int(a)), (*e.r, float(r))))

    for s in range(m.S):
        start = float((m.mu if first is None else first)[s])
        if start:
            yield from walk(Episode(start, (s,), (), ()))


def scores(e: Episode, pi: Any, weight: Any) -> Any:
    """sum over t of weight[t] psi_t (S,A)."""
    out = np.zeros_like(pi)
    for s, a, w in zip(e.s, e.a, weight, strict=False):
        out[s] -= w * pi[s]
        out[s, a] += w
    return out


def ahead(x: Any, factor: float) -> list[float]:
    """sum over k >= t of factor^(k-t) x[k], for every t."""
    out, tail = [], 0.0
    for y in reversed(x):
        tail = y + factor * tail
        out.append(tail)
    return out[::-1]


def to_go(m: MDP, pi: Any, b: Any, decay: float) -> Callable[[Episode], Any]:
    """sum over t of decay^t psi_t (G_t - b(s_t))."""
    return lambda e: scores(
        e, pi, [decay**t * (G - b[s]) for t, (G, s) in enumerate(zip(ahead(e.r, m.gamma), e.s, strict=False))]
    )


def whole(m: MDP, pi: Any, b: Any) -> Callable[[Episode], Any]:
    """(sum over t of psi_t) (G_0 - b(s_0))."""
    return lambda e: scores(e, pi, np.ones(len(e.a))) * (sum(ahead(e.r, m.gamma)[:1]) - b[e.s[0]])


def td_errors(m: MDP, e: Episode, V: Any) -> list[float]:
    V = np.where(m.terminal, 0.0, V).tolist()
    return [r + m.gamma * V[y] - V[s] for s, y, r in zip(e.s, e.s[1:], e.r, strict=False)]


def with_advantages(m: MDP, pi: Any, V: Any, lam: float, decay: float) -> Callable[[Episode], Any]:
    """sum over t of decay^t psi_t sum over k of (gamma lam)^k delta_{t+k}."""
    return lambda e: scores(e, pi, [decay**t * A for t, A in enumerate(ahead(td_errors(m, e, V), m.gamma * lam))])


def moments(listed: Any, f: Callable[[Episode], Any]) -> tuple[Any, Any]:
    """Mean and variance of f over episodes whose probabilities sum to 1 up to the cut and rounding."""
    p, y = np.array([e.p for e in listed]), np.array([f(e) for e in listed])
    assert abs(p.sum() - 1) < 1e-9
    mean = np.tensordot(p, y, 1)
    return mean, np.tensordot(p, (y - mean) ** 2, 1)


def acyclic(seed: int, **fixed: Any) -> tuple[MDP, Any, Any]:
    """A model in which no state is visited twice, with a masked action, its policy, and some values."""
    rng = np.random.default_rng(seed)
    m = acyclic_mdp(rng, **{"S": 4, "A": 3, "gamma": (0.9, 1.0)[seed % 2], "sparse": seed % 3 == 0} | fixed)
    legal = np.ones((m.S, m.A), np.bool_)
    legal[rng.integers(m.S - 1), 1] = False
    m = replace(m, legal=legal, mu=rng.dirichlet(np.ones(m.S)))
    return m, random_policy(rng, m), rng.normal(size=m.S)


def cyclic(seed: int, **fixed: Any) -> tuple[MDP, Any, Any]:
    """A cyclic model with masked actions, rewards of size 1, its policy, and some values."""
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {"S": 4, "A": 3, "gamma": 0.9, "proper": True, "masked": True, "rewards": "sas"}
    m = random_mdp(rng, **options | fixed)
    m = replace(m, R=m.R / max(m.R_max, 1e-3))
    return m, random_policy(rng, m), rng.normal(size=m.S)


def quick(seed: int, gamma: float) -> tuple[MDP, Any, Any]:
    """A cyclic model in which each step ends the episode with probability .98."""
    m, pi, b = cyclic(seed, S=3, A=2, gamma=gamma, sparse=False, masked=bool(seed % 2))
    P = 0.02 * dense_P(m)
    P[:, :, np.flatnonzero(m.terminal)[0]] += 0.98
    P[m.terminal] = 0.0
    return MDP(P, m.R, gamma, terminal=m.terminal, legal=m.legal, mu=m.mu), pi, b


def ring(seed: int, gamma: float, S: int = 2, stay: float = 0.6) -> tuple[MDP, Any, Any]:
    """S states in a ring: action 0 goes on to the next, action 1 leaves, action 2 is illegal; an episode is its length.

    Every state is visited again and again, and yet all episodes up to a length can be listed.
    """
    rng = np.random.default_rng(seed)
    P = np.zeros((S + 1, 3, S + 1))
    P[np.arange(S), 0, (np.arange(S) + 1) % S] = P[:, 1, S] = P[:, 2, S] = P[S, 0, S] = 1.0
    ends = np.arange(S + 1) == S
    legal = np.broadcast_to([True, True, False], (S + 1, 3))
    m = MDP(P, np.where(ends[:, None], 0, rng.normal(size=(S + 1, 3))), gamma, terminal=ends, legal=legal)
    on = np.append(stay + (1 - stay) * rng.uniform(-0.3, 0.3, S), 1.0)
    return m, np.column_stack([on, 1 - on, 0 * on]), rng.normal(size=S + 1)


def tracks(m: MDP, pi: Any, rng: np.random.Generator, s: Any, first: int | None = None) -> tuple[Any, Any, Any, Any]:
    """Sampled episodes side by side, until all have ended: s, a, r, s_next (T,n).

    s: (n,) start states; first: the first action of all, drawn from pi unless given. Episodes that have ended wait in
    their terminal state and are paid 0.
    """
    track: list[tuple[Any, Any, Any, Any]] = []
    while not m.terminal[s].all():
        live = ~m.terminal[s]
        choice = pi if track or first is None else np.broadcast_to(np.eye(m.A)[first], pi.shape)
        a, r, x = move(rng, m, choice, np.where(live, s, s[np.argmax(live)]))
        x = np.where(live, x, s)
        track.append((s, a, np.where(live, r, 0.0), x))
        s = x
    out = tuple(np.array(y) for y in zip(*track, strict=True))
    return out[0], out[1], out[2], out[3]
