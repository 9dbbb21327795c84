"""The Kind node image, put together where no registry has it: Debian, kind's files, Kubernetes, first images."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from inferencebox.images import archive
from inferencebox.images.sources import PulledImages
from inferencebox.images.tree import Tree
from inferencebox.images.workshop import Workshop
from inferencebox.paths import manifests_dir
from inferencebox.polling import poll
from inferencebox.programs import Progress, apt
from inferencebox.programs.commands import CommandFailed, Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.provision import Provisioner
from inferencebox.programs.sources.base import Made, Outcomes, Source, each
from inferencebox.programs.store import digest_of
from inferencebox.release import IMAGE_PREFIX, ImagePin, Item, Pin, Release, of_checkout

IMAGE = "node"
ARCHIVE = "image.tar"
ROOT_FILES = "root.tar"
KIND_FILES = "images/base/files"
KIND_STORAGE = "pkg/build/nodeimage/const_storage.go"
RUNNABLE = ("kind/bin", "usr/local/bin")
UNUSED = ("LICENSES", "containerd-fuse-overlayfs.service", "clean-install")
UNWANTED_UNITS = (
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "lib/systemd/system/multi-user.target.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "lib/systemd/system/basic.target.wants/*",
    "etc/systemd/system/*.wants/*",
)
"""Services of a machine that a node in a container must not start, as in kind's own Dockerfile."""
UNNEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")
EMPTIED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "etc/cni/net.d", "dev")
FORGOTTEN = ("etc/hostname", "etc/resolv.conf")
IMPORT = ("--namespace", "k8s.io", "images", "import", "--no-unpack", "--all-platforms", "--digests")
CONTAINERD_SECONDS = 30
CONTAINERD = """version = 2
root = "{store}"
state = "{work}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{work}/containerd.sock"
"""


class NodeRecipe(Pin):
    """``manifests/providers/kind/node.yaml``."""

    suite: str
    packages: list[str]
    cni_plugins: list[str]
    programs: list[str]
    preload: list[str]
    services: list[str]
    pod_subnet: str
    service_subnet: str


class RootFiles(Item):
    """A minimal Debian with the node's packages: the slow step, and the same for every release."""

    suite: str
    packages: list[str]
    expected_seconds: float = 50


def provide(release: Release, progress: Progress | None = None) -> Path:
    """The archive of the node image: pulled by digest where its registry answers, put together here where not.

    Args:
        release: whose Kubernetes it is; ``release.images["node"].reference`` is its name in the archive.
        progress: is told what happens.
    """
    (path,) = _provisioner(release, progress).provide(release.images_of([IMAGE])).values()
    return path


def keys(release: Release) -> list[str]:
    """What the node image is, pulled or put together; quick, for nothing is made and no archive is read."""
    (image,) = release.images_of([IMAGE])
    return _provisioner(release, None).keys(image)


def _provisioner(release: Release, progress: Progress | None) -> Provisioner:
    workshop = Workshop(release, progress)
    store, commands = workshop.store, workshop.commands
    inside: list[Source] = [*workshop.inside_sources, Debootstrapped(release, workshop.inside, commands)]
    parts = Provisioner(store, inside, commands, workshop.progress, use_path=False)
    sources: list[Source] = [PulledImages(), NodeImages(release, parts, workshop.images, commands)]
    return Provisioner(store, sources, commands, workshop.progress)


def folder() -> Path:
    return manifests_dir() / "providers" / "kind"


@cache
def recipe() -> NodeRecipe:
    """How the node image of this checkout is made."""
    return of_checkout(folder() / "node.yaml", NodeRecipe)


class Debootstrapped:
    """Makes a Debian file system. Needs root, for it runs the packages' own scripts."""

    name = "debootstrap"
    needs_bytes = 3 << 30
    uses_all_cores = False

    def __init__(self, release: Release, provisioner: Provisioner, commands: Commands) -> None:
        self._release = release
        self._provisioner = provisioner
        self._commands = commands

    def offers(self, item: Item) -> bool:
        return isinstance(item, RootFiles)

    def obstacle(self, item: Item) -> Unavailable | None:
        return _needs_root()

    def batch(self, item: Item) -> str:
        return item.name

    def recipe(self, item: Item) -> Mapping[str, Any]:
        assert isinstance(item, RootFiles)
        return {"suite": item.suite, "packages": item.packages, "unwanted": [UNWANTED_UNITS, UNNEEDED, EMPTIED]}

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        return each(items, lambda item: self._make_one(item, work))

    def _make_one(self, item: Item, work: Path) -> Made:
        assert isinstance(item, RootFiles)
        there = self._provisioner.provide(self._release.select(["debootstrap"]))
        lists = apt.Packages(work, self._commands)
        (work / "apt").mkdir()
        root, out = work / "root", work / "out"
        out.mkdir()
        include = f"--include={','.join(item.packages)}"
        # in a mount namespace of its own: what it mounts is gone when it ends, however it ends
        words: list[str | Path] = [
            "unshare",
            "--mount",
            there["debootstrap"],
            "--variant=minbase",
            include,
            item.suite,
            root,
        ]
        self._run(item.name, [*words, lists.mirror()])
        _slim(root)
        self._run(
            f"{item.name}-tar", ["tar", "--sort=name", "--numeric-owner", "-C", root, "-cf", out / ROOT_FILES, "."]
        )
        return Made(out, ROOT_FILES, {"suite": item.suite})

    def _run(self, name: str, words: Sequence[str | Path]) -> None:
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        try:
            self._commands.run(name, words, cwd=Path("/"), env=environment)
        except CommandFailed as failure:
            raise Unavailable(f"no Debian file system ({failure})", f"read {failure.log}; {apt.FIX}") from failure


class NodeImages:
    """Puts the node image together.

    Args:
        release: whose Kubernetes it is.
        provisioner: gets programs, files and the Debian file system.
        images: gets the images that are in it.
        commands: what containerd's command is run with.
    """

    name = "node recipe"
    needs_bytes = 6 << 30
    uses_all_cores = False

    def __init__(self, release: Release, provisioner: Provisioner, images: Provisioner, commands: Commands) -> None:
        self._release = release
        self._provisioner = provisioner
        self._images = images
        self._commands = commands

    def offers(self, item: Item) -> bool:
        return isinstance(item, ImagePin) and item.name == f"{IMAGE_PREFIX}{IMAGE}"

    def obstacle(self, item: Item) -> Unavailable | None:
        return _needs_root()

    def batch(self, item: Item) -> str:
        return item.name

    def recipe(self, item: Item) -> Mapping[str, Any]:
        ours = sorted(path for path in (folder() / "node").rglob("*") if path.is_file())
        return {
            "recipe": recipe().model_dump(),
            "files": {str(path.relative_to(folder())): digest_of(path) for path in ours},
            "parts": {part.name: self._provisioner.keys(part) for part in self._parts()},
            "images": {pin.name: self._images.keys(pin) for pin in self._preload()},
            "fits": Path(__file__).name + digest_of(Path(__file__)),
        }

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        return each(items, lambda item: self._make_one(item, work))

    def _make_one(self, item: Item, work: Path) -> Made:
        assert isinstance(item, ImagePin)
        there = self._provisioner.provide(self._parts())
        loaded = self._images.provide(self._preload())
        out = work / "out"
        out.mkdir()
        parts = [there["node-root"], out / "node.tar", out / "images.tar"]
        digests = [digest_of(parts[0]), self._files(there).save(parts[1])]
        digests.append(self._content(there["containerd"], list(loaded.values()), work).save(parts[2]))
        config = archive.describe(
            digests,
            {
                "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
                "Env": ["container=docker"],
                "StopSignal": "SIGRTMIN+3",
            },
        )
        archive.pack(out / ARCHIVE, item.reference, config, parts)
        for part in parts[1:]:
            part.unlink()
        return Made(out, ARCHIVE, {"reference": item.reference})

    def _parts(self) -> list[Item]:
        chosen = recipe()
        root = RootFiles(name="node-root", version=chosen.suite, suite=chosen.suite, packages=chosen.packages)
        return [root, *self._release.select([*chosen.programs, "containerd"]), self._release.files_of("kind")]

    def _preload(self) -> list[ImagePin]:
        return self._release.images_of(recipe().preload)

    def _files(self, there: Mapping[str, Path]) -> Tree:
        """The layer over Debian: kind's files, ours, and Kubernetes."""
        tree, kind = Tree(), there["files-kind"]
        _add_kinds_files(tree, kind / KIND_FILES)
        self._add_our_files(tree)
        for name in recipe().programs:
            tree.add(f"/usr/bin/{name}", there[name], 0o755)
        for name in ("containerd", "ctr", "containerd-shim-runc-v2"):
            tree.link(f"/usr/local/bin/{name}", f"/usr/bin/{name}")
        tree.link("/usr/local/sbin/runc", "/usr/sbin/runc")
        for name in recipe().cni_plugins:
            tree.link(f"/opt/cni/bin/{name}", f"/usr/lib/cni/{name}")
        for name in recipe().services:
            unit = f"/etc/systemd/system/{name}.service"
            tree.link(f"/etc/systemd/system/multi-user.target.wants/{name}.service", unit)
        tree.link("/etc/systemd/system/systemd-binfmt.service", "/dev/null")  # it would change the whole kernel
        tree.write("/etc/systemd/journald.conf", "[Journal]\nReadKMsg=no\n")
        tree.write("/etc/containerd/cri-base.json", json.dumps(self._container_defaults(there["containerd"])))
        tree.write("/etc/containerd/config.toml", _fit_for_us(kind / KIND_FILES / "etc/containerd/config.toml"))
        tree.write("/kind/version", self._release.layers["kubernetes"].version)
        tree.write("/kind/manifests/default-storage.yaml", _storage_manifest(kind / KIND_STORAGE))
        tree.write("/etc/machine-id", "")
        tree.folder("/etc/kubernetes/manifests")
        return tree

    def _add_our_files(self, tree: Tree) -> None:
        values = {
            "@POD_SUBNET@": recipe().pod_subnet,
            "@SERVICE_SUBNET@": recipe().service_subnet,
            "@KUBE_ROUTER@": self._release.images["kube-router"].reference,
        }
        home = folder() / "node"
        for path in (path for path in sorted(home.rglob("*")) if path.is_file()):
            text = path.read_text()
            for variable, value in values.items():
                text = text.replace(variable, value)
            tree.write(f"/{path.relative_to(home)}", text, 0o755 if text.startswith("#!") else 0o644)

    def _container_defaults(self, containerd: Path) -> dict[str, Any]:
        """What every container of a node starts with: as kind's, hides the host's product files, sets no limits."""
        text = self._commands.run("node-spec", [containerd.with_name("ctr"), "oci", "spec"], Path("/"), os.environ)
        spec: dict[str, Any] = json.loads(text)
        spec.setdefault("hooks", {})["createContainer"] = [{"path": "/kind/bin/mount-product-files.sh"}]
        spec["process"].pop("rlimits", None)
        return spec

    def _content(self, containerd: Path, archives: Sequence[Path], work: Path) -> Tree:
        """The layer of images, as content that a node's containerd unpacks when a pod first needs it."""
        store = work / "content"
        with _running(containerd, store, work / "containerd") as socket:
            for number, path in enumerate(archives):
                words: list[str | Path] = [containerd.with_name("ctr"), "--address", socket, *IMPORT]
                self._commands.run(f"node-import-{number}", [*words, path], Path("/"), os.environ)
        tree = Tree()
        tree.graft(store, "/var/lib/containerd")
        return tree


@contextmanager
def _running(containerd: Path, store: Path, work: Path) -> Iterator[Path]:
    """A containerd with a store of its own, for as long as this lasts; its socket."""
    work.mkdir()
    store.mkdir()
    config, socket = work / "config.toml", work / "containerd.sock"
    config.write_text(CONTAINERD.format(store=store, work=work))
    with (work / "log").open("wb") as log:
        daemon = subprocess.Popen([containerd, "--config", config], stdout=log, stderr=log)
    try:
        poll(lambda: _answers(containerd, socket) or daemon.poll() is not None, CONTAINERD_SECONDS, every=0.1)
        if daemon.poll() is not None or not _answers(containerd, socket):
            said = (work / "log").read_text(errors="replace").splitlines()[-1:]
            raise Unavailable(f"containerd does not start ({' '.join(said)})", "run this again")
        yield socket
    finally:
        daemon.terminate()
        daemon.wait()


def _answers(containerd: Path, socket: Path) -> bool:
    words: list[str | Path] = [containerd.with_name("ctr"), "--address", socket, "version"]
    return socket.exists() and subprocess.run(words, capture_output=True).returncode == 0


def _needs_root() -> Unavailable | None:
    if os.geteuid() == 0:
        return None
    return Unavailable("a node image is built as root", "run this as root, or where its registry is in reach")


def _slim(root: Path) -> None:
    """Take out of a Debian what a node must not start, and what it does not need."""
    for pattern in UNWANTED_UNITS:
        for path in root.glob(pattern):
            path.unlink()
    for name in (*EMPTIED, *UNNEEDED):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    for name in FORGOTTEN:
        (root / name).unlink(missing_ok=True)


def _add_kinds_files(tree: Tree, source: Path) -> None:
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and not set(inside.parts) & set(UNUSED):
            tree.add(f"/{inside}", path, 0o755 if str(inside.parent) in RUNNABLE else 0o644)


def _fit_for_us(config: Path) -> str:
    """Where CAP_SYS_RESOURCE is missing nobody may lower an OOM score: containerd must not try, or no pod starts."""
    text = config.read_text()
    fit = text.replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    if fit == text:
        raise Unavailable("kind's containerd configuration is another than expected", "adapt node.py to this kind")
    return fit


def _storage_manifest(source: Path) -> str:
    """kind keeps the manifest of its default storage as a Go constant, put together from others."""
    text = source.read_text()
    words = dict(re.findall(r'const (\w+) = "([^"]+)"', text))
    found = re.search(r"const defaultStorageManifest = `(.*)`\s*$", text, re.DOTALL)
    if not found:
        raise Unavailable("kind's storage manifest is not where it was", "adapt node.py to this kind")
    return re.sub(r"` \+ (\w+) \+ `", lambda name: words[name[1]], found[1])
