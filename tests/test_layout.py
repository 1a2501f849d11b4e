"""Where the parts of the package stand, and what a wheel contains."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ("envs", "lessons")  # stand at the top level, install below tabrl


def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def packages() -> dict[str, Path]:
    """Every directory with an __init__.py, by its installed name."""
    found = {}
    for folder in ("tabrl", *OUTSIDE):
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if not set(parts[1:]) & set(OUTSIDE):  # not through the links
                found[".".join(parts if parts[0] == "tabrl" else ("tabrl", *parts))] = init.parent
    return found


def contents() -> set[str]:
    """Files of the package, as a wheel should name them."""
    modules = {
        f"{name.replace('.', '/')}/{path.name}" for name, folder in packages().items() for path in folder.glob("*.py")
    }
    return modules | {"tabrl/py.typed"}


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_are_relative(name: str) -> None:
    link = ROOT / "tabrl" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"
    assert link.resolve() == ROOT / name


def test_setup_lists_every_package() -> None:
    listed = config()["options"]["packages"].split()
    assert sorted(listed) == sorted(packages())
    assert {"tabrl", "tabrl.envs", "tabrl.lessons"} <= set(listed)


def test_setup_maps_the_folders() -> None:
    lines = config()["options"]["package_dir"].strip().splitlines()
    mapping = dict(line.replace(" ", "").split("=") for line in lines)
    for name, folder in packages().items():
        assert any(
            name == package or (name.startswith(f"{package}.") and folder.is_relative_to(ROOT / path))
            for package, path in mapping.items()
        )
    assert {mapping[f"tabrl.{name}"] for name in OUTSIDE} == set(OUTSIDE)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_world_under_another_name_is_refused(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"ImportError: the package is imported as {name}; tabrl.{name} is expected" in done.stderr


@pytest.mark.parametrize("name", OUTSIDE)
def test_under_its_own_name_it_imports(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"import tabrl.{name}"], cwd=ROOT, capture_output=True, check=True)


BUILD = """
import sys, setuptools
if tuple(map(int, setuptools.__version__.split(".")[:2])) >= (70, 1):
    from setuptools import build_meta
    build_meta.build_wheel(sys.argv[1])
else:  # cannot write wheels alone; what build_py collects is what they hold
    sys.argv[1:] = ["-q", "build_py", "--build-lib", sys.argv[1]]
    setuptools.setup()
"""


def test_a_wheel_contains_every_module(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="setuptools is not installed here; .ci/run builds the wheel")
    source, out = tmp_path / "source", tmp_path / "out"
    skip = shutil.ignore_patterns(
        ".git", "*.egg-info", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "docs"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=skip)
    done = subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wheels = list(out.glob("*.whl"))
    if wheels:
        held = {name for name in zipfile.ZipFile(wheels[0]).namelist() if ".dist-info/" not in name}
    else:
        held = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert held == contents()
