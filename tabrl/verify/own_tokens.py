"""Values, gradients and samples of token tasks against a list of all sequences: row E2.1 of the ledger.

h a prefix, a a next token, o a sequence; p probability of a sequence given its prompt, r its outcome; pi (N,V); V (N,),
Q (N,V) values; d (N,) probability of a prefix; u (N,V) a direction.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from tabrl import chain, dp, rational
from tabrl.rational import Row, dot
from tabrl.tokens import exact, recursion, rollout
from tabrl.types import F
from tabrl.verify.literal import ZERO
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_models import (
    Table,
    Tiny,
    Written,
    add,
    binary,
    gradient,
    listed,
    prefixes,
    rollouts,
    scores,
    step_of,
    tinies,
    zeros,
)  # fmt: skip

DRAWN = 64  # sequences


def tree() -> list[Check]:
    """E2.1: values, occurrence, J, its gradient and Hessian, the explicit model, what is drawn."""
    V, Q, d, J, slope, pulled, bent = zip(*(beside(x) for x in tinies()), strict=True)
    return [
        agree("E2.1", "V of every prefix, all sequences listed, in fractions", V),
        agree("E2.1", "Q of every next token, all sequences listed, in fractions", Q),
        agree("E2.1", "probability of every prefix, in fractions", d),
        agree("E2.1", "J, all sequences listed, in fractions", J),
        agree("E2.1", "gradient of J in the logits, log-derivatives of all sequences, in fractions", slope),
        agree("E2.1", "the same in the parameters of a table", pulled),
        agree("E2.1", "Hessian of J times a direction, from all sequences in fractions", bent),
        agree("E2.1", "V* of the explicit model, against the best sequence from each prefix", best()),
        agree("E2.1", "V_pi of the explicit model, process rewards too, in fractions", list(evaluated())),
        agree("E2.1", "probabilities of sequences, lengths, share cut, in fractions", list(written())),
        agree("E2.1", "success of each prompt and pass@k, in fractions", list(passes())),
        agree("E2.1", "what is drawn: rows, masks, log-probabilities, rewards, token by token", list(drawn())),
    ]


def beside(x: Tiny) -> tuple[Comparison, ...]:
    """The recursion beside sums over sequences."""
    found = recursion.evaluate(x.task.tree, x.logp())
    V, Q, d = literal_values(x)
    g = gradient(x)
    u = np.random.default_rng(5).integers(-8, 9, found.Q.shape) / 8
    J = sum((x.weights[w.k] * w.p * w.r for w in listed(x)), ZERO)
    return (
        Comparison(x.name, found.V, V),
        Comparison(x.name, found.Q, Q),
        Comparison(x.name, found.d, d),
        Comparison(x.name, [found.J, exact.objective(x.task, x.policy())], [J, J]),
        Comparison(x.name, found.slope, g),
        Comparison(x.name, exact.gradient(x.task, x.policy()).reshape(found.Q.shape), g),
        Comparison(x.name, recursion.curvature(x.task.tree, x.logp(), u), hessian_vector(x, u)),
    )


def through(x: Tiny) -> dict[tuple[int, tuple[int, ...]], list[Written]]:
    """Of every prompt with some first tokens: the sequences that begin so."""
    found: dict[tuple[int, tuple[int, ...]], list[Written]] = {}
    for w in listed(x):
        for t in range(len(w.o) + 1):
            found.setdefault((w.k, w.o[:t]), []).append(w)
    return found


def literal_values(x: Tiny) -> tuple[Row, Table, Row]:
    """V, Q and d: means of the outcomes of all sequences that begin so, and the chance that one does."""
    begun = through(x)

    def mean(k: int, o: tuple[int, ...]) -> tuple[Fraction, Fraction]:
        all_p = sum((w.p for w in begun[k, o]), ZERO)
        return sum((w.p * w.r for w in begun[k, o]), ZERO) / all_p, all_p

    rows = prefixes(x.task)
    V = [mean(k, o)[0] for k, o in rows]
    Q = [[mean(k, (*o, a))[0] for a in range(x.task.V)] for k, o in rows]
    return V, Q, [x.weights[k] * mean(k, o)[1] for k, o in rows]


def hessian_vector(x: Tiny, u: F) -> Table:
    """Sum over sequences of p r times (score score' + the Hessian of log p) u."""
    direction, total = rational.exact(u), zeros(x)
    for w in listed(x):
        g, bend = scores(x, w), zeros(x)
        for h in w.rows:
            mean = dot(x.pi[h], direction[h])
            bend[h] = [-p * (v - mean) for p, v in zip(x.pi[h], direction[h], strict=True)]
        along = sum((dot(a, b) for a, b in zip(g, direction, strict=True)), ZERO)
        share = x.weights[w.k] * w.p * w.r
        total = add(add(total, share * along, g), share, bend)
    return total


def best() -> list[Comparison]:
    """Without chance the best is the largest outcome that can still be reached."""
    found = []
    for x in tinies():
        begun = through(x)
        exact_V = [max(w.r for w in begun[prefix]) for prefix in prefixes(x.task)]
        found.append(Comparison(x.name, dp.solve(x.task.to_mdp()).V, [*exact_V, ZERO]))
    return found


def evaluated() -> Iterator[Comparison]:
    """The solver for models beside means over sequences, of outcomes, and of outcomes with process rewards."""
    for x in tinies():
        pi = np.concatenate([np.array(x.pi, np.float64), np.full((1, x.task.V), 1 / x.task.V)])
        yield Comparison(x.name, chain.evaluate(chain.induce(x.task.to_mdp(), pi)), [*literal_values(x)[0], ZERO])
        if x.task.steps is not None:
            begun, exact_V = through(x), []
            for k, o in prefixes(x.task):
                paid = [(w.p, w.r + later_steps(x, w, len(o))) for w in begun[k, o]]
                exact_V.append(sum((p * r for p, r in paid), ZERO) / sum((p for p, _ in paid), ZERO))
            V = chain.evaluate(chain.induce(x.task.to_mdp(process=True), pi))
            yield Comparison(f"{x.name}, process rewards", V, [*exact_V, ZERO])


def later_steps(x: Tiny, w: Written, t: int) -> Fraction:
    """Process rewards from token t on."""
    return sum((step_of(x, w.k, w.o[: u + 1]) or ZERO for u in range(t, len(w.o))), ZERO)


def written() -> Iterator[Comparison]:
    """Where a sequence ends, and how often."""
    for x in tinies():
        policy, L = x.policy(), x.task.length
        q, length, cut = zeros(x), [ZERO] * (L + 1), ZERO
        for w in listed(x):
            share = x.weights[w.k] * w.p
            q[w.rows[-1]][w.o[-1]] += share
            length[len(w.o)] += share
            cut += share * (x.task.eos and w.o[-1] < x.task.C)
        yield Comparison(f"{x.name}, sequences", exact.sequence_probabilities(x.task, policy), q)
        yield Comparison(f"{x.name}, lengths", exact.lengths(x.task, policy), length)
        yield Comparison(f"{x.name}, cut", exact.truncated(x.task, policy), cut)


def chances(x: Tiny) -> Row:
    """The mean outcome of each prompt."""
    p = [ZERO] * x.task.K
    for w in listed(x):
        p[w.k] += w.p * w.r
    return p


def passes() -> Iterator[Comparison]:
    """One answer, and the best of several."""
    for x in tinies():
        yield Comparison(x.name, exact.success(x.task, x.policy()), chances(x))
    for x in binary():
        for k in (1, 2, 5):
            some = [sum((Fraction(1 - p) ** j * p for j in range(k)), ZERO) for p in chances(x)]
            yield Comparison(f"{x.name}, k = {k}", exact.pass_at_k(x.task, x.policy(), k), some)


def drawn() -> Iterator[Comparison]:
    """A batch beside the same sequences, looked up one by one."""
    for x in tinies():
        rng = np.random.default_rng(37)
        prompt = np.arange(DRAWN) % x.task.K
        found = rollout.sample(x.policy(), prompt, prompt + 5, rng)
        known = {(w.k, w.o): w for w in listed(x)}
        length = found.mask.sum(axis=1).astype(int)
        chosen = [
            known[k, tuple(o[:n])] for k, o, n in zip(prompt.tolist(), found.tokens.tolist(), length, strict=True)
        ]
        for name, a, b in zip(found._fields, found, rollouts(x, chosen, (prompt + 5).tolist()), strict=True):
            yield Comparison(f"{x.name}, {name}", a, b.astype(np.float64))
