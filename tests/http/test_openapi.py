"""The document says what the server does."""

from openapi_spec_validator import OpenAPIV31SpecValidator
from support.running_server import RunningServer

from modelforge.http.routes import ROUTES
from trainer_entry import wire


def test_the_document_is_valid_and_has_every_route(module_server: RunningServer) -> None:
    document = module_server.get("/api/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert listed == {(route.method, route.path) for route in ROUTES}


def test_every_training_parameter_stands_in_it(module_server: RunningServer) -> None:
    document = module_server.get("/api/openapi.json").json()
    body = document["components"]["schemas"]["StartTrainingBody"]
    assert set(body["properties"]) >= set(wire.TrainingParameters.__struct_fields__)
    assert set(body["required"]) == {"task", "model_name", "dataset"}
