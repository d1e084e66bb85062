from __future__ import annotations

from http import HTTPStatus

import orjson

from ari_app.api.problems import problem


def test_a_problem_is_what_the_rfc_says() -> None:
    response = problem(HTTPStatus.NOT_FOUND, "session_not_found", "There is none.")
    assert response.status == 404
    assert response.content_type == "application/problem+json"
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is none.",
        "code": "session_not_found",
    }


def test_a_problem_may_have_headers() -> None:
    response = problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "capacity", "Full.", headers={"Retry-After": "5"}
    )
    assert response.headers["Retry-After"] == "5"
