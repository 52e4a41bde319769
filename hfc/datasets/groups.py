"""Read which rows are a group, such as views of one product, from their paths."""

import logging
import re
from collections import defaultdict
from dataclasses import replace

from hfc.errors import ConfigError
from hfc.hierarchy import canonical, some
from hfc.regions import Regions, strings

logger = logging.getLogger(__name__)


def group_pattern(text: str) -> re.Pattern[str]:
    """Return the pattern of a regular expression that says what a group's name is.

    Raises:
        ConfigError: it is none, or has not one capture group.
    """
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"group: expected a regular expression, found {text!r}: {error}") from error
    if pattern.groups != 1:
        raise ConfigError(
            f"group: expected one capture group, as in (.+)_, found {pattern.groups} in {text!r}; a pair of "
            "parentheses that is none begins with (?:"
        )
    return pattern


def grouped(regions: Regions, pattern: re.Pattern[str]) -> Regions:
    """Name the group of every row: what the pattern captures in its path.

    A path that does not match is a group by itself.

    Raises:
        ConfigError: no path matches.
    """
    paths = regions.path.tolist()
    names = [canonical((match and match[1]) or "") for match in map(pattern.search, paths)]
    lacking = [path for path, name in zip(paths, names, strict=True) if not name]
    if len(lacking) == len(paths):
        raise ConfigError(f"group: {pattern.pattern!r} matches none of the {len(paths)} paths, such as {paths[0]!r}")
    if lacking:
        logger.warning(
            "%s: %d of %d paths do not match the pattern of groups, and are each a group by themselves: %s",
            regions.root,
            len(lacking),
            len(paths),
            some(lacking),
        )
    _warn_of_mixed(regions, names)
    return replace(regions, group=strings(names))


def _warn_of_mixed(regions: Regions, names: list[str]) -> None:
    """Warn of groups with rows of several labels: numbers may begin anew in every folder."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for name, label in zip(names, regions.label.tolist(), strict=True):
        if name and label:
            labels[name].add(label)
    if mixed := sorted(name for name, kinds in labels.items() if len(kinds) > 1):
        logger.warning(
            "%s: %d of %d groups have rows of several labels: %s; if they are not the same products, let the pattern "
            "capture the folder too",
            regions.root,
            len(mixed),
            len(labels),
            some(mixed),
        )
