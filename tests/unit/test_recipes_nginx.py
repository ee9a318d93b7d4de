"""An app's site in text: what each path leads to, how values of the user's are quoted, and what is refused."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.agent import paths
from deploykit.agent.resource import Failed, HostSecret, Resource, Secret
from deploykit.agent.values import App, Build, Code, Facts, Host, Location, Process, Served, Site, Tls, Web
from deploykit.config import loads
from deploykit.config.resolve import resolve
from deploykit.errors import ConfigError, DeploykitError, Problem
from deploykit.recipes import locations, neighbours, nginx, programs
from deploykit.recipes.neighbours import Names, served
from deploykit.recipes.passwords import NoPasswords, Passwords, fits, hashed
from deploykit.rendering import renderer

BOOKWORM = Facts("debian", "12", "bookworm", "x86_64", 1987, 2, "3.11")
BLOG = App("blog", ("blog.example",), Code("d"), "config.settings")
APP = '[apps.blog]\nsource = "../blog"\ndomains = ["blog.example"]\n'


def found(app: App, project: Path = Path("/nowhere")) -> dict[str, Resource]:
    resources = nginx.recipe(Host("web1", apps=(app,)), BOOKWORM, renderer(project))
    return {each.key: each for each in resources}


def site(app: App, project: Path = Path("/nowhere")) -> str:
    text = str(found(app, project)["file /etc/nginx/sites-available/blog.conf"].wanted()["content"])
    assert text.count("{") == text.count("}")
    return text


def location(app: App, begin: str) -> str:
    """The text of one location."""
    _, mark, rest = site(app).partition(f"    location {begin} {{\n")
    assert mark, f"no location {begin}"
    return rest.partition("\n    }\n")[0]


def with_site(**values: object) -> App:
    return replace(BLOG, site=Site(**values))  # type: ignore[arg-type]


def test_folders_are_tried_in_order_and_the_release_before_last() -> None:
    app = replace(
        with_site(locations=(Location("/static/", ("assets", "uploads/icons")), Location("/docs/", ("docs/html",)))),
        build=Build(persist=("uploads/",)),
    )
    assert (
        'try_files "/live/static/$file" "/live/public/assets/$file" "/persist/uploads/icons/$file" '
        '"/previous/static/$file" "/previous/public/assets/$file" =404;'
    ) in location(app, "^~ /static/")
    docs = location(app, "^~ /docs/")
    assert 'try_files "/live/public/docs/html/${file}index.html" "/previous/public/docs/html/${file}index.html"' in docs
    assert "$deploykit_cache" in docs and "disable_symlinks if_not_owner" in docs
    assert "index.html" not in location(app, "^~ /media/")


def test_uploads_are_not_trusted_wherever_they_are() -> None:
    app = replace(with_site(locations=(Location("/up/", ("up",)),)), build=Build(persist=("up/",)))
    for text in (location(app, "^~ /up/"), location(app, "^~ /media/")):
        assert 'add_header Content-Security-Policy "$deploykit_sandbox";' in text and "gzip_static" not in text
    policy = ("Content-Security-Policy", "default-src 'self'")
    both = location(with_site(headers=(policy,)), "^~ /media/")
    assert both.count("add_header Content-Security-Policy") == 2, "the site's own does not free them"
    own = location(with_site(locations=(Location("/media/", headers=(policy,)),)), "^~ /media/")
    assert "$deploykit_sandbox" not in own


def test_a_template_of_the_projects_has_a_name_for_the_socket(tmp_path: Path) -> None:
    (tmp_path / "templates/nginx").mkdir(parents=True)
    (tmp_path / "templates/nginx/blog.conf.j2").write_text(
        '{% extends "deploykit/nginx/site.conf.j2" %}{% block server %}proxy_pass http://unix:{{ socket }}:/x;'
        "{% endblock %}"
    )
    assert "proxy_pass http://unix:/run/deploykit/blog/live.sock:/x;" in site(BLOG, tmp_path)


def test_proxies_are_not_counted_as_visitors() -> None:
    text = site(with_site(proxies=("10.0.0.0/8",)))
    assert "set $deploykit_visitor $app_blog_visitor;" in text
    assert '"~^yes (.*) \\1$" "";' in text


def test_a_folder_of_any_name_is_one_word_for_the_shell() -> None:
    app = replace(
        BLOG,
        code=Code("d", root="it's $(id) `id` &"),
        processes=(Process("worker", command="python manage.py work", folder="a b"),),
    )
    made = programs.files(app, "a", "/srv/blog/releases/r", "/venv", {}, renderer(Path("/nowhere")), 1)
    (text,) = (str(each.wanted()["content"]) for each in made if each.key == "file /etc/deploykit/blog.a.run")
    place = "/srv/blog/releases/r/code/"
    assert [line.strip() for line in text.splitlines() if "cd " in line] == [
        f"cd {shlex.quote(place + folder)} || exit 1" for folder in ("it's $(id) `id` &", "a b")
    ]


def test_files_at_the_root_leave_the_rest_to_the_app() -> None:
    text = site(with_site(locations=(Location("/", ("front",), max_body=3, snippet="proxy_buffering off;"),)))
    assert '"/previous/public/front/$file" @app_blog;' in text
    assert text.count("client_max_body_size 3m;") == 2 and text.count("proxy_buffering off;") == 1


def test_each_process_has_its_paths() -> None:
    live = Process("live", paths=("/ws/",), web=Web("asgi", "a:b", timeout=20))
    old = Process("old", paths=("/old/",), web=Web("wsgi", "a:b", timeout=20))
    app = replace(with_site(locations=(Location("/v2/", process="old"),)), processes=(live, old))
    ws = location(app, "^~ /ws/")
    assert "proxy_pass http://unix:/run/deploykit/blog/live.live.sock;" in ws and "Upgrade $http_upgrade" in ws
    assert "proxy_read_timeout 3600s;" in ws
    for path in ("/old/", "/v2/"):
        text = location(app, f"^~ {path}")
        assert "live.old.sock" in text and "Upgrade" not in text and "proxy_read_timeout 25s;" in text
    assert "live.sock" in location(app, "/")
    checked = {each.socket: each.paths for each in programs.programs(app)}
    assert checked == {"live": ("/ws/",), "old": ("/old/", "/v2/")}, "so checks ask the same server"
    slow = replace(BLOG, web=Web("asgi", "a:b", timeout=10))
    assert "proxy_read_timeout 60s;" in location(slow, "/"), "an open WebSocket says something every 20 seconds"


def test_what_is_said_of_one_path_is_one_location() -> None:
    app = replace(
        with_site(locations=(Location("/ws/", timeout=9, max_body=7, headers=(("X-A", "b"),), snippet="deny all;"),)),
        processes=(Process("live", paths=("/ws/",), web=Web("asgi", "a:b")),),
    )
    text = location(app, "^~ /ws/")
    for words in (
        "proxy_read_timeout 9s;",
        "client_max_body_size 7m;",
        'X-A "b" always;',
        "deny all;",
        "live.live.sock",
    ):
        assert words in text
    assert site(replace(BLOG, media=Served("/static/"))).count("location ^~ /static/ {") == 1


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (replace(BLOG, processes=(Process("w", paths=("/static/",), web=Web()),)), "/static/ of app blog"),
        (with_site(locations=(Location("/media/", process="w"),)), "/media/ of app blog"),
        (with_site(redirects=(("/static/", "/x/"),)), "/static/ of app blog"),
        (with_site(locations=(Location("/x/", process="nobody"),)), "no web server nobody"),
    ],
)
def test_two_answers_at_one_path(app: App, words: str) -> None:
    """What only the settings say (STATIC_URL) cannot be told when the file is read."""
    with pytest.raises(Failed, match=words):
        locations.places(app)


def test_headers_are_in_every_location_and_not_doubled() -> None:
    headers = (("X-Frame-Options", "DENY"), ("cache-control", "private"), ("Vary", "Cookie"), ("X-Powered-By", ""))
    app = with_site(headers=headers, locations=(Location("/a/", headers=(("x-frame-options", "SAMEORIGIN"),)),))
    for begin in ("^~ /static/", "^~ /media/", "/", "= /deploykit-unavailable"):
        text = location(app, begin)
        assert text.count('add_header X-Frame-Options "DENY" always;') == 1, begin
        assert text.lower().count("cache-control") == (2 if begin == "/" else 1), begin
        assert "add_header X-Powered-By" not in text
    proxied = location(app, "/")
    for name in ("X-Frame-Options", "cache-control", "X-Powered-By"):
        assert f"proxy_hide_header {name};" in proxied
    assert "proxy_hide_header Vary" not in proxied
    own = location(app, "^~ /a/")
    assert 'add_header x-frame-options "SAMEORIGIN" always;' in own and "DENY" not in own


def test_values_mean_themselves() -> None:
    assert locations.literal('a "b" \\ $c ${d} ; { }') == (
        'a \\"b\\" \\\\ ${deploykit_dollar}c ${deploykit_dollar}{d} ; { }'
    )
    text = site(with_site(redirects=(("/a$b/", "/c$d/"), ("/%22x", "/y?z#w"))))
    assert 'location ^~ "/a${deploykit_dollar}b/" {' in text
    assert 'rewrite "(?s)^/a\\\\$b/(.*)$" "/c${deploykit_dollar}d/$1" permanent;' in text
    assert 'location = "/\\"x" {' in text and 'return 301 "/y?z$deploykit_further_args#w";' in text
    odd = location(with_site(locations=(Location("/odd/", ('a $b "c"',)),)), "^~ /odd/")
    assert '"/live/public/a ${deploykit_dollar}b \\"c\\"/$file"' in odd


def test_the_front_page_alone_or_all_of_it() -> None:
    alone = site(with_site(redirects=(("/", "/en/"),)))
    assert 'location = "/" {' in alone and "    location / {" in alone
    moved = site(with_site(redirects=(("/", "https://new.example/"),)))
    assert 'location ^~ "/" {' in moved and "    location / {" not in moved


def test_proxies() -> None:
    assert "real_ip" not in site(BLOG) and "geo " not in site(BLOG)
    text = site(replace(with_site(proxies=("10.0.0.0/8", "unix:")), name="blog", redirects=("www.blog.example",)))
    assert "set_real_ip_from 10.0.0.0/8;" in text and "    10.0.0.0/8 yes;" in text
    assert "set_real_ip_from unix:;" in text and '    "unix:" yes;' in text
    assert "return 301 $deploykit_proto://blog.example$request_uri;" in text
    assert site(with_site(proxies=("127.0.0.1/32",))).count("127.0.0.1/32 yes;") == 1, "nginx warns of two"
    longest = replace(with_site(proxies=("::1",)), name="b" * 31, tls=Tls("/c", "/k"))
    text = str(found(longest)[f"file /etc/nginx/sites-available/{longest.name}.conf"].wanted()["content"])
    assert max(map(len, re.findall(r"\$(\w+)", text))) <= 46, "nginx has no room for a longer variable"
    assert max(map(len, re.findall(r"\(\?<(\w+)>", text))) <= 32, "PCRE has no room for a longer group"
    tls = site(replace(with_site(proxies=("10.0.0.1/32",)), tls=Tls("/c", "/k")))
    assert "if ($app_blog_insecure) {" in tls and tls.count("server {") == 1


def test_passwords() -> None:
    asked = found(with_site(users=(("anna", Secret("a")),)))
    assert isinstance(asked["passwords /etc/deploykit/blog.passwords"], Passwords)
    text = site(with_site(users=(("anna", Secret("a")),)))
    assert 'auth_basic "blog";' in text and "proxy_set_header Authorization $deploykit_authorization;" in text
    assert isinstance(found(BLOG)["passwords /etc/deploykit/blog.passwords"], NoPasswords)
    assert "auth_basic_user_file" not in site(BLOG) and "Authorization" not in site(BLOG)


def test_a_password_fits_what_openssl_makes_of_it() -> None:
    kept = hashed("grüße: $x", b"0123456789abcdef")
    assert fits("grüße: $x", kept) and not fits("grüße", kept) and not fits("grüße: $x", "")
    assert hashed("a", b"1" * 16) != hashed("a", b"2" * 16)
    # RFC 2307's {SSHA}, made by another program: the SHA-1 of the password and the salt, then the salt.
    script = 'd=$(printf %s%s secret salt | openssl dgst -sha1 -binary | base64); printf %s "$d"'
    import base64

    digest = base64.b64decode(subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout)
    assert fits("secret", "{SSHA}" + base64.b64encode(digest + b"salt").decode())
    assert not fits("secret", "{SHA}" + base64.b64encode(digest).decode())
    assert not fits("secret", "{SSHA}" + base64.b64encode(digest).decode()), "without salt it is no {SSHA}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(paths, "SECRETS", tmp_path / "secrets")
    monkeypatch.setattr(paths, "MANIFEST", tmp_path / "manifest.json")
    yield tmp_path


def test_an_empty_password_is_refused(store: Path) -> None:
    (store / "secrets").mkdir()
    paths.write_json(store / "secrets/blog.json", {"ANNA": ""})
    kept = Passwords(path=str(store / "x"), users=(("anna", HostSecret("ANNA")),), app="blog")
    with pytest.raises(Failed, match="password of anna for app blog is empty"):
        kept.wanted()
    text = APP + '[apps.blog.nginx.basic_auth]\nanna = { env = "ANNA" }\n'
    with pytest.raises(ConfigError) as caught:
        resolve(loads(text, Path("/project/deploykit.toml")), {"ANNA": ""})
    assert "ANNA is empty" in caught.value.problems[0].what


FOREIGN = """
# server { server_name comment.example; }
upstream x { server 127.0.0.1:1; }
server { listen 8080; server_name other-port.example; }
server {
    listen 443 ssl;
    server_name "Quoted.example" .dotted.example; # ; server_name trap.example;
    location / { return 200 "server_name no.example;"; }
}
server { server_name plain.example; }
server { listen [::]:80 default_server; listen unix:/x; server_name six.example; }
"""


def test_names_of_a_foreign_site() -> None:
    assert set(served(FOREIGN)) == {
        "quoted.example", "dotted.example", "*.dotted.example", "plain.example", "six.example",
    }  # fmt: skip
    assert list(served("server { server_name cut")) == [] and list(served("} }; {")) == []


def test_a_foreign_site_of_our_name(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = store / "sites-enabled"
    enabled.mkdir()
    monkeypatch.setattr(neighbours, "ENABLED", str(enabled))
    monkeypatch.setattr(neighbours, "FURTHER", str(store / "conf.d"))
    names = Names(domains=("plain.example", "blog.example"), ours=(f"{enabled}/blog.conf",))
    (enabled / "blog.conf").write_text("server { server_name blog.example; }")
    assert names.observe() == names.wanted()
    (enabled / "hand").write_text(FOREIGN)
    with pytest.raises(Failed, match=r"a site for plain\.example already, in .*/hand"):
        names.observe()
    paths.write_json(paths.MANIFEST, [{"path": f"{enabled}/hand"}])
    assert names.observe() == names.wanted(), "the site of an app that has left is ours"


def test_a_template_for_one_app(tmp_path: Path) -> None:
    folder = tmp_path / "templates/nginx"
    folder.mkdir(parents=True)
    (folder / "blog.conf.j2").write_text(
        '{% extends "deploykit/nginx/site.conf.j2" %}\n'
        "{% block http %}limit_req_zone $remote_addr zone=x:1m rate=1r/s;\n{% endblock %}\n"
        "{% block locations %}    location /only { return 204; }\n{{ super() }}{% endblock %}\n"
    )
    text = site(BLOG, tmp_path)
    assert "limit_req_zone" in text.partition("server {")[0] and "location /only" in text
    assert "location ^~ /static/" in text
    other = nginx.recipe(Host("web1", apps=(BLOG, replace(BLOG, name="other"))), BOOKWORM, renderer(tmp_path))
    assert [each.key for each in other if "location /only" in str(each.wanted().get("content"))] == [
        "file /etc/nginx/sites-available/blog.conf"
    ]
    (folder / "blog.conf.j2").write_text("{{ app.nobody }}")
    with pytest.raises(DeploykitError) as caught:
        site(BLOG, tmp_path)
    assert "nobody" in caught.value.what and "blog.conf.j2" in caught.value.where


def test_no_app_can_have_the_name_of_another_template() -> None:
    """Of ours, only names that no app may have, or that mean the same, lie where an app's own is looked for."""
    ours = {
        path.name.removesuffix(".conf.j2") for path in Path(nginx.__file__).parents[1].glob("templates/nginx/*.conf.j2")
    }
    assert ours == {"site", "deploykit", "no_app"}


def only(text: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        loads(APP + text, Path("/project/deploykit.toml"))
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ('[nginx.redirects]\n"/a" = "b"\n', "redirects./a", "leads nowhere"),
        ('[nginx.redirects]\n"/a" = "//evil.example/"\n', "redirects./a", "leads nowhere"),
        ('[nginx.redirects]\n"/a" = "/b c"\n', "redirects./a", "leads nowhere"),
        ('[nginx.redirects]\n"/a%0a" = "/b"\n', "redirects./a%0a", "no path"),
        ('[nginx.redirects]\n"/a?b" = "/b"\n', "redirects./a?b", "no path"),
        ('[nginx.redirects]\n"/a/" = "/a/b/"\n', "redirects./a/", "again and again"),
        ('[nginx.redirects]\n"/.well-known/acme-challenge/x" = "/b"\n', "redirects", "deploykit's own"),
        ('[nginx.redirects]\n"/a/" = "/b/"\n[nginx.locations."/a/"]\ntimeout = 3\n', "redirects", "of its own already"),
        ('[nginx.headers]\nContent-Length = "1"\n', "headers.Content-Length", "for each answer anew"),
        ('[nginx.headers]\nX-A = "1"\nx-a = "2"\n', "headers.x-a", "twice"),
        ('[nginx.headers]\nX-A = "1\\n2"\n', "headers.X-A", "one line"),
        ('[nginx.headers]\n"X A" = "1"\n', "headers.X A", "no header's name"),
        ('[nginx]\nproxies = ["10.0.0.0/33"]\n', "proxies[1]", "no address"),
        ('[nginx]\nproxies = ["lb.example"]\n', "proxies[1]", "no address"),
        ('[nginx.locations."/a/"]\nfolder = "."\n', "folder", "whole source"),
        ('[nginx.locations."/a/"]\nfolder = "../x"\n', "folder", "not inside"),
        ('[nginx.locations."/a/"]\nfolder = "x"\ntimeout = 9\n', "timeout", "no app is waited for"),
        ('[nginx.locations."/a b/"]\ntimeout = 3\n', "locations", "no path"),
        ('[processes.w]\ncommand = "x"\n[nginx.locations."/a/"]\nprocess = "w"\n', "process", "no web server"),
        (
            '[processes.w]\nwsgi = "a:b"\npaths = ["/a/"]\n[nginx.locations."/a/"]\nfolder = "x"\n',
            "folder",
            "leads to w already",
        ),
        (
            '[processes.v]\nwsgi = "a:b"\npaths = ["/a/"]\n[processes.w]\nwsgi = "a:b"\npaths = ["/a/"]\n',
            "processes.w.paths[1]",
            "leads to v already",
        ),
    ],
)
def test_what_is_refused(text: str, where: str, words: str) -> None:
    problem = only(text.replace("[nginx", "[apps.blog.nginx").replace("[processes", "[apps.blog.processes"))
    assert words in problem.what, problem
    assert where in f"{problem.table}.{problem.key}".replace('"', ""), problem


@pytest.mark.parametrize("key", ['static = "/s/"', 'media = "/m/"', 'redirects = ["www.blog.example"]'])
def test_without_nginx_nothing_of_it(key: str) -> None:
    assert "nginx = false" in only(f"nginx = false\nport = 8000\n{key}\n").what


def test_a_table_means_nginx() -> None:
    text = f'{APP}static = "/static/"\nmedia = "/static/media/"\n[apps.blog.nginx]\n'
    text += 'proxies = ["10.1.2.3/8", "::1", "10.0.0.0/8"]\n'
    app = loads(text, Path("/project/deploykit.toml")).apps[0]
    assert app.nginx and app.site.proxies == ("10.0.0.0/8", "::1/128")
