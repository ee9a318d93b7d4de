"""The numbers of connections in nginx's own file: raised where they are too small, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.recipes.connections import Connections

DEBIAN = """\
user www-data;
worker_processes auto;
include /etc/nginx/modules-enabled/*.conf;

events {
	worker_connections 768;
	# multi_accept on;
}

http {
	sendfile on; # worker_connections 1;
}
"""


def changed(tmp_path: Path, text: str) -> str:
    place = tmp_path / "nginx.conf"
    place.write_text(text)
    resource = Connections(path=str(place), connections=8192)
    for _ in range(2):
        observed = resource.observe()
        if observed != resource.wanted():
            resource.change(observed)
    assert resource.observe() == resource.wanted()
    return place.read_text()


def test_debians(tmp_path: Path) -> None:
    wanted = DEBIAN.replace(" 768", " 8192").replace("events {", "worker_rlimit_nofile 16384;\n\nevents {")
    assert changed(tmp_path, DEBIAN) == wanted
    assert changed(tmp_path, wanted) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("events {}\n", "worker_rlimit_nofile 16384;\n\nevents {\n    worker_connections 8192;\n}\n"),
        (
            "worker_rlimit_nofile 99999;\nevents { worker_connections 512; }\n",
            "worker_rlimit_nofile 99999;\nevents { worker_connections 8192; }\n",
        ),
        (
            "worker_rlimit_nofile 5;\nevents {\n    # worker_connections 9999;\n    use epoll;\n}\n",
            "worker_rlimit_nofile 16384;\nevents {\n    worker_connections 8192;\n"
            "    # worker_connections 9999;\n    use epoll;\n}\n",
        ),
        (
            "worker_rlimit_nofile 30000;\nevents { worker_connections 20000; }\n",
            "worker_rlimit_nofile 30000;\nevents { worker_connections 20000; }\n",
        ),
        ("include /etc/nginx/own/*.conf;\n", "include /etc/nginx/own/*.conf;\n"),
    ],
)
def test_others(tmp_path: Path, text: str, wanted: str) -> None:
    assert changed(tmp_path, text) == wanted


def test_there_is_none_before_nginx_is_installed(tmp_path: Path) -> None:
    assert Connections(path=str(tmp_path / "nginx.conf"), connections=8192).observe() is None
