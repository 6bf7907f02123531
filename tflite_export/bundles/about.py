"""What a bundle's README says of the file in numbers."""

import collections
import importlib.metadata

from qkd_tf import __version__
from tflite_export.inference.runtimes import RUNTIMES

KERNEL = "/kernel"  # end of a kernel's name


def rows(verification: dict, noun: str) -> list[tuple[str, str]]:
    """(What, its value) as text.

    Args:
      verification: as in verification.json, of a file that passed.
      noun: what it classifies: "image" or "example".
    """
    judge = verification["runtimes"][verification["judge"]]
    accuracy = judge["accuracy"]
    ran = {RUNTIMES[name].package: None for name, row in verification["runtimes"].items() if "not_run" not in row}
    versions = [" ".join([package, *_version(package)]) for package in ran]
    return [
        ("top-1", f"{accuracy['top1']:.2f} % of {accuracy['num_images']:,} test {noun}s, on {judge['title']}"),
        ("kernels", _bits(verification, is_kernel=True)),
        ("activations", _bits(verification, is_kernel=False)),
        ("multiply-adds", f"{verification['multiply_adds']:,} per inference"),
        ("exported by", f"qkd_tf {__version__}"),
        ("tested with", ", ".join(versions)),
    ]


def _version(package: str) -> list[str]:
    """Empty for one that was installed under another name."""
    try:
        return [importlib.metadata.version(package)]
    except importlib.metadata.PackageNotFoundError:
        return []


def _bits(verification: dict, is_kernel: bool) -> str:
    """How many tensors have each bit width, such as "19 at 4 bits, 5 at 8 bits"."""
    widths = collections.Counter(
        row["num_bits"]
        for row in verification["tensors"]
        if "num_bits" in row and row["name"].endswith(KERNEL) == is_kernel
    )
    return ", ".join(f"{count} at {bits} bits" for bits, count in sorted(widths.items()))
