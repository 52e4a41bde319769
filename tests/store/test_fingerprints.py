"""What tells rows apart: the bytes of their images and their boxes."""

import struct

import numpy as np

from hfc import store
from tests.support.caches import fingerprints


def test_a_row_is_the_same_by_its_bytes_and_its_box() -> None:
    sha256 = np.zeros((7, 32), dtype=np.uint8)
    sha256[:6, 31] = [1, 1, 2, 1, 1, 1]
    nan = np.uint32(0xFFC00001).view(np.float32)  # another NaN than NumPy's
    box = np.full((7, 4), np.nan, dtype=np.float32)
    box[1], box[3], box[4], box[5] = nan, (0.0, 1, 2, 3), (-0.0, 1, 2, 3), (0.0, 1, 2, 4)
    keys = store.identities(sha256, box)
    assert keys[0] == keys[1] == bytes(31) + b"\1" + struct.pack("<4I", *[0x7FC00000] * 4)
    assert keys[3] == keys[4] == bytes(31) + b"\1" + struct.pack("<4f", 0, 1, 2, 3)
    assert len(set(keys)) == 5
    assert keys[6] == b""  # its bytes are unknown


def test_rows_are_taken_in_the_order_given() -> None:
    known = fingerprints(5)
    some = known.take(np.array([3, 0, 3]))
    assert (some.size.tolist(), some.modified.tolist()) == ([1003, 1000, 1003], [10**18 + 3, 10**18, 10**18 + 3])
    assert some.sha256.tolist() == [known.sha256[row].tolist() for row in (3, 0, 3)]


def test_nothing_is_known_of_unknown_ones() -> None:
    blank = store.Fingerprints.unknown(2)
    assert (len(blank), blank.sha256.any(), blank.size.tolist(), blank.modified.tolist()) == (
        2,
        False,
        [-1, -1],
        [-1, -1],
    )
    blank.size[0] = 7
    assert blank.modified.tolist() == [-1, -1]
