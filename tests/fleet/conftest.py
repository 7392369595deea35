"""Lets the tests of several hosts use what tests/site has to run playbooks."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "site"))
