"""The figures of what 4 bits cost, worked out by hand on two tokens."""

from __future__ import annotations

import math

import pytest

pytestmark = pytest.mark.engine


def test_perplexity_divergence_and_agreement_are_those_of_their_definitions() -> None:
    import torch

    from deploytk.quantize.measuring import _Sums

    sums = _Sums()
    # Before 1/2 and 1/2, after 3/4 and 1/4; the first token follows. The last row of a window has no next token.
    sums.add(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([[math.log(3), 0.0], [0.0, 9.0]]), [0])
    # Before all on the first token, the other one rounded to -inf; after 1/4 and 3/4; the first token follows.
    sums.add(torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.0, math.log(3)]]), [0])

    found = sums.figures()

    assert found["perplexity_before"] == pytest.approx(math.sqrt(2))  # exp((ln 2 + ln 1) / 2)
    assert found["perplexity_after"] == pytest.approx(math.sqrt(16 / 3))  # exp((ln 4/3 + ln 4) / 2)
    # 1/2 ln (2/3) + 1/2 ln 2 = 0.14384, and ln 4 = 1.38629: 0.76507 on the mean
    assert found["kl_mean"] == pytest.approx(0.76507, abs=1e-5)
    assert found["top1_agreement"] == 0.5


def test_a_loss_that_no_number_holds_is_infinite() -> None:
    import torch

    from deploytk.quantize.measuring import _Sums

    sums = _Sums()
    sums.add(torch.tensor([[0.0, 0.0]]), torch.tensor([[-1e4, 0.0]]), [0])

    assert sums.figures()["perplexity_after"] == math.inf
