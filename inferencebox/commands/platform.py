"""``ibox up``, ``ibox status``, ``ibox down``: a platform that stays, to look at and to use by hand."""

import json
import shlex
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from inferencebox import providers, scratch
from inferencebox.commands.consent import Consent
from inferencebox.doctor import State, examine
from inferencebox.errors import SetupProblem
from inferencebox.paths import state_dir
from inferencebox.platform import ComponentStatus, Platform
from inferencebox.programs import Progress, shown
from inferencebox.providers import pins
from inferencebox.providers.options import ClusterOptions, PlatformOptions
from inferencebox.release import DEFAULT_RELEASE, Release

USUAL = PlatformOptions()
SIGNS = {"done": "✔", "failed": "✘", "skipped": "-"}
"""Of a layer that is no longer under way."""
DEFAULT_INSTANCE = "default"
FIRST_PROVIDER = "local"
"""What needs least."""
RUN_PREFIX = "run-"
"""Platforms of test runs are called after the process that runs them."""

UP_EXAMPLES = """
[bold]Examples[/bold]

  ibox up                                     the platform `default`, with small real models

  ibox up --instance mine --models stub       another one beside it, with quick stand-ins for models

  ibox up --provider kind --nodes 1           the whole platform on Kubernetes, on one node

  ibox up --provider cluster                  on the cluster of your kubeconfig: shows what is missing there, and asks

  ibox up --provider cluster --context lab --yes

  ibox up --limits strict                     rate limits as promised, not a hundred times that

  ibox up --release mine.yaml                 what that pins otherwise takes the place of what runs, under traffic

  ibox up --no-telemetry --no-logs            quicker: without metrics, alerts, traces and cost, and without Loki

  pytest --reuse -m security                  scenarios on the platform that is up
"""
STATUS_EXAMPLES = """
[bold]Examples[/bold]

  ibox status                    what runs, where it answers, what it cannot show

  ibox status --json | jq .endpoints
"""
DOWN_EXAMPLES = """
[bold]Examples[/bold]

  ibox down                      the platform `default`, and what killed test runs left

  ibox down --instance mine      another one

  ibox down --context lab        from a cluster what a platform of ours made there, whoever brought it up

  ibox down --all                every platform of yours on this machine
"""


class Models(StrEnum):
    stub = "stub"
    real = "real"


class Limits(StrEnum):
    strict = "strict"
    demo = "demo"


USUAL_MODELS, USUAL_LIMITS = Models(USUAL.models), Limits(USUAL.limits)
KubeconfigOption = Annotated[
    Path | None, typer.Option(help="Of a cluster that is there (provider cluster); default: as kubectl finds it.")
]
ContextOption = Annotated[str, typer.Option(help="Of that kubeconfig; default: its current one.")]
InstanceOption = Annotated[str, typer.Option(help="Name of the platform.")]


def register(app: typer.Typer) -> None:
    app.command(epilog=UP_EXAMPLES)(up)
    app.command(epilog=STATUS_EXAMPLES)(status)
    app.command(epilog=DOWN_EXAMPLES)(down)


def up(
    provider: Annotated[
        str, typer.Option(help=f"Where it comes from: {', '.join(providers.PROVIDERS)}; default: local, or as it is.")
    ] = "",
    instance: InstanceOption = DEFAULT_INSTANCE,
    release: Annotated[
        str, typer.Option(help=f"Name or file of a set of pinned versions; default: {DEFAULT_RELEASE}, or as it is.")
    ] = "",
    models: Annotated[Models, typer.Option(help="What answers: stubs, or small real models.")] = USUAL_MODELS,
    limits: Annotated[Limits, typer.Option(help="Rate limits: as promised, or wide.")] = USUAL_LIMITS,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=9, help="Nodes of a cluster that is made (kind); default: 3, or as it is.")
    ] = None,
    telemetry: Annotated[bool, typer.Option(help="With metrics, alerts, traces and cost, or without.")] = True,
    logs: Annotated[bool, typer.Option(help="With access, audit and model logs in Loki, or without.")] = True,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = "",
    yes: Annotated[bool, typer.Option("--yes", help="Install on a cluster that is there without asking.")] = False,
) -> None:
    """Bring a platform up and leave it running; one that is up is left as it is, but for what a release has otherwise.

    Exit code 0: it is up. 2: the environment is at fault; the line says how, and what to do.
    """
    console = Console(highlight=False, soft_wrap=True)
    began = monotonic()
    if release:
        Release.load(release)
    cluster = ClusterOptions(kubeconfig, context, Consent(console, yes))
    options = PlatformOptions(models, limits, nodes, telemetry, logs, cluster=cluster)
    found = _running(instance)
    if found is None:
        _require_fit_machine(provider or FIRST_PROVIDER)
        found = _bring_up(console, provider or FIRST_PROVIDER, instance, release or DEFAULT_RELEASE, options)
        how = f"is up after {monotonic() - began:.1f} s"
    else:
        _require_same_provider(found, provider)
        as_it_is = pins.reference(state_dir(instance), found.release)
        found = _bring_up(console, found.provider, instance, release or as_it_is, options)
        how = f"was up already, {'changed now: ' + ', '.join(found.changed) if found.changed else 'nothing changed'}"
    console.print(f"The platform {instance} {how} (release {found.release}, provider {found.provider}).")
    console.print(_how_to_use(found), markup=False)


def status(
    instance: InstanceOption = DEFAULT_INSTANCE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what runs, where it answers, what it cannot show and why, and where the logs are.

    Exit code 0: everything runs. 2: the platform is not up, or a part of it does not run.
    """
    platform = _attached(instance)
    parts = platform.components()
    if as_json:
        typer.echo(json.dumps(_facts(platform, parts), indent=2))
    else:
        _tell(Console(highlight=False, soft_wrap=True), platform, parts)
    if broken := [part for part in parts if part.state != "running"]:
        names = ", ".join(part.name for part in broken)
        raise SetupProblem(f"not running: {names}", f"read {broken[0].log or platform.logs}")


def down(
    instance: InstanceOption = DEFAULT_INSTANCE,
    every: Annotated[bool, typer.Option("--all", help="Every platform of yours on this machine.")] = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = "",
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave what is in the cluster: only this machine forgets it.")
    ] = False,
) -> None:
    """Take a platform down and remove everything it left; also what killed test runs left.

    From a cluster that others use too, all that the platform made is removed and nothing else.

    Works in whatever state the platform is; it is no error if there is none. Exit code 0: nothing is left.
    """
    console = Console(highlight=False, soft_wrap=True)
    scratch.sweep()
    if kubeconfig or context:
        providers.adopt(instance, ClusterOptions(kubeconfig, context))
    there = providers.instances()
    chosen = [name for name in there if every or name == instance or _was_left_by_a_killed_run(name)]
    problems = [problem for name in chosen if (problem := _take_down(console, name, forget))]
    if problems:
        raise problems[0]
    if not chosen:
        others = [name for name in there if name not in chosen]
        also = f" (there is {', '.join(others)}: --instance NAME, or --all)" if others else ""
        console.print(f"There is no platform {instance}{also}.", markup=False)


def _take_down(console: Console, name: str, forget: bool) -> SetupProblem | None:
    """One of several: what keeps one from going must not keep the others."""
    began = monotonic()
    try:
        if forget:
            providers.forget(name)
        else:
            providers.close_platform(name, tell=lambda what: console.print(f"{name}: {what}", markup=False))
    except SetupProblem as problem:
        return problem
    left = " (left by a test run that was killed)" if _was_left_by_a_killed_run(name) else ""
    how = "forgotten" if forget else "down"
    console.print(f"{name}{left}: {how} after {monotonic() - began:.1f} s", markup=False)
    return None


def _require_same_provider(found: Platform, asked: str) -> None:
    if asked and found.provider != asked:
        raise SetupProblem(
            f"the platform {found.instance} is up with provider {found.provider}, not {asked}",
            f"take it down first (ibox down --instance {found.instance}), or choose another --instance",
        )


def _running(instance: str) -> Platform | None:
    try:
        return providers.attach(instance)
    except SetupProblem:
        return None


def _attached(instance: str) -> Platform:
    platform = _running(instance)
    if platform is None:
        others = [name for name in providers.instances() if name != instance and _running(name)]
        fix = f"ibox up --instance {instance}" + (f"; up now: {', '.join(others)}" if others else "")
        raise SetupProblem(f"the platform {instance} is not up", fix)
    return platform


def _require_fit_machine(provider: str) -> None:
    """Before anything is begun: does this machine have what the platform needs?"""
    if provider != "local":
        return
    missing = [diagnosis for diagnosis in examine() if diagnosis.state is State.MISSING]
    if missing:
        words = "; ".join(f"{diagnosis.check} ({diagnosis.detail})" for diagnosis in missing)
        raise SetupProblem(f"this machine lacks what the platform needs: {words}", missing[0].fix)


def _bring_up(
    console: Console, provider: str, instance: str, release: str, options: PlatformOptions
) -> Platform:  # fmt: skip
    with shown(console) as progress:
        return providers.open_platform(provider, instance, release, options, OnlyWork(progress), Layers(console))


@dataclass
class OnlyWork:
    """Tells of programs that have to be fetched or built, not of those that are in the cache."""

    progress: Progress
    begun: set[str] = field(default_factory=set)

    def begin(self, name: str, version: str, doing: str, expected: float) -> None:
        self.begun.add(name)
        self.progress.begin(name, version, doing, expected)

    def end(self, name: str, outcome: str) -> None:
        if name in self.begun:
            self.progress.end(name, outcome)


@dataclass
class Layers:
    """Says of each layer, as it is done, how long it took, and what the others wait for."""

    console: Console
    under_way: dict[str, str] = field(default_factory=dict)

    def __call__(self, layer: str, state: str, seconds: float) -> None:
        if state not in SIGNS:
            self.under_way[layer] = "" if state == "begins" else f" {state}"
            return
        self.under_way.pop(layer, None)
        doing = ", ".join(f"{name}{waits}" for name, waits in sorted(self.under_way.items()))
        waits = f"  (under way: {doing})" if doing else ""
        self.console.print(f"{SIGNS[state]} {layer:16}{seconds:6.1f} s{waits}", markup=False)


def _how_to_use(platform: Platform) -> str:
    ends = platform.endpoints
    name = "" if platform.instance == DEFAULT_INSTANCE else f" --instance {platform.instance}"
    lines = ["", "Where it answers:", *(f"  {which:17}{end.url}" for which, end in sorted(ends.items()))]
    lines += ["", "Use it:", f"  export KUBECONFIG={shlex.quote(str(platform.kubeconfig))}"]
    if "jwt-server" in ends and "gateway" in ends:
        pick = "python3 -c 'import json,sys; print(json.load(sys.stdin)[\"tenant-a\"])'"
        ask = 'curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json"'
        lines += [
            f"  export TOKEN=$(curl -s {ends['jwt-server'].url}/tokens | {pick})",
            f"  {ask} {ends['gateway'].url}/v1/models/sklearn-iris:predict "
            "-d '{\"instances\": [[5.1, 3.5, 1.4, 0.2]]}'",
        ]
    lines += [f"  pytest --reuse{name} -m security", f"  ibox status{name}", f"  ibox down{name}"]
    return "\n".join(lines)


def _facts(platform: Platform, parts: list[ComponentStatus]) -> dict[str, Any]:
    return {
        "instance": platform.instance,
        "provider": platform.provider,
        "release": platform.release,
        "components": [
            {
                "name": part.name,
                "state": part.state,
                "pid": part.pid,
                "detail": part.detail,
                "log": str(part.log) if part.log else None,
            }
            for part in parts
        ],
        "endpoints": {name: end.url for name, end in sorted(platform.endpoints.items())},
        "missing": {name: why for name, why in sorted(platform.capabilities.items()) if why},
        "kubeconfig": str(platform.kubeconfig),
        "logs": str(platform.logs),
    }


def _tell(console: Console, platform: Platform, parts: list[ComponentStatus]) -> None:
    console.print(f"The platform {platform.instance} (release {platform.release}, provider {platform.provider})")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("component", "state", ""):
        table.add_column(column)
    for part in sorted(parts, key=lambda part: (part.state == "running", part.name)):
        style = "green" if part.state == "running" else "bold red"
        table.add_row(part.name, f"[{style}]{part.state}[/]", part.detail)
    console.print(table)
    console.print("\nWhere it answers:")
    for name, end in sorted(platform.endpoints.items()):
        console.print(f"  {name:17}{end.url}", markup=False)
    reasons: dict[str, list[str]] = {}
    for name, why in sorted(platform.capabilities.items()):
        if why:
            reasons.setdefault(why, []).append(name)
    if reasons:
        console.print("\nWhat it cannot show:")
        for why, names in reasons.items():
            console.print(f"  {', '.join(names)}: {why}", markup=False)
    console.print(f"\nLogs: {platform.logs}", markup=False)


def _was_left_by_a_killed_run(name: str) -> bool:
    """A test run's own platform, and the process that ran it is no more."""
    number = name.removeprefix(RUN_PREFIX)
    if not name.startswith(RUN_PREFIX) or not number.isdigit():
        return False
    return not scratch.is_alive(int(number))
