"""The engine: path to report, the ranking, and the exit code. Importing it loads no torch."""

from vqdoctor.engine.examine import examine
from vqdoctor.engine.settings import RepairSettings, RetrainSettings, Settings, UserModel
from vqdoctor.engine.verdict import exit_code

__all__ = ["RepairSettings", "RetrainSettings", "Settings", "UserModel", "examine", "exit_code"]
