"""How what is stored of a platform (metrics, logs, traces, notifications) is read, over a way that may break."""

from typing import Any

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

TIMEOUT_SECONDS = 20.0
ATTEMPTS = 3
PAUSE_SECONDS = 1.0


# Only a connection that broke: the way there is not the platform's promise. Refusals, errors and time-outs are answers.
@retry(
    retry=retry_if_exception_type((httpx.NetworkError, httpx.RemoteProtocolError)),
    stop=stop_after_attempt(ATTEMPTS),
    wait=wait_fixed(PAUSE_SECONDS),
    reraise=True,
)
def read(url: str, headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
    """A GET that is asked again when its connection breaks.

    Into a cluster it goes by port-forward, through an API server and a kubelet, which break it when they are busy, and
    of which nothing is promised.

    Args:
        params: the query.

    Raises:
        httpx.HTTPError: the connection broke each time, or no answer came in time.
    """
    return httpx.get(url, params=params, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)
