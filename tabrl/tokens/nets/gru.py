"""The gated recurrent unit over tokens: a state of H numbers that each token changes.

    r = sigmoid(W_r x + U_r h + b_r),   z = sigmoid(W_z x + U_z h + b_z)
    c = tanh(W_c x + r (U_c h + b_c)),  h' = (1 - z) c + z h

x is one-hot, so W x is a row of the table "token" (V,3H); the empty prefix of prompt k has the state in row k of the
table "prompt" (K,H). K prompts, V tokens, C of them continue; B sequences of T tokens; N prefixes. Source: Cho et al.
(2014), Learning phrase representations, with the reset gate behind U and z the share that is kept, as in torch.nn.GRU.
"""

import numpy as np
import torch

from tabrl.control.acting import Rng
from tabrl.on_policy import positive_count
from tabrl.tokens.nets.parameters import Named, Tensor
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import Tree
from tabrl.types import F


class GRUBody:
    """Features of prefixes: the state of a gated recurrent unit. hidden: H. All methods are functions of parameters."""

    lr = 0.003

    def __init__(self, task: TokenTask, hidden: int) -> None:
        positive_count("hidden", hidden)
        self.K, self.V, self.width = task.K, task.V, hidden

    def start(self, rng: Rng) -> dict[str, F]:
        """Parameters to begin with: inside the range of the states, and uniform within 1/sqrt(H) for U."""
        H = self.width
        return {
            "prompt": rng.uniform(-1, 1, (self.K, H)),
            "token": rng.uniform(-1, 1, (self.V, 3 * H)),
            "hidden": rng.uniform(-1, 1, (H, 3 * H)) / H**0.5,
            "bias": np.zeros(3 * H),
        }

    def prefixes(self, p: Named, tree: Tree) -> list[Tensor]:
        """Features of all prefixes, level by level: U h is computed once for the C children of a prefix."""
        levels = [p["prompt"]]
        gates = p["token"][None, : tree.C]
        for _ in range(tree.L - 1):
            levels.append(cell(p, levels[-1], gates))
        return levels

    def sequences(self, p: Named, prompt: Tensor, tokens: Tensor) -> Tensor:
        """Features (B,T,H) before each of the tokens (B,T)."""
        h, memory = self.begin(p, prompt)
        features = [h]
        for token in tokens.unbind(1)[:-1]:
            h, memory = self.advance(p, memory, token)
            features.append(h)
        return torch.stack(features, 1)

    def begin(self, p: Named, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B,H) of empty prefixes, and what is remembered: the same."""
        h = p["prompt"].index_select(0, prompt)
        return h, h

    def advance(self, p: Named, memory: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B,H) one token (B,) later."""
        h = cell(p, memory, p["token"].index_select(0, token)[:, None])
        return h, h


def cell(p: Named, h: Tensor, token: Tensor) -> Tensor:
    """The states that follow h (n,H), with W x in token (n,1,3H), or (1,C,3H) for C children of each: (n C,H)."""
    H = h.shape[1]
    recurrent = torch.addmm(p["bias"], h, p["hidden"])[:, None]
    r, z, c = token.chunk(3, -1)
    u_r, u_z, u_c = recurrent.chunk(3, -1)
    reset, keep = torch.sigmoid(r + u_r), torch.sigmoid(z + u_z)
    new = torch.tanh(torch.addcmul(c, reset, u_c))
    return torch.lerp(new, h[:, None], keep).reshape(-1, H)
