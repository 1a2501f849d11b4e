"""Two ways to evaluate a policy roughly: sweeps, and a Krylov method.

V values by places, changed in place; actions (n,) of the policy; P (n, n+g), r (n,) its rows and rewards.
"""

from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from tabrl._jit import compiled
from tabrl.petsc.part import Part
from tabrl.petsc.processes import petsc
from tabrl.petsc.values import Values, judge
from tabrl.sweep_kernels import evaluate, improve
from tabrl.types import F, I, Matrix

SWEEPS = 20  # backups of a policy between two of the optimality operator
STEPS = 300  # Krylov iterations after which a solve is taken as it is
HELP = 0.75  # share of the bound that a Krylov solve may leave
DIGITS = 1e-2  # what a Krylov solve leaves of the policy's residual, unless more is of use


def sweeps(V: Values, actions: I) -> None:
    """Evaluate greedy actions by Gauss-Seidel sweeps within each process, Jacobi between them; both change in place.

    Without numba by Jacobi sweeps everywhere.
    """
    if not compiled():
        return jacobi(V, actions)
    lo, hi = cast(Any, np.uint64(0)), cast(Any, np.uint64(V.part.n))
    for sweep in (improve, *[evaluate] * SWEEPS):
        with V.all() as values:
            sweep(lo, hi, *V.part.rows, values, actions)


def jacobi(V: Values, actions: I) -> None:
    """Back a policy up, every state at once."""
    P, r = chosen(V.part, actions)
    for _ in range(SWEEPS):
        with V.all() as values:
            TV = r + V.part.scales.gamma * (P @ values)
        V.own[:] = TV


def chosen(part: Part, actions: I) -> tuple[Matrix, F]:
    """Rows (n, n+g) and rewards (n,) of a policy."""
    at = np.arange(part.n) * part.A + actions
    return part.P[at], part.rows.r[at]


def krylov(V: Values, actions: I, bound: float, more: float) -> tuple[bool, int]:
    """Move V towards the values of a policy by a Krylov solve: whether that helped, and the iterations it took.

    It helped when the certified bound is now HELP times `bound` or less; otherwise V stays as it is. The 2-norm of the
    policy's residual is reduced to DIGITS · more of what it was, or as far as STEPS iterations take it.
    """
    P, r = chosen(V.part, actions)
    with V.all() as values:
        d = r + V.part.scales.gamma * (P @ values) - V.own
    old = V.own.copy()
    x, steps = correction(system(V.part, P), d, max(DIGITS * min(more, 1.0), 1e-10))
    with np.errstate(over="ignore", invalid="ignore"):  # nan and inf are dropped here
        V.own[:] = old + x
        if judge(V).bound <= HELP * bound:
            return True, steps
    V.own[:] = old
    return False, steps


def system(part: Part, P: Matrix) -> Any:
    """I - gamma P_pi as a PETSc matrix, of which each process gives its rows."""
    index, n = petsc().IntType, part.n
    local = sp.csr_array(sp.eye_array(*P.shape, format="csr") - part.scales.gamma * P)
    number = np.concatenate((part.first + np.arange(n), part.ghosts)).astype(index)
    rows = sp.csr_array((local.data, number[local.indices], local.indptr), shape=(n, part.S))
    rows.sort_indices()
    csr = (rows.indptr.astype(index), rows.indices.astype(index), rows.data)
    return petsc().Mat().createAIJ(((n, part.S), (n, part.S)), csr=csr)


def correction(matrix: Any, d: F, rtol: float) -> tuple[F, int]:
    """Approximate x of (I - gamma P_pi) x = d, and the iterations it took. Nothing is promised of x: who calls, judges.

    BiCGStab with an incomplete factorisation of each process's block; options with the prefix tabrl_ change that
    (PETSC_OPTIONS="-tabrl_ksp_type gmres -tabrl_sub_pc_factor_levels 1"). Source: van der Vorst (1992).
    """
    P = petsc()
    b, x = matrix.createVecs("left"), matrix.createVecs("right")
    b.array[:] = d
    ksp = P.KSP().create()
    ksp.setOptionsPrefix("tabrl_")
    ksp.setType("bcgs")
    ksp.setPCSide(P.PC.Side.RIGHT)
    ksp.getPC().setType("bjacobi")
    ksp.setTolerances(rtol=rtol, atol=0.0, divtol=1e5, max_it=STEPS)
    ksp.setFromOptions()
    ksp.setOperators(matrix)
    ksp.solve(b, x)
    answer, steps = x.array.copy(), int(ksp.getIterationNumber())
    for used in (ksp, matrix, b, x):
        used.destroy()
    return answer, steps
