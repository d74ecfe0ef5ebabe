"""Routes that take a request and its query string, without FastAPI's general way to fill parameters.

That way costs a sixth of the Python of a scoring request: it finds each parameter's kind, aliases and dependencies
anew. Documentation, values and errors are the same (`tests/serve/test_query_route.py` compares them).
"""

from collections.abc import Callable, Coroutine
from typing import Any, get_args, get_origin

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

Endpoint = Callable[..., Coroutine[Any, Any, Response]]


def post_with_query(app: FastAPI, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
    """`app.post` as a `QueryRoute`. described: for the documentation."""

    def add(endpoint: Endpoint) -> Endpoint:
        app.router.add_api_route(path, endpoint, methods=["POST"], route_class_override=QueryRoute, **described)
        return endpoint

    return add


class QueryRoute(APIRoute):
    """A route whose endpoint is `async def endpoint(request, query)`, where `query` is a model of the query string."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        (parameter,) = self.dependant.query_params
        model, endpoint = parameter.field_info.annotation, self.endpoint
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        lists = frozenset(name for name, field in model.model_fields.items() if _takes_several(field.annotation))

        async def handle(request: Request) -> Response:
            answer: Response = await endpoint(request, _read(model, lists, request))
            return answer

        return handle


def _read(model: type[BaseModel], lists: frozenset[str], request: Request) -> BaseModel:
    """Raises RequestValidationError as FastAPI does. lists: fields that take several values; others take the last."""
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        given.setdefault(name, []).append(value)
    values = {name: found if name in lists else found[-1] for name, found in given.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError([fault | {"loc": ("query", *fault["loc"])} for fault in faults]) from None


def _takes_several(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_takes_several, get_args(annotation)))
