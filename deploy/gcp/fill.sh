#!/usr/bin/env bash
# Prints a file with its ${NAME}s filled in; refuses one that is left over.
#   fill.sh FILE NAME=VALUE...
set -euo pipefail
shopt -u patsub_replacement 2>/dev/null || true # where bash knows it, an & in a value would stand for the name

text=$(<"$1")
for given in "${@:2}"; do
  text=${text//"\${${given%%=*}}"/${given#*=}}
done
if left=$(grep -o "[$]{[A-Z_]*}" <<<"$text"); then
  echo "$1 also needs ${left//$'\n'/ }" >&2
  exit 2
fi
printf '%s\n' "$text"
