"""Naive NumPy transcriptions of the papers' equations, and small heads to hold beside them."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from hfc.config import TrainConfig, resolve
from hfc.train.heads import Head
from hfc.train.heads.layers import Target
from hfc.train.settings import head_class, takes

Floats = NDArray[np.float64]

# Three levels: 2 > 3 > 5 leaves.
ANCESTORS = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]])
TARGET = Target(ANCESTORS[[1, 3, 2, 4]], torch.tensor([1, 3, 2, 4]))
# Leaves at depths 1, 2 and 3; the labels are three leaves and an inner node.
UNEVEN = torch.tensor([[0, -1, -1], [1, 0, -1], [1, 1, 0], [1, 1, 1], [2, 2, 2]])
BELOW = torch.eye(5, dtype=torch.bool)[[0, 1, 3, 4]]
BELOW[1, 1:4] = True
INNER = Target(torch.tensor([[0, -1, -1], [1, -1, -1], [1, 1, 1], [2, 2, 2]]), torch.tensor([0, -1, 3, 4]), BELOW)
DIM = 6


def build(method: str, ancestors: torch.Tensor = ANCESTORS, **changes: object) -> Head:
    config = resolve(TrainConfig, {"method": method, "reduced": 8, "width": 8, **changes})
    kind = head_class(config)
    torch.manual_seed(0)
    head = kind(DIM, ancestors, **{name: getattr(config, name) for name in takes(kind)})
    generator = torch.Generator().manual_seed(1)
    for name, tensor in head.state_dict().items():
        if tensor.is_floating_point():  # no weight, bias or statistic may hide by being 0 or 1
            value = 0.3 * torch.randn(tensor.shape, generator=generator)
            tensor.data.copy_(value.abs() + 0.5 if "var" in name or "std" in name else value)
    return head.double().eval()


def features() -> torch.Tensor:
    return torch.randn(4, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def softmax(z: Floats) -> Floats:
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


class Naive:
    """The equations, one row at a time; dropout is the identity in evaluation."""

    def __init__(self, head: Head) -> None:
        self.w: Mapping[str, Floats] = {k: v.numpy() for k, v in head.state_dict().items()}

    def standardise(self, row: Floats) -> Floats:
        return (row - self.w["standardise.mean"]) / self.w["standardise.std"]

    def linear(self, name: str, z: Floats) -> Floats:
        return (
            np.array([self.w[f"{name}.weight"][i] @ z for i in range(len(self.w[f"{name}.bias"]))])
            + (self.w[f"{name}.bias"])
        )

    def block(self, name: str, z: Floats, residual: Floats | None) -> Floats:
        hidden = np.maximum(self.linear(f"{name}.linear", z), 0)
        normal = (hidden - self.w[f"{name}.norm.running_mean"]) / np.sqrt(self.w[f"{name}.norm.running_var"] + 1e-5)
        out = normal * self.w[f"{name}.norm.weight"] + self.w[f"{name}.norm.bias"]
        return out if residual is None or len(residual) != len(out) else out + residual

    def flows(self, x: Floats, levels: int, residual: bool) -> tuple[list[Floats], Floats]:
        """A_G^h from [A_G^{h-1}; x], A_L^h from A_G^h; residuals stay inside their flow."""
        local: list[Floats] = []
        states: list[Floats] = []
        branches: list[Floats] = []
        for h in range(levels):
            inputs = np.concatenate([states[-1], x]) if states else x
            states.append(self.block(f"flows.global_flow.{h}", inputs, states[-1] if states and residual else None))
            branches.append(
                self.block(f"flows.local_flow.{h}", states[-1], branches[-1] if branches and residual else None)
            )
            local.append(self.linear(f"flows.local_out.{h}", branches[-1]))
        return local, states[-1]


def bce(p: Floats, y: Floats) -> float:
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def reduced(naive: Naive) -> list[Floats]:
    return [naive.block("reduce", naive.standardise(row), None) for row in features().numpy()]
