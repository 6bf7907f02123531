"""What single options bring: python -m benchmarks.defaults --bits=w2a2,w4a4 [--options=…] [--base=FLAGFILE]

Each row of OPTIONS is a short training with one thing changed, told by its top-1 on the validation split: the test
split has no say in what a default is. A cell (option, bits, seed) becomes a small file in --results_dir as soon as it
is done, and one that has a file is not run again.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from absl import app
from absl import flags as absl_flags

from qkd_tf.experiment import ExperimentError, bit_widths, require
from qkd_tf.storage.durable import write_whole
from qkd_tf.storage.run_folder import what_matters

QAT = ("--phases=self_studying", "--epochs=3")
LONG_QAT = ("--phases=self_studying", "--epochs=6")
THRICE = ("--phases=self_studying,self_studying,self_studying", "--epochs=2,2,2")
QKD = ("--phases=self_studying,co_studying,tutoring", "--epochs=1,3,2")
FIXED = ("--phases=self_studying,tutoring", "--epochs=1,5")
# Option -> flags behind those of the flag file, {bits} those of the cell. The first of each kind is what the others are
# compared with.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "qat": QAT,
    "init_lsq": (*QAT, "--interval_init=lsq"),
    "init_minmax": (*QAT, "--interval_init=minmax"),
    "unscaled": (*QAT, "--interval_gradient_scale=none", "--weight_interval_lr_ratio=0.01"),
    "interval_rate_1": (*QAT, "--weight_interval_lr_ratio=1", "--activation_interval_lr_ratio=1"),
    "interval_rate_0.01": (*QAT, "--weight_interval_lr_ratio=0.01", "--activation_interval_lr_ratio=0.01"),
    "unmasked": (*QAT, "--mask_weight_gradient=false"),
    "ewgs_1e-3": (*QAT, "--ewgs_scale=0.001"),
    "ewgs_1e-2": (*QAT, "--ewgs_scale=0.01"),
    "dampening": (*QAT, "--dampening=0.1"),
    "weights_ema_0.99": (*QAT, "--weights_ema=0.99"),
    "freezing": (*QAT, "--freeze_threshold_start=0.1"),
    "batch_norm_0": (*QAT, "--batch_norm_batches=0"),
    "all_examples": (*QAT, "--interval_gradient_share=1"),
    "long_qat": LONG_QAT,
    "long_qat_rate_0.03": (*LONG_QAT, "--learning_rates=0.03"),
    "long_qat_rate_0.003": (*LONG_QAT, "--learning_rates=0.003"),
    "long_qat_weight_decay_2.5e-5": (*LONG_QAT, "--weight_decay=0.000025"),  # LSQ's at 2 bits
    "long_qat_full_range": (*LONG_QAT, "--nonarrow_range"),
    "long_qat_crop_4": (*LONG_QAT, "--crop_padding=4"),
    "long_qat_crop_0": (*LONG_QAT, "--crop_padding=0"),
    "long_qat_batch_64": (*LONG_QAT, "--batch_size=64"),
    "long_qat_bits_fall": (*THRICE, "--phase_bits=8,4,{bits}"),
    "long_qat_adam": (*LONG_QAT, "--optimizer=adam", "--learning_rates=0.001"),
    "qkd": QKD,
    "qkd_rate_0.03": (*QKD, "--learning_rates=0.03"),
    "qkd_rate_0.003": (*QKD, "--learning_rates=0.003"),
    "fixed_teacher": FIXED,
    "fixed_teacher_distillation_0.25": (*FIXED, "--distillation_weight=0.25"),
    "fixed_teacher_distillation_falls": (*FIXED, "--distillation_weight_end=0"),
    "fixed_teacher_without_labels": (*FIXED, "--label_weight=0", "--temperature=4"),
    "fixed_teacher_rate_0.003": (*FIXED, "--learning_rates=0.003"),
    "fixed_teacher_temperature_4": (*FIXED, "--temperature=4"),
    "fixed_teacher_temperature_1": (*FIXED, "--temperature=1"),
    "teacher_rate_0.1": (*QKD, "--teacher_lr_ratio=0.1"),
    "three_cosines": (*QKD, "--noone_cosine"),
    "teacher_rate_0.01": (*QKD, "--teacher_lr_ratio=0.01"),
    "distillation_0.25": (*QKD, "--distillation_weight=0.25"),
    "temperature_4": (*QKD, "--temperature=4"),
}
FLAGS = absl_flags.FLAGS
absl_flags.DEFINE_list("options", list(OPTIONS), "Rows of OPTIONS to run.")
absl_flags.DEFINE_list("bits", ["w2a2", "w4a4"], "Bit widths of weights and activations, as w2a2.")
absl_flags.DEFINE_list("seeds", ["0"], "Seeds.")
absl_flags.DEFINE_string("results_dir", "results/defaults", "Folder of the small result files.")
absl_flags.DEFINE_string("base", "configs/cifar10_resnet8_w2a2.flags", "Flag file of all cells.")
absl_flags.DEFINE_string("more", "", "Further flags of all cells, behind those of the flag file, with spaces between.")
COMMON = ("--validation_fraction=0.1", "--max_eval_images=5000")  # of all cells: what is looked at


def common() -> list[str]:
    return [*COMMON, *FLAGS.more.split()]


def flags_of(option: str, bits: str) -> list[str]:
    return [flag.format(bits=bits) for flag in OPTIONS[option]]


def measure(option: str, bits: str, seed: str) -> dict:
    """Trains a cell in a folder that is thrown away.

    Returns:
      Top-1 on validation in percent, that of the last phase's best epoch and of its last, the teacher's, and seconds.

    Raises:
      ExperimentError: the training ended with an error; its last line.
    """
    weight_bits, activation_bits = bit_widths(bits, "--bits")
    with tempfile.TemporaryDirectory() as run_dir:
        command = [
            *(f"--flagfile={FLAGS.base}", f"--run_dir={run_dir}/run", f"--seed={seed}", *common()),
            *(f"--weight_bits={weight_bits}", f"--activation_bits={activation_bits}", *flags_of(option, bits)),
        ]
        done = subprocess.run([sys.executable, "-m", "qkd_tf.train", *command], stderr=subprocess.PIPE, text=True)
        require(done.returncode == 0, (done.stderr.strip().splitlines() or ["no message"])[-1])
        results = json.loads((pathlib.Path(run_dir) / "run" / "results.json").read_text())
    last = results["phases"][-1]
    taught = [row for phase in results["phases"] for row in phase["history"] if "teacher_validation_top1" in row]
    return {
        "validation_top1": last["best_validation_top1"],
        "last_validation_top1": last["history"][-1]["validation_top1"],
        "teacher_validation_top1": taught[-1]["teacher_validation_top1"] if taught else None,
        "seconds": results["seconds"],
    }


def main(argv: list[str]) -> None:
    del argv
    folder = pathlib.Path(FLAGS.results_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for seed, option, bits in itertools.product(FLAGS.seeds, FLAGS.options, FLAGS.bits):
        path = folder / f"{option}_{bits}_seed{seed}.json"
        if not path.exists():
            cell = {
                "option": option,
                "bits": bits,
                "seed": int(seed),
                "base": FLAGS.base,
                "common_flags": what_matters(common()),
                "flags": flags_of(option, bits),
            }
            try:
                write_whole(path, json.dumps(cell | measure(option, bits, seed), indent=1) + "\n")
            except ExperimentError as error:
                print(path.stem, error, flush=True)
                continue
        print(path.stem, json.loads(path.read_text()), flush=True)


if __name__ == "__main__":
    app.run(main)
