"""What keeps a model of Keras 3 out, in one line."""

import dataclasses

from qkd_tf.storage.archive import first_line

WIDTH = 160  # of what is quoted of a file, or of another library


class RefusalError(ValueError):
    """A model of Keras 3, or a part of it, that is not taken over: what it is, and what to do."""

    def __init__(self, reason: str):
        super().__init__(f"it is a model of Keras 3, {reason}")


@dataclasses.dataclass(frozen=True)
class Part:
    """A layer or an operation, by name and class."""

    name: str
    class_name: str

    def refusal(self, reason: object) -> RefusalError:
        """The error that names it.

        Args:
          reason: a line, or what was raised.
        """
        told = first_line(reason, WIDTH) if isinstance(reason, Exception) else reason
        return RefusalError(
            f"and its layer {self.name}, a {self.class_name}, is not converted: {told}; write that layer with others "
            "of Keras, or build the model with tf_keras"
        )
