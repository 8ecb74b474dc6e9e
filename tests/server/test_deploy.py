"""The files with which a server is deployed name what there is."""

import re
from pathlib import Path

import pytest
import yaml

from sfumato.server.settings import ServerSettings

FOLDER = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes.yaml", "sfumato.service"])
def test_every_setting_is_one_of_the_servers(name):
    named = re.findall(r"SFUMATO_SERVE_([A-Z_]+)", (FOLDER / name).read_text("utf-8"))
    assert named
    assert {each.lower() for each in named} <= ServerSettings.model_fields.keys()


def test_probes_ask_for_what_the_server_answers(server):
    parts = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text("utf-8")))
    (deployment,) = (each for each in parts if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for probe in (container["readinessProbe"], container["livenessProbe"]):
        asked = probe["httpGet"]
        headers = {each["name"]: each["value"] for each in asked["httpHeaders"]}
        assert server.http.get(asked["path"], headers=headers).status_code == 200


def test_compose_builds_the_dockerfile_that_is_there():
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
    build = services["server"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).samefile(FOLDER / "Dockerfile")
    assert services["server"]["depends_on"].keys() < services.keys()
