"""The page's files as the service serves them, without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import robustzs_serving.page as page

FOLDER = Path(page.__file__).parent / "static"


def test_every_file_is_served_with_its_type_and_policy(service_url: str) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
    for path in FOLDER.iterdir():
        response = httpx.get(f"{service_url}/page/{path.name}")
        assert response.status_code == 200
        assert response.content == path.read_bytes()
        assert response.headers["content-type"].startswith(kinds.get(path.suffix, "image/svg"))
        assert "script-src 'self'" in response.headers["content-security-policy"]
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cross-origin-opener-policy"] == "same-origin"
    index = httpx.get(f"{service_url}/")
    assert index.content == (FOLDER / "index.html").read_bytes()
    assert "unsafe" not in index.headers["content-security-policy"]
    known = {"If-None-Match": index.headers["etag"]}
    assert httpx.get(f"{service_url}/", headers=known).status_code == 304
    assert httpx.head(f"{service_url}/").status_code == 200


def test_nothing_else_of_the_disk_is_served(service_url: str) -> None:
    for path in ("../routes.py", "%2e%2e/routes.py", "..%2froutes.py", "", "nothing.js", "%00"):
        response = httpx.get(f"{service_url}/page/{path}")
        assert response.status_code in (400, 404), path
        assert response.json()["error"]["request_id"]


def test_nothing_comes_from_elsewhere_and_nothing_stands_inline() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", html)
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://(?!\$)", text), path.name
        assert "innerHTML" not in text
        assert "localStorage" not in text
        assert "sessionStorage" not in text
        assert "document.cookie" not in text


def test_every_control_has_a_label() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    for control in re.findall(r'<(?:input|select|textarea)[^>]*\bid="([\w-]+)"', html):
        assert f'for="{control}"' in html, control
    for described in re.findall(r'aria-(?:describedby|labelledby)="([\w-]+)"', html):
        assert f'id="{described}"' in html
