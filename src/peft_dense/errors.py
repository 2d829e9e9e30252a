"""Every error of the library, one small tree.

::

    PeftDenseError
    ├── UnknownNameError       (ValueError)  an unknown method, task, head or argument
    ├── HyperparameterError    (ValueError)  a ratio, rank or dimension that doesn't fit the widths
    ├── ShapeError             (ValueError)  a tensor of the wrong shape or dtype
    │   └── ImageSizeError                   an image the backbone's stages can't divide
    ├── UnsupportedModelError  (TypeError)   a model that can't be adapted as it stands
    │   └── NoSiteError                      no place in it for what the method adds
    ├── CheckpointError        (ValueError)  saved adapters that don't fit, or aren't whole
    ├── MissingPackageError    (ImportError) an optional package that isn't installed
    └── DataError              (ValueError)  a data set, image or label that can't be read
        ├── MissingFileError                 a file that isn't there
        └── LabelSizeError                   a label of another size than its image

Each message says what was given, what was expected and what to do. A note under it, which Python
3.11 and newer show with the traceback, has the address of its section of the documentation.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DataError",
    "HyperparameterError",
    "ImageSizeError",
    "LabelSizeError",
    "MissingFileError",
    "MissingPackageError",
    "NoSiteError",
    "PeftDenseError",
    "ShapeError",
    "UnknownNameError",
    "UnsupportedModelError",
    "warn",
]

_TROUBLESHOOTING = "https://peft-dense.github.io/peft-dense/troubleshooting.html"
_PACKAGE = os.path.dirname(os.path.abspath(__file__))


class PeftDenseError(Exception):
    """Base of every error this library raises on purpose.

    Attributes:
        help: Address of the documentation's section on this error: causes, and what to do.

    Example:
        >>> ImageSizeError("too small").help
        'https://peft-dense.github.io/peft-dense/troubleshooting.html#imagesizeerror'
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        # What add_note would do, which Python 3.10 lacks: the message itself stays one sentence.
        self.__notes__ = [f"What to do: {self.help}"]

    @property
    def help(self) -> str:
        """Address of the documentation's section on this class."""
        return f"{_TROUBLESHOOTING}#{type(self).__name__.lower()}"


class UnknownNameError(PeftDenseError, ValueError):
    """A name that isn't registered; the message offers the nearest ones.

    Example:
        >>> str(UnknownNameError.of("method", "vmt_light", ["vmt", "vmt_lite", "lora"]))
        "unknown method 'vmt_light'; did you mean 'vmt_lite' or 'vmt'? Known: lora, vmt, vmt_lite."
    """

    @classmethod
    def of(cls, kind: str, given: object, known: Iterable[str]) -> UnknownNameError:
        """Build the error for a ``given`` name where those of its ``kind`` are ``known``."""
        names = sorted(known)
        folded = {name.casefold(): name for name in names}
        close = difflib.get_close_matches(str(given).casefold(), folded, n=3, cutoff=0.5)
        near = [folded[name] for name in close]
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        return cls(f"unknown {kind} {given!r}{hint} Known: {', '.join(names) or 'none'}.")


class HyperparameterError(PeftDenseError, ValueError):
    """A hyper-parameter that doesn't fit the backbone's widths or the method."""


class ShapeError(PeftDenseError, ValueError):
    """A tensor whose shape or dtype isn't the expected one."""


class ImageSizeError(ShapeError):
    """An image size that the backbone's stages can't divide."""


class UnsupportedModelError(PeftDenseError, TypeError):
    """A model that can't be adapted as it stands."""


class NoSiteError(UnsupportedModelError):
    """A model without a place for what the method adds."""


class CheckpointError(PeftDenseError, ValueError):
    """Saved adapters that don't fit the model, or that aren't whole."""


class MissingPackageError(PeftDenseError, ImportError):
    """A package that isn't installed; the message names the extra that brings it.

    Example:
        >>> str(MissingPackageError.of("training", "accelerate", "train"))
        "training needs accelerate, which isn't installed; pip install 'peft-dense[train]'"
    """

    @classmethod
    def of(cls, what: str, package: str | None, extra: str) -> MissingPackageError:
        """Build the error: ``what`` needs a ``package`` that an ``extra`` brings."""
        return cls(
            f"{what} needs {package}, which isn't installed; pip install 'peft-dense[{extra}]'"
        )


class DataError(PeftDenseError, ValueError):
    """A data set, an image or a label that can't be read."""


class MissingFileError(DataError):
    """An image or a label whose file isn't there."""


class LabelSizeError(DataError):
    """A label whose height and width aren't those of its image."""


def warn(message: str) -> None:
    """Warn at the user's line: the nearest one outside this library.

    Args:
        message: What is wrong, and what to do.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn("the backbone is flat.")
        >>> str(caught[0].message)
        'the backbone is flat.'
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
