"""A client of a Sawmill: submit jobs, wait for them, stream what they print, ask queries.

    import sawmill

    with sawmill.connect("mill.example.com:7766", identity="/etc/sawmill/anna") as mill:
        answer = mill.query("SELECT status, count(*) AS n FROM access GROUP BY status")
        print(answer.to_pandas())

Everything goes over the gateway of a dispatcher, leading or standing by.
"""

from .answer import Answer
from .errors import (
    JobFailed,
    NotFound,
    PermissionDenied,
    RefusedState,
    SawmillError,
    TooMuch,
    Unavailable,
    Usage,
)
from .job import Job
from .mill import Mill, connect
from .task import Task

__all__ = [
    "Answer",
    "Job",
    "JobFailed",
    "Mill",
    "NotFound",
    "PermissionDenied",
    "RefusedState",
    "SawmillError",
    "Task",
    "TooMuch",
    "Unavailable",
    "Usage",
    "connect",
]
