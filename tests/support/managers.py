"""Stand-ins for the managers of a Swarm."""

from stack.machines.local import LocalMachine


class Unreachable(LocalMachine):
    """Managers that can't be reached."""

    @property
    def alive(self) -> bool:
        return False


class Several(LocalMachine):
    """Several managers; it counts how often a command turns to another one."""

    passed_over = 0

    def pass_over(self) -> None:
        self.passed_over += 1
