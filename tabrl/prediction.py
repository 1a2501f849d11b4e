"""Prediction from samples: the value of a policy, learned from its experience.

V (S,) values; s (T+1,) states; r, discount (T,); alpha step size, a number or a schedule; delta TD error;
lam trace decay; G returns. Every learner is a generator of `ValueUpdate`; it takes a list of `Episode` to
replay, `sample.episodes(...)`, or an endless `sample.Stream`, and starts from a copy of V (S,).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from tabrl import checks
from tabrl.errors import ModelError, ShapeError
from tabrl.learning_kernels import n_step_pass, td0_pass, td_lambda_pass, towards, true_online_pass
from tabrl.returns import discounted_sum, lambda_returns
from tabrl.sample import Stream, cut, join, transitions
from tabrl.types import F, I, Transitions, ValueUpdate

Schedule: TypeAlias = Callable[[F], F]  # number of a state's update, from 1, to its step size
Alpha: TypeAlias = float | Schedule
TRACES = {"accumulating": 0, "replacing": 1, "dutch": 2}


def harmonic(k: F) -> F:
    """Step size 1/k of the k-th update: V is the average of its targets. A `Schedule`.

    >>> harmonic(np.array([1.0, 2.0, 4.0]))
    array([1.  , 0.5 , 0.25])
    """
    return 1.0 / k


def power(scale: float, exponent: float) -> Schedule:
    """Step size min(1, scale / k**exponent); converges for exponents in (1/2, 1].

    Source: Robbins & Monro (1951); Sutton & Barto (2018), eq. 2.7.

    >>> power(0.5, 1.0)(np.array([1.0, 2.0]))
    array([0.5 , 0.25])
    """
    return lambda k: np.minimum(1.0, scale / k**exponent)


class Steps:
    """The step sizes of a learner: one number, or a table of a schedule that grows with the counts."""

    def __init__(self, alpha: Alpha, S: int) -> None:
        self.schedule = alpha if callable(alpha) else None
        if not callable(alpha) and not 0 < alpha <= 1:
            raise ValueError(f"alpha is {alpha}; a step size in (0, 1], or a schedule, is expected")
        self.table = np.empty(0) if callable(alpha) else np.array([float(alpha)])
        self.count = np.zeros(S, np.int64)

    def ahead(self, n: int) -> F:
        """Step sizes that last for n more updates."""
        need = int(self.count.max(initial=0)) + n
        if self.schedule is not None and need > len(self.table):
            self.table = np.asarray(self.schedule(np.arange(1.0, 2 * need + 1)), np.float64)
        return self.table


def start(V: F, alpha: Alpha, every: int) -> tuple[F, Steps]:
    """Copy the initial values and check what all learners take."""
    V = checks.real(V, "V")
    if V.ndim != 1:
        raise ShapeError(f"V has shape {V.shape}; (S,) is expected")
    if every < 1:
        raise ValueError(f"every is {every}; a record after every 1 or more steps is expected")
    return V, Steps(alpha, len(V))


def pieces(experience: Iterable[Any], S: int, every: int) -> Iterator[tuple[int, Transitions]]:
    """Cut experience so that every multiple of `every` ends a piece: (transitions so far, piece)."""
    t = 0
    for x in checked(experience, S):
        i = 0
        while i < len(x.r):
            j = min(len(x.r), i + every - t % every)
            t += j - i
            yield t, cut(x, i, j)
            i = j


def checked(experience: Iterable[Any], S: int) -> Iterator[Transitions]:
    """Read experience as transitions between states 0 … S-1; a stream is known to have them."""
    if isinstance(experience, Stream):
        if experience.S != S:
            raise ShapeError(f"V has shape {(S,)}; {(experience.S,)} is expected, a value for each state of the model")
        yield from experience
    for x in transitions(experience):
        check_states(x, S)
        yield x


def check_states(x: Transitions, S: int) -> None:
    """Require states 0 … S-1."""
    for name, states in (("s", x.s), ("s_next", x.s_next)):
        if len(states) and not (states.min() >= 0 and states.max() < S):
            t = int(np.argmax((states < 0) | (states >= S)))
            raise ModelError(f"{name}[{t}] is {int(states[t])}; a state below {S}, the length of V, is expected")


def records(
    experience: Iterable[Any], V: F, every: int, update: Callable[[Transitions], float]
) -> Iterator[ValueUpdate]:
    """Apply `update` piece by piece; yield after every `every` transitions and at the end."""
    t, delta = 0, 0.0
    for t, x in pieces(experience, len(V), every):
        delta = update(x)
        if t % every == 0:
            yield ValueUpdate(t, V.copy(), float(delta))
    if t % every:
        yield ValueUpdate(t, V.copy(), float(delta))


def td0(experience: Iterable[Any], *, alpha: Alpha, V: F, every: int = 1) -> Iterator[ValueUpdate]:
    """TD(0).

        V(s) <- V(s) + alpha delta,   delta = r + discount V(s') - V(s)

    One record per `every` transitions; the result does not depend on it. A semi-gradient method: it does
    not descend the squared TD error, and delta itself does not vanish, its mean does.
    Source: Sutton & Barto (2018), section 6.1; ledger E1.7.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> [x.V.tolist() for x in td0([one, one], alpha=0.5, V=np.zeros(3))]
    [[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.25, 0.5, 0.0], [0.25, 0.75, 0.0]]
    """
    V, steps = start(V, alpha, every)

    def update(x: Transitions) -> float:
        return td0_pass(V, x.s, x.s_next, x.r, x.discount, steps.ahead(len(x.r)), steps.count)

    yield from records(experience, V, every, update)


def td_lambda(
    experience: Iterable[Any], *, alpha: Alpha, V: F, lam: float, trace: str = "accumulating", every: int = 1
) -> Iterator[ValueUpdate]:
    """TD(lambda), the backward view with an eligibility trace z.

        V <- V + alpha delta z,   z <- discount lam z at the next step, 0 at the end of an episode

    trace: what a visit does: "accumulating" z(s) + 1, "replacing" 1, "dutch" z(s) + 1 - alpha z(s).
    lam=0 is TD(0); lam=1 with accumulating traces is online Monte Carlo. Each step costs O(S).
    Source: Sutton & Barto (2018), section 12.2 and eq. 12.5; Singh & Sutton (1996). Ledger E1.9.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> [x.V.tolist() for x in td_lambda([one], alpha=0.5, V=np.zeros(3), lam=1.0)]
    [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    """
    V, steps = start(V, alpha, every)
    fraction("lam", lam)
    if trace not in TRACES:
        raise ValueError(f"trace is {trace!r}; one of {', '.join(TRACES)} is expected")
    z = np.zeros(len(V))

    def update(x: Transitions) -> float:
        ahead = steps.ahead(len(x.r))
        return td_lambda_pass(V, z, x.s, x.s_next, x.r, x.discount, x.last, lam, TRACES[trace], ahead, steps.count)

    yield from records(experience, V, every, update)


def true_online_td(
    experience: Iterable[Any], *, alpha: Alpha, V: F, lam: float, every: int = 1
) -> Iterator[ValueUpdate]:
    """True online TD(lambda): after each step exactly what the online lambda-return algorithm would have.

        V <- V + alpha (delta + V(s) - V_old) z - alpha (V(s) - V_old) e_s,   V_old <- V(s') before the update

    z is a dutch trace. lam=0 is TD(0). Source: van Seijen et al. (2016); Sutton & Barto (2018), section 12.5.
    Ledger E1.9.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> [x.V.tolist() for x in true_online_td([one], alpha=0.5, V=np.zeros(3), lam=1.0)]
    [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    """
    V, steps = start(V, alpha, every)
    fraction("lam", lam)
    z, old = np.zeros(len(V)), np.zeros(1)

    def update(x: Transitions) -> float:
        ahead = steps.ahead(len(x.r))
        return true_online_pass(V, z, old, x.s, x.s_next, x.r, x.discount, x.last, lam, ahead, steps.count)

    yield from records(experience, V, every, update)


def split(x: Transitions) -> Iterator[Transitions]:
    """Cut transitions at the ends of episodes."""
    ends = (np.flatnonzero(x.last) + 1).tolist()
    for i, j in zip([0, *ends], [*ends, len(x.r)], strict=True):
        if j > i:
            yield cut(x, i, j)


def n_step_td(experience: Iterable[Any], *, alpha: Alpha, V: F, n: int, every: int = 1) -> Iterator[ValueUpdate]:
    """n-step TD.

        G = r[t] + discount r[t+1] + … + discount**n V(s[t+n]),   V(s[t]) <- V(s[t]) + alpha (G - V(s[t]))

    A state is updated n steps after its visit, at the end of the episode at the latest; t counts updates.
    n=1 is TD(0); n as long as the episode is Monte Carlo with updates at its end.
    Source: Sutton & Barto (2018), section 7.1; ledger E1.8.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> [x.V.tolist() for x in n_step_td([one], alpha=0.5, V=np.zeros(3), n=2)]
    [[0.5, 0.0, 0.0], [0.5, 0.5, 0.0]]
    """
    V, steps = start(V, alpha, every)
    if n < 1:
        raise ValueError(f"n is {n}; 1 or more steps are expected")
    t, error = 0, np.zeros(1)
    rest: Transitions | None = None
    for x in checked(experience, len(V)):
        rest = x if rest is None else join([rest, x])
        done = 1
        while done:
            done = n_step_pass(V, *rest, n, every - t % every, steps.ahead(every), steps.count, error)
            t += done
            rest = cut(rest, done, len(rest.r))
            if done and t % every == 0:
                yield ValueUpdate(t, V.copy(), float(error[0]))
    if t % every:
        yield ValueUpdate(t, V.copy(), float(error[0]))


def fragments(experience: Iterable[Any], S: int) -> Iterator[Transitions]:
    """Whole episodes, put together where they run over several pieces; an unfinished end is left out."""
    parts: list[Transitions] = []
    for x in checked(experience, S):
        for y in split(x):
            parts.append(y)
            if y.last[-1]:
                yield join(parts)
                parts = []


def by_episode(
    experience: Iterable[Any], V: F, every: int, update: Callable[[Transitions], float]
) -> Iterator[ValueUpdate]:
    """Apply `update` to whole episodes; yield after every `every` episodes and at the end."""
    t, k, delta = 0, 0, 0.0
    for k, x in enumerate(fragments(experience, len(V)), 1):
        delta = update(x)
        t += len(x.r)
        if k % every == 0:
            yield ValueUpdate(t, V.copy(), float(delta))
    if k % every:
        yield ValueUpdate(t, V.copy(), float(delta))


def monte_carlo(
    experience: Iterable[Any], *, alpha: Alpha = harmonic, V: F, visit: str = "every", every: int = 1
) -> Iterator[ValueUpdate]:
    """Monte Carlo prediction: move V towards the return of each episode, after it.

        V(s[t]) <- V(s[t]) + alpha (G[t] - V(s[t]))

    alpha: 1/k of a state's k-th visit unless given, so that V is the average return. visit: "first" visit of
    a state in an episode (unbiased), or "every" (biased for few episodes). An episode cut by a time limit
    ends in the value of the state it was cut in. One record per `every` episodes.
    Source: Sutton & Barto (2018), section 5.1; ledger E1.6.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> [x.V.tolist() for x in monte_carlo([one], V=np.zeros(3))]
    [[1.0, 1.0, 0.0]]
    """
    V, steps = start(V, alpha, every)
    if visit not in ("first", "every"):
        raise ValueError(f"visit is {visit!r}; 'first' or 'every' is expected")

    def update(x: Transitions) -> float:
        G = discounted_sum(x.r, x.discount, float(V[x.s_next[-1]]))
        return towards(V, x.s, G, first_visits(x.s) | (visit == "every"), steps.ahead(len(x.r)), steps.count)

    yield from by_episode(experience, V, every, update)


def first_visits(s: I) -> Any:
    """Mark the first visit to each state: s (T,) to (T,) bool."""
    use = np.zeros(len(s), np.bool_)
    use[np.unique(s, return_index=True)[1]] = True
    return use


def lambda_return(
    experience: Iterable[Any], *, alpha: Alpha, V: F, lam: float, every: int = 1
) -> Iterator[ValueUpdate]:
    """Offline lambda-return algorithm: after an episode, move each visited state towards its lambda-return.

    Targets are computed from V as it was before the episode, and applied in order. lam=0: TD(0) targets;
    lam=1: constant-alpha Monte Carlo. One record per `every` episodes.
    Source: Sutton & Barto (2018), eq. 12.4; ledger E1.9.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> [x.V.tolist() for x in lambda_return([one], alpha=0.5, V=np.zeros(3), lam=1.0)]
    [[0.5, 0.5, 0.0]]
    """
    V, steps = start(V, alpha, every)
    fraction("lam", lam)

    def update(x: Transitions) -> float:
        G = lambda_returns(x.r, x.discount, np.append(V[x.s], V[x.s_next[-1]]), lam)
        return towards(V, x.s, G, np.ones(len(G), np.bool_), steps.ahead(len(G)), steps.count)

    yield from by_episode(experience, V, every, update)


def fraction(name: str, x: float) -> None:
    """Require a number in [0, 1]."""
    if not 0 <= x <= 1:
        raise ValueError(f"{name} is {x}; a number in [0, 1] is expected")


def lstd(experience: Iterable[Any], *, S: int, lam: float = 0.0) -> F:
    """Least-squares TD(lambda): the V at which the sum of all TD(lambda) updates is zero.

        sum over t of z[t] (r[t] + discount[t] V(s[t+1]) - V(s[t])) = 0,   z[t] = discount lam z[t-1] + e_s[t]

    lam=0 is the certainty-equivalence solution of the data (what batch TD converges to), lam=1 the average
    of every-visit returns (batch Monte Carlo). Returns (S,), nan for states that were never visited.
    Source: Bradtke & Barto (1996); Boyan (1999); Sutton & Barto (2018), sections 6.3 and 9.8.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> lstd([one], S=3)
    array([ 1.,  1., nan])
    """
    fraction("lam", lam)
    A, b = np.zeros((S, S)), np.zeros(S)
    for x in fragments(experience, S):
        z = np.zeros(S)
        for s, s_next, r, discount in zip(x.s, x.s_next, x.r, x.discount, strict=True):
            z[s] += 1.0
            A[:, s] += z
            A[:, s_next] -= discount * z
            b += r * z
            z *= discount * lam
    seen = np.flatnonzero(A.any(axis=1) | (b != 0))
    V = np.full(S, np.nan)
    V[seen] = np.linalg.solve(A[np.ix_(seen, seen)], b[seen])
    return V
