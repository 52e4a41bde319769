"""Names that people give to classes and files: what makes two of them the same, and how one is shown."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def canonical(name: str) -> str:
    """A name as it is compared: in Unicode's form NFC, without blanks at its ends."""
    return unicodedata.normalize("NFC", name.strip())


def spellings(names: Iterable[str]) -> list[list[str]]:
    """The names that are one name in several spellings, a sorted list for each."""
    together: defaultdict[str, set[str]] = defaultdict(set)
    for name in set(names):
        together[canonical(name)].add(name)
    return [sorted(same) for _, same in sorted(together.items()) if len(same) > 1]


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are not UTF-8 as escapes, like f\\xe4h."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_utf8(name: str) -> bool:
    """Whether the bytes of a file's name are UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
