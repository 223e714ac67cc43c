"""The models that Triton's python backend runs. ``server.repository`` copies each ``model.py`` into a model repository.

They are imported by Triton's stub process, never by the harness: ``triton_python_backend_utils`` exists there alone.
"""
