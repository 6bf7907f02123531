"""A verification, as far as a bundle reads it."""

VERIFICATION = {
    "file": {"sha256": "5" * 64},
    "judge": "litert",
    "runtimes": {
        "litert": {"title": "LiteRT", "accuracy": {"top1": 91.25, "num_images": 1_600}},
        "tflm": {"title": "TFLM", "not_run": "it was not asked"},
    },
    "tensors": [
        {"name": "pixels"},
        {"name": "conv", "num_bits": 4},
        {"name": "conv/kernel", "num_bits": 3},
        {"name": "conv/bias"},
        {"name": "dense", "num_bits": 8},
        {"name": "dense/kernel", "num_bits": 8},
    ],
    "multiply_adds": 12_345,
    "notes": [],
}
