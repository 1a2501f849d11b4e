"""gymnasium environments over an explicit model.

s state; a action; A number of actions; row s·A + a of the transition table.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tabrl.envs import render, sampling
from tabrl.errors import ModelError, ShapeError
from tabrl.mdp import MDP
from tabrl.types import B, F, I

Info = dict[str, Any]


class TabularEnv(gymnasium.Env[np.int64, int | np.int64]):
    """An explicit MDP as a gymnasium environment.

        s ~ mu at reset;   s' ~ P(·|s,a),  reward R(s,a,s'),  terminated where s' is terminal

    Observations and actions are the numbers of states and actions. `info["action_mask"]` (A,) int8 marks
    the legal actions, as `action_space.sample(mask)` takes them. reset(options={"state": s}) starts in s.
    An illegal action raises ModelError; a step after termination, ResetNeeded. There is no time limit:
    the registered environments get theirs from gymnasium. gamma is the model's, not the environment's.
    render_mode "ansi" writes the grid with '@' for the agent (or the state's name), "rgb_array" draws it.
    Source: the interface is gymnasium.Env's.

    >>> from tabrl.envs import random_walk
    >>> env = TabularEnv(random_walk(3))
    >>> s, _ = env.reset(seed=1)
    >>> int(s), [round(float(x), 1) for x in env.step(0)[1:2]]
    (2, [0.0])
    """

    metadata: ClassVar[Info] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # type: ignore[misc]

    def __init__(self, mdp: MDP, *, render_mode: str | None = None) -> None:
        self.mdp = mdp
        self.render_mode = check_mode(render_mode, self.metadata)
        self.observation_space = spaces.Discrete(mdp.S)
        self.action_space = spaces.Discrete(mdp.A)
        self.table, self.start = sampling.transitions(mdp), sampling.starts(mdp)
        self.s: int | None = None
        self.picture: tuple[render.Image, I, int] | None = None

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.int64, Info]:
        """Draw a start state from mu, or take options["state"]; return it with its action mask."""
        super().reset(seed=seed)
        if options and "state" in options:
            self.s = check_state(options["state"], self.mdp)
        else:
            self.s = int(self.start.s_next[self.pick(self.start, 0)])
        return np.int64(self.s), self.info(self.s)

    def step(self, action: int | np.int64) -> tuple[np.int64, float, bool, bool, Info]:
        """Draw the next state; return (s', reward, terminated, False, {"action_mask"})."""
        if self.s is None or self.mdp.terminal[self.s]:
            raise ResetNeeded("the episode is over or was not begun; call reset() before step()")
        a = check_action(action, self.s, self.mdp)
        entry = self.pick(self.table, self.s * self.mdp.A + a)
        self.s = int(self.table.s_next[entry])
        return np.int64(self.s), float(self.table.x[entry]), bool(self.mdp.terminal[self.s]), False, self.info(self.s)

    def pick(self, table: sampling.Table, row: int) -> int:
        """Draw one entry of a row, with one uniform number."""
        low, high = table.indptr[row], table.indptr[row + 1]
        k = np.searchsorted(table.total[low:high], self.np_random.random(), side="right")
        return int(min(low + k, high - 1))

    def info(self, s: int) -> Info:
        """Return the action mask of state s."""
        return {"action_mask": self.mdp.legal[s].astype(np.int8)}

    def render(self) -> Any:
        """Return the text or the (height, width, 3) uint8 image of the current state; None without a mode."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() without a render_mode; give render_mode="ansi" or "rgb_array"')
            return None
        if self.s is None:
            raise ResetNeeded("there is no state to draw; call reset() before render()")
        if self.render_mode == "ansi":
            return render.text(self.mdp, self.s)
        if self.picture is None:
            self.picture = render.background(self.mdp)
        picture, cell, px = self.picture
        return render.with_agent(picture, cell[self.s], px)


class TabularVectorEnv(VectorEnv[I, I, I]):
    """Many copies of an explicit MDP, stepped together in NumPy.

    Each copy follows the rules of `TabularEnv` with uniform numbers of its own from one generator. A copy
    that ended is reset by the next step, which ignores its action and pays 0 (AutoresetMode.NEXT_STEP).
    max_episode_steps truncates after that many steps. Info holds "action_mask" (num_envs, A) int8.
    reset(options={"reset_mask": (num_envs,) bool}) resets only the marked copies.
    Source: the interface is gymnasium.vector.VectorEnv's.

    >>> from tabrl.envs import random_walk
    >>> env = TabularVectorEnv(random_walk(3), num_envs=2)
    >>> env.reset(seed=0)[0]
    array([2, 2])
    """

    metadata: ClassVar[Info] = {  # type: ignore[misc]
        "render_modes": ["ansi", "rgb_array"], "render_fps": 4, "autoreset_mode": AutoresetMode.NEXT_STEP,
    }  # fmt: skip

    def __init__(
        self, mdp: MDP, *, num_envs: int = 1, max_episode_steps: int | None = None, render_mode: str | None = None
    ) -> None:
        self.mdp, self.num_envs, self.max_episode_steps = mdp, num_envs, max_episode_steps
        self.render_mode = check_mode(render_mode, self.metadata)
        self.single_observation_space = spaces.Discrete(mdp.S)
        self.single_action_space = spaces.Discrete(mdp.A)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.table, self.start = sampling.transitions(mdp), sampling.starts(mdp)
        self.s: I | None = None
        self.steps = np.zeros(num_envs, np.int64)
        self.over = np.zeros(num_envs, np.bool_)
        self.picture: tuple[render.Image, I, int] | None = None

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[I, Info]:
        """Draw start states from mu, for all copies or those of options["reset_mask"]."""
        super().reset(seed=seed)
        which = np.ones(self.num_envs, np.bool_)
        if options and "reset_mask" in options:
            which = check_mask(options["reset_mask"], self.num_envs)
        s = np.zeros(self.num_envs, np.int64) if self.s is None else self.s
        if self.s is None and not which.all():
            raise ResetNeeded("a copy was never reset; reset all of them first")
        self.s = np.where(which, self.begin(), s)
        self.steps[which], self.over[which] = 0, False
        return self.s.copy(), self.info(self.s)

    def step(self, actions: I) -> tuple[I, F, B, B, Info]:  # type: ignore[override]
        """Advance every copy; return (s', reward, terminated, truncated, info), arrays of (num_envs,)."""
        if self.s is None:
            raise ResetNeeded("no episode was begun; call reset() before step()")
        a = check_actions(actions, self.s, self.over, self.mdp)
        again = self.over
        row = np.where(again, self.table_row, self.s * self.mdp.A + a)
        entry = sampling.draw(self.table, row, self.np_random.random(self.num_envs))
        s_next = np.where(again, self.begin() if again.any() else 0, self.table.s_next[entry])
        reward = np.where(again, 0.0, self.table.x[entry])
        self.steps = np.where(again, 0, self.steps + 1)
        terminated = self.mdp.terminal[s_next]
        limit = np.inf if self.max_episode_steps is None else self.max_episode_steps
        truncated = self.steps >= limit
        self.s, self.over = s_next, terminated | truncated
        return s_next.copy(), reward, terminated, truncated, self.info(s_next)

    @property
    def table_row(self) -> int:
        """A row that has entries, read in place of a finished copy's."""
        return int(np.argmax(np.diff(self.table.indptr) > 0))

    def begin(self) -> I:
        """Draw a start state for every copy."""
        u = self.np_random.random(self.num_envs)
        return self.start.s_next[sampling.draw(self.start, np.zeros(self.num_envs, np.int64), u)]

    def info(self, s: I) -> Info:
        """Return the action masks, and which copies have one (all), as gymnasium's vectors write infos."""
        return {"action_mask": self.mdp.legal[s].astype(np.int8), "_action_mask": np.ones(len(s), np.bool_)}

    def render(self) -> tuple[Any, ...] | None:
        """Return one text or image per copy; None without a render_mode."""
        if self.render_mode is None:
            return None
        if self.s is None:
            raise ResetNeeded("there is no state to draw; call reset() before render()")
        if self.render_mode == "ansi":
            return tuple(render.text(self.mdp, s) for s in self.s.tolist())
        if self.picture is None:
            self.picture = render.background(self.mdp)
        picture, cell, px = self.picture
        return tuple(render.with_agent(picture, cell[s], px) for s in self.s)


def check_mode(mode: str | None, metadata: Info) -> str | None:
    """Refuse an unknown render mode."""
    if mode not in (None, *metadata["render_modes"]):
        raise ValueError(f"render_mode is {mode!r}; None or one of {metadata['render_modes']} is expected")
    return mode


def check_state(s: Any, mdp: MDP) -> int:
    """Refuse a start that is not the number of a non-terminal state."""
    if isinstance(s, bool) or not isinstance(s, int | np.integer) or not 0 <= s < mdp.S or mdp.terminal[s]:
        raise ModelError(f"options['state'] is {s!r}; the number of a non-terminal state below {mdp.S} is expected")
    return int(s)


def check_action(a: Any, s: int, mdp: MDP) -> int:
    """Refuse what is not the number of a legal action of state s."""
    if not np.issubdtype(np.asarray(a).dtype, np.integer) or np.ndim(a) or not 0 <= a < mdp.A or not mdp.legal[s, a]:
        legal = np.flatnonzero(mdp.legal[s]).tolist()
        raise ModelError(
            f"action[s={s}] is {a!r}; one of the legal actions {legal} is expected; see info['action_mask']"
        )
    return int(a)


def check_actions(actions: Any, s: I, over: B, mdp: MDP) -> I:
    """Refuse what is not one legal action per copy; finished copies are not checked."""
    a = np.asarray(actions)
    if a.shape != s.shape or a.dtype.kind not in "iu":
        raise ShapeError(f"actions has shape {a.shape} and dtype {a.dtype}; {s.shape} integers are expected")
    a = a.astype(np.int64)
    inside = (a >= 0) & (a < mdp.A)
    wrong = ~over & ~(inside & mdp.legal[s, np.where(inside, a, 0)])
    if wrong.any():
        i = int(np.argmax(wrong))
        legal = np.flatnonzero(mdp.legal[s[i]]).tolist()
        raise ModelError(f"actions[{i}] is {a[i]} in state {s[i]}; one of the legal actions {legal} is expected")
    return np.where(over, 0, a)


def check_mask(mask: Any, num_envs: int) -> B:
    """Refuse what is not one boolean per copy."""
    which = np.asarray(mask)
    if which.shape != (num_envs,) or which.dtype != np.bool_:
        raise ShapeError(
            f"reset_mask has shape {which.shape} and dtype {which.dtype}; {(num_envs,)} booleans are expected"
        )
    return which
