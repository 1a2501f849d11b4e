"""Files: the same bits come back, damaged files are refused, and writes are atomic."""

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import mdps, random_mdp, same_model

from tabrl import MDP, files
from tabrl.errors import ModelError
from tabrl.types import Names


@given(m=mdps(), named=st.booleans())
@settings(max_examples=60, deadline=None)
def test_round_trip_keeps_every_bit(tmp_path_factory: pytest.TempPathFactory, m: MDP, named: bool) -> None:
    if named:
        m = replace(m, names=Names(tuple(f"state {s} é→" for s in range(m.S)), tuple("abcd"[: m.A])))
    path = tmp_path_factory.getbasetemp() / "model.npz"
    m.save(path)
    again = MDP.load(path)
    assert same_model(m, again)
    assert again.is_sparse == m.is_sparse


def test_names_and_path_come_back(tmp_path: Path) -> None:
    m = MDP([[[1.0]]], [1], 0.5, names=Names(("only",), ()))
    m.save(str(tmp_path / "no suffix"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["no suffix"]
    assert MDP.load(str(tmp_path / "no suffix")).names == Names(("only",), ())


def test_saving_replaces_the_old_file(tmp_path: Path) -> None:
    first, second = (random_mdp(np.random.default_rng(i)) for i in (1, 2))
    first.save(tmp_path / "m.npz")
    second.save(tmp_path / "m.npz")
    assert same_model(MDP.load(tmp_path / "m.npz"), second)


def test_file_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        MDP([[[1.0]]], [1], 0.5).save(tmp_path / "m.npz")
    finally:
        os.umask(old)
    assert (tmp_path / "m.npz").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("step", ["numpy.savez", "os.fsync", "os.replace"])
def test_a_failing_save_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    old, new = (random_mdp(np.random.default_rng(i)) for i in (1, 2))
    old.save(tmp_path / "m.npz")

    def fail(*arguments: Any, **keywords: Any) -> None:
        if step == "numpy.savez":
            arguments[0].write(b"half a model")
        raise OSError("disk full")

    monkeypatch.setattr(step, fail)
    for target in ("m.npz", "new.npz"):
        with pytest.raises(OSError, match="disk full"):
            new.save(tmp_path / target)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
    assert same_model(MDP.load(tmp_path / "m.npz"), old)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MDP([[[1.0]]], [1], 0.5).save(tmp_path / "nowhere" / "m.npz")
    with pytest.raises(FileNotFoundError):
        MDP.load(tmp_path / "nowhere.npz")


def write(path: Path, *, sparse: bool = False, drop: str = "", **changes: Any) -> Path:
    """Save a good model, then write its arrays again with changes."""
    m = random_mdp(np.random.default_rng(4), S=4, A=2, terminal=True, masked=False, sparse=sparse, rewards="sas")
    m.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != drop}
    np.savez(path, allow_pickle=True, **(arrays | changes))
    return path


def test_the_files_written_here_are_good_until_changed(tmp_path: Path) -> None:
    for sparse in (False, True):
        assert MDP.load(write(tmp_path / "m.npz", sparse=sparse)).S == 4


@pytest.mark.parametrize("name", ["gamma", "mu", "terminal", "legal", "format", "P", "R"])
def test_a_missing_array_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=rf"m\.npz'\] lacks {name}; a file written by MDP\.save"):
        MDP.load(write(tmp_path / "m.npz", drop=name))


def test_a_missing_part_of_a_sparse_array_is_named(tmp_path: Path) -> None:
    for part in files.CSR_PARTS:
        with pytest.raises(ModelError, match=r"lacks P; a file"):
            MDP.load(write(tmp_path / "m.npz", sparse=True, drop=f"P_{part}"))


def test_files_without_names_are_read(tmp_path: Path) -> None:
    assert MDP.load(write(tmp_path / "m.npz", drop="state_names")).names == Names()


def test_an_unknown_array_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has unknown weights; a file written by"):
        MDP.load(write(tmp_path / "m.npz", weights=np.ones(3)))


def test_another_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", x=np.ones(3))
    with pytest.raises(ModelError, match=r"m\.npz'\] lacks format, gamma, legal, mu, terminal; a file"):
        MDP.load(tmp_path / "m.npz")


def test_another_format_says_update(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has format 2; 1 is expected; update tabrl"):
        MDP.load(write(tmp_path / "m.npz", format=np.int64(2)))


class Bomb:
    """Unpickling this runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", ["P", "R", "mu", "state_names"])
def test_pickled_objects_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    changes: dict[str, Any] = {name: np.array([Bomb()], dtype=object)}
    with pytest.raises(ModelError, match=rf"holds Python objects in {name}; plain numbers"):
        MDP.load(write(tmp_path / "m.npz", **changes))
    assert not (tmp_path / "exploded").exists()


def test_a_bare_pickle_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"is not readable .*; a file written by MDP\.save"):
        MDP.load(tmp_path / "m.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"P,R\n1,2\n", b"PK\x03\x04 and then nothing"])
def test_a_renamed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"is not readable"):
        MDP.load(tmp_path / "m.npz")


def test_a_bare_npy_and_a_zip_of_text_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.ones(3))
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("P.npy", "hello")
    for name in ("m.npy", "text.zip"):
        with pytest.raises(ModelError, match=r"is not readable .*; a file written by"):
            MDP.load(tmp_path / name)


@given(cut=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = write(tmp_path_factory.getbasetemp() / "cut.npz")
    content = path.read_bytes()
    path.write_bytes(content[: cut % len(content)])
    with pytest.raises(ModelError, match="; a file written by"):
        MDP.load(path)


GOOD: dict[bool, tuple[MDP, bytes]] = {}


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7), sparse=st.booleans())
@settings(max_examples=250, deadline=None)
def test_a_flipped_bit_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int, sparse: bool
) -> None:
    """One bit of the file changes: ModelError, or the very same model (the bit was padding)."""
    path = tmp_path_factory.getbasetemp() / "flip.npz"
    if sparse not in GOOD:
        GOOD[sparse] = MDP.load(write(path, sparse=sparse)), path.read_bytes()
    good, content = GOOD[sparse][0], bytearray(GOOD[sparse][1])
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        read = MDP.load(path)
    except ModelError:
        return
    assert same_model(read, good)


def test_a_size_that_the_file_does_not_hold_is_refused_before_allocation(tmp_path: Path) -> None:
    path = write(tmp_path / "m.npz")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = members["P.npy"]
    assert b"(4, 2, 4)" in header
    members["P.npy"] = header.replace(b"(4, 2, 4), }        ", b"(4, 2, 400000000), }")
    assert len(members["P.npy"]) == len(header) and members["P.npy"] != header
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match=r"has a wrong size in P; a file written by MDP"):
        MDP.load(path)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 1000)
    with pytest.raises(ModelError, match=r"declares more than 1000 bytes; a smaller model"):
        MDP.load(write(tmp_path / "m.npz"))


@pytest.mark.parametrize(("name", "value"), [
    ("P_indptr", np.array([0, 1])),
    ("P_indptr", np.array([], dtype=int)),
    ("P_indptr", np.array([5, 0, 0, 0, 0, 0, 0, 0, 0])),
    ("P_indices", np.array([0, 99])),
    ("P_data", np.ones(3)),
    ("P_shape", np.array([8, 4, 2])),
    ("P_shape", np.array([2, 2])),
    ("P_shape", np.array([-8, 4])),
    ("P_shape", np.array([8.5, 4])),
    ("gamma", np.ones(3)),
    ("gamma", np.array("big")),
    ("gamma", np.float64(2)),
    ("format", np.ones(2, int)),
    ("mu", np.ones(9)),
    ("mu", np.array(["a"] * 4)),
    ("terminal", np.ones((2, 2))),
    ("R_data", np.ones((2, 2))),
])  # fmt: skip
def test_inconsistent_contents_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="; ") as caught:  # ModelError or ShapeError
        MDP.load(write(tmp_path / "m.npz", sparse=True, **{name: value}))
    assert type(caught.value) is not ValueError
