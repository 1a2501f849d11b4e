"""Losses of batches of sequences against fractions and complex steps: rows E2.3, E2.9 and E2.11 of the ledger.

B sequences of at most T tokens, some of which do not count; rho (B,T) ratios, s (B,) those of sequences; A advantages;
w (B,T) weight of a token in an aggregate; n, longest, cache lengths in tokens.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from tabrl import losses, rational
from tabrl.rational import Row
from tabrl.tokens import draws, methods, surrogates, train
from tabrl.tokens.methods import Capped, Clip, Method, Penalty, Sequence
from tabrl.tokens.rollout import Rollouts
from tabrl.types import F
from tabrl.verify.complex_step import derivative
from tabrl.verify.literal import ZERO
from tabrl.verify.own_surrogate import complex_loss, loss_of
from tabrl.verify.own_tokens_advantages import literal_advantages
from tabrl.verify.own_tokens_credit import MASK, STEP, ragged
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_models import Table, add, listed, rollouts, scores, tinies

RHO = np.array([0.5, 0.625, 0.875, 1.0, 1.125, 1.375, 1.625, 3.5, 0.9375, 1.0625] * 2).reshape(MASK.shape)
OLD, REF = np.full(MASK.shape, 0.25), (1.0 + np.arange(20).reshape(MASK.shape) % 7) / 8
GROUP = np.array([3, 3, 9, 9, 9])
BOUNDS = ((0.25, 0.25, None), (0.1875, 0.4375, None), (0.25, 0.25, 3.0))  # low, high, dual: no ratio on a bound
HOWS = ("sequence", "token", "group_token", "constant")
LONGEST = 6  # tokens, for "constant"


def shares(how: str, n: list[int], group: list[int], longest: int) -> Row:
    """What a token of each sequence counts: a share of its sequence, of the batch, of its group, of the limit."""
    B = len(n)
    of_group = [sum(m for m, label in zip(n, group, strict=True) if label == own) for own in group]
    rules: dict[str, Callable[[int], Fraction]] = {
        "sequence": lambda i: Fraction(1, B * max(n[i], 1)),
        "token": lambda i: Fraction(1, sum(n)),
        "group_token": lambda i: Fraction(1, len(set(group)) * of_group[i]),
        "constant": lambda i: Fraction(1, B * longest),
    }
    return [rules[how](i) for i in range(B)]


def weights(how: str) -> Table:
    """The weight of each token, (B,T), 0 for those that do not count."""
    share = shares(how, MASK.sum(axis=1).tolist(), GROUP.tolist(), LONGEST)
    return [[w if on else ZERO for on in row] for w, row in zip(share, MASK, strict=True)]


def total(x: Table, how: str) -> Fraction:
    """A weighted sum, token by token."""
    return sum((w * y for row in zip(weights(how), x, strict=True) for w, y in zip(*row, strict=True) if w), ZERO)


def over(how: str) -> dict[str, Any]:
    """The aggregation, named to the package."""
    return {"how": how, "group": GROUP, "length": LONGEST}


def logs() -> tuple[F, F]:
    """Log-probabilities now and when the tokens were drawn."""
    return np.log(OLD * RHO), np.log(OLD)


# E2.3


def batch_losses() -> list[Check]:
    """E2.3: GRPO's loss, its KL, GSPO and CISPO, their derivatives, the slope in the logits, one update."""
    clip, slope = zip(*clip_losses(), strict=True)
    return [
        agree("E2.3", "GRPO's loss of a ragged batch, against the published formula in fractions", clip),
        agree("E2.3", "its derivative in every log pi, against the complex step", slope),
        agree("E2.3", "k3 in the loss, plain and weighed by the ratio, and its derivative", list(penalties())),
        agree("E2.3", "GSPO: ratios of sequences, loss and derivative, against the complex step", list(sequences())),
        agree("E2.3", "CISPO: capped weights and derivative, in fractions", list(capped())),
        agree("E2.3", "slope of whole methods in all logits, against the complex step", list(slopes())),
        agree("E2.3", "theta after an update of grpo, against sums over its groups in fractions", list(updated())),
    ]


def clip_losses() -> Iterator[tuple[Comparison, Comparison]]:
    """Mean over sequences of the mean over tokens of -min(rho A, clip(rho) A)."""
    A, (logp, old) = ragged(8), logs()
    for low, high, dual in BOUNDS:
        named: Any = {"low": low, "high": high, "dual": dual}
        each = [
            [loss_of(Fraction(y), Fraction(a), low, high, dual) for y, a in zip(*row, strict=True)]
            for row in zip(RHO, A, strict=True)
        ]
        found = losses.aggregate(losses.ppo_clip(logp, old, A, **named), MASK, **over("sequence"))
        value = Comparison(str(named), found, total(each, "sequence"))
        f, w = complex_loss(A, low, high, dual), np.array(weights("sequence"), np.float64)
        stepped = derivative(lambda z, f=f, w=w: (w * f(z - old)).sum(), logp)  # type: ignore[misc]
        twin = losses.d_aggregate(A, MASK, **over("sequence")) * losses.d_ppo_clip(logp, old, A, **named)
        yield value, Comparison(str(named), twin, stepped)


def k3(z: Any, ref: Any) -> Any:
    """Its formula."""
    return np.exp(ref - z) - 1 - (ref - z)


def penalties() -> Iterator[Comparison]:
    """Per token, within the mean."""
    (logp, old), ref, w = logs(), np.log(REF), np.array(weights("sequence"), np.float64)
    each = [
        [Fraction(r) / Fraction(o * y) - 1 - Fraction(math.log(r / (o * y))) for r, o, y in zip(*row, strict=True)]
        for row in zip(REF, OLD, RHO, strict=True)
    ]  # fmt: skip
    share = losses.d_aggregate(ref, MASK, **over("sequence"))
    yield Comparison(
        "k3", losses.aggregate(losses.kl_estimate(logp, ref), MASK, **over("sequence")), total(each, "sequence")
    )
    stepped = derivative(lambda z: (w * k3(z, ref)).sum(), logp)
    yield Comparison("its derivative", Penalty(1.0).slope(logp, old, ref) * share, stepped)
    rated = [[Fraction(y) * k for y, k in zip(*row, strict=True)] for row in zip(RHO, each, strict=True)]
    value = losses.aggregate(surrogates.weighted_kl(logp, old, ref), MASK, **over("sequence"))
    yield Comparison("ratio times k3", value, total(rated, "sequence"))
    stepped = derivative(lambda z: (w * np.exp(z - old) * k3(z, ref)).sum(), logp)
    yield Comparison("derivative of that", Penalty(1.0, place="weighted").slope(logp, old, ref) * share, stepped)


def sequence_loss(z: Any, A: F, low: float, high: float) -> Any:
    """GSPO's: a mean over sequences of -min(s A, clip(s) A), s the geometric mean of the ratios."""
    whole = 0.0
    for i, row in enumerate(MASK):
        on = np.flatnonzero(row)
        if len(on):
            log_s = (z[i, on] - logs()[1][i, on]).sum() / len(on)
            whole = whole + complex_loss(A[i : i + 1], low, high, None)(np.array([log_s]))[0] / len(MASK)
    return whole


def sequences() -> Iterator[Comparison]:
    """One ratio and one advantage for a sequence."""
    (logp, old), adv = logs(), np.array([1.0, -1.0, 2.0, -0.5, 1.0])
    A = np.repeat(adv[:, None], MASK.shape[1], axis=1)
    s = [math.prod(RHO[i, row != 0]) ** (1 / max(row.sum(), 1)) for i, row in enumerate(MASK)]
    yield Comparison("ratios", np.exp(surrogates.sequence_log_ratios(logp, old, MASK)), s)
    for low, high in ((0.25, 0.25), (0.0625, 0.125), (3e-4, 4e-4)):
        where = f"low {low}, high {high}"
        value = losses.aggregate(surrogates.gspo(logp, old, A, MASK, low=low, high=high), MASK, **over("sequence"))
        yield Comparison(where, value, float(np.real(sequence_loss(logp, adv, low, high))))
        slope = surrogates.d_gspo(logp, old, A, MASK, low=low, high=high)
        twin = losses.d_aggregate(A, MASK, **over("sequence")) * slope
        stepped = derivative(lambda z, low=low, high=high: sequence_loss(z, adv, low, high), logp)  # type: ignore[misc]
        yield Comparison(f"{where}, derivative", twin, stepped)


def capped() -> Iterator[Comparison]:
    """The ratio is held, and nothing is stopped."""
    A, (logp, old) = ragged(9), logs()
    for low, high in ((None, 4.0), (None, 0.25), (0.25, 0.5)):
        least = ZERO if low is None else 1 - Fraction(low)
        held = [[min(max(Fraction(y), least), 1 + Fraction(high)) for y in row] for row in RHO]
        slope = [[-y * Fraction(a) for y, a in zip(*row, strict=True)] for row in zip(held, A, strict=True)]
        where = f"low {low}, high {high}"
        yield Comparison(where, surrogates.d_cispo(logp, old, A, low=low, high=high), slope)
        value = [[g * Fraction(z) for g, z in zip(*row, strict=True)] for row in zip(slope, logp, strict=True)]
        yield Comparison(f"{where}, value", surrogates.cispo(logp, old, A, low=low, high=high), value)


def slopes() -> Iterator[Comparison]:
    """Away from the policy that drew, with KL and entropy."""
    x = tinies()[0]
    batch = rollouts(x, listed(x)[3:9], [4, 4, 4, 7, 7, 7])
    z = x.logp()[batch.row] + np.random.default_rng(13).normal(size=(*batch.row.shape, x.task.V)) / 4
    adv, ref = np.random.default_rng(17).normal(size=batch.row.shape), x.logp(x.ref)[batch.row]
    adv[:] = adv[:, :1]
    for name, method in (
        ("GRPO with k3", Method(kl=Penalty(0.5), entropy=0.25)),
        ("DAPO", Method(loss=Clip(0.125, 0.25), how="group_token", entropy=0.25)),
        ("Dr. GRPO with k2", Method(how="constant", kl=Penalty(0.5, "k2"))),
        ("CISPO", Method(loss=Capped(high=0.25), how="token")),
        ("GSPO", Method(loss=Sequence(0.03, 0.04))),
    ):
        rows = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
        found, _ = methods.slope(method, batch, rows, adv, methods.taken(ref, batch))
        stepped = derivative(lambda y, m=method, r=rows: literal_loss(m, batch, y, adv, ref, r), z)  # type: ignore[misc]
        yield Comparison(name, found, stepped)


def literal_loss(method: Method, x: Rollouts, z: Any, adv: F, ref: F, now: F) -> Any:
    """Of a batch, from its logits, token by token; `now` the log-probabilities that a capped ratio is taken from."""
    found: Any = 0.0
    n = x.mask.sum(axis=1).astype(int).tolist()
    share = shares(method.how, n, x.group.tolist(), x.mask.shape[1])
    for i in range(len(n)):
        rows = [z[i, t] - np.log(np.exp(z[i, t]).sum()) for t in range(n[i])]
        ratios = [row[a] - old for row, a, old in zip(rows, x.tokens[i], x.logp[i], strict=False)]
        for t, row in enumerate(rows):
            a = x.tokens[i, t]
            ratio = sum(ratios) / n[i] if isinstance(method.loss, Sequence) else ratios[t]
            each = token_loss(method.loss, ratio, np.exp(now[i, t, a] - x.logp[i, t]), adv[i, t], row[a])
            gap = row[a] - ref[i, t, a]
            if method.kl is not None:
                each = each + method.kl.beta * (gap**2 / 2 if method.kl.kind == "k2" else np.exp(-gap) - 1 + gap)
            found = found + float(share[i]) * (each + method.entropy * (np.exp(row) * row).sum())
    return found


def token_loss(loss: Any, log_ratio: Any, rho: float, A: float, logp: Any) -> Any:
    """-min(rho A, clip(rho) A) of the log-ratio, or minus the capped rho, taken as a number, times A log pi."""
    if isinstance(loss, Capped):
        return -min(rho, 1 + loss.high) * A * logp
    return complex_loss(np.array([A]), loss.low, loss.high, None)(np.array([log_ratio]))[0]


def updated() -> Iterator[Comparison]:
    """At ratio 1, on the sequences that the learner draws."""
    for x in tinies():
        policy, draw = x.policy(), draws.Groups(3)
        drawn = draw(x.policy(), np.random.default_rng(43)).x
        next(train.grpo(x.task, policy, np.random.default_rng(43), step=STEP, draw=draw, entropy=0.0))
        theta, known = rational.exact(x.logp()), {(w.k, w.o): w for w in listed(x)}
        for g in range(x.task.K):
            at = np.flatnonzero(drawn.group == g)
            A = literal_advantages(rational.exact(drawn.reward[at]), "sample", 1e-4)
            for i, a in zip(at, A, strict=True):
                w = known[int(drawn.prompt[i]), tuple(drawn.tokens[i, : int(drawn.mask[i].sum())].tolist())]
                theta = add(theta, Fraction(STEP) * a / (len(drawn.group) * len(w.o)), scores(x, w))
        yield Comparison(x.name, policy.table, theta)
