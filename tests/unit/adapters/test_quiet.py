import sys
import threading
import warnings

from elcrec.adapters.quiet import quiet


def test_threads_inside_at_once_leave_streams_and_filters_as_they_were() -> None:
    before = (sys.stdout, sys.stderr, list(warnings.filters))
    inside, leave = threading.Barrier(2), threading.Event()

    def stay() -> None:
        with quiet():
            inside.wait()
            leave.wait()

    thread = threading.Thread(target=stay)
    with quiet():
        thread.start()
        inside.wait()
    assert sys.stdout is not before[0], "the other thread is still inside"
    leave.set()
    thread.join()

    assert (sys.stdout, sys.stderr, list(warnings.filters)) == before
