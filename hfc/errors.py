"""What can go wrong, as a tree of exceptions.

    HfcError                     anything a user can mend; the command line prints its one line and exits with 1
    ├── ConfigError              a setting that does not exist or cannot have this value
    ├── DatasetError             annotations, manifests and folder trees that cannot be read as a data set
    │   └── ImageError           one image, or the box in it, cannot become a crop (recorded, never fatal)
    │       ├── ImageTypeError   something that is no image at all (a TypeError too)
    │       └── AwayError        one on the network, which does not answer now
    ├── HierarchyError           a category tree that is not one, or does not fit the labels
    ├── EncoderError             a backbone or its weights
    ├── StoreError               a feature cache that cannot be read or written
    │   ├── StaleStoreError      it was made under other settings
    │   └── IncompleteStoreError extraction did not finish
    ├── RunError                 a training run or its folder
    │   └── DivergedError        a training whose loss is not finite
    └── StoppedError             stopped on request; the same command goes on

A message names the file and row, what was expected, what was found, and what to do next, in one line. File names in it
pass through `printable`.
"""

import contextlib
import difflib
import errno
import functools
import inspect
import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

# What Markdown would take for markup; & where it begins an entity.
MARKDOWN = re.compile(r"[\\`*_\[\]<>|~#$]|&(?=#?\w+;)")

# What was a name once, for messages and for reading what was made then.
_FORMER = tomllib.loads(Path(__file__).with_name("former.toml").read_text("utf-8"))
FORMER_METHODS: Mapping[str, Mapping[str, object]] = _FORMER["methods"]
FORMER_SETTINGS: Mapping[str, object] = _FORMER["settings"]
FORMER_VALUES: Mapping[str, Mapping[str, str]] = _FORMER["values"]


class HfcError(Exception):
    """Base of every error a user can mend."""


class ConfigError(HfcError):
    """A setting that does not exist or cannot have this value."""


class DatasetError(HfcError):
    """Annotations, a manifest or a folder tree that is no data set."""


class ImageError(DatasetError):
    """An image, or the box in it, that cannot become a crop."""


class ImageTypeError(ImageError, TypeError):
    """An object that is no image."""


class AwayError(ImageError):
    """An image on the network, which does not answer now. Nothing is said about the image."""


class HierarchyError(HfcError):
    """A category tree that is no tree, or that does not fit the labels."""


class EncoderError(HfcError):
    """A backbone that does not exist, or weights that do not fit it."""


class StoreError(HfcError):
    """A feature cache that cannot be read or written."""


class StaleStoreError(StoreError):
    """A feature cache made under other settings than those asked for."""


class IncompleteStoreError(StoreError):
    """A feature cache whose extraction did not finish."""


class RunError(HfcError):
    """A training run, or its folder, that cannot be used."""


class DivergedError(RunError):
    """A training whose loss is no longer a finite number."""

    def __init__(self, message: str, config: object = None) -> None:
        super().__init__(message)
        self.config = config
        """The settings of the run that diverged, which may be one of several that are trained together."""


class StoppedError(HfcError):
    """Work that stopped on request. What was finished is kept, and the same command goes on from there."""


@functools.cache
def warn_once(logger: logging.Logger, message: str) -> None:
    """Log a warning, the same one once a process."""
    logger.warning("%s", message)


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that is most like a mistyped one. Where none is, list them all."""
    names = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"did you mean {names[near[0]]}?" if near else f"known: {', '.join(sorted(names.values()))}"


def meant(value: str, known: Iterable[str]) -> str:
    """Suggest for a message what a mistyped or former name means."""
    names = list(known)
    if value in FORMER_SETTINGS:
        return f"{value} is gone, as it gained too little (notebooks/settings.md); leave it out"
    if new := next((values[value] for values in FORMER_VALUES.values() if value in values), ""):
        return f"{value} is gone, as it gained too little (notebooks/settings.md); {new} gives the same leaves"
    if (former := FORMER_METHODS.get(value, {})) and former["method"] in names:
        method, changes = former["method"], [f"{key}={new}" for key, new in former.items() if key != "method"]
        words = " ".join(f"--set {change}" for change in changes)
        return f"it is method {method} with {', '.join(changes)} now: --method {method} {words}"
    return nearest(value, names)


def one_of(value: str, known: Iterable[str], what: str) -> str:
    """Return a name if it is known. Else the ConfigError suggests the nearest."""
    if value in (names := list(known)):
        return value
    raise ConfigError(f"unknown {what} {value!r}; {meant(value, names)}")


def check_keywords(call: Callable[..., object], keywords: Iterable[str], settings: Iterable[str] = ()) -> None:
    """Refuse keywords that a call does not take. The ConfigError suggests the nearest.

    Args:
        call: the function, whose own keywords are known.
        keywords: those that it was given beyond them.
        settings: what it takes as well.
    """
    own = [name for name, what in inspect.signature(call).parameters.items() if what.kind is what.KEYWORD_ONLY]
    known = [*own, *settings]
    for name in keywords:
        one_of(name, known, "setting")


def printable(name: str) -> str:
    """Return a file's name as text that can be written anywhere.

    Bytes that are not UTF-8 become escapes, like f\\xe4h.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def markdown(text: object) -> str:
    """Escape a text so that Markdown shows it as it is. It fits on a line and into a table's cell."""
    return MARKDOWN.sub(r"\\\g<0>", " ".join(str(text).split()))


def is_utf8(name: str) -> bool:
    """Return whether the bytes of a file's name are UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def missing_extra(what: str, package: str, extra: str) -> ConfigError:
    """Make the error for a package that is not there: `what` it reads, and the extra that brings it."""
    install = f'python -m pip install "hfc[{extra}]"'
    return ConfigError(f"{what} are read by {package}, which cannot be imported: {install}")


def in_the_way(path: Path) -> RunError:
    """Make the error for a file or folder that a command will not replace."""
    return RunError(
        f"{path}: is in the way: hfc did not write it, or it was changed since; move it away or name another place"
    )


@contextlib.contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn what the operating system refuses into a RunError.

    `what` is being written, as in "the run".
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and error.filename is None:  # of no file here: there is no temporary folder
            raise
        raise RunError(f"{path}: {what} cannot be written: {error.strerror or error}") from error
