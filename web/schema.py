"""Write what the page takes from the server: its OpenAPI document, for the client's types, and tables."""

import json
import sys
from pathlib import Path
from typing import Any

from sfumato.server.app import application
from sfumato.server.error_codes import SENTENCES
from sfumato.server.settings import ServerSettings


def main() -> None:
    """The paths of the page's API alone, without the version; the defaults of a request's fields; and the
    forms of the server's sentences, in the order in which they are tried.
    """
    document = application(ServerSettings()).openapi()
    document["info"]["version"] = "0"
    document["paths"] = {
        path: item for path, item in document["paths"].items() if path.startswith("/api/v1/")
    }
    defaults = {
        name: field.get("default")
        for name, field in document["components"]["schemas"]["DrawRequest"]["properties"].items()
    }
    _write("request-defaults", dict(sorted(defaults.items())))
    # JavaScript names groups without the P
    _write("error-sentences", {code: each.replace("(?P<", "(?<") for code, each in SENTENCES.items()})
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    print()


def _write(name: str, content: dict[str, Any]) -> None:
    path = Path(__file__).parent / "src" / "lib" / f"{name}.json"
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


main()
