# shellcheck shell=bash disable=SC2034 # the names are used by the scripts that read this file
# What setup.sh and teardown.sh share: their options, names, and how gcloud is called.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  awk 'NR > 1 { if (!sub(/^# ?/, "")) exit; print }' "$0" >&2
  exit 2
}

# options ALLOWED "$@": sets project, region, billing_account, budget, github; cloud_sql, delete_data, yes, dry_run.
options() {
  local allowed=" $1 "
  shift
  while [ $# -gt 0 ]; do
    local name=${1#--}
    [[ $1 == --* && $allowed == *" $name "* || $allowed == *" $name= "* ]] || usage
    if [[ $allowed == *" $name= "* ]]; then
      [ $# -gt 1 ] || usage
      printf -v "${name//-/_}" %s "$2"
      shift
    else
      printf -v "${name//-/_}" 1
    fi
    shift
  done
  [[ $project =~ ^[a-z][a-z0-9-]{4,28}[a-z0-9]$ ]] || usage
}
project='' region=europe-west1 billing_account='' budget=100EUR github='' cloud_sql='' delete_data='' yes='' dry_run=''

# call WORDS...: gcloud for the project; with --dry-run the call is printed, quoted for a shell.
call() {
  if [ -n "$dry_run" ]; then
    printf '%q ' gcloud "$@" | sed 's/ $//'
    printf ' --project=%q\n' "$project"
  else
    gcloud "$@" "--project=$project"
  fi
}

# there WORDS...: whether gcloud finds something; it is looked for, and counts as there, with --dry-run too.
there() {
  if [ -n "$dry_run" ]; then
    call "$@"
  else
    [ -n "$(call "$@" 2>/dev/null </dev/null)" ]
  fi
}

account() { echo "$1@$project.iam.gserviceaccount.com"; }
bucket() { echo "gs://$project-enzyme-stability-$1"; }
readonly BUCKETS="data runs models" SECRETS="enzyme-stability-database enzyme-stability-keys" NAME=enzyme-stability

# The lines of access.yaml as: account, place, role.
rights() { sed -n 's/^- {account: \([^,]*\), at: \([^,]*\), role: \([^}]*\)}$/\1 \2 \3/p' "$here/access.yaml"; }
accounts() { rights | cut -d ' ' -f 1 | sort -u; }
