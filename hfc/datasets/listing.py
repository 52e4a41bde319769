"""List folders: which files are images, and which belong to the system."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hfc.datasets import archives

# All endings that Pillow knows for the formats in hfc.crops.FORMATS, and those of cameras and telephones. Images of the
# latter cannot be read everywhere: such a file is a failure of its row, with the reason, and is not passed over.
ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".avif", ".avifs"}
    | {".heic", ".heif", ".hif", ".jxl"}
)
HEIC = frozenset({".heic", ".heif", ".hif"})
# Cameras' raw files, which are not read.
RAW = frozenset(
    {".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".dng", ".raf", ".rw2", ".orf", ".pef", ".srw", ".iiq"}
)
# Names that systems put beside photographs and that do not begin with a dot, in lower case.
SYSTEM = frozenset(
    {"__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "recycler", "lost+found"}
    | {"system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)

Parts = tuple[str, ...]


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


def walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Parts, Listing]]:
    """List a folder or an archive and all below it, ordered by name.

    Yields the names that lead there, and what lies there.

    Hidden files and folders and those of systems are passed over. Links to folders are followed, but for those that
    lead back to a folder which holds them.

    Args:
        folder: where to begin; an archive, or a folder in one, is a folder too.
        above: the real paths of the folders that hold it.

    Raises:
        OSError: a folder may not be listed.
        ImageError: an archive that cannot be read.
    """
    if place := archives.split(folder):
        yield from _walk_members(folder, *place)
        return
    above = (*above, folder.resolve())
    listing, folders = Listing(), []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not is_ours(entry.name):
                continue
            path = folder / entry.name
            if _leads_to_folder(entry):
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


def _walk_members(folder: Path, archive: Path, inside: str) -> Iterator[tuple[Parts, Listing]]:
    """List a folder in an archive by the rules for folders. `inside` is its name there.

    A member whose name leaves the archive is listed as if it lay in the folder: reading it gives the reason.
    """
    within = PurePosixPath(inside).parts
    listings: dict[Parts, Listing] = {}
    for parts in sorted(PurePosixPath(key).parts for key in archives.open_archive(archive).members):
        leaves = parts[0] == os.pardir
        names = _names(parts) if leaves else parts[len(within) :]
        if not (leaves or parts[: len(within)] == within) or not names or not all(map(is_ours, names)):
            continue
        listing = listings.setdefault(names[:-1], Listing())
        ending = PurePosixPath(names[-1]).suffix.lower()
        if ending in ENDINGS:
            listing.images.append(
                folder.joinpath(*[os.pardir] * len(within), *parts) if leaves else folder / Path(*names)
            )
        else:
            listing.others[ending or names[-1]] += 1
    yield from sorted(listings.items(), key=lambda item: item[0])


def _names(parts: Parts) -> Parts:
    return tuple(part for part in parts if part != os.pardir)


def archive_root(path: Path) -> Path:
    """Find the folder that an archive stands for.

    It is `photos` in photos.zip where all lies in that; else the archive itself. People pack a folder as often with
    its name as without. Any other path is returned as it is.
    """
    if archives.split(path) != (path, ""):
        return path
    members = [PurePosixPath(key).parts for key in archives.open_archive(path).members]
    members = [parts for parts in members if parts[0] != os.pardir and all(map(is_ours, parts))]
    packed_with_name = all(parts[0] == path.stem for parts in members)
    labelled = any(len(parts) > 2 for parts in members)  # photos/Tee/1.jpg, not Tee/1.jpg
    return path / path.stem if packed_with_name and labelled else path


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, an archive or a folder in one.

    Raises:
        ImageError: an archive that cannot be read.
        OSError: the same.
    """
    if path.is_dir():
        return True
    place = archives.split(path)
    return place is not None and archives.open_archive(place[0]).has_folder(place[1])


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def raw_files(others: Mapping[str, int]) -> str:
    """Say what to do with cameras' raw files among those that were left out; "" where there are none."""
    count = sum(number for ending, number in others.items() if ending in RAW)
    return f"; {count} are raw files of cameras, which are not read: save them as JPEG or TIFF" if count else ""


def counted(others: Mapping[str, int], most: int = 5) -> str:
    """List files that were left out, for a message: "2 .txt, 1 notes"."""
    ranked = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    more = sum(count for _, count in ranked[most:])
    return ", ".join(f"{count} {ending}" for ending, count in ranked[:most]) + (f" and {more} more" if more else "")
