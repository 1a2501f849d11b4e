"""Token MDPs: language-model reinforcement learning on tasks small enough to enumerate."""
