"""``pytest bench/`` measures engines; the benchmarks of the harness itself run when ``bench/harness`` is named."""

from pathlib import Path

import pytest

HARNESS = Path(__file__).parent / "harness"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave ``harness`` out unless the command line names it, or something in it."""
    if collection_path != HARNESS:
        return None
    named = ((config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args)
    return None if any(HARNESS in (path, *path.parents) for path in named) else True
