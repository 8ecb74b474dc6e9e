"""What one key may see of another's over HTTP: nothing."""

import time

from running import TINY

MINE, OTHER = ({"authorization": f"Bearer {key}"} for key in ("mine", "other"))
BUDGET = 1 << 20


def test_another_keys_jobs_and_pictures_are_not_there(start):
    server = start("--api-key", "mine", "--api-key", "other")
    job = server.submit(headers=MINE, **TINY)
    server.http.headers = MINE
    done = server.wait(job["id"])
    assert done["state"] == "done"
    picture = f"/api/v1/pictures/{done['pictures'][0]['id']}"
    for method, path in [
        ("GET", f"/api/v1/jobs/{job['id']}"),
        ("DELETE", f"/api/v1/jobs/{job['id']}"),
        ("GET", f"/api/v1/jobs/{job['id']}/events"),
        ("GET", picture),
        ("GET", f"{picture}/file"),
        ("GET", f"{picture}/thumbnail"),
        ("GET", f"{picture}/record"),
        ("DELETE", picture),
        ("POST", f"{picture}/restore"),
    ]:
        assert server.http.request(method, path, headers=OTHER).status_code == 404, path
    for path in ("/api/v1/jobs", "/api/v1/pictures"):
        assert server.http.get(path, headers=OTHER).json() == []
        assert len(server.http.get(path, headers=MINE).json()) == 1
    assert server.http.get(f"{picture}/file", headers=MINE).status_code == 200


def test_a_key_that_passes_its_disk_budget_loses_its_own_oldest_pictures(start):
    budget = {"SFUMATO_SERVE_DISK_PER_KEY": "1"}
    server = start("--api-key", "mine", "--api-key", "other", env=budget)
    noise = {**TINY, "width": 256, "height": 256}
    kept = server.submit(headers=OTHER, **noise, seed=1)
    server.http.headers = MINE
    pictures = server.wait(server.submit(**noise, count=4, seed=2)["id"])["pictures"]
    server.http.patch(f"/api/v1/pictures/{pictures[1]['id']}", json={"favourite": True}).raise_for_status()
    last = server.wait(server.submit(**noise, count=26, seed=9)["id"])["pictures"]
    assert sum(each["bytes"] for each in (*pictures, *last)) > BUDGET

    def left():
        return server.http.get("/api/v1/pictures", params={"limit": 100}).json()

    while sum(each["bytes"] for each in left()) > BUDGET:
        time.sleep(0.05)
    names = {each["id"] for each in left()}
    assert {pictures[1]["id"], last[-1]["id"]} <= names
    assert pictures[0]["id"] not in names
    assert server.http.get(f"/api/v1/jobs/{kept['id']}", headers=OTHER).json()["pictures"]
