"""What goes wrong, as the client is told: a status, one line, and details it can act on."""

from typing import Any


class ApiError(Exception):
    """A reply other than success: `{error, details?}`."""

    def __init__(self, status: int, error: str, details: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.details = details
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.error} if self.details is None else {"error": self.error, "details": self.details}
