"""A backbone by timm's own configuration: what `timm.create_model` and timm's transforms read of config.json."""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from hfc.config import ExtractConfig

CROPS = {"squash": "squash", "pad": "border", "center-crop": "center"}  # how a crop becomes square, by timm's names
# Where the weights came from, which is this folder now; names of the classes that they knew; and other sizes.
GONE = {
    *("url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "tag", "custom_load"),
    *("label_names", "label_descriptions", "notes", "test_input_size", "test_crop_pct"),
}


def timm_config(model: nn.Module, options: Mapping[str, object], stage1: ExtractConfig, dim: int) -> dict[str, object]:
    """Describe a backbone as timm's own models on hubs do.

    Args:
        model: as timm made it, without its classifier.
        options: what timm was told to make it, beyond its name.
        stage1: how its features are made.
        dim: how many those are.
    """
    known: Any = model.pretrained_cfg
    kept = {name: value for name, value in dict(known).items() if value is not None and name not in GONE}
    side = stage1.image_size
    pretrained = kept | {
        "input_size": [3, side, side],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": CROPS[stage1.resize],
        "num_classes": 0,
    }
    architecture = stage1.backbone.split(".")[0]
    return {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": dim,
        "pretrained_cfg": pretrained | {"architecture": architecture},
        **({"model_args": dict(options)} if options else {}),
    }


def use_by_timm(name: str, dim: int, pool: str) -> list[str]:
    """How timm loads the folder, in Markdown.

    Args:
        name: of the folder.
        dim: features of an image.
        pool: the pooling that must be named, as timm calls it; "" where config.json does.
    """
    return [
        "",
        f"timm makes the backbone alone, and the {dim} features of an image that the head takes:",
        "",
        "```python",
        "import timm",
        "",
        f"model = timm.create_model({json.dumps(f'local-dir:{name}')}, pretrained=True).eval()",
        *([f"model.reset_classifier(0, {json.dumps(pool)})"] if pool else []),
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        "features = model(transform(image)[None])  # image: of Pillow, in RGB",
        "```",
    ]
