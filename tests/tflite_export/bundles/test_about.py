"""What a README says of the file in numbers is what the verification has."""

import importlib.metadata

from qkd_tf import __version__
from tests.tflite_export.bundles.verifications import VERIFICATION
from tflite_export.bundles.about import rows
from tflite_export.bundles.bundle import render


def test_every_number_is_that_of_the_verification():
    assert rows(VERIFICATION, "image") == [
        ("top-1", "91.25 % of 1,600 test images, on LiteRT"),
        ("kernels", "1 at 3 bits, 1 at 8 bits"),
        ("activations", "1 at 4 bits, 1 at 8 bits"),
        ("multiply-adds", "12,345 per inference"),
        ("exported by", f"qkd_tf {__version__}"),
        ("tested with", f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"),
    ]


def test_limits_and_cautions_are_told_where_there_are_any():
    plain = render("about.md.j2", about=[("top-1", "91 %")], limits=(), cautions=[]).decode()
    assert plain == "## The model\n\n| | |\n|---|---|\n| top-1 | 91 % |\n| limits | none were given |\n"
    told = render("about.md.j2", about=[], limits=("within",), cautions=["the file is far below"]).decode()
    assert told.endswith("|---|---|\n| limit | within |\n\n* The file is far below.\n")
