"""ZeroMQ without its endless waits."""

from __future__ import annotations

from lerobot.common.utils.import_utils import require_package


def import_zmq():
    """The zmq module; ImportError naming the extra."""
    require_package("pyzmq", "remote", "zmq")
    import zmq
    import zmq.utils.z85

    return zmq


def make_context():
    """A context whose sockets have to be closed by `destroy`; one that is forgotten is left to the end of the process.

    pyzmq would terminate it when it is garbage, and wait for ever for a socket of it that is garbage too.
    """
    zmq = import_zmq()

    class Context(zmq.Context):
        def __del__(self) -> None:
            pass

    return Context()
