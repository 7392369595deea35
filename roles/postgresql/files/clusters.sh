# Prints whether a program listens on the port $port, then one line of JSON for each cluster below /etc/postgresql.
# A cluster that runs says itself which databases it has; of one that does not, the numbers of its databases are printed.
hex=$(printf '%04X' "${port:?}")
if grep -Eqs "^ *[0-9]+: [0-9A-F]+:$hex [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6; then echo true; else echo false; fi
command -v pg_lsclusters > /dev/null || exit 0
query="SELECT json_build_object('listens', current_setting('listen_addresses'), 'databases',
    COALESCE((SELECT json_agg(datname ORDER BY datname) FROM pg_database
              WHERE NOT datistemplate AND datname <> 'postgres'), '[]'),
    'encodings', (SELECT json_object_agg(datname, pg_encoding_to_char(encoding)) FROM pg_database))"
flag() { if "$@"; then echo true; else echo false; fi; }
pg_lsclusters --no-header | while read -r version name at status owner data _; do
    etc=/etc/postgresql/$version/$name
    case $status in
    online*) server=$(cd / && runuser -u postgres -- psql --no-psqlrc --no-password --no-align --tuples-only --quiet \
        --port="$at" --dbname=postgres --command="$query" < /dev/null 2> /dev/null | tr -d '\n') ;;
    # Numbers below 16384 are those of a new cluster.
    *) server=$(find "$data/base" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' 2> /dev/null |
        awk '$1 >= 16384 { list = list (list ? ", " : "") "\"" $1 "\"" } END { print "{\"databases\": [" list "]}" }') ;;
    esac
    printf '{"version": "%s", "name": "%s", "port": %s, "status": "%s", "owner": "%s", "own": %s, "shared": %s, ' \
        "$version" "$name" "$at" "$status" "$owner" "$(flag test -e "$etc/conf.d/labredes.conf")" \
        "$(flag grep -qs '^# BEGIN labredes.pbx' "$etc/pg_hba.conf")"
    printf '"included": %s, "server": %s}\n' \
        "$(flag grep -Eqs "^[[:space:]]*include_dir[[:space:]=]+'?conf\.d'?" "$etc/postgresql.conf")" "${server:-null}"
done
