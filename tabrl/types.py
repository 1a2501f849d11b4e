"""Arrays and records shared by every layer.

S, A states and actions; k sweep or improvement; V (S,) values; Q (S,A) action values; pi (S,A) policy.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

F: TypeAlias = npt.NDArray[np.float64]
I: TypeAlias = npt.NDArray[np.int64]  # noqa: E741
B: TypeAlias = npt.NDArray[np.bool_]
N: TypeAlias = Any  # np.uint64, a whole number without sign
Index: TypeAlias = npt.NDArray[Any]  # whole numbers without sign
Matrix: TypeAlias = Any  # (m, n) NumPy array or scipy.sparse.csr_array


class Names(NamedTuple):
    """Labels of states and actions; an empty tuple where there are none."""

    states: tuple[str, ...] = ()  # S labels
    actions: tuple[str, ...] = ()  # A labels


class Sweep(NamedTuple):
    """One pass of a sweep method over all states."""

    k: int  # sweeps done
    V: F  # (S,) values after the sweep
    residual: float  # max |change| that the bound is computed from
    bound: float  # certified max |V - V_star| (or V_pi); inf where nothing is certified


class Improvement(NamedTuple):
    """One round of policy iteration: evaluate, then improve."""

    k: int  # rounds done
    V: F  # (S,) values of the policy that was evaluated
    residual: float  # max |T V - V|
    bound: float  # certified max |V - V_star|
    pi: F  # (S,A) the improved policy
    changed: int  # states whose action changed; 0 ends the iteration


class Stage(NamedTuple):
    """One stage of backward induction."""

    k: int  # steps to go
    V: F  # (S,) optimal value of the next k steps
    pi: F  # (S,A) optimal first decision with k steps to go
    bound: float  # certified max |V - exact V|, rounding included


class RelativeSweep(NamedTuple):
    """One pass of relative value iteration for the average reward."""

    k: int  # sweeps done
    h: F  # (S,) relative values, h[0] = 0
    gain: float  # middle of the certified interval for the optimal gain
    bound: float  # certified max |gain - gain_star(s)| over all states


class LinearProgram(NamedTuple):
    """The optimum of the Bellman linear program."""

    V: F  # (S,) primal values
    occupancy: F  # (S,A) dual: expected discounted visits from mu
    bound: float  # certified max |V - V_star|


class Solution(NamedTuple):
    """What a solver answers, and how far it can be from the truth."""

    V: F  # (S,)
    Q: F  # (S,A) r + gamma P V; 0 for illegal actions
    pi: F  # (S,A) deterministic, greedy in Q
    bound: float  # certified max |V - V_star|, rounding included; inf where there is no certificate
    policy_loss_bound: float  # certified max (V_star - V_pi)
    iterations: int
    converged: bool  # bound <= tol
    status: str  # "certified", "rounding floor", "iteration limit" or "not certifiable"
    method: str


class Episode(NamedTuple):
    """One episode, or a fragment of one."""

    s: I  # (T+1,) states
    a: I  # (T,) actions
    r: F  # (T,) the reward that follows a[t]
    discount: F  # (T,) gamma; 0 where s[t+1] is terminal; a time limit keeps gamma
    logp: F  # (T,) log pi(a[t]|s[t]) of the policy that acted


class Transitions(NamedTuple):
    """Steps of one or many episodes, one after the other."""

    s: I  # (n,)
    s_next: I  # (n,)
    r: F  # (n,)
    discount: F  # (n,) 0 where s_next is terminal
    last: B  # (n,) whether the episode ends with this step, terminated or cut


class ValueUpdate(NamedTuple):
    """The values after an update."""

    t: int  # transitions used so far
    V: F  # (S,), or (runs,S)
    delta: float  # last error: what the last update moved towards, less the old value


class ActionUpdate(NamedTuple):
    """The action values after an update."""

    t: int  # transitions used so far
    Q: F  # (S,A)
    delta: float  # last error: what the last update moved towards, less the old value


class PGStep(NamedTuple):
    """A softmax policy after an update."""

    k: int  # updates so far
    t: int  # transitions used so far
    theta: F  # (S,A) preferences
    V: F  # (S,) the critic; zeros where there is none
    J: float  # exact mu . V_pi of the policy; nan without a model
    cosine: float  # between the estimated gradient and the exact one; nan without a model, or where one is 0
    clip_fraction: float  # share of the batch in which the clip stopped the gradient
    kl: float  # mean over the states of the batch of KL(pi_old || pi), in nats
    entropy: float  # mean over the states of the batch, in nats
