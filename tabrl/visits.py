"""First-visit and every-visit Monte Carlo: their exact bias and mean-square error.

In one episode the visits to s cut it into cycles, which return to s with probability f each, and a last part.
Episodes are independent, cycles too. n counts the episodes that visit s; everything here is given that number.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.branches import dense_enough
from tabrl.chain import average, evaluate, induce, listed, return_variance
from tabrl.errors import ModelError
from tabrl.graph import recurrent_classes
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.types import F, Matrix

TAIL = 1e-18  # probability of more visits than are summed over


class Cycle(NamedTuple):
    """What happens between a visit to s and the next, or the end: X discounted reward, g discount so far."""

    back: float  # probability f of another visit
    end: float  # 1 - f
    discount: float  # E[g | back]
    discount2: float  # E[g^2 | back]
    reward: float  # E[X | back]
    reward2: float  # E[X^2 | back]
    both: float  # E[g X | back]
    final: float  # E[X | no other visit]
    final2: float  # E[X^2 | no other visit]


class Error(NamedTuple):
    """Bias, variance and mean-square error of an estimate."""

    bias: float
    variance: float
    mse: float


def cycle(mdp: MDP, pi: F, s: int) -> Cycle:
    """First two moments of the cycles between visits to a state.

    pi: (S,A). s: a non-terminal state. With h the probability of another visit, for each power:
    b(s) = sum of P R h + gamma P b, and the same with 1 - h for the last part. Discounts that are conditioned on an
    event of probability 0 are 0. Raises ModelError unless the policy ends from everywhere.
    Source: the cycle decomposition of Singh & Sutton (1996).

    >>> from tabrl.envs.chains import loop
    >>> c = cycle(loop(0.75, stay=2, end=5), np.ones((2, 1)), 0)
    >>> c.back, c.reward, c.final
    (0.75, 2.0, 5.0)
    """
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    if not 0 <= s < mdp.S or mdp.terminal[s]:
        raise ModelError(f"s is {s}; a non-terminal state in 0 … {mdp.S - 1} is expected")
    dense_enough(mdp.S)
    chain, gamma = induce(mdp, pi), mdp.gamma
    endless = recurrent_classes(chain.P)[0] >= 0
    if endless.any():
        where = listed(np.flatnonzero(endless))
        raise ModelError(f"pi never ends from states {where}; Monte Carlo needs whole episodes")
    P, PR, PR2 = (dense(average(mdp, pi, mdp.weighted(k))) for k in range(3))
    at = np.arange(mdp.S) == s
    taboo = P * ~at  # walks that have not come back yet

    def reach(scale: float, b: F) -> F:
        return solve(taboo, scale, b)

    back, g, g2 = (reach(gamma**k, gamma**k * P[:, s]) for k in range(3))

    def rewards(h: F, tail: F) -> tuple[F, F]:
        """E[X 1] and E[X^2 1] of the event with probability h ahead; tail: h, except after coming back."""
        first = reach(gamma, PR @ h)
        return first, reach(gamma**2, PR2 @ h + 2 * gamma * (PR * ~at) @ first)

    end = reach(1.0, P @ chain.terminal.astype(np.float64))
    home = np.where(at, 1.0, np.where(chain.terminal, 0.0, back))
    away = np.where(at, 0.0, np.where(chain.terminal, 1.0, end))
    x, x2 = rewards(home, home)
    y, y2 = rewards(away, away)
    g_home = np.where(at, 1.0, np.where(chain.terminal, 0.0, g))
    both = reach(gamma**2, gamma * PR @ g_home)
    f = float(back[s])
    given = [float(v[s]) / f if f > 0 else 0.0 for v in (g, g2, x, x2, both)]
    given += [float(v[s] / end[s]) for v in (y, y2)]
    return Cycle(f, float(end[s]), *given)


def dense(M: Matrix) -> F:
    """A NumPy array from a NumPy array or a CSR matrix."""
    return M.toarray() if sp.issparse(M) else M  # type: ignore[no-any-return]


def first_visit(mdp: MDP, pi: F, s: int, n: int) -> Error:
    """Error of the average return after the first visit to s, over n episodes that visit s.

        bias 0,   variance = mse = Var[G | s] / n

    pi: (S,A); it must end from everywhere. Source: Singh & Sutton (1996); ledger E1.6.

    >>> from tabrl.envs.chains import loop
    >>> first_visit(loop(0.75), np.ones((2, 1)), 0, 4)
    Error(bias=0.0, variance=3.0, mse=3.0)
    """
    positive(n)
    cycle(mdp, pi, s)
    variance = float(return_variance(mdp, pi)[s]) / n
    return Error(0.0, variance, variance)


def every_visit_bias(mdp: MDP, pi: F, s: int, n: int) -> float:
    """Exact bias of the average return over all visits to s in n episodes that visit s.

        bias = -kappa * integral from 0 to 1 of u^n / (1 + z u)^2 du
             = -kappa / ((n+1) (1+z)^2) 2F1(2, 1; n+2; z/(1+z))
        kappa = (x - (1-g) y) f/(1-f),   z = (1-g) f/(1-f)

    f probability of another visit, g = E[gamma^length] and x the reward of a cycle, y the reward after the last
    visit. At gamma = 1 it is -x f/((1-f)(n+1)), on the loop chain Singh & Sutton's. The leading term is
    -kappa / ((1+z)^2 n). pi: (S,A); it must end from everywhere. f = 0 gives 0.
    Source: Singh & Sutton (1996) for gamma = 1 (discounted: with h_j = E[G | j cycles to go] summed over
    the negative binomial number of visits); ledger E1.6.

    >>> from tabrl.envs.chains import loop
    >>> every_visit_bias(loop(0.75), np.ones((2, 1)), 0, 2)
    -1.0
    """
    from scipy.special import hyp2f1

    positive(n)
    kappa, z = shape(cycle(mdp, pi, s))
    return 0.0 - kappa / ((n + 1) * (1 + z) ** 2) * float(hyp2f1(2, 1, n + 2, z / (1 + z)))


def every_visit(mdp: MDP, pi: F, s: int, n: int) -> Error:
    """Exact error of the average return over all visits to s in n episodes that visit s.

        mse = sum over N of [n (A * p^(n-1))_N + n (n-1) (B * B * p^(n-2))_N] / N^2

    * convolution; p_k probability of k visits in an episode, B_k and A_k that times the first and second moment of the
    sum of their (G - V). Summed by FFT until the tail of N is below 1e-18. Costs about n / (1-f) numbers.
    pi: (S,A); it must end from everywhere. Source: ledger E1.6; the ratio of Singh & Sutton (1996).

    >>> from tabrl.envs.chains import loop
    >>> error = every_visit(loop(0.75), np.ones((2, 1)), 0, 2)
    >>> round(error.bias, 9), round(error.mse, 6)
    (-1.0, 3.98931)
    """
    positive(n)
    c = cycle(mdp, pi, s)
    p, first, second = sums(c)
    spread = np.sqrt(n * c.back) / c.end
    N = 1 << int(n / c.end + 50 * (spread + 1 / c.end)).bit_length()
    p_hat, B_hat, A_hat = (np.fft.rfft(x, N) for x in (p, p * first, p * second))
    mean = np.fft.irfft(n * B_hat * p_hat ** (n - 1), N)
    cross = n * (n - 1) * B_hat**2 * p_hat ** max(n - 2, 0)
    square = np.fft.irfft(n * A_hat * p_hat ** (n - 1) + cross, N)
    k = np.arange(n, N)
    bias, mse = float((mean[n:] / k).sum()), float((square[n:] / k**2).sum())
    return Error(bias, max(mse - bias**2, 0.0), mse)


def every_visit_rate(mdp: MDP, pi: F, s: int) -> Error:
    """Leading terms of `every_visit` as n grows: n bias, n variance and n mse (the last two agree).

        n bias -> -kappa / (1+z)^2,   n mse -> (1-f)^2 E[(sum over the visits of an episode of (G - V))^2]

    Source: the delta method for a ratio of means, Singh & Sutton (1996); ledger E1.6.

    >>> from tabrl.envs.chains import loop
    >>> every_visit_rate(loop(0.75), np.ones((2, 1)), 0).mse.__round__(6)
    21.0
    """
    c = cycle(mdp, pi, s)
    kappa, z = shape(c)
    p, _, second = sums(c)
    rate = float(c.end**2 * (p * second).sum())
    return Error(0.0 - kappa / (1 + z) ** 2, rate, rate)


def visit_totals(mdp: MDP, pi: F, s: int) -> tuple[float, float]:
    """Expected sum of the returns after all visits of an episode that visits s, and expected number of visits.

        E[sum of G] = V(s) / (1-f),   E[visits] = 1 / (1-f)

    Their quotient is V(s): the every-visit estimate is a ratio of two unbiased ones, and biased only as a ratio.
    Source: Singh & Sutton (1996); ledger E1.6.

    >>> from tabrl.envs.chains import loop
    >>> visit_totals(loop(0.75), np.ones((2, 1)), 0)
    (16.0, 4.0)
    """
    end = cycle(mdp, pi, s).end
    return float(evaluate(induce(mdp, pi))[s]) / end, 1 / end


def shape(c: Cycle) -> tuple[float, float]:
    """The two numbers kappa and z that the bias depends on."""
    odds = c.back / c.end
    return (c.reward - (1 - c.discount) * c.final) * odds, (1 - c.discount) * odds


def centred(c: Cycle) -> Cycle:
    """The cycle of the returns minus V: G - V = (X + (g-1) V) + g (G' - V)."""
    kappa, z = shape(c)
    V = c.final + kappa / (1 + z)
    return c._replace(
        reward=c.reward + (c.discount - 1) * V,
        reward2=c.reward2 + 2 * V * (c.both - c.reward) + V**2 * (c.discount2 - 2 * c.discount + 1),
        both=c.both + V * (c.discount2 - c.discount),
        final=c.final - V,
        final2=c.final2 - 2 * V * c.final + V**2,
    )


def sums(c: Cycle) -> tuple[F, F, F]:
    """p[k], and the mean and second moment of the sum of (G - V) over the visits of an episode with k of them.

    G_j = X + g G_{j-1} with j cycles to go; S_j = G_j + S_{j-1}; E[G], E[S], E[G^2], E[G S], E[S^2] follow each other.
    """
    K = 1 if c.back == 0 else int(np.ceil(np.log(TAIL) / np.log1p(-c.end))) + 1
    c = centred(c)
    G = S = c.final
    GG = GS = SS = c.final2
    first, second = np.zeros(K + 1), np.zeros(K + 1)
    first[1], second[1] = S, SS
    for k in range(2, K + 1):
        cross = c.reward * S + c.discount * GS  # E[G S'] with S' the sum one cycle later
        GG = c.reward2 + 2 * c.both * G + c.discount2 * GG
        G = c.reward + c.discount * G
        S, SS, GS = G + S, GG + 2 * cross + SS, GG + cross
        first[k], second[k] = S, SS
    p = np.append(0.0, c.end * (1 - c.end) ** np.arange(K))
    return p, first, second


def positive(n: int) -> None:
    """Refuse a number of episodes that is not a whole number >= 1."""
    if not 1 <= n < np.inf or n != int(n):
        raise ModelError(f"n is {n}; a whole number of episodes >= 1 is expected")
