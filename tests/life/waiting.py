"""Waiting for conditions instead of sleeping."""

import time


def wait_until(condition, what, seconds=5.0, pause=0.02):
    """Returns the first true answer of `condition`; fails, naming `what`, when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} (last answer: {answer!r})")
        time.sleep(pause)
