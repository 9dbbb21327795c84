"""KServe's two protocols, through both gateways to real models."""

import json

from fixtures.scenario import scenario
from inferencebox.checks import (
    answered,
    body_json,
    contains,
    equals,
    header,
    length,
    matches,
    one_of,
    present,
    served_by,
)
from inferencebox.waiting import eventually

IRIS_SAMPLES = {
    "a small flower": ([[5.1, 3.5, 1.4, 0.2]], [0]),
    "two larger ones": ([[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]], [1, 1]),
}
TENSOR = {"name": "input-0", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}
JSON = ("content-type", "application/json")


@scenario("INF-01", needs=("gateway", "models"), sabotage="models.broken-replies", seconds=1)
def test_a_flower_is_recognised(tenant_a, gateway, story):
    """Flowers are sent to tenant A's iris model, and it names their species."""
    for sample, (instances, species) in IRIS_SAMPLES.items():
        with story.when(f"{sample} is asked about"):
            reply = eventually(
                gateway.predict(tenant_a.model, tenant_a.token, json={"instances": instances}), answered(200)
            )
        with story.then(f"the model itself answers: {species}"):
            assert not (why := (served_by(tenant_a.model) & body_json("predictions", equals(species)))(reply)), why


@scenario("INF-02", needs=("gateway", "models"), sabotage="default-backend.gone", seconds=2)
def test_a_bad_question_is_told_so_and_harms_nobody(tenant_a, gateway, story):
    """Broken JSON, a wrong shape and an unknown model each get their own error, and the model stays ready."""
    ask = gateway.predict(tenant_a.model, tenant_a.token)
    said = header("content-type", matches("^application/json")) & body_json("error", present())

    with story.given("the model answers a good question"):
        eventually(ask, answered(200) & served_by(tenant_a.model))
    with story.then("broken JSON is 400, in JSON"):
        eventually(ask.with_(json=None, body=b'{"instances": [[5.1,').adding(JSON), answered(400) & said)
    with story.then("a flower with two numbers is 400, and the error says what is wanted"):
        short = ask.with_(json={"instances": [[5.1, 3.5]]})
        eventually(short, answered(400) & said & served_by(tenant_a.model) & body_json("error", contains("4")))
    with story.then("a model that does not exist is 404, in KServe's words"):
        unknown = gateway.predict("sklearn-rose", tenant_a.token)
        eventually(unknown, answered(404) & body_json("error", contains("sklearn-rose does not exist")))
    with story.then("the model is still ready and right"):
        ready = gateway.get(f"/v2/models/{tenant_a.model.name}/ready", tenant_a.token)
        eventually(ready, answered(200) & served_by(tenant_a.model) & body_json("ready", equals(True)))
        eventually(ask, answered(200) & body_json("predictions", equals([0])))


@scenario("INF-03", needs=("gateway", "models"), sabotage="models.broken-replies", seconds=1)
def test_a_model_tells_about_itself_and_infers(tenant_a, gateway, story):
    """Both of KServe's protocols: what the model is, whether it is well, and inference on tensors."""
    name, token = tenant_a.model.name, tenant_a.token
    own = answered(200) & served_by(tenant_a.model)
    described = body_json("name", equals(name)) & body_json("inputs[0].datatype", equals("FP32"))

    with story.then("v1: its name, and that it is ready"):
        ready = body_json("name", equals(name)) & body_json("ready", one_of(True, "True"))
        eventually(gateway.get(f"/v1/models/{name}", token), own & ready)
    with story.then("v2: what it takes and gives"):
        eventually(gateway.get(f"/v2/models/{name}", token), own & described)
    with story.then("v2: its server is alive and ready"):
        asked = [("x-ai-eg-model", name)]
        for state in ("live", "ready"):
            eventually(gateway.get(f"/v2/health/{state}", token, asked), own & body_json(state, equals(True)))
    with story.then("v2: a tensor in, a tensor out"):
        infer = gateway.call("POST", f"/v2/models/{name}/infer", token, json={"inputs": [TENSOR]})
        species = body_json("outputs[0].data", equals([0])) & body_json("model_name", equals(name))
        eventually(infer, own & species & body_json("outputs", length(equals(1))))


@scenario("INF-09", needs=("ai-gateway", "models"), sabotage=("routes.misrouted", "openai.prefix-dropped"), seconds=2)
def test_a_model_server_gets_requests_in_kserves_form(tenant_a, tenant_b, tiny_llm, gateway, story):
    """What leaves the two gateways is what KServe's model servers understand, whichever protocol came in."""
    echo = [("x-stub-echo", "1")]
    forms = {
        "v1": (
            gateway.predict(tenant_a.model, tenant_a.token, echo),
            "/v1/models/sklearn-iris:predict",
            tenant_a.model,
        ),
        "v2": (
            gateway.call("POST", "/v2/models/sklearn-iris/infer", tenant_a.token, echo, json={"inputs": [TENSOR]}),
            "/v2/models/sklearn-iris/infer",
            tenant_a.model,
        ),
        "OpenAI": (gateway.chat(tiny_llm, tenant_b.token, echo), "/openai/v1/chat/completions", tiny_llm),
    }
    for protocol, (call, path, model) in forms.items():
        with story.when(f"a request in {protocol} form is sent, and the model server shows what it got"):
            seen = eventually(call, answered(200) & served_by(model)).json()
        with story.then("path, host and body are KServe's"):
            assert (seen["method"], seen["path"]) == ("POST", path), f"arrived as {seen['method']} {seen['path']}"
            hosts = [value for name, value in seen["headers"] if name == "host"]
            predictor = hosts in ([model.predictor], [model.predictor_inside])
            assert predictor, f"the model server was asked as {hosts}"
            sent, got = dict(call.json), json.loads(seen["body"])
            changed = {key for key, value in sent.items() if got.get(key) != value}
            assert not changed, f"changed on the way: {', '.join(sorted(changed))}"
