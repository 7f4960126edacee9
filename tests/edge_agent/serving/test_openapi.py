"""The OpenAPI document against the application: schemathesis makes requests from it, right ones and wrong ones."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from edgewright_agent.serving import engine
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.live import Live
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.routes import Routes
from edgewright_agent.serving.slots import Slots
from edgewright_contract import release as releases

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
conformance = pytest.importorskip("schemathesis.specs.openapi.checks")


@pytest.fixture(scope="module")
def app(write_release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    load = write_release(folder, 1, 2.0)
    release = releases.parse((folder / "release.json").read_bytes())
    model = engine.load((folder / "full.onnx").read_bytes(), load["digest"], release, "full", load["manifest"])
    metrics = Metrics()
    slots = Slots(metrics)
    slots.put_shadow("home/nilm", model)
    slots.promote("home/nilm", load["manifest"])
    return Routes(Inference(slots, Limits()), Live(slots, metrics), metrics, None).app()


@pytest.fixture(scope="module")
def schema(app):
    async def from_this_host(scope, receive, send):
        await app({**scope, "client": ("127.0.0.1", 5000)}, receive, send)

    return schemathesis.openapi.from_asgi("/openapi.json", from_this_host)


def test_the_answer_of_inference_is_described(schema):
    answers = schema.raw_schema["paths"]["/v2/models/{name}/infer"]["post"]["responses"]
    assert answers["200"]["content"]["application/json"]["schema"]["required"] == [
        "model_name",
        "model_version",
        "outputs",
    ]


def test_every_route_but_the_page_is_described(schema, app):
    described = {
        (path, method.upper())
        for path, operations in schema.raw_schema["paths"].items()
        for method in set(operations) - {"parameters"}
    }
    served = {(route.path, method) for route in app.routes for method in route.methods - {"HEAD"}}
    assert served - described == {("/", "GET"), ("/openapi.json", "GET")}
    assert described <= served


CHECKS = [
    schemathesis.checks.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_every_answer_is_one_that_the_document_names(schema, mode):
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 13
    for operation in operations:
        try:
            cases = operation.as_strategy(generation_mode=mode)
        except Unsatisfiable:
            continue

        @given(case=cases, known=st.booleans())
        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def check(case, known):
            if known and "name" in (case.path_parameters or {}):
                case.path_parameters |= {"name": "nilm"} | (
                    {"version": "1"} if "version" in case.path_parameters else {}
                )
            case.call_and_validate(checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):  # an operation without input cannot be asked wrongly
            check()
