"""Sweeps: the same bits for any number of workers, any order and any kill; errors name what is wrong."""

import contextlib
import hashlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from tabrl import cells, envs, sweeps, trace
from tabrl.cells import Cell
from tabrl.errors import ModelError, ShapeError
from tabrl.experiments import Result, run
from tabrl.summary import bootstrap_interval, mean, quantiles, standard_error

GRID: dict[str, Any] = {"n": [1, 2, 5], "kind": ["normal", "uniform"], "scale": [0.5, 3]}
CALLS: list[dict[str, Any]] = []
ROOT = Path(__file__).resolve().parent.parent


def sampled(rng: np.random.Generator, n: int, kind: str, scale: float) -> dict[str, Any]:
    CALLS.append({"n": n, "kind": kind, "scale": scale})
    x = scale * (rng.normal(size=n * 10) if kind == "normal" else rng.random(n * 10))
    return {"mean": x.mean(), "largest": np.sort(x)[-3:], "count": x.size, "any": x > 10 if n == 99 else x[:2] > 0}


def draw(rng: np.random.Generator, n: int = 1) -> float:
    return float(rng.random(n).sum())


def fragile(rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
    x = rng.integers(0, 10, 2)
    if n == 0 and x[0] < 5:
        raise ZeroDivisionError(f"draw {x[0]}")
    return x


def ragged(rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
    return np.zeros(n)


def renamed(rng: np.random.Generator, n: int) -> dict[str, int]:
    return {f"x{n}": n}


def wordy(rng: np.random.Generator, n: int) -> Any:
    return ["text", {1: 2.0}, {}, [object()], np.ma.masked_array([1.0], [True])][n]


def patient(rng: np.random.Generator, n: int, folder: str) -> int:
    """The first cell ends at once; the others wait for its file."""
    deadline = time.monotonic() + 10
    while n and not list(Path(folder).glob("*.npz")):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)
    return n


def residuals(rng: np.random.Generator, tol: float) -> np.ndarray[Any, Any]:
    """A generator of records inside a cell: one column is the curve."""
    return trace.column(sweeps.value_iteration(envs.make("riverswim"), tol=tol), "residual")[:5]


def same(x: Result, y: Result) -> bool:
    """Whether two results agree in every bit, NaN included."""
    alike = x.grid == y.grid and x.replicates == y.replicates and list(x.arrays) == list(y.arrays)
    pairs = [(x[name], y[name]) for name in x.arrays]
    return alike and all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs)


def finished(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every finished cell."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.glob("*.npz")}


# The same bits


def test_the_stack_is_a_literal_loop() -> None:
    result = run(sampled, GRID, 4, seed=7)
    assert result["mean"].shape == (3, 2, 2, 4) and result["largest"].shape == (3, 2, 2, 4, 3)
    assert result["count"].dtype == np.int64 and result["any"].dtype == np.bool_ and not result.failed
    for i, n in enumerate(GRID["n"]):
        for j, kind in enumerate(GRID["kind"]):
            for k, scale in enumerate(GRID["scale"]):
                for replicate in range(4):
                    key = json.dumps(
                        {"parameters": {"n": n, "kind": kind, "scale": scale}, "replicate": replicate},
                        sort_keys=True, separators=(",", ":"),
                    )  # fmt: skip
                    words = np.frombuffer(hashlib.sha256(key.encode()).digest(), ">u4").tolist()
                    rng = np.random.default_rng(np.random.SeedSequence(7, spawn_key=words))
                    one = sampled(rng, n, kind, scale)
                    for name, x in one.items():
                        assert (result[name][i, j, k, replicate] == x).all()


def test_any_number_of_workers(tmp_path: Path) -> None:
    one = run(sampled, GRID, 3, jobs=1, folder=tmp_path / "a")
    assert same(one, run(sampled, GRID, 3, jobs=2, folder=tmp_path / "b"))
    contents = [{name: x for name, (_, x) in finished(tmp_path / f).items()} for f in "ab"]
    assert contents[0] == contents[1] and len(contents[0]) == 36
    with joblib.parallel_config("threading", n_jobs=3):
        assert same(one, run(sampled, GRID, 3))


def test_any_order(tmp_path: Path) -> None:
    result = run(sampled, GRID, 3)
    back = run(sampled, {name: GRID[name][::-1] for name in ("scale", "n", "kind")}, 3)
    for name, x in result.arrays.items():
        assert (np.moveaxis(back[name][::-1, ::-1, ::-1], 0, 2) == x).all()


def test_seeds_and_cells_differ() -> None:
    x = np.stack([run(draw, {"n": [1, 2]}, 50, seed=s).value for s in (0, 1, 2**70)])
    assert len(np.unique(x)) == x.size


def test_files_are_found_again_by_later_versions() -> None:
    text = cells.description(draw, "v1", Cell({"n": 4, "alpha": 0.1}, 2, 0))
    assert text == (
        '{"function":"test_experiments.draw","parameters":{"alpha":0.1,"n":4},"replicate":2,"seed":0,"version":"v1"}'
    )
    assert cells.path(Path("f"), "abc").name == f"{hashlib.sha256(b'abc').hexdigest()}.npz"


def test_numpy_values_are_plain_values() -> None:
    a = run(draw, {"n": np.array([1, 3])}, 2)
    assert same(a, run(draw, {"n": (1, 3)}, 2)) and same(a, run(draw, {"n": [np.int32(1), np.int8(3)]}, 2))
    assert [type(x) for x in a.grid["n"]] == [int, int]


def test_a_grid_without_parameters_and_without_workers() -> None:
    assert run(draw, {}, 5).value.shape == (5,)
    assert run(lambda rng: rng.random(), {}, 5).value.shape == (5,)


def test_a_generator_of_records() -> None:
    curve = run(residuals, {"tol": [1e-3, 1e-9]}, 2).value
    exact = [step.residual for step, _ in zip(sweeps.value_iteration(envs.make("riverswim")), range(5), strict=False)]
    assert curve.shape == (2, 2, 5) and (curve == exact).all()


# Finished cells


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    first = run(sampled, GRID, 2, folder=tmp_path)
    before, calls = finished(tmp_path), len(CALLS)
    assert same(first, run(sampled, GRID, 2, folder=tmp_path)) and len(CALLS) == calls
    assert finished(tmp_path) == before and len(before) == 24


def test_more_values_and_seeds_keep_the_old_cells(tmp_path: Path) -> None:
    old = run(sampled, GRID, 2, folder=tmp_path)
    before, calls = finished(tmp_path), len(CALLS)
    new = run(sampled, GRID | {"n": [9, 1, 2, 5]}, 3, folder=tmp_path)
    assert len(CALLS) - calls == 4 * 2 * 2 * 3 - 24
    assert {name: finished(tmp_path)[name] for name in before} == before
    for name in old.arrays:
        assert (new[name][1:, :, :, :2] == old[name]).all()
    assert same(new, run(sampled, GRID | {"n": [9, 1, 2, 5]}, 3))


def test_a_new_version_seed_or_function_is_a_new_cell(tmp_path: Path) -> None:
    run(draw, {"n": [1]}, 2, folder=tmp_path)
    run(draw, {"n": [1]}, 2, folder=tmp_path, version="2")
    run(draw, {"n": [1]}, 2, folder=tmp_path, seed=5)
    run(fragile, {"n": [1]}, 2, folder=tmp_path)
    assert len(finished(tmp_path)) == 8


def test_no_pickle_on_disk(tmp_path: Path) -> None:
    run(sampled, GRID, 1, folder=tmp_path)
    for file in tmp_path.iterdir():
        with np.load(file, allow_pickle=False) as members:
            assert all(members[name].dtype.kind in "biufU" for name in members.files)


def test_a_foreign_cell_is_refused(tmp_path: Path) -> None:
    run(draw, {"n": [1]}, 2, folder=tmp_path)
    a, b = sorted(tmp_path.iterdir())
    a.write_bytes(b.read_bytes())
    with pytest.raises(ModelError, match=r"file\[.*\] holds .*\"replicate\":.* is expected; delete it and run again"):
        run(draw, {"n": [1]}, 2, folder=tmp_path)


def damages(data: bytes) -> Iterator[bytes]:
    yield from (b"", b"nonsense", data[:-1], data[: len(data) // 2], data[50:])
    rng = np.random.default_rng(0)
    for i in rng.integers(0, len(data), 300):
        yield data[:i] + bytes([data[i] ^ int(rng.integers(1, 256))]) + data[i + 1 :]


def test_a_damaged_cell_is_reported_never_repaired(tmp_path: Path) -> None:
    result = run(draw, {}, 1, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    whole, refused = file.read_bytes(), 0
    for data in damages(whole):
        file.write_bytes(data)
        try:
            again = run(draw, {}, 1, folder=tmp_path)
        except ModelError as error:
            refused += 1
            assert str(error).startswith(f"file['{file}']") and "delete it and run again" in str(error)
        else:
            assert same(again, result)  # the damage hit a byte that means nothing, such as a date
        assert file.read_bytes() == data
    assert refused > 200


def test_a_cell_of_objects_is_refused(tmp_path: Path) -> None:
    run(draw, {}, 1, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    with open(file, "wb") as out:
        np.savez(out, header=np.array([pickle.dumps(0)], dtype=object))
    with pytest.raises(ModelError, match=r"not readable \(it holds Python objects in header\)"):
        run(draw, {}, 1, folder=tmp_path)


# kill -9

SCRIPT = """
import os, signal, sys, time
import numpy as np
from tabrl.experiments import run

def slow(rng, n, alpha):
    x = rng.random(n)
    with open(os.environ["CELL_LOG"], "a") as log:
        log.write(f"{float(x[0])!r}\\n")
    time.sleep(0.01)
    return {"x": alpha * x.cumsum()[-3:], "first": x[0]}

def kill_at(module, name, count):
    function, calls = getattr(module, name), []
    def patched(*args, **keywords):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **keywords)
    setattr(module, name, patched)

if __name__ == "__main__":
    folder, jobs, out, step = sys.argv[1:]
    if step:
        kill_at(*{"write": (np, "savez", 7), "flush": (os, "fsync", 7), "rename": (os, "replace", 7)}[step])
    result = run(slow, {"n": [3, 10, 40], "alpha": [0.1, 0.5]}, 16, folder=folder, jobs=int(jobs), progress=False)
    np.savez(out, **result.arrays)
"""
CELLS = 3 * 2 * 16


def start(tmp_path: Path, folder: str, jobs: int, step: str = "") -> subprocess.Popen[bytes]:
    script = tmp_path / "sweep.py"
    script.write_text(SCRIPT)
    environment = os.environ | {
        "CELL_LOG": str(tmp_path / f"{folder}.log"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, str(script), str(tmp_path / folder), str(jobs), str(tmp_path / f"{folder}.npz"), step]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> int:
    """Kill the process alone; its workers are orphans, as after a real kill -9, and are ended later."""
    process.kill()
    return process.wait()


def bury(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the session that the process led."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def firsts(folder: Path) -> set[float]:
    """The first draw of each finished cell, read as any user would; a file that cannot be read raises."""
    return {float(np.load(file, allow_pickle=False)["x0"]) for file in folder.glob("*.npz")}


def log_of(tmp_path: Path, folder: str) -> list[float]:
    file = tmp_path / f"{folder}.log"
    return [float(line) for line in file.read_text().split()] if file.exists() else []


def kill_when(process: subprocess.Popen[bytes], folder: Path, count: int, delay: float) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and len(list(folder.glob("*.npz"))) < count:
        assert time.monotonic() < deadline, "no cell was finished in 30 s"
        time.sleep(0.001)
    time.sleep(delay)
    end(process)


def test_kill_9_loses_no_finished_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng()  # truly random moments: the claim holds for each of them
    folder, processes = tmp_path / "killed", list[subprocess.Popen[bytes]]()
    kept: dict[str, tuple[int, bytes]] = {}
    for jobs in (1, 2, 1, 2, 1):
        known = firsts(folder)
        executed = len(log_of(tmp_path, "killed"))
        processes.append(start(tmp_path, "killed", jobs))
        kill_when(processes[-1], folder, len(known) + int(rng.integers(1, 8)), rng.uniform(0, 0.03))
        assert kept.items() <= finished(folder).items()
        assert known <= firsts(folder)
        assert not known & set(log_of(tmp_path, "killed")[executed:]), "a finished cell ran again"
        kept = finished(folder)
        bury(processes[-1])
    assert len(kept) >= 5
    final, plain = start(tmp_path, "killed", 2), start(tmp_path, "plain", 1)
    assert final.wait(60) == 0 and plain.wait(60) == 0
    assert kept.items() <= finished(folder).items()
    assert len(list(folder.iterdir())) == CELLS, "half-written files are cleaned away"
    with np.load(tmp_path / "killed.npz") as a, np.load(tmp_path / "plain.npz") as b:
        assert a.files == b.files == ["first", "x"] and all(a[k].tobytes() == b[k].tobytes() for k in a.files)


def test_a_cell_is_written_as_soon_as_it_ends(tmp_path: Path) -> None:
    assert run(patient, {"n": range(6), "folder": [str(tmp_path)]}, 1, jobs=2, folder=tmp_path).failed == ()


@pytest.mark.parametrize("step", ["write", "flush", "rename"])
def test_kill_9_inside_a_write(tmp_path: Path, step: str) -> None:
    folder = tmp_path / "killed"
    assert start(tmp_path, "killed", 1, step).wait(60) == -signal.SIGKILL
    assert len(finished(folder)) == len(firsts(folder)) == 6
    parts = [p for p in folder.iterdir() if p.suffix == ".part"]
    assert len(parts) == 1
    stranger = folder / ".other.npz.abc.part"
    stranger.touch()
    assert start(tmp_path, "killed", 1).wait(60) == 0
    assert len(finished(folder)) == CELLS and not parts[0].exists()
    assert stranger.exists(), "what belongs to another experiment stays"
    assert len(log_of(tmp_path, "killed")) == CELLS + 1


# Failures


@pytest.mark.parametrize("jobs", [1, 2])
def test_failed_cells_stay_in_the_picture(tmp_path: Path, jobs: int, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(fragile, {"n": [0, 1]}, 20, folder=tmp_path, jobs=jobs)
    lost = np.isnan(result.value[0, :, 0])
    assert 0 < lost.sum() < 20 and not np.isnan(result.value[1]).any()
    assert [f.replicate for f in result.failed] == np.flatnonzero(lost).tolist()
    first = result.failed[0]
    assert first.parameters == {"n": 0} and first.error.startswith("ZeroDivisionError: draw ")
    assert "in fragile" in first.traceback
    assert len(finished(tmp_path)) == 40 - lost.sum()
    line = f"{lost.sum()} of 40 cells failed; the first: (n=0, replicate {first.replicate}) {first.error}\n"
    assert capsys.readouterr().err == line
    assert np.isnan(mean(result.value, result.axis)[0]).all() and result.select(n=1).failed == ()
    again = run(fragile, {"n": [0, 1]}, 20, folder=tmp_path, progress=False)
    assert same(again, result) and [f[:3] for f in again.failed] == [f[:3] for f in result.failed]
    assert capsys.readouterr().err == ""


def test_when_all_cells_fail() -> None:
    with pytest.raises(RuntimeError, match=r"all 3 cells failed; the first: \(n=0, replicate 0\) ValueError: the resu"):
        run(wordy, {"n": [0]}, 3)


@pytest.mark.parametrize("n", range(5))
def test_a_result_that_is_no_number(n: int) -> None:
    result = run(lambda rng, k: wordy(rng, k) if k == n else 1.0, {"k": [n, 9]}, 1, progress=False)
    assert result.failed[0].error.startswith("ValueError: the result ") and " is expected" in result.failed[0].error


def test_an_interrupt_stops_the_run(tmp_path: Path) -> None:
    def interrupted(rng: np.random.Generator, n: int) -> int:
        if n == 3:
            raise KeyboardInterrupt
        return n

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, {"n": [1, 2, 3, 4]}, 1)


# Wrong input


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"n": 3}, r"grid\['n'\] is 3; a list of one or more"),
        ({"n": "abc"}, r"grid\['n'\] is 'abc'; a list"),
        ({"n": []}, r"grid\['n'\] is \[\]; a list"),
        ({"n": {1, 2}}, r"grid\['n'\] is \{1, 2\}; a list"),
        ({"n": np.zeros((2, 2))}, r"grid\['n'\] is array.*; a list"),
        ({"n": np.float64(1)}, r"grid\['n'\] is .*; a list"),
        ({"n": [1, [2, 3]]}, r"grid\['n'\]\[1\] is \[2, 3\]; a finite number, True, False or a string"),
        ({"n": [None]}, r"grid\['n'\]\[0\] is None; a finite number"),
        ({"n": [np.zeros(2)]}, r"grid\['n'\]\[0\] is array"),
        ({"n": [1j]}, r"grid\['n'\]\[0\] is 1j"),
        ({"n": [1.0, np.nan]}, r"grid\['n'\]\[1\] is nan"),
        ({"n": [-np.inf]}, r"grid\['n'\]\[0\] is -inf"),
        ({"n": [1, 2, 1.0]}, r"grid\['n'\]\[2\] is 1.0 for the second time; distinct values"),
        ({"alpha": [1]}, r"cell test_experiments.draw cannot be called as f\(rng, alpha=...\): got an unexpected"),
        ({"rng": [1]}, r"cannot be called as f\(rng, rng=...\): multiple values"),
        ({"a b": [1]}, r"grid has the parameter 'a b'; the name of an argument is expected"),
        ({3: [1]}, r"grid has the parameter 3"),
    ],
)
def test_wrong_grids(grid: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(draw, grid, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 0}, "seeds is 0; an integer >= 1"),
        ({"seeds": 2.5}, "seeds is 2.5; an integer"),
        ({"seeds": True}, "seeds is True"),
        ({"seed": -1}, "seed is -1; an integer >= 0"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"jobs": 0}, "jobs is 0; a positive integer, -1"),
        ({"jobs": -2}, "jobs is -2"),
        ({"jobs": 1.0}, "jobs is 1.0"),
        ({"version": [1]}, r"version is \[1\]; a finite number"),
        ({"f": 3}, "cell is 3; a function"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments: dict[str, Any] = {"f": draw, "grid": {"n": [1]}, "seeds": 2} | wrong
        run(**arguments)


def test_functions_without_a_name_of_their_own(tmp_path: Path) -> None:
    def local(rng: np.random.Generator) -> float:
        return 0.0

    for f in (lambda rng: 0.0, local):
        with pytest.raises(ValueError, match=r"cell is <function .*; more than one worker needs a function at the top"):
            run(f, {}, 2, jobs=2)
        with pytest.raises(ValueError, match="a folder of finished cells needs a function at the top level"):
            run(f, {}, 2, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_cells_of_different_shape() -> None:
    message = r"cell\[1, 0\] has shapes \{'value': \(3,\)\}; \{'value': \(2,\)\} is expected, as in the first cell"
    with pytest.raises(ShapeError, match=message):
        run(ragged, {"n": [2, 3]}, 2)
    with pytest.raises(ShapeError, match=r"cell\[1, 0\] has shapes \{'x2': \(\)\}"):
        run(renamed, {"n": [1, 2]}, 1)


def test_select_and_names() -> None:
    result = run(sampled, GRID, 2)
    part = result.select(scale=3, n=2)
    assert part.grid == {"kind": ("normal", "uniform")} and part.axis == 1
    assert (part["mean"] == result["mean"][1, :, 1]).all()
    with pytest.raises(ValueError, match="n is 3; one of 1, 2, 5 is expected"):
        result.select(n=3)
    with pytest.raises(ValueError, match="alpha is not a parameter of the grid; one of n, kind, scale is"):
        result.select(alpha=1)
    with pytest.raises(KeyError, match="no array 'value'; one of any, count, largest, mean is expected"):
        _ = result.value


# Summaries


def test_summaries_are_their_definitions() -> None:
    x = np.random.default_rng(0).normal(size=(4, 11, 3))
    for i, k in np.ndindex(4, 3):
        row = sorted(x[i, :, k].tolist())
        m = sum(row) / 11
        error = (sum((v - m) ** 2 for v in row) / (11 * 10)) ** 0.5
        assert mean(x, 1)[i, k] == pytest.approx(m, rel=1e-12)
        assert standard_error(x, 1)[i, k] == pytest.approx(error, rel=1e-12)
        assert quantiles(x, [0.0, 0.5, 0.7], 1)[:, i, k] == pytest.approx([row[0], row[5], row[7]], rel=1e-12)


@pytest.mark.parametrize(("level", "method"), [(0.8, "BCa"), (0.95, "BCa"), (0.95, "percentile")])
def test_bootstrap_intervals_cover_at_their_rate(level: float, method: str) -> None:
    """1,200 samples of 80 normals: the covered share is within z = 4 of the level.

    The interval itself is short by a relative 1/(2n) and the normal tail is not Student's: together .006 at n = 80.
    """
    rng, trials, n = np.random.default_rng(3), 1200, 80
    x = rng.normal(2.0, 3.0, size=(trials, n))
    low, high = bootstrap_interval(x, rng, level=level, resamples=599, method=method)
    assert (low < mean(x)).all() and (mean(x) < high).all()
    z = (((low <= 2.0) & (high >= 2.0)).mean() - level) / np.sqrt(level * (1 - level) / trials)
    assert abs(z) <= 4


def test_bootstrap_axes_and_special_values() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 30, 2))
    x[0, :, 0], x[1, 3, 1], x[2, 3, 1] = 7.0, np.nan, np.inf
    ends = bootstrap_interval(x, np.random.default_rng(1), axis=1, resamples=199)
    assert ends.shape == (2, 5, 2) and ends[:, 0, 0].tolist() == [7.0, 7.0]
    assert np.isnan(ends[:, [1, 2], 1]).all() and np.isnan(ends).sum() == 4
    again = bootstrap_interval(x, np.random.default_rng(1), axis=1, resamples=199)
    assert ends.tobytes() == again.tobytes()
    assert (ends != bootstrap_interval(x, np.random.default_rng(2), axis=1, resamples=199)).any()


def test_summaries_refuse_single_replicates() -> None:
    for f in (standard_error, lambda x, axis: bootstrap_interval(x, np.random.default_rng(0), axis=axis)):
        with pytest.raises(ShapeError, match="x has 1 replicates along axis 1; two or more are expected"):
            f(np.zeros((3, 1)), axis=1)
        with pytest.raises(ShapeError, match=r"x has shape \(3, 1\); an axis 2 is expected"):
            f(np.zeros((3, 1)), axis=2)
    with pytest.raises(ValueError, match="level is 95; a number between 0 and 1"):
        bootstrap_interval(np.zeros(3), np.random.default_rng(0), level=95)


# The progress bar and the cluster


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(fragile, {"n": [0, 1]}, 20)
    captured = capsys.readouterr()
    assert "40/40" in captured.err and "failed)" in captured.err and captured.out == ""


def test_rich_and_scipy_stats_are_loaded_only_when_used() -> None:
    program = (
        "import sys, tabrl.summary; from tabrl.experiments import run; run(lambda rng: 1, {}, 3);"
        "print({'rich', 'scipy.stats', 'matplotlib', 'dask'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_a_dask_cluster_gives_the_same_bits(tmp_path: Path) -> None:
    distributed = pytest.importorskip("dask.distributed", reason="Dask is not installed: pip install dask distributed")
    local = run(sampled, GRID, 3)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        assert same(local, run(sampled, GRID, 3, folder=tmp_path))
    assert len(finished(tmp_path)) == 36


@pytest.mark.parametrize("block", [0, 1])
def test_the_page_about_experiments(tmp_path: Path, block: int) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/experiments.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    if block == 1:
        pytest.importorskip("dask.distributed", reason="Dask is not installed: pip install dask distributed")
    for name, program in zip(("sweep.py", "cluster.py"), blocks, strict=True):
        (tmp_path / name).write_text(program)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-W", "error", ("sweep.py", "cluster.py")[block]]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    cell = {"function": "sweep.error", "parameters": {"n": 4, "alpha": 0.4}, "replicate": 19, "seed": 0, "version": 0}
    assert len(finished(tmp_path / "cells")) == 80
    assert cells.path(tmp_path / "cells", cells.canonical(cell)).exists(), "one name, run as a script or imported"
    assert block == 0 or done.stdout == "(2, 2, 20, 10)\n"
