"""What `pip install` gets: the built wheel has every file of both packages, their scripts and their requirements."""

import email
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from qkd_tf import __version__, commands

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("qkd_tf", "tflite_export")
METADATA = ("pyproject.toml", "README.md", "LICENSE", *(path.name for path in ROOT.glob("requirements*.txt")))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, without the network: setuptools leaves folders of its own beside the sources."""
    pytest.importorskip("setuptools")
    copy = tmp_path_factory.mktemp("sources")
    for name in METADATA:
        shutil.copy(ROOT / name, copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import setuptools.build_meta as build; print(build.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (copy / "dist").iterdir()
    assert path.name == f"qkd_tf-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_wheel_has_every_file_of_the_packages_and_nothing_else(wheel):
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected
    assert {"qkd_tf/py.typed", "tflite_export/py.typed", "qkd_tf/console/page.html.j2"} <= expected


def test_metadata_has_pythons_scripts_and_ranges(wheel):
    info = f"qkd_tf-{__version__}.dist-info"
    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    required = metadata.get_all("Requires-Dist")
    assert not [line for line in required if "==" in line.partition(";")[0]]  # pins are of constraints.txt
    assert [line for line in required if line.startswith("tflite-micro") and 'platform_machine == "x86_64"' in line]
    scripts = wheel.read(f"{info}/entry_points.txt").decode()
    assert all(f"{name} = qkd_tf.commands:main" in scripts for name in commands.COMMANDS)


def test_a_folder_that_holds_a_clone_does_not_hide_the_packages(tmp_path):
    """Without a real package on its path, Python takes any folder of that name for one: a clone, seen from outside."""
    for name in ("qkd_tf", "tflite_export"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", "import qkd_tf, tflite_export; print(qkd_tf.__version__, tflite_export.__file__)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
