"""The rivals, by the name that they had here."""

from jepa_mpc.agent.rivals import RIVALS as CONTENDERS
from jepa_mpc.agent.rivals import Facts as Facts

__all__ = ["CONTENDERS", "Facts"]
