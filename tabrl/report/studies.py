"""Learners judged on small worlds: sample means over many runs beside exact expectations.

V (S,) values; runs independent repetitions; z = (sample mean - exact expectation) / standard error. Each function
samples one case and returns a `Comparison`: estimates (K,runs,n) of n quantities at K times.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tabrl import importance, off_policy, prediction, sample, visits
from tabrl.chain import evaluate, induce
from tabrl.mdp import MDP
from tabrl.report.fragments import Update, expected_values, mean_update
from tabrl.td_moments import ValueMoments, independent_moments, trajectory_moments
from tabrl.types import Episode, F, I, Transitions, ValueUpdate

Rng = np.random.Generator
Rule = Callable[..., Iterator[ValueUpdate]]  # a learner with its options filled in: rule(experience, V=, every=)
BLOCK = 2**17  # transitions drawn at a time
SURE = 1e-12  # relative difference that rounding may make where nothing varies


class Comparison(NamedTuple):
    """Samples of several quantities over time, and what they are on average."""

    t: I  # (K,) transitions, fragments or episodes
    estimates: F  # (K,runs,n)
    exact: F  # (K,n) expectation; nan where it is not known exactly
    truth: F  # (n,) what is being learned
    labels: tuple[str, ...]  # n names
    error: F | None = None  # (K,n) exact standard error of the sample mean; estimated from the sample unless given

    @property
    def mean(self) -> F:
        """Sample means, (K,n)."""
        return self.estimates.mean(axis=1)  # type: ignore[no-any-return]

    @property
    def standard_error(self) -> F:
        """Standard errors of the sample means, (K,n)."""
        runs = self.estimates.shape[1]
        return self.estimates.std(axis=1, ddof=1) / np.sqrt(runs) if self.error is None else self.error

    @property
    def z(self) -> F:
        """Scores (K,n); nan where no expectation is known, or nothing varies and nothing differs.

        Infinite where something differs that should not vary, and where a learner has left the numbers.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            mean, error, slack = self.mean, self.standard_error, SURE * (1 + abs(self.exact))
            z: F = np.divide(mean - self.exact, error, out=np.full(mean.shape, np.inf), where=error > slack)
        z[~np.isfinite(mean)] = np.inf
        z[np.isnan(self.exact) | ((error <= slack) & (abs(mean - self.exact) <= slack))] = np.nan
        return z


def with_squares(x: Comparison, squares: F, exact: F) -> Comparison:
    """Add one more quantity: square errors (K,runs), with their exact mean (K,)."""
    error = squares.std(axis=1, ddof=1, keepdims=True) / np.sqrt(squares.shape[1])
    return Comparison(
        x.t,
        np.concatenate([x.estimates, squares[:, :, None]], axis=2),
        np.column_stack([x.exact, exact]),
        np.append(x.truth, np.nan),
        (*x.labels, "square error"),
        np.hstack([x.standard_error, error]),
    )


def live(mdp: MDP) -> tuple[I, tuple[str, ...]]:
    """The states that are not terminal, and their names."""
    states = np.flatnonzero(~mdp.terminal)
    return states, tuple(mdp.names.states[s] if mdp.names.states else f"s = {s}" for s in states)


def compared(mdp: MDP, pi: F, t: Any, V: F, exact: F) -> Comparison:
    """Compare values (K,runs,S) with their expectations (K,S) in the states that are not terminal."""
    states, names = live(mdp)
    truth = evaluate(induce(mdp, pi))[states]
    return Comparison(np.asarray(t), V[:, :, states], exact[:, states], truth, names)


def rounds(x: Transitions, run: I, part: I, S: int) -> list[Transitions]:
    """Lay transitions of many runs out for a learner with V (runs,S): round k holds part k of every run.

    run, part: (n,) where each transition belongs; its place in x decides the order within a part.
    """
    order = np.lexsort((run, part))
    shift = run[order] * S
    y = Transitions(x.s[order] + shift, x.s_next[order] + shift, x.r[order], x.discount[order], x.last[order])
    ends = np.flatnonzero(np.diff(part[order])) + 1
    return [sample.cut(y, int(a), int(b)) for a, b in zip([0, *ends], [*ends, len(y.r)], strict=True)]


def learned(rule: Rule, parts: Iterable[Transitions], runs: int, S: int) -> F:
    """Values of all runs after every round, from V = 0: (K,runs,S)."""
    return np.array([x.V for x in rule(parts, V=np.zeros((runs, S)), every=1)])


def trajectories(mdp: MDP, pi: F, rng: Rng, steps: int, runs: int) -> Transitions:
    """Draw runs of `steps` transitions, one after the other, each from the beginning of an episode.

    They are cut out of one stream: a run begins with the first episode after the end of the run before.
    """
    x = sample.Stream(mdp, pi, rng).draw(2 * runs * steps)[0]
    starts = np.flatnonzero(np.append(True, x.last[:-1]))
    at, chosen = 0, []
    for _ in range(runs):
        first = int(starts[np.searchsorted(starts, at)])  # IndexError where episodes are longer than runs
        chosen.append(np.arange(first, first + steps))
        at = first + steps
    index = np.concatenate(chosen)
    columns: Any = (y[index] for y in x)
    return Transitions(*columns)


def td0_moments(
    mdp: MDP, pi: F, rng: Rng, *, alpha: float, times: I, runs: int, afresh: bool
) -> tuple[Comparison, list[ValueMoments]]:
    """TD(0) beside its exact moments at `times`, multiples of the first one.

    afresh: every transition starts in a state drawn from mu; otherwise where the last one ended.
    """
    steps, every = int(times[-1]), int(times[0])
    rule = partial(prediction.td0, alpha=alpha)
    if afresh:
        x = sample.Stream(mdp, pi, rng, limit=1).draw(runs * steps)[0]
        moments = [*independent_moments(mdp, pi, alpha=alpha, d=mdp.mu, steps=steps, every=every)]
    else:
        x = trajectories(mdp, pi, rng, steps, runs)
        moments = [*trajectory_moments(mdp, pi, alpha=alpha, steps=steps, every=every)]
    run, t = np.divmod(np.arange(runs * steps), steps)
    V = learned(rule, rounds(x, run, t // every, mdp.S), runs, mdp.S)
    found = compared(mdp, pi, times, V, np.array([m.mean for m in moments]))
    variance = np.array([m.covariance.diagonal()[~mdp.terminal] for m in moments])
    return found._replace(error=np.sqrt(np.maximum(variance, 0.0) / runs)), moments


def whole(stream: sample.Stream, episodes: int) -> tuple[Transitions, I]:
    """Draw so many whole episodes of a stream; and the number of the episode of each transition.

    The stream must end its episodes, or cut them.
    """
    parts, count = [], 0
    while count < episodes:
        parts.append(stream.draw(BLOCK)[0])
        count += int(parts[-1].last.sum())
    x = sample.join(parts)
    x = sample.cut(x, 0, int(np.flatnonzero(x.last)[episodes - 1]) + 1)
    return x, np.cumsum(x.last) - x.last


def by_fragment(mdp: MDP, pi: F, rng: Rng, rule: Rule, update: Update, *, L: int, counts: I, runs: int) -> Comparison:
    """A learner on fragments of at most L steps, beside the exact expectation over all fragments.

    rule: the learner. update: its literal definition, affine in V. counts (K,): after how many fragments of each
    run it is looked at.
    """
    each = int(counts[-1])
    x, number = whole(sample.Stream(mdp, pi, rng, limit=L), runs * each)
    run, k = np.divmod(number, each)
    V = learned(rule, rounds(x, run, np.searchsorted(counts, k, side="right"), mdp.S), runs, mdp.S)
    return compared(mdp, pi, counts, V, expected_values(mean_update(mdp, pi, update, L), counts))


def by_visits(mdp: MDP, pi: F, rng: Rng, s: int, *, visit: str, counts: I, runs: int) -> tuple[Comparison, F]:
    """Monte Carlo averages in the state s where all episodes start, and the exact mean square errors (K,).

    Every episode visits s, so the number of episodes is the n of the closed forms.
    """
    each = int(counts[-1])
    x, number = whole(sample.Stream(mdp, pi, rng), runs * each)
    run, k = np.divmod(number, each)
    V = learned(partial(prediction.monte_carlo, visit=visit), rounds(x, run, k, mdp.S), runs, mdp.S)
    form = visits.first_visit if visit == "first" else visits.every_visit
    errors = [form(mdp, pi, s, int(n)) for n in counts]
    truth = evaluate(induce(mdp, pi))[[s]]
    exact = truth + np.array([[e.bias] for e in errors])
    deviation = np.sqrt([[e.variance / runs] for e in errors])
    mse = np.array([e.mse for e in errors])
    return Comparison(counts, V[counts - 1][:, :, [s]], exact, truth, (f"{visit} visit",), deviation), mse


def by_importance(mdp: MDP, pi: F, b: F, rng: Rng, s: int, *, counts: I, runs: int) -> tuple[Comparison, tuple[F, F]]:
    """Off-policy estimates in a state s that every episode starts in and never comes back to.

    Returns the ordinary, the per-decision and the weighted estimates; the third has no exact expectation (nan), its
    leading terms (bias / n, standard deviation / sqrt(n)) come apart, (K,) each.
    """
    stream: Iterator[Episode] = sample.episodes(mdp, b, rng)
    found = np.empty((len(counts), runs, len(off_policy.KINDS)))
    for i in range(runs):
        batch = [*islice(stream, int(counts[-1]))]
        for k, kind in enumerate(off_policy.KINDS):
            records = off_policy.off_policy_monte_carlo(batch, pi=pi, V=np.zeros(mdp.S), kind=kind)
            found[:, i, k] = np.array([x.V[s] for x in records])[counts - 1]
    ordinary, step = importance.trajectory(mdp, pi, b), importance.per_decision(mdp, pi, b)
    leading, truth = importance.weighted(mdp, pi, b), np.full(3, ordinary.mean[s])
    one = np.array([ordinary.variance[s], step.variance[s], leading.variance[s]])
    exact = np.tile([truth[0], truth[0], np.nan], (len(counts), 1))
    labels = ("ordinary", "per decision", "weighted")
    error = np.sqrt(one / (counts[:, None] * runs))
    x = Comparison(counts, found, exact, truth, labels, error)
    return x, (truth[2] + leading.bias[s] / counts, np.sqrt(one[2] / counts))


class Solved(NamedTuple):
    """What a batch learner came to, and its closed form."""

    learner: str
    form: str
    learned: F  # (S,)
    exact: F  # (S,)
    sweeps: int


def batches(mdp: MDP, pi: F, rng: Rng, *, episodes: int, limit: int, alpha: float) -> list[Solved]:
    """Batch learners on one batch of episodes, until nothing moves, beside what they converge to."""
    from tabrl import operators

    batch = [*islice(sample.episodes(mdp, pi, rng), episodes)]
    triples = [(x.s, x.r, x.discount) for x in batch]
    td, mc = operators.batch_td(triples, mdp.S), operators.batch_mc(triples, mdp.S)
    V = np.zeros(mdp.S)
    found = [
        Solved(
            "batch TD(0)", "values of the empirical model", *still(prediction.batch_td, batch, alpha, V, limit, td.V)
        ),
        Solved("batch Monte Carlo", "average returns", *still(prediction.batch_mc, batch, alpha, V, limit, mc.V)),
    ]
    for lam, x, form in ((0.0, td, "values of the empirical model"), (1.0, mc, "average returns")):
        solved = prediction.lstd(batch, S=mdp.S, lam=lam)
        found.append(Solved(f"LSTD({lam:g})", form, np.where(np.isnan(solved), x.V, solved), x.V, 1))
    return found


def still(learner: Any, batch: Sequence[Episode], alpha: float, V: F, limit: int, exact: F) -> tuple[F, F, int]:
    """Run a batch learner until a sweep changes nothing that counts: learned, exact, sweeps."""
    sweeps = 0
    for x in islice(learner(batch, alpha=alpha, V=V), limit):
        V, sweeps = x.V, sweeps + 1
        if x.delta <= 1e-14:
            break
    return V, exact, sweeps
