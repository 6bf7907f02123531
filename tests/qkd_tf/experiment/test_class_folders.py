"""What the names of folders tell of a set of pictures."""

import pytest

from qkd_tf.experiment import DataSpec, ExperimentError, require_set

SPLITS = ("train/ant/", "train/bee/", "test/ant/", "test/bee/")

# Folders (they end in "/") and files, fields of the spec, and the mistake as it is told of ROOT.
LAYOUTS = [
    (SPLITS, {}, None),
    (("ant/", "bee/"), {"test_fraction": 0.2}, None),
    (("train/ant/", "train/labels.txt", "labels.txt", "test/"), {}, None),  # the file names the classes
    (("a.jpg", "b.jpg"), {"test_fraction": 0.2}, "ROOT has no class folder, and a.jpg lies in ROOT itself; put the p"),
    (("train/a.jpg", "test/"), {}, "ROOT/train has no class folder, and a.jpg lies in ROOT/train itself"),
    ((".git/", "__MACOSX/"), {"test_fraction": 0.2}, "ROOT has no class folder; two or more class folders are needed"),
    (("photos/",), {"test_fraction": 0.2}, "ROOT has 1 class folder, photos; two or more class folders are needed"),
    (
        ("photos/mine/ant/", "photos/mine/bee/"),
        {"test_fraction": 0.2},
        "ROOT has 1 class folder, photos, and the classes seem to be deeper, in ROOT/photos/mine; give "
        "--dataset=folder:ROOT/photos/mine; two or more",
    ),
    (
        ("train/all/ant/", "train/all/bee/", "test/"),
        {},
        "ROOT/train has 1 class folder, all, and the classes seem to be deeper, in ROOT/train/all; move its folders in",
    ),
    (("ant/", "bee/"), {}, "ROOT has no folder train; train and test are needed"),
    (("ant/1.jpg", "bee/"), {}, "ROOT has no folder test; train and test are needed"),
    (("ant/1.jpg", "bee/", "validation/", "test/ant/"), {}, None),
    (("ant/1.jpg", "bee/", "exam/"), {"test_split": "exam"}, None),
    (("ant/", "bee/", "validation/"), {"test_fraction": 0.2}, None),
    (("photos/1.jpg", "test/"), {}, "ROOT has 1 class folder, photos; two or more class folders are needed"),
    (("Train/ant/", "val/", "test/"), {}, "ROOT has no folder train"),
    (SPLITS, {"test_split": "exam"}, "ROOT has no folder exam"),
    (
        SPLITS,
        {"test_fraction": 0.2},
        "--test_fraction=0.2: ROOT has a test split, ROOT/test; leave the flag out, or if a flag file has it, add "
        "--test_fraction=0",
    ),
]


@pytest.mark.parametrize("paths, fields, told", LAYOUTS)
def test_folders_that_cannot_be_splits_and_classes_are_told(tmp_path, paths, fields, told):
    for path in paths:
        if path.endswith("/"):
            (tmp_path / path).mkdir(parents=True)
        else:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    spec = DataSpec(f"folder:{tmp_path}", **fields)
    if told is None:
        require_set(spec)
        return
    with pytest.raises(ExperimentError) as caught:
        require_set(spec)
    assert str(caught.value).replace(str(tmp_path), "ROOT").startswith(told)
