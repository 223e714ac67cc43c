"""From a session and its requests to records and metrics.

Inside a worker only ``driver``, ``records`` and ``protocol`` are imported; those three need numpy and nothing else.
"""
