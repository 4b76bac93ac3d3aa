"""A job that was submitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import errors
from .v1 import queue_pb2

if TYPE_CHECKING:
    from .mill import Mill


def state_name(state: queue_pb2.JobState) -> str:
    """SUCCESSFUL and so on."""
    return queue_pb2.JobState.Name(state).removeprefix("JOB_STATE_")


class Job:
    """A job by its id. It knows nothing by itself: each method asks the mill."""

    def __init__(self, mill: Mill, id: str) -> None:
        self._mill = mill
        #: A UUID.
        self.id = id

    def __repr__(self) -> str:
        return f"Job({self.id})"

    def _reference(self) -> queue_pb2.JobReference:
        return queue_pb2.JobReference(reference=self.id)

    def get(self) -> queue_pb2.Job:
        """The job as it stands."""
        with errors.told():
            return self._mill.queue.GetJob(self._reference())

    @property
    def state(self) -> str:
        """PENDING, STAGING, RUNNING, SUCCESSFUL, FAILED or CANCELLED."""
        return state_name(self.get().state)

    def watch(self, timeout: float | None = None) -> Iterator[queue_pb2.JobProgress]:
        """How far it is, now and at each change, until it is final."""
        with errors.told():
            yield from self._mill.queue.WatchJob(self._reference(), timeout=timeout)

    def wait(self, timeout: float | None = None) -> queue_pb2.Job:
        """Waits until it is successful, at most so many seconds.

        Raises JobFailed when it ends otherwise, Unavailable when the time is over.
        """
        ended = None
        for progress in self.watch(timeout):
            if progress.HasField("ended"):
                ended = progress.ended
        if ended is None:
            raise errors.Unavailable(f"the progress of job {self.id} broke off before its end")
        if ended.state != queue_pb2.JOB_STATE_SUCCESSFUL:
            raise errors.JobFailed(ended, state_name(ended.state))
        return ended

    def cancel(self) -> None:
        """Asks for its end."""
        with errors.told():
            self._mill.queue.CancelJob(self._reference())

    def stream(self) -> Iterator[bytes]:
        """Its result in pieces, as a successful job has it. Takes the memory of one piece."""
        request = queue_pb2.JobOutputRequest(reference=self.id, answer=True)
        with errors.told():
            for chunk in self._mill.queue.JobOutput(request):
                yield chunk.data

    def output(self) -> bytes:
        """Its whole result."""
        return b"".join(self.stream())

    def stderr(self, limit: int = 10) -> list[queue_pb2.StderrTail]:
        """What commands that succeeded printed to standard error, of at most so many subtasks."""
        request = queue_pb2.ListFailuresRequest(reference=self.id, limit=limit)
        with errors.told():
            return list(self._mill.queue.ListFailures(request).stderr)

    def failures(self, limit: int = 10) -> list[queue_pb2.FailedAttempt]:
        """Attempts that gave no result."""
        request = queue_pb2.ListFailuresRequest(reference=self.id, limit=limit)
        with errors.told():
            return list(self._mill.queue.ListFailures(request).failures)
