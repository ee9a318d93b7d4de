#!/bin/bash
# The ruler: what a careful person's shell script does to bring Django apps to a Debian 12 host, as fast as it can be
# done. One connection, one command on the host. Nothing that such a script need not do: no slots, no plan, no proof
# that a release works before people see it.
#
#   deploy.sh PROJECT HOST [SSH OPTION...]
#
# PROJECT is a git repository; what is committed counts. `apps.txt` has a line for each app, `NAME DOMAIN`; NAME/ is its
# source with requirements.txt and manage.py, NAME.env its own variables, one NAME=value to a line.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
project=$1 host=$2
shift 2
cd "$project"

# What should be: git knows the digest of every source and of every list of requirements.
state() {
    local objects=()
    while read -r name _; do objects+=("HEAD:$name" "HEAD:$name/requirements.txt"); done <apps.txt
    git rev-parse "${objects[@]}" | while read -r tree && read -r wheels && read -r name domain <&5; do
        echo "app $name $domain $tree $wheels"
        while read -r line; do echo "env $line"; done <"$name.env"
    done 5<apps.txt
    echo end
}

# The script is the command, so that its standard input is free: the state goes there; the host answers with the apps
# whose source it lacks, and that follows.
coproc remote { ssh -T "$@" "$host" "$(<"$here/host.sh")"; }
pid=$remote_PID
exec 3<&"${remote[0]}" 4>&"${remote[1]}"
eval "exec ${remote[0]}<&- ${remote[1]}>&-"
state >&4
while read -r word rest <&3; do
    if [ "$word" = lacks ]; then
        read -ra lacks <<<"$rest"
        if [ ${#lacks[@]} -gt 0 ]; then git archive --format=tar.gz HEAD "${lacks[@]}" >&4; fi
        exec 4>&-
    else
        echo "$word $rest"
    fi
done
wait "$pid"
