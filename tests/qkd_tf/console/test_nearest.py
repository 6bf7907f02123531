"""What is proposed where a name is misspelt."""

import pytest

from qkd_tf.console.nearest import meant, nearest

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
