"""Reads our manifests and fills in the few values that differ from one platform to another."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from inferencebox.errors import SetupProblem

Document = dict[str, Any]


def load(path: Path, values: Mapping[str, str] | None = None) -> list[Document]:
    """Every object of a file, or of a folder's files in order of name.

    Args:
        values: for ``${name}`` in the text; a name without a value is an error that says where.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return [document for file in files for document in _documents(file, values or {})]


def full_kind(document: Document) -> str:
    """As kubectl takes it: the kind, with its group, for there are several of one name."""
    group = document["apiVersion"].rpartition("/")[0]
    return f"{document['kind']}.{group}" if group else str(document["kind"])


def _documents(file: Path, values: Mapping[str, str]) -> Iterator[Document]:
    try:
        text = Template(file.read_text()).substitute(values)
        yield from (document for document in yaml.safe_load_all(text) if document)
    except OSError as problem:
        raise SetupProblem(f"{file} cannot be read ({problem.strerror})", "run from a complete checkout") from None
    except KeyError as name:
        raise SetupProblem(
            f"{file} has ${{{name.args[0]}}}, for which there is no value", "see manifests/README.md"
        ) from None
    except yaml.YAMLError as problem:
        raise SetupProblem(f"{file} is not valid YAML: {' '.join(str(problem).split())}", "mend the file") from None
