"""nginx: a site per app, static and media files from disk, everything else to the app's socket.

`/run/deploykit/<app>/live.sock` is a symbolic link that a deploy swaps. nginx opens it for each request (there is no
`upstream` with kept connections, on purpose), so a deploy needs no reload.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.agent.resource import Action, Render, Resource
from deploykit.agent.resources import REREAD, Absent, Directory, File, Link, Package, SharedService
from deploykit.agent.values import App, Facts, Host
from deploykit.model import layout
from deploykit.recipes import locations, neighbours
from deploykit.recipes.connections import Connections
from deploykit.recipes.neighbours import Names
from deploykit.recipes.passwords import NoPasswords, Passwords
from deploykit.recipes.systems import system

RELOAD = Action(
    "reload nginx",
    (("systemctl", "reload-or-restart", "nginx.service"),),
    check=("nginx", "-t", "-q"),
    replaces="nginx: worker process",
)

#: What nginx serves of deploykit's own: the page for a while without an answer, and ACME challenges
#: (`certbot certonly --webroot -w /var/lib/deploykit/www`).
WWW = "/var/lib/deploykit/www"

_DROP_IN = "/etc/systemd/system/nginx.service.d"

#: From this version on HTTP/2 is switched on by a directive of its own: https://nginx.org/en/docs/http/ngx_http_v2_module.html
_HTTP2 = (1, 25, 1)
#: From this version on a TLS handshake can be refused: ssl_reject_handshake in ngx_http_ssl_module's documentation.
_REJECT = (1, 19, 4)


def recipe(host: Host, facts: Facts, render: Render) -> Iterator[Resource]:
    """nginx with a site for each app that wants one, and nothing for strangers."""
    apps = [app for app in host.apps if app.nginx]
    if not apps:
        return
    version = system(facts).nginx
    secure = [app.tls for app in apps if app.tls is not None]
    common = {"ipv6": facts.ipv6, "http2": version >= _HTTP2, "www": WWW}
    domains = [name for app in apps for name in (*app.domains, *app.redirects)]
    longest = max(map(len, domains))

    yield Package("nginx")
    sites = tuple(f"{neighbours.ENABLED}/{name}.conf" for name in ("deploykit-strangers", *(app.name for app in apps)))
    yield Names(domains=tuple(domains), ours=(*sites, "/etc/nginx/conf.d/deploykit.conf"))
    yield Connections(path="/etc/nginx/nginx.conf", connections=8192, actions=(RELOAD,))
    # Addresses are logged, with what is secret in them; nginx's processes open the logs anew after a rotation.
    yield Directory("/var/log/nginx", group="www-data", mode=0o750)
    yield Directory(WWW)
    yield File(f"{WWW}/unavailable.html", render("nginx/unavailable.html.j2"))
    yield File(
        "/etc/nginx/conf.d/deploykit.conf",
        render("nginx/deploykit.conf.j2", bucket=64 if longest <= 46 else 128 if longest <= 110 else 512),
        actions=(RELOAD,),
    )
    for name in ("server", "proxy", *(["tls"] if secure else [])):
        text = render(f"nginx/snippets/{name}.conf.j2", www=WWW)
        yield File(f"/etc/nginx/snippets/deploykit-{name}.conf", text, actions=(RELOAD,))

    strangers = render("nginx/no_app.conf.j2", tls=secure[0] if secure else None, reject=version >= _REJECT, **common)
    yield from _site("deploykit-strangers", strangers)
    yield Absent("/etc/nginx/sites-enabled/default", actions=(RELOAD,))

    for app in apps:
        passwords = f"/etc/deploykit/{app.name}.passwords"
        if app.site.users:
            yield Passwords(path=passwords, users=app.site.users, app=app.name)
        # The project's own template for this app, or for all apps, or ours.
        names = (f"nginx/{app.name}.conf.j2", "nginx/site.conf.j2")
        yield from _site(app.name, render(names, app=app, **_words(app), **common), app.name)
        if not app.site.users:
            yield NoPasswords(passwords)
    yield Directory(_DROP_IN)
    yield File(f"{_DROP_IN}/deploykit.conf", render("nginx/parts/service.j2"), actions=(REREAD,))
    yield SharedService("nginx.service")


def _site(name: str, text: str, app: str = "") -> Iterator[Resource]:
    """A site as Debian keeps them: the file among the available ones, and a link that enables it."""
    yield File(f"/etc/nginx/sites-available/{name}.conf", text, actions=(RELOAD,), app=app)
    yield Link(
        f"{neighbours.ENABLED}/{name}.conf",
        f"/etc/nginx/sites-available/{name}.conf",
        actions=(RELOAD,),
        app=app,
    )


def _words(app: App) -> dict[str, object]:
    """What the site's text needs beside the app itself."""
    return {
        "canonical": next((domain for domain in app.domains if not domain.startswith("*")), ""),
        "places": locations.places(app),
        "socket": layout.socket(app.name, "live"),
        "redirects": locations.redirects(app),
        "headers": locations.given(app.site.headers),
        "passwords": f"/etc/deploykit/{app.name}.passwords" if app.site.users else "",
        # Of this app's own variables. nginx has room for 46 letters (variables_hash_bucket_size 64), an app's name 31.
        "prefix": f"app_{app.name.replace('-', '_')}",
    }
