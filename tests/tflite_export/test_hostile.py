"""Files of a stranger: bytes changed at random in a .tflite and in a handoff end in a line, never in an interpreter.

`make fuzz` runs a campaign with --fuzz_inputs=10000; the suite a small one.
"""

import collections
import io
import os
import resource
import shutil
import time
import zipfile

import flatbuffers
import numpy as np
import pytest
import tf_keras
from ai_edge_litert import schema_py_generated as schema

from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import TARGETS
from qkd_tf.storage import durable
from tflite_export.check import check
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.footprint import check_footprint
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.inference import runtimes
from tflite_export.load import load_handoff
from tflite_export.proof.verification import unlike, verify
from tflite_export.rebuilding.rebuild import rebuild

PHONE = TARGETS["phone"]
HANDOFF_SHARE = 0.1  # of the inputs; each loads a Keras model
TOO_LONG, TOO_MUCH = 10.0, 1 << 30  # seconds of CPU, bytes: a busy machine is not the code's fault
HANGS = 120.0  # seconds that pass, whatever they are spent on
EDGES = (0, 1, 4, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF)


def flip(rng, content):
    for position in rng.integers(len(content), size=rng.integers(1, 9)):
        content[position] ^= 1 << rng.integers(8)


def put_edge(rng, content):
    """An offset, a length or a number at the edge of what it may be, or what leads to another place."""
    position = 4 * rng.integers(len(content) // 4)
    value = rng.choice([*EDGES, len(content), int(rng.integers(len(content))), (1 << 32) - int(rng.integers(1 << 12))])
    content[position : position + 4] = int(value).to_bytes(4, "little")


def put_edges(rng, content):
    for _ in range(rng.integers(2, 12)):
        put_edge(rng, content)


def cut(rng, content):
    del content[rng.integers(len(content)) :]


def leave_out(rng, content):
    start = rng.integers(len(content))
    del content[start : start + rng.integers(1, 64)]


def lengthen(rng, content):
    content += rng.bytes(rng.integers(1, 4096))


def insert(rng, content):
    position = rng.integers(len(content))
    content[position:position] = rng.bytes(rng.integers(1, 64))


def copy_over(rng, content):
    source, target = rng.integers(len(content), size=2)
    part = content[source : source + rng.integers(4, 256)]
    content[target : target + len(part)] = part


def blank(rng, content):
    start = rng.integers(len(content))
    end = min(len(content), start + int(rng.integers(1, 256)))
    content[start:end] = bytes([rng.choice([0, 0xFF])]) * (end - start)


def invent(rng, content):
    content[8:] = rng.bytes(rng.integers(8, 4096))


CHANGES = (flip, put_edge, put_edges, cut, leave_out, lengthen, insert, copy_over, blank, invent)


def changed(rng, content: bytes) -> bytes:
    result = bytearray(content)
    CHANGES[rng.integers(len(CHANGES))](rng, result)
    return bytes(result)


def change_file(rng, path):
    """Another file in its place; of an archive, half of the times another member under a right checksum."""
    content = path.read_bytes()
    if not zipfile.is_zipfile(path) or rng.integers(2):
        path.write_bytes(changed(rng, content))
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = str(rng.choice(sorted(members)))
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, changed(rng, data) if member == name else data)


def end_of_file(content: bytes, residual, handoff=None) -> str:
    """How a file ends before an interpreter is asked."""
    handoff = handoff or residual.handoff
    expected = rebuild(handoff) if handoff is not residual.handoff else residual.graph
    try:
        found = read_back(content)
    except ValueError:
        return "refused"
    lines = unlike(content, found, expected, handoff, PHONE)
    return "refused" if lines else "accepted, as equal"


@pytest.fixture
def spoiled(run_folder, tmp_path):
    """spoiled(rng): the handoff with one file changed, and that file's name."""
    names = sorted(path.name for path in run_folder.handoff.iterdir())
    folder = shutil.copytree(run_folder.handoff, tmp_path / "handoff")

    def spoil(rng):
        name = str(rng.choice(names))
        change_file(rng, folder / name)
        if name != durable.MANIFEST:  # a stranger's sums are right
            durable.seal(folder)
        return folder, name

    def restore(name):
        for changed_file in (name, durable.MANIFEST):
            shutil.copy(run_folder.handoff / changed_file, folder / changed_file)

    return spoil, restore


def test_random_damage_is_refused_in_bounded_time_and_memory(residual, spoiled, request, monkeypatch, capsys):
    def no_interpreter(*_, **__):
        raise AssertionError("an interpreter was asked")

    monkeypatch.setattr(runtimes, "Interpreter", no_interpreter)
    num_inputs = request.config.getoption("--fuzz_inputs")
    spoil, restore = spoiled
    rng = np.random.default_rng(request.config.getoption("--fuzz_seed"))
    ends, crashes, slowest, longest = collections.Counter(), [], 0.0, 0.0
    honest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for number in range(num_inputs):
        kind, name = ".tflite", ""
        start = time.process_time(), time.perf_counter()
        try:
            if rng.random() < HANDOFF_SHARE:
                kind = "handoff"
                folder, name = spoil(rng)
                try:
                    start = time.process_time(), time.perf_counter()
                    end = end_of_file(residual.content, residual, load_handoff(folder))
                except ExportError as error:
                    assert "\n" not in str(error)
                    end = "refused"
            else:
                end = end_of_file(changed(rng, residual.content), residual)
        except Exception as error:  # the very thing that is looked for
            crashes.append(f"input {number}, {kind} {name}: {error!r}")
            end = "crashed"
        slowest = max(slowest, time.process_time() - start[0])
        longest = max(longest, time.perf_counter() - start[1])
        ends[kind, end] += 1
        if name:
            restore(name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - honest
    with capsys.disabled():
        print(
            f"\nfuzz: {num_inputs:,} inputs tried; "
            + ", ".join(f"{k} {e}: {n:,}" for (k, e), n in sorted(ends.items()))
        )
        print(f"fuzz: {len(crashes)} crashed; slowest {slowest:.2f} s of CPU; peak memory grew by {grown / 1e6:.0f} MB")
    assert crashes == []
    assert ends[".tflite", "refused"] > 0.8 * (1 - HANDOFF_SHARE) * num_inputs
    assert slowest < TOO_LONG and longest < HANGS and grown < TOO_MUCH


def same_offsets(count: int) -> bytes:
    """A file in which `count` subgraphs are one, and its `count` tensors are one."""
    builder = flatbuffers.Builder(1024)
    name = builder.CreateString("a" * count)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, name)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("count", [1000, 30_000])
def test_small_file_that_unpacks_to_more_than_memory_is_refused(count):
    content = same_offsets(count)
    assert len(content) < 300_000  # count^3 bytes of names
    start = time.process_time()
    with pytest.raises(ValueError, match="overlap|are the most that is read"):
        read_back(content)
    assert time.process_time() - start < TOO_LONG


def test_honest_file_fits_its_own_size(residual):
    check_footprint(residual.content)
    check_footprint(convert(rebuild(residual.handoff, "uint8"), "of a camera"))


def repack(model):
    """Nothing but another order of bytes."""


def test_bytes_of_another_packing_never_reach_an_interpreter(residual, edit, monkeypatch):
    asked = []
    monkeypatch.setattr(runtimes, "Interpreter", lambda **options: asked.append(options))
    for content in (edit(residual.content, repack), residual.content + b"\0" * 16):
        verification = verify(content, residual.graph, residual.handoff, Gate(), PHONE, ())
        assert verification["passed"] is False
        assert [line.split(";")[0] for line in verification["failures"]] == [
            "all tensors and operators are as expected, but the bytes are not packed as this version packs them"
        ]
    assert asked == []


def test_description_is_the_files_own(residual):
    content = convert(residual.graph, "of another day: é")
    assert unlike(content, read_back(content), residual.graph, residual.handoff, PHONE) == []


def test_huge_file_is_not_read(run_folder, tmp_path):
    with open(tmp_path / "huge.tflite", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ExportError, match="huge.tflite has 1,099,511,627,776 bytes; a file exported from .* has fewer"):
        check(tmp_path / "huge.tflite", run_folder.handoff, "phone", [])


MISFITS = {
    "test_images.npy": np.zeros((32, 8, 8, 1), np.uint8),
    "test_labels.npy": np.full((32,), 5),
    "student_logits.npy": np.zeros((31, 5), np.int8),
}


@pytest.mark.parametrize("name", MISFITS)
def test_arrays_that_do_not_fit_one_another_are_named(run_folder, tmp_path, name):
    folder = shutil.copytree(run_folder.handoff, tmp_path / "handoff")
    np.save(folder / name, MISFITS[name])
    durable.seal(folder)
    with pytest.raises(ExportError, match="contradicts itself: .*is expected"):
        load_handoff(folder)


def to_elsewhere(path):
    path.symlink_to("/dev/zero")


def to_pipe(path):
    os.mkfifo(path)


def to_text_without_end(path):
    with open(path, "wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    "become, message",
    [
        (to_elsewhere, "is not a file in that folder"),
        (to_pipe, "is not a file in that folder"),
        (to_text_without_end, "has 1,099,511,627,776 bytes"),
    ],
)
def test_files_that_never_end_are_refused(run_folder, tmp_path, become, message):
    folder = shutil.copytree(run_folder.handoff, tmp_path / "handoff")
    (folder / "labels.txt").unlink()
    become(folder / "labels.txt")
    with pytest.raises(ExportError, match=message):
        load_handoff(folder)


def test_student_with_code_is_refused(run_folder, tmp_path):
    folder = shutil.copytree(run_folder.handoff, tmp_path / "handoff")
    pixels = tf_keras.Input((8, 8, 3))
    tf_keras.Model(pixels, tf_keras.layers.Lambda(lambda x: x)(pixels)).save(folder / "student.keras")
    durable.seal(folder)
    with pytest.raises(ExportError, match="has a Lambda layer"):
        load_handoff(folder)


@pytest.mark.parametrize("name", ["integer_logits.npz", "integer_codes.npz"])
@pytest.mark.parametrize("change", [lambda a: a[..., :-1], lambda a: a.astype(np.int16), lambda a: a[:0]])
def test_predictions_that_fit_no_tensor_are_named(run_folder, tmp_path, name, change):
    folder = shutil.copytree(run_folder.handoff, tmp_path / "handoff")
    with np.load(folder / name) as file:
        arrays = {key: file[key] for key in file.files}
    key = sorted(arrays)[-1]
    np.savez(folder / name, **{**arrays, key: change(arrays[key])})
    durable.seal(folder)
    with pytest.raises(ExportError, match=f"contradicts itself: {key} of {name} has"):
        load_handoff(folder)
