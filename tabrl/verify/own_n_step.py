"""n-step returns and learners against fractions: row E1.8 of the ledger.

V (S,) values; s (T+1,), r, discount (T,) an episode; n steps; T_pi the backup of a policy.
"""

from fractions import Fraction

from tabrl import chain, operators, prediction, rational, returns
from tabrl.rational import Row
from tabrl.verify import enumeration, literal, mistakes, models, recorded
from tabrl.verify.literal import Trace
from tabrl.verify.record import Check, Comparison, agree, distance, within
from tabrl.verify.recorded import replays


def n_steps() -> list[Check]:
    """E1.8: n-step returns and learner on recorded episodes, both ends of the range, the expected update."""
    learner = [c for n in (1, 2, 4, 20) for c in replays(prediction.n_step_td, literal.n_step_td, n=n)]
    one = list(replays(prediction.n_step_td, one_step, n=1))
    long = list(replays(prediction.n_step_td, whole_return, limit=None, n=10_000))
    return [
        agree("E1.8", "n-step returns, against sums in fractions", n_step_comparisons()),
        agree("E1.8", "V of n_step_td on recorded episodes, against a loop in fractions", learner),
        agree("E1.8", "V of n_step_td with n = 1, against TD(0) in fractions", one),
        agree("E1.8", "V of n_step_td with n beyond the end, against Monte Carlo in fractions", long),
        *expected_n_steps(),
    ]


def n_step_comparisons() -> list[Comparison]:
    """Returns of the written-out episodes for n from 1 to beyond the end."""
    found = []
    for x in recorded.recordings():
        trace, v = x.trace, literal.along(x.values, x.trace)
        for n in (1, 2, 3, len(x.r), len(x.r) + 5):
            exact = [literal.n_step_return(trace, v, t, n) for t in range(len(x.r))]
            found.append(Comparison(f"{x.name}, n = {n}", returns.n_step_returns(x.r, x.discount, x.V[x.s], n), exact))
    return found


def one_step(x: Trace, V: Row, alpha: Fraction, n: int) -> Row:
    """TD(0), whatever n."""
    return literal.td0(x, V, alpha)


def whole_return(x: Trace, V: Row, alpha: Fraction, n: int) -> Row:
    """Monte Carlo, whatever n."""
    return literal.monte_carlo(x, V, alpha)


def expected_n_steps() -> list[Check]:
    """The operator: powers of T_pi, the average over all paths, and how much it shrinks errors."""
    powers, paths, shrunk = [], [], []
    for x in models.instances():
        V, policy_chain, before = rational.exact(x.V), chain.induce(x.mdp, x.pi), distance(x.V, x.V_pi)
        for n in range(1, 6):
            V = mistakes.backup(x.tables, x.pi, V)
            T = operators.n_step_operator(policy_chain, n)
            found = operators.apply(T, x.V)
            powers.append(Comparison(f"{x.name}, n = {n}", found, V))
            if x.mdp.gamma > 0:
                shrunk.append((powers[-1].where, distance(found, x.V_pi) / before, T.factor * (1 + 1e-9)))
        if x.mdp.S == 2:
            paths.append(Comparison(x.name, averaged(x, 3), operator_in_fractions(x, 3)))
    return [
        agree("E1.8", "expected n-step return, against n backups by T_pi in fractions", powers),
        agree("E1.8", "mean of 3-step returns over all paths, against 3 backups in fractions", paths),
        within("E1.8", "error after the n-step operator over the error before, at most gamma^n", shrunk),
    ]


def operator_in_fractions(x: models.Instance, n: int) -> Row:
    """Apply T_pi n times to V."""
    V = rational.exact(x.V)
    for _ in range(n):
        V = mistakes.backup(x.tables, x.pi, V)
    return V  # type: ignore[no-any-return]


def averaged(x: models.Instance, n: int) -> list[float]:
    """Mean of the n-step return from each state over all paths of n steps."""
    return [
        sum(float(p) * returns.n_step_returns(e.r, e.discount, x.V[e.s], n)[0] for p, e in paths)
        for paths in (enumeration.trajectories(x.mdp, x.pi, s, n) for s in range(x.mdp.S))
    ]
