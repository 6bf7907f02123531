"""Words that are no flags: the line that tells what was probably meant."""

import signal
import subprocess
import sys

import absl.flags
import pytest

from tests.in_process import start

USUAL = "give each value as --name=value, without spaces; --help shows the flags"


@pytest.mark.parametrize(
    "module, words, told",
    [
        ("tflite_export", "runs/w4a4", "argument runs/w4a4; did you mean --run_dir=runs/w4a4?"),
        ("tflite_export", "a b", f"arguments a b; {USUAL}"),
        ("tflite_export.verify", "a.tflite handoff", "did you mean --tflite=a.tflite --handoff=handoff?"),
        ("qkd_tf.new", "my.keras folder:a", "did you mean --student=my.keras --dataset=folder:a?"),
        ("qkd_tf.new", "folder:a net b", "did you mean --dataset=folder:a --student=net --output=b?"),
        ("qkd_tf.new", "--student=my.keras other.keras", "did you mean --dataset=other.keras?"),
        ("qkd_tf.train", "my.flags", "did you mean --flagfile=my.flags?"),
        ("qkd_tf.train", "--run_dir= runs/a", "did you mean --run_dir=runs/a?"),
        ("qkd_tf.train", "seed=3 –bits=4", "did you mean --seed=3 --bits=4?"),
        ("qkd_tf.train", "--epochs=1 ,2", f"argument ,2; {USUAL}"),
        ("qkd_tf.preflight", "resnet8", "did you mean --student=resnet8?"),
        ("qkd_tf.sensitivity", "runs/a b.flags", "did you mean --run_dir=runs/a --flagfile=b.flags?"),
        ("qkd_tf.ablation", "mine", "did you mean --flagfile=mine?"),
        ("qkd_tf.doctor", "resnet8", "error: unrecognized arguments: resnet8; --help shows what it takes"),
    ],
)
def test_words_are_told_in_a_line_with_what_was_meant(module, words, told):
    with pytest.raises(SystemExit) as end:
        start(module, words.split())
    assert end.value.code.startswith("error: un") and end.value.code.endswith(told)


@pytest.mark.parametrize(
    "words", ["--epochs=1, 2", "--phases=self_studying,", "--student_pixel_mean=1,,2", "--phase_bits=,4,4"]
)
def test_empty_entry_of_a_list_is_told(words):
    told = "an entry is empty; write the list without spaces, and without a comma at its end"
    with pytest.raises(absl.flags.IllegalFlagValueError, match=f"flag {words.split()[0]}: {told}"):
        start("qkd_tf.train", words.split())


# Sends SIGINT as soon as a command imports a module; whoever runs the tests may ignore it.
INTERRUPTED = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
_, module, imported, *arguments = sys.argv
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == imported:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv[1:] = arguments
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("imported", ["qkd_tf.experiment", "tensorflow"])
def test_interrupt_while_a_command_starts_is_a_line(imported):
    arguments = ["qkd_tf.preflight", imported, "--dataset=digits", "--student=resnet8"]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "\nstopped by SIGINT\n")
