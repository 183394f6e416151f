#!/usr/bin/env bash
# Trains on a machine of Compute Engine, which shuts itself down at the end and is deleted after --hours at the latest.
#   train_machine.sh --project P --run NAME [options] -- data.path=gs://... head=mlp ...
# Options:
#   --zone Z          where, default europe-west1-b
#   --machine M       type of the machine, default n2-standard-8
#   --hours H         longest time, default 12
#   --image I         trainer, default the latest of the project's registry in the region of the zone
#   --spot            a cheaper machine that may be taken away
#   --dry-run         print what would be sent, send nothing
# Needs curl, gcloud and Python with PyYAML, which the extra 'train' brings.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  awk 'NR > 1 { if (!sub(/^# ?/, "")) exit; print }' "$0" >&2
  exit 2
}
project='' run='' zone=europe-west1-b machine=n2-standard-8 hours=12 image='' provisioning=STANDARD dry_run=''
while [ $# -gt 0 ]; do
  case $1 in
    --project | --run | --zone | --machine | --hours | --image)
      [ $# -gt 1 ] || usage
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    --spot) provisioning=SPOT ;;
    --dry-run) dry_run=1 ;;
    --) shift && break ;;
    *) usage ;;
  esac
  shift
done
[[ $project && $# -gt 0 && $run =~ ^[a-z]([a-z0-9-]{0,40}[a-z0-9])?$ && $hours =~ ^[1-9][0-9]*$ ]] || usage

region=${zone%-*}
mirror=gs://$project-enzyme-stability-runs/runs/$run
# A text in JSON is one in YAML too, on a single line.
quoted() { python3 -c 'import json, sys; print(json.dumps(sys.stdin.read().rstrip()))'; }
body=$("$here/fill.sh" "$here/instance.yaml" NAME="train-$run" ZONE="$zone" MACHINE="$machine" PROJECT="$project" \
  PROVISIONING="$provisioning" MAX_SECONDS=$((hours * 3600)) \
  IMAGE="${image:-$region-docker.pkg.dev/$project/enzyme-stability/enzyme-stability-trainer:latest}" \
  SETTINGS="$(printf '%s\n' "$@" "run_name=$run" "mirror=$mirror" | quoted)" SCRIPT="$(quoted <"$here/train_startup.sh")" |
  python3 -c 'import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin), indent=1))')
if [ -n "$dry_run" ]; then
  echo "$body"
  exit
fi
gcloud auth print-access-token | sed 's/^/Authorization: Bearer /' |
  curl --fail-with-body --silent --show-error --header @- --header 'Content-Type: application/json' --data-binary @<(echo "$body") \
    "https://compute.googleapis.com/compute/v1/projects/$project/zones/$zone/instances"
echo "the run will be in $mirror; its log: gcloud compute instances get-serial-port-output train-$run --zone $zone" >&2
