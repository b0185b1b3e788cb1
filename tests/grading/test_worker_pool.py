"""Worker processes: lazy, limited, killable, and shared by threads, tasks and processes."""

import asyncio
import contextlib
import gc
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import psutil
import pytest

from jaxcritique.grading import Grader, grade
from jaxcritique.grading.pool import Pool

HARD = (r"\sqrt{3+2\sqrt2}", r"1+\sqrt{2}")  # Equal, and only a worker can say so.


def graded(grader):
    return grader.grade(*HARD, kind="answer").verdict


def test_importing_the_grader_is_light():
    heavy = "{'sympy', 'mpmath', 'jax', 'numpy'}"
    script = f"import sys, jaxcritique.grading\nprint({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"


def test_numbers_start_no_process():
    with Grader() as grader:
        rows = [
            ("18", "#### 18"),
            ("1/2", r"\boxed{0.5}"),
            ("x^2-4", r"\boxed{(x-2)(x+2)}"),
            ("3", ""),
        ]
        verdicts = [grade.verdict for grade in grader.grade_all(rows)]
        assert verdicts == ["correct", "correct", "correct", "unparsable"]
        assert grader.workers_started == 0


def test_grade_all_keeps_the_order_and_reuses_workers():
    rows = [
        (rf"\sqrt{{{n * n}+{2 * n}\sqrt{{2}}+2}}", rf"\boxed{{{n}+\sqrt{{2}}}}")
        for n in range(1, 9)
    ]
    rows[3] = ("1", r"\boxed{2}")
    with Grader(workers=2, timeout=30) as grader:
        verdicts = [grade.verdict for grade in grader.grade_all(rows)]
        assert verdicts == ["correct"] * 3 + ["wrong"] + ["correct"] * 4
        assert 1 <= grader.workers_started <= 2


def test_results_are_cached():
    with Grader(workers=1, timeout=30) as grader:
        assert graded(grader) == "correct"
        grader.close()
        assert graded(grader) == "correct"
        assert grader.workers_started == 1


def test_a_late_worker_is_killed_and_replaced():
    pool = Pool(workers=1, timeout=2)
    assert pool.compare(*HARD, strict=False).verdict == "correct"
    process = workers()[0]
    process.suspend()  # As a worker that hangs where no Python code runs.
    started = time.monotonic()
    assert pool.compare("1", r"\sqrt{2}", strict=False) == ("timeout", "killed")
    assert 1.9 < time.monotonic() - started < 4
    assert not process.is_running()
    assert pool.compare(*HARD, strict=False).verdict == "correct"
    assert pool.started == 2
    pool.close()
    assert not workers()


@contextlib.contextmanager
def interrupted(seconds):
    """Breaks into the block after so many seconds, as ctrl-C or the caller's own alarm does."""

    def break_in(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, break_in)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupted_comparison_does_not_answer_the_next():
    with contextlib.closing(Pool(workers=1, timeout=30)) as pool:
        assert pool.compare(*HARD, strict=False).verdict == "correct"
        process = workers()[0]
        process.suspend()
        with interrupted(0.5):
            pool.compare("1", r"\sqrt{2}", strict=False)
        if process.is_running():
            process.resume()
        assert pool.compare(*HARD, strict=False).verdict == "correct"


def test_an_interrupted_close_loses_no_worker():
    pool = Pool(workers=2, timeout=2)
    assert pool.compare(*HARD, strict=False).verdict == "correct"
    workers()[0].suspend()
    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(pool.compare, "1", r"\sqrt{2}", strict=False)
        with interrupted(0.5):
            pool.close()  # Waits for the worker that is suspended.
        assert late.result().verdict == "timeout"
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()


def test_two_threads_close_one_pool():
    pool = Pool(workers=3, timeout=2)
    busy = [pool._slots.get() for _ in range(2)]
    closing = [threading.Thread(target=pool.close, daemon=True) for _ in range(2)]
    for thread in closing:
        thread.start()
        time.sleep(0.2)  # Both are waiting now.
    for worker in busy:
        pool._slots.put(worker)
        time.sleep(0.2)
    for thread in closing:
        thread.join(5)
    assert not any(thread.is_alive() for thread in closing)


def test_a_worker_is_limited_and_inherits_no_secret(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    with Grader(workers=1, timeout=30) as grader:
        graded(grader)
        process = workers()[0]
        assert set(process.environ()) <= {"PYTHONPATH", "LC_CTYPE"}
        assert process.rlimit(psutil.RLIMIT_AS)[0] <= 1 << 30
        assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_CPU)[0] < 60
        assert not any("jax/" in mapped.path for mapped in process.memory_maps())


def test_threads_share_one_grader():
    with Grader(workers=2, timeout=30) as grader, ThreadPoolExecutor(8) as threads:
        answers = threads.map(
            lambda n: grader.grade(rf"\sqrt{{{2 * n * n}}}", rf"{n}\sqrt2", "answer"), range(2, 34)
        )
        assert {answer.verdict for answer in answers} == {"correct"}
        assert grader.workers_started <= 2


def test_async_code_awaits_a_thread():
    async def many(grader):
        return await asyncio.gather(*(asyncio.to_thread(graded, grader) for _ in range(4)))

    with Grader(workers=1, timeout=30) as grader:
        assert asyncio.run(many(grader)) == ["correct"] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_its_own_worker():
    with Grader(workers=1, timeout=30) as grader:
        assert graded(grader) == "correct"
        script = """
import os
from jaxcritique.grading import Grader
grader = Grader(workers=1, timeout=30)
def equal(n):
    return grader.grade(rf"\\sqrt{{{2 * n * n}}}", rf"{n}\\sqrt2", "answer").verdict == "correct"
assert equal(3)
child = os.fork()
if child == 0:
    os._exit(0 if equal(5) and grader.workers_started == 1 else 1)
assert equal(7) and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
grader.close()
"""
        # The script has no main guard: a worker must not run it again.
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_other_processes_have_workers_of_their_own():
    with Grader(workers=1, timeout=30) as grader:
        assert graded(grader) == "correct"
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
            # The method travels with its grader.
            rows = [HARD, ("1", "2"), HARD]
            grades = list(processes.map(grader.grade, *zip(*rows, strict=True), ["answer"] * 3))
    assert [grade.verdict for grade in grades] == ["correct", "wrong", "correct"]


def test_copies_of_a_grader_share_its_workers():
    copies = [pickle.loads(pickle.dumps(Grader(workers=1, timeout=29))) for _ in range(3)]
    assert {graded(copy) for copy in copies} == {"correct"}
    assert len(workers()) == 1
    copies[0].close()
    assert not workers()


def test_a_forgotten_grader_leaves_no_process():
    grader = Grader(workers=1, timeout=30)
    assert graded(grader) == "correct"
    assert len(workers()) == 1
    del grader
    gc.collect()
    assert not workers()


def test_one_off_grade_leaves_no_process():
    assert grade(*HARD, kind="answer").verdict == "correct"
    assert not workers()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="workers=0"):
        Grader(workers=0)
    for timeout in (0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"timeout={timeout}"):
            Grader(timeout=timeout)
    with pytest.raises(ValueError, match="'text'"):
        grade("1", "1", kind="text")  # pyright: ignore[reportArgumentType]


def workers():
    return [
        process
        for process in psutil.Process().children()
        if "jaxcritique.grading.worker" in process.cmdline()
    ]
