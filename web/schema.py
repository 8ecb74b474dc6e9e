"""Write the server's OpenAPI document, from which the types of the page's client are made."""

import json
import sys
from pathlib import Path

from sfumato.server.app import application
from sfumato.server.settings import ServerSettings


def main() -> None:
    """The paths of the page's API alone, without the version; and the defaults of a request's fields."""
    document = application(ServerSettings()).openapi()
    document["info"]["version"] = "0"
    document["paths"] = {
        path: item for path, item in document["paths"].items() if path.startswith("/api/v1/")
    }
    defaults = {
        name: field.get("default")
        for name, field in document["components"]["schemas"]["DrawRequest"]["properties"].items()
    }
    path = Path(__file__).parent / "src" / "lib" / "request-defaults.json"
    path.write_text(json.dumps(defaults, indent=2, sort_keys=True) + "\n", "utf-8")
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    print()


main()
