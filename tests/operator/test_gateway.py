"""The gateway's application over HTTP: who may have what, ranges, restarts, lost volumes, trust that goes back."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_contract import bundle, keys, names, trust
from edgewright_contract.digests import digest_of
from edgewright_operator.gateway import access, answers, app, blobs, index, intake, ranges, trusted
from edgewright_operator.mlflow import MlflowRegistry

OPERATOR = "system:serviceaccount:edgewright:operator"
AGENT = "system:serviceaccount:edgewright:agent"
MODEL = "nilm-test"
FIRST = ("nodeA", AGENT)


@dataclass
class World:
    """MLflow, the API server and the volume, as the gateway sees them."""

    files: dict[str, bytes]
    manifest: str
    folder: Path
    root: Any
    release_key: Any
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    now: float = 1000.0
    mlflow_up: bool = True
    api_status: int = 0

    def mlflow(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.path)
        if not self.mlflow_up:
            raise httpx2.ConnectError("away")
        path = request.url.path
        if path.endswith("/registered-models/get"):
            found = request.url.params["name"] == MODEL
            return httpx2.Response(200, json={}) if found else _gone()
        if path.endswith("/get-download-uri"):
            found = (request.url.params["name"], request.url.params["version"]) == (MODEL, "1")
            return httpx2.Response(200, json={"artifact_uri": "mlflow-artifacts:/1/m"}) if found else _gone()
        if path.endswith("/model-versions/search"):
            tags = [{"key": names.TAG_MANIFEST, "value": self.manifest}]
            return httpx2.Response(200, json={"model_versions": [{"version": "1", "tags": tags}]})
        data = self.files.get(path.removeprefix("/api/2.0/mlflow-artifacts/artifacts/1/m/"))
        return httpx2.Response(404) if data is None else httpx2.Response(200, content=data)

    def api(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.path)
        if self.api_status:
            return httpx2.Response(self.api_status)
        if request.url.path.endswith("/tokenreviews"):
            token = json.loads(request.content)["spec"]["token"]
            if token not in self.tokens:
                return httpx2.Response(201, json={"status": {"authenticated": False}})
            node, user = self.tokens[token]
            extra = {names.EXTRA_NODE_NAME: [node]} if node else {}
            status = {"authenticated": True, "audiences": [names.GATEWAY_AUDIENCE]}
            return httpx2.Response(201, json={"status": {**status, "user": {"username": user, "extra": extra}}})
        spec = self.specs.get(request.url.path.rpartition("/")[2])
        return httpx2.Response(404) if spec is None else httpx2.Response(200, json={"spec": spec})

    def digest(self, path: str) -> str:
        return digest_of(self.files[f"release/{path}"])

    def trust_document(self, sequence: int, **changed: Any) -> None:
        pem = keys.public_pem(self.release_key.public_key()).decode()
        body = {"release_keys": [trust.ReleaseKey(public_key=pem, registered_models=["nilm-*"])], **changed}
        (self.folder / "trust.json").write_bytes(trust.sign(trust.Trust(sequence=sequence, **body), self.root))

    def trust_digest(self) -> str:
        return digest_of((self.folder / "trust.json").read_bytes())

    def intake(self) -> intake.Intake:
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self.mlflow))
        cache = self.folder / "cache"
        keeper = trusted.TrustKeeper(self.folder / "trust.json", cache / "trust.json", self.root.public_key())
        registry = MlflowRegistry("http://mlflow", client)
        held, kept = index.Index(cache / "releases"), blobs.Blobs(cache / "blobs")
        held.sweep(kept)
        return intake.Intake(registry, kept, held, keeper, clock=lambda: self.now)

    def start(self) -> httpx2.AsyncClient:
        """A gateway process that begins with what the volume holds."""
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self.api), base_url="http://api")
        guard = access.Access(client, OPERATOR, ["system:serviceaccount:edgewright:*"], clock=lambda: self.now)
        application = app.create(self.intake(), guard)
        transport = httpx2.ASGITransport(application, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://gateway")


def _gone() -> httpx2.Response:
    return httpx2.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"})


def stored(unsigned: Any, key: Any, version: int = 1) -> dict[str, bytes]:
    files = unsigned.numbered(version, 100)
    found = {f"release/{path}": data for path, data in files.items()}
    return {**found, names.MANIFEST_FILE: bundle.sign(MODEL, files, key)}


@pytest.fixture
def world(small_release: Callable[..., Any], tmp_path: Path) -> World:
    root, key = keys.generate(), keys.generate()
    files = stored(small_release(MODEL), key)
    made = World(files, digest_of(files[names.MANIFEST_FILE]), tmp_path, root, key)
    made.trust_document(5)
    made.tokens = {"op": (None, OPERATOR), "a": FIRST, "b": ("nodeB", AGENT)}
    live = {"version": 1, "sequence": 100, "manifest": made.manifest, "variant": "base-int8"}
    model = {"name": "default/nilm", "registeredModel": MODEL, "live": live}
    made.specs = {"nodeA": {"trust": made.trust_digest(), "models": [model]}, "nodeB": {}}
    return made


@pytest.fixture
async def gateway(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    async with world.start() as client:
        yield client


def token(name: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}", **headers}


def blob(digest: str) -> str:
    return f"/blobs/sha256/{digest.removeprefix('sha256:')}"


def asking(world: World, **changed: Any) -> dict[str, Any]:
    return {"registeredModel": MODEL, "version": 1, "manifest": world.manifest, **changed}


async def taken(gateway: httpx2.AsyncClient, world: World) -> httpx2.Response:
    return await gateway.post("/releases", json=asking(world), headers=token("op"))


async def test_a_person_who_opens_the_address_reads_what_it_is(gateway: httpx2.AsyncClient) -> None:
    answer = await gateway.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert "Edgewright model gateway" in answer.text
    assert "/metrics" in answer.text


async def test_the_operator_gets_the_parsed_release_and_a_node_its_files(
    gateway: httpx2.AsyncClient, world: World
) -> None:
    answer = await taken(gateway, world)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["manifest"], body["trust"]) == (world.manifest, world.trust_digest())
    assert body["release"]["registeredModel"] == MODEL
    for digest, data in (
        (world.manifest, world.files[names.MANIFEST_FILE]),
        (world.digest("variants/base-int8.onnx"), world.files["release/variants/base-int8.onnx"]),
        (world.digest(names.RELEASE_FILE), world.files["release/release.json"]),
        (world.digest(names.GOLDEN_FILE), world.files["release/golden.u16"]),
        (world.trust_digest(), (world.folder / "trust.json").read_bytes()),
    ):
        file = await gateway.get(blob(digest), headers=token("a"))
        assert (file.status_code, file.content) == (200, data)
        assert file.headers["ETag"] == f'"{digest}"'
        assert "immutable" in file.headers["Cache-Control"]


@pytest.mark.parametrize("header", [None, "", "Basic YQ==", "Bearer", "Bearer ", "Bearer wrong"])
async def test_401_without_a_good_token(gateway: httpx2.AsyncClient, world: World, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for answer in (
        await gateway.get(blob(world.manifest), headers=headers),
        await gateway.get("/trust", headers=headers),
        await gateway.post("/releases", content=b"x" * 100_000, headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.json()["reason"] == "Unauthenticated"
        assert names.GATEWAY_AUDIENCE in answer.json()["message"]


async def test_a_refused_token_is_not_reviewed_again_at_once(gateway: httpx2.AsyncClient, world: World) -> None:
    for _ in range(5):
        await gateway.get("/trust", headers=token("wrong"))
    assert len(world.asked) == 1
    world.now += access.REFUSED_SECONDS
    await gateway.get("/trust", headers=token("wrong"))
    assert len(world.asked) == 2


async def test_junk_of_ever_new_spelling_costs_the_api_server_a_bounded_number_of_questions(
    gateway: httpx2.AsyncClient, world: World
) -> None:
    assert (await gateway.get("/trust", headers=token("a"))).status_code == 200
    world.asked.clear()
    told = [await gateway.get("/trust", headers=token(f"junk-{number}")) for number in range(2_000)]
    assert world.asked.count("/apis/authentication.k8s.io/v1/tokenreviews") == access.STRANGERS_AT_ONCE - 1
    assert {answer.status_code for answer in told} == {401, 429}
    assert (told[-1].json()["reason"], told[-1].headers["Retry-After"]) == ("Busy", "1")
    world.now += access.REVIEW_SECONDS  # a known token is reviewed anew all the same, and gets its file
    assert (await gateway.get("/trust", headers=token("a"))).status_code == 200
    world.asked.clear()
    world.now += 1.0
    for number in range(2_000, 5_000):
        await gateway.get("/trust", headers=token(f"junk-{number}"))
    burst = access.STRANGERS_PER_SECOND * (access.REVIEW_SECONDS + 1.0)
    assert len(world.asked) <= burst
    world.now += 1.0
    assert (await gateway.get("/trust", headers=token("b"))).status_code == 200  # a genuine one that is new


async def test_a_review_is_believed_for_ten_seconds_and_no_longer(gateway: httpx2.AsyncClient, world: World) -> None:
    assert (await gateway.get("/trust", headers=token("a"))).status_code == 200
    del world.tokens["a"]  # its Node was deleted
    assert (await gateway.get("/trust", headers=token("a"))).status_code == 200
    world.now += access.REVIEW_SECONDS
    assert (await gateway.get("/trust", headers=token("a"))).status_code == 401


@pytest.mark.parametrize(
    ("caller", "path", "told"),
    [
        ((None, AGENT), "release/release.json", "not bound to a Node"),
        (("nodeA", "system:serviceaccount:default:agent"), "release/release.json", "is no agent"),
        (("nodeA", "system:serviceaccount:edgewright-evil:agent"), "release/release.json", "is no agent"),
        (("nodeA", "somebody"), "release/release.json", "is no agent"),
        (("nodeB", AGENT), "release/release.json", "does not name"),
        (("nodeC", AGENT), "release/release.json", "there is no EdgeNode nodeC"),
        (FIRST, "release/variants/base-fp32.onnx", "does not name"),
        ((None, OPERATOR), "release/release.json", "not bound to a Node"),
    ],
)
async def test_403_for_what_the_nodes_own_object_does_not_name(
    gateway: httpx2.AsyncClient, world: World, caller: tuple[str | None, str], path: str, told: str
) -> None:
    await taken(gateway, world)
    world.tokens["t"] = caller
    answer = await gateway.get(blob(digest_of(world.files[path])), headers=token("t"))
    assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
    assert told in answer.json()["message"]


async def test_403_for_an_agent_that_asks_for_releases(gateway: httpx2.AsyncClient, world: World) -> None:
    answer = await gateway.post("/releases", json=asking(world), headers=token("a"))
    assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
    assert f"only {OPERATOR} does" in answer.json()["message"]


async def test_a_new_assignment_counts_at_once(gateway: httpx2.AsyncClient, world: World) -> None:
    await taken(gateway, world)
    digest = world.digest("variants/base-fp32.onnx")
    assert (await gateway.get(blob(digest), headers=token("a"))).status_code == 403
    world.specs["nodeA"]["models"][0]["benchmark"] = {"manifest": world.manifest, "variants": ["base-fp32"]}
    assert (await gateway.get(blob(digest), headers=token("a"))).status_code == 200


@pytest.mark.parametrize(
    ("changed", "status", "reason"),
    [
        ({"registeredModel": "nobody"}, 404, "ModelNotFound"),
        ({"version": 9}, 404, "VersionNotFound"),
        ({"manifest": "sha256:" + "0" * 64}, 409, "ReleaseChanged"),
        ({"manifest": "latest"}, 422, "BadRequest"),
        ({"version": 0}, 422, "BadRequest"),
        ({"extra": 1}, 422, "BadRequest"),
    ],
)
async def test_what_the_operator_asks_wrongly_is_told(
    gateway: httpx2.AsyncClient, world: World, changed: dict[str, Any], status: int, reason: str
) -> None:
    answer = await gateway.post("/releases", json=asking(world, **changed), headers=token("op"))
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert len(answer.json()["message"]) > 10


async def test_404_405_and_413_are_sentences_too(gateway: httpx2.AsyncClient, world: World) -> None:
    for answer, status in (
        (await gateway.get("/blobs/sha256/xyz", headers=token("a")), 404),
        (await gateway.get("/nothing"), 404),
        (await gateway.delete("/trust"), 405),
        (await gateway.post("/releases", content=b"x" * 5000, headers=token("op")), 413),
        (await gateway.post("/releases", content=b"[", headers=token("op")), 422),
    ):
        assert answer.status_code == status
        assert set(answer.json()) == {"reason", "message"}


@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        ("release/variants/base-int8.onnx", b"other", "altered"),
        ("release/variants/base-int8.onnx", None, "MLflow holds no"),
        ("release/variants/base-int8.onnx", b"x" * 600, "has more than 500 bytes"),
        ("release/release.json", b"{}", "altered"),
    ],
)
async def test_422_when_a_file_is_not_the_signed_one_and_nothing_of_it_is_served(
    gateway: httpx2.AsyncClient, world: World, path: str, change: bytes | None, told: str
) -> None:
    if change is None:
        del world.files[path]
    else:
        world.files[path] = change
    answer = await taken(gateway, world)
    assert (answer.status_code, answer.json()["reason"]) == (422, "ReleaseRefused")
    assert told in answer.json()["message"]
    assert (await gateway.get(blob(world.manifest), headers=token("a"))).status_code in (403, 422)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda d: d["variants"][1].update(bytes=499), "has more than 499 bytes"),
        (lambda d: d["variants"][0].update(bytes=2001), "has 2000 bytes, release.json says 2001"),
        (lambda d: d["variants"][1].update(digest="sha256:" + "1" * 64), "the manifest as sha256:"),
        (lambda d: d["variants"][1].update(file="variants/other.onnx"), "the manifest as nothing"),
        (lambda d: d["golden"].update(digest="sha256:" + "1" * 64), "golden.u16 as sha256:1"),
        (lambda d: d.update(labels=["one"]), "NotARelease"),
        (lambda d: d.update(sequence=2**52), "lies more than a day in the future"),
        (lambda d: d.update(version=2), "release.json is of nilm-test version 2, not nilm-test version 1"),
        (lambda d: d.update(registeredModel="nilm-other"), "release.json is of nilm-other version 1"),
    ],
)
async def test_422_when_release_json_and_manifest_disagree(
    gateway: httpx2.AsyncClient, world: World, edit: Callable[[dict[str, Any]], None], told: str
) -> None:
    """Genuinely signed, and still no release."""
    document = json.loads(world.files["release/release.json"])
    edit(document)
    files = {path.removeprefix("release/"): data for path, data in world.files.items() if path.startswith("release/")}
    files[names.RELEASE_FILE] = json.dumps(document).encode()
    manifest = bundle.sign(MODEL, files, world.release_key)
    world.files |= {"release/release.json": files[names.RELEASE_FILE], names.MANIFEST_FILE: manifest}
    world.manifest = digest_of(manifest)
    answer = await taken(gateway, world)
    assert (answer.status_code, answer.json()["reason"]) == (422, "ReleaseRefused")
    assert told in answer.json()["message"]


async def test_422_for_a_bundle_without_release_json(gateway: httpx2.AsyncClient, world: World) -> None:
    manifest = bundle.sign(MODEL, {"weights.bin": b"1"}, world.release_key)
    world.files = {"release/weights.bin": b"1", names.MANIFEST_FILE: manifest}
    world.manifest = digest_of(manifest)
    answer = await taken(gateway, world)
    assert answer.status_code == 422
    assert "NotARelease: the manifest names no release.json" in answer.json()["message"]


async def test_503_when_mlflow_or_the_api_server_is_away(gateway: httpx2.AsyncClient, world: World) -> None:
    world.mlflow_up = False
    answer = await taken(gateway, world)
    assert (answer.status_code, answer.json()["reason"]) == (503, "SourceUnavailable")
    assert answer.headers["Retry-After"] == "5"
    world.api_status = 500
    answer = await gateway.get("/trust", headers=token("b"))
    assert (answer.status_code, answer.json()["reason"]) == (503, "ApiUnavailable")


async def test_503_when_the_volume_is_full(
    gateway: httpx2.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blobs.Blobs, "put", full)
    answer = await taken(gateway, world)
    assert (answer.status_code, answer.json()["reason"]) == (503, "StorageError")
    assert "No space left" in answer.json()["message"]


SIZE = 500


@pytest.mark.parametrize(
    ("header", "status", "first", "last"),
    [
        ("bytes=0-", 206, 0, 499),
        ("bytes=100-", 206, 100, 499),
        ("bytes=0-0", 206, 0, 0),
        ("bytes=490-9999", 206, 490, 499),
        ("bytes=-10", 206, 490, 499),
        ("bytes=-9999", 206, 0, 499),
        ("BYTES=1-2", 206, 1, 2),
        ("bytes=0-" + "9" * 5000, 206, 0, 499),
        ("bytes=-" + "9" * 5000, 206, 0, 499),
        ("bytes=" + "0" * 5000 + "7-8", 206, 7, 8),
        ("bytes=500-", 416, None, None),
        ("bytes=" + "9" * 5000 + "-", 416, None, None),
        ("bytes=-0", 416, None, None),
        ("bytes=5-2", 200, None, None),
        ("bytes=-", 200, None, None),
        ("bytes=a-b", 200, None, None),
        ("bytes=0-1,5-6", 200, None, None),
        ("bytes=\u0661-", 200, None, None),
        ("lines=0-1", 200, None, None),
    ],
)
async def test_ranges(
    gateway: httpx2.AsyncClient, world: World, header: str, status: int, first: int | None, last: int | None
) -> None:
    await taken(gateway, world)
    whole = world.files["release/variants/base-int8.onnx"]
    assert len(whole) == SIZE
    headers = [("Authorization", "Bearer a"), ("Range", header.encode("utf-8"))]
    answer = await gateway.get(blob(digest_of(whole)), headers=headers)
    assert answer.status_code == status
    if status == 206:
        assert first is not None
        assert last is not None
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
        assert answer.content == whole[first : last + 1]
        assert answer.headers["Content-Length"] == str(len(answer.content))
    elif status == 416:
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
        assert answer.json()["reason"] == "RangeNotSatisfiable"
    else:
        assert answer.content == whole


async def test_conditions_and_head(gateway: httpx2.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await taken(gateway, world)
    whole = world.files["release/variants/base-int8.onnx"]
    path, tag = blob(digest_of(whole)), f'"{digest_of(whole)}"'
    for matching in (tag, f'"x", W/{tag}', "*"):
        answer = await gateway.get(path, headers=token("a", **{"If-None-Match": matching}))
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    assert (await gateway.get(path, headers=token("a", **{"If-None-Match": '"x"'}))).status_code == 200
    assert (await gateway.get(path, headers=token("b", **{"If-None-Match": "*"}))).status_code == 403
    part = {"Range": "bytes=0-1"}
    assert (await gateway.get(path, headers=token("a", **part, **{"If-Range": tag}))).status_code == 206
    assert (await gateway.get(path, headers=token("a", **part, **{"If-Range": '"x"'}))).status_code == 200
    monkeypatch.setattr(answers.os, "pread", lambda *_: pytest.fail("HEAD read the file"))
    head = await gateway.head(path, headers=token("a", **part))
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(SIZE))
    assert (await gateway.head("/trust", headers=token("a"))).headers["ETag"] == f'"{world.trust_digest()}"'


async def test_trust_is_served_fresh_to_parts_only(gateway: httpx2.AsyncClient, world: World) -> None:
    answer = await gateway.get("/trust", headers=token("a"))
    assert answer.content == (world.folder / "trust.json").read_bytes()
    assert answer.headers["Cache-Control"] == "private, no-cache"
    tag = answer.headers["ETag"]
    assert (await gateway.get("/trust", headers=token("a", **{"If-None-Match": tag}))).status_code == 304
    world.trust_document(6)
    answer = await gateway.get("/trust", headers=token("op", **{"If-None-Match": tag}))
    assert answer.content == (world.folder / "trust.json").read_bytes()
    world.tokens["s"] = (None, "somebody")
    assert (await gateway.get("/trust", headers=token("s"))).status_code == 403


async def test_metrics_count_answers_and_bytes(gateway: httpx2.AsyncClient, world: World) -> None:
    await taken(gateway, world)
    await gateway.get(blob(world.digest("variants/base-int8.onnx")), headers=token("a"))
    await gateway.get("/" + "x" * 100)
    text = (await gateway.get("/metrics")).text
    assert 'edgewright_gateway_requests_total{code="200",route="blobs"} 1.0' in text
    assert 'edgewright_gateway_requests_total{code="404",route="other"} 1.0' in text
    assert "edgewright_gateway_releases 1.0" in text
    assert "edgewright_gateway_trust_sequence 5.0" in text
    sent = next(line for line in text.splitlines() if line.startswith("edgewright_gateway_sent_bytes_total"))
    assert float(sent.split()[1]) >= SIZE


async def test_a_restart_serves_at_once_without_mlflow(gateway: httpx2.AsyncClient, world: World) -> None:
    await taken(gateway, world)
    world.mlflow_up = False
    async with world.start() as restarted:
        answer = await restarted.get(blob(world.digest("variants/base-int8.onnx")), headers=token("a"))
        assert answer.content == world.files["release/variants/base-int8.onnx"]
        assert (await taken(restarted, world)).status_code == 200


async def test_a_lost_volume_is_filled_by_the_first_node_that_asks(gateway: httpx2.AsyncClient, world: World) -> None:
    import shutil

    await taken(gateway, world)
    shutil.rmtree(world.folder / "cache")
    for client in (gateway, world.start()):  # the same process, and a new one
        for path in ("variants/base-int8.onnx", names.RELEASE_FILE):
            answer = await client.get(blob(world.digest(path)), headers=token("a"))
            assert answer.content == world.files[f"release/{path}"]
        assert (await client.get(blob(world.manifest), headers=token("a"))).status_code == 200
        assert (await client.get(blob(world.trust_digest()), headers=token("a"))).status_code == 200


async def test_a_lost_volume_and_no_mlflow_is_503_and_mlflow_is_asked_once_in_five_seconds(
    gateway: httpx2.AsyncClient, world: World
) -> None:
    world.mlflow_up = False
    for _ in range(4):
        answer = await gateway.get(blob(world.manifest), headers=token("a"))
        assert (answer.status_code, answer.json()["reason"]) == (503, "SourceUnavailable")
    assert sum("mlflow" in path for path in world.asked) == 1
    world.mlflow_up = True
    assert (await gateway.get(blob(world.manifest), headers=token("a"))).status_code == 503
    world.now += intake.RETRY_SECONDS
    assert (await gateway.get(blob(world.manifest), headers=token("a"))).status_code == 200


async def test_one_release_that_cannot_be_had_does_not_hide_another(gateway: httpx2.AsyncClient, world: World) -> None:
    await taken(gateway, world)
    gone = {"version": 7, "sequence": 1, "manifest": "sha256:" + "7" * 64, "variant": "base-int8"}
    other = {"name": "default/gone", "registeredModel": "gone", "live": gone}
    world.specs["nodeA"]["models"].insert(0, other)
    answer = await gateway.get(blob(world.digest("variants/base-int8.onnx")), headers=token("a"))
    assert answer.status_code == 200
    answer = await gateway.get(blob(gone["manifest"]), headers=token("a"))
    assert (answer.status_code, answer.json()["reason"]) == (404, "VersionNotFound")


async def test_bytes_that_rot_on_the_volume_are_never_sent(gateway: httpx2.AsyncClient, world: World) -> None:
    await taken(gateway, world)
    digest = world.digest("variants/base-int8.onnx")
    file = world.folder / "cache" / "blobs" / digest.removeprefix("sha256:")
    file.write_bytes(b"rotten" + file.read_bytes()[6:])
    answer = await gateway.get(blob(digest), headers=token("a"))
    assert answer.content == world.files["release/variants/base-int8.onnx"]


async def test_a_file_is_hashed_once_however_many_ranges_are_asked(
    gateway: httpx2.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await taken(gateway, world)
    hashed: list[Path] = []
    real = blobs._digest
    monkeypatch.setattr(blobs, "_digest", lambda file: hashed.append(file) or real(file))
    async with world.start() as restarted:
        for start in range(0, SIZE, 50):
            part = {"Range": f"bytes={start}-{start + 49}"}
            await restarted.get(blob(world.digest("variants/base-int8.onnx")), headers=token("a", **part))
    assert len(hashed) == len(set(hashed)) > 0


async def test_an_older_trust_document_is_not_taken_back(gateway: httpx2.AsyncClient, world: World) -> None:
    identity = keys.key_id(world.release_key.public_key())
    assert (await taken(gateway, world)).status_code == 200
    old = (world.folder / "trust.json").read_bytes()
    world.trust_document(6, revoked_keys=[identity])
    world.specs["nodeA"]["trust"] = newest = world.trust_digest()
    answer = await taken(gateway, world)
    assert (answer.status_code, answer.json()["reason"]) == (422, "ReleaseRefused")
    (world.folder / "trust.json").write_bytes(old)  # validly signed, and older
    for client in (gateway, world.start()):
        answer = await taken(client, world)
        assert (answer.status_code, answer.json()["reason"]) == (422, "TrustRefused")
        assert "sequence 5, and 6 was seen" in answer.json()["message"]
        served = await client.get("/trust", headers=token("a"))
        assert digest_of(served.content) == newest
        answer = await client.get(blob(world.digest("variants/base-int8.onnx")), headers=token("a"))
        assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
        assert "is refused" in answer.json()["message"]


async def test_another_document_of_the_same_sequence_is_refused(gateway: httpx2.AsyncClient, world: World) -> None:
    await taken(gateway, world)
    world.trust_document(5, revoked_manifests=["sha256:" + "1" * 64])
    answer = await taken(gateway, world)
    assert answer.status_code == 422
    assert "raise its sequence" in answer.json()["message"]


@pytest.mark.parametrize("damage", ["gone", "garbage", "other root"])
async def test_a_damaged_trust_file_stops_new_releases_and_nothing_else(
    gateway: httpx2.AsyncClient, world: World, damage: str
) -> None:
    await taken(gateway, world)
    file = world.folder / "trust.json"
    if damage == "gone":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(b"{")
    else:
        world.root, real = keys.generate(), world.root
        world.trust_document(9)
        world.root = real
    answer = await taken(gateway, world)
    assert (answer.status_code, answer.json()["reason"]) == (422, "TrustRefused")
    answer = await gateway.get(blob(world.digest("variants/base-int8.onnx")), headers=token("a"))
    assert answer.status_code == 200


async def test_a_full_cache_forgets_the_release_that_came_in_first(
    world: World, small_release: Callable[..., Any]
) -> None:
    taking = world.intake()
    first = await taking.take(MODEL, 1, world.manifest)
    used = sum(taking.blobs.sizes().values())
    taking.cache_bytes = used + 100
    world.files = stored(small_release(MODEL, {"variants/base-fp32.onnx": b"new! " * 400}), world.release_key)
    world.manifest = digest_of(world.files[names.MANIFEST_FILE])
    second = await taking.take(MODEL, 1, world.manifest)
    assert sum(taking.blobs.sizes().values()) <= used + 100
    assert not taking.index.holds(first.manifest.digest)
    assert taking.blobs.find(first.release.variant("base-fp32").digest) is None
    # what both have stays
    assert all(taking.blobs.find(digest) for digest in second.manifest.files.values())


async def test_two_who_ask_at_once_cause_one_download(gateway: httpx2.AsyncClient, world: World) -> None:
    answers_ = await asyncio.gather(*(taken(gateway, world) for _ in range(5)))
    assert [answer.status_code for answer in answers_] == [200] * 5
    fetched = [path for path in world.asked if path.endswith("base-int8.onnx")]
    assert len(fetched) == 1


async def test_a_download_that_breaks_off_leaves_nothing_and_is_tried_again(
    gateway: httpx2.AsyncClient, world: World
) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield world.files["release/variants/base-int8.onnx"][:100]
        raise httpx2.ReadError("reset")

    real = world.mlflow
    path = "/variants/base-int8.onnx"
    world.mlflow = lambda r: httpx2.Response(200, content=half()) if r.url.path.endswith(path) else real(r)  # type: ignore[method-assign]
    async with world.start() as client:
        answer = await taken(client, world)
        assert (answer.status_code, answer.json()["reason"]) == (503, "SourceUnavailable")
        kept = [file.name for file in (world.folder / "cache" / "blobs").iterdir()]
        assert not [name for name in kept if name.endswith(".part")]
        assert world.digest("variants/base-int8.onnx").removeprefix("sha256:") not in kept
    assert (await taken(gateway, world)).status_code == 200


async def test_a_large_file_goes_in_and_out_without_being_in_memory(
    world: World, small_release: Callable[..., Any]
) -> None:
    size, piece = 24 * 1024 * 1024, bytes(range(256)) * 256
    files = small_release(MODEL, {"variants/base-fp32.onnx": piece * (size // len(piece))}).numbered(1, 100)
    manifest = bundle.sign(MODEL, files, world.release_key)
    large = digest_of(files.pop("variants/base-fp32.onnx"))
    world.files = {f"release/{path}": data for path, data in files.items()} | {names.MANIFEST_FILE: manifest}
    world.manifest = digest_of(manifest)
    world.specs["nodeA"]["models"][0]["live"].update(manifest=world.manifest, variant="base-fp32")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    real = world.mlflow
    path = "/variants/base-fp32.onnx"
    world.mlflow = lambda r: httpx2.Response(200, content=pieces()) if r.url.path.endswith(path) else real(r)  # type: ignore[method-assign]
    taking = world.intake()
    tracemalloc.start()
    await taking.take(MODEL, 1, world.manifest)
    file = taking.blobs.find(large)
    assert file is not None
    answer = answers.FilePiece(file, ranges.Part(0, size), 200, {})
    sent = 0

    async def send(message: Any) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))

    await answer({"type": "http", "method": "GET"}, None, send)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sent == size
    assert peak < 4 * 1024 * 1024


async def test_a_file_that_becomes_shorter_while_it_is_sent_ends_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 10)
    answer = answers.FilePiece(file, ranges.Part(0, 20), 200, {})

    async def send(_: Any) -> None:
        pass

    with pytest.raises(RuntimeError, match="became shorter"):
        await answer({"type": "http", "method": "GET"}, None, send)  # type: ignore[arg-type]


async def test_the_same_bytes_in_a_renewed_release_are_not_downloaded_again(
    world: World, small_release: Callable[..., Any]
) -> None:
    taking = world.intake()
    await taking.take(MODEL, 1, world.manifest)
    world.asked.clear()
    files = small_release(MODEL).numbered(1, 101)
    manifest = bundle.sign(MODEL, files, world.release_key)
    world.files |= {"release/release.json": files[names.RELEASE_FILE], names.MANIFEST_FILE: manifest}
    await taking.take(MODEL, 1, digest_of(manifest))
    fetched = {path.rpartition("/")[2] for path in world.asked if "artifacts" in path}
    assert fetched == {names.MANIFEST_FILE, names.RELEASE_FILE}
