"""The command `tabrl lesson`: the list, a server that ends with it, notebooks that run."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from serving import served

from tabrl import cli
from tabrl.cli.lesson import environment, export
from tabrl.lessons.contents import lessons

needs_marimo = pytest.mark.skipif(
    importlib.util.find_spec("marimo") is None, reason='marimo is not installed; run: pip install "tabrl[lessons]"'
)


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lesson"]) == 0
    out = capsys.readouterr().out
    for x in lessons().values():
        assert re.search(rf"^ *{x.number}  {re.escape(x.title)} +{x.minutes} ", out, re.MULTILINE)


@pytest.mark.parametrize("which", ["0", "99", "one", "-"])
def test_a_lesson_that_is_not_there(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lesson", which]) == 2
    assert f"lesson is {which!r}; a number from 1 to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("gae", "'gae' is in the name of 12 (Generalised advantage estimation)\n"),
        ("returns", "; 'returns' is in the name of 1 (Returns), 6 (n-step returns and TD), 7 (λ-returns and traces)\n"),
        ("one", "or export, is expected; `tabrl lesson` lists them\n"),
    ],
)
def test_a_word_is_looked_for_in_the_titles(word: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lesson", word]) == 2
    assert capsys.readouterr().err.endswith(expected)


@pytest.mark.parametrize("words", [["1"], ["1", "--edit"], ["export"]])
def test_without_marimo(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lesson", *words]) == 2
    assert (
        'marimo is not installed; tabrl lesson needs it; run: pip install "tabrl[lessons]"' in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


@needs_marimo
def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["lesson", "1", "--port", str(port)]) == 2
    assert f"--port is {port}; a free port is expected" in capsys.readouterr().err
    assert cli.main(["lesson", "1", "--port", "70000"]) == 2


def test_marimo_does_not_look_for_updates() -> None:
    x = environment()
    assert x["MARIMO_SKIP_UPDATE_CHECK"] == "1" and x["MARIMO_RESTRICT_SHARING"] == "true"
    assert x.items() >= {k: v for k, v in os.environ.items() if not k.startswith(("MARIMO_", "PYTHONW"))}.items()


def port_of(address: str) -> int:
    return int(re.split(r"[:/?]+", address)[2])


@needs_marimo
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_lesson_is_served_until_it_is_ended(end: signal.Signals, tmp_path: Path) -> None:
    with served("1", folder=tmp_path) as (address, process):
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.status == 200 and b"Returns" in answer.read()
        refused(("127.0.0.2", port_of(address)))  # another address of this machine, where there is one
        process.send_signal(end)
        assert process.wait(30) == 0
        refused(("127.0.0.1", port_of(address)))
    assert not list(tmp_path.iterdir())


def refused(address: tuple[str, int]) -> None:
    with pytest.raises(OSError):
        socket.create_connection(address, 2).close()


@needs_marimo
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_editor_works_on_a_copy_and_asks_for_a_token(tmp_path: Path) -> None:
    lesson = lessons()[1]
    with served("1", "--edit", folder=tmp_path) as (address, process):
        assert "?access_token=" in address
        assert (tmp_path / lesson.file.name).read_bytes() == lesson.file.read_bytes()
        plain = address.partition("?")[0]
        with urllib.request.urlopen(plain, timeout=30) as answer:
            assert "/auth/login" in answer.url
        with visitor().open(address, timeout=30) as answer:
            assert "/auth/login" not in answer.url
        arguments = Path(f"/proc/{process.pid}/cmdline")
        if arguments.exists():
            token = address.partition("=")[2]
            lines = [x.read_bytes() for x in Path("/proc").glob("[0-9]*/cmdline") if readable(x)]
            assert not any(token.encode() in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def visitor() -> urllib.request.OpenerDirector:
    """Keeps cookies, as a browser does."""
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor())


def readable(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(path.read_bytes())
    return False


@needs_marimo
@pytest.mark.skipif(importlib.util.find_spec("nbformat") is None, reason="nbformat is not installed")
def test_an_exported_notebook_runs(tmp_path: Path) -> None:
    """Its cells of code, one after the other, in plain Python; no outputs, nothing half written."""
    out = tmp_path / "notebooks"
    assert export([lessons()[2]], out) == 0
    assert [x.name for x in out.iterdir()] == ["l02_bellman.ipynb"]
    book = json.loads((out / "l02_bellman.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(x["source"]) for x in book["cells"] if x["cell_type"] == "code"]
    assert len(cells) > 10 and any("parts.head(" in x for x in cells)
    (tmp_path / "cells.py").write_text("\n\n".join(cells), encoding="utf-8")
    done = subprocess.run([sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
