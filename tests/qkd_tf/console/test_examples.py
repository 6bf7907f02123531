"""What users of signals read."""

import pytest

from qkd_tf.console.examples import in_examples, page_in_examples, speaking_of_examples


@pytest.mark.parametrize(
    "text, expected",
    [
        ("top-1 on 20 validation images: 45.00 %", "top-1 on 20 validation examples: 45.00 %"),
        ("Images differ; no picture of class 3.", "Examples differ; no example of class 3."),
        ("resnet8 reads pictures or maps; it is for pictures", "resnet8 reads pictures or maps; it is for pictures"),
        ("an image, a picture and A picture", "an example, an example and An example"),
        ("60/60 [00:01<00:00, 44.93image/s]", "60/60 [00:01<00:00, 44.93example/s]"),
        ("0/60 [00:00<?, ?image/s]", "0/60 [00:00<?, ?example/s]"),
        ("--max_eval_images=3, image_size=4 and images[:1]", "--max_eval_images=3, image_size=4 and images[:1]"),
        (
            "/my/images/a.npz, images/x, image.npz, data:image/png",
            "/my/images/a.npz, images/x, image.npz, data:image/png",
        ),
    ],
)
def test_images_and_pictures_are_examples_but_not_in_names(text, expected):
    assert in_examples(text) == expected


def test_of_a_page_only_texts_change():
    page = '<style>.pictures { top: 0 }</style><p class="images">60 test images</p><image href="x"/>'
    expected = '<style>.pictures { top: 0 }</style><p class="images">60 test examples</p><image href="x"/>'
    assert page_in_examples(page) == expected


@pytest.mark.parametrize("are_signals, word", [(True, "examples"), (False, "images")])
def test_what_is_printed_and_the_errors_named_are_of_examples_for_signals_alone(are_signals, word, capsys):
    with pytest.raises(ValueError, match=f"^2 {word}$"), speaking_of_examples(are_signals, (ValueError,)):
        print("note: 2 images")
        raise ValueError("2 images")
    assert capsys.readouterr().out == f"note: 2 {word}\n"
