"""Acting with a fixed policy on gymnasium environments, one or many copies at once.

pi (S,A) policy; N copies; s (N,) where they stand; legal (S,A) actions that the environment has not forbidden so far.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from tabrl.control.acting import Rng, world
from tabrl.errors import ModelError
from tabrl.rollout_kernels import draw_action
from tabrl.sample import numbered
from tabrl.types import B, F, I


class One:
    """A single environment as a vector of one that never resets itself."""

    num_envs, mode = 1, "Disabled"

    def __init__(self, env: Any) -> None:
        self.env = env
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed)
        return [observation], one_info(info)

    def step(self, a: I) -> tuple[Any, ...]:
        """Take one step."""
        observation, r, terminated, truncated, info = self.env.step(int(a[0]))
        return [observation], np.array([float(r)]), np.array([terminated]), np.array([truncated]), one_info(info)

    def each(self, observations: Any) -> Any:
        """Observations of the copies."""
        return observations


class Many:
    """A gymnasium vector environment."""

    def __init__(self, env: Any) -> None:
        self.env, self.num_envs = env, int(env.num_envs)
        mode = env.metadata.get("autoreset_mode")
        if mode is None:
            raise ModelError("metadata['autoreset_mode'] is None; a gymnasium.vector.AutoresetMode is expected")
        self.mode = str(getattr(mode, "value", mode))
        self.single_observation_space, self.single_action_space = env.single_observation_space, env.single_action_space
        self.reset, self.step = env.reset, env.step

    def each(self, observations: Any) -> Any:
        """Observations of the copies."""
        from gymnasium.vector.utils import iterate

        return iterate(self.env.observation_space, observations)


class Copies:
    """Acting on the copies of an environment, in rounds of one step each.

    The first reset is seeded from rng; later ones leave the environment's own generator running.
    """

    def __init__(self, source: Any, rng: Rng, gamma: float | None, limit: int) -> None:
        self.env: One | Many = Many(source) if hasattr(source, "single_action_space") else One(source)
        one = self.env.single_observation_space, self.env.single_action_space
        self.gamma, self.legal = world(SimpleNamespace(observation_space=one[0], action_space=one[1]), gamma)
        self.number, self.first = numbered(one[0]), int(one[1].start)
        self.rng, self.limit, self.N = rng, limit, self.env.num_envs
        self.s = np.full(self.N, -1)
        self.count = np.zeros(self.N, np.int64)  # steps of the running episodes
        self.resets = np.zeros(self.N, np.bool_)  # copies whose next step is a reset
        self.begun = False

    def steps(self, pi: F, n: int) -> tuple[Any, ...]:
        """Take rounds until n steps or more were taken; mark where each of many copies is broken off."""
        if not self.begun:
            self.begin()
        rounds: list[Any] = []
        taken = 0
        while taken < n:
            rounds.append(self.round(pi))
            taken += int(rounds[-1][0].sum())
        return copy_by_copy(rounds, broken_off=self.N > 1)

    def episodes(self, pi: F, n: int) -> tuple[Any, ...]:
        """Play n episodes, n/N by each copy; the first copies play one more where that is no whole number."""
        self.begin()
        todo = n // self.N + (np.arange(self.N) < n % self.N)
        rounds: list[Any] = []
        while todo.any():
            on, *columns, last, p = self.round(pi)
            on = on & (todo > 0)
            todo = todo - (on & last)
            rounds.append((on, *columns, last, p))
        return copy_by_copy(rounds, broken_off=False)

    def begin(self) -> None:
        """Reset all copies."""
        seed = None if self.begun else int(self.rng.integers(2**31))
        observations, info = self.env.reset(seed=seed)
        self.begun = True
        self.s = self.numbers(observations)
        self.count[:], self.resets[:] = 0, False
        self.see(info)

    def round(self, pi: F) -> tuple[Any, ...]:
        """One step of every copy: (whether it was a transition, s, a, r, discount, s_next, last, p), each (N,)."""
        on, s = ~self.resets, self.s
        a, p = self.choose(pi, s)
        observations, r, terminated, truncated, info = self.env.step(a + self.first)
        over = terminated | truncated
        now = self.numbers(observations)
        s_next = self.final(now, over, info)
        self.count = np.where(on, self.count + 1, 0)
        cut = on & ~over & (self.count >= self.limit)
        self.s = now
        self.see(info)
        self.go_on(over, cut)
        return on, s, a, np.asarray(r, np.float64), np.where(terminated, 0.0, self.gamma), s_next, over | cut, p

    def choose(self, pi: F, s: I) -> tuple[I, F]:
        """Draw an action for each copy, and say how likely it was; what is illegal has no share."""
        rows = pi[s]
        for i in np.flatnonzero(((rows > 0) & ~self.legal[s]).any(axis=1)):
            left = np.where(self.legal[s[i]], rows[i], 0.0)
            left = left if left.any() else self.legal[s[i]].astype(np.float64)
            rows[i] = left / left.sum()
        u = self.rng.random(self.N)
        a = np.array([draw_action(rows, i, u[i]) for i in range(self.N)])
        return a, rows[np.arange(self.N), a]

    def go_on(self, over: B, cut: B) -> None:
        """Start the next episodes, each as its environment wants it."""
        self.resets = over & (self.env.mode == "NextStep")
        by_hand = cut | over if self.env.mode == "Disabled" else cut
        if by_hand.any():
            observations, info = self.env.reset(options={"reset_mask": by_hand})
            self.s = np.where(by_hand, self.numbers(observations), self.s)
            self.see(info)
        self.count[over | cut] = 0

    def final(self, now: I, over: B, info: Any) -> I:
        """States that followed, where a copy that has ended shows the next start already."""
        if self.env.mode != "SameStep" or not over.any():
            return now
        s_next = now.copy()
        s_next[over] = [self.number(x) for x in info["final_obs"][over]]
        return s_next

    def numbers(self, observations: Any) -> I:
        """Numbers of the observed states (N,)."""
        return np.array([self.number(x) for x in self.env.each(observations)])

    def see(self, info: Any) -> None:
        """Take over the legal actions of the states where the environment lists them."""
        for i in np.flatnonzero(info.get("_action_mask", np.zeros(self.N))):
            mask = np.asarray(info["action_mask"][i], np.bool_)
            self.legal[self.s[i]] = mask if mask.any() else True


def one_info(info: Any) -> Any:
    """The legal actions, as a vector environment lists them."""
    return {"action_mask": [info["action_mask"]], "_action_mask": [True]} if "action_mask" in info else {}


def copy_by_copy(rounds: list[Any], *, broken_off: bool) -> tuple[Any, ...]:
    """Columns (T,N) of rounds as one column after the other, without what was no transition."""
    on, *columns = (np.stack(x).T for x in zip(*rounds, strict=True))
    last = columns[5]
    if broken_off:
        final = len(rounds) - 1 - np.argmax(on[:, ::-1], axis=1)
        last[np.arange(len(on)), final] = True
    return tuple(x[on] for x in columns)
