"""tabrl: reinforcement learning on models small enough to solve, with the exact answer beside every estimate."""

from tabrl._version import __version__
from tabrl.mdp import MDP

__all__ = ["MDP", "__version__"]
