"""Show why a task failed: Docker's output and the end of its log."""

from stack import progress
from stack.engine import failures
from stack.release.rollout import NotArrived
from stack.release.target import Target
from stack.swarm.task_logs import Reader

# How many of its last lines to show when a task failed.
CULPRIT_LINES = 20


def show_cause(target: Target, failure: NotArrived) -> None:
    """Print Docker's output for a failure, and the last log lines of the task that caused it.

    An unreadable log is only reported: the failure and its remedy matter more.
    """
    progress.quote(failure.said)
    if not failure.task:
        return
    try:
        reader = Reader(target, "", {"id": failure.task}, CULPRIT_LINES)
        progress.quote([line.text for line in reader.read()])
        causes = list(reader.unread.values())
    except Exception as error:
        causes = [failures.cause_of(error)]
    progress.quote([f"its log can't be read: {cause}" for cause in causes])
