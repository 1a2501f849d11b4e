"""The learners by name: where they are, what they take, and what they are given where the user says nothing.

A name leads to a function that is imported when it is asked for; what it takes is read from its signature, what it
does from its docstring.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from textwrap import dedent
from typing import Any, NamedTuple

from tabrl.schedules import harmonic

PREDICTION, CONTROL, POLICY = "prediction", "control", "policy"
# what a user can set, where a learner takes it
OPTIONS = ("alpha", "eps", "n", "lam", "trace", "visit", "kind", "planning", "kappa", "theta", "batch", "clip",
           "epochs", "entropy", "beta", "target", "delta", "optimism")  # fmt: skip


class Learner(NamedTuple):
    """Where a learner is, and what it is given where the user says nothing."""

    kind: str  # PREDICTION: V of a policy; CONTROL: Q of a good one; POLICY: a softmax policy, by its gradient
    module: str
    function: str
    defaults: Mapping[str, Any]
    feed: str = "stream"  # "stream" of transitions, whole "episodes", or episodes of another policy: "behaviour"

    def load(self) -> Callable[..., Iterator[Any]]:
        """Import the function."""
        return getattr(import_module(f"tabrl.{self.module}"), self.function)  # type: ignore[no-any-return]


class About(NamedTuple):
    """What a docstring says: its first line, the equations under it, and where they come from."""

    title: str
    equation: str
    source: str


STEP, EXPLORE = {"alpha": 0.1}, {"alpha": 0.5, "eps": 0.1}
PROXIMAL = {"alpha": 0.03, "batch": 1024}
LEARNERS: dict[str, Learner] = {
    "td0": Learner(PREDICTION, "prediction", "td0", STEP),
    "n-step-td": Learner(PREDICTION, "prediction", "n_step_td", {**STEP, "n": 4}),
    "td-lambda": Learner(PREDICTION, "prediction", "td_lambda", {**STEP, "lam": 0.8}),
    "true-online-td": Learner(PREDICTION, "prediction", "true_online_td", {**STEP, "lam": 0.8}),
    "monte-carlo": Learner(PREDICTION, "prediction", "monte_carlo", {"alpha": harmonic}, "episodes"),
    "lambda-return": Learner(PREDICTION, "prediction", "lambda_return", {**STEP, "lam": 0.8}, "episodes"),
    "off-policy-monte-carlo": Learner(PREDICTION, "off_policy", "off_policy_monte_carlo", {}, "behaviour"),
    "q-learning": Learner(CONTROL, "control", "q_learning", EXPLORE),
    "sarsa": Learner(CONTROL, "control", "sarsa", EXPLORE),
    "expected-sarsa": Learner(CONTROL, "control", "expected_sarsa", EXPLORE),
    "double-q-learning": Learner(CONTROL, "control", "double_q_learning", EXPLORE),
    "n-step-sarsa": Learner(CONTROL, "control", "n_step_sarsa", {**EXPLORE, "n": 4}),
    "n-step-expected-sarsa": Learner(CONTROL, "control", "n_step_expected_sarsa", {**EXPLORE, "n": 4}),
    "tree-backup": Learner(CONTROL, "control", "tree_backup", {**EXPLORE, "n": 4}),
    "sarsa-lambda": Learner(CONTROL, "control", "sarsa_lambda", {**EXPLORE, "lam": 0.8, "trace": "replacing"}),
    "watkins-q": Learner(CONTROL, "control", "watkins_q", {**EXPLORE, "lam": 0.8, "trace": "replacing"}),
    "mc-control": Learner(CONTROL, "control", "mc_control", {}),
    "exploring-starts": Learner(CONTROL, "control", "exploring_starts", {}),
    "off-policy-mc-control": Learner(CONTROL, "control", "off_policy_mc_control", {}),
    "dyna-q": Learner(CONTROL, "control", "dyna_q", {**EXPLORE, "planning": 10}),
    "dyna-q-plus": Learner(CONTROL, "control", "dyna_q_plus", {**EXPLORE, "planning": 10, "kappa": 1e-3}),
    "prioritized-dyna": Learner(CONTROL, "control", "prioritized_dyna", {"planning": 10}),
    "reinforce": Learner(POLICY, "policy_gradients", "reinforce", {**STEP, "batch": 16}),
    "actor-critic": Learner(POLICY, "actor_critic", "actor_critic", {"alpha": 0.3, "lam": 0.0}),
    "a2c": Learner(POLICY, "actor_critic", "a2c", {**STEP, "batch": 128, "lam": 0.95}),
    "ppo": Learner(POLICY, "ppo", "ppo", {**PROXIMAL, "clip": 0.2}),
    "ppo-kl": Learner(POLICY, "ppo", "ppo_kl", PROXIMAL),
    "npg": Learner(POLICY, "trpo", "npg", {"alpha": 0.1, "batch": 1024}),
    "trpo": Learner(POLICY, "trpo", "trpo", {"delta": 0.01, "batch": 1024}),
}


def about(function: Callable[..., Any]) -> About:
    """Read title, equations and source from a docstring.

    >>> from tabrl.prediction import td0
    >>> about(td0).title
    'TD(0)'
    >>> print(about(td0).equation)
    V(s) <- V(s) + alpha delta,   delta = r + discount V(s') - V(s)
    """
    text = inspect.getdoc(function) or ""
    title = text.partition("\n")[0].rstrip(".").replace("`", "")
    equation = next((part for part in text.split("\n\n") if part.startswith("    ")), "")
    source = text.partition("Source: ")[2].split("\n\n")[0]
    return About(title, dedent(equation).strip(), " ".join(source.split()))


def takes(name: str) -> tuple[str, ...]:
    """List the options that a learner takes.

    >>> takes("n-step-td")
    ('alpha', 'n')
    """
    parameters: Iterable[str] = inspect.signature(LEARNERS[name].load()).parameters
    if LEARNERS[name].kind == POLICY:
        from tabrl.learners.policies import KEYWORDS

        parameters = KEYWORDS[name]
    return tuple(x for x in OPTIONS if x in parameters)


def settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the options of a learner; ValueError for one that it does not take.

    >>> settings("td-lambda", {"lam": 0.5})
    {'trace': 'accumulating', 'alpha': 0.1, 'lam': 0.5}
    """
    learner, allowed = LEARNERS[name], takes(name)
    for x, value in given.items():
        if x not in allowed:
            raise ValueError(f"--{x} is {value}; {name} takes {', '.join('--' + y for y in allowed)}")
    own = {x: p.default for x, p in inspect.signature(learner.load()).parameters.items() if x in allowed}
    return {**{x: y for x, y in own.items() if y is not inspect.Parameter.empty}, **learner.defaults, **given}
