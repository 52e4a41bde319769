"""Adam by the kernel of `torch.optim.Adam`, without what stands around that; and its learning rate.

The first optimiser that PyTorch makes in a process loads its compiler and sympy, some 900 modules: more than a second,
where a small training takes two or three.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hfc.config import TrainConfig

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Kingma & Ba 2015, and of torch.optim.Adam


class Adam:
    """The state of Adam for some parameters."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        """Begin at the first step. Like every fused one it takes parameters on a CPU or on CUDA."""
        self.parameters = parameters
        self.mean = [torch.zeros_like(parameter) for parameter in parameters]
        self.square = [torch.zeros_like(parameter) for parameter in parameters]
        self.counts = torch.zeros(len(parameters), device=parameters[0].device if parameters else None)
        self.steps = list(self.counts.unbind())

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take a step at a learning rate; a parameter without a gradient stays where it is."""
        moved = [number for number, parameter in enumerate(self.parameters) if parameter.grad is not None]
        if len(moved) == len(self.parameters):
            self.counts += 1
        else:
            self.counts[moved] += 1
        # Without its wrapper in torch.optim, which counts each parameter's steps by an addition of its own.
        torch._fused_adam_(
            [self.parameters[number] for number in moved],
            [gradient for parameter in self.parameters if (gradient := parameter.grad) is not None],
            [self.mean[number] for number in moved],
            [self.square[number] for number in moved],
            [],
            [self.steps[number] for number in moved],
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """What the next step depends on beside parameters and gradients; the tensors themselves."""
        return {"mean": self.mean, "square": self.square, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Take over the numbers of another's `state_dict`.

        Raises:
            ValueError: it is of more or fewer parameters.
        """
        for name, own in self.state_dict().items():
            for tensor, saved in zip(own, state[name], strict=True):
                tensor.copy_(saved)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Give the learning rate of an epoch, counted from 1: half a cosine towards 0, or constant."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / config.epochs))
