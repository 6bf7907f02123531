"""Bit widths that a first flag file has."""

import pytest

from qkd_tf import flags
from qkd_tf.proposal import proposal
from qkd_tf.proposal.draft import Draft
from tests.saved_flags import saved_flags


@pytest.mark.parametrize(
    "given, widths, told",
    [
        ("--target=phone", "w4a4", ""),
        ("--target=phone --bits=4", "", ""),
        ("--target=microcontroller", "w4a8", ""),
        ("--target=ethos_u --weight_bits=2", "w2a8", ""),
        ("--target=microcontroller --bits=4", "", "; give --bits=w4a8, which"),
        ("--target=microcontroller --activation_bits=3", "w4a3", "; give --activation_bits=8, which"),
        ("--target=ethos_u --bits=w2a5", "", ""),
    ],
)
def test_activations_have_8_bits_where_fewer_bring_no_byte_and_kernels_round_twice(given, widths, told):
    with saved_flags():
        flags.FLAGS(["new", "--run_dir=runs/a", *given.split()])
        draft = Draft(flags.FLAGS)
    proposal._choose_bits(draft)
    notes = [note for note in draft.experiment.notes_on(10_000) if note.startswith("note: --target=")]
    text = draft.text([])
    lines = [f"--{kind}_bits={bits}" for kind, bits in zip(("weight", "activation"), widths[1::2], strict=False)]
    assert sorted(line for line in text.splitlines() if "_bits=" in line) == sorted(lines)
    assert len(notes) == bool(told) and all(told in note for note in notes)
    assert ("kernels round twice, which" in text.replace("\n# ", " ")) == widths.endswith("8")
