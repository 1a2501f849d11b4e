"""Keeping book of a gymnasium environment while a learner plays."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tabrl import control, envs
from tabrl.errors import ModelError
from tabrl.learners.watched import Watched
from tabrl.mdp import MDP
from tabrl.trace import last


class Corridor(gymnasium.Env[int, int]):
    """Steps 0, 1, 2, end; action 1 is illegal in state 1; each step pays its number."""

    observation_space: Any = spaces.Discrete(3)
    action_space: Any = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.s = 0
        return 0, {"action_mask": np.array([1, 1])}

    def step(self, action: int) -> Any:
        assert action == 0 or self.s != 1
        self.s += 1
        mask = np.array([1, 0]) if self.s == 1 else np.array([1, 1])
        return self.s % 3, float(self.s), self.s == 3, False, {"action_mask": mask}


def test_returns_and_legal_actions_are_booked() -> None:
    env = Watched(Corridor())
    learner = control.q_learning(env, np.random.default_rng(0), alpha=0.5, eps=1.0, gamma=0.9, every=7)
    next(learner)
    env.next_run()
    assert env.runs == [[6.0, 6.0]]  # two whole episodes of three steps; the third is not finished
    assert env.legal.tolist() == [[True, True], [True, False], [True, True]]
    assert env.model(0.9) is None
    env.next_run()
    assert env.runs[1] == [] and np.isnan(env.last_returns()[1]) and env.last_returns()[0] == 6.0


def test_the_last_tenth_counts() -> None:
    env = Watched(Corridor())
    env.runs = [[float(x) for x in range(100)], [1.0, 5.0]]
    assert env.last_returns().tolist() == [np.mean(range(90, 100)), 5.0]


def test_an_episode_that_the_learner_cuts_counts_too() -> None:
    env = Watched(Corridor())
    next(control.q_learning(env, np.random.default_rng(0), alpha=0.5, eps=1.0, gamma=0.9, every=4, limit=2))
    env.reset()
    assert env.episodes == [3.0, 3.0]


def test_the_model_knows_the_masks_and_the_extra_state() -> None:
    env = Watched(gymnasium.make("Taxi-v4"))
    whole = MDP.from_gym(env.env, 0.9)
    full = env.model(0.9)
    assert full is not None and full.legal.all()
    last([next(control.q_learning(env, np.random.default_rng(0), alpha=0.5, gamma=0.9, every=500))])
    masked = env.model(0.9)
    assert masked is not None and masked.S == whole.S == 501 and not masked.legal.all()
    assert (masked.legal[:500] == env.legal | whole.terminal[:500, None]).all()
    rows, all_rows = masked.csr.toarray(), whole.csr.toarray()
    legal = masked.legal.ravel()
    assert (rows[legal] == all_rows[legal]).all() and (rows[~legal] == 0).all()
    assert (masked.r[masked.legal] == whole.r[masked.legal]).all()
    assert env.pad(np.ones((2, 500, 6)), 501).sum() == 2 * 500 * 6


def test_other_attributes_are_the_environments() -> None:
    env = Watched(gymnasium.make("FrozenLake-v1"))
    assert env.spec.id == "FrozenLake-v1" and env.observation_space.n == 16
    model = env.model(0.9)
    assert model is not None and model.S == envs.frozen_lake().S


def test_what_cannot_be_numbered_is_refused() -> None:
    with pytest.raises(ModelError, match="observation_space is Box"):
        Watched(gymnasium.make("CartPole-v1"))
    env = Corridor()
    env.action_space = spaces.Box(0, 1)
    with pytest.raises(ModelError, match="action_space is Box"):
        Watched(env)
