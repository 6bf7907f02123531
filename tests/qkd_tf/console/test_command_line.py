"""Flags of commands beside those of a program that imports the packages."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from absl.flags import IllegalFlagValueError

from qkd_tf.console.command_line import CommandFlags

ROOT = pathlib.Path(__file__).parents[3]

# Imports every module beside a user's flags, which were defined before or are defined after; prints their values.
BESIDE = """
import importlib, json, pathlib, sys
from absl import flags
mine = {"batch_size": 7, "seed": 8, "student": 9, "tflite": 10, "target": 11, "output": 12}

def define(names):
    for name in names:
        flags.DEFINE_integer(name, mine[name], "mine")

define(list(mine)[:3])
from qkd_tf import fit
from tflite_export import export
known = {
    ".".join(path.with_suffix("").parts)
    for package in ("qkd_tf", "tflite_export")
    for path in pathlib.Path(package).rglob("*.py")
    if path.name != "__init__.py"
}
modules = [importlib.import_module(name) for name in sorted(known)]
define(list(mine)[3:])
flags.FLAGS(["program", "--seed=5"])
ours = [name for name, found in flags.FLAGS.flags_by_module_dict().items() if name.startswith(("qkd_tf", "tflite_e"))]
print(json.dumps([len(modules), ours, [flags.FLAGS[name].value for name in mine]]))
"""


@pytest.mark.slow
def test_importing_defines_no_flag_of_the_program():
    done = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    num_modules, ours, values = json.loads(done.stdout.splitlines()[-1])
    assert num_modules > 50 and ours == []
    assert values == [7, 5, 9, 10, 11, 12]


# A command; it prints what it reads.
COMMAND = """
import sys
from absl import flags
from qkd_tf.console import command_line
from qkd_tf.process import call_depth
FLAGS = command_line.CommandFlags()
FLAGS.DEFINE_bool("fast", True, "Hurry.")
FLAGS.DEFINE_multi_string("rule", [], "A rule.")
FLAGS.DEFINE_enum("kind", "round", ["round", "square"], "Which.")

def main(argv):
    print(FLAGS.fast, FLAGS.rule, argv[1:], flags.FLAGS.verbosity)
    assert sys.getrecursionlimit() == call_depth.LIMIT

if __name__ == "__main__":
    command_line.run(main, FLAGS)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """told(*arguments): exit code, out and err of a command."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "command.py").write_text(COMMAND)
    (folder / "lines.flags").write_text("--rule=a\n--nofast\n")
    (folder / "nested.flags").write_text("--flagfile=gone.flags\n")
    (folder / "bytes.flags").write_bytes(b"--rule=\xff\xfe\n")

    def told(*arguments, stdout=subprocess.PIPE):
        done = subprocess.run(
            [sys.executable, "command.py", *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
        )
        return done.returncode, done.stdout, done.stderr

    return told


@pytest.mark.parametrize(
    "arguments, line",
    [
        ((), "True [] [] 0"),
        (("--nofast", "x", "--rule=a", "--rule=b"), "False ['a', 'b'] ['x'] 0"),
        (("--flagfile=lines.flags", "--rule=b", "--fast"), "True ['a', 'b'] [] 0"),
        (("--verbosity=1",), "True [] [] 1"),
        (("--undefok=slow", "--slow=3"), "True [] [] 0"),
    ],
)
def test_command_has_its_flags_and_those_of_absl(told, arguments, line):
    assert told(*arguments) == (0, line + "\n", "")


def test_help_shows_the_flags_of_the_command(told):
    for argument in ("--help", "--helpshort", "--helpfull"):
        code, out, _ = told(argument)
        assert code == 0 and re.search(r"^  --fast +Hurry\.$", out, re.MULTILINE)


def test_common_flags_are_shown_first_and_all_by_helpfull():
    values = CommandFlags()
    values.begin("Speed")
    values.DEFINE_bool("fast", False, "Hurry.")
    values.begin("Rules")
    values.DEFINE_enum("kind", "a", ["a", "b"], "Which.")
    values.show_first(["kind"])
    extended = values.extended()
    extended.DEFINE_list("own", ["x", "y"], "Its own.")
    helps = [flags.help("What: python -m this", full) for flags in (values, extended) for full in (False, True)]
    found = [re.findall(r"^  --(\S+)", text, re.MULTILINE) for text in helps]
    assert found == [["kind=a"], ["nofast", "kind=a"], ["own=x,y", "kind=a"], ["own=x,y", "nofast", "kind=a"]]
    assert ["1 more flags" in text for text in helps] == [True, False, True, False]
    assert "Rules\n  --kind=a" in helps[0] and "Which. One of a, b.\n" in helps[0]
    assert helps[0].startswith("What.\n\n    python -m this\n\n")


def test_a_flag_of_the_commands_own_takes_the_place_of_an_inherited_one_and_a_hidden_one_is_in_no_help():
    values = CommandFlags()
    values.DEFINE_string("bits", None, "One.")
    values.DEFINE_bool("old", None, "Retired.")
    values.hide("old")
    extended = values.extended()
    extended.DEFINE_list("bits", ["4"], "Many.", allow_override=True)
    helps = [flags.help("What: python -m this", True) for flags in (values, extended)]
    assert [re.findall(r"^  --(\S+)", text, re.MULTILINE) for text in helps] == [["bits="], ["bits=4"]]
    extended(["this", "--bits=2,4", "--old"])
    assert extended.bits == ["2", "4"] and extended.old


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_reader_that_closes_the_pipe_ends_it_without_a_word(told, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        assert told(*arguments, stdout=closed)[2] == ""


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--rules=a", "error: Unknown command line flag 'rules'; did you mean rule?; --help and --helpfull show"),
        ("--try_bits=4", "error: --try_bits is a flag of qkd_tf.sensitivity, not of this command; "),
        ("--nojit_compile", "error: --nojit_compile is a flag of qkd_tf.train, not of this command; "),
        ("--overwrite", "error: --overwrite is a flag of qkd_tf.new, not of this command; "),
        ("--fast=x", "error: flag --fast=x: true or false is expected; --help"),
        ("--kind=Rown", "error: flag --kind=Rown: did you mean round?; --help"),
        ("--kind=x", "error: flag --kind=x: value should be one of <round|square>; --help"),
        ("--rule", "error: Missing value for flag --rule; "),
        ("--flagfile=gone.flags", "error: --flagfile=gone.flags cannot be read: No such file or directory; paths"),
        ("--flagfile=line.flag", "error: --flagfile=line.flag cannot be read: No such file or directory; did you mean"),
        (
            "--flagfile=nested.flags",
            "error: --flagfile=gone.flags cannot be read: No such file or directory; paths",
        ),
        ("--flagfile=.", "error: --flagfile=. cannot be read: Is a directory"),
        ("--flagfile=bytes.flags", "error: a flag file is not text in UTF-8"),
    ],
)
def test_mistake_is_a_line(told, argument, message):
    code, _, err = told(argument)
    assert code == 1 and err.startswith(message) and err.count("\n") == 1


@pytest.mark.parametrize("argument, in_full", [("10k", "10240"), ("64 KB", "65536"), ("1.5MiB", "1572864")])
def test_a_size_with_a_unit_is_told_in_full(argument, in_full):
    flags = CommandFlags()
    flags.DEFINE_integer("size", 0, "Bytes.", lower_bound=0)
    with pytest.raises(IllegalFlagValueError, match=f"such as {in_full} for {argument}, is expected"):
        flags(["command", f"--size={argument}"])


def test_flags_of_two_commands_may_have_one_name():
    first, second = CommandFlags(), CommandFlags()
    first.DEFINE_string("run_dir", "a", "One.")
    second.DEFINE_string("run_dir", "b", "Another.")
    assert [values(["command"]) and values.run_dir for values in (first, second)] == ["a", "b"]
