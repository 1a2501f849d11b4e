"""Passes of TD(0) that move the wrong value, or at the wrong time.

x one episode, its numbers read as fractions; V (S,) values; alpha the step size.
"""

from fractions import Fraction

from tabrl.rational import Row
from tabrl.verify.literal import Trace


def one_step(x: Trace, V: Row, t: int) -> Fraction:
    """r[t] + discount[t] V(s[t+1])."""
    return x.r[t] + x.discount[t] * V[x.s[t + 1]]


def residual(x: Trace, V: Row, alpha: Fraction) -> Row:
    """Descend the squared TD error: V(s[t+1]) moves against V(s[t])."""
    V = list(V)
    for t in range(len(x.r)):
        delta = one_step(x, V, t) - V[x.s[t]]
        V[x.s[t]] += alpha * delta
        V[x.s[t + 1]] -= alpha * x.discount[t] * delta
    return V


def read_late(x: Trace, V: Row, alpha: Fraction) -> Row:
    """V(s) <- (1 - alpha) V(s) + alpha r, and only then + alpha discount V(s')."""
    V = list(V)
    for t in range(len(x.r)):
        V[x.s[t]] += alpha * (x.r[t] - V[x.s[t]])
        V[x.s[t]] += alpha * x.discount[t] * V[x.s[t + 1]]
    return V


def next_moved(x: Trace, V: Row, alpha: Fraction) -> Row:
    """Add the step to the wrong state."""
    V = list(V)
    for t in range(len(x.r)):
        V[x.s[t + 1]] += alpha * (one_step(x, V, t) - V[x.s[t]])
    return V
