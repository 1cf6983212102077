"""ALFWorld: an exact engine in plain Python, and the games it plays."""

from hiper.envs.alfworld.engine import Engine
from hiper.envs.alfworld.env import AlfworldEnv
from hiper.envs.alfworld.game import Game
from hiper.envs.alfworld.library import Library, open_split
from hiper.envs.alfworld.parser import parse_game
from hiper.envs.alfworld.sources import TASK_TYPES, GameSource

__all__ = ["TASK_TYPES", "AlfworldEnv", "Engine", "Game", "GameSource", "Library", "open_split", "parse_game"]
