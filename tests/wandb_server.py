"""A stand-in for W&B's server: answers what the client asks, and remembers what it was sent."""

import gzip
import http.server
import json
import re
import threading
from collections import defaultdict
from contextlib import contextmanager

ENTITY = {"id": "entity", "name": "team"}


class StandIn(http.server.ThreadingHTTPServer):
    """The server, on a free port of this machine.

    Attributes:
        asked: names and variables of the GraphQL operations, in order.
        runs: id -> what the run was told of: name, group, job type, configuration.
        history: id -> rows.
        files: path -> content of uploaded files.
        used: (run, artifact) of every artifact that a run noted as used.
        created: id -> what the artifact was told of.
        sweep: what the sweep was made of; ``points`` are the runs that its agents get.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Request)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked, self.runs, self.history, self.files = [], {}, defaultdict(list), {}
        self.used, self.created, self.views = [], {}, []
        self.sweep, self.points, self.unknown = {}, [], set()
        self.ended = {}

    def handle_error(self, request, client_address):
        """Say nothing: clients close connections that they keep."""

    def variables(self, operation):
        return [variables for name, variables in self.asked if name == operation]

    def answer(self, operation, variables, query):
        self.asked.append((operation, variables))
        answer = getattr(self, f"on_{operation}", None)
        if answer is None:
            self.unknown.add(operation)
            return None
        return answer(**variables) if not re.search(r"\$input\b", query) else answer(**variables["input"])

    # What is asked of a run

    def on_Viewer(self):
        teams = {"edges": [{"node": {"name": "team"}}]}
        return {"viewer": {"id": "user", "entity": "team", "username": "user", "flags": "{}", "teams": teams}}

    on_GetDefaultEntity = on_Viewer

    def on_ServerFeaturesQuery(self):
        return {"serverInfo": {"features": []}}

    def on_UpsertBucket(self, name, project, **others):
        told = self.runs.setdefault(name, {"project": project})
        told |= {key: value for key, value in others.items() if value is not None}
        bucket = {
            "id": name,
            "name": name,
            "displayName": told.get("displayName") or name,
            "description": None,
            "config": "{}",
            "sweepName": told.get("sweep"),
            "project": {"id": "project", "name": project, "entity": ENTITY},
            "historyLineCount": 0,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def on_RunResumeStatus(self, project, **others):
        return {"model": {"id": "project", "name": project, "entity": ENTITY, "bucket": None}}

    def on_CreateRunFiles(self, run, files, **others):
        urls = [{"name": name, "uploadUrl": f"{self.url}/storage/{run}/{name}"} for name in files]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": urls}}

    # Artifacts

    def on_XXHashDigestsEnabled(self, **others):
        return {"entity": {"xxhashDigestsEnabled": False}}

    def on_CreateArtifact(self, digest, artifactCollectionName, **others):
        """As the server does: what has the same name and content is the same artifact."""
        name = f"{artifactCollectionName}:{digest[:8]}"
        state = "COMMITTED" if name in self.created else "PENDING"
        self.created.setdefault(name, {"digest": digest, **others})
        artifact = {"id": name, "state": state, "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, artifactID, **others):
        file = {"id": "file", "uploadUrl": f"{self.url}/storage/{artifactID}/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}

    def on_CreateArtifactFiles(self, artifactFiles, **others):
        nodes = [
            {
                "storagePath": file["name"],
                "uploadUrl": f"{self.url}/storage/{file['artifactID']}/{file['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in artifactFiles
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CommitArtifact(self, artifactID):
        return {"commitArtifact": {"artifact": {"id": artifactID, "digest": ""}}}

    def on_UseArtifact(self, artifactID, runName, **others):
        self.used.append((runName, artifactID))
        return {"useArtifact": {"artifact": {"id": artifactID}}}

    def on_ArtifactByID(self, id, **others):
        name = id.partition(":")[0]
        project = {"id": "project", "internalId": "1", "name": "asr-dni", "entity": {"name": "team"}}
        sequence = {"__typename": "ArtifactSequence", "name": name, "project": project}
        artifact = {
            **dict.fromkeys(("description", "historyStep", "commitHash"), None),
            "ttlDurationSeconds": -1,
            **{"__typename": "Artifact", "id": id, "artifactSequence": sequence, "versionIndex": 0},
            **{"artifactType": {"name": "model"}, "metadata": "{}", "ttlIsInherited": False, "tags": []},
            **{"state": "COMMITTED", "size": "1", "digest": self.created[id]["digest"], "fileCount": 1},
            **{"createdAt": "2026-01-01T00:00:00Z", "updatedAt": None, "aliases": []},
        }
        return {"artifact": artifact}

    # Workspaces

    def on_UpsertView2(self, **view):
        self.views.append(view)
        return {"upsertView": {"view": {"id": "view", "name": view["name"]}, "inserted": True}}

    def on_View(self, **others):
        saved = self.views[-1]
        node = {"id": "view", "displayName": saved["displayName"], "spec": saved["spec"]}
        return {"project": {"allViews": {"edges": [{"node": node}]}}}


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def _say(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self._say({})

    def do_PUT(self):
        self.server.files[self.path.removeprefix("/storage/")] = self._body()
        self._say({})

    def do_POST(self):
        content = self._body()
        if self.path.endswith("/graphql"):
            asked = json.loads(content)
            named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            operation = asked.get("operationName") or named[1]
            answer = self.server.answer(operation, asked.get("variables") or {}, asked["query"])
            self._say({"errors": [{"message": operation}]} if answer is None else {"data": answer})
            return
        if self.path.endswith("/file_stream"):
            run, told = self.path.split("/")[-2], json.loads(content)
            rows = told.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.history[run] += map(json.loads, rows)
            if told.get("complete"):
                self.server.ended[run] = told.get("exitcode")
        self._say({})

    def log_message(self, *arguments):
        pass


@contextmanager
def standing_in():
    """Run the server while the block lasts."""
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
