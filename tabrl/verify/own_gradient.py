"""The exact policy gradient against complex steps and fractions: row E1.10 of the ledger.

theta (S,A) preferences; pi (S,A) softmax; V (S,), Q (S,A) of pi; d (S,) expected discounted visits; J = mu . V.
"""

from itertools import islice
from typing import Any

import numpy as np

from tabrl import advantage_moments, gradient, natural, policy, rational
from tabrl.verify import complex_step
from tabrl.verify.complex_step import along, derivative
from tabrl.verify.literal import ZERO
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.softmax_models import Softmax, softmaxes


def policy_gradient() -> list[Check]:
    """E1.10: the softmax and its score, J, its gradient, baselines, its second derivative, exact ascent."""
    return [
        *softmax(),
        agree("E1.10", "J(theta), against mu . V_pi in fractions", [objective(x) for x in softmaxes()]),
        agree("E1.10", "d, V and advantage of the softmax policy, in fractions", parts()),
        agree("E1.10", "gradient of J, against the complex step", [stepped(x) for x in softmaxes()]),
        agree("E1.10", "gradient of J, against sum of d Q grad pi in fractions", [theorem(x) for x in softmaxes()]),
        agree("E1.10", "mean gradient with Q, Q - V and Q - b, against grad J in fractions", baselines()),
        agree("E1.10", "Hessian of J times a direction, against the complex step", [bent(x) for x in softmaxes()]),
        agree("E1.10", "theta after 3 steps of gradient_ascent, against complex steps", ascents()),
    ]


def softmax() -> list[Check]:
    """Weights that are whole numbers; derivatives by complex step."""
    w = np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]])
    legal = np.array([[True, True, True], [True, False, True]])
    kept = [[y * int(ok) for y, ok in zip(*row, strict=True)] for row in zip(rational.exact(w), legal, strict=True)]
    exact = [[y / sum(row) for y in row] for row in kept]
    pi, x = policy.softmax(np.log(w), legal), np.array([[1.0, -2.0, 0.5], [2.0, 0.0, -1.0]])

    def loglikelihood(theta: Any) -> Any:
        return np.log(complex_step.softmax(theta, True))

    scores = [derivative(loglikelihood, np.log(row)).T for row in w]
    plain = policy.softmax(np.log(w))
    pulled = derivative(lambda z: (x * complex_step.softmax(z, True)).sum(), np.log(w))
    logs = derivative(lambda z: (x * np.log(complex_step.softmax(z, True))).sum(), np.log(w))
    return [
        agree("E1.10", "softmax of logarithms, against weights over their sum, in fractions", [
            Comparison("probabilities", pi, exact),
            Comparison("logarithms", policy.log_softmax(np.log(w)), np.log(plain)),
        ]),
        agree("E1.10", "score, against the complex step of log pi", [Comparison("", policy.score(plain), scores)]),
        agree("E1.10", "chain rule through pi and log pi, against the complex step", [
            Comparison("through_pi", policy.through_pi(plain, x), pulled),
            Comparison("through_log", policy.through_log(plain, x), logs),
        ]),
    ]  # fmt: skip


def objective(x: Softmax) -> Comparison:
    """J is mu . V_pi."""
    return Comparison(x.name, gradient.objective(x.mdp, x.theta), rational.dot(rational.exact(x.mdp.mu), x.V_pi))


def parts() -> list[Comparison]:
    """What the gradient is made of."""
    found = []
    for x in softmaxes():
        y = gradient.at(x.mdp, x.theta)
        found += [
            Comparison(f"{x.name}, pi", y.pi, x.weight),
            Comparison(f"{x.name}, d", y.d, x.d),
            Comparison(f"{x.name}, V", y.V, x.V_pi),
            Comparison(f"{x.name}, advantage", y.advantage, x.advantage),
        ]
    return found


def stepped(x: Softmax) -> Comparison:
    """Every partial derivative of J."""
    exact = derivative(lambda theta: complex_step.J(x.mdp, theta), x.theta)
    return Comparison(x.name, gradient.policy_gradient(x.mdp, x.theta), exact)


def theorem(x: Softmax) -> Comparison:
    """The gradient, term by term."""
    return Comparison(x.name, gradient.policy_gradient(x.mdp, x.theta), x.gradient)


def baselines() -> list[Comparison]:
    """What depends on the state alone changes nothing."""
    found = []
    for x in softmaxes():
        Q = np.array(rational.action_values(x.t, x.V_pi), np.float64)
        for name, b in (("Q", np.zeros(x.mdp.S)), ("Q - V", np.array(x.V_pi, np.float64)), ("Q - b", x.b)):
            mean = advantage_moments.expected_gradient(x.mdp, x.pi, Q - b[:, None])
            found.append(Comparison(f"{x.name}, {name}", mean, x.gradient))
    return found


def bent(x: Softmax) -> Comparison:
    """The derivative of the theorem along a direction."""
    v = np.random.default_rng(7).normal(size=x.theta.shape)
    exact = along(lambda theta: complex_step.theorem(x.mdp, theta), x.theta, v)
    return Comparison(x.name, gradient.hessian_vector(x.mdp, x.theta, v), exact)


def ascents() -> list[Comparison]:
    """Three steps uphill."""
    found = []
    for x in softmaxes():
        theta: Any = x.theta
        for _ in range(3):
            theta = theta + 0.25 * derivative(lambda z, m=x.mdp: complex_step.J(m, z), theta)  # type: ignore[misc]
        *_, y = islice(natural.gradient_ascent(x.mdp, eta=0.25, theta=x.theta), 4)
        still = [sum(row, ZERO) for row in rational.exact(x.theta)]
        found += [
            Comparison(x.name, y.theta, theta),
            Comparison(f"{x.name}, sums of rows", y.theta.sum(axis=1), still),
        ]
    return found
