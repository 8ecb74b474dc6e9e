"""What one key may see of another's over HTTP: nothing."""

from running import TINY

MINE, OTHER = ({"authorization": f"Bearer {key}"} for key in ("mine", "other"))


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
