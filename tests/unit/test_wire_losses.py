"""Losses out of passport data and the tolerance of a balance, against figures worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from wire.losses import Chain, LineLoss, Losses, Member, TransformerLoss, element_losses, loss_id, tolerance_wh

T = TransformerLoss("T1", 600, 3200, 250_000)


def test_a_transformer_under_voltage_loses_its_no_load_losses() -> None:
    found = element_losses(T, 0, 900)
    assert found.wh == 150  # 600 W for a quarter of an hour
    assert found.slack_wh == Fraction(225, 10)


def test_losses_under_load_go_with_the_square() -> None:
    # 250 kVA at cos phi 0.95 for a quarter of an hour: 59,375 Wh
    full = element_losses(T, 59_375, 900).wh - 150
    assert full == 800  # 3200 W for a quarter of an hour
    assert element_losses(T, 59_375 // 5, 900).wh - 150 == 32
    assert element_losses(T, -59_375, 900).wh - 150 == full  # the way does not matter


def test_a_line_loses_three_i_square_r() -> None:
    # 10 kV, 0.5 ohm, 100 A per phase: 3 · 100² · 0.5 = 15 kW. S = sqrt(3)·10 kV·100 A = 1,732,050.8 VA
    line = LineLoss("L", 500_000, 10_000)
    energy = round(1_732_050.8 * 0.95)  # over an hour
    assert round(element_losses(line, energy, 3600).wh) == 15_000


def test_the_identity_changes_with_every_figure_and_not_with_the_order() -> None:
    other = LineLoss("L", 500_000, 10_000)
    assert loss_id([T, other]) == loss_id([other, T])
    assert loss_id([T]) != loss_id([TransformerLoss("T1", 601, 3200, 250_000)])
    assert loss_id([]) != loss_id([T])
    assert len(loss_id([T])) == 16


RATED = 1_000_000
"""W; an hour at full load is RATED * 0.95 Wh with cos phi."""


def energy(load_percent: float) -> int:
    return round(RATED * 0.95 * load_percent / 100)


@pytest.mark.parametrize(
    ("ct", "load", "limit_ppm"),
    [
        ("0.5S", 120, 5_000),
        ("0.5S", 20.1, 5_000),
        ("0.5S", 19, 7_500),
        ("0.5S", 5.1, 7_500),
        ("0.5S", 4, 15_000),
        ("0.5S", 0.5, 30_000),
        ("0.2S", 100, 2_000),
        ("0.2S", 4, 7_500),
        ("0.5", 100, 5_000),
        ("0.5", 50, 7_500),
        ("0.5", 6, 15_000),
        ("0.5", 1, 75_000),
        ("1", 6, 30_000),
        ("0,5s", 100, 5_000),
        (None, 100, 10_000),
        ("nonsense", 100, 10_000),
    ],
)
def test_the_limit_is_that_of_the_class_at_the_load(ct: str | None, load: float, limit_ppm: int) -> None:
    chain = Chain(meter="0.2S", ct=ct, has_ct=True, rated_w=RATED)
    meter = 2_000 if load >= 5 else 4_000 if load >= 1 else round(4_000 * 1 / load)
    expected = 1.1 * (limit_ppm**2 + meter**2) ** 0.5
    assert chain.error_ppm(energy(load), 3600) == pytest.approx(expected, rel=0.01)


def test_curtailment_makes_the_error_of_a_large_transformer_large() -> None:
    chain = Chain(meter="0.5S", ct="0.5S", has_ct=True, vt="0.5", has_vt=True, rated_w=RATED)
    assert chain.error_ppm(energy(0.2), 3600) > 8 * chain.error_ppm(energy(50), 3600)


def test_a_load_or_class_that_is_not_known_is_taken_wide() -> None:
    known = Chain(meter="0.5S", ct="0.5S", has_ct=True, rated_w=RATED)
    unknown = Chain(meter="0.5S", ct="0.5S", has_ct=True)
    assert unknown.error_ppm(energy(100), 3600) > known.error_ppm(energy(100), 3600)
    assert Chain().error_ppm(1000, 900) > Chain(meter="1").error_ppm(1000, 900)
    assert Chain(meter="B").error_ppm(1000, 900) == Chain(meter="1").error_ppm(1000, 900)


def test_errors_add_in_squares_and_everything_else_plainly() -> None:
    members = [Member(300_000, 10_000), Member(400_000, 10_000, Fraction(10), Fraction(7))]
    alone = tolerance_wh(members, Losses())
    assert alone == 5_000 + 1 + 17  # sqrt(3000² + 4000²), rounded up by one step
    assert tolerance_wh(members, Losses(Fraction(9_000), Fraction(123))) == alone + 123


def test_a_balance_of_nothing_has_next_to_no_tolerance() -> None:
    assert tolerance_wh([Member(0, 10**6), Member(0, 10**6)], Losses()) <= 1
