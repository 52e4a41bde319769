"""Gives `hfc` the small defaults of README's tests, if it is imported before whatever takes the defaults."""

import os

from tests.support.readme import small_defaults

os.environ["HF_HUB_OFFLINE"] = "1"  # read when timm is imported
small_defaults()
