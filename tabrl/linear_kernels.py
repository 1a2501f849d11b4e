"""The loops over the rows of I - scale P, P in CSR (indptr, indices, p); compiled when numba is installed.

x, b (n,); scale in [0,1]. A number may be held as the sum high + low of two floats, twice as precise as one.
"""

from tabrl._jit import kernel
from tabrl.types import F, I

SPLIT = 134217729.0  # 2**27 + 1
CLOSED = 1e-6  # share of a state's probability below which what is known of it says nothing


@kernel
def product_error(x: float, y: float, xy: float) -> float:
    """Product x·y less its rounded value xy, exactly. Source: Dekker (1971)."""
    a, b = SPLIT * x, SPLIT * y
    a, b = a - (a - x), b - (b - y)
    c, d = x - a, y - b
    return ((a * b - xy) + a * d + c * b) + c * d


@kernel
def sum_error(x: float, y: float, total: float) -> float:
    """Sum x + y less its rounded value, exactly. Source: Knuth (1969)."""
    z = total - x
    return (x - (total - z)) + (y - z)


@kernel
def residual(scale: float, indptr: I, indices: I, p: F, b: F, high: F, low: F, out: F) -> None:
    """Residual b - (I - scale P) (high + low), computed as if in twice the precision, then rounded into out.

    Source: Ogita, Rump & Oishi (2005), the compensated dot product.
    """
    for s in range(b.shape[0]):
        ahead, rest = 0.0, 0.0
        for i in range(indptr[s], indptr[s + 1]):
            x = high[indices[i]]
            term = p[i] * x
            total = ahead + term
            rest += (sum_error(ahead, term, total) + product_error(p[i], x, term)) + p[i] * low[indices[i]]
            ahead = total
        scaled = scale * ahead
        rest = product_error(scale, ahead, scaled) + scale * rest
        left = b[s] - high[s]
        rest += sum_error(b[s], -high[s], left)
        total = left + scaled
        out[s] = total + ((rest + sum_error(left, scaled, total)) - low[s])


@kernel
def forward(lo: int, hi: int, indptr: I, indices: I, p: F, diagonal: F, b: F, x: F) -> float:
    """Gauss-Seidel sweep of (diagonal - p) x = b over lo, …, hi - 1, p without diagonal; return the largest change."""
    change = 0.0
    for s in range(lo, hi):
        new = b[s]
        for i in range(indptr[s], indptr[s + 1]):
            new += p[i] * x[indices[i]]
        new /= diagonal[s]
        change = max(change, abs(new - x[s]))
        x[s] = new
    return change


@kernel
def enter(lo: int, hi: int, indptr: I, indices: I, p: F, diagonal: F, b: F, x: F) -> None:
    """First values of lo, …, hi - 1, whose later successors are unknown: a step to one counts as staying."""
    for s in range(lo, hi):
        new, rest = b[s], diagonal[s]
        for i in range(indptr[s], indptr[s + 1]):
            if indices[i] < s:
                new += p[i] * x[indices[i]]
            else:
                rest -= p[i]
        if rest > CLOSED * diagonal[s]:
            x[s] = new / rest


@kernel
def slide(width: int, rounds: int, eps: float, indptr: I, indices: I, p: F, diagonal: F, b: F, x: F) -> None:
    """Sweep one window of states after another until it changes by eps at most, each half a width further on.

    The states half a width ahead are entered anew in each round, so that they follow what the window learns.
    """
    n, lo, hi = x.shape[0], 0, 0
    while hi < n:
        old, hi = hi, min(lo + width, n)
        enter(old, hi, indptr, indices, p, diagonal, b, x)
        for _ in range(rounds):
            enter(hi, min(hi + width // 2, n), indptr, indices, p, diagonal, b, x)
            if forward(lo, hi, indptr, indices, p, diagonal, b, x) <= eps:
                break
        lo += width // 2


@kernel
def backward(indptr: I, indices: I, p: F, diagonal: F, b: F, x: F) -> None:
    """Gauss-Seidel sweep from the last state to the first."""
    for s in range(b.shape[0] - 1, -1, -1):
        ahead = b[s]
        for i in range(indptr[s], indptr[s + 1]):
            ahead += p[i] * x[indices[i]]
        x[s] = ahead / diagonal[s]


@kernel
def pair(indptr: I, indices: I, p: F, group: I) -> int:
    """Put every state into a group with the free neighbour it is coupled to most strongly; return how many groups.

    group (n,): -1 before. The coupling of s and x is p(s,x) + p(x,s). Where no neighbour is free, a state joins the
    group of the strongest one; without neighbours it stays alone.
    """
    n = 0
    for s in range(group.shape[0]):
        if group[s] >= 0:
            continue
        best, mate, best_taken, host = 0.0, -1, 0.0, -1
        for i in range(indptr[s], indptr[s + 1]):
            x, coupling = indices[i], p[i]
            for k in range(indptr[x], indptr[x + 1]):
                if indices[k] == s:
                    coupling += p[k]
            if group[x] < 0 and coupling > best:
                best, mate = coupling, x
            if group[x] >= 0 and coupling > best_taken:
                best_taken, host = coupling, x
        if mate < 0 and host >= 0:
            group[s] = group[host]
            continue
        group[s] = n
        if mate >= 0:
            group[mate] = n
        n += 1
    return n
