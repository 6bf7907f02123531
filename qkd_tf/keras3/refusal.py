"""What keeps a model of Keras 3 out, in one line."""


class RefusalError(ValueError):
    """A part of a model of Keras 3 that is not converted: what it is, and what to do."""


def refuse_layer(name: str, class_name: str, module: str | None, reason: str = "") -> RefusalError:
    """A layer that is not converted.

    Args:
      module: where the class lives; None where the file does not say.
      reason: what of it; "" for the class itself.
    """
    place = f" of {module}" if module else ""
    return RefusalError(
        f"it is a model of Keras 3, whose layer {name}, a {class_name}{place}, is not converted{reason and ': '}{reason}; "
        "write that layer with others of Keras, or build the model with tf_keras"
    )
