"""What a caller in Python is told."""

import sys

import pytest

from qkd_tf.api import KEYWORDS
from qkd_tf.console.keywords import in_keywords, speaking_python


@pytest.mark.parametrize(
    "text, expected",
    [
        ("lower --learning_rates to a tenth", "lower learning_rates to a tenth"),
        ("--momentum=1.0 is not in [0, 1)", "momentum=1.0 is not in [0, 1)"),
        ("(--equalize_channels=off, --epochs)", '(equalize_channels="off", epochs)'),
        ("give --image_size=72x96", 'give image_size="72x96"'),
        ("--image_size=72x96; --keep_epoch=last.", 'image_size="72x96"; keep_epoch="last".'),
        ("--image_size=96, --momentum=nan and --phases=a,b", 'image_size=96, momentum=nan and phases=["a", "b"]'),
        ("(--phases=); --phases= makes it", "(phases=[]); phases=[] makes it"),
        ("give --bits=w4a8 --weight_storage=int4, or --bits=8", 'give bits="w4a8", weight_storage="int4", or bits=8'),
        ("(--weight_bits=8 --activation_bits=8 --phases=)", "(weight_bits=8, activation_bits=8, phases=[])"),
        ("is it --dataset=folder:my/PICS?", 'is it train_set="folder:my/PICS"?'),
        ("--epochs=2,1,1 and --learning_rates=1e-3,0.1.", "epochs=[2, 1, 1] and learning_rates=[1e-3, 0.1]."),
        ("--bits_rule='a=w4a8' --run_dir=…", "bits_rule='a=w4a8', run_dir=…"),
        ("--horizontal_flip=true --crop_padding=-1", "horizontal_flip=True, crop_padding=-1"),
        ("--no_such_flag=1 --seed=2", "--no_such_flag=1, seed=2"),
        ("give --nohorizontal_flip or --signals", "give horizontal_flip=False or signals=True"),
        ("--dataset=folder:a: a is not a folder", 'train_set="folder:a": a is not a folder'),
        ("--flagfile, --no_such_flag=1, --noseed and a--seed", "--flagfile, --no_such_flag=1, --noseed and a--seed"),
        ("python -m prepare cifar10 --data_dir=D; --seed", "python -m prepare cifar10 --data_dir=D; seed"),
        ("as python -m qkd_tf.sensitivity finds (--bits_rule)", "as python -m qkd_tf.sensitivity finds (bits_rule)"),
    ],
)
def test_flags_are_keyword_arguments(text, expected):
    assert in_keywords(text, KEYWORDS) == expected


def test_what_is_printed_and_the_errors_named_are_translated(capsys):
    with pytest.raises(ValueError, match="^seed=-1$"):
        with speaking_python(KEYWORDS, (ValueError,)):
            print("note:", "--seed=1", flush=True)
            print("--seed=3", file=sys.stderr)
            raise ValueError("--seed=-1")
    with pytest.raises(KeyError, match="--seed"):
        with speaking_python(KEYWORDS, (ValueError,)):
            raise KeyError("--seed")
    print("--seed=2")
    assert capsys.readouterr() == ("note: seed=1\n--seed=2\n", "seed=3\n")
