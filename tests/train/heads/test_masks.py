"""Masks drawn all at once, as on a GPU: by each run's own seed, and one draw a step."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hfc.train.cache import Cache
from hfc.train.fit import fit
from hfc.train.heads import masks
from hfc.train.heads.layers import Block, Dropout, own_seed
from hfc.train.prepared import prepare_run
from tests.support.training import quick

CPU = torch.device("cpu")


def test_each_run_has_the_masks_of_its_own_seed() -> None:
    dropouts = [(Dropout(0.3), 50), (Dropout(0.3), 7), (Dropout(0.3), 50)]
    together = masks.draw(dropouts, 40, [5, 6, 5], CPU)
    assert [(mask.shape, mask.dtype) for mask in together] == [((3, 40, width), torch.int16) for _, width in dropouts]
    alone = masks.draw(dropouts, 40, [6], CPU)
    for mask, own in zip(together, alone, strict=True):
        assert torch.equal(mask[1], own[0])
        assert torch.equal(mask[0], mask[2])
        assert not torch.equal(mask[0], mask[1])
        assert {*mask.unique().tolist()} == {0, -1}
    assert not torch.equal(together[0], together[2])


def test_a_number_is_kept_as_often_as_asked() -> None:
    (mask,) = masks.draw([(Dropout(0.7), 1000)], 1000, [1], CPU)
    assert (mask != 0).float().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 1e6))


def test_a_dropout_takes_the_mask_that_it_was_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "at_once", lambda device: True)
    head = nn.ModuleList([Block(4, 8, 0.5), Block(8, 6, 0.5), Block(6, 6, 0.0)])
    dropouts = masks.dropouts_of(head)
    assert [width for _, width in dropouts] == [8, 6]
    torch.manual_seed(3)
    masks.hand_out(dropouts, 20, CPU)
    torch.manual_seed(3)
    wanted = masks.draw(dropouts, 20, [own_seed()], CPU)
    for (dropout, width), (mask,) in zip(dropouts, wanted, strict=True):
        inputs = torch.randn(20, width)
        for kind in (torch.float32, torch.bfloat16):
            dropout.given = mask
            expected = torch.where(mask == 0, 0, inputs.to(kind) * dropout.scale)
            torch.testing.assert_close(dropout(inputs.to(kind)), expected)
            assert dropout.given is None
        assert not torch.equal(dropout(inputs) != 0, mask != 0)  # its own


def test_on_a_cpu_each_dropout_draws_its_own() -> None:
    dropout = Dropout(0.5)
    masks.hand_out([(dropout, 8)], 20, CPU)
    assert dropout.given is None
    assert masks.at_once(torch.device("cuda", 0))
    assert not masks.at_once(CPU)


@pytest.mark.parametrize("changes", [{"method": "hmcn-f"}, {"method": "levels", "members": 2}], ids=str)
def test_a_step_draws_once(changes: dict[str, Any], place: Any, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[int] = []
    draw = masks.draw

    def note(dropouts: Sequence[tuple[Dropout, int]], batch: int, *rest: Any) -> list[Tensor]:
        draws.append(batch)
        return draw(dropouts, batch, *rest)

    def refuse(*_: object) -> Tensor:
        raise AssertionError("drawn by itself")

    monkeypatch.setattr(masks, "at_once", lambda device: True)
    monkeypatch.setattr(masks, "draw", note)
    monkeypatch.setattr(Dropout, "draw", refuse)
    run = prepare_run(cache, quick(place, epochs=2, batch_size=100, **changes))
    fit(cache.features, run.data, run.config)
    last = len(run.data.rows["train"]) % 100
    assert draws == [100, 100, last] * 2
