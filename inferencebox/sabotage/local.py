"""What mechanisms need to know of the provider, and of keys."""

import base64
import fnmatch
from collections.abc import Callable, Mapping
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.paths import state_dir
from inferencebox.pki import Authority
from inferencebox.platform import Platform

MARK = "exec "


def with_settings(platform: Platform, components: str, settings: Mapping[str, str]) -> Callable[[], None]:
    """Restart components with other environment variables; gives what undoes it."""
    from inferencebox.providers.local.platform import LocalPlatform

    if not isinstance(platform, LocalPlatform):
        raise SetupProblem(
            "other settings can be given to components of the local platform only", "use --provider local"
        )
    names = [part.name for part in platform.components() if fnmatch.fnmatch(part.name, components)]
    scripts = {name: state_dir(platform.instance) / "programs" / f"{name}.sh" for name in names}
    before = {name: script.read_text() for name, script in scripts.items()}
    exports = "".join(f"export {key}='{value}'\n" for key, value in settings.items())

    def run(texts: Mapping[str, str]) -> None:
        for name in names:
            scripts[name].write_text(texts[name])
        platform.supervisor.stop(*names)
        platform.supervisor.start(*names)
        mesh = {f"{workload.namespace}.{workload.name}.proxy": workload for workload in platform.workloads()}
        for name in names:
            if name in mesh:
                pod = name.removesuffix(".proxy")
                platform.readiness.http(name, "127.0.0.1", 15020, "/healthz/ready", pod)

    run({name: text.replace(MARK, exports + MARK, 1) for name, text in before.items()})
    return lambda: run(before)


def foreign_certificate(hosts: tuple[str, ...]) -> dict[str, str]:
    """Data of a TLS Secret, signed by an authority that nobody knows."""
    issued = Authority.create("somebody else").issue("gateway", hosts=list(hosts))
    data = {"tls.crt": issued.certificate, "tls.key": issued.key}
    return {name: base64.b64encode(value).decode() for name, value in data.items()}


def memory_file(instance: str) -> Path:
    """Where a platform's undone sabotage is remembered: beside its state, so that it goes when the platform goes."""
    return state_dir(instance) / "sabotage.json"
