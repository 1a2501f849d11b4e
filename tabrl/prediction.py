"""Prediction from samples: the value of a policy, learned from its experience.

V (S,) values; s (T+1,) states; r, discount (T,); alpha step size, a number or a schedule; delta TD error;
lam trace decay; G returns. Every learner is a generator of `ValueUpdate`; it takes a list of `Episode` to
replay, `sample.episodes(...)`, or an endless `sample.Stream`, and starts from a copy of V (S,).

Many runs learn at once with V (runs,S) and `replay.side_by_side(...)`, which gives one piece of each run a round;
`every` then counts rounds, and t the transitions of all runs.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tabrl.batch import batch_mc, batch_td, lstd
from tabrl.learning_kernels import lambda_return_pass, td0_pass, td_lambda_pass, true_online_pass
from tabrl.replay import checked, counted, n_step_transitions, records, start, whole_episodes
from tabrl.schedules import Alpha, Schedule, Steps, fraction, harmonic, power
from tabrl.types import F, Transitions, ValueUpdate

__all__ = [
    "Alpha", "Schedule", "batch_mc", "batch_td", "harmonic", "lambda_return", "lstd", "monte_carlo", "n_step_td",
    "power", "td0", "td_lambda", "true_online_td",
]  # fmt: skip

TRACES = {"accumulating": 0, "replacing": 1, "dutch": 2}


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
    yield from records(checked(experience, V.size), V, every, td0_update(V, steps))


def td0_update(V: F, steps: Steps) -> Callable[[Transitions], float]:
    """The update of TD(0) on transitions of one or more steps."""
    flat = V.reshape(-1)
    return lambda x: td0_pass(flat, x.s, x.s_next, x.r, x.discount, steps.ahead(len(x.r)), steps.count)


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
    flat, z, S = V.reshape(-1), np.zeros(V.size), V.shape[-1]

    def update(x: Transitions) -> float:
        return td_lambda_pass(flat, z, S, *x, lam, TRACES[trace], steps.ahead(len(x.r)), steps.count)

    yield from records(checked(experience, V.size), V, every, update)


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
    flat, z, old, S = V.reshape(-1), np.zeros(V.size), np.zeros(V.size // V.shape[-1]), V.shape[-1]

    def update(x: Transitions) -> float:
        return true_online_pass(flat, z, old, S, *x, lam, steps.ahead(len(x.r)), steps.count)

    yield from records(checked(experience, V.size), V, every, update)


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
    x = n_step_transitions(checked(experience, V.size), n, whole=V.ndim == 2)
    yield from records(x, V, every, td0_update(V, steps))


def by_episode(
    experience: Iterable[Any], V: F, every: int, steps: Steps, lam: float, first: bool
) -> Iterator[ValueUpdate]:
    """Move towards lambda-returns after each episode; yield after every `every` episodes (rounds), and at the end."""
    flat, seen = V.reshape(-1), np.empty(V.size, np.int64)

    def update(x: Transitions) -> float:
        G = np.empty(len(x.r))
        return lambda_return_pass(flat, *x, lam, first, steps.ahead(len(x.r)), steps.count, G, seen)

    buffers = whole_episodes(checked(experience, V.size), V, every)
    yield from counted(buffers, V, every, update, lambda x: 1 if V.ndim == 2 else int(x.last.sum()))


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

    yield from by_episode(experience, V, every, steps, 1.0, visit == "first")


def lambda_return(
    experience: Iterable[Any], *, alpha: Alpha, V: F, lam: float, every: int = 1
) -> Iterator[ValueUpdate]:
    """Offline lambda-return algorithm: after an episode, move each visited state towards its lambda-return.

        V(s[t]) <- V(s[t]) + alpha (G[t] - V(s[t])),   G[t] = r[t] + discount[t] ((1-lam) V(s[t+1]) + lam G[t+1])

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
    yield from by_episode(experience, V, every, steps, lam, False)
