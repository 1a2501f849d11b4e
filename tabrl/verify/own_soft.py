"""Values with an entropy bonus against complex steps: row E1.16 of the ledger.

tau weight of the entropy; theta (S,A) preferences; pi (S,A); V (S,) soft values, Q (S,A); J = mu . V.
"""

import math
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np

from tabrl import rational, soft
from tabrl.rational import Row
from tabrl.verify import complex_step
from tabrl.verify.complex_step import derivative
from tabrl.verify.literal import ZERO
from tabrl.verify.record import Check, Comparison, agree, within
from tabrl.verify.softmax_models import open_models, softmaxes


@cache
def optimum(name: str) -> Row:
    """V_star of one of the models, by brute force."""
    return rational.best_values(next(x.t for x in open_models() if x.name == name))


def entropy() -> list[Check]:
    """Values with an entropy bonus: of a policy, their gradient, the optimum."""
    value, slope, flat, room = [], [], [], []
    for x, tau in product(softmaxes(), (0.25, 2.0)):
        where = f"{x.name}, tau {tau}"
        value.append(Comparison(where, soft.evaluate_soft(x.mdp, x.pi, tau), complex_step.parts(x.mdp, x.pi, tau).V))
        exact = derivative(lambda z, m=x.mdp, tau=tau: complex_step.J(m, z, tau), x.theta)  # type: ignore[misc]
        slope.append(Comparison(where, soft.soft_policy_gradient(x.mdp, x.theta, tau), exact))
    for x in (x for x in open_models() if x.mdp.gamma < 1):
        best = soft.soft_optimum(x.mdp, 0.25, tol=1e-7)
        theta = best.Q / 0.25
        found = derivative(lambda z, m=x.mdp: complex_step.J(m, z, 0.25), theta)  # type: ignore[misc]
        flat.append(Comparison(x.name, found / max(1.0, abs(best.V).max()), [[ZERO] * x.mdp.A] * x.mdp.S))
        gap = Fraction(float((best.V - np.array(optimum(x.name), np.float64)).max()))
        room.append((x.name, gap, 0.25 * math.log(x.mdp.A) / (1 - x.mdp.gamma) + 1e-7))
    return [
        agree("E1.16", "values with entropy, against a dense solve", value),
        agree("E1.16", "gradient of J with entropy, against the complex step", slope),
        agree("E1.16", "that gradient at the soft optimum, by complex step, against 0", flat, 1e-9),
        within("E1.16", "soft optimum less V*, at most tau log A / (1 - gamma)", room),
    ]
