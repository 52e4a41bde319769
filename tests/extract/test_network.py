"""A network made faster computes the same, to the bit wherever that is promised."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import timm
import timm.data
import torch
from timm.models.efficientnet import SqueezeExcite
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hfc.extract.encoder import Encoder
from hfc.extract.network import ROUNDED, cast_weights, even_activations, fold_norms, keep_early_exact, pool_squeezes
from tests.support.backbones import crops, load, wheel_lite

VIT = "vit_tiny_patch16_224"  # has no batch normalisation


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_squeezing_networks_give_the_same_bits_too(precision: str) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)

    def network(batch_size: int) -> Encoder:
        return wheel_lite(
            precision, backbone="tf_efficientnet_b0", weights="random", image_size=64, batch_size=batch_size
        )

    encoder = network(8)
    whole = encoder.encode(crops)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(encoder.encode(crops[order]), whole[order])
    for size in (1, 16, 24):
        np.testing.assert_array_equal(network(size).encode(crops), whole)


def test_a_squeeze_gives_a_crop_the_same_bits_wherever_it_stands() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(SqueezeExcite(48, rd_channels=6, act_layer=torch.nn.SiLU)).eval()
    pool_squeezes(network)
    with torch.inference_mode():
        for _ in range(200):
            maps = 20 * torch.randn(8, 48, 1, 1).to(memory_format=torch.channels_last)
            np.testing.assert_array_equal(network(maps.roll(4, 0)), network(maps).roll(4, 0))


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


SLOW_B5 = pytest.param("tf_efficientnet_b5", marks=pytest.mark.slow)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ["tf_efficientnet_b0", SLOW_B5])
def test_with_any_number_of_threads_a_crop_has_the_same_bits_in_any_company(
    backbone: str, precision: str, set_threads: Callable[[int], None]
) -> None:
    # Each number of threads by itself: between them the last bits may differ, as sums are taken in other orders.
    rng = np.random.default_rng(0)
    crops, others = rng.integers(0, 256, (2, 16, 64, 64, 3)).astype(np.uint8)
    encoder = wheel_lite(precision, backbone=backbone, weights="random", image_size=64)
    for threads in (1, 2, 3, 4):
        set_threads(threads)
        whole = encoder.encode(crops)
        for shift in (1, 3):
            np.testing.assert_array_equal(encoder.encode(np.roll(crops, shift, axis=0)), np.roll(whole, shift, axis=0))
        for place in (0, 7):
            np.testing.assert_array_equal(encoder.encode(crops[place : place + 1])[0], whole[place])
            company = others.copy()
            company[(place + 4) % 8] = crops[place]
            np.testing.assert_array_equal(encoder.encode(company)[(place + 4) % 8], whole[place])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3])
def test_a_compiled_network_gives_a_crop_the_same_bits_in_any_company(
    threads: int, set_threads: Callable[[int], None]
) -> None:
    set_threads(threads)  # compiled code keeps the number that it was compiled under
    crops = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3)).astype(np.uint8)
    encoder = wheel_lite("bf16", backbone="tf_efficientnet_b0", weights="random", image_size=64, compile=True)
    whole = encoder.encode(crops)
    for shift in (1, 3, 7):
        np.testing.assert_array_equal(encoder.encode(np.roll(crops, shift, axis=0)), np.roll(whole, shift, axis=0))
    np.testing.assert_array_equal(encoder.encode(crops[5:6])[0], whole[5])


@pytest.mark.parametrize("kind", ROUNDED)
def test_an_activation_gives_a_crop_the_same_bits_in_any_part_of_a_thread(
    kind: type[torch.nn.Module], set_threads: Callable[[int], None]
) -> None:
    torch.manual_seed(0)
    plain = kind()
    network = torch.nn.Sequential(kind())
    even_activations(network)
    for threads in (1, 2, 3):
        set_threads(threads)
        for _ in range(4):
            maps = 3 * torch.randn(8, 40, 47, 31).to(memory_format=torch.channels_last)
            before = maps.clone()
            found = network(maps)
            np.testing.assert_array_equal(network(maps.roll(3, 0)), found.roll(3, 0))
            np.testing.assert_array_equal(maps, before)
            np.testing.assert_allclose(found, plain(maps), rtol=1e-5, atol=1e-6)
            assert found.is_contiguous(memory_format=torch.channels_last)


def test_an_activation_in_place_stays_in_place(set_threads: Callable[[int], None]) -> None:
    set_threads(3)
    maps = torch.randn(8, 40, 47, 31).to(memory_format=torch.channels_last)
    want = torch.nn.functional.silu(maps)
    network = torch.nn.Sequential(torch.nn.SiLU(inplace=True))
    even_activations(network)
    assert network(maps) is maps
    np.testing.assert_allclose(maps, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backbone", ["tf_efficientnet_b0", "mobilenetv3_small_100", "resnet18", VIT])
def test_a_network_made_faster_computes_what_timm_computes(backbone: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(backbone, num_classes=0).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training: none of them the identity
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.1)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        want = model(pixels).numpy()
        folded = fold_norms(model)
        pool_squeezes(model)
        even_activations(model)
        got = model(pixels).numpy()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not norms
    assert (folded > 15) == (backbone != VIT)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_a_convolution_whose_output_goes_elsewhere_too_keeps_its_norm() -> None:
    class Forked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            between = self.conv(inputs)
            return between + self.norm(between)  # type: ignore[no-any-return]

    assert fold_norms(Forked().eval()) == 0


class Part(torch.nn.Module):
    """A part that a network asks for more than its output."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)
        self.act = torch.nn.SiLU()

    def forward(
        self, inputs: torch.Tensor, *others: torch.Tensor, mask: list[torch.Tensor] | None = None, shape: object = None
    ) -> tuple[torch.Tensor, object]:
        total = self.act(self.conv(inputs)) + sum(others) + sum(mask or [])
        return total, shape

    def embed(self) -> int:
        return self.width


class Asking(torch.nn.Module):
    """A network that calls, asks and iterates over its parts in all the ways that timm's do."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = [{"module": "blocks.1", "num_chs": 4}]
        self.nothing = None
        self.stem = Part()
        self.blocks = torch.nn.ModuleList([torch.nn.ModuleList([Part()]), Part(), Part()])

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        stem, shape = self.stem(inputs, torch.ones(1), mask=[torch.ones(1)], shape=inputs.shape[2:])
        assert (shape, self.stem.embed(), self.stem.width, self.stem.act.inplace) == (inputs.shape[2:], 4, 4, False)
        return [stem, *(block(inputs)[0] for block in [*self.blocks[0], *self.blocks[1:]])]


@torch.inference_mode()
def test_parts_kept_exact_go_on_answering() -> None:
    network, inputs = Asking().eval(), torch.randn(2, 3, 5, 5)
    want = network(inputs)
    before = {name: type(module) for name, module in network.named_modules()}
    keep_early_exact(network)
    even_activations(network)
    assert all(isinstance(module, before[name]) for name, module in network.named_modules())
    with torch.autocast("cpu", torch.bfloat16):
        got = network(inputs)
    assert [outputs.dtype for outputs in got] == [torch.float32] * 3 + [torch.bfloat16]
    for exact, outputs in zip(want[:3], got[:3], strict=True):
        torch.testing.assert_close(outputs, exact)
    torch.testing.assert_close(got[3].float(), want[3], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("levels", [None, [], [{"num_chs": 3}], [{"module": ""}], [{"module": "missing"}]])
def test_a_network_whose_first_level_is_unknown_is_left_alone(levels: object) -> None:
    network = Asking().eval()
    network.feature_info = levels  # type: ignore[assignment]
    before = [type(module) for module in network.modules()]
    keep_early_exact(network)
    assert [type(module) for module in network.modules()] == before


@pytest.mark.parametrize("kind", ["byobnet", "convnext", "efficientnet", "mambaout", "nfnet", "resnet", "vit", "vit3"])
def test_weights_that_are_cast_once_give_the_same_bits(kind: str) -> None:
    encoder = load(f"test_{kind}", "random", precision="bf16", image_size=160)
    pixels = crops(2, 160)
    want, names = encoder.encode(pixels), {name: p.dtype for name, p in encoder.model.named_parameters()}
    cast = cast_weights(encoder.model, torch.bfloat16, lambda: encoder.encode(pixels))
    assert cast == sum(p.dtype != names[name] for name, p in encoder.model.named_parameters()) > 0
    np.testing.assert_array_equal(encoder.encode(pixels), want)


def test_layers_that_stay_exact_keep_their_weights() -> None:
    encoder = wheel_lite("bf16")
    cast_weights(encoder.model, torch.bfloat16, lambda: encoder.encode(crops(1, 224)))
    types = {name: parameter.dtype for name, parameter in encoder.model.named_parameters()}
    early = {name for name in types if name.startswith(("conv_stem", "bn1", "blocks.0"))}
    assert early
    assert {types[name] for name in early} == {torch.float32}
    assert {types[name] for name in types.keys() - early} == {torch.bfloat16}


class Launches(TorchDispatchMode):
    """Counts what a device would be asked for, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    ("backbone", "weights"),
    [("tf_efficientnet_lite0", 98), pytest.param("tf_efficientnet_b5", 388, marks=pytest.mark.slow)],
)
def test_a_pass_casts_no_weights(backbone: str, weights: int) -> None:
    with FakeTensorMode():
        model = timm.create_model(backbone, num_classes=0).eval().requires_grad_(False)
        fold_norms(model)  # as stage 1 does: every convolution has a bias then
        batch = torch.zeros(2, 3, 64, 64)

        def casts() -> int:
            with Launches() as launches, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                model(batch)
            return launches.counts["to"]

        before = casts()
        cast = cast_weights(model, torch.bfloat16, lambda: np.zeros(1, np.float32))
        after = casts()
    assert (before, cast, after) == (cast + after, weights, after)
    assert after < 10


def test_a_network_that_leaves_autocast_by_itself_keeps_its_weights() -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", enabled=False):
                return self.second(self.first(batch))  # type: ignore[no-any-return]

    network = Network().requires_grad_(False)

    def run() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        with torch.autocast("cpu", torch.bfloat16):
            return network(torch.ones(2, 4)).numpy()

    want = run()
    assert cast_weights(network, torch.bfloat16, run) == 0
    np.testing.assert_array_equal(run(), want)
