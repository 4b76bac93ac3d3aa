"""Against a mill that runs: SAWMILL_SERVER says where, and TEST_LOG names a log of 1000 lines that its nodes can read."""

import os
import socket
import threading
import unittest
import uuid
from unittest import mock

import sawmill
from sawmill.mill import _literal, _local_token
from sawmill.v1 import catalog_pb2, queue_pb2, worker_pb2


class Localhost(unittest.TestCase):
    def test_it_is_the_literal_address_at_which_somebody_listens(self) -> None:
        for listening, literal in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
            family = socket.AF_INET6 if ":" in listening else socket.AF_INET
            try:
                server = socket.create_server((listening, 0), family=family)
            except OSError:
                self.skipTest(f"this machine has no {listening}")
            with server:
                port = server.getsockname()[1]
                self.assertEqual(_literal(f"localhost:{port}"), f"{literal}:{port}")
        self.assertEqual(_literal("LocalHost:1"), "127.0.0.1:1")
        for other in ("mill.example.com:1", "[::1]:1", "localhost", "unix:/a"):
            self.assertEqual(_literal(other), other)

    def test_without_a_home_there_is_no_token(self) -> None:
        with mock.patch.dict(os.environ, XDG_STATE_HOME=""):
            with mock.patch("pathlib.Path.home", side_effect=RuntimeError):
                self.assertIsNone(_local_token("127.0.0.1:1"))


class Client(unittest.TestCase):
    mill: sawmill.Mill
    dataset: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.mill = sawmill.connect()
        cls.dataset = f"t{uuid.uuid4().hex[:12]}"
        request = catalog_pb2.AddFilesRequest(
            dataset=cls.dataset, places=[os.environ["TEST_LOG"]], block_size=4096
        )
        cls.mill.catalog.AddFiles(request)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.mill.close()

    def test_another_user_of_the_machine_is_refused(self) -> None:
        with mock.patch.dict(os.environ, XDG_STATE_HOME="/nonexistent"):
            with self.assertRaises(sawmill.PermissionDenied) as refused:
                sawmill.connect()
        self.assertIn("of its own user alone", str(refused.exception))

    def test_a_job_is_submitted_waited_for_and_its_output_streamed(self) -> None:
        sum_up = "awk '{n += $1} END {print n}'"
        job = self.mill.submit(self.dataset, "wc -l", sum_up, priority=200, timeout=30)
        states = [progress.state for progress in job.watch(60)]
        self.assertEqual(states[-1], queue_pb2.JOB_STATE_SUCCESSFUL)
        ended = job.wait(60)
        self.assertEqual(ended.counts.ok, ended.subtasks)
        self.assertEqual(ended.spec.priority, 200)
        self.assertEqual(job.output().strip(), b"1000")
        self.assertEqual(b"".join(job.stream()), job.output())
        self.assertEqual(job.state, "SUCCESSFUL")
        self.assertEqual(self.mill.job(job.id[:-4]).id, job.id)
        self.assertIn(job.id, [listed.id for listed in self.mill.jobs(dataset=self.dataset)])

    def test_many_jobs_go_in_one_stream_in_order(self) -> None:
        specs = [{"dataset": self.dataset, "map": f"true {n}", "priority": n} for n in range(50)]
        jobs = list(self.mill.submit_many(specs))
        priorities = [job.get().spec.priority for job in jobs]
        self.assertEqual(priorities, list(range(50)))

    def test_a_query_becomes_a_dataframe(self) -> None:
        sql = f"SELECT even, count(*) AS lines, sum(n) AS total FROM {self.dataset} GROUP BY even ORDER BY even"
        answer = self.mill.query(sql, timeout=60)
        frame = answer.to_pandas()
        self.assertEqual(list(frame.columns), ["even", "lines", "total"])
        self.assertEqual(frame["lines"].tolist(), [500, 500])
        self.assertEqual(frame["total"].tolist(), [250_000, 249_500])
        self.assertEqual(list(answer), frame.to_dict("records"))
        again = self.mill.query(sql)
        self.assertTrue(again.recorded)
        self.assertEqual(list(again), list(answer))
        fresh = self.mill.query(sql, reuse=False, timeout=60)
        self.assertFalse(fresh.recorded)
        self.assertNotEqual(fresh.job.id, answer.job.id)
        joined = self.mill.query(
            f"SELECT word, count(*) AS c FROM {self.dataset} JOIN words USING (n) GROUP BY word",
            tables={"words": b"n,word\n1,one\n2,two\n"},
            timeout=60,
        )
        self.assertEqual(sorted(row["word"] for row in joined), ["one", "two"])

    def test_errors_are_classes_with_reasons(self) -> None:
        with self.assertRaises(sawmill.NotFound) as none:
            self.mill.submit("nosuchdataset", "true")
        self.assertEqual(none.exception.reason, "NO_SUCH_DATASET")
        self.assertIn("nosuchdataset", str(none.exception))
        with self.assertRaises(sawmill.Usage):
            self.mill.query(f"SELEC 1 FROM {self.dataset}")
        with self.assertRaises(sawmill.JobFailed) as failed:
            self.mill.submit(self.dataset, "exit 3").wait(60)
        self.assertIn("FAILED", str(failed.exception))
        self.assertTrue(sawmill.Job(self.mill, failed.exception.job.id).failures())
        with self.assertRaises(sawmill.Unavailable):
            sawmill.connect("127.0.0.1:1", timeout=5)

    def test_a_task_runs_on_a_worker_and_is_followed(self) -> None:
        node = next(worker.node for worker in self.mill.workers() if worker.alive)
        task = self.mill.start_task(node, "cat; echo no >&2; exit 4", input=b"given\n")
        self.assertEqual(sorted(task.output()), [("stderr", b"no\n"), ("stdout", b"given\n")])
        ended = task.wait()
        self.assertEqual((ended.state, ended.exit_code), (worker_pb2.TASK_STATE_EXITED, 4))
        long = self.mill.start_task(node, "sleep 1000")
        threading.Timer(0.1, long.stop).start()
        self.assertEqual(long.wait().state, worker_pb2.TASK_STATE_STOPPED)
        self.assertIn(long.name, [task.name for task in self.mill.tasks(node)])


if __name__ == "__main__":
    unittest.main()
