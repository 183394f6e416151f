#!/usr/bin/env bash
# Deletes what setup.sh has made and Cloud Build has deployed. Buckets with data and the database stay, unless told otherwise.
#   teardown.sh --project P [options]
# Options:
#   --region R              as for setup.sh, default europe-west1
#   --billing-account B     also deletes the budget
#   --delete-data           also deletes the database and the buckets with all that is in them
#   --yes                   do not ask
#   --dry-run               print every call, one a line, and make none

source "$(dirname "${BASH_SOURCE[0]}")/calls.sh"
options "project= region= billing-account= delete-data yes dry-run" "$@"

if [ -z "$yes$dry_run" ]; then
  read -rp "This deletes the service, images, secrets and accounts${delete_data:+ AND ALL DATA} of $project. Its name to go on: " typed || true
  [ "$typed" = "$project" ] || { echo "that is not $project: nothing was deleted" >&2 && exit 2; }
fi

# remove DESCRIBE... -- DELETE...: deletes what is there; a dry run prints both calls.
remove() {
  local looked=()
  while [ "$1" != -- ]; do
    looked+=("$1")
    shift
  done
  shift
  if there "${looked[@]}"; then call "$@" --quiet; fi
}

remove run services describe $NAME "--region=$region" -- run services delete $NAME "--region=$region"
remove builds triggers describe $NAME-main "--region=$region" -- builds triggers delete $NAME-main "--region=$region"
remove artifacts repositories describe $NAME "--location=$region" -- artifacts repositories delete $NAME "--location=$region"

for name in $SECRETS; do
  remove secrets describe "$name" -- secrets delete "$name"
done

while read -r name place role <&3; do
  if [ "$place" = project ]; then
    remove iam service-accounts describe "$(account "$name")" -- projects remove-iam-policy-binding "$project" \
      "--member=serviceAccount:$(account "$name")" "--role=$role" --condition=None || true # it may not have had it
  fi
done 3< <(rights)
for name in $(accounts); do
  remove iam service-accounts describe "$(account "$name")" -- iam service-accounts delete "$(account "$name")"
done

if [ -n "$billing_account" ]; then
  made=BUDGET
  if [ -z "$dry_run" ]; then
    made=$(call billing budgets list "--billing-account=$billing_account" "--filter=displayName=$NAME" '--format=value(name)')
  fi
  if [ -n "$made" ]; then call billing budgets delete "$made" "--billing-account=$billing_account" --quiet; fi
fi

if [ -n "$delete_data" ]; then
  remove sql instances describe $NAME -- sql instances delete $NAME
  for name in $BUCKETS; do
    remove storage buckets describe "$(bucket "$name")" -- storage rm "$(bucket "$name")" --recursive
  done
else
  for name in $BUCKETS; do
    remove storage buckets describe "$(bucket "$name")" -- storage buckets delete "$(bucket "$name")" ||
      echo "$(bucket "$name") holds data and stays; --delete-data deletes it" >&2
  done
fi
