"""What each storage of weights costs a phone: python -m benchmarks.phone_storages

Networks of random weights, calibrated on random pixels at W4A4 and W2A2, their last layer too. Bytes of each file as
they are stored and as they are transferred (deflated), of the kernels alone at their true width, and milliseconds on
one thread of LiteRT: the best of many interleaved runs, since other work on the machine only adds to a time. Whether
the integers of the INT4 file are those predicted, on each runtime. Writes benchmarks/phone_storages/NAME.json and
prints a table of all that lie there.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import json
import pathlib
import sys
import zlib

from benchmarks import kept_results, subjects
from benchmarks.files import Session
from benchmarks.turns import best
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import QuantizationSpec
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import RUNTIMES
from tflite_export.load import load_handoff
from tflite_export.proof.asking import ask
from tflite_export.proof.verdict import equal_share
from tflite_export.proof.verification import true_width_bytes
from tflite_export.rebuilding.rebuild import rebuild

RESULTS = pathlib.Path(__file__).parent / "phone_storages"
STORAGES = ("int8", "int4", "int4_all")
NUM_TURNS, CALLS_A_TURN = 60, 4
CIFAR, IMAGENET = ((32, 32, 3), 10), ((224, 224, 3), 1000)
NETWORKS = {"resnet8": CIFAR, "resnet20": CIFAR, "efficientnet_lite0": IMAGENET, "mobilenet_v2_1.0": IMAGENET}
HEADER = (
    "network",
    "bytes: int8",
    "int4",
    "int4_all",
    "deflated: int8",
    "int4",
    "int4_all",
    "kernels at true width",
    "ms: int8",
    "int4",
    "int4_all",
    "int4 / int8: bytes",
    "time",
    "int4 as predicted, %",
)


def measure(name: str, image_shape, num_classes: int, num_bits: int) -> dict[str, float]:
    spec = QuantizationSpec(weight_bits=num_bits, activation_bits=num_bits, last_layer_bits=num_bits)
    _, folder = subjects.write_handoff(name, image_shape, num_classes, spec)
    handoff = load_handoff(folder)
    graph = rebuild(handoff, "int8")
    files = {storage: convert(store(graph, storage, TARGETS["phone"]), "") for storage in STORAGES}
    sessions = {storage: Session(content) for storage, content in files.items()}
    seconds = best({s: session.invoke for s, session in sessions.items()}, NUM_TURNS, CALLS_A_TURN)
    found = read_back(files["int4"])
    predicted = {runtime: equal_share(ask(runtime, files["int4"], found, handoff)[0]) for runtime in RUNTIMES}
    return {
        "bytes: int4/int8": len(files["int4"]) / len(files["int8"]),
        "latency: int4/int8": seconds["int4"] / seconds["int8"],
        "latency: int4_all/int8": seconds["int4_all"] / seconds["int8"],
        **{f"int4 as predicted on {runtime}, percent": share for runtime, share in predicted.items()},
        **{f"{storage}_bytes": len(content) for storage, content in files.items()},
        **{f"{storage}_deflated_bytes": len(zlib.compress(content, 9)) for storage, content in files.items()},
        "true_width_bytes": true_width_bytes(handoff),
        **{f"{storage}_best_ms": 1000 * value for storage, value in seconds.items()},
        **{f"{storage}_delegated_percent": session.delegated for storage, session in sessions.items()},
    }


def row(name: str, numbers: dict[str, float]) -> tuple[str, ...]:
    return (
        name,
        *(f"{numbers[f'{storage}_bytes']:,}" for storage in STORAGES),
        *(f"{numbers[f'{storage}_deflated_bytes']:,}" for storage in STORAGES),
        f"{numbers['true_width_bytes']:,}",
        *(f"{numbers[f'{storage}_best_ms']:.3g}" for storage in STORAGES),
        f"{numbers['bytes: int4/int8']:.2f}",
        f"{numbers['latency: int4/int8']:.2f}",
        f"{min(numbers[f'int4 as predicted on {runtime}, percent'] for runtime in RUNTIMES):.2f}",
    )


def main(names: list[str]) -> None:
    for name in names or NETWORKS:
        for num_bits in (4, 2):
            numbers = measure(name, *NETWORKS[name], num_bits)
            kept_results.keep(RESULTS / f"{name}_w{num_bits}a{num_bits}.json", numbers)
    for cells in (HEADER, ("---",) * len(HEADER), *(row(p.stem, json.loads(p.read_text())) for p in _results())):
        print(f"| {' | '.join(cells)} |")


def _results() -> list[pathlib.Path]:
    return sorted(RESULTS.glob("*.json"))


if __name__ == "__main__":
    main(sys.argv[1:])
