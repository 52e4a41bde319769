"""Where the clothing photographs lie, and the mark of tests that need them."""

import os
from pathlib import Path

import pytest

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"

needs_clothing = pytest.mark.skipif(
    not CLOTHING.is_dir() and "CI" not in os.environ,  # CI must have them
    reason="the clothing photographs are not beside the checkout (../shared/data/clothing)",
)
