"""For the tests of those who use orchqueue: real daemons, with an engine that does what you say.

    from orchqueue import testing

    with testing.daemon(["Hello there."]) as daemon:
        assert daemon.client().run("Hi")["output"]["text"] == "Hello there."

    with testing.daemon([testing.Reply("One two three", fault=testing.Fault.DIE, after=2)]) as daemon:
        ...                                     # the stream ends with `error`: WORKER_RESET

`daemon` runs the real daemon inside this process, in front of a scripted engine. `engine` is that engine
alone. `LiveDaemon` is the whole thing as its own process, with its store and its replicas, to kill and to
start again.
"""

from orchqueue.testing.in_process import ScriptedDaemon, Setup, daemon
from orchqueue.testing.live import DaemonDied, LiveDaemon
from orchqueue.testing.scripted import Fault, Reply, ScriptedEngine, engine

__all__ = [
    "DaemonDied",
    "Fault",
    "LiveDaemon",
    "Reply",
    "ScriptedDaemon",
    "ScriptedEngine",
    "Setup",
    "daemon",
    "engine",
]
