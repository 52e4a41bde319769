"""A drawn sample in DeepFashion's own layout, for trying everything without its images."""

from hfc.sample.picture import draw_picture
from hfc.sample.tree import draw_sample, is_sample

__all__ = ["draw_picture", "draw_sample", "is_sample"]
