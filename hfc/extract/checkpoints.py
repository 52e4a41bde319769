"""Checkpoint files: their tensors, and the names that other packages give them.

It knows no network: hfc.extract.weights puts the tensors into one.
"""

import argparse
import re
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hfc.errors import EncoderError

# Layers of the PyPI package efficientnet_pytorch (Melas-Kyriazi 2019) -> timm's: around the blocks, in a block that
# expands its channels first, and in one that does not.
PORT_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
PORT_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
PORT_EXPANDING = PORT_SQUEEZE | {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PORT_PLAIN = PORT_SQUEEZE | {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model")  # where a training script's checkpoint has the weights
WRAPPED = re.compile(r"^(_orig_mod\.|module\.)+")  # what compiling and training on several GPUs put before names


def read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a checkpoint. Nothing in it is unpickled but tensors and plain containers."""
    if not path.is_file():
        raise EncoderError(f"weights {path}: no such file; give hub, wheel, random or a .safetensors or .pth file")
    try:
        path.open("rb").close()  # safetensors calls a file that may not be read a missing one
    except OSError as error:
        raise EncoderError(f"weights {path}: cannot be read: {error.strerror or error}") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training scripts put their arguments beside the weights; a namespace runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise EncoderError(f"weights {path}: not a safetensors file: {error}") from error
    except Exception as error:  # torch.load has no error type of its own
        raise EncoderError(f"weights {path}: not a checkpoint that holds tensors alone: {reason(error)}") from error
    while isinstance(content, dict) and (inner := next((k for k in INSIDE if content.get(k) is not None), None)):
        content = content[inner]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise EncoderError(f"weights {path}: expected a dictionary of tensors, found {type(content).__name__}")
    return {WRAPPED.sub("", name): tensor for name, tensor in content.items()}


def timm_names(state: Mapping[str, Tensor], model: Iterable[str]) -> dict[str, Tensor]:
    """Rename the tensors of an efficientnet_pytorch checkpoint as timm does.

    The package numbers its blocks through, timm numbers them within stages; both in the order of the forward pass.

    Args:
        state: tensors under the package's names.
        model: the names of timm's network, in its own order; what they do not account for keeps its name.
    """
    names = dict.fromkeys(model)
    blocks = dict.fromkeys(".".join(name.split(".")[:3]) for name in names if name.startswith("blocks."))
    layers = dict(PORT_ENDS)
    for index, block in enumerate(blocks):
        inside = PORT_EXPANDING if f"{block}.conv_pwl.weight" in names else PORT_PLAIN
        layers |= {f"_blocks.{index}.{name}": f"{block}.{timms}" for name, timms in inside.items()}

    def renamed(name: str) -> str:
        layer, dot, tensor = name.rpartition(".")
        return layers.get(layer, layer) + dot + tensor

    return {renamed(name): tensor for name, tensor in state.items()}


def reason(error: Exception) -> str:
    """Return what an error of another library says, in one line. Where it says nothing, its kind and the function."""
    if lines := str(error).strip().splitlines():
        return lines[0].rstrip(".")
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__ + (f" in {frames[-1].name}" if frames else "")
