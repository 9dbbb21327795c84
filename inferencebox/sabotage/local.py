"""What mechanisms need to know of the provider, and of keys."""

import base64
import fnmatch
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inferencebox.errors import SetupProblem
from inferencebox.paths import state_dir
from inferencebox.pki import Authority
from inferencebox.platform import Platform

if TYPE_CHECKING:
    from inferencebox.providers.local.platform import LocalPlatform

MARK = "exec "
"""Where, in the script that supervisord runs, the program itself begins."""
AGENT_PORT = 15020
POD_OF_TIER_1 = "envoy-gateway"
ISTIOD = "127.0.0.1:15014"


def with_settings(whole: Platform, components: str, settings: Mapping[str, str]) -> Callable[[], None]:
    """Restart components with other environment variables; gives what undoes it."""
    platform = _local(whole)
    names = [part.name for part in platform.components() if fnmatch.fnmatch(part.name, components)]
    scripts = {name: state_dir(platform.instance) / "programs" / f"{name}.sh" for name in names}
    before = {name: script.read_text() for name, script in scripts.items()}
    exports = "".join(f"export {key}='{value}'\n" for key, value in settings.items())

    def run(texts: Mapping[str, str]) -> None:
        for name in names:
            scripts[name].write_text(texts[name])
        platform.supervisor.stop(*names)
        for name in names:
            platform.start(name)
        for name in names:
            if name.endswith(".proxy"):
                platform.readiness.http(name, "127.0.0.1", AGENT_PORT, "/healthz/ready", name.removesuffix(".proxy"))

    run({name: text.replace(MARK, exports + MARK, 1) for name, text in before.items()})
    return lambda: run(before)


def freeze(platform: Platform, component: str) -> Callable[[], None]:
    """Stop a component's process without ending it; gives what undoes it."""
    supervisor = _local(platform).supervisor
    supervisor.signal(component, "STOP")
    return lambda: supervisor.signal(component, "CONT")


def forgetful(platform: Platform, component: str, folder: str) -> Callable[[], None]:
    """Whenever the component starts it finds its folder empty; gives what undoes it and starts it as it was."""
    supervisor, state = _local(platform).supervisor, state_dir(platform.instance)
    script, kept, aside = state / "programs" / f"{component}.sh", state / folder, state / f"{folder}.before-sabotage"
    text = script.read_text()
    shutil.copytree(kept, aside, dirs_exist_ok=True)
    script.write_text(text.replace(MARK, f"rm -rf {shlex.quote(str(kept))}/*\n{MARK}", 1))

    def undo() -> None:
        script.write_text(text)
        if _files(kept) != _files(aside):
            supervisor.stop(component)
            shutil.rmtree(kept)
            shutil.copytree(aside, kept)
            platform.start(component)
        shutil.rmtree(aside)

    return undo


def rewritten(whole: Platform, name: str, replace: Mapping[str, str], component: str) -> Callable[[], None]:
    """Replace text in a file of the platform's state, and have a component read it; gives what undoes it.

    Raises:
        SetupProblem: a text is not there, so that nothing would be broken.
    """
    platform = _local(whole)
    file = state_dir(platform.instance) / name
    before = after = file.read_text()
    for text, other in replace.items():
        if text not in after:
            raise SetupProblem(f"{file} has no {text!r} to replace", "bring the sabotage catalogue up to date")
        after = after.replace(text, other)

    def write(content: str) -> None:
        file.write_text(content)
        platform.supervisor.signal(component, "HUP")

    write(after)
    return lambda: write(before)


def inside(platform: "LocalPlatform", part: str, path: str) -> str:
    """What tier 1's Envoy (``tier-1``) or istiod answers on its own loopback; nothing while it does not."""
    if part == "tier-1":
        run = state_dir(platform.instance) / "tier1" / "run"
        found = sorted(run.glob("*/admin-address.txt"), key=lambda file: file.stat().st_mtime)
        if not found:
            return ""
        pod, address = POD_OF_TIER_1, found[-1].read_text().strip()
    else:
        pod, address = part, ISTIOD
    reply = platform.box.run(["curl", "-sg", "-m", "5", f"http://{address}{path}"], pod=pod)
    return reply.stdout.decode(errors="replace")


def foreign_certificate(hosts: tuple[str, ...]) -> dict[str, str]:
    """Data of a TLS Secret, signed by an authority that nobody knows."""
    issued = Authority.create("somebody else").issue("gateway", hosts=list(hosts))
    data = {"tls.crt": issued.certificate, "tls.key": issued.key}
    return {name: base64.b64encode(value).decode() for name, value in data.items()}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _local(platform: Platform) -> "LocalPlatform":
    from inferencebox.providers.local.platform import LocalPlatform

    if not isinstance(platform, LocalPlatform):
        raise SetupProblem("this sabotage reaches into processes of the local platform", "use --provider local")
    return platform


def memory_file(instance: str) -> Path:
    """Where a platform's undone sabotage is remembered: beside its state, so that it goes when the platform goes."""
    return state_dir(instance) / "sabotage.json"
