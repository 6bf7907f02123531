"""Why bundles cannot be run on emulated boards, in words; `make micro TFLM=DIR` runs them."""

import shutil

import pytest

from benchmarks import boards
from benchmarks.boards import DOWNLOADS, MAKE, TOOLS, Firmware, Size, absence


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with what a checkout of tflite-micro has, on a machine with every tool."""
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    for name in DOWNLOADS:
        (tmp_path / MAKE / "downloads" / name).mkdir(parents=True)
    return tmp_path


def test_checkout_with_its_downloads_lacks_nothing(checkout):
    assert absence(str(checkout)) is None


def test_what_is_missing_is_named(checkout, monkeypatch):
    assert "make micro TFLM=DIR" in absence("")
    assert absence(str(checkout / "elsewhere")).endswith(f"is no checkout of tflite-micro: it has no {MAKE}")
    assert "has a space in its path" in absence(str(checkout / "a folder"))
    (checkout / MAKE / "downloads" / "ruy").rmdir()
    assert f"lacks ruy in {MAKE}/downloads; in it run make" in absence(str(checkout))
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == TOOLS[-1] else f"/usr/bin/{tool}")
    assert absence(str(checkout)) == f"qemu-system-arm not found; apt-get install {boards.PACKAGES}"


def test_checkouts_and_cores_do_not_share_what_is_compiled(tmp_path):
    folders = {Firmware(str(tmp_path / name), core, "reference").folder for name in "ab" for core in boards.BOARDS}
    assert len(folders) == 4


def test_sizes_add_up():
    assert Size(3, 4) + Size(1, 1) - Size(2, 3) == Size(2, 2)
