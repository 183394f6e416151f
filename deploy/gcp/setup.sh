#!/usr/bin/env bash
# Makes in a project of Google Cloud what training and serving need. May be run again: what is there stays.
#   setup.sh --project P [options]
# Options:
#   --region R              where, default europe-west1
#   --billing-account B     also a budget that mails, of --budget a month (default 100EUR)
#   --github OWNER/NAME     also the trigger that builds and deploys what reaches main
#   --cloud-sql             also a PostgreSQL instance for the service, which costs money day and night
#   --dry-run               print every call, one a line, and make none

source "$(dirname "${BASH_SOURCE[0]}")/calls.sh"
options "project= region= billing-account= budget= github= cloud-sql dry-run" "$@"

# ensure DESCRIBE... -- CREATE...: makes what is not there; a dry run prints both calls.
ensure() {
  local looked=()
  while [ "$1" != -- ]; do
    looked+=("$1")
    shift
  done
  shift
  if there "${looked[@]}" && [ -z "$dry_run" ]; then return; fi
  call "$@"
}

call services enable aiplatform.googleapis.com artifactregistry.googleapis.com billingbudgets.googleapis.com \
  cloudbuild.googleapis.com compute.googleapis.com iam.googleapis.com run.googleapis.com secretmanager.googleapis.com \
  sqladmin.googleapis.com storage.googleapis.com

ensure artifacts repositories describe $NAME "--location=$region" -- \
  artifacts repositories create $NAME "--location=$region" --repository-format=docker

for name in $BUCKETS; do
  ensure storage buckets describe "$(bucket "$name")" -- storage buckets create "$(bucket "$name")" "--location=$region" \
    --uniform-bucket-level-access --public-access-prevention
  # Runs are written over and over as they grow; of tables and predictors the older versions are kept for a while.
  versions=--versioning
  if [ "$name" = runs ]; then versions=--no-versioning; fi
  call storage buckets update "$(bucket "$name")" "--lifecycle-file=$here/lifecycle.$name.json" $versions
done

for name in $SECRETS; do
  ensure secrets describe "$name" -- secrets create "$name" --replication-policy=user-managed "--locations=$region"
done

for name in $(accounts); do
  ensure iam service-accounts describe "$(account "$name")" -- iam service-accounts create "$name"
done

while read -r name place role <&3; do
  right=("--member=serviceAccount:$(account "$name")" "--role=$role")
  case $place in
    project) call projects add-iam-policy-binding "$project" "${right[@]}" --condition=None ;;
    images) call artifacts repositories add-iam-policy-binding $NAME "--location=$region" "${right[@]}" ;;
    bucket/*) call storage buckets add-iam-policy-binding "$(bucket "${place#*/}")" "${right[@]}" ;;
    secret/*) call secrets add-iam-policy-binding "${place#*/}" "${right[@]}" ;;
    account/*) call iam service-accounts add-iam-policy-binding "$(account "${place#*/}")" "${right[@]}" ;;
    *) echo "access.yaml: there is no place $place" >&2 && exit 2 ;;
  esac
done 3< <(rights)

if [ -n "$cloud_sql" ]; then
  ensure sql instances describe $NAME -- sql instances create $NAME "--region=$region" --database-version=POSTGRES_16 \
    --edition=enterprise --tier=db-f1-micro --storage-size=10 --backup-start-time=03:00
  ensure sql databases describe enzyme_stability --instance=$NAME -- sql databases create enzyme_stability --instance=$NAME
fi

if [ -n "$billing_account" ]; then
  [[ $budget =~ ^([0-9]+)([A-Z]{3})$ ]] || usage
  text=$("$here/fill.sh" "$here/budget.yaml" PROJECT="$project" AMOUNT="${BASH_REMATCH[1]}" CURRENCY="${BASH_REMATCH[2]}")
  amount=$(sed -n 's/.*currencyCode: "\(.*\)", units: "\(.*\)".*/\2\1/p' <<<"$text")
  thresholds=()
  while read -r flag; do
    thresholds+=("$flag")
  done < <(
    sed -n 's/.*thresholdPercent: \(.*\), spendBasis: \(.*\)_SPEND}/--threshold-rule=percent=\1,basis=\2-spend/p' <<<"$text" |
      tr '[:upper:]' '[:lower:]'
  )
  ensure billing budgets list "--billing-account=$billing_account" "--filter=displayName=$NAME" '--format=value(name)' -- \
    billing budgets create "--billing-account=$billing_account" --display-name=$NAME "--budget-amount=$amount" \
    "--filter-projects=projects/$project" --calendar-period=month "${thresholds[@]}"
fi

if [ -n "$github" ]; then
  [[ $github == ?*/?* ]] || usage
  trigger=$("$here/fill.sh" "$here/trigger.yaml" PROJECT="$project" REGION="$region" GITHUB_OWNER="${github%%/*}" \
    GITHUB_NAME="${github#*/}")
  ensure builds triggers describe $NAME-main "--region=$region" -- \
    builds triggers import --source=- "--region=$region" <<<"$trigger"
fi
