"""From what a user passes to the arrays that an MDP stores; everything wrong raises here.

P (S,A,S) or CSR (S·A,S), row s·A+a; R (S,), (S,A), (S,A,S) or CSR (S·A,S); terminal (S,); legal (S,A).
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.errors import ModelError, ShapeError
from tabrl.types import B, F, Matrix


def transitions(P: Any) -> tuple[Matrix, float]:
    """Copy P as (S,A,S) float64 or canonical CSR (S·A,S); also return the tolerance of its row sums."""
    single = getattr(P, "dtype", None) in (np.float32, np.float16)
    tol = checks.SUM_TOLERANCE_32 if single else checks.SUM_TOLERANCE
    if sp.issparse(P):
        rows = sparse_rows(P, "P")
        n, S = rows.shape
        if S == 0 or n == 0 or n % S:
            raise ShapeError(f"P has shape {rows.shape}; a sparse P is (S*A, S) with row s*A + a")
        return rows, tol
    P = checks.real(P, "P")
    if P.ndim != 3 or P.shape[0] != P.shape[2] or 0 in P.shape:
        hint = "; for (A, S, S) use MDP.from_toolbox" if P.ndim == 3 and P.shape[1] == P.shape[2] else ""
        raise ShapeError(f"P has shape {P.shape}; (S, A, S) is expected{hint}")
    return P, tol


def sparse_rows(M: Any, name: str) -> Matrix:
    """Copy a sparse matrix to canonical CSR without explicit zeros; refuse duplicates and non-finite entries."""
    if M.ndim != 2:
        raise ShapeError(f"{name} has shape {M.shape}; a sparse array needs two axes, (S*A, S)")
    if M.dtype.kind not in "biuf":
        raise ModelError(f"{name} has dtype {M.dtype}; a real array is expected")
    rows = sp.csr_array(unique(M, name), dtype=np.float64, copy=True)
    if not np.isfinite(rows.data).all():
        i = int(np.argmax(~np.isfinite(rows.data)))
        raise ModelError(f"{sparse_place(name, rows, i)} is {rows.data[i]}; a finite number is expected")
    rows.eliminate_zeros()
    return narrow(rows)


def narrow(rows: Matrix) -> Matrix:
    """Give a CSR matrix 32-bit indices where they suffice, so that equal models have equal bits."""
    if max(rows.nnz, *rows.shape) < 2**31 and rows.indices.dtype != np.int32:
        return sp.csr_array((rows.data, rows.indices.astype(np.int32), rows.indptr.astype(np.int32)), shape=rows.shape)
    return rows


def unique(M: Any, name: str) -> Matrix:
    """Return a sparse matrix as CSR with sorted columns; refuse duplicates and columns that do not exist."""
    if M.format == "coo":  # whose conversion to CSR would add duplicates up
        row, col = M.coords if hasattr(M, "coords") else (M.row, M.col)
        order = np.lexsort((col, row))
        refuse_duplicates(name, row[order], col[order])
    rows = sp.csr_array(M)
    if len(rows.indices) and not (rows.indices.min() >= 0 and rows.indices.max() < rows.shape[1]):
        raise ModelError(f"{name} has a column index outside 0..{rows.shape[1] - 1}; its CSR arrays are damaged")
    if not rows.has_sorted_indices:
        rows = rows.sorted_indices()
    if not rows.has_canonical_format:
        refuse_duplicates(name, np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), rows.indices)
    return rows


def refuse_duplicates(name: str, row: Any, col: Any) -> None:
    """Raise when the sorted coordinate lists name one entry twice."""
    same = (row[1:] == row[:-1]) & (col[1:] == col[:-1])
    if same.any():
        i = int(np.argmax(same))
        raise ModelError(
            f"{name} has more than one entry at row {int(row[i])}, column {int(col[i])}; "
            "one entry per place is expected; merge them with MDP.from_transitions"
        )


def sparse_place(name: str, rows: Matrix, i: int) -> str:
    """Name stored entry i of a CSR (S·A,S)."""
    row = int(np.searchsorted(rows.indptr, i, side="right")) - 1
    A = rows.shape[0] // rows.shape[1]
    return checks.place(name, (row // A, row % A, rows.indices[i]))


def clear(P: Matrix, drop: B) -> Matrix:
    """Zero the rows (s,a) where `drop` (S,A) holds."""
    if sp.issparse(P):
        P.data[np.repeat(drop.ravel(), np.diff(P.indptr))] = 0.0
        P.eliminate_zeros()
    else:
        P[drop] = 0.0
    return P


def check_rows(P: Matrix, need: B, tol: float) -> None:
    """Require non-negative entries, and rows that sum to 1 wherever `need` (S,A) holds."""
    A = need.shape[1]
    entries = P.data if sp.issparse(P) else P
    if (entries < 0).any():
        if sp.issparse(P):
            i = int(np.argmax(entries < 0))
            where, value = sparse_place("P", P, i), entries[i]
        else:
            index = tuple(np.argwhere(entries < 0)[0])
            where, value = checks.place("P", index), entries[index]
        raise ModelError(f"{where} is {value}; a probability >= 0 is expected")
    total = row_sums(P, need.shape)
    wrong = need & (abs(total - 1) > tol)
    if wrong.any():
        s, a = divmod(int(np.argmax(wrong)), A)
        cure = (
            "mark an unavailable action in legal, an absorbing end in terminal"
            if total[s, a] == 0
            else "MDP.normalised divides rows by their sums"
        )
        raise ModelError(
            f"P[s={s}, a={a}] sums to {total[s, a]:.12g}; every row must be a distribution over next states; " + cure
        )


def row_sums(P: Matrix, shape: tuple[int, ...]) -> F:
    """Return the (S,A) sums over next states."""
    total: F = np.asarray(P.sum(axis=-1), dtype=np.float64).reshape(shape)
    return total


def seal_terminals(P: Matrix, terminal: B, shape: tuple[int, int]) -> Matrix:
    """Store terminal rows as self-loops; zero rows and self-loops are accepted, anything else leaks."""
    S, A = shape
    ends = np.flatnonzero(terminal)
    if not len(ends):
        return P
    rows = P if sp.issparse(P) else P.reshape(S * A, S)
    row = (ends[:, None] * A + np.arange(A)).ravel()
    state = np.repeat(ends, A)
    here = np.asarray(rows[row, state]).ravel()
    total = np.asarray(rows[row].sum(axis=1)).ravel()
    leak = (abs(total - here) > checks.SUM_TOLERANCE) | ((total != 0) & (abs(total - 1) > checks.SUM_TOLERANCE_32))
    if leak.any():
        i = int(np.argmax(leak))
        away = total[i] - here[i]
        does = f"moves {away:.6g} away from a terminal state" if away else f"stays with probability {here[i]:.6g}"
        raise ModelError(
            f"P[s={int(state[i])}, a={int(row[i]) % A}] {does}; a terminal state leads nowhere; "
            "give it a zero row or a self-loop, or take it out of terminal"
        )
    if not sp.issparse(P):
        P[ends] = 0.0
        P[ends, :, ends] = 1.0
        return P
    keep = clear(P, np.repeat(terminal[:, None], A, 1))
    place = (row.astype(keep.indices.dtype), state.astype(keep.indices.dtype))
    loops = sp.csr_array((np.ones(len(row)), place), shape=P.shape)
    return narrow(sp.csr_array(keep + loops))


def rewards(R: Any, S: int, A: int, sparse: bool) -> Matrix:
    """Copy R as (S,A), dense (S,A,S) or CSR (S·A,S); a callable R(s, a, s') is refused with advice."""
    if sp.issparse(R):
        if R.shape != (S * A, S):
            raise ShapeError(f"R has shape {R.shape}; a sparse R is (S*A, S) = {(S * A, S)}")
        rows = sparse_rows(R, "R")
        return rows if sparse else rows.toarray().reshape(S, A, S)
    if callable(R):
        raise ModelError(f"R is {R!r}; an array of shape (S,), (S, A) or (S, A, S) is expected")
    R = checks.real(R, "R")
    if R.shape == (S,):
        return np.repeat(R[:, None], A, 1)
    if R.shape not in ((S, A), (S, A, S)):
        raise ShapeError(f"R has shape {R.shape}; {(S,)}, {(S, A)} or {(S, A, S)} is expected")
    if R.ndim == 3 and sparse:
        raise ShapeError("R is dense (S, A, S) while P is sparse; give R as (S, A) or sparse (S*A, S)")
    return R


def paid(R: Matrix, P: Matrix, terminal: B, legal: B) -> Matrix:
    """Zero what is never paid (illegal actions, impossible transitions); refuse rewards of terminal states."""
    A = legal.shape[1]
    if R.ndim == 2 and not sp.issparse(R):
        R[~legal] = 0.0
        loops = R[terminal]
    elif sp.issparse(R):
        R = sp.csr_array(R.multiply(P != 0))
        R.eliminate_zeros()
        ends = np.flatnonzero(terminal)
        row = (ends[:, None] * A + np.arange(A)).ravel()
        loops = np.asarray(R[row].sum(axis=1)).reshape(len(ends), A)
    else:
        R[P == 0] = 0.0
        loops = R[terminal].sum(2)
    if loops.any():
        i, a = np.argwhere(loops)[0]
        s = int(np.flatnonzero(terminal)[i])
        raise ModelError(
            f"R[s={s}, a={int(a)}] is {loops[i, a]:.12g}; a terminal state pays 0; "
            "put the reward on the transition that enters it"
        )
    return R
