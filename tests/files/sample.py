"""Sample values for the variables of docker-stack.yml."""

from tests.files.tree import ROOT

STACK_FILE = ROOT / "docker-stack.yml"
VARIABLES: dict[str, str | int] = {
    "APP_IMAGE": "registry.example.org/tally/app:1.4.0-57",
    "POSTGRES_IMAGE": "registry.example.org/tally/postgres:0123456789ab",
    "TRAEFIK_IMAGE": "registry.example.org/tally/traefik:0123456789ab",
    "SOCKET_PROXY_IMAGE": "registry.example.org/tally/socket-proxy:0123456789ab",
    "APP_PASSWORD": "app-password-0123456789ab",
    "OWNER_PASSWORD": "owner-password-0123456789ab",
    "VISITOR_KEY": "visitor-key-0123456789ab",
    "HTTP_PORT": 8080,
    "HTTPS_PORT": 8443,
    "APP_REPLICAS": 3,
    "USER_NAME": "Ada: $5 \"and\" #more",
    "USER_URL": "",
    "DOCKER_GID": "998", "OVERLAY_MTU": "1450",
}
