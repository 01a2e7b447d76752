"""`python -m support.fake_hub FOLDER`: the parts of the hub's HTTP API that are asked, on a port of its own.

It says its address on stdout. What was committed lies in FOLDER/<owner>/<name>, and what was asked in
FOLDER/requests.jsonl. The token `TOKEN` may write for the owner `me`, and the repository `me/open` is there, for all
to read.

A dataset's files lie in FOLDER/datasets/<owner>/<name>/<commit>, and FOLDER/datasets/<owner>/<name>.json says which
commit each of its revisions is. Those of the owner `gated` are for `TOKEN` only, those of `closed` for nobody, and a
file that is called `slow` never comes to its end.
"""

import asyncio
import base64
import hashlib
import json
import re
import sys
from pathlib import Path

from aiohttp import web

TOKEN = "hf_secretofthetest"  # noqa: S105 - of no hub
OWNER = "me"
FOLDER = Path(sys.argv[1]) if __name__ == "__main__" else Path()
routes = web.RouteTableDef()
repositories: dict[str, bool] = {"me/open": False}
"""Which there are, and whether each is private."""


def refused(status: int, words: str) -> web.Response:
    return web.json_response({"error": words}, status=status, headers={"X-Error-Message": words})


@web.middleware
async def check(request: web.Request, handler: web.RequestHandler) -> web.StreamResponse:
    with (FOLDER / "requests.jsonl").open("a") as file:
        file.write(json.dumps([request.method, request.path]) + "\n")
    if (
        not request.path.startswith(("/lfs/", "/datasets/", "/api/datasets/"))
        and request.headers.get("Authorization") != f"Bearer {TOKEN}"
    ):
        return refused(401, "Invalid username or password.")
    return await handler(request)  # type: ignore[operator, no-any-return]


@routes.post("/api/repos/create")
async def create(request: web.Request) -> web.Response:
    body = await request.json()
    owner = body["organization"] or OWNER
    if owner != OWNER:
        return refused(403, f"You don't have the rights to create a model under the namespace {owner!r}.")
    repo_id = f"{owner}/{body['name']}"
    answer = {"url": f"{request.url.origin()}/{repo_id}", "name": repo_id}
    if repo_id in repositories:
        return web.json_response({"error": "You already created this model repo", **answer}, status=409)
    repositories[repo_id] = body.get("visibility") == "private"
    return web.json_response(answer)


@routes.get("/api/models/{owner}/{name}")
async def info(request: web.Request) -> web.Response:
    repo_id = "{owner}/{name}".format(**request.match_info)
    if repo_id not in repositories:
        return refused(404, "Repository not found")
    return web.json_response({"id": repo_id, "private": repositories[repo_id], "sha": "0" * 40, "siblings": []})


@routes.post("/api/validate-yaml")
async def validate(request: web.Request) -> web.Response:
    head = (await request.json())["content"].split("---\n")[1]
    base = re.search(r'^base_model: "?([^"\n]*)', head, re.MULTILINE)
    if base and not re.fullmatch(r"[\w.-]+/[\w.-]+", base[1]):
        words = f'"base_model" with value "{base[1]}" is not valid. Use a model id from https://hf.co/models.'
        return web.json_response({"errors": [{"message": words}], "warnings": []}, status=400)
    return web.json_response({"errors": [], "warnings": []})


@routes.post("/api/models/{owner}/{name}/preupload/main")
async def preupload(request: web.Request) -> web.Response:
    names = [file["path"] for file in (await request.json())["files"]]
    modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
    files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
    return web.json_response({"files": files})


@routes.post("/{owner}/{name}.git/info/lfs/objects/batch")
async def batch(request: web.Request) -> web.Response:
    wanted = (await request.json())["objects"]
    actions = {one["oid"]: {"upload": {"href": f"{request.url.origin()}/lfs/{one['oid']}"}} for one in wanted}
    return web.json_response({"objects": [{**one, "actions": actions[one["oid"]]} for one in wanted]})


@routes.put("/lfs/{oid}")
async def upload(request: web.Request) -> web.Response:
    data, oid = await request.read(), request.match_info["oid"]
    if hashlib.sha256(data).hexdigest() != oid:
        return refused(400, "Other bytes than were announced")
    (FOLDER / oid).write_bytes(data)
    return web.Response()


@routes.post("/api/models/{owner}/{name}/commit/main")
async def commit(request: web.Request) -> web.Response:
    repo_id = "{owner}/{name}".format(**request.match_info)
    for line in (await request.read()).splitlines():
        match json.loads(line):
            case {"key": "file", "value": value}:
                data = base64.b64decode(value["content"])
            case {"key": "lfsFile", "value": value}:
                data = (FOLDER / value["oid"]).read_bytes()
            case _:
                continue
        place = FOLDER / repo_id / value["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return web.json_response({"commitUrl": f"{request.url.origin()}/{repo_id}/commit/c0ffee", "commitOid": "c0ffee"})


def commit_of(request: web.Request) -> str:
    """The commit of the dataset that is asked for."""
    path = FOLDER / "datasets" / "{owner}/{name}.json".format(**request.match_info)
    if not path.is_file():
        raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
    commits: dict[str, str] = json.loads(path.read_text())
    revision = request.match_info["revision"]
    if revision not in commits and not (path.with_suffix("") / revision).is_dir():
        raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
    return commits.get(revision, revision)


def folder_of(request: web.Request) -> Path:
    """Where its files lie, for whom they are."""
    commit = commit_of(request)
    owner, authorized = request.match_info["owner"], request.headers.get("Authorization") == f"Bearer {TOKEN}"
    if owner == "closed" or (owner == "gated" and not authorized):
        headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this dataset is restricted."}
        if owner == "closed" or "Authorization" in request.headers:
            raise web.HTTPForbidden(headers=headers)
        raise web.HTTPUnauthorized(headers=headers)
    return FOLDER / "datasets" / "{owner}/{name}".format(**request.match_info) / commit


def entry_of(path: Path, folder: Path) -> dict[str, object]:
    kind, size = ("directory", 0) if path.is_dir() else ("file", path.stat().st_size)
    oid = hashlib.sha1(str(path).encode()).hexdigest()  # noqa: S324 - as git has it
    return {"type": kind, "path": path.relative_to(folder).as_posix(), "size": size, "oid": oid}


@routes.get("/api/datasets/{owner}/{name}/revision/{revision}")
async def revision(request: web.Request) -> web.Response:
    return web.json_response({"id": "{owner}/{name}".format(**request.match_info), "sha": commit_of(request)})


@routes.get("/api/datasets/{owner}/{name}/tree/{revision}")
@routes.get("/api/datasets/{owner}/{name}/tree/{revision}/{path:.*}")
async def tree(request: web.Request) -> web.Response:
    folder = folder_of(request)
    inside = folder / request.match_info.get("path", "")
    if not inside.is_dir():
        return web.json_response({"error": "Not found"}, status=404, headers={"X-Error-Code": "EntryNotFound"})
    found = inside.rglob("*") if request.query.get("recursive", "").lower() == "true" else inside.iterdir()
    return web.json_response([entry_of(path, folder) for path in sorted(found)])


@routes.post("/api/datasets/{owner}/{name}/paths-info/{revision}")
async def paths_info(request: web.Request) -> web.Response:
    folder = folder_of(request)
    asked = (await request.json())["paths"]
    return web.json_response([entry_of(folder / path, folder) for path in asked if (folder / path).exists()])


@routes.get("/datasets/{owner}/{name}/resolve/{revision}/{path:.*}")
async def resolve(request: web.Request) -> web.StreamResponse:
    folder = folder_of(request)
    path = folder / request.match_info["path"]
    if not path.is_file():
        raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
    if path.stem == "slow" and request.method == "GET":
        response = web.StreamResponse(headers={"Content-Length": str(path.stat().st_size)})
        await response.prepare(request)
        await asyncio.sleep(3600)
    etag = str(entry_of(path, folder)["oid"])
    return web.FileResponse(path, headers={"X-Repo-Commit": folder.name, "X-Linked-Etag": f'"{etag}"'})


def say(url: str) -> None:
    sys.stdout.write(url + "\n")
    sys.stdout.flush()


async def main() -> web.Application:
    app = web.Application(middlewares=[check], client_max_size=1 << 30)  # type: ignore[list-item]
    app.add_routes(routes)
    return app


if __name__ == "__main__":

    async def serve() -> None:
        runner = web.AppRunner(await main())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        say(f"http://127.0.0.1:{runner.addresses[0][1]}")
        await asyncio.Event().wait()

    asyncio.run(serve())
