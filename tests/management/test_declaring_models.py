"""Models made, listed, changed and removed through the management service. What a controller does is not shown."""

from fixtures.management import naming, unhurried
from fixtures.scenario import scenario
from inferencebox.checks import answered, body_json, equals, present, refused, that
from inferencebox.waiting import confirm, eventually

NEEDS = ("management", "kserve.api")
NAMED = body_json("error", present())
URI = "gs://kfserving-examples/models/sklearn/1.0/model"
KIND = "inferenceservice"


@scenario("MGT-05", needs=NEEDS, sabotage="management.cannot-create", seconds=2)
def test_a_model_is_made(management, administrator, kube, own_name, story):
    """A model is made of a name, a framework and an address; the rest has defaults."""
    user = management.user("tenant-a")
    with story.when("tenant A asks for it"):
        seen = user.call("POST", "/api/models", {"name": own_name, "framework": "sklearn", "storageUri": URI})()
    with story.then("it is told what was made"):
        told = (
            body_json("name", equals(own_name))
            & body_json("namespace", equals("tenant-a"))
            & body_json("message", present())
        )
        for field, value in {
            "minReplicas": 1,
            "maxReplicas": 3,
            "scaleTarget": 60,
            "scaleMetric": "concurrency",
        }.items():
            told &= body_json(f"config.{field}", equals(value))
        confirm(seen, answered(201) & told)
    with story.then("there is an InferenceService that says the same"):
        predictor = kube.get(KIND, own_name, "tenant-a").require()["spec"]["predictor"]
        assert (predictor["minReplicas"], predictor["maxReplicas"]) == (1, 3)
        assert (predictor["scaleTarget"], predictor["scaleMetric"]) == (60, "concurrency")
        asked = {"modelFormat": {"name": "sklearn"}, "storageUri": URI}
        made = {field: predictor["model"].get(field) for field in asked}  # KServe itself adds its defaults
        assert made == asked, f"wanted {asked}, got {made}"
    with story.then("the administrator's go to tenant A, unless it says where"):
        other = {"name": own_name, "framework": "onnx", "storageUri": URI}
        confirm(unhurried(administrator.call("POST", "/api/models", other)), refused(409))
        confirm(unhurried(administrator.call("POST", "/api/models", {**other, "namespace": "tenant-b"})), answered(201))
        assert kube.get(KIND, own_name, "tenant-b").ok


WRONG = [
    {"framework": "fortran"},
    {"framework": None},
    {"storageUri": None},
    {"name": None},
    {"storageUri": "file:///etc/passwd"},
    {"storageUri": "not an address"},
    {"name": "UPPER"},
    {"name": "dots.inside"},
    {"name": "-dash"},
    {"name": "a" * 64},
    {"name": "a/b"},
    {"minReplicas": -1},
    {"minReplicas": 5, "maxReplicas": 2},
    {"scaleMetric": "moon"},
    {"unknown": True},
]


@scenario("MGT-06", needs=NEEDS, sabotage="management.cannot-create", seconds=3)
def test_what_is_no_model_is_refused(management, kube, own_name, story):
    """Unknown frameworks, missing fields and bad names are 400; a name that is taken is 409."""
    good = {"name": own_name, "framework": "sklearn", "storageUri": URI}
    with story.then(f"none of {len(WRONG)} wrong wishes is taken"):
        for wrong in WRONG:
            body = {key: value for key, value in {**good, **wrong}.items() if value is not None}
            asked = management.user("tenant-a").call("POST", "/api/models", body).called(f"{wrong}")
            confirm(asked(), refused(400) & NAMED & naming(next(iter(wrong))))
        assert not kube.get(KIND, own_name, "tenant-a").ok
    user = management.user("tenant-a")
    with story.then("nor is what is no JSON"):
        broken = user.call("POST", "/api/models").with_(body=b'{"name": ')
        confirm(broken.adding(("content-type", "application/json"))(), refused(400) & NAMED)
    with story.then("a right one is, once"):
        confirm(user.call("POST", "/api/models", good)(), answered(201))
        confirm(user.call("POST", "/api/models", good)(), refused(409) & NAMED)
    with story.then("and a name that the platform's own model has is taken too"):
        confirm(user.call("POST", "/api/models", {**good, "name": "sklearn-iris"})(), refused(409) & NAMED)


@scenario("MGT-07", needs=NEEDS, sabotage="management.cannot-delete", seconds=3)
def test_a_model_is_listed_changed_and_removed(management, administrator, kube, own_name, story):
    """A tenant's list has its own models, the administrator's all; a change changes what it names, no more."""
    user = management.user("tenant-a")
    with story.given("a model of tenant A"):
        wish = {"name": own_name, "framework": "sklearn", "storageUri": URI}
        confirm(user.call("POST", "/api/models", wish)(), answered(201))
    with story.then("tenant A and the administrator have it in their lists, tenant B has not"):
        there = body_json(
            "models", that(f"with {own_name}", lambda found: own_name in {each["name"] for each in found})
        )
        confirm(user.get("/api/models")(), answered(200) & there)
        confirm(unhurried(administrator.get("/api/models")), answered(200) & there)
        confirm(management.user("tenant-b").get("/api/models")(), answered(200) & ~there)
    with story.then("one by one: there, and not there"):
        one = body_json("name", equals(own_name)) & body_json("kind", equals("InferenceService"))
        confirm(user.get(f"/api/models/{own_name}")(), answered(200) & one)
        confirm(user.get(f"/api/models/{own_name}-not")(), refused(404) & NAMED)
    with story.when("its maximum is changed"):
        confirm(user.call("PUT", f"/api/models/{own_name}", {"maxReplicas": 7})(), answered(200))
    with story.then("nothing else did"):
        predictor = kube.get(KIND, own_name, "tenant-a").require()["spec"]["predictor"]
        assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["scaleTarget"]) == (1, 7, 60)
        assert predictor["model"]["storageUri"] == URI
        confirm(user.call("PUT", f"/api/models/{own_name}", {"minReplicas": 9})(), refused(400) & NAMED)
        confirm(user.call("PUT", f"/api/models/{own_name}-not", {"minReplicas": 1})(), refused(404) & NAMED)
    with story.then("removed it is gone"):
        confirm(user.call("DELETE", f"/api/models/{own_name}")(), answered(200))
        eventually(user.get(f"/api/models/{own_name}"), refused(404))
        confirm(user.call("DELETE", f"/api/models/{own_name}")(), refused(404) & NAMED)
        assert not kube.get(KIND, own_name, "tenant-a").ok
