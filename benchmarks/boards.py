"""Bundles for microcontrollers on boards that QEMU emulates: TFLM compiled for a core, linked with a bundle, and run.

`make micro TFLM=DIR` and `benchmarks.firmware_table` use this. DIR is a checkout of tflite-micro with its downloads;
nothing is written there. Compiled archives are kept in build/boards, so what was stopped goes on.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import zlib
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "build" / "boards"
SOURCES = pathlib.Path(__file__).with_name("boards")
TOOLS = ("make", "arm-none-eabi-g++", "arm-none-eabi-size", "qemu-system-arm")
PACKAGES = "make gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib qemu-system-arm"
MAKE = pathlib.Path("tensorflow", "lite", "micro", "tools", "make")
DOWNLOADS = ("flatbuffers", "gemmlowp", "ruy", "cmsis", "cmsis_nn")
# What a bundle is compiled from: with its check, and with the least that an application does.
CHECK = ("model.cc", "classifier.cc", "golden.cc", "main.cc")
APPLICATION = ("model.cc", "classifier.cc")
FLAGS = ("-Os", "-Wall", "-Wextra", "-Werror", "-funsigned-char", "-ffunction-sections", "-fdata-sections")
COMPILERS = {
    ".c": ("arm-none-eabi-gcc",),
    ".cc": (
        *("arm-none-eabi-g++", "-std=c++17", "-fno-rtti", "-fno-exceptions", "-fno-threadsafe-statics"),
        *("-DTF_LITE_STATIC_MEMORY", "-DTF_LITE_MCU_DEBUG_LOG"),
    ),
}
SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Board:
    """A board of QEMU's.

    Attributes:
      machine: QEMU's name of it.
      flags: the compiler's, of its processor.
    """

    machine: str
    flags: tuple[str, ...]


BOARDS = {
    "cortex-m4": Board("mps2-an386", ("-mcpu=cortex-m4", "-mfpu=auto", "-mfloat-abi=hard", "-mthumb")),
    "cortex-m55": Board("mps3-an547", ("-mcpu=cortex-m55", "-mfpu=auto", "-mfloat-abi=hard", "-mthumb")),
}
# Kernels -> archives in the order of linking, and what is defined for the bundle.
KERNELS = {
    "reference": (("libtflm.a",), ()),
    "cmsis_nn": (("libcmsis_nn.a", "libtflm.a"), ("-DCMSIS_NN",)),
}
# (Board, kernels) that gcc 12.2.1 miscompiles in part -> an archive with that part, not optimized.
UNOPTIMIZED = {("cortex-m55", "cmsis_nn"): "libunoptimized.a"}


@dataclasses.dataclass(frozen=True)
class Size:
    """Bytes of a program: what lies in flash (code, constants, first values), and its static RAM."""

    flash: int
    ram: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.flash + other.flash, self.ram + other.ram)

    def __sub__(self, other: "Size") -> "Size":
        return Size(self.flash - other.flash, self.ram - other.ram)


def absence(tflm: str) -> str | None:
    """Why nothing can be compiled or run; None where it can."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} not found; apt-get install {PACKAGES}"
    if not tflm:
        return "no TFLM named; make micro TFLM=DIR, where DIR is a checkout of tflite-micro with its downloads"
    if any(map(str.isspace, str(_root(tflm)))):
        return f"{tflm} has a space in its path, which make does not take; give a path without"
    if not (_root(tflm) / MAKE).is_dir():
        return f"{tflm} is no checkout of tflite-micro: it has no {MAKE}"
    downloads = _root(tflm) / MAKE / "downloads"
    if missing := [name for name in DOWNLOADS if not (downloads / name).is_dir()]:
        return (
            f"{tflm} lacks {', '.join(missing)} in {MAKE}/downloads; in it run make -f {MAKE}/Makefile "
            "TARGET=cortex_m_generic TARGET_ARCH=cortex-m55 OPTIMIZED_KERNEL_DIR=cmsis_nn third_party_downloads"
        )
    return None


@dataclasses.dataclass(frozen=True)
class Firmware:
    """Compiles and links programs with TFLM for a board.

    Attributes:
      tflm: folder of the checkout.
      board: a row of BOARDS.
      kernels: a row of KERNELS.
    """

    tflm: str
    board: str
    kernels: str

    @property
    def folder(self) -> pathlib.Path:
        """Of what is compiled, which another checkout does not share."""
        root = _root(self.tflm)
        return FOLDER / f"{root.name}-{zlib.crc32(str(root).encode()):08x}" / self.board

    def archives(self) -> list[pathlib.Path]:
        """TFLM and its kernels, compiled unless they are there already."""
        folder = self.folder
        variables = {"TFLM": _root(self.tflm), "OUT": folder, "MACHINE": " ".join(BOARDS[self.board].flags)}
        words = [f"{name}={value}" for name, value in variables.items()]
        _run("make", "--silent", f"--jobs={os.cpu_count()}", "-f", SOURCES / "tflm.mk", *words)
        return [folder / name for name in KERNELS[self.kernels][0]]

    def compile(
        self, folder: pathlib.Path, sources: Sequence[pathlib.Path], *flags: str | pathlib.Path
    ) -> list[pathlib.Path]:
        """Objects of sources in C and C++, and of start-up code, in a folder; a warning is an error.

        Raises:
          RuntimeError: it does not compile, with the compiler's first lines.
        """
        downloads = _root(self.tflm) / MAKE / "downloads"
        folders = [_root(self.tflm), downloads / "flatbuffers" / "include", downloads / "gemmlowp", downloads / "ruy"]
        common = [*BOARDS[self.board].flags, *FLAGS, *KERNELS[self.kernels][1], *flags]
        common += [word for header in folders for word in ("-isystem", header)]
        self.archives()
        precompiled = ("-Winvalid-pch", "-include", self.folder / "tflm.h")
        objects = []
        for source in (*sources, SOURCES / "startup.c"):
            headers = precompiled if b"tensorflow/" in source.read_bytes() else ()  # reading them takes a moment, too
            objects.append(folder / f"{source.name}.o")
            _run(*COMPILERS[source.suffix], *common, *headers, "-c", source, "-o", objects[-1])
        return objects

    def link(
        self, objects: Sequence[pathlib.Path], program: pathlib.Path, *symbols: str, runs: bool = False
    ) -> pathlib.Path:
        """The program of objects and TFLM.

        Args:
          symbols: each "NAME=OTHER" has NAME stand for OTHER.
          runs: it is to run, so what gcc 12.2.1 miscompiles is not optimized; else it is to be measured.
        """
        archives, part = self.archives(), UNOPTIMIZED.get((self.board, self.kernels))
        whole = ["-Wl,--whole-archive", self.folder / part, "-Wl,--no-whole-archive"] if runs and part else []
        runtime = ["-nostartfiles", "--specs=nano.specs", "--specs=rdimon.specs", "-T", SOURCES / "board.ld"]
        machine = BOARDS[self.board].flags
        options = ["-Wl,--gc-sections", *(f"-Wl,--defsym={symbol}" for symbol in symbols)]
        _run("arm-none-eabi-g++", *machine, *objects, *whole, *archives, *runtime, *options, "-o", program)
        return program

    def run(self, program: pathlib.Path) -> subprocess.CompletedProcess:
        """What a program prints on the board, and how it ends."""
        machine = ["-M", BOARDS[self.board].machine, "-nographic", "-semihosting-config", "enable=on,target=native"]
        return subprocess.run(
            ["qemu-system-arm", *machine, "-kernel", str(program)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )

    def check(self, bundle: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
        """The golden check of a bundle's folder, on the board."""
        more = ["model_compressed.cc"] * ("-DMODEL_COMPRESSED" in flags)
        sources = [*(bundle / name for name in (*CHECK, *more)), SOURCES / "watch.c"]
        return self.run(self.link(self.compile(bundle, sources, *flags), bundle / "check.elf", runs=True))

    def size(self, bundle: pathlib.Path, *flags: str) -> Size:
        """What a bundle takes without its check: an application that runs it, less one that does nothing."""
        more = ["model_compressed.cc"] * ("-DMODEL_COMPRESSED" in flags)
        sources = [*(bundle / name for name in (*APPLICATION, *more)), SOURCES / "application.cc"]
        objects = self.compile(bundle, sources, f"-I{bundle}", *flags)
        return measure(self.link(objects, bundle / "application.elf")) - self.size_of_nothing(bundle)

    def size_of_nothing(self, folder: pathlib.Path) -> Size:
        """What start-up code and C library take by themselves."""
        return measure(self.link(self.compile(folder, [SOURCES / "empty.c"]), folder / "empty.elf"))


def measure(program: pathlib.Path) -> Size:
    """Of a linked program."""
    done = subprocess.run(["arm-none-eabi-size", program], capture_output=True, text=True, check=True)
    text, data, bss = map(int, done.stdout.splitlines()[1].split()[:3])
    return Size(text + data, data + bss)


def _root(tflm: str) -> pathlib.Path:
    return pathlib.Path(tflm).expanduser().resolve()


def _run(*command: str | pathlib.Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr[:3000]}")
