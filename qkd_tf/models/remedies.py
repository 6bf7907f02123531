"""What to do about a layer that has no integer form in a .tflite."""

from collections.abc import Mapping

OPERATIONS = "write it with Keras layers (Rescaling on pixels, ReLU, Add, Multiply, Concatenate, Reshape, pooling)"
_AUGMENTATION = "leave it out: pictures are cropped and mirrored by --crop_padding and --horizontal_flip"
_OF_TWO = "use Add, Subtract, Multiply or Average: only these combine two tensors in integers"
# Class -> remedy.
REMEDIES: Mapping[str, str] = {
    **dict.fromkeys(("Lambda", "TFOpLambda", "SlicingOpLambda", "ClassMethod"), OPERATIONS),
    **dict.fromkeys(
        ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D"),
        "use convolutions and pooling along the steps: the state of a recurrent layer is not computed in integers here",
    ),
    **dict.fromkeys(
        ("MultiHeadAttention", "GroupQueryAttention", "Attention", "AdditiveAttention", "Dot"),
        "use convolutions and pooling: products of two activations, as attention has them, are not computed in "
        "integers here",
    ),
    "Embedding": "leave it out and give features, or one-hot columns: the file's input is 8-bit numbers, not an index",
    "TimeDistributed": "use a layer that runs along the steps: Conv1D(units, 1) does what TimeDistributed(Dense) does",
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose"),
        "use UpSampling (nearest) and a convolution: transposed convolutions are not computed in integers here",
    ),
    **dict.fromkeys(
        ("Conv3D", "Conv3DTranspose", "MaxPooling3D", "AveragePooling3D", "GlobalAveragePooling3D"),
        "use layers of two dimensions: a volume is not computed in integers here",
    ),
    **dict.fromkeys(("ELU", "ThresholdedReLU"), "use ReLU, LeakyReLU or Activation('swish')"),
    **dict.fromkeys(("Minimum", "Maximum"), _OF_TWO),
    "RepeatVector": "use Reshape and UpSampling1D, which repeat a vector along the steps",
    **dict.fromkeys(
        ("LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization", "SpectralNormalization"),
        "use BatchNormalization, which becomes a part of the convolution",
    ),
    **dict.fromkeys(("RandomCrop", "RandomHeight", "RandomWidth", "CenterCrop"), _AUGMENTATION),
    "Resizing": "leave it out: --image_size resizes pictures",
}
