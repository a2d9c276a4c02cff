"""Keep machines running for manual use: `python -m tests.lab up | ssh NAME | down`."""

from __future__ import annotations

import argparse
import sys

from tests.lab import standing
from tests.lab.errors import LabError


def main() -> None:
    """Run one command; print a LabError as one line."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except LabError as error:
        sys.exit(f"lab: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="boot machines that stay until `down`")
    up.add_argument("--machines", type=int, default=1, metavar="N")
    up.set_defaults(run=lambda given: standing.up(given.machines))
    ssh = commands.add_parser("ssh", help="log in to a machine, or run a command there")
    ssh.add_argument("--user", default="deploy")
    ssh.add_argument("name")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    ssh.set_defaults(run=lambda given: standing.ssh(given.name, given.command, given.user))
    down = commands.add_parser("down", help="end the machines and remove all traces")
    down.set_defaults(run=lambda given: standing.down())
    # `up` starts it in the background; it isn't a command for people.
    hold = commands.add_parser("hold")
    hold.add_argument("machines", type=int)
    hold.set_defaults(run=lambda given: standing.hold(given.machines))
    return parser


if __name__ == "__main__":
    main()
