"""Who may ask: hosts, origins, keys and rates, as a client on a socket sees them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from robustzs_serving.edge import middleware
from robustzs_serving.edge.keys import make_key
from robustzs_serving.settings import Limits, ServiceSettings

from tests.serving.edge.served import check, running


def test_hosts_and_origins(url: str) -> None:
    here = httpx.URL(url)
    for host in ("localhost", "app.localhost:80", "127.0.0.1", "[::1]:3000", "LOCALHOST."):
        assert httpx.get(url, headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "8.8.8.8"):
        check(httpx.get(url, headers={"Host": host}), "host-refused")
    own = f"http://{here.host}:{here.port}"
    for headers in (
        {},
        {"Origin": own},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.example"},
    ):
        assert httpx.post(f"{url}/v1/echo", headers=headers).status_code == 200
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": own + "1"},
    ):
        check(httpx.post(f"{url}/v1/echo", headers=headers), "origin-refused")
        assert httpx.get(f"{url}/v1/echo", headers=headers).status_code == 200


def test_other_hosts_are_answered_where_the_deployer_lists_them() -> None:
    with running(ServiceSettings(allowed_hosts=("api.example",))) as url:
        assert httpx.get(url, headers={"Host": "api.example:443"}).status_code == 200
        check(httpx.get(url), "host-refused")


def test_cors_is_for_the_listed_origins_alone() -> None:
    app = "https://app.example"
    ask = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "If-Match"}
    with running(ServiceSettings(cors_origins=(app,))) as url:
        asked = httpx.options(f"{url}/v1/echo", headers={"Origin": app, **ask})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == app
        assert "access-control-allow-credentials" not in asked.headers
        answered = httpx.post(f"{url}/v1/echo", headers={"Origin": app})
        assert answered.headers["access-control-allow-origin"] == app
        failed = httpx.get(f"{url}/v1/fails?kind=ours", headers={"Origin": app})
        check(failed, "label")
        assert failed.headers["access-control-allow-origin"] == app, "pages may read errors"
        other = {"Origin": "https://evil.example"}
        check(httpx.options(f"{url}/v1/echo", headers={**other, **ask}), "origin-refused")
        check(httpx.post(f"{url}/v1/echo", headers=other), "origin-refused")


def test_keys_are_asked_for_everywhere_but_in_public(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, _ = make_key(path, "ci")
    with running(ServiceSettings(keys_file=path)) as url:
        for public in ("/", "/readyz", "/v1/errors"):
            assert httpx.get(f"{url}{public}").status_code == 200
        good = [
            {"Authorization": f"Bearer {key}"},
            {"authorization": f"bearer  {key}"},
            {"X-API-Key": key},
            {"X-API-Key": key, "Authorization": f"Bearer {key}"},
        ]
        for headers in good:
            answer = httpx.post(f"{url}/v1/echo", headers=headers)
            assert answer.json()["key"] == "ci"
        bad: list[dict[str, str]] = [
            {},
            {"Authorization": key},
            {"Authorization": "Bearer"},
            {"Authorization": f"Basic {key}"},
            {"X-API-Key": key[:-1]},
            {"X-API-Key": key, "Authorization": "Bearer other"},
            {"Cookie": f"key={key}"},
        ]
        for headers in bad:
            answer = httpx.post(f"{url}/v1/echo", headers=headers)
            check(answer, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert key not in answer.text
        for hidden in ("/v1/echo", "/nothing", "//readyz", "/readyz/", "/page/../v1/echo"):
            check(httpx.get(f"{url}{hidden}"), "unauthorized")
        check(httpx.post(f"{url}/v1/echo?key={key}"), "unauthorized")


def test_the_rate_is_of_each_key_and_wrong_keys_count_for_the_address(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first, second = make_key(path, "first")[0], make_key(path, "second")[0]
    limits = Limits(requests_per_second_per_key=0.5, burst_per_key=3)
    with running(ServiceSettings(keys_file=path, limits=limits)) as url:

        def ask(key: str) -> httpx.Response:
            return httpx.post(f"{url}/v1/echo", headers={"X-API-Key": key})

        assert [ask(first).status_code for _ in range(3)] == [200] * 3
        refused = ask(first)
        check(refused, "rate-limited")
        assert refused.headers["retry-after"] == "2"
        assert [ask("wrong").status_code for _ in range(4)] == [401, 401, 401, 429]
        assert ask(second).status_code == 200
        assert [httpx.get(f"{url}/readyz").status_code for _ in range(9)] == [200] * 9


def test_a_damaged_keys_file_keeps_the_service_from_starting(tmp_path: Path) -> None:
    from robustzs.errors import UsageError

    (tmp_path / "keys.json").write_text("{}x")
    with pytest.raises(UsageError, match="damaged"):
        middleware(ServiceSettings(keys_file=tmp_path / "keys.json"))
