"""The proposal for a user's own networks and data, in addition to what they gave themselves."""

import dataclasses

from qkd_tf import data, networks
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import ROUNDS_TWICE, WIDEST_BITS, NetworkSpec, QuantizationSpec, require_network
from qkd_tf.models import own
from qkd_tf.proposal.draft import Draft
from qkd_tf.proposal.network_look import NUM_ANSWERS, looked_at
from qkd_tf.proposal.pictures import Shape, choose_mirror, choose_pictures, choose_resize, choose_test
from qkd_tf.proposal.pixels import choose_pixels, note_on_teacher
from qkd_tf.proposal.schedule import choose_schedule
from qkd_tf.proposal.survey import opened, surveyed, unseen

# Target -> what fewer bits bring there.
BITS = {
    "phone": "a phone's file stores each weight in a byte, so fewer bits do not make it smaller",
    "microcontroller": "up to 4 bits two weights share a byte of flash",
    "ethos_u": "Arm's compiler compresses weights of fewer bits better",
}


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What is known in addition to the lines of a flag file.

    Attributes:
      found: what was found, one per line.
      undecided: what the user has to decide before training, one per line.
      assumed: flags, as typed, with which the pre-flight can check the rest meanwhile.
      source: the data set that these flags describe; every picture has been looked at.
    """

    found: list[str]
    undecided: list[str]
    assumed: list[str]
    source: data.Source


def propose(draft: Draft) -> Proposal:
    """Opens networks and data, and fills in what a draft leaves open.

    Args:
      draft: with student, dataset and run_dir.

    Raises:
      ExperimentError: a data set or network cannot be used, or networks and data do not fit together.
    """
    _choose_bits(draft)
    choose_test(draft)
    experiment = draft.experiment
    specs = {"student": experiment.student} | ({"teacher": experiment.teacher} if experiment.teacher else {})
    for role, spec in specs.items():
        require_network(spec, f"--{role}")
    source = unseen(experiment.data)
    num_classes = len(source.label_names)
    # Before all pictures are looked at: a model of other classes is told at once.
    shapes = {role: _saved_shape(spec, num_classes) for role, spec in specs.items() if spec.is_saved}
    survey = surveyed(experiment.data, source)
    on_size = choose_pictures(draft, survey, shapes) if survey.has_pictures else []
    source = opened(draft.experiment.data)
    experiment = networks.on_source(draft.experiment, source)
    looks = {role: looked_at(getattr(experiment, role), role, source.image_shape, num_classes) for role in specs}
    if survey.has_pictures:
        choose_mirror(draft, survey, looks["student"])
    with data.reading(experiment.data):
        judge = next((look for look in looks.values() if look.is_trained and look.subject), looks["student"])
        resizing = choose_resize(draft, judge, source)
        source = opened(draft.experiment.data)
        if resizing:  # which says more of the same
            source = dataclasses.replace(source, notes=tuple(note for note in source.notes if "--resize=" not in note))
        examples = data.sample(source, draft.experiment.data, NUM_ANSWERS)
    findings = [choose_pixels(draft, look, *examples) for look in looks.values()]
    notes = choose_schedule(draft, looks, source)
    seen = [line for finding in findings for line in finding.lines]
    if len(findings) > 1:
        seen += note_on_teacher(*findings)
    return Proposal(
        found=[survey.line(), *on_size, *source.notes, *resizing, *seen, *notes],
        undecided=[finding.undecided for finding in findings if finding.undecided],
        assumed=[flag for finding in findings for flag in finding.assumed],
        source=source,
    )


def _choose_bits(draft: Draft) -> None:
    """Chooses target and bit widths; activations get 8 bits where fewer save no bytes and cost more than on a phone."""
    target = draft.experiment.target.target
    draft.choose("target", target, f"What the file is for: {', '.join(BITS)} (docs/targets.md).")
    if not draft.has("bits"):
        weights, activations = QuantizationSpec.weight_bits, QuantizationSpec.activation_bits
        if TARGETS[target].rounds_twice:
            draft.choose("weight_bits", weights, f"2 to 8 bits of weights; {BITS[target]}.")
            draft.choose("activation_bits", WIDEST_BITS, f"2 to 8 bits of activations; {ROUNDS_TWICE}.")
        else:
            for name, width in (("weight_bits", weights), ("activation_bits", activations)):
                draft.choose(name, width, f"2 to 8 bits of weights and of activations; {BITS[target]}.")


def _saved_shape(spec: NetworkSpec, num_classes: int) -> Shape:
    """The input shape of a saved model, if it has the data set's classes."""
    shape, num_outputs = own.saved_shapes(spec)
    own.require_classes(spec.name, num_outputs, num_classes)
    return shape
