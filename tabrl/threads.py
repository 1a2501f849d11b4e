"""Compiled loops over states, in slices that run side by side.

Plain Python threads do: compiled code holds no lock (see decision 09 for why not numba's own).
"""

import os
import threading
from typing import Any

import numpy as np

THREADS = min(os.cpu_count() or 1, 8)
SLICE = 250_000  # transitions that are worth a thread


def in_slices(sweep: Any, work: int, S: int, *arguments: Any) -> None:
    """Run the kernel sweep(lo, hi, *arguments) over 0, …, S - 1, in threads where there is work for them.

    work: transitions that all of it reads. What the slices write must not overlap.
    """
    n, run = min(THREADS, work // SLICE), sweep.build()
    if n < 2:
        run(np.uint64(0), np.uint64(S), *arguments)
        return
    edges = np.linspace(0, S, n + 1).astype(np.uint64)
    others = [threading.Thread(target=run, args=(*edges[k : k + 2], *arguments)) for k in range(1, n)]
    for thread in others:
        thread.start()
    run(*edges[:2], *arguments)
    for thread in others:
        thread.join()
