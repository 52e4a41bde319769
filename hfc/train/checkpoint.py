"""A file keeps how far a training got. A killed run goes on from it and ends in the same bits."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Checkpoint:
    """Where a training that may be killed keeps how far it got."""

    path: Path
    key: str
    """Of the run: a checkpoint of another one is not taken up."""
    seconds: float
    """Time between two checkpoints at least."""

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Read the state that was saved of this run; None where no whole one is there."""
        try:
            state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
            return state if state["key"] == self.key else None
        except Exception:  # whatever is wrong with it, the training begins anew
            return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state, atomically."""
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            torch.save({"key": self.key, **state}, partial)
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
