"""The device that a stage runs on. Torch is loaded when it is asked for, not before."""

from typing import TYPE_CHECKING

from hfc.errors import ConfigError

if TYPE_CHECKING:
    import torch


def choose_device(device: str) -> "torch.device":
    """The device by its name; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: no such device on this machine.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    return chosen
