#!/bin/sh
# %{written_by}
# On a worker it gives nginx the limits of the daemon's requests; elsewhere it removes them.
# Where BEANSTALK_DISPATCH_PERIODIC_TASKS is off, another environment runs the tasks of cron.yaml.
set -e
case "$BEANSTALK_DISPATCH_PERIODIC_TASKS" in [Oo][Ff][Ff]) rm -f cron.yaml ;; esac
folder=%{staging}/conf.d/elasticbeanstalk
file=$folder/beanstalk_dispatch.conf
rm -f "$file"
case "$BEANSTALK_WORKER" in
  [Tt][Rr][Uu][Ee] | [Yy][Ee][Ss] | [Oo][Nn] | 1) ;;
  *) exit 0 ;;
esac
mkdir -p "$folder"
# The platform's server: gunicorn, or a container.
upstream=$(cat "$folder"/*.conf 2> /dev/null |
  sed -n 's/^ *proxy_pass *\([^;]*\);.*/\1/p' | head -n 1)
sed "s|UPSTREAM|${upstream:-http://127.0.0.1:8000}|" > "$file" <<'NGINX'
%{location}NGINX
