"""`qkd_tf.new`: the flag file that it writes is accepted, and says what fits the model and the pictures."""

import pathlib
import re

import numpy as np
import pytest
import tf_keras
from PIL import Image
from tf_keras import layers

from tests.in_process import start

SIZE = 12, 16


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_pictures(*splits, size=SIZE, number=12, classes=("ant", "bee"), spread=0, grey=False):
    """Dark ants and bright bees in PICTURES/SPLIT/CLASS, of `size` and up to `spread` pixels more a side."""
    rng = np.random.default_rng(0)
    for split in splits or ("train", "test"):
        for label, name in enumerate(classes):
            folder = pathlib.Path("PICTURES", split, name)
            folder.mkdir(parents=True)
            for index in range(number):
                shape = tuple(side + (spread if index == 1 else 0) for side in size)
                pixels = 160 + 40 * label + rng.integers(-9, 10, (*shape, 1 if grey else 3))
                Image.fromarray(np.broadcast_to(pixels, (*shape, 3)).astype(np.uint8)).save(folder / f"{index}.png")


def write_model(path="model.keras", size=SIZE, channels=3, outputs=2, front=(), bias=-7.0, trained=True):
    """Names ants and bees by whether pixels of 0 to 1 are brighter than 0.7 on average."""
    pixels = x = tf_keras.Input((*size, channels))
    for layer in front:
        x = layer(x)
    x = layers.ReLU()(layers.Conv2D(1, 1, use_bias=False)(x))
    model = tf_keras.Model(pixels, layers.Dense(outputs)(layers.GlobalAveragePooling2D()(x)))
    if trained:
        model.layers[-4].set_weights([np.full((1, 1, channels, 1), 1 / channels)])
        model.layers[-1].set_weights([np.array([[0.0, 10.0]]), np.array([0.0, bias])])
    model.save(path)


def write(*arguments, student="model.keras", dataset="folder:PICTURES"):
    """The file's lines that are flags, and the whole of it."""
    start("qkd_tf.new", [f"--student={student}", f"--dataset={dataset}", "--output=my.flags", *arguments])
    text = pathlib.Path("my.flags").read_text()
    return [line for line in text.splitlines() if line.startswith("--")], text


def refusal(*arguments, **changes):
    with pytest.raises(SystemExit) as end:
        write(*arguments, **changes)
    assert isinstance(end.value.code, str) and "\n" not in end.value.code
    assert not pathlib.Path("my.flags").exists() or pathlib.Path("my.flags").read_text() == "mine"
    return end.value.code


@pytest.mark.slow
def test_file_for_a_saved_model_trains(capsys):
    write_pictures()
    write_model(front=[layers.Rescaling(1 / 255)])
    lines, text = write()
    assert lines == [
        "--run_dir=runs/my",
        "--dataset=folder:PICTURES",
        "--batch_size=8",
        "--student=model.keras",
        "--weight_bits=4",
        "--activation_bits=4",
        "--phases=self_studying",
        "--epochs=30",
        "--learning_rates=0.001",
        "--target=phone",
    ]
    assert "# --nohorizontal_flip\n" in text
    assert "# model.keras normalises pixels itself: mean 0 and deviation 255.\n" in text
    assert max(map(len, text.splitlines())) <= 120
    told = capsys.readouterr().out
    assert "PICTURES: 2 classes (ant, bee); 22 pictures for training, 2 for validation, 24 for the test; 12x16" in told
    assert (
        "student: model.keras, trained; it normalises pixels itself: mean 0 and deviation 255; it classifies 100.0 %"
        in told
    )
    assert "pre-flight: accepted: " in told
    *_, first, second = told.splitlines()
    assert first == "my.flags written; next: python -m qkd_tf.train --flagfile=my.flags"
    assert second == "then: python -m tflite_export --run_dir=runs/my --target=phone"
    start("qkd_tf.train", ["--flagfile=my.flags", "--epochs=1", "--max_steps=1", "--batch_norm_batches=0"])
    assert pathlib.Path("runs/my/handoff/manifest.json").is_file()


@pytest.mark.slow
def test_beside_a_students_own_augmentation_no_mirroring_is_proposed_or_done(capsys):
    write_pictures()
    write_model(front=[layers.RandomFlip("horizontal"), layers.Rescaling(1 / 255)])
    _, text = write()
    start("qkd_tf.train", ["--flagfile=my.flags", "--epochs=1", "--max_steps=1", "--batch_norm_batches=0"])
    assert "horizontal_flip" not in text and "pictures are mirrored" not in (told := capsys.readouterr().out)
    assert told.count("note: beside these layers training pictures are not mirrored (--horizontal_flip)") == 2
    assert told.count("note: training pictures are augmented by the student's own layers, as in Keras: ") == 2


@pytest.mark.slow
@pytest.mark.parametrize("frozen, rate", [(True, "0.0001"), (False, "0.001")])
def test_student_whose_batch_normalization_is_frozen_gets_a_lower_rate(frozen, rate):
    write_pictures()
    write_model(front=[layers.Rescaling(1 / 255), layers.BatchNormalization(trainable=not frozen)])
    lines, text = write()
    assert f"--learning_rates={rate}" in lines
    assert ("for a trained student whose BatchNormalization is frozen: higher rates" in text) == frozen


@pytest.mark.slow
def test_grey_model_and_pictures_of_other_sizes(capsys):
    write_pictures(size=(20, 31), spread=3)
    write_model(channels=1, front=[layers.Rescaling(1 / 255)])
    lines, text = write("--target=microcontroller", "--bits=w3a5")
    assert {"--image_size=12x16", "--image_channels=1", "--bits=w3a5"} <= set(lines)
    assert "--target=microcontroller" in lines and "# --resize=squash" in text
    told = capsys.readouterr().out
    assert told.count("of cropped ones; the flags take ") == 1 and "are not of the aspect ratio" not in told
    assert "--weight_bits=" not in text


@pytest.mark.slow
def test_network_by_name_without_a_test_folder(capsys):
    """Grey pictures of several sizes, digits among the classes."""
    write_pictures("train", size=(40, 70), spread=9, classes=("1", "7"), grey=True)
    lines, _ = write(student="convnet_small")
    told = capsys.readouterr().out
    assert "; 40x70 to 49x79 pixels (height x width), grey\n" in told
    assert "note: the flags resize pictures to 32x32 pixels; convnet_small reads pictures of any size: " in told
    assert {"--test_fraction=0.2", "--image_size=32", "--image_channels=1", "--nohorizontal_flip"} <= set(lines)
    assert {"--phases=full_precision,self_studying", "--epochs=160,30"} <= set(lines)


@pytest.mark.slow
def test_what_is_given_stays_and_a_new_teacher_is_trained_first():
    write_pictures("train", "val")
    arguments = ["--batch_size=4", "--learning_rates=0.02,0.01,0.01,0.01", "--run_dir=here", "--image_size=16"]
    lines, text = write(*arguments, "--teacher=convnet_small", student="convnet_small")
    assert {*arguments, "--teacher=convnet_small", "--test_split=val"} <= set(lines)
    assert "--phases=full_precision,self_studying,co_studying,tutoring" in lines
    assert len(lines) == len({line.partition("=")[0] for line in lines})
    assert "python -m tflite_export --run_dir=here" in text


@pytest.mark.slow
def test_pixels_are_those_on_which_the_model_is_right(capsys):
    write_pictures()
    write_model()
    lines, _ = write()
    assert {"--student_weights_mean=0", "--student_weights_std=255"} <= set(lines)
    told = capsys.readouterr().out
    answers = r"correctly classifies [45]\d\.\d % with pixels of 0 to 255, 100\.0 % with pixels of 0 to 1, "
    assert re.search(answers + ".*; the flags say pixels of 0 to 1\n", told)


@pytest.mark.slow
def test_pixels_that_no_answer_tells_are_left_to_the_user(capsys):
    write_pictures()
    write_model(bias=0.5)
    lines, text = write()
    assert not [line for line in lines if "pixel" in line or "weights_" in line]
    assert "# --student_weights_mean=0\n# --student_weights_std=255\n" in text
    told = capsys.readouterr().out
    assert (
        "to decide in my.flags: model.keras does not say which pixels it was trained on; of 22 training pictures"
        in told
    )
    with pytest.raises(SystemExit, match="does not normalise its pixels itself; give the normalization"):
        start("qkd_tf.preflight", ["--flagfile=my.flags"])


@pytest.mark.slow
def test_saved_model_without_a_training_learns_as_a_new_one_and_each_flag_has_a_sentence(capsys):
    write_pictures(spread=9)
    write_model(trained=False)
    lines, text = write("--seed=3")
    assert {"--seed=3", "--phases=full_precision,self_studying", "--epochs=160,30"} <= set(lines)
    assert {"--student_weights_mean=128", "--student_weights_std=64"} <= set(lines)
    told = capsys.readouterr().out
    assert "student: model.keras, not trained" in told and "is not trained yet, so it trains" not in told
    assert re.search("note: full_precision trains .* further, from the weights that it came with", told)
    lines = text.splitlines()
    flags_at = [index for index, line in enumerate(lines) if re.match("(# )?--", line)]
    for index in flags_at:
        above = lines[index - 1]
        assert index - 1 in flags_at or (above.startswith("# ") and above.endswith(".")), lines[index]


def test_saved_model_without_a_training_or_a_phase_for_it_learns_at_few_bits(capsys):
    write_pictures()
    write_model(trained=False)
    lines, _ = write("--phases=self_studying")
    assert {"--learning_rates=0.01", "--batch_norm_statistics=batches", "--epochs=160"} <= set(lines)
    assert "note: model.keras is not trained yet" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("grey", [False, True])
def test_model_of_other_classes_is_told_of(capsys, grey):
    write_pictures(classes=("bee", "ant"), grey=grey)
    write_model(front=[layers.Rescaling(1 / 255)])
    write()
    told = capsys.readouterr().out
    assert "note: that is hardly more than chance: was model.keras trained for these classes" in told
    assert ("gives another order. Was it trained on grey pictures, like these? If" in told) == grey


def test_signals_have_no_flags_of_pictures():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    series = rng.normal(size=(60, 16, 2)) + labels[:, np.newaxis, np.newaxis]
    np.savez("set.npz", x_train=series, y_train=labels, x_test=series[:20], y_test=labels[:20])
    signals = x = tf_keras.Input((16, 2))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3, activation="relu")(x))
    tf_keras.Model(signals, layers.Dense(2)(x)).save("model.keras")
    lines, text = write(dataset="npz:set.npz")
    assert not re.search("--(no)?(image|resize|horizontal|student_weights|student_pixel)", text)
    assert "--batch_size=8" in lines


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--student="], "error: --student is missing; give your saved model"),
        (["--dataset=folder:NOWHERE"], "error: --dataset=folder:NOWHERE: NOWHERE is not a folder"),
        (["--dataset=folder:PICTURE"], "error: --dataset=folder:PICTURE: PICTURE is not a folder; did you mean f"),
        (["--student=nothing.keras"], "error: no model at nothing.keras"),
        (["--student=modl.keras"], "error: no model at modl.keras; did you mean model.keras?"),
        (["--student=model.kras"], "error: --student=model.kras: there is no such file; did you mean model.keras?"),
        (
            ["--student=keras.applications.VGG16"],
            "error: --student=keras.applications.VGG16: there is no such file; did you mean keras.applications:VGG16?",
        ),
        (["--student=thre"], "error: --student=thre: there is no such file; did you mean three.keras?"),
        (["--student=net.tflite"], "error: --student=net.tflite is a finished file, which cannot be trained; give"),
        (["--student=resnet81"], "error: unknown --student 'resnet81'; did you mean resnet8?"),
        (["--student=vgg"], "error: unknown --student 'vgg'; known are convnet_small, "),
        (["--student=mobilenet_v2_1.O"], "error: unknown --student 'mobilenet_v2_1.O'; did you mean mobilenet_v2_1.0"),
        (["--student=zoo:resnet8_w4a5"], "error: unknown --student 'zoo:resnet8_w4a5'; did you mean resnet8?"),
        (["--output=my.txt"], "error: --output=my.txt does not end in .flags"),
        (["--output=NOWHERE/my.flags"], "error: --output=NOWHERE/my.flags: there is no folder NOWHERE"),
        (["--run_dir=PICTURES"], "error: --output=my.flags: PICTURES is there already"),
        (["--bits=4", "--weight_bits=3"], "error: --bits=4 and --weight_bits=3 both set bit widths"),
        (["--bits=four"], "error: --bits=four is not understood; write w4a8"),
        (["--bits=9"], "error: --bits=9 is out of range"),
        (["--max_flash_bytes=9"], "error: the student needs "),
        (["--student=three.keras"], "error: three.keras has 3 classes, the data set has 2"),
        (["--teacher=large.keras"], "error: --student=model.keras reads 12x16 and --teacher=large.keras reads 24x16 "),
        (["--teacher=fresh.keras"], "error: --teacher=fresh.keras is not trained"),
    ],
)  # fmt: skip
def test_mistake_is_a_line_and_nothing_is_written(arguments, told):
    write_pictures()
    write_model(front=[layers.Rescaling(1 / 255)])
    write_model("three.keras", outputs=3, trained=False)
    write_model("large.keras", size=(24, 16), front=[layers.Rescaling(1 / 255)])
    write_model("fresh.keras", trained=False)
    assert refusal(*arguments).startswith(told)


def test_model_of_other_classes_is_told_before_all_pictures_are_looked_at():
    write_pictures()
    pathlib.Path("PICTURES/train/bee/5.png").write_bytes(b"no picture")
    write_model("three.keras", outputs=3, trained=False)
    assert refusal("--student=three.keras").startswith("error: three.keras has 3 classes, the data set has 2; give a ")


def test_a_file_that_is_there_is_left_alone():
    write_pictures()
    write_model()
    pathlib.Path("my.flags").write_text("mine")
    assert refusal() == "error: --output=my.flags: my.flags is there already; give another name, or --overwrite"
    lines, _ = write("--overwrite")
    assert "--student=model.keras" in lines and "--overwrite" not in " ".join(lines)
    pathlib.Path("runs/my").mkdir(parents=True)
    with pytest.raises(SystemExit, match="runs/my is there already; give another name, or move it away"):
        write("--overwrite")


def test_layer_that_is_refused_is_a_line(capsys):
    write_pictures()
    write_model(front=[layers.LayerNormalization(name="norm")])
    assert "layer norm is a LayerNormalization; use BatchNormalization" in refusal()
