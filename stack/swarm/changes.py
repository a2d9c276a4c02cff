"""Change an object of the Swarm, such as a node or a service."""

from collections.abc import Callable, Mapping

from stack.engine.failures import EngineError
from stack.engine.objects import UPDATE_TIMEOUT, Object, Objects
from stack.errors import OperatorError

TRIES = 5


def change(objects: Objects, key: str, name: str,
           edit: Callable[[Object], Mapping[str, object]]) -> bool:
    """Change the definition of an object, by its id or name; return whether it differed.

    Reads and edits it again where somebody else changed it in between. Raises OperatorError,
    which calls it by `name`, after five tries, and EngineError.
    """
    for _ in range(TRIES):
        found = objects.inspect(key, UPDATE_TIMEOUT)
        wanted = dict(edit(found["Spec"]))
        if wanted == found["Spec"]:
            return False
        try:
            objects.update(found, wanted)
            return True
        except EngineError as error:
            if "out of sequence" not in str(error):
                raise
    raise OperatorError(f"could not update {name}: it kept changing ({TRIES} tries)",
                        "./fab status")
