"""What is proposed where a name is misspelt."""

import pytest

from qkd_tf import flags
from qkd_tf.console.nearest import meant, nearest
from qkd_tf.console.synonyms import DEVICES, FLAGS
from qkd_tf.contract.targets import TARGETS

KNOWN = ("resnet8", "resnet18", "mobilenet_v2_1.0", "mobilenet_v2_1.4", "MobileNetV2")


@pytest.mark.parametrize(
    "name, told",
    [
        ("resnet81", "did you mean resnet8?"),
        ("RESNET18", "did you mean resnet18?"),
        ("mobilnetv2", "did you mean MobileNetV2?"),
        ("mobilenet_v2_1.O", "did you mean mobilenet_v2_1.0 or mobilenet_v2_1.4?"),
        ("mob", f"known are {', '.join(KNOWN)}"),
        ("resnet1", "did you mean resnet18?"),
        ("vgg", f"known are {', '.join(KNOWN)}"),
        ("", f"known are {', '.join(KNOWN)}"),
    ],
)
def test_the_nearest_names_are_told_or_else_all(name, told):
    assert meant(name, KNOWN) == told


def test_a_caller_may_say_something_else_where_no_name_is_near():
    assert meant("vgg", KNOWN, "docs/flags.md has them") == "docs/flags.md has them"
    assert (nearest("vgg", KNOWN), nearest("resnet", KNOWN)) == ("", "resnet8")


def test_names_of_other_tools_are_known_where_ours_is():
    assert meant("lr", ["epochs", "learning_rates"]) == "did you mean learning_rates?"
    for device in ("Cortex-M4", "esp32-s3", "STM32F4", "arduino nano 33", "nRF52840"):
        assert meant(device, TARGETS) == "did you mean microcontroller?"
    assert meant("model", ["tflite", "handoff"]) == "did you mean tflite?"
    assert meant("lr", ["epochs", "seed"], "none") == "none"


def test_every_synonym_is_a_flag_or_a_target():
    ours = {*flags.FLAGS, *TARGETS, "tflite", "output"}
    assert {name for names in FLAGS.values() for name in names} | {*DEVICES.values()} <= ours
    assert not {*FLAGS, *DEVICES} & {name.replace("_", "") for name in {*flags.FLAGS, *TARGETS}}
