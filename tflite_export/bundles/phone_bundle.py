"""export/phone/: how an app runs the file, as text, Kotlin and Swift."""

import math

from tflite_export.bundles.bundle import Delivery, render

FOLDER = "phone"
SOURCES = ("README.md", "Classifier.kt", "Classifier.swift")


def files(delivery: Delivery) -> dict[str, bytes]:
    """The bundle, by path below export/."""
    facts = delivery.facts
    is_picture = not delivery.is_signal
    values = facts | {
        "input_size": math.prod(facts["input"].shape),
        "output_size": math.prod(facts["output"].shape),
        "colours": is_picture and facts["input"].shape[3] in (1, 3),
    }
    return {f"{FOLDER}/{name}": render(f"{FOLDER}/{name}.j2", **values) for name in SOURCES}
