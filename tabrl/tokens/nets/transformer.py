"""A small causal transformer over tokens: every position attends to itself and to what stands before it.

    x <- x + attention(norm(x)),   x <- x + mlp(norm(x)),   attention = softmax(q.k / sqrt(d)) v   in every head

Position 0 is the prompt, position t the t-th token; D the width, d = D / heads. K prompts, V tokens; B sequences of T
tokens; N prefixes. The features of a prefix are those of its last position. Source: Vaswani et al. (2017), Attention is
all you need, with the norms before the parts as in GPT-2 (Radford et al. 2019).
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch.nn import functional

from tabrl.control.acting import Rng
from tabrl.on_policy import positive_count
from tabrl.tokens.nets.parameters import Named, Tensor
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import Tree
from tabrl.types import F

Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer; q, k, v (…,heads,d) to (…,heads,d)
Levels: TypeAlias = tuple[Tensor, ...]
Memory: TypeAlias = list[tuple[Tensor, Tensor]]  # keys and values (B,t,heads,d) of each layer


class TransformerBody:
    """Features of prefixes: the last position of a causal transformer. All methods are functions of parameters.

    width: D, a multiple of heads.
    """

    lr = 0.001

    def __init__(self, task: TokenTask, width: int, heads: int, layers: int) -> None:
        for name, x in (("width", width), ("heads", heads), ("layers", layers)):
            positive_count(name, x)
        if width % heads:
            raise ValueError(f"width is {width}; a multiple of heads = {heads} is expected")
        self.K, self.V, self.L = task.K, task.V, task.length
        self.width, self.heads, self.layers = width, heads, layers

    def start(self, rng: Rng) -> dict[str, F]:
        """Parameters to begin with: weights of variance 1 / inputs; what is added to x smaller by 1/sqrt(2 layers)."""
        D, small = self.width, (2 * self.layers) ** -0.5
        found = {
            "prompt": rng.normal(size=(self.K, D)),
            "token": rng.normal(size=(self.V, D)),
            "position": rng.normal(size=(self.L, D)),
        }
        for i in range(self.layers):
            found |= norm_start(f"{i} attention norm", D) | norm_start(f"{i} mlp norm", D)
            found |= linear_start(f"{i} qkv", rng, D, 3 * D) | linear_start(f"{i} mix", rng, D, D, small)
            found |= linear_start(f"{i} up", rng, D, 4 * D) | linear_start(f"{i} down", rng, 4 * D, D, small)
        return found | norm_start("norm", D)

    def prefixes(self, p: Named, tree: Tree) -> list[Tensor]:
        """Features of all prefixes: each of them is one position, and shares its ancestors with others."""
        size = [b - a for a, b in zip(tree.start[:-1], tree.start[1:], strict=True)]
        x = [p["prompt"] + p["position"][0]]
        for t in range(1, tree.L):
            x.append((p["token"][: tree.C] + p["position"][t]).repeat(size[t - 1], 1))

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return along_tree(q.split_with_sizes(size), k.split_with_sizes(size), v.split_with_sizes(size))

        return [self.blocks(p, torch.cat(x), attend)]

    def sequences(self, p: Named, prompt: Tensor, tokens: Tensor) -> Tensor:
        """Features (B,T,D) before each of the tokens (B,T)."""
        before = tokens[:, :-1]
        x = p["token"].index_select(0, before.reshape(-1)).view(*before.shape, self.width)
        x = torch.cat([p["prompt"].index_select(0, prompt)[:, None], x], 1) + p["position"][: tokens.shape[1]]
        return self.blocks(p, x, lambda i, q, k, v: attention(q, k, v))

    def begin(self, p: Named, prompt: Tensor) -> tuple[Tensor, Memory]:
        """Features (B,D) of empty prefixes, and the keys and values of their positions."""
        empty = p["token"].new_empty(len(prompt), 0, self.heads, self.width // self.heads)
        return self.grow(p, [(empty, empty)] * self.layers, p["prompt"].index_select(0, prompt))

    def advance(self, p: Named, memory: Memory, token: Tensor) -> tuple[Tensor, Memory]:
        """Features (B,D) one token (B,) later; only the new position is computed."""
        return self.grow(p, memory, p["token"].index_select(0, token))

    def grow(self, p: Named, memory: Memory, new: Tensor) -> tuple[Tensor, Memory]:
        """Add a position (B,D) to the sequences in memory."""
        grown: Memory = []

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            grown.append((torch.cat([memory[i][0], k], 1), torch.cat([memory[i][1], v], 1)))
            return attention(q, *grown[i])

        x = (new + p["position"][memory[0][0].shape[1]])[:, None]
        return self.blocks(p, x, attend)[:, 0], grown

    def blocks(self, p: Named, x: Tensor, attend: Attend) -> Tensor:
        """The layers on positions x (…,D); `attend` knows which positions see which."""
        for i in range(self.layers):
            qkv = linear(p, f"{i} qkv", norm(p, f"{i} attention norm", x))
            q, k, v = qkv.view(*x.shape[:-1], 3, self.heads, -1).unbind(-3)
            x = x + linear(p, f"{i} mix", attend(i, q, k, v).flatten(-2))
            x = x + linear(p, f"{i} down", functional.gelu(linear(p, f"{i} up", norm(p, f"{i} mlp norm", x))))
        return norm(p, "norm", x)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What the last T of S positions read: queries (B,T,heads,d), keys and values (B,S,heads,d), none behind."""
    T, S = q.shape[1], k.shape[1]
    score = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    if T > 1:
        behind = torch.ones(T, S, dtype=torch.bool, device=q.device).triu(S - T + 1)
        score = score.masked_fill(behind, -torch.inf)
    return torch.einsum("bhts,bshd->bthd", torch.softmax(score, -1), v)


def along_tree(q: Levels, k: Levels, v: Levels) -> Tensor:
    """Attention of every prefix to its ancestors and itself; q, k, v hold a tensor (n,heads,d) for each level.

    A prefix inherits the keys and values of its parent, and adds its own.
    """
    keys, values = k[0][:, None], v[0][:, None]
    found = [attention(q[0][:, None], keys, values)]
    for query, key, value in zip(q[1:], k[1:], v[1:], strict=True):
        keys, values = inherited(keys, key), inherited(values, value)
        found.append(attention(query[:, None], keys, values))
    return torch.cat(found)[:, 0]


def inherited(memory: Tensor, new: Tensor) -> Tensor:
    """The memory (n,t,heads,d) of the parents of n C new positions (n C,heads,d), with these: (n C,t+1,heads,d)."""
    n, *shape = memory.shape
    below = memory[:, None].expand(n, len(new) // n, *shape).reshape(len(new), *shape)
    return torch.cat([below, new[:, None]], 1)


def linear_start(name: str, rng: Rng, inputs: int, outputs: int, scale: float = 1.0) -> dict[str, F]:
    """Weights and a bias of zeros."""
    W = rng.normal(size=(outputs, inputs)) * scale / inputs**0.5
    return {f"{name} weight": W, f"{name} bias": np.zeros(outputs)}


def norm_start(name: str, D: int) -> dict[str, F]:
    """Scales of one and shifts of zero."""
    return {f"{name} weight": np.ones(D), f"{name} bias": np.zeros(D)}


def linear(p: Named, name: str, x: Tensor) -> Tensor:
    """The affine map of a name."""
    return functional.linear(x, p[f"{name} weight"], p[f"{name} bias"])


def norm(p: Named, name: str, x: Tensor) -> Tensor:
    """The layer norm of a name."""
    return functional.layer_norm(x, x.shape[-1:], p[f"{name} weight"], p[f"{name} bias"])
