"""`python -m apir_py`, the same as `apir-py`."""

import sys

from apir_py.cli import main

sys.exit(main())
