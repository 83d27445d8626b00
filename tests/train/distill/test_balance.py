"""Gradient shares: measured as they are, held to a target, and reported when they are out of proportion."""

import pytest
import torch

from edgekd.train.distill.balance import GradientBalance, TermRow, overshoot, rows_to_csv


def _losses(maps, strength):
    """A detection loss with a gradient of norm 2 and terms with norms 2 x strength."""
    detection = maps[0].sum()  # four ones: norm 2
    return detection, {name: factor * maps[0].sum() for name, factor in strength.items()}


def _maps():
    return [torch.zeros(1, 1, 2, 2, requires_grad=True)]


def test_shares_without_a_target_are_those_of_the_lambdas():
    balance = GradientBalance({"feature": 0.5}, target_share=0.0)
    maps = _maps()
    balance.observe(*_losses(maps, {"feature": 6.0}), maps)
    detection, feature = balance.close_epoch(1)
    assert detection.gradient_norm == pytest.approx(2.0) and feature.gradient_norm == pytest.approx(12.0)
    assert feature.share == pytest.approx(6 / 8) and feature.weight == 0.5
    assert balance.weights == {"feature": 0.5}


@pytest.mark.parametrize("strength", [1e-5, 1.0, 1e4])
def test_target_share_is_met_whatever_the_size_of_the_loss(strength):
    balance = GradientBalance({"a": 1.0, "b": 3.0}, target_share=0.2)
    maps = _maps()
    balance.observe(*_losses(maps, {"a": strength, "b": 7 * strength}), maps)
    shares = {row.term: row.share for row in balance.close_epoch(1)}
    assert shares == pytest.approx({"detection": 0.8, "a": 0.05, "b": 0.15})


def test_weights_follow_slowly_after_the_first_measurement():
    balance = GradientBalance({"a": 1.0}, target_share=0.5)
    maps = _maps()
    balance.observe(*_losses(maps, {"a": 1.0}), maps)
    balance.close_epoch(1)
    assert balance.weights["a"] == pytest.approx(1.0)
    balance.observe(*_losses(maps, {"a": 0.01}), maps)
    balance.close_epoch(2)
    assert balance.weights["a"] == pytest.approx(2.0)


def test_measurements_are_rare_and_restart_every_epoch():
    balance = GradientBalance({"a": 1.0}, 0.1, every=4)
    maps = _maps()
    for batch in range(9):
        balance.observe(*_losses(maps, {"a": float(batch % 4 == 0)}), maps)  # zeros would raise nothing but a low mean
    assert balance.close_epoch(1)[1].gradient_norm == pytest.approx(2.0)
    assert balance.close_epoch(2) == []


def test_a_term_without_gradient_keeps_its_weight_and_is_called_out():
    balance = GradientBalance({"a": 1.0}, 0.1)
    maps = _maps()
    balance.observe(maps[0].sum(), {"a": torch.zeros((), requires_grad=True) * 1.0}, maps)
    rows = balance.close_epoch(1)
    assert rows[1].share == 0.0 and balance.weights["a"] == 1.0
    assert "teaches nothing" in rows[1].warning()


def test_a_drowning_term_is_called_out_and_detection_never():
    assert "drowns the labels" in TermRow(1, "a", 1.0, 1.0, 1.0, 0.6).warning()
    assert TermRow(1, "a", 1.0, 1.0, 1.0, 0.3).warning() is None
    assert TermRow(1, "detection", 1.0, 1.0, 1.0, 0.9).warning() is None


def test_state_survives():
    balance = GradientBalance({"a": 1.0}, 0.1)
    maps = _maps()
    balance.observe(*_losses(maps, {"a": 3.0}), maps)
    other = GradientBalance({"a": 1.0}, 0.1)
    other.load_state(balance.state())
    assert other.weights == balance.weights and other.is_calibrated


def test_rows_as_csv():
    text = rows_to_csv([TermRow(1, "a", 0.5, 2.0, 0.25, 0.125)], header=True)
    assert text == "epoch,term,value,weight,gradient_norm,share\n1,a,0.5,2,0.25,0.125\n"


def test_the_share_moves_in_equal_steps_to_its_final_value() -> None:
    balance = GradientBalance({"a": 1.0}, 0.6, final_share=0.2, n_epochs=5)
    assert [round(balance.share_of(epoch), 6) for epoch in (1, 2, 3, 4, 5, 6)] == [0.6, 0.5, 0.4, 0.3, 0.2, 0.2]
    constant = GradientBalance({"a": 1.0}, 0.3, n_epochs=5)
    assert {constant.share_of(epoch) for epoch in range(1, 6)} == {0.3}


def test_a_share_that_ran_away_is_said():
    def rows(share: float) -> list[TermRow]:
        return [TermRow(2, "detection", 1.0, 1.0, 1.0, 1 - share), TermRow(2, "explicit", 1.0, 1.0, 1.0, share)]

    assert overshoot(rows(0.19), 0.1) is None and overshoot(rows(0.9), 0.0) is None
    assert "had 38% of the gradient and was to have 10%" in str(overshoot(rows(0.38), 0.1))
