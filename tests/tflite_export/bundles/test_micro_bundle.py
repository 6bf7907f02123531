"""export/micro/: the array is the file, and on TFLM's own C++ the golden images give their logits.

TFLM's headers and library come from a package that `make micro` puts into build/tflm/; without it, what needs no TFLM
is compiled, and the rest is skipped.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sysconfig

import numpy as np
import pytest

from benchmarks.boards_table import write_bundle
from qkd_tf.contract.targets import TARGETS
from tflite_export.bundles import micro_bundle
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.operators import OPERATORS
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import absence, infer, input_codes

ROOT = pathlib.Path(__file__).parents[3]
TFLM = ROOT / "build" / "tflm" / "xmos_ai_tools"
TFLM_LIBRARY = TFLM / "xinterpreters" / "libs" / "linux" / "xtflm_python.so"
# The one header that TFLM takes from elsewhere, gemmlowp's, is in TensorFlow's wheel.
TFLM_HEADERS = [
    *("-isystem", TFLM / "runtime" / "include"),
    *("-isystem", pathlib.Path(sysconfig.get_path("purelib"), "tensorflow/include/external/gemmlowp")),
]
TFLM_NAMESPACE = "-Dtflite=tflite_micro"  # where this copy has its classes
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
APPLICATION = ("model.cc", "classifier.cc", "golden.cc", "main.cc")

pytestmark = pytest.mark.skipif(absence("tflm") is not None, reason=str(absence("tflm")))
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
needs_headers = pytest.mark.skipif(
    shutil.which("g++") is None or not TFLM_LIBRARY.exists(), reason="TFLM's C++ is not installed; make micro"
)


def compile_and_run(folder: pathlib.Path, *arguments) -> subprocess.CompletedProcess:
    """What a program prints that g++ makes in the folder; a warning is an error."""
    program = folder / "program"
    command = ["g++", *FLAGS, *arguments, "-o", program]
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return subprocess.run([program], capture_output=True, text=True)


def run_main(folder: pathlib.Path) -> subprocess.CompletedProcess:
    library = [TFLM_LIBRARY, f"-Wl,-rpath,{TFLM_LIBRARY.parent}"]
    return compile_and_run(folder, TFLM_NAMESPACE, *TFLM_HEADERS, *APPLICATION, *library)


def test_bundle_is_sources_and_instructions(bundle):
    folder = bundle / "export" / "micro"
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([*micro_bundle.SOURCES, "model_compressed.cc"])
    text = (folder / "README.md").read_text()
    top1 = json.loads((bundle / "export" / "verification.json").read_text())["runtimes"]["tflm"]["accuracy"]["top1"]
    assert f"| top-1 | {top1:.2f} % of " in text and "tflite-micro 0." in text and "bytes in use\n    image 0: " in text


DUMP = """
#include <cstdio>
#include "golden.h"
using namespace classifier;
int main() {
  if (reinterpret_cast<size_t>(ARRAY) % 16 != 0) return 1;
  std::fwrite(ARRAY, 1, LENGTH, stdout);
  std::fwrite(kGoldenInputs, 1, sizeof(kGoldenInputs), stdout);
  std::fwrite(kGoldenLogits, 1, sizeof(kGoldenLogits), stdout);
  std::printf("%.9g %d %.9g %d\\n", kInputScale, kInputZeroPoint, kOutputScale, kOutputZeroPoint);
  for (const char* name : kClassNames) std::printf("%s\\n", name);
}
"""


@needs_compiler
@pytest.mark.parametrize(
    "array, file, flags",
    [
        ("g_model", "model.tflite", []),
        ("g_model", "model.tflite", ["-DCMSIS_NN"]),
        ("g_model_compressed", "model.compressed.tflite", ["-DMODEL_COMPRESSED", "-DCMSIS_NN"]),
    ],
)
def test_compiled_arrays_are_the_files_and_what_tflm_gave(bundle, tmp_path, array, file, flags):
    folder = shutil.copytree(bundle / "export" / "micro", tmp_path / "micro")
    (folder / "dump.cc").write_text(DUMP.replace("ARRAY", array).replace("LENGTH", f"{array}_len"))
    done = subprocess.run(
        ["g++", *FLAGS, *flags, "dump.cc", "model.cc", "model_compressed.cc", "golden.cc", "-o", "dump"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[:3000]
    printed = subprocess.run([folder / "dump"], capture_output=True, check=True).stdout
    content = (bundle / "export" / file).read_bytes()
    graph = read_back((bundle / "export" / "model.tflite").read_bytes())
    labels = np.load(bundle / "handoff" / "test_labels.npy")
    chosen = micro_bundle.golden(labels, micro_bundle.MAX_GOLDEN_IMAGES)
    assert len(set(labels[chosen].ravel().tolist())) == micro_bundle.MAX_GOLDEN_IMAGES
    images = np.load(bundle / "handoff" / "test_images.npy")[chosen]
    logits = np.load(bundle / "handoff" / "integer_logits.npz")["tflm"][chosen]
    inputs = np.concatenate(list(input_codes(graph, images)))
    numbers = content + inputs.tobytes() + logits.tobytes()
    assert printed[: len(numbers)] == numbers
    scales, *names = printed[len(numbers) :].decode().splitlines()
    assert names == (bundle / "handoff" / "labels.txt").read_text().splitlines()
    entry, output = (graph.tensors[name] for name in (graph.input, graph.output))
    assert [np.float32(text) for text in scales.split()] == [
        *(entry.scales[0], entry.zero_point, output.scales[0], output.zero_point)
    ]


# In place of classifier.cc: a TFLM that computes as the export did.
AS_EXPORTED = """
#include "classifier.h"
#include "golden.h"
namespace classifier {
bool SetUp() { return true; }
Input* Pixels() { static Input input[kInputSize]; return input; }
const int8_t* Run() { static int image = 0; return kGoldenLogits[image++]; }
int Largest(const int8_t* logits) { return static_cast<int>(std::max_element(logits, logits + kNumClasses) - logits); }
size_t ArenaUsed() { return kMeasuredArenaBytes; }
}  // namespace classifier
"""


@needs_compiler
def test_readme_shows_what_the_check_prints(bundle, tmp_path):
    folder = shutil.copytree(bundle / "export" / "micro", tmp_path / "micro")
    (folder / "classifier.cc").write_text("#include <algorithm>" + AS_EXPORTED)
    done = compile_and_run(folder, *APPLICATION)
    told = re.findall("^    (.*)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert told[-6:] == done.stdout.splitlines()


@needs_headers
def test_golden_images_pass_on_tflm(bundle):
    done = run_main(bundle / "export" / "micro")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("PASS: 4 of 4 images match the export's logits\n")


@needs_headers
def test_arena_that_is_too_small_fails_in_words(bundle, tmp_path):
    folder = shutil.copytree(bundle / "export" / "micro", tmp_path / "micro")
    text = (folder / "model.h").read_text()
    (folder / "model.h").write_text(text.replace(" kArenaBytes = ", " kArenaBytes = kMeasuredArenaBytes / 2; // "))
    done = run_main(folder)
    assert done.returncode == 1 and done.stdout.splitlines()[-1].startswith("FAIL: TFLM rejects the model")


@needs_headers
def test_logit_that_is_a_step_aside_fails_and_is_counted(bundle, tmp_path):
    folder = shutil.copytree(bundle / "export" / "micro", tmp_path / "micro")
    before, logits = (folder / "golden.cc").read_text().split("kGoldenLogits[kNumGolden][kOutputSize] = {\n    {\n")
    first, rest = logits.split(",", 1)
    moved = int(first) + (-1 if int(first) > 0 else 1)
    (folder / "golden.cc").write_text(f"{before}kGoldenLogits[kNumGolden][kOutputSize] = {{{{{moved},{rest}")
    done = run_main(folder)
    assert done.returncode == 1 and done.stdout.endswith("FAIL: 3 of 4 images match the export's logits\n")
    assert "1 of" in done.stdout and "by up to 1\n" in done.stdout


@needs_headers
@pytest.mark.parametrize("namespace", ["tflite", "tflite::micro"])
def test_lookup_tables_compile_wherever_tflm_has_its_classes(bundle, namespace):
    """These headers have no AddDecode; another function of the kind stands for it, and nothing is linked."""
    flags = [*FLAGS, f"-Dtflite_micro={namespace}", *TFLM_HEADERS, "-DMODEL_COMPRESSED", "-DAddDecode=AddCos"]
    command = ["g++", *flags, "-fsyntax-only", *APPLICATION, "model_compressed.cc"]
    done = subprocess.run(list(map(str, command)), cwd=bundle / "export" / "micro", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]


@needs_headers
def test_every_operator_gives_its_logits_on_tflm(exported, tmp_path):
    """A program for each of the operator cases, kernels packed as the target has it.

    These headers are of a TFLM that takes FULLY_CONNECTED with a scale for each channel and silently computes it with
    one; the golden images find that out.
    """
    folder, _ = write_bundle(exported.graph, exported.handoff, tmp_path)
    done = run_main(folder)
    graph = exported.graph
    too_new = any(o.kind == "FULLY_CONNECTED" and graph.tensors[o.inputs[1]].axis is not None for o in graph.operators)
    assert done.returncode == too_new, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("FAIL" if too_new else "PASS")


@pytest.mark.parametrize(
    "kind, function",
    [
        ("ADD", "AddAdd"),
        ("AVERAGE_POOL_2D", "AddAveragePool2D"),
        ("CONCATENATION", "AddConcatenation"),
        ("CONV_2D", "AddConv2D"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("FULLY_CONNECTED", "AddFullyConnected"),
        ("LEAKY_RELU", "AddLeakyRelu"),
        ("LOGISTIC", "AddLogistic"),
        ("MAXIMUM", "AddMaximum"),
        ("MAX_POOL_2D", "AddMaxPool2D"),
        ("MEAN", "AddMean"),
        ("MUL", "AddMul"),
        ("PAD", "AddPad"),
        ("PRELU", "AddPrelu"),
        ("QUANTIZE", "AddQuantize"),
        ("RESHAPE", "AddReshape"),
        ("RESIZE_NEAREST_NEIGHBOR", "AddResizeNearestNeighbor"),
        ("SLICE", "AddSlice"),
    ],
)
def test_resolver_functions_are_named_as_tflm_names_them(kind, function):
    assert kind in OPERATORS
    assert micro_bundle.resolver_function(kind) == function


def test_every_operator_that_we_write_is_in_the_table_above():
    (mark,) = (m for m in test_resolver_functions_are_named_as_tflm_names_them.pytestmark if m.name == "parametrize")
    assert {kind for kind, _ in mark.args[1]} == set(OPERATORS)


@pytest.mark.parametrize("measured, reserved", [(1, 2048), (819, 2048), (820, 3072), (13184, 18432)])
def test_arena_has_a_quarter_and_a_kibibyte_to_spare(measured, reserved):
    assert micro_bundle.arena(measured) == reserved


def test_arena_of_cmsis_nn_has_no_room_for_unpacked_int4(residual):
    graph = store(residual.graph, "auto", TARGETS["microcontroller"])
    packed, plain = (
        micro_bundle._cmsis_nn(g, residual.handoff.test_images[:1])  # of the file, and of the same in int8
        for g in (graph, residual.graph)
    )
    assert packed["measured"] == plain["measured"] and packed["arena"] == micro_bundle.arena(packed["measured"])


@needs_compiler
@pytest.mark.parametrize(
    "flags, core", [([], None), (["-DCMSIS_NN"], "dsp"), (["-DCMSIS_NN", "-D__ARM_FEATURE_MVE"], "mve")]
)
def test_arena_is_reserved_by_what_is_linked(residual, tmp_path, flags, core):
    folder, _ = write_bundle(residual.graph, residual.handoff, tmp_path)
    graph = store(residual.graph, "auto", TARGETS["microcontroller"])
    (folder / "show.cc").write_text(
        '#include <cstdio>\n#include "model.h"\nint main() { std::printf("%zu", classifier::kArenaBytes); }\n'
    )
    images = residual.handoff.test_images[:1]
    if core is None:
        expected = micro_bundle.arena(infer("tflm", graph, convert(graph, ""), images)[1]["arena_bytes"])
    else:
        found = micro_bundle._cmsis_nn(graph, images)
        expected = found["arena"] + getattr(found["scratch"], core)
    assert int(compile_and_run(folder, *flags, "show.cc").stdout) == expected


@pytest.mark.parametrize(
    "labels, number, chosen",
    [
        ([2, 2, 0, 2, 1, 0], 2, [0, 2]),
        ([2, 2, 0, 2, 1, 0], 4, [0, 1, 2, 4]),
        ([[1], [1], [1]], 2, [0, 1]),
        ([1], 4, [0]),
        ([0] * micro_bundle.NUM_LOOKED_AT + [1], 2, [0, 1]),
    ],
)
def test_golden_images_are_of_different_classes(labels, number, chosen):
    assert micro_bundle.golden(np.array(labels), number) == chosen


@pytest.mark.parametrize("shape, number", [((1, 8, 8, 1), 4), ((1, 96, 96, 3), 2), ((1, 224, 224, 3), 1)])
def test_golden_images_are_few_where_they_are_large(shape, number):
    assert micro_bundle.num_golden(shape) == number
