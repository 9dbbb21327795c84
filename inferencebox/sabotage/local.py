"""Inside the local platform: its processes, their scripts and files."""

import fnmatch
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inferencebox.paths import state_dir
from inferencebox.providers.local.platform import LocalPlatform

from .effects import NoEffect
from .means import Undo, replaced
from .remembered import Memory

MARK = "exec "
"""Where, in the script that supervisord runs, the program itself begins."""
AGENT_PORT = 15020
POD_OF_TIER_1 = "envoy-gateway"


@dataclass(frozen=True)
class LocalMeans:
    platform: LocalPlatform

    @property
    def _state(self) -> Path:
        return state_dir(self.platform.instance)

    def with_settings(self, components: str, settings: Mapping[str, str], memory: Memory) -> Undo:
        platform = self.platform
        names = [part.name for part in platform.components() if fnmatch.fnmatch(part.name, components)]
        if not names:
            raise NoEffect(f"the platform has no component {components}")
        scripts = {name: self._state / "programs" / f"{name}.sh" for name in names}
        before = {name: script.read_text() for name, script in scripts.items()}
        exports = "".join(f"export {key}='{value}'\n" for key, value in settings.items())

        def run(texts: Mapping[str, str]) -> None:
            for name in names:
                scripts[name].write_text(texts[name])
            platform.parts.supervisor.stop(*names)
            for name in names:
                platform.start(name)
            for name in names:
                if name.endswith(".proxy"):
                    pod = name.removesuffix(".proxy")
                    platform.parts.readiness.http(name, "127.0.0.1", AGENT_PORT, "/healthz/ready", pod)

        run({name: text.replace(MARK, exports + MARK, 1) for name, text in before.items()})
        return lambda: run(before)

    def freeze(self, component: str) -> Undo:
        supervisor = self.platform.parts.supervisor
        supervisor.signal(component, "STOP")
        return lambda: supervisor.signal(component, "CONT")

    def forgetful(self, component: str, folder: str) -> Undo:
        platform, supervisor, state = self.platform, self.platform.parts.supervisor, self._state
        script, kept, aside = (
            state / "programs" / f"{component}.sh",
            state / folder,
            state / f"{folder}.before-sabotage",
        )
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

    def rewritten(self, name: str, replace: Mapping[str, str], component: str, anew: bool = False) -> Undo:
        file = self._state / name
        before = file.read_text()
        after = replaced(before, replace, str(file))

        def write(content: str) -> None:
            file.write_text(content)
            if anew:
                self.platform.stop(component)
                self.platform.start(component)
            else:
                self.platform.parts.supervisor.signal(component, "HUP")

        write(after)
        return lambda: write(before)

    def tier_1(self, path: str) -> str:
        run = self._state / "tier1" / "run"
        found = sorted(run.glob("*/admin-address.txt"), key=lambda file: file.stat().st_mtime)
        return self._inside(POD_OF_TIER_1, f"http://{found[-1].read_text().strip()}{path}") if found else ""

    def limiter(self, path: str) -> str:
        return self._inside("ratelimit", f"http://127.0.0.1:6070{path}")

    def istiod(self, path: str) -> str:
        return self._inside("istiod", f"http://127.0.0.1:15014{path}")

    def _inside(self, pod: str, url: str) -> str:
        return self.platform.box.run(["curl", "-sg", "-m", "5", url], pod=pod).stdout.decode(errors="replace")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
