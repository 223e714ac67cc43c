"""A strict stand-in for tensorrt_llm, built per version from the committed signatures. Standard library only."""
