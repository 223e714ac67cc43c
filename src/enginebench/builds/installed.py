"""What a build's interpreter has installed, asked of its package metadata: nothing of it is imported or loaded."""

import json
import subprocess
from collections.abc import Mapping, Sequence

from enginebench.errors import BuildError

TIMEOUT_S = 120.0

_QUESTION = """\
import json, platform
from importlib import metadata
names = ("tensorrt_llm", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "torch", "transformers", "numpy")
found = {"python": platform.python_version()}
for name in names:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print("\\n" + json.dumps(found))
"""


def installed_versions(launcher: Sequence[str]) -> Mapping[str, str]:
    """Distribution → version under ``launcher``, and ``python``. Raises BuildError when it cannot be started."""
    who = " ".join(launcher)
    try:
        done = subprocess.run(
            [*launcher, "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == 0:
            found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
            return found
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        reason = str(error)
    raise BuildError(f"{who} cannot be asked what it has installed ({reason}): name an interpreter that starts.")
