"""Make a backbone compute the same function as timm's, faster. It changes modules in place.

Dimensions: B crops, C channels.
"""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._pytree import tree_leaves

from hfc.extract.lean import GELU, BatchNormAct2d, Conv2dSame, GELUTanh, QuickGELU, SqueezeExcite

logger = logging.getLogger(__name__)

# Version of how a network is computed: part of the feature key, counted up when features change in their last bits.
# 2: normalisations folded into convolutions, means of squeezes by pooling.
NUMERICS = 2
# Kinds whose output depends on their weights alone. That of others, like weight-standardised convolutions, does not.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
VECTORS = 32  # numbers that a CPU's activation takes at a time at most, in float32; with 8 crops, in 16 bits too
VECTOR_BYTES = 128  # the same in bytes
LEAST_PART = 32768  # numbers; with fewer for each, PyTorch takes fewer threads
# Activations whose last bits depend on the routine that computes them: all with a division or an exponential.
ROUNDED = (nn.SiLU, nn.Sigmoid, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.Softplus, GELU, GELUTanh, QuickGELU)


class _Tracer(fx.Tracer):
    """It looks at convolutions and normalisations from outside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether to look no deeper."""
        return isinstance(m, (*CONVOLUTIONS, *NORMS)) or super().is_leaf_module(m, module_qualified_name)


def fold_norms(model: nn.Module) -> int:
    """Put every batch normalisation that follows a convolution into its weights, in float32.

    Two passes less over every feature map: on two cores EfficientNet-b5 goes from 38 to 45 images/s in bfloat16, and
    from 19 to 26 in float32. A network that cannot be traced stays as it is.

    Args:
        model: in evaluation mode, weights in float32.

    Returns:
        How many were folded.
    """
    try:
        nodes = list(_Tracer().trace(model).nodes)
    except Exception as error:  # a forward pass raises anything when it is traced
        logger.info("batch normalisations are not folded: %s", error)
        return 0
    modules = dict(model.named_modules())
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    folded = 0
    for node in nodes:
        if node.op != "call_module" or type(modules[str(node.target)]) not in NORMS:
            continue
        before = node.args[0]
        if not (isinstance(before, fx.Node) and before.op == "call_module" and len(before.users) == 1):
            continue
        conv, norm = modules[str(before.target)], modules[str(node.target)]
        alone = calls[before.target] == calls[node.target] == 1
        if alone and type(conv) in CONVOLUTIONS and norm.running_mean is not None:
            _fold(conv, norm)
            parent, _, name = str(node.target).rpartition(".")
            setattr(model.get_submodule(parent), name, _after(norm))
            folded += 1
    return folded


def _fold(conv: Any, norm: Any) -> None:
    statistics = norm.running_mean, norm.running_var, norm.eps
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
    conv.weight, conv.bias = weight.requires_grad_(False), bias.requires_grad_(False)


def _after(norm: nn.Module) -> nn.Module:
    """Return what timm's fused layer does after it has normalised."""
    if isinstance(norm, BatchNormAct2d):
        steps: list[nn.Module] = [step for step in (norm.drop, norm.act) if not isinstance(step, nn.Identity)]
        return steps[0] if len(steps) == 1 else nn.Sequential(*steps)
    return nn.Identity()


class _Squeeze(SqueezeExcite):
    """timm's squeeze and excitation, faster on a CPU.

    A crop has the same bits wherever in a batch it stands.

    `Tensor.mean` over a map of 16-bit numbers is slow on a CPU, pooling is not. PyTorch's activations take whole
    vectors by one routine and what is left of a tensor by another, which rounds differently: with few channels that is
    most of the last crops. So the channels in the middle are filled up, with zeros that nothing refers to.
    """

    def fill_up(self) -> None:
        """Fill the channels in the middle up to whole vectors."""
        reduce, expand = self.conv_reduce, self.conv_expand
        missing = -reduce.out_channels % VECTORS
        for conv, name, filling in (
            (reduce, "weight", (0, 0, 0, 0, 0, 0, 0, missing)),
            (reduce, "bias", (0, missing)),
            (expand, "weight", (0, 0, 0, 0, 0, missing)),
        ):
            filled = nn.functional.pad(getattr(conv, name), filling)
            setattr(conv, name, nn.Parameter(filled, requires_grad=False))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, height, width), each channel scaled by what the means of all say."""
        means = nn.functional.avg_pool2d(inputs, inputs.shape[2:])
        inner: Any = self
        scaled: Tensor = inputs * inner.gate(inner.conv_expand(inner.act1(inner.conv_reduce(means))))
        return scaled


def pool_squeezes(model: nn.Module) -> None:
    """Take the means of squeeze and excitation by pooling. EfficientNet-b5 goes from 44 to 59 images/s on a CPU."""
    squeezes: list[Any] = [module for module in model.modules() if type(module) is SqueezeExcite]
    for module in squeezes:
        module.__class__ = _Squeeze
        module.fill_up()


def _compute_by(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Let a module compute by another function.

    It is called as `forward(kind, module, *inputs, **options)`, kind being the module's own.

    It becomes a kind of its own kind, and is not put into another module: networks ask their parts for attributes,
    iterate over them and call them with several arguments, and a part must go on answering.
    """
    kind: Any = type(module)
    module.__class__ = _with_forward(kind, forward)


@functools.cache
def _with_forward(kind: Any, forward: Callable[..., Any]) -> Any:
    def run(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        return forward(kind, self, *inputs, **options)

    named = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), {"forward": run, "computed_by": forward, **named})


def _even(kind: Any, module: nn.Module, inputs: Tensor) -> Tensor:
    """Compute an activation so that a crop's bits depend on nothing else.

    Neither its place in the batch counts, nor the number of threads.

    PyTorch cuts a tensor into one part a thread, takes whole vectors of each by one routine and what is left by
    another. With 1, 2, 4 or 8 threads nothing is left; with 3 a part ends inside a crop: then crops go one by one.
    """
    # An exported graph does not run in these threads.
    if torch.compiler.is_compiling() or not inputs.dim() or _in_whole_vectors(inputs):
        activated: Tensor = kind.forward(module, inputs)
        return activated
    outputs = inputs if getattr(module, "inplace", False) else inputs.clone()
    for crop in outputs:
        crop.copy_(kind.forward(module, crop))
    return outputs


def _in_whole_vectors(inputs: Tensor) -> bool:
    """Return whether a tensor, and every part that a thread takes, is whole vectors."""
    total, vector = inputs.numel(), VECTOR_BYTES // inputs.element_size()
    threads = max(min(torch.get_num_threads(), -(-total // LEAST_PART)), 1)
    return total % vector == 0 and -(-total // threads) % vector == 0


def even_activations(model: nn.Module) -> None:
    """Let the activations on a CPU ignore where in a batch a crop stands."""
    for module in model.modules():
        if isinstance(module, ROUNDED):
            _compute_by(module, _even)


def _exact(kind: Any, module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """Compute a module in float32 inside a network of 16 bits."""
    given = [*inputs, *options.values()]
    device = next((value.device.type for value in given if isinstance(value, Tensor)), "cpu")
    with torch.autocast(device, enabled=False):
        return kind.forward(
            module, *map(_float32, inputs), **{name: _float32(value) for name, value in options.items()}
        )


def _float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    return type(value)(map(_float32, value)) if type(value) in (list, tuple) else value


def keep_early_exact(model: nn.Module) -> None:
    """Keep the modules up to timm's first feature level in float32.

    bfloat16's eight bits are no more than the pixels have, and rounding them is what costs most: with these layers in
    float32 the least cosine similarity to float32 features rises from 0.9966 to 0.9987 (EfficientNet-Lite0, ImageNet
    weights, 506 photographs), at no cost in speed for EfficientNet-b5.
    """
    for early in _early_modules(model):
        # A list is never called; its members are.
        for module in early.children() if isinstance(early, nn.ModuleList) else (early,):
            _compute_by(module, _exact)


def cast_weights(model: nn.Module, dtype: torch.dtype, run: Callable[[], NDArray[np.float32]]) -> int:
    """Cast once the weights that autocast casts in every pass.

    Autocast keeps casts only of what is trained: of EfficientNet-b5's 855 operations a pass 388 are casts of weights.
    Features stay as they are, or else the weights do, as where a network leaves autocast by itself.

    Args:
        model: it computes under autocast; what `keep_early_exact` keeps in float32 keeps its weights.
        dtype: of 16 bits.
        run: computes some features.

    Returns:
        How many were cast.
    """
    modules = list(model.modules())
    kept = [module for module in modules if getattr(type(module), "computed_by", None) is _exact]
    exact = {inner for module in kept for inner in module.modules()}
    # Exact types: others, like weight-standardised convolutions, compute with weights before autocast sees them.
    layers = [module for module in modules if type(module) in (*CONVOLUTIONS, nn.Linear) and module not in exact]
    tensors = list({id(tensor): tensor for layer in layers for tensor in layer.parameters(recurse=False)}.values())
    before, expected = [tensor.data for tensor in tensors], run()
    for tensor in tensors:
        tensor.data = tensor.data.to(dtype)
    try:
        same = np.array_equal(run(), expected)
    except RuntimeError as error:  # operands of two types
        logger.info("weights stay in float32: %s", error)
        same = False
    if not same:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data
    return len(tensors) if same else 0


def _early_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Return the modules up to the first feature level, in the network's order.

    There are none if it has no such level.
    """
    levels: Any = getattr(model, "feature_info", None)
    first = levels[0] if isinstance(levels, list) and levels else {}
    last = str(first.get("module", ""))
    if not last or last not in dict(model.named_modules()):
        return
    parent = model
    for step in last.split("."):
        names = list(parent._modules)
        before = [parent._modules[name] for name in names[: names.index(step)]]
        yield from (module for module in before if module is not None)
        parent = parent.get_submodule(step)
    yield parent


def places(maps: Any, dim: int, channels: int) -> tuple[int, ...]:
    """Return the shape of a network's last feature map.

    Batch and channels are left out; it is empty where there is no map.

    Args:
        maps: a map, or several: (B, channels, height, width), (B, height, width, channels) or (B, tokens, channels).
        dim: D, which several maps may share.
        channels: the last map's, where they are not D: some heads have layers of their own.
    """
    tensors = [tensor for tensor in tree_leaves(maps) if isinstance(tensor, Tensor) and tensor.ndim > 1]
    if not tensors:
        return ()
    last = next((tensor for tensor in reversed(tensors) if tensor.ndim == 4), tensors[-1])
    likely = [axis for axis in (1, -1) if sum(tensor.shape[axis] for tensor in tensors) == dim]
    likely += [axis for axis in (1, -1) if last.shape[axis] == channels]
    shape = list(last.shape)
    del shape[(likely or [1 if last.ndim == 4 else -1])[0]]
    return tuple(shape[1:])
