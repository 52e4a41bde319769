"""Adam's steps against PyTorch's own, and what they do not load."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hfc.config import TrainConfig, resolve
from hfc.train.adam import Adam, learning_rate

SHAPES = ((7, 5), (7,), (1,), (33, 3))


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(own: list[nn.Parameter], step: int) -> None:
    """Gradients of a step; the last parameter has none in the second."""
    generator = torch.Generator().manual_seed(step)
    for parameter in own:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    if step == 1:
        own[-1].grad = None


def test_steps_have_the_bits_of_pytorchs_fused_adam() -> None:
    parts, others = parameters(), parameters()
    own, other = Adam(parts), torch.optim.Adam(others, fused=True)
    for step, rate in enumerate((0.1, 0.03, 0.5, 0.001)):
        for tensors in (parts, others):
            give_gradients(tensors, step)
        other.param_groups[0]["lr"] = rate
        own.step(rate)
        other.step()
        assert all(torch.equal(a, b) for a, b in zip(parts, others, strict=True)), step
    assert [steps.item() for steps in own.steps] == [4, 4, 4, 3]


def test_a_state_that_was_kept_goes_on_in_the_same_bits() -> None:
    whole, half = parameters(), parameters()
    one, first = Adam(whole), Adam(half)
    for step in (0, 1):
        for parts, adam in ((whole, one), (half, first)):
            give_gradients(parts, step)
            adam.step(0.1)
    second = Adam(half)
    second.load_state_dict(first.state_dict())
    for parts, adam in ((whole, one), (half, second)):
        give_gradients(parts, 2)
        adam.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(whole, half, strict=True))


def test_a_state_of_other_parameters_is_refused() -> None:
    adam = Adam(parameters())
    with pytest.raises(ValueError, match="zip"):
        adam.load_state_dict(Adam(parameters()[:-1]).state_dict())


def test_the_learning_rate_follows_half_a_cosine() -> None:
    config = resolve(TrainConfig, {"learning_rate": 2.0, "epochs": 4})
    assert [learning_rate(config, epoch) for epoch in (1, 2, 3, 4)] == pytest.approx(
        [2.0, 1 + np.cos(np.pi / 4), 1.0, 1 - np.cos(np.pi / 4)]
    )


@pytest.mark.slow
def test_training_loads_no_compiler(place: Path, tmp_path: Path) -> None:
    """Neither sympy: together they take longer than a small training."""
    code = f"""
import sys
from pathlib import Path
from hfc.config import TrainConfig, resolve
from hfc.train.stage import train_all
fixed = {{"hierarchy": {str(place / "tree.csv")!r}, "epochs": 2}}
configs = [resolve(TrainConfig, fixed, {{"method": method}}) for method in ("flat", "linear", "hmcn-f+mtl")]
assert len(list(train_all(Path({str(place / "cache.h5")!r}), configs, Path({str(tmp_path)!r})))) == 3
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
