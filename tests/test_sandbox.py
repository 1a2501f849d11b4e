"""Student files run apart: what they return comes back, what they break stays with them."""

import os
import re
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import ATTACKS, BROKEN, HANGING, LIMIT, Hostile

from tabrl.grading.sandbox import Limits, Result, call, isolation, run
from tabrl.types import F

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and isolation exist on Linux only")

WAYS = [False, True] if isolation() == "bubblewrap" else [False]
NAMES = {False: "process", True: "bubblewrap"}
WITHOUT = "bubblewrap (bwrap) is not installed or cannot create namespaces here"
SMALL = Limits(seconds=10, memory_mb=512, output_bytes=100_000, processes=6, files_mb=16)
X = np.array([1.0, 2.0])
GOOD = "import numpy as np\ndef f(x): return np.asarray(x) * 2"
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(params=[False, True], ids=["process", "bubblewrap"])
def way(request: pytest.FixtureRequest) -> bool:
    if request.param not in WAYS:
        pytest.skip(WITHOUT)
    return bool(request.param)


@pytest.fixture(autouse=True)
def left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whatever a file does, its folder is removed."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


def hand_in(tmp_path: Path, source: str) -> Path:
    file = tmp_path / "submission.py"
    file.write_text(source)
    return file


def ask(tmp_path: Path, source: str, way: bool, arguments: Any = (X,), limits: Limits = SMALL) -> Result:
    return call(hand_in(tmp_path, source), "f", [arguments] * 2, limits=limits, bubblewrap=way)


def right(value: Any, expected: F = 2 * X) -> bool:
    """How a grader judges: the numbers, and nothing else."""
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return False
    return found.shape == expected.shape and bool((abs(found - expected) <= 1e-12).all())


def earns(result: Result) -> bool:
    return not result.reason and not any(result.reasons) and all(right(value) for value in result.values)


def check_hostile(case: Hostile, tmp_path: Path, way: bool) -> None:
    limits = SMALL._replace(seconds=case.seconds)
    result = ask(tmp_path, case.source, way, limits=limits)
    assert not earns(result)
    assert len(result.values) == len(result.reasons) == 2 and result.isolation == NAMES[way]
    assert result.seconds < 2 * case.seconds
    assert re.match(case.reason, result.reasons[0]) if case.reason else not result.reasons[0]
    assert all((value is None) or not why for value, why in zip(result.values, result.reasons, strict=True))


@pytest.mark.parametrize("case", HANGING, ids=lambda case: case.name)
def test_what_hangs_is_ended_in_time(case: Hostile, tmp_path: Path, way: bool) -> None:
    check_hostile(case, tmp_path, way)
    assert earns(ask(tmp_path, GOOD, way))  # the next one is not harmed


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.name)
def test_attacks_fail(case: Hostile, tmp_path: Path, way: bool) -> None:
    check_hostile(case, tmp_path, way)
    assert way or earns(ask(tmp_path, GOOD, way))  # the weaker isolation is asked


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_what_is_broken_is_told_why(case: Hostile, tmp_path: Path) -> None:
    check_hostile(case, tmp_path, WAYS[-1])


def test_what_is_broken_harms_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:  # in between the broken ones, and beside them
        files = [case.source for case in BROKEN[::3] for _ in "ab"]
        files[::2] = [GOOD] * len(files[::2])
        folders = [tmp_path / f"file {k}" for k in range(len(files))]
        for folder in folders:
            folder.mkdir()
        found = list(pool.map(lambda k: ask(folders[k], files[k], WAYS[-1]), range(len(files))))
    assert [earns(result) for result in found] == [source == GOOD for source in files]


def test_a_good_file_earns(tmp_path: Path, way: bool) -> None:
    result = ask(tmp_path, GOOD + "\nprint('as text: \u00e9')", way)
    assert earns(result) and result.reason == "" and result.output == "as text: \u00e9\n" and result.seconds < 10


def test_every_kind_of_plain_value_comes_back(tmp_path: Path, way: bool) -> None:
    values = [1, 0.1, float("inf"), True, None, "text", (1, [2.5, {"a": X, 3: (X.astype(bool), np.int8(3))}]), X[:0]]
    result = call(hand_in(tmp_path, "def f(x): return x"), "f", [(v,) for v in values], limits=SMALL, bubblewrap=way)
    assert result.reasons == [""] * len(values)
    for found, value in zip(result.values, values, strict=True):
        assert type(found) is type(value) and repr(found) == repr(value)


def test_functions_of_one_file_share_a_process(tmp_path: Path, way: bool) -> None:
    source = "import os\ndef f(): return os.getpid()\ndef g(x): raise KeyError(x)\ndef h(x): return x + 1"
    calls: list[tuple[str, tuple[Any, ...]]] = [("f", ()), ("g", ("a",)), ("k", ()), ("h", (1,)), ("f", ())]
    result = run(hand_in(tmp_path, source), calls, limits=SMALL, bubblewrap=way)
    assert result.values[0] == result.values[-1] != os.getpid() and result.values[3] == 2
    missing = "it has no function 'k'; did you mean f, g, h?"
    assert result.reasons == ["", "it raises KeyError: 'a' (line 3)", missing, "", ""] and result.reason == ""


def test_calls_before_the_end_are_kept(tmp_path: Path, way: bool) -> None:
    source = "def f(k):\n print(k)\n while k == 2: pass\n return k"
    limits = SMALL._replace(seconds=LIMIT)
    result = call(hand_in(tmp_path, source), "f", [(k,) for k in range(4)], limits=limits, bubblewrap=way)
    assert (
        result.values == [0, 1, None, None]
        and result.output == "0\n1\n2\n"
        and result.reason == "it takes more than 0.7 s"
    )
    assert result.reasons == ["", "", result.reason, result.reason]


def test_each_call_gets_fresh_copies(tmp_path: Path, way: bool) -> None:
    x = X.copy()
    source = "def f(x, more):\n x *= 2\n more.append(3)\n return x, more"
    result = call(hand_in(tmp_path, source), "f", [(x, [1])] * 2, limits=SMALL, bubblewrap=way)
    assert all(right(value[0]) and value[1] == [1, 3] for value in result.values if value) and all(result.values)
    assert (x == X).all()


def test_a_thread_left_running_ends_with_the_file(tmp_path: Path, way: bool) -> None:
    source = (
        "import threading\ndef g():\n while True: pass\ndef f(x):\n threading.Thread(target=g).start()\n return 2 * x"
    )
    result = ask(tmp_path, source, way)
    assert earns(result) and result.seconds < 5


DAEMON = """
import os, sys, time
def f(x):
    read, write = os.pipe()
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.write(write, str(os.getpid()).encode())
            time.sleep(100)
        os._exit(0)
    print(int(os.read(read, 20)))
    return 2 * x
"""


def test_a_daemon_does_not_outlive_its_file(tmp_path: Path, way: bool) -> None:
    result = ask(tmp_path, DAEMON, way)
    assert earns(result) and result.seconds < 5
    for pid in result.output.split() if not way else []:  # under bubblewrap the numbers are those of its namespace
        assert not Path(f"/proc/{pid}").exists()


def test_the_environment_is_empty(tmp_path: Path, way: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABRL_SECRET", "the answer")
    source = "import os\ndef f(x):\n print(os.popen is None, dict(os.environb))\n return list(os.environ)"
    result = ask(tmp_path, source, way)
    assert "the answer" not in result.output
    kept = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LC_CTYPE", "PWD", "LD_LIBRARY_PATH"}
    assert set(result.values[0] or ["nothing"]) <= kept


def test_junk_that_is_printed_is_shown_harmlessly(tmp_path: Path, way: bool) -> None:
    result = ask(tmp_path, "import os\ndef f(x):\n os.write(1, bytes(range(256)))\n return 2 * x", way)
    assert earns(result)
    assert all(c.isprintable() or c in "\n\t\ufffd\xad" for c in result.output) and "ABC" in result.output


def test_where_it_works_is_removed(tmp_path: Path, way: bool) -> None:
    source = """
import os
def f(x):
    for k in range(1500):
        os.mkdir("d"); os.chdir("d")
    os.chmod(".", 0)
    return 2 * x
"""
    assert ask(tmp_path, source, way).values[0] is not None  # left_clean looks


def test_files_are_limited(tmp_path: Path, way: bool) -> None:
    source = "def f(x):\n with open('big', 'wb') as s:\n  for _ in range(64): s.write(bytes(2**20))"
    assert re.match("it raises OSError: .*(File too large|No space left)", ask(tmp_path, source, way).reasons[0])


def test_it_cannot_kill_the_grader(tmp_path: Path, way: bool) -> None:
    result = ask(tmp_path, "import os\ndef f(x):\n os.kill(os.getppid(), 9)\n return x", way)
    assert not earns(result)
    assert earns(ask(tmp_path, GOOD, way))


def test_two_at_once_do_not_meet(tmp_path: Path, way: bool) -> None:
    folders = [tmp_path / str(k) for k in range(2)]
    sources = [HANGING[4].source, "import time\ndef f(x):\n time.sleep(0.7)\n return 2 * x"]
    for folder in folders:
        folder.mkdir()
    limits = [SMALL._replace(seconds=LIMIT), SMALL]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda k: ask(folders[k], sources[k], way, limits=limits[k]), range(2)))
    assert found[0].reason == "it takes more than 0.7 s" and earns(found[1])


def test_out_of_its_folder(tmp_path: Path, way: bool) -> None:
    if not (way or ROOT):
        pytest.skip("without bubblewrap and without root a student's file may read and write what the grader may")
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "answer.txt").write_text("4")
    outside = tmp_path / "outside"
    write = f"def f(x):\n open({str(outside)!r}, 'w').write('x')\n return 2 * x"
    read = f"def f(x):\n return float(open({str(tmp_path / 'solutions' / 'answer.txt')!r}).read())"
    refused = "it raises (PermissionError|FileNotFoundError|OSError)"
    assert re.match(refused, ask(tmp_path, write, way).reasons[0]) and not outside.exists()
    assert re.match(refused, ask(tmp_path, read, way).reasons[0])


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_is_given_up(tmp_path: Path, way: bool) -> None:
    source = """
import os
def f(x):
    try: os.setuid(0)
    except PermissionError: return [*os.getresuid(), *os.getresgid(), *os.getgroups()]
"""
    users = ask(tmp_path, source, way).values[0]
    assert users and len(set(users)) == 1 and len(users) == 6 and users[0] >= 1000


@pytest.mark.skipif(True not in WAYS, reason=WITHOUT)
class TestBubblewrap:
    def test_nothing_can_be_written(self, tmp_path: Path) -> None:
        source = """
import os
def f(x):
    open("here", "w").write("x")
    open("/tmp/there", "w").write("x")
    made = []
    for folder, folders, files in os.walk("/"):
        if folder.startswith("/tmp"): continue
        if folder.count("/") > 2: folders.clear()
        try: open(os.path.join(folder, "x"), "w").write("x")
        except OSError: continue
        made.append(folder)
    return made
"""
        assert ask(tmp_path, source, True).values[0] == []

    def test_there_is_no_network(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            source = f"import socket\ndef f(x):\n socket.create_connection(('127.0.0.1', {port}), 3)\n return 2 * x"
            assert re.match("it raises (ConnectionRefusedError|OSError)", ask(tmp_path, source, True).reasons[0])
            outward = source.replace(f"'127.0.0.1', {port}", "'192.0.2.1', 80")
            assert "unreachable" in ask(tmp_path, outward, True).reasons[0]

    def test_tabrl_is_nowhere(self, tmp_path: Path) -> None:
        import tabrl

        own = str(Path(tabrl.__file__).resolve().parent.parent)
        source = f"""
import os, site, sys
sys.meta_path = [x for x in sys.meta_path if type(x).__name__ != "Gate"]
sys.path += [{own!r}, *{sys.path!r}]
def f(x):
    found = [os.path.join(a, n) for a, b, c in os.walk("/") for n in b + c if "tabrl" in n]
    try: import tabrl
    except ModuleNotFoundError as error: return found, str(error)
"""
        assert ask(tmp_path, source, True).values[0] == ([], "No module named 'tabrl'")

    def test_no_other_process_is_seen(self, tmp_path: Path) -> None:
        source = f"import os\ndef f(x): return [os.getpid() < 10, os.path.exists('/proc/1')] or {os.getpid()}"
        assert ask(tmp_path, source, True).values[0] == [True, False]


def test_what_the_grader_gets_wrong_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hand_in(tmp_path, GOOD)
    with pytest.raises(FileNotFoundError):
        call(tmp_path / "none.py", "f", [])
    with pytest.raises(ValueError, match=r"limits\[seconds\] is 0; a positive number is expected"):
        call(file, "f", [], limits=Limits(seconds=0))
    with pytest.raises(ValueError, match=r"limits\[memory_mb\] is inf"):
        call(file, "f", [], limits=SMALL._replace(memory_mb=np.inf))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="it is of type object"):
        call(file, "f", [(object(),)])
    monkeypatch.setattr("tabrl.grading.sandbox.PACKAGES", tmp_path)  # no numpy there
    with pytest.raises(RuntimeError, match=r"no process could be set up (?s:.)*No module named 'numpy'"):
        call(file, "f", [(X,)], bubblewrap=False)


def test_a_file_that_is_too_long_is_not_run(tmp_path: Path) -> None:
    started = time.monotonic()
    result = call(hand_in(tmp_path, "#" * 1_000_001), "f", [(X,)])
    assert result.values == [None] and result.reason == result.reasons[0] and time.monotonic() - started < 5
    assert result.reason == "the file has 1000001 bytes; at most 1000000 are expected"


def test_elsewhere_there_is_a_time_limit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabrl.grading.sandbox.LINUX", False)
    assert isolation() == "time limit only"
    result = call(hand_in(tmp_path, GOOD), "f", [(X,)])
    assert right(result.values[0]) and result.isolation == "time limit only"
    late = call(hand_in(tmp_path, HANGING[0].source), "f", [(X,)], limits=Limits(seconds=LIMIT))
    assert late.reason == "it takes more than 0.7 s" and late.seconds < 2 * LIMIT
    with pytest.raises(RuntimeError, match="bubblewrap is not usable here"):
        isolation(True)
