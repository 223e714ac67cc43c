"""The ``enginebench`` command: everything that is not measuring under pytest.

Parses arguments, calls one function, prints what it says. An error that the user can act on is one sentence and
exit code 1; what is needed to parse is imported here, so that Ctrl-C ends a command cleanly from the start.
"""

import sys
from collections.abc import Sequence

from enginebench.errors import EnginebenchError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: those of the process) and return the exit code."""
    try:
        from enginebench.cli.commands import parser
        from enginebench.cli.output import printing
        from enginebench.run.signals import end_as_ctrl_c_does

        end_as_ctrl_c_does()
        with printing():
            options = parser().parse_args(arguments)
            return int(options.run(options) or 0)
    except (EnginebenchError, OSError, MemoryError) as error:  # the machine's own refusals are sentences, too
        print(f"enginebench: {str(error) or 'There is not enough memory: end other programs.'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("enginebench: stopped.", file=sys.stderr)
        return 130
