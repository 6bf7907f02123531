import json

import pytest


@pytest.fixture
def make_finished_run(tmp_path):
    """make_finished_run(name, bits, top1, ...): a folder with the JSON of a finished and exported run."""

    def make(name, bits=4, top1=90.0, num_bytes=20_000, sha="5" * 64, arena=5_000, passed=True):
        folder = tmp_path / name
        (folder / "export").mkdir(parents=True)
        results = {
            "data": {"name": "digits", "num_test": 360, "digested": 360, "test_sha256": sha},
            "experiment": {
                "student": {"name": "resnet8"},
                "quantization": {"weight_bits": bits, "activation_bits": bits},
            },
            "machine": {"platform": "Linux", "cores": 2},
            "full_precision": {"origin": "weights", "test_top1": 91.0},
        }
        runtimes = {"litert": {"title": "LiteRT", "top1": top1, "median_seconds": 5e-4}}
        runtimes["tflm"] = {"arena_bytes": arena} if arena else {"not_run": "not installed"}
        verification = {"judge": "litert", "runtimes": runtimes, "file": {"bytes": num_bytes}, "passed": passed}
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "export" / "verification.json").write_text(json.dumps(verification))
        return folder

    return make
