"""Read the line that an operator sees."""

from collections.abc import Callable

import pytest

from stack.errors import OperatorError, Refused


def error_of(call: Callable[[], object], kind: type[OperatorError] = Refused) -> str:
    """Return the message of the error that a call must raise."""
    with pytest.raises(kind) as raised:
        call()
    assert type(raised.value) is kind
    line = str(raised.value.message)
    assert len(line.splitlines()) == 1
    return line
