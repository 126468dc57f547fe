"""Importing this puts the tests' folder on the path: the stub KFP server and its world are theirs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
