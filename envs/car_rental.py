"""Jack's car rental as an explicit model.

n cars at a location in the morning; X ~ Poisson(lam) requests; Y ~ Poisson(rho) returns, K (N+1,N+1) the
kernel of one location, n -> min(n - min(X, n) + Y, N).
"""

import numpy as np
from scipy.special import gammainc, gammaln, xlogy

from tabrl.envs.chains import count
from tabrl.mdp import MDP
from tabrl.types import F, I, Names


def car_rental(
    *,
    cars: int = 20,
    most: int = 5,
    requests: tuple[float, float] = (3.0, 4.0),
    returns: tuple[float, float] = (3.0, 2.0),
    rent: float = 10.0,
    move: float = 2.0,
    free: bool = False,
    parking: float = 0.0,
    poisson_cut: int | tuple[int | None, int | None] | None = None,
    gamma: float = 0.9,
) -> MDP:
    r"""Jack's car rental: move cars overnight between two locations, rent them out by day.

                      move up to 5 by night, 2 each
        [location 1: 0 … 20 cars] <------------> [location 2: 0 … 20 cars]
          requests Poisson 3, returns 3            requests Poisson 4, returns 2
          10 per car rented                        10 per car rented

        P(n1', n2' | n1, n2, m) = K1(n1 - m, n1') K2(n2 + m, n2')

    State 21 n1 + n2: cars in the evening. Action m + 5 moves m cars from location 1 to 2 (m < 0: back);
    it is legal if that many cars are there; cars beyond 20 disappear, at the move and on return. Cars
    returned become available the next day. free, parking: exercise 4.7, the first car from 1 to 2 moves
    free and a location that keeps more than 10 cars overnight pays `parking` (4 in the exercise).

    poisson_cut: None treats the Poisson tails exactly: requests beyond the stock all rent what is there,
    so expectations and rows come from survival functions, with rounding as the only error (below 1e-12
    relative in P and r). A cut c replaces X and Y by min(X, c) and min(Y, c), which lowers V*; a pair
    (c, d) cuts requests and returns apart, either may be None.

    At gamma = 0.9, V* runs from 421.414 (no cars) to 636.990 (20 and 20); with c = 10 from 421.395 to
    636.855. The axis of figure 4.2 reads 420 to 612, which is what requests cut at 5 give: 420.350 to
    611.527 with poisson_cut=(5, None). A widely copied script drops the tail beyond 10 without putting
    it anywhere, so that its rows sum to 0.9966, and gets 405.304 to 616.822.
    Source: Sutton & Barto (2018), example 4.2 and exercise 4.7.

    >>> car_rental(cars=3, most=1)
    MDP(S=16, A=3, gamma=0.9, 0 terminal, dense)
    """
    cuts = poisson_cut if isinstance(poisson_cut, tuple) else (poisson_cut, poisson_cut)
    for name, value in (("cars", cars), ("most", most), ("poisson_cut", cuts[0]), ("poisson_cut", cuts[1])):
        count(name, 1 if value is None else value, 1)
    N = cars + 1
    kernels, incomes = zip(*(location(cars, *x, cuts) for x in zip(requests, returns, strict=True)), strict=True)
    n1, n2, m = np.meshgrid(np.arange(N), np.arange(N), np.arange(-most, most + 1), indexing="ij")
    legal = (m <= n1) & (-m <= n2)
    left, right = np.clip(n1 - m, 0, cars), np.clip(n2 + m, 0, cars)
    P = (kernels[0][left][..., :, None] * kernels[1][right][..., None, :]).reshape(N * N, -1, N * N)
    paid = np.abs(m) - (free & (m > 0))
    overnight = parking * ((left > 10).astype(float) + (right > 10))
    R = rent * (incomes[0][left] + incomes[1][right]) - move * paid - overnight
    names = Names(
        tuple(f"{i},{j}" for i in range(N) for j in range(N)), tuple(f"{k:+d}" for k in range(-most, most + 1))
    )
    return MDP(P, R.reshape(N * N, -1), gamma, legal=legal.reshape(N * N, -1), names=names)


def location(cars: int, lam: float, rho: float, cuts: tuple[int | None, int | None]) -> tuple[F, F]:
    """Return the kernel K (N+1, N+1) of one location and the expected number of cars rented, (N+1,).

    E[min(X, n)] = sum over k = 1 … n of P(X >= k)
    """
    n = np.arange(cars + 1)
    rented = np.concatenate(([0.0], np.cumsum(survival(lam, n[1:], cuts[0]))))
    rents = capped(lam, cars, cuts[0])  # (n, cars rented)
    left = np.zeros((cars + 1, cars + 1))
    i, k = np.tril_indices(cars + 1)
    left[i, i - k] = rents[i, k]
    gains = capped(rho, cars, cuts[1])  # (free places, cars returned and kept)
    back = np.zeros((cars + 1, cars + 1))
    back[cars - i, cars - i + k] = gains[i, k]
    return left @ back, rented


def capped(lam: float, N: int, cut: int | None) -> F:
    """Return the distribution of min(X, n) for n = 0 … N: row n has its mass on 0 … n."""
    n = np.arange(N + 1)
    tail = survival(lam, n, cut)  # P(X >= n)
    out = np.tril(np.broadcast_to(mass(lam, n, cut), (N + 1, N + 1)), -1)
    out[n, n] = tail
    return out


def mass(lam: float, k: I, cut: int | None) -> F:
    """Return P(min(X, cut) = k) for X ~ Poisson(lam)."""
    p = poisson(lam, k)
    if cut is None:
        return p
    return np.where(k < cut, p, np.where(k == cut, survival(lam, k, None), 0.0))


def survival(lam: float, k: I, cut: int | None) -> F:
    """Return P(min(X, cut) >= k) for X ~ Poisson(lam)."""
    tail: F = np.where(k > 0, gammainc(np.maximum(k, 1), lam), 1.0)
    return tail if cut is None else np.where(k <= cut, tail, 0.0)


def poisson(lam: float, k: I) -> F:
    """Return P(X = k) for X ~ Poisson(lam)."""
    p: F = np.exp(xlogy(k, lam) - lam - gammaln(k + 1))
    return p
