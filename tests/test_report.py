"""The report: complete, honest, self-contained."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from tabrl import dp, envs, report
from tabrl.errors import NotConverged
from tabrl.plots import image
from tabrl.reference import reference
from tabrl.report import drawing
from tabrl.report.page import Image, Page, Picture, Section, Table, Text, render

WORLDS = ["two-state", "grid4x4", "forest"]
VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in {"td", "th"}:
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def values(self, tag: str, name: str) -> list[str]:
        return [str(a[name]) for t, a in self.tags if t == tag and name in a]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[report.Study]]:
    heard: list[str] = []
    folder = tmp_path_factory.mktemp("out") / "new" / "report"
    path, studies = report.build(folder, WORLDS, jobs=1, tick=heard.append)
    assert heard == WORLDS and [p.name for p in folder.iterdir()] == ["index.html"]
    return path.read_text(encoding="utf-8"), studies


def test_page_needs_nothing_from_outside(built: tuple[str, list[report.Study]]) -> None:
    page = Reader(built[0])
    targets = [
        v for name in ("src", "href", "action", "data", "srcset") for _, a in page.tags for v in [a.get(name)] if v
    ]
    assert all(v.startswith(("#", "data:image/png;base64,")) for v in targets)
    assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe", built[0])
    assert not re.search(r"/work|/tmp|/home|site-packages", built[0])


def test_links_lead_to_sections_and_every_world_is_listed(built: tuple[str, list[report.Study]]) -> None:
    page = Reader(built[0])
    anchors = {str(a["id"]) for _, a in page.tags if "id" in a}
    assert {v.removeprefix("#") for v in page.values("a", "href")} <= anchors
    assert {f"world-{name}" for name in WORLDS} <= anchors


def test_images_decode_and_have_text_alternatives(built: tuple[str, list[report.Study]]) -> None:
    page = Reader(built[0])
    sources = page.values("img", "src")
    assert len(sources) == 3 * len(WORLDS)
    for source in sources:
        pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(source.partition(",")[2])), format="png")
        assert min(pixels.shape[:2]) > 200 and pixels.std() > 0.02
    assert all(len(alt) > 20 for alt in page.values("img", "alt"))


def test_every_method_has_its_row_with_a_bound_that_holds(built: tuple[str, list[report.Study]]) -> None:
    for study in built[1]:
        assert [row.method for row in study.rows] == list(dp.METHODS)
        assert study.violations == [] == study.failures
        for row in study.rows:
            assert row.iterations >= 1 and row.seconds > 0 and row.status
            assert row.error <= row.bound + study.exact
    cells = Reader(built[0]).cells
    for method in dp.METHODS:
        assert cells.count(method.replace("_", " ")) == len(WORLDS)


def test_descriptions_come_from_the_docstrings() -> None:
    sentence, source, diagram = report.describe(envs.WORLDS["two-state"], grid=False)
    assert sentence.startswith("Two states that follow each other for ever")
    assert source.startswith("made for this package") and "1-p ( 0 ------> 1 ) 1-q" in diagram
    assert report.describe(envs.WORLDS["grid4x4"], grid=True)[1:] == ("Sutton & Barto (2018), example 4.1.", "")
    for name, world in envs.WORLDS.items():
        sentence, source, _ = report.describe(world, grid=False)
        assert sentence.endswith(".") and source.endswith("."), name


def without_seconds(page: str) -> list[str]:
    return [cell for cell in Reader(page).cells if not re.fullmatch(r"\d+\.\d{4}", cell)]


def test_two_runs_and_two_workers_give_the_same_page_but_for_the_seconds(
    built: tuple[str, list[report.Study]], tmp_path: Path
) -> None:
    path, _ = report.build(tmp_path, WORLDS, jobs=2)
    page = path.read_text(encoding="utf-8")
    assert without_seconds(page) == without_seconds(built[0])
    assert Reader(page).values("img", "src") == Reader(built[0]).values("img", "src")


def test_a_method_that_raises_gets_a_row_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(mdp: Any, *, tol: float, limit: int) -> Any:
        raise NotConverged("broken[k=3] is <lost>; an answer is expected")

    monkeypatch.setitem(dp.METHODS, "broken_method", broken)
    study = report.study("two-state")
    assert [row.method for row in study.failures] == ["broken_method"]
    page = render(report.worlds_page([study]))
    assert "NotConverged: broken[k=3] is &lt;lost&gt;; an answer is expected" in page
    assert "1 runs failed with an error" in report.verdict([study])
    Reader(page)


def test_a_bound_below_the_error_is_called_out() -> None:
    study = report.study("two-state")
    wrong = study.rows[0]._replace(bound=study.rows[0].error / 2)
    study = study._replace(rows=[wrong, *study.rows[1:]])
    assert study.violations == [wrong]
    assert "1 bounds lie below the true error!" in report.verdict([study])
    assert "<tr class='bad'>" in render(report.worlds_page([study]))


def test_a_method_too_slow_for_a_world_says_iteration_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "WORK", 100 * 100)
    mdp = envs.garnet_example()
    exact = reference(mdp)
    row, curve = report.attempt(mdp, "gauss_seidel", exact)
    assert row.status == "iteration limit" and curve is not None and row.iterations == len(curve.k)
    assert row.iterations < 50 and exact.error < row.error <= row.bound
    assert report.attempt(mdp, "value_iteration", exact)[0].status == "certified"


def test_errors_below_the_accuracy_of_the_reference_are_not_claimed() -> None:
    row = report.Row("m", 3, 0.5, np.inf, 1e-17, "x")
    assert report.figures(row, 1e-15) == ("3", "0.5000", "none", "≤ 1.0e-15")
    assert report.figures(row._replace(error=3e-12, bound=2e-9), 1e-15)[2:] == ("2.0e-09", "3.0e-12")


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        report.build(tmp_path / "file", ["two-state"], jobs=1)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_page_escapes_what_it_is_given() -> None:
    table = Table(["<a>", "b"], [["<i>", "&"]], caption="1 < 2")
    picture = Picture([Image(b"x", "a 'quote' <b>")], "<c>")
    text = render(Page("<t>", [Text("<p>", "<s>")], [Section("<h>", "x'y", [table, picture])]))
    page = Reader(text)
    assert page.cells == ["<a>", "b", "<i>", "&"]
    assert page.values("img", "alt") == ["a 'quote' <b>"] and page.values("section", "id") == ["x'y"]


@pytest.mark.parametrize("name", ["gambler", "car-rental", "blackjack", "taxi", "garnet", "slippery-grid"])
def test_special_figures_draw(name: str) -> None:
    keywords: dict[str, Any] = {"car-rental": {"cars": 6, "most": 2}}.get(name, {})
    mdp = envs.make(name, **keywords)
    solution = dp.solve(mdp)
    drawn = drawing.values(name, mdp, solution.V, solution.pi > 0)
    assert drawn.caption and all(p.alt for p in drawn.panels)
    assert image(drawing.figure(drawn.panels), dpi=40)[:4] == b"\x89PNG"
