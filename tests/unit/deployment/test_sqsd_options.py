from __future__ import annotations

from pathlib import Path

from beanstalk_dispatch.deployment.sqsd_options import http_path, options

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


def test_the_options_of_the_namespace_are_read(tmp_path: Path) -> None:
    assert http_path(tmp_path) is None
    (tmp_path / "10-worker.config").write_text(CONFIG)
    assert options(tmp_path) == {
        "HttpPath": "/x/dispatcher", "MimeType": "application/json", "InactivityTimeout": "290",
    }  # fmt: skip
    assert http_path(tmp_path) == "/x/dispatcher"


def test_the_last_file_wins(tmp_path: Path) -> None:
    (tmp_path / "20-later.config").write_text(CONFIG.replace("290", "500"))
    (tmp_path / "10-worker.config").write_text(CONFIG)
    (tmp_path / "30-nothing.config").write_bytes(b"\xff\xfe: x\n")
    assert options(tmp_path)["InactivityTimeout"] == "500"


def test_a_folder_that_is_missing_sets_nothing(tmp_path: Path) -> None:
    assert options(tmp_path / "nowhere") == {}
