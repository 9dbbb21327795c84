"""Programs out of images: pulled by digest from a registry, unpacked without trusting what is inside."""

import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_registry import Registry, layer, link, serving
from programs_kit import get, tool_release

from inferencebox.errors import SetupProblem
from inferencebox.programs import registry as client
from inferencebox.programs.unpack import Layers, NotInImage
from inferencebox.release import Release

PROGRAM = b"#!/bin/sh\necho tool 1.2.3\n"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    client.probe.cache_clear()
    with serving() as running:
        monkeypatch.setenv(client.MIRROR_VARIABLE, f"127.0.0.1:{running.port}")
        yield running
    client.probe.cache_clear()


def image_release(tmp_path: Path, digest: str | None, path: str = "usr/bin/tool", check: str = "tool 1.2.3") -> Release:
    image = {"reference": "registry.example.org/a/tool:v1.2.3", "digest": digest, "path": path}
    return tool_release(tmp_path, version_check={"pattern": check}, image=image)


def pull(tmp_path: Path, chosen: Release) -> Path:
    return get(chosen, tmp_path / "cache", "ibox-test-tool")["ibox-test-tool"]


def test_a_program_is_pulled_by_digest_and_runs(registry: Registry, tmp_path: Path) -> None:
    digest = registry.add_image([layer({"usr/bin/tool": PROGRAM, "etc/secret": b"unwanted"})])
    program = pull(tmp_path, image_release(tmp_path, digest))
    assert subprocess.check_output([program], text=True) == "tool 1.2.3\n"
    assert not list((tmp_path / "cache").rglob("secret"))


def test_an_index_leads_to_this_machines_image(registry: Registry, tmp_path: Path) -> None:
    index = registry.add_index(registry.add_image([layer({"usr/bin/tool": PROGRAM})]))
    assert pull(tmp_path, image_release(tmp_path, index)).read_bytes() == PROGRAM


def test_an_index_without_this_machine_is_said(registry: Registry, tmp_path: Path) -> None:
    index = registry.add_index(registry.add_image([layer({"usr/bin/tool": PROGRAM})]), architecture="riscv64")
    with pytest.raises(SetupProblem, match="has nothing for linux/"):
        pull(tmp_path, image_release(tmp_path, index))


def test_a_second_run_asks_the_registry_nothing(registry: Registry, tmp_path: Path) -> None:
    chosen = image_release(tmp_path, registry.add_image([layer({"usr/bin/tool": PROGRAM})]))
    first = pull(tmp_path, chosen)
    registry.asked.clear()
    assert pull(tmp_path, chosen) == first
    assert registry.asked == []


def test_a_manifest_with_another_digest_is_refused(registry: Registry, tmp_path: Path) -> None:
    digest = registry.add_image([layer({"usr/bin/tool": PROGRAM})])
    registry.blobs[digest] += b" "
    with pytest.raises(SetupProblem, match="the registry sent something else"):
        pull(tmp_path, image_release(tmp_path, digest))


def test_a_layer_with_another_digest_is_refused(registry: Registry, tmp_path: Path) -> None:
    content = layer({"usr/bin/tool": PROGRAM})
    digest = registry.add_image([content])
    registry.blobs[registry.add(content)] = layer({"usr/bin/tool": b"#!/bin/sh\necho tool 1.2.3; echo evil\n"})
    with pytest.raises(SetupProblem, match="the registry sent something else"):
        pull(tmp_path, image_release(tmp_path, digest))
    assert not (tmp_path / "cache/store").exists()


def test_without_a_digest_nothing_is_asked(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="image: the release has no digest for it"):
        pull(tmp_path, image_release(tmp_path, None))
    assert registry.asked == []


def test_a_registry_that_refuses_is_asked_once(registry: Registry, tmp_path: Path) -> None:
    chosen = image_release(tmp_path, registry.add_image([layer({"usr/bin/tool": PROGRAM})]))
    registry.refuse = "/v2/"
    for _ in range(2):
        with pytest.raises(SetupProblem, match="answers 403"):
            pull(tmp_path, chosen)
    assert registry.asked == ["/v2/"]


def test_a_refused_image_is_asked_for_once(registry: Registry, tmp_path: Path) -> None:
    chosen = image_release(tmp_path, registry.add_image([layer({"usr/bin/tool": PROGRAM})]))
    registry.refuse = "/manifests/"
    with pytest.raises(SetupProblem, match="refused with 403"):
        pull(tmp_path, chosen)
    assert sum("/manifests/" in path for path in registry.asked) == 1


def test_a_registry_out_of_reach_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv(client.MIRROR_VARIABLE, f"127.0.0.1:{free.getsockname()[1]}")
    client.probe.cache_clear()
    with pytest.raises(SetupProblem, match="is not in reach") as problem:
        pull(tmp_path, image_release(tmp_path, f"sha256:{'2' * 64}"))
    assert client.MIRROR_VARIABLE in problem.value.fix


def test_a_program_of_another_version_is_not_used(registry: Registry, tmp_path: Path) -> None:
    digest = registry.add_image([layer({"usr/bin/tool": PROGRAM})])
    with pytest.raises(SetupProblem, match="is another version"):
        pull(tmp_path, image_release(tmp_path, digest, check="tool 9"))


def test_plain_http_is_for_loopback_only() -> None:
    assert client._scheme("127.0.0.1:5000") == "http"
    assert client._scheme("registry.example.org") == "https"


def taken(tmp_path: Path, path: str, *layers: bytes) -> bytes:
    """What these layers have at a path."""
    files = []
    for number, content in enumerate(layers):
        files.append(tmp_path / f"layer-{number}")
        files[-1].write_bytes(content)
    Layers(files).extract(path, tmp_path / "taken")
    return (tmp_path / "taken").read_bytes()


def test_the_uppermost_file_counts(tmp_path: Path) -> None:
    assert taken(tmp_path, "/bin/a", layer({"bin/a": b"old"}), layer({"./bin/a": b"new"})) == b"new"


@pytest.mark.parametrize("whiteout", ["bin/.wh.a", ".wh.bin", "bin/.wh..wh..opq", ".wh..wh..opq"])
def test_a_whiteout_hides_what_is_below(tmp_path: Path, whiteout: str) -> None:
    with pytest.raises(NotInImage):
        taken(tmp_path, "bin/a", layer({"bin/a": b"old"}), layer({whiteout: b""}))


def test_a_whiteout_hides_nothing_of_its_own_layer(tmp_path: Path) -> None:
    assert (
        taken(tmp_path, "bin/a", layer({"bin/a": b"old"}), layer({"bin/a": b"new", "bin/.wh..wh..opq": b""})) == b"new"
    )


@pytest.mark.parametrize(
    "links",
    [
        {"bin/a": link("real")},
        {"bin/a": link("/usr/../bin/real")},
        {"bin/a": link("bin/real", tarfile.LNKTYPE)},
        {"bin/a": link("../../../../bin/real")},
    ],
)
def test_links_are_followed_inside_the_image(tmp_path: Path, links: dict[str, tarfile.TarInfo]) -> None:
    assert taken(tmp_path, "bin/a", layer({"bin/real": b"real"}), layer(links)) == b"real"


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    assert taken(tmp_path, "bin/a", layer({"usr/bin/a": b"real", "bin": link("usr/bin")})) == b"real"


def test_a_link_out_of_the_image_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside")
    with pytest.raises(NotInImage):
        taken(tmp_path, "bin/a", layer({"bin/a": link(f"{tmp_path}/outside")}))


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    with pytest.raises(NotInImage):
        taken(tmp_path, "a", layer({"a": link("b"), "b": link("a")}))


def test_a_layer_cannot_write_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    with pytest.raises(NotInImage):
        taken(folder, "bin/a", layer({"../escaped": b"evil", "/etc/escaped": b"evil"}))
    assert not (tmp_path / "escaped").exists()
