"""Imports KServe's SDK without what a model server never uses.

`import kserve` takes 2.9 s of processor time here, of which 1.2 s is pandas (named by the SDK in annotations and in one
isinstance test, for data frames that our models never give) and 0.5 s the Kubernetes client (for KServeClient, which
talks to a cluster). Several servers start at once on a small machine, so both are replaced by empty stand-ins while the
SDK is imported. Nothing else of the SDK is touched; test_model_server.py holds it to the protocols it promises.
"""

import sys
from importlib.abc import MetaPathFinder
from types import ModuleType


class _NoPandas(MetaPathFinder):
    """scikit-learn looks for pandas as well (0.9 s), and does without where it is not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not used by the model server", name="pandas")


_pandas = ModuleType("pandas")
_pandas.DataFrame = type("DataFrame", (), {})  # type: ignore[attr-defined]
_client = ModuleType("kserve.api.kserve_client")
_client.KServeClient = type("KServeClient", (), {})  # type: ignore[attr-defined]

_arguments = sys.argv
sys.modules["pandas"] = _pandas
sys.modules["kserve.api.kserve_client"] = _client
sys.argv = _arguments[:1]  # the SDK reads the command line when it is imported
try:
    from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
    from kserve.errors import InvalidInput
    from kserve.model_server import app
    from kserve.protocol.rest.server import RESTServer
finally:
    sys.argv = _arguments
    del sys.modules["pandas"], sys.modules["kserve.api.kserve_client"]
    sys.meta_path.insert(0, _NoPandas())

__all__ = [
    "InferOutput",
    "InferRequest",
    "InferResponse",
    "InvalidInput",
    "Model",
    "ModelServer",
    "RESTServer",
    "app",
]
