#!/bin/sh
# Builds a local box from the distribution's packages, for machines that cannot download or virtualise:
#     vagrant/image.sh docker [SUITE [PACKAGE,PACKAGE... [IMAGE]]]    an image for the docker provider
#     vagrant/image.sh lxc [SUITE [PACKAGE,PACKAGE... [BOX]]]         a box for vagrant-lxc, added to Vagrant
# SUITE is bookworm (Debian 12) when not given; the name is deploykit-SUITE. Needs root on Debian or Ubuntu, with
# mmdebstrap and vagrant. Takes half a minute; nothing is done when it is there already.
set -eu

kind=${1:-}
suite=${2:-bookworm}
further=${3:-}
name=${4:-deploykit-$suite}

# As the distribution's own cloud images have it; no curl, git or nginx, so that a recipe that forgets one fails here.
packages=apt-utils,ca-certificates,dbus,gnupg,hostname,iproute2,iputils-ping,less,libpam-systemd,locales,netbase
packages=$packages,openssh-server,procps,python3,sudo,systemd,systemd-sysv,tzdata${further:+,$further}
# Docker gives a container its address and name servers; LXC has them asked for, by DHCP.
if [ "$kind" = lxc ]; then packages=$packages,systemd-resolved; fi
made=$(printf '%s %s' "$suite" "$packages" | cat - "$0" | sha256sum | cut -c 1-16)

fail() {
    printf 'vagrant/image.sh: %s\n' "$1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "needs root: run it with sudo"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: apt-get install mmdebstrap"
case $kind in
docker)
    docker info >/dev/null 2>&1 || fail "no Docker answers: start it (systemctl start docker), or look at \`docker info\`"
    if docker image inspect -f '{{json .Config.Labels}}' "$name" 2>/dev/null | grep -q "$made"; then exit 0; fi
    ;;
lxc)
    if vagrant box list 2>/dev/null | grep -q "^$name  *(lxc"; then exit 0; fi
    ;;
*) fail "say for which provider: docker or lxc" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# What runs in the new system, before it boots for the first time.
cat >"$work/setup" <<'SETUP'
set -eu
echo 'LANG=C.UTF-8' > /etc/default/locale
useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL:ALL) NOPASSWD:ALL' > /etc/sudoers.d/90-vagrant
chmod 0440 /etc/sudoers.d/90-vagrant
install -d -m 0700 -o vagrant -g vagrant /home/vagrant/.ssh
install -m 0600 -o vagrant -g vagrant /root/vagrant.pub /home/vagrant/.ssh/authorized_keys
rm /root/vagrant.pub

# Each machine makes host keys of its own at its first boot.
rm -f /etc/ssh/ssh_host_*
cat > /etc/systemd/system/first-boot.service <<'UNIT'
[Unit]
Description=Host keys of this machine's own
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
[Install]
WantedBy=multi-user.target
UNIT

# Docker mounts its own /etc/hosts, /etc/hostname and /etc/resolv.conf over the machine's. A file that is a mount
# cannot be replaced: hostnamectl fails, and so does whoever writes beside it and renames. So they become files.
cat > /usr/local/sbin/own-etc <<'SCRIPT'
#!/bin/sh
set -eu
for file in /etc/hosts /etc/hostname /etc/resolv.conf; do
    mountpoint -q "$file" || continue
    content=$(cat "$file")
    umount "$file"
    # What was written since the first boot stays; only the name servers may have changed outside.
    if [ ! -s "$file" ] || [ "$file" = /etc/resolv.conf ]; then printf '%s\n' "$content" > "$file"; fi
done
SCRIPT
chmod 0755 /usr/local/sbin/own-etc
: > /etc/hosts; : > /etc/hostname; rm -f /etc/resolv.conf; : > /etc/resolv.conf
cat > /etc/systemd/system/own-etc.service <<'UNIT'
[Unit]
Description=Files instead of Docker's mounts in /etc
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/own-etc
[Install]
WantedBy=sysinit.target
UNIT

systemctl --quiet enable first-boot.service own-etc.service
# Waiting for a network that somebody else configures takes two minutes; apt's timers take its lock when they like.
systemctl --quiet mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
    console-getty.service getty@.service systemd-firstboot.service
: > /etc/machine-id
SETUP

if [ "$kind" = lxc ]; then
    cat >>"$work/setup" <<'SETUP'
printf '[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\n' > /etc/systemd/network/10-eth0.network
systemctl --quiet enable systemd-networkd.service systemd-resolved.service
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
SETUP
fi

# The public half of the key that every Vagrant has: Debian's package keeps it in one folder, HashiCorp's in another.
find /usr/share/rubygems-integration /opt/vagrant -path '*/vagrant-*/keys/vagrant.pub*' -exec cat {} + \
    >"$work/vagrant.pub" 2>/dev/null || true
[ -s "$work/vagrant.pub" ] || fail "Vagrant's public key is not found: apt-get install vagrant"

# What this machine trusts, and how it reaches its mirror: a company's own authority is needed inside, too.
mkdir -p "$work/own/etc/ssl/certs" "$work/own/etc/apt/apt.conf.d" "$work/own/usr/local/share/ca-certificates"
for file in /usr/local/share/ca-certificates/*.crt; do
    if [ -f "$file" ]; then cp "$file" "$work/own$file"; fi
done
apt-config dump | grep -E '^Acquire::(http::Proxy|https::Proxy|Check-Valid-Until|Check-Date) ' \
    >"$work/own/etc/apt/apt.conf.d/90outer" || true

case $suite in
jammy | noble | resolute) components=main,universe ;;
*) components=main ;;
esac
echo "building $name from the packages of $suite (half a minute or more, once)" >&2
unshare --mount --propagation private -- mmdebstrap --quiet --mode=root --variant=minbase \
    --dpkgopt=force-unsafe-io --components="$components" --include="$packages" \
    --customize-hook="sync-in $work/own /" \
    --customize-hook="upload $work/vagrant.pub /root/vagrant.pub" \
    --customize-hook="upload $work/setup /root/setup" \
    --customize-hook='chroot "$1" update-ca-certificates >/dev/null 2>&1' \
    --customize-hook='chroot "$1" sh /root/setup' \
    --customize-hook='rm "$1/root/setup"' \
    "$suite" "$work/root.tar"

case $kind in
docker)
    docker import -c 'CMD ["/sbin/init"]' -c 'EXPOSE 22' -c 'ENV container=docker' -c "LABEL deploykit=$made" \
        "$work/root.tar" "$name" >/dev/null
    ;;
lxc)
    mkdir "$work/box"
    gzip -1 <"$work/root.tar" >"$work/box/rootfs.tar.gz"
    cat >"$work/box/metadata.json" <<'JSON'
{"provider": "lxc", "version": "1.0.0", "template-opts": {"--strip-components": "1"}}
JSON
    cat >"$work/box/lxc-config" <<'CONFIG'
lxc.include = /usr/share/lxc/config/common.conf
lxc.apparmor.profile = unconfined
lxc.tty.max = 0
CONFIG
    tar -C "$work/box" -cf "$work/$name.box" metadata.json lxc-config rootfs.tar.gz
    vagrant box add --force --name "$name" "$work/$name.box"
    ;;
esac
