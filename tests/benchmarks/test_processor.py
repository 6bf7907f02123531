"""LiteRT in another process, here one of this machine's: what it answers is what LiteRT answers here."""

import os
import platform
import sys
from unittest import mock

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from benchmarks import processor
from benchmarks.processor import Processor
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor
from tflite_export.inference.runtimes import RUNTIMES, every_tensor, infer

IMAGES = np.arange(512, dtype=np.uint16).astype(np.uint8).reshape(2, 16, 16, 1)


@pytest.fixture(scope="module")
def here():
    with Processor([sys.executable], dict(os.environ), platform.machine()) as opened:
        yield opened


@pytest.fixture(scope="module")
def graph():
    """x on other steps, and that plus itself."""
    graph = IntegerGraph("x", "y")
    for name, scale in (("x", 1.0), ("h", 1.5), ("y", 2.2)):
        graph.add_tensor(Tensor(name, (1, 16, 16, 1), "int8", np.array([scale], np.float32)))
    graph.operators += [Operator("QUANTIZE", ("x",), "h"), Operator("ADD", ("h", "h"), "y", {"activation": "NONE"})]
    return graph


@pytest.mark.parametrize("name", ["litert", "litert_reference"])
def test_session_of_another_process_gives_the_tensors_of_this_one(here, graph, name):
    content = convert(graph, "")
    (logits, facts), tensors = infer(name, graph, content, IMAGES), every_tensor(name, graph, content, IMAGES)
    with mock.patch.dict(RUNTIMES, here.runtimes()):
        (theirs, their_facts), found = infer(name, graph, content, IMAGES), every_tensor(name, graph, content, IMAGES)
    np.testing.assert_array_equal(theirs, logits)
    assert their_facts["delegated_operators"] == facts["delegated_operators"] == (100 if name == "litert" else 0)
    for tensor, codes in tensors.items():
        np.testing.assert_array_equal(found[tensor], codes)


def test_error_of_another_process_is_that_of_the_class(here, graph):
    with pytest.raises(ValueError) as expected:
        Interpreter(model_content=b"no file")
    with pytest.raises(ValueError) as found:
        here.interpreter(model_content=b"no file")
    assert str(found.value) == str(expected.value)
    with (
        mock.patch.dict(RUNTIMES, here.runtimes()),
        pytest.raises(ExportError, match="does not take the file"),
    ):
        infer("litert", graph, b"no file", IMAGES)


def test_a_processor_holds_one_file(here, graph):
    first, second = (here.interpreter(model_content=convert(graph, "")) for _ in range(2))
    with pytest.raises(RuntimeError, match="another file was opened since"):
        first.allocate_tensors()
    second.allocate_tensors()


def test_process_that_ends_is_told_and_begins_anew(graph, tmp_path):
    """A Python that goes down at its first start, as an emulator does at an instruction that it does not know."""
    started = tmp_path / "started"
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ -e "{started}" ] || {{ touch "{started}"; exit 7; }}\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    with (
        Processor([str(python)], dict(os.environ), platform.machine()) as opened,
        mock.patch.dict(RUNTIMES, opened.runtimes()),
    ):
        with pytest.raises(ExportError, match="litert does not take the file: LiteRT's process ended with 7"):
            infer("litert", graph, convert(graph, ""), IMAGES)
        logits, _ = infer("litert", graph, convert(graph, ""), IMAGES)
    assert logits.shape == IMAGES.shape


@pytest.mark.parametrize(
    "change, told",
    [
        ({"machine": "aarch64"}, "this processor is an ARM64 one itself: make test asks its kernels"),
        ({"tools": {"dpkg"}}, "apt-get, dpkg-deb not found: the packages are Debian's"),
        ({"keyring": False}, "apt-get install debian-archive-keyring"),
        ({}, None),
    ],
)
def test_machine_that_cannot_be_set_up_is_told_why(monkeypatch, tmp_path, change, told):
    keyring = tmp_path / "keyring.gpg"
    if change.get("keyring", True):
        keyring.touch()
    monkeypatch.setattr(processor, "KEYRING", keyring)
    monkeypatch.setattr(platform, "machine", lambda: change.get("machine", "x86_64"))
    there = change.get("tools", processor.TOOLS)
    monkeypatch.setattr(processor.shutil, "which", lambda tool: tool if tool in there else None)
    assert processor.obstacle() is None if told is None else told in processor.obstacle()


@pytest.mark.parametrize(
    "addresses, mirror", [(["http://a/security/", "http://b/debian/"], "http://b/debian/"), ([], "")]
)
def test_mirror_is_the_archive_that_apt_knows(monkeypatch, addresses, mirror):
    monkeypatch.setattr(processor, "_printed", lambda *_: "\n".join(addresses))
    if mirror:
        assert processor.debian_mirror() == mirror
    else:
        with pytest.raises(SystemExit, match="give one: make arm64 DEBIAN_MIRROR=ADDRESS"):
            processor.debian_mirror()
