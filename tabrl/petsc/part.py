"""The part of a model that one process holds, renumbered for sweeps.

S, A states and actions of the whole model; first, …, first + n - 1 the states of this process; g ghosts: states of
other processes that can follow one of them. Place i = 0, …, n - 1 holds state first + order[i]; places n, …, n + g - 1
hold copies of the ghosts' values. rows: `ordering.Rows` over places, those of the ghosts empty.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl import ordering, rounding
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.petsc.distance import sweep_order
from tabrl.petsc.processes import Spread, largest, petsc, share, together
from tabrl.petsc.rows import Block, Rows, checked, rows_of
from tabrl.types import B, I, Matrix

PIECE = 2**18  # states that `build` is asked for at a time


class Scales(NamedTuple):
    """What a certificate needs to know of a whole model: `bellman.enclosure` takes this in place of an MDP."""

    gamma: float
    R_max: float
    longest_row: int
    row_error: float
    terminal: B  # (1,) whether any state is terminal


class Part(NamedTuple):
    """Rows of one process over places, and the numbers of the whole model."""

    S: int
    A: int
    first: int
    order: I  # (n,) place to state, less first
    rows: ordering.Rows  # of n + g places
    terminal: B  # (n,)
    ghosts: I  # (g,) numbers of the ghosts: the first state of their process plus their place there
    scales: Scales
    lowest: float  # not above any V_star

    @property
    def n(self) -> int:
        """States of this process."""
        return len(self.order)

    @property
    def P(self) -> Matrix:
        """Transition probabilities as CSR (n·A, n+g)."""
        x = self.rows
        size = self.n * self.A
        arrays = (x.p, x.indices.view(np.int32), x.indptr[: size + 1].view(np.int32))
        return sp.csr_array(arrays, shape=(size, self.n + len(self.ghosts)))

    def laid_out(self, x: Any) -> Any:
        """Bring an array by places, (n, …), into the order of the states."""
        out = np.empty_like(x)
        out[self.order] = x
        return out


def part_of(model: MDP | Rows) -> Part:
    """Build, check and renumber the rows of this process. What is wrong on one process is raised on all."""
    whole = rows_of(model) if isinstance(model, MDP) else model
    if whole.gamma == 1.0:
        raise ModelError("gamma is 1; a discount below 1 is expected over processes; dp.solve alone takes gamma = 1")
    first, last = share(whole.S)
    block, rows, elsewhere = together(lambda: prepared(whole, first, last))
    n, copies = last - first, Spread(last - first, whole.S, elsewhere)
    order = sweep_order(block, rows, copies)
    place = np.argsort(order)
    copies.own[:] = first + place
    with copies.all() as numbers:
        ghosts = numbers[n:].astype(petsc().IntType)
    scales, lowest = whole_numbers(block, model.R_max if isinstance(model, MDP) else 0.0, whole.gamma)
    everywhere = np.concatenate((order, np.arange(n, n + len(ghosts)))).astype(np.uint32)
    return Part(
        S=whole.S, A=whole.A, first=first, order=order, rows=ordering.renumbered(rows, everywhere),
        terminal=block.terminal[order], ghosts=ghosts, scales=scales, lowest=lowest,
    )  # fmt: skip


def prepared(model: Rows, first: int, last: int) -> tuple[Block, ordering.Rows, I]:
    """Checked rows of some states; the same over these states and the ghosts; the states that the ghosts are."""
    block = built(model, first, last)
    return block, *localised(block, first, model.gamma)


def built(model: Rows, first: int, last: int) -> Block:
    """Checked rows of some states, built in pieces."""
    most = np.iinfo(petsc().IntType).max
    if most < model.S:
        raise ModelError(f"S is {model.S}; this PETSc counts to {most}; configure it with --with-64-bit-indices")
    pieces = [checked(model, s, min(s + PIECE, last)) for s in range(first, last, PIECE)]
    entries = sum(piece.P.nnz for piece in pieces)
    if max(entries, (last - first) * model.A) >= 2**31 - 1:
        what = f"states {first}..{last - 1} have {entries} next states"
        raise ModelError(f"{what}; fewer than 2**31 are expected on a process; use more processes")
    P = sp.vstack([piece.P for piece in pieces], format="csr")
    return Block(P, *(np.concatenate(x) for x in zip(*(piece[1:] for piece in pieces), strict=True)))


def localised(block: Block, first: int, gamma: float) -> tuple[ordering.Rows, I]:
    """Rows over the states of this process, less first, and the ghosts after them; also the ghosts' states."""
    n, A = block.r.shape
    here = (block.P.indices >= first) & (block.P.indices < first + n)
    ghosts = np.unique(block.P.indices[~here])
    columns = np.empty(len(here), np.int32)
    columns[here] = block.P.indices[here] - first
    columns[~here] = n + np.searchsorted(ghosts, block.P.indices[~here])
    indptr = np.append(block.P.indptr, np.full(len(ghosts) * A, block.P.nnz)).astype(np.int32)
    size = n + len(ghosts)
    r = np.concatenate((np.where(block.legal, block.r, -np.inf), np.zeros((len(ghosts), A))))
    P = sp.csr_array((block.P.data, columns, indptr), shape=(size * A, size))
    return ordering.as_rows(P, r, A, gamma), ghosts


def whole_numbers(block: Block, R_max: float, gamma: float) -> tuple[Scales, float]:
    """Numbers of the whole model, and a lower bound on V_star: always the best reward, where it is worst."""
    best = np.where(block.legal, block.r, -np.inf).max(axis=1)[~block.terminal]
    R_max, n, e, worst, ends = largest(
        max(R_max, float(abs(block.r).max())), rounding.longest_row(block.P), rounding.row_error(block.P),
        -float(best.min(initial=np.inf)), float(block.terminal.any()),
    )  # fmt: skip
    worst = 0.0 if worst == -np.inf else -worst
    return Scales(gamma, R_max, int(n), e, np.array([ends > 0])), (min(worst, 0.0) if ends else worst) / (1 - gamma)
