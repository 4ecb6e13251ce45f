"""When an episode counts as a success, by each protocol."""

from dataclasses import replace

import numpy as np
import pytest
from line import LINE

from jepa_mpc.eval.protocols import PROTOCOLS, Protocol, first_kept


@pytest.mark.parametrize(
    ("within", "steps", "expected"),
    [
        ([0, 1, 0, 1, 1, 1], 1, 2),
        ([0, 1, 0, 1, 1, 1], 2, 5),
        ([0, 1, 0, 1, 1, 1], 3, 6),
        ([1, 1, 0, 1, 1, 0], 3, None),
        ([1], 1, 1),
        ([0, 0], 1, None),
    ],
)
def test_the_first_run_of_steps_within_tolerance(within, steps, expected):
    assert first_kept(np.array(within, bool), steps) == expected


def test_protocols_say_what_they_ask():
    names = ("standard", "far", "hold", "strict")
    assert [PROTOCOLS[name].budget(LINE) for name in names] == [6, 8, 6, 8]
    rules = {name: PROTOCOLS[name].rule(LINE, 6) for name in names}
    assert [rules[name].tolerance for name in names] == [0.5, 0.5, 0.5, 0.25]
    assert [(rules[name].far, rules[name].strict) for name in names] == [
        (False, False),
        (True, False),
        (False, False),
        (True, True),
    ]
    assert [rules[name].steps for name in names] == [1, 1, 5, 2]
    assert rules["hold"].rule == "goal 4 steps ahead, within 0.5 m for 5 steps"
    assert rules["far"].rule == "goal in another episode, within 0.5 m"
    by_effector = PROTOCOLS["strict"].rule(replace(LINE, effector="point", effector_tolerance=0.02), 6)
    assert by_effector.tolerance == 0.02
    assert by_effector.rule == "goal in another episode, point within 0.02 m for 2 steps"
    assert Protocol("mine", far=False, steps=3).rule(LINE, 6).steps == 3
