"""model-server: train small real models, and serve them with KServe's SDK."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from socket import socket

from starlette.types import ASGIApp

from model_server.artifacts import BY_KIND, verified
from model_server.running import SetupProblem, listen, run, stopped_by_setup_problem
from model_server.specs import ModelSpec, read_config

Servers = Mapping[str, tuple[ASGIApp, socket]]
Dress = Callable[[argparse.Namespace, ASGIApp], tuple[ASGIApp, Servers]]


def main(argv: Sequence[str] | None = None) -> int:
    parser, _ = build_parser("model-server")
    return execute("model-server", parser.parse_args(argv), lambda _, app: (app, {}))


def build_parser(program: str) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser, and that of its `serve` command."""
    env = os.environ
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="make the models")
    train.add_argument("--out", type=Path, metavar="DIR", required=True)
    serve = commands.add_parser("serve", help="serve one model, or all of --config")
    serve.add_argument("--kind", choices=tuple(BY_KIND), default=env.get("MODEL_KIND"))
    serve.add_argument("--name", default=env.get("MODEL_NAME"))
    serve.add_argument("--model-dir", type=Path, metavar="DIR", default=env.get("MODEL_DIR"), help="what train made")
    serve.add_argument("--config", type=Path, metavar="FILE", help="JSON list of several models")
    serve.add_argument("--host", default="0.0.0.0")
    serve.add_argument("--port", type=int, default=env.get("PORT", "8080"), help="0 takes a free one")
    return parser, serve


def execute(program: str, wanted: argparse.Namespace, dress: Dress) -> int:
    """Do what the command line says. `dress` may put something in front of the app, or add servers beside it."""
    try:
        if wanted.command == "train":
            from model_server.train import train

            train(wanted.out)
            return 0
        if wanted.config:
            specs = read_config(wanted.config)
        elif wanted.kind and wanted.name and wanted.model_dir:
            specs = [ModelSpec(wanted.kind, wanted.name, wanted.model_dir)]
        else:
            raise SetupProblem("serve needs --kind, --name and --model-dir, or --config")
        models = {spec: verified(spec.directory, spec.kind) for spec in specs}
        listener = listen(wanted.host, wanted.port)
        # Takes a second or more, so it comes after everything that can be wrong with the command line.
        from model_server.server import create_app

        app, beside = dress(wanted, create_app(models))
        run({"model": (app, listener), **beside})
    except SetupProblem as problem:
        return stopped_by_setup_problem(program, problem)
    except ModuleNotFoundError as missing:
        remedy = SetupProblem(f"{missing.name} is not installed; install model-server[models]")
        return stopped_by_setup_problem(program, remedy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
