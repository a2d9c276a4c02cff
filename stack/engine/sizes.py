"""Read sizes as Docker writes them."""

from docker.utils import parse_bytes

from stack.engine.failures import translated


def in_bytes(text: str) -> int:
    """Return a size such as 384M or 1GiB in bytes."""
    with translated():
        # Docker's command line takes a MiB, which the SDK doesn't know.
        return int(parse_bytes(text.lower().replace("ib", "b")))
