"""What a figure is worth: random actions, and none."""

from jepa_mpc.agent.base import DoNothingAgent, RandomAgent
from jepa_mpc.agent.rivals.base import NOTHING, Rival, interface

RANDOM = Rival("nothing", lambda task, seed: (RandomAgent(*interface(task)), NOTHING))
DO_NOTHING = Rival("nothing", lambda task, seed: (DoNothingAgent(*interface(task)), NOTHING))
