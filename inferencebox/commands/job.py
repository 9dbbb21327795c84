"""``ibox job``: the suite as a Job in the cluster of a platform."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inferencebox import providers
from inferencebox.commands.platform import DEFAULT_INSTANCE, ContextOption, InstanceOption, KubeconfigOption
from inferencebox.errors import SetupProblem, exit_code
from inferencebox.job.running import SuiteJob
from inferencebox.journal import Journal
from inferencebox.programs import shown
from inferencebox.providers.kubernetes.platform import KubernetesPlatform
from inferencebox.providers.options import ClusterOptions, PlatformOptions
from inferencebox.report.render import render

EXAMPLES = """
[bold]Examples[/bold]

  ibox job                                       every scenario, in the cluster of the platform `default`

  ibox job -- -m security -n 2                   arguments for pytest, after `--`

  ibox job --context lab --reports /tmp/night    a platform that another machine brought up
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(job)


def job(
    instance: InstanceOption = DEFAULT_INSTANCE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = "",
    reports: Annotated[Path, typer.Option(help="Where results go, as they come.")] = Path("reports"),
    more: Annotated[
        list[str] | None, typer.Argument(help="Arguments for pytest, after `--`.", show_default=False)
    ] = None,
) -> None:
    """Run the suite in the cluster, next to the platform: what it prints is shown, its results come here as it goes.

    It runs as an administrator of the cluster, for that is what its scenarios are. Interrupted or killed, the Job is
    removed, and so is all that it ran as. Exit code: the suite's.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(highlight=False, soft_wrap=True)
    platform = _platform(instance, kubeconfig, context)
    with shown(console) as progress:
        image = providers.suite_image(platform, progress)
    journal = Journal.create(reports.absolute())
    run = SuiteJob(platform.kube, platform.kubeconfig, instance, image, more or ["tests"], _show, journal)
    console.print(f"Job {run.name} in the cluster of the platform {instance}", markup=False)
    try:
        code = run.run()
    except KeyboardInterrupt:
        raise SetupProblem(f"interrupted: the Job {run.name} was removed", "run this again") from None
    finally:
        if run.events:
            render(journal.folder, with_allure=False)
            console.print(f"{run.events} events in {journal.path}", markup=False)
    raise typer.Exit(exit_code(code))


def _platform(instance: str, kubeconfig: Path | None, context: str) -> KubernetesPlatform:
    if kubeconfig or context:
        options = PlatformOptions(cluster=ClusterOptions(kubeconfig, context))
        found = providers.running("cluster", instance, options)
    else:
        found = providers.attach(instance)
    if found is None:
        raise SetupProblem("no complete platform of ours is on this cluster", "ibox up --provider cluster")
    if not isinstance(found, KubernetesPlatform):
        raise SetupProblem(f"the platform {instance} has no nodes for a Job", "ibox up --provider kind, or cluster")
    return found


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
