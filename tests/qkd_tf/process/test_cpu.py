import platform
import subprocess
import sys

import pytest

from qkd_tf.process import cpu

PI5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
"""


@pytest.mark.parametrize(
    "features, told",
    [
        (set(), "ARM64 without dot product and i8mm"),
        ({"asimddp"}, "ARM64 with dot product, without i8mm"),
        ({"asimddp", "i8mm"}, "ARM64 with dot product and i8mm"),
    ],
)
def test_features_that_kernels_differ_by_are_told(features, told):
    assert cpu.told_of(features) == told


def test_words_of_linux_are_read_whole():
    assert cpu.arm_features(PI5) == {"asimddp"}
    assert cpu.arm_features("Features\t: svei8mm asimddphp") == cpu.arm_features("flags : asimddp") == set()


def test_board_of_linux(monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "platform", "linux")
    for name, text in (("CPUINFO", PI5), ("BOARD", "Raspberry Pi 5 Model B Rev 1.0\0")):
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setattr(cpu, name, path)
    assert cpu.told() == "ARM64 with dot product, without i8mm (Raspberry Pi 5 Model B Rev 1.0)"
    monkeypatch.setattr(cpu, "BOARD", tmp_path / "none")  # as on most servers
    assert cpu.told() == "ARM64 with dot product, without i8mm"


def test_macos_is_asked_for_its_settings(monkeypatch):
    settings = {"machdep.cpu.brand_string": "Apple M1", "hw.optional.arm.FEAT_DotProd": "1"}

    def sysctl(command, **_):
        value = settings.get(command[-1])
        return subprocess.CompletedProcess(command, value is None, f"{value}\n" if value else "", "")

    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(cpu.subprocess, "run", sysctl)
    assert cpu.told() == "ARM64 with dot product, without i8mm (Apple M1)"


def test_other_processors_have_their_name(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert cpu.told() == "x86_64"
