"""Write the server's OpenAPI document, from which the types of the page's client are made."""

import json
import sys

from sfumato.server.app import application
from sfumato.server.settings import ServerSettings


def main() -> None:
    """The paths of the page's API alone, without the version."""
    document = application(ServerSettings()).openapi()
    document["info"]["version"] = "0"
    document["paths"] = {
        path: item for path, item in document["paths"].items() if path.startswith("/api/v1/")
    }
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    print()


main()
