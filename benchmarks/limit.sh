#!/bin/sh
# The ruler for a first deploy: what a careful person's shell script does to bring examples/memories to a bare Debian 12
# host, in one connection. Same packages, same places, same settings and the same outcome as `fab deploy`, and nothing
# that a script need not do: no slots, no release check, no plan, no second look.
#
#   tar cz -C benchmarks limit.sh -C ../examples memories |
#       ssh root@HOST 'd=$(mktemp -d) && tar xz --no-same-owner -C "$d" && sh "$d/limit.sh" "$d"'
set -eu
source=$1
app=memories domain=memories.example
home=/srv/$app
release=$home/releases/1
venv=$home/venvs/1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# Sizes as recipes/sizing.py has them.
memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
for sold in 512 1024 1536 2048 3072 4096 6144 8192 12288 16384 24576 32768 49152 65536 98304 131072; do
    [ "$memory" -gt "$sold" ] || break
done
workers=$(($(nproc) * 2))
start="listen_addresses = 'localhost'
max_connections = 300
shared_buffers = $((sold / 8))MB"

# PostgreSQL's first cluster is made and started by its package: with these it need not be started twice.
mkdir -p /etc/postgresql-common/createcluster.d
echo "$start" >/etc/postgresql-common/createcluster.d/$app.conf

apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends \
    ca-certificates tzdata python3 python3-pip-whl postgresql-15 supervisor nginx >/dev/null

# The app's user, folders and code
useradd --system --no-create-home --user-group -d $home/home -s /bin/bash $app
install -d -m 0711 $home $home/releases $home/venvs $release
install -d -m 0700 -o $app -g $app $home/home
install -d -m 0750 -o $app -g $app $home/data
install -d -m 2750 -o $app -g www-data $home/media $release/static
install -d -m 0755 /etc/deploykit /var/log/deploykit /var/lib/deploykit/www
install -d -m 0700 /var/backups/deploykit /var/backups/deploykit/$app
echo "d /run/$app 2750 $app www-data -" >/etc/tmpfiles.d/$app.conf
systemd-tmpfiles --create $app.conf
mv "$source/$app" $release/code
chown -R root:$app $release/code
chmod -R u=rwX,g=rX,o= $release/code
ln -s releases/1 $home/live

# Its virtualenv. pip straight from Debian's wheel is the fastest for one virtualenv: there is no uv to fetch before,
# and no pip to install into it.
python3 -m venv --without-pip $venv
pip=$(echo /usr/share/python-wheels/pip-*.whl)/pip
python3 "$pip" --python $venv install -q --no-cache-dir --disable-pip-version-check \
    --root-user-action ignore -r $release/code/requirements.txt gunicorn
chown -R root:$app $venv
chmod 0750 $venv

# Its environment
secret=$(python3 -c 'import secrets; print(secrets.token_urlsafe(38))')
(umask 027 && cat >/etc/deploykit/$app.env <<EOF
export DJANGO_SETTINGS_MODULE=config.settings
export SECRET_KEY=$secret
export ALLOWED_HOSTS=$domain
export CSRF_TRUSTED_ORIGINS=http://$domain,https://$domain
export STATIC_ROOT=$release/static
export MEDIA_ROOT=$home/media
export PYTHONUNBUFFERED=1
export LANG=C.UTF-8
export DATABASE_URL=postgresql://$app@/$app
export PGHOST=/var/run/postgresql
export PGUSER=$app
export PGDATABASE=$app
EOF
)
chgrp $app /etc/deploykit/$app.env

# PostgreSQL: sizes, role, database
cat >/etc/postgresql/15/main/conf.d/$app.conf <<EOF
$start
effective_cache_size = $((sold / 2))MB
work_mem = 16MB
maintenance_work_mem = 512MB
random_page_cost = 1.1
jit = off
EOF
systemctl reload postgresql@15-main
(cd / && runuser -u postgres -- psql -Xqv ON_ERROR_STOP=1) <<EOF
CREATE ROLE $app LOGIN;
CREATE DATABASE $app OWNER $app TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8';
REVOKE CONNECT ON DATABASE $app FROM PUBLIC;
EOF

# Tables and static files
python3 -m compileall -q -j 2 $release/code
cd $release/code
manage() {
    runuser -u $app -- sh -c '. "$1"; shift; exec "$@"' sh /etc/deploykit/$app.env $venv/bin/python -B manage.py "$@"
}
manage migrate --noinput --verbosity 0
manage collectstatic --noinput --verbosity 0
chmod -R u=rwX,g=rX,o= $release/static
chown -R $app:www-data $release/static

# gunicorn under supervisor
cat >/etc/deploykit/$app.gunicorn.py <<EOF
bind = ["unix:/run/$app/live.sock"]
umask = 0
workers = $workers
worker_class = "gthread"
threads = 2
timeout = 30
graceful_timeout = 30
forwarded_allow_ips = "*"
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
proc_name = "$app"
EOF
mkdir -p /usr/local/lib/deploykit /etc/systemd/system/supervisor.service.d
cat >/usr/local/lib/deploykit/with-env <<'EOF'
#!/bin/sh
file=$1
shift
. "$file"
exec "$@"
EOF
chmod 0755 /usr/local/lib/deploykit/with-env
cat >/etc/systemd/system/supervisor.service.d/$app.conf <<EOF
[Service]
OOMPolicy=continue
Restart=always
RestartSec=1
KillMode=mixed
TimeoutStopSec=120
EOF
systemctl daemon-reload
cat >/etc/supervisor/conf.d/$app.conf <<EOF
[program:$app]
command=/usr/local/lib/deploykit/with-env /etc/deploykit/$app.env $venv/bin/gunicorn --config /etc/deploykit/$app.gunicorn.py config.wsgi:application
directory=$release/code
user=$app
environment=HOME="$home/home",USER="$app",LOGNAME="$app"
umask=027
autorestart=true
stopwaitsecs=40
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/deploykit/$app.log
EOF
# `supervisorctl update` answers after startsecs; what counts is the first good answer, below.
supervisorctl update >/dev/null &

# nginx
cat >/etc/nginx/conf.d/$app.conf <<EOF
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    return 444;
}
server {
    listen 80;
    listen [::]:80;
    server_name $domain;
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
EOF
rm -f /etc/nginx/sites-enabled/default
nginx -t -q
systemctl reload nginx

# The proof. (A bare host has no curl, and installing one would make the ruler longer.)
python3 - $domain <<'EOF'
import sys, time, urllib.request
for attempt in range(300):
    try:
        request = urllib.request.Request("http://127.0.0.1/healthz", headers={"Host": sys.argv[1]})
        with urllib.request.urlopen(request, timeout=5) as answer:
            print("answers", answer.status)
            break
    except OSError:
        pass  # nginx takes up its new configuration in its own time, and gunicorn starts
    time.sleep(0.05)
else:
    sys.exit("the site does not answer")
EOF
rm -rf "$source"
