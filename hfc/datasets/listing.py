"""List folders: which files are images, and which belong to the system."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# All endings that Pillow knows for the formats in hfc.crops.FORMATS, and those of cameras and telephones. Images of the
# latter cannot be read everywhere: such a file is a failure of its row, with the reason, and is not passed over.
ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".avif", ".avifs"}
    | {".heic", ".heif", ".hif", ".jxl"}
)
# Names that systems put beside photographs and that do not begin with a dot, in lower case.
SYSTEM = frozenset(
    {"__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "recycler", "lost+found"}
    | {"system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)


@dataclass
class Listing:
    """The images in a folder, and how many other files lie beside them."""

    images: list[Path] = field(default_factory=list)
    """In the order of their names."""
    others: Counter[str] = field(default_factory=Counter)
    """Files that are no images by their names, counted by ending; by name where there is none."""


def is_ours(name: str) -> bool:
    """Return whether a name counts. Hidden files and folders and those of systems do not."""
    return not name.startswith(".") and name.lower() not in SYSTEM


def walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[tuple[str, ...], Listing]]:
    """List a folder and all below it, in the order of their names.

    Yields the names that lead there, and what lies there.

    Hidden files and folders and those of systems are passed over. Links to folders are followed, but for those that
    lead back to a folder which holds them.

    Args:
        folder: where to begin.
        above: the real paths of the folders that hold it.

    Raises:
        OSError: a folder may not be listed.
    """
    above = (*above, folder.resolve())
    listing, folders = Listing(), []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not is_ours(entry.name):
                continue
            path = folder / entry.name
            if _is_folder(entry):
                folders.append(path)
            elif path.suffix.lower() in ENDINGS:  # also a pipe or a broken link: reading it gives the reason
                listing.images.append(path)
            elif path.is_file():
                listing.others[path.suffix.lower() or path.name] += 1
    yield (), listing
    for path in folders:
        if not (path.is_symlink() and any(holder.is_relative_to(path.resolve()) for holder in above)):
            for names, inside in walk(path, above):
                yield (path.name, *names), inside


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def counted(others: Mapping[str, int], most: int = 5) -> str:
    """List files that were left out, for a message: "2 .txt, 1 notes"."""
    ranked = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    more = sum(count for _, count in ranked[most:])
    return ", ".join(f"{count} {ending}" for ending, count in ranked[:most]) + (f" and {more} more" if more else "")
