"""A gymnasium environment that keeps book while a learner plays: returns of episodes, and which actions were legal.

Q (…,S,A) action values; legal (S,A), all actions unless the environment lists them.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

from tabrl.control.acting import size
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.sample import numbered
from tabrl.types import F


class Watched:
    """The environment, with the undiscounted return of every finished episode of every run.

    An episode that the learner itself cuts counts when the next one starts. Everything else is the environment's.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.number = numbered(env.observation_space)
        A = getattr(env.action_space, "n", None)
        if A is None:
            raise ModelError(f"action_space is {env.action_space}; a discrete space is expected")
        self.legal = np.ones((size(env.observation_space), int(A)), np.bool_)
        self.runs: list[list[float]] = []
        self.episodes: list[float] = []
        self.total: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, **keywords: Any) -> Any:
        """Begin an episode."""
        self.close_episode()
        observation, information = self.env.reset(**keywords)
        self.see(observation, information)
        return observation, information

    def step(self, action: Any) -> Any:
        """Take one step, and add up its reward."""
        observation, reward, terminated, truncated, information = self.env.step(action)
        self.total = (self.total or 0.0) + float(reward)
        self.see(observation, information)
        if terminated or truncated:
            self.close_episode()
        return observation, reward, terminated, truncated, information

    def see(self, observation: Any, information: Any) -> None:
        """Note the legal actions, where the environment lists them."""
        if "action_mask" in information:
            mask = np.asarray(information["action_mask"], np.bool_)
            self.legal[self.number(observation)] = mask if mask.any() else True

    def close_episode(self) -> None:
        """Book the return of the running episode, if a step was taken."""
        if self.total is not None:
            self.episodes.append(self.total)
        self.total = None

    def next_run(self) -> None:
        """Book the episodes so far as one run; the unfinished one does not count."""
        self.runs.append(self.episodes)
        self.episodes, self.total = [], None

    def last_returns(self, share: float = 0.1) -> F:
        """Average return of the last episodes of each run, (runs,); nan for a run without a finished one."""
        parts = [run[-max(1, int(len(run) * share)) :] for run in self.runs]
        return np.array([np.mean(part) if part else np.nan for part in parts])

    def model(self, gamma: float) -> MDP | None:
        """The model that some environments carry, with the actions that were legal; None where there is none."""
        if not hasattr(self.env.unwrapped, "P"):
            return None
        mdp = MDP.from_gym(self.env, gamma)
        free = np.ones((mdp.S - len(self.legal), mdp.A), np.bool_)  # the model may have one state more: the end
        legal = np.vstack([self.legal, free]) | mdp.terminal[:, None]
        if legal.all():
            return mdp
        on = legal.astype(np.float64)
        P: Any = sp.csr_array(sp.diags_array(on.ravel()) @ mdp.P) if mdp.is_sparse else mdp.P * on[:, :, None]
        return MDP(P, mdp.R, gamma, mu=mdp.mu, terminal=mdp.terminal, legal=legal, names=mdp.names)

    def pad(self, Q: F, S: int) -> F:
        """Q (…,S,A) with zeros for the states that only the model has."""
        extra = np.zeros((*Q.shape[:-2], S - Q.shape[-2], Q.shape[-1]))
        return np.concatenate([Q, extra], axis=-2)
