"""One row of benchmarks/dp.py, in a process of its own: build, warm up, solve `runs` times, measure.

seconds: of each solve, first: of the one that warms up, cpu: processor time of the last (far less than the seconds of
a solver on one thread: the machine was busy); peak, resident: bytes of this process while and just before solving;
size: bytes of the model.
"""

import gc
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from dp_models import by_name, size, small
from dp_peers import PEERS, Peer
from dp_reference import Reference, error

LONG = 10.0  # seconds; a solve that takes longer needs no warm-up of its own


def row(model: str, solver: str, runs: int, reference: Path | None, tol: float = 1e-6) -> dict[str, Any]:
    """Measure one solver on one model."""
    mdp, peer = by_name(model), PEERS[solver]
    result = peer.prepare(small(mdp), tol)()  # compiles what there is to compile
    solve = peer.prepare(mdp, tol)
    gc.collect()
    resident = now("VmRSS")
    reset_peak()
    seconds: list[float] = []
    while len(seconds) < runs + 1 and not (len(seconds) == runs and seconds[0] > LONG):
        start, begin = time.perf_counter(), time.process_time()
        result = solve()
        seconds.append(time.perf_counter() - start)
        cpu = time.process_time() - begin
        solve = peer.prepare(mdp, tol) if peer.anew else solve
    first = seconds[0]
    if len(seconds) > runs:
        seconds.pop(0)
    found = dict(
        first=first, cpu=cpu, seconds=seconds, median=statistics.median(seconds), peak=now("VmHWM"), resident=resident
    )
    return found | about(mdp, peer) | judged(mdp, result, reference)


def about(mdp: Any, peer: Peer) -> dict[str, Any]:
    """Sizes of the model, setting and threads of the solver."""
    entries = mdp.P.nnz if mdp.is_sparse else mdp.P.size
    return dict(S=mdp.S, A=mdp.A, entries=entries, size=size(mdp), threads=peer.threads, setting=peer.setting)


def judged(mdp: Any, result: Any, reference: Path | None) -> dict[str, Any]:
    """Errors of V against the reference; for our own Solution also what it claims."""
    V = np.asarray(getattr(result, "V", result), float)[: mdp.S]
    found: dict[str, Any] = {}
    if hasattr(result, "bound"):
        found = dict(bound=result.bound, method=result.method, status=result.status, rounds=result.iterations)
    if reference is not None:
        with np.load(reference) as file:
            ref = Reference(file["high"], file["low"], float(file["bound"]))
        found |= dict(error=error(V, ref) + ref.bound, reference=ref.bound)
    return found


def now(key: str) -> int:
    """Memory of this process in bytes: VmRSS or, since `reset_peak`, VmHWM; elsewhere than on Linux the peak so far."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def reset_peak() -> None:
    """Let the peak of this process's memory start from what it has now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    model, solver, runs, reference = sys.argv[1:]
    print(json.dumps(row(model, solver, int(runs), Path(reference) if reference != "-" else None)))
