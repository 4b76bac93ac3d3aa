"""A command that runs on one worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import errors
from .v1 import worker_pb2

if TYPE_CHECKING:
    from .mill import Mill


class Task:
    """A task by its name, NODE/ID."""

    def __init__(self, mill: Mill, name: str) -> None:
        self._mill = mill
        #: NODE/ID.
        self.name = name

    def __repr__(self) -> str:
        return f"Task({self.name})"

    def get(self) -> worker_pb2.Task:
        """The task as it stands."""
        with errors.told():
            return self._mill.worker.GetTask(worker_pb2.TaskRequest(task=self.name))

    def stop(self) -> worker_pb2.Task:
        """Ends it with all that it has started."""
        with errors.told():
            return self._mill.worker.StopTask(worker_pb2.TaskRequest(task=self.name))

    def output(self, follow: bool = True) -> Iterator[tuple[str, bytes]]:
        """What it printed from the start on, as ("stdout" or "stderr", bytes); with `follow` until it ends."""
        request = worker_pb2.TaskOutputRequest(task=self.name, until_now=not follow)
        with errors.told():
            for reply in self._mill.worker.TaskOutput(request):
                which = reply.WhichOneof("message")
                if which in ("stdout", "stderr"):
                    yield which, getattr(reply, which)

    def wait(self) -> worker_pb2.Task:
        """Waits for its end."""
        with errors.told():
            for reply in self._mill.worker.TaskOutput(worker_pb2.TaskOutputRequest(task=self.name)):
                if reply.HasField("ended"):
                    return reply.ended
        raise errors.Unavailable(f"the output of {self.name} broke off before its end")
