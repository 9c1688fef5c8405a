from __future__ import annotations

import json
from pathlib import Path

import pytest

from beanstalk_dispatch.deploying.sqsd_options import NAMESPACE, http_path, options

CONFIG = """\
# comment
option_settings:
  aws:elasticbeanstalk:application:environment:
    HttpPath: /not/this
  "aws:elasticbeanstalk:sqsd":
    HttpPath: "/x/dispatcher"  # the path
    MimeType: application/json

    InactivityTimeout: 290
    VisibilityTimeout:
  aws:autoscaling:asg:
    MaxSize: 4
"""


def folder(root: Path) -> Path:
    found = root / ".ebextensions"
    found.mkdir(exist_ok=True)
    return found


def test_the_options_of_the_namespace_are_read(tmp_path: Path) -> None:
    assert http_path(tmp_path) is None
    (folder(tmp_path) / "10-worker.config").write_text(CONFIG)
    assert options(tmp_path) == {
        "HttpPath": "/x/dispatcher", "MimeType": "application/json", "InactivityTimeout": "290",
    }  # fmt: skip
    assert http_path(tmp_path) == "/x/dispatcher"


def test_the_last_file_wins(tmp_path: Path) -> None:
    (folder(tmp_path) / "20-later.config").write_text(CONFIG.replace("290", "500"))
    (folder(tmp_path) / "10-worker.config").write_text(CONFIG)
    (folder(tmp_path) / "30-nothing.config").write_bytes(b"\xff\xfe: x\n")
    assert options(tmp_path)["InactivityTimeout"] == "500"


def test_a_folder_that_is_missing_sets_nothing(tmp_path: Path) -> None:
    assert options(tmp_path / "nowhere") == {}


def test_the_options_for_a_shared_bundle_are_read(tmp_path: Path) -> None:
    file = tmp_path / "beanstalk" / "shop-worker-options.json"
    file.parent.mkdir()
    settings = [
        {"Namespace": NAMESPACE, "OptionName": "HttpPath", "Value": "/y"},
        {"Namespace": NAMESPACE, "OptionName": "HttpConnections", "Value": 15},
        {"Namespace": "aws:autoscaling:asg", "OptionName": "MaxSize", "Value": "4"},
    ]
    file.write_text(json.dumps(settings))
    assert options(tmp_path) == {"HttpPath": "/y", "HttpConnections": "15"}
    (folder(tmp_path) / "worker.config").write_text(CONFIG)
    assert http_path(tmp_path) == "/x/dispatcher"


@pytest.mark.parametrize("content", ["{", "5", "[5]", "[{}]"])
def test_a_file_that_is_not_option_settings_sets_nothing(tmp_path: Path, content: str) -> None:
    file = tmp_path / "beanstalk" / "shop-worker-options.json"
    file.parent.mkdir()
    file.write_text(content)
    assert options(tmp_path) == {}
