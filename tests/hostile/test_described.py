"""Requests made from the API's own description: none is answered by a failure, and each as described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.hostile.test_web import page_of, scene_with_a_page

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_requests_made_from_the_description_are_answered_as_it_says(tmp_path: Path) -> None:
    with scene_with_a_page(tmp_path) as scene:
        scene.wait_for(lambda health: health["web"], "the page")
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", page_of(scene, "openapi.json"),
             "--checks", CHECKS, "--max-examples", "10", "--seed", "1", "--generation-database", "none",
             "--exclude-path", "/api/v1/events",  # a stream without end; test_web.py has its malformed numbers
             "--request-timeout", "60", "--no-color"],
            cwd=tmp_path, text=True, capture_output=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
        assert "10 selected / 11 total" in done.stdout, done.stdout[:2000]
    assert "Traceback" not in scene.collector.said()
