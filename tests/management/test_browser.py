"""The console in a real browser: tenants and the administrator do with it what the API offers."""

from fixtures.browser import NARROW, WIDE
from fixtures.management import ADMINISTRATOR, PUBLIC_HOST, secret
from fixtures.scenario import scenario
from inferencebox.checks import answered, body_json, equals, header, matches, refused, served_by, that
from inferencebox.waiting import confirm, eventually

CONSOLE = "console.inference-in-a-box"


@scenario(
    "MGT-34", needs=("management", "gateway", "models", "kserve.api"), sabotage="management.down", seconds=30
)  # fmt: skip
def test_the_console_has_what_the_api_has(management, own_model, publishing, own_name, browser, story):
    """The console is served on every page's address, and a tenant reaches with it all that the API offers."""
    anonymous = management.anonymous
    with story.then("every address that is no API's gives the page, strictly on its own"):
        strict = header("content-security-policy", matches("default-src 'none'.*script-src 'self'")) & header(
            "content-type", matches("text/html")
        )
        for path in ("/", "/models", "/some/where/else"):
            confirm(anonymous.get(path)(), answered(200) & strict)
    with story.then("an API's address that is not there is a 404 in JSON"):
        for path in ("/api/nothing", "/api", "/api/models/a/b/c"):
            confirm(anonymous.get(path)(), refused(404) & body_json("error", matches(".+")))
    model = own_model("tenant-a")
    user = management.user("tenant-a")
    page = browser(management.endpoint.url)
    with story.when("tenant A signs in with its token"):
        page.go("/")
        page.see("Sign in")
        page.require_readable()
        page.picture("signing in")
        page.fill("Token", str.__str__(user.token))
        page.press("Sign in", "form.card:first-of-type")
        page.see("Models")
    with story.then("it sees its models and pages, and no administrator's"):
        page.see(model.name, "tbody th")
        pages = [each.text for each in page.all("nav a")]
        assert pages == ["Models", "Published", "Developer"], pages
        assert "tenant-b" not in page.see("Name", "table").text
        page.require_readable()
        page.picture("models, wide")
        page.size(*NARROW)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth"), "the narrow page is too wide"
        page.picture("models, narrow")
        page.size(*WIDE)
    with story.then("there is a form to publish a model"):
        page.press("Publish", page.row(model.name))
        for label in ("Type", "Host", "Path", "Requests a minute", "Burst in a second", "Allowed tenants"):
            page.see(label, "dialog label")
        page.require_readable()
        page.picture("publishing")
        page.press("Cancel", "dialog")
    with story.then("a test through the gateway gives the model's answer; its form can override names"):
        page.press("Test", page.row(model.name))
        page.see("Connect somewhere else", "summary").click()
        page.see("Address of that host", "dialog label")
        page.press("Ask it", "dialog")
        page.see("answered", "dialog h2")
        page.see("predictions", "dialog pre")
        page.press("Close", "dialog")
    with story.then("the developer's console calls the API with the tenant's rights"):
        page.press("Developer", "nav")
        page.see("Developer")
        page.press("Send", "main")
        page.see(model.name, "pre")
        page.require_readable()
    with story.then("a model is made with a form, changed with another, and removed"):
        page.press("Models", "nav")
        page.see("Models")
        page.press("New model")
        for label in ("Name", "Framework", "Storage address", "Least replicas", "Scale metric"):
            page.see(label, "dialog label")
        page.require_readable()
        page.fill("Name", own_name)
        page.fill("Storage address", "gs://bucket/model")
        page.press("Make it", "dialog")
        page.press("Change", page.row(own_name))
        page.require_readable()
        page.picture("changing a model")
        page.fill("Most replicas", "7")
        page.press("Change it", "dialog")
        page.see(f"{own_name} was changed", "#told")
        made = management.user("tenant-a").get(f"/api/models/{own_name}")
        wish = {"framework": "sklearn", "storageUri": "gs://bucket/model", "minReplicas": 1, "maxReplicas": 7}
        has = that("as wished", lambda predictor: wish.items() <= predictor.items())
        confirm(made(), answered(200) & body_json("predictor", has))
        page.press("Delete", page.row(own_name))
        page.press("Delete it", "dialog")
        page.see(f"{own_name} was deleted", "#told")
        eventually(made, refused(404))
    published = publishing("tenant-a", model=model, wait=False)
    with story.then("a page can be reached by its address, and by keyboard alone"):
        page.go("/published")
        page.see("Published")
        page.run("document.activeElement.blur()")
        page.driver.switch_to.active_element.send_keys("\ue004")
        assert page.run("return document.activeElement.textContent") == "Skip to content"
    with story.then("what is published is shown with its examples, and is changed with a form"):
        page.press("Docs", page.row(model.name))
        page.see(f"Using {model.name}", "dialog h2")
        page.see(published.told["documentation"]["endpointUrl"], "dialog code")
        for language in ("curl", "python", "javascript", "go"):
            page.see(language, "dialog summary")
        page.require_readable()
        page.press("Close", "dialog")
        page.press("Change", page.row(model.name))
        page.require_readable()
        page.fill("Requests a minute", "77")
        page.press("Change it", "dialog")
        page.see(f"{model.name} was changed", "#told")
        now = body_json("rateLimiting.requestsPerMinute", equals(77))
        confirm(published.by.published(model.name)(), answered(200) & now)
        page.row(model.name, "77/min, 1000000/h")
    with story.then("signed out, nothing is left"):
        page.press("Sign out")
        page.see("Sign in")
        page.go("/models")
        page.see("Sign in")


@scenario(
    "MGT-35", needs=("management", "gateway", "models"), sabotage=("console.route-removed", "management.cannot-create"),
    seconds=25,
)  # fmt: skip
def test_the_administrator_publishes_with_the_console(
    platform, gateway, own_model, tenant_a, browser, management, story
):
    """Through both gateways the administrator signs in, publishes a model, rotates its key and unpublishes it."""
    model = own_model("tenant-a")
    page = browser(f"http://{CONSOLE}", {CONSOLE: platform.endpoint("gateway")})
    ask = gateway.at(PUBLIC_HOST).call(
        "POST", f"/published/models/{model.name}/predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]}
    )
    with story.given("the way through both gateways: API and page"):
        api = gateway.at(CONSOLE)
        eventually(api.get("/api/models"), refused(401))
        eventually(api.get("/api/models", tenant_a.token), answered(200) & body_json("models", contains_model(model)))
    try:
        with story.when("the administrator signs in"):
            page.go("/")
            page.see("Sign in")
            page.fill("Name", ADMINISTRATOR["username"])
            page.fill("Password", ADMINISTRATOR["password"])
            page.press("Sign in", "form.card:last-of-type")
            page.see("Models")
            page.see(model.name, "tbody th")
            pages = [each.text for each in page.all("nav a")]
            assert pages == ["Models", "Published", "Developer", "System", "Resources", "Logs", "kubectl"], pages
        with story.when("it publishes tenant A's model"):
            page.press("Publish", page.row(model.name))
            page.press("Publish it", "dialog")
            key = key_on(page)
        with story.then("the key that the page shows opens it from outside"):
            eventually(ask.adding(("x-api-key", key)), answered(200) & served_by(model), streak=2)
        page.press("Close", "dialog")
        with story.when("it rotates the key"):
            page.press("Published", "nav")
            page.see("Published")
            mine = page.row(model.name)
            page.picture("what is published")
            page.press("Rotate key", mine)
            page.press("Rotate it", "dialog")
            new = key_on(page)
        with story.then("the new key opens it too"):
            assert str.__str__(new) != str.__str__(key)
            eventually(ask.adding(("x-api-key", new)), answered(200) & served_by(model))
        page.press("Close", "dialog")
        with story.then("system, resources, the audit log and kubectl show the platform"):
            for name, table, cells in (
                ("System", "Tenants", ["tenant-c"]),
                ("Resources", "publishedModels", [model.name]),
                ("Logs", "Audit log, newest first", ["rotate-key", model.name]),
            ):
                page.press(name, "nav")
                page.see(name)
                page.row(*cells, table=table)
                page.require_readable()
            page.picture("the audit log")
            page.press("kubectl", "nav")
            page.see("kubectl")
            page.press("Run", "main")
            page.see(model.name, "pre")
        with story.when("it unpublishes the model"):
            page.press("Published", "nav")
            page.see("Published")
            page.press("Unpublish", page.row(model.name))
            page.press("Unpublish it", "dialog")
            page.see("no longer published", "#told")
        with story.then("its address is nobody's"):
            eventually(ask.adding(("x-api-key", new)), refused(404))
    finally:
        management.user("tenant-a").unpublish(model.name)()


def key_on(page):
    shown = page.see("ibk_", ".key code").text
    return secret(shown, "key on the page")


def contains_model(model):
    return that(f"with {model}", lambda found: model.name in {each["name"] for each in found})
