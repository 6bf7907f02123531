"""Which processor this is, as far as it matters to LiteRT's kernels; needs only the standard library."""

import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Set

ARM64 = frozenset({"arm64", "aarch64"})  # as macOS and Linux call it
CPUINFO = pathlib.Path("/proc/cpuinfo")
BOARD = pathlib.Path("/proc/device-tree/model")
# Linux's name of a feature -> its name for people and in macOS's settings. XNNPACK has kernels of their own for each.
FEATURES = {"asimddp": ("dot product", "FEAT_DotProd"), "i8mm": ("i8mm", "FEAT_I8MM")}


def told() -> str:
    """This processor in words, such as "ARM64 with dot product, without i8mm (Raspberry Pi 5 Model B Rev 1.0)"."""
    machine = platform.machine()
    if machine.lower() not in ARM64:
        return machine
    features, model = _of_macos() if sys.platform == "darwin" else _of_linux()
    return told_of(features) + (f" ({model})" if model else "")


def told_of(features: Set[str]) -> str:
    """An ARM64 processor with these of FEATURES, in words."""
    there = " and ".join(name for key, (name, _) in FEATURES.items() if key in features)
    absent = " and ".join(name for key, (name, _) in FEATURES.items() if key not in features)
    return "ARM64 " + ", ".join(filter(None, (there and f"with {there}", absent and f"without {absent}")))


def arm_features(cpuinfo: str) -> set[str]:
    """Those of FEATURES that Linux's /proc/cpuinfo lists."""
    lines = re.findall(r"^Features\s*:(.*)$", cpuinfo, re.MULTILINE)
    return set(FEATURES) & set(" ".join(lines).split())


def _of_linux() -> tuple[set[str], str]:
    return arm_features(_read(CPUINFO)), _read(BOARD).rstrip("\0\n")


def _of_macos() -> tuple[set[str], str]:
    model = _setting("machdep.cpu.brand_string")
    return {key for key, (_, name) in FEATURES.items() if _setting(f"hw.optional.arm.{name}") == "1"}, model


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _setting(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True)  # noqa: S603, S607
    except OSError:
        return ""
    return done.stdout.strip()
