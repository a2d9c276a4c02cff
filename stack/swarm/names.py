"""The names and labels by which Swarm knows the stack."""

STACK = "tally"
# Docker's own label of what belongs to a stack, and a filter for it.
NAMESPACE = "com.docker.stack.namespace"
OF_STACK = {"label": f"{NAMESPACE}={STACK}"}
# A service label: when its stuck update was restarted. Changing it restarts no task.
RESTARTED_AT = "tally.begun-anew"
