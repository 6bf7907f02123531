"""Every named network at 8 and 4 bits, from a few steps to a verified file: python -m benchmarks.networks_table FLAGS.

FLAGS go to each training, and say which images: --dataset=imagenet2012 --data_dir=DIR, or --dataset=folder:DIR. A few
steps teach nothing; what is shown is that each network becomes the file that was trained, on every runtime. Runs lie in
runs/networks; those that are there already are not trained again.
"""

import json
import pathlib
import subprocess
import sys

from benchmarks import kept_results

RUNS = pathlib.Path("runs/networks")
RESULTS = pathlib.Path(__file__).parent / "networks"
NETWORKS = (
    "mobilenet_v2_1.0",
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet_b0",
    "efficientnet_lite0",
    "tf_keras.applications:MobileNetV2",
    "tf_keras.applications:ResNet50",
    "tf_keras.applications:EfficientNetB0",
    "tf_keras.applications:ResNet101",
    "tf_keras.applications:EfficientNetB1",
    "tf_keras.applications:EfficientNetB2",
)
# Sides of pictures that networks were made for; those without a row, 224.
IMAGE_SIZES = {"tf_keras.applications:EfficientNetB1": 240, "tf_keras.applications:EfficientNetB2": 260}
BITS = (8, 4)
HEADER = """\
| network | bits | verdict | bytes | equal integers / logits, %: LiteRT | reference | TFLM |
| --- | --- | --- | --- | --- | --- | --- |"""
STEPS = (
    "--batch_size=8",
    "--phases=full_precision,self_studying",
    "--epochs=1,1",
    "--learning_rates=0.001",
    "--max_steps=2",
    "--batch_norm_batches=2",
    "--calibration_batches=2",
)


def run(network: str, bits: int, flags: list[str]) -> dict:
    """Trains and exports one network.

    Returns:
      Its row: "network", "bits", "bytes", and by runtime what its verification says; or "error".
    """
    folder = RUNS / f"{network.replace(':', '_')}_w{bits}a{bits}"
    train = [
        "qkd_tf.train",
        f"--student={network}",
        f"--weight_bits={bits}",
        f"--activation_bits={bits}",
        f"--image_size={IMAGE_SIZES.get(network, 224)}",
        *STEPS,
        *flags,
    ]
    for module, *options in (train, ["tflite_export"]):
        done = subprocess.run(
            [sys.executable, "-m", module, f"--run_dir={folder}", *options], capture_output=True, text=True
        )
        if done.returncode:
            return {"network": network, "bits": bits, "error": done.stderr.splitlines()[-1]}
    verification = json.loads((folder / "export" / "verification.json").read_text())
    runtimes = {
        name: {
            "integer_agreement": row["integer_student"]["top1_agreement"],
            "equal_logits": row["integer_student"]["equal_logits"],
            "equal_codes": row["codes"]["equal_codes"],
        }
        for name, row in verification["runtimes"].items()
        if "not_run" not in row
    }
    return {
        "network": network,
        "bits": bits,
        "passed": verification["passed"],
        "bytes": verification["file"]["bytes"],
        "num_images": verification["num_images"],
        "runtimes": runtimes,
    }


def file_name(network: str) -> str:
    """Of its results, without bits."""
    return network.replace(":", ".")


def line(row: dict) -> str:
    """A row of the Markdown table."""
    if "error" in row:
        return f"| {row['network']} | W{row['bits']}A{row['bits']} | {row['error']} | | | |"
    cells = [
        f"{row['runtimes'][name]['equal_codes']:.3f} / {row['runtimes'][name]['equal_logits']:.2f}"
        if name in row["runtimes"]
        else "-"
        for name in ("litert", "litert_reference", "tflm")
    ]
    verdict = "passed" if row["passed"] else "REFUSED"
    return (
        f"| {row['network']} | W{row['bits']}A{row['bits']} | {verdict} | {row['bytes']:,} | "
        + " | ".join(cells)
        + " |"
    )


def main(flags: list[str]) -> None:
    print(HEADER)
    for network in NETWORKS:
        for bits in BITS:
            row = run(network, bits, flags)
            kept_results.keep(RESULTS / f"{file_name(network)}_w{bits}a{bits}.json", row)
            print(line(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
