"""The connection to a mill."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from . import errors
from .answer import Answer
from .job import Job
from .task import Task
from .v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    queue_pb2,
    queue_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)

#: Bytes of one message: a question may bring small tables along.
_MESSAGE_BYTES = 20 << 20
_OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
]


def connect(
    server: str | None = None,
    *,
    identity: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout: float = 10.0,
) -> Mill:
    """Connects to the first dispatcher that answers.

    `server` is HOST:PORT[,HOST:PORT…], by default what SAWMILL_SERVER says. `identity` is a directory with ca.pem, cert.pem
    and key.pem, as `sawmill pki issue` makes it, by default SAWMILL_IDENTITY; or `token` is one of `sawmill token create`, with
    the authority in the file `ca` unless the gateway is on loopback without TLS. There the token that the gateway keeps for its
    user is found automatically.

    Raises Unavailable when nobody answers within `timeout` seconds.
    """
    server = server or os.environ.get("SAWMILL_SERVER")
    if not server:
        raise errors.Usage("say where the mill is: connect('HOST:PORT'), or SAWMILL_SERVER")
    if identity is None and token is None:
        identity = os.environ.get("SAWMILL_IDENTITY")
    credentials = _credentials(identity, ca)
    addresses = [address.strip() for address in server.split(",") if address.strip()]
    why: list[str] = []
    for address in addresses:
        if credentials:
            channel = grpc.secure_channel(address, credentials, _OPTIONS)
        else:
            address = _literal(address)
            channel = grpc.insecure_channel(address, _OPTIONS)
        if token:
            channel = grpc.intercept_channel(channel, _Bearer(lambda: token))
        elif not credentials:
            channel = grpc.intercept_channel(channel, _Bearer(partial(_local_token, address)))
        mill = Mill(channel)
        try:
            # Says why it can't connect, which the state of a channel does not.
            mill._look(timeout)
        except errors.Unavailable as error:
            channel.close()
            why.append(f"{address}: {error}")
        else:
            return mill
    raise errors.Unavailable("no dispatcher answers: " + "; ".join(why))


def _credentials(
    identity: str | os.PathLike[str] | None, ca: str | os.PathLike[str] | None
) -> grpc.ChannelCredentials | None:
    if identity is not None:
        folder = Path(identity)
        return grpc.ssl_channel_credentials(
            (folder / "ca.pem").read_bytes(),
            (folder / "key.pem").read_bytes(),
            (folder / "cert.pem").read_bytes(),
        )
    return grpc.ssl_channel_credentials(Path(ca).read_bytes()) if ca is not None else None


def _literal(address: str) -> str:
    """The address that `localhost` stands for: another user may listen on the other one, and must not get the token of this."""
    host, _, port = address.rpartition(":")
    if host.lower() != "localhost" or not port.isdigit():
        return address
    for name, literal in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
        try:
            socket.create_connection((name, int(port)), timeout=1).close()
        except (OSError, OverflowError):
            continue
        return f"{literal}:{port}"
    return f"127.0.0.1:{port}"


def _local_token(address: str) -> str | None:
    """The token of a port on loopback without TLS, where this user can read it: whoever listens there keeps it in a file."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    name = socket.gethostname().strip()
    host = "localhost" if name in ("", ".", "..") else name.replace("/", "_")
    try:
        state = state if state.is_absolute() else Path.home() / ".local/state"
        return (state / "sawmill/tokens" / host / address).read_text().strip()
    except (OSError, RuntimeError, ValueError):
        # RuntimeError: this user has no home directory.
        return None


class _Details(grpc.ClientCallDetails):  # type: ignore[misc]
    """Those of a call, with other metadata."""

    def __init__(self, of: grpc.ClientCallDetails, metadata: list[tuple[str, str]]) -> None:
        self.method = of.method
        self.timeout = of.timeout
        self.metadata = metadata
        self.credentials = of.credentials
        self.wait_for_ready = of.wait_for_ready
        self.compression = of.compression


class _Bearer(  # type: ignore[misc]
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Shows a token with each call, as `token` gives it then; nothing where it gives none."""

    def __init__(self, token: Callable[[], str | None]) -> None:
        self._token = token

    def _call(self, continuation: Any, details: grpc.ClientCallDetails, request: Any) -> Any:
        token = self._token()
        if token is None:
            return continuation(details, request)
        header = ("authorization", f"Bearer {token}")
        return continuation(_Details(details, [*(details.metadata or ()), header]), request)

    intercept_unary_unary = _call
    intercept_unary_stream = _call
    intercept_stream_unary = _call
    intercept_stream_stream = _call


class Mill:
    """A mill, by one of its dispatchers. May be used by many threads at once."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        #: The stubs of sawmill.v1, for what has no method here.
        self.queue = queue_pb2_grpc.QueueStub(channel)
        self.catalog = catalog_pb2_grpc.CatalogStub(channel)
        self.registry = registry_pb2_grpc.RegistryStub(channel)
        self.worker = worker_pb2_grpc.WorkerStub(channel)

    def __enter__(self) -> Mill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _look(self, timeout: float) -> None:
        with errors.told():
            for _ in self.queue.ListJobs(queue_pb2.ListJobsRequest(limit=1), timeout=timeout):
                pass

    # Jobs

    def submit(
        self,
        dataset: str,
        map: str,
        reduce: str | None = None,
        *,
        priority: int | None = None,
        timeout: float | None = None,
        reuse: bool = False,
        pipefail: bool = True,
        ok_exit: Iterable[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Job:
        """Submits a job that runs the command `map` over each block of a dataset, and `reduce` over what they printed.

        `timeout` is the longest run over one block, in seconds. With `pipefail` a pipeline fails with any of its parts.
        `ok_exit` are the exit codes that count as success, beside 0. `env` are variables for the commands; they are kept
        with the job, as readable as the commands: no place for secrets.
        """
        spec = _spec(dataset, map, reduce, priority, timeout, reuse, pipefail, ok_exit, env)
        with errors.told():
            reply = self.queue.Submit(queue_pb2.SubmitRequest(spec=spec))
        return Job(self, reply.job)

    def submit_many(self, specs: Iterable[Mapping[str, Any]]) -> Iterator[Job]:
        """Submits many jobs in one stream; each spec has the arguments of `submit`. Gives each job once it is written."""
        requests = (queue_pb2.SubmitRequest(spec=_spec(**spec)) for spec in specs)
        with errors.told():
            for reply in self.queue.SubmitStream(requests):
                yield Job(self, reply.job)

    def job(self, reference: str) -> Job:
        """The job with this id, with an id that begins so, or the newest for `last`."""
        with errors.told():
            found = self.queue.GetJob(queue_pb2.JobReference(reference=reference))
        return Job(self, found.id)

    def jobs(self, *, dataset: str | None = None, limit: int = 20) -> list[queue_pb2.Job]:
        """Jobs, the newest first."""
        request = queue_pb2.ListJobsRequest(dataset=dataset, limit=limit)
        with errors.told():
            return list(self.queue.ListJobs(request))

    # Datasets and queries

    def datasets(self) -> list[catalog_pb2.Dataset]:
        """All datasets by name."""
        with errors.told():
            return list(self.catalog.ListDatasets(catalog_pb2.ListDatasetsRequest()))

    def query(
        self,
        sql: str,
        *,
        time_zone: str = "",
        gather_rows: int | None = None,
        tables: Mapping[str, bytes] | None = None,
        priority: int | None = None,
        reuse: bool = True,
        timeout: float | None = None,
    ) -> Answer:
        """Asks a query and waits for its answer, at most so many seconds.

        `tables` has small tables to join, as CSV by name; `gather_rows` as `sawmill query --gather`.
        """
        tables_with = [
            catalog_pb2.SmallTable(name=name, ending="csv", content=content)
            for name, content in (tables or {}).items()
        ]
        question = catalog_pb2.Question(
            sql=sql,
            time_zone=time_zone,
            gather_rows=gather_rows,
            priority=priority,
            no_reuse=not reuse,
            **{"with": tables_with},
        )
        with errors.told():
            asked = self.catalog.Ask(question, timeout=timeout)
        kind = asked.WhichOneof("answer")
        if kind == "no_rows":
            return Answer(None, asked.no_rows, False)
        recorded = kind == "recorded"
        job = Job(self, asked.recorded.id if recorded else asked.submitted)
        if not recorded:
            job.wait(timeout)
        return Answer(job, job.output(), recorded)

    # Workers and tasks

    def workers(self) -> list[registry_pb2.WorkerInfo]:
        """Compute nodes."""
        with errors.told():
            return list(self.registry.ListWorkers(registry_pb2.ListWorkersRequest()).workers)

    def start_task(
        self, worker: str, command: str, *, timeout: float | None = None, input: bytes = b""
    ) -> Task:
        """Starts a command on a worker, beside the queue; it is ended after `timeout` seconds."""
        request = worker_pb2.StartTaskRequest(
            worker=worker, command=command, timeout_ms=round((timeout or 0) * 1000), input=input
        )
        with errors.told():
            return Task(self, self.worker.StartTask(request).name)

    def tasks(self, worker: str = "") -> list[worker_pb2.Task]:
        """Tasks that workers remember, the newest first."""
        with errors.told():
            return list(self.worker.ListTasks(worker_pb2.ListTasksRequest(worker=worker)).tasks)


def _spec(
    dataset: str,
    map: str,
    reduce: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    reuse: bool = False,
    pipefail: bool = True,
    ok_exit: Iterable[int] = (),
    env: Mapping[str, str] | None = None,
) -> queue_pb2.JobSpec:
    command = queue_pb2.Command(
        map=map,
        reduce=reduce,
        timeout_ms=None if timeout is None else round(timeout * 1000),
        no_pipefail=not pipefail,
        ok_exit=ok_exit,
        env=env,
    )
    return queue_pb2.JobSpec(dataset=dataset, command=command, priority=priority, reuse=reuse)
