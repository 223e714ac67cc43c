"""``python -m enginebench.cli``: the command, where it is not on PATH."""

import sys

from enginebench.cli import main

sys.exit(main())
