"""The models behind KServe's v1 and v2 protocols."""

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from model_server.sdk import InferOutput, InferRequest, InferResponse, InvalidInput, Model

Numbers = npt.NDArray[np.float32]


class TableModel(Model):  # type: ignore[misc]
    """A model of rows of numbers. Whatever is not that is the caller's mistake: 400, never 500."""

    columns: int

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    @abstractmethod
    def outputs(self, rows: Numbers) -> list[tuple[str, str, npt.NDArray[Any]]]:
        """(name, datatype, values) for v2."""

    @abstractmethod
    def predictions(self, rows: Numbers) -> list[Any]:
        """One for each row, for v1."""

    def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """KServe hands over the body as it is when the content type is not JSON, as with a plain `curl -d`."""
        if isinstance(payload, bytes):
            try:
                payload = json.loads(payload)
            except (ValueError, RecursionError):
                raise InvalidInput("Unrecognized request format: the body is not valid JSON") from None
        if not isinstance(payload, dict | InferRequest):
            raise InvalidInput("Unrecognized request format: the body must be a JSON object")
        return payload

    def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> Any:
        if isinstance(payload, dict):
            return {"predictions": self.predictions(self._rows(payload.get("instances")))}
        outputs = []
        for name, datatype, values in self.outputs(self._rows(_tensor(payload))):
            output = InferOutput(name=name, shape=list(values.shape), datatype=datatype)
            output.set_data_from_numpy(values, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id or str(uuid4()), model_name=self.name, infer_outputs=outputs)

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "input-0", "datatype": "FP32", "shape": [-1, self.columns]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        outputs = self.outputs(np.zeros((1, self.columns), dtype=np.float32))
        return [{"name": n, "datatype": kind, "shape": [-1, *values.shape[1:]]} for n, kind, values in outputs]

    def _rows(self, values: Any) -> Numbers:
        try:
            rows = np.asarray(values)
        except ValueError:
            raise InvalidInput(f"the instances differ in shape; each must be {self.columns} numbers") from None
        if rows.dtype.kind not in "iuf" or rows.ndim < 2 or rows.size != len(rows) * self.columns or not len(rows):
            raise InvalidInput(f"instances must be a list of {self.columns} numbers each; got shape {list(rows.shape)}")
        rows = rows.astype(np.float32).reshape(-1, self.columns)
        if not np.isfinite(rows).all():
            raise InvalidInput("instances must be finite numbers")
        return rows


def _tensor(request: InferRequest) -> Any:
    if len(request.inputs) != 1:
        raise InvalidInput("this model takes exactly one input")
    try:
        return request.inputs[0].as_numpy()
    except Exception as error:  # the SDK raises whatever numpy does with data that does not fit shape and datatype
        raise InvalidInput(f"the input's data does not fit its shape and datatype: {error}") from None


class IrisModel(TableModel):
    columns = 4

    def __init__(self, name: str, file: Path) -> None:
        import joblib

        self._model = joblib.load(file)
        super().__init__(name)

    def predictions(self, rows: Numbers) -> list[Any]:
        return [int(label) for label in self._model.predict(rows)]

    def outputs(self, rows: Numbers) -> list[tuple[str, str, npt.NDArray[Any]]]:
        return [("output-0", "INT64", self._model.predict(rows).astype(np.int64))]


class ImageModel(TableModel):
    """Says which digit an 8x8 picture shows; brightness goes from 0 to 16."""

    columns = 64

    def __init__(self, name: str, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        super().__init__(name)

    def predictions(self, rows: Numbers) -> list[Any]:
        labels, probabilities = self._run(rows)
        return [
            {"class": int(label), "probabilities": [round(float(p), 6) for p in row]}
            for label, row in zip(labels, probabilities, strict=True)
        ]

    def outputs(self, rows: Numbers) -> list[tuple[str, str, npt.NDArray[Any]]]:
        labels, probabilities = self._run(rows)
        return [("class", "INT64", labels.astype(np.int64)), ("probabilities", "FP32", probabilities)]

    def _run(self, rows: Numbers) -> tuple[npt.NDArray[Any], Numbers]:
        labels, probabilities = self._session.run(None, {self._input: rows})
        return labels, probabilities
