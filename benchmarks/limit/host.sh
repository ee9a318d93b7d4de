# What deploy.sh runs on the host, as root, by bash. Standard input: the wanted state, then the sources that are lacking.
set -euo pipefail
shopt -s globstar nullglob dotglob
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
packages="ca-certificates tzdata python3 python3-pip-whl postgresql-15 supervisor nginx"
uv_version=0.13.9
venvs=/opt/limit/venvs # named by the digest of their requirements: root's, and apps with equal ones share theirs
psql=/usr/lib/postgresql/15/bin/psql # itself: Debian's /usr/bin/psql is a script that looks for a cluster first

apps=()
declare -A domain=() tree=() wheels=() env=()
while read -r word first rest; do
    case $word in
    app)
        app=$first apps+=("$app") env[$app]=''
        read -r "domain[$app]" "tree[$app]" "wheels[$app]" <<<"$rest"
        ;;
    env) env[$app]+="export $first${rest:+ $rest}"$'\n' ;;
    end) break ;;
    esac
done
[ ${#apps[@]} -gt 0 ]

# -- What should be, in a folder: every file, and below that the modes of all paths --------------------------------------
wanted=$(mktemp -d /run/limit.XXXXXX)
trap 'rm -rf "$wanted"' EXIT
cd "$wanted"
mkdir -p etc/{limit,nginx/conf.d,supervisor/conf.d,tmpfiles.d,systemd/system/supervisor.service.d} usr/local/lib/limit
modes=''
own() { modes+="$2 $3 $1"$'\n'; } # own PATH MODE USER:GROUP
for app in "${apps[@]}"; do
    home=/srv/$app
    own $home 711 root:root
    own $home/releases 711 root:root
    own $home/home 700 $app:$app
    own $home/media 2750 $app:www-data
    own /run/$app 2750 $app:www-data
    own /etc/limit/$app.env 640 root:$app
    own /etc/limit/$app.secret 640 root:$app
    printf 'd /run/%s 2750 %s www-data -\n' $app $app >>etc/tmpfiles.d/limit.conf
    printf %s "\
. /etc/limit/$app.secret
export DJANGO_SETTINGS_MODULE=config.settings
export ALLOWED_HOSTS=${domain[$app]}
export CSRF_TRUSTED_ORIGINS=http://${domain[$app]},https://${domain[$app]}
export STATIC_ROOT=$home/releases/${tree[$app]}/static
export MEDIA_ROOT=$home/media
export DATABASE_URL=postgresql://$app@/$app
export PYTHONUNBUFFERED=1
export LANG=C.UTF-8
${env[$app]}" >etc/limit/$app.env
    printf %s "\
[program:$app]
command=/usr/local/lib/limit/with-env /etc/limit/$app.env $home/live/venv/bin/gunicorn --bind unix:/run/$app/live.sock --umask 0 --workers 1 --worker-class gthread --threads 2 --timeout 30 --graceful-timeout 30 --worker-tmp-dir /dev/shm --no-control-socket config.wsgi:application
directory=$home/live/code
user=$app
environment=HOME=\"$home/home\",USER=\"$app\",LOGNAME=\"$app\"
umask=027
autorestart=true
stopwaitsecs=40
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/$app.log
" >etc/supervisor/conf.d/$app.conf
    printf %s "\
server {
    listen 80;
    listen [::]:80;
    server_name ${domain[$app]};
    server_tokens off;
    access_log /var/log/nginx/$app.access.log;
    error_log /var/log/nginx/$app.error.log;
    client_max_body_size 20m;
    gzip on;
    gzip_types text/css text/javascript application/javascript application/json image/svg+xml;
    location /static/ {
        alias $home/live/static/;
    }
    location /media/ {
        alias $home/media/;
        disable_symlinks if_not_owner from=$home/media;
        add_header X-Content-Type-Options nosniff;
    }
    location / {
        proxy_pass http://unix:/run/$app/live.sock;
        proxy_set_header Host \$http_host;
        proxy_set_header X-Forwarded-For \$remote_addr;
        proxy_set_header X-Forwarded-Proto \$scheme;
        proxy_read_timeout 35s;
    }
}
" >etc/nginx/conf.d/$app.conf
done
printf %s '#!/bin/sh
file=$1
shift
. "$file"
exec "$@"
' >usr/local/lib/limit/with-env
own /usr/local/lib/limit/with-env 755 root:root
printf %s '[Service]
OOMPolicy=continue
Restart=always
RestartSec=1
KillMode=mixed
TimeoutStopSec=120
' >etc/systemd/system/supervisor.service.d/limit.conf
printf %s 'server {
    listen 80 default_server;
    listen [::]:80 default_server;
    return 444;
}
' >etc/nginx/conf.d/limit.conf

# -- Supervisor by its own socket, since supervisorctl takes 0.15 s a call; and the proof --------------------------------
# `state`: prints the programs that run. `start`, `restart` APP DOMAIN ...: as said, and waits for each site's answer
# through nginx (a bare host has no curl).
programs() {
    /usr/bin/python3 -I -S - "$@" <<'PYTHON'
import re, socket, sys, time
def say(family, address, head, body=""):
    with socket.socket(family) as line:
        line.settimeout(60)
        line.connect(address)
        line.sendall(f"{head}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        return b"".join(iter(lambda: line.recv(65536), b"")).decode("utf-8", "replace")
def call(method, *values):
    types = {str: "string", bool: "boolean"}
    params = "".join(f"<param><value><{types[type(v)]}>{v if type(v) is str else int(v)}</{types[type(v)]}></value></param>" for v in values)
    body = f"<methodCall><methodName>supervisor.{method}</methodName><params>{params}</params></methodCall>"
    return say(socket.AF_UNIX, "/run/supervisor.sock", "POST /RPC2 HTTP/1.1\r\nHost: supervisor\r\nContent-Type: text/xml", body)
what, *words = sys.argv[1:]
if what == "state":
    for name, state in re.findall(r"<name>name</name>\s*<value><string>(.*?)<.*?<name>statename</name>\s*<value><string>(.*?)<", call("getAllProcessInfo"), re.S):
        print(name, state)
    sys.exit()
for _ in range(200):  # its service counts as started before its socket is there
    try:
        call("getState")
        break
    except OSError:
        time.sleep(0.05)
if what == "start":
    call("reloadConfig")
for name in words[::2]:
    if what == "start":
        call("addProcessGroup", name)
    else:
        call("stopProcess", name, True)
        call("startProcess", name, False)
for domain in words[1::2]:
    for attempt in range(1200):
        try:
            answer = say(socket.AF_INET, ("127.0.0.1", 80), f"GET /healthz HTTP/1.1\r\nHost: {domain}")
            if answer.startswith("HTTP/1.1 200"):
                break
        except OSError:
            pass
        time.sleep(0.05)
    else:
        sys.exit(f"{domain} does not answer: {answer[:200]}")
    print(domain, "answers")
PYTHON
}
sql() (
    cd /
    setpriv --reuid postgres --regid postgres --init-groups $psql -XAtqv ON_ERROR_STOP=1 -h /run/postgresql -d postgres
)

# -- What is, all at once ------------------------------------------------------------------------------------------------
lacks=() bare=()
for app in "${apps[@]}"; do
    if [ ! -e /srv/$app/releases/${tree[$app]}/.complete ]; then lacks+=($app); fi
    if [ ! -e $venvs/${wheels[$app]}/.complete ]; then bare+=($app); fi
done
echo "lacks ${lacks[*]}"

files=() paths=()
for path in **/*; do if [ ! -d $path ]; then files+=($path); fi; done
while read -r _ _ path; do paths+=($path); done <<<"${modes%$'\n'}"
seen=$(mktemp -d /run/limit.XXXXXX)
trap 'rm -rf "$wanted" "$seen"' EXIT
look() { # look NAME COMMAND...: its output is $seen/NAME; of a command that fails, it is less than there should be
    "${@:2}" >$seen/$1 2>/dev/null || true
}
differ() { (sha256sum -- "${files[@]}" | (cd / && sha256sum -c --quiet)); }
look packages dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages &
look users getent passwd "${apps[@]}" &
look files differ &
look modes stat -c '%a %U:%G %n' "${paths[@]}" &
look services systemctl is-active nginx supervisor postgresql@15-main &
look enabled systemctl is-enabled nginx supervisor postgresql &
look programs programs state &
look postgres sql <<<"SELECT 'role ' || rolname FROM pg_roles WHERE rolcanlogin;
    SELECT 'database ' || datname || ' ' || pg_get_userbyid(datdba) FROM pg_database;" &
wait

declare -A text=() new=()
for name in users programs postgres; do text[$name]=$'\n'$(<$seen/$name)$'\n'; done
has() { [[ ${text[$1]} == *$'\n'$2* ]]; } # has NAME TEXT: whether a line of $seen/NAME begins so
while IFS=: read -r path _; do new[$path]=1; done <$seen/files
count() { grep -cxE "$2" $seen/$1 || true; }
words=($packages)
missing=$((${#words[@]} - $(count packages 'installed .*')))
down=$((6 - $(count services active) - $(count enabled enabled)))
start=() restart=() tables=()
for app in "${apps[@]}"; do
    if [[ " ${lacks[*]} " == *" $app "* ]] || ! has postgres "role $app"$'\n' || ! has postgres "database $app $app"$'\n'; then
        tables+=($app)
    fi
    if ! has programs "$app RUNNING" && ! has programs "$app STARTING"; then
        start+=($app ${domain[$app]})
    elif [[ " ${lacks[*]} ${bare[*]} " == *" $app "* || -v new[etc/limit/$app.env] || -v new[etc/supervisor/conf.d/$app.conf] ]]; then
        restart+=($app ${domain[$app]})
    fi
done

# -- Make it so -------------------------------------------------------------------------------------------------------------
each() ( # each COMMAND APP...: for all apps, as many at once as there are processors
    # A lane for each processor. `wait -n` would balance them better, but in bash 5.2 it may miss a job that has ended.
    command=$1 lanes=() width=$(nproc)
    shift
    for ((lane = 0; lane < width && lane < $#; lane++)); do
        for ((i = lane + 1; i <= $#; i += width)); do $command ${!i}; done &
        lanes+=($!)
    done
    for lane in "${lanes[@]}"; do wait $lane; done
)
put() { # put FOLDER...: those of our files in there that differ
    for path in "${files[@]}"; do
        if [[ -v new[$path] && " $* " == *" ${path%/*} "* ]]; then
            case $path in
            *.env) install -D -m 640 -g "$(basename $path .env)" $path /$path ;;
            */with-env) install -D -m 755 $path /$path ;;
            *) install -D -m 644 $path /$path ;;
            esac
        fi
    done
}

# Users, their folders, environments and sources
users=''
for app in "${apps[@]}"; do
    if ! has users "$app:"; then users+="u $app - - /srv/$app/home /bin/bash"$'\n'; fi
done
if [ -n "$users" ]; then systemd-sysusers - <<<"$users" 2>/dev/null; fi
put etc/limit usr/local/lib/limit etc/tmpfiles.d
if [ "$(<$seen/modes)" != "${modes%$'\n'}" ]; then
    for app in "${apps[@]}"; do
        home=/srv/$app secret=/etc/limit/$app.secret
        install -d -m 711 $home $home/releases
        install -d -m 700 -o $app -g $app $home/home
        install -d -m 2750 -o $app -g www-data $home/media /run/$app
        if [ ! -e $secret ]; then
            (umask 077 && echo "export SECRET_KEY=$(head -c 38 /dev/urandom | base64 -w 0)" >$secret)
        fi
        chgrp $app /etc/limit/$app.{env,secret}
        chmod 640 /etc/limit/$app.{env,secret}
    done
fi
if [ ${#lacks[@]} -gt 0 ]; then tar xz --no-same-owner -C $seen; fi
for app in "${lacks[@]}"; do
    release=/srv/$app/releases/${tree[$app]}
    rm -rf $release
    install -d -m 711 $release
    install -d -m 2750 -o $app -g www-data $release/static
    mv $seen/$app $release/code
    chown -R root:$app $release/code
    chmod -R u=rwX,g=rX,o= $release/code
    ln -s $venvs/${wheels[$app]} $release/venv
done

# Virtualenvs and static files, while apt is at work
manage() ( # manage APP ARGUMENT...
    cd /srv/$1/releases/${tree[$1]}/code
    setpriv --reuid $1 --regid $1 --init-groups \
        /usr/local/lib/limit/with-env /etc/limit/$1.env ../venv/bin/python -B manage.py "${@:2}"
)
tables() {
    local statements=''
    if ! has postgres "role $1"$'\n'; then statements="CREATE ROLE $1 LOGIN;"; fi
    if ! has postgres "database $1 $1"$'\n'; then
        statements+="
            CREATE DATABASE $1 OWNER $1 TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8';
            REVOKE CONNECT ON DATABASE $1 FROM PUBLIC;"
    fi
    if [ -n "$statements" ]; then sql <<<"$statements"; fi
    manage $1 migrate --noinput --verbosity 0
}
static() {
    manage $1 collectstatic --noinput --verbosity 0
    chown -R $1:www-data /srv/$1/releases/${tree[$1]}/static
    chmod -R u=rwX,g=rX,o= /srv/$1/releases/${tree[$1]}/static
}
uv() {
    UV_CACHE_DIR=/var/cache/limit UV_SYSTEM_CERTS=1 UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never /opt/limit/bin/uv --quiet "$@"
}
venv() { # venv DIGEST APP: that app's requirements have this digest
    local place=$venvs/$1
    rm -rf $place
    uv venv --python /usr/bin/python3 $place
    uv pip install --python $place --compile-bytecode -r /srv/$2/releases/${tree[$2]}/code/requirements.txt
    touch $place/.complete
}
build() {
    if [ ${#lacks[@]} -gt 0 ]; then
        folders=()
        for app in "${lacks[@]}"; do folders+=(/srv/$app/releases/${tree[$app]}/code); done
        python3 -I -S -m compileall -q -j 2 "${folders[@]}"
    fi
    if [ ${#bare[@]} -gt 0 ] && [ ! -e /opt/limit/bin/uv ]; then
        # pip comes with a package that is being installed meanwhile: here it is out of turn
        (cd $seen && apt-get -qq -o APT::Sandbox::User=root download python3-pip-whl && dpkg-deb -x python3-pip-whl_*.deb .)
        local wheel=$(echo $seen/usr/share/python-wheels/pip-*.whl)
        python3 $wheel/pip install -q --no-deps --no-cache-dir --root-user-action ignore --target /opt/limit uv==$uv_version
    fi
    for app in "${bare[@]}"; do
        if [ ! -e $venvs/${wheels[$app]}/.complete ]; then venv ${wheels[$app]} $app; fi
    done
    each static "${lacks[@]}"
}
build &
builds=$!
if [ $missing -gt 0 ]; then
    apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends $packages >$seen/apt 2>&1 ||
        { cat $seen/apt >&2 && exit 1; }
fi

# Services and databases
put etc/supervisor/conf.d etc/nginx/conf.d etc/systemd/system/supervisor.service.d
if [[ -v new[etc/systemd/system/supervisor.service.d/limit.conf] ]]; then systemctl daemon-reload; fi
if [ -e /etc/nginx/sites-enabled/default ]; then rm /etc/nginx/sites-enabled/default && new[etc/nginx/conf.d/limit.conf]=1; fi
if [ $down -gt 0 ]; then systemctl enable -q --now nginx supervisor postgresql; fi
if [[ " ${!new[*]}" == *" etc/nginx/"* ]]; then
    nginx -t -q
    systemctl reload nginx
fi

# The apps: tables, then the new release goes live
if [ ${#bare[@]} -eq 0 ]; then
    each tables "${tables[@]}" # beside the static files
    wait $builds
else
    wait $builds
    each tables "${tables[@]}"
fi
for app in "${lacks[@]}"; do
    ln -sfn releases/${tree[$app]} /srv/$app/live
    touch /srv/$app/releases/${tree[$app]}/.complete
done
if [ ${#start[@]} -gt 0 ]; then programs start "${start[@]}"; fi
if [ ${#restart[@]} -gt 0 ]; then programs restart "${restart[@]}"; fi
