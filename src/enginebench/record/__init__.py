"""What run.json holds: its keys and their types, checked once, where a record is read, so that no reader needs to."""
