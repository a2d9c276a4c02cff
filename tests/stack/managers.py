"""Stand-ins for the managers of a Swarm that a command asks."""

from stack.machine import LocalMachine


class Unreachable(LocalMachine):
    """Managers of which none can be reached any more."""

    @property
    def alive(self) -> bool:
        return False


class Several(LocalMachine):
    """Several managers; counts how often another one was to be asked."""

    passed_over = 0

    def pass_over(self) -> None:
        self.passed_over += 1
