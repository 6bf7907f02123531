"""SHA-256 of the files that small runs become: python -m benchmarks.file_digests > BEFORE

For changes that must not change a bit: run it before and after, on one machine, and compare the two. A network of each
family takes a few steps on digits; the demo and digits at W2A2 are trained to their end. Of verification.json all
counts but versions and seconds. Ten minutes on two cores.
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

# Network -> pixels of a side.
FAMILIES = {
    "resnet8": 32,
    "resnet20": 32,
    "resnet20_projection": 32,
    "resnet18_cifar": 32,
    "resnet50_cifar": 32,
    "mobilenet_v2_0.25_cifar": 32,
    "efficientnet_b0": 64,
    "efficientnet_lite0": 64,
    "tf_keras.applications:MobileNet": 64,
}
FEW_STEPS = (  # which teach nothing, and make a file
    "--dataset=digits",
    "--image_channels=3",
    "--horizontal_flip",  # as it was by default when the first digests were taken
    "--batch_size=8",
    "--phases=full_precision,self_studying",
    "--epochs=1,1",
    "--learning_rates=0.001",
    "--max_steps=2",
    "--max_eval_images=40",
    "--batch_norm_batches=2",
    "--calibration_batches=2",
)
W4A4 = ("--weight_bits=4", "--activation_bits=4")
RUNS = {
    "demo": ("--flagfile=configs/demo.flags",),
    "digits_w2a2": ("--flagfile=configs/digits_w2a2.flags",),
    **{name: (f"--student={name}", f"--image_size={size}", *W4A4, *FEW_STEPS) for name, size in FAMILIES.items()},
}
UNSTEADY = ("seconds", "median_seconds", "versions", "version", "path")


def steady(value):
    """A JSON value without what differs from one run of the same code to the next."""
    if isinstance(value, dict):
        return {key: steady(v) for key, v in value.items() if key not in UNSTEADY}
    return [steady(v) for v in value] if isinstance(value, list) else value


def digests(folder: pathlib.Path, flags: tuple[str, ...]) -> tuple[str, str]:
    """Of model.tflite and of verification.json, after training and export; the last line of an error twice."""
    for module, *options in (("qkd_tf.train", *flags), ("tflite_export",)):
        command = [sys.executable, "-m", module, *options, f"--run_dir={folder}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines()[-1],) * 2
    verification = json.loads((folder / "export" / "verification.json").read_text())
    contents = (folder / "export" / "model.tflite").read_bytes(), json.dumps(steady(verification)).encode()
    return tuple(hashlib.sha256(content).hexdigest() for content in contents)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for name, flags in RUNS.items():
            model, verification = digests(pathlib.Path(temporary) / name.replace(":", "_"), flags)
            print(f"{name}\n  model.tflite       {model}\n  verification.json  {verification}", flush=True)


if __name__ == "__main__":
    main()
