"""An extension of griffe, for the site: a field that is a flag is documented by the help of its flag.

Griffe reads the sources and imports nothing. The experiment's specs are imported here, since they need the standard
library alone.
"""

import dataclasses
import importlib

import griffe

PACKAGE = "qkd_tf.experiment"


class OptionDocstrings(griffe.Extension):
    """Gives fields of the experiment's specs their help and their default."""

    def on_class(self, *, cls: griffe.Class, **_: object) -> None:
        if not cls.path.startswith(PACKAGE):
            return
        spec = getattr(importlib.import_module(cls.module.path), cls.name)
        if not dataclasses.is_dataclass(spec):
            return
        for field in dataclasses.fields(spec):
            if told := field.metadata:
                attribute = cls.members[field.name]
                attribute.docstring = griffe.Docstring(told["help"], parent=attribute)
                attribute.value = repr(told["default"])
