"""Surprise by hand: misses in shares of what was foreseen, and motion that lags behind."""

import math

import pytest
import torch

from jepa_mpc.world_model.model.surprise import Lag, Miss, UsualMiss, surprise


def row(**entries):
    """An embedding (1, 10), zero but for some entries."""
    z = torch.zeros(1, 10)
    for name, value in entries.items():
        z[0, int(name[1:])] = value
    return z


def test_a_miss_is_what_came_against_what_was_foreseen():
    miss = Miss.of(row(x0=5.0), row(x0=4.0, x1=1.0), row(x0=1.0), row(x0=-1.0))
    torch.testing.assert_close(miss.missed, row(x0=1.0, x1=-1.0))
    torch.testing.assert_close(miss.moved, row(x0=3.0, x1=1.0))
    torch.testing.assert_close(miss.changed, row(x0=1.0, x1=1.0))  # it moved by 2 before


def test_a_share_is_of_the_foreseen_motion_plus_the_median():
    missed, moved = torch.zeros(2, 10), torch.zeros(2, 10)
    missed[0, 5], missed[1, 9], moved[1, 2] = 6.0, -3.0, 4.0
    miss = Miss(missed, moved, moved)
    torch.testing.assert_close(miss.share(2.0), torch.tensor([6.0 / 2, 3.0 / (2 + 4)]))
    assert Miss(missed * 0, moved * 0, moved).share(0.0).tolist() == [0.0, 0.0]  # of a model that is never wrong


def test_lag_is_the_share_of_foreseen_changes_that_has_not_come():
    lag, absent, foreseen = Lag.none(torch.zeros(1, 10)), 0.0, 0.0
    assert lag.value.tolist() == [0.0]
    for change, part, moved in ((4.0, 0.75, 3.0), (-2.0, 0.5, 0.0), (0.0, 1.0, 5.0), (3.0, 1.5, 1.0)):
        miss = Miss(row(x3=(part - 1) * change, x4=7.0), row(x5=moved), row(x3=change))  # what lies across is no lag
        lag = lag.after(miss, 2.0)
        weight = 1 / (moved**2 + 2.0**2)
        absent = 0.9 * absent + weight * (1 - part) * change**2
        foreseen = 0.9 * foreseen + weight * change**2
        torch.testing.assert_close(lag.value, torch.tensor([absent / (foreseen + 1)]))


def test_a_lag_is_not_lost_to_a_picture_that_is_no_number():
    lag = Lag.none(torch.zeros(2, 10)).after(Miss(-torch.ones(2, 10), torch.zeros(2, 10), torch.ones(2, 10)), 1.0)
    missed = torch.zeros(2, 10)
    missed[1, 0] = math.nan
    after = lag.after(Miss(missed, torch.zeros(2, 10), torch.zeros(2, 10)), 1.0)
    assert after.value[1] == lag.value[1] > 0
    assert after.value[0] < lag.value[0]


def test_surprise_is_the_greater_of_both_in_units_of_the_usual():
    missed, moved = torch.zeros(2, 10), torch.zeros(2, 10)
    missed[0, 5], missed[1, 9], moved[1, 2] = 6.0, -3.0, 4.0
    miss, lag = Miss(missed, moved, moved), Lag(torch.tensor([1.0, 12.0]), torch.tensor([1.0, 5.0]))
    share = torch.tensor([3.0, 0.5])
    old = UsualMiss(2.0, (0.5, 0.25, 0.1))
    for num_frames, usual in ((1, 0.5), (2, 0.25), (3, 0.1), (4, 0.1)):  # of more frames than are known, the most
        torch.testing.assert_close(surprise(old, miss, lag, num_frames), share / usual)
    found = surprise(UsualMiss(2.0, (0.5,), 0.25), miss, lag, 1)
    torch.testing.assert_close(found, torch.tensor([3.0 / 0.5, (12 / 6) / 0.25]))


def test_who_does_not_know_what_is_usual_is_not_surprised():
    miss = Miss(*torch.randn(3, 4, 10))
    assert surprise(None, miss, Lag.none(miss.missed), 1).isnan().all()


@pytest.mark.parametrize("load", [0.8, 1.0, 1.25])
def test_a_world_that_answers_less_lags_and_one_that_answers_more_leads(load):
    """A point is pushed to and fro; under a load it gains less speed than is foreseen."""
    generator = torch.Generator().manual_seed(0)
    lag, z, before = Lag.none(torch.zeros(1, 2)), torch.zeros(1, 2), torch.zeros(1, 2)
    for _ in range(60):
        push = torch.randn(1, 2, generator=generator)
        foreseen, came = z + 0.5 * (z - before) + push, z + 0.5 * (z - before) + push / load
        lag = lag.after(Miss.of(came + 0.05 * torch.randn(1, 2, generator=generator), foreseen, z, before), 0.5)
        before, z = z, came
    assert abs(lag.value.item() - (1 - 1 / load)) < 0.14  # that nothing lags is believed a little beforehand
