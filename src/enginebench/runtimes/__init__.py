"""One file a way to reach an engine; all meet the contract in ``base`` and pass the same contract suite."""
