"""export/phone/: how an app runs the file, in words, Kotlin and Swift."""

import math

from tflite_export.bundles.bundle import Delivery, render

FOLDER = "phone"
SOURCES = ("README.md", "Classifier.kt", "Classifier.swift")


def files(delivery: Delivery) -> dict[str, bytes]:
    """The bundle, by path below export/."""
    facts = delivery.facts
    channels = facts["input"].shape[3]
    values = facts | {"output_size": math.prod(facts["output"].shape), "colours": channels in (1, 3)}
    return {f"{FOLDER}/{name}": render(f"{FOLDER}/{name}.j2", **values) for name in SOURCES}
