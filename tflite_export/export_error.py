"""The error for a run that cannot become a file."""


class ExportError(ValueError):
    """Why a run cannot become a .tflite, in one line."""

    __module__ = "tflite_export"  # where users find it, and what tracebacks say
