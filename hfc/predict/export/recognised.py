"""A run by timm's own configuration: what `timm.create_model` and timm's transforms read of config.json.

Dimensions: B images, S side of a crop, D features, C leaves.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hfc.config import ExtractConfig
from hfc.predict.head import Trained
from hfc.train.heads.linear import Linear

CROPS = {"squash": "squash", "pad": "border", "center-crop": "center"}  # how a crop becomes square, by timm's names
# Where the weights came from, which is this folder now; names of the classes that they knew; and other sizes.
GONE = {
    *("url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "tag", "custom_load"),
    *("label_names", "label_descriptions", "notes", "test_input_size", "test_crop_pct"),
}


def with_classifier(model: nn.Module, trained: Trained, pool: str, side: int) -> nn.Module | None:
    """Put a run's head on its backbone, as the classifier that timm's networks end with.

    Args:
        model: the backbone.
        trained: the run.
        pool: the backbone's pooling as timm calls it; "" for its own.
        side: S.

    Returns:
        A network whose logits have the run's calibrated probabilities; None where the head is more than one linear
        layer on the features, or the network has something between both.
    """
    head, views = trained.head, trained.run.result.cache.views
    if not isinstance(head, Linear) or head.standardise.transform != "none" or views > 1:
        return None
    weight = head.leaf.weight / head.standardise.std
    bias = head.leaf.bias - weight @ head.standardise.mean
    weight, bias = (tensor.detach() / trained.temperature for tensor in (weight, bias))
    whole: Any = copy.deepcopy(model).eval()
    images = torch.linspace(-2, 2, 2 * 3 * side * side).reshape(2, 3, side, side)
    with torch.inference_mode():
        expected: Tensor = whole(images) @ weight.T + bias
    whole.reset_classifier(len(weight), *([pool] if pool else []))
    layer = whole.get_classifier()
    if not isinstance(layer, nn.Linear) or layer.weight.shape != weight.shape:
        return None
    layer.load_state_dict({"weight": weight, "bias": bias})
    with torch.inference_mode():
        return whole if torch.allclose(whole(images), expected, rtol=1e-4, atol=1e-4) else None


def timm_config(
    model: nn.Module, options: Mapping[str, object], stage1: ExtractConfig, dim: int, leaves: Sequence[str] = ()
) -> dict[str, object]:
    """Describe a network as timm's own models on hubs do.

    Args:
        model: as timm made it.
        options: what timm was told to make it, beyond its name.
        stage1: how its features are made.
        dim: D.
        leaves: what its classifier tells apart; without one none.
    """
    known: Any = model.pretrained_cfg
    kept = {name: value for name, value in dict(known).items() if value is not None and name not in GONE}
    side = stage1.image_size
    pretrained = kept | {
        "input_size": [3, side, side],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": CROPS[stage1.resize],
        "num_classes": len(leaves),
    }
    architecture = stage1.backbone.split(".")[0]
    return {
        "architecture": architecture,
        "num_classes": len(leaves),
        "num_features": dim,
        **({"label_names": list(leaves)} if leaves else {}),
        "pretrained_cfg": pretrained | {"architecture": architecture},
        **({"model_args": dict(options)} if options else {}),
    }


def use_by_timm(name: str, dim: int, pool: str, *, whole: bool) -> list[str]:
    """How timm loads the folder, in Markdown.

    Args:
        name: of the folder.
        dim: D.
        pool: the pooling that must be named, as timm calls it; "" where config.json does.
        whole: whether the head is the network's classifier.
    """
    features = f"timm makes the backbone alone, and the {dim} features of an image that the head takes:"
    return [
        "",
        "timm makes the whole classifier, as its head is one linear layer:" if whole else features,
        "",
        "```python",
        "import timm",
        "",
        f"model = timm.create_model({json.dumps(f'local-dir:{name}')}, pretrained=True).eval()",
        *([f"model.reset_classifier(0, {json.dumps(pool)})"] if pool else []),
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        f"{'probabilities' if whole else 'features'} = model(transform(image)[None])"
        f"{'.softmax(1)' if whole else ''}  # image: of Pillow, in RGB",
        "```",
    ]
