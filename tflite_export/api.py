"""The export in Python: `tflite_export.export`, whose messages name keyword arguments where the command names flags."""

import inspect

from qkd_tf.console.arguments import arguments_checked
from qkd_tf.console.keywords import Keyword, speaking_python
from qkd_tf.storage.folder_lock import FolderInUseError
from tflite_export import exporter
from tflite_export.export_error import ExportError

KEYWORDS = {name: Keyword(name) for name in inspect.signature(exporter.export).parameters}

_export = speaking_python(KEYWORDS, (ExportError, FolderInUseError))(exporter.export)
export = arguments_checked(ExportError)(_export)
