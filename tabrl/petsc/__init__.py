"""Models that outgrow a machine: inexact policy iteration on rows that are spread over processes (extra petsc)."""

from tabrl.petsc.processes import gather
from tabrl.petsc.rows import Rows, rows_of
from tabrl.petsc.solver import Round, Share, inexact_policy_iteration, solve

__all__ = ["Round", "Rows", "Share", "gather", "inexact_policy_iteration", "rows_of", "solve"]
