"""Small data sets as TFDS stores them."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from qkd_tf.data import pipeline


@pytest.fixture
def streaming(monkeypatch):
    """Nothing fits in memory."""
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)


@pytest.fixture(scope="session")
def make_set(tmp_path_factory):
    """make_set(image feature, image(index), splits, labels): data_dir of the TFDS set "small", six examples a split."""

    def make(feature, image, splits=("train", "test"), labels=(0, 1)):
        features = {"image": feature, "label": tfds.features.ClassLabel(names=["cat", "dog"])}
        with tfds.core.registered.skip_registration():

            class Small(tfds.core.GeneratorBasedBuilder):
                VERSION = tfds.core.Version("1.2.3")

                def _info(self):
                    features_dict = tfds.features.FeaturesDict(features)
                    return self.dataset_info_from_configs(
                        features=features_dict, supervised_keys=("image", "label"), disable_shuffling=True
                    )

                def _split_generators(self, dl_manager):
                    return {split: self._generate_examples() for split in splits}

                def _generate_examples(self):
                    for index in range(6):
                        yield index, {"image": image(index), "label": labels[index % len(labels)]}

        data_dir = tmp_path_factory.mktemp("small")
        Small(data_dir=data_dir).download_and_prepare()
        return str(data_dir)

    return make


@pytest.fixture(scope="session")
def make_ramps(make_set):
    """make_ramps(sizes, ...): `make_set` of ramps, 2 * c in column c; sizes take turns."""

    def make(sizes=((32, 64),), **fields):
        def ramp(index):
            height, width = sizes[index % len(sizes)]
            row = (2 * np.arange(width)).astype(np.uint8)
            return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))

        shape = (*sizes[0], 3) if len(sizes) == 1 else (None, None, 3)
        return make_set(tfds.features.Image(shape=shape, encoding_format="png"), ramp, **fields)

    return make
