"""The standard job with pyinfra. What follows from a change is only done after one: `_if=...did_change`."""

from io import StringIO
from typing import Any

from pyinfra import host
from pyinfra.operations import apt, files, pip, postgres, server, systemd
from pyinfra.operations.util import any_changed

WITH_ENV = """\
#!/bin/sh
file=$1
shift
. "$file"
exec "$@"
"""
STRANGERS = """\
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    return 444;
}
"""

apt.packages(
    name="Packages",
    packages=["nginx", "postgresql", "python3-venv", "supervisor"],
    no_recommends=True,
)
files.put(name="with-env", src=StringIO(WITH_ENV), dest="/usr/local/bin/with-env", mode="755")
default = files.link(name="No default site", path="/etc/nginx/sites-enabled/default", present=False)
strangers = files.put(name="No answer for strangers", src=StringIO(STRANGERS), dest="/etc/nginx/conf.d/strangers.conf")
for service in ("nginx", "postgresql", "supervisor"):
    systemd.service(name=f"{service} runs", service=service, running=True, enabled=True)

sites, programs = [default, strangers], []


def deploy(app: dict[str, Any]) -> None:
    """One app."""
    name = app["name"]
    home = f"/srv/{name}"
    server.user(name=f"{name}: user", user=name, system=True, home=home, ensure_home=True, shell="/bin/bash")  # noqa: S604
    files.directory(name=f"{name}: code", path=f"{home}/code", group=name, mode="750")
    for folder in ("static", "media", "run"):
        files.directory(name=f"{name}: {folder}", path=f"{home}/{folder}", user=name, group="www-data", mode="2750")
    source = files.sync(
        name=f"{name}: source",
        src=f"{host.data.project}/{name}",
        dest=f"{home}/code",
        user="root",
        group=name,
        mode="640",
        dir_mode="750",
        delete=True,
        exclude_dir=["__pycache__", "*/__pycache__"],
        exclude="*.pyc",
        add_deploy_dir=False,
    )
    pip.venv(name=f"{name}: virtualenv", path=f"{home}/venv", python="python3")
    wheels = pip.packages(
        name=f"{name}: requirements",
        requirements=f"{home}/code/requirements.txt",
        virtualenv=f"{home}/venv",
        _if=source.did_change,
    )
    environment = files.template(
        name=f"{name}: environment", src="templates/env.j2", dest=f"{home}/env", group=name, mode="640", app=app
    )
    postgres.role(name=f"{name}: role", role=name, _su_user="postgres")
    postgres.database(
        name=f"{name}: database",
        database=name,
        owner=name,
        template="template0",
        encoding="UTF8",
        lc_collate="C.UTF-8",
        lc_ctype="C.UTF-8",
        _su_user="postgres",
    )
    manage = f"with-env {home}/env ../venv/bin/python manage.py"
    server.shell(
        name=f"{name}: tables and static files",
        commands=[f"{manage} migrate --noinput", f"{manage} collectstatic --noinput"],
        _chdir=f"{home}/code",
        _su_user=name,
        _if=any_changed(source, wheels),
    )
    program = files.template(
        name=f"{name}: program",
        src="templates/supervisor.conf.j2",
        dest=f"/etc/supervisor/conf.d/{name}.conf",
        app=app,
    )
    programs.append(program)
    server.shell(
        name=f"{name}: restart",
        commands=["supervisorctl update", f"supervisorctl restart {name}"],
        _if=any_changed(source, wheels, environment, program),
    )
    available, enabled = (f"/etc/nginx/sites-{state}/{name}.conf" for state in ("available", "enabled"))
    sites.append(files.template(name=f"{name}: site", src="templates/site.conf.j2", dest=available, app=app))
    sites.append(files.link(name=f"{name}: site enabled", path=enabled, target=available))


for each in host.data.apps:
    deploy(each)

systemd.service(name="Reload nginx", service="nginx", reloaded=True, _if=any_changed(*sites))
