#!/bin/bash
# What the machine of instance.yaml (Container-Optimized OS) does when it is up: train from the image, then shut down, whatever
# happens. The trainer copies its run to the bucket as it goes and takes it up from there on another machine.
set -euo pipefail
trap 'shutdown -h now' EXIT

attribute() {
  curl --fail --silent --retry 5 --header 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
image=$(attribute trainer-image)
attributes=$(attribute trainer-settings)
mapfile -t settings <<<"$attributes"

# The root of this system cannot be written to.
export HOME=/var/tmp/trainer
mkdir -p "$HOME"
docker-credential-gcr configure-docker --registries="${image%%/*}"
docker run --rm --name trainer --entrypoint python "$image" -m enzyme_stability.cloud.trial "${settings[@]}"
