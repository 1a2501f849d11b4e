"""The page of the token tasks: complete, exact, and able to find what is wrong."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_report import Reader

from tabrl import cli
from tabrl.envs import token_tasks
from tabrl.figures.token_runs import Runs
from tabrl.report import tokens as report_tokens
from tabrl.report.page import render
from tabrl.report.tokens import Study
from tabrl.tokens import exact, train
from tabrl.tokens.table import TableLM

CHOSEN = ["bandit", "two-step"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Study]]:
    folder, heard = tmp_path_factory.mktemp("out") / "new", list[str]()
    found = report_tokens.build(folder, CHOSEN, jobs=1, tick=heard.append)
    assert heard == CHOSEN and [x.name for x in found] == CHOSEN
    return (folder / report_tokens.FILE).read_text(encoding="utf-8"), found


def test_page_needs_nothing_from_outside(built: tuple[str, list[Study]]) -> None:
    text, page = built[0], Reader(built[0])
    assert all(v.startswith("data:image/png;base64,") for v in page.values("img", "src"))
    links = page.values("a", "href")
    assert {v for v in links if not v.startswith("#")} == {"index.html#top"}
    assert {v[1:] for v in links if v.startswith("#")} <= set(page.values("section", "id")) | {"top"}
    assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe|/work|/tmp|/home|site-packages", text)
    assert len(page.values("img", "src")) == 2 * len(CHOSEN) and all(len(v) > 20 for v in page.values("img", "alt"))


def test_every_task_is_there_as_text_with_sizes_and_uniform_success(built: tuple[str, list[Study]]) -> None:
    text, page = built[0], Reader(built[0])
    for name in CHOSEN:
        task = token_tasks.make(name)
        uniform = exact.objective(task, TableLM(task))
        assert f"id='task-{name}'" in text and f"{uniform:.4g}" in page.cells
        for k in range(task.K):
            assert task.text(k, task.best(k)[0]) in text
        assert all(size in page.cells for size in (f"{task.K}", f"{task.V}", f"{task.length}", f"{task.N:,}"))
    assert "Sutton &amp; Barto (2018), section 2.8" in text


def test_numbers_are_those_of_the_methods(built: tuple[str, list[Study]]) -> None:
    """The rows of two-step, from runs that are made here with the same seeds."""
    study = built[1][1]
    task = token_tasks.make("two-step")
    assert study.wrong == 0 and study.levels == pytest.approx((1 / 7, 1.0))
    for i, algo in enumerate(report_tokens.ALGORITHMS):
        own = np.random.default_rng([0, *f"two-step {algo}".encode()]).spawn(1)[0]
        policy = TableLM(task)
        training = train.METHODS[algo](task, policy, own, every=report_tokens.EVERY)
        records = [next(training) for _ in range(report_tokens.UPDATES // report_tokens.EVERY)]
        row, J = study.table.rows[i], float(exact.objective(task, policy))
        assert study.ends[i] == pytest.approx(J, abs=1e-14)
        kl, entropy = exact.kl(task, policy, TableLM(task)).sequence, exact.entropy(task, policy).token
        assert row[:4] == (algo.upper(), f"{J:.4f}", f"{kl:.4f}", f"{entropy:.4f}")
        steps = next(x.k for x in records if x.p.mean() >= 0.9)
        assert row[5:] == (f"{np.mean([x.kept for x in records]):.2f}", f"{records[-1].t:,}", str(steps))


def test_a_policy_above_the_best_answers_is_set_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that pays more than the tree says: the curve is lifted, as a wrong evaluation would."""
    usual = report_tokens.run

    def lifted(name: str, algo: str) -> Runs:
        x = usual(name, algo)
        return x._replace(J=x.J + (0.1 if algo == "dapo" else 0.0))

    monkeypatch.setattr(report_tokens, "run", lifted)
    x = report_tokens.study("bandit")
    assert x.wrong > 0 and x.table.bad == [1]
    assert report_tokens.verdict([x]) == f"{x.wrong} results are wrong!"
    assert "class='bad'" in render(report_tokens.page([x]))


def test_a_task_that_raises_has_a_section_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str, algo: str) -> Runs:
        raise RuntimeError("lost")

    monkeypatch.setattr(report_tokens, "run", broken)
    assert cli.main(["report", "--out", str(tmp_path), "--task", "bandit", "--jobs", "1"]) == 1
    assert "1 token tasks. 1 results are wrong!" in capsys.readouterr().out
    assert "RuntimeError: lost" in (tmp_path / report_tokens.FILE).read_text(encoding="utf-8")


def test_command_writes_the_page_and_links_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "--out", str(tmp_path), "--task", "bandit", "--jobs", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "1 token tasks. No policy is better than the best answers.", f"wrote {tmp_path / 'index.html'}",
    ]  # fmt: skip
    assert "1/1" in err and "href='tokens.html#task-bandit'" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "tokens.html").is_file()
    assert cli.main(["report", "--task", "bandt", "--out", str(tmp_path)]) == 2
    assert "did you mean bandit" in capsys.readouterr().err
