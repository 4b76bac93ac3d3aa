"""What can go wrong, in classes that a program can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from .v1 import queue_pb2

_DOMAIN = "sawmill"


class SawmillError(Exception):
    """Anything that the mill refused, or that kept a request from it."""

    def __init__(self, message: str, reason: str | None = None, place: dict[str, str] | None = None) -> None:
        super().__init__(message)
        #: For programs, such as NO_SUCH_DATASET; None where the connection itself failed.
        self.reason = reason
        #: Where it happened, such as {"dataset": "access"}.
        self.place = place or {}


class Usage(SawmillError):
    """A mistake in what was asked: asking again will not help."""


class NotFound(SawmillError):
    """No such job, dataset, view, worker or task."""


class PermissionDenied(SawmillError):
    """The certificate or token does not allow it, or there is none."""


class RefusedState(SawmillError):
    """Not possible as things stand, such as cancelling what has ended."""


class TooMuch(SawmillError):
    """A limit: asked too often, or for too much at once."""


class Unavailable(SawmillError):
    """Nobody answers, or a store is away: the same request may succeed later."""


class JobFailed(SawmillError):
    """A job that was waited for ended without a result."""

    def __init__(self, job: queue_pb2.Job, state: str) -> None:
        why = f": {job.error}" if job.error else ""
        super().__init__(f"job {job.id} is {state}{why}", "JOB_FAILED", {"job": job.id})
        #: The job as it ended.
        self.job = job


_BY_CODE: dict[grpc.StatusCode, type[SawmillError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Usage,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDenied,
    grpc.StatusCode.FAILED_PRECONDITION: RefusedState,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooMuch,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
}


@contextmanager
def told() -> Iterator[None]:
    """Turns what gRPC raises inside into a SawmillError."""
    try:
        yield
    except grpc.RpcError as error:
        raise of(error) from error


def of(error: grpc.RpcError) -> SawmillError:
    """The error that a failed call means."""
    reason, place = None, None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == _DOMAIN:
                    reason, place = info.reason, dict(info.metadata)
    kind = _BY_CODE.get(error.code(), SawmillError)
    return kind(error.details() or error.code().name, reason, place)
