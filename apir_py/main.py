"""`python main.py HOST PORT USERNAME SECRET`, the first form of this program, from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from apir_py.cli import main_with_secret  # noqa: E402, since it is found only now

sys.exit(main_with_secret())
