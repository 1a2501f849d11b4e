"""Run a script in a process of its own, with kernels plain or compiled."""

import os
import subprocess
import sys


def output(script: str, **settings: str) -> str:
    """What a script prints, with these environment variables."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def plain_and_compiled(script: str) -> list[str]:
    """What a script prints without numba, and with it."""
    return [output(script, TABRL_NUMBA=flag) for flag in ("0", "1")]
