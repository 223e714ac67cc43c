"""What pytest needs at the root, and nothing else."""

pytest_plugins = ("enginebench.pytest_plugin",)
