"""LiteRT on a processor that this machine has not: in a process that QEMU runs, asked from here.

`python -m benchmarks.processor` sets up in build/arm64 what that takes, without installing anything: Debian 13's QEMU
and its arm64 Python with the libraries that it needs, unpacked, and aarch64 wheels of NumPy and ai-edge-litert.
"""

import contextlib
import pathlib
import pickle
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from ai_edge_litert.interpreter import Interpreter

from qkd_tf.process import cpu
from tflite_export.inference.runtimes import Runtime, litert

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "build" / "arm64"
INSTALLED = FOLDER / "installed"  # is there once all the rest is
SERVER = pathlib.Path(__file__).with_name("litert_server.py")
# QEMU's name of a processor -> what of it matters to XNNPACK, which chooses kernels by it.
PROCESSORS = {
    "cortex-a53": "no dot product",
    "cortex-a76": "dot product",
    "neoverse-v1": "dot product, i8mm",
    "max": "all that QEMU has",
}
# Debian 12's QEMU, 7.2, crashes in LiteRT.
SUITE, PYTHON = "trixie", "3.13"
PACKAGES = (f"python{PYTHON}", "libstdc++6")
WHEELS = ("numpy", "ai-edge-litert")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS = ("apt-get", "dpkg-deb", "dpkg")


class Processor:
    """LiteRT in a process of its own, which begins with the first call and begins anew where it has ended.

    Args:
      command: what runs `litert_server`.
      environment: of that process, whole.
      machine: as `platform.machine` tells it there.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], machine: str):
        self._command, self._environment, self._machine = command, environment, machine
        self._process: subprocess.Popen | None = None
        self._opened: _Remote | None = None

    def __enter__(self) -> "Processor":
        return self

    def __exit__(self, *_) -> None:
        self._end()

    def runtimes(self) -> dict[str, Runtime]:
        """The rows of RUNTIMES that are asked here."""
        return litert(self.interpreter, self._machine)

    def interpreter(self, *positional, **named) -> Interpreter:
        """As ai_edge_litert's class; it can be called until the next one is opened.

        Raises:
          RuntimeError, ValueError: those of the class, or the process ended.
        """
        self._call("Interpreter", positional, named)
        self._opened = _Remote(self._answer)
        return self._opened

    def _answer(self, remote: "_Remote", method: str, positional: tuple, named: dict):
        if remote is not self._opened:
            raise RuntimeError("another file was opened since, and a processor holds one")
        return self._call(method, positional, named)

    def _call(self, method: str, positional: tuple, named: dict):
        if self._process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen([*self._command, SERVER], env=self._environment, **pipes)  # noqa: S603
        try:
            pickle.dump((method, positional, named), self._process.stdin)
            self._process.stdin.flush()
            answer = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"LiteRT's process ended with {self._end()}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _end(self) -> int | None:
        """Has the process end; what it ended with."""
        process, self._process, self._opened = self._process, None, None
        if process is None:
            return None
        with process:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
        return process.returncode


class _Remote:
    """An Interpreter of another process: every method is that one's."""

    def __init__(self, answer: Callable):
        self._answer = answer

    def __getattr__(self, method: str) -> Callable:
        return lambda *positional, **named: self._answer(self, method, positional, named)


def emulated(name: str) -> Processor:
    """A processor of PROCESSORS, emulated by what is set up."""
    return Processor(_command(name), {"PYTHONPATH": str(FOLDER / "site"), "OPENBLAS_NUM_THREADS": "1"}, "aarch64")


def features(name: str) -> set[str]:
    """What an emulated processor says of itself to programs, as in /proc/cpuinfo."""
    done = subprocess.run(  # noqa: S603
        [*_command(name), "-c", "print(open('/proc/cpuinfo').read())"], capture_output=True, text=True, check=True
    )
    return cpu.arm_features(done.stdout)


def _command(name: str) -> list[str]:
    system = FOLDER / "system"
    return [
        str(FOLDER / "qemu-aarch64"),
        "-cpu",
        name,
        "-L",
        str(system),
        str(system / "usr" / "bin" / f"python{PYTHON}"),
    ]


def absence() -> str | None:
    """Why no processor can be emulated here, None if one can."""
    return None if INSTALLED.exists() else "build/arm64 is not set up; make arm64 does it"


def obstacle() -> str | None:
    """What keeps a machine from being set up, None if nothing does."""
    if platform.machine().lower() in cpu.ARM64:
        return "this processor is an ARM64 one itself: make test asks its kernels, python -m qkd_tf.doctor in short"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} not found: the packages are Debian's, so a Debian or a relative of it is needed"
    if not KEYRING.exists():
        return f"{KEYRING} not found, which proves Debian's packages; apt-get install debian-archive-keyring"
    return None


def debian_mirror() -> str:
    """The address of Debian's archive among the sources of this machine's apt.

    Raises:
      SystemExit: there is none.
    """
    found = _printed("apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages").split()
    if mirrors := [address for address in found if address.rstrip("/").endswith("/debian")]:
        return mirrors[0]
    sys.exit("error: apt's sources name no archive of Debian; give one: make arm64 DEBIAN_MIRROR=ADDRESS")


def set_up(mirror: str) -> None:
    """Puts into FOLDER, anew, what `emulated` runs."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
        unpacked = pathlib.Path(temporary, "unpacked")
        _unpack(unpacked, mirror, _printed("dpkg", "--print-architecture").strip(), ["qemu-user"])
        shutil.move(unpacked / "usr" / "bin" / "qemu-aarch64", FOLDER)
    _unpack(FOLDER / "system", mirror, "arm64", PACKAGES)
    (FOLDER / "system" / "lib").symlink_to("usr/lib")  # where programs look for their loader
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--target", FOLDER / "site", "--python-version", PYTHON, "--only-binary=:all:", "--no-deps", *platforms),
        *("--constraint", ROOT / "constraints.txt", *WHEELS),
    )
    INSTALLED.touch()


def _unpack(target: pathlib.Path, mirror: str, architecture: str, names: Sequence[str]) -> None:
    """Unpacks Debian packages of SUITE with all that they depend on, which an apt with a state of its own downloads.

    Its settings are the machine's, such as a proxy; its sources and what it takes for installed are not.
    """
    with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
        state = pathlib.Path(temporary)
        archives, status, sources = state / "archives", state / "status", state / "sources.list"
        for folder in (archives, state / "lists"):
            (folder / "partial").mkdir(parents=True)
        status.touch()
        sources.write_text(f"deb [arch={architecture} signed-by={KEYRING}] {mirror} {SUITE} main\n")
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures::": architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # where root asks, another user could not write here
            "Acquire::Languages": "none",
            "Dir::Cache": state,
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": state,
            "Dir::State::status": status,
        }
        apt = ["apt-get", "--quiet=2", *(f"--option={name}={value}" for name, value in settings.items())]
        _run(*apt, "update")
        _run(*apt, "--yes", "--download-only", "install", *names)
        for package in archives.glob("*.deb"):
            _run("dpkg-deb", "--extract", package, target)


def _run(*command) -> None:
    done = subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL)  # noqa: S603
    if done.returncode:
        sys.exit(f"error: {pathlib.Path(command[0]).name} ended with {done.returncode}, see above")


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


def main(arguments: list[str]) -> None:
    if reason := obstacle():
        sys.exit(f"error: {reason}")
    set_up(*arguments or [debian_mirror()])


if __name__ == "__main__":
    main(sys.argv[1:])
