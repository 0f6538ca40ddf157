"""The registry of the tests is a registry: it answers as Debian's ``docker-registry`` does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.registry import DOCKER, OCI, Registry, Trouble, digest_of, running_registry

REAL = shutil.which("docker-registry")
LAYER, CONFIG = b"the bytes of a layer" * 50, b'{"architecture":"amd64","os":"linux"}'
# What is another one each time: the address, and the identity and state of an upload.
_CHANGING = re.compile(r"^http://[^/]*|(?<=uploads/)[0-9a-f-]{32,}|_state=[^&]*")
MANIFEST_TYPE = f"{OCI}.manifest.v1+json"


def manifest(layer: bytes = LAYER) -> bytes:
    def described(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": f"{OCI}.{kind}", "digest": digest_of(data), "size": len(data)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described("config.v1+json", CONFIG),
            "layers": [described("layer.v1.tar+gzip", layer)],
        }
    ).encode()


@dataclass
class Client:
    """Sends requests, and notes of each answer what a client can build on."""

    url: str
    http: urllib3.PoolManager
    noted: list[Any]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        **headers: str,
    ) -> urllib3.BaseHTTPResponse:
        url = path if path.startswith("http") else self.url + path
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.http.request(
            method, url, body=body, headers=sent, retries=False, redirect=False, timeout=10
        )
        kept = (
            "Docker-Content-Digest",
            "Range",
            "Content-Range",
            "Docker-Distribution-Api-Version",
        )
        about: dict[str, Any] = {name: answer.headers.get(name) for name in kept}
        if answer.status in (200, 206):
            about["type"] = answer.headers["Content-Type"]
            is_json = "application/json" in about["type"]
            about["body"] = json.loads(answer.data) if is_json else answer.data
            about["whole"] = answer.headers["Content-Length"] == str(len(answer.data))
        elif answer.status >= 400 and method != "HEAD":
            about["codes"] = [each["code"] for each in json.loads(answer.data)["errors"]]
        self.noted.append((method, _CHANGING.sub("", path), answer.status, about))
        return answer

    def upload(self, name: str, data: bytes) -> None:
        where = self.ask("POST", f"/v2/{name}/blobs/uploads/").headers["Location"]
        self.ask("PUT", f"{where}&digest={digest_of(data)}", data)


def push(client: Client) -> None:
    client.ask("GET", "/v2/")
    client.ask("HEAD", f"/v2/team/model/blobs/{digest_of(LAYER)}")
    client.upload("team/model", LAYER)
    client.upload("team/model", CONFIG)
    client.ask("HEAD", f"/v2/team/model/blobs/{digest_of(LAYER)}")
    client.ask("PUT", "/v2/team/model/manifests/1.0", manifest(), Content_Type=MANIFEST_TYPE)


def pulls(client: Client) -> None:
    push(client)
    for reference in ("1.0", digest_of(manifest())):
        for method in ("HEAD", "GET"):
            path = f"/v2/team/model/manifests/{reference}"
            client.ask(method, path, Accept=MANIFEST_TYPE)
    client.ask("GET", f"/v2/team/model/blobs/{digest_of(LAYER)}")
    client.ask("GET", f"/v2/team/model/blobs/{digest_of(LAYER)}", Range="bytes=10-")
    client.ask("GET", f"/v2/team/model/blobs/{digest_of(LAYER)}", Range="bytes=10-19")
    client.ask("GET", "/v2/team/model/tags/list")


def pushes_in_chunks(client: Client) -> None:
    where = client.ask("POST", "/v2/a/blobs/uploads/").headers["Location"]
    answer = client.ask("PATCH", where, LAYER[:300], Content_Range="0-299")
    where = answer.headers["Location"]
    client.ask("GET", where)
    where = client.ask("PATCH", where, iter([LAYER[300:500], LAYER[500:]])).headers["Location"]
    client.ask("PUT", f"{where}&digest={digest_of(LAYER)}")
    client.ask("HEAD", f"/v2/a/blobs/{digest_of(LAYER)}")


def mounts(client: Client) -> None:
    push(client)
    query = f"mount={digest_of(LAYER)}&from=team/model"
    client.ask("POST", f"/v2/other/blobs/uploads/?{query}")
    client.ask("HEAD", f"/v2/other/blobs/{digest_of(LAYER)}")
    query = f"mount={digest_of(b'unknown')}&from=team/model"
    client.ask("POST", f"/v2/other/blobs/uploads/?{query}")


def gives_up(client: Client) -> None:
    where = client.ask("POST", "/v2/a/blobs/uploads/").headers["Location"]
    client.ask("DELETE", where)
    client.ask("PATCH", where, LAYER)


def errs(client: Client) -> None:
    push(client)
    where = client.ask("POST", "/v2/team/model/blobs/uploads/").headers["Location"]
    client.ask("PUT", f"{where}&digest={digest_of(b'others')}", b"the bytes")
    path = "/v2/team/model/manifests/"
    client.ask("PUT", f"{path}2.0", manifest(b"unknown"), Content_Type=MANIFEST_TYPE)
    client.ask("PUT", f"{path}2.0", b"{", Content_Type=MANIFEST_TYPE)
    client.ask("PUT", path + digest_of(b"x"), manifest(), Content_Type=MANIFEST_TYPE)
    client.ask("GET", f"{path}2.0")
    client.ask("GET", path + digest_of(b"x"))
    client.ask("GET", "/v2/nothing/manifests/1.0")
    client.ask("GET", "/v2/nothing/tags/list")
    client.ask("GET", f"/v2/team/model/blobs/{digest_of(b'x')}")


CONVERSATIONS = (pulls, pushes_in_chunks, mounts, gives_up, errs)


def held_with(url: str, conversation: Callable[[Client], None]) -> list[Any]:
    with urllib3.PoolManager() as http:
        client = Client(url, http, [])
        conversation(client)
        return client.noted


@pytest.fixture
def real(tmp_path: Path) -> Iterator[str]:
    """Debian's registry, on a port that it chooses."""
    config = tmp_path / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: info, formatter: json}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'stored'}}}}}\n"
        "http: {addr: '127.0.0.1:0'}\n"
    )
    assert REAL
    command = [REAL, "serve", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if match := re.search(rb"listening on (127\.0\.0\.1:\d+)", line):
                    break
            drain = threading.Thread(target=process.stderr.read)
            drain.start()
            assert match
            yield f"http://{match[1].decode()}"
        finally:
            process.terminate()
            drain.join()


@pytest.mark.skipif(REAL is None, reason="docker-registry (a Debian package) is not installed")
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_it_answers_as_the_real_registry_does(
    conversation: Callable[[Client], None], real: str
) -> None:
    with running_registry() as registry:
        assert held_with(registry.url, conversation) == held_with(real, conversation)


def pushed(registry: Registry) -> list[int]:
    return [status for _, _, status, _ in held_with(registry.url, push)]


def test_an_image_is_pushed_and_listed() -> None:
    with running_registry() as registry:
        assert pushed(registry) == [200, 404, 202, 201, 202, 201, 200, 201]
        found = registry.repository("team/model")
        assert found.tags == {"1.0": digest_of(manifest())}
        assert found.blobs == {digest_of(data): data for data in (LAYER, CONFIG)}


def test_a_repository_of_ecr_must_be_there_and_keeps_its_tags() -> None:
    with running_registry(creates=False) as registry:
        with urllib3.PoolManager() as http:
            begun = http.request("POST", f"{registry.url}/v2/team/model/blobs/uploads/")
        assert (begun.status, begun.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
        registry.repository("team/model", immutable=True)
        assert pushed(registry)[-1] == 201
        assert pushed(registry)[-1] == 400  # the same image


@pytest.mark.parametrize("access", ["basic", "token"])
def test_it_asks_who_it_is(access: str) -> None:
    def opens(user: str, password: str) -> str | None:
        return password if user == "AWS" else None

    with running_registry(access=access, namespace=opens) as registry:
        digest = registry.put_image("eu/base" if access == "basic" else "base", "1")
        url = f"{registry.url}/v2/base/manifests/1"
        with urllib3.PoolManager() as http:
            refused = http.request("GET", url)
            assert (refused.status, json.loads(refused.data)["errors"][0]["code"]) == (
                401,
                "UNAUTHORIZED",
            )
            realm = refused.headers["WWW-Authenticate"]
            if access == "basic":
                assert realm.startswith("Basic realm=")
                headers = urllib3.make_headers(basic_auth="AWS:eu")
                wrong = urllib3.make_headers(basic_auth="somebody:eu")
            else:
                (where,) = re.findall(r'realm="([^"]+)"', realm)
                token = json.loads(http.request("GET", where).data)["token"]
                headers, wrong = {"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer x"}
            answer = http.request("GET", url, headers=headers)
            assert answer.headers["Docker-Content-Digest"] == digest
            assert http.request("GET", url, headers=wrong).status == 401


def test_blobs_come_from_elsewhere_without_credentials() -> None:
    with running_registry(redirects=True) as registry, urllib3.PoolManager() as http:
        registry.put_image("team/base", "1", layers=[LAYER])
        url = f"{registry.url}/v2/team/base/blobs/{digest_of(LAYER)}"
        assert http.request("GET", url).data == LAYER
        answer = http.request("GET", url, redirect=False)
        assert answer.status == 307
        headers = urllib3.make_headers(basic_auth="AWS:x")
        refused = http.request("GET", answer.headers["Location"], headers=headers)
        assert refused.status == 400


def test_an_index_names_the_images_of_the_platforms() -> None:
    with running_registry() as registry:
        images = {
            platform: registry.put_image("base", "", layers=[platform.encode()], kind=DOCKER)
            for platform in ("linux/amd64", "linux/arm64/v8")
        }
        digest = registry.put_index("base", "3.13", images, kind=DOCKER)
        media_type, data = registry.repository("base").manifests[digest]
    assert media_type == f"{DOCKER}.manifest.list.v2+json"
    assert [each["platform"] for each in json.loads(data)["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
    ]


BLOB = f"/v2/base/blobs/{digest_of(LAYER)}"


@pytest.mark.parametrize(
    ("trouble", "seen"),
    [
        (Trouble("429", headers={"Retry-After": "1"}), [429, 200, 200]),
        (Trouble("500", skip=1, times=2), [200, 500, 500]),
        (Trouble("401", path="other"), [200, 200, 200]),
        (Trouble("reset", times=0), [0, 0, 0]),
        (Trouble("lost"), [0, 200, 200]),
        (Trouble("cut"), [0, 200, 200]),
        (Trouble("html"), ["<!", 200, 200]),
        (Trouble("altered"), ["uh", 200, 200]),
    ],
)
def test_trouble_happens_on_request(trouble: Trouble, seen: list[Any]) -> None:
    def ask(http: urllib3.PoolManager, url: str) -> Any:
        try:
            answer = http.request("GET", url + BLOB, retries=False)
        except urllib3.exceptions.HTTPError:
            return 0
        whole = answer.status != 200 or answer.data == LAYER
        return answer.status if whole else answer.data[:2].decode()

    with running_registry() as registry, urllib3.PoolManager() as http:
        registry.put_image("base", "1", layers=[LAYER])
        registry.trouble(trouble)
        assert [ask(http, registry.url) for _ in range(3)] == seen
        assert [(each.method, each.path) for each in registry.asked] == [("GET", BLOB)] * 3


def test_a_broken_upload_keeps_what_has_arrived() -> None:
    with running_registry() as registry, urllib3.PoolManager() as http:
        begun = http.request("POST", f"{registry.url}/v2/base/blobs/uploads/")
        where = begun.headers["Location"]
        registry.trouble(Trouble("reset", "PATCH"))
        with pytest.raises(urllib3.exceptions.HTTPError):
            http.request("PATCH", where, body=LAYER, retries=False)
        half = len(LAYER) // 2
        kept = http.request("GET", where)
        assert kept.headers["Range"] == f"0-{half - 1}"
        assert http.request("PATCH", where, body=LAYER[half:]).status == 404  # not this location
        where = kept.headers["Location"]
        done = http.request("PATCH", where, body=LAYER[half:])
        done = http.request("PUT", f"{done.headers['Location']}&digest={digest_of(LAYER)}")
        assert done.status == 201
        assert registry.repository("base").blobs == {digest_of(LAYER): LAYER}


def test_chunks_come_in_order() -> None:
    """The specification asks for it; docker-registry 2.8 takes chunks in any order."""
    with running_registry() as registry, urllib3.PoolManager() as http:
        where = http.request("POST", f"{registry.url}/v2/base/blobs/uploads/").headers["Location"]
        headers = {"Content-Range": "10-19"}
        assert http.request("PATCH", where, body=b"0123456789", headers=headers).status == 416
        headers = {"Content-Range": "0-9"}
        assert http.request("PATCH", where, body=b"0123456789", headers=headers).status == 202


def test_a_request_that_hangs_ends_with_the_registry() -> None:
    with running_registry() as registry, urllib3.PoolManager() as http:
        registry.trouble(Trouble("hang"))
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            http.request("GET", f"{registry.url}/v2/", retries=False, timeout=0.05)
        assert http.request("GET", f"{registry.url}/v2/").status == 200
