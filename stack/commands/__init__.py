"""What does each ./fab task do? What the rooms report is shown on the console."""

from stack import progress
from stack.commands import (
    bootstrap, cloud_init, command_line, deploy, destroy, history, lock, logs, node, plan, rollback,
    scale, shell, status)
from stack.console.observer import ConsoleObserver

__all__ = ["bootstrap", "cloud_init", "command_line", "deploy", "destroy", "history", "lock",
           "logs", "node", "plan", "rollback", "scale", "shell", "status"]

progress.observe(ConsoleObserver())
