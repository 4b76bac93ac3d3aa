"""The answer of a query."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from .job import Job


class Answer:
    """The rows that a query gave, which are in memory. Needs pyarrow: ``pip install 'sawmill-client[pandas]'``."""

    def __init__(self, job: Job | None, stream: bytes, recorded: bool) -> None:
        #: The job that gave it; none for an answer that has no rows whatever the lines are.
        self.job = job
        #: Whether it was recorded, and nothing had to run.
        self.recorded = recorded
        self._stream = stream

    def to_arrow(self) -> pyarrow.Table:
        """As a table of Arrow."""
        import pyarrow.ipc

        with pyarrow.ipc.open_stream(io.BytesIO(self._stream)) as reader:
            return reader.read_all()

    def to_pandas(self) -> pandas.DataFrame:
        """As a DataFrame of pandas."""
        return self.to_arrow().to_pandas()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Its rows, each as a dict."""
        for batch in self.to_arrow().to_batches():
            yield from batch.to_pylist()
