"""docs/flags.md is what the code says today."""

import re

import pytest

from docs import flags

SOURCE = '''"""A command."""
from qkd_tf.console.command_line import CommandFlags

FLAGS = CommandFlags()
WIDTHS = ("2", "8")

FLAGS.begin("Bits")
FLAGS.DEFINE_enum("width", "8", WIDTHS, "Bits, not|more.")
FLAGS.DEFINE_multi_string("rule", [], "A rule.")
FLAGS.begin("Run")
FLAGS.DEFINE_bool(
    "fast", None, "Hurry."
)
FLAGS.DEFINE_list("seeds", ["0", "1"], "Seeds of 2*N runs.")
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes the source of a command; gives its module's name."""
    monkeypatch.setattr(flags, "ROOT", tmp_path)

    def write(source):
        (tmp_path / "command.py").write_text(source)
        return "command"

    return write


def test_page_is_up_to_date():
    assert flags.PAGE.read_text() == flags.page(), "the flags have changed: make docs"


def test_absl_flags_have_sections_values_and_defaults(module):
    assert flags.rows(module(SOURCE)) == [
        ("Bits", "`--width`", "`2` \\| `8`", "`8`", "Bits, not\\|more"),
        ("Bits", "`--rule`", "text, repeatable", "", "A rule"),
        ("Run", "`--fast`", "boolean", "", "Hurry"),
        ("Run", "`--seeds`", "list", "`0,1`", "Seeds of 2\\*N runs"),
    ]


def test_a_flag_of_the_same_name_elsewhere_does_not_disturb(module):
    assert [flags.rows(module(SOURCE)) for _ in range(2)][0] == flags.rows("command")


def test_arguments_of_argparse_are_flags_too(module):
    source = (
        "parser.add_argument('name', help='which one')\nparser.add_argument('--folder', default='x', help='where to.')"
    )
    assert flags.rows(module(source)) == [
        ("", "`NAME`", "text", "", "Which one"),
        ("", "`--folder`", "text", "`x`", "Where to"),
    ]


def test_every_module_that_defines_flags_has_a_table():
    modules = [path for package in ("qkd_tf", "tflite_export") for path in (flags.ROOT / package).rglob("*.py")]
    declaring = {
        path
        for path in modules
        if re.search(r"^( {4})?FLAGS\.DEFINE_|\.add_argument\(", path.read_text(), re.MULTILINE)
    }
    assert declaring == {flags.path_of(module) for module, _ in flags.TABLES.values()}
