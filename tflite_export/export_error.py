"""What keeps a run from becoming a file."""


class ExportError(ValueError):
    """What keeps a run from becoming a .tflite, told in one line."""

    __module__ = "tflite_export"  # where users find it, and what tracebacks say
