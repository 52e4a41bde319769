"""What an image was when it was read, and what makes rows the same. Dimension: N rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfc.provenance import digest_chunks

Digests = NDArray[np.uint8]
Boxes = NDArray[np.float32]

DIGEST_BYTES = 32
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What each row's image was when it was read."""

    sha256: Digests
    """(N, 32) of its bytes; zeros: they could not be read."""
    size: NDArray[np.int64]
    """(N,) in bytes; UNKNOWN where it is."""
    modified: NDArray[np.int64]
    """(N,) time of its last change, in nanoseconds since 1970; UNKNOWN: only its bytes tell whether it changed."""

    def __len__(self) -> int:
        return len(self.sha256)

    @classmethod
    def unknown(cls, count: int) -> "Fingerprints":
        """Make fingerprints of which nothing is known."""
        blank = np.full(count, UNKNOWN, dtype=np.int64)
        return cls(np.zeros((count, DIGEST_BYTES), dtype=np.uint8), blank, blank.copy())

    def take(self, rows: NDArray[np.int64]) -> "Fingerprints":
        """Take some rows, in the order given."""
        return Fingerprints(self.sha256[rows], self.size[rows], self.modified[rows])

    def digest(self) -> str:
        """Compute the SHA-256 over every byte."""
        arrays = (self.sha256, self.size.astype("<i8"), self.modified.astype("<i8"))
        return digest_chunks(np.ascontiguousarray(array).data.cast("B") for array in arrays)


def identity_bytes(sha256: Digests, box: Boxes) -> Digests:
    """Put SHA-256 and box of each row together: (N, 48) bytes, equal for the same pixels alone."""
    corners = np.where(np.isnan(box), np.float32(np.nan), box + np.float32(0)).astype("<f4")  # one NaN, and no -0
    return np.concatenate([sha256, np.ascontiguousarray(corners).view(np.uint8).reshape(len(box), -1)], axis=1)


def identities(sha256: Digests, box: Boxes) -> list[bytes]:
    """Say by what each row is the same: SHA-256 of its image's bytes, and its box.

    Args:
        sha256: (N, 32); zeros where the bytes could not be read.
        box: (N, 4); NaN = the whole image.

    Returns:
        N keys of a dictionary; b"" for a row whose bytes are unknown, which is the same as no other.
    """
    rows = identity_bytes(sha256, box)
    content, width, known = rows.tobytes(), rows.shape[1], np.flatnonzero(sha256.any(axis=1))
    keys = [b""] * len(rows)
    for row in known.tolist():
        keys[row] = content[row * width : (row + 1) * width]
    return keys
