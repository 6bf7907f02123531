"""Why a Keras 3 model is refused, in one line."""

import dataclasses

from qkd_tf.console.counting import with_article
from qkd_tf.storage.archive import first_line

WIDTH = 160  # of what is quoted of a file, or of another library


class RefusalError(ValueError):
    """A Keras 3 model, or a part of it, that cannot be converted: what it is, and what to do."""

    def __init__(self, reason: str):
        super().__init__(f"it is a model of Keras 3, {reason}")


@dataclasses.dataclass(frozen=True)
class Part:
    """A layer or an operation, by name and class."""

    name: str
    class_name: str

    def refusal(self, reason: object, remedy: str = "replace it with other layers of Keras") -> RefusalError:
        """The error that names this part.

        Args:
          reason: a line, or an exception.
          remedy: what to do if the part is a student's.
        """
        told = first_line(reason, WIDTH) if isinstance(reason, Exception) else reason
        return RefusalError(
            f"and its layer {self.name}, {with_article(self.class_name)}, is not converted: {told}; {remedy}, or, "
            "in a teacher, build the model with tf_keras"
        )
