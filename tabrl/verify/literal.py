"""The learners as literal loops in fractions: the judge of the compiled ones, and of a user's.

x one episode, its numbers read as fractions: s (T+1,) states, r and discount (T,); V (S,) values, v (T+1,) values
of x.s; alpha, lam fractions.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from tabrl.rational import Row, dot, exact

ONE, ZERO = Fraction(1), Fraction()


class Trace(NamedTuple):
    """What was recorded of an episode."""

    s: list[int]  # (T+1,)
    r: Row  # (T,)
    discount: Row  # (T,)


def read(s: Any, r: Any, discount: Any) -> Trace:
    """Read arrays as a trace."""
    return Trace([int(y) for y in s], exact(r), exact(discount))


def steps(x: Trace) -> Iterator[Trace]:
    """Cut an episode into its single steps."""
    for t in range(len(x.r)):
        yield Trace(x.s[t : t + 2], x.r[t : t + 1], x.discount[t : t + 1])


def along(V: Row, x: Trace) -> Row:
    """Values of the states of an episode (T+1,)."""
    return [V[s] for s in x.s]


def weights(discount: Row) -> Row:
    """Products 1, discount[0], discount[0] discount[1], …: one more than there are discounts.

    >>> [int(w) for w in weights([Fraction(2), Fraction(3)])]
    [1, 2, 6]
    """
    found = [ONE]
    for d in discount:
        found.append(found[-1] * d)
    return found


def n_step_return(x: Trace, v: Row, t: int, n: int) -> Fraction:
    """Return G = r[t] + discount[t] r[t+1] + … + discount[t] … discount[h-1] v[h], h = min(t + n, T)."""
    h = min(t + n, len(x.r))
    return dot(weights(x.discount[t:h]), [*x.r[t:h], v[h]])


def monte_carlo_return(x: Trace, v: Row, t: int) -> Fraction:
    """Return of the rest of the episode; v[T] counts where it was cut."""
    return n_step_return(x, v, t, len(x.r))


def lambda_weights(lam: Fraction, n: int) -> Row:
    """Weights of the 1-, 2-, …, n-step returns, n the steps that are left: the last one takes what remains.

    >>> [float(w) for w in lambda_weights(Fraction(1, 2), 3)]
    [0.5, 0.25, 0.25]
    """
    return [*((1 - lam) * lam**k for k in range(n - 1)), lam ** (n - 1)]


def lambda_return(x: Trace, v: Row, t: int, lam: Fraction) -> Fraction:
    """Weighted sum of the n-step returns from t."""
    left = len(x.r) - t
    return dot(lambda_weights(lam, left), [n_step_return(x, v, t, n) for n in range(1, left + 1)])


def recursive_lambda_returns(x: Trace, v: Row, lam: Fraction) -> Row:
    """G[t] = r[t] + discount[t] ((1 - lam) v[t+1] + lam G[t+1]), G[T] = v[T]."""
    G = [v[-1]]
    for t in reversed(range(len(x.r))):
        G.insert(0, x.r[t] + x.discount[t] * ((1 - lam) * v[t + 1] + lam * G[0]))
    return G[:-1]


def td_error_lambda_returns(x: Trace, v: Row, lam: Fraction) -> Row:
    """G[t] = v[t] + sum over k of (discount lam)^k delta[t+k]."""
    delta = [r + d * v[t + 1] - v[t] for t, (r, d) in enumerate(zip(x.r, x.discount, strict=True))]
    faded = [lam * d for d in x.discount]
    return [v[t] + dot(weights(faded[t:-1]), delta[t:]) for t in range(len(delta))]


def moved(
    x: Trace, V: Row, alpha: Fraction, target: Callable[[Row, int], Fraction], steps: Iterable[int] | None = None
) -> Row:
    """V(s[t]) <- V(s[t]) + alpha (target - V(s[t])), step after step; target(V, t) sees the values so far."""
    V = list(V)
    for t in range(len(x.r)) if steps is None else steps:
        V[x.s[t]] += alpha * (target(V, t) - V[x.s[t]])
    return V


def td0(x: Trace, V: Row, alpha: Fraction) -> Row:
    """TD(0) along an episode."""
    return moved(x, V, alpha, lambda V, t: x.r[t] + x.discount[t] * V[x.s[t + 1]])


def n_step_td(x: Trace, V: Row, alpha: Fraction, n: int) -> Row:
    """n-step TD along an episode; a state is updated n steps after its visit, or at the end."""
    return moved(x, V, alpha, lambda V, t: n_step_return(x, along(V, x), t, n))


def monte_carlo(x: Trace, V: Row, alpha: Fraction, visit: str = "every") -> Row:
    """Move towards the returns after the first or every visit; an episode that was cut ends in V(s[T])."""
    v = along(V, x)
    return moved(x, V, alpha, lambda _, t: monte_carlo_return(x, v, t), first_visits(x) if visit == "first" else None)


def sweep(episodes: Iterable[Trace], V: Row, alpha: Fraction, target: Callable[[Trace, Row, int], Fraction]) -> Row:
    """V plus alpha times the sum of all errors target - V(s[t]) of a batch, all taken from the old V."""
    new = list(V)
    for x in episodes:
        for t in range(len(x.r)):
            new[x.s[t]] += alpha * (target(x, V, t) - V[x.s[t]])
    return new


def offline_lambda_return(x: Trace, V: Row, alpha: Fraction, lam: Fraction) -> Row:
    """Move towards the lambda-returns of the values before the episode."""
    G = recursive_lambda_returns(x, along(V, x), lam)
    return moved(x, V, alpha, lambda _, t: G[t])


def td_lambda(x: Trace, V: Row, alpha: Fraction, lam: Fraction, trace: str) -> Row:
    """TD(lambda) with an eligibility trace."""
    V, z = list(V), [ZERO] * len(V)
    for t, (r, d) in enumerate(zip(x.r, x.discount, strict=True)):
        s = x.s[t]
        z[s] = {"accumulating": z[s] + 1, "replacing": ONE, "dutch": z[s] + 1 - alpha * z[s]}[trace]
        delta = r + d * V[x.s[t + 1]] - V[s]
        V = [v + alpha * delta * y for v, y in zip(V, z, strict=True)]
        z = [d * lam * y for y in z]
    return V


def online_lambda_return(x: Trace, V: Row, alpha: Fraction, lam: Fraction) -> Row:
    """After each step redo all updates of the episode, towards lambda-returns of the steps so far.

    The return from t bootstraps at s[k] from the values of step k - 1, as only those were known when it was reached.
    """
    history, now = [V[x.s[0]]], list(V)
    for h in range(1, len(x.r) + 1):
        history.append(now[x.s[h]])
        seen = Trace(x.s[: h + 1], x.r[:h], x.discount[:h])
        G = recursive_lambda_returns(seen, history, lam)
        now = moved(seen, V, alpha, lambda _, t, G=G: G[t])  # type: ignore[misc]
    return now


def first_visits(x: Trace) -> list[int]:
    """Steps at which a state is met for the first time.

    >>> first_visits(Trace([0, 0, 1, 0], [], []))
    [0, 2]
    """
    return [t for t, s in enumerate(x.s[:-1]) if s not in x.s[:t]]


def visit_averages(episodes: Iterable[Trace], S: int, visit: str) -> Row:
    """Average return after the first visit of each episode, or after every visit; 0 where there is none."""
    found: list[Row] = [[] for _ in range(S)]
    nothing = [ZERO] * S
    for x in episodes:
        for t in first_visits(x) if visit == "first" else range(len(x.r)):
            found[x.s[t]].append(monte_carlo_return(x, along(nothing, x), t))
    return [sum(G, ZERO) / max(len(G), 1) for G in found]


def per_decision_return(x: Trace, rho: Row, t: int) -> Fraction:
    """Sum over k >= t of (discount … discount) (rho[t] … rho[k]) r[k]."""
    discounts, products = weights(x.discount[t:-1]), weights(rho[t:])[1:]
    return dot([d * w for d, w in zip(discounts, products, strict=True)], x.r[t:])


def product(rho: Row) -> Fraction:
    """Multiply all ratios.

    >>> product([Fraction(2), Fraction(3, 2)])
    Fraction(3, 1)
    """
    return weights(rho)[-1]
