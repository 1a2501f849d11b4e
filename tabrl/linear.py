"""Linear systems of chains, (I - scale P) x = b: proofs, refinement, and iterative methods for large ones.

P (n,n) non-negative, b (n,), scale in [0,1]; w (n,) with w - scale P w >= 1/2 proves that the inverse is a sum of
powers of P, and then |error| <= 2 w max|residual| for any approximate solution, whatever method it comes from.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, bicgstab, spilu, splu

from tabrl import linear_kernels as kernels
from tabrl import multigrid
from tabrl._jit import compiled
from tabrl.errors import NotConverged
from tabrl.graph import breadth_first, fast
from tabrl.rounding import U, longest_row
from tabrl.types import F, I, Matrix

MANY_STEPS = 1e6  # expected steps beyond which the rounding of one float may show in the answer
ACCURATE = 1e-12  # |error| <= ACCURATE w max|b| is what refinement must prove
DIRECT = 1000  # states up to which a sparse matrix is always factored
FACTORED = 50_000  # states up to which it is factored when everything else has failed; fill takes memory
BAND = 8  # distance from the diagonal up to which it is factored whatever its size
WIDTH, ROUNDS = 8192, 20  # states in a window of Gauss-Seidel sweeps, and the most sweeps over each
STEP, ROUGH = 1e-7, 0.1  # share of the residual that an iterative method leaves before the next refinement

Solver = Callable[[F], F]


def large(P: Matrix) -> bool:
    """Whether iterative methods come first: sparse, and neither small nor close to the diagonal."""
    if not sp.issparse(P) or P.shape[0] <= DIRECT:
        return False
    entries = sp.coo_array(P)
    return bool((abs(entries.row - entries.col) > BAND).any())


def solve(P: Matrix, scale: float, b: F) -> F:
    """Solve by the first of `methods` whose answer is proven. b: (n,) or (n,m). Raises NotConverged if none is."""
    order = outwards(P)
    rows = sp.csr_array(P, dtype=np.float64)[order][:, order]
    x = np.empty(b.shape)
    for method in methods(rows, scale):
        try:
            with np.errstate(all="ignore"):
                x[order] = refined(rows, scale, b[order], method())
        except (NotConverged, RuntimeError):
            continue
        return x
    raise unproven()


def weight(P: Matrix) -> F:
    """Return some w with w - P w >= 1/2 and w > 0, for a large chain. Raises NotConverged if none is found soon."""
    w, left = estimate(P, 1.0)
    if not (left <= 0.5 and (w > 0).all()):
        raise unproven()
    return w


def estimate(P: Matrix, scale: float) -> tuple[F, float]:
    """Return some w, and a bound on max|1 - (w - scale P w)|, which is 1/4 or what could be reached soon."""
    order = outwards(P)
    rows, ones = sp.csr_array(P, dtype=np.float64)[order][:, order], np.ones(len(order))
    best, left = ones, np.inf
    for method in methods(rows, scale, ROUGH):
        with contextlib.suppress(RuntimeError), np.errstate(all="ignore"):
            solver = method()
            w, error = refine(rows, scale, ones, solver, 0.25, solver(ones))
            if error < left:
                best, left = w, error
        if left <= 0.5:
            break
    w = np.empty(len(order))
    w[order] = best
    return w, left


def outwards(P: Matrix) -> I:
    """Order of the states by their distance to where the chain can end; states that cannot come last.

    >>> outwards(sp.csr_array([[0.0, 0.5, 0.5], [0.0, 0.5, 0.0], [0.0, 1.0, 0.0]]))
    array([1, 0, 2])
    """
    rows = sp.csr_array(P)
    return breadth_first(rows, np.asarray(rows.sum(axis=1)).ravel() < 1 - 1e-9)


def methods(rows: Matrix, scale: float, share: float = STEP) -> Iterator[Callable[[], Solver]]:
    """What to try, one after the other. Sweeps and cycles run in compiled code only."""
    if compiled():
        yield lambda: sweeps_and_cycles(rows, scale, share)
    yield lambda: krylov(rows, scale, share)
    if rows.shape[0] <= FACTORED:
        yield lambda: splu(matrix(rows, scale)).solve


def matrix(rows: Matrix, scale: float) -> Matrix:
    """I - scale P."""
    return sp.csc_array(sp.eye_array(rows.shape[0], format="csr") - scale * rows)


def sweeps_and_cycles(rows: Matrix, scale: float, share: float) -> Solver:
    """Gauss-Seidel sweeps while they converge, which they do where the chain drifts to its end; then `multigrid`."""
    P = sp.csr_array((scale * rows.data, rows.indices, rows.indptr), shape=rows.shape)
    excess = 1.0 - np.asarray(P.sum(axis=1)).ravel()
    N, diagonal = multigrid.split(P, excess)
    parts = N.indptr, N.indices, N.data, diagonal
    built: list[multigrid.Hierarchy] = []

    def approximate(b: F) -> F:
        x, r, left = np.zeros(len(b)), b, float(abs(b).max(initial=0.0))
        goal = share * left
        while not built:
            step, old = np.zeros(len(b)), left
            kernels.slide(WIDTH, ROUNDS, goal / 4, *parts, r, step)
            r = r - (diagonal * step - N @ step)
            left = float(abs(r).max(initial=0.0))
            if left < old / 4:
                x += step
                if left <= goal:
                    return x
            else:
                r = b - (diagonal * x - N @ x)
                built.append(multigrid.hierarchy(N, diagonal, excess))
        return x + multigrid.conjugate_residuals(built[0], r, accuracy=goal)

    return approximate


def krylov(rows: Matrix, scale: float, share: float) -> Solver:
    """BiCGStab with an incomplete factorisation. Source: van der Vorst (1992); Saad (2003), chapter 10."""
    A = matrix(rows, scale)
    inner = spilu(A, drop_tol=1e-4, fill_factor=10, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)
    M = LinearOperator(A.shape, inner.solve)
    return lambda b: np.asarray(bicgstab(A, b, rtol=share, M=M, maxiter=200)[0])


def refined(P: Matrix, scale: float, b: F, solver: Solver) -> F:
    """Solve by refinement in twice the precision, from a solver that is good to a digit or so. b: (n,) or (n,m).

    Raises NotConverged unless |error| <= 1e-12 w max|b| is proven. Source: Higham (2002), section 12.1.
    """
    rows = sp.csr_array(P, dtype=np.float64)
    w, left = refine(rows, scale, np.ones(len(b)), solver, 0.25)
    if not (left <= 0.5 and (w > 0).all()):
        raise unproven()
    columns = b.reshape(len(b), -1)
    x = np.empty(columns.shape)
    for j, column in enumerate(columns.T):
        size = float(abs(column).max(initial=0.0))
        start = w if (column == 1).all() else np.zeros(len(b))
        x[:, j], left = refine(rows, scale, column.copy(), solver, ACCURATE / 8 * size, start)
        if not 2 * left <= ACCURATE * size:
            raise unproven()
    return x.reshape(b.shape)


def refine(rows: Matrix, scale: float, b: F, solver: Solver, enough: float, start: F | None = None) -> tuple[F, float]:
    """Correct high + low by solver(residual) until the residual is small or stays: (high, bound on the residual)."""
    residual = fast(kernels.residual, rows.nnz)
    high, low, out = np.zeros(len(b)) if start is None else start, np.zeros(len(b)), b.copy()
    residual(scale, rows.indptr, rows.indices, rows.data, b, high, low, out)
    left = float(abs(out).max(initial=0.0))
    while left > enough:
        step = low + solver(out)
        total = high + step
        z = total - high
        new = total, (high - (total - z)) + (step - z)
        residual(scale, rows.indptr, rows.indices, rows.data, b, *new, out)
        largest = float(abs(out).max(initial=0.0))
        if not largest < left / 2:
            break
        (high, low), left = new, largest
    return high, left + dot_error(rows, scale, b, high)


def dot_error(rows: Matrix, scale: float, b: F, x: F) -> float:
    """Bound on the error of `kernels.residual`: Ogita, Rump & Oishi (2005), proposition 5.5, with room to spare."""
    growth = 1 + scale * float(rows.sum(axis=1).max(initial=0.0))
    n = longest_row(rows) + 8
    size = float(abs(b).max(initial=0.0)) + growth * float(abs(x).max(initial=0.0))
    return 4 * n * n * U * U * size


def unproven() -> NotConverged:
    """Return the refusal."""
    return NotConverged("chain is singular to working precision; an end within reach is expected")
