"""Solvers that a Python user would install, behind one interface, for benchmarks/dp.py.

Each solver has settings, tried side by side, asked for accuracy tol in V as its documentation says; building its model
is not timed. A setting is a function (MDP, tol) -> (function that solves and returns V (S,)).
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tabrl import MDP

Solve = Callable[[], Any]
BIG = 10**9  # iterations: no limit


class Peer(NamedTuple):
    """A solver: how to make it ready, its threads, and what was asked of it."""

    prepare: Callable[[MDP, float], Solve]
    threads: str
    setting: str
    anew: bool = False  # it starts from its last answer, so it is made anew for every solve


def ours(method: str) -> Peer:
    """Our own solver; the function returns the whole Solution."""

    def prepare(mdp: MDP, tol: float) -> Solve:
        from tabrl import dp

        return lambda: dp.solve(mdp, method, tol=tol)

    return Peer(prepare, "2", f'dp.solve(mdp, "{method}", tol=1e-6)')


def quantecon(method: str, **options: Any) -> Peer:
    """QuantEcon.py's DiscreteDP; its value is within epsilon / 2 of V_star (class docstring)."""

    def prepare(mdp: MDP, tol: float) -> Solve:
        from quantecon.markov import DiscreteDP

        if mdp.is_sparse:
            s, a = np.divmod(np.arange(mdp.S * mdp.A), mdp.A)
            model = DiscreteDP(mdp.r.ravel(), mdp.P, mdp.gamma, s, a)
        else:
            model = DiscreteDP(mdp.r, mdp.P, mdp.gamma)
        limit = {"max_iter": BIG, **({} if method == "policy_iteration" else {"epsilon": 2 * tol}), **options}
        return lambda: model.solve(method, **limit).v

    said = "".join(f", {key}={value}" for key, value in options.items())
    return Peer(prepare, "1, BLAS 2", f"{method}{said}, epsilon=2e-6")


def mdpsolver(algorithm: str, update: str, *, parallel: bool = True) -> Peer:
    """MDPSolver (C++); its tolerance makes the policy and its values epsilon-optimal."""

    def prepare(mdp: MDP, tol: float) -> Solve:
        import mdpsolver as package

        model = package.model()
        csr = mdp.P if mdp.is_sparse else None
        if csr is None:
            model.mdp(discount=mdp.gamma, rewards=mdp.r.tolist(), tranMatWithZeros=mdp.P.tolist())
        else:
            model.mdp(
                discount=mdp.gamma,
                rewards=mdp.r.tolist(),
                tranMatProbs=nested(csr.data, csr.indptr, mdp.A),
                tranMatColumns=nested(csr.indices, csr.indptr, mdp.A),
            )

        def solve() -> Any:
            model.solve(algorithm=algorithm, update=update, tolerance=tol, parallel=parallel)
            return model.getValueVector()

        return solve

    threads = "2" if parallel and update == "standard" else "1"
    return Peer(prepare, threads, f"{algorithm}, {update}, tolerance=1e-6", anew=True)


def nested(x: Any, indptr: Any, A: int) -> list[Any]:
    """Entries of the rows as lists of lists: [s][a][entry]."""
    x, cut = x.tolist(), indptr.tolist()
    return [[x[cut[i] : cut[i + 1]] for i in range(s, s + A)] for s in range(0, len(cut) - 1, A)]


def toolbox(name: str) -> Peer:
    """Pymdptoolbox; sparse (S,S) matrices per action, bounded number of iterations lifted."""

    def prepare(mdp: MDP, tol: float) -> Solve:
        import mdptoolbox.mdp as package
        import scipy.sparse as sp

        if mdp.is_sparse:
            P: Any = [sp.csr_matrix(mdp.P[a :: mdp.A]) for a in range(mdp.A)]
        else:
            P = np.ascontiguousarray(mdp.P.transpose(1, 0, 2))
        options = {} if name == "PolicyIteration" else {"epsilon": tol}
        fresh = getattr(package, name)(P, np.array(mdp.r), mdp.gamma, max_iter=BIG, **options)

        def solve() -> Any:
            model = copy.copy(fresh)
            model.run()
            return model.V

        return solve

    return Peer(prepare, "1, BLAS 2", f"{name}, epsilon=1e-6")


def storm(how: str, precision: float = 1.0) -> Peer:
    """Storm: a discounted total reward, or the discount as a probability 1 - gamma to end in a sink.

    how: "discounted", or the name of a MinMaxMethod for the model with a sink. Where r <= 0 everywhere it is minimised
    as a cost; where r has both signs the sink model is shifted to r >= 0. precision: times tol, absolute.
    """

    def prepare(mdp: MDP, tol: float) -> Solve:
        import stormpy
        from stormpy.environments import MinMaxMethod

        sign = -1.0 if mdp.r.max() <= 0 else 1.0
        shift = max(0.0, -float((sign * mdp.r).min())) if not mdp.terminal.any() else 0.0
        sink = how != "discounted"
        model = storm_model(mdp, sign * mdp.r + shift, sink)
        goal = 'F "goal"' if sink else f"Cdiscount={mdp.gamma!r}"
        formula = stormpy.parse_property(f'R{{"r"}}{"max" if sign > 0 else "min"}=? [ {goal} ]')
        settings = stormpy.Environment()
        minmax = settings.solver().min_max()
        minmax.precision = stormpy.Rational(tol * precision)
        minmax.relative_termination_criterion = False
        if sink:
            minmax.method = getattr(MinMaxMethod, how)

        def solve() -> Any:
            result = stormpy.model_checking(model, formula, environment=settings)
            return sign * (np.array(result.get_value_vector()[: mdp.S]) - shift / (1 - mdp.gamma))

        return solve

    what = how if how == "discounted" else f"sink, {how.lower().replace('_', ' ')}"
    return Peer(prepare, "1", f"{what}, precision={precision * 1e-6:g}")


def storm_model(mdp: MDP, r: Any, sink: bool) -> Any:
    """Build Storm's sparse model, a block of states at a time so that the lists stay short."""
    import stormpy
    from stormpy import models

    A, n = mdp.A, mdp.S + sink
    matrix = stormpy.datastructures.SparseMatrixBuilder[float](
        rows=mdp.S * A + sink, columns=n, has_custom_row_grouping=True, row_groups=n
    )
    block = max(1, 100_000 // A)
    for first in range(0, mdp.S, block):
        last = min(first + block, mdp.S)
        row, column, p = entries(mdp, first, last, sink)
        matrix.add_next_values(row.tolist(), column.tolist(), p.tolist(), list(range(first * A, last * A, A)))
    if sink:
        matrix.add_next_values([mdp.S * A], [mdp.S], [1.0], [mdp.S * A])
    labels = models.StateLabeling(n)
    labels.add_label("init")
    labels.add_label_to_state("init", 0)
    labels.add_label("goal")
    labels.add_label_to_state("goal", n - 1)
    pay = np.append(np.where(mdp.terminal[:, None], 0.0, r).ravel(), np.zeros(int(sink)))
    reward = models.SparseRewardModel[float](optional_state_action_reward_vector=pay.tolist())
    parts = models.SparseModelComponents[float](
        transition_matrix=matrix.build(), state_labeling=labels, reward_models={"r": reward}
    )
    return models.SparseMdp[float](parts)


def entries(mdp: MDP, first: int, last: int, sink: bool) -> tuple[Any, Any, Any]:
    """Row, column and probability of the rows of states [first, last), in order; the sink is column S."""
    import scipy.sparse as sp

    part = slice(first * mdp.A, last * mdp.A)
    rows = sp.csr_array((mdp.rows if sink else mdp.P).reshape(mdp.S * mdp.A, mdp.S)[part])
    if sink:
        rows = rows * mdp.gamma
        rows = sp.csr_array(sp.hstack([rows, sp.csr_array(1 - np.asarray(rows.sum(axis=1)).reshape(-1, 1))]))
        rows.sort_indices()
    row = np.repeat(np.arange(part.start, part.stop), np.diff(rows.indptr))
    return row, rows.indices, rows.data


PEERS = {
    "auto": ours("auto"),
    "tabrl-mpi": ours("modified_policy_iteration"),
    "tabrl-gspi": ours("gauss_seidel_policy_iteration"),
    "tabrl-pi": ours("policy_iteration"),
    "quantecon-mpi": quantecon("modified_policy_iteration"),
    "quantecon-mpi5": quantecon("modified_policy_iteration", k=5),
    "quantecon-mpi50": quantecon("modified_policy_iteration", k=50),
    "quantecon-vi": quantecon("value_iteration"),
    "quantecon-pi": quantecon("policy_iteration"),
    "storm-discounted": storm("discounted"),
    "storm-vi": storm("VALUE_ITERATION", 0.1),
    "storm-ovi": storm("OPTIMISTIC_VALUE_ITERATION"),
    "mdpsolver-mpi": mdpsolver("mpi", "standard"),
    "mdpsolver-mpi1": mdpsolver("mpi", "standard", parallel=False),
    "mdpsolver-gs": mdpsolver("mpi", "gs", parallel=False),
    "mdpsolver-vi": mdpsolver("vi", "standard"),
    "toolbox-mpi": toolbox("PolicyIterationModified"),
    "toolbox-vi": toolbox("ValueIteration"),
    "toolbox-gs": toolbox("ValueIterationGS"),
    "toolbox-pi": toolbox("PolicyIteration"),
}
