"""How to call a published model: generated, so that each example runs as it stands (with the key in `API_KEY`)."""

import json
from typing import Any

from management.publication import Publication
from management.settings import Settings

SAMPLES: dict[str, Any] = {"iris": {"instances": [[5.1, 3.5, 1.4, 0.2]]}}
ANY: Any = {"instances": [[0.0]]}


def endpoint_url(publication: Publication, settings: Settings) -> str:
    base = f"{settings.public_scheme}://{publication.host}"
    if publication.kind == "openai":
        return f"{base}/v1/chat/completions"
    return f"{base}{publication.path}/predict"


def external_url(publication: Publication, settings: Settings) -> str:
    return f"{settings.public_scheme}://{publication.host}{publication.path}"


def sample(publication: Publication) -> Any:
    """A body to begin with: `metadata.sampleInput` if the publisher gave one, else one that fits the kind."""
    given = publication.metadata.get("sampleInput")
    if given:
        try:
            return json.loads(given)
        except ValueError:
            pass
    if publication.kind == "openai":
        message = {"role": "user", "content": "Say something about flowers."}
        return {"model": publication.model, "messages": [message], "max_tokens": 16}
    return next((body for name, body in SAMPLES.items() if name in publication.model), ANY)


def documentation(publication: Publication, settings: Settings) -> dict[str, Any]:
    url, body = endpoint_url(publication, settings), sample(publication)
    headers = {"X-API-Key": "$API_KEY", "Content-Type": "application/json"}
    if publication.authentication.allowed_tenants:
        headers["Authorization"] = "Bearer $TOKEN"
    return {
        "endpointUrl": url,
        "authHeaders": headers,
        "exampleRequests": [{"method": "POST", "url": url, "headers": headers, "body": body}],
        "sdkExamples": {
            "curl": _curl(url, headers, body),
            "python": _python(url, headers, body),
            "javascript": _javascript(url, headers, body),
            "go": _go(url, headers, body),
        },
    }


def _curl(url: str, headers: dict[str, str], body: Any) -> str:
    options = "".join(f' \\\n  -H "{name}: {value}"' for name, value in headers.items())
    return f"curl --fail-with-body -sS {url}{options} \\\n  -d '{json.dumps(body)}'"


def _variables(headers: dict[str, str], read: str, join: str) -> list[tuple[str, str]]:
    """Header values as expressions of a language: `$NAME` becomes a look-up of the environment."""
    found = []
    for name, value in headers.items():
        text, mark, variable = value.partition("$")
        looked_up = read.format(variable)
        quoted = json.dumps(text)
        found.append(
            (name, json.dumps(value) if not mark else looked_up if not text else f"{quoted} {join} {looked_up}")
        )
    return found


def _python(url: str, headers: dict[str, str], body: Any) -> str:
    entries = "\n".join(f'        "{n}": {v},' for n, v in _variables(headers, 'os.environ["{}"]', "+"))
    return (
        "import json\nimport os\nimport urllib.request\n\n"
        f"request = urllib.request.Request(\n    {json.dumps(url)},\n    data=json.dumps({body!r}).encode(),\n"
        f"    headers={{\n{entries}\n    }},\n)\n"
        "with urllib.request.urlopen(request) as reply:\n    print(reply.read().decode())\n"
    )


def _javascript(url: str, headers: dict[str, str], body: Any) -> str:
    entries = "\n".join(f'    "{n}": {v},' for n, v in _variables(headers, "process.env.{}", "+"))
    return (
        f'const reply = await fetch({json.dumps(url)}, {{\n  method: "POST",\n  headers: {{\n{entries}\n  }},\n'
        f"  body: JSON.stringify({json.dumps(body)}),\n}});\n"
        "if (!reply.ok) throw new Error(`${reply.status} ${await reply.text()}`);\nconsole.log(await reply.json());\n"
    )


def _go(url: str, headers: dict[str, str], body: Any) -> str:
    lines = "\n".join(
        f"\trequest.Header.Set({json.dumps(n)}, {v})" for n, v in _variables(headers, 'os.Getenv("{}")', "+")
    )
    return (
        'package main\n\nimport (\n\t"fmt"\n\t"io"\n\t"log"\n\t"net/http"\n\t"os"\n\t"strings"\n)\n\n'
        f"func main() {{\n\tbody := strings.NewReader(`{json.dumps(body)}`)\n"
        f'\trequest, err := http.NewRequest("POST", {json.dumps(url)}, body)\n'
        "\tif err != nil {\n\t\tlog.Fatal(err)\n\t}\n"
        f"{lines}\n\treply, err := http.DefaultClient.Do(request)\n"
        "\tif err != nil {\n\t\tlog.Fatal(err)\n\t}\n\tdefer reply.Body.Close()\n"
        "\ttext, err := io.ReadAll(reply.Body)\n\tif err != nil {\n\t\tlog.Fatal(err)\n\t}\n"
        '\tif reply.StatusCode >= 400 {\n\t\tlog.Fatal(reply.Status, " ", string(text))\n\t}\n'
        "\tfmt.Println(string(text))\n}\n"
    )
