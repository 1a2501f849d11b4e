"""A body with a linear head: a policy over tokens, or a critic.

A body makes features (…,H) of prefixes; the head makes V logits of them, or one value. N prefixes, B sequences of at
most T tokens, n parameters. What passes return is detached; `pull` holds the graph until it is called, once.
"""

import copy
from typing import Any, Protocol, Self

import numpy as np
import torch

from tabrl.control.acting import Rng
from tabrl.tokens.nets.parameters import Named, Tensor, device_of, parameters, precision
from tabrl.tokens.policy import Pull, State
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import Tree
from tabrl.types import F


class Body(Protocol):
    """Functions of parameters that make features of prefixes."""

    width: int  # H
    lr: float  # a step size of Adam that suits it

    def start(self, rng: Rng) -> dict[str, F]:
        """Parameters to begin with."""

    def prefixes(self, p: Named, tree: Tree) -> list[Tensor]:
        """Features of all prefixes: tensors of together N rows, in order."""

    def sequences(self, p: Named, prompt: Tensor, tokens: Tensor) -> Tensor:
        """Features (B,T,H) before each token."""

    def begin(self, p: Named, prompt: Tensor) -> tuple[Tensor, State]:
        """Features (B,H) of empty prefixes, and what to remember."""

    def advance(self, p: Named, memory: State, token: Tensor) -> tuple[Tensor, State]:
        """Features (B,H) one token (B,) later."""


class Network:
    """A body and a linear head of so many columns.

    rng draws the parameters, on the CPU in float64: they are the same on every device. head: the scale of the head's
    weights, whose standard deviation is head / sqrt(H); a small one makes the first policy close to uniform, so that
    every token is tried, and the first values close to 0. device: "cpu", "cuda", or "auto" for CUDA where there is
    some. dtype: "float32" or "float64", or torch's. Raises ValueError.
    """

    def __init__(
        self,
        task: TokenTask,
        rng: Rng,
        body: Body,
        columns: int,
        *,
        head: float = 0.01,
        device: str = "auto",
        dtype: Any = "float32",
    ) -> None:
        self.task, self.body, self.columns, self.lr = task, body, columns, body.lr
        self.device, self.dtype = device_of(device), precision(dtype)
        start = body.start(rng)
        start["head"] = head * rng.normal(size=(body.width, columns)) / body.width**0.5
        start["head bias"] = np.zeros(columns)
        self.parameters = parameters(start, self.device, self.dtype)
        self.tree = Tree._make(self.asarray(x) if isinstance(x, np.ndarray) else x for x in task.tree)

    @property
    def theta(self) -> Tensor:
        """A copy of all parameters (n,); setting it writes them."""
        return self.parameters.flat.clone()

    @theta.setter
    def theta(self, new: Any) -> None:
        self.parameters.set(new)

    def copy(self) -> Self:
        """Another network with the same parameters, not shared."""
        twin = copy.copy(self)
        twin.parameters = self.parameters.copy()
        return twin

    def asarray(self, x: Any) -> Tensor:
        """A tensor on the network's device; floats in its type. Arrays are copied."""
        y = x if isinstance(x, Tensor) else torch.as_tensor(np.array(x))
        return y.to(self.device, self.dtype if y.is_floating_point() else y.dtype)

    def head(self, features: Tensor) -> Tensor:
        """The columns (n,columns) of features (n,H)."""
        p = self.parameters.named
        return torch.addmm(p["head bias"], features, p["head"])

    def outputs(self) -> Tensor:
        """The columns of all prefixes (N,columns), with their graph."""
        return torch.cat([self.head(x) for x in self.body.prefixes(self.parameters.named, self.tree)])

    def fewer(self, tokens: int) -> bool:
        """Whether the task has no more prefixes than so many tokens, so that all of them are less work than these."""
        return bool(self.tree.N <= tokens)  # noqa: SIM300

    def all_prefixes(self) -> tuple[Tensor, Pull]:
        """The columns of all prefixes (N,columns)."""
        with torch.enable_grad():
            found = self.outputs()
        return found.detach(), self.parameters.pull(found)

    def along(self, x: Rollouts) -> tuple[Tensor, Pull]:
        """The columns (B,T,columns) of the prefix before each token.

        A small task's prefixes are fewer than the tokens of a batch: then all of them are computed, and looked up.
        """
        if self.fewer(x.row.numel()):
            found, pull = self.all_prefixes()
            return looked_up(found, x.row), lambda slope: pull(added_up(found, x.row, slope.detach()))
        with torch.enable_grad():
            features = self.body.sequences(self.parameters.named, x.prompt, x.tokens)
            z = self.head(features.flatten(0, 1)).view(*x.row.shape, self.columns)
        return z.detach(), self.parameters.pull(z)


class NetworkLM(Network):
    """A policy over tokens: a body whose head makes V logits. See `Network` for the arguments. Ledger E2.1."""

    def __init__(self, task: TokenTask, rng: Rng, body: Body, **settings: Any) -> None:
        super().__init__(task, rng, body, task.V, **settings)

    def logits(self) -> tuple[Tensor, Pull]:
        """Logits (N,V) of every prefix."""
        return self.all_prefixes()

    def rows(self, x: Rollouts) -> tuple[Tensor, Pull]:
        """Logits (B,T,V) before each token of given sequences."""
        return self.along(x)

    @torch.no_grad()
    def begin(self, prompt: Tensor) -> tuple[Tensor, State]:
        """Logits (B,V) of the first tokens; what is remembered is all logits of a small task, else the body's."""
        if self.fewer(len(prompt) * self.tree.L):
            table = self.outputs()
            return table.index_select(0, prompt), (table, None)
        features, memory = self.body.begin(self.parameters.named, prompt)
        return self.head(features), (None, memory)

    @torch.no_grad()
    def advance(self, state: State, token: Tensor, row: Tensor) -> tuple[Tensor, State]:
        """Logits (B,V) one token later."""
        table, memory = state
        if table is not None:
            return table.index_select(0, row), state
        features, memory = self.body.advance(self.parameters.named, memory, token)
        return self.head(features), (None, memory)

    def uniforms(self, rng: Rng, shape: tuple[int, ...]) -> Tensor:
        """Random numbers in [0, 1), made on the device from a seed that rng draws."""
        generator = torch.Generator(self.device)
        generator.manual_seed(int(rng.integers(2**63)))
        return torch.rand(shape, generator=generator, device=self.device, dtype=self.dtype)


class Critic(Network):
    """Values of prefixes: a body whose head makes one number. See `Network` for the arguments. Ledger E2.2."""

    def __init__(self, task: TokenTask, rng: Rng, body: Body, **settings: Any) -> None:
        super().__init__(task, rng, body, 1, **settings)

    def values(self, x: Rollouts) -> tuple[Tensor, Pull]:
        """Values (B,T) of the prefix before each token of given sequences."""
        v, pull = self.along(x)
        return v[..., 0], lambda slope: pull(slope[..., None])

    def all(self) -> tuple[Tensor, Pull]:
        """Values (N,) of every prefix."""
        v, pull = self.all_prefixes()
        return v[:, 0], lambda slope: pull(slope[:, None])


def looked_up(table: Tensor, row: Tensor) -> Tensor:
    """Rows (B,T,…) of a table (N,…)."""
    return table.index_select(0, row.reshape(-1)).view(*row.shape, *table.shape[1:])


def added_up(table: Tensor, row: Tensor, slope: Tensor) -> Tensor:
    """Slopes (B,T,…) added into the rows of a table (N,…) that they belong to."""
    return torch.zeros_like(table).index_add_(0, row.reshape(-1), slope.flatten(0, 1))
