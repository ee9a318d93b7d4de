"""An app's site as the user wants it: files, locations, headers, redirects, passwords, proxies, snippets, templates.

Judged by curl and by nginx itself. (WebSockets are test_processes.py's.)
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import show
from .conftest import WARM
from .show import FAR, FULL, HOSTILE, LONG, NEAR, SHUT, TEMPLATE
from .site import Answer, Host, Project, standing


@pytest.fixture(scope="module")
def site(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standing("nginx", WARM) as host:
        project = Project(tmp_path_factory.mktemp("nginx"), host)
        (project.folder / "anna").write_text('anna\'s: "pass" $word é\n')
        show.write(project.folder / "show")
        (project.folder / "templates/nginx").mkdir(parents=True)
        (project.folder / "templates/nginx" / f"{LONG}.conf.j2").write_text(TEMPLATE)
        host.sh(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shut.example "
            "-keyout /etc/ssl/shut.key -out /etc/ssl/shut.pem 2>/dev/null"
        )
        project.write(show.toml(host.table, ours(host)))
        done = project.fab("secrets", "set", "--app", "shut", "--name", "BERT", stdin="bert's\n")
        assert done.status == 0, done.text
        project.first = project.fab("deploy")
        yield project


@pytest.fixture(scope="module")
def host(site: Project) -> Host:
    assert site.first is not None
    assert site.first.status == 0, site.first.text
    return site.host


def ours(host: Host) -> str:
    """The address from which the host sees us."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host.address, 80))
        return str(probe.getsockname()[0])


def shown(answer: Answer) -> dict[str, Any]:
    """What the app says of a request."""
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def header(name: str, value: str) -> tuple[str, str]:
    return ("--header", f"{name}: {value}")


def all_headers(host: Host, domain: str, path: str, name: str) -> list[str]:
    """Each value of one header: curl's own output, since a dict would hide that there are two."""
    words = ("curl", "-s", "-o", "/dev/null", "-D", "-", "--noproxy", "*", "--resolve", f"{domain}:80:{host.address}")
    lines = subprocess.run([*words, f"http://{domain}{path}"], capture_output=True, check=True).stdout.decode()
    pairs = (line.partition(": ") for line in lines.splitlines())
    return [value for key, _, value in pairs if key.lower() == name.lower()]


def secure(host: Host, domain: str, path: str, *options: str) -> Answer:
    """Asked by TLS; the certificate is our own."""
    return host.curl(domain, path, "--insecure", "--resolve", f"{domain}:443:{host.address}", *options, scheme="https")


def test_a_second_deploy_changes_nothing(site: Project, host: Host) -> None:
    site.settled()
    assert site.deploy().last == "nothing to do"
    host.run("nginx", "-t", "-q")


def test_several_folders_for_one_url(host: Host) -> None:
    assert host.curl(FULL, "/static/both.txt").text == "collected"
    assert host.curl(FULL, "/static/second.txt").text == "second"
    assert host.curl(FULL, "/static/none.txt").status == 404
    hashed = host.curl(FULL, "/static/app.0123456789ab.js")
    assert "immutable" in hashed.headers["cache-control"] and hashed.headers["x-content-type-options"] == "nosniff"
    assert host.curl(FULL, "/odd/x.txt").text == "from an odd folder"
    assert host.curl(FULL, "/odd/second.txt").text == "second"


def test_what_persists_is_served_and_what_others_own_is_not(host: Host) -> None:
    host.sh(
        "cd /srv/full/persist/uploads; install -d -o full -g www-data -m 2750 defaults; "
        "printf first >/srv/full/media/a.txt; printf second >defaults/a.txt; printf default >defaults/b.txt; "
        "printf '<script>' >page.html; ln -s /etc/hostname stolen; chown -h full:www-data stolen; "
        "chown full:www-data page.html defaults/* /srv/full/media/*"
    )
    assert host.curl(FULL, "/media/a.txt").text == "first"
    assert host.curl(FULL, "/media/b.txt").text == "default"
    page = host.curl(FULL, "/uploads/page.html")
    assert page.text == "<script>" and page.headers["content-security-policy"].startswith("sandbox")
    assert host.curl(FULL, "/uploads/stolen").status in (403, 404)
    assert host.curl(FULL, "/uploads/defaults/").status == 404, "no listing"
    assert host.curl(FULL, "/uploads/defaults/..%2f..%2f..%2fdata/").status in (400, 404)


def test_an_index_is_served_for_a_folder(host: Host) -> None:
    assert host.curl(FULL, "/docs/").text == "the docs"
    assert host.curl(FULL, "/docs/guide/").text == "the guide"
    moved = host.curl(FULL, "/docs/guide?x=1")
    assert (moved.status, moved.headers["location"]) == (301, "/docs/guide/?x=1")
    moved = host.curl(FULL, "/docs/n%C3%A4h%20%C3%A9")
    assert (moved.status, moved.headers["location"].lower()) == (301, "/docs/n%c3%a4h%20%c3%a9/")
    assert host.curl(FULL, moved.headers["location"]).text == "odd"
    for path in ("/docs/guide/empty", "/docs/guide/empty/", "/docs/none/", "/docs/none"):
        assert host.curl(FULL, path).status == 404, path


def test_files_at_the_root_come_before_the_app(host: Host) -> None:
    assert host.curl(FULL, "/").text == "front page"
    assert host.curl(FULL, "/robots.txt").text == "nobody"
    assert shown(host.curl(FULL, "/elsewhere/?a=b"))["path"] == "/elsewhere/?a=b"
    assert shown(host.curl(FULL, "/elsewhere"))["path"] == "/elsewhere"
    posted = host.curl(FULL, "/elsewhere", "--data", "x" * 1000)
    assert shown(posted)["size"] == 1000


def test_a_single_page_app_has_paths_of_its_own(host: Host) -> None:
    for path in ("/app/", "/app/users/5", "/app/users/", "/app/index.html"):
        answer = host.curl(FULL, path)
        assert (answer.status, answer.text) == (200, "front page"), path
    assert host.curl(FULL, "/app/robots.txt").text == "nobody"


def test_paths_of_another_process(host: Host) -> None:
    for path in ("/api/", "/api/a/b", "/v2", "/v2/x", "/v1/y"):
        assert host.curl(FULL, path).text == f"api {path}"
    assert (
        host.said("readlink", "/run/deploykit/full/live.api.sock")
        == f"{host.said('readlink', '/run/deploykit/full/live.sock')[0]}.api.sock"
    )


def test_sizes_and_timeouts_of_one_location(host: Host, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1_100_000)
    large = ("--data-binary", f"@{tmp_path}/large")
    assert host.curl(FULL, "/upload/x", *large).status == 413
    assert shown(host.curl(FULL, "/other", *large))["size"] == 1_100_000
    location = host.sh("nginx -T 2>/dev/null").partition("location ^~ /upload/ {")[2].partition("\n    }")[0]
    assert "proxy_read_timeout 77s;" in location and "proxy_send_timeout 77s;" in location


def test_headers_hold_everywhere_and_are_not_doubled(host: Host) -> None:
    assert shown(host.curl(FULL, "/x"))["HTTP_HOST"] == FULL
    for path in ("/x", "/broken", "/", "/static/both.txt", "/static/none", "/api/", "/upload/x", "/old", "/tree/x",
                 "/media/b.txt", "/robots-by-hand.txt"):  # fmt: skip
        assert all_headers(host, FULL, path, "X-Frame-Options") == ["SAMEORIGIN"], path
        (hostile,) = all_headers(host, FULL, path, "X-Hostile")
        assert hostile == HOSTILE, path
    assert {"Cookie", "X-Own"} <= set(all_headers(host, FULL, "/x", "Vary")), "these add up"
    assert all_headers(host, FULL, "/upload/x", "X-Snippet") == ["here"]
    docs = host.curl(FULL, "/docs/")
    assert "x-frame-options" not in docs.headers and docs.headers["x-docs"] == "yes"
    assert docs.headers["x-hostile"] and "max-age=3600" in docs.headers["cache-control"]
    assert host.curl(FULL, "/robots-by-hand.txt").text == "by hand"


def test_redirects_keep_the_query(host: Host) -> None:
    for path, target in (
        ("/old", "/new"),
        ("/old?a=b&c=%20", "/new?a=b&c=%20"),
        ("/query?b=2", "/new?a=1&b=2#part"),
        ("/query", "/new?a=1#part"),
        ("/tree/", "/wood/"),
        ("/tree/a/b.html?x=1", "/wood/a/b.html?x=1"),
        ("/tree/50%25%20x%0d%0aSet-Cookie:a?%3f", "/wood/50%25%20x%0D%0ASet-Cookie:a?%3f"),
        ("/away/x", "https://other.example/$here;{/x"),
        ("/caf%C3%A9%20x/y", "/coffee/y"),
    ):
        answer = host.curl(FULL, path)
        assert (answer.status, answer.headers.get("location")) == (301, target), path
    assert shown(host.curl(FULL, "/old/"))["path"] == "/old/", "only that very path"


def test_what_a_stranger_says_of_himself_is_not_believed(host: Host) -> None:
    lies = (
        *header("X-Forwarded-Proto", "https"), *header("X-Forwarded-For", "10.9.9.9"), *header("X-Real-IP", "10.9.9.9"),
        *header("X-Forwarded-Host", "evil.example"), *header("X-Forwarded-Port", "444"),
        *header("X-Forwarded-Ssl", "on"), *header("Forwarded", "proto=https"),
        *header("X-Forwarded-Protocol", "ssl"), *header("X-Scheme", "https"),
    )  # fmt: skip
    found = shown(host.curl(FULL, "/x", *lies))
    assert (found["scheme"], found["HTTP_X_FORWARDED_PROTO"], found["HTTP_X_FORWARDED_PORT"]) == ("http", "http", "80")
    assert found["HTTP_X_FORWARDED_FOR"] == found["HTTP_X_REAL_IP"] == ours(host)
    assert found["HTTP_X_FORWARDED_HOST"] == FULL
    assert not {"HTTP_FORWARDED", "HTTP_X_FORWARDED_SSL", "HTTP_X_FORWARDED_PROTOCOL", "HTTP_X_SCHEME"} & set(found)
    # A site that has proxies, but not us; by TLS, since it has a certificate.
    guest = ("--user", "bert:bert's")
    found = shown(secure(host, SHUT, "/x", *lies, *guest, *header("X-Forwarded-Proto", "http")))
    assert (found["scheme"], found["HTTP_X_FORWARDED_PORT"], found["HTTP_X_REAL_IP"]) == ("https", "443", ours(host))
    assert found["HTTP_X_FORWARDED_HOST"] == SHUT
    plain = host.curl(SHUT, "/x?y", *lies)
    assert (plain.status, plain.headers["location"]) == (301, f"https://{SHUT}/x?y")


def test_a_proxy_in_front_is_believed(host: Host) -> None:
    # The proxy takes the TLS off; the site has none, and Django wants TLS only.
    alone = host.curl(FAR, "/x")
    assert (alone.status, alone.headers["location"]) == (301, f"https://{FAR}/x")
    visitor = (*header("X-Forwarded-For", "1.2.3.4, 203.0.113.9"), *header("X-Forwarded-Proto", "https"))
    found = shown(host.curl(FAR, "/x", *visitor))
    assert (found["scheme"], found["HTTP_X_FORWARDED_PROTO"], found["HTTP_X_FORWARDED_PORT"]) == (
        "https",
        "https",
        "443",
    )
    assert found["HTTP_X_FORWARDED_FOR"] == found["HTTP_X_REAL_IP"] == "203.0.113.9", "the last that no proxy said"
    assert found["HTTP_X_FORWARDED_HOST"] == FAR
    more = (*header("X-Forwarded-Host", "shown.example:8443, inner"), *header("X-Forwarded-Port", "8443"))
    found = shown(host.curl(FAR, "/x", *visitor, *more))
    assert (found["HTTP_X_FORWARDED_HOST"], found["HTTP_X_FORWARDED_PORT"]) == ("shown.example:8443", "8443")
    other = host.curl(f"www.{FAR}", "/x", *visitor)
    assert (other.status, other.headers["location"]) == (301, f"https://{FAR}/x")
    assert "203.0.113.9 - - " in host.sh("cat /var/log/nginx/far.access.log")
    # By IPv6, and by a socket.
    said = " ".join(f"-H '{each}'" for each in visitor[1::2])
    ways = ["--unix-socket /run/front.sock"]
    if host.run("test", "-e", "/proc/net/if_inet6", check=False).returncode == 0:
        ways.append("-g -6 --resolve far.example:80:[::1]")
    for way in ways:
        inside = json.loads(host.sh(f"curl -s {way} {said} http://far.example/x"))
        assert (inside["scheme"], inside["HTTP_X_REAL_IP"]) == ("https", "203.0.113.9"), way


def test_tls_before_and_behind_a_proxy_makes_no_loop(host: Host) -> None:
    """The site has a certificate, and the proxy comes by http nonetheless."""
    assert host.curl(NEAR, "/x").headers["location"] == f"https://{NEAR}/x"
    found = shown(host.curl(NEAR, "/x", *header("X-Forwarded-Proto", "https")))
    assert (found["scheme"], found["HTTP_X_FORWARDED_PORT"]) == ("https", "443")
    assert host.curl(NEAR, "/x", *header("X-Forwarded-Proto", "http")).status == 301
    found = shown(secure(host, NEAR, "/x"))
    assert (found["scheme"], found["HTTP_X_FORWARDED_PROTO"]) == ("https", "https")
    host.sh("mkdir -p /var/lib/deploykit/www/.well-known/acme-challenge; "
            "echo proof >/var/lib/deploykit/www/.well-known/acme-challenge/token")  # fmt: skip
    for domain in (NEAR, SHUT, FULL):
        assert host.curl(domain, "/.well-known/acme-challenge/token").text == "proof\n"


def test_a_password_is_asked_for(site: Project, host: Host) -> None:
    asked = secure(host, SHUT, "/x")
    assert (asked.status, asked.headers["www-authenticate"]) == (401, 'Basic realm="shut"')
    assert asked.headers["cache-control"] == "private"
    assert secure(host, SHUT, "/static/both.txt").status == 401
    assert secure(host, SHUT, "/x", "--user", "anna:wrong").status == 401
    for user in ('anna:anna\'s: "pass" $word é', "bert:bert's"):
        found = shown(secure(host, SHUT, "/x", "--user", user))
        assert "HTTP_AUTHORIZATION" not in found, "that was nginx's"
    token = shown(secure(host, SHUT, "/open/x", *header("Authorization", "Token abc")))
    assert token["HTTP_AUTHORIZATION"] == "Token abc", "that is the app's"
    assert secure(host, SHUT, "/static/both.txt", "--user", "bert:bert's").text == "collected"
    assert host.said("stat", "-c", "%U:%G %a", "/etc/deploykit/shut.passwords") == "root:www-data 640"
    assert host.run("cat", "/etc/deploykit/shut.passwords", check=False, user="full").returncode != 0
    assert "bert's" not in host.sh("cat /etc/deploykit/shut.passwords")


def test_an_apps_own_template(site: Project, host: Host) -> None:
    assert secure(host, NEAR, "/mine").text == "mine: /mine"
    assert host.curl(FULL, "/mine").text != "mine: /mine"
    template = site.folder / "templates/nginx" / f"{LONG}.conf.j2"
    template.write_text(TEMPLATE.replace("return 200 $mine;", "retrun 200 $mine;"))
    before = host.sh("cat /etc/nginx/sites-enabled/*.conf | sha256sum")
    ran = site.fab("deploy")
    assert ran.status == 1 and 'unknown directive "retrun"' in ran.text and f"{LONG}.conf:" in ran.text, ran.text
    assert "location = /mine { default_type text/plain; retrun 200 $mine; }" in ran.text, "the very line"
    assert host.sh("cat /etc/nginx/sites-enabled/*.conf | sha256sum") == before
    assert secure(host, NEAR, "/mine").text == "mine: /mine"
    template.write_text(TEMPLATE.replace("$mine;", "$mine; {{ nobody }}"))
    ran = site.fab("deploy")
    assert ran.status == 1 and "'nobody' is undefined" in ran.text and f"{LONG}.conf.j2" in ran.text, ran.text
    template.write_text(TEMPLATE)


def test_a_bad_snippet_leaves_all_sites_as_they_are(site: Project, host: Host) -> None:
    good = site.toml.read_text()
    before = host.sh("cat /etc/nginx/sites-enabled/*.conf | sha256sum"), host.pids()
    site.edit("deploykit.toml", '"expires 1h;"', '"expires never-again;"')
    ran = site.fab("deploy")
    assert ran.status == 1 and "invalid value" in ran.text and "full.conf:" in ran.text, ran.text
    assert (host.sh("cat /etc/nginx/sites-enabled/*.conf | sha256sum"), host.pids()) == before
    assert host.curl(FULL, "/docs/").text == "the docs" and secure(host, NEAR, "/mine").status == 200
    site.write(good)
    site.settled()


def test_a_site_of_somebody_elses_is_seen(site: Project, host: Host) -> None:
    host.sh("printf 'server { listen 80; server_name other.example Far.example; return 204; }' "
            ">/etc/nginx/sites-enabled/by-hand")  # fmt: skip
    for command in ("plan", "deploy"):
        ran = site.fab(command)
        assert ran.status == 1 and "a site for far.example already" in ran.text, ran.text
        assert "/etc/nginx/sites-enabled/by-hand" in ran.text
    host.sh("sed -i 's/listen 80/listen 8080/' /etc/nginx/sites-enabled/by-hand")
    site.settled()
    host.run("rm", "/etc/nginx/sites-enabled/by-hand")


def test_the_password_goes_again(site: Project, host: Host) -> None:
    text = site.toml.read_text()
    head, _, tail = text.partition("[apps.shut.nginx.basic_auth]")
    site.write(head + tail[tail.index("[apps.shut.nginx.locations]") :])
    site.deploy()
    assert shown(secure(host, SHUT, "/x"))["scheme"] == "https"
    assert host.run("test", "-e", "/etc/deploykit/shut.passwords", check=False).returncode == 1
    site.settled()
