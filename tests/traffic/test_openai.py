"""The OpenAI protocol: one endpoint for every language model of a tenant."""

import pytest

from fixtures.scenario import scenario
from inferencebox.checks import (
    answered,
    at_least,
    attribute,
    between,
    body_json,
    equals,
    every,
    header,
    length,
    matches,
    present,
    served_by,
    that,
)
from inferencebox.evidence import note
from inferencebox.probes.openai import client, read_events
from inferencebox.waiting import eventually

PACE_MS = 120
TOKENS = 8
PATHS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
}


def is_sum(usage):
    return usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


@scenario("INF-04", needs=("ai-gateway", "models"), sabotage="openai.route-removed", seconds=1)
def test_a_chat_is_answered_and_counted(tenant_b, tiny_llm, gateway, story):
    """A question in OpenAI's form gets an answer in OpenAI's form, with its tokens counted."""
    with story.when("tenant B asks its language model"):
        reply = eventually(gateway.chat(tiny_llm, tenant_b.token, body={"max_tokens": TOKENS}), answered(200))
    with story.then("the model itself answers, in OpenAI's form"):
        said = body_json("choices[0].message", that("the assistant's words", lambda m: m["role"] == "assistant"))
        said &= body_json("choices[0].message.content", present()) & body_json("choices", length(equals(1)))
        form = body_json("id", present()) & body_json("object", equals("chat.completion"))
        assert not (why := (served_by(tiny_llm) & form & said & body_json("model", equals(tiny_llm.name)))(reply)), why
    with story.then("the tokens add up and keep to what was asked for"):
        usage = body_json("usage.prompt_tokens", at_least(1)) & body_json("usage", that("a sum", is_sum))
        counted = usage & body_json("usage.completion_tokens", between(1, TOKENS))
        assert not (why := counted(reply)), why


@scenario("INF-05", needs=("ai-gateway", "models"), sabotage="openai.route-removed", seconds=4)
def test_an_answer_arrives_word_by_word(tenant_b, tiny_llm, gateway, story):
    """A streamed answer comes in pieces as the model speaks, ends with [DONE], and says what the whole one says."""
    wish = {"max_tokens": TOKENS, "temperature": 0}
    with story.given("the whole answer"):
        whole = eventually(gateway.chat(tiny_llm, tenant_b.token, body=wish), answered(200) & served_by(tiny_llm))
    with story.when(f"the same is asked as a stream, of a model that pauses {PACE_MS} ms between words"):
        pace = [("x-stub-pace-ms", str(PACE_MS))]
        asked = gateway.chat(tiny_llm, tenant_b.token, pace, body={**wish, "stream": True}, timeout=30)
        reply = eventually(asked, answered(200) & served_by(tiny_llm))
        stream = read_events(reply)
        arrived = [[event.at, number] for number, event in enumerate(stream.events, start=1)]
        story.plot("Pieces of the answer as they arrived", {"kind": "series", "unit": "pieces", "lines": {"": arrived}})
    with story.then("it is an event stream of many chunks, and [DONE] at its end"):
        assert not (why := header("content-type", matches("^text/event-stream"))(reply)), why
        assert stream.done, f"the stream does not end with one [DONE]: {stream.events[-1:]}"
        kinds = {chunk["object"] for chunk in stream.chunks}
        assert kinds == {"chat.completion.chunk"}, f"chunks of other kinds: {kinds}"
    with story.then("the pieces came over time: no gateway held them back"):
        spoken = sum(bool(chunk["choices"] and chunk["choices"][0]["delta"].get("content")) for chunk in stream.chunks)
        assert not (why := at_least(4)(spoken)), f"words: {why}"
        pauses = PACE_MS / 1000 * (spoken - 1)
        assert not (why := attribute("spread", at_least(0.5 * pauses))(stream)), f"{why} seconds, of {pauses:.1f}"
    with story.then("together they are the whole answer"):
        content = whole.json()["choices"][0]["message"]["content"]
        assert stream.text == content, f"wanted {content!r}, got {stream.text!r}"


@scenario("INF-06", needs=("ai-gateway", "models"), sabotage="openai.route-removed", seconds=1)
def test_texts_become_vectors(tenant_b, tiny_llm, gateway, story):
    """Texts are turned into vectors: like texts into like vectors."""
    texts = ["a flower with red petals", "a flower with blue petals", "quarterly revenue forecast"]
    body = {"model": tiny_llm.name, "input": texts}
    with story.when("three texts are sent"):
        asked = gateway.call("POST", "/v1/embeddings", tenant_b.token, json=body)
        reply = eventually(asked, answered(200) & served_by(tiny_llm))
    with story.then("each gets a vector of the same length, in the order of the texts"):
        vectors = [one["embedding"] for one in reply.json()["data"]]
        assert not (why := body_json("object", equals("list"))(reply)), why
        assert [one["index"] for one in reply.json()["data"]] == [0, 1, 2], "not one vector for each text, in order"
        assert len({len(vector) for vector in vectors}) == 1, f"lengths {[len(vector) for vector in vectors]}"
        assert not (why := body_json("usage.total_tokens", at_least(3))(reply)), why
    with story.then("the two flowers are closer to each other than to the revenue"):
        flowers, other = cosine(vectors[0], vectors[1]), cosine(vectors[0], vectors[2])
        assert flowers > other, f"flowers {flowers:.2f}, flower and revenue {other:.2f}"


def cosine(one, other):
    length_of = [sum(value * value for value in vector) ** 0.5 for vector in (one, other)]
    return sum(a * b for a, b in zip(one, other, strict=True)) / (length_of[0] * length_of[1])


@scenario("INF-07", needs=("ai-gateway", "models"), sabotage="openai.list-everything", seconds=2)
def test_everybody_sees_its_own_models_only(tenants, tenant_b, tiny_llm, tiny_llm_b, gateway, story):
    """The list of models shows a tenant its own, and nobody else's, at every host of the platform."""
    expected = {tenant.name: set() for tenant in tenants} | {tenant_b.name: {tiny_llm.name, tiny_llm_b.name}}
    everybody = {model for models in expected.values() for model in models}
    for host in ("localhost", "api.router.inference-in-a-box", "tenant-b.inference-in-a-box"):
        for tenant in tenants:
            with story.then(f"at {host}, {tenant} sees {', '.join(sorted(expected[tenant.name])) or 'no model'}"):
                listing = gateway.at(host).get("/v1/models", tenant.token)
                wanted = expected[tenant.name]
                # other scenarios may have language models of their own at the same time
                own = that(f"{sorted(wanted)} and no other tenant's", lambda data, wanted=wanted: (
                    wanted <= (ids := {model["id"] for model in data}) and not ids & (everybody - wanted)
                ))  # fmt: skip
                owned = that(f"owned by {tenant}", lambda data, tenant=tenant: (
                    all(model["owned_by"] == tenant.name for model in data)
                ))  # fmt: skip
                form = body_json("object", equals("list")) & body_json("data", own) & body_json("data", owned)
                eventually(listing, answered(200) & form)


@scenario("INF-08", needs=("ai-gateway", "models"), sabotage="openai.route-removed", seconds=3)
def test_the_official_client_works_unchanged(platform, tenant_b, tiny_llm, story):
    """OpenAI's own client works with nothing changed but the address: chat, stream, vectors, list of models."""
    user = client(platform.endpoint("gateway"), tenant_b.token)
    talk = {"model": tiny_llm.name, "messages": [{"role": "user", "content": "Say something about flowers."}]}
    with story.then("it chats"):
        answer = user.chat.completions.create(**talk, max_tokens=TOKENS)
        note("answer", answer.model_dump_json())
        assert answer.choices[0].message.content, "the answer is empty"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    with story.then("it streams"):
        with user.chat.completions.create(**talk, max_tokens=TOKENS, stream=True) as stream:
            pieces = [choice.delta.content for chunk in stream for choice in chunk.choices if choice.delta.content]
        note("pieces", repr(pieces))
        assert len(pieces) > 1, f"the answer came in {len(pieces)} pieces"
    with story.then("it embeds, in its own binary encoding"):
        vector = user.embeddings.create(model=tiny_llm.name, input="flowers").data[0].embedding
        assert len(vector) > 8, f"a vector of {len(vector)}"
        assert all(isinstance(value, float) for value in vector), "not all of the vector are numbers"
    with story.then("it lists the tenant's models"):
        names = {model.id for model in user.models.list()}
        assert tiny_llm.name in names, f"only {sorted(names)}"


@scenario("INF-10", needs=("ai-gateway", "models"), sabotage="default-backend.gone", seconds=2)
def test_an_unknown_model_is_told_in_openais_words(platform, tenant_a, tenant_b, tiny_llm, gateway, story):
    """Who asks for a model that is not there, or for none, is told so as OpenAI's clients expect it."""
    wrong = body_json("error.type", equals("invalid_request_error")) & body_json("error.message", present())
    unknown = answered(404) & wrong & body_json("error.code", equals("model_not_found"))
    missing = answered(400) & wrong & body_json("error.param", equals("model"))

    with story.given("a model that is there answers"):
        eventually(gateway.chat(tiny_llm, tenant_b.token), answered(200) & served_by(tiny_llm))
    for path, body in PATHS.items():
        ask = gateway.call("POST", path, tenant_b.token)
        with story.then(f"{path}: an unknown model is 404 model_not_found"):
            named = unknown & body_json("error.message", matches("tiny-nobody"))
            eventually(ask.with_(json={"model": "tiny-nobody", **body}), named)
        with story.then(f"{path}: no model, or an empty name, is 400"):
            eventually(ask.with_(json=body), missing)
            eventually(ask.with_(json={"model": "", **body}), missing)
    with story.then("another tenant's model is unknown too, and never asked"):
        foreign = eventually(gateway.chat(tiny_llm, tenant_a.token), unknown)
        assert tiny_llm.arrivals(request_id=foreign.request_id)() == 0, "tenant A's question reached B's model"
    with story.then("the official client takes it for what it is"):
        user = client(platform.endpoint("gateway"), tenant_b.token)
        from openai import NotFoundError  # here: only who uses the client is to wait for its import

        with pytest.raises(NotFoundError) as caught:
            user.embeddings.create(model="tiny-nobody", input="Hello")
        assert caught.value.code == "model_not_found", f"the client read the code {caught.value.code!r}"


@scenario("INF-11", needs=("ai-gateway", "models"), sabotage="openai.route-removed", seconds=2)
def test_two_providers_stand_behind_one_endpoint(tenant_b, tiny_llm, tiny_llm_b, gateway, story):
    """One address, two providers: the model that the request names decides who answers."""
    for model in (tiny_llm, tiny_llm_b):
        with story.then(f"who asks for {model.name} is answered by {model.name}"):
            own = answered(200) & served_by(model) & body_json("model", equals(model.name))
            eventually(gateway.chat(model, tenant_b.token, body={"max_tokens": 2}), own, streak=3)
    with story.then("embeddings find their provider in the same way"):
        for model in (tiny_llm, tiny_llm_b):
            body = {"model": model.name, "input": ["Hello"]}
            vectors = body_json("data", every(that("a vector", lambda one: len(one["embedding"]) > 8)))
            asked = gateway.call("POST", "/v1/embeddings", tenant_b.token, json=body)
            eventually(asked, answered(200) & served_by(model) & vectors)
