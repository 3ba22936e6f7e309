"""The engine: path to report, the ranking, and the exit code. Importing it loads no torch."""

from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.examine import examine
from vqdoctor.engine.verdict import exit_code

__all__ = ["Settings", "UserModel", "examine", "exit_code"]
