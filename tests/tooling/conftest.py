"""The tooling's tests share the machine and command fixtures of stack's tests."""

from tests.stack.conftest import add_command, machine, no_commands

__all__ = ["add_command", "machine", "no_commands"]
