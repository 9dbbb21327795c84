"""Two providers for one model: the second answers when the first cannot."""

import uuid

import pytest

from fixtures.scenario import scenario
from inferencebox import policies
from inferencebox.checks import answered, body_json, equals, present, served_by
from inferencebox.waiting import Timeouts, eventually


@pytest.fixture
def one_model_at(kube):
    """Makes an OpenAI model that several providers serve, the first one first: gives its name."""
    made = []

    def make(tenant, *providers):
        name = f"both-{uuid.uuid4().hex[:6]}"
        backends = [
            {"name": f"{provider.tenant}-{provider.name}", "namespace": "ai-gateway", "priority": priority}
            for priority, provider in enumerate(providers)
        ]
        documents = [each for each in policies.model(tenant.name, name, "openai") if each["kind"] == "AIGatewayRoute"]
        (rule,) = documents[0]["spec"]["rules"]
        rule["backendRefs"] = backends
        made.extend(documents)
        for reply in kube.apply(documents):
            reply.require()
        return name

    yield make
    kube.delete_all(made)


@scenario("TRF-26", needs=("ai-gateway", "workloads"), sabotage="openai.fallback-removed", seconds=25)
def test_a_second_provider_steps_in(platform, tenant_b, own_model, one_model_at, gateway, story):
    """When the first provider of a model fails or is gone, the second answers the very same request."""
    with story.given("one model, served by a first provider and, if that fails, by a second"):
        first, second = (own_model(tenant_b.name, api="openai") for _ in range(2))
        chat = gateway.chat(one_model_at(tenant_b, first, second), tenant_b.token)
    by_first, by_second = (answered(200) & served_by(provider) for provider in (first, second))

    with story.given("while both are well, the first answers and the second is left alone"):
        seen = eventually(chat, by_first, streak=5, within=Timeouts.current().route)
        assert second.arrivals(request_id=seen.request_id)() == 0, "the second provider was asked as well"
    with story.when("the first provider answers 503 to everything"):
        for replica in first.replicas:
            replica.fault(status=503)
    with story.then("the second answers, within the same request"):
        whole = body_json("choices[0].message.content", present()) & body_json("object", equals("chat.completion"))
        for _ in range(3):
            seen = chat()
            assert not (why := (by_second & whole)(seen)), why
        assert first.arrivals(request_id=seen.request_id)() == 1, "the first provider was not asked exactly once"
    with story.when("the first provider is well again"):
        for replica in first.replicas:
            replica.heal()
    with story.then("it serves again"):
        eventually(chat, by_first, streak=3)
    with story.when("the first provider is gone altogether"):
        platform.remove_workloads(first.pods)
    with story.then("the second answers"):
        eventually(chat, by_second, streak=5)
