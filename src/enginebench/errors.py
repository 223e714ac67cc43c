"""The errors that a user can act on.

Each message is one sentence that says what is wrong, where, and what to do; front ends print it without a traceback.
Foreign exceptions (sockets, pydantic, pyarrow, pynvml, subprocesses) are mapped to these at the edge that calls them.
"""


class EnginebenchError(Exception):
    """Base of every error that enginebench raises on purpose."""


class ScenarioError(EnginebenchError):
    """A scenario file, or a choice of scenarios and paths, cannot be used."""


class BuildError(EnginebenchError):
    """A build directory cannot be read, written or loaded."""


class ServerError(EnginebenchError):
    """A Triton server cannot be started, reached or trusted."""


class SessionError(EnginebenchError):
    """A runtime refused its options or broke; the session is not usable any more."""


class LoadError(SessionError):
    """A runtime's library could not load an engine; what it printed may say more than its exception."""


class WorkerError(EnginebenchError):
    """A worker process died, or answered something that the protocol does not know."""


class RunError(EnginebenchError):
    """A run directory cannot be written or read."""
