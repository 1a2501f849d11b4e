"""Networks as policies over tokens, and as critics: a GRU and a small causal transformer. The only use of torch.

On the device of the policy, "cpu" or "cuda", in float32 or float64. A seed gives the same parameters on either device.
Raises MissingExtra where torch is not installed. Everything else in the package does without.
"""

from tabrl.errors import MissingExtra

try:
    import torch as torch
except ImportError as error:
    raise MissingExtra("torch", "torch", "a network") from error

from tabrl.tokens.nets.gru import GRUBody
from tabrl.tokens.nets.network import Critic, NetworkLM
from tabrl.tokens.nets.ready import GRU, GRUCritic, Transformer, TransformerCritic
from tabrl.tokens.nets.transformer import TransformerBody

__all__ = ["GRU", "Critic", "GRUBody", "GRUCritic", "NetworkLM", "Transformer", "TransformerBody", "TransformerCritic"]
