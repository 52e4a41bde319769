"""Names of classes: how they are compared, and how a message lists them."""

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

logger = logging.getLogger(__name__)


def canonical(name: str) -> str:
    """Return a class name as it is compared: in Unicode's NFC, without blanks around it."""
    return unicodedata.normalize("NFC", name.strip())


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Return the names that are one name in several spellings, a sorted list for each."""
    together: defaultdict[str, set[str]] = defaultdict(set)
    for name in set(names):
        together[canonical(name)].add(name)
    return [sorted(same) for _, same in sorted(together.items()) if len(same) > 1]


def warn_of_spellings(where: str, labels: Iterable[str]) -> None:
    """Warn of labels that are one class in several spellings."""
    for same in spellings(labels):
        logger.warning("%s: one class in several spellings: %s", where, ", ".join(map(ascii, same)))


def some(names: Sequence[str], most: int = 5) -> str:
    """Join the first few names, and how many more there are, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
